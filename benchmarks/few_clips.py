"""Does a trained non-local block help a head that is taught by a few clips? Own actions on the frozen default trunk.

    python benchmarks/few_clips.py --actions CLIPS.csv --places FOLDER --features DIR --write-docs

The trunk sees each clip once (`few_clips_data.py`); what is trained stands behind its last layer
(`few_clips_heads.py`). `logistic-regression` and `ridge` are `teach`'s own fits to the pooled features, for which
nothing is chosen. The trained heads see the directions that the pooled examples span, and those in which positions
vary most besides. Learning rate and steps of each are chosen on the other data set, by as many examples a class. Nobody
who is asked is among the examples. Intervals are from drawing people, or pairs of people. Results that the output file
has already are kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

sys.path.append(str(Path(__file__).parent))

from faithfulness import estimate
from few_clips_data import Clips, read_actions, read_places
from few_clips_heads import Kind, pooled, prepared, train
from teach import former_head

from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.models.taught import damped
from nonlocal_video.teaching.heads import HeadName, TrainingRows, fit_head

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "few_clips.json"
DOCS = ROOT / "docs" / "default_block.md"
FITTED: tuple[HeadName, ...] = ("logistic-regression", "ridge")
COUNTS = (1, 3, 5)
"""Examples of each class."""
Way = tuple[float, int]
"""Learning rate and number of steps."""


@dataclass(frozen=True)
class Outcome:
    """Each answer: whether it is right (0 or 1), its cross-entropy, and its clip's group."""

    right: NDArray[np.float64]
    loss: NDArray[np.float64]
    group: NDArray[np.int64]


@dataclass(frozen=True)
class Settings:
    """Settings that all heads share, and lists that each one's own are chosen from."""

    directions: int = 48
    learning_rates: tuple[float, ...] = (1e-3, 1e-2)
    """Learning rates of the block before the classifier."""
    steps: tuple[int, ...] = (10, 30)
    lessons_to_choose: int = 4
    lessons: int = 6


@dataclass(frozen=True)
class Lesson:
    """Indices of the clips that are taught, and of those that are asked."""

    taught: NDArray[np.int64]
    asked: NDArray[np.int64]


def people_lesson(clips: Clips, count: int, number: int) -> Lesson:
    """People are drawn until there are enough examples of each class; all the others are asked."""
    random = np.random.default_rng([number, count])
    order = random.permutation(np.unique(clips.groups)).tolist()
    for known in range(1, len(order)):
        drawn = np.isin(clips.groups, order[:known])
        if np.bincount(clips.labels[drawn], minlength=len(clips.names)).min() >= count:
            return Lesson(_some_of_each(clips, drawn, count, random), np.flatnonzero(~drawn))
    raise ValueError(f"{count = }: {len(order)} people have too few clips of a class, or nobody is left to ask.")


def places_lesson(clips: Clips, count: int, number: int) -> Lesson:
    """Taught in the first place and asked in the second, or, where the number is odd, the other way round."""
    random = np.random.default_rng([number, count])
    first, second = sorted(set(clips.places.tolist()), reverse=number % 2 == 1)
    taught = _some_of_each(clips, clips.places == first, count, random)
    return Lesson(taught, np.flatnonzero(clips.places == second))


def _some_of_each(clips: Clips, among: NDArray[np.bool_], count: int, random: np.random.Generator) -> NDArray[np.int64]:
    classes = range(len(clips.names))
    return np.concatenate([random.permutation(np.flatnonzero(among & (clips.labels == k)))[:count] for k in classes])


LESSONS = {"actions": people_lesson, "places": places_lesson}


def fitted(clips: Clips, lesson: Lesson, former: NDArray[np.float64]) -> dict[str, Outcome]:
    """Train a head on the pooled features, as `teach` does."""
    features = pooled(clips.maps).double().numpy()
    undamped = features - (features @ former.T) @ former
    length = np.linalg.norm(undamped[lesson.taught], axis=1).mean()
    labels = clips.labels[lesson.taught]
    rows = TrainingRows(damped(features[lesson.taught], former), labels, np.ones(len(labels)), len(clips.names))
    logits = {name: fit_head(name, rows)(undamped[lesson.asked] / length) for name in FITTED}
    return {name: outcome(clips, lesson, torch.from_numpy(found).log_softmax(1)) for name, found in logits.items()}


def trained(
    clips: Clips,
    lesson: Lesson,
    former: NDArray[np.float64],
    ways: Mapping[Kind, Sequence[Way]],
    seed: int,
    directions: int,
) -> dict[tuple[Kind, Way], Outcome]:
    """Train every head in some ways."""
    maps, damping = clips.maps, torch.from_numpy(former).float()
    seen, asked = prepared(maps[lesson.taught], maps[lesson.asked], damping, directions)
    labels = torch.from_numpy(clips.labels[lesson.taught])
    found = {}
    for kind, of_kind in ways.items():
        for rate in sorted({rate for rate, _ in of_kind}):
            steps = sorted(steps for of, steps in of_kind if of == rate)
            answers = train(kind, seen, labels, asked, rate=rate, steps=steps, seed=seed)
            for number, answer in zip(steps, answers, strict=True):
                found[kind, (rate, number)] = outcome(clips, lesson, answer)
    return found


def outcome(clips: Clips, lesson: Lesson, log_probabilities: Tensor) -> Outcome:
    truth = torch.from_numpy(clips.labels[lesson.asked])
    return Outcome(
        (log_probabilities.argmax(1) == truth).double().numpy(),
        F.nll_loss(log_probabilities, truth, reduction="none").double().numpy(),
        clips.groups[lesson.asked],
    )


def choose(data: str, clips: Clips, count: int, settings: Settings) -> dict[Kind, Way]:
    """The rate and the steps with which each head does best on a data set."""
    former = former_head()
    ways = [(rate, steps) for rate in settings.learning_rates for steps in settings.steps]
    tried: dict[tuple[Kind, Way], list[Outcome]] = defaultdict(list)
    for number in range(settings.lessons_to_choose):
        lesson = LESSONS[data](clips, count, number)
        everything = dict.fromkeys(get_args(Kind), ways)
        for key, one in trained(clips, lesson, former, everything, number, settings.directions).items():
            tried[key].append(one)
    return {kind: min(ways, key=lambda way: badness(tried[kind, way])) for kind in get_args(Kind)}


def measure(data: str, clips: Mapping[str, Clips], count: int, settings: Settings) -> dict[str, Any]:
    """Choose on the other data set, and ask about this one; and train each block as much as possible, too."""
    (other,) = (name for name in LESSONS if name != data)
    chosen, former = choose(other, clips[other], count, settings), former_head()
    most = (max(settings.learning_rates), max(settings.steps))
    asked: dict[str, list[Outcome]] = defaultdict(list)
    for number in range(settings.lessons):
        lesson = LESSONS[data](clips[data], count, 1000 + number)
        ways = {kind: sorted({way, most}) for kind, way in chosen.items()}
        heads = trained(clips[data], lesson, former, ways, number, settings.directions)
        for name, one in fitted(clips[data], lesson, former).items():
            asked[name].append(one)
        for kind, way in chosen.items():
            asked[kind].append(heads[kind, way])
            if kind != "linear":
                asked[kind + MOST].append(heads[kind, most])
    outcomes = {name: joined(of_name) for name, of_name in asked.items()}
    return {
        "data": data,
        "examples": count,
        "chosen": {kind: list(way) for kind, way in chosen.items()},
        "groups": " ".join(map(str, outcomes["linear"].group)),
        "right": {name: "".join(map(str, one.right.astype(int))) for name, one in outcomes.items()},
    }


def joined(outcomes: Sequence[Outcome]) -> Outcome:
    return Outcome(*(np.concatenate([getattr(one, name) for one in outcomes]) for name in ("right", "loss", "group")))


def badness(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Right answers count first, cross-entropy breaks ties."""
    found = joined(outcomes)
    return -float(found.right.mean()), float(found.loss.mean())


MOST = ", most trained"
TITLES = {
    "logistic-regression": "logistic regression on pooled features (`teach`)",
    "ridge": "ridge on pooled features (`teach`)",
    "linear": "linear",
    "itself": "block that sees only itself",
    "residual": "residual 1x1x1 with ReLU, as many weights",
    "shuffled": "embedded Gaussian, shuffled",
    "embedded_gaussian": "**embedded Gaussian**",
    "dot_product": "**dot product**",
}
BLOCKS = ("embedded_gaussian", "dot_product")
CONTROLS = ("linear", "itself", "residual", "shuffled", "logistic-regression")


def summary(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracies and their differences by data set and number of examples, with intervals from drawing groups."""
    found: dict[str, Any] = {data: {} for data in LESSONS}
    for one in sorted(measured, key=lambda one: int(one["examples"])):
        groups = np.unique(one["groups"].split(), return_inverse=True)[1]
        right = {name: np.array([*map(float, answers)]) for name, answers in one["right"].items()}
        found[one["data"]][str(one["examples"])] = {
            "answers": len(groups),
            "accuracy": {name: estimate(values, groups) for name, values in right.items()},
            "difference": {
                f"{block} - {control}": estimate(right[block] - right[control], groups)
                for block in BLOCKS
                for control in CONTROLS
            },
        }
    return found


def markdown(results: Mapping[str, Any]) -> str:
    """A table of each data set."""
    words = {
        "actions": "six poses, asked about other people",
        "places": "three interactions, asked about another place",
    }
    blocks = []
    for data, by_count in results["summary"].items():
        lines = [
            f"| {words[data]} | {' | '.join(f'{count} a class' for count in by_count)} |",
            f"| --- |{' ---: |' * len(by_count)}",
        ]
        rows = [(title, "accuracy", name) for name, title in TITLES.items()]
        rows += [
            (f"{title}, most training", "accuracy", name + MOST)
            for name, title in TITLES.items()
            if all(name + MOST in of_count["accuracy"] for of_count in by_count.values())
        ]
        rows += [
            (f"{TITLES[block]} − {TITLES[control]}", "difference", f"{block} - {control}")
            for block in BLOCKS
            for control in CONTROLS
        ]
        for title, kind, name in rows:
            cells = [_cell(of_count[kind][name], "+" if kind == "difference" else "") for of_count in by_count.values()]
            lines.append(f"| {title} | {' | '.join(cells)} |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _cell(found: Mapping[str, Any], sign: str) -> str:
    low, high = (100 * end for end in found["interval"])
    return f"{100 * found['mean']:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"


def page_with_tables(text: str, results: Mapping[str, Any]) -> str:
    """The page's text with what stands between its markers as the results say."""
    before, rest = text.split("<!-- few_clips -->\n")
    after = rest.split("<!-- /few_clips -->")[1]
    return f"{before}<!-- few_clips -->\n{markdown(results)}\n<!-- /few_clips -->{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actions", type=Path, required=True, help="CSV path,label,group")
    parser.add_argument("--places", type=Path, required=True, help="PLACE/CLASS/GROUP_*.mp4")
    parser.add_argument(
        "--features", type=Path, required=True, help="folder of feature maps; what it lacks is computed"
    )
    parser.add_argument("--lessons", type=int, default=Settings.lessons)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="examples of each class")
    parser.add_argument("--workers", type=int, default=1, help="processes, each with one thread")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--write-docs", action="store_true", help="put the tables into the docs")
    arguments = parser.parse_args()
    settings = Settings(lessons=arguments.lessons)
    clips = {
        "actions": read_actions(arguments.actions, arguments.features),
        "places": read_places(arguments.places, arguments.features),
    }
    found: dict[str, Any] = {"settings": json.loads(json.dumps(asdict(settings))), "measured": []}
    if arguments.output.is_file():
        kept = json.loads(arguments.output.read_text("utf-8"))
        if kept["settings"] != found["settings"]:
            sys.exit(f"{arguments.output} was made with other settings; give another --output.")
        found["measured"] = kept["measured"]
    found |= {"machine": describe_machine(), "clips": {data: len(one.labels) for data, one in clips.items()}}
    done = [(one["data"], one["examples"]) for one in found["measured"]]
    todo = [(data, count) for count in arguments.counts for data in LESSONS if (data, count) not in done]
    with ProcessPoolExecutor(
        arguments.workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        futures = [pool.submit(measure, data, clips, count, settings) for data, count in todo]
        for future in as_completed(futures):
            found["measured"].append(future.result())
            print({key: found["measured"][-1][key] for key in ("data", "examples", "chosen")}, flush=True)
            arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    found["summary"] = summary(found["measured"])
    arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(markdown(found))
    if arguments.write_docs:
        DOCS.write_text(page_with_tables(DOCS.read_text("utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
