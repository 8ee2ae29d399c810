"""Answers on the CPU and on a GPU: nothing here decodes a video."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import nonlocal_video as nlv
from nonlocal_video.errors import VideoError
from nonlocal_video.inference.precision import Precision
from nonlocal_video.inference.preprocessing import ClipLoader, LoadedClip
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.zoo.catalogue import load_network

pytestmark = pytest.mark.slow


def frames(seed: int) -> NDArray[np.uint8]:
    """Two seconds of patches that change, 64 x 48."""
    random = np.random.default_rng(seed)
    patches = random.integers(0, 256, (20, 6, 8, 3)).astype(np.uint8)
    return np.repeat(np.repeat(patches, 8, axis=1), 8, axis=2)


def loaded(recognizer: Recognizer, count: int) -> list[LoadedClip]:
    with recognizer.new_reader() as reader:
        loader = ClipLoader(reader)
        return [
            loader.load(frames(seed), recognizer.card.input, ClipRequest(frames_per_second=10.0), originals=None)
            for seed in range(count)
        ]


def test_the_default_gives_the_logits_of_float64(all_devices: str) -> None:
    clip = torch.randn(1, 3, 16, 96, 96)
    network, _ = load_network("default")
    with nlv.load("default", device=all_devices) as recognizer, torch.inference_mode():
        wanted = network.eval().double()(clip.double())
        found = recognizer.forward(clip)
    assert found.device.type == all_devices
    assert (found[0].cpu().double() - wanted).abs().max() <= 1e-4 * wanted.abs().max()


@pytest.mark.cuda
@pytest.mark.parametrize(
    ("precision", "least", "most"), [("float32", 0.0, 1e-4), ("tf32", 1e-6, 1e-2), ("bf16", 1e-4, 5e-2)]
)
def test_a_gpu_computes_in_the_precision_that_is_asked_for(
    precision: Precision, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever PyTorch's own switch says: differences from float64 as a part of the largest logit."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", precision == "float32")
    clip = torch.randn(1, 3, 16, 96, 96)
    network, _ = load_network("default")
    with nlv.load("default", device="cuda", precision=precision) as recognizer, torch.inference_mode():
        wanted = network.eval().double()(clip.double())
        found = recognizer.forward(clip)[0].cpu().double()
    assert least <= float((found - wanted).abs().max() / wanted.abs().max()) <= most


def test_a_clip_answers_in_a_batch_as_alone(all_devices: str, tiny_model: Path) -> None:
    with nlv.load(tiny_model, device=all_devices) as recognizer:
        clips = loaded(recognizer, 5)
        inputs = torch.cat([clip.network_input(0, 0) for clip in clips])
        alone = torch.cat([recognizer.forward(one[None]) for one in inputs]).cpu()
        together = recognizer.forward(inputs).cpu()
    largest = alone.abs().max()
    assert (together - alone).abs().max() <= 1e-5 * largest
    assert (alone[1:] - alone[:-1]).abs().amax(dim=(1, 2)).min() > 1e-3 * largest  # or a mix-up of clips would pass


def test_gradients_are_those_of_float64(all_devices: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    clip = torch.randn(2, 3, 8, 48, 48)

    def gradients(device: str, dtype: torch.dtype) -> list[torch.Tensor]:
        network, _ = load_network(tiny_model)
        network.train().to(device, dtype)
        network(clip.to(device, dtype)).logsumexp(dim=1).sum().backward()
        return [weight.grad.cpu().double() for weight in network.parameters() if weight.grad is not None]

    found, wanted = gradients(all_devices, torch.float32), gradients("cpu", torch.float64)
    assert len(found) > 20
    largest = max(float(one.abs().max()) for one in wanted)
    for ours, one in zip(found, wanted, strict=True):
        assert (ours - one).abs().max() <= 1e-3 * max(float(one.abs().max()), 1e-2 * largest)


@pytest.mark.cuda
@pytest.mark.parametrize("method", ["attention", "query", "evidence"])
def test_maps_are_those_of_the_cpu(method: str, tiny_model: Path) -> None:
    cells = []
    for device in ("cpu", "cuda"):
        with nlv.load(tiny_model, device=device) as recognizer:
            query = (1.0, 0.4, 0.6) if method == "query" else None
            label = 2 if method == "evidence" else None
            maps = recognizer.explain(frames(0), method=method, query=query, label=label, frames_per_second=10.0)
            cells.append(maps.cells)
    assert np.abs(cells[1] - cells[0]).max() <= 1e-2 * np.abs(cells[0]).max()


@pytest.mark.cuda
def test_without_memory_a_clip_is_refused_and_the_device_goes_on(tiny_model: Path) -> None:
    with nlv.load(tiny_model, device="cuda") as recognizer:
        clips = loaded(recognizer, 2)
        wanted = [prediction.scores for prediction in recognizer.predict(clips, batch_size=2)]
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(1e-6)
        try:
            with pytest.raises(VideoError, match="cuda:0 has no room for one view") as refused:
                recognizer.predict(clips, batch_size=2)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        assert refused.value.code == "out_of_memory"
        np.testing.assert_allclose([p.scores for p in recognizer.predict(clips, batch_size=2)], wanted, atol=1e-5)


@pytest.mark.cuda
def test_an_assert_in_a_kernel_ends_all_answers(tiny_model: Path) -> None:
    """Run in a process of its own, as CUDA answers nothing in it afterwards."""
    program = f"""
import numpy as np, torch
import nonlocal_video as nlv
from nonlocal_video.errors import DeviceError
clip = np.zeros((20, 48, 64, 3), np.uint8)
recognizer = nlv.load({str(tiny_model)!r}, device="cuda")
recognizer.classify(clip)
torch.zeros(4, device="cuda").index_select(0, torch.tensor([99], device="cuda"))
for _ in range(2):
    try:
        recognizer.classify(clip)
    except DeviceError as error:
        print("told", error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    told = [line for line in done.stdout.splitlines() if line.startswith("told ")]
    assert len(told) == 2, done.stderr
    assert all("The device cuda:0 failed: CUDA error: " in line for line in told)
