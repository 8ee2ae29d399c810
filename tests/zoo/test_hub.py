"""Models from and to the Hugging Face Hub, against a server on this machine that speaks its API."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import SpaceCard, constants
from huggingface_hub.repocard import ModelCard as HubCard
from typer.testing import CliRunner

import nonlocal_video as nlv
from nonlocal_video.cli.main import app
from nonlocal_video.models.card import ModelCard
from nonlocal_video.models.checkpoint import build_network, save_checkpoint
from nonlocal_video.models.hub_front_matter import front_matter
from nonlocal_video.zoo import hub as hub_module
from nonlocal_video.zoo.hub import HubAddress
from nonlocal_video.zoo.hub_upload import card_for_hub, push
from tests.random_networks import resnet_card
from tests.zoo.hub_server import TOKEN, Hub, serving

NAME = "me/small"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The server, with an empty cache of its own."""
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("NONLOCAL_VIDEO_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("NONLOCAL_VIDEO_WEIGHTS", raising=False)
        monkeypatch.delenv("NONLOCAL_VIDEO_OFFLINE", raising=False)
        hub_module._fetch.cache_clear()
        yield server
        hub_module._fetch.cache_clear()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder, with files that must not leave this machine."""
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    card = replace(resnet_card({}), name="mine")
    torch.manual_seed(0)
    save_checkpoint(folder / "best.safetensors", build_network(card), card, dtype=torch.float32)
    readme = front_matter(card, [replace(card, name="start", licence="Apache-2.0")], metrics={"top1": 0.9})
    readme += (
        f"\n# Model card: mine\n\n## How to use it\n\nnonlocal-video classify --model {folder}\n\n## Classes\n\nx\n"
    )
    (folder / "README.md").write_text(readme)
    (folder / "config.json").write_text(json.dumps({"settings": {}, "starts": [{"command": ["train", "/secret/a"]}]}))
    (folder / "manifest.csv").write_text("path,label\n/secret/a.mp4,a\n")
    (folder / "state.pt").write_bytes(b"state")
    (folder / "metrics.csv").write_text("step\n1\n")
    return folder


def test_a_run_goes_to_the_hub_and_comes_back_the_same(
    hub: Hub, run: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    url = push(run, NAME, notify=said.append)
    files = hub.repositories[NAME][-1]
    assert url == f"{hub.address}/{NAME}/commit/{hub.sha(NAME, 0)}"
    assert set(files) == {"best.safetensors", "config.json", "README.md", "metrics.csv"}
    assert [line.partition(":")[0] for line in said] == list(files)
    assert not any(b"/secret" in content or str(run).encode() in content for content in files.values())
    assert b"--model hf://me/small" in files["README.md"]
    assert hub.private[NAME]
    sha256 = hashlib.sha256((run / "best.safetensors").read_bytes()).hexdigest()
    assert sha256 in said[0]

    with caplog.at_level(logging.WARNING), nlv.load(f"hf://{NAME}", device="cpu") as recognizer:
        assert recognizer.weights_sha256() == sha256
        assert recognizer.card.source == f"hf://{NAME}"
        assert recognizer.labels == resnet_card({}).labels
        fetched = recognizer.network.state_dict()
    for name, tensor in nlv.load(run, device="cpu").network.state_dict().items():
        assert torch.equal(tensor, fetched[name]), name
    assert f"best.safetensors, SHA-256 {sha256}" in caplog.text
    assert "GET /me/small/resolve" in " ".join(hub.requests)
    assert "metrics.csv" not in " ".join(hub.requests)  # what is not needed is not fetched

    hub_module._fetch.cache_clear()
    before = len(hub.requests)
    nlv.load(f"hf://{NAME}", device="cpu").close()
    again = hub.requests[before:]
    assert not [request for request in again if request.startswith("GET") and "safetensors" in request], again

    hub_module._fetch.cache_clear()
    monkeypatch.setenv("NONLOCAL_VIDEO_OFFLINE", "1")
    before = len(hub.requests)
    nlv.load(f"hf://{NAME}", device="cpu").close()
    assert len(hub.requests) == before


def test_pickles_and_code_are_never_fetched(hub: Hub, run: Path) -> None:
    weights = (run / "best.safetensors").read_bytes()
    hub.commit("a/pickles", {"pytorch_model.bin": b"\x80\x04", "config.json": b"{}"})
    with pytest.raises(nlv.ModelError, match=r"no weights in safetensors \(it has pytorch_model.bin, which can run"):
        nlv.load("hf://a/pickles")
    files = {"model.safetensors": weights, "x.bin": b"1", "modeling.py": b"import os", "sub/best.safetensors": b"2"}
    sha = hub.commit("a/mixed", files)
    with nlv.load("hf://a/mixed", device="cpu") as recognizer:  # without a config.json: the only weights file
        assert len(recognizer.labels) == 7
    fetched = [path.name for path in hub_module.fetch(HubAddress.parse("hf://a/mixed")).iterdir()]
    assert fetched == ["model.safetensors"]
    hub.commit("a/mixed", {"model.safetensors": b"another"})
    with nlv.load(f"hf://a/mixed@{sha}", device="cpu") as recognizer:  # a revision stays what it was
        assert len(recognizer.labels) == 7
    assert not [request for request in hub.requests if ".bin" in request or ".py" in request or "sub/" in request]


@pytest.mark.slow
def test_models_of_transformers_answer_as_from_their_folder(hub: Hub, tmp_path: Path) -> None:
    from tests.zoo.transformers_folders import KINDS, small_folder  # skips where transformers is absent

    kinds = {kind: small_folder(tmp_path / kind, kind) for kind in KINDS}
    kinds["older"] = small_folder(tmp_path / "older", legacy=True)
    kinds["nested"] = small_folder(tmp_path / "nested")  # one file for all parts of a processor
    preset = kinds["nested"] / "video_preprocessor_config.json"
    nested = {"processor_class": "VideoMAEProcessor", "video_processor": json.loads(preset.read_text())}
    (kinds["nested"] / "processor_config.json").write_text(json.dumps(nested))
    preset.unlink()
    frames = np.random.default_rng(0).integers(0, 256, (11, 50, 70, 3), np.uint8)
    for kind, folder in kinds.items():
        hub.commit(f"me/{kind}", {path.name: path.read_bytes() for path in folder.iterdir()})
        with nlv.load(folder, device="cpu") as given, nlv.load(f"hf://me/{kind}", device="cpu") as fetched:
            assert fetched.card.input == given.card.input, kind
            expected, found = (one.classify(frames, frames_per_second=5) for one in (given, fetched))
        np.testing.assert_array_equal(found.logits, expected.logits, err_msg=kind)


def test_damage_and_refusals_are_sentences(hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.commit(NAME, {"best.safetensors": (run / "best.safetensors").read_bytes(), "config.json": b"{}"})
    hub.damaged = True
    with pytest.raises(nlv.ModelError, match="instead of the Hub's"):
        nlv.load(f"hf://{NAME}")
    hub.damaged = False
    nlv.load(f"hf://{NAME}", device="cpu").close()  # the damaged file did not stay
    for address, words in {
        "hf://me/none": "no such model or revision",
        f"hf://{NAME}@v9": "no such model or revision",
        "hf://small": "should be hf://owner/name",
        "hf://../../etc": "should be hf://owner/name",
        "hf://me/small@a b": "should be hf://owner/name",
    }.items():
        with pytest.raises(nlv.ModelError, match=words):
            nlv.load(address)
    monkeypatch.setenv("NONLOCAL_VIDEO_OFFLINE", "1")
    with pytest.raises(nlv.ModelError, match=r"is not in the cache .* offline"):
        nlv.load("hf://me/other")
    monkeypatch.delenv("NONLOCAL_VIDEO_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(nlv.ModelError, match=r"is not in the cache .* without a connection"):
        nlv.load("hf://me/other")


def test_an_upload_says_what_is_missing(hub: Hub, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(nlv.ModelError, match="holds no run with weights"):
        push(tmp_path, NAME)
    for name in ("small", "a/b/c", "a/b c"):
        with pytest.raises(nlv.UsageError, match="should be owner/name"):
            push(run, name)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(nlv.ModelError, match=r"answered 401\). Log in with `hf auth login`"):
        push(run, NAME)
    assert hub.repositories == {}


def test_the_verbs_take_the_address(hub: Hub, run: Path) -> None:
    pushed = CliRunner().invoke(app, ["weights", "push", str(run), NAME, "--public"])
    assert pushed.exit_code == 0, pushed.output
    assert pushed.stdout == f"{hub.address}/{NAME}/commit/{hub.sha(NAME, 0)}\n"
    assert not hub.private[NAME]
    shown = CliRunner().invoke(app, ["weights", "info", f"hf://{NAME}", "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["card"]["name"] == "mine"


def test_front_matter_is_what_the_hub_reads() -> None:
    card = resnet_card({})
    start = replace(card, name="i3d-nl-k400", licence="Apache 2.0")
    text = front_matter(card, [start], metrics={"top1": 0.875, "top5": 1.0}, measured_on="8 clips: “a”") + "\n# Card\n"
    data: Any = HubCard(text).data
    assert data.license == "apache-2.0"
    assert data.pipeline_tag == "video-classification"
    assert data.base_model == "i3d-nl-k400"
    assert [(one.metric_name, one.metric_value) for one in data.eval_results] == [("top1", 0.875), ("top5", 1.0)]
    assert data.eval_results[0].dataset_name == "8 clips: “a”"

    def of(*sources: ModelCard) -> Any:
        return HubCard(front_matter(card, sources) + "\n# Card\n").data

    assert of().license == "unknown"
    mixed = of(start, replace(card, licence="CC BY-NC 4.0"))
    assert (mixed.license, mixed.license_name) == ("other", "Apache 2.0 and CC BY-NC 4.0")
    assert of(replace(card, name="module:function")).base_model is None
    assert of(replace(start, source="hf://you/it@v1")).base_model == "you/it"


def test_only_the_commands_of_a_card_change() -> None:
    text = "# A\n\n## How to use it\n\n/home/me/run\n\n## Classes\n\n| a |\n"
    assert card_for_hub(text, "o/n").endswith("\n\n## Classes\n\n| a |\n")
    assert "/home/me" not in card_for_hub(text, "o/n")
    assert card_for_hub("# Mine\n", "o/n") == "# Mine\n"


def test_the_guide_has_the_header_of_a_space() -> None:
    root = Path(__file__).resolve().parents[2]
    block = re.search(r"```yaml\n(---\n.*?---\n)```", (root / "docs" / "hub.md").read_text("utf-8"), re.DOTALL)
    assert block is not None
    space: Any = SpaceCard(block[1]).data
    assert space.sdk == "docker"
    assert f"EXPOSE {space.app_port}" in (root / "Dockerfile").read_text("utf-8")
    assert len(space.short_description) <= 60  # the Hub's limit
