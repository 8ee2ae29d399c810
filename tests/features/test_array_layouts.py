"""Arrays for other projects, read as their loaders read them: the axes, the rows and the seconds of each row."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from nonlocal_video.errors import UsageError
from nonlocal_video.features import folder as arrays_folder
from nonlocal_video.features.folder import extract_arrays
from nonlocal_video.features.layouts import arrange
from nonlocal_video.inference.window_features import WindowFeatures
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.encode import write_video
from nonlocal_video.video.info import VideoInfo
from nonlocal_video.video.transforms import resize_short_side

NUM_FEATURES = 32
WINDOW_SECONDS = 0.8
FRAMES_A_SECOND = 10.0


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of 47 frames at 10 a second, no two frames and no two corners of which are alike."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    corners = np.random.default_rng(1).integers(0, 256, (47, 2, 3, 3), dtype=np.uint8)
    write_video(path, (corner.repeat(32, 0).repeat(32, 1) for corner in corners), fps=10)
    return path


def written(folder: Path, name: str = "film") -> tuple[np.ndarray, dict[str, Any]]:
    return np.load(folder / f"{name}.npy"), json.loads((folder / f"{name}.json").read_text("utf-8"))


def test_npy_has_all_windows(recognizer, film: Path, tmp_path: Path) -> None:
    extract_arrays(recognizer, film, output=tmp_path / "o")
    array, told = written(tmp_path / "o")
    expected = recognizer.features(film)
    assert (array.shape, array.dtype, array.flags.c_contiguous) == ((11, NUM_FEATURES), np.float32, True)
    np.testing.assert_allclose(array, expected.features, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(told["start_seconds"], expected.starts)
    assert told["uncovered_seconds"] == 0
    assert (told["window_seconds"], told["stride_seconds"], told["duration_seconds"]) == (0.8, 0.4, 4.7)


def test_actionformer_finds_each_row_at_its_seconds(recognizer, film: Path, tmp_path: Path) -> None:
    """Its data sets place a second at (seconds * fps - 0.5 * num_frames) / feat_stride on the grid of rows."""
    extract_arrays(recognizer, film, output=tmp_path / "o", layout="actionformer", stride_seconds=0.3)
    array, told = written(tmp_path / "o")
    feats = array.astype(np.float32)
    assert np.ascontiguousarray(feats.transpose()).shape == (NUM_FEATURES, 14)
    expected = recognizer.features(film, stride_seconds=0.3)
    assert len(expected) == 14  # 13 strides of 0.3 s and a window of 0.8 s are 4.7 s
    for row, centre in enumerate(expected.centres):
        grid = (centre * told["fps"] - 0.5 * told["num_frames"]) / told["feat_stride"]
        assert grid == pytest.approx(row, abs=1e-3)
    np.testing.assert_allclose(feats, expected.features, rtol=1e-5, atol=1e-6)
    # OpenTAD's: offset_frames is the centre of the first row, snippet_stride from row to row.
    opentad = (told["offset_frames"] + np.arange(14) * told["feat_stride"]) / told["fps"]
    np.testing.assert_allclose(opentad, expected.centres, atol=1e-3)


def test_a_last_window_off_the_grid_is_no_row_of_it(recognizer, film: Path, tmp_path: Path) -> None:
    extract_arrays(recognizer, film, output=tmp_path / "o", layout="actionformer", stride_seconds=0.5)
    array, told = written(tmp_path / "o")
    expected = recognizer.features(film, stride_seconds=0.5)
    assert (len(array), len(expected)) == (8, 9)
    np.testing.assert_allclose(array, expected.features[:8], rtol=1e-5, atol=1e-6)
    assert told["uncovered_seconds"] == pytest.approx(4.7 - (7 * 0.5 + 0.8))


def test_ms_tcn_has_a_column_for_each_line_of_the_annotation(recognizer, film: Path, tmp_path: Path) -> None:
    extract_arrays(recognizer, film, output=tmp_path / "o", layout="ms-tcn")
    content = ["label"] * 47  # groundTruth/film.txt, a line for each frame
    vid, sample_rate = "film.txt", 2
    features = np.load(f"{tmp_path / 'o'}/{vid.split('.')[0]}.npy")
    classes = np.zeros(min(np.shape(features)[1], len(content)))
    assert len(classes) == len(content) == features.shape[1]
    batch = torch.zeros(1, NUM_FEATURES, 24, dtype=torch.float)
    batch[0] = torch.from_numpy(features[:, ::sample_rate])
    windows = recognizer.features(film)
    # The frame at 1.2 s is the centre of the window from 0.8 to 1.6 s; that at 1.4 s lies between two centres.
    np.testing.assert_allclose(features[:, 12], windows.features[2], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(features[:, 14], windows.features[2:4].mean(axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(features[:, 0], windows.features[0], rtol=1e-5, atol=1e-6)
    assert json.loads((tmp_path / "o" / "film.json").read_text("utf-8"))["num_frames"] == 47


def test_rtfm_reads_ten_crops_of_windows_that_do_not_overlap(recognizer, film: Path, tmp_path: Path) -> None:
    extract_arrays(recognizer, film, output=tmp_path / "o", layout="rtfm")
    features = np.array(np.load(tmp_path / "o" / "film.npy", allow_pickle=True), dtype=np.float32)
    assert features.shape == (5, 10, NUM_FEATURES)  # T = frames // frames of a window
    features = features.transpose(1, 0, 2)
    divided = np.stack([_process_feat(crop, 32) for crop in features])
    assert divided.shape == (10, 32, NUM_FEATURES)
    np.testing.assert_allclose(divided[:, 0], features[:, 0])

    # The crops of the second window, cut by torchvision.
    with VideoReader() as reader:
        frames = reader.read(film, [0.8 + (frame + 0.5) / FRAMES_A_SECOND for frame in range(8)])
    spec = recognizer.card.input
    resized = resize_short_side(torch.from_numpy(frames.frames_thwc), spec.short_side).permute(0, 3, 1, 2)
    crops = functional.ten_crop(resized, [spec.crop, spec.crop])
    for number, crop in enumerate(crops):
        clip = (crop.permute(1, 0, 2, 3).float() / 255 - 0.5) / 0.5
        with torch.inference_mode():
            expected = recognizer.network.forward_to("layer4", clip[None]).mean(dim=(2, 3, 4))[0]
        np.testing.assert_allclose(features[number, 1], expected, rtol=1e-3, atol=1e-3)


def _process_feat(feat: np.ndarray, length: int) -> np.ndarray:
    """RTFM's division of a video into parts: means between rounded bounds, a single row where two bounds are one."""
    new_feat = np.zeros((length, feat.shape[1]), dtype=np.float32)
    bounds = np.linspace(0, len(feat), length + 1, dtype=int)
    for i in range(length):
        first, behind = bounds[i], bounds[i + 1]
        new_feat[i] = feat[first:behind].mean(0) if first != behind else feat[first]
    return new_feat


def test_bmn_reads_a_hundred_rows(recognizer, film: Path, tmp_path: Path) -> None:
    extract_arrays(recognizer, film, output=tmp_path / "o", layout="bmn")
    path = tmp_path / "o" / "film.csv"
    raw_feature = np.loadtxt(path, dtype=np.float32, delimiter=",", skiprows=1)
    assert raw_feature.T.shape == (NUM_FEATURES, 100)
    assert path.read_text("utf-8").splitlines()[0].split(",") == [f"f{column}" for column in range(NUM_FEATURES)]
    windows = recognizer.features(film)
    np.testing.assert_allclose(raw_feature[0], windows.features[0], rtol=1e-5, atol=1e-5)  # before the first centre
    seconds = (37 + (np.arange(3) + 0.5) / 3) / 100 * 4.7
    expected = np.mean([[np.interp(t, windows.centres, column) for column in windows.features.T] for t in seconds], 0)
    np.testing.assert_allclose(raw_feature[37], expected, rtol=1e-3, atol=1e-3)


def test_a_video_that_begins_late_keeps_its_seconds() -> None:
    """`offset_frames` counts from the player's 0."""
    info = VideoInfo(
        container="mov", codec="h264", width=96, height=64, rotation_degrees=0, num_frames=30, fps=10.0,
        start_seconds=0.7, duration_seconds=3.0, has_edit_list=False, decoder="pyav",
    )  # fmt: skip
    starts = 0.7 + np.arange(3) * 0.4
    found = WindowFeatures(
        path="late.mp4", model="m", weights_sha256=None, layer="layer4", starts=starts, ends=starts + 0.8,
        features=np.arange(6, dtype=np.float32).reshape(3, 2), logits=np.zeros((3, 1), np.float32), info=info,
        window_frames=8, window_seconds=0.8, frames_per_second=10.0, stride_seconds=0.4, num_planned=3,
    )  # fmt: skip
    assert arrange(found, "npy", dtype="float32").offset_frames == pytest.approx(11)
    assert arrange(found, "actionformer", dtype="float16").array.dtype == np.float16


@pytest.mark.slow
def test_folders_are_kept_and_no_array_takes_the_place_of_another(recognizer, clips: Path, tmp_path: Path) -> None:
    shutil.copy(clips / "a.mp4", clips / "a.mov")
    shutil.copy(clips / "a.mp4", clips / "b" / "a.mp4")
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(clips / "b" / "c.mp4", other / "a.mp4")
    run = extract_arrays(recognizer, [clips, other], output=tmp_path / "o", window_seconds=0.4)
    assert run.counts == {"ok": 6, "not_a_video": 1}
    with open(tmp_path / "o" / "index.csv", encoding="utf-8", newline="") as file:
        index = {row["path"]: row for row in csv.DictReader(file)}
    files = {path: row["file"] for path, row in index.items() if row["file"]}
    assert files == {
        str(clips / "a.mov"): "a.npy",
        str(clips / "a.mp4"): "a.mp4.npy",
        str(clips / "b" / "a.mp4"): "b/a.npy",
        str(clips / "b" / "c.mp4"): "b/c.npy",
        str(clips / "z with space.mp4"): "z with space.npy",
        str(other / "a.mp4"): "a.mp4_2.npy",
    }
    for path, name in files.items():
        array, told = written(tmp_path / "o", name.removesuffix(".npy"))
        assert told["path"] == path
        np.testing.assert_allclose(array, recognizer.features(path, window_seconds=0.4).features, rtol=1e-5, atol=1e-6)
    assert index[str(clips / "b" / "note.mp4")]["error_code"] == "not_a_video"
    assert not [path for path in (tmp_path / "o").rglob("*") if path.name.endswith(".part")]


def test_a_run_continues_and_does_what_has_changed(recognizer, clips: Path, tmp_path: Path, monkeypatch) -> None:
    output = tmp_path / "o"
    written_now: list[str] = []
    write = arrays_folder.write_array

    def stopped(file, rows, layout):
        if len(written_now) == 1:
            raise KeyboardInterrupt
        written_now.append("one")
        write(file, rows, layout)

    monkeypatch.setattr(arrays_folder, "write_array", stopped)
    with pytest.raises(KeyboardInterrupt):
        extract_arrays(recognizer, clips, output=output)
    monkeypatch.undo()
    assert sorted(path.name for path in output.rglob("*.npy")) == ["a.npy"]
    with pytest.raises(UsageError, match=r"is not empty\. Use --resume"):
        extract_arrays(recognizer, clips, output=output)
    run = extract_arrays(recognizer, clips, output=output, resume=True)
    assert (run.done_before, run.counts) == ({"ok": 1}, {"ok": 2, "not_a_video": 1})
    (output / "b" / "c.npy").unlink()
    (clips / "a.mp4").write_text("no video any more")
    run = extract_arrays(recognizer, clips, output=output, resume=True)
    assert (run.done_before, run.counts) == ({"ok": 1, "not_a_video": 1}, {"ok": 1, "not_a_video": 1})
    assert sorted(path.name for path in output.rglob("*.npy")) == ["c.npy", "z with space.npy"]
    assert not (output / "a.json").exists()


def test_a_video_that_breaks_has_no_array(recognizer, film: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    data = bytearray(film.read_bytes())
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
    data[middle : middle + 4000] = b"\0" * 4000
    broken.write_bytes(data)
    run = extract_arrays(recognizer, [broken], output=tmp_path / "o")
    assert run.counts["ok"] == 0
    assert not list((tmp_path / "o").glob("*.npy"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "tsn"}, r"layout = 'tsn' should be one of npy, actionformer, ms-tcn, rtfm, bmn"),
        ({"layout": "ms-tcn", "crops": 10}, r"crops = 10: layout rtfm holds 10 crops, npy 1 or 10, the others 1"),
        ({"layout": "rtfm", "crops": 1}, r"crops = 1: layout rtfm holds 10 crops"),
        ({"crops": 5}, r"crops = 5 should be 1 \(the centre\) or 10"),
        ({"layout": "bmn", "dtype": "float16"}, r"does not apply to layout bmn, which is text"),
        ({"layout": "actionformer", "start_seconds": 1}, r"the annotation of a whole video; leave start-seconds"),
    ],
)
def test_refusals(recognizer, film: Path, tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        extract_arrays(recognizer, film, output=tmp_path / "o", **settings)
    assert not (tmp_path / "o").exists()


def test_parts_of_videos(recognizer, film: Path, tmp_path: Path) -> None:
    part = f"{film}#t=1,2.5"
    extract_arrays(recognizer, [part], output=tmp_path / "o")
    array, told = written(tmp_path / "o", "film_1-2.5")
    np.testing.assert_allclose(array[0], recognizer.features(part).features[0], rtol=1e-5, atol=1e-6)
    assert told["start_seconds"][0] == 1
    with pytest.raises(UsageError, match=r"is a part of a video, and layout ms-tcn"):
        extract_arrays(recognizer, [part], output=tmp_path / "p", layout="ms-tcn")
    assert os.path.isdir(tmp_path / "o")
