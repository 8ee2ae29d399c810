"""Maps that were written to a file draw the same pictures afterwards, and pictures made of them are whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from nonlocal_video.attention.map_file import map_names, read_maps, write_maps
from nonlocal_video.attention.maps import AttentionMaps, QueryPoint
from nonlocal_video.attention.pictures import write_animation, write_strip
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.explanation import Explanation
from nonlocal_video.inference.load import load


@pytest.fixture(scope="module")
def explanation(tiny_model: Path, clip_folder: Path) -> Iterator[Explanation]:
    with load(tiny_model, device="cpu") as recognizer:
        yield recognizer.explain_all(clip_folder / "a.mp4", region="0.25,0,1,0.75")


@pytest.fixture(scope="module")
def maps(explanation: Explanation) -> AttentionMaps:
    return explanation.attention_received()


def test_maps_draw_the_same_after_a_file(explanation: Explanation, maps: AttentionMaps, tmp_path: Path) -> None:
    query = explanation.query(_point_in(maps))
    write_maps(tmp_path / "maps.zip", {"evidence": explanation.class_evidence(), "attention": maps, "query": query})
    assert map_names(tmp_path / "maps.zip") == ["evidence", "attention", "query"]
    for name, given in {"attention": maps, "query": query}.items():
        read = read_maps(tmp_path / "maps.zip", name)
        assert (read.method, read.caption, read.query, len(read)) == (
            given.method,
            given.caption,
            given.query,
            len(given),
        )
        assert read.entropy_nats == given.entropy_nats
        for index in range(len(given)):
            np.testing.assert_array_equal(read.frame_map(index), given.frame_map(index))
            difference = np.abs(read.draw_frame(index).astype(int) - given.draw_frame(index)).mean()
            assert difference < 4, "JPEG is all that was lost"
    with pytest.raises(KeyError):
        read_maps(tmp_path / "maps.zip", "other")


@pytest.mark.parametrize("name", ["o.gif", "o.webp"])
@pytest.mark.parametrize("seconds", [None, 0.5336, 2.135, 8000.0])
def test_an_animation_lasts_as_long_as_the_clip(
    maps: AttentionMaps, tmp_path: Path, name: str, seconds: float | None
) -> None:
    """It does even where a frame's time is no multiple of a format's tick, or more than GIF can count."""
    if seconds is not None:
        maps = replace(maps, playback_seconds=seconds)
    with Image.open(write_animation(maps, tmp_path / name)) as image:
        durations = []
        for frame in ImageSequence.Iterator(image):
            frame.load()
            durations.append(frame.info["duration"])
        assert image.info["loop"] == 0
    longest = 655_350 if name == "o.gif" else 10**9
    assert sum(durations) == pytest.approx(min(1000 * maps.playback_seconds, longest * len(maps)), abs=5)
    assert len(durations) == len(maps)


def test_a_strip_has_evenly_spaced_frames(maps: AttentionMaps, tmp_path: Path) -> None:
    height, width = maps.frame(0).shape[:2]
    with Image.open(write_strip(maps, tmp_path / "s.png")) as image:
        picture = np.asarray(image)
    assert picture.shape == (height, 8 * (width + 4) - 4, 3)
    np.testing.assert_array_equal(picture[:, :width], maps.draw_frame(0, lines=16))


def test_other_endings_are_refused(maps: AttentionMaps, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"should end in \.gif or \.webp"):
        write_animation(maps, tmp_path / "o.mp4")
    with pytest.raises(UsageError, match=r"should end in \.png"):
        write_strip(maps, tmp_path / "s.jpg")


def test_arrays_take_the_place_of_a_link_and_not_of_what_it_leads_to(maps: AttentionMaps, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    link = tmp_path / "attention.npz"
    link.symlink_to("precious")
    maps.save_arrays(link)
    assert (tmp_path / "precious").read_text() == "precious"
    with np.load(link) as arrays:
        assert sorted(arrays) == ["cells", "maps", "offset", "seconds", "stride"]
        np.testing.assert_array_equal(arrays["cells"], maps.cells)
    assert {path.name for path in tmp_path.iterdir()} == {"attention.npz", "precious"}


def _point_in(maps: AttentionMaps) -> QueryPoint:
    left, top, right, bottom = maps.crop.seen
    return QueryPoint(float(maps.seconds[2]), (left + right) / 2, (top + bottom) / 2)
