"""Refuse to start where a name inside a library, which a protection of the server relies on, is missing."""

from __future__ import annotations

from importlib.metadata import version

from nonlocal_video.errors import UsageError


def require(owner: object, name: str, *, library: str, purpose: str) -> None:
    """Check that a library still has a name that is no part of its public interface.

    To assign to such a name, or to override it, succeeds silently when a release has renamed it. The server would
    then run without what the name protects.

    Args:
        owner: The module, class or instance that should have it.
        name: The attribute.
        library: The library's name on the package index.
        purpose: What does not work without it, as the end of a sentence.

    Raises:
        UsageError: The name is missing.
    """
    if not hasattr(owner, name):
        raise missing(f"{getattr(owner, '__name__', type(owner).__name__)}.{name}", library=library, purpose=purpose)


def missing(what: str, *, library: str, purpose: str) -> UsageError:
    """Return the error that ends the start: what is missing, where, what it is for, what to do."""
    return UsageError(
        f"{library} {version(library)} has no {what}, which this server needs {purpose}. It does not start without. "
        f"Install the versions that were tested together: pip install -c constraints.txt nonlocal-video"
    )
