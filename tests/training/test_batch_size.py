"""Number of clips that fit, found from steps that take a known amount of memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nonlocal_video.errors import UsageError
from nonlocal_video.training import batch_size as module
from nonlocal_video.training.batch_size import available_bytes, find_batch_size, max_batch_size_per_process

MIB = 2**20
CPU = torch.device("cpu")


class FakeStep:
    """Says to take 20 MiB and some more a clip; 2000 MiB are free, so 1000 may be taken."""

    def __init__(self, mib_per_clip: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mib_per_clip = mib_per_clip
        self.tried: list[int] = []
        monkeypatch.setattr(module, "available_bytes", lambda: 2000 * MIB)
        monkeypatch.setattr(module, "_reset_peak", lambda: 7 * MIB)
        monkeypatch.setattr(module, "_peak_bytes", lambda: int((7 + 20 + mib_per_clip * self.tried[-1]) * MIB))

    def __call__(self, num_clips: int) -> None:
        self.tried.append(num_clips)


Taking = Callable[[float], FakeStep]


@pytest.fixture
def taking(monkeypatch: pytest.MonkeyPatch) -> Taking:
    """A step that takes so many MiB a clip."""
    return lambda mib_per_clip: FakeStep(mib_per_clip, monkeypatch)


@pytest.mark.parametrize(
    ("clips", "processes", "accumulate", "most"),
    [(1000, 1, 1, 50), (1000, 2, 1, 25), (1000, 2, 4, 6), (39, 1, 1, 1), (7, 8, 1, 1)],
)
def test_an_epoch_keeps_twenty_steps(clips: int, processes: int, accumulate: int, most: int) -> None:
    assert max_batch_size_per_process(clips, processes, accumulate) == most
    assert clips // (most * processes * accumulate) >= 20 or most == 1


@pytest.mark.parametrize(
    ("mib_per_clip", "size", "most_tried"),
    [
        (40, 16, 4),  # 20 + 16 * 40 = 660 fit, 20 + 32 * 40 = 1300 do not; from 1 to 4 clips it grows by 120
        (100, 8, 2),
        (5, 128, 16),  # 660; 1300
    ],
)
def test_extrapolates_from_a_clear_growth(taking: Taking, mib_per_clip: float, size: int, most_tried: int) -> None:
    step = taking(mib_per_clip)
    found = find_batch_size(step, maximum=1000, device=CPU)
    assert found.size == size
    assert step.tried == [2**n for n in range(most_tried.bit_length())]
    assert f"(measured up to {most_tried})" in found.explanation
    assert f"so {size} take" in found.explanation
    assert "of 0.98 GiB, 50% of the free memory" in found.explanation


def test_never_more_than_the_maximum_and_says_so(taking: Taking) -> None:
    found = find_batch_size(taking(40), maximum=12, device=CPU)
    assert found.size == 12
    assert "and are the maximum" in found.explanation
    step = taking(0)
    found = find_batch_size(step, maximum=12, device=CPU)
    assert (found.size, step.tried) == (12, [1, 2, 4, 8, 12])
    assert found.explanation.startswith("12 clips, which is the maximum, took ")


def test_begins_with_as_many_as_asked(taking: Taking) -> None:
    step = taking(40)
    assert find_batch_size(step, start=3, maximum=1000, device=CPU).size == 24  # 980; 48 are 1940
    assert step.tried == [3, 6]


def test_leaves_room_for_what_training_needs_besides(taking: Taking) -> None:
    assert find_batch_size(taking(40), maximum=1000, device=CPU, reserve_bytes=500 * MIB).size == 8  # 340 of 500


def test_a_size_that_was_too_large_is_not_taken(taking: Taking) -> None:
    found = find_batch_size(taking(30), maximum=1000, device=CPU, reserve_bytes=900 * MIB)  # 50, 80, then 140 of 100
    assert found.size == 2
    assert "2 fit; 4 clips took 0.14 GiB, more than 0.10 GiB" in found.explanation


def test_not_even_one_says_what_to_do(taking: Taking) -> None:
    with pytest.raises(UsageError, match=r"Not even a batch of 1 clip fits on the CPU: .* gradient checkpointing"):
        find_batch_size(taking(40), maximum=1000, device=CPU, reserve_bytes=980 * MIB)


@pytest.mark.parametrize("wrong", [{"start": 0}, {"start": 9}, {"reserve_bytes": -1}])
def test_wrong_arguments_are_refused(taking: Taking, wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="should be"):
        find_batch_size(taking(1), **{"start": 1, "maximum": 8, **wrong}, device=CPU)


def test_where_the_peak_cannot_be_reset_a_size_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, text: str) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(UsageError, match="give a batch size"):
        find_batch_size(lambda num_clips: None, maximum=8, device=CPU)


def test_free_memory_is_within_what_the_machine_has() -> None:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert 0 < available_bytes() <= 1024 * int(lines["MemTotal"].split()[0])


def make_step(device: torch.device) -> tuple[Callable[[int], Tensor], list[int]]:
    """Forward and backward of a network that keeps some 20 MiB of activations a clip, and what it was asked for."""
    layers = [layer for _ in range(4) for layer in (nn.Conv3d(16, 16, 1), nn.Tanh())]
    network = nn.Sequential(nn.Conv3d(3, 16, (1, 3, 3), padding=(0, 1, 1)), *layers).to(device)
    tried: list[int] = []

    def step(num_clips: int) -> Tensor:
        tried.append(num_clips)
        network.zero_grad()
        loss: Tensor = network(torch.randn(num_clips, 3, 8, 64, 64, device=device)).square().mean()
        loss.backward()
        return loss

    return step, tried


@pytest.mark.slow
def test_a_network_takes_about_what_was_foretold(monkeypatch: pytest.MonkeyPatch) -> None:
    step, tried = make_step(CPU)
    step(16)  # what this leaves with the allocator should make no clip seem smaller
    del tried[:]
    monkeypatch.setattr(module, "available_bytes", lambda: 1000 * MIB)
    random = torch.get_rng_state()
    found = find_batch_size(step, maximum=1000, device=CPU)
    assert torch.equal(torch.get_rng_state(), random)
    assert found.size in (8, 16)  # 16 take about 350 MiB of 500, 32 would take 670; small peaks are uneven
    assert max(tried) <= 8  # it was foretold, not tried
    before = module._reset_peak()
    step(found.size)
    assert module._peak_bytes() - before < 500 * MIB


@pytest.mark.parametrize(
    ("gib_per_clip", "breaks_at", "size", "ended"),
    [
        (1.0, 64, 32, "; 64 run out of memory."),
        (1.0, None, 64, "; 80 take 81.00 GiB."),
        (0.25, None, 80, "; which is the maximum."),
    ],
)
def test_on_a_gpu_the_last_that_ran_with_room_to_spare_is_taken(
    monkeypatch: pytest.MonkeyPatch, gib_per_clip: float, breaks_at: int | None, size: int, ended: str
) -> None:
    def peak(step: object, num_clips: int, device: torch.device) -> int | None:
        return None if num_clips == breaks_at else int((1 + gib_per_clip * num_clips) * 2**30)

    monkeypatch.setattr(module, "_peak_on_cuda", peak)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (78 * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2**30)
    found = module._on_cuda(lambda num_clips: None, 1, 80, torch.device("cuda:0"), 0)  # 71.1 GiB may be taken
    assert found.size == size
    assert ended in found.explanation


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("FIND was unable to find an engine to execute this computation"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ],
    ids=("torch", "cudnn", "engine", "cublas", "other"),
)
def test_on_a_gpu_any_allocation_that_fails_ends_the_search_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    made: list[weakref.ref[Tensor]] = []
    alive: list[bool] = []

    def step(num_clips: int) -> None:
        clips = torch.zeros(num_clips)
        made.append(weakref.ref(clips))
        if num_clips > 4:
            raise type(error)(str(error))  # a new one, which this test does not keep alive

    monkeypatch.setattr(module, "_release", lambda device: alive.append(any(one() is not None for one in made)))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 2**30))
    for name in ("memory_reserved", "reset_peak_memory_stats", "synchronize", "max_memory_reserved"):
        monkeypatch.setattr(torch.cuda, name, lambda device: 0)
    search = partial(module._on_cuda, step, 1, 80, torch.device("cuda:0"), 0)
    if "mat1" in str(error):
        with pytest.raises(RuntimeError, match="mat1"):
            search()
        return
    found = search()
    assert found.size == 4
    assert "; 8 run out of memory." in found.explanation
    assert alive == [False] * 8


@pytest.mark.cuda
def test_on_a_gpu_sizes_are_tried_until_memory_ends() -> None:
    device = torch.device("cuda:0")
    step, tried = make_step(device)
    total = torch.cuda.mem_get_info(device)[1]
    torch.cuda.set_per_process_memory_fraction(1e9 / total, device)
    try:
        found = find_batch_size(step, maximum=100_000, device=device)
        assert tried == [2**n for n in range(len(tried))]
        assert found.size == tried[-2]
        assert f"{tried[-1]} run out of memory" in found.explanation
        step(found.size)
        few = find_batch_size(step, maximum=3, device=device)
        assert (few.size, "which is the maximum" in few.explanation) == (3, True)
        with pytest.raises(UsageError, match="Not even a batch of 1 clip fits on cuda:0"):
            find_batch_size(step, maximum=8, device=device, reserve_bytes=total)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
