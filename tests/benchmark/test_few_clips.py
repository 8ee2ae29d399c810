"""`benchmarks/few_clips.py`: nobody who is asked is taught, heads differ in nothing else, docs say what results say."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import few_clips
from few_clips import COUNTS, RESULTS, TITLES, Outcome, Settings, people_lesson, places_lesson
from few_clips_data import Clips
from few_clips_heads import Head, Kind, make_block, pooled, prepared, train

from nonlocal_video.zoo.catalogue import load_network

CHANNELS, SIZE = 12, (3, 2, 2)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread, like the script: tiny products on many threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def some_clips(classes: int = 3, people: int = 16) -> Clips:
    """A clip of each class by each person; a class is a direction, strongest in one cell."""
    torch.manual_seed(0)
    labels, groups = (np.array(one).ravel() for one in np.meshgrid(range(classes), range(people)))
    maps = torch.randn(len(labels), CHANNELS, *SIZE)
    maps[torch.arange(len(labels)), torch.from_numpy(labels), 1, 1, 1] += 12.0
    places = np.where(groups < people // 2, "a", "b")
    return Clips(maps, labels, groups, places, tuple("abc"[:classes]))


@pytest.mark.parametrize("count", COUNTS)
def test_nobody_who_is_asked_is_taught(count: int) -> None:
    clips = some_clips()
    lesson = people_lesson(clips, count, number=5)
    assert np.bincount(clips.labels[lesson.taught]).tolist() == [count] * 3
    taught, asked = set(clips.groups[lesson.taught].tolist()), set(clips.groups[lesson.asked].tolist())
    assert asked
    assert not taught & asked


def test_too_few_clips_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"count = 16: 16 people have too few clips of a class, or nobody is left to ask"
    ):
        people_lesson(some_clips(), 16, number=0)


@pytest.mark.parametrize(("number", "here", "there"), [(0, "a", "b"), (1, "b", "a")])
def test_places_are_taught_in_one_and_asked_in_the_other(number: int, here: str, there: str) -> None:
    clips = some_clips()
    lesson = places_lesson(clips, 2, number)
    assert set(clips.places[lesson.taught].tolist()) == {here}
    assert set(clips.places[lesson.asked].tolist()) == {there}
    assert len(lesson.taught) == 2 * 3
    assert len(lesson.asked) == 8 * 3


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_head_begins_as_the_linear_one(kind: Kind) -> None:
    maps = torch.randn(2, CHANNELS, *SIZE)
    head = Head(kind, CHANNELS, 3).eval()
    torch.nn.init.normal_(head.classifier.weight)
    torch.testing.assert_close(head(maps), head.classifier(pooled(maps)))


def test_the_residual_has_as_many_weights_as_the_block() -> None:
    sizes = {kind: sum(one.numel() for one in make_block(kind, CHANNELS).parameters() if one.ndim > 1)
             for kind in get_args(Kind)}  # fmt: skip
    assert sizes["linear"] == 0
    assert len({size for kind, size in sizes.items() if kind != "linear"}) == 1


@pytest.mark.parametrize(
    ("kind", "sees_others"),
    [("itself", False), ("residual", False), ("shuffled", True), ("embedded_gaussian", True), ("dot_product", True)],
)
def test_what_a_position_sees(kind: Kind, sees_others: bool) -> None:
    torch.manual_seed(1)
    block = make_block(kind, CHANNELS).eval()
    torch.nn.init.ones_(block.bn.weight)
    maps = torch.randn(1, CHANNELS, *SIZE)
    changed = maps.clone()
    changed[..., 0, 0, 0] += 1.0
    torch.manual_seed(2)
    before = block(maps)
    torch.manual_seed(2)
    after = block(changed)
    assert (before != after)[..., 1:, :, :].any().item() is sees_others


def test_pooling_is_the_default_models() -> None:
    network, _ = load_network("default")
    features = torch.randn(1, 1024, 4, 2, 2)
    bias = network.logits.bias
    expected = pooled(features) @ network.logits.weight.flatten(1).T + bias
    torch.testing.assert_close(network.eval().head(features), expected)


def test_preparation_knows_only_the_examples() -> None:
    clips, former = some_clips(), torch.eye(CHANNELS)[:1]
    taught, asked = prepared(clips.maps[:8], clips.maps[8:20], former, directions=5)
    assert taught.shape == (8, 5, *SIZE)
    assert pooled(taught).norm(dim=1).mean().item() == pytest.approx(1.0, rel=1e-5)
    again, _ = prepared(clips.maps[:8], clips.maps[20:] * 3, former, directions=5)
    torch.testing.assert_close(again, taught)
    moved = clips.maps[8:20].clone()
    moved[:, 0] += 7.0  # what the former head looks at, damped wholly here
    torch.testing.assert_close(prepared(clips.maps[:8], moved, former, directions=5)[1], asked)


def test_settings_are_chosen_on_the_other_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_clips, "former_head", lambda: np.zeros((0, CHANNELS)))
    settings = Settings(directions=6, learning_rates=(3e-2,), steps=(1, 12), lessons_to_choose=1, lessons=1)
    clips = {"actions": some_clips(), "places": some_clips(2)}
    measured = few_clips.measure("actions", clips, 3, settings)
    found = few_clips.summary([measured])["actions"]["3"]
    assert found["accuracy"].keys() >= TITLES.keys()
    assert all(one["mean"] > 0.6 for one in found["accuracy"].values()), found  # chance is a third
    chosen = few_clips.choose("places", clips["places"], 3, settings)
    assert measured["chosen"] == {kind: list(way) for kind, way in chosen.items()}
    for kind in get_args(Kind):
        if chosen[kind] == (3e-2, 12) and kind != "linear":
            assert measured["right"][kind] == measured["right"][kind + few_clips.MOST]


def test_training_repeats() -> None:
    clips = some_clips()
    labels = torch.from_numpy(clips.labels[:12])
    runs = [
        torch.stack(
            list(train("shuffled", clips.maps[:12], labels, clips.maps[12:15], rate=1e-2, steps=(2, 5), seed=s))
        )
        for s in (3, 3, 4)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_right_answers_count_before_their_cross_entropy() -> None:
    group = np.array([0, 1])
    better, worse = Outcome(np.ones(2), np.full(2, 0.6), group), Outcome(np.array([1.0, 0.0]), np.full(2, 0.1), group)
    assert few_clips.badness([better]) < few_clips.badness([worse])
    assert few_clips.badness([better]) < few_clips.badness([Outcome(np.ones(2), np.full(2, 0.7), group)])


def test_docs_have_the_results() -> None:
    page = few_clips.DOCS.read_text("utf-8")
    assert few_clips.page_with_tables(page, json.loads(RESULTS.read_text("utf-8"))) == page
