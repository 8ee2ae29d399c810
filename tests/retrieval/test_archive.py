"""The file of vectors beside a table: what is in it, and when it is made again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feature_tables import write_table

from nonlocal_video.errors import UsageError
from nonlocal_video.retrieval.archive import open_archive

RANDOM = np.random.default_rng(0)
FILES = [
    (name, [0.0, 1.0, 2.0][:count], RANDOM.uniform(0, 4, (count, 6))) for name, count in (("c", 3), ("a", 1), ("b", 2))
]


@pytest.mark.parametrize("half", [False, True])
def test_vectors_are_the_roots_of_features_less_their_mean(tmp_path: Path, half: bool) -> None:
    table = write_table(tmp_path / "t.parquet", FILES, errors=["a-bad.mp4"], half=half)
    archive = open_archive(table)
    assert archive.windows.paths == ("a", "b", "c")
    assert archive.windows.path_of.tolist() == [0, 1, 1, 2, 2, 2]
    assert archive.windows.starts.tolist() == [0, 0, 1, 0, 1, 2]
    assert archive.num_errors == 1
    assert (archive.source.model, archive.source.layer, archive.settings) == ("tiny", "pool", None)
    features = np.concatenate([rows for _, _, rows in sorted(FILES, key=lambda file: file[0])])
    roots = np.sqrt(features)
    centred = roots - 6 / 14 * roots.mean(axis=0)
    expected = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(np.asarray(archive.vectors, dtype=float), expected, atol=2e-3 if half else 6e-4)
    raw = np.fromfile(tmp_path / "t.parquet.f16", dtype=np.float16).reshape(6, 6)  # row-major, nothing else
    assert (raw == archive.vectors).all()


def test_it_is_made_again_when_the_table_is_another_one(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.parquet", FILES)
    before = np.array(open_archive(table).vectors)
    stamp = (tmp_path / "t.parquet.f16").stat().st_mtime_ns
    open_archive(table)
    assert (tmp_path / "t.parquet.f16").stat().st_mtime_ns == stamp
    kept = table.stat()
    write_table(table, [(name, starts, rows[:, ::-1]) for name, starts, rows in FILES])
    os.utime(table, ns=(kept.st_atime_ns, kept.st_mtime_ns))  # even if its time says that it is not
    np.testing.assert_allclose(np.array(open_archive(table).vectors), before[:, ::-1], atol=1e-3)


def test_a_copy_of_the_table_keeps_the_vectors(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.parquet", FILES)
    open_archive(table)
    vectors = tmp_path / "t.parquet.f16"
    stamp = vectors.stat().st_mtime_ns
    os.utime(table, ns=(1, 1))
    open_archive(table)
    assert vectors.stat().st_mtime_ns == stamp
    assert json.loads((tmp_path / "t.parquet.f16.json").read_text("utf-8"))["stamp"][1] == 1


@pytest.mark.parametrize("damage", ["shorter", "no header", "another header", "gone"])
def test_damaged_vectors_are_made_again(tmp_path: Path, damage: str) -> None:
    table = write_table(tmp_path / "t.parquet", FILES)
    before = np.array(open_archive(table).vectors)
    vectors, header = tmp_path / "t.parquet.f16", tmp_path / "t.parquet.f16.json"
    if damage == "shorter":
        vectors.write_bytes(vectors.read_bytes()[:-2])
    elif damage == "no header":
        header.unlink()
    elif damage == "another header":
        header.write_text('{"format": []}', "utf-8")
    else:
        vectors.unlink()
    assert (np.array(open_archive(table).vectors) == before).all()


def test_tables_that_cannot_be_searched_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "classify.parquet"
    pq.write_table(pa.table({"path": ["a"], "status": ["ok"]}), other)
    with pytest.raises(UsageError, match="has no column start_seconds"):
        open_archive(other)
    (tmp_path / "text.parquet").write_text("not a table", "utf-8")
    with pytest.raises(UsageError, match="not a table of `features --output`"):
        open_archive(tmp_path / "text.parquet")
    with pytest.raises(UsageError, match="not there"):
        open_archive(tmp_path / "missing.parquet")
    with pytest.raises(UsageError, match="has no windows with features"):
        open_archive(write_table(tmp_path / "empty.parquet", [], errors=["bad.mp4"]))
    bad = FILES[0][2].copy()
    bad[1, 2] = np.nan
    with pytest.raises(UsageError, match="not finite"):
        open_archive(write_table(tmp_path / "nan.parquet", [("a", [0, 1, 2], bad)]))
    assert not (tmp_path / "nan.parquet.f16").exists()


def test_a_table_of_two_models_is_refused(tmp_path: Path) -> None:
    one = pq.read_table(write_table(tmp_path / "1.parquet", FILES[:1]))
    two = pq.read_table(write_table(tmp_path / "2.parquet", FILES[1:], weights_sha256="f" * 64))
    pq.write_table(pa.concat_tables([one, two]), tmp_path / "both.parquet")
    with pytest.raises(UsageError, match="differ in weights_sha256"):
        open_archive(tmp_path / "both.parquet")
