"""The table of features: what is in it, and that a run continues where it was ended."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.features.extract import FeatureRun, extract_features
from nonlocal_video.features.table import FeatureTable, iterate_features, read_features, source_of
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.io import sha256_of

COLUMNS = (
    "path", "status", "window_index", "start_seconds", "end_seconds", "centre_seconds", "feature", "model",
    "weights_sha256", "layer", "window_frames", "frames_per_second", "stride_seconds", "error_code",
)  # fmt: skip


def names(table: FeatureTable) -> list[str]:
    return sorted({os.path.basename(path) for path in table.paths})


def test_a_row_for_every_window_and_every_bad_file(recognizer, clips: Path, tiny_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "t.parquet"
    run = extract_features(recognizer, clips, output=output)
    assert run.counts == {"ok": 3, "not_a_video": 1}
    written = pq.read_table(output)
    assert tuple(written.column_names) == COLUMNS
    assert str(written.schema.field("feature").type) == "fixed_size_list<element: float>[32]"
    bad = written.to_pylist()[[row["status"] for row in written.to_pylist()].index("error")]
    assert (bad["error_code"], bad["feature"], bad["window_index"]) == ("not_a_video", None, None)
    table = read_features(output)
    assert run.num_windows == len(table) == 4 + 2 + 1
    assert table.errors == ((str(clips / "b" / "note.mp4"), "not_a_video"),)
    assert table.source == source_of(output)
    assert (table.source.model, table.source.layer) == ("tiny", "layer4")
    assert table.source.weights_sha256 == sha256_of(tiny_model)
    assert not list(tmp_path.glob("*.values"))


def test_the_features_are_those_of_the_same_span_in_classify(recognizer, clips: Path, tmp_path: Path) -> None:
    extract_features(recognizer, clips, output=tmp_path / "t.parquet", batch_size=3, workers=2)
    table = read_features(tmp_path / "t.parquet")
    assert len(np.unique(table.features, axis=0)) == len(table)
    for path, start, end, feature in zip(table.paths, table.starts, table.ends, table.features, strict=True):
        alone = recognizer.classify(path, start_seconds=start, end_seconds=end)
        np.testing.assert_allclose(feature, alone.features, rtol=1e-5, atol=1e-6)
    for path in set(table.paths):
        own = [row for row, of in enumerate(table.paths) if of == path]
        found = recognizer.features(path)
        np.testing.assert_allclose(table.features[own], found.features, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(table.centres[own], found.centres)


def resumed(recognizer: Recognizer, clips: Path, output: Path, monkeypatch, **settings) -> tuple[FeatureRun, list[str]]:
    """A resumed run, and the files whose windows were read in it."""
    from nonlocal_video.inference import feature_stream

    read: list[str] = []
    open_windows = feature_stream.open_windows

    def noted(reader, path, *arguments, **options):
        read.append(os.path.basename(path))
        return open_windows(reader, path, *arguments, **options)

    monkeypatch.setattr(feature_stream, "open_windows", noted)
    run = extract_features(recognizer, clips, output=output, resume=True, **settings)
    monkeypatch.setattr(feature_stream, "open_windows", open_windows)
    return run, read


def test_a_stopped_run_continues_with_the_files_that_have_no_row(recognizer, clips, tmp_path, monkeypatch) -> None:
    whole, output = tmp_path / "whole.parquet", tmp_path / "t.parquet"
    extract_features(recognizer, clips, output=whole)
    seen: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        extract_features(
            recognizer,
            clips,
            output=output,
            should_stop=lambda: bool(seen),
            on_progress=lambda progress: seen.append(progress.path),
        )
    assert not output.exists()
    # Half a line and half of a file's numbers, as a kill in the middle of writing leaves them.
    with open(f"{output}.journal", "ab") as journal, open(f"{output}.values", "ab") as values:
        journal.write(b'{"file": "')
        values.write(b"\0" * 100)
    run, read = resumed(recognizer, clips, output, monkeypatch)
    assert not {os.path.basename(path) for path in seen} & set(read)
    assert run.done_before.total() + run.counts.total() == 4
    assert pq.read_table(output).drop_columns("feature") == pq.read_table(whole).drop_columns("feature")
    np.testing.assert_allclose(read_features(output).features, read_features(whole).features, rtol=1e-5, atol=1e-6)


def test_a_finished_table_is_brought_up_to_date(recognizer, clips, tmp_path, monkeypatch) -> None:
    output = tmp_path / "t.parquet"
    extract_features(recognizer, clips, output=output)
    before = read_features(output)
    at_rest = output.stat()
    run, read = resumed(recognizer, clips, output, monkeypatch)
    assert (run.counts.total(), run.done_before.total(), read) == (0, 4, [])
    assert output.stat().st_mtime_ns == at_rest.st_mtime_ns  # nothing to do: not even written again

    shutil.copy(clips / "b" / "c.mp4", clips / "a.mp4")  # changed
    shutil.copy(clips / "b" / "c.mp4", clips / "new.mp4")
    (clips / "z with space.mp4").unlink()
    run, read = resumed(recognizer, clips, output, monkeypatch, drop_missing=True)
    assert sorted(read) == ["a.mp4", "new.mp4"]
    assert run.num_dropped == 1
    after = read_features(output)
    assert names(after) == ["a.mp4", "c.mp4", "new.mp4"]
    kept = [[row for row, path in enumerate(table.paths) if path.endswith("c.mp4")] for table in (before, after)]
    np.testing.assert_array_equal(after.features[kept[1]], before.features[kept[0]])
    for other in ("a.mp4", "new.mp4"):
        rows = [row for row, path in enumerate(after.paths) if path.endswith(other)]
        np.testing.assert_allclose(after.features[rows], after.features[kept[1]], rtol=1e-5, atol=1e-6)

    run, read = resumed(recognizer, clips, output, monkeypatch, drop_missing=True)
    assert (read, run.num_dropped) == ([], 0)
    shutil.copy(clips / "a.mp4", clips / "z with space.mp4")  # comes back
    run, read = resumed(recognizer, clips, output, monkeypatch, drop_missing=True)
    assert read == ["z with space.mp4"]
    assert names(read_features(output)) == ["a.mp4", "c.mp4", "new.mp4", "z with space.mp4"]


def test_a_table_that_was_written_just_before_the_kill(recognizer, clips, tmp_path, monkeypatch) -> None:
    """The numbers beside the journal are still there; they do no harm, and go."""
    output, values = tmp_path / "t.parquet", tmp_path / "t.parquet.values"
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    extract_features(recognizer, clips, output=output)
    monkeypatch.undo()
    assert values.exists()
    before = read_features(output)
    shutil.copy(clips / "a.mp4", clips / "n.mp4")
    _, read = resumed(recognizer, clips, output, monkeypatch)
    assert read == ["n.mp4"]
    assert not values.exists()
    after = read_features(output)
    np.testing.assert_array_equal(after.features[: len(before)], before.features)
    assert names(after)[-2:] == ["n.mp4", "z with space.mp4"]


def test_files_whose_numbers_are_lost_are_done_again(recognizer, clips, tmp_path, monkeypatch) -> None:
    output = tmp_path / "t.parquet"
    extract_features(recognizer, clips, output=output)
    before = read_features(output)
    output.unlink()
    with pytest.raises(OutputError, match=r"a\.mp4' are neither in .* nor in a table"):
        extract_features(recognizer, clips / "b", output=output, resume=True)
    run, read = resumed(recognizer, clips, output, monkeypatch)
    assert sorted(read) == ["a.mp4", "z with space.mp4"]
    assert run.done_before == {"not_a_video": 1, "ok": 1}
    after = read_features(output)
    assert len(after) == len(before)
    assert names(after) == names(before)


def test_a_table_of_another_run_is_refused(recognizer, clips: Path, tmp_path: Path) -> None:
    output = tmp_path / "t.parquet"
    extract_features(recognizer, clips, output=output)
    with pytest.raises(UsageError, match=r"--resume to continue it"):
        extract_features(recognizer, clips, output=output)
    with pytest.raises(UsageError, match=r"stride_seconds was None and is 0\.1"):
        extract_features(recognizer, clips, output=output, resume=True, stride_seconds=0.1)
    journal = tmp_path / "t.parquet.journal"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:2]))
    with pytest.raises(UsageError, match=r"has lost its end: it has 1 entries, and .* was made of 4"):
        extract_features(recognizer, clips, output=output, resume=True)


def test_float16_and_groups_of_rows(recognizer, clips: Path, tmp_path: Path, monkeypatch) -> None:
    from nonlocal_video.features import table

    monkeypatch.setattr(table, "_ROWS_PER_GROUP", 2)
    full, half = tmp_path / "full.parquet", tmp_path / "half.parquet"
    extract_features(recognizer, clips, output=full)
    extract_features(recognizer, clips, output=half, dtype="float16")
    assert str(pq.read_schema(half).field("feature").type) == "fixed_size_list<element: halffloat>[32]"
    np.testing.assert_allclose(read_features(half).features, read_features(full).features, rtol=1e-3)
    parts = list(iterate_features(full))
    assert len(parts) > 2
    np.testing.assert_array_equal(np.concatenate([part.features for part in parts]), read_features(full).features)
    shutil.copy(clips / "a.mp4", clips / "n.mp4")
    extract_features(recognizer, clips, output=full, resume=True)  # from a table of several groups
    assert len(read_features(full)) == 11


def test_a_folder_of_bad_files_alone(recognizer, clips: Path, tmp_path: Path) -> None:
    output = tmp_path / "t.parquet"
    extract_features(recognizer, clips / "b" / "note.mp4", output=output)
    table = read_features(output)
    assert (len(table), len(table.errors)) == (0, 1)
    extract_features(recognizer, clips, output=output, resume=True)
    assert len(read_features(output)) == 7


def test_a_part_of_a_video_is_named_as_such(recognizer, clips: Path, tmp_path: Path) -> None:
    part = f"{clips / 'a.mp4'}#t=0.5,1.5"
    extract_features(recognizer, [part, f"{clips / 'a.mp4'}#t=7,9"], output=tmp_path / "t.parquet")
    table = read_features(tmp_path / "t.parquet")
    assert set(table.paths) == {part}
    assert (table.starts[0], table.ends[-1]) == (0.5, 1.5)
    assert table.errors == ((f"{clips / 'a.mp4'}#t=7,9", "not_found"),)
    assert json.loads(pq.read_schema(tmp_path / "t.parquet").metadata[b"nonlocal_video.features"])["num_windows"] == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer": "layer9"}, r"layer = 'layer9' is not in 'tiny', which has"),
        ({"stride_seconds": 2}, r"stride-seconds = 2 should not exceed the window's 0\.8 s"),
        ({"window_seconds": -1}, r"window-seconds = -1 should be a finite number above 0"),
        ({"dtype": "int8"}, r"dtype = 'int8' should be one of float32, float16"),
    ],
)
def test_refusals(recognizer, clips: Path, tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        extract_features(recognizer, clips, output=tmp_path / "t.parquet", **settings)
    assert list(tmp_path.glob("t.*")) == []
