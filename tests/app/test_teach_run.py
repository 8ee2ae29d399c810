"""Teaching on the page, without a browser: each change is learnt, within bounds, for one visitor alone."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from colour_clips import COLOURS, write_colour

from nonlocal_video.app import taught_classes
from nonlocal_video.app.callbacks.teach_run import Teaching
from nonlocal_video.app.models import Models
from nonlocal_video.inference.load import load
from nonlocal_video.inference.recognizer import Recognizer

ANN: Any = SimpleNamespace(session_hash="ann")
BOB: Any = SimpleNamespace(session_hash="bob")


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("colours")
    for number, (name, colour) in enumerate(COLOURS.items()):
        for clip in range(3):
            write_colour(folder / f"{name} {clip}.mp4", colour, 10 * number + clip)
    return folder


@pytest.fixture
def uploads(colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of uploads, with the clips in it."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    return Path(shutil.copytree(colours, tmp_path / "gradio" / "0123abc"))


@pytest.fixture
def teaching(recognizer: Recognizer) -> Teaching:
    return Teaching(Models([recognizer]))


def edit(teaching: Teaching, visitor: Any = ANN, **change: Any) -> dict[str, Any]:
    return dict(json.loads(teaching.edit(SimpleNamespace(_data=change), visitor)))


def learn(teaching: Teaching, visitor: Any = ANN) -> list[dict[str, Any]]:
    return [json.loads(update.shown) for update in teaching.learn(visitor)]


def ask(teaching: Teaching, path: Path, visitor: Any = ANN) -> dict[str, Any]:
    return dict(json.loads(teaching.ask(SimpleNamespace(_data={"path": str(path)}), visitor))["answer"])


@pytest.mark.slow
def test_from_two_names_to_a_model_of_ones_own(teaching: Teaching, uploads: Path, recognizer: Recognizer) -> None:
    for name in ("red", "blue"):
        edit(teaching, do="name", before="", label=name)
    assert learn(teaching)[-1]["says"] == "It learns as soon as two actions have a clip."
    for name in ("red", "blue"):
        edit(teaching, do="add", label=name, paths=[str(uploads / f"{name} {clip}.mp4") for clip in range(2)])
    states = learn(teaching)
    assert states[0]["says"] == "Learning"
    assert states[0]["is_busy"]
    assert [state["says"] for state in states[1:-1]] == [f"Looking at the clips: {n} of 4" for n in (1, 2, 3, 4)]
    last = states[-1]
    assert last["says"] == "2 actions, 2 clips each: 4 of 4 left-out clips right."
    assert (last["accuracy"], last["is_ready"], last["is_busy"], last["worst"]) == (1.0, True, False, [])
    assert [(one["name"], len(one["clips"])) for one in last["classes"]] == [("red", 2), ("blue", 2)]
    found = ask(teaching, uploads / "red 2.mp4")
    assert {one["label"] for one in found["top"]} == {"red", "blue"}

    # What is downloaded is a run that answers the same, and names no folder of the server.
    for update in teaching.download(ANN):
        archive = zipfile.ZipFile(update["value"])
        archive.extractall(uploads.parent / "got")
    run = uploads.parent / "got" / "taught-model"
    for file in run.iterdir():
        assert file.suffix == ".safetensors" or str(uploads.parent) not in file.read_text("utf-8"), file.name
    with load(run, device="cpu") as taught:
        assert taught.classify(uploads / "red 2.mp4").top1.score == pytest.approx(found["top"][0]["score"], abs=1e-4)

    # It becomes a choice of this visitor's, under a name that nobody can guess, and goes with the visit.
    choice, words = teaching.use(ANN)
    name = choice["value"]
    assert [value if isinstance(value, str) else value[1] for value in choice["choices"]] == [name, "tiny"]
    assert "Recognise now uses" in words
    assert teaching.models[name].classify(uploads / "red 2.mp4").top1.label == found["top"][0]["label"]
    assert (list(teaching.models), len(name) > 20) == (["tiny"], True)
    folder = teaching.visits.of(ANN).folder
    teaching.forget(ANN)
    assert name not in teaching.models
    assert not folder.exists()


def test_confusing_clips_are_shown_and_can_be_taken_back(teaching: Teaching, uploads: Path) -> None:
    """Each class has a red and a blue clip: without one of its clips it is less like it than the other class is."""
    for label, clips in (("this", ("red 0", "blue 1")), ("that", ("red 1", "blue 0"))):
        edit(teaching, do="add", label=label, paths=[str(uploads / f"{clip}.mp4") for clip in clips])
    state = learn(teaching)[-1]
    assert state["says"] == "2 actions, 2 clips each: 0 of 4 left-out clips right."
    assert len(state["worst"]) == 3
    marks = {clip["name"]: clip["taken_for"] for one in state["classes"] for clip in one["clips"]}
    assert marks == {"red 0.mp4": "that", "blue 1.mp4": "that", "red 1.mp4": "this", "blue 0.mp4": "this"}
    for label, wrong in (("this", "blue 1"), ("that", "red 1")):
        edit(teaching, do="remove", label=label, path=str(uploads / f"{wrong}.mp4"))
        edit(teaching, do="name", before=label, label=f"  really   {label} ")
    for label, clip in (("really this", "red 1"), ("really that", "blue 1")):
        edit(teaching, do="add", label=label, paths=[str(uploads / f"{clip}.mp4")])
    state = learn(teaching)[-1]
    assert state["says"] == "2 actions, 2 clips each: 4 of 4 left-out clips right."
    assert [one["name"] for one in state["classes"]] == ["really this", "really that"]
    edit(teaching, do="remove_class", label="really this")
    assert learn(teaching)[-1]["says"] == "It learns as soon as two actions have a clip."


def test_a_clip_that_cannot_be_read_is_marked(teaching: Teaching, uploads: Path) -> None:
    (uploads / "note.mp4").write_text("no video")
    edit(teaching, do="add", label="red", paths=[str(uploads / "red 0.mp4"), str(uploads / "note.mp4")])
    edit(teaching, do="add", label="blue", paths=[str(uploads / "blue 0.mp4")])
    state = learn(teaching)[-1]
    assert [clip["name"] for one in state["classes"] for clip in one["clips"] if clip["is_unreadable"]] == ["note.mp4"]
    edit(teaching, do="remove", label="red", path=str(uploads / "red 0.mp4"))
    state = learn(teaching)[-1]
    assert state["says"].startswith("No example of 'red' can be used (note.mp4: not_a_video")
    assert not state["is_ready"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do": "name", "before": "", "label": "red"}, "There is an action red already"),
        ({"do": "name", "before": "", "label": "  "}, "a name of 1 to 60 letters"),
        ({"do": "name", "before": "", "label": "x" * 61}, "a name of 1 to 60 letters"),
        ({"do": "add", "label": "blue", "paths": ["/etc/passwd"]}, "not on the server any more"),
        ({"do": "add", "label": "blue", "paths": ["UPLOADS/../../secret.mp4"]}, "not on the server any more"),
        ({"do": "add", "label": "blue", "paths": ["UPLOADS/gone.mp4"]}, "not on the server any more"),
        ({"do": "add", "label": "blue", "paths": ["UPLOADS/link.mp4"]}, "not on the server any more"),
        ({"do": "add", "label": "blue", "paths": ["UPLOADS/red 0.mp4"]}, r"red 0\.mp4 is an example of red already"),
    ],
)
def test_what_is_not_allowed_is_a_sentence(
    teaching: Teaching, uploads: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    (tmp_path / "secret.mp4").write_bytes((uploads / "red 1.mp4").read_bytes())
    (uploads / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    edit(teaching, do="add", label="red", paths=[str(uploads / "red 0.mp4")])
    if "paths" in change:
        change = change | {"paths": [path.replace("UPLOADS", str(uploads)) for path in change["paths"]]}
    with pytest.raises(gr.Error, match=message) as raised:
        edit(teaching, **change)
    assert str(tmp_path) not in raised.value.message


def test_bounds(teaching: Teaching, uploads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taught_classes, "MAX_CLASSES", 2)
    monkeypatch.setattr(taught_classes, "MAX_CLIPS", 2)
    edit(teaching, do="add", label="red", paths=[str(uploads / "red 0.mp4")])
    monkeypatch.setattr(taught_classes, "MAX_MEGABYTES", 1e-3)
    with pytest.raises(gr.Error, match="MB together"):
        edit(teaching, do="add", label="red", paths=[str(uploads / "red 1.mp4")])
    monkeypatch.setattr(taught_classes, "MAX_MEGABYTES", 100)
    edit(teaching, do="add", label="blue", paths=[str(uploads / "blue 0.mp4")])
    with pytest.raises(gr.Error, match="At most 2 clips"):
        edit(teaching, do="add", label="blue", paths=[str(uploads / "blue 1.mp4")])
    with pytest.raises(gr.Error, match="At most 2 actions"):
        edit(teaching, do="name", before="", label="green")


def test_nothing_is_known_of_other_visitors(teaching: Teaching, uploads: Path) -> None:
    edit(teaching, do="add", label="red", paths=[str(uploads / "red 0.mp4")])
    assert learn(teaching, BOB)[-1]["classes"] == []
    for call in (lambda: ask(teaching, uploads / "red 1.mp4", BOB), lambda: list(teaching.download(BOB))):
        with pytest.raises(gr.Error, match=r"as soon as two actions|Nothing was learnt"):
            call()


def test_only_the_last_taught_models_stay(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nonlocal_video.app.models.MAX_TAUGHT", 2)
    models, closed = Models([recognizer]), []
    taught: list[Any] = [SimpleNamespace(close=lambda number=number: closed.append(number)) for number in range(3)]
    names = [models.add_taught(one) for one in taught[:2]]
    assert models[names[0]] is taught[0], "it is used, and stays longer"
    names.append(models.add_taught(taught[2]))
    assert [name in models for name in names] == [True, False, True]
    models.drop_taught(names[2])
    models.drop_taught(None)
    assert closed == [1, 2]
