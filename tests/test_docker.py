"""The image's files say what they should; no engine is needed."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from nonlocal_video.app import serve
from nonlocal_video.app.drain import DRAIN_WITHIN_SECONDS, STOP_WITHIN_SECONDS

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, its lines joined."""

    word: str
    rest: str


def read_stages() -> tuple[dict[str, str], list[list[Instruction]]]:
    """The arguments before the first stage, and each stage's instructions, the first of them its FROM."""
    lines = [line for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines() if not line.startswith("#")]
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    instructions = [Instruction(*line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]
    starts = [index for index, instruction in enumerate(instructions) if instruction.word == "FROM"]
    stages = [instructions[begin:end] for begin, end in zip(starts, [*starts[1:], len(instructions)], strict=True)]
    before = dict(instruction.rest.split("=", 1) for instruction in instructions[: starts[0]])
    return before, stages


BEFORE, STAGES = read_stages()
FINAL = STAGES[-1]


def rests(stage: list[Instruction], word: str) -> list[str]:
    return [instruction.rest for instruction in stage if instruction.word == word]


def only(stage: list[Instruction], word: str) -> str:
    (rest,) = rests(stage, word)
    return rest


def arguments() -> dict[str, str]:
    return dict(rest.split("=", 1) for rest in rests(STAGES[0], "ARG"))


def settings(stage: list[Instruction]) -> dict[str, str]:
    return dict(pair.split("=", 1) for rest in rests(stage, "ENV") for pair in rest.split())


class TestDockerfile:
    def test_stages_come_from_the_pinned_base_or_from_each_other(self) -> None:
        assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", BEFORE["BASE"])
        names = ["${BASE}"]
        for stage in STAGES:
            base, *name = stage[0].rest.split(" AS ")
            assert base in names
            names += name
        assert len(STAGES) > 1
        assert FINAL[0].rest == "${BASE}"

    def test_the_final_stage_installs_nothing(self) -> None:
        for command in rests(FINAL, "RUN"):
            assert not re.search(r"apt|gcc|build|make |curl|wget|pip3? install|git ", command), command
            assert command.startswith("pip uninstall --yes pip setuptools wheel")
        copied = [rest.split() for rest in rests(FINAL, "COPY")]
        assert all(words[0].startswith("--from=") for words in copied), "nothing from outside, only from other stages"

    def test_it_does_not_run_as_root(self) -> None:
        user = only(FINAL, "USER")
        assert all(int(number) > 0 for number in user.split(":")), "numbers: Kubernetes cannot check names"
        last_run = max(index for index, instruction in enumerate(FINAL) if instruction.word == "RUN")
        assert FINAL.index(Instruction("USER", user)) > last_run

    def test_it_runs_every_verb_and_serves_by_default(self) -> None:
        entry, default = json.loads(only(FINAL, "ENTRYPOINT")), json.loads(only(FINAL, "CMD"))
        assert entry[:2] == ["tini", "--"]
        assert entry[2:] == list(PROJECT["project"]["scripts"])
        assert default == ["serve", "--host", "0.0.0.0"]
        assert inspect.signature(serve).parameters["host"].default == "127.0.0.1", "elsewhere nobody else is let in"

    def test_it_exposes_the_port_that_it_listens_on(self) -> None:
        assert int(only(FINAL, "EXPOSE")) == inspect.signature(serve).parameters["port"].default

    def test_the_driver_gives_what_is_used(self) -> None:
        assert settings(FINAL)["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility,video"

    def test_the_build_of_torch_is_an_argument(self) -> None:
        assert arguments()["TORCH"] == "cpu"
        assert arguments()["TORCH_INDEX"].endswith("/${TORCH}")
        install = next(command for command in rests(STAGES[0], "RUN") if "--index-url" in command)
        assert '--index-url "${TORCH_INDEX}"' in install
        assert '"torch==${TORCH_VERSION}" "torchvision==${TORCHVISION_VERSION}"' in install

    def test_the_pinned_versions_are_allowed_ones(self) -> None:
        needed = {need.name: need.specifier for need in map(Requirement, PROJECT["project"]["dependencies"])}
        assert arguments()["TORCH_VERSION"] in needed["torch"]
        assert arguments()["TORCHVISION_VERSION"] in needed["torchvision"]

    def test_all_dependencies_are_installed_before_the_code_comes(self) -> None:
        command = next(command for command in rests(STAGES[0], "RUN") if "tomllib" in command)
        code = re.search(r"python -c '([^']+)'", command)
        assert code
        printed = subprocess.run([sys.executable, "-c", code[1]], cwd=ROOT, capture_output=True, text=True, check=True)
        assert printed.stdout.splitlines() == PROJECT["project"]["dependencies"]
        assert rests(STAGES[0], "COPY") == ["pyproject.toml constraints.txt ./"]

    @pytest.mark.parametrize("page", ["README.md", "docs/docker.md"])
    def test_the_documented_arguments_exist(self, page: str) -> None:
        text = (ROOT / page).read_text("utf-8")
        named = set(re.findall(r"(?:--build-arg |^\| `)([A-Z_]+)", text, re.MULTILINE))
        assert named
        assert named <= arguments().keys() | BEFORE.keys()


class TestHealthCheck:
    """The real command, against a server that answers as told."""

    @contextmanager
    def answering(self, status: int) -> Iterator[tuple[int, list[str]]]:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        with HTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield server.server_port, asked
            server.shutdown()

    def check(self, port: int) -> int:
        rest = only(FINAL, "HEALTHCHECK")
        program, *words = json.loads(rest[rest.index("CMD") + len("CMD") :])
        assert program == "python"
        assert "7860" in words[-1]
        command = [sys.executable, *(word.replace("7860", str(port)) for word in words)]
        return subprocess.run(command, capture_output=True, check=False).returncode

    @pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (404, 1)])
    def test_it_is_healthy_with_200_only(self, status: int, code: int) -> None:
        with self.answering(status) as (port, asked):
            assert self.check(port) == code
        assert asked == ["/healthz"]

    def test_it_is_ill_when_nobody_answers(self) -> None:
        with self.answering(200) as (port, _):
            pass
        assert self.check(port) == 1


def is_ignored(path: str) -> bool:
    """Docker's rule: the last pattern that fits the path, or a folder above it, decides."""
    ignored = False
    above = [path, *map(str, Path(path).parents)][:-1]
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        pattern = pattern.replace(r"\[", "[").replace(r"\]", "]")
        if any(re.fullmatch(pattern, name) for name in above):
            ignored = not line.startswith("!")
    return ignored


class TestContext:
    def test_all_that_the_package_is_built_from_is_sent(self) -> None:
        tool = PROJECT["tool"]["setuptools"]
        folders = tool["package-dir"]
        needed = ["pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]]
        for package in tool["packages"]:
            folder = ROOT / folders.get(package, package.replace(".", "/"))
            patterns = ["*.py", *tool["package-data"].get(package, [])]
            needed += [str(path.relative_to(ROOT)) for pattern in patterns for path in folder.glob(pattern)]
        assert "weights/i3d-nl-k400.safetensors" in needed
        assert [path for path in needed if is_ignored(path)] == []

    @pytest.mark.parametrize(
        "path",
        [
            ".git/HEAD", ".venv/bin/python", ".ci/run", "tests/conftest.py", "benchmarks/decoders.py", "docs/docker.md",
            "out/demo/overlay.mp4", "clip.mp4", "Dockerfile", "app/__pycache__/page.cpython-311.pyc",
        ],
    )  # fmt: skip
    def test_nothing_else_is_sent(self, path: str) -> None:
        assert is_ignored(path)


class TestCompose:
    PAGE = COMPOSE["services"]["page"]

    def test_the_gpu_is_reserved(self) -> None:
        (device,) = self.PAGE["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
        assert device["count"] == 1

    def test_it_builds_with_cuda(self) -> None:
        built_with = self.PAGE["build"]["args"]
        assert set(built_with) <= set(arguments())
        assert re.fullmatch(r"cu\d+", built_with["TORCH"])

    def test_only_this_machine_reaches_it(self) -> None:
        port = only(FINAL, "EXPOSE")
        assert self.PAGE["ports"] == [f"127.0.0.1:{port}:{port}"]

    def test_recognitions_in_progress_have_the_time_to_end(self) -> None:
        assert int(self.PAGE["stop_grace_period"].removesuffix("s")) > DRAIN_WITHIN_SECONDS + STOP_WITHIN_SECONDS

    def test_what_is_written_to_is_writable(self) -> None:
        assert self.PAGE["read_only"] is True
        assert self.PAGE["tmpfs"] == ["/tmp"]
        (volume,) = self.PAGE["volumes"]
        name, target = volume.split(":")
        assert name in COMPOSE["volumes"]
        assert target == settings(FINAL)["NONLOCAL_VIDEO_CACHE"]
