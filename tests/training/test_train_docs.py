"""Every command of docs/train.md is run, in its order, on tiny clips; its table of settings is that of the program."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.run as torchrun
import yaml
from engine_parts import VIEW, tiny_card, tiny_network
from PIL import Image
from training_clips import write_clip

from nonlocal_video.blocks.schedule import ProgressiveSchedule
from nonlocal_video.cli.main import main
from nonlocal_video.models.checkpoint import read_card, save_checkpoint
from nonlocal_video.training.augment import Augmentation
from nonlocal_video.training.config import MAY_DIFFER, TrainConfig
from nonlocal_video.training.distillation.objective import DistillConfig
from nonlocal_video.training.initialization import initialize, read_new_model
from nonlocal_video.training.metrics import read_metrics
from nonlocal_video.training.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "train.md").read_text("utf-8")
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines() if line.strip()
]
TINY = ("--model", "tiny.safetensors")
QUICK = ("--workers", "0", "--device", "cpu", "--epochs", "1", "--set", "frozen_views=1")
TINY_TEACHER = ("--set", "distillation.teacher=teacher.safetensors")


def test_commands_are_the_ones_this_test_knows() -> None:
    verbs = [re.sub(r"torchrun .* -m nonlocal_video", "torchrun", line).split()[:2] for line in COMMANDS]
    expected = "check train train evaluate classify explain export serve check train train train"
    assert [" ".join(words).removeprefix("nonlocal-video ") for words in verbs] == [
        *expected.split(), "torchrun train", *["train"] * 7,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the files that the page speaks of."""
    folder = tmp_path_factory.mktemp("docs")
    rows = ["path,label,group"]
    for number in range(8):
        name = f"{('child_s_pose', 'padmasana')[number % 2]}/{number}.mp4"
        write_clip(folder / "clips" / name, 400 + number)
        rows.append(f"clips/{name},{name.split('/')[0]},{number}")
        gesture = folder / "gestures" / f"swipe {('left', 'right')[number % 2]}" / f"{number}.mp4"
        gesture.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "clips" / name, gesture)
    (folder / "clips.csv").write_text("\n".join(rows), "utf-8")
    for number in range(3):
        write_clip(folder / "videos" / f"{number}.mp4", 500 + number)
    shutil.copy(folder / "videos" / "0.mp4", folder / "clip.mp4")
    (folder / "pictures").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "pictures" / "0.png")

    for name, labels in (("tiny", ("jump", "wave")), ("teacher", ("clap", "jump", "wave"))):
        card = tiny_card(blocks=True)
        card = replace(card, name=name, labels=labels, config={**card.config, "num_classes": len(labels)})
        card = replace(card, explain_layer="layer4.nonlocal0", fast_input=None)
        save_checkpoint(folder / f"{name}.safetensors", tiny_network(card), card, dtype=torch.float32)
    (small,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    model = yaml.safe_load(small)
    model["input"] |= {"num_frames": 4, "frames_per_second": 5, "short_side": 40, "crop": 32}
    model["config"] = tiny_card(blocks=True).config | {"nonlocal_blocks": {"layer3.0": {}, "layer4.0": {}}}
    del model["config"]["num_classes"]
    (folder / "student.yaml").write_text(yaml.safe_dump(model), "utf-8")
    shutil.copytree(ROOT / "weights" / "recipes", folder / "weights" / "recipes")
    return folder


def made_small(command: str) -> list[str]:
    """The words after the program's name, with tiny models in the place of the default, and few epochs."""
    words = shlex.split(command)
    if words[1] == "train" and "--resume" not in words:
        words += QUICK
        if "kinetics400" in command:
            teacher = "distillation.layers=[[layer3, layer3], [layer4, layer4]]"
            words += ["--model", "student.yaml", *TINY_TEACHER, "--set", teacher]
            words += ["--set", "precision=32-true", "--set", "workers=0", "--set", "batch_size=2"]
        elif "--model" not in words:
            words += TINY
        words = ["teacher.safetensors" if word == "default" else word for word in words]
    if words[1] == "check" or words[1] == "train":
        words += ["--validation-share", "0.4"] if "clips/" in words or "gestures/" in words else []
    if words[1] == "check" and "--folds" not in words:
        words += list(TINY)
    return words[1:]


def without_launcher(command: str) -> str:
    """The program's call in one process; `test_ddp` starts two with these options of torchrun."""
    started = torchrun.parse_args(shlex.split(command)[1:])
    assert (started.standalone, started.nproc_per_node, started.module) == (True, "2", True)
    assert started.training_script == "nonlocal_video"
    return shlex.join(["nonlocal-video", *started.training_script_args])


@pytest.mark.slow
def test_every_command_works(there: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(there)
    served: dict[str, Any] = {}
    monkeypatch.setattr("nonlocal_video.app.serve", lambda **given: served.update(given))
    for command in COMMANDS:
        if command.startswith("torchrun"):
            command = without_launcher(command)
        monkeypatch.setattr(sys, "argv", ["nonlocal-video", *made_small(command)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code, (command, capsys.readouterr().err)
        if "--resume" not in command and " train " in command:
            run = RunFolder(shlex.split(command)[-1])
            assert run.best.is_file(), command
            assert run.curves.is_file(), command
    check_results()
    assert served["model"] == ["runs/top"]


def check_results() -> None:
    """Figures on the page come out of its commands."""
    card = read_card("runs/top/best.safetensors")
    assert (card.labels, card.source) == (("child_s_pose", "padmasana"), "trained from head")
    named = set(re.findall(r"`([\w.]+\.(?:safetensors|csv|png|md|json|pt))`", section("What is in the run's folder")))
    there = {path.name for name in ("runs/top", "runs/student") for path in Path(name).iterdir()}
    assert named <= there
    assert {path for path in there if not path.startswith(".")} - named == {"tensorboard"}
    assert "accuracy_percent" in json.loads(Path("report/summary.json").read_text())
    assert len(Path("table.csv").read_text().splitlines()) == 9
    split = json.loads(Path("runs/fold1/config.json").read_text())["settings"]["validation"]
    assert split == "fold1"
    for row in read_metrics("runs/progressive/metrics.csv"):
        assert row["gate/layer4.nonlocal0"] == 0.0
    assert read_card("runs/student/best.safetensors").labels == ("clap", "jump", "wave")
    assert read_card("runs/tuned/best.safetensors").labels == ("child_s_pose", "padmasana")
    gestures = json.loads(Path("runs/gestures/config.json").read_text())["settings"]["train"]["augmentation"]
    assert gestures["left_right_classes"] == ["swipe left", "swipe right"]
    k400 = json.loads(Path("runs/k400/config.json").read_text())["settings"]["train"]
    assert (k400["distillation"]["embedding_weight"], k400["progressive"]["stages"]) == (0.5, [4, 3])


def test_the_described_network_can_be_built() -> None:
    (small,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    start = initialize(read_new_model(yaml.safe_load(small), "the page"), ("a", "b"), name="run")
    assert len(start.network.nonlocal_layers()) == 2
    assert start.card.input.num_frames == 4 * VIEW.num_frames


def test_the_readme_has_the_same_commands() -> None:
    readme = (ROOT / "README.md").read_text("utf-8").partition("## Train it")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```sh\n(.*?)```", readme, re.DOTALL)
    for line in block.splitlines():
        command = line.partition("#")[0].strip()
        assert command.replace("runs/head", "runs/top") in COMMANDS or command in COMMANDS, command


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize(
    ("prefix", "kind"),
    [
        ("setting", TrainConfig),
        ("`augmentation.`", Augmentation),
        ("`progressive.`", ProgressiveSchedule),
        ("`distillation.`", DistillConfig),
    ],
)
def test_the_tables_of_settings_are_the_programs(prefix: str, kind: type[Any]) -> None:
    rows = section("All settings").partition(f"| {prefix} | default |")[2].partition("\n\n")[0].splitlines()[2:]
    found: dict[str, str] = {}
    for row in rows:
        names, default, meaning = [cell.strip() for cell in row.strip("|").split("|")]
        assert meaning, row
        found |= {name: default.strip("`") for name in re.findall(r"`(\w+)`", names)}
    assert list(found) == [one.name for one in fields(kind)]
    for one in fields(kind):
        if one.default is MISSING:
            assert found[one.name] == ""
        else:
            assert yaml.safe_load(found[one.name].replace("none", "null")) == plain(one.default), one.name


def plain(value: Any) -> Any:
    """Return a value as YAML writes it, numbers with four decimals."""
    if isinstance(value, tuple):
        return [round(part, 4) if isinstance(part, float) else part for part in value]
    return value


def test_what_may_differ_is_named() -> None:
    for name in MAY_DIFFER:
        assert f"`{name}`" in section("After a kill")


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        if not target.startswith("http"):
            assert (ROOT / "docs" / target).exists(), target
