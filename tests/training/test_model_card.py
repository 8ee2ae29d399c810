"""The README that a run writes: every number in it is one that was given."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from nonlocal_video.cli.main import app
from nonlocal_video.datasets.manifest import Manifest, ManifestRow
from nonlocal_video.models.card import InputSpec, ModelCard
from nonlocal_video.training.metrics import MetricsRow
from nonlocal_video.training.model_card import RunModelCard

SPEC = InputSpec(16, 6.25, short_side=128, crop=112, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
LABELS = ("down dog", "plank | side", "tree")
START = ModelCard("old", "resnet3d", {}, SPEC, ("a", "b"), licence="CC-BY-NC-4.0", source="https://example.org/old.pth")
TEACHER = replace(START, name="wise", licence="Apache-2.0", source="")


def clip(label: str, number: int, split: str, group: str | None) -> ManifestRow:
    return ManifestRow(
        f"/clips/{label}/{split}{number}.mp4", label, group, split, None, 4.0, 100, 25.0, 320, 240, "0" * 64
    )


def measured(epoch: int, trained_loss: float, top1: float, loss: float) -> MetricsRow:
    values = {"train/cross_entropy": trained_loss, "validation/top1": top1, "validation/cross_entropy": loss}
    return {"step": 10 * epoch, "epoch": epoch, **values}


def card(*, groups: bool = True, **changes: Any) -> RunModelCard:
    """Twelve training clips a class (of a tree two) and three for validation, by default of others; one is broken."""
    rows = []
    for label in LABELS:
        for split, count in (("train", 2 if label == "tree" else 12), ("validation", 3)):
            rows += [clip(label, number, split, f"{split}{number}" if groups else None) for number in range(count)]
    rows.append(ManifestRow("/clips/tree/note.txt", "tree", problem="not_a_video: no"))
    given: dict[str, Any] = {
        "folder": Path("runs/my run"),
        "card": ModelCard("yoga", "resnet3d", {}, SPEC, LABELS, explain_layer="layer3.nonlocal0"),
        "start": START,
        "manifest": Manifest(tuple(rows)),
        "settings": {"stage": "head", "optimiser": {"name": "sgd", "decay": None}},
        "rows": [measured(1, 1.5, 0.5, 1.0), measured(2, 1.0, 8 / 9, 0.41234), measured(3, 0.5, 7 / 9, 0.6)],
        "best_step": 20,
    }
    return RunModelCard(**{**given, **changes})


def section(text: str, title: str) -> str:
    found = re.search(rf"^## {title}\n\n(.*?)(?=\n## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def test_the_figures_are_those_of_the_best_row() -> None:
    text = section(card().text(), "How good it is")
    assert "After epoch 2, one view of each of 9 validation clips" in text
    assert "| top1 | 88.9% |" in text
    assert "| cross_entropy | 0.4123 |" in text
    assert "chosen by `validation/top1` on the same clips" in text
    assert "one clip is 11.1 percentage points" in text
    assert "train" not in text


def test_classes_and_data_are_counted() -> None:
    text = card().text()
    assert section(text, "Classes").splitlines()[2:5] == [
        "| down dog | 12 | 3 |",
        r"| plank \| side | 12 | 3 |",
        "| tree | 2 | 3 |",
    ]
    data = section(text, "Data")
    assert "Trained on 26 clips of 12 groups (104 s)." in data
    assert "Validated on 9 clips of 3 groups (36 s): split `validation`." in data
    assert "1 of 36 clips could not be used" in data
    assert "both sides" not in data
    assert "fewer than 10 training clips: tree." in section(text, "What it is not for")


def test_it_says_when_people_are_on_both_sides_or_unknown() -> None:
    shared = Manifest((clip("tree", 0, "train", "anna"), clip("tree", 0, "validation", "anna")))
    assert "**1 groups are in both sets** (anna)" in card(manifest=shared).text()
    assert "The clips have no groups." in section(card(groups=False).text(), "Data")


def test_it_says_when_copies_are_on_both_sides() -> None:
    trained, copy, other = (clip("tree", n, split, None) for n, split in enumerate(("train", *["validation"] * 2)))
    rows = (*(replace(one, content=trained.path) for one in (trained, copy)), replace(other, content=other.path))
    data = section(card(manifest=Manifest(rows)).text(), "Data")
    assert f"**1 of the validation clips show the same frames as training clips** ({copy.path})" in data


def test_a_fold_is_measured_on_and_the_others_trained_on() -> None:
    rows = tuple(clip(label, n, f"fold{n}", f"s{n}") for n in (1, 2, 3) for label in LABELS)
    data = section(card(manifest=Manifest(rows), validation="fold2").text(), "Data")
    assert "Trained on 6 clips of 2 groups" in data
    assert "Validated on 3 clips of 1 groups (12 s): split `fold2`." in data


def test_origin_and_licence_are_carried_over() -> None:
    text = card(teachers=(TEACHER,)).text()
    assert "Started from `old` (CC-BY-NC-4.0, https://example.org/old.pth)." in section(text, "Weights it started from")
    assert "Distilled from `wise` (Apache-2.0)." in text
    assert section(text, "Licence").splitlines()[:2] == ["- old: CC-BY-NC-4.0.", "- wise: Apache-2.0."]
    fresh = card(start=None).text()
    assert "Random initialization" in section(fresh, "Weights it started from")
    assert "on the clips above alone" in section(fresh, "Licence")


def test_settings_are_listed_flat() -> None:
    lines = section(card().text(), "Settings").splitlines()
    assert lines[2:5] == ["| stage | head |", "| optimiser.name | sgd |", "| optimiser.decay | none |"]


def test_nothing_is_claimed_where_nothing_was_measured() -> None:
    unmeasured = card(validation=None, best_step=None).text()
    assert section(unmeasured, "How good it is").strip() == "Not measured."
    assert "evaluate" not in section(unmeasured, "How to use it")
    assert section(card(best_step=None).text(), "How good it is").strip() == "Not measured."


@pytest.mark.parametrize("folder", ["run", "runs/my run", "/tmp/it's"])
def test_its_commands_are_commands(folder: str) -> None:
    shown = section(card(folder=folder).text(), "How to use it")
    commands = [shlex.split(line) for line in re.findall(r"^nonlocal-video .*$", shown, re.MULTILINE)]
    assert [command[1] for command in commands] == ["classify", "explain", "serve", "evaluate"]
    group = typer.main.get_group(app)
    for _, verb, *arguments in commands:
        parameters = group.commands[verb].make_context(verb, arguments).params
        assert parameters["model"] == ([folder] if verb == "serve" else folder)
    assert commands[-1][2:5] == [f"{folder}/manifest.csv", "--split", "validation"]
