"""A region of the picture: wherever a clip is looked at, the answer is that of a clip cropped by hand."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nonlocal_video.cli.main import app
from nonlocal_video.errors import UsageError
from nonlocal_video.features.table import read_features
from nonlocal_video.inference.options import RunOptions
from nonlocal_video.inference.ray.engine import ClusterJob, _load_clips, _Network
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.models.checkpoint import read_card
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.encode import write_video
from nonlocal_video.video.region import Region

HEIGHT, WIDTH = 72, 128
REGION = "0.5,0.25,1,1"
BOX = np.s_[:, 18:72, 64:128]
Run = Callable[..., Any]  # the fixture `run`


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 frames of patches that change, other ones on the right than on the left."""
    path = tmp_path_factory.mktemp("region") / "clip.mp4"
    patches = np.random.default_rng(0).integers(0, 256, (24, 9, 16, 3), np.uint8)
    write_video(path, (patch.repeat(8, 0).repeat(8, 1) for patch in patches), fps=10)
    return path


@pytest.fixture(scope="module")
def frames(clip: Path) -> np.ndarray:
    with VideoReader() as reader:
        return reader.read(clip, (np.arange(24) + 0.5) / 10).frames_thwc


@pytest.mark.parametrize("views", ["1x1", "2x3"])
def test_it_is_what_a_clip_cropped_by_hand_gives(
    recognizer: Recognizer, clip: Path, frames: np.ndarray, views: str
) -> None:
    by_hand = recognizer.classify(np.ascontiguousarray(frames[BOX]), views=views, frames_per_second=10)
    found = recognizer.classify(clip, views=views, region=REGION)
    np.testing.assert_array_equal(found.scores, by_hand.scores)
    of_array = recognizer.classify(frames, views=views, frames_per_second=10, region=(0.5, 0.25, 1, 1))
    np.testing.assert_array_equal(of_array.scores, by_hand.scores)
    of_bytes = recognizer.classify(clip.read_bytes(), views=views, region=Region(0.5, 0.25, 1, 1))
    np.testing.assert_array_equal(of_bytes.scores, by_hand.scores)
    whole = recognizer.classify(clip, views=views)
    assert np.abs(whole.scores - found.scores).max() > 1e-3  # the comparison means something


def test_the_answer_says_which_part_was_seen(recognizer: Recognizer, clip: Path) -> None:
    found = recognizer.classify(clip, views="1x3", region=REGION)
    assert found.region == Region(0.5, 0.25, 1, 1)
    assert len(found.seen) == 3
    for x0, y0, x1, y1 in found.seen:
        assert 0.5 <= x0 < x1 <= 1
        assert 0.25 <= y0 < y1 <= 1
        assert (x1 - x0) * WIDTH == pytest.approx((y1 - y0) * HEIGHT, rel=0.02)  # a square of the picture
    assert found.seen[0][0] == pytest.approx(0.5)  # three of them, from one end of the region to the other
    assert found.seen[2][2] == pytest.approx(1.0)
    assert f"of region {REGION}" in found.summary
    assert any(REGION in note and "50% to 100% of its width" in note for note in found.to_row()["notes"])
    for whole in (recognizer.classify(clip), recognizer.classify(clip, region="0,0,1,1")):
        assert (whole.region, whole.notes) == (None, ())
        assert "region" not in whole.summary
        ((x0, y0, x1, y1),) = whole.seen
        assert ((x0 + x1) / 2, (y0 + y1) / 2) == (pytest.approx(0.5, abs=0.01), pytest.approx(0.5, abs=0.01))


def test_maps_are_those_of_the_region_and_lie_in_the_whole_picture(
    recognizer: Recognizer, clip: Path, frames: np.ndarray, tmp_path: Path
) -> None:
    by_hand = recognizer.explain(np.ascontiguousarray(frames[BOX]), frames_per_second=10)
    maps = recognizer.explain(clip, region=REGION)
    np.testing.assert_array_equal(maps.cells, by_hand.cells)
    inside, cropped = maps.frame_map(3), by_hand.frame_map(3)
    assert inside.shape == (HEIGHT, WIDTH)
    np.testing.assert_allclose(inside[18:72, 64:128], cropped, atol=1e-5)
    outside = inside.copy()
    outside[18:72, 64:128] = np.nan
    assert np.isnan(outside).all()
    # What was not looked at is drawn darker, and only that.
    picture = np.asarray(Image.open(maps.save_frames(tmp_path / "frames")[3]), dtype=float)
    frame = maps.frame(3).astype(float)
    np.testing.assert_allclose(picture[20:, 4:60], frame[20:, 4:60] * 0.45, atol=1)
    for target, of_crop in zip(maps.strongest(3), by_hand.strongest(3), strict=True):
        assert target.x == pytest.approx(0.5 + 0.5 * of_crop.x)
        assert target.y == pytest.approx(0.25 + 0.75 * of_crop.y)


def test_a_point_is_one_of_the_whole_picture(recognizer: Recognizer, clip: Path, frames: np.ndarray) -> None:
    by_hand = recognizer.explain(np.ascontiguousarray(frames[BOX]), query=(1.2, 0.4, 0.6), frames_per_second=10)
    maps = recognizer.explain(clip, query=(1.2, 0.5 + 0.5 * 0.4, 0.25 + 0.75 * 0.6), region=REGION)
    np.testing.assert_array_equal(maps.cells, by_hand.cells)
    assert maps.query_index == by_hand.query_index
    with pytest.raises(UsageError, match=rf"query x = 0\.2, y = 0\.5 is outside .*in region {REGION}: x 0\.5"):
        recognizer.explain(clip, query=(1.2, 0.2, 0.5), region=REGION)


def test_windows_see_the_region(recognizer: Recognizer, clip: Path) -> None:
    timeline = recognizer.timeline(clip, region=REGION)
    for window, (start, end) in enumerate(zip(timeline.starts, timeline.ends, strict=True)):
        alone = recognizer.classify(clip, start_seconds=start, end_seconds=end, region=REGION)
        np.testing.assert_allclose(timeline.raw_scores[window], alone.scores, atol=1e-6)
    assert any(REGION in note for note in timeline.notes)
    assert not recognizer.timeline(clip).notes


def test_a_folder_is_looked_at_alike_by_both_engines(recognizer: Recognizer, unsure_model: Path, clip: Path) -> None:
    alone = recognizer.classify(clip, region=REGION)
    (of_folder,) = [o for o in recognizer.classify_folder(clip.parent, region=REGION).outcomes if o.path == str(clip)]
    np.testing.assert_array_equal(of_folder.scores, alone.scores)
    # What Ray's task and actor do with a file, without a cluster.
    request = ClipRequest(region=Region.parse(REGION))
    job = ClusterJob(str(unsure_model), read_card(unsure_model).input, request, RunOptions(device="cpu"), top_k=7)
    name = np.empty(1, dtype=object)
    name[0] = str(clip).encode()
    (loaded,) = _load_clips({"path": name}, job)
    (row,) = _Network(job)(loaded).to_pylist()
    top = [(scored["index"], scored["score"]) for scored in json.loads(row["row"])["top"]]
    assert top == [(scored.index, pytest.approx(scored.score)) for scored in alone.top(7)]


def test_on_the_command_line(run: Run, recognizer: Recognizer, unsure_model: Path, clip: Path, tmp_path: Path) -> None:
    expected = recognizer.classify(clip, region=REGION)
    common = (clip, "--model", unsure_model, "--device", "cpu", "--region", REGION)
    row = json.loads(run("classify", *common, "--json", "--top-k", 7).out)
    assert [(s["index"], s["score"]) for s in row["top"]] == [
        (s.index, pytest.approx(s.score)) for s in expected.top(7)
    ]
    assert row["notes"] == list(expected.notes)
    timeline = json.loads(run("timeline", *common, "--json").out)
    assert any(REGION in note for note in timeline["notes"])
    explained = run("explain", *common, "--output", tmp_path / "explained")
    assert explained.status == 0
    assert f"of region {REGION}" in explained.out
    maps = np.load(tmp_path / "explained" / "attention.npz")["maps"]
    assert np.isnan(maps[0][:, :64]).all()
    assert not np.isnan(maps[0][30:60, 80:110]).any()
    refused = run("explain", *common, "--query", "1.2,0.2,0.5", "--output", tmp_path / "explained")
    assert refused.status == 2
    assert "outside the square that the network sees in region" in refused.err
    for verb in ("classify", "explain", "timeline"):
        wrong = run(verb, clip, "--model", unsure_model, "--region", "0.5,0,0.2,1")
        assert (wrong.status, "0 <= X0 < X1 <= 1" in wrong.err) == (2, True)


def test_a_run_is_taken_up_with_the_same_region_only(run: Run, unsure_model: Path, clip: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    command = ("classify", clip, "--model", unsure_model, "--device", "cpu", "--output", table)
    assert run(*command, "--region", REGION).status == 0
    for other in ((), ("--region", "0,0,0.5,1")):
        refused = run(*command, "--resume", *other)
        assert refused.status == 2
        assert f"region was '{REGION}' and is" in refused.err
    assert run(*command, "--resume", "--region", "0.50,0.25,1.0,1").status == 0  # the same, written otherwise
    with open(table, newline="") as file:
        assert REGION in next(csv.DictReader(file))["notes"]


def test_an_evaluation_looks_at_the_region(
    run: Run, recognizer: Recognizer, unsure_model: Path, clip: Path, tmp_path: Path
) -> None:
    folder, output = tmp_path / "labelled" / "action 3", tmp_path / "out"
    folder.mkdir(parents=True)
    (folder / "clip.mp4").write_bytes(clip.read_bytes())
    command = ("evaluate", folder.parent, "--model", unsure_model, "--device", "cpu", "--output", output)
    done = run(*command, "--region", REGION, "--json")
    assert done.status == 0, done.err
    assert REGION in done.out
    (row,) = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    best = recognizer.classify(clip, region=REGION).top(1)[0]
    assert (row["top"][0]["index"], row["top"][0]["score"]) == (best.index, pytest.approx(best.score))
    refused = run(*command, "--resume")
    assert refused.status == 2
    assert "region was" in refused.err


def test_examples_are_taught_by_the_region(run: Run, unsure_model: Path, clip: Path, tmp_path: Path) -> None:
    for label, part in (("left", np.s_[:, :, :64]), ("right", np.s_[:, :, 64:])):
        (tmp_path / "examples" / label).mkdir(parents=True)
        with VideoReader() as reader:
            frames = reader.read(clip, (np.arange(24) + 0.5) / 10).frames_thwc
        write_video(tmp_path / "examples" / label / "clip.mp4", np.tile(frames[part], (1, 1, 2, 1)), fps=10)
    output, table = tmp_path / "run", tmp_path / "table.parquet"
    command = ("teach", tmp_path / "examples", "--output", output, "--model", unsure_model, "--region", REGION)
    done = run(*command)
    assert done.status == 0, done.err
    assert f"--region {REGION}" in (output / "README.md").read_text("utf-8")
    assert f"Try it: nonlocal-video classify CLIP --model {output} --region {REGION}" in done.out
    (note,) = read_card(output / "best.safetensors").notes
    assert f"--region {REGION}" in note
    of_table = ("--output", table, "--model", unsure_model, "--region", REGION)
    assert run("features", tmp_path / "examples", *of_table).status == 0
    taught, seen = read_features(output / "features.parquet"), read_features(table)
    for path, feature in zip(taught.paths, taught.features, strict=True):  # of the middle, which is a window, too
        of_clip = [row for row, other in enumerate(seen.paths) if path.startswith(other)]
        assert min(np.abs(feature - seen.features[row]).max() for row in of_clip) < 1e-5
    refused = run("teach", tmp_path / "examples", "--output", output, "--model", unsure_model, "--resume")
    assert refused.status == 2
    assert "region" in refused.err


def test_a_folder_is_searched_in_the_region(run: Run, unsure_model: Path, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    for number in range(2):
        shutil.copy(clip, tmp_path / "archive" / f"{number}.mp4")
    table, wanted = tmp_path / "index.parquet", tmp_path / "table.parquet"
    command = ("search", tmp_path / "archive", "--like", clip, "--model", unsure_model, "--index", table, "--json")
    done = run(*command, "--region", REGION)
    assert done.status == 0, done.err
    of_table = ("--output", wanted, "--model", unsure_model, "--region", REGION)
    assert run("features", tmp_path / "archive", *of_table).status == 0
    np.testing.assert_allclose(read_features(table).features, read_features(wanted).features, atol=1e-6)
    hits = json.loads(done.out)["hits"]
    assert hits[0]["score"] == pytest.approx(1.0, abs=1e-3)  # the example is looked at in the same region
    other = run(*command)
    assert other.status == 2
    assert "region" in other.err


def test_what_looks_at_clips_takes_a_region() -> None:
    """No verb that looks at the user's clips is forgotten."""
    import typer

    verbs = typer.main.get_group(app).commands
    takers = {name for name, verb in verbs.items() if any(option.name == "region" for option in verb.params)}
    assert takers == {
        "classify",
        "explain",
        "timeline",
        "evaluate",
        "features",
        "watch",
        "search",
        "teach",
        "train",
        "check",
    }


def test_too_small_a_region_is_refused(recognizer: Recognizer, clip: Path) -> None:
    sentence = r"region = 0,0,0\.1,1 is 13 x 72 pixels of this video's 128 x 72; take one of at least 16 x 16"
    for explanation in (recognizer.classify, recognizer.explain_all, recognizer.timeline):
        with pytest.raises(UsageError, match=sentence):
            explanation(clip, region="0,0,0.1,1")


def test_a_region_too_small_for_one_clip_costs_that_clip_alone(
    run: Run, unsure_model: Path, clip: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    shutil.copy(clip, folder / "a.mp4")
    write_video(folder / "b.mp4", np.full((5, 40, 40, 3), 99, np.uint8), fps=10)
    done = run("classify", folder, "--model", unsure_model, "--region", "0,0,0.3,1", "--json")
    first, second = (json.loads(line) for line in done.out.splitlines())
    assert (done.status, first["status"]) == (1, "ok")
    assert second["error"]["code"] == "not_found"  # the part; `internal` is what nobody foresaw
    assert (
        "it has no such part: region = 0,0,0.3,1 is 12 x 40 pixels of this video's 40 x 40"
        in second["error"]["message"]
    )


def test_a_region_is_one_of_the_upright_picture(recognizer: Recognizer, clip: Path, tmp_path: Path) -> None:
    """A film that is stored on its side: fractions are of what a player shows."""
    import av

    turned = tmp_path / "turned.mp4"
    with av.open(str(clip)) as old, av.open(str(turned), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    data = bytearray(turned.read_bytes())
    place = data.index(b"tkhd") + 44
    one = 1 << 16
    matrix = (0, one, 0, -one, 0, 0, HEIGHT * one, 0, 1 << 30)  # a quarter turn, clockwise
    data[place : place + 36] = b"".join(number.to_bytes(4, "big", signed=True) for number in matrix)
    turned.write_bytes(data)
    with VideoReader() as reader:
        upright = reader.read(turned, (np.arange(24) + 0.5) / 10).frames_thwc
    assert upright.shape == (24, WIDTH, HEIGHT, 3)
    top = np.ascontiguousarray(upright[:, : WIDTH // 2])
    found = recognizer.classify(turned, region="0,0,1,0.5")
    np.testing.assert_array_equal(found.scores, recognizer.classify(top, frames_per_second=10).scores)
