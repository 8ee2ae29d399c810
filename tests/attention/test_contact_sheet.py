"""Statistics of a map, its strongest cells, and the picture with arrows to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nonlocal_video.attention.contact_sheet import GAP, MAX_FRAMES, ContactSheet
from nonlocal_video.attention.geometry import CellGrid
from nonlocal_video.attention.maps import AttentionMaps, QueryPoint, evenly_spaced_frames
from nonlocal_video.video.transforms import spatial_views

HEIGHT, WIDTH, NUM_FRAMES = 48, 64, 8
GRID = CellGrid(size=(4, 6, 6), stride=(2.0, 8.0, 8.0), offset=(0.5, 3.5, 3.5))


def maps_of(cells: np.ndarray, query: QueryPoint | None = None, query_index: int | None = None) -> AttentionMaps:
    """Grey frames at 10 frames/s, of which the network saw the middle 48 x 48."""
    (crop,) = spatial_views(HEIGHT, WIDTH, short_side=48, crop=48)
    return AttentionMaps(
        method="query" if query else "attention",
        quantity="attention",
        layer="block",
        cells=cells.astype(np.float32),
        grid=GRID,
        crop=crop,
        frames=[np.full((HEIGHT, WIDTH, 3), 100, np.uint8) for _ in range(NUM_FRAMES)],
        frame_of_time=np.arange(NUM_FRAMES),
        seconds=np.arange(NUM_FRAMES) / 10,
        playback_seconds=NUM_FRAMES / 10,
        query=query,
        query_index=query_index,
    )


def peaks(**weights: float) -> np.ndarray:
    """Attention, as multiples of an equal share, with the given weights at cells named like `t0y1x2`."""
    cells = np.zeros(GRID.size)
    for name, weight in weights.items():
        cells[int(name[1]), int(name[3]), int(name[5])] = weight
    return cells * cells.size / cells.sum()


def test_even_attention_has_the_greatest_entropy_and_the_even_spread() -> None:
    maps = maps_of(np.ones(GRID.size))
    assert maps.entropy_nats == pytest.approx(np.log(4 * 6 * 6))
    assert maps.maximum_entropy_nats == pytest.approx(np.log(4 * 6 * 6))
    # cells lie at input frames 0.5, 2.5, 4.5, 6.5, of which the nearest (even) ones are 0, 2, 4, 6
    assert maps.temporal_spread_seconds == pytest.approx(np.std([0.0, 0.2, 0.4, 0.6]))
    assert maps.even_temporal_spread_seconds == maps.temporal_spread_seconds


def test_two_peaks() -> None:
    maps = maps_of(peaks(t0y1x1=1, t2y4x4=3))
    assert maps.entropy_nats == pytest.approx(-0.25 * np.log(0.25) - 0.75 * np.log(0.75))
    assert maps.temporal_spread_seconds == pytest.approx(0.4 * np.sqrt(0.25 * 0.75))


@pytest.mark.parametrize("cells", [-np.ones(GRID.size), 2 * np.ones(GRID.size)])
def test_what_is_no_distribution_has_no_entropy(cells: np.ndarray) -> None:
    """A dot-product kernel gives weights of both signs and any sum."""
    assert maps_of(cells).entropy_nats is None
    assert maps_of(cells).temporal_spread_seconds is None


def test_class_evidence_is_no_distribution_even_if_it_sums_like_one() -> None:
    assert replace(maps_of(np.ones(GRID.size)), method="evidence").entropy_nats is None


def test_strongest_cells_are_the_peaks_best_first_without_their_neighbours() -> None:
    maps = maps_of(peaks(t0y1x1=5, t0y1x2=4, t1y0x0=4, t3y4x5=3, t2y1x1=2))
    found = maps.strongest(9)
    assert [target.index for target in found] == [0, 6, 4]
    # cell x of input pixel 3.5 + 8 x, whose centre is at + 0.5; the crop starts 8 pixels from the left
    assert [(target.x * WIDTH, target.y * HEIGHT) for target in found] == [(20, 12), (52, 36), (20, 12)]
    assert [target.seconds for target in found] == [0.0, 0.6, 0.4]
    assert found[0].value == pytest.approx(maps.cells.max())
    assert len(maps.strongest(2)) == 2


def test_the_query_is_no_target_of_itself() -> None:
    cells = peaks(t0y1x1=5, t0y2x2=4, t2y1x1=3)
    asked = QueryPoint(0.0, x=20 / WIDTH, y=12 / HEIGHT)
    assert [target.index for target in maps_of(cells, asked, 0).strongest(3)] == [4]


@pytest.mark.parametrize(
    ("frame_of_time", "count", "indices"),
    [([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 0, 1, 1, 0], 9, [0, 2]), ([7], 4, [0]), ([0, 1], 1, [0])],
)
def test_spaced_frames(frame_of_time: list[int], count: int, indices: list[int]) -> None:
    assert evenly_spaced_frames(np.array(frame_of_time), count) == indices


def test_a_click_finds_the_point_that_was_drawn() -> None:
    sheet = ContactSheet.from_frames(maps_of(np.ones(GRID.size)))
    assert sheet.frames == tuple(range(NUM_FRAMES))
    assert sheet.size == (4 * WIDTH + 3 * GAP, 2 * HEIGHT + GAP)
    for index in (0, 3, 6):
        left, top = sheet.pixel_of(index, 0.25, 0.75)
        assert sheet.point_at(left, top) == pytest.approx((index, 0.25, 0.75))
    assert sheet.point_at(WIDTH + GAP / 2, 5) is None, "between two frames"
    assert sheet.point_at(5, 5000) is None


def test_a_sheet_of_many_frames_shows_some_and_a_tall_clip_has_more_columns() -> None:
    assert ContactSheet(tuple(range(MAX_FRAMES)), 64, 48).columns == 4
    assert ContactSheet(tuple(range(MAX_FRAMES)), 48, 64).columns == 6
    assert ContactSheet((0, 1), 64, 48).size == (2 * 64 + GAP, 48)
    few = ContactSheet((0, 8, 16), 64, 48)
    assert few.pixel_of(9, 0, 0) == few.corner(1), "a frame that is not shown stands in the nearest"


def test_arrows_go_from_the_query_to_its_targets() -> None:
    asked = QueryPoint(0.0, x=0.5, y=0.5)
    maps = maps_of(peaks(t0y3x3=5, t3y5x5=5), asked, 0)
    sheet = ContactSheet.from_frames(maps)
    plain, drawn = sheet.draw(maps), sheet.draw(maps, maps.strongest(3))
    assert plain.shape == (*sheet.size[::-1], 3)
    rows, columns = np.nonzero((plain != drawn).any(axis=2))
    start, end = sheet.pixel_of(0, 0.5, 0.5), sheet.pixel_of(6, 56 / WIDTH - 4 / WIDTH, 44 / HEIGHT)
    assert abs(columns.min() - start[0]) < 8
    assert abs(rows.min() - start[1]) < 8
    assert abs(columns.max() - end[0]) < 8
    assert abs(rows.max() - end[1]) < 8
    assert (drawn[rows, columns, 2] > drawn[rows, columns, 0] + 100).any(), "cyan"
    assert np.array_equal(
        sheet.draw(replace(maps, query=None, query_index=None), maps.strongest(3)),
        sheet.draw(replace(maps, query=None, query_index=None)),
    )


def test_attention_is_drawn_from_its_median_to_its_99th_percentile() -> None:
    cells = np.linspace(1, 2, 144).reshape(GRID.size)
    cells[0, 0, 0] = 100  # one cell does not decide how the others look
    low, top = maps_of(cells).value_range()
    assert low == pytest.approx(np.median(cells), abs=1e-6)
    assert top == pytest.approx(np.quantile(cells, 0.99), abs=1e-5)
    assert top < 2.1
    # The same for a point's attention; class evidence is drawn from 0, which means no evidence.
    assert maps_of(cells, QueryPoint(0.1, 0.5, 0.5), 1).value_range() == (low, top)
    assert replace(maps_of(cells), method="evidence").value_range()[0] == 0


def test_few_strong_cells_and_even_attention_can_be_drawn() -> None:
    low, top = maps_of(peaks(t2y4x4=1)).value_range()
    assert (low, top) == (0, GRID.size[0] * 36)
    even = maps_of(np.ones(GRID.size))
    low, top = even.value_range()
    assert low == 1 < top
    np.testing.assert_array_equal(even.draw_frame(0, lines=1000)[:, 8:56], even.frame(0)[:, 8:56])  # no tint
