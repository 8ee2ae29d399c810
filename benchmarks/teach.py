"""Measure how well `teach` works: episodes of a few examples a class, on people and in places of no example.

    python benchmarks/teach.py --actions CLIPS.csv --places FOLDER --cache DIR --output benchmarks/results/teach.json

Features of every clip's views are computed once, by the functions that `teach` uses, and kept in DIR; a second run with
the same DIR costs no pass of the network. What is measured:

- actions: CLIPS.csv is a list `path,label,group`. An episode takes people at random until every class has k of their
  clips, teaches k of each class, and asks about all clips of all other people.
- unknown: the same with two classes left out, in turn for every pair of them; clips of these two, of people that no
  example shows, are asked as well, and should be unknown. `far` asks about the clips of the other data set instead.
- places: FOLDER/<place>/<class>/*. The first five clips a class of one place are taught, and all of another one asked:
  each clip alone, and as a folder. Episodes of k examples likewise. One class left out is asked, too.
- lopsided: of the asked folder one class keeps all its clips and the others two each.
- windows, with several views a clip: the views of the asked clips as the windows of one camera's video, each alone,
  refined by the others as `timeline` does, and with the mean of the video subtracted as well; of all clips of a place,
  and of those of one class.

Intervals are 95% of the mean over episodes (1.96 standard errors); episodes share clips, so they are of these data sets
and say nothing of others.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.features.extract import extract_features
from nonlocal_video.features.store import FeatureFile
from nonlocal_video.features.table import read_features
from nonlocal_video.inference.context import refined
from nonlocal_video.inference.load import load
from nonlocal_video.models.taught import mean_share
from nonlocal_video.teaching.examples import Example
from nonlocal_video.teaching.fitting import Lesson, TaughtExamples, damping_of_head, teach_features
from nonlocal_video.teaching.heads import HEADS, LinearHead, fit_head
from nonlocal_video.teaching.lessons import head_weights
from nonlocal_video.teaching.prior import background_features
from nonlocal_video.teaching.views import find_views

SHOTS = (1, 3, 5)
Array = NDArray[np.float64]


class Clips:
    """The views of some clips, with labels and groups."""

    def __init__(self, features: list[Array], labels: Sequence[str], groups: Sequence[str], former: Array) -> None:
        self.names = sorted(set(labels))
        self.labels = np.array([self.names.index(label) for label in labels])
        self.groups = np.unique(groups, return_inverse=True)[1]
        self.features = features
        self.former = former

    def means(self, chosen: NDArray[np.int64]) -> Array:
        """Return what `classify` has of clips: the mean features of their views."""
        return np.stack([self.features[index].mean(axis=0) for index in chosen.tolist()])

    def examples(self, chosen: NDArray[np.int64], classes: Sequence[int]) -> TaughtExamples:
        index_of = {label: index for index, label in enumerate(classes)}
        return TaughtExamples(
            np.concatenate([self.features[index] for index in chosen.tolist()]),
            np.concatenate([np.full(len(self.features[index]), row) for row, index in enumerate(chosen.tolist())]),
            [(index_of[self.labels[index]],) for index in chosen.tolist()],
            self.groups[chosen],
            len(classes),
        )


class Taught:
    """A model taught by some clips, which answers as a run's network does."""

    def __init__(self, clips: Clips, chosen: NDArray[np.int64], classes: Sequence[int]) -> None:
        self.former = clips.former
        examples = clips.examples(chosen, classes)
        self.lesson: Lesson = teach_features(examples, former_head=self.former, background=background())
        self.examples = examples
        rows = examples.for_heads(self.lesson.scales, self.former).rows(examples.known)
        self.heads = {name: fit_head(name, rows) for name in HEADS}

    def logits(self, features: Array, head: LinearHead | None = None) -> Array:
        weight, bias = head_weights(head or self.lesson.linear, self.examples.features, self.former, self.lesson.scales)
        return np.asarray(features @ weight.T + bias)

    def in_folder(self, features: Array, *, refine: bool = True) -> Array:
        """Return the scores of `classify --context folder`."""
        logits = self.logits(features)
        mean = logits.mean(axis=0)
        moved = logits - mean_share(len(logits)) * (mean - mean.mean())
        if not refine:
            return np.asarray(moved)
        return refined(moved.astype(np.float32), features.astype(np.float32)).astype(np.float64)


def features_of(paths: Sequence[str], cache: Path, name: str, arguments: argparse.Namespace) -> list[Array]:
    """The views' features of each clip, those that the cache has from there."""
    cache.mkdir(parents=True, exist_ok=True)
    output = cache / f"{name}-{arguments.views}{'-fast' if arguments.fast else ''}.parquet"
    with load("default", runtime=arguments.runtime) as recognizer:
        found = list(
            find_views(recognizer, [Example(path, ()) for path in paths], arguments.views, fast=arguments.fast)
        )
        parts = [part for one in found for part in one.parts]
        resume = any(path.exists() for path in FeatureFile.files_of(output))
        extract_features(
            recognizer, parts, output=output, resume=resume, fast=arguments.fast,
            on_progress=lambda progress: print(name, progress.counts, len(parts), end="\r", flush=True),
        )  # fmt: skip
    table = read_features(output)
    rows = {path: row for row, path in enumerate(table.paths)}
    return [table.features[[rows[part] for part in one.parts]].astype(np.float64) for one in found]


def background() -> Array:
    return background_features()


def former_head() -> Array:
    from nonlocal_video.zoo.catalogue import load_network

    network: Any = load_network("default")[0]
    return damping_of_head(network.logits.weight.detach().flatten(1).double().numpy())


def episode(
    clips: Clips, count: int, random: np.random.Generator, classes: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the examples, `count` a class, and all clips of people that were not drawn for them."""
    people: list[int] = []
    for person in random.permutation(np.unique(clips.groups)).tolist():
        people.append(person)
        drawn = np.isin(clips.groups, people)
        if all((drawn & (clips.labels == label)).sum() >= count for label in classes):
            break
    chosen = [random.permutation(np.flatnonzero(drawn & (clips.labels == label)))[:count] for label in classes]
    return np.concatenate(chosen), np.flatnonzero(~drawn)


def measure_actions(clips: Clips, episodes: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    classes = range(len(clips.names))
    for count in SHOTS:
        values: dict[str, list[float]] = {}
        heads: dict[str, int] = {}
        for number in range(episodes):
            chosen, asked = episode(clips, count, np.random.default_rng(number), classes)
            taught, features, truth = Taught(clips, chosen, classes), clips.means(asked), clips.labels[asked]
            add(values, "accuracy", np.mean(taught.logits(features).argmax(1) == truth))
            add(values, "folder", np.mean(taught.in_folder(features).argmax(1) == truth))
            for name, head in taught.heads.items():
                add(values, name, np.mean(taught.logits(features, head).argmax(1) == truth))
            measured = taught.lesson.accuracies[taught.lesson.head]
            if measured is not None:
                add(values, "said by the report", measured)
            scores = np.exp(taught.logits(features) - taught.logits(features).max(axis=1, keepdims=True))
            add(values, "mean confidence", np.mean(scores.max(axis=1) / scores.sum(axis=1)))
            heads[taught.lesson.head] = heads.get(taught.lesson.head, 0) + 1
        found[str(count)] = summary(values) | {"heads chosen": heads}
    return found


def measure_unknown(clips: Clips, far: Clips, repeats: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for count in SHOTS:
        values: dict[str, list[float]] = {}
        for number in range(repeats):
            for left_out in combinations(range(len(clips.names)), 2):
                classes = [label for label in range(len(clips.names)) if label not in left_out]
                chosen, asked = episode(clips, count, np.random.default_rng([number, *left_out]), classes)
                add_unknown(
                    values,
                    Taught(clips, chosen, classes),
                    clips.means(asked[np.isin(clips.labels[asked], classes)]),
                    clips.means(asked[np.isin(clips.labels[asked], left_out)]),
                    far.means(np.arange(len(far.labels))),
                )
        found[str(count)] = summary(values)
    return found


def add_unknown(values: dict[str, list[float]], taught: Taught, known: Array, near: Array, far: Array) -> None:
    judge = taught.lesson.classes.likeness
    own = judge(known)
    add(values, "known accepted", np.mean(~own.unknown))
    for name, others in (("near", near), ("far", far)):
        theirs = judge(others)
        add(values, f"{name} AUROC", auroc(own.value, theirs.value))
        add(values, f"{name} found", np.mean(theirs.unknown))
    both = judge(np.concatenate([known, near]), folder=True)
    add(values, "near AUROC in the folder", auroc(both.value[: len(known)], both.value[len(known) :]))
    softmax = taught.logits(np.concatenate([known, near]))
    powers = np.exp(softmax - softmax.max(axis=1, keepdims=True))
    sure = powers.max(axis=1) / powers.sum(axis=1)
    add(values, "near AUROC of the softmax", auroc(sure[: len(known)], sure[len(known) :]))


def measure_places(clips: Clips, places: NDArray[np.str_], episodes: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    classes = range(len(clips.names))
    for place, other in permutations(sorted(set(places.tolist())), 2):
        asked = np.flatnonzero(places == other)
        result: dict[str, Any] = {}
        first = np.concatenate([np.flatnonzero((places == place) & (clips.labels == label))[:5] for label in classes])
        result["first five clips"] = {name: values[0] for name, values in answered(clips, [first], asked).items()}
        for count in SHOTS:
            drawn = [draw(clips, places == place, count, np.random.default_rng(number)) for number in range(episodes)]
            result[str(count)] = summary(answered(clips, drawn, asked))
        found[f"taught in {place}, asked in {other}"] = result
    return found


def measure_windows(clips: Clips, places: NDArray[np.str_], episodes: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    classes = range(len(clips.names))
    for count in SHOTS:
        values: dict[str, list[float]] = {}
        for place, other in permutations(sorted(set(places.tolist())), 2):
            for number in range(episodes):
                taught = Taught(clips, draw(clips, places == place, count, np.random.default_rng(number)), classes)
                one = number % len(classes)
                for video, shown in (
                    ("all clips", places == other),
                    ("one class", (places == other) & (clips.labels == one)),
                ):
                    asked = np.flatnonzero(shown).tolist()
                    features = np.concatenate([clips.features[index] for index in asked])
                    truth = np.repeat(clips.labels[asked], [len(clips.features[index]) for index in asked])
                    logits = taught.logits(features)
                    own = refined(logits.astype(np.float32), features.astype(np.float32))
                    ways = (("alone", logits), ("refined", own), ("less the mean, refined", taught.in_folder(features)))
                    for name, scores in ways:
                        add(values, f"{video}, {name}", np.mean(scores.argmax(1) == truth))
        found[str(count)] = summary(values)
    return found


def draw(clips: Clips, where: NDArray[np.bool_], count: int, random: np.random.Generator) -> NDArray[np.int64]:
    people = random.permutation(np.unique(clips.groups[where]))[:count]
    return np.flatnonzero(where & np.isin(clips.groups, people))


def answered(clips: Clips, lessons: Sequence[NDArray[np.int64]], asked: NDArray[np.int64]) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    classes = range(len(clips.names))
    for chosen in lessons:
        taught, features, truth = Taught(clips, chosen, classes), clips.means(asked), clips.labels[asked]
        logits = taught.logits(features)
        ways: dict[str, Array] = {
            "alone": logits,
            "refined by the folder, no mean subtracted": refined(
                logits.astype(np.float32), features.astype(np.float32)
            ).astype(np.float64),
            "mean of the folder subtracted": taught.in_folder(features, refine=False),
            "both": taught.in_folder(features),
        }
        for name, scores in ways.items():
            add(values, name, np.mean(scores.argmax(1) == truth))
        few = lopsided(clips, asked)
        for name, scores in (
            ("alone", taught.logits(clips.means(few))),
            ("both", taught.in_folder(clips.means(few))),
        ):
            add(values, f"lopsided folder, {name}", np.mean(scores.argmax(1) == clips.labels[few]))
    return values


def lopsided(clips: Clips, asked: NDArray[np.int64]) -> NDArray[np.int64]:
    """All clips of the first class, and two of each other."""
    return np.concatenate(
        [asked[clips.labels[asked] == label][: None if label == 0 else 2] for label in range(len(clips.names))]
    )


def auroc(known: Array, unknown: Array) -> float:
    return float(roc_auc_score(np.r_[np.ones(len(known)), np.zeros(len(unknown))], np.r_[known, unknown]))


def add(values: dict[str, list[float]], name: str, value: Any) -> None:
    values.setdefault(name, []).append(float(value))


def summary(values: dict[str, list[float]]) -> dict[str, Any]:
    return {
        name: {
            "mean": round(float(np.mean(of)), 4),
            "interval": [
                round(float(np.mean(of) + sign * 1.96 * np.std(of, ddof=1) / np.sqrt(len(of))), 4) for sign in (-1, 1)
            ]
            if len(of) > 1
            else None,
        }
        for name, of in values.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actions", type=Path, required=True)
    parser.add_argument("--places", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--views", type=int, default=1)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--runtime", choices=("torch", "openvino"), default="torch")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--features-only", action="store_true", help="Fill the cache and end.")
    arguments = parser.parse_args()
    former = former_head()
    with open(arguments.actions, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    paths = [str(arguments.actions.parent / row["path"]) for row in rows]
    of_places = sorted(arguments.places.glob("*/*/*.mp4"))
    actions = Clips(
        features_of(paths, arguments.cache, "actions", arguments),
        [row["label"] for row in rows],
        [row["group"] for row in rows],
        former,
    )
    places = Clips(
        features_of([str(path) for path in of_places], arguments.cache, "places", arguments),
        [path.parent.name for path in of_places],
        [path.name.partition("_")[0] for path in of_places],
        former,
    )
    if arguments.features_only:
        return
    place_of = np.array([path.parent.parent.name for path in of_places])
    steps: Iterator[tuple[str, Callable[[], dict[str, Any]]]] = iter(
        [
            ("actions", lambda: measure_actions(actions, arguments.episodes)),
            ("unknown", lambda: measure_unknown(actions, places, max(1, arguments.episodes // 15))),
            ("places", lambda: measure_places(places, place_of, max(2, arguments.episodes // 5))),
            *(
                [("windows", lambda: measure_windows(places, place_of, max(3, arguments.episodes // 7)))]
                if arguments.views > 1
                else []
            ),
        ]
    )
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "views": f"{arguments.views}x1",
        "fast": arguments.fast,
        "episodes": arguments.episodes,
        "clips": {"actions": len(actions.labels), "places": len(places.labels)},
    }
    for name, step in steps:
        result[name] = step()
        print(name, json.dumps(result[name], indent=1), flush=True)
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
