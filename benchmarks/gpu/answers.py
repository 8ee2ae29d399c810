"""Whether the device works and gives the answers of the CPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import nonlocal_video as nlv
from gpu.clips import moving_pattern
from gpu.command import run_command
from gpu.harness import Context, require

LOGITS, MAPS = 1e-4, 1e-2
"""Largest difference that is allowed, as a fraction of the largest value."""
COARSER: dict[Any, float] = {"tf32": 1e-2, "bf16": 5e-2}
"""Largest difference of logits in other precisions, likewise."""
QUERY = (0.5, 0.6, 0.4)
METHODS = ("attention", "query", "evidence")
REPOSITORY = Path(__file__).parents[2]


def doctor(context: Context) -> None:
    """Run `nonlocal-video doctor`: the device's convolution is right, and everything else where it can be decoded."""
    from nonlocal_video.benchmark.machine import describe_machine

    done = run_command(["doctor"])  # before this process uses the device
    context.note(machine=describe_machine(), frames=context.frames)
    line = re.search(rf"device {context.device}\W+(yes|no|NO)\b", done.printed)
    require(line is not None and line[1] == "yes", f"doctor does not say that {context.device} works:\n{done.printed}")
    if context.frames == "videos":
        require(done.status == 0, f"doctor ended with status {done.status}:\n{done.printed}")
    if context.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        context.note(
            gpu=properties.name,
            capability=f"{properties.major}.{properties.minor}",
            gpu_gib=round(properties.total_memory / 2**30, 1),
            cuda=torch.version.cuda,
            cudnn=torch.backends.cudnn.version(),
            torch_built_for=torch.cuda.get_arch_list(),
        )


def same_answers(context: Context) -> None:
    """Compare logits and maps of the device with those of the CPU, on the same frames."""
    frames = _frames(context)
    with (
        nlv.load(context.model, device="cpu", runtime="torch") as cpu,
        nlv.load(context.model, device=context.device) as device,
    ):
        inputs = _input(cpu, frames)
        wanted = cpu.forward(inputs)
        found = relative_difference(device.forward(inputs), wanted)
        context.note(logits=found)
        require(found <= LOGITS, f"Logits differ by {found:.1e} of the largest; {LOGITS:g} is allowed in float32.")
        require(torch.equal(device.forward(inputs), device.forward(inputs)), "Asked twice, the logits have other bits.")

        for precision, allowed in COARSER.items():
            if precision == "tf32" and context.device == "cpu":
                continue  # refused there
            with nlv.load(context.model, device=context.device, precision=precision) as coarse:
                difference = relative_difference(coarse.forward(inputs), wanted)
            context.note(**{f"logits_{precision}": difference})
            require(difference > found, f"In {precision} logits are as exact as in float32: it was not used.")
            require(difference <= allowed, f"In {precision} logits differ by {difference:.1e}; {allowed:g} is allowed.")

        looks = [recognizer.explain_all(frames, around_seconds=QUERY[0]) for recognizer in (cpu, device)]
        label = int(np.argmax(looks[0].prediction.scores))
        for method in METHODS:
            maps = [torch.from_numpy(_cells(explanation, method, label)) for explanation in looks]
            difference = relative_difference(maps[1], maps[0])
            context.note(**{f"{method}_map": difference})
            require(
                difference <= MAPS, f"The {method} map differs by {difference:.1e} of its largest value ({MAPS:g})."
            )


def threads(context: Context) -> None:
    """Let four threads explain clips at once; each map has the values that one thread alone gives."""
    clips = [_frames(context, seed) for seed in range(4)]
    with nlv.load(context.model, device=context.device) as recognizer:

        def explained(position: int) -> dict[str, Any]:
            explanation = recognizer.explain_all(clips[position], around_seconds=QUERY[0])
            return {method: _cells(explanation, method, 0) for method in METHODS}

        wanted = [explained(position) for position in range(4)]
        found: dict[tuple[int, int], dict[str, Any]] = {}
        errors: list[str] = []

        def work(number: int) -> None:
            try:
                for turn in range(4):
                    position = (number + turn) % 4
                    found[number, position] = explained(position)
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}")

        workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    require(not errors, f"Explaining in four threads ended with {'; '.join(errors)}")
    largest = max(
        relative_difference(torch.from_numpy(maps[method]), torch.from_numpy(wanted[position][method]))
        for (_, position), maps in found.items()
        for method in METHODS
    )
    context.note(explanations=len(found), largest_difference=largest)
    require(len(found) == 16, f"{len(found)} of 16 explanations were given.")
    require(largest <= 1e-5, f"Maps made beside others differ by {largest:.1e} of their largest value.")


def device_tests(context: Context) -> None:
    """Run the tests that need CUDA; in miniature the same tests' cases for the CPU."""
    files = sorted(
        path
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        if re.search(r"mark\.cuda\b|all_devices\b", path.read_text("utf-8"))
    )
    require(bool(files), "No test has the mark cuda.")
    report = context.folder / "report.xml"
    which, environment = ["-k", "test_every_kernel and cpu"], dict(os.environ)
    if context.device == "cuda":
        which, environment["REQUIRE_CUDA"] = ["-m", "cuda"], "1"
    command = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "addopts=",
        f"--junitxml={report}",
    ]
    command += [*which, *map(str, files)]
    done = subprocess.run(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, env=environment, check=False)
    require(report.exists(), f"pytest ended with status {done.returncode} and no report; log.txt says why.")
    counted = counts_of(report)
    context.note(files=[str(file.relative_to(REPOSITORY)) for file in files], **counted)
    require(counted["tests"] > 0, "No test ran.")
    bad = {name: counted[name] for name in ("failures", "errors", "skipped") if counted[name]}
    require(not bad and done.returncode == 0, f"pytest: {bad or done.returncode}; log.txt says which.")


def counts_of(report: Path) -> dict[str, int]:
    """Return the numbers of tests, failures, errors and skipped tests of a JUnit file."""
    suites = ElementTree.parse(report).getroot().iter("testsuite")
    counted = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for suite in suites:
        for name in counted:
            counted[name] += int(suite.get(name, 0))
    return counted


def relative_difference(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference as a fraction of the largest wanted value; infinite where one is not finite."""
    found, wanted = found.detach().cpu().double(), wanted.detach().cpu().double()
    require(found.shape == wanted.shape, f"The shape is {tuple(found.shape)} instead of {tuple(wanted.shape)}.")
    if not (torch.isfinite(found).all() and torch.isfinite(wanted).all()):
        return float("inf")
    return float((found - wanted).abs().max() / wanted.abs().max())


def _frames(context: Context, seed: int = 0) -> Any:
    width, height = (64, 48) if context.miniature else (320, 240)
    return moving_pattern(seed, seconds=2.0 if context.miniature else 3.0, width=width, height=height)


def _input(recognizer: Any, frames: Any) -> Tensor:
    """Return what the network sees of frames, (1, 3, T, S, S)."""
    from nonlocal_video.inference.preprocessing import ClipLoader
    from nonlocal_video.inference.request import ClipRequest

    loader = ClipLoader(recognizer.new_reader())
    clip = loader.load(frames, recognizer.card.input, ClipRequest(), originals=None)
    return clip.network_input(0, 0)


def _cells(explanation: Any, method: str, label: int) -> Any:
    """Return the values of a map on the layer's cells."""
    if method == "query":
        from nonlocal_video.attention.maps import QueryPoint

        return explanation.maps(method=method, query=QueryPoint.parse(QUERY)).cells
    return explanation.maps(method=method, label=label if method == "evidence" else None).cells
