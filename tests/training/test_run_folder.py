"""The folder of a run: who may write it, what resuming refuses, and what a kill leaves."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nonlocal_video.datasets.manifest import Manifest, ManifestRow
from nonlocal_video.errors import ModelError, OutputError, UsageError
from nonlocal_video.models.checkpoint import load_checkpoint
from nonlocal_video.training import run_folder as module
from nonlocal_video.training.images import ImageRow
from nonlocal_video.training.run_data import RunData
from nonlocal_video.training.run_folder import RunFolder

SETTINGS = {"stage": "head", "optimiser": {"name": "sgd", "learning_rate": 0.1}, "workers": 2, "crops": (112, 96)}
COMMAND = ("nonlocal-video", "train", "clips", "--output", "run")


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    sizes = {"duration_seconds": 2.0, "num_frames": 20, "fps": 10.0, "width": 96, "height": 72}
    names = ("wave/0.mp4", "jump/0.mp4")
    return Manifest(
        tuple(ManifestRow(str(tmp_path / name), name[:4], split="train", sha256="0" * 64, **sizes) for name in names)
    )


@pytest.fixture
def run(tmp_path: Path, manifest: Manifest) -> RunFolder:
    """A run that was begun and is not going on."""
    with RunFolder(tmp_path / "run").create(SETTINGS, manifest, command=COMMAND) as folder:
        return folder


def test_a_new_run_writes_down_settings_command_versions_and_clips(run: RunFolder, manifest: Manifest) -> None:
    config = json.loads(run.config.read_text())
    assert config["settings"] == {**SETTINGS, "crops": [112, 96]}
    (start,) = config["starts"]
    assert start["command"] == list(COMMAND)
    assert start["versions"]["torch"] == torch.__version__
    assert run.read_manifest() == manifest
    assert run.read_settings() == config["settings"]


def test_a_new_run_refuses_a_folder_that_holds_one(run: RunFolder, manifest: Manifest) -> None:
    before = run.config.read_bytes()
    with pytest.raises(UsageError, match=r"holds a run already.*--resume, or choose another folder"):
        RunFolder(run.path).create(SETTINGS, manifest, command=COMMAND)
    assert run.config.read_bytes() == before


def test_a_new_run_leaves_somebodys_folder_as_it_was(tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "holiday.mp4").touch()
    with pytest.raises(UsageError, match=r"is not empty and holds no run \(there is 'holiday.mp4'\)"):
        RunFolder(tmp_path).create(SETTINGS, manifest, command=COMMAND)
    assert [entry.name for entry in tmp_path.iterdir()] == ["holiday.mp4"]


def test_a_run_killed_before_it_had_a_configuration_can_be_begun_again(run: RunFolder, manifest: Manifest) -> None:
    run.config.rename(run.path / ".config.json.part")
    with run.create(SETTINGS, manifest, command=COMMAND):
        assert run.read_settings()["stage"] == "head"


def test_a_file_in_the_folders_place_is_an_error(tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(OutputError, match=r"cannot be written: .*another folder"):
        RunFolder(tmp_path / "run").create(SETTINGS, manifest, command=COMMAND)
    with pytest.raises(UsageError, match="holds no run"):
        RunFolder(tmp_path / "run").open(SETTINGS, command=COMMAND)


class TestDiscard:
    def test_nothing_is_left(self, tmp_path: Path, manifest: Manifest) -> None:
        folder = RunFolder(tmp_path / "run").create(SETTINGS, manifest, command=COMMAND)
        (folder.cache / "clips").mkdir(parents=True)
        folder.metrics.touch()
        folder.discard()
        assert not list(tmp_path.iterdir())
        with folder.create(SETTINGS, manifest, command=COMMAND):
            assert folder.read_manifest() == manifest

    def test_what_lay_there_stays(self, tmp_path: Path, manifest: Manifest) -> None:
        (tmp_path / "manifest.csv").touch()  # as a killed run leaves it
        elsewhere = tmp_path.parent / f"{tmp_path.name} clips"
        elsewhere.mkdir()
        (elsewhere / "clip").touch()
        folder = RunFolder(tmp_path).create(SETTINGS, manifest, command=COMMAND)
        folder.cache.mkdir()
        (folder.cache / "clips").symlink_to(elsewhere)
        (tmp_path / "notes.txt").touch()
        folder.discard()
        assert {entry.name for entry in tmp_path.iterdir()} == {"manifest.csv", "notes.txt"}
        assert (elsewhere / "clip").exists()

    def test_the_folder_itself_may_have_been_there(self, tmp_path: Path, manifest: Manifest) -> None:
        RunFolder(tmp_path).create(SETTINGS, manifest, command=COMMAND).discard()
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("name", ["state.pt", "best.safetensors", "last.safetensors"])
    def test_not_what_was_learnt(self, tmp_path: Path, manifest: Manifest, name: str) -> None:
        with RunFolder(tmp_path).create(SETTINGS, manifest, command=COMMAND) as folder:
            (tmp_path / name).touch()
            folder.discard()
        assert {entry.name for entry in tmp_path.iterdir()} >= {"config.json", "manifest.csv", name}

    def test_not_a_run_that_is_gone_on_with(self, run: RunFolder) -> None:
        with RunFolder(run.path).open(SETTINGS, command=COMMAND) as folder:
            folder.discard()
            assert folder.read_settings()["stage"] == "head"


def test_resuming_adds_its_start_and_clears_what_a_kill_left(run: RunFolder) -> None:
    for name in (".state.pt.part", ".best.safetensors.123.tmp"):
        (run.path / name).touch()
    with run.open(SETTINGS, command=(*COMMAND, "--resume")):
        assert run.notes == ()
    assert {entry.name for entry in run.path.iterdir()} <= {".lock", "config.json", "manifest.csv"}
    starts = json.loads(run.config.read_text())["starts"]
    assert [start["command"][-1] for start in starts] == ["run", "--resume"]


def test_resuming_lists_every_setting_that_differs(run: RunFolder) -> None:
    other = {**SETTINGS, "optimiser": {"name": "adamw", "learning_rate": 0.1}, "workers": 4, "ema": 0.99}
    before = run.config.read_bytes()
    with pytest.raises(UsageError) as refused:
        run.open(other, command=COMMAND, may_differ=("workers",))
    assert "optimiser.name was 'sgd' and is 'adamw'; ema was not there and is 0.99." in str(refused.value)
    assert "workers" not in str(refused.value)
    assert run.config.read_bytes() == before
    del other["ema"]
    with run.open(other, command=COMMAND, may_differ=("workers", "optimiser")):
        assert run.read_settings()["workers"] == 4


def test_resuming_with_other_packages_says_so(run: RunFolder) -> None:
    config = json.loads(run.config.read_text())
    config["starts"][0]["versions"]["torch"] = "2.0.0"
    run.config.write_text(json.dumps(config))
    with run.open(SETTINGS, command=COMMAND):
        assert run.notes == (
            f"torch was 2.0.0 and is {torch.__version__}: the rest of the run may differ from an uninterrupted one.",
        )


@pytest.mark.parametrize("text", ["not JSON", "[]", '{"settings": {}}', '{"settings": 1, "starts": [1]}'])
def test_a_configuration_of_something_else_is_refused(run: RunFolder, text: str) -> None:
    run.config.write_text(text)
    with pytest.raises(UsageError, match="is not the configuration of a run"):
        run.open(SETTINGS, command=COMMAND)


def test_resuming_where_no_run_is_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no run .*Omit --resume"):
        RunFolder(tmp_path / "none").open(SETTINGS, command=COMMAND)
    assert not list(tmp_path.iterdir())


def test_one_process_at_a_time(run: RunFolder, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOCK_SECONDS", 0)
    with run.open(SETTINGS, command=COMMAND), pytest.raises(UsageError, match="Another process trains in"):
        RunFolder(run.path).open(SETTINGS, command=COMMAND)
    with RunFolder(run.path).open(SETTINGS, command=COMMAND):  # let in again
        pass


def test_the_state_comes_back(run: RunFolder) -> None:
    assert run.load_state() is None
    state: dict[str, Any] = {
        "step": 7,
        "weights": torch.rand(3, 2),
        "schedule": [0.1, (1, "a")],
        "random": torch.get_rng_state(),
    }
    run.save_state(state)
    found = run.load_state()
    assert found is not None
    assert found.keys() == state.keys()
    assert torch.equal(found["weights"], state["weights"])
    assert torch.equal(found["random"], state["random"])
    assert (found["step"], found["schedule"]) == (7, [0.1, (1, "a")])


def test_a_damaged_state_names_what_stays(run: RunFolder) -> None:
    run.save_state({"step": 1, "weights": torch.rand(1000)})
    run.state.write_bytes(run.state.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"cannot be resumed\. best\.safetensors and last\.safetensors stay usable"):
        run.load_state()


def test_a_full_disk_keeps_the_earlier_state(run: RunFolder) -> None:
    run.save_state({"step": 1, "weights": torch.zeros(10)})
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # else the process is ended; so write() fails
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"The earlier one is kept\. Make room .* --resume"):
            run.save_state({"step": 2, "weights": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    found = run.load_state()
    assert found is not None
    assert found["step"] == 1
    assert not [entry for entry in run.path.iterdir() if entry.name.endswith(".part")]


def test_weights_are_kept_exactly(run: RunFolder, tiny_model: Path) -> None:
    network, card = load_checkpoint(tiny_model)
    with torch.no_grad():
        next(network.parameters()).fill_(1 / 3)  # which float16 would round
    run.save_best(network, card)
    run.save_last(network, card)
    for path in (run.best, run.last):
        again, its_card = load_checkpoint(path)
        assert its_card == card
        for name, tensor in network.state_dict().items():
            assert torch.equal(again.state_dict()[name], tensor), name


def test_the_readme_is_replaced(run: RunFolder) -> None:
    run.write_readme("# One\n" * 100)
    run.write_readme("# Zwölf\n")
    assert run.readme.read_text("utf-8") == "# Zwölf\n"


_KILLED_OVER_AND_OVER = """
import os, random, signal, sys, time
import torch
from nonlocal_video.training.run_folder import RunFolder

run, random = RunFolder(sys.argv[1]), random.Random(0)
cut_short = 0
for _ in range(12):
    child = os.fork()
    if child == 0:  # saves until it is killed; the two parts of a state belong together
        with run.open({}, command=()):
            if os.fork() == 0:  # like a loading worker, it has what its parent has open, and outlives it
                time.sleep(1)
                os._exit(0)
            step = (run.load_state() or {"step": 0})["step"]
            while True:
                step += 1
                run.save_state({"step": step, "weights": torch.full((1_000_000,), step)})
    before = run.state.stat().st_mtime_ns if run.state.exists() else 0
    while not run.state.exists() or run.state.stat().st_mtime_ns == before:  # however slow the machine is
        time.sleep(0.001)
    time.sleep(0.05 * random.random())
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    cut_short += (run.path / ".state.pt.part").exists()
    state = run.load_state()
    assert (state["weights"] == state["step"]).all(), state
print(cut_short, state["step"])
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_whole_state_and_no_lock(run: RunFolder) -> None:
    config = json.loads(run.config.read_text())
    run.config.write_text(json.dumps({**config, "settings": {}}))
    done = subprocess.run(
        [sys.executable, "-c", _KILLED_OVER_AND_OVER, str(run.path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    cut_short, steps = map(int, done.stdout.split())
    assert cut_short >= 1  # else nothing was tested
    assert steps >= 12  # each went on from what the one before had saved


def test_a_run_s_images_take_the_place_of_a_link(tmp_path: Path, manifest: Manifest) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.images.symlink_to(precious)
    RunData(manifest, images=(ImageRow("a.png", "0" * 64, 8, 6),)).write_unlabelled(folder)
    assert precious.read_text() == "precious"
    assert [row["path"] for row in json.loads(folder.images.read_text())] == [os.path.abspath("a.png")]


@pytest.mark.parametrize("name", [".lock", ".config.json.part", ".manifest.csv.part"])
def test_a_new_run_writes_through_no_link(tmp_path: Path, manifest: Manifest, name: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    run = tmp_path / "run"
    run.mkdir()
    (run / name).symlink_to(precious)
    with pytest.raises(UsageError, match="is a link"):
        RunFolder(run).create({"epochs": 1}, manifest, command=["train"])
    assert precious.read_text() == "precious"
    assert not (run / "config.json").exists()


@pytest.mark.parametrize("kind", ["link", "hard link"])
def test_metrics_are_appended_to_no_other_file(tmp_path: Path, kind: str) -> None:
    from nonlocal_video.training.metrics import MetricsWriter

    precious = tmp_path / "precious"
    precious.write_text("step,epoch\n")
    if kind == "link":
        (tmp_path / "metrics.csv").symlink_to(precious)
    else:
        (tmp_path / "metrics.csv").hardlink_to(precious)
    with pytest.raises(UsageError, match=kind):
        MetricsWriter(tmp_path / "metrics.csv", tmp_path / "tensorboard", resume_step=5)
    assert precious.read_text() == "step,epoch\n"


def test_a_resumed_run_does_not_go_on_with_other_metrics(tmp_path: Path, manifest: Manifest) -> None:
    with RunFolder(tmp_path / "run").create({"epochs": 1}, manifest, command=["train"]) as folder:
        folder.metrics.write_text("step,epoch,train/loss\n2,1.0,0.75\n4,2.0,0.5\n")
        folder.save_state({"step": 4})
        whole = folder.metrics.read_bytes()
        folder.metrics.write_bytes(whole + b"6,3.0,0.25\n")  # killed after the row, before the state
        assert folder.load_state() == {"step": 4}
        for place in range(len(whole)):
            folder.metrics.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            line = whole[:place].count(b"\n") + 1
            with pytest.raises(ModelError, match=rf"Line {line} of .*cannot be resumed.*Put the file back"):
                folder.load_state()
        folder.metrics.write_bytes(whole[:-12])
        with pytest.raises(ModelError, match=r"Line 2 of .* is missing or was changed"):
            folder.load_state()
        folder.metrics.unlink()
        with pytest.raises(ModelError, match="cannot be resumed"):
            folder.load_state()


def test_settings_nested_deeper_than_a_parser_goes_are_a_sentence(tmp_path: Path, manifest: Manifest) -> None:
    RunFolder(tmp_path / "run").create({"epochs": 1}, manifest, command=["train"]).close()
    (tmp_path / "run" / "config.json").write_text("[" * 100_000)
    with pytest.raises(UsageError, match="is not the configuration of a run"):
        RunFolder(tmp_path / "run").read_settings()
