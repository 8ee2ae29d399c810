"""`nonlocal_video.train` in Python: the command's run, with callbacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import nonlocal_video as nlv
from nonlocal_video.training.engine import TrainingProgress
from nonlocal_video.training.metrics import read_metrics

QUIET = {"device": "cpu", "workers": 0}


class Heard(nlv.TrainCallback):
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.sentences: list[str] = []

    def on_progress(self, progress: TrainingProgress) -> None:
        self.steps.append(progress.step)

    def notify(self, sentence: str) -> None:
        self.sentences.append(sentence)


@pytest.mark.slow
def test_a_run_is_told_of_and_loads(divided_clips: Path, model: Path, tmp_path: Path) -> None:
    heard = Heard()
    settings = {"augmentation.flip": 0.0}
    run = nlv.train(
        divided_clips, output=tmp_path / "run", model=model, stage="head", epochs=2, batch_size=4,
        settings=settings, callback=heard, **QUIET,
    )  # fmt: skip
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert [row["step"] for row in rows] == [2, 4]
    assert run.metrics["validation/top1"] in {row["validation/top1"] for row in rows}
    assert sorted(set(heard.steps)) == [1, 2, 3, 4]
    assert any("'tiny parent' were loaded" in sentence for sentence in heard.sentences)
    with nlv.load(run, device="cpu") as recognizer:
        assert recognizer.labels == ("jump", "wave")


@pytest.mark.slow
def test_asked_to_stop_it_stops_and_continues(divided_clips: Path, model: Path, tmp_path: Path) -> None:
    arguments = {"model": model, "epochs": 2, "batch_size": 4, **QUIET}
    heard = Heard()
    stopped = nlv.train(
        divided_clips, output=tmp_path / "run", callback=heard, should_stop=lambda: bool(heard.steps), **arguments
    )
    assert not stopped.result.finished
    assert stopped.result.step < 4
    done = nlv.train(output=tmp_path / "run", resume=True)
    assert (done.result.step, done.result.finished) == (4, True)


def test_asked_to_stop_while_clips_are_checked_it_writes_nothing(good_clips: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        nlv.train(good_clips, output=tmp_path / "run", model=model, should_stop=lambda: True, **QUIET)
    assert not list(tmp_path.iterdir())


def test_wrong_settings_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(nlv.UsageError, match="nonsense"):
        nlv.train("no/such/folder", output=tmp_path / "run", settings={"nonsense": 1})
    assert not list(tmp_path.iterdir())


WITHOUT_LIGHTNING = """
import sys
sys.modules["lightning"] = None
import nonlocal_video as nlv
for name in ("train", "TrainCallback", "TrainedRun"):
    getattr(nlv, name)
try:
    nlv.train("clips/", output="run", callback=nlv.TrainCallback())
except nlv.UsageError as error:
    print(error)
from nonlocal_video.cli.main import main
sys.argv = ["nonlocal-video", "train", "clips/", "--output", "run"]
main()
"""


@pytest.mark.slow
def test_without_lightning_python_and_the_command_name_the_extra(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_LIGHTNING], capture_output=True, text=True, cwd=tmp_path)
    sentence = "Training needs lightning.fabric: pip install 'nonlocal-video[train]'"
    assert (done.returncode, done.stdout.strip(), done.stderr.strip()) == (2, sentence, sentence)
    assert not list(tmp_path.iterdir())
