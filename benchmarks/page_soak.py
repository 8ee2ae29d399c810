"""Hundreds of visits of the page, one after another: does memory, or do files, pile up on the server?

    python benchmarks/page_soak.py --visits 200 --output benchmarks/results/page_soak.json
    python benchmarks/page_soak.py --visits 100000 --minutes 60

In each visit a clip is uploaded and recognised with the quick look, its preview fetched, and a point asked about; every
tenth visitor uploads something that is no video. The clips are 10 s of 320 x 240 pixels.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from page_visitor import Failed, Visitor, make_clip, serving

from nonlocal_video.benchmark.machine import describe_machine

KEEP_MINUTES = 1.0
BAD_EVERY = 10
MIB = 2**20


def visit(url: str, clip: Path, unlike: bytes) -> str:
    """Open the page, get an answer, ask about a point, close the page; what came of it.

    Args:
        url: Where the page is.
        clip: An MP4 file.
        unlike: Makes this upload differ from others: Gradio keeps a single copy of equal ones.
    """
    with tempfile.TemporaryDirectory() as folder, Visitor(url) as visitor:
        own = Path(folder) / clip.name
        own.write_bytes(clip.read_bytes() + _free_box(unlike))
        try:
            answer = visitor.recognise(visitor.upload(own))
        except Failed as sentence:
            return str(sentence).replace(clip.name, "the file")
        preview = visitor.http.get(answer["player"]["file"]["url"]).raise_for_status()
        assert len(preview.content) > 1000, "a preview without pictures"
        about = {"run": answer["run"], "seconds": answer["player"]["seconds"][0], "x": 0.5, "y": 0.5}
        assert "attends" in visitor.ask("point", about)["words"]
    return "answered"


def soak(
    url: str,
    server: psutil.Process,
    folder: Path,
    clips: Sequence[Path],
    num_visits: int,
    *,
    every: int,
    seconds: float = math.inf,
) -> tuple[Counter[str], list[dict[str, float]]]:
    """Visits in turn with these clips: what came of them, and what the server held after each `every` of them.

    Args:
        url: Where the page is.
        server: Its process.
        folder: Where it may leave temporary files.
        clips: MP4 files that take turns, or files that only call themselves so.
        num_visits: How often at most.
        every: Visits from one measurement to the next.
        seconds: Time after which no further visit begins.
    """
    outcomes: Counter[str] = Counter()
    held = []
    started = time.monotonic()
    for number in range(num_visits):
        if time.monotonic() - started > seconds:
            break
        outcomes[visit(url, clips[number % len(clips)], number.to_bytes(8, "big"))] += 1
        if (number + 1) % every == 0:
            held.append({"visits": number + 1, **held_by(server, folder)})
            print(held[-1], flush=True)
    return outcomes, held


def _free_box(content: bytes) -> bytes:
    """A box of ISO 14496-12 whose content readers skip."""
    return (8 + len(content)).to_bytes(4, "big") + b"free" + content


def files_in(folder: Path) -> list[Path]:
    """Files below a folder, some of which may be deleted meanwhile (`rglob` fails at a folder that is gone)."""
    return [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]


def held_by(server: psutil.Process, folder: Path) -> dict[str, float]:
    """Return what a server's process holds now, and what lies in its folder for temporary files."""
    children = server.children(recursive=True)
    sizes = []
    for path in files_in(folder):
        with suppress(FileNotFoundError):  # the server deletes meanwhile
            sizes.append(path.stat().st_size)
    return {
        "server_mib": round(server.memory_info().rss / MIB, 1),
        "children": len(children),
        "children_mib": round(sum(child.memory_info().rss for child in children) / MIB, 1),
        "open_files": server.num_fds(),
        "threads": server.num_threads(),
        "temporary_files": len(sizes),
        "temporary_mib": round(sum(sizes) / MIB, 2),
    }


def _mean(held: Sequence[dict[str, float]], name: str) -> float:
    return round(sum(point[name] for point in held) / len(held), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visits", type=int, default=200, help="At most so many.")
    parser.add_argument("--minutes", type=float, default=math.inf, help="No visit begins later than that.")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nonlocal-video-soak-") as name:
        clips, temporary = Path(name) / "clips", Path(name) / "server"
        clips.mkdir()
        temporary.mkdir()
        in_turn = [clips / f"clip {number}.mp4" for number in range(BAD_EVERY)]
        in_turn[-1].write_text("not a video at all\n" * 20)
        for number, clip in enumerate(in_turn[:-1]):
            make_clip(clip, seed=number)
        with serving("--keep-minutes", str(KEEP_MINUTES), temporary=temporary) as (url, pid):
            server = psutil.Process(pid)
            started = time.perf_counter()
            last = 60 * arguments.minutes
            outcomes, held = soak(url, server, temporary, in_turn, arguments.visits, every=BAD_EVERY, seconds=last)
            seconds = time.perf_counter() - started
            time.sleep(60 * KEEP_MINUTES * 1.5)
            at_rest = held_by(server, temporary)
        left = files_in(temporary)
    half = len(held) // 2
    figures = {
        "visits": outcomes.total(),
        "outcomes": dict(outcomes),
        "seconds": round(seconds, 1),
        "uploads_kept_minutes": KEEP_MINUTES,
        "server_mib_first_half": _mean(held[:half], "server_mib"),
        "server_mib_second_half": _mean(held[half:], "server_mib"),
        "held": held,
        "held_when_uploads_are_deleted": at_rest,
        "files_left_when_the_server_has_ended": len(left),
        "machine": describe_machine(),
    }
    print(json.dumps(figures, indent=1))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
