"""One clip in, its scores out: this project beside PyTorchVideo, transformers and torchvision, in turn.

    python benchmarks/peers.py CLIPS --environments DIR --output benchmarks/results/peers.json

CLIPS is a folder of video files. Every peer runs in a virtual environment of its own under DIR, which is made once,
with the network that it offers, random weights and the same threads. Both processes are alive at once and answer in
turns: for each clip by itself, and then for all clips as a folder. PyTorch and what is installed beside it are those of
the environment that runs the script, so that all sides have the same build; pip adds what a peer needs besides. A peer
that cannot be installed or run is listed with its error. docs/speed.md is made from the file.

- `slow_r50`, 8 x 8 frames of 256 pixels: PyTorchVideo's network and transforms against the same network here.
- `videomae`: transformers' video-classification pipeline against the same folder here.
- `r3d_18`: torchvision's network and preset against the same network here.
- `video_features`, for features: pip installs it from its repository, which has been no Python package so far.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

import torch
import torchvision

from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.paths import CACHE_VARIABLE

WORKERS = Path(__file__).resolve().with_name("peers_workers.py")
CASES: dict[str, dict[str, Any]] = {
    "slow_r50": {
        "peer": "PyTorchVideo",
        "install": ["torch", "torchvision", "pytorchvideo", "av"],
        "leaves_out": "child process with limits; exact frames (its reader seeks and counts frames by the rate)",
    },
    "videomae": {
        "peer": "transformers, video-classification pipeline",
        "install": ["torch", "torchvision", "transformers", "av"],
        "leaves_out": "child process with limits; files with fewer frames than the model takes",
    },
    "r3d_18": {
        "peer": "torchvision, preset of R3D_18",
        "install": ["torch", "torchvision", "av"],
        "leaves_out": "decoding (here PyAV reads all frames); child process with limits",
    },
    "video_features": {
        "peer": "video_features",
        "install": ["git+https://github.com/v-iashin/video_features"],
        "leaves_out": "",
    },
}


class Worker:
    """A process that answers for clips when asked."""

    def __init__(self, python: Path, case: str, side: str, folder: Path, threads: int) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        environment |= {CACHE_VARIABLE: str(folder / "cache")}
        self._errors = (folder / f"{case}-{side}.log").open("w+")
        self._process = subprocess.Popen(
            [python, WORKERS, case, side, folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=environment, cwd=folder,
        )  # fmt: skip
        self.about = self._answer()

    def ask(self, clips: list[Path]) -> dict[str, Any]:
        """Return the `seconds` from the paths of clips to their scores; several clips are a folder."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps([str(clip) for clip in clips])}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        self._errors.seek(0)
        raise RuntimeError(self._errors.read())

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--environments", type=Path, required=True, help="folder for the peers' environments")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=2, help="answers of each side for each clip, and for the folder")
    parser.add_argument("--num-clips", type=int, default=6)
    parser.add_argument("--warm-seconds", type=float, default=15, help="time of each side before anything counts")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    options = parser.parse_args()
    suffixes = (".mp4", ".avi", ".mov", ".webm", ".mkv")
    clips = sorted(path.resolve() for path in options.clips.rglob("*") if path.suffix.lower() in suffixes)
    clips = clips[:: max(1, len(clips) // options.num_clips)][: options.num_clips]
    folder = options.environments.resolve()
    load_before = os.getloadavg()[0]
    folder.mkdir(parents=True, exist_ok=True)
    cases: dict[str, Any] = {}
    for name in options.cases:
        print(name, flush=True)
        try:
            cases[name] = compared(name, clips, folder, options)
        except (RuntimeError, subprocess.CalledProcessError) as error:
            cases[name] = {"error": short(str(getattr(error, "stderr", "") or error))}
        cases[name] |= {"peer": CASES[name]["peer"], "leaves_out": CASES[name]["leaves_out"]}
        results = {
            "machine": describe_machine() | {"threads": options.threads},
            "load_average": [round(load_before, 1), round(os.getloadavg()[0], 1)],
            "rounds": options.rounds,
            "num_clips": len(clips),
            "cases": cases,
        }
        options.output.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def compared(case: str, clips: list[Path], folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return medians, and the ratios of each turn's times, for one network."""
    python = environment_of(case, folder)
    workers: dict[str, Worker] = {}
    runtime = ""
    single: dict[str, list[float]] = {"peer": [], "ours": []}
    whole: dict[str, list[float]] = {"peer": [], "ours": []}
    try:
        for side, executable in (("peer", python), ("ours", Path(sys.executable))):
            workers[side] = Worker(executable, case, side, folder, options.threads)
        for worker in workers.values():  # what is compiled or cached at first does not count
            started = time.perf_counter()
            while time.perf_counter() - started < options.warm_seconds:
                worker.ask(clips[:1])
            worker.ask(clips[:2])
        for _ in range(options.rounds):
            for clip in clips:
                for side, worker in workers.items():
                    single[side].append(worker.ask([clip])["seconds"])
            for side, worker in workers.items():
                found = worker.ask(clips)
                whole[side].append(found["seconds"] / len(clips))
                runtime = found.get("runtime", "")
            print(f"{case}: {single['peer'][-1]:.2f} {single['ours'][-1]:.2f}", flush=True)
    finally:
        for worker in workers.values():
            worker.close()
    versions = {side: worker.about for side, worker in workers.items()}
    return {"single": ratios(single), "folder": ratios(whole), "our_runtime": runtime, "versions": versions}


def ratios(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Return medians of seconds a clip, and of the ratios of neighbouring times with the smallest and the largest."""
    found = [peer / ours for peer, ours in zip(seconds["peer"], seconds["ours"], strict=True)]
    return {
        "peer_seconds": round(statistics.median(seconds["peer"]), 3),
        "our_seconds": round(statistics.median(seconds["ours"]), 3),
        "ratio": round(statistics.median(found), 3),
        "smallest_and_largest": [round(min(found), 3), round(max(found), 3)],
    }


def short(error: str) -> str:
    """Return the line of an error that says what is wrong."""
    lines = [line.strip() for line in error.strip().splitlines() if line.strip()]
    telling = [line for word in ("fatal", "error") for line in lines if line.lower().startswith(word)]
    return (telling or lines[-1:] or ["no message"])[0][:300]


def environment_of(case: str, folder: Path) -> Path:
    """Return the Python of a peer's environment, which is made if it is not there."""
    environment = folder / case
    python = environment / "bin" / "python"
    if not (environment / "installed").is_file():
        venv.create(environment, with_pip=True, clear=True)
        (site,) = environment.glob("lib/python*/site-packages")
        borrowed = dict.fromkeys(str(Path(package.__path__[0]).parent) for package in (torch, torchvision))
        (site / "borrowed.pth").write_text("\n".join(borrowed))
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *CASES[case]["install"]]
        subprocess.run(command, check=True, capture_output=True, text=True)
        (environment / "installed").touch()
    return python


if __name__ == "__main__":
    main()
