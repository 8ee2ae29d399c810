"""Writes the measured tables of docs/train_results.md and docs/default_block.md from benchmarks/results.

python docs/make_train_tables.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
RECIPE = ROOT / "weights" / "recipes" / "kinetics400_from_default.yaml"
KINETICS_CLIPS = 246_000
"""To train on, about: Wang et al., CVPR 2018, section 5."""
PAGES = {
    ROOT / "docs" / "train_results.md": (
        "actions",
        "new_networks",
        "new_networks_compared",
        "training_speed",
        "loading_speed",
        "inference_speed",
        "distillation_bound",
        "recipe_trial",
        "recipe_curve",
    ),
    ROOT / "docs" / "default_block.md": ("block_settings", "block_student", "block_counts", "block_full"),
}


def page_with_tables(page: Path) -> str:
    """The page's text with what stands between its markers as the results say."""
    text = page.read_text("utf-8")
    for marker in PAGES[page]:
        before, begin, rest = text.partition(f"<!-- {marker} -->\n")
        _, end, after = rest.partition(f"<!-- /{marker} -->")
        text = f"{before}{begin}{TABLES[marker]()}\n{end}{after}"
    return text


WAYS = {
    "head": "a new head",
    "top": "Mixed_5b, Mixed_5c and a new head",
    "scratch slim18": "a new network, on the labels",
    "distilled slim18": "the same, first on the default's answers, then on the labels",
    "distilled_blocks slim18": "the same with two spacetime blocks, from the start",
    "distilled_progressive slim18": "the same with two spacetime blocks that join progressively",
}


def actions() -> str:
    """Ways to train the default on few clips, validated on people outside the training set."""
    names = ("head", "top")
    results = _results("actions")
    wrong = {way: _wrong(results["runs"], way) for way in names}
    mistakes = "; ".join(f"`{way}`: {', '.join(clips) or 'none'}" for way, clips in wrong.items())
    return f"{_ways(names)}\n\nMistakes: {mistakes}."


def new_networks() -> str:
    """Return the table for networks that begin with random numbers."""
    names = tuple(name for name in _results("actions")["figures"] if name.endswith("slim18"))
    (machine,) = {json.dumps(run["machine"]) for run in _results("actions")["runs"] if run["student"] in names[0]
                  and run["way"] not in ("head", "top")}  # fmt: skip
    return f"{_ways(names)}\n\n{_processor(json.loads(machine))}, float32."


def new_networks_compared() -> str:
    """Pairs of ways on the same clips."""
    rows = [["difference of top-1, in points", "mean (95% interval)"]]
    for pair, found in _results("actions")["differences"].items():
        one, other = (name.removesuffix(" slim18") for name in pair.split(" - "))
        low, high = (100 * end for end in found["interval"])
        rows.append([f"`{one}` - `{other}`", f"{100 * found['top1']:+.1f} ({low:+.1f} to {high:+.1f})"])
    return _table(*rows)


def _ways(names: tuple[str, ...]) -> str:
    results = _results("actions")
    rows = [["way", "what learns", "right at first (95% interval)", "mean class", "right", "seconds a fold"]]
    for name in names:
        figures = results["figures"][name]
        way = name.removesuffix(" slim18")
        seconds = [run["seconds"] for run in results["runs"] if run["way"] == way]
        low, high = (100 * end for end in figures["top1_interval"])
        right = round(figures["clips"] * figures["top1"])
        rows.append(
            [
                f"`{way}`", WAYS[name], f"{figures['top1']:.1%} ({low:.1f} to {high:.1f})",
                f"{figures['mean_class']:.1%}", f"{right} of {figures['clips']}",
                f"{min(seconds):.0f} to {max(seconds):.0f}",
            ]
        )  # fmt: skip
    return _table(*rows)


def training_speed() -> str:
    """Clips per second of a training step, and the ratios of the best case to the others."""
    results = _results("train_speed")
    rows = [["clips of", "blocks after stages", "batch", "kernel", "memory layout", "precision", "clips/s", "peak GiB"]]
    sentences = []
    for frames, size in dict.fromkeys((row["frames"], row["size"]) for row in results["training"]):
        cases = [row for row in results["training"] if (row["frames"], row["size"]) == (frames, size)]
        for row in cases:
            rows.append(
                [
                    f"{frames} x {size} x {size}", ", ".join(map(str, row["stages"])), str(row["batch"]), row["kernel"],
                    row["layout"], row["precision"], f"{row['clips_per_second']:.1f}", f"{row['peak_gib']:.2f}",
                ]
            )  # fmt: skip
        plain, layout, best, naive = cases
        sentences.append(
            f"Clips/s at {frames} x {size} x {size}: bfloat16 against float32 x{_ratio(layout, plain):.2f}; "
            f"channels_last_3d against contiguous x{_ratio(best, layout):.2f}; the fused kernel against the naive one "
            f"x{_ratio(best, naive):.2f}, with x{best['peak_gib'] / naive['peak_gib']:.2f} of its memory."
        )
    return f"{_table(*rows)}\n\n{_machine(results)} {' '.join(sentences)}"


def loading_speed() -> str:
    """Clips per second of loading, and of training a small network, on a processor."""
    results = _results("train_loading")
    rows = [["one loading process", "clips/s", "share of decoding and cache"]]
    for name, words in (("decoded", "first epoch: every clip decoded"), ("cached", "second epoch: from the cache")):
        row = results["loading"][name]
        rows.append([words, f"{row['clips_per_second']:.1f}", f"{row['decode_share']:.0%}"])
    machine = results["machine"]
    return (
        f"{_table(*rows)}\n\n{results['clips']} clips, {machine['cores']} cores of {machine['processor']}. An "
        f"18-layer network of a quarter of the width trains there on "
        f"{results['training']['train_clips_per_second']:.1f} clips/s, "
        f"loading included."
    )


def inference_speed() -> str:
    """Views per second of the default by batch size, beside the decoding of another machine."""
    results, pipeline = _results("train_speed"), _results("pipeline")
    batches = sorted({row["batch"] for row in results["inference"]})
    rows = [["the default's view", *(f"batch {batch}" for batch in batches)]]
    for frames, size, precision in dict.fromkeys(
        (row["frames"], row["size"], row["precision"]) for row in results["inference"]
    ):
        rates = [
            row["views_per_second"]
            for row in results["inference"]
            if (row["frames"], row["precision"]) == (frames, precision)
        ]
        rows.append([f"{frames} x {size} x {size}, {precision}", *(f"{rate:.1f}" for rate in rates)])
    decoding, alone = pipeline["files_per_second"]["decode_only"], results["inference"][0]
    enough = alone["views_per_second"] / decoding
    return (
        f"{_table(*rows)}\n\nViews per second, {results['device']}. One decoding process reads {decoding:.1f} clips "
        f"per second (`benchmark pipeline`, another machine: {pipeline['machine']['cores']} cores of "
        f"{pipeline['machine']['processor']}); {enough:.0f} of them would keep the network busy with one view at a "
        f"time."
    )


def distillation_bound() -> str:
    """Derive the recipe with the default as teacher from both rates; nothing of it was measured."""
    results = _results("train_speed")
    student = max(row["clips_per_second"] for row in results["training"] if row["frames"] == 16)
    teacher = max(
        row["views_per_second"] for row in results["inference"] if (row["frames"], row["precision"]) == (64, "float32")
    )
    epochs = yaml.safe_load(RECIPE.read_text("utf-8"))["epochs"]
    both = 1 / (1 / teacher + 1 / student)
    hours = KINETICS_CLIPS * epochs / both / 3600
    return (
        f"On that GPU the teacher answers {teacher:.0f} views/s (float32), and the student trains on {student:.0f} "
        f"clips/s (bfloat16): one after the other at most {both:.0f} clips/s. {epochs} epochs of {KINETICS_CLIPS:,} "
        f"clips, as many as Kinetics-400 has to train on, take at least {hours:.0f} hours so. This follows from the "
        f"tables and was not measured; decoding may well be slower."
    )


def recipe_trial() -> str:
    """Describe the trial of the recipe."""
    found = _results("recipe_trial")
    changed = ", ".join(f"`{name}: {_plain(value)}`" for name, value in found["changed"].items())
    return (
        f"{found['clips']} clips and {found['pictures']} pictures for training, {found['held_out']} other clips for "
        f"validation; {found['minutes']:.0f} minutes on {_processor(found['machine'])}, shared with another training, "
        f"of which the teacher took the first {found['minutes_until_the_teacher_had_answered']:.0f}; "
        f"{found['steps']:,} steps. Changed against the recipe: {changed}."
    )


def recipe_curve() -> str:
    """Its learning curve."""
    found = _results("recipe_trial")
    epochs = found["epochs"]
    shown = [row for row in epochs if row["epoch"] in (1, 2, 3) or row["epoch"] % 5 == 0 or row is epochs[-1]]
    rows = [["epoch", "minutes", "KL in training", "KL on held-out clips", "features, held-out", "embedding, held-out"]]
    rows += [
        [f"{row['epoch']:.0f}", f"{row['minutes']:.0f}", f"{row['train/kl']:.2f}"]
        + [f"{row[f'validation/{name}']:.2f}" for name in ("kl", "features", "embedding")]
        for row in shown
    ]
    return f"{_table(*rows)}\n\nThe one best answer to all held-out clips has a KL of {found['kl_of_one_answer']:.2f}."


def block_settings() -> str:
    """Describe the validation set and the machine."""
    results = _results("default_block")
    settings, machine = results["settings"], results["machine"]
    files, stills = settings["files"], settings["files"]["unlabelled"] - settings["clips"]
    return (
        f"{settings['clips']} clips of {settings['scenes of clips']} scenes and {stills} stills without labels, "
        f"{files['clips']} clips of {files['clips']} Kinetics classes and {files['actions']} clips of yoga with their "
        f"class; {settings['folds']} folds by scene; {len(results['configurations'])} configurations of one block. "
        f"{machine['gpu']}, {machine['cores']} cores, torch {machine['torch']}."
    )


def block_student() -> str:
    """Divergence from the target on the student's views, held-out clips."""
    variants = ["none", "temperature", "block", "self", "mean"]
    rows = [["configuration", *variants, "block - self", "block - mean"]]
    for entry in _results("default_block")["configurations"]:
        kl = {name: entry["test"][name]["kl, student"] for name in variants}
        best = min(kl, key=lambda name: kl[name])
        figures = [f"**{value:.3f}**" if name == best else f"{value:.3f}" for name, value in kl.items()]
        rows.append([entry["name"], *figures, *(_difference(entry, other) for other in ("self", "mean"))])
    return _table(*rows)


def block_counts() -> str:
    """Return how often the block is worse or better than a control, and how sure that is."""
    entries = _results("default_block")["configurations"]
    rows = [["the block's KL against", "views", "farther from the target", "interval above 0", "nearer",
             "interval below 0"]]  # fmt: skip
    for other in ("self", "mean", "temperature", "none"):
        for views in ("student", "full"):
            found = [entry["differences"][f"block - {other}"][f"kl, {views}"] for entry in entries]
            counts = (
                sum(mean > 0 for mean, _, _ in found), sum(low > 0 for _, low, _ in found),
                sum(mean < 0 for mean, _, _ in found), sum(high < 0 for _, _, high in found),
            )  # fmt: skip
            rows.append([f"`{other}`", views, *map(str, counts)])
    return f"{_table(*rows)}\n\nConfigurations, of {len(entries)}."


def block_full() -> str:
    """Answers on the full view, which is what a user asks for."""
    names = ("none", "block", "self")
    measures = {"KL": "kl, full", "agreement": "agreement, full", "top-1, 12 clips": "top1 clips, full",
                "top-1, yoga": "top1 actions, full"}  # fmt: skip
    rows = [["configuration", *(f"{title}: {', '.join(names)}" for title in measures)]]
    for entry in _results("default_block")["configurations"]:
        cells = []
        for measure in measures.values():
            values = [entry["test"][name][measure] for name in names]
            cells.append(", ".join(f"{value:.2f}" if measure.startswith("kl") else f"{value:.0%}" for value in values))
        rows.append([entry["name"], *cells])
    return _table(*rows)


TABLES: dict[str, Callable[[], str]] = {
    "actions": actions,
    "new_networks": new_networks,
    "new_networks_compared": new_networks_compared,
    "training_speed": training_speed,
    "loading_speed": loading_speed,
    "inference_speed": inference_speed,
    "distillation_bound": distillation_bound,
    "recipe_trial": recipe_trial,
    "recipe_curve": recipe_curve,
    "block_settings": block_settings,
    "block_student": block_student,
    "block_counts": block_counts,
    "block_full": block_full,
}


def _results(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    return found


def _table(*rows: list[str]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _wrong(runs: list[dict[str, Any]], way: str) -> list[str]:
    answers = [answer for run in runs if run["way"] == way for answer in run["answers"]]
    return [f"{one['clip']} as {one['answer']}" for one in answers if one["answer"] != one["label"]]


def _ratio(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    ratio: float = ours["clips_per_second"] / theirs["clips_per_second"]
    return ratio


def _difference(entry: dict[str, Any], other: str) -> str:
    mean, low, high = entry["differences"][f"block - {other}"]["kl, student"]
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


def _processor(machine: dict[str, Any]) -> str:
    threads = machine["threads"]
    return f"{threads} thread{'s' if threads > 1 else ''} on {machine['processor']}"


def _plain(value: Any) -> str:
    return json.dumps(value).replace('"', "")


def _machine(results: dict[str, Any]) -> str:
    return f"{results['device']}, torch {results['machine']['torch']}."


if __name__ == "__main__":
    for one in PAGES:
        one.write_text(page_with_tables(one), "utf-8")
