"""Non-local blocks of a network: finding them, removing them; and networks described by a file."""

from __future__ import annotations

import copy
import json
from pathlib import Path

from torch import nn

from nonlocal_video.blocks import NonLocalBlock
from nonlocal_video.errors import UsageError
from nonlocal_video.models.card import InputSpec, ModelCard
from nonlocal_video.models.checkpoint import build_network


def nonlocal_blocks(network: nn.Module) -> dict[str, NonLocalBlock]:
    """Return the non-local blocks of a network by dotted name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, NonLocalBlock)}


def without_blocks(network: nn.Module) -> nn.Module:
    """Return a copy of a network with `nn.Identity` instead of every non-local block."""
    plain = copy.deepcopy(network)
    for name in nonlocal_blocks(plain):
        parent, _, child = name.rpartition(".")
        setattr(plain.get_submodule(parent), child, nn.Identity().train(plain.training))
    return plain


def network_from_json(path: Path) -> nn.Module:
    """Build the network of a JSON file {"architecture": ..., "config": {...}}, as on a model card, newly initialised.

    Raises:
        UsageError: If the file is not such a JSON file.
        ModelError: If the architecture is unknown or its configuration does not fit.
    """
    try:
        given = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"config = {path} cannot be read as JSON: {error}") from error
    if not isinstance(given, dict) or set(given) != {"architecture", "config"} or not isinstance(given["config"], dict):
        raise UsageError(f'config = {path} should be {{"architecture": ..., "config": {{...}}}}.')
    num_classes = given["config"].get("num_classes", 400)
    if not isinstance(num_classes, int) or num_classes < 1:
        raise UsageError(f"num_classes = {num_classes!r} in {path} should be a whole number, at least 1.")
    # A card checks the configuration; its input and labels are not used.
    unused = InputSpec(1, 1.0, 1, 1, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    labels = tuple(f"class {index}" for index in range(num_classes))
    return build_network(ModelCard(path.name, given["architecture"], given["config"], unused, labels))
