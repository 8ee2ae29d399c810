"""Timing and peak memory, and recommendations that are followed and measured."""

from __future__ import annotations

import json
import math
import multiprocessing
import time

import psutil
import pytest
import torch
from tiny_networks import tiny_network
from torch import Tensor, nn

from nonlocal_video.analysis import (
    Limits,
    NonLocalOptimizer,
    ProgressiveSchedule,
    ProgressiveTraining,
    Rates,
    Recommendation,
    Speed,
    measure_rates,
    measure_speed,
    peak_memory,
    recommend,
)
from nonlocal_video.analysis.rates import Measurement
from nonlocal_video.analysis.recommend import _last, build_setting
from nonlocal_video.blocks import NonLocalConfig
from nonlocal_video.models.inception3d import InceptionI3D, InceptionI3DConfig

pytestmark = pytest.mark.slow


class Sleeper(nn.Module):
    """Takes a known time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.calls = seconds, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        time.sleep(self.seconds)
        return x


class Wasteful(nn.Module):
    """Holds 6 tensors of the input's size at once, beside the input: three sums, and all of them in one."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x + number for number in range(3)]).sum(dim=0)


def test_times_and_counts() -> None:
    networks = {"short": Sleeper(0.01), "long": Sleeper(0.03).train()}
    found = {speed.network: speed for speed in measure_speed(networks, (2, 1), num_runs=5, memory=False)}
    assert found["short"].median_seconds >= 0.01  # a busy machine may take longer, never less
    assert found["long"].median_seconds >= 0.03
    assert [network.calls for network in networks.values()] == [7, 7]  # two to warm up
    assert networks["long"].training
    first, third = found["long"].quartile_seconds
    assert first <= found["long"].median_seconds <= third
    row = json.loads(json.dumps(found["short"].to_row()))
    assert row["num_runs"] == len(row["seconds"]) == 5
    assert row["num_threads"] == torch.get_num_threads()
    assert row["clips_per_second"] == pytest.approx(2 / row["median_seconds"])


def test_peak_memory_of_a_fresh_process() -> None:
    shape = (16, 1024, 1024)  # 64 MiB
    before = _live_children()
    (speed,) = measure_speed({"wasteful": Wasteful()}, shape, num_runs=1)
    assert speed.peak_bytes is not None
    assert "fresh process" in speed.peak_method
    assert 5.9 * 2**26 <= speed.peak_bytes <= 6.5 * 2**26
    assert speed.quartile_seconds == (speed.median_seconds, speed.median_seconds)
    assert _live_children() <= before


def _live_children() -> set[int | None]:
    # By their numbers: where a library has waited for all children of this process, `multiprocessing` knows of no end.
    return {child.pid for child in multiprocessing.active_children() if psutil.pid_exists(child.pid or -1)}


class Refuses(nn.Module):
    """Cannot run."""

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no")


@pytest.mark.filterwarnings("ignore")
def test_a_failing_network() -> None:
    network = Refuses().train()
    with pytest.raises(RuntimeError, match="no"):
        measure_speed({"refuses": network}, (1,), memory=False)
    assert network.training
    peak, why = peak_memory(network, (1,))
    assert peak is None
    assert "status 1" in why


@pytest.mark.cuda
def test_on_cuda() -> None:
    (speed,) = measure_speed({"tiny": tiny_network()}, (1, 3, 8, 64, 64), device="cuda", num_runs=3)
    assert speed.peak_method == "cuda allocator"
    assert speed.peak_bytes is not None
    assert speed.peak_bytes > 0


def test_predictions_from_rates() -> None:
    small = Measurement((1, 1, 1), macs=100, seconds=2.0, counted_bytes=10, peak_bytes=50)
    large = Measurement((1, 2, 2), macs=300, seconds=4.0, counted_bytes=30, peak_bytes=40)
    rates = Rates(small, large, device="cpu", num_threads=1)
    assert rates.seconds(200) == pytest.approx(3)
    assert rates.seconds(500) == pytest.approx(6)
    assert [rates.peak_bytes(counted) for counted in (5, 20, 30, 60)] == [50, 45, 40, 80]
    steep = Rates(small, Measurement((1, 2, 2), 300, 9.0, 30, 90), device="cpu", num_threads=1)
    assert steep.seconds(100) == pytest.approx(3)  # not less than proportional: no time below zero
    with pytest.raises(ValueError, match="should cost less"):
        Rates(large, small, device="cpu", num_threads=1)


SIZE = (16, 96, 96)


def test_following_a_recommendation_keeps_the_limit() -> None:
    """The memory limit; how far the time goes down is for a benchmark on a quiet machine."""
    network = tiny_network(NonLocalConfig(sub_sample=False), place="layer2.0", width=24)
    rates = measure_rates(network, SIZE, num_runs=2)
    memory = 0.75 * whole_bytes(network, SIZE, rates.larger.peak_bytes)
    setting = recommend(network, SIZE, Limits(memory_bytes=memory), rates)[0]
    assert setting.meets_limits
    assert setting.change != "nothing"
    changed = build_setting(network, setting)
    (speed,) = measure_speed({"changed": changed}, (1, 3, *setting.input_size), num_runs=2)
    assert speed.peak_bytes is not None
    assert whole_bytes(changed, setting.input_size, speed.peak_bytes) <= memory


def whole_bytes(network: nn.Module, size: tuple[int, int, int], peak_bytes: int) -> int:
    """Weights, input and what the pass takes."""
    weights = sum(tensor.numel() * tensor.itemsize for tensor in network.state_dict().values())
    return weights + 4 * 3 * math.prod(size) + peak_bytes


def fast_rates() -> Rates:
    """A made-up machine: 1e9 MACs and 1 counted gigabyte cost 1 second and 1 gigabyte."""
    points = [Measurement((1, 1, n), n * 10**6, n * 1e-3, n * 10**6, n * 10**6) for n in (1, 1000)]
    return Rates(*points, device="cpu", num_threads=1)


def test_least_change_comes_first() -> None:
    network = tiny_network(NonLocalConfig(sub_sample=False), place="layer1.0", width=8)
    full = recommend(network, SIZE, Limits(seconds_per_clip=1e3), fast_rates())
    assert [setting.change for setting in full] == ["nothing"]
    tighter = Limits(seconds_per_clip=0.7 * full[0].predicted_seconds)
    settings = recommend(network, SIZE, tighter, fast_rates(), margin=0.0)
    assert [setting.keeps_weights for setting in settings] == [True, False]
    assert settings[1].input_size == SIZE  # cheaper blocks alone are enough
    assert all(setting.predicted_seconds <= 0.7 * full[0].predicted_seconds for setting in settings)
    row = json.loads(json.dumps(settings[1].to_row()))
    assert row["meets_limits"]
    assert set(row["nonlocal_blocks"]) <= {"layer1.0"}
    (nothing,) = recommend(network, SIZE, Limits(seconds_per_clip=1e-9), fast_rates())
    assert not nothing.meets_limits


def test_inception_and_other_networks() -> None:
    blocks = {name: NonLocalConfig(sub_sample=False, inter_channels=16) for name in ("Mixed_3c", "Mixed_3b")}
    with torch.device("meta"):
        network = InceptionI3D(InceptionI3DConfig(num_classes=3, nonlocal_blocks=blocks)).eval()
    full = recommend(network, (16, 64, 64), Limits(seconds_per_clip=1e3), fast_rates())[0]
    # The block after Mixed_3b has fewer channels, so it is the cheaper one; the one after Mixed_3c runs last.
    limits = Limits(seconds_per_clip=0.97 * full.predicted_seconds)
    settings = recommend(network, (16, 64, 64), limits, fast_rates(), margin=0.0)
    assert all(setting.meets_limits for setting in settings)
    assert _last(network, network.config.nonlocal_blocks) == {"Mixed_3c": blocks["Mixed_3c"]}
    plain = nn.Sequential(nn.Conv3d(3, 64, 3, padding=1)).eval()
    (smaller,) = recommend(plain, (16, 128, 128), Limits(seconds_per_clip=0.5), fast_rates())
    assert smaller.keeps_weights
    assert smaller.nonlocal_blocks is None


def test_progressive_schedule() -> None:
    schedule = ProgressiveSchedule(warmup_epochs=2, ramp_epochs=4)
    assert schedule.stages == (4, 3, 2, 1)
    assert schedule.total_epochs == 18
    assert set(schedule.gates(0).values()) == set(schedule.gates(2).values()) == {0.0}
    assert schedule.gates(4) == {4: 0.5, 3: 0.0, 2: 0.0, 1: 0.0}
    assert schedule.gates(6.5) == {4: 1.0, 3: 0.125, 2: 0.0, 1: 0.0}
    assert set(schedule.gates(18).values()) == {1.0}
    for stage in schedule.stages:
        gates = [schedule.gates(quarter / 4)[stage] for quarter in range(80)]
        assert gates == sorted(gates)
    assert ProgressiveSchedule(1, 0, (3,)).gates(1) == {3: 1.0}
    assert json.loads(json.dumps(schedule.to_row()))["stages"] == [4, 3, 2, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Limits(), "give a limit"),
        (lambda: Limits(memory_bytes=-1), "should be above 0"),
        (lambda: measure_speed({}, (1,), num_runs=0), "num_runs"),
        (lambda: recommend(nn.Identity(), SIZE, Limits(1.0), fast_rates(), margin=1.0), "margin"),
        (lambda: Speed("n", (1,), "float32", "cpu", "x", 1, (), 0, None, ""), "at least one run"),
        (lambda: Recommendation("", True, (0, 1, 1), None, 1, 1.0, 1.0, True), "positive"),
        (lambda: ProgressiveSchedule(stages=(4, 4)), "at most once"),
        (lambda: ProgressiveSchedule(warmup_epochs=-1), "at least 0"),
        (lambda: ProgressiveSchedule().gates(-1), "at least 0"),
        (
            lambda: NonLocalOptimizer().generate_optimization_recommendations({}, {"flops": 1.0}),
            "it can have max_memory_mb and min_fps",
        ),
        (lambda: ProgressiveTraining(total_epochs=5, warmup_epochs=6), "should be from 0 to total_epochs = 5"),
        (lambda: ProgressiveTraining(5, 1).should_enable_nonlocal(5), "stage = 5 should be one of"),
    ],
)
def test_wrong_arguments(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
