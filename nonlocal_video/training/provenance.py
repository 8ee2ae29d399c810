"""The configuration of a run: its settings, and what it was started with."""

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
"""On whose versions a run's numbers depend."""


def describe_start(command: Sequence[str]) -> dict[str, Any]:
    """Command, time (UTC) and versions."""
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
    """Return a warning about packages that differ from those of the run's start; empty if none does."""
    changed = [f"{name} was {earlier.get(name)} and is {now[name]}" for name in now if now[name] != earlier.get(name)]
    if not changed:
        return ()
    return (f"{', '.join(changed)}: the rest of the run need not be what it would have been, bit for bit.",)


def refuse_other_settings(
    folder: Path, earlier: Mapping[str, Any], now: Mapping[str, Any], may_differ: Collection[str]
) -> None:
    """Refuse settings other than those that the run began with.

    Args:
        folder: The run's.
        earlier: As they were read from JSON.
        now: As they would be read from JSON.
        may_differ: Dotted names on which nothing depends.

    Raises:
        UsageError: With every setting that differs.
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
            f"The run in {str(folder)!r} was begun with other settings: {differences}. Resume it with its own, or "
            f"choose another folder."
        )


def flatten_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` -> `{"a.b": 1}`; an empty dict is a value."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten_settings(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _shown(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "not there"
