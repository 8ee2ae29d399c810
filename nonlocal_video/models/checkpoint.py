"""Weights files: a safetensors file with the model card inside, so that one file is all a model needs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from nonlocal_video.errors import ModelError
from nonlocal_video.models.card import ModelCard
from nonlocal_video.models.inception3d import InceptionI3D, InceptionI3DConfig

# The file's only metadata entry: with a second one, the order of the two, and so the file, would differ by chance.
CARD_KEY = "nonlocal_video.card"
_MAX_LISTED = 10

T = TypeVar("T")


def save_checkpoint(
    path: str | os.PathLike[str], network: nn.Module, card: ModelCard, *, dtype: torch.dtype = torch.float16
) -> None:
    """Writes the network's weights and its card into one file; an existing file is replaced in one step or not at all.

    Tensors with one axis (biases, batch norm) stay float32 whatever `dtype` is: they are under 1% of a file, and
    running variances span more than float16's range.

    Args:
        path: The file to write, by custom `NAME.safetensors`.
        network: A network that `build_network(card)` could have made.
        card: What travels with the weights.
        dtype: How kernels are stored, torch.float16 or torch.float32.

    Raises:
        ModelError: If a number isn't finite, or isn't any more in `dtype`.
    """
    if dtype not in (torch.float16, torch.float32):
        raise ValueError(f"{dtype = } should be torch.float16 or torch.float32.")
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor = tensor.to(dtype if tensor.ndim > 1 else torch.float32)
            if not tensor.isfinite().all():
                raise ModelError(f"{name} has numbers that are not finite as {tensor.dtype}; nothing was written.")
        tensors[name] = tensor.detach().cpu().contiguous()
    path = Path(path)
    # In the target's own folder, as a rename across file systems is not one step.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # of a killed process with this number
        with temporary.open("xb") as file:  # never through a link
            # Not safetensors' save_file, which makes files that only their owner can read.
            file.write(save(tensors, metadata={CARD_KEY: json.dumps(asdict(card), ensure_ascii=False)}))
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name without its contents
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[nn.Module, ModelCard]:
    """Reads a file that `save_checkpoint` wrote.

    Returns:
        The network on the CPU, float32, in eval mode, and its card.

    Raises:
        ModelError: If the file isn't such a file, or its tensors are not exactly those of the network on its card.
    """
    path = Path(path)
    card, stored = _read(path)
    with torch.random.fork_rng(devices=[]):  # the network's initialisation must not move the caller's random numbers
        network = build_network(card)
    expected = network.state_dict()
    problems = [f"{name} is missing" for name in expected if name not in stored]
    problems += [f"{name} is not part of the network" for name in stored if name not in expected]
    problems += [
        f"{name} is {tuple(stored[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in stored and stored[name].shape != tensor.shape
    ]
    if problems:
        listed = "; ".join(problems[:_MAX_LISTED])
        more = f"; and {len(problems) - _MAX_LISTED} more" if len(problems) > _MAX_LISTED else ""
        raise ModelError(f"The weights in {path} do not fit the {card.architecture} of its card: {listed}{more}.")
    network.load_state_dict(stored)
    return network.eval(), card


def read_card(path: str | os.PathLike[str]) -> ModelCard:
    """The card of a file that `save_checkpoint` wrote, without reading its weights.

    Raises:
        ModelError: If the file isn't such a file.
    """
    return _read(Path(path), with_tensors=False)[0]


def build_network(card: ModelCard) -> nn.Module:
    """The network that a card describes, newly initialised.

    Raises:
        ModelError: If the architecture is unknown, or its configuration or the number of labels does not fit.
    """
    builder = _BUILDERS.get(card.architecture)
    if builder is None:
        raise ModelError(
            f"Model {card.name!r} has the architecture {card.architecture!r}; this version knows {sorted(_BUILDERS)}."
        )
    return builder(card)


def _inception_i3d(card: ModelCard) -> nn.Module:
    config = _typed_config(InceptionI3DConfig, card)
    _check_labels(card, config.num_classes)
    return InceptionI3D(config)


def _resnet3d(card: ModelCard) -> nn.Module:
    from nonlocal_video.models.resnet3d import ResNet3DConfig, Video3DResNet

    config = _typed_config(ResNet3DConfig, card)
    _check_labels(card, config.num_classes)
    return Video3DResNet.from_config(config)


_BUILDERS: dict[str, Callable[[ModelCard], nn.Module]] = {"inception_i3d": _inception_i3d, "resnet3d": _resnet3d}


def _typed_config(config_type: type[T], card: ModelCard) -> T:
    try:
        return typed(config_type, card.config)
    except ValueError as error:
        raise ModelError(f"The card of {card.name!r} does not describe a {card.architecture}: {error}") from error


def _check_labels(card: ModelCard, num_classes: int) -> None:
    if len(card.labels) != num_classes:
        raise ModelError(
            f"The card of {card.name!r} has {len(card.labels)} labels for a network with {num_classes} classes; "
            f"it needs one label for each class, in the order of the network's outputs."
        )


def _read(path: Path, *, with_tensors: bool = True) -> tuple[ModelCard, dict[str, torch.Tensor]]:
    if not path.is_file():
        raise ModelError(f"There is no weights file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = list(file.keys()) if with_tensors else []
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} cannot be read as safetensors ({error}). Give a .safetensors file that this project saved; "
            f"a .pt, .pth or .pkl file has to be converted first."
        ) from error
    if CARD_KEY not in metadata:
        raise ModelError(
            f"{path} has no model card inside, so its labels and its input are unknown. "
            f"Give a file that this project saved (nonlocal_video.models.checkpoint.save_checkpoint)."
        )
    try:
        return typed(ModelCard, json.loads(metadata[CARD_KEY])), tensors
    except ValueError as error:
        raise ModelError(f"The model card inside {path} cannot be used: {error}") from error


def typed(kind: type[T], values: Any) -> T:
    """A dataclass from plain JSON values: lists become tuples, nested dicts become nested dataclasses.

    Raises:
        ValueError: If a value does not fit or a name is unknown: leaving out what a newer version wrote would be
            another network.
    """
    adapter = TypeAdapter(kind)
    try:
        typed = adapter.validate_python(values)
    except ValidationError as error:
        reasons = [f"{'.'.join(map(str, part['loc'])) or kind.__name__}: {part['msg']}" for part in error.errors()]
        raise ValueError("; ".join(reasons)) from error
    unknown = _unknown_names(values, adapter.dump_python(typed, mode="json"))
    if unknown:
        raise ValueError(f"this version does not know {unknown}")
    return typed


def _unknown_names(given: Any, known: Any, prefix: str = "") -> list[str]:
    """Dotted names in nested dicts `given` that `known` does not have."""
    if not isinstance(given, dict) or not isinstance(known, dict):
        return []
    unknown = [prefix + name for name in given if name not in known]
    for name in given.keys() & known.keys():
        unknown += _unknown_names(given[name], known[name], f"{prefix}{name}.")
    return sorted(unknown)
