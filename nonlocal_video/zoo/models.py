"""Listing of models by name, and download of their weights."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from pathlib import Path

from nonlocal_video.errors import ModelError
from nonlocal_video.zoo.catalogue import EMBEDDED, entries, entry, find


def list_models(pattern: str = "*") -> list[str]:
    """Return the names that `load`, `pull` and `build` accept, sorted.

    Args:
        pattern: Shell-style pattern (`*`, `?`, `[...]`) for the names.

    Example:
        >>> import nonlocal_video as nlv
        >>> nlv.list_models("i3d-nl-r50-*pyslowfast")
        ['i3d-nl-r50-8x8-k400-pyslowfast']
    """
    return sorted(fnmatch.filter([*EMBEDDED, *entries()], pattern))


def pull(
    name: str,
    *,
    accept_licence: bool = False,
    notify: Callable[[str], None] = lambda sentence: None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Path:
    """Download a model's published weights, check and convert them; do nothing if they are here.

    Args:
        name: Catalogue name; see `list_models`.
        accept_licence: Consent to a licence that forbids commercial use, if the model has one.
        notify: Called with sentences about the progress.
        progress: Called with the bytes received and, where the publisher states it, the size of the whole file.

    Returns:
        The safetensors file, which `load` finds by the same name.

    Raises:
        ModelError: If there is no such model, or its weights cannot be downloaded, have another hash or cannot be
            converted.
        UsageError: If the licence was not accepted.

    Example:
        >>> nlv.pull("default").name  # part of the package: nothing is downloaded
        'i3d-nl-k400.safetensors'
    """
    from nonlocal_video.zoo import download

    if name == "default" or name in EMBEDDED:
        return find(name)
    row = entry(name)
    if row.download is None:
        raise ModelError(f"No weights were ever published for {name!r}; nlv.build({name!r}) gives the network alone.")
    return download.pull(row, accept_licence=accept_licence, notify=notify, progress=progress)
