"""Provenance of a run: the command, time and versions of each start, and the comparison of settings."""

from __future__ import annotations

import platform
import time
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from nonlocal_video.errors import UsageError

_PACKAGES = ("nonlocal-video", "torch", "torchvision", "av")
"""Packages whose versions affect the results of a run."""


def describe_start(command: Sequence[str]) -> dict[str, Any]:
    """Return the command, the time (UTC) and the versions of this start."""
    return {
        "command": list(command),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
            "torch": torch.__version__,  # with its build, such as +cpu
        },
    }


def note_changed_versions(earlier: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """Return a warning about packages whose version changed since the run was started; empty if none has."""
    changed = [f"{name} was {earlier.get(name)} and is {now[name]}" for name in now if now[name] != earlier.get(name)]
    if not changed:
        return ()
    return (f"{', '.join(changed)}: the rest of the run may differ from an uninterrupted one.",)


def refuse_other_settings(
    folder: Path, earlier: Mapping[str, Any], now: Mapping[str, Any], may_differ: Collection[str]
) -> None:
    """Check that a run is resumed with the settings that it was started with.

    Args:
        folder: Folder of the run.
        earlier: Settings of the run, as read from JSON.
        now: New settings, as they would be read from JSON.
        may_differ: Dotted names of settings that may change, as they do not affect the result.

    Raises:
        UsageError: A setting differs; the message lists all that do.
    """
    old, new = flatten_settings(earlier), flatten_settings(now)
    missing = object()
    changed = [
        name
        for name in dict.fromkeys([*new, *old])
        if old.get(name, missing) != new.get(name, missing)
        and not any(name == one or name.startswith(f"{one}.") for one in may_differ)
    ]
    if changed:
        differences = "; ".join(f"{name} was {_shown(old, name)} and is {_shown(new, name)}" for name in changed)
        raise UsageError(
            f"The run in {str(folder)!r} was started with other settings: {differences}. Resume it with its own "
            f"settings, or choose another folder."
        )


def flatten_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings: `{"a": {"b": 1}}` -> `{"a.b": 1}`; an empty dict is a value."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten_settings(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _shown(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "not there"
