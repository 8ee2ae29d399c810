"""The part files of a run on a cluster: what is damaged is refused, what was cut off is done again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.ray.parts import PartFolder
from nonlocal_video.inference.results import arrow_schema, flatten

SETTINGS = {"model": "tiny", "views": "1x1"}


def row(path: str) -> dict[str, Any]:
    return {
        "path": path, "status": "ok", "model": "tiny", "top": [{"label": "dancing", "index": 3, "score": 0.5}],
        "error": None, "video": None, "seconds": None, "notes": [],
    }  # fmt: skip


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A folder with two part files."""
    folder = tmp_path / "table.parquet"
    PartFolder(str(folder), SETTINGS, top_k=1, resume=False)
    for part in ("a", "b"):
        rows = [flatten(row(f"{part}{number}.mp4"), 1) for number in range(50)]
        table = pa.Table.from_pylist(rows, arrow_schema(1))
        pq.write_table(table, folder / f"{part}.parquet", write_page_checksum=True, compression="none")
    return folder


def resume(output: Path, settings: dict[str, Any] = SETTINGS) -> PartFolder:
    return PartFolder(str(output), settings, top_k=1, resume=True)


def test_a_run_that_was_cut_off_goes_on(output: Path) -> None:
    assert list(resume(output).still_to_do(["a1.mp4", "new.mp4", "b49.mp4"])) == ["new.mp4"]
    (output / "b.parquet").write_bytes((output / "b.parquet").read_bytes()[:-100])  # its writer was killed
    assert list(resume(output).still_to_do(["a1.mp4", "new.mp4", "b49.mp4"])) == ["new.mp4", "b49.mp4"]
    with pytest.raises(UsageError, match="views was '1x1'"):
        resume(output, SETTINGS | {"views": "10x3"})


@pytest.mark.parametrize("word", [b"dancing", b"b17.mp4", b"tiny"])
def test_a_damaged_part_is_named_whatever_column_it_is_in(output: Path, word: bytes) -> None:
    part = output / "b.parquet"
    content = part.read_bytes()
    place = content.index(word) + 1
    part.write_bytes(content[:place] + b"X" + content[place + 1 :])
    with pytest.raises(UsageError, match=r"b\.parquet in .* is damaged.*Delete it"):
        resume(output)
    part.unlink()
    assert list(resume(output).still_to_do(["a1.mp4", "b17.mp4"])) == ["b17.mp4"]


def test_damaged_settings_are_a_sentence(output: Path) -> None:
    path = output / "_settings.json"
    content = path.read_text()
    mutants = [
        content.replace("tiny", "tinY"), content[:-3], "", "[" * 100_000, "[]", "null", '{"settings": 1, "crc32": 1}',
        json.dumps(SETTINGS),
    ]  # fmt: skip
    for mutant in mutants:
        path.write_text(mutant)
        with pytest.raises(UsageError, match=r"_settings\.json in .* is damaged"):
            resume(output)
