"""Whether the overlays are faithful: curves of deletion and insertion, and maps of networks with shuffled weights.

    python benchmarks/faithfulness.py CLIPS --unlabelled DIR --fast --output benchmarks/results/faithfulness.json

CLIPS holds one folder of clips a class; DIR holds clips and a `sources.csv` (path,source), of which up to `--limit` are
drawn, from all origins in turn (an origin is the first two words of a source, a repository). The class is the predicted
one, so labels are not needed. What is measured and against what: `nonlocal_video/attention/faithfulness.py`. The map is
the exact class activation map of the predicted class; attention is `block_attention.py`'s.

Clips that the output file has already are kept, so the command can be interrupted and started again. Intervals are from
drawing origins, as clips of one origin rise and fall together; a clip of CLIPS is an origin of its own.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nonlocal_video.attention.capture import forward_and_capture
from nonlocal_video.attention.faithfulness import (
    BLUR_SHARE,
    Baseline,
    Curve,
    Curves,
    centre_prior,
    displaced,
    mean_over_time,
    rank_correlation,
    upsample,
    with_shuffled_weights,
)
from nonlocal_video.attention.maps import AttentionMaps
from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.evaluation.metrics import bootstrap, group_numbers
from nonlocal_video.inference.explanation import Explanation
from nonlocal_video.inference.load import load
from nonlocal_video.inference.map_check import perturbation
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.shared_network import SharedNetwork

FRACTIONS: dict[Baseline, tuple[float, ...]] = {"blur": (0.0, 0.1, 0.25, 0.5, 1.0), "mean_colour": (0.0, 0.25, 1.0)}
EVIDENCE, CENTRE = "class evidence", "centre"
DISPLACED, FLAT = ", displaced", ", averaged over time"
ORDERS: dict[Baseline, tuple[str, ...]] = {
    "blur": (EVIDENCE, EVIDENCE + DISPLACED, EVIDENCE + FLAT, CENTRE),
    "mean_colour": (EVIDENCE, EVIDENCE + DISPLACED, CENTRE),
}
COMPARED = (
    (EVIDENCE, EVIDENCE + DISPLACED),
    (EVIDENCE, CENTRE),
    (EVIDENCE, EVIDENCE + FLAT),
    (EVIDENCE + FLAT, CENTRE),  # neither knows time; added when the others had been seen
)
CURVES = ("deletion", "insertion")
VIDEO_SUFFIXES = frozenset({".avi", ".gif", ".mkv", ".mov", ".mp4", ".webm"})


@dataclass(frozen=True)
class Clip:
    """A file, its name in the results, and where it came from."""

    path: Path
    name: str
    origin: str | None
    label: str | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help="folder of CLASS/FILE")
    parser.add_argument("--unlabelled", type=Path, help="folder with clips and their sources.csv")
    parser.add_argument("--limit", type=int, default=30, help="of the clips without labels")
    parser.add_argument("--model", default="default")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runtime", default="torch", help="for the curves; maps are computed by PyTorch")
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--draws", type=int, default=1, help="displaced maps of each map and clip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no clip after this time")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    clips = labelled(arguments.clips)
    if arguments.unlabelled:
        clips += drawn(arguments.unlabelled, arguments.limit, arguments.seed)
    started = time.monotonic()
    with load(arguments.model, device=arguments.device, runtime=arguments.runtime) as recognizer:
        settings = {
            "model": recognizer.card.name,
            "view": asdict(recognizer.card.view(fast=arguments.fast)),
            "runtime": arguments.runtime,
            "fractions": FRACTIONS,
            "draws": arguments.draws,
            "seed": arguments.seed,
            "blur_sigma_pixels": BLUR_SHARE * recognizer.card.view(fast=arguments.fast).crop,
        }
        # As JSON has it, lists for tuples.
        found: dict[str, Any] = {"settings": json.loads(json.dumps(settings)), "clips": []}
        if arguments.output.is_file():
            kept = json.loads(arguments.output.read_text("utf-8"))
            if kept["settings"] != found["settings"]:
                sys.exit(f"{arguments.output} was made with other settings; give another --output.")
            found["clips"] = kept["clips"]
        done = {one["clip"] for one in found["clips"]}
        found["machine"] = describe_machine()
        for clip in clips:
            if clip.name in done or time.monotonic() - started > 60 * arguments.minutes:
                continue
            row = measure(recognizer, clip, arguments)
            found["clips"].append(row)
            evidence = row["curves"]["blur"][EVIDENCE][0]
            print(
                f"{clip.name}: {row['answer']} {row['score']:.3f}, class evidence "
                + ", ".join(f"{name} {area('blur', evidence[name]):.3f}" for name in CURVES)
                + f", {row['seconds']:.0f} s",
                flush=True,
            )
            write(found, arguments.output)
    write(found, arguments.output)


def labelled(folder: Path) -> list[Clip]:
    """CLASS/FILE below a folder."""
    paths = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in VIDEO_SUFFIXES)
    if not paths:
        sys.exit(f"{folder} should hold folders named like the model's labels, with clips in them.")
    return [Clip(path, str(path.relative_to(folder)), None, path.parent.name.replace("_", " ")) for path in paths]


def drawn(folder: Path, limit: int, seed: int) -> list[Clip]:
    """Up to `limit` clips that sources.csv names, one of each origin, then a second of each, and so on."""
    with (folder / "sources.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    of_origin: dict[str, list[Clip]] = defaultdict(list)
    for row in rows:
        path = folder / row["path"]
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
            origin = " ".join(row["source"].split()[:2])
            of_origin[origin].append(Clip(path, row["path"], origin, None))
    random = np.random.default_rng(seed)
    turns: list[tuple[int, int, Clip]] = []
    for number, clips in enumerate(of_origin.values()):
        turns += [(turn, number, clips[index]) for turn, index in enumerate(random.permutation(len(clips)))]
    return [clip for _, _, clip in sorted(turns, key=lambda one: one[:2])[:limit]]


def measure(recognizer: Recognizer, clip: Clip, arguments: argparse.Namespace) -> dict[str, Any]:
    """All curves of one clip, and how its maps change when the network's weights are shuffled."""
    started = time.perf_counter()
    explanation = recognizer.explain_all(clip.path, fast=arguments.fast)
    best = explanation.prediction.top(1)[0]
    evidence = explanation.class_evidence()
    size = (explanation.prediction.num_frames, explanation.prediction.crop, explanation.prediction.crop)
    seed = arguments.seed + zlib.crc32(clip.name.encode())  # other offsets in each clip, the same in each run

    def elsewhere(maps: AttentionMaps) -> list[np.ndarray]:
        return [upsample(cells, maps.grid, size) for cells in displaced(maps.cells, arguments.draws, seed)]

    values = {
        EVIDENCE: [upsample(evidence.cells, evidence.grid, size)],
        EVIDENCE + DISPLACED: elsewhere(evidence),
        EVIDENCE + FLAT: [upsample(*mean_over_time(evidence.cells, evidence.grid), size)],
        CENTRE: [centre_prior(size)],
    }
    curves: dict[str, Any] = {}
    for baseline, names in ORDERS.items():
        perturbed = perturbation(
            recognizer, explanation, best.index, baseline=baseline, batch_size=arguments.batch_size
        )
        curves[baseline] = {
            name: [row_of(perturbed.curves(one, FRACTIONS[baseline])) for one in values[name]] for name in names
        }
    return {
        "clip": clip.name,
        "origin": clip.origin,
        "answer": best.label,
        "score": round(best.score, 6),
        "label": clip.label,
        "curves": curves,
        "rank_correlation": shuffled(explanation, evidence, arguments.seed),
        "seconds": round(time.perf_counter() - started, 1),
    }


def shuffled(explanation: Explanation, evidence: AttentionMaps, seed: int) -> dict[str, float]:
    """Rank correlation of a map with those of the same clip and class when part of the weights are shuffled."""
    network: Any = explanation.network
    target = explanation.prediction.top(1)[0].index
    blocks = network.nonlocal_layers()
    trunk = [name for name, _ in network.named_children() if name != network.head_layer and name not in blocks]
    without_head = with_shuffled_weights(network, [network.head_layer], seed)
    without_trunk = with_shuffled_weights(network, trunk, seed)
    device = next(network.parameters()).device
    inputs = explanation.clip.network_input(0, 0, device=device)
    with torch.inference_mode():
        _, kept = forward_and_capture(without_trunk, inputs, capture_outputs=[network.feature_layer])
    strange = replace(
        explanation, shared=SharedNetwork(without_trunk, device), features=kept.outputs[network.feature_layer]
    )
    pairs = {
        "class evidence, head shuffled": replace(explanation, shared=SharedNetwork(without_head, device)),
        "class evidence, trunk shuffled": strange,
    }
    found = {name: rank_correlation(evidence.cells, one.class_evidence(target).cells) for name, one in pairs.items()}
    return {name: round(value, 4) for name, value in found.items()}


def row_of(curves: Curves) -> dict[str, list[float]]:
    return {name: [round(score, 6) for score in getattr(curves, name).scores] for name in CURVES}


def area(baseline: Baseline, scores: Sequence[float]) -> float:
    return Curve(FRACTIONS[baseline], tuple(scores)).area


def write(found: dict[str, Any], output: Path) -> None:
    """The clips, and what follows from them."""
    found["figures"] = figures(found["clips"])
    output.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean curves, areas, differences and rank correlations over the clips, with 95% intervals."""
    groups = group_numbers([row["origin"] for row in rows])
    summary: dict[str, Any] = {"clips": len(rows), "origins": int(groups.max()) + 1}
    for baseline, names in ORDERS.items():
        areas = {
            (name, curve): np.array(
                [np.mean([area(baseline, draw[curve]) for draw in row["curves"][baseline][name]]) for row in rows]
            )
            for name in names
            for curve in CURVES
        }
        # The sign is chosen so that above 0 the first of a pair is the better one.
        gains = {
            f"{one} - {other}": {
                "deletion": areas[other, "deletion"] - areas[one, "deletion"],
                "insertion": areas[one, "insertion"] - areas[other, "insertion"],
            }
            for one, other in COMPARED
            if one in names and other in names
        }
        summary[baseline] = {
            "mean_curves": {
                name: {
                    curve: np.mean(
                        [[draw[curve] for draw in row["curves"][baseline][name]] for row in rows], axis=(0, 1)
                    )
                    .round(4)
                    .tolist()
                    for curve in CURVES
                }
                for name in names
            },
            "areas": {name: {curve: estimate(areas[name, curve], groups) for curve in CURVES} for name in names},
            "gains": {
                pair: {
                    curve: {**estimate(values, groups), "clips_above_0": int((values > 0).sum())}
                    for curve, values in of_pair.items()
                }
                for pair, of_pair in gains.items()
            },
        }
    summary["rank_correlation"] = {
        name: {
            **estimate(np.array([row["rank_correlation"][name] for row in rows]), groups),
            "mean_absolute": round(float(np.mean([abs(row["rank_correlation"][name]) for row in rows])), 4),
        }
        for name in rows[0]["rank_correlation"]
    }
    return summary


def mean_curve(scores: list[list[float]]) -> list[float]:
    return [round(float(score), 4) for score in np.mean(scores, axis=0)]


def estimate(values: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """The mean over clips and its 95% interval."""
    ends = bootstrap({"mean": lambda weights: float(np.average(values, weights=weights))}, groups, seed=0)["mean"]
    return {"mean": round(float(values.mean()), 4), "interval": ends and [round(end, 4) for end in ends]}


if __name__ == "__main__":
    main()
