"""The Dockerfile's step that builds a published model in: the very command, with folders and publisher of this test."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from dockerfile import FINAL, STAGES, arguments, only, settings
from published_tensors import published_tensors
from weights_server import Publisher, serving

from nonlocal_video.blocks import VideoNonLocalBlock
from nonlocal_video.models.checkpoint import load_checkpoint
from nonlocal_video.models.resnet3d import Video3DResNet

pytestmark = pytest.mark.slow

NAME, FILE = "slowonly-nl-embedded-r50-4x16-k400-mmaction2", "mmaction2_slowonly_nl_embedded_gaussian_4x16_r50"
"""A published network with five non-local blocks, and whose tensors it has."""

# What stands for the image's Python: it knows another publisher of that model.
PYTHON = """
import os, sys
from dataclasses import replace
if sys.argv[1] == "-c":
    exec(sys.argv[2])
    sys.exit()
assert sys.argv[1:3] == ["-m", "nonlocal_video"]
from nonlocal_video.zoo import catalogue
from nonlocal_video.zoo.entry import Licence
rows = catalogue.entries()
row = rows[os.environ["NAME"]]
licence = Licence("CC-BY-NC-4.0", non_commercial=True) if os.environ.get("NON_COMMERCIAL") else row.licence
download = replace(row.download, url=os.environ["URL"], sha256=os.environ["SHA256"])
rows[row.name] = replace(row, licence=licence, download=download)
sys.argv = ["nonlocal-video", *sys.argv[3:]]
from nonlocal_video.cli.main import main
main()
"""


def published_file() -> bytes:
    """The publisher's file, with weights by formula."""
    state = {}
    for number, (name, shape) in enumerate(published_tensors()[FILE].items()):
        count = int(np.prod(shape, dtype=np.int64))
        values = torch.sin(torch.arange(count, dtype=torch.float32) * 0.37 + number).reshape(shape)
        fan_in = max(1, count // shape[0]) if shape else 1
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1)
        elif name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            state[name] = 1 + 0.2 * values
        else:
            state[name] = values * (2 / fan_in) ** 0.5 if len(shape) > 1 else 0.1 * values
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


class Step:
    """The command of the stage, in a folder of the test's."""

    def __init__(self, folder: Path, publisher: Publisher) -> None:
        self.publisher = publisher
        self.weights, self.models = folder / "weights", folder / "models"
        (self.weights / "downloads").mkdir(parents=True)  # as COPY does
        (self.weights / "downloads" / "README.md").write_text("as in the folder of the build")
        code, python = folder / "image_python.py", folder / "python"
        code.write_text(PYTHON)
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(code))} "$@"\n')
        python.chmod(0o755)
        self.command = only(STAGES["model"], "RUN")
        for path, ours in (("/opt/venv/bin/python", python), ("/opt/models", self.models), ("/weights", self.weights)):
            assert path in self.command
            self.command = self.command.replace(path, str(ours))

    def run(self, sha256: str | None = None, **values: str) -> subprocess.CompletedProcess[str]:
        unset = (
            "NONLOCAL_VIDEO_WEIGHTS",
            "NONLOCAL_VIDEO_OFFLINE",
            "http_proxy",
            "HTTP_PROXY",
            "all_proxy",
            "ALL_PROXY",
        )
        environment = {name: value for name, value in os.environ.items() if name not in unset}
        environment |= arguments("model") | {
            "NAME": NAME,
            "URL": self.publisher.url("weights.pth"),
            "SHA256": sha256 or hashlib.sha256(self.publisher.data).hexdigest()[:8],
            **values,
        }
        return subprocess.run(
            ["/bin/sh", "-c", self.command],
            env=environment, cwd=self.weights, capture_output=True, text=True, check=False, timeout=240,
        )  # fmt: skip

    def made(self) -> set[str]:
        return {path.name for path in self.models.iterdir()} if self.models.is_dir() else set()


@pytest.fixture(scope="module")
def publisher() -> Iterator[Publisher]:
    with serving(Publisher(published_file())) as server:
        yield server


@pytest.fixture
def step(tmp_path: Path, publisher: Publisher) -> Step:
    publisher.requests.clear()
    return Step(tmp_path, publisher)


def default_model(name: str) -> str:
    """NONLOCAL_VIDEO_MODEL as the final stage sets it, for a build with that MODEL."""
    value = settings(FINAL)["NONLOCAL_VIDEO_MODEL"]
    done = subprocess.run(
        ["/bin/sh", "-c", f'printf %s "{value}"'], env={"MODEL": name}, capture_output=True, text=True
    )
    return done.stdout


def test_published_weights_are_pulled_verified_and_answer_by_default(step: Step, tmp_path: Path) -> None:
    from nonlocal_video.video.encode import write_video

    done = step.run(MODEL=NAME)
    assert done.returncode == 0, done.stderr
    assert "has the published first 8 digits" in done.stderr, "pull compares"
    assert "all tensors load" in done.stdout, "verify loads strictly"
    assert step.made() == {f"{NAME}.safetensors", f"{NAME}.json"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in step.models.iterdir()), "any user may read them"
    assert len(step.publisher.requests) == 1

    path = Path(default_model(NAME).replace("/opt/models", str(step.models)))
    network, card = load_checkpoint(path)
    stored = torch.load(io.BytesIO(step.publisher.data), weights_only=True)
    assert isinstance(network, Video3DResNet)
    assert sum(isinstance(module, VideoNonLocalBlock) for module in network.modules()) == 5
    assert torch.equal(network.state_dict()["fc.weight"], stored["cls_head.fc_cls.weight"])

    clip = tmp_path / "clip.mp4"
    random = np.random.default_rng(0)
    write_video(clip, (random.integers(0, 256, (64, 80, 3), np.uint8) for _ in range(70)), fps=25)
    answer = subprocess.run(
        [sys.executable, "-m", "nonlocal_video", "classify", str(clip), "--json", "--device", "cpu"],
        env={**os.environ, "NONLOCAL_VIDEO_MODEL": str(path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["model"] == card.name == NAME


def test_a_file_of_the_build_s_folder_is_taken_instead_of_the_network(step: Step) -> None:
    (step.weights / "downloads" / f"{NAME}.pth").write_bytes(step.publisher.data)
    done = step.run(MODEL=NAME, NONLOCAL_VIDEO_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert step.made() == {f"{NAME}.safetensors", f"{NAME}.json"}
    assert step.publisher.requests == []


@pytest.mark.parametrize("source", ["network", "file"])
def test_another_file_than_the_published_one_stops_the_build(step: Step, source: str) -> None:
    if source == "file":
        (step.weights / "downloads" / f"{NAME}.pth").write_bytes(step.publisher.data)
    done = step.run(MODEL=NAME, sha256="01234567")
    assert done.returncode != 0
    assert "instead of the published 01234567" in done.stderr
    assert step.made() == set()


def test_without_a_model_nothing_is_fetched(step: Step) -> None:
    done = step.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert step.models.is_dir(), "which is copied in any case"
    assert step.made() == set()
    assert default_model("") == "", "the package's own model"


@pytest.mark.parametrize(("accepted", "status", "message"), [
    ("", 2, "may not be used commercially"),
    ("0", 2, "ACCEPT_LICENCE=0 should be 1, or left out"),
    ("no", 2, "ACCEPT_LICENCE=no should be 1, or left out"),
    ("1", 1, "instead of the published 01234567"),  # agreed to, fetched, and stopped by what comes after
])  # fmt: skip
def test_a_licence_that_forbids_commercial_use_asks(step: Step, accepted: str, status: int, message: str) -> None:
    done = step.run(MODEL=NAME, NON_COMMERCIAL="1", ACCEPT_LICENCE=accepted, sha256="01234567")
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert bool(step.publisher.requests) == (accepted == "1")
    assert step.made() == set()


@pytest.mark.parametrize(("name", "message"), [
    ("slowonly-nl-embeded-r50-4x16-k400-mmaction2", f"Did you mean {NAME}"),
    ("../../etc/passwd", "There is no model"),
    ("two words", "There is no model"),
    ("i3d-nl-k400", "comes with the package: leave MODEL out"),
    ("default", "comes with the package: leave MODEL out"),
])  # fmt: skip
def test_a_model_that_cannot_be_built_in_stops_the_build(step: Step, name: str, message: str) -> None:
    done = step.run(MODEL=name)
    assert done.returncode == 2
    assert message in done.stderr
    assert step.made() == set()
