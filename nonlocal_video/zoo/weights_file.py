"""Reader of files of published weights, PyTorch's or Caffe2's, that never runs anything in them."""

from __future__ import annotations

import hashlib
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nonlocal_video.errors import ModelError
from nonlocal_video.models.checkpoint import check_is_weights, without_wrappers
from nonlocal_video.zoo.numpy_pickle import read_numpy_pickle

_LEGACY_TORCH = b"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # start of files of PyTorch before 1.6
_SAFETENSORS = re.compile(rb".{8}\{", re.DOTALL)  # a length, then JSON
_WRAPPERS = ("model_state", "state_dict")  # PySlowFast and PyTorchVideo; MMAction2 and kenshohara
_PREFIX = "model."  # of PyTorchVideo's files made by PySlowFast


class _Record:
    """Substitute for an object of a training log: accepts anything, does nothing, and is dropped."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


# MMEngine keeps its log in the checkpoint, and some files of MMAction2 have it. These are the names in it.
_LOG_NAMES = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",  # how a method of HistoryBuffer is pickled
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.ndarray",
    "numpy.dtype",
)


@dataclass(frozen=True)
class WeightsFile:
    """Tensors of a file, by the names of its project."""

    path: Path
    """The file."""
    sha256: str
    """SHA-256 of the file."""
    tensors: dict[str, Tensor]
    """Tensors in float32, or integers for counters, without the prefixes of DataParallel, torch.compile and others."""
    ignored: tuple[str, ...]
    """Other names at the top level of the file: the optimiser, the epoch and the like."""


def read_weights_file(path: str | Path) -> WeightsFile:
    """Read the weights in a checkpoint.

    Raises:
        ModelError: If there is no such file, it is damaged, or it contains anything but tensors and plain values.
    """
    path = Path(path)
    check_is_weights(path)
    with path.open("rb") as file:
        beginning = file.read(len(_LEGACY_TORCH))
        file.seek(0)
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    if zipfile.is_zipfile(path) or beginning == _LEGACY_TORCH:
        content = _load_torch(path)
    elif _SAFETENSORS.match(beginning):
        raise ModelError(f"{path} is a safetensors file; one that this project saved is used as it is: nlv.load(PATH).")
    else:
        try:
            content = read_numpy_pickle(path.read_bytes())
        except ModelError as error:
            raise ModelError(f"{path} is neither a PyTorch file nor a pickle of Caffe2 blobs: {error}") from error
    tensors, ignored = _unwrap(path, content)
    return WeightsFile(path, digest.hexdigest(), tensors, ignored)


def _load_torch(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals([(_Record, name) for name in _LOG_NAMES]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # damage can cause any error
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named:
            raise ModelError(
                f"{path} asks for {named[1]}, which is not part of a tensor: not read, and nothing in it was run. "
                "Save the state dict alone, torch.save(model.state_dict(), FILE), where the file comes from."
            ) from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{path} cannot be read as a PyTorch file: {reason}") from error


def _unwrap(path: Path, content: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the tensors inside a checkpoint, and the names beside them."""
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds a {type(content).__name__}; a dict of tensors is needed.")
    wrappers = [key for key in (*_WRAPPERS, "blobs") if isinstance(content.get(key), dict)]
    if len(wrappers) > 1:
        raise ModelError(f"{path} holds {' and '.join(wrappers)}; it is unclear which of them has the weights.")
    state = content[wrappers[0]] if wrappers else content
    ignored = tuple(sorted(str(key) for key in content if key not in wrappers)) if wrappers else ()
    tensors = {}
    for name, value in state.items():
        if isinstance(value, np.ndarray | np.generic):
            value = torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
        elif isinstance(value, int | float):
            value = torch.tensor(value)
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ModelError(f"{path} holds {name!r}, a {type(value).__name__}; only tensors by name are weights.")
        tensors[name] = value
    tensors = without_wrappers(tensors)
    while tensors and all(name.startswith(_PREFIX) for name in tensors):  # wrappers may be nested
        tensors = without_wrappers({name.removeprefix(_PREFIX): value for name, value in tensors.items()})
    return tensors, ignored
