"""The bound holds, what is in comes back, and what is damaged is not handed out."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.training.disk_cache import DiskCache

FRAMES = np.random.default_rng(0).integers(0, 256, (10, 10, 10, 3), dtype=np.uint8)
"""3,000 bytes; in the file a header of 128, and 44 of checksums."""


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.npy"))


def test_frames_come_back_whole_or_in_part(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache")
    assert cache.frames("a") is None
    assert cache.put("a", FRAMES)
    assert cache.put("a", FRAMES)  # another worker was faster
    np.testing.assert_array_equal(cache.frames("a"), FRAMES)
    np.testing.assert_array_equal(cache.frames("a", np.array([9, 0, 0])), FRAMES[[9, 0, 0]])
    assert cache.num_bytes == on_disk(cache.folder) == 3172


def test_the_first_that_fit_stay_and_no_more_come_in(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, max_bytes=10_000, max_clip_bytes=4_000)
    assert [cache.put(name, FRAMES) for name in "abcd"] == [True, True, True, False]
    assert cache.frames("a") is not None
    assert cache.frames("d") is None
    assert cache.num_bytes == on_disk(tmp_path) <= 10_000
    assert not cache.has_room(3000)
    assert cache.has_room(100)
    assert not DiskCache(tmp_path / "other", max_bytes=10_000, max_clip_bytes=2_000).put("a", FRAMES)


def test_a_folder_is_taken_up_again_and_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    DiskCache(tmp_path).put("a", FRAMES)
    (tmp_path / "b.part").write_bytes(b"half")
    (tmp_path / "bytes").write_text("0")
    again = DiskCache(tmp_path, max_bytes=6_000, max_clip_bytes=6_000)
    assert again.num_bytes == 3172
    assert not again.put("b", FRAMES)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix in (".npy", ".part")) == ["a.npy"]


def put_ten(folder: str, first: int) -> None:
    cache = DiskCache(folder, max_bytes=40_000, max_clip_bytes=4_000)
    for number in range(first, first + 10):
        cache.put(str(number), FRAMES)


def test_the_bound_holds_for_several_processes_together(tmp_path: Path) -> None:
    workers = [multiprocessing.get_context("fork").Process(target=put_ten, args=(tmp_path, n)) for n in (0, 10)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert on_disk(tmp_path) == DiskCache(tmp_path).num_bytes == 12 * 3172  # the most that 40,000 holds


@pytest.mark.slow
def test_whatever_is_damaged_is_made_again_with_a_line_of_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each byte of the file is changed once, and the file is cut at many places."""
    cache = DiskCache(tmp_path)
    cache.put("a", FRAMES)
    path = tmp_path / "a.npy"
    whole = path.read_bytes()
    mutants = [whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :] for place in range(0, len(whole), 7)]
    mutants += [whole[:length] for length in (0, 1, 100, 128, 2000, len(whole) - 44, len(whole) - 1)]
    mutants += [whole + b"more", b"not numpy", bytes(len(whole))]
    for mutant in mutants:
        path.write_bytes(mutant)
        caplog.clear()
        found = cache.frames("a")
        if found is not None:  # padding of the header, which says nothing
            np.testing.assert_array_equal(found, FRAMES)
            continue
        (record,) = caplog.records
        assert "a.npy' in the cache is damaged" in record.message
        assert "\n" not in record.message
        assert cache.num_bytes == 0
        assert cache.put("a", FRAMES)
        np.testing.assert_array_equal(cache.frames("a"), FRAMES)


def test_only_the_frames_that_are_read_are_checked(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    cache.put("a", FRAMES)
    path = tmp_path / "a.npy"
    content = bytearray(path.read_bytes())
    content[128 + 300 * 7 + 5] ^= 1  # in the eighth frame
    path.write_bytes(content)
    np.testing.assert_array_equal(cache.frames("a", [6, 8, 6]), FRAMES[[6, 8, 6]])
    assert cache.frames("a", [8, 7]) is None


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    for name in ("bytes.new", "lock"):
        folder = tmp_path / f"cache {name}"
        folder.mkdir()
        (folder / name).symlink_to(precious)
        with pytest.raises(UsageError, match="is a link"):
            DiskCache(folder)
    cache = DiskCache(tmp_path / "cache")
    (cache.folder / "a.part").symlink_to(precious)
    with pytest.raises(UsageError, match="is a link"):
        cache.put("a", FRAMES)
    assert precious.read_text() == "precious"


def test_bounds_and_folders_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="max_clip_bytes = 2 should be above 0 and at most max_bytes = 1"):
        DiskCache(tmp_path, max_bytes=1, max_clip_bytes=2)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file' cannot be used"):
        DiskCache(tmp_path / "file")
