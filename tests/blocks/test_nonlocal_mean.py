"""The non-local mean with frozen embeddings equals what its formula says, row by row, in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tensor_watch import TensorWatch

from nonlocal_video.blocks import nonlocal_mean as module
from nonlocal_video.blocks.nonlocal_mean import (
    dot_product_mean,
    nonlocal_mean,
    nonlocal_mean_so_far,
    nonlocal_weights,
    softmax_scale,
)

Rows = NDArray[np.float64]


def row_weights(features: Rows, query: int, keys: list[int], temperature: float) -> Rows:
    """The weights of one query over some keys, restated."""
    mean = features[keys].sum(axis=0) / (len(keys) + 8)
    cosines = []
    for key in keys:
        a, b = features[query] - mean, features[key] - mean
        length = np.linalg.norm(a) * np.linalg.norm(b)
        cosines.append(a @ b / length if length > 1e-12 else 0.0)
    powers = np.exp(max(1 / temperature, math.log(len(keys))) * np.array(cosines))
    return np.asarray(powers / powers.sum())


def data(num: int, seed: int = 0, channels: int = 6, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    features = random.gamma(1.0, size=(num, channels))  # positive, as after a ReLU
    return torch.from_numpy(random.normal(size=(num, classes))), torch.from_numpy(features)


@pytest.mark.parametrize("num", [1, 2, 7, 300])  # 300: more keys than exp(1 / 0.2), so that the scale grows
@pytest.mark.parametrize("temperature", [0.1, 0.2])
def test_it_is_the_weighted_mean_that_the_formula_says(num: int, temperature: float) -> None:
    values, features = data(num)
    found = nonlocal_mean(values, features, temperature=temperature).numpy()
    rows = torch.cat(list(nonlocal_weights(features, temperature=temperature))).numpy()
    everything = list(range(num))
    for query in everything:
        expected = row_weights(features.numpy(), query, everything, temperature)
        np.testing.assert_allclose(rows[query], expected, atol=1e-12)
        np.testing.assert_allclose(found[query], expected @ values.numpy(), atol=1e-12)


def test_the_rows_of_some_positions() -> None:
    _, features = data(9)
    every = torch.cat(list(nonlocal_weights(features)))
    some = torch.cat(list(nonlocal_weights(features, torch.tensor([7, 0]))))
    torch.testing.assert_close(some, every[[7, 0]])


@settings(deadline=None, max_examples=40)
@given(num=st.integers(1, 12), first=st.integers(0, 11), band=st.none() | st.integers(0, 12), seed=st.integers(0, 99))
def test_while_it_runs_a_row_uses_what_came_before(num: int, first: int, band: int | None, seed: int) -> None:
    first = min(first, num - 1)
    values, features = data(num, seed)
    found = nonlocal_mean_so_far(values, features, first=first, band=band).numpy()
    for query in range(first, num):
        keys = list(range(0 if band is None else max(0, query - band), query + 1))
        expected = row_weights(features.numpy(), query, keys, 0.2) @ values.numpy()[keys]
        np.testing.assert_allclose(found[query - first], expected, atol=1e-7)


def test_the_last_row_is_exact_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values, features = (rows.float() for rows in data(200, channels=32))
    whole, so_far = nonlocal_mean(values, features), nonlocal_mean_so_far(values, features)
    torch.testing.assert_close(so_far[-1], whole[-1], atol=1e-5, rtol=0)
    monkeypatch.setattr(module, "CHUNK_ENTRIES", 1000)
    torch.testing.assert_close(nonlocal_mean_so_far(values, features), so_far, atol=1e-5, rtol=0)


def test_the_dot_product_form() -> None:
    values, features = data(40)
    z = features.numpy() - 40 / 48 * features.numpy().mean(axis=0)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    weights = 1 + z @ z.T
    expected = (weights / weights.sum(axis=1, keepdims=True)) @ values.numpy()
    np.testing.assert_allclose(dot_product_mean(values, features).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("operation", [nonlocal_mean, nonlocal_mean_so_far, dot_product_mean])
def test_nothing_of_the_size_of_all_pairs_is_held(operation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ENTRIES", 2**14)
    num = 4000
    values, features = torch.randn(num, 8), torch.rand(num, 8)
    with TensorWatch() as watch:
        operation(values, features)
    assert watch.largest < num * num / 50


def test_mixing_does_not_grow_with_the_number_of_positions() -> None:
    """Two windows of one scene among more and more that are nothing like it keep their weight."""
    kept = []
    for num in (10, 1000, 5000):
        random = np.random.default_rng(3)
        features = torch.from_numpy(random.normal(size=(num, 512)))
        features[1] = features[0]
        (weights,) = nonlocal_weights(features, torch.tensor([0]))
        kept.append(float(weights[0, :2].sum()))
    assert kept[0] > 0.95
    assert min(kept) > 0.6
    assert softmax_scale(5000) == pytest.approx(math.log(5000))
    fixed = np.exp(5.0)
    assert 2 * fixed / (2 * fixed + 4998) < 0.06  # what a fixed temperature of 0.2 would leave


def test_windows_that_are_all_the_same_keep_their_answer() -> None:
    values = torch.tensor([[3.0, 1.0]]).expand(50, 2)
    features = torch.rand(1, 64).expand(50, 64)
    for operation in (nonlocal_mean, nonlocal_mean_so_far, dot_product_mean):
        torch.testing.assert_close(operation(values, features), values.clone())


@pytest.mark.parametrize(("values", "features"), [((3, 2), (4, 2)), ((3,), (3, 2)), ((0, 2), (0, 2))])
def test_shapes_that_do_not_fit(values: tuple[int, ...], features: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"should be \(W, D\) and \(W, C\)"):
        nonlocal_mean(torch.zeros(values), torch.zeros(features))
