"""Tiny random video classifiers in the format of transformers."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from absent import absent

if find_spec("transformers") is None:
    absent("pip install 'nonlocal-video[transformers]'", whole_module=True)
transformers = import_module("transformers")

KINDS = ("videomae", "videomae_first_token", "timesformer", "vivit", "vjepa2")
LABELS = ("archery", "bowling", "cello", "diving", "eating")
SIDE = 32
_SMALL: dict[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 32,
    "id2label": dict(enumerate(LABELS)), "label2id": {label: index for index, label in enumerate(LABELS)},
    "initializer_range": 0.3,
}  # fmt: skip


def small_model(kind: str, seed: int = 0) -> Any:
    """A random model of one kind, in eval mode."""
    lib = transformers
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind.startswith("videomae"):
            config = lib.VideoMAEConfig(
                image_size=SIDE, patch_size=8, num_frames=8, use_mean_pooling=kind == "videomae", **_SMALL
            )
        elif kind == "timesformer":
            config = lib.TimesformerConfig(image_size=SIDE, patch_size=8, num_frames=4, **_SMALL)
        elif kind == "vivit":
            config = lib.VivitConfig(image_size=SIDE, num_frames=4, tubelet_size=[2, 8, 8], **_SMALL)
        else:
            small = {name: value for name, value in _SMALL.items() if name != "intermediate_size"}
            config = lib.VJEPA2Config(
                crop_size=SIDE, patch_size=8, frames_per_clip=8, mlp_ratio=2.0, num_pooler_layers=1,
                pred_hidden_size=24, pred_num_attention_heads=4, pred_num_hidden_layers=1, **small,
            )  # fmt: skip
        model = lib.AutoModelForVideoClassification.from_config(config).eval()
        for parameter in model.parameters():  # position embeddings and biases begin at 0
            if parameter.detach().count_nonzero() == 0:
                torch.nn.init.normal_(parameter, std=0.2)
    return model


def small_processor(kind: str) -> Any:
    """The kind's own processor for pictures of `SIDE` pixels; those of hubs are often written as image processors."""
    lib = transformers
    if kind == "vjepa2":
        return lib.VJEPA2VideoProcessor(crop_size=SIDE)
    if kind == "vivit":
        return lib.VivitVideoProcessor(size={"shortest_edge": 40}, crop_size={"height": SIDE, "width": SIDE})
    make = lib.TimesformerVideoProcessor if kind == "timesformer" else lib.VideoMAEVideoProcessor
    return make(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


def small_folder(folder: Path, kind: str = "videomae", *, legacy: bool = False) -> Path:
    """Write a model of one kind and its processor; `legacy` names the processor as the Hub's older folders do."""
    small_model(kind).save_pretrained(folder)
    small_processor(kind).save_pretrained(folder)
    if legacy:
        values = json.loads((folder / "video_preprocessor_config.json").read_text())
        values["image_processor_type"] = values.pop("video_processor_type").replace("VideoProcessor", "ImageProcessor")
        (folder / "video_preprocessor_config.json").unlink()
        (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return folder
