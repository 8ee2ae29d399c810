"""Compare two versions of the project on a CPU, in turn: folder, timeline, one clip, its maps, the page's first answer.

    python benchmarks/two_versions.py OTHER_TREE CLIPS VIDEO --output benchmarks/results/two_versions.json

OTHER_TREE is a checkout of another commit with an environment in `.venv` (`git worktree add ../other COMMIT`, then
`make .venv/.installed-dev` there). CLIPS is a folder to classify, VIDEO a longer file for the timeline. Both versions
run each command in turn, after one run that is not counted; the ratios are those of neighbouring runs. A run of some
`--cases` keeps the others that are in the output.

What a version keeps in the cache folder it finds in the counted runs; before the first run that folder is empty.

Seconds are those of the whole command, start-up included; `cpu_seconds` those of its processes on all cores. The page
is timed in Chromium with its full view, from the choice of the clip to the scores and to the playing overlay.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from page_first_answer import first_answer
from page_visitor import make_clip, serving
from playwright.sync_api import sync_playwright

from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.paths import CACHE_VARIABLE
from nonlocal_video.video import VideoReader

ROOT = Path(__file__).resolve().parents[1]
CASES = ("folder", "timeline", "clip", "maps", "page")
Figures = dict[str, float]


def command(tree: Path, *arguments: str) -> Figures:
    """Run a verb of a tree's version; wall-clock and processor seconds."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [tree / ".venv" / "bin" / "python", "-m", "nonlocal_video", *arguments, "--device", "cpu"],
        cwd=tree, check=True, capture_output=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.perf_counter() - started, "cpu_seconds": cpu}


def visit(url: str, clip: Path) -> Figures:
    """Ask the page at this address for its first answer to a clip."""
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        found = first_answer(page, url, clip, quick=False)
        browser.close()
    return {"scores_seconds": found["scores"], "overlay_seconds": found["maps"]}


def compare(this: Callable[[int], Figures], other: Callable[[int], Figures], runs: int) -> dict[str, object]:
    """Call both in turn, one uncounted time more than `runs`; medians, the slowest, and the ratios of each pair."""
    pairs = []
    for number in range(1 + runs):
        first, second = (other, this) if number % 2 else (this, other)
        found = {first: first(number)}
        found[second] = second(number)
        pairs.append((found[this], found[other]))
        print({name: (round(pairs[-1][0][name], 2), round(pairs[-1][1][name], 2)) for name in pairs[-1][0]}, flush=True)
    counted = pairs[1:]
    return {
        name: {
            "this": round(statistics.median(pair[0][name] for pair in counted), 3),
            "other": round(statistics.median(pair[1][name] for pair in counted), 3),
            "slowest": {
                version: round(max(pair[position][name] for pair in counted), 3)
                for position, version in enumerate(("this", "other"))
            },
            "ratios": [round(pair[0][name] / pair[1][name], 3) for pair in counted],
            "ratio": round(statistics.median(pair[0][name] / pair[1][name] for pair in counted), 3),
        }
        for name in counted[0][0]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("clips", type=Path)
    parser.add_argument("video", type=Path)
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each version")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    trees = [ROOT, arguments.other.resolve()]
    clips, video = str(arguments.clips.resolve()), str(arguments.video.resolve())
    first_clip = min(path for path in arguments.clips.resolve().rglob("*") if path.is_file())
    load_before = os.getloadavg()[0]
    known = json.loads(arguments.output.read_text("utf-8")) if arguments.output.exists() else {}
    commits = {"this_commit": commit_of(trees[0]), "other_commit": commit_of(trees[1])}
    is_same = all(known.get(name) == commit for name, commit in commits.items())
    cases: dict[str, object] = known["cases"] if is_same else {}
    with tempfile.TemporaryDirectory(prefix="nonlocal-video-") as name:
        folder = Path(name)
        os.environ[CACHE_VARIABLE] = str(folder / "cache")

        def table(tree: Path) -> Callable[[int], Figures]:
            return lambda n: command(tree, "classify", clips, "--output", str(folder / f"{tree.name} {n}.csv"))

        def timeline(tree: Path) -> Callable[[int], Figures]:
            return lambda n: command(tree, "timeline", video, "--output", str(folder / f"{tree.name} {n}.json"))

        def one_clip(tree: Path) -> Callable[[int], Figures]:
            return lambda _: command(tree, "classify", str(first_clip))

        def maps(tree: Path) -> Callable[[int], Figures]:
            return lambda n: command(
                tree, "explain", str(first_clip), "--output", str(folder / f"{tree.name} {n} maps")
            )

        for case, run in (("folder", table), ("timeline", timeline), ("clip", one_clip), ("maps", maps)):
            if case in arguments.cases:
                print(case, flush=True)
                cases[case] = compare(run(trees[0]), run(trees[1]), arguments.runs)
        if "page" in arguments.cases:
            print("page", flush=True)
            cases["page"] = page(folder, trees, arguments.runs)
    figures = {
        **commits,
        "runtimes": {"this": default_runtime(trees[0]), "other": default_runtime(trees[1])},
        "video_seconds": round(VideoReader().probe(video).duration_seconds),
        "num_clips": sum(path.is_file() for path in arguments.clips.rglob("*")),
        "runs": arguments.runs,
        "cases": cases,
        "load_of_the_machine_before": round(load_before, 1),
        "machine": describe_machine(),
    }
    print(json.dumps(figures, indent=1))
    arguments.output.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


def page(folder: Path, trees: list[Path], runs: int) -> dict[str, object]:
    """Compare the pages of two trees, each visited with a new clip each time."""
    temporary = [folder / f"server {number}" for number in range(2)]
    for path in temporary:
        path.mkdir()
    with (
        serving(temporary=temporary[0]) as (this_url, _),
        serving(temporary=temporary[1], tree=trees[1]) as (other_url, _),
    ):
        made = [folder / f"clip {number}.mp4" for number in range(1 + runs)]
        for seed, path in enumerate(made):
            make_clip(path, seed=seed)
        return compare(lambda n: visit(this_url, made[n]), lambda n: visit(other_url, made[n]), runs)


def commit_of(tree: Path) -> str:
    """Return the commit that a tree is of."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tree, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def default_runtime(tree: Path) -> str:
    """Return what runs the network in a tree's version if nothing is asked for."""
    code = "import inspect, nonlocal_video as n; print(inspect.signature(n.load).parameters['runtime'].default)"
    done = subprocess.run([tree / ".venv/bin/python", "-c", code], cwd=tree, check=True, capture_output=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
