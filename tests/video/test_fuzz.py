"""Two thousand damaged videos: a row each, no crash, no hang, no growth. `make fuzz` does more of the same."""

from __future__ import annotations

import importlib.util
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from nonlocal_video.video._streams import demux

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"


@pytest.fixture(scope="module")
def fuzzing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module  # its dataclass looks its annotations up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_thousand_damaged_files(fuzzing: ModuleType) -> None:
    report = fuzzing.fuzz(2000, seed=1, workers=2)
    row = report.to_row()
    assert row["unexpected"] == []
    assert row["files"] == 2000
    assert all(sum(counts.values()) == 200 for counts in row["by_seed"].values())
    assert row["total"]["ok"] > 400  # many mutants are harmless ...
    assert 2000 - row["total"]["ok"] > 400  # ... and many are not
    assert report.rss_mib[-1] < report.rss_mib[0] + 50


def test_mutants_differ_from_their_seed_and_come_again(fuzzing: ModuleType) -> None:
    data, other = bytes(range(256)) * 20, bytes(1000)
    mutants = [fuzzing.mutate(data, [other], random.Random(number)) for number in range(50)]
    assert sum(mutant != data for mutant in mutants) >= 48
    assert mutants == [fuzzing.mutate(data, [other], random.Random(number)) for number in range(50)]


def test_streams_that_turn_up_in_a_damaged_file_end_the_packets_and_nothing_else() -> None:
    """PyAV raises IndexError for a stream that FFmpeg found while reading, after the known ones' last packets."""

    class Container:
        def demux(self, stream: int) -> Iterator[int]:
            yield from range(3)
            raise IndexError(stream)

    assert list(demux(Container(), 7)) == [0, 1, 2]
