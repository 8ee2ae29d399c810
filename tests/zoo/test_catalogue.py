"""The catalogue: every row is a network that can be built, with the numbers its publisher states."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import TypeAdapter
from torch.utils.flop_counter import FlopCounterMode

import nonlocal_video as nlv
from nonlocal_video.errors import ModelError
from nonlocal_video.models.checkpoint import build_network, load_checkpoint, read_card, save_checkpoint
from nonlocal_video.models.resnet3d import Video3DResNet
from nonlocal_video.models.torchvision_network import TorchvisionNetwork
from nonlocal_video.zoo import catalogue
from nonlocal_video.zoo.catalogue import EMBEDDED, entries, entry, find
from nonlocal_video.zoo.catalogue_file import read_yaml
from nonlocal_video.zoo.entry import CatalogueEntry, Download
from nonlocal_video.zoo.labels import read_labels
from nonlocal_video.zoo.listing import embedded_row

NAMES = list(entries())
STATED_PARAMETERS = {  # by the publishers or their code
    "i3d-nl-r50-8x8-k400-pyslowfast": 35_401_936,
    "i3d-r50-8x8-k400-pyslowfast": 28_043_472,
    "slow-r50-8x8-k400-pyslowfast": 32_454_096,
    "slow-nl-dot-r50-4x16-k400-pyslowfast": 39_812_560,
    "c2d-nl-r50-8x8-k400-pyslowfast": 31_686_096,
    "i3d-nl-r50-32x2-k400-caffe2": 35_401_936,
    "i3d-nl-dot-r50-32x2-k400-mmaction2": 35_397_840,
    "i3d-nl-embedded-r50-32x2-k400-mmaction2": 35_397_840,
    "i3d-nl-gaussian-r50-32x2-k400-mmaction2": 31_723_728,
    "i3d-r50-32x2-k400-mmaction2": 28_043_472,
    "slowonly-nl-embedded-r50-4x16-k400-mmaction2": 39_808_464,
    "slow-r50-8x8-k400-pytorchvideo": 32_454_096,
    "i3d-r50-8x8-k400-pytorchvideo": 28_043_472,
    "c2d-r50-8x8-k400-pytorchvideo": 24_327_632,
    "r3d-18-k400-torchvision": 33_371_472,
    "mc3-18-k400-torchvision": 11_695_440,
    "r2plus1d-18-k400-torchvision": 31_505_325,
    "mvit-v2-s-k400-torchvision": 34_537_744,
    "swin3d-t-k400-torchvision": 28_158_070,
    "r3d-34-k700-kenshohara": 63_872_636,
}


@lru_cache
def network(config: str, name: str) -> Any:
    with torch.device("meta"):
        built = build_network(entry(name).card).eval()
    assert isinstance(built, Video3DResNet if entry(name).architecture == "resnet3d" else TorchvisionNetwork)
    return built


def on_meta(name: str) -> Any:
    """Networks of one configuration are built once."""
    config = json.dumps(entry(name).config, sort_keys=True)
    first = next(other for other in NAMES if json.dumps(entry(other).config, sort_keys=True) == config)
    return network(config, first)


def test_both_yaml_parsers_read_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """libyaml is taken where PyYAML has it, and PyYAML alone elsewhere."""
    text = (Path(__file__).parents[2] / "weights" / "catalogue.yaml").read_text("utf-8")
    by_default = read_yaml(text)
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert read_yaml(text) == by_default == yaml.safe_load(text)


def test_names_are_unique() -> None:
    rows = yaml.safe_load((Path(__file__).parents[2] / "weights" / "catalogue.yaml").read_text("utf-8"))["checkpoints"]
    assert [row["name"] for row in rows] == NAMES
    assert len(set(NAMES)) == len(rows)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_rows(name: str) -> None:
    row = entry(name)
    built = on_meta(name)
    assert sum(parameter.numel() for parameter in built.parameters()) == row.parameters
    assert row.parameters == STATED_PARAMETERS.get(name, row.parameters)
    card = row.card
    assert len(card.labels) == built.get_submodule(built.head_layer).out_features
    blocks = built.nonlocal_layers() if row.architecture == "resnet3d" else {}
    assert (card.explain_layer is None) == (not blocks)
    assert card.explain_layer is None or card.explain_layer in blocks
    assert row.licence.non_commercial == (row.source == "video-nonlocal-net")
    assert (row.accuracy is None) == (row.download is None or row.source == "kenshohara")
    assert TypeAdapter(CatalogueEntry).validate_python(json.loads(json.dumps(row.to_dict()))) == row


@pytest.mark.parametrize("name", [name for name in NAMES if entry(name).head_window])
def test_windows_are_the_last_features_of_224_pixels(name: str) -> None:
    """There is one at 224 pixels, and there are 2 x 2 at 256."""
    row = entry(name)
    clip = torch.empty(1, 3, row.input.num_frames, 224, 224, device="meta")
    assert tuple(on_meta(name).extract_features(clip, ["stage4"])["stage4"].shape[2:]) == row.head_window
    assert row.last_features[1:] == row.head_window


@lru_cache
def counted_gmacs(name: str) -> float:
    row = entry(name)
    side = row.view_side
    built = on_meta(name)
    if name.startswith("i3d-nl-dot"):
        # Stated with its map of all pairs, which ours never makes: as many as the softmax's.
        built = on_meta(name.replace("-dot-", "-embedded-"))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        built(torch.empty(1, 3, row.input.num_frames, side, side, device="meta"))
    return counter.get_total_flops() / 2e9


@pytest.mark.parametrize("name", [name for name in NAMES if entry(name).gmacs and not name.endswith("-v0")])
@pytest.mark.slow
def test_stated_multiply_accumulates(name: str) -> None:
    assert counted_gmacs(name) == pytest.approx(entry(name).gmacs, rel=0.01)


@pytest.mark.parametrize(("name", "count"), [("kinetics400", 400), ("kinetics600", 600), ("kinetics700", 700)])
def test_label_lists(name: str, count: int) -> None:
    labels = read_labels(name)
    assert len(labels) == len(set(labels)) == count
    assert all(label == label.strip() and label for label in labels)
    if name != "kinetics400":  # whose order has the capital of "passing American football" as a small letter
        assert list(labels) == sorted(labels)


def test_kinetics_700_in_the_order_of_3d_resnets() -> None:
    """Lines of the list in issue 211 of 3D-ResNets-PyTorch, here and there."""
    labels = read_labels("kinetics700_3d_resnets")
    assert sorted(labels) == sorted(read_labels("kinetics700"))
    assert {
        0: "slicing onion",
        61: "throwing snowballs",
        184: "making tea",
        246: "using inhaler",
        291: "passing American football (in game)",
        362: "waxing back",
        456: "canoeing or kayaking",
        520: "smelling feet",
        597: "walking on stilts",
        666: "gospel singing in church",
    }.items() <= dict(enumerate(labels)).items()


def test_kinetics_lists_overlap_as_they_should() -> None:
    k400, k600, k700 = (set(read_labels(f"kinetics{count}")) for count in (400, 600, 700))
    assert len(k400 & k600) == 368  # the others are new or renamed
    assert sorted(k600 - k700) == [
        "bull fighting",
        "chopping vegetables",
        "passing american football (not in game)",  # in Kinetics-700 with a capital
        "picking fruit",
    ]


def test_inputs_are_in_this_projects_terms() -> None:
    caffe2 = entry("i3d-nl-r50-32x2-k400-caffe2").card.input
    assert caffe2.mean == pytest.approx((0.45,) * 3)
    assert caffe2.std == pytest.approx((0.225,) * 3)
    assert (caffe2.frame_stride, caffe2.rate_in(25)) == (2, 12.5)
    torchvision = entry("r3d-18-k400-torchvision").card.input
    assert (torchvision.frame_stride, torchvision.frames_per_second) == (None, 15)
    assert (torchvision.resize_to, torchvision.antialias) == ((128, 171), False)


def test_torchvisions_own_metadata_say_the_same() -> None:
    from torchvision.models import video

    for model, weights in (("r3d", "R3D"), ("mc3", "MC3"), ("r2plus1d", "R2Plus1D")):
        row = entry(f"{model}-18-k400-torchvision")
        published = getattr(video, f"{weights}_18_Weights").KINETICS400_V1
        transforms = published.transforms()
        assert row.download is not None
        assert row.accuracy is not None
        assert row.download.url == published.url
        assert published.url.endswith(f"-{row.download.sha256}.pth")
        metrics = published.meta["_metrics"]["Kinetics-400"]
        assert (row.accuracy.top1, row.accuracy.top5) == (metrics["acc@1"], metrics["acc@5"])
        assert row.parameters == published.meta["num_params"]
        assert row.download.size_mb == pytest.approx(published.meta["_file_size"] * 2**20 / 1e6, abs=0.05)
        assert row.gmacs == pytest.approx(published.meta["_ops"], abs=0.01)
        assert list(row.card.labels) == published.meta["categories"]
        assert list(row.input.mean) == list(transforms.mean)
        assert list(row.input.std) == list(transforms.std)
        assert (row.input.resize_to, row.input.crop) == (tuple(transforms.resize_size), transforms.crop_size[0])


def test_build_by_name() -> None:
    with torch.device("meta"):
        built = nlv.build("slow-nl-dot-r50-4x16-k400-pyslowfast")
    assert isinstance(built, Video3DResNet)
    with pytest.raises(ModelError, match=r"Did you mean i3d-nl-r50-8x8-k400-(pyslowfast|caffe2)"):
        nlv.build("i3d-nl-r50-8x8-k400")


def test_networks_without_weights_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NONLOCAL_VIDEO_WEIGHTS", str(tmp_path))
    with pytest.raises(ModelError, match=r"No weights were ever published.*nlv\.build"):
        catalogue.find("c2d-nl-r50-8x8-k400-pyslowfast")
    with pytest.raises(ModelError, match="weights pull i3d-nl-r50-8x8-k400-caffe2"):
        catalogue.find("i3d-nl-r50-8x8-k400-caffe2")


def test_the_card_survives_the_file(tmp_path: Path) -> None:
    row = entry("r3d-18-k400-torchvision")
    card = replace(row.card, config={**row.config, "width": 8})
    save_checkpoint(tmp_path / "a.safetensors", build_network(card), card, dtype=torch.float32)
    assert load_checkpoint(tmp_path / "a.safetensors")[1] == card


def test_pulled_weights_of_another_catalogue_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NONLOCAL_VIDEO_WEIGHTS", str(tmp_path))
    row = entry("mc3-18-k400-torchvision")
    wrong = replace(
        row.card, config={**row.config, "stem_pool": {"kernel": [1, 3, 3], "stride": [1, 2, 2], "padding": [0, 1, 1]}}
    )
    path = catalogue.weights_path(row.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, build_network(wrong), wrong, dtype=torch.float16)
    with pytest.raises(ModelError, match=f"catalogue described '{row.name}' differently.*weights pull {row.name}"):
        nlv.load(row.name)
    save_checkpoint(path, build_network(row.card), replace(row.card, notes=("Another note.",)), dtype=torch.float16)
    assert nlv.load(row.name).card.config == row.config


def test_changing_a_card_leaves_the_catalogue_alone() -> None:
    card = entry("i3d-nl-r50-8x8-k400-pyslowfast").card
    card.config["nonlocal_blocks"]["layer2.1"]["scale"] = None
    assert entry("i3d-nl-r50-8x8-k400-pyslowfast").config["nonlocal_blocks"]["layer2.1"]["scale"] == "inverse_sqrt"


def test_sizes_are_stated_or_estimated_from_the_parameters() -> None:
    assert entry("mc3-18-k400-torchvision").download_mb == 46.8
    assert entry("i3d-nl-r50-8x8-k400-pyslowfast").download_mb == pytest.approx(4 * 35.401936)
    assert entry("c2d-nl-r50-8x8-k400-pyslowfast").download_mb is None
    with pytest.raises(ValueError, match="size_mb = -1 should be above 0"):
        Download("https://example.org/a.pth", "torch", size_mb=-1)


@pytest.mark.parametrize("hash_", ["abc", "G" * 8, "A" * 64])
def test_bad_hashes(hash_: str) -> None:
    with pytest.raises(ValueError, match="should be 8 or 64 lower-case hex digits"):
        Download("https://example.org/a.pth", "torch", hash_)


def test_stated_sizes_of_the_embedded_models() -> None:
    for name in EMBEDDED:
        card = read_card(find(name))
        with torch.device("meta"):
            network = build_network(card).eval()
        clip = torch.empty(1, 3, card.input.num_frames, card.input.crop, card.input.crop, device="meta")
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            network(clip)
        row = embedded_row(name)
        assert row["parameters"] == sum(parameter.numel() for parameter in network.parameters())
        assert row["gmacs"] == pytest.approx(counter.get_total_flops() / 2e9, abs=0.05)
