"""Benchmark of the non-local operation against the naive formula: time, memory, error and scaling.

Times come from interleaved runs in one process, so that other load on the machine affects both alike; memory from a
separate process for every case.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor

from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.benchmark.ops_cases import Implementation, OpCase, build, error
from nonlocal_video.benchmark.peak_memory import measure_peak
from nonlocal_video.blocks import (
    NonLocalBlock,
    NonLocalType,
    factorized_attention,
    memory_efficient,
    sparse_attention,
)

Notify = Callable[[str], None]
ALONE: tuple[NonLocalType, ...] = ("dot_product", "concatenation", "embedded_gaussian")
"""Kernels measured without a block; the Gaussian's is the embedded Gaussian's."""
LENGTHS = (784, 3136, 12544, 50176)
DEPTH = 256
BLOCK_SHAPES = ((512, (4, 28, 28)), (1024, (4, 14, 14)), (256, (8, 32, 32)))  # res3, res4, and 8192 positions
LARGE_SHAPE = (256, (32, 64, 64))  # 131,072 positions, a matrix of 64 GiB
NAIVE_MATRIX_LIMIT_BYTES = 2**31
"""Limit on the naive formula's matrix, of which it holds two at a time; larger cases are not run."""
_SECONDS_PER_CASE = 8.0  # repetitions after the first round


def benchmark_ops(
    *, quick: bool = False, large_softmax: bool = False, threads: int = 1, notify: Notify = print
) -> dict[str, Any]:
    """Measure kernels and blocks, all except the variants.

    Args:
        quick: Whether to use tiny shapes, for a smoke test.
        large_softmax: Whether to run the softmax kernels with all keys on the large block as well, for minutes each.
        threads: Number of PyTorch's threads, in this process and those for memory.
        notify: Called with a sentence at each case.

    Returns:
        Rows for kernels, blocks and the large block, and the exponents of N, as JSON values.
    """
    lengths, depth = ((64, 256), 8) if quick else (LENGTHS, DEPTH)
    block_shapes = ((16, (2, 8, 8)),) if quick else BLOCK_SHAPES
    large_shape = (16, (4, 16, 16)) if quick else LARGE_SHAPE
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        kernels = [OpCase(kernel, depth, (length,)) for kernel in ALONE for length in lengths]
        blocks = [OpCase(kernel, *shape) for kernel in get_args(NonLocalType) for shape in block_shapes]
        large = [
            OpCase(kernel, *large_shape, sub_sample=sub_sample)
            for kernel in get_args(NonLocalType)
            for sub_sample in (False, True)
            if sub_sample or large_softmax or kernel in ("dot_product", "concatenation")
        ]
        rows = [_compare(case, threads, quick, notify) for case in [*kernels, *blocks]]
        return {
            "machine": describe_machine(),
            "kernels": rows[: len(kernels)],
            "blocks": rows[len(kernels) :],
            "scaling": {
                kernel: _exponents([row for row in rows[: len(kernels)] if row["kernel"] == kernel]) for kernel in ALONE
            },
            "large": [_large(case, threads, notify) for case in large],
        }
    finally:
        torch.set_num_threads(before)


def benchmark_variants(block: NonLocalBlock, features: Tensor, *, threads: int = 1) -> list[dict[str, Any]]:
    """Measure every variant against the full block on real features (1, C, *size): error of y of eq. 1, and time.

    `error_max` is the largest difference from the full block in float64 over the largest value, `error_rms` the ratio
    of the root mean squares. Both are for y and not for z = x + W y, since W of the default model is 0.
    """
    channels = block.inter_channels
    variants: dict[str, NonLocalBlock] = {"full": block, "memory_efficient": memory_efficient(block)}
    variants |= {f"sparse_attention, top_k = {top_k}": sparse_attention(block, top_k) for top_k in (16, 64, 256)}
    variants |= {
        f"factorized_attention, rank = {rank}": factorized_attention(block, rank)
        for rank in (channels // 8, channels // 4, channels // 2, channels)
    }
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            wide = memory_efficient(block).double()
            exact = _attended(wide, features.double())
            seconds = _interleaved({name: partial(variant, features) for name, variant in variants.items()})
            rows = []
            for name, variant in variants.items():
                off = _attended(variant, features) - exact
                rows.append(
                    {
                        "variant": name,
                        "error_max": float(off.abs().max() / exact.abs().max()),
                        "error_rms": float(off.square().mean().sqrt() / exact.square().mean().sqrt()),
                        "milliseconds": 1e3 * statistics.median(seconds[name]),
                        "time_of_full": _median_ratio(seconds[name], seconds["full"]),
                    }
                )
            return rows
    finally:
        torch.set_num_threads(before)


def _attended(block: NonLocalBlock, x: Tensor) -> Tensor:
    """Return y, the input of W."""
    kept: list[Tensor] = []
    handle = block.W.register_forward_pre_hook(lambda module, arguments: kept.append(arguments[0]))
    block(x)
    handle.remove()
    return kept[0]


def _compare(case: OpCase, threads: int, quick: bool, notify: Notify) -> dict[str, Any]:
    """Measure one case with both implementations, or only ours if the naive matrix is too large."""
    notify(f"{case.kernel}, {case.channels} channels, {' x '.join(map(str, case.size))} positions")
    implementations: tuple[Implementation, ...] = (
        ("naive", "ours") if case.matrix_bytes <= NAIVE_MATRIX_LIMIT_BYTES else ("ours",)
    )
    with torch.no_grad():
        seconds = _interleaved(
            {implementation: build(case, implementation) for implementation in implementations},
            max_rounds=3 if quick else 25,
        )
    row: dict[str, Any] = {
        "kernel": case.kernel,
        "channels": case.channels,
        "size": list(case.size),
        "num_positions": case.num_positions,
    }
    for implementation in implementations:
        row[implementation] = {
            "milliseconds": 1e3 * statistics.median(seconds[implementation]),
            "fastest_milliseconds": 1e3 * min(seconds[implementation]),
            "rounds": len(seconds[implementation]),
            "peak_mib": measure_peak(case, implementation, threads=threads).bytes / 2**20,
            "error": error(case, implementation),
        }
    if "naive" in implementations:
        row["time_ratio"] = _median_ratio(seconds["naive"], seconds["ours"])
        row["memory_ratio"] = row["naive"]["peak_mib"] / max(row["ours"]["peak_mib"], 1 / 256)  # at least a page
    else:
        row["naive"] = None
        row["naive_skipped"] = f"its matrices take 2 x {case.matrix_bytes / 2**30:.0f} GiB"
    return row


def _large(case: OpCase, threads: int, notify: Notify) -> dict[str, Any]:
    notify(f"large block: {case.kernel}, {case.num_positions} positions, {case.num_keys} keys")
    peak = measure_peak(case, "ours", threads=threads)
    return {
        "kernel": case.kernel,
        "channels": case.channels,
        "size": list(case.size),
        "num_keys": case.num_keys,
        "matrix_gib": case.matrix_bytes / 2**30,
        "peak_mib": peak.bytes / 2**20,
        "seconds": peak.seconds,
    }


def _interleaved(functions: dict[str, Callable[[], object]], *, max_rounds: int = 25) -> dict[str, list[float]]:
    """Time the functions in turn, after one round of warm-up, for at least 3 rounds (1 if one takes that long)."""
    for function in functions.values():
        start = time.perf_counter()
        function()
    slow = time.perf_counter() - start > _SECONDS_PER_CASE  # the last function
    rounds, spent = 0, 0.0
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    while rounds < (1 if slow else 3) or (rounds < max_rounds and spent < _SECONDS_PER_CASE):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
            spent += seconds[name][-1]
        rounds += 1
    return seconds


def _median_ratio(first: list[float], second: list[float]) -> float:
    """Return the median of the ratios within rounds: anything that slows a whole round down cancels."""
    return statistics.median(one / other for one, other in zip(first, second, strict=True))


def _exponents(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Fit the slopes of log time and log memory over log N by least squares."""
    positions = [math.log(row["num_positions"]) for row in rows]
    return {
        name: statistics.linear_regression(positions, [math.log(max(row["ours"][field], 1e-9)) for row in rows]).slope
        for name, field in (("time", "milliseconds"), ("memory", "peak_mib"))
    }
