"""One clip in, its scores out: this project beside PyTorchVideo, transformers and torchvision, in turn.

    python benchmarks/peers.py CLIPS --environments DIR --output benchmarks/results/peers.json

CLIPS is a folder of video files. Every peer runs in a virtual environment of its own under DIR, which is made once,
with the network that it offers, random weights, the same threads, and the clips one after another in one process.
Both processes are alive at once and answer in turns. PyTorch and what is installed beside it are those of the
environment that runs the script, so that all sides have the same build; pip adds what a peer needs besides. A peer
that cannot be installed or run is listed with its error.

- `slow_r50`, 8 x 8 frames of 256 pixels: PyTorchVideo's network and transforms against the same network here.
- `videomae`: transformers' video-classification pipeline against the same folder here.
- `r3d_18`: torchvision's network and preset against the same network here.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import torch
import torchvision

from nonlocal_video.benchmark.machine import describe_machine

ROOT = Path(__file__).resolve().parents[1]
WORKERS = Path(__file__).resolve().with_name("peers_workers.py")
CASES: dict[str, dict[str, Any]] = {
    "slow_r50": {
        "peer": "PyTorchVideo",
        "install": ["torch", "torchvision", "pytorchvideo", "av"],
        "packages": ["pytorchvideo", "torch", "av"],
        "leaves_out": "child process with limits; exact frames (its reader seeks and counts frames by the rate)",
    },
    "videomae": {
        "peer": "transformers, video-classification pipeline",
        "install": ["torch", "torchvision", "transformers", "torchcodec", "av"],
        "packages": ["transformers", "torch", "torchcodec"],
        "leaves_out": "child process with limits; files with fewer frames than the model takes",
    },
    "r3d_18": {
        "peer": "torchvision, preset of R3D_18",
        "install": ["torch", "torchvision", "av"],
        "packages": ["torchvision", "torch", "av"],
        "leaves_out": "decoding (PyAV, every frame, as in its own examples); child process with limits",
    },
}


class Worker:
    """A process that answers for a clip at a time."""

    def __init__(self, python: Path, case: str, side: str, folder: Path, threads: int) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        environment |= {"PYTHONPATH": str(ROOT)} if side == "ours" else {}
        self._errors = (folder / f"{case}-{side}.log").open("w+")
        self._process = subprocess.Popen(
            [python, WORKERS, case, side, folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=environment, cwd=folder,
        )  # fmt: skip
        self.about = self._answer()

    def seconds(self, clip: Path) -> float:
        """Return the seconds from the clip's path to its scores."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{clip}\n")
        self._process.stdin.flush()
        return float(self._answer()["seconds"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        self._errors.seek(0)
        raise RuntimeError(" ".join(self._errors.read().split()[-60:]))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--environments", type=Path, required=True, help="folder for the peers' environments")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5, help="answers of each side for each clip; the median counts")
    parser.add_argument("--num-clips", type=int, default=4)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    options = parser.parse_args()
    suffixes = (".mp4", ".avi", ".mov", ".webm", ".mkv")
    clips = sorted(path.resolve() for path in options.clips.rglob("*") if path.suffix.lower() in suffixes)
    clips = clips[:: max(1, len(clips) // options.num_clips)][: options.num_clips]
    folder = options.environments.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    cases = {}
    for name in options.cases:
        try:
            cases[name] = compared(name, clips, folder, options.rounds, options.threads)
        except (RuntimeError, subprocess.CalledProcessError) as error:
            cases[name] = {"error": str(getattr(error, "stderr", "") or error)[-600:]}
        cases[name] |= {"peer": CASES[name]["peer"], "leaves_out": CASES[name]["leaves_out"]}
    results = {
        "machine": describe_machine() | {"threads": options.threads},
        "load_average": os.getloadavg()[0],
        "rounds": options.rounds,
        "num_clips": len(clips),
        "cases": cases,
    }
    options.output.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def compared(case: str, clips: list[Path], folder: Path, rounds: int, threads: int) -> dict[str, Any]:
    """Return medians, and the ratio of each turn's times, for one network."""
    python = environment_of(case, folder)
    workers = {
        "peer": Worker(python, case, "peer", folder, threads),
        "ours": Worker(Path(sys.executable), case, "ours", folder, threads),
    }
    try:
        seconds: dict[str, list[float]] = {side: [] for side in workers}
        for worker in workers.values():  # what is compiled or cached at the first answer does not count
            worker.seconds(clips[0])
        for _ in range(rounds):
            for clip in clips:
                for side, worker in workers.items():
                    seconds[side].append(worker.seconds(clip))
    finally:
        for worker in workers.values():
            worker.close()
    ratios = [peer / ours for peer, ours in zip(seconds["peer"], seconds["ours"], strict=True)]
    return {
        "peer_seconds": statistics.median(seconds["peer"]),
        "our_seconds": statistics.median(seconds["ours"]),
        "ratio": statistics.median(ratios),
        "ratio_quartiles": statistics.quantiles(ratios, n=4)[::2],
        "versions": {side: worker.about for side, worker in workers.items()},
    }


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
