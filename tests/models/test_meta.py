"""Networks on the meta device: shapes as PyTorch finds them, without its compiler."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nonlocal_video.models.meta import OperatorMode, run_for_shapes


class _Shapes(OperatorMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run_for_shapes(func, args, kwargs or {})


def _results(x: Tensor) -> list[Tensor]:
    """Operators whose results are made by shape, and their neighbours that are not: other dtypes, training, vectors."""
    channels = torch.ones(4, device=x.device)
    ints = torch.ones(2, 4, 1, 5, 6, dtype=torch.int64, device=x.device)
    return [
        x + x[:, :, :1], x - 2, x * ints, x / x, x * x.double(), torch.add(x, x, alpha=2),
        F.relu(x), F.gelu(x), F.gelu(x, approximate="tanh"), x.clamp(min=0), F.hardtanh(x), F.leaky_relu(x, 0.1),
        F.batch_norm(x, channels, channels), F.batch_norm(x, channels, channels, training=True),
        torch.cat([x, x[:, :1]], 1), torch.cat([x, x], -1), torch.cat([x[0, 0], x.new_empty(0)]),
        torch.cat([ints, ints]), x.mean(), x.mean(1), x.mean((2, -1), keepdim=True),
        F.adaptive_avg_pool3d(x, 1), (x > 0).float(),
    ]  # fmt: skip


def test_results_have_the_shapes_and_dtypes_of_arithmetic() -> None:
    arithmetic = _results(torch.ones(2, 4, 3, 5, 6))
    with _Shapes():
        on_meta = _results(torch.empty(2, 4, 3, 5, 6, device="meta"))
    assert [(result.shape, result.dtype) for result in on_meta] == [
        (result.shape, result.dtype) for result in arithmetic
    ]
    assert all(result.is_meta for result in on_meta)


@pytest.mark.parametrize(
    "look",
    [
        "track_feature_maps(InceptionI3D(), (16, 64, 64), ['Mixed_5c'])['Mixed_5c']",
        "views_at_once(InceptionI3D(), (3, 16, 64, 64))",
    ],
)
def test_the_compiler_is_not_imported(look: str) -> None:
    """Its import takes seconds of the first map."""
    code = f"""
import sys
from nonlocal_video.inference.batch_limit import views_at_once
from nonlocal_video.models.inception3d import InceptionI3D
from nonlocal_video.models.receptive_field_tracker import track_feature_maps
before = "torch._dynamo" in sys.modules
assert {look}
print(before, "torch._dynamo" in sys.modules)
"""
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.split() == ["False", "False"]
