"""Measure what a command imports, how long that takes, and how much an installation weighs.

    python benchmarks/imports.py --other OTHER_TREE --output benchmarks/results/imports.json

OTHER_TREE is a checkout of an earlier commit with an environment in `.venv` (`git worktree add ../other COMMIT`, then
`make .venv/.installed-dev` there), whose commands are run in turn with this one's. docs/speed.md is made from the file.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from packaging.requirements import Requirement

from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.paths import CACHE_VARIABLE
from nonlocal_video.video.encode import write_video

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = {
    "torch": "torch",
    "torchvision": "torchvision",
    "pytorchvideo": "pytorchvideo.data.clip_sampling",
    "grad-cam": "pytorch_grad_cam",
    "torchmetrics": "torchmetrics.functional.classification",
    "scikit-learn": "sklearn.linear_model",
    "matplotlib": "matplotlib.pyplot",
    "gradio": "gradio",
    "lightning": "lightning.fabric",
    "ray": "ray.data",
    "transformers": "transformers.models.auto.modeling_auto",
}
"""Packages and the module of each that this project, or an earlier version of it, imports."""
MODEL = """
from nonlocal_video.models.card import InputSpec, ModelCard
from nonlocal_video.models.checkpoint import build_network, save_checkpoint
spec = InputSpec(num_frames=4, frames_per_second=8, short_side=40, crop=32, mean=(0.5,) * 3, std=(0.5,) * 3)
config = {"num_classes": 3, "width": 4, "blocks_per_stage": [1, 1, 1, 1]}
card = ModelCard("tiny", "resnet3d", config, spec, labels=("run", "jump", "throw"))
save_checkpoint("tiny.safetensors", build_network(card), card)
"""
RUN = """
import sys, time
started = time.perf_counter()
from nonlocal_video.cli.main import main
try:
    main()
except SystemExit as end:
    if end.code:
        raise
names = {name.partition(".")[0] for name in sys.modules}
print(time.perf_counter() - started, len(sys.modules), *sorted(names), file=sys.stderr)
"""
IMPORT = """
import importlib, sys, time
if sys.argv[1] != "torch":
    import torch
started = time.perf_counter()
importlib.import_module(sys.argv[1])
print(time.perf_counter() - started)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--other", type=Path, required=True, help="checkout of an earlier commit")
    parser.add_argument("--other-evidence", default="gradcam", help="its name for `--method evidence`")
    parser.add_argument("--runs", type=int, default=3, help="processes for each figure; the median counts")
    options = parser.parse_args()
    trees = {"this": ROOT, "other": options.other.resolve()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        evidence = {"this": "evidence", "other": options.other_evidence}
        verbs = {tree: verbs_on(folder / tree, path, evidence[tree]) for tree, path in trees.items()}
        runs: dict[str, dict[str, list[Run]]] = {verb: {tree: [] for tree in trees} for verb in verbs["this"]}
        seconds: dict[str, list[float]] = {package: [] for package in IMPORTS if size_mb([package])}
        load_before = os.getloadavg()[0]
        for number in range(options.runs):  # in turn, so that other work on the machine meets all alike
            print(f"run {number + 1} of {options.runs}", flush=True)
            for verb, of_trees in runs.items():
                for tree, path in trees.items():
                    of_trees[tree].append(run_verb(verbs[tree][verb], path, folder))
            for package, found in seconds.items():
                found.append(float(python(IMPORT, IMPORTS[package], cwd=folder).stdout))
    results = {
        "machine": describe_machine(),
        "load_average": [round(load_before, 1), round(os.getloadavg()[0], 1)],
        "runs": options.runs,
        "other_commit": commit_of(options.other),
        "verbs": {
            verb: {tree: summary(found, list(seconds)) for tree, found in of_trees.items()}
            for verb, of_trees in runs.items()
        },
        "packages": {
            package: {"seconds": statistics.median(found), "mb": size_mb([package])}
            for package, found in seconds.items()
        },
        "installation_mb": {
            tree: {
                "all": size_mb(closure(dependencies(path))),
                "without torch": size_mb(closure(dependencies(path)) - closure(["torch"])),
            }
            for tree, path in trees.items()
        },
    }
    options.output.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


class Run(NamedTuple):
    """One command in a process of its own."""

    seconds: float
    num_modules: int
    names: frozenset[str]
    """Top-level packages that are loaded at its end."""


def summary(runs: list[Run], packages: list[str]) -> dict[str, Any]:
    loaded = {package for package in packages if IMPORTS[package].partition(".")[0] in runs[0].names}
    return {
        "seconds": statistics.median(run.seconds for run in runs),
        "modules": runs[0].num_modules,
        "packages": sorted(loaded),
    }


def commit_of(tree: Path) -> str:
    done = subprocess.run(["git", "-C", tree, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def dependencies(tree: Path) -> list[str]:
    """Return the names of what a plain installation of a checkout brings on this machine."""
    project = tomllib.loads((tree / "pyproject.toml").read_text("utf-8"))["project"]
    required = map(Requirement, project["dependencies"])
    return [canonical(one.name) for one in required if one.marker is None or one.marker.evaluate()]


def verbs_on(folder: Path, tree: Path, evidence: str) -> dict[str, list[str]]:
    """Write a clip and a tiny network into a folder, and return the command lines that are measured on them.

    Args:
        folder: The folder.
        tree: Checkout whose format the network's file has.
        evidence: The name of class evidence for `--method`.
    """
    folder.mkdir()
    python(MODEL, cwd=folder, tree=tree)
    frames = np.random.default_rng(0).integers(0, 256, (10, 48, 64, 3), np.uint8)
    write_video(folder / "clip.mp4", iter(frames), fps=10)
    clip, model = str(folder / "clip.mp4"), ["--model", str(folder / "tiny.safetensors")]
    return {
        "--help": ["--help"],
        "weights list": ["weights", "list"],
        "classify": ["classify", clip, *model, "--json"],
        "classify --views 3x1": ["classify", clip, *model, "--views", "3x1", "--json"],
        "explain": ["explain", clip, *model, "--method", evidence, "--output", str(folder / "maps")],
        "timeline": ["timeline", clip, *model, "--json"],
    }


def python(code: str, *arguments: str, cwd: Path, tree: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, in the environment of a checkout."""
    executable = sys.executable if tree == ROOT else str(tree / ".venv" / "bin" / "python")
    environment = os.environ | {CACHE_VARIABLE: str(cwd / "cache")}
    done = subprocess.run(
        [executable, "-c", code, *arguments], capture_output=True, text=True, cwd=cwd, env=environment
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} in {tree}:\n{done.stderr}")
    return done


def run_verb(arguments: list[str], tree: Path, folder: Path) -> Run:
    """Run a command of a checkout, with the working directory in a folder outside all checkouts."""
    taken, count, *names = python(RUN, *arguments, cwd=folder, tree=tree).stderr.splitlines()[-1].split()
    return Run(float(taken), int(count), frozenset(names))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(names: list[str]) -> set[str]:
    """Return the installed distributions that some need, with themselves; extras only where one is named."""
    found: set[tuple[str, str]] = set()
    open_ones = [(name, "") for name in names]
    while open_ones:
        one = open_ones.pop()
        if one in found:
            continue
        found.add(one)
        try:
            required = metadata.requires(one[0]) or []
        except metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, required):
            if requirement.marker is None or requirement.marker.evaluate({"extra": one[1]}):
                open_ones += [(canonical(requirement.name), extra) for extra in ("", *requirement.extras)]
    return {canonical(name) for name, _ in found}


def size_mb(names: list[str] | set[str]) -> float:
    """Return the size of the files of some distributions, in 10^6 bytes; 0 for those that are not installed."""
    total = 0
    for name in names:
        try:
            files = metadata.files(name) or []
        except metadata.PackageNotFoundError:
            continue
        total += sum(path.stat().st_size for file in files if (path := Path(str(file.locate()))).is_file())
    return round(total / 1e6, 1)


if __name__ == "__main__":
    main()
