"""List models by name, and get their weights."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from pathlib import Path

from nonlocal_video.errors import ModelError
from nonlocal_video.zoo.catalogue import EMBEDDED, entries, entry, find


def list_models(pattern: str = "*") -> list[str]:
    """Return the names that `load`, `pull` and `build` know, sorted.

    Args:
        pattern: Shell-style pattern (`*`, `?`, `[...]`) that names have to match.

    Example:
        >>> import nonlocal_video as nlv
        >>> nlv.list_models("i3d-nl-r50-*pyslowfast")
        ['i3d-nl-r50-8x8-k400-pyslowfast']
    """
    return sorted(fnmatch.filter([*EMBEDDED, *entries()], pattern))


def pull(name: str, *, accept_licence: bool = False, notify: Callable[[str], None] = lambda sentence: None) -> Path:
    """Download a model's published weights, check and convert them; do nothing if they are here.

    Args:
        name: Catalogue name; see `list_models`.
        accept_licence: Agree to a licence that forbids commercial use, where the model has one.
        notify: Called with sentences about the progress.

    Returns:
        The safetensors file, which `load` takes by the same name.

    Raises:
        ModelError: There is no such model, or its weights cannot be had, are not the published ones, or do not convert.
        UsageError: The licence was not accepted.
    """
    from nonlocal_video.zoo import download

    if name == "default" or name in EMBEDDED:
        return find(name)
    row = entry(name)
    if row.download is None:
        raise ModelError(f"No weights were ever published for {name!r}; nlv.build({name!r}) gives the network alone.")
    return download.pull(row, accept_licence=accept_licence, notify=notify)
