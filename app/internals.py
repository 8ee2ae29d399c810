"""Checks that library internals on which the server's protections rely still exist."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from starlette.routing import BaseRoute, Match

from nonlocal_video.errors import UsageError


def require(owner: object, name: str, *, library: str, purpose: str) -> None:
    """Check that a library still has a private name.

    Assigning to or overriding such a name succeeds silently after a release has renamed it, and the server would run
    without the protection.

    Args:
        owner: Module, class or instance that should have the name.
        name: Name of the attribute.
        library: Name of the library on the package index.
        purpose: What needs it, as the end of a sentence.

    Raises:
        UsageError: The name is missing.
    """
    if not hasattr(owner, name):
        raise missing(f"{getattr(owner, '__name__', type(owner).__name__)}.{name}", library=library, purpose=purpose)


def require_route(routes: Sequence[BaseRoute], method: str, path: str, *, library: str, purpose: str) -> None:
    """Check that a library still has a route that this server blocks, counts or wraps.

    Raises:
        UsageError: The route is missing.
    """
    asked = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
    if all(route.matches(asked)[0] != Match.FULL for route in routes):
        raise missing(f"route {path}", library=library, purpose=purpose)


def missing(what: str, *, library: str, purpose: str) -> UsageError:
    """Return the error for a missing internal: what, where, what needs it, what to do."""
    return UsageError(
        f"{library} {version(library)} has no {what}, which this server needs {purpose}. It does not start without. "
        f"Install the versions that were tested together: pip install -c constraints.txt nonlocal-video"
    )
