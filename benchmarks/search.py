"""Measure how well search finds the same action among other people's clips, beside simpler ways.

    python benchmarks/search.py DATA --tables FOLDER --output benchmarks/results/search.json

DATA has `actions` with its `clips.csv`, and `places`, `windows` and `clips` with `windows_and_places.csv`: path, label
and group (who is seen; a clip without one is a group of its own). FOLDER keeps the tables of features, so that the
command can be interrupted and run again. Every clip is an example once, and the others are ranked. Only those of other
groups count, and only examples whose action somebody else does as well. Figures are means over examples: average
precision, and how many of the nearest three are of the same action; intervals are 95%, bootstrap over groups.

`search` is `nlv.search` itself, `search, refined` with `refine`. Of the other ways, each differs from `search` in
what its name says. `colours` compares histograms of 512 colours (square roots, cosine), `frames` the mean of frames of
16 x 16 pixels (cosine less the mean); both see 8 frames of a clip.

`joining` is about the ends of moments: clips of a group are joined to a video in random order, and searched by other
groups' clips, or by their middle window. Of the three best moments with the right action the overlap with it
(intersection over union, in windows) is given for shares with which a neighbour is joined.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import nonlocal_video as nlv
from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.errors import VideoError
from nonlocal_video.evaluation.metrics import bootstrap, group_numbers
from nonlocal_video.features.extract import extract_features
from nonlocal_video.features.table import FeatureTable, read_features
from nonlocal_video.inference.fragment import split_part, with_part
from nonlocal_video.retrieval import moments
from nonlocal_video.retrieval.chamfer import score_moments
from nonlocal_video.retrieval.likeness import Centring
from nonlocal_video.retrieval.windows import Windows

Array = NDArray[np.float64]
NUM_FRAMES = 8
SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Clips:
    """The K labelled clips of a set, in the order of their paths."""

    paths: list[str]
    labels: list[str]
    groups: list[str | None]
    table: Path
    """Features of their windows."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--stride-seconds", type=float, default=2.56, help="Of the windows; 2.56 is without overlap.")
    parser.add_argument("--sets", nargs="*", help="Sets to measure; the others in the output stay.")
    parser.add_argument("--middle", nargs="*", default=[], help="Sets of which only each clip's middle window is read.")
    parser.add_argument("--runtime", default="torch")
    arguments = parser.parse_args()
    every = sets_of(arguments.data, arguments.tables)
    read_sets = {name: every[name] for name in arguments.sets or every}
    with nlv.load(runtime=arguments.runtime) as recognizer:
        for name, clips in read_sets.items():
            extract_features(
                recognizer,
                [middle_of(path, recognizer) for path in clips.paths] if name in arguments.middle else clips.paths,
                output=clips.table,
                resume=True,
                stride_seconds=arguments.stride_seconds,
                on_progress=lambda progress, name=name: print(name, progress.path, flush=True),
            )
    found: dict[str, Any] = {
        "machine": describe_machine(),
        "stride_seconds": arguments.stride_seconds,
        "runtime": arguments.runtime,
        "middle_window_only": arguments.middle,
        "join_share": moments.JOIN_SHARE,
        "sets": {},
    }
    if arguments.sets and arguments.output.is_file():  # the other sets keep their figures
        earlier = json.loads(arguments.output.read_text("utf-8"))
        found["sets"] = earlier["sets"]
        found["middle_window_only"] = sorted({*earlier["middle_window_only"], *arguments.middle})
    for name, clips in read_sets.items():
        found["sets"][name] = measure(clips)
        print(name, json.dumps(found["sets"][name], indent=1), flush=True)
    arguments.output.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def sets_of(data: Path, tables: Path) -> dict[str, Clips]:
    """The sets by name."""
    rows = [
        (str(data / folder / row["path"]), row["label"], row["group"] or None)
        for folder, name in (("actions", "clips.csv"), (".", "windows_and_places.csv"))
        for row in csv.DictReader((data / folder / name).read_text("utf-8").splitlines())
    ]
    rows += [(str(path), path.parent.name.replace("_", " "), None) for path in (data / "clips").glob("*/*.*")]

    def chosen(name: str, *folders: str) -> Clips:
        below = tuple(f"{data / folder}/" for folder in folders)
        some = sorted(row for row in rows if row[0].startswith(below))
        # Groups of two places have the same names and are other people.
        groups = [None if group is None else f"{Path(path).parts[-3]} {group}" for path, _, group in some]
        return Clips([row[0] for row in some], [row[1] for row in some], groups, tables / f"{name}.parquet")

    return {
        "actions": chosen("actions", "actions"),
        "places": chosen("places", "places"),
        "place a": chosen("place_a", "places/a"),
        "place b": chosen("place_b", "places/b"),
        "windows": chosen("windows", "windows", "clips"),
    }


def middle_of(path: str, recognizer: nlv.Recognizer) -> str:
    """The name of a clip's middle window, which is all of a clip that is shorter."""
    with recognizer.new_reader() as reader:
        info = reader.probe(path)
    spec = recognizer.card.input
    spare = info.duration_seconds - info.start_seconds - spec.num_frames / float(spec.rate_in(info.fps))
    if spare <= 0:
        return path
    return with_part(path, round(info.start_seconds + spare / 2, 6), round(info.duration_seconds - spare / 2, 6))


def measure(clips: Clips) -> dict[str, Any]:
    """Figures of every way on a set."""
    table = read_features(clips.table)
    number = {path: position for position, path in enumerate(clips.paths)}
    clip_of = np.array([number[split_part(path)[0]] for path in table.paths])
    ways: dict[str, Callable[[], Array]] = {
        "colours": lambda: frame_wise(clips, colours, centred=False),
        "frames": lambda: frame_wise(clips, small_frame, centred=True),
        "mean of the windows, no roots, no mean": lambda: of_means(table, clip_of, rooted=False, centred=False),
        "mean of the windows, no roots": lambda: of_means(table, clip_of, rooted=False),
        "mean of the windows": lambda: of_means(table, clip_of),
        "no roots, no mean": lambda: chamfer(table, clip_of, rooted=False, centred=False),
        "no roots": lambda: chamfer(table, clip_of, rooted=False),
        "no mean": lambda: chamfer(table, clip_of, centred=False),
        "search": lambda: by_search(clips, refine=False),
        "search, refined": lambda: by_search(clips, refine=True),
    }
    groups = group_numbers(clips.groups)
    found: dict[str, Any] = {"clips": len(clips.paths), "windows": len(table), "groups": len(set(groups.tolist()))}
    per_clip = {name: precisions(way(), clips, groups) for name, way in ways.items()}
    shipped = per_clip["search"]
    asked = np.flatnonzero(~np.isnan(shipped[:, 0]))
    found["examples"] = len(asked)
    numbers = np.unique(groups[asked], return_inverse=True)[1]
    for name, values in per_clip.items():
        found[name] = {
            kind: {
                "mean": round(float(values[asked, column].mean()), 4),
                "interval": interval(values[asked, column], numbers),
                "less_than_search_by": interval(shipped[asked, column] - values[asked, column], numbers),
            }
            for column, kind in enumerate(("average_precision", "same_of_nearest_3"))
        }
    if all(group is not None for group in clips.groups):
        found["joining"] = joining(clips, table, clip_of, groups)
    return found


def interval(values: Array, groups: NDArray[np.int64]) -> list[float] | None:
    """95% interval of the mean, bootstrap over groups."""
    ends = bootstrap({"mean": lambda times: float(np.average(values, weights=times))}, groups, seed=0)["mean"]
    return None if ends is None else [round(end, 4) for end in ends]


def precisions(likeness: Array, clips: Clips, groups: NDArray[np.int64]) -> Array:
    """Average precision, and precision of the first three, of each example (K, 2); NaN where there is nothing to find.

    Args:
        likeness: (K, K), a row an example.
        clips: The set.
        groups: (K,).
    """
    labels = np.array(clips.labels)
    found = np.full((len(labels), 2), np.nan)
    for example, row in enumerate(likeness):
        others = np.flatnonzero(groups != groups[example])
        right = (labels[others] == labels[example])[np.argsort(-row[others], kind="stable")]
        if right.any():
            precision = np.cumsum(right) / np.arange(1, len(right) + 1)
            found[example] = precision[right].mean(), right[:3].mean()
    return found


def by_search(clips: Clips, *, refine: bool) -> Array:
    """`nlv.search` for each clip: that of another one is its best moment's score."""
    likeness = np.full((len(clips.paths), len(clips.paths)), -np.inf)
    number = {path: position for position, path in enumerate(clips.paths)}
    for example, path in enumerate(clips.paths):
        for hit in reversed(nlv.search(clips.table, like=path, top_k=100_000, refine=refine)):
            likeness[example, number[hit.path]] = hit.score
    return likeness


def vectors_of(features: NDArray[np.float32], num_windows: int, *, rooted: bool, centred: bool) -> Array:
    """Unit vectors of features as `likeness` makes them, but for what is left out."""
    rows = np.sqrt(np.maximum(features, 0)).astype(float) if rooted else features.astype(float)
    if centred:
        rows = rows - num_windows / (num_windows + 8) * rows.mean(axis=0)
    return unit(rows)


def unit(rows: Array) -> Array:
    """Rows of length 1."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def of_means(table: FeatureTable, clip_of: NDArray[np.int64], *, rooted: bool = True, centred: bool = True) -> Array:
    """Cosines of the means of the clips' windows."""
    means = np.stack([table.features[clip_of == clip].mean(axis=0) for clip in range(clip_of.max() + 1)])
    vectors = vectors_of(means, len(table), rooted=rooted, centred=centred)
    return vectors @ vectors.T


def chamfer(table: FeatureTable, clip_of: NDArray[np.int64], *, rooted: bool = True, centred: bool = True) -> Array:
    """Chamfer similarities of whole clips."""
    vectors = vectors_of(table.features, len(table), rooted=rooted, centred=centred)
    cosines = vectors @ vectors.T
    clips = [np.flatnonzero(clip_of == clip) for clip in range(clip_of.max() + 1)]
    best = np.array([[cosines[np.ix_(one, other)].max(axis=1).mean() for other in clips] for one in clips])
    return np.asarray((best + best.T) / 2)


def frame_wise(clips: Clips, describe: Callable[[NDArray[np.uint8]], Array], *, centred: bool) -> Array:
    """Cosines of the means over frames of a description of a frame."""
    means = []
    with nlv.VideoReader() as reader:
        for path in clips.paths:
            info = reader.probe(path)
            times = info.start_seconds + (np.arange(NUM_FRAMES) + 0.5) / NUM_FRAMES * (
                info.duration_seconds - info.start_seconds
            )
            try:
                frames = reader.read(path, times.tolist()).frames_thwc
            except VideoError:
                frames = np.zeros((1, 16, 16, 3), np.uint8)
            means.append(np.mean([describe(frame) for frame in frames], axis=0))
    rows = np.stack(means)
    vectors = unit(rows - rows.mean(axis=0)) if centred else unit(np.sqrt(rows))
    return vectors @ vectors.T


def colours(frame: NDArray[np.uint8]) -> Array:
    """Shares of 8 x 8 x 8 colours."""
    bins = (frame // 32).reshape(-1, 3).astype(np.int64) @ [64, 8, 1]
    return np.bincount(bins, minlength=512) / len(bins)


def small_frame(frame: NDArray[np.uint8]) -> Array:
    """The frame in 16 x 16 pixels."""
    return np.asarray(Image.fromarray(frame).resize((16, 16), Image.Resampling.BOX), dtype=float).ravel()


def joining(
    clips: Clips, table: FeatureTable, clip_of: NDArray[np.int64], groups: NDArray[np.int64]
) -> dict[str, dict[str, float]]:
    """Mean overlap of moments with the action that they show, by example and share."""
    random = np.random.default_rng(0)
    order = [clip for group in range(groups.max() + 1) for clip in random.permutation(np.flatnonzero(groups == group))]
    rows = np.concatenate([np.flatnonzero(clip_of == clip) for clip in order])  # the windows, video by video
    owner, video = clip_of[rows], groups[clip_of[rows]]
    starts = np.array([float(np.sum(video[:row] == video[row])) for row in range(len(rows))])
    windows, _ = Windows.ordered([f"{n:06d}" for n in range(video.max() + 1)], video, starts, starts + 1, starts + 0.5)
    features = table.features[rows]
    vectors = Centring.of(features).unit(features)
    labels = np.array(clips.labels)[owner]
    changes = (labels[1:] != labels[:-1]) | (video[1:] != video[:-1])
    action = np.concatenate([[0], np.cumsum(changes)])  # number of the uninterrupted action of each window
    found: dict[str, dict[str, float]] = {}
    shipped = moments.JOIN_SHARE
    for kind in ("clip", "window"):
        overlaps: dict[float, list[float]] = {share: [] for share in SHARES}
        for clip in range(len(clips.paths)):
            own = np.flatnonzero(owner == clip)
            example = vectors[own] if kind == "clip" else vectors[own[len(own) // 2]][None]
            allowed = video != groups[clip]
            scores = score_moments(vectors, windows, allowed, [example])
            for share in SHARES:
                moments.JOIN_SHARE = share
                for moment in moments.best_moments(scores, windows, allowed, 3):
                    if labels[moment.best] == clips.labels[clip]:
                        right = action == action[moment.best]
                        given = (np.arange(len(rows)) >= moment.first) & (np.arange(len(rows)) <= moment.last)
                        overlaps[share].append(float((right & given).sum() / (right | given).sum()))
        found[kind] = {str(share): round(float(np.mean(values)), 4) for share, values in overlaps.items()}
    moments.JOIN_SHARE = shipped
    return found


if __name__ == "__main__":
    main()
