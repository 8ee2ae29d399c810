"""Folders of files that the project fetches once: one rule for samples, weights and all other caches."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from nonlocal_video.errors import OutputError, UsageError

CACHE_VARIABLE = "NONLOCAL_VIDEO_CACHE"
WEIGHTS_VARIABLE = "NONLOCAL_VIDEO_WEIGHTS"
SAMPLES_VARIABLE = "NONLOCAL_VIDEO_SAMPLES"
OFFLINE_VARIABLE = "NONLOCAL_VIDEO_OFFLINE"
_NAME = "nonlocal-video"


def cache_folder() -> Path:
    """Return `$NONLOCAL_VIDEO_CACHE`, else `nonlocal-video` in the user's cache folder (`$XDG_CACHE_HOME` on Linux).

    A variable that is empty counts as not set. Nothing is made.

    Raises:
        UsageError: Neither variable is set and the user has no home folder.
    """
    return _chosen(CACHE_VARIABLE) or _users_cache()


def weights_folder() -> Path:
    """Return `$NONLOCAL_VIDEO_WEIGHTS`, else `weights` in the cache folder."""
    return _chosen(WEIGHTS_VARIABLE) or cache_folder() / "weights"


def samples_folder() -> Path:
    """Return `$NONLOCAL_VIDEO_SAMPLES`, else `samples` in the cache folder."""
    return _chosen(SAMPLES_VARIABLE) or cache_folder() / "samples"


def is_offline() -> bool:
    """Return whether `$NONLOCAL_VIDEO_OFFLINE` forbids downloads; 0 and an empty value do not."""
    return os.environ.get(OFFLINE_VARIABLE, "0") not in ("", "0")


def make_cache_folder(name: str) -> Path:
    """Make a folder of this name in the cache folder, so that files can be written into it, and return it.

    Raises:
        OutputError: It cannot be made, or not be written to.
    """
    return make_folder(cache_folder() / name, CACHE_VARIABLE)


def make_folder(folder: Path, variable: str) -> Path:
    """Make a folder, so that files can be written into it, and return it.

    Args:
        folder: Folder to make.
        variable: Name of the environment variable that may name another one.

    Raises:
        OutputError: It cannot be made, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise OutputError(
            f"The folder {str(folder)!r} cannot be written to: {error.strerror}. {variable} may name another."
        ) from error
    return folder


def _chosen(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).expanduser() if value else None


def _users_cache() -> Path:
    try:
        folder = platformdirs.user_cache_path(_NAME, appauthor=False)
    except RuntimeError:  # a user without an entry in the list of users, as in a container
        folder = Path()
    if not folder.is_absolute():  # the same: "~" stayed
        raise UsageError(f"This user has no home folder for a cache; name a folder with {CACHE_VARIABLE}.")
    return folder
