"""The network that a run begins with: weights or a new network, and a head for the run's classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from nonlocal_video.errors import UsageError
from nonlocal_video.models.card import InputSpec, ModelCard
from nonlocal_video.models.checkpoint import build_network, load_checkpoint, typed
from nonlocal_video.models.inception3d import InceptionI3D
from nonlocal_video.models.resnet3d import Video3DResNet
from nonlocal_video.zoo.catalogue import check_row, entries, find

Trainable = Video3DResNet | InceptionI3D


@dataclass(frozen=True)
class NewModel:
    """A network without weights: what a YAML file or a recipe describes."""

    name: str
    architecture: str
    input: InputSpec
    config: dict[str, Any]
    """Arguments of the network's configuration, without `num_classes`."""


@dataclass(frozen=True, repr=False)
class Initialization:
    """A network with a head for the run's classes, its card, and what is known of where it comes from."""

    network: Trainable
    card: ModelCard
    loaded: str
    """One sentence: what was loaded, and what is new."""
    has_weights: bool
    parent: ModelCard | None
    """The card of the weights that were loaded."""


def initialize(
    model: str | Path | NewModel,
    labels: Sequence[str],
    *,
    name: str,
    fast: bool = False,
    new_weights: bool = False,
    seed: int = 0,
) -> Initialization:
    """Load a model, and give it a new head unless its classes are the same.

    Args:
        model: A catalogue name, a weights file, a run's folder, or the description of a new network.
        labels: The run's classes, in the order of the outputs.
        name: What the trained model will be called.
        fast: Train on the model's cheaper view.
        new_weights: Take the network alone, newly initialised.
        seed: Of what is initialised.

    Raises:
        ModelError: The weights cannot be had or do not fit their network.
        UsageError: The model has no cheaper view.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(model, NewModel):
            card = ModelCard(
                name, model.architecture, {**model.config, "num_classes": len(labels)}, model.input, tuple(labels)
            )
            return _new(card, model.name)
        known = entries().get(str(model))
        if new_weights or (known is not None and known.download is None):
            if known is not None:
                check_row(known)
            parent = known.card if known is not None else load_checkpoint(find(model))[1]
            return _new(_card(parent, labels, name=name, fast=fast, keeps_weights=False), parent.name)
        return _with_weights(find(model), labels, name=name, fast=fast)


def _new(card: ModelCard, of: str) -> Initialization:
    network = build_network(card)
    assert isinstance(network, Trainable)
    sentence = f"The network of {of!r}, newly initialised: no weights were loaded."
    return Initialization(network, card, sentence, has_weights=False, parent=None)


def _with_weights(path: Path, labels: Sequence[str], *, name: str, fast: bool) -> Initialization:
    trained, parent = load_checkpoint(path)
    card = _card(parent, labels, name=name, fast=fast, keeps_weights=True)
    network = build_network(card)
    assert isinstance(network, Trainable)
    state = trained.state_dict()
    head = {f"{network.head_layer}.{part}" for part in ("weight", "bias")}
    if tuple(labels) == parent.labels:
        sentence = (
            f"All {len(state)} tensors of {parent.name!r} were loaded, its head among them: the classes are the same."
        )
    else:
        sentence = (
            f"All {len(state) - len(head)} tensors of the trunk of {parent.name!r} were loaded; the head for "
            f"{len(labels)} classes is new."
        )
        state = {key: tensor for key, tensor in state.items() if key not in head}
        state |= {key: tensor for key, tensor in network.state_dict().items() if key in head}
    network.load_state_dict(state)  # strict: every tensor of both, or an error
    return Initialization(network, card, sentence, has_weights=True, parent=parent)


def _card(parent: ModelCard, labels: Sequence[str], *, name: str, fast: bool, keeps_weights: bool) -> ModelCard:
    """The parent's card for other classes; what was measured or published of the parent does not carry over."""
    return replace(
        parent,
        name=name,
        config={**parent.config, "num_classes": len(labels)},
        input=parent.view(fast=fast),
        fast_input=None if fast else parent.fast_input,
        labels=tuple(labels),
        published=None,
        licence=parent.licence if keeps_weights else "",
        source=f"trained from {parent.name}" if keeps_weights else "trained from new weights",
        notes=(),
    )


def read_new_model(values: Any, where: str) -> NewModel:
    """A description as it stands in YAML.

    Raises:
        UsageError: It does not describe a model.
    """
    try:
        found = typed(NewModel, values)
    except ValueError as error:
        raise UsageError(f"The model in {where} should have name, architecture, config and input; {error}.") from error
    if "num_classes" in found.config:
        raise UsageError(f"The model in {where} has num_classes; the run's classes decide it. Leave it away.")
    return found
