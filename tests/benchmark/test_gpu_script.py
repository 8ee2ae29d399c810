"""The script for a machine with a GPU, in miniature on the CPU and without a video decoder, as such machines are."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "benchmarks" / "gpu.sh"
sys.path.insert(0, str(REPOSITORY / "benchmarks"))

from gpu import answers, capacity, prepare, runs  # noqa: E402
from gpu.__main__ import CHECKS  # noqa: E402
from gpu.clips import moving_pattern, write_clips  # noqa: E402
from gpu.harness import Check, CheckFailedError, Context, run_checks  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks")]
ABSENT = ("av", "decord", "gradio", "fastapi", "uvicorn", "pytorchvideo", "pytorch_grad_cam", "openvino", "ray")
"""Packages that a machine made for PyTorch does not have; nor is the project installed there."""
WITHOUT = f"""
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, *rest):
        return None if name.partition(".")[0] in {ABSENT!r} else self.finder.find_spec(name, *rest)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path if "editable" not in str(finder)]
"""


def script(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **environment},
    )


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.mark.timeout(600)  # half a minute on an idle core
def test_in_miniature_every_check_passes_on_a_bare_machine(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "sitecustomize.py").write_text(WITHOUT)
    done = script("--device", "cpu", "--out", tmp_path / "out", PYTHONPATH=str(tmp_path / "bare"))
    log = (tmp_path / "out" / "log.txt").read_text()
    assert done.returncode == 0, done.stdout + done.stderr + log[-5000:]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["log.txt", "results.jsonl", "summary.txt"]
    found = {record["check"]: record for record in records(tmp_path / "out")}
    assert list(found) == [check.name for check in CHECKS]
    assert {record["status"] for record in found.values()} == {"passed"}
    figures = {name: record["figures"] for name, record in found.items()}
    assert figures["doctor"]["frames"] == "arrays"  # so nothing was decoded
    assert re.search(r"default model\W+yes", log)
    assert figures["dead_context"]["status"] == 3
    assert figures["dead_context"]["done_before"] == 2
    assert figures["training"]["stopped_status"] == 130
    assert len(set(figures["training"]["weights_sha256"])) == 1
    assert figures["out_of_memory"]["warnings"][-1].endswith("halved to 2 views")
    assert figures["device_tests"]["tests"] > 20
    assert figures["speed"]["batch_2"]["views_per_second"] > 0
    assert "9 of 9 checks passed." in (tmp_path / "out" / "summary.txt").read_text()
    assert "9 of 9 checks passed." in done.stdout


def test_videos_are_decoded_where_there_is_a_decoder(tmp_path: Path) -> None:
    done = script("--device", "cpu", "--out", tmp_path, "--only", "pipeline")
    assert done.returncode == 0, done.stdout + done.stderr
    (pipeline,) = records(tmp_path)
    assert pipeline["figures"]["clips"].endswith("videos")
    assert "No video is decoded" not in done.stdout
    for workers in (1, 2):
        assert pipeline["figures"][f"workers_{workers}"]["files_per_second"]["both"] > 0


def test_a_machine_without_a_gpu_is_told_so(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("has a GPU")
    done = script("--out", tmp_path, "--only", "doctor")
    assert done.returncode == 1
    assert "doctor does not say that cuda works" in records(tmp_path)[0]["error"]


class TestHarness:
    """Whatever a check does, the next ones run and the record says what happened."""

    @staticmethod
    def ran(tmp_path: Path, *functions: Callable[[Context], None], seconds: float = 60.0, limit: float = 20.0) -> Any:
        (tmp_path / "work").mkdir()
        (tmp_path / "out").mkdir()
        checks = [Check(function.__name__, function, limit) for function in functions]
        found = run_checks(
            checks,
            device="cpu",
            model="default",
            frames="arrays",
            folder=tmp_path / "work",
            output=tmp_path / "out",
            seconds=seconds,
        )
        assert found == records(tmp_path / "out")
        return {record["check"]: record for record in found}

    def test_each_ending_is_told(self, tmp_path: Path) -> None:
        def passes(context: Context) -> None:
            context.note(first=1)
            context.note(second=[2])

        def fails(context: Context) -> None:
            context.note(found=0.5)
            raise CheckFailedError("0.5 is more than 0.1")

        def breaks(context: Context) -> None:
            torch.zeros(2)[5]

        def is_killed(context: Context) -> None:
            os.kill(os.getpid(), 9)

        found = self.ran(tmp_path, fails, breaks, is_killed, passes)
        assert [record["status"] for record in found.values()] == ["failed", "failed", "failed", "passed"]
        assert (found["fails"]["error"], found["fails"]["figures"]) == ("0.5 is more than 0.1", {"found": 0.5})
        assert found["breaks"]["error"].startswith("IndexError: ")
        assert "SIGKILL" in found["is_killed"]["error"]
        assert found["passes"]["figures"] == {"first": 1, "second": [2]}
        assert "Traceback" in (tmp_path / "out" / "log.txt").read_text()

    def test_a_check_that_hangs_is_killed_with_what_it_started(self, tmp_path: Path) -> None:
        def hangs(context: Context) -> None:
            child = subprocess.Popen(["sleep", "1000"])
            context.note(child=child.pid)
            time.sleep(1000)

        started = time.monotonic()
        found = self.ran(tmp_path, hangs, limit=1.0)
        assert time.monotonic() - started < 10
        assert found["hangs"]["status"] == "timed_out"
        state = Path(f"/proc/{found['hangs']['figures']['child']}/stat")
        deadline = time.monotonic() + 5
        while state.exists() and state.read_text().split()[2] != "Z" and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not state.exists() or state.read_text().split()[2] == "Z"

    def test_without_time_a_check_is_not_begun(self, tmp_path: Path) -> None:
        def slow(context: Context) -> None:
            time.sleep(2)

        def late(context: Context) -> None:
            raise AssertionError("begun")

        found = self.ran(tmp_path, slow, late, seconds=9.5)
        assert [record["status"] for record in found.values()] == ["passed", "not_run"]


def context(tmp_path: Path, model: str) -> Context:
    return Context("cpu", model, tmp_path, "arrays", tmp_path / "figures.json")


class TestChecksThatMustFail:
    """A check that cannot fail says nothing."""

    def test_other_logits(self, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        load, loaded = answers.nlv.load, []

        def spoiled(*given: Any, **options: Any) -> Any:
            recognizer = load(*given, **options)
            loaded.append(recognizer)
            if len(loaded) == 2:  # the device's
                with torch.no_grad():
                    last = [weight for weight in recognizer.inference_network.parameters() if weight.dim() > 1][-1]
                    last.mul_(1.001)
            return recognizer

        monkeypatch.setattr(answers.nlv, "load", spoiled)
        with pytest.raises(CheckFailedError, match=r"Logits differ by 1\.0e-03 of the largest"):
            answers.same_answers(context(tmp_path, str(tiny_model)))

    def test_values_that_are_not_finite(self) -> None:
        nan = torch.tensor([1.0, float("nan")])
        assert answers.relative_difference(nan, torch.ones(2)) == float("inf")
        assert answers.relative_difference(torch.tensor([1.0, -3.0]), torch.tensor([1.0, -4.0])) == 0.25
        with pytest.raises(CheckFailedError, match="shape"):
            answers.relative_difference(torch.ones(1, 2), torch.ones(2))

    def test_other_bits(self, tmp_path: Path) -> None:
        value = torch.tensor([1.0, 2.0])
        save_file({"a": value}, tmp_path / "one", metadata={"made": "now"})
        save_file({"a": value.clone()}, tmp_path / "same", metadata={"made": "later"})
        save_file({"a": torch.nextafter(value, torch.tensor(9.0))}, tmp_path / "other")
        digests = [runs.weights_digest(tmp_path / name) for name in ("one", "same", "other")]
        assert digests[0] == digests[1] != digests[2]

    def test_skipped_tests(self, tmp_path: Path) -> None:
        report = tmp_path / "report.xml"
        report.write_text(
            '<testsuites><testsuite tests="7" failures="1" errors="0" skipped="2"/>'
            '<testsuite tests="1" failures="0" errors="0" skipped="0"/></testsuites>'
        )
        assert answers.counts_of(report) == {"tests": 8, "failures": 1, "errors": 0, "skipped": 2}


def test_what_dmon_prints_is_read() -> None:
    printed = """# gpu     sm    mem    enc    dec    jpg    ofa
# Idx      %      %      %      %      %      %
    0      0      0      0      0      0      0
    0     97     41      0      0      0      0
    0      -      -      -      -      -      -
# gpu     sm    mem    enc    dec    jpg    ofa
# Idx      %      %      %      %      %      %
    0    100     44      0      0      0      0
"""
    assert capacity.streaming_percent(printed) == [0, 97, 100]
    assert capacity.streaming_percent("") == []


def test_clips_move_and_differ(tmp_path: Path) -> None:
    one, other = (moving_pattern(seed, seconds=1.0, width=32, height=24) for seed in (0, 1))
    assert one.shape == (25, 24, 32, 3)
    for frames in (one, other):
        assert abs(frames[1:].astype(int) - frames[:-1]).max() > 3
    assert abs(one.astype(int) - other).mean() > 20
    (path,) = write_clips(tmp_path, ["a/b.mp4"], seconds=1.0, width=32, height=24, frames="arrays")
    import numpy as np

    with np.load(path) as kept:
        assert (kept["frames"] == one).all()


def test_wheels_are_taken_while_they_fit(tmp_path: Path) -> None:
    groups = []
    for number, (wanted, size) in enumerate(zip(prepare.WANTED, (30, 500, 60), strict=True)):
        path = tmp_path / f"{number}.whl"
        path.write_bytes(bytes(size))
        groups.append((wanted, [path]))
    taken, left_out = prepare.choose(groups, room=100)
    assert [path.name for path in taken] == ["0.whl", "2.whl"]
    assert [entry["packages"] for entry in left_out] == [("av",)]
    assert [path.name for path in prepare.choose(groups, room=600)[0]] == ["0.whl", "1.whl", "2.whl"]


def test_every_package_to_bring_has_a_tested_version() -> None:
    for wanted in prepare.WANTED:
        for package in wanted.packages:
            assert prepare.tested_version(package).startswith(f"{package}==")


class TestTree:
    def test_it_leaves_room_for_the_wheels_that_nothing_runs_without(self, tmp_path: Path) -> None:
        """Those of `WANTED[0]` take less than 3 MB."""
        size = prepare.pack_tree(REPOSITORY, tmp_path / "tree.tar.gz")
        assert size == (tmp_path / "tree.tar.gz").stat().st_size
        assert size / prepare.MEGABYTE + 3 <= prepare.DEFAULT_LIMIT_MB

    def test_it_has_what_git_has_but_what_the_run_does_not_need(self, tmp_path: Path) -> None:
        repository = tmp_path / "repository"
        kept = ("benchmarks/gpu.sh", "docs/gpu.md", "new.py", "tests/test_a.py")
        for name in (*kept, "docs/images/a.png", "benchmarks/results/a.json", "out/log.txt", "gone.py"):
            (repository / name).parent.mkdir(parents=True, exist_ok=True)
            (repository / name).write_text(name)
        (repository / ".gitignore").write_text("*.log\n")
        (repository / "a.log").write_text("ignored")
        (repository / "benchmarks/gpu.sh").chmod(0o755)
        subprocess.run(["git", "init", "-q"], cwd=repository, check=True)
        subprocess.run(["git", "add", "docs", "tests", "gone.py"], cwd=repository, check=True)
        (repository / "gone.py").unlink()
        prepare.pack_tree(repository, repository / "out" / "tree.tar.gz")
        with tarfile.open(repository / "out" / "tree.tar.gz") as tar:
            tar.extractall(tmp_path, filter="data")
        unpacked = tmp_path / "nonlocal-video"
        found = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
        assert found == {*kept, ".gitignore"}
        assert os.access(unpacked / "benchmarks/gpu.sh", os.X_OK)
