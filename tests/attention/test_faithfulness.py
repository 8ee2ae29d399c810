"""Deletion and insertion against curves that can be worked out by hand, and the controls against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import multivariate_normal
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from nonlocal_video.attention.faithfulness import (
    Curve,
    Perturbation,
    blurred,
    centre_prior,
    displaced,
    make_baseline,
    mean_over_time,
    rank_correlation,
    rank_pixels,
    upsample,
    with_shuffled_weights,
)
from nonlocal_video.attention.geometry import CellGrid
from nonlocal_video.errors import UsageError

SIZE = (2, 3, 5)  # 30 pixels
PLANTED = np.zeros(SIZE, np.float32)
PLANTED[1, 1, 1:4] = 3, 2, 1  # a tenth of the pixels; the score rests on these alone


class Network:
    """Its score is the share of the planted pixels that still show the clip."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, clips: Tensor) -> list[float]:
        self.batches.append(len(clips))
        seen = clips[:, 0].numpy()[:, PLANTED > 0]  # ones where the clip is, zeros where it was taken away
        return [float(score) for score in seen.mean(axis=1)]


def planted(network: Network, **settings: int) -> Perturbation:
    clip = torch.ones(1, 3, *SIZE)
    return Perturbation(network, clip, torch.zeros_like(clip), **settings)


FRACTIONS = (0, 1 / 30, 2 / 30, 0.1, 0.5, 0.9, 28 / 30, 29 / 30, 1)


def test_the_true_map_has_the_best_areas_and_its_inverse_the_worst() -> None:
    perturbed = planted(Network())
    true = perturbed.curves(PLANTED, FRACTIONS)
    assert true.deletion.scores == pytest.approx((1, 2 / 3, 1 / 3, 0, 0, 0, 0, 0, 0))
    assert true.insertion.scores == pytest.approx((0, 1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1))
    # A triangle of 0.1 x 1; nothing can be smaller when the score rests evenly on a tenth of the pixels.
    assert true.deletion.area == pytest.approx(0.05)
    assert true.insertion.area == pytest.approx(0.95)
    inverse = perturbed.curves(-PLANTED, FRACTIONS)
    assert inverse.deletion.area == pytest.approx(0.95)
    assert inverse.insertion.area == pytest.approx(0.05)
    elsewhere = [perturbed.curves(values, FRACTIONS) for values in displaced(PLANTED, draws=29, seed=0)]
    deletion, insertion = ([getattr(one, name).area for one in elsewhere] for name in ("deletion", "insertion"))
    assert 0.05 < min(deletion) < max(deletion) <= 0.95
    assert 0.05 <= min(insertion) < max(insertion) < 0.95


def test_ends_are_the_clip_and_the_baseline_and_are_run_once() -> None:
    network = Network()
    perturbed = planted(network)
    for values in (PLANTED, -PLANTED):
        curves = perturbed.curves(values, (0, 0.5, 1))
        assert (curves.deletion.scores[0], curves.insertion.scores[-1]) == (1, 1)
        assert (curves.deletion.scores[-1], curves.insertion.scores[0]) == (0, 0)
    assert (perturbed.own_score, perturbed.baseline_score) == (1, 0)
    assert sum(network.batches) == 2 + 2 * 2


def test_batches_change_the_number_of_calls_and_nothing_else() -> None:
    network = Network()
    passes: list[int] = []
    together = Perturbation(
        network, torch.ones(1, 3, *SIZE), torch.zeros(1, 3, *SIZE), batch_size=4, on_pass=passes.append
    )
    assert together.curves(PLANTED, FRACTIONS) == planted(Network()).curves(PLANTED, FRACTIONS)
    assert network.batches == passes == [4, 3, 4, 3, 1, 1]


def test_scores_without_the_strongest_of_several_maps() -> None:
    assert planted(Network()).scores_without([PLANTED, -PLANTED], 2 / 30) == pytest.approx([1 / 3, 1])


def test_ties_are_ranked_by_time_row_and_column() -> None:
    values = np.array([[[1, 5], [5, 0]], [[1, 1], [9, 0]]], np.float32)
    assert rank_pixels(values).tolist() == [[[3, 1], [2, 6]], [[4, 5], [0, 7]]]


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (np.ones(SIZE, np.float32), UsageError, "same value everywhere"),
        (np.full(SIZE, np.nan, np.float32), ValueError, "not finite"),
    ],
)
def test_what_ranks_nothing_is_refused(values: NDArray[np.float32], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        planted(Network()).curves(values)
    if error is UsageError:
        with pytest.raises(UsageError, match=message):
            rank_correlation(values, PLANTED)


@pytest.mark.parametrize("fractions", [(), (0, 0), (0.5, 0.2), (-0.1, 1), (0, 1.1)])
def test_fractions_ascend_within_0_to_1(fractions: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="should ascend"):
        planted(Network()).curves(PLANTED, fractions)


def test_areas_are_of_whole_curves() -> None:
    assert Curve((0, 0.2, 1), (1, 0.5, 0)).area == pytest.approx(0.15 + 0.2)
    with pytest.raises(ValueError, match="begin with 0 and end with 1"):
        _ = Curve((0, 0.2), (1, 0.5)).area
    with pytest.raises(ValueError, match="should be"):
        Curve((0, 1), (1,))


def test_a_map_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="for each pixel of the input"):
        planted(Network()).curves(np.arange(8, dtype=np.float32).reshape(2, 2, 2))
    with pytest.raises(ValueError, match="should be the same"):
        Perturbation(Network(), torch.ones(1, 3, 2, 4, 4), torch.ones(1, 3, 2, 4, 5))


def test_values_on_the_input_are_those_of_numpys_own_interpolation() -> None:
    grid = CellGrid(size=(3, 2, 4), stride=(2, 8, 4), offset=(0.5, 3, -1))
    size = (7, 16, 15)
    cells = np.random.default_rng(0).normal(size=grid.size).astype(np.float32)
    expected = cells.astype(np.float64)
    for axis, length in enumerate(size):
        centres = [grid.centre(axis, index) for index in range(grid.size[axis])]
        expected = np.apply_along_axis(lambda line: np.interp(np.arange(length), centres, line), axis, expected)  # noqa: B023
    np.testing.assert_allclose(upsample(cells, grid, size), expected, atol=1e-5)


def test_the_map_averaged_over_time_is_the_same_in_every_frame() -> None:
    grid = CellGrid(size=(3, 2, 4), stride=(2, 8, 4), offset=(0, 0, 0))
    cells = np.random.default_rng(0).normal(size=grid.size).astype(np.float32)
    values = upsample(*mean_over_time(cells, grid), (6, 16, 16))
    whole = upsample(cells, grid, (5, 16, 16))  # frames 0, 2 and 4 are the centres of its cells
    np.testing.assert_allclose(values[0], whole[::2].mean(axis=0), atol=1e-5)
    assert (values == values[0]).all()


def test_displaced_maps_have_the_same_values_elsewhere() -> None:
    cells = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    draws = displaced(cells, draws=23, seed=1)
    assert len({one.tobytes() for one in [cells, *draws]}) == 24
    for one in draws:
        assert np.array_equal(np.sort(one, axis=None), np.sort(cells, axis=None))
        time, row, column = (int(index[0]) for index in np.nonzero(one == 0))
        assert one[(time + 1) % 2, (row + 2) % 3, (column + 3) % 4] == cells[1, 2, 3]
    again = displaced(cells, draws=23, seed=1)
    assert all(np.array_equal(one, other) for one, other in zip(draws, again, strict=True))
    with pytest.raises(UsageError, match="should be 1 to 23"):
        displaced(cells, draws=24, seed=0)


def test_the_centre_ranks_pixels_as_a_gaussian_does() -> None:
    size = (2, 7, 12)
    values = centre_prior(size)
    rows, columns = np.meshgrid(np.arange(7), np.arange(12), indexing="ij")
    gaussian = multivariate_normal((3, 5.5), 4**2).pdf(np.stack([rows, columns], axis=-1))
    assert values.shape == size
    assert (values == values[0]).all()
    assert np.array_equal(rank_pixels(values[0].round(6)), rank_pixels(gaussian.round(12).astype(np.float32)))


def test_the_blur_is_torchvisions_in_each_frame() -> None:
    clip = torch.randn(1, 3, 2, 40, 40)
    sigma, radius = 3.0, 12  # both are cut off after four standard deviations
    expected = gaussian_blur(clip[0].transpose(0, 1), [2 * radius + 1] * 2, [sigma] * 2).transpose(0, 1)
    torch.testing.assert_close(blurred(clip, sigma)[0], expected, atol=1e-5, rtol=0)
    wide = make_baseline(clip, "blur")
    torch.testing.assert_close(wide, blurred(clip, 40 / 16))
    assert wide.std() < 0.25 * clip.std()


def test_the_mean_colour_is_that_of_each_frame() -> None:
    clip = torch.randn(1, 3, 4, 6, 6)
    baseline = make_baseline(clip, "mean_colour")
    for channel in range(3):
        for frame in range(4):
            expected = clip[0, channel, frame].numpy().mean()
            np.testing.assert_allclose(baseline[0, channel, frame], np.full((6, 6), expected), atol=1e-6)
    with pytest.raises(UsageError, match="should be blur or mean_colour"):
        make_baseline(clip, "black")


def test_rank_correlation_is_that_of_the_ranks() -> None:
    one, other = np.random.default_rng(0).normal(size=(2, *SIZE)).astype(np.float32)
    expected = np.corrcoef(rank_pixels(one).ravel(), rank_pixels(other).ravel())[0, 1]
    assert rank_correlation(one, other) == pytest.approx(expected)
    assert rank_correlation(one, np.exp(one)) == pytest.approx(1)
    assert rank_correlation(one, -one) == pytest.approx(-1)


def test_shuffled_weights_are_the_same_numbers_in_another_order_and_only_where_asked() -> None:
    network = nn.Sequential(nn.Conv3d(3, 8, 3), nn.BatchNorm3d(8), nn.Conv3d(8, 4, 1))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    changed = with_shuffled_weights(network, ["0"], seed=0)
    for name, tensor in changed.state_dict().items():
        assert torch.equal(network.state_dict()[name], before[name])
        assert torch.equal(tensor, before[name]) == (not name.startswith("0."))
        assert torch.equal(tensor.flatten().sort().values, before[name].flatten().sort().values)
    again = with_shuffled_weights(network, ["0"], seed=0)
    assert torch.equal(again[0].weight, changed[0].weight)
