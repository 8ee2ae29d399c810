"""Initialization of a run's network: from weights or from scratch, with a head for the run's classes."""

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
from nonlocal_video.zoo.catalogue import check_row, entries, find, load_network
from nonlocal_video.zoo.hub import is_on_hub, local_model
from nonlocal_video.zoo.transformers_folder import is_transformers_folder

Trainable = Video3DResNet | InceptionI3D


@dataclass(frozen=True)
class NewModel:
    """Description of a network without weights, from a YAML file or a recipe."""

    name: str
    """Name of the model."""
    architecture: str
    """Architecture, as in a model card."""
    input: InputSpec
    """Input of the network."""
    config: dict[str, Any]
    """Arguments of the network's configuration, without `num_classes`."""


@dataclass(frozen=True, repr=False)
class Initialization:
    """An initialized network with its card and its origin."""

    network: Any
    """Network with a head for the run's classes; gradients train only those of `Trainable`."""
    card: ModelCard
    """Card of the network."""
    loaded: str
    """Description of what was loaded and what is new, one sentence."""
    has_weights: bool
    """Whether trained weights were loaded."""
    parent: ModelCard | None
    """Card of the loaded weights; None for a new network."""


def initialize(
    model: str | Path | NewModel,
    labels: Sequence[str],
    *,
    name: str,
    fast: bool = False,
    new_weights: bool = False,
    seed: int = 0,
) -> Initialization:
    """Load a model, and replace its head unless the classes are the same.

    Args:
        model: Catalogue name, weights file, folder of a run, or description of a new network.
        labels: Classes of the run, in the order of the outputs.
        name: Name of the trained model.
        fast: Whether to train on the model's cheaper input, `fast_input` of its card.
        new_weights: Whether to use only the architecture, with random weights.
        seed: Seed of the random weights.

    Raises:
        ModelError: The weights are not available or do not fit the network.
        UsageError: The model has no cheaper input.
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
        made = _with_weights(local_model(model), labels, name=name, fast=fast)
        if is_on_hub(model) and made.parent is not None:  # where the card of the new run points to
            return replace(made, parent=replace(made.parent, source=str(model)))
        return made


def check_trainable(start: Initialization) -> None:
    """Raise if gradients do not train a network here.

    Raises:
        UsageError: If so.
    """
    if not isinstance(start.network, Trainable):
        raise UsageError(
            f"`train` does not support networks of the kind {start.card.architecture!r}; `nonlocal-video teach` gives "
            f"them a new head from a few examples a class."
        )


def _new(card: ModelCard, source: str) -> Initialization:
    network = build_network(card)
    sentence = f"The network of {source!r} was initialised with random weights; no weights were loaded."
    return Initialization(network, card, sentence, has_weights=False, parent=None)


def _with_weights(model: str | Path, labels: Sequence[str], *, name: str, fast: bool) -> Initialization:
    trained, parent = load_network(model) if is_transformers_folder(model) else load_checkpoint(find(model))
    card = _card(parent, labels, name=name, fast=fast, keeps_weights=True)
    network: Any = build_network(card)
    state = trained.state_dict()
    head = {f"{network.head_layer}.{part}" for part in ("weight", "bias")}
    if tuple(labels) == parent.labels:
        sentence = (
            f"All {len(state)} tensors of {parent.name!r} were loaded, including the head, as the classes are the same."
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
    """Return the parent's card for other classes, without the parent's published results."""
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
        taught=None,  # its means are of features that training changes
    )


def read_new_model(values: Any, where: str) -> NewModel:
    """Read the description of a new network from YAML values.

    Args:
        values: Values of the YAML file.
        where: Name of the file, for messages.

    Raises:
        UsageError: The values do not describe a model.
    """
    try:
        found = typed(NewModel, values)
    except ValueError as error:
        raise UsageError(f"The model in {where} should have name, architecture, config and input; {error}.") from error
    if "num_classes" in found.config:
        raise UsageError(f"The model in {where} has num_classes, which the classes of the run determine. Remove it.")
    return found
