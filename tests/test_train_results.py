"""The pages on training say what was measured."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NAMES = ("train_results.md", "default_block.md")


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text("utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_tables_are_the_results(name: str) -> None:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "make_train_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page_with_tables(ROOT / "docs" / name) == page(name)
    assert all(f"<!-- {marker} -->\n\n" not in page(name) for marker in module.PAGES[ROOT / "docs" / name])


def test_every_clip_is_answered_once_by_a_network_that_does_not_know_its_person() -> None:
    runs = json.loads((RESULTS / "actions.json").read_text())["runs"]
    for way in {run["way"] for run in runs}:
        folds = [run["answers"] for run in runs if run["way"] == way]
        clips = [answer["clip"] for fold in folds for answer in fold]
        people = [{answer["group"] for answer in fold} for fold in folds]
        assert (len(clips), len(set(clips))) == (97, 97)
        assert sum(map(len, people)) == len(set().union(*people)) == 16


def test_what_is_said_of_the_block_holds() -> None:
    text, entries = page("default_block.md"), json.loads((RESULTS / "default_block.json").read_text())["configurations"]
    against_self = [entry["differences"]["block - self"]["kl, student"] for entry in entries]
    assert "attention won in no configuration**, and lost beyond its interval in all but one" in text
    assert all(mean > 0 for mean, _, _ in against_self)
    assert sum(low <= 0 for _, low, _ in against_self) == 1
    assert "Top-1 on the 12 clips of Kinetics classes\nfalls in every configuration, by one to four clips" in text
    right = [{name: 12 * one["test"][name]["top1 clips, full"] for name in ("none", "block")} for one in entries]
    falls = [one["none"] - one["block"] for one in right]
    assert min(falls) >= 1
    assert max(falls) < 4.5
    for entry in entries:
        for name in ("block", "self"):
            assert entry["test"][name]["agreement, full"] < entry["test"]["none"]["agreement, full"]
    rises = [one["test"]["block"]["top1 actions, full"] > one["test"]["none"]["top1 actions, full"] for one in entries]
    assert sum(rises) > len(rises) / 2


def test_what_is_said_of_new_networks_holds() -> None:
    text, results = page("train_results.md"), json.loads((RESULTS / "actions.json").read_text())
    assert "every interval of a\n  difference holds zero" in text
    assert len(results["differences"]) == 3
    assert all(low <= 0 <= high for low, high in (one["interval"] for one in results["differences"].values()))
    assert all(one["top1"] < results["figures"]["head"]["top1_interval"][0]
               for name, one in results["figures"].items() if name.endswith("slim18"))  # fmt: skip


def test_what_is_said_of_the_recipes_trial_holds() -> None:
    text, found = page("train_results.md"), json.loads((RESULTS / "recipe_trial.json").read_text())
    assert "still worse than one constant answer, and still getting better" in text
    divergences = [row["validation/kl"] for row in found["epochs"]]
    assert found["kl_of_one_answer"] < min(divergences)
    assert max(divergences[-3:]) < min(divergences[:-3])
    assert found["starts"] == 2


def test_no_configuration_is_called_run_that_was_not() -> None:
    """torch.compile has no figure, so no page has one."""
    assert not any(row["compile"] for row in json.loads((RESULTS / "train_speed.json").read_text())["training"])
    assert "compile" not in page("train_results.md")


@pytest.mark.parametrize("name", NAMES)
def test_links_and_scripts_are_there(name: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page(name)):
        assert target.startswith("http") or (ROOT / "docs" / target).exists(), target
    for script in re.findall(r"python (\S+\.py)", page(name)):
        assert (ROOT / script).is_file(), script


def test_the_readme_has_the_same_figures() -> None:
    readme = (ROOT / "README.md").read_text("utf-8").partition("## Train it")[2].partition("\n## ")[0]
    figures = json.loads((RESULTS / "actions.json").read_text())["figures"]
    assert f"[{figures['head']['top1']:.1%} with a new head]" in readme
    assert f"{figures['top']['top1']:.0%} with the last stage" in readme
    assert f"{figures['head']['clips']} clips of 16 people" in readme
