"""`make demo MODEL=NAME` from a publisher's server on this machine, and which models are recommended."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_tensors import THIN, random_state, save_caffe2
from weights_server import Publisher, serving

import nonlocal_video as nlv
from nonlocal_video.cli.demo import demo
from nonlocal_video.errors import UsageError
from nonlocal_video.models.checkpoint import build_network
from nonlocal_video.video.encode import write_video
from nonlocal_video.zoo import catalogue, convert
from nonlocal_video.zoo.entry import CatalogueEntry, Licence

ROOT = Path(__file__).resolve().parents[2]
NAME = "i3d-nl-r50-8x8-k400-pyslowfast"


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    """Serves a file like the publisher's, by formula and an eighth as wide; the catalogue's row is of that network."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "nonlocal_video_offline"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("NONLOCAL_VIDEO_WEIGHTS", str(tmp_path / "weights"))
    file = save_caffe2(tmp_path / "published.pkl", random_state("pyslowfast_I3D_NLN_8x8_R50.caffe2_blobs"))
    catalogue._shapes.cache_clear()  # of the row as published
    with serving(Publisher(file.read_bytes())) as server:
        _put_row(_thin_row(server), monkeypatch)
        yield server
    catalogue._shapes.cache_clear()


def _thin_row(server: Publisher) -> CatalogueEntry:
    row = catalogue.entry(NAME)
    assert row.download is not None
    assert row.last_features[0] == 2048
    thin = replace(
        row,
        config={**row.config, "width": 64 // THIN},
        input=replace(row.input, short_side=112, crop=112),
        download=replace(row.download, url=server.url(), sha256=None),
        last_features=(2048 // THIN, 4, 4, 4),
        head_window=None,
        licence=Licence("CC-BY-NC-4.0", non_commercial=True),
    )
    with torch.device("meta"):
        network = build_network(thin.card)
    return replace(thin, parameters=sum(parameter.numel() for parameter in network.parameters()))


def _put_row(row: CatalogueEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {**catalogue.entries(), row.name: row}
    for module in (catalogue, convert):
        monkeypatch.setattr(module, "entries", lambda: rows)
    monkeypatch.setattr(convert, "entry", rows.__getitem__)


@pytest.fixture
def clip(tmp_path: Path) -> str:
    frames = np.random.default_rng(0).integers(0, 255, (40, 112, 112, 3), dtype=np.uint8)
    write_video(tmp_path / "clip.mp4", iter(frames), fps=15)
    return str(tmp_path / "clip.mp4")


@pytest.mark.slow
def test_a_published_model_is_fetched_and_shown(
    publisher: Publisher, clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=r"may not be used commercially.*--accept-licence"):
        demo(clip, tmp_path / "demo", model=NAME)
    assert publisher.requests == []
    demo(clip, tmp_path / "demo", model=NAME, accept_licence=True)
    said = capsys.readouterr().out
    assert "its publisher gives none to compare" in said
    assert NAME in said
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {"overlay.mp4", "evidence.mp4"}
    with nlv.load(NAME, download=True, device="cpu") as recognizer:
        blocks = recognizer.network.nonlocal_layers()
        assert len(blocks) == 5
        assert not any(block.is_identity for block in blocks.values())  # they count, as trained ones do
        assert recognizer.network.nonlocal_stages == [2, 3]
    assert len(publisher.requests) == 1


@pytest.mark.parametrize(
    ("variables", "arguments"),
    [
        ((), ""),
        (("MODEL=name-of-it", "CLIP=a.mp4"), "--model name-of-it a.mp4"),
        (("MODEL=name-of-it", "ACCEPT_LICENCE=1"), "--model name-of-it --accept-licence"),
    ],
)
def test_make_hands_the_model_on(variables: tuple[str, ...], arguments: str) -> None:
    command = ["make", "--dry-run", "--always-make", "demo", *variables]
    # As from a shell: these tests are run by make, whose own settings would be handed on.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    shown = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1].split("nonlocal_video.cli.demo")[1].split() == arguments.split()


def test_recommended_names_exist_and_free_licences_come_first() -> None:
    names = list(catalogue.recommended())
    assert names[0] == catalogue.DEFAULT
    rows = [catalogue.entry(name) for name in names[1:]]
    assert all(row.download is not None and not row.download.by_hand for row in rows)
    bound = [row.licence.non_commercial for row in rows]
    assert bound == sorted(bound)
    assert all(why.endswith(".") and len(why) < 120 for why in catalogue.recommended().values())


def test_what_is_said_of_the_recommended_ones_is_true() -> None:
    with_blocks = [
        row
        for row in catalogue.entries().values()
        if row.download and row.accuracy and row.config.get("nonlocal_blocks") and not row.licence.non_commercial
    ]
    free = [row for row in catalogue.entries().values() if row.accuracy and not row.licence.non_commercial]
    reasons = catalogue.recommended()
    best, best_with_blocks = (max(rows, key=lambda row: row.accuracy.top1) for rows in (free, with_blocks))
    cheapest = min((row for row in with_blocks if row.gmacs), key=lambda row: row.gmacs or 0)
    assert "highest published accuracy of all" in reasons[best.name]
    assert "highest published accuracy among those with trained non-local blocks" in reasons[best_with_blocks.name]
    assert "fewest operations" in reasons[cheapest.name]
    (pair,) = (why for why in reasons.values() if "i3d-r50-8x8-k400-pyslowfast" in why)
    assert pair == reasons[NAME]
    plain = {**catalogue.entry(NAME).config, "nonlocal_blocks": None}
    assert {**catalogue.entry("i3d-r50-8x8-k400-pyslowfast").config, "nonlocal_blocks": None} == plain
    (dot,) = (name for name, why in reasons.items() if "dot-product" in why)
    kernels = {block["nonlocal_type"] for block in catalogue.entry(dot).config["nonlocal_blocks"].values()}
    assert kernels == {"dot_product"}


def test_the_recommended_ones_are_listed(run: Callable[..., Any]) -> None:
    rows = json.loads(run("weights", "list", "--recommended", "--json").out)
    assert {row["name"]: row["why"] for row in rows} == catalogue.recommended()
    assert rows[-1]["non_commercial"]
    table = run("weights", "list", "--recommended").out
    assert table.index("CC-BY-NC-4.0 (non-commercial)") > table.index("Start here.")
    assert all(name in table for name in catalogue.recommended())
