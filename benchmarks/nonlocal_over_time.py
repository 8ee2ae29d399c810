"""Does a window's answer gain from the other windows of its video, without training? Writes nonlocal_over_time.json.

    python benchmarks/nonlocal_over_time.py DATA --cache FOLDER [--output benchmarks/results/nonlocal_over_time.json]

Clips are joined into videos on their features: whole in random orders, or cut up and interleaved. Settings are chosen
on half of the source clips and asked of the other half, several times; intervals come from drawing source clips.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nonlocal_over_time_data import STRIDE_SECONDS, ClipWindows, windows_of
from nonlocal_over_time_methods import Method, alone, mean, methods, nonlocal_, shipped, softmax
from numpy.typing import NDArray

from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.blocks.nonlocal_mean import nonlocal_mean, nonlocal_mean_so_far
from nonlocal_video.datasets.segment_table import Span
from nonlocal_video.evaluation.segment_metrics import SegmentedVideo, measure_segments
from nonlocal_video.inference.shortest_action import best_segments
from nonlocal_video.zoo.catalogue import load_network

NUM_SPLITS = 10
NUM_ORDERS = 3
NUM_DRAWS = 2000
PIECE_WINDOWS = 2
CHOSEN_ON = ((5, False), (5, True), (20, False), (20, True))
"""Clips a video, and whether they are cut up: the arrangements of the nested study."""
SHOWN = ((1, False), (2, False), (5, False), (5, True), (10, False), (20, False), (20, True), (40, False), (40, True))
SMOOTHING = ("mean", "gaussian", "median", "viterbi")

Counts = NDArray[np.float64]
"""(clips, 2): windows answered right, and windows."""


class Clip:
    """A labelled clip as the methods take it."""

    def __init__(self, windows: ClipWindows, label: int) -> None:
        self.logits, self.features = windows.logits.astype(float), windows.features.astype(float)
        self.label, self.path = label, windows.path

    def __len__(self) -> int:
        return len(self.logits)


def videos(
    num: int, size: int, *, cut: bool, seed: int, lengths: Sequence[int]
) -> Iterable[list[tuple[int, int, int]]]:
    """Arrange clips into videos of `size` clips: pieces (clip, first window, one after the last)."""
    random = np.random.default_rng(seed)
    order = random.permutation(num)
    for start in range(0, num, size):
        pieces = []
        for clip in order[start : start + size].tolist():
            bounds = [*range(0, lengths[clip], PIECE_WINDOWS if cut else lengths[clip]), lengths[clip]]
            pieces += [(clip, *bounds[at : at + 2]) for at in range(len(bounds) - 1)]
        yield [pieces[at] for at in random.permutation(len(pieces))] if cut else pieces


def counted(method: Method, clips: Sequence[Clip], size: int, *, cut: bool, orders: int = NUM_ORDERS) -> Counts:
    """Count the windows of each clip that are answered right, and all, over random arrangements."""
    counts = np.zeros((len(clips), 2))
    for seed in range(orders if size > 1 else 1):
        for pieces in videos(len(clips), size, cut=cut, seed=seed, lengths=[len(clip) for clip in clips]):
            logits = np.concatenate([clips[clip].logits[first:end] for clip, first, end in pieces])
            features = np.concatenate([clips[clip].features[first:end] for clip, first, end in pieces])
            owners = np.concatenate([np.full(end - first, clip) for clip, first, end in pieces])
            labels = np.array([clips[owner].label for owner in owners])
            right = method(logits, features).argmax(axis=1) == labels
            np.add.at(counts, owners, np.stack([right, np.ones(len(right))], axis=1))
    return counts


def percent(counts: Counts) -> float:
    """Share of the windows that are answered right."""
    return float(100 * counts[:, 0].sum() / counts[:, 1].sum())


def gain(found: Counts, base: Counts) -> dict[str, Any]:
    """Points over another method, with the interval that drawing clips gives."""
    drawn = np.random.default_rng(0).integers(0, len(found), (NUM_DRAWS, len(found)))
    share = [100 * counts[drawn, 0].sum(axis=1) / counts[drawn, 1].sum(axis=1) for counts in (found, base)]
    low, high = np.percentile(share[0] - share[1], [2.5, 97.5])
    return {
        "points": round(percent(found) - percent(base), 2),
        "interval": [round(float(low), 2), round(float(high), 2)],
    }


def nested(clips: Sequence[Clip]) -> dict[str, Any]:
    """Choose each family's setting on one half and ask it of the other, both ways round, several times."""
    families = methods()
    totals: dict[str, Counts] = {name: np.zeros((len(clips), 2)) for name in [*families, "chosen", "best smoothing"]}
    taken: dict[str, list[str]] = {name: [] for name in totals}
    per_size = {
        name: {str(kind): np.zeros((len(clips), 2)) for kind in CHOSEN_ON}
        for name in ("alone", "chosen", "best smoothing")
    }
    for split in range(NUM_SPLITS):
        order = np.random.default_rng(100 + split).permutation(len(clips))
        halves = order[: len(order) // 2], order[len(order) // 2 :]
        for chosen_on, asked_of in (halves, halves[::-1]):
            part, others = [clips[i] for i in chosen_on], [clips[i] for i in asked_of]
            best: dict[str, tuple[float, str]] = {}
            for name, settings in families.items():
                points = {
                    setting: float(
                        np.mean([percent(counted(method, part, size, cut=cut, orders=2)) for size, cut in CHOSEN_ON])
                    )
                    for setting, method in settings.items()
                }
                setting = max(points, key=lambda key: points[key])
                best[name] = points[setting], setting
            ours = [name for name in families if name.startswith("non-local") and "shuffled" not in name]
            asked = {name: (name, best[name][1]) for name in families}
            for name, among in (("chosen", ours), ("best smoothing", SMOOTHING)):
                winner = max(among, key=lambda family: best[family][0])
                asked[name] = winner, best[winner][1]
            for name, (family, setting) in asked.items():
                taken[name].append(f"{family}: {setting}" if name != family else setting)
                for size, cut in CHOSEN_ON:
                    counts = counted(families[family][setting], others, size, cut=cut)
                    totals[name][asked_of] += counts
                    if name in per_size:
                        per_size[name][str((size, cut))][asked_of] += counts
    return {
        "splits": NUM_SPLITS,
        "arrangements": [f"{size} clips a video, {'cut up' if cut else 'whole'}" for size, cut in CHOSEN_ON],
        "families": {
            name: {
                "top1": round(percent(counts), 2),
                "over_alone": gain(counts, totals["alone"]),
                "over_best_smoothing": gain(counts, totals["best smoothing"]),
                "settings": {setting: taken[name].count(setting) for setting in dict.fromkeys(taken[name])},
            }
            for name, counts in totals.items()
        },
        "by_arrangement": {
            name: {kind: round(percent(counts), 2) for kind, counts in kinds.items()}
            for name, kinds in per_size.items()
        },
    }


def shown(clips: Sequence[Clip]) -> dict[str, Any]:
    """Compare what ships with no context, knowing every cut, and shuffled similarity, on all clips."""
    families = methods()
    judge = counted(mean, clips, 1, cut=False)
    base = counted(alone, clips, 1, cut=False)
    found = {}
    for size, cut in SHOWN:
        ours = counted(shipped, clips, size, cut=cut)
        smooth = {
            f"{name} {setting}".strip(): counted(method, clips, size, cut=cut)
            for name in SMOOTHING
            for setting, method in families[name].items()
        }
        best = max(smooth, key=lambda name: percent(smooth[name]))
        found[f"{size} clips a video, {'cut up' if cut else 'whole'}"] = {
            "alone": round(percent(base), 2),
            "shipped": round(percent(ours), 2),
            "over_alone": gain(ours, base),
            "knowing_the_cuts": round(percent(judge), 2),
            "over_knowing_the_cuts": gain(ours, judge),
            "best_smoothing_in_hindsight": {"setting": best, "top1": round(percent(smooth[best]), 2)},
        }
    return found


def segments(clips: Sequence[Clip]) -> list[dict[str, Any]]:
    """Figures of segments by the length of the shortest action, of windows alone and refined."""
    found = []
    for size, cut in ((5, False), (20, False), (20, True)):
        for shortest in (0.0, 1.28, 2.56, 3.84, 5.12):
            row: dict[str, Any] = {"clips_a_video": size, "cut_up": cut, "shortest_seconds": shortest}
            for name, method in (("alone", lambda logits, features: softmax(logits)), ("shipped", shipped)):
                made = []
                for pieces in videos(len(clips), size, cut=cut, seed=0, lengths=[len(clip) for clip in clips]):
                    logits = np.concatenate([clips[clip].logits[first:end] for clip, first, end in pieces])
                    features = np.concatenate([clips[clip].features[first:end] for clip, first, end in pieces])
                    scores = method(logits, features)
                    spans = [
                        Span(a * STRIDE_SECONDS, b * STRIDE_SECONDS, str(index), float(scores[a:b, index].mean()))
                        for a, b, index in best_segments(((STRIDE_SECONDS, row) for row in scores), shortest)
                    ]
                    ends = np.cumsum([0, *(end - first for _, first, end in pieces)]) * STRIDE_SECONDS
                    truth = [
                        Span(ends[at], ends[at + 1], str(clips[clip].label)) for at, (clip, _, _) in enumerate(pieces)
                    ]
                    made.append(SegmentedVideo("", 0.0, float(ends[-1]), truth, spans))
                figures = measure_segments(made)
                row[name] = {
                    "frame_accuracy": round(figures.frame_accuracy or 0, 1),
                    "edit": round(figures.edit or 0, 1),
                    **{name: round(value or 0, 1) for name, value in figures.f1.items()},
                    "map": round(figures.mean_average_precision["map"] or 0, 1),
                }
            found.append(row)
    return found


def growing(clips: Sequence[Clip], others: Sequence[ClipWindows]) -> list[dict[str, Any]]:
    """The labelled windows among more and more that are nothing of theirs, with and without a scale that grows."""
    random = np.random.default_rng(0)
    pool = [np.concatenate(rows).astype(float) for rows in zip(*[(c.logits, c.features) for c in others], strict=True)]
    rest: dict[str, Any] = {"temperature": 0.2, "values": "softened", "counts_from": 8}
    found = []
    for total in (300, 1000, 3000, 10_000):
        kinds: dict[str, Method] = {
            "fixed scale": lambda logits, features: nonlocal_(logits, features, **rest),
            "growing scale": shipped,
        }
        counts = {name: np.zeros((len(clips), 2)) for name in (*kinds, "alone")}
        owners = np.concatenate([np.full(len(clip), number) for number, clip in enumerate(clips)])
        labels = np.array([clips[owner].label for owner in owners])
        number = max(0, total - len(owners))
        pairs, share = random.integers(0, len(pool[0]), (2, number)), random.uniform(0.5, 1, (number, 1))
        more = [share * rows[pairs[0]] + (1 - share) * rows[pairs[1]] for rows in pool]
        logits = np.concatenate([*[clip.logits for clip in clips], more[0]])
        features = np.concatenate([*[clip.features for clip in clips], more[1]])
        for name in counts:
            answers = logits if name == "alone" else kinds[name](logits, features)
            right = answers[: len(owners)].argmax(axis=1) == labels
            np.add.at(counts[name], owners, np.stack([right, np.ones(len(right))], axis=1))
        row = {"windows": len(logits), **{name: round(percent(value), 2) for name, value in counts.items()}}
        found.append(row | {"growing_over_alone": gain(counts["growing scale"], counts["alone"])})
    return found


def controls(
    clips: Sequence[Clip], places: Sequence[ClipWindows], poses: Sequence[ClipWindows], labels: Sequence[str]
) -> dict[str, Any]:
    """Videos of one action, of actions that the model does not know, and of static cameras."""
    one = counted(shipped, clips, 1, cut=False)
    found: dict[str, Any] = {
        "one action throughout": {
            "alone": round(percent(counted(alone, clips, 1, cut=False)), 2),
            "shipped": round(percent(one), 2),
            "over_alone": gain(one, counted(alone, clips, 1, cut=False)),
        }
    }
    for name, group in (("places, static cameras", places), ("yoga poses, a phone on a stand", poses)):
        if not group:
            continue
        logits = np.concatenate([clip.logits for clip in group]).astype(float)
        features = np.concatenate([clip.features for clip in group]).astype(float)
        raw, refined = softmax(logits), shipped(logits, features)
        found[name] = {
            "clips": len(group),
            "windows": len(logits),
            "mean_score_alone": round(float(raw.max(axis=1).mean()), 3),
            "mean_score_shipped": round(float(refined.max(axis=1).mean()), 3),
            "classes_alone": len(np.unique(raw.argmax(axis=1))),
            "classes_shipped": len(np.unique(refined.argmax(axis=1))),
            "changed_answers": round(float((raw.argmax(axis=1) != refined.argmax(axis=1)).mean()), 3),
        }
        known = [Clip(clip, _known(clip, labels)) for clip in group if _known(clip, labels) >= 0]
        if known:
            owners = np.concatenate([np.full(len(clip), number) for number, clip in enumerate(group)])
            counts = {}
            for kind, answers in (("alone", raw), ("shipped", refined)):
                counts[kind] = np.zeros((len(group), 2))
                right = answers.argmax(axis=1) == np.array([_known(group[owner], labels) for owner in owners])
                np.add.at(counts[kind], owners, np.stack([right, np.ones(len(right))], axis=1))
                counts[kind] = counts[kind][[_known(clip, labels) >= 0 for clip in group]]
            found[name] |= {
                "known_windows": int(counts["alone"][:, 1].sum()),
                "known_alone": round(percent(counts["alone"]), 2),
                "known_shipped": round(percent(counts["shipped"]), 2),
                "known_over_alone": gain(counts["shipped"], counts["alone"]),
            }
    return found


def _known(clip: ClipWindows, labels: Sequence[str]) -> int:
    """The class of a clip of places or poses that the model has, or -1."""
    label = {"shake hands": "shaking hands"}.get(clip.label, clip.label)
    return labels.index(label) if label in labels else -1


def folder(clips: Sequence[Clip]) -> dict[str, Any]:
    """Whole clips of one folder, each with the mean of its views' scores and features."""
    found = {}
    for name, take in (
        ("middle window", lambda rows: rows[[(len(rows) - 1) // 2]]),
        ("all windows", lambda rows: rows),
    ):
        logits = np.stack([np.log(softmax(take(clip.logits)).mean(axis=0)) for clip in clips])
        features = np.stack([take(clip.features).mean(axis=0) for clip in clips])
        labels = np.array([clip.label for clip in clips])
        counts = []
        for answers in (logits, shipped(logits, features)):
            counts.append(np.stack([answers.argmax(axis=1) == labels, np.ones(len(clips))], axis=1))
        found[name] = {
            "alone": round(percent(counts[0]), 2),
            "folder": round(percent(counts[1]), 2),
            "over_alone": gain(counts[1], counts[0]),
        }
    return found


def timed(seconds_a_window: float) -> list[dict[str, Any]]:
    """Measure how long the operation takes beside the windows' forward passes."""
    found = []
    for num in (100, 1000, 10_000):
        values, features = torch.rand(num, 400), torch.rand(num, 1024)
        row: dict[str, Any] = {"windows": num}
        for name, operation in (("ended", nonlocal_mean), ("while_it_runs", nonlocal_mean_so_far)):
            started = time.perf_counter()
            operation(values, features)
            row[f"{name}_seconds"] = round(time.perf_counter() - started, 4)
            row[f"{name}_percent_of_forward"] = round(100 * row[f"{name}_seconds"] / (num * seconds_a_window), 3)
        found.append(row)
    return found


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="Folder with clips/, windows/, places/ and actions/.")
    parser.add_argument("--cache", required=True, type=Path, help="Where logits and features are kept.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "nonlocal_over_time.json")
    options = parser.parse_args()
    labels = load_network("default")[1].labels

    def read(*names: str, fast: bool = False) -> list[ClipWindows]:
        return list(windows_of([options.data / name for name in names], options.cache, fast=fast))

    labelled = read("clips", "windows")
    clips = [Clip(windows, labels.index(windows.label)) for windows in labelled]
    places, poses = read("places/a", "places/b"), read("actions")
    seconds = sum(windows.forward_seconds for windows in labelled) / sum(map(len, labelled))
    fast = [Clip(windows, labels.index(windows.label)) for windows in read("clips", "windows", fast=True)]
    result = {
        "machine": describe_machine(),
        "clips": len(clips),
        "windows": sum(map(len, clips)),
        "nested": nested(clips),
        "shipped": shown(clips),
        "fast": shown(fast),
        "segments": segments(clips),
        "growing": growing(clips, [*places, *poses]),
        "controls": controls(clips, places, poses, labels),
        "folder": folder(clips),
        "forward_seconds_a_window": round(seconds, 3),
        "time": timed(seconds),
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(options.output)


if __name__ == "__main__":
    main()
