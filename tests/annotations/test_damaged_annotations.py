"""Files with values of other kinds, or without some: an error of ours or a list of problems, never a crash."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from segment_rows import made_up

from nonlocal_video.annotations.formats import read_annotations, write_annotations
from nonlocal_video.errors import UsageError

ODD: list[object] = [
    None,
    True,
    -1,
    0,
    1e308,
    10**400,
    "",
    "x",
    "1",
    [],
    {},
    [1, 2],
    {"a": 1},
    [[]],
    [{}],
    "\ud83d",
    "a\x00b",
    "-->",
]


def places(value: Any, parent: Any = None, key: Any = None) -> Iterator[tuple[Any, Any]]:
    """Every container and key below a JSON value."""
    if parent is not None:
        yield parent, key
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in list(items):
        yield from places(child, value, name)


@pytest.mark.parametrize("ending", [".boris", ".labelstudio.json", ".activitynet.json"])
def test_json_with_odd_values(tmp_path: Path, ending: str) -> None:
    dice = random.Random(1)
    source = tmp_path / f"a{ending}"
    write_annotations(source, made_up(tmp_path / "a.mp4", 6))
    document = json.loads(source.read_text())
    num_refused = 0
    for _ in range(200):
        broken = copy.deepcopy(document)
        for _ in range(dice.choice([1, 1, 2, 5])):
            every = list(places(broken))
            if not every:
                break
            parent, key = dice.choice(every)
            if dice.random() < 0.3:
                del parent[key]
            else:
                parent[key] = dice.choice(ODD)
        path = tmp_path / f"b{ending}"
        path.write_text(json.dumps(broken))
        try:
            for row in read_annotations(path):
                assert 0 <= row.start_seconds <= row.end_seconds
        except UsageError:
            num_refused += 1
    assert num_refused < 100  # most damage costs a row, not the file


@pytest.mark.parametrize("ending", [".eaf", ".vtt", ".srt", ".csv", ".boris"])
def test_text_with_odd_pieces(tmp_path: Path, ending: str) -> None:
    dice = random.Random(2)
    source = tmp_path / f"a{ending}"
    write_annotations(source, made_up(tmp_path / "a.mp4", 6))
    text = source.read_text()
    pieces = ['"', "<", ">", "&", ",", "\n", "-->", "\x00", "99999999999", "-", "é", "", "", "TIME_VALUE", "</TIER>"]
    for _ in range(150):
        broken = text
        for _ in range(dice.choice([1, 2, 4])):
            start = dice.randrange(len(broken))
            broken = broken[:start] + dice.choice(pieces) + broken[start + dice.randrange(12) :]
        path = tmp_path / f"b{ending}"
        path.write_text(broken)
        try:
            for row in read_annotations(path, media="a.mp4"):
                assert 0 <= row.start_seconds <= row.end_seconds
        except UsageError:
            pass
