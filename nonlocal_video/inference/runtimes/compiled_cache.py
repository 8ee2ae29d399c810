"""Compiled networks on disk, so that a network is compiled once a machine."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import threading
import time
import zlib
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nonlocal_video.errors import UsageError
from nonlocal_video.io import atomic_write
from nonlocal_video.models.card import ModelCard
from nonlocal_video.paths import cache_folder

FOLDER = "openvino"
"""Name of the folder in the cache folder."""
MAX_BYTES = 1 << 30
"""Maximum size of all entries; those that were not used for the longest time are deleted."""

_ENDING, _UNFINISHED = ".blob", ".part"
_CHECKSUM_BYTES = 4
_ABANDONED_SECONDS = 3600.0  # an unfinished file this old was left by a killed process
_PACKAGE = Path(__file__).resolve().parents[2]
_PROGRAM = ("blocks", "models", "attention/capture.py", "inference/aggregation.py", "inference/runtimes")
"""Our code that decides what is compiled."""
_OWN_MODULES = ("torch.nn.", "nonlocal_video.")
_log = logging.getLogger(__name__)


class CompiledCache:
    """A folder with an entry for each compiled network, shared by all processes of a user.

    An entry appears whole or not at all and has a checksum. A folder that cannot be written to keeps nothing, which is
    no error.
    """

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes

    @property
    def folder(self) -> Path | None:
        """The folder, which may not exist yet; None if the user has no cache folder."""
        try:
            return cache_folder() / FOLDER
        except UsageError:
            return None

    def entries(self) -> list[Path]:
        """Return the files of all entries, the one used last at the end."""
        found = []
        for path in [] if self.folder is None else self.folder.glob(f"*{_ENDING}"):
            with suppress(OSError):  # another process has deleted it
                found.append((path.stat().st_mtime, path))
        return [path for _, path in sorted(found)]

    def get(self, key: str) -> bytes | None:
        """Return what is stored under a key, or None if there is nothing or it is damaged."""
        if self.folder is None:
            return None
        path = self.folder / f"{key}{_ENDING}"
        try:
            stored = path.read_bytes()
            with suppress(OSError):  # in a read-only folder
                os.utime(path)
        except OSError:
            return None
        blob = stored[:-_CHECKSUM_BYTES]
        if len(stored) <= _CHECKSUM_BYTES or stored[-_CHECKSUM_BYTES:] != _checksum(blob):
            _log.warning("%s is damaged; the network is compiled again.", path)
            return None
        return blob

    def put(self, key: str, blob: bytes) -> None:
        """Store under a key, if the folder can be written to, and delete the oldest entries if there is no room."""
        folder = self.folder
        if folder is None or len(blob) + _CHECKSUM_BYTES > self.max_bytes:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # A name of its own: several processes may store the same network at the same time.
            part = folder / f".{key}.{os.getpid()}.{threading.get_ident()}{_UNFINISHED}"
            with atomic_write(folder / f"{key}{_ENDING}", part=part, sync=False) as file:
                file.write(blob)
                file.write(_checksum(blob))
        except (OSError, UsageError) as error:
            _log.debug("the compiled network is not kept: %s", error)
            return
        self._make_room(folder)

    def _make_room(self, folder: Path) -> None:
        with suppress(OSError):
            for path in folder.glob(f".*{_UNFINISHED}"):
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink(missing_ok=True)
        total = 0
        for path in reversed(self.entries()):
            with suppress(OSError):  # deleted by another process, or on Windows open in one
                total += path.stat().st_size
                if total > self.max_bytes:
                    path.unlink(missing_ok=True)


def entry_key(network: nn.Module, card: ModelCard, shape: tuple[int, ...], *, bfloat16: bool = False) -> str | None:
    """Return the key of a network that is compiled for views of a shape; None if it should not be kept.

    The key covers all that decides what the compiled network computes: weights and settings of all modules, the card's
    head, our code, versions of packages, and the CPU. The code of a network with modules of others, or with hooks,
    is not covered: it is compiled and checked in every process.

    Args:
        network: The network, on the CPU.
        card: Its model card.
        shape: (3, T, S, S).
        bfloat16: Whether it computes in bfloat16 in place of float32.
    """
    digest = hashlib.sha256()
    about = [torch.__version__, version("openvino"), _program(), _cpu(), shape, card.head_window, bfloat16]
    digest.update(json.dumps(about).encode())
    for name, module in network.named_modules():
        kind = type(module)
        if not f"{kind.__module__}.".startswith(_OWN_MODULES) or module._forward_hooks or module._forward_pre_hooks:
            return None
        digest.update(f"{name}: {kind.__module__}.{kind.__qualname__} {_settings(module)}\n".encode())
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # The bytes as they lie in memory, whatever the type; a single value has no view as bytes.
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _settings(module: nn.Module) -> list[tuple[str, str]]:
    """Return what a module has beside tensors and parts, such as its stride.

    A value that shows its address in memory makes a key that no other process has, so nothing wrong is found.
    """
    own = vars(module).keys() - vars(nn.Module()).keys()
    return sorted((name, repr(vars(module)[name])) for name in own)


@cache
def _program() -> str:
    """Return a digest of our code that decides what is compiled."""
    digest = hashlib.sha256()
    for part in _PROGRAM:
        path = _PACKAGE / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()


@cache
def _cpu() -> list[str]:
    """Return the kind of CPU, to whose instructions a compiled network may be bound."""
    kind = [platform.machine(), platform.processor(), torch.backends.cpu.get_cpu_capability()]
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        names = ("model name", "flags", "Features")
        kind += sorted({line for line in lines if line.partition("\t")[0] in names})
    return kind


def _checksum(blob: Any) -> bytes:
    return zlib.crc32(blob).to_bytes(_CHECKSUM_BYTES, "little")
