"""A journal that was changed is refused or does no harm, whatever was changed; one that was cut off is continued."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.inference.results import ResultFile, count_rows

MUTANTS = int(os.environ.get("NONLOCAL_VIDEO_MUTANTS", "300"))
SETTINGS = {"model": "tiny", "views": "1x1", "top_k": 1}
NUM_FILES = 7


def row(path: str) -> dict[str, Any]:
    score = int(Path(path).stem[-1]) / 10
    return {
        "path": path, "status": "ok", "model": "tiny", "top": [{"label": "dancing", "index": 3, "score": score}],
        "error": None, "video": None, "seconds": None, "notes": ["of the decoder"],
    }  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    names = [str(tmp_path / f"clip{number}.mp4") for number in range(NUM_FILES)]
    for name in names:
        Path(name).write_bytes(b"x")
    return names


def resume(output: Path, files: list[str]) -> list[dict[str, Any]]:
    """Go on as a run does; the rows of the table."""
    with ResultFile(output, SETTINGS, top_k=1, resume=True) as results:
        for name in results.still_to_do(files):
            results.append(name, row(name))
    return [json.loads(line) for line in output.read_text("utf-8").splitlines()]


def journal_of(tmp_path: Path, files: list[str], *, complete: bool) -> tuple[Path, Path]:
    """The output and the journal of a run; of one that is not complete there is no table."""
    output = tmp_path / "table.jsonl"
    results = ResultFile(output, SETTINGS, top_k=1, resume=False)
    for name in files if complete else files[:-2]:
        results.append(name, row(name))
    if complete:
        results.__exit__(None, None, None)
    else:
        results.__exit__(OSError, OSError("killed"), None)
    return output, results.journal_path


def flip_a_bit(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randint(2, 20)):
        data = flip_a_bit(data, rng)
    return data


def insert_bytes(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    new = rng.choice([b"\n", b" ", b"\0" * rng.randint(1, 4096), rng.randbytes(rng.randint(1, 40)), b'{"a": 1}\n'])
    return data[:place] + new + data[place:]


def delete_bytes(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + data[place + rng.randint(1, 60) :]


def cut_off(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def change_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    first, second = rng.sample(range(len(lines)), 2)
    change = rng.choice(["delete", "duplicate", "swap", "copy", "reverse"])
    if change == "delete":
        del lines[first]
    elif change == "duplicate":
        lines.insert(second, lines[first])
    elif change == "swap":
        lines[first], lines[second] = lines[second], lines[first]
    elif change == "copy":
        lines[first] = lines[second]
    else:
        lines.reverse()
    return b"".join(lines)


def change_a_digit(data: bytes, rng: random.Random) -> bytes:
    """A changed score, stamp or checksum is the worst, as the line is still JSON."""
    places = [place for place, byte in enumerate(data) if chr(byte).isdigit()]
    place = rng.choice(places)
    return data[:place] + str(rng.randrange(10)).encode() + data[place + 1 :]


CHANGES: list[Callable[[bytes, random.Random], bytes]] = [
    flip_a_bit, flip_bits, insert_bytes, delete_bytes, cut_off, change_lines, change_a_digit,
]  # fmt: skip


@pytest.mark.parametrize("complete", [False, True])
def test_a_changed_journal_is_refused_at_the_start_or_does_no_harm(
    tmp_path: Path, files: list[str], complete: bool
) -> None:
    output, journal = journal_of(tmp_path, files, complete=complete)
    whole, table = journal.read_bytes(), output.read_bytes() if complete else None
    rng = random.Random(complete)
    refused = accepted = 0
    for number in range(MUTANTS // 2):
        change = CHANGES[number % len(CHANGES)]
        mutant = change(whole, rng)
        if mutant == whole:
            continue
        journal.write_bytes(mutant)
        if table is None:
            output.unlink(missing_ok=True)
        else:
            output.write_bytes(table)
        try:
            rows = resume(output, files)
        except UsageError as error:
            refused += 1
            assert re.search(r"Line \d+ of ", str(error)), change  # noqa: PT017
            assert journal.read_bytes() == mutant, "a refused one is left alone"
            assert (output.read_bytes() if output.exists() else None) == table
        else:
            accepted += 1
            assert rows == [row(name) for name in files], (change, number)
    assert refused > accepted > 0, "some are only cut off"


@pytest.mark.parametrize("at", [0, 1, 4])
def test_the_line_is_named_and_what_to_do_works(tmp_path: Path, files: list[str], at: int) -> None:
    output, journal = journal_of(tmp_path, files, complete=False)
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[at] = lines[at].replace(b"tiny", b"tinY", 1)
    journal.write_bytes(b"".join(lines))
    with pytest.raises(UsageError, match=f"Line {at + 1} of .*damaged.*another output name") as caught:
        resume(output, files)
    if at:
        assert f"head -n {at}" in str(caught.value)
        journal.write_bytes(b"".join(lines[:at]))
        assert resume(output, files) == [row(name) for name in files]


def test_nesting_that_no_parser_takes_is_a_damaged_line(tmp_path: Path, files: list[str]) -> None:
    """A line with a right checksum is damaged, too."""
    output, journal = journal_of(tmp_path, files, complete=False)
    whole = journal.read_bytes()
    before = bytes.fromhex(whole.splitlines()[-1][-16:].decode())
    text = b"[" * 100_000 + b"]" * 100_000
    for digest in (hashlib.blake2b(before + text, digest_size=8).hexdigest(), "0" * 16):
        journal.write_bytes(whole + text + b" " + digest.encode() + b"\n")
        with pytest.raises(UsageError, match=f"Line {NUM_FILES} of "):
            resume(output, files)


def test_a_journal_damaged_while_the_run_goes_on_is_a_sentence_and_no_table(tmp_path: Path, files: list[str]) -> None:
    output = tmp_path / "table.jsonl"
    results = ResultFile(output, SETTINGS, top_k=1, resume=False)
    for name in files:
        results.append(name, row(name))
    place = results.journal_path.read_bytes().index(b"clip1") + 4
    with open(results.journal_path, "r+b") as file:
        file.seek(place)
        file.write(b"9")
    with pytest.raises(OutputError, match=r"Line 3 of .*damaged"):
        results.__exit__(None, None, None)
    assert not output.exists()
    assert not (tmp_path / "table.jsonl.draft").exists()


def test_a_journal_of_an_earlier_version_is_refused_with_a_sentence(tmp_path: Path, files: list[str]) -> None:
    journal = tmp_path / "table.jsonl.journal"
    lines = [{"settings": SETTINGS}, *({"file": name, "stamp": [1, 1], "row": row(name)} for name in files)]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UsageError, match=r"earlier version, without checksums.*another output name"):
        resume(tmp_path / "table.jsonl", files)


@pytest.mark.parametrize("content", [b"my diary", b"my diary\n", b"\0" * 4096, b"[" * 100_000])
def test_a_file_that_is_no_journal_is_not_written_over(tmp_path: Path, files: list[str], content: bytes) -> None:
    journal = tmp_path / "table.jsonl.journal"
    journal.write_bytes(content)
    with pytest.raises(UsageError, match=r"Line 1 of .*not of this program"):
        resume(tmp_path / "table.jsonl", files)
    assert journal.read_bytes() == content


def test_every_length_that_a_crash_can_leave_goes_on(tmp_path: Path, files: list[str]) -> None:
    """A kill or a power cut ends the file anywhere, perhaps with a block of zeros."""
    output, journal = journal_of(tmp_path, files, complete=False)
    whole = journal.read_bytes()
    for length in [*range(0, 130, 9), *range(len(whole) - 200, len(whole) + 1, 13), len(whole) - 1]:
        for end in (b"", b"\0" * 512) if length > 60 else (b"",):
            journal.write_bytes(whole[:length] + end)
            output.unlink(missing_ok=True)
            assert resume(output, files) == [row(name) for name in files], (length, end)


def test_half_a_line_that_a_full_disk_left_is_taken_back(
    tmp_path: Path, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "table.jsonl"
    write = os.write
    with ResultFile(output, SETTINGS, top_k=1, resume=False) as results:
        results.append(files[0], row(files[0]))

        def full(descriptor: int, data: bytes) -> int:
            if len(data) > 20:
                return write(descriptor, data[:20])
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda descriptor, data: full(descriptor, bytes(data)))
            with pytest.raises(OutputError, match="make room"):
                results.append(files[1], row(files[1]) | {"notes": ["x" * 7]})
        for name in files[1:]:
            results.append(name, row(name))
    assert [json.loads(line) for line in output.read_text().splitlines()] == [row(name) for name in files]
    assert resume(output, files) == [row(name) for name in files]


@pytest.mark.parametrize("name", ["table.jsonl", "table.jsonl.journal", "table.jsonl.draft"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "folder", "pipe"])
@pytest.mark.parametrize("resumed", [False, True])
def test_nothing_is_written_through_a_link(
    tmp_path: Path, files: list[str], name: str, kind: str, resumed: bool
) -> None:
    precious = tmp_path / "elsewhere" / "precious"
    precious.parent.mkdir()
    output, _ = journal_of(tmp_path, files, complete=True)
    if not resumed:
        for left in tmp_path.glob("table*"):
            left.unlink()
    path = tmp_path / name
    content = path.read_bytes() if path.exists() else b"precious"
    path.unlink(missing_ok=True)
    if kind != "dangling link":
        precious.write_bytes(content)
    if kind.endswith("ing link") or kind == "link":
        path.symlink_to(precious)
    elif kind == "hard link":
        path.hardlink_to(precious)
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    harmless = resumed and kind == "hard link" and name != "table.jsonl.journal"  # replaced, and the other name stays
    if harmless:
        resume(output, files)
    else:
        with pytest.raises((UsageError, OutputError)) as caught:
            ResultFile(output, SETTINGS, top_k=1, resume=resumed)
        assert name in str(caught.value)
        assert os.path.lexists(path)
    assert precious.exists() == (kind != "dangling link")
    if precious.exists():
        assert precious.read_bytes() == content


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_a_journal_that_lost_rows_of_its_table_replaces_it_by_no_smaller_one(
    tmp_path: Path, files: list[str], ending: str
) -> None:
    output = tmp_path / f"table{ending}"
    with ResultFile(output, SETTINGS, top_k=1, resume=False) as results:
        for name in files:
            results.append(name, row(name) | {"notes": ["two\nlines"]})
    table = output.read_bytes()
    lines = results.journal_path.read_bytes().splitlines(keepends=True)
    results.journal_path.write_bytes(b"".join(lines[:4]))
    results = ResultFile(output, SETTINGS, top_k=1, resume=True)
    for name in results.still_to_do(files[:4]):  # the other clips are gone
        results.append(name, row(name))
    with pytest.raises(OutputError, match=f"lost its end: it gives 4 rows, and .* has {NUM_FILES}"):
        results.__exit__(None, None, None)
    assert output.read_bytes() == table
    with ResultFile(output, SETTINGS, top_k=1, resume=True) as results:
        for name in results.still_to_do(files):
            results.append(name, row(name) | {"notes": ["two\nlines"]})
    assert count_rows(output) == NUM_FILES


def test_a_draft_of_somebody_else_is_not_written_over(tmp_path: Path, files: list[str]) -> None:
    (tmp_path / "table.jsonl.draft").write_text("of a novel")
    with pytest.raises(UsageError, match=r"table\.jsonl\.draft' exists"):
        ResultFile(tmp_path / "table.jsonl", SETTINGS, top_k=1, resume=False)
    assert (tmp_path / "table.jsonl.draft").read_text() == "of a novel"
    assert not (tmp_path / "table.jsonl.journal").exists()


def test_a_draft_that_a_kill_left_is_replaced(tmp_path: Path, files: list[str]) -> None:
    output, _ = journal_of(tmp_path, files, complete=False)
    (tmp_path / "table.jsonl.draft").write_text('{"half a')
    assert resume(output, files) == [row(name) for name in files]
    assert not (tmp_path / "table.jsonl.draft").exists()
