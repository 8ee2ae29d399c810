"""The emulation of TF32 rounds as the format does, and reaches every convolution and matrix product."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from random_networks import KERNELS, clips_of, random_network, resnet_card
from torch import nn

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("precision_study", ROOT / "benchmarks" / "precision.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("nearest", "rounding"), [(True, np.rint), (False, np.trunc)])
def test_ten_bits_after_the_point_are_left(study: ModuleType, nearest: bool, rounding: np.ufunc) -> None:
    random = np.random.default_rng(0)
    values = (random.standard_normal(10_000) * 10.0 ** random.integers(-8, 8, 10_000)).astype(np.float32)
    values = np.concatenate([values, np.float32([0, 1, -1, 1 + 2**-11, 1 + 3 * 2**-11, 2 - 2**-12])])
    fraction, exponent = np.frexp(values.astype(np.float64))  # 0.5 <= |fraction| < 1: 11 bits of it count
    wanted = np.ldexp(rounding(fraction * 2**11) / 2**11, exponent)
    found = study.rounded(torch.from_numpy(values), nearest=nearest)
    assert np.array_equal(found.numpy(), wanted.astype(np.float32))


def test_a_layout_in_memory_is_kept(study: ModuleType) -> None:
    clip = torch.randn(2, 3, 4, 5, 6).contiguous(memory_format=torch.channels_last_3d)
    found = study.rounded(clip, nearest=True)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    assert 0 < (found - clip).abs().max() < 2**-10 * clip.abs().max()


@pytest.mark.parametrize("inference", [True, False])
def test_every_product_is_of_rounded_factors(study: ModuleType, inference: bool) -> None:
    layer, clip = nn.Conv3d(3, 4, 3), torch.randn(1, 3, 4, 8, 8)
    linear, rows = nn.Linear(16, 5), torch.randn(2, 7, 16)
    with torch.inference_mode(inference), torch.no_grad():
        with study.EmulatedTF32(nearest=True) as mode:
            found = layer(clip), linear(rows), rows @ rows.transpose(1, 2)
        assert mode.num_rounded == 3

        def coarse(tensor: torch.Tensor) -> torch.Tensor:
            return study.rounded(tensor, nearest=True)

        wanted = (
            nn.functional.conv3d(coarse(clip), coarse(layer.weight), layer.bias),
            coarse(rows) @ coarse(linear.weight).T + linear.bias,
            coarse(rows) @ coarse(rows).transpose(1, 2),
        )
    for of_one, of_other in zip(found, wanted, strict=True):
        assert (of_one - of_other).abs().max() < 1e-5


def test_a_network_moves_by_as_much_as_ten_bits_do(study: ModuleType) -> None:
    card = resnet_card(KERNELS)
    network, clips = random_network(card), torch.from_numpy(clips_of(card, 2))
    with torch.inference_mode():
        exact = network(clips)
        with study.EmulatedTF32(nearest=True):
            coarse = network(clips)
    assert 1e-5 < float((coarse - exact).abs().max() / exact.abs().max()) < 2e-2
