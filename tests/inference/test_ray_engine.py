"""Runs on Ray Data give the local engine's rows, of scores and of features, and lose none when a process dies."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import ray

import nonlocal_video as nlv
from nonlocal_video.cli.classify import classify as classify_verb
from nonlocal_video.inference.device_errors import device_failed
from nonlocal_video.inference.files import find_files
from nonlocal_video.inference.options import RunOptions
from nonlocal_video.inference.ray import engine as cluster
from nonlocal_video.inference.ray import features
from nonlocal_video.inference.ray.engine import Cluster, ClusterJob, classify_on_ray, connect
from nonlocal_video.inference.ray.parts import PartFolder
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.models.checkpoint import read_card
from nonlocal_video.video.encode import write_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def running_ray() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture
def job(tiny_model: Path) -> ClusterJob:
    return ClusterJob(str(tiny_model), read_card(tiny_model).input, ClipRequest(), RunOptions(device="cpu"), top_k=3)


def table(path: Path) -> list[dict[str, Any]]:
    """The rows without what differs between any two runs, in name order."""
    rows = pq.read_table(path).to_pylist()
    kept = [{name: value for name, value in row.items() if not name.startswith("seconds_")} for row in rows]
    return sorted(kept, key=lambda row: str(row["path"]))


def run_verb(*paths: Path, **options: object) -> int:
    """`nonlocal-video classify` in this process: its exit status."""
    defaults: dict[str, Any] = {"views": "1x1", "top_k": 3, "batch_size": 2, "device": "cpu"}
    try:
        classify_verb([str(path) for path in paths], **(defaults | options))
    except BaseException as stopped:
        if not hasattr(stopped, "exit_code"):
            raise
        return int(stopped.exit_code)
    return 0


def test_the_table_is_the_local_engines(running_ray: None, tiny_model: Path, clip_folder: Path, tmp_path: Path) -> None:
    from nonlocal_video.cli.options import Engine

    missing, strays = clip_folder / "gone.mp4", tmp_path / "strays"
    strays.mkdir()
    for name in ("notes.txt", ".DS_Store", "clip.srt"):
        (strays / name).write_text("x")
    here, there = tmp_path / "here.parquet", tmp_path / "there.parquet"
    assert run_verb(clip_folder, strays, missing, model=str(tiny_model), output=str(here)) == 1
    assert run_verb(clip_folder, strays, missing, model=str(tiny_model), output=str(there), engine=Engine.ray) == 1
    local, clustered = table(here), table(there)
    assert [row["error_code"] for row in local] == [None, None, "not_a_video", "not_found", None]
    assert pq.read_schema(here) == pq.read_schema(next(there.glob("*.parquet")))
    for ours, theirs in zip(local, clustered, strict=True):
        scores = [name for name in ours if name.endswith("_score")]
        assert {k: v for k, v in ours.items() if k not in scores} == {
            k: v for k, v in theirs.items() if k not in scores
        }
        assert [ours[name] for name in scores] == pytest.approx([theirs[name] for name in scores], abs=1e-6)


def test_the_table_of_features_is_the_local_engines(
    running_ray: None, run: Callable[..., Any], tiny_model: Path, clip_folder: Path, tmp_path: Path
) -> None:
    """Nine files, one of which is no video; the first is the last to be done."""
    clips = Path(shutil.copytree(clip_folder, tmp_path / "clips"))
    for number in range(5):
        shutil.copy(clips / ("a.mp4" if number % 2 else "b/c.mp4"), clips / f"clip{number}.mp4")
    write_video(clips / "a.mp4", (np.full((72, 96, 3), number % 256, np.uint8) for number in range(900)), fps=10)
    here, there = tmp_path / "here.parquet", tmp_path / "there.parquet"
    with nlv.load(tiny_model, device="cpu") as recognizer:
        nlv.extract_features(recognizer, clips, output=here)
    arguments = ("features", clips, "--output", there, "--model", tiny_model, "--engine", "ray", "--ray-actors", "2")
    done = run(*arguments)
    assert done.status == 1, done.err  # the file that is no video
    expected = [
        row | {"feature": row["feature"] and pytest.approx(row["feature"], rel=1e-5, abs=1e-4)}
        for row in pq.read_table(here).to_pylist()
    ]
    assert pq.read_table(there).to_pylist() == expected
    assert "9 of them done before" in run(*arguments, "--resume").err


def test_a_killed_actor_costs_no_row(running_ray: None, job: ClusterJob, clip_folder: Path, tmp_path: Path) -> None:
    names = []
    for number in range(120):
        names.append(str(tmp_path / f"{number:03}.mp4"))
        shutil.copy(clip_folder / ("a.mp4" if number % 3 else "b/note.mp4"), names[-1])
    killed: list[int] = []

    def kill_the_network() -> None:
        deadline = time.monotonic() + 60
        while not killed and time.monotonic() < deadline:
            for process in psutil.process_iter(["cmdline"]):
                if any("_Network" in part for part in process.info["cmdline"] or ()):
                    time.sleep(0.5)  # let it begin
                    process.kill()
                    killed.append(process.pid)
                    return
            time.sleep(0.02)

    killer = threading.Thread(target=kill_the_network)
    killer.start()
    output = PartFolder(str(tmp_path / "out.parquet"), {}, top_k=3, resume=False)
    rows = classify_on_ray(names, job, Cluster())
    assert rows is not None
    output.write(rows)
    killer.join()
    assert killed
    written = table(tmp_path / "out.parquet")
    assert [row["path"] for row in written] == names
    assert [row["status"] for row in written] == ["ok" if number % 3 else "error" for number in range(120)]
    assert output.counts() == {"ok": 80, "not_a_video": 40}


def test_a_cut_off_run_is_taken_up(running_ray: None, job: ClusterJob, clip_folder: Path, tmp_path: Path) -> None:
    files = list(find_files([clip_folder]))
    url = str(tmp_path / "out.parquet")

    def go_on(some: list[str], *, resume: bool, settings: dict[str, Any]) -> PartFolder:
        output = PartFolder(url, settings, top_k=3, resume=resume)
        rows = classify_on_ray(output.still_to_do(some), job, Cluster())
        if rows is not None:
            output.write(rows)
        return output

    go_on(files[:2], resume=False, settings={"views": "1x1"})
    with pytest.raises(nlv.UsageError, match=r"exists\. Use --resume"):
        PartFolder(url, {"views": "1x1"}, top_k=3, resume=False)
    with pytest.raises(nlv.UsageError, match="views was '1x1' and is '10x3'"):
        PartFolder(url, {"views": "10x3"}, top_k=3, resume=True)
    cut_off = tmp_path / "out.parquet" / "cut_off.parquet"
    whole = next((tmp_path / "out.parquet").glob("*.parquet")).read_bytes()
    cut_off.write_bytes(whole[: len(whole) // 2])
    second = go_on(files, resume=True, settings={"views": "1x1"})
    assert second.done_before.total() == 2
    assert not cut_off.exists()
    assert [row["path"] for row in table(tmp_path / "out.parquet")] == sorted(files)
    assert go_on(files, resume=True, settings={"views": "1x1"}).done_before.total() == len(files)


def test_clips_and_table_may_be_urls(running_ray: None, job: ClusterJob, clip_folder: Path, tmp_path: Path) -> None:
    files = list(find_files([f"file://{clip_folder}"]))
    assert sorted(files) == sorted(f"file://{path}" for path in find_files([clip_folder]))
    output = PartFolder(f"file://{tmp_path}/out.parquet", {}, top_k=3, resume=False)
    rows = classify_on_ray([*files, "file:///no/such.mp4"], job, Cluster())
    assert rows is not None
    output.write(rows)
    written = {row["path"]: row["error_code"] for row in table(tmp_path / "out.parquet")}
    assert len(written) == len(files) + 1
    assert written["file:///no/such.mp4"] == "not_found"
    assert written[f"file://{clip_folder}/a.mp4"] is None


@pytest.mark.parametrize(
    ("verb", "options", "said"),
    [
        ("classify", ("--output", "t.parquet"), "What is done is kept; the same command with --resume continues."),
        ("classify", ("--json",), "or use another --device."),
        ("features", ("--output", "t.parquet"), "What is done is kept; the same command with --resume continues."),
    ],
)
def test_a_device_that_fails_in_an_actor_ends_the_run_with_its_sentence(
    running_ray: None,
    run: Callable[..., Any],
    tiny_model: Path,
    clip_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    options: tuple[str, ...],
    said: str,
) -> None:
    def dying(_self: object, _files: object) -> None:
        raise device_failed("cuda:0", RuntimeError("CUDA error: an illegal memory access was encountered"))

    monkeypatch.chdir(tmp_path)
    command = (verb, clip_folder, "--model", tiny_model, "--device", "cpu", "--engine", "ray", *options)
    with monkeypatch.context() as patch:
        for module, name in ((cluster, "_Network"), (features, "_Features")):
            patch.setattr(module, name, type(name, (getattr(module, name),), {"__call__": dying}))
        done = run(*command)
    assert done.status == 3
    assert done.err.splitlines()[-1].startswith("The device cuda:0 failed: CUDA error: an illegal memory access was ")
    assert done.err.endswith(f"{said}\n")
    # That --resume does the rest is the test of a run that is cut off: in this process Ray keeps the CPUs of the failed
    # one, and another would wait for them, as would any test after this one.


def test_wrong_use_says_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(nlv.UsageError, match=r"name should end in \.parquet"):
        PartFolder(str(tmp_path / "out.csv"), {}, top_k=3, resume=False)
    with pytest.raises(nlv.UsageError, match="actors = 0 should be at least 1"):
        Cluster(actors=0)
    with pytest.raises(nlv.UsageError, match="cpus_per_actor = -1"):
        Cluster(cpus_per_actor=-1)


def test_without_ray_the_extra_is_named_before_an_output_is_begun(
    tiny_model: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nonlocal_video.cli.options import Engine

    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    options = {"engine": Engine.ray, "model": str(tiny_model), "output": str(tmp_path / "out.parquet")}
    for use in (Cluster, lambda: run_verb(clip_folder, **options)):
        with pytest.raises(nlv.UsageError, match=r"needs Ray Data: pip install 'nonlocal-video\[ray\]'"):
            use()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_a_numbered_card_means_nothing_inside_an_actor(device: str, job: ClusterJob) -> None:
    with pytest.raises(nlv.UsageError, match=f"device = '{device}' with engine = 'ray'.*Use auto, cpu or cuda"):
        replace(job, options=RunOptions(device=device))


@pytest.mark.parametrize(
    ("device", "gpus", "said"),
    [
        ("auto", 1.0, "gpus_per_actor = 1, but the cluster has no GPU"),
        ("cuda", None, "device = 'cuda', but the cluster has no GPU"),
        ("cpu", 0.5, "gpus_per_actor = 0.5, but the networks run on the CPU"),
    ],
)
def test_gpus_that_are_not_there_are_not_waited_for(
    device: str, gpus: float | None, said: str, job: ClusterJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "connect", lambda _: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    with pytest.raises(nlv.UsageError, match=said):
        classify_on_ray(["a.mp4"], replace(job, options=RunOptions(device=device)), Cluster(gpus_per_actor=gpus))


def test_no_cluster_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(nlv.UsageError, match=r"ray-address = '127\.0\.0\.1:1': no cluster responds"):
        connect(Cluster(address="127.0.0.1:1"))
