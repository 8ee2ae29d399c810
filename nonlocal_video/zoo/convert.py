"""Conversion of published weights to this project's files, with every tensor accounted for and nothing guessed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from nonlocal_video.errors import ModelError
from nonlocal_video.models.card import ModelCard
from nonlocal_video.models.checkpoint import build_network, save_checkpoint
from nonlocal_video.models.meta import shapes_only
from nonlocal_video.models.resnet3d import ResNet3DConfig, Video3DResNet
from nonlocal_video.models.torchvision_network import build_torchvision
from nonlocal_video.zoo.catalogue import check_row, entries, entry
from nonlocal_video.zoo.entry import CatalogueEntry, Source
from nonlocal_video.zoo.layout import COUNTER, Layout
from nonlocal_video.zoo.names import caffe2, kenshohara, mmaction2, pyslowfast, pytorchvideo, torchvision, tushar_n
from nonlocal_video.zoo.names import torchvision_transformers as transformers
from nonlocal_video.zoo.weights_file import WeightsFile, read_weights_file

_LAYOUTS: dict[Source, tuple[Layout, ...]] = {
    "pyslowfast": (pyslowfast.LAYOUT, caffe2.LAYOUT),
    "video-nonlocal-net": (caffe2.LAYOUT, tushar_n.LAYOUT),
    "mmaction2": (mmaction2.LAYOUT,),
    "pytorchvideo": (pytorchvideo.LAYOUT,),
    "torchvision": (torchvision.LAYOUT,),
    "kenshohara": (kenshohara.LAYOUT,),
}
_HEAD = ("fc.weight", "fc.bias")
_MAX_LISTED = 10


@dataclass(frozen=True)
class Conversion:
    """Result of a conversion."""

    name: str
    """Name of the catalogue's row."""
    source: Source
    """Project that published the weights."""
    card: ModelCard
    """Card of the converted file."""
    output: Path
    """The converted file."""
    input_sha256: str
    """SHA-256 of the published file."""
    tensors_used: int
    """Number of the file's tensors that are now in the network: all except those ignored."""
    ignored: tuple[str, ...]
    """Names in the file that are not weights: momentum, learning rate, counters."""


def recognise(path: str | Path) -> list[str]:
    """Return the catalogue names whose tensor names and shapes fit a file; often several, since shapes tell little.

    Raises:
        ModelError: If the file cannot be read.
    """
    file = read_weights_file(path)
    return [row.name for row in _likely_rows(file) if _best_match(file, row, row.card).fits]


def convert_file(
    path: str | Path, output: str | Path, *, name: str | None = None, labels: Sequence[str] | None = None
) -> Conversion:
    """Convert published weights to a file for `nlv.load`, in float32, with the card of their catalogue row.

    Args:
        path: A checkpoint of PySlowFast, video-nonlocal-net, MMAction2, PyTorchVideo, torchvision, 3D-ResNets-PyTorch
            or Tushar-N's port, or a fine-tuned network of theirs.
        output: The .safetensors file to write.
        name: Name of the catalogue's row. It can be left out if only one row fits, or if the file's hash is published.
        labels: Class names of a fine-tuned network, in the order of its outputs; its head has as many.

    Raises:
        ModelError: If the file is not what `name` says, or fits no row or several, or the labels do not fit. The
            message lists missing, unexpected and misshapen tensors, or the candidates. Nothing is written then.
    """
    file, output = read_weights_file(path), Path(output)
    if not output.absolute().parent.is_dir():
        raise ModelError(f"There is no folder {output.absolute().parent} to write {output.name} to; make it first.")
    if output.exists() and output.samefile(path):
        raise ModelError(f"{output} is the file to convert; give the output another name.")
    row, match = _chosen(file, name, labels)
    check_row(row)
    with torch.device("meta"):
        network = build_network(match.card)
    network.load_state_dict(_filled(file, match), assign=True)
    save_checkpoint(output, network, match.card, dtype=torch.float32)
    return Conversion(
        name=row.name,
        source=row.source,
        card=match.card,
        output=output,
        input_sha256=file.sha256,
        tensors_used=len(match.names),
        ignored=(*file.ignored, *match.ignored),
    )


@dataclass(frozen=True)
class _Match:
    """Comparison of a file with a network in one layout."""

    card: ModelCard
    layout: Layout | transformers.TransformerLayout
    names: dict[str, str]
    """Our name -> the file's name, for every tensor in both."""
    ignored: tuple[str, ...] = ()
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: dict[str, str] = field(default_factory=dict)
    """The file's name -> the problem with its shape or type."""

    @property
    def fits(self) -> bool:
        return not (self.missing or self.unexpected or self.misshapen)

    @property
    def num_problems(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.misshapen)

    def problems(self) -> str:
        """Return the problems as sentences, each kind cut to the first few."""
        parts = []
        misshapen = [f"{name} is {problem}" for name, problem in self.misshapen.items()]
        for kind, names in (("missing", self.missing), ("unexpected", self.unexpected), ("misshapen", misshapen)):
            if names:
                more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
                parts.append(f"{len(names)} {kind}: {', '.join(names[:_MAX_LISTED])}{more}")
        return "; ".join(parts)


def _chosen(file: WeightsFile, name: str | None, labels: Sequence[str] | None) -> tuple[CatalogueEntry, _Match]:
    """Choose the row as which the file is to be read, and match them."""
    rows = _likely_rows(file) if name is None else [entry(name)]
    matches = {row.name: _best_match(file, row, _card(row, labels)) for row in rows}
    if name is None:
        fitting = [row for row in rows if matches[row.name].fits]
        row = _only(file, fitting) if fitting else min(rows, key=lambda row: matches[row.name].num_problems)
    else:
        row = rows[0]
    match = matches[row.name]
    if not match.fits:
        subject = f"is not {row.name}" if name else f"fits no network of the catalogue; the closest is {row.name}"
        hint = ""
        if labels is None and _only_the_head(match):
            hint = (
                " Only the classifier differs: for a fine-tuned network give its labels, in the order of its outputs."
            )
        raise ModelError(f"{file.path} {subject} ({match.layout.title} names). {match.problems()}.{hint}")
    if name is not None:
        _refuse_anothers_hash(file, row)
    return row, match


def _likely_rows(file: WeightsFile) -> list[CatalogueEntry]:
    """Return the rows whose classifier name is in the file, so that not all networks are built; else all rows."""
    rows = list(entries().values())
    likely = []
    for row in rows:
        if row.architecture == "torchvision":
            if transformers.HEADS[row.config["model"]] in file.tensors:
                likely.append(row)
            continue
        config = row.network_config
        if any(
            name in file.tensors for layout in _LAYOUTS[row.source] for name in layout.names(_HEAD, config).values()
        ):
            likely.append(row)
    return likely or rows


def _only(file: WeightsFile, fitting: list[CatalogueEntry]) -> CatalogueEntry:
    """Return the only row that fits, or the one whose published hash the file has."""
    by_hash = [row for row in fitting if _has_published_hash(file, row)]
    if len(by_hash) == 1:
        return by_hash[0]
    if len(fitting) == 1:
        return fitting[0]
    raise ModelError(
        f"{file.path} fits {len(fitting)} networks of the catalogue. They differ in padding, scale, order of pooling "
        f"or frames, which weights do not show: {', '.join(row.name for row in fitting)}. "
        "Choose one: --as NAME."
    )


def _has_published_hash(file: WeightsFile, row: CatalogueEntry) -> bool:
    published = row.download.sha256 if row.download else None
    return published is not None and file.sha256.startswith(published)


def _refuse_anothers_hash(file: WeightsFile, row: CatalogueEntry) -> None:
    owners = [other.name for other in entries().values() if _has_published_hash(file, other)]
    if owners and row.name not in owners:
        raise ModelError(f"By its SHA-256, {file.path} is {owners[0]} and not {row.name}; give --as {owners[0]}.")


def _card(row: CatalogueEntry, labels: Sequence[str] | None) -> ModelCard:
    if labels is None:
        return row.card
    try:
        return replace(
            row.card,
            config={**row.config, "num_classes": len(labels)},
            labels=tuple(labels),
            published=None,
            source=f"fine-tuned from {row.name}, or in its shape",
            notes=(),
        )
    except ValueError as error:
        raise ModelError(f"These labels cannot be used: {error}") from error


def _best_match(file: WeightsFile, row: CatalogueEntry, card: ModelCard) -> _Match:
    """Match the file with a row, in the layout of its source that fits best."""
    affine = row.download is not None and row.download.affine
    layouts = (transformers.LAYOUT,) if row.architecture == "torchvision" else _LAYOUTS[row.source]
    matches = [_held_against(file, card, layout, affine=affine) for layout in layouts]
    return min(matches, key=lambda match: match.num_problems)


def _held_against(
    file: WeightsFile, card: ModelCard, layout: Layout | transformers.TransformerLayout, *, affine: bool
) -> _Match:
    config, ours = _network_on_meta(card.architecture, json.dumps(card.config))
    names = layout.names(ours, config)
    optional = _optional(names, file, affine=affine)
    names = {name: theirs for name, theirs in names.items() if name not in optional}
    is_ignored = caffe2.IGNORED.fullmatch if layout is caffe2.LAYOUT else lambda name: None
    ignored = tuple(name for name in file.tensors if name not in names.values() and is_ignored(name))
    known = {*names.values(), *ignored}
    misshapen = {}
    for name, theirs in names.items():
        tensor = file.tensors.get(theirs)
        if tensor is not None and tensor.shape != ours[name].shape:
            misshapen[theirs] = f"{tuple(tensor.shape)} instead of {tuple(ours[name].shape)}"
        elif tensor is not None and (problem := _problem_of_dtype(tensor, ours[name])):
            misshapen[theirs] = problem
    return _Match(
        card=card,
        layout=layout,
        names=names,
        ignored=ignored,
        missing=[theirs for theirs in names.values() if theirs not in file.tensors],
        unexpected=[theirs for theirs in file.tensors if theirs not in known],
        misshapen=misshapen,
    )


def _problem_of_dtype(tensor: Tensor, ours: Tensor) -> str | None:
    """Return why a tensor cannot become one of ours with the same values; None if it can."""
    name = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_floating_point() != ours.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        return f"of {name} instead of {str(ours.dtype).removeprefix('torch.')}"
    if tensor.dtype == torch.float64 and not torch.equal(tensor.float().double().nan_to_num(), tensor.nan_to_num()):
        return "of float64, with numbers that float32 does not hold"
    return None


def _optional(names: dict[str, str], file: WeightsFile, *, affine: bool) -> set[str]:
    """Return the network's tensors that this file need not have: all of a kind, or none."""
    optional = set()
    if not any(name.endswith(COUNTER) for name in file.tensors):
        optional |= {name for name in names if name.endswith(COUNTER)}
    if affine:
        optional |= {name for name in names if name.endswith(caffe2.STATISTICS)}
        of_blocks = {name for name in names if "nonlocal" in name and ".bn." in name}
        if not any(names[name] in file.tensors for name in of_blocks):
            optional |= of_blocks
    return optional


def _only_the_head(match: _Match) -> bool:
    head = {theirs for theirs in match.names.values() if theirs.startswith("head.")}
    head |= {match.names[name] for name in _HEAD if name in match.names}
    return not match.missing and not match.unexpected and match.misshapen.keys() <= head


def _filled(file: WeightsFile, match: _Match) -> dict[str, Tensor]:
    """Return every tensor of the network: the file's, or a default for those that the file's format leaves out."""
    config, network = _network_on_meta(match.card.architecture, json.dumps(match.card.config))
    filled = {}
    for name, tensor in network.items():
        if name in match.names:
            filled[name] = file.tensors[match.names[name]].to(tensor.dtype).clone()
        elif name.endswith("running_var"):
            # An affine layer has no statistics: y = gain x + bias is a batch norm whose var + eps is 1.
            filled[name] = torch.full(tensor.shape, 1 - config.bn_eps)
        elif name.endswith("bn.weight"):
            filled[name] = torch.ones(tensor.shape)
        else:
            filled[name] = torch.zeros(tensor.shape, dtype=tensor.dtype)
    return filled


@lru_cache(maxsize=64)
def _network_on_meta(architecture: str, config: str) -> tuple[Any, dict[str, Tensor]]:
    """Return the configuration of a network (from JSON) and its state dict, without memory for the weights."""
    if architecture == "torchvision":
        values = json.loads(config)
        with shapes_only():
            return values, build_torchvision(values, values["num_classes"]).state_dict()
    typed = TypeAdapter(ResNet3DConfig).validate_json(config)
    with torch.device("meta"):
        return typed, Video3DResNet.from_config(typed).state_dict()
