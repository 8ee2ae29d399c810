"""Weights files: a safetensors file with the model card inside, so that one file is a whole model."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping
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
from nonlocal_video.models.meta import shapes_only
from nonlocal_video.models.not_weights import describe_non_weights

# The file's only metadata entry: with a second one, their order, and so the file's hash, would vary from run to run.
CARD_KEY = "nonlocal_video.card"
_MAX_LISTED = 10
MAX_PARAMETERS = 4_000_000_000
"""16 GB of float32; the largest published 3D network has a tenth of that."""
_MAX_WORDS = 600
_STORED_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
"""Types whose values float32 holds exactly."""

T = TypeVar("T")


def save_checkpoint(
    path: str | os.PathLike[str], network: nn.Module, card: ModelCard, *, dtype: torch.dtype = torch.float16
) -> None:
    """Write a network's weights and its card into one file, which is replaced in one step or not at all.

    Tensors with one axis (biases, batch norm) stay float32 for any `dtype`: they are under 1% of a file, and running
    variances exceed the range of float16.

    Args:
        path: The file to write, by convention `NAME.safetensors`.
        network: A network that `build_network(card)` could have built.
        card: The card to store with the weights.
        dtype: Type of the stored kernels, torch.float16 or torch.float32.

    Raises:
        ModelError: If a value is not finite, or would not be in `dtype`.
    """
    if dtype not in (torch.float16, torch.float32):
        raise ValueError(f"{dtype = } should be torch.float16 or torch.float32.")
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in without_wrappers(network.state_dict()).items():
        if tensor.is_floating_point():
            tensor = tensor.to(dtype if tensor.ndim > 1 else torch.float32)
            if not tensor.isfinite().all():
                raise ModelError(f"{name} has values that are not finite as {tensor.dtype}; nothing was written.")
        tensors[name] = tensor.detach().cpu().contiguous()
    path = Path(path)
    # In the target's folder, since a rename across file systems is not atomic.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # left by a killed process with the same id
        with temporary.open("xb") as file:  # never through a link
            # Not safetensors' save_file, which creates files that only their owner can read.
            file.write(save(tensors, metadata={CARD_KEY: json.dumps(card_values(card), ensure_ascii=False)}))
            file.flush()
            os.fsync(file.fileno())  # otherwise a power cut could leave the new name without its contents
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[nn.Module, ModelCard]:
    """Load a file that `save_checkpoint` wrote.

    Returns:
        The network on the CPU, float32, in eval mode, and its card.

    Raises:
        ModelError: If the file was not written by `save_checkpoint`, or its tensors are not those of the card's
            network.
    """
    path = Path(path)
    card, stored = _read(path)
    stored = without_wrappers(stored)
    expected = _without_memory(card).state_dict()
    problems = [f"{name} is missing" for name in expected if name not in stored]
    problems += [f"{name} is not part of the network" for name in stored if name not in expected]
    problems += [
        f"{name} is {tuple(stored[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in stored and stored[name].shape != tensor.shape
    ]
    problems += [
        f"{name} is {_dtype_name(stored[name])} instead of {_allowed_dtypes(tensor)}"
        for name, tensor in expected.items()
        if name in stored and stored[name].dtype not in _dtypes_for(tensor)
    ]
    if problems:
        listed = "; ".join(problems[:_MAX_LISTED])
        more = f"; and {len(problems) - _MAX_LISTED} more" if len(problems) > _MAX_LISTED else ""
        raise ModelError(f"The weights in {path} do not fit the {card.architecture} of its card: {listed}{more}.")
    try:
        with torch.random.fork_rng(devices=[]):  # initialising the network must not advance the caller's random state
            network = _BUILDERS[card.architecture](card)
    except (RuntimeError, MemoryError) as error:
        raise ModelError(f"Not enough memory for the network of {path}: {_one_line(error)}") from error
    network.load_state_dict(stored)
    return network.eval(), card


def card_values(card: ModelCard) -> dict[str, Any]:
    """Return a card as JSON values; what only taught models have is left out of the others."""
    values = asdict(card)
    if card.taught is None:
        del values["taught"]
    return values


def without_wrappers(tensors: Mapping[str, T]) -> dict[str, T]:
    """Remove the prefixes of DataParallel (`module.` before all names) and torch.compile (`_orig_mod.` anywhere).

    Raises:
        ModelError: If two names become the same.
    """
    compiled = {tuple(part for part in name.split(".") if part != "_orig_mod"): name for name in tensors}
    plain = {".".join(parts): tensors[name] for parts, name in compiled.items()}
    while plain and all(name.startswith("module.") for name in plain):
        plain = {name.removeprefix("module."): value for name, value in plain.items()}
    if len(plain) != len(tensors):
        raise ModelError("The weights hold some tensors twice, with and without torch.compile's `_orig_mod.` in names.")
    return plain


def _dtypes_for(tensor: torch.Tensor) -> tuple[torch.dtype, ...]:
    return _STORED_FLOATS if tensor.is_floating_point() else (tensor.dtype,)


def _allowed_dtypes(tensor: torch.Tensor) -> str:
    return " or ".join(str(dtype).removeprefix("torch.") for dtype in _dtypes_for(tensor))


def _dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def read_card(path: str | os.PathLike[str]) -> ModelCard:
    """Read the card of a file that `save_checkpoint` wrote, without its weights.

    Raises:
        ModelError: If the file was not written by `save_checkpoint`.
    """
    return _read(Path(path), with_tensors=False)[0]


def build_network(card: ModelCard) -> nn.Module:
    """Build the network that a card describes, newly initialised.

    Raises:
        ModelError: If the architecture is unknown, its configuration or number of labels does not fit, or the network
            is too large.
    """
    _without_memory(card)
    try:
        return _BUILDERS[card.architecture](card)
    except (RuntimeError, MemoryError) as error:
        raise ModelError(f"Not enough memory for the network {card.name!r}: {_one_line(error)}") from error


def _without_memory(card: ModelCard) -> nn.Module:
    """Build the network that a card describes on the meta device, without memory for its weights.

    Raises:
        ModelError: As for `build_network`.
    """
    builder = _BUILDERS.get(card.architecture)
    if builder is None:
        raise ModelError(
            f"Model {card.name!r} has the architecture {card.architecture!r}; this version knows {sorted(_BUILDERS)}."
        )
    try:
        with shapes_only():
            network = builder(card)
    except (RuntimeError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise ModelError(
            f"The card of {card.name!r} does not describe a {card.architecture}: {_one_line(error)}"
        ) from error
    if (count := sum(parameter.numel() for parameter in network.parameters())) > MAX_PARAMETERS:
        raise ModelError(
            f"The card of {card.name!r} describes a network of {count:,} parameters; at most {MAX_PARAMETERS:,} are "
            "allowed."
        )
    return network


def _inception_i3d(card: ModelCard) -> nn.Module:
    config = _typed_config(InceptionI3DConfig, card)
    _check_labels(card, config.num_classes)
    return InceptionI3D(config)


def _resnet3d(card: ModelCard) -> nn.Module:
    from nonlocal_video.models.resnet3d import ResNet3DConfig, Video3DResNet

    config = _typed_config(ResNet3DConfig, card)
    _check_labels(card, config.num_classes)
    return Video3DResNet.from_config(config)


def _transformers(card: ModelCard) -> nn.Module:
    from nonlocal_video.models.transformers_network import build_transformers

    _check_labels(card, card.config.get("num_classes", -1))
    return build_transformers(card.config, len(card.labels))


def _torchvision(card: ModelCard) -> nn.Module:
    from nonlocal_video.models.torchvision_network import build_torchvision

    _check_labels(card, card.config.get("num_classes", -1))
    return build_torchvision(card.config, len(card.labels))


_BUILDERS: dict[str, Callable[[ModelCard], nn.Module]] = {
    "inception_i3d": _inception_i3d,
    "resnet3d": _resnet3d,
    "torchvision": _torchvision,
    "transformers": _transformers,
}


def _typed_config(config_type: type[T], card: ModelCard) -> T:
    try:
        return typed(config_type, card.config)
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"The card of {card.name!r} does not describe a {card.architecture}: {_one_line(error)}"
        ) from error


def _check_labels(card: ModelCard, num_classes: int) -> None:
    if len(card.labels) != num_classes:
        raise ModelError(
            f"The card of {card.name!r} has {len(card.labels)} labels for a network with {num_classes} classes; "
            f"it needs one label for each class, in the order of the network's outputs."
        )


def _read(path: Path, *, with_tensors: bool = True) -> tuple[ModelCard, dict[str, torch.Tensor]]:
    check_is_weights(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = list(file.keys()) if with_tensors else []
            tensors = {name: file.get_tensor(name) for name in names}
        _check_header(path)
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, MemoryError, RuntimeError) as error:
        raise ModelError(
            f"{path} cannot be read as safetensors ({_one_line(error)}). Give a .safetensors file that this project "
            f"saved; a .pt, .pth or .pkl file has to be converted first."
        ) from error
    if CARD_KEY not in metadata:
        raise ModelError(
            f"{path} has no model card inside, so its labels and its input are unknown. "
            f"Give a file that this project saved (nonlocal_video.models.checkpoint.save_checkpoint)."
        )
    try:
        values = json.loads(metadata[CARD_KEY], parse_constant=_refuse_constant, object_pairs_hook=_without_repeats)
        return typed(ModelCard, values), tensors
    except RecursionError as error:
        raise ModelError(f"The model card inside {path} cannot be used: it is nested too deeply.") from error
    except ValueError as error:
        raise ModelError(f"The model card inside {path} cannot be used: {_one_line(error)}") from error


def _check_header(path: Path) -> None:
    """Raise if the header names something twice, since safetensors would use either."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        json.loads(file.read(length), object_pairs_hook=_without_repeats)


def check_is_weights(path: Path) -> None:
    """Raise if a file cannot hold weights in any format: it is missing, text or an archive.

    Raises:
        ModelError: If so; the message says what the file is and what to do.
    """
    try:
        if not path.is_file():
            raise ModelError(f"Weights file {path} not found.")
        found = describe_non_weights(path)
    except OSError as error:
        raise ModelError(f"The weights file {path} cannot be read: {error.strerror}.") from error
    if found is not None:
        raise ModelError(f"{path} {found}.")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it has {name} instead of a number")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("an object in it has a name twice")
    return values


def _one_line(error: BaseException) -> str:
    """Return an error's message in one line, as a part of a sentence."""
    words = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return words if len(words) <= _MAX_WORDS else words[:_MAX_WORDS] + " ..."


def typed(kind: type[T], values: Any) -> T:
    """Create a dataclass from plain JSON values: lists become tuples, nested dicts become nested dataclasses.

    Raises:
        ValueError: If a value does not fit or a name is unknown. Ignoring what a newer version wrote would build
            another network.
    """
    adapter = TypeAdapter(kind)
    try:
        typed = adapter.validate_python(values)
    except ValidationError as error:
        reasons = []
        for part in error.errors():
            where = ".".join(map(str, part["loc"])) or kind.__name__
            reasons.append(f"{where}: {part['msg'].removeprefix('Value error, ')}")
        raise ValueError("; ".join(reasons)) from error
    unknown = _unknown_names(values, adapter.dump_python(typed, mode="json"))
    if unknown:
        raise ValueError(f"this version does not know {unknown}")
    return typed


def _unknown_names(given: Any, known: Any, prefix: str = "") -> list[str]:
    """Return the dotted names in nested dicts `given` that `known` does not have."""
    if not isinstance(given, dict) or not isinstance(known, dict):
        return []
    unknown = [prefix + name for name in given if name not in known]
    for name in given.keys() & known.keys():
        unknown += _unknown_names(given[name], known[name], f"{prefix}{name}.")
    return sorted(unknown)
