"""Findings about clips, told apart by what was read of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from training_clips import SPEC

from nonlocal_video.datasets.check import CheckedClip
from nonlocal_video.datasets.duplicates import TOLERANCE, same_content
from nonlocal_video.datasets.labelled import LabelledClip
from nonlocal_video.datasets.report import CheckReport, make_report
from nonlocal_video.datasets.splits import SplitPlan
from nonlocal_video.errors import VideoError
from nonlocal_video.video.info import VideoInfo

INFO = VideoInfo("mp4", "h264", 96, 72, 0, 20, 10.0, 0.0, 2.0, False, "pyav")


def checked(number: int, label: str, info: VideoInfo = INFO) -> CheckedClip:
    """A clip with a content of its own."""
    thumbnails = np.random.default_rng(number).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    return CheckedClip(LabelledClip(f"{number}.mp4", label), info, f"{number:064x}", thumbnails, 4)


def report(*clips: CheckedClip) -> CheckReport:
    return make_report(clips, SPEC, SplitPlan(0.5))


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ({"a": 4, "b": 4}, "All 2 classes have equally many clips: 4."),
        ({"a": 4, "b": 6}, "The classes are fairly equal: 4 ('a') to 6 ('b') clips a class."),
        ({"a": 9, "b": 2}, "The classes are unequal: 2 ('b') to 9 ('a') clips a class, 4.5 times as many; record"),
        ({"a": 4}, "1 class with usable clips: there is nothing to tell apart."),
    ],
)
def test_balance(sizes: dict[str, int], says: str) -> None:
    labels = [label for label, size in sizes.items() for _ in range(size)]
    assert report(*(checked(number, label) for number, label in enumerate(labels))).balance().startswith(says)


def test_a_class_without_a_usable_clip_is_named() -> None:
    broken = CheckedClip(LabelledClip("x.mp4", "c"), error=VideoError("corrupt", "x.mp4: it is damaged."))
    found = report(checked(0, "a"), checked(1, "b"), broken)
    assert found.balance().startswith("No usable clip in class 'c'. All 2 classes")
    assert found.manifest.labels == ("a", "b")
    assert not found.all_well


def test_short_small_and_elongated_clips() -> None:
    found = report(
        checked(0, "a"),
        checked(1, "a", replace(INFO, num_frames=7, duration_seconds=0.7)),
        checked(2, "b", replace(INFO, height=39)),
        checked(3, "b", replace(INFO, width=1_000_000, height=40)),
        checked(4, "b", replace(INFO, duration_seconds=0.7995)),  # half a millisecond is the rounding of its times
    )
    assert (found.short, found.small) == (("1.mp4",), ("2.mp4",))
    assert [(row.path, row.problem) for row in found.unusable] == [
        ("3.mp4", "too_large: its frames are too elongated for the model; crop the video to what matters.")
    ]


def test_classes_with_almost_the_same_name() -> None:
    notes = report(checked(0, "Tai_chi"), checked(1, "tai chi"), checked(2, "yoga"), checked(3, "yoga")).notes
    assert any("Classes 'Tai_chi' and 'tai chi' have almost the same name" in note for note in notes)


def test_same_content_by_bytes_and_by_pictures_and_through_others() -> None:
    thumbnails = np.random.default_rng(0).integers(20, 200, (6, 4, 8, 8, 3), dtype=np.uint8)
    thumbnails[2] = thumbnails[0] + TOLERANCE
    thumbnails[3] = thumbnails[2]
    thumbnails[4] = thumbnails[0]
    thumbnails[4, 3, 7, 7, 2] += 2 * TOLERANCE + 1  # one cell of one frame
    sha256 = ["a", "b", "c", "d", "e", "d"]
    assert same_content(sha256, [9] * 6, thumbnails).tolist() == [0, 1, 0, 0, 2, 0]
    # Other numbers of frames are other contents, but for equal bytes.
    assert same_content(sha256, [9, 9, 9, 8, 9, 9], thumbnails).tolist() == [0, 1, 0, 2, 3, 2]


def test_thousands_of_black_clips_are_one_content() -> None:
    thumbnails = np.zeros((5000, 4, 8, 8, 3), np.uint8)
    assert set(same_content([str(number) for number in range(5000)], [9] * 5000, thumbnails)) == {0}
