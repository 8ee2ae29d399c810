"""The two classes of tutorials on non-local networks: their names, arguments and keys over this package's functions.

Everywhere one megabyte is 10^6 bytes and a floating-point operation is a multiplication or an addition; a result's
other keys are those of the dataclass behind it. `docs/tutorial.md` answers the tutorial's claims.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from nonlocal_video.analysis.complexity import compare_blocks
from nonlocal_video.analysis.counting import count_run
from nonlocal_video.analysis.effective_receptive_field import compare_fields
from nonlocal_video.analysis.networks import nonlocal_blocks
from nonlocal_video.analysis.patterns import network_patterns
from nonlocal_video.analysis.receptive_field import LayerField, theoretical_fields
from nonlocal_video.analysis.speed import measure_speed
from nonlocal_video.blocks import NonLocalBlock, NonLocalType, variants
from nonlocal_video.blocks.schedule import ProgressiveTraining
from nonlocal_video.errors import UsageError

Block = TypeVar("Block", bound=NonLocalBlock)
Rows = dict[str, dict[str, Any]]
_CONSTRAINTS = ("max_memory_mb", "min_fps")


class NonLocalAnalyzer:
    """Complexity, receptive field, speed and attention patterns of blocks and networks.

    Attributes:
        analysis_results: "complexity", "receptive_field", "speed" and "attention" -> the last result of each.

    Example:
        >>> found = NonLocalAnalyzer().analyze_computational_complexity([(1, 64, 8, 8)], ["dot_product"])
        >>> found["(1, 64, 8, 8)_dot_product"]["spatial_size"]
        64
    """

    def __init__(self) -> None:
        self.analysis_results: dict[str, Any] = {}

    def analyze_computational_complexity(
        self, input_shapes: Sequence[Sequence[int]], nonlocal_types: Sequence[NonLocalType]
    ) -> Rows:
        """Count a block for every input shape and kernel; see `compare_blocks`.

        Args:
            input_shapes: (B, C, *size) each.
            nonlocal_types: Pairwise functions.

        Returns:
            f"{shape}_{type}" -> `total_ops` (floating-point operations of the batch), `ops_per_pixel` (of one
            position), `attention_memory_mb` (what the kernel holds besides theta, phi, g and y; `map_bytes` is what the
            map would take if it were written out), `total_memory_mb` (tensors alive at the peak) and `spatial_size` (N,
            the positions of one sample), and the columns of `BlockComplexity`.
        """
        found: Rows = {}
        for shape in input_shapes:
            num_positions = math.prod(shape[2:])
            for block in compare_blocks([shape], nonlocal_types):
                operations = 2 * block.counted_macs + block.formula_elementwise
                found[f"{shape}_{block.nonlocal_type}"] = {
                    **block.to_row(),
                    "total_ops": operations,
                    "ops_per_pixel": operations / (shape[0] * num_positions),
                    "attention_memory_mb": block.working_bytes / 1e6,
                    "total_memory_mb": block.peak_bytes / 1e6,
                    "spatial_size": num_positions,
                }
        self.analysis_results["complexity"] = found
        return found

    def analyze_receptive_field(self, model: nn.Module, input_shape: Sequence[int]) -> Rows:
        """Measure the field of the middle unit of each non-local block's output; see `compare_fields`.

        Args:
            model: A network on images or clips.
            input_shape: (B, C, H, W) or (B, C, T, H, W); B is the number of noise inputs.

        Returns:
            Stage -> `theoretical_range` ("Global", or the field as "T x H x W"), `effective_range` (side in pixels of a
            square as large as the area where the gradient is above Luo et al.'s threshold), `coverage_ratio` (that
            area's share of the picture), and the columns of the network with its blocks; `share_beyond` is the
            gradient's share from where the network without blocks cannot see. A model without blocks has its last
            feature map instead.
        """
        if len(input_shape) not in (4, 5):
            raise UsageError(f"input_shape = {tuple(input_shape)} should be (B, C, H, W) or (B, C, T, H, W).")
        batch, in_channels, *size = input_shape
        layers = _stages(model)
        if not layers:
            last = theoretical_fields(model, size, in_channels=in_channels)[-1].layer
            layers = {last: last}
        found: Rows = {}
        for layer, stage in layers.items():
            compared = compare_fields(model, size, layer, num_inputs=batch, in_channels=in_channels)
            field = compared.with_blocks
            found[stage] = {
                **field.to_row(),
                "share_beyond": compared.share_beyond,
                "identity_blocks": list(compared.identity_blocks),
                "theoretical_range": _range_in_words(field.theoretical),
                "effective_range": field.area_side,
                "coverage_ratio": field.area_side**2 / math.prod(size[-2:]),
            }
        self.analysis_results["receptive_field"] = found
        return found

    def benchmark_inference_speed(
        self,
        models_dict: Mapping[str, nn.Module],
        input_shape: Sequence[int],
        device: str | torch.device = "cpu",
        num_runs: int = 100,
    ) -> Rows:
        """Time networks in turns, after warm-up, in this process alone; `measure_speed` also measures peak memory.

        Args:
            models_dict: Name -> network.
            input_shape: Batch first: (B, C, H, W), or (B, C, T, H, W).
            device: Any device of this machine.
            num_runs: Timed runs of each network.

        Returns:
            Name -> `avg_inference_time_ms` (mean of a run; `median_seconds` disturbances hardly change),
            `throughput_fps` (frames a second: images, or clips times their frames), `total_parameters`,
            `estimated_flops` (floating-point operations of a run, counted: two for each multiply-accumulate),
            `flops_per_param`, and the columns of `Speed`.
        """
        speeds = measure_speed(models_dict, input_shape, device=device, num_runs=num_runs, memory=False)
        num_frames = input_shape[0] * (input_shape[2] if len(input_shape) == 5 else 1)
        found: Rows = {}
        for speed in speeds:
            network = models_dict[speed.network]
            mean = statistics.fmean(speed.seconds)
            num_parameters = sum(parameter.numel() for parameter in network.parameters())
            operations = 2 * count_run(network, input_shape).macs
            found[speed.network] = {
                **speed.to_row(),
                "avg_inference_time_ms": 1000 * mean,
                "throughput_fps": num_frames / mean,
                "total_parameters": num_parameters,
                "estimated_flops": operations,
                "flops_per_param": operations / num_parameters if num_parameters else math.nan,
            }
        self.analysis_results["speed"] = found
        return found

    def compare_attention_patterns(self, model: nn.Module, test_images: Tensor | Sequence[Tensor]) -> dict[str, Rows]:
        """Measure how spread each block's attention is; see `network_patterns`.

        Args:
            model: A network on images or clips.
            test_images: A batch (B, C, H, W) or (B, C, T, H, W), or a list of images or clips, each with or without a
                batch axis of 1.

        Returns:
            "image_0" -> stage -> `entropy` (nats, the mean over query rows; its maximum is `maximum_entropy_nats`),
            `sparsity` (share of keys with less than a tenth of an equal weight), `max_attention` and
            `attention_variance` (means over query rows), and the columns of `AttentionPattern`.
        """
        stages = _stages(model)
        num_axes = 1 + max((block.dimension for block in nonlocal_blocks(model).values()), default=2)
        found: dict[str, Rows] = {}
        for index, image in enumerate(test_images):
            batch = image[None] if image.dim() == num_axes else image
            rows: Rows = {}
            for pattern in network_patterns(model, batch, names=[f"image_{index}"]):
                rows[stages[pattern.block]] = {
                    **pattern.to_row(),
                    "entropy": pattern.entropy_nats,
                    "max_attention": pattern.maximum,
                    "attention_variance": pattern.variance,
                }
            found[f"image_{index}"] = rows
        self.analysis_results["attention"] = found
        return found


class NonLocalOptimizer:
    """Cheaper blocks, the progressive schedule, and what to change to keep a limit.

    Attributes:
        optimization_strategies: Strategy -> what makes it: a new block, or the class of a schedule.

    Example:
        >>> optimizer = NonLocalOptimizer()
        >>> sorted(optimizer.optimization_strategies)
        ['factorized_attention', 'memory_efficient', 'progressive_training', 'sparse_attention']
    """

    def __init__(self) -> None:
        self.optimization_strategies: dict[str, Callable[..., Any]] = {
            "memory_efficient": self._memory_efficient_nonlocal,
            "sparse_attention": self._sparse_nonlocal,
            "factorized_attention": self._factorized_nonlocal,
            "progressive_training": self._progressive_training_strategy,
        }

    def memory_efficient(self, block: Block) -> Block:
        """Return a copy of a block with bounded memory; see `nonlocal_video.blocks.variants`, also for the next two."""
        return variants.memory_efficient(block)

    def sparse_attention(self, block: Block, top_k: float) -> Block:
        """A copy in which each query keeps its `top_k` largest weights; the others are exactly 0."""
        return variants.sparse_attention(block, top_k)

    def factorized_attention(self, block: Block, rank: int) -> Block:
        """Return a copy of a block whose theta and phi have `rank` channels."""
        return variants.factorized_attention(block, rank)

    def progressive_training(self, total_epochs: float = 100, warmup_epochs: float = 10) -> ProgressiveTraining:
        """First no blocks, then stage by stage, each with a gate that grows to 1; all are open at `total_epochs`."""
        return ProgressiveTraining(total_epochs, warmup_epochs)

    def _memory_efficient_nonlocal(self, in_channels: int, reduction_ratio: int = 8) -> NonLocalBlock:
        """A new block on images with `in_channels / reduction_ratio` inner channels and bounded memory."""
        return variants.memory_efficient(NonLocalBlock(in_channels, max(1, in_channels // reduction_ratio)))

    def _sparse_nonlocal(self, in_channels: int, sparsity_ratio: float = 0.1) -> NonLocalBlock:
        """A new block on images in which each query keeps this share of its keys."""
        return variants.sparse_attention(NonLocalBlock(in_channels), sparsity_ratio)

    def _factorized_nonlocal(self, in_channels: int, rank: int | None = None) -> NonLocalBlock:
        """A new block on images with theta and phi of `rank` channels, by default half as many as g has."""
        block = NonLocalBlock(in_channels)
        return variants.factorized_attention(block, max(1, block.inter_channels // 2) if rank is None else rank)

    def _progressive_training_strategy(self) -> type[ProgressiveTraining]:
        """The class of the schedule that counts epochs."""
        return ProgressiveTraining

    def generate_optimization_recommendations(
        self, model_complexity: Mapping[str, Any], target_constraints: Mapping[str, float]
    ) -> list[dict[str, Any]]:
        """Name the limits that a network breaks, and what is known to help.

        A limit that cannot be judged from what is given is named, too, with what to measure. For one block,
        `advise_blocks` finds the smallest change that keeps a limit; `recommend` does so for a network on this machine.

        Args:
            model_complexity: What `get_model_complexity()` gives; `throughput_fps` of `benchmark_inference_speed`, if
                it is added, is compared with `min_fps`.
            target_constraints: `max_memory_mb` (of the weights, 10^6 bytes) and `min_fps`, or one of them.

        Returns:
            `category`, `issue` and a list of `suggestions` each; none if all limits are kept.
        """
        unknown = sorted(set(target_constraints) - set(_CONSTRAINTS))
        if unknown:
            raise UsageError(f"target_constraints has {unknown}; it can have {' and '.join(_CONSTRAINTS)}.")
        found = []
        size, blocks = float(model_complexity["model_size_mb"]), float(model_complexity["nonlocal_ratio"])
        most = target_constraints.get("max_memory_mb", math.inf)
        if size > most:
            suggestions = [f"Half precision stores the weights in {size / 2:.1f} MB."]
            if blocks:
                suggestions.append(
                    f"The non-local blocks are {100 * blocks:.1f}% of the parameters, {size * blocks:.1f} MB; half of "
                    "their inner channels, or fewer stages with a block, need training."
                )
            found.append(
                {
                    "category": "memory",
                    "issue": f"The weights take {size:.1f} MB of at most {most:g} MB, before any activation.",
                    "suggestions": suggestions,
                }
            )
        least, frames = target_constraints.get("min_fps", 0), model_complexity.get("throughput_fps")
        if least > 0 and frames is None:
            found.append(
                {
                    "category": "speed",
                    "issue": f"Parameters do not tell whether {least:g} frames a second are reached.",
                    "suggestions": [
                        "Measure it: benchmark_inference_speed gives throughput_fps.",
                        "nonlocal-video analyze recommend finds an input size and blocks that keep a time here.",
                    ],
                }
            )
        elif float(frames or 0) < least:
            suggestions = ["A smaller input keeps the weights; convolutions cost in proportion to its positions."]
            if blocks and model_complexity.get("nonlocal_type") in ("gaussian", "embedded_gaussian"):
                suggestions.append("The dot-product kernel costs linear time in the positions; it needs training.")
            found.append(
                {
                    "category": "speed",
                    "issue": f"{frames:.1f} frames a second are fewer than {least:g}.",
                    "suggestions": suggestions,
                }
            )
        return found


def _stages(model: nn.Module) -> dict[str, str]:
    """Dotted name of each non-local block -> "stage3" where the model has it so in `nonlocal_blocks`, or that name."""
    staged = {id(block): stage for stage, block in getattr(model, "nonlocal_blocks", {}).items()}
    return {name: staged.get(id(block), name) for name, block in nonlocal_blocks(model).items()}


def _range_in_words(field: LayerField) -> str:
    """Return "Global" where the unit sees every position through a block, or the part of the input that it sees."""
    return "Global" if all(map(math.isinf, field.extent)) else " x ".join(map(str, field.seen))
