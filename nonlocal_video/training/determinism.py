"""Deterministic training: only algorithms that give the same bits every time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nonlocal_video.errors import UsageError

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_SWITCH = "torch.use_deterministic_algorithms(True)"
"""Text in every error that PyTorch raises for an operation without a deterministic algorithm."""


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Use deterministic algorithms in this block if `wanted`, and restore the setting of the process afterwards.

    Raises:
        UsageError: An operation has no deterministic algorithm on this device.
    """
    if not wanted:
        yield
        return
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    workspace = os.environ.get(_CUBLAS)
    os.environ.setdefault(_CUBLAS, ":4096:8")  # read at the process's first matrix product on a GPU
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if _SWITCH not in str(error):
            raise
        raise UsageError(
            f"deterministic = True is not possible on this device: {str(error).splitlines()[0]} Train with --set "
            f"deterministic=false."
        ) from error
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        if workspace is None:
            del os.environ[_CUBLAS]
