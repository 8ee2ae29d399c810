"""Fixtures that all tests share."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from absent import absent

from nonlocal_video.inference.runtimes import compiled_cache
from nonlocal_video.paths import CACHE_VARIABLE as _CACHE
from nonlocal_video.paths import cache_folder

_count = itertools.count()


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real and broken videos beside the checkout; never missing under CI."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("NONLOCAL_VIDEO_DATA", beside))
    if not folder.is_dir():
        absent(f"no test videos at {folder}; NONLOCAL_VIDEO_DATA names another folder")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have slow tests: processes that share the files then end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that need an NVIDIA GPU on a machine without one; with REQUIRE_CUDA=1 that is a failure."""
    if item.get_closest_marker("cuda") is not None and not torch.cuda.is_available():
        if os.environ.get("REQUIRE_CUDA") == "1":
            pytest.fail("REQUIRE_CUDA is set, and PyTorch finds no CUDA device")
        pytest.skip("needs a CUDA device")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def all_devices(request: pytest.FixtureRequest) -> str:
    """The CPU and, where there is one, a GPU in turn."""
    device: str = request.param
    return device


@pytest.fixture(autouse=True)
def _own_random_numbers() -> Iterator[None]:
    """Each test starts from the same seed and leaves no trace in the next."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(autouse=True)
def _no_compiled_networks(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each test begins without compiled networks of this machine or of other tests, which would change the runtime."""
    empty = tmp_path_factory.getbasetemp() / f"compiled-{next(_count)}"
    monkeypatch.setattr(compiled_cache, "cache_folder", lambda: cache_folder() if _CACHE in os.environ else empty)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights file of a small random Video3DResNet with a non-local block: fast, and its answers mean nothing."""
    from nonlocal_video.blocks.config import NonLocalConfig
    from nonlocal_video.models.card import InputSpec, ModelCard
    from nonlocal_video.models.checkpoint import build_network, save_checkpoint

    spec = InputSpec(
        num_frames=8, frames_per_second=10.0, short_side=64, crop=48, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )
    card = ModelCard(
        name="tiny",
        architecture="resnet3d",
        config={
            "num_classes": 7,
            "width": 4,
            "blocks_per_stage": [1, 1, 1, 1],
            "nonlocal_blocks": {"layer3.0": asdict(NonLocalConfig(inter_channels=4))},
        },
        input=spec,
        fast_input=replace(spec, num_frames=4),
        labels=tuple(f"action {index}" for index in range(7)),
        explain_layer="layer3.nonlocal0",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = build_network(card)
        with torch.no_grad():
            for parameter in network.parameters():  # the classifier's, too: scores that differ between clips
                parameter.add_(torch.randn_like(parameter) * 0.2)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_checkpoint(path, network, card, dtype=torch.float32)
    return path


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small videos in two folders, and a text file that calls itself a video."""
    from nonlocal_video.video.encode import write_video

    folder = tmp_path_factory.mktemp("clips")
    (folder / "b").mkdir()
    random = np.random.default_rng(0)
    for name, count in (("a.mp4", 20), ("b/c.mp4", 12), ("z with space.mp4", 5)):
        colours = random.integers(0, 256, (count, 1, 1, 3))
        frames = (np.broadcast_to(colour, (72, 96, 3)).astype(np.uint8) for colour in colours)
        write_video(folder / name, frames, fps=10)
    (folder / "b" / "note.mp4").write_text("not a video at all\n" * 20)
    return folder


@dataclass
class Done:
    """Result of a command line."""

    status: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command line in this process, which has torch already."""
    from nonlocal_video.cli.main import main

    def program(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["nonlocal-video", *map(str, arguments)])
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:  # a verb that was stopped ends its process at the next signal
            for number, handler in handlers.items():
                signal.signal(number, handler)
        captured = capsys.readouterr()
        return Done(int(ended.value.code or 0), captured.out, captured.err)

    return program
