"""Weights files: a safetensors file with the model card inside, so that one file is all a model needs."""

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
from nonlocal_video.models.not_weights import what_it_is

# The file's only metadata entry: with a second one, the order of the two, and so the file, would differ by chance.
CARD_KEY = "nonlocal_video.card"
_MAX_LISTED = 10
MAX_PARAMETERS = 4_000_000_000
"""16 GB of float32; the largest published 3D network has a tenth."""
_MAX_WORDS = 600
_STORED_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
"""What float32 holds exactly."""

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
    for name, tensor in without_wrappers(network.state_dict()).items():
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
        with torch.random.fork_rng(devices=[]):  # initialising the network must not move the caller's random numbers
            network = _BUILDERS[card.architecture](card)
    except (RuntimeError, MemoryError) as error:
        raise ModelError(f"There is no memory for the network of {path}: {_one_line(error)}") from error
    network.load_state_dict(stored)
    return network.eval(), card


def without_wrappers(tensors: Mapping[str, T]) -> dict[str, T]:
    """Take off what DataParallel (`module.`, before all names) and torch.compile (`_orig_mod.`, anywhere) add to names.

    Raises:
        ModelError: Two names become one.
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
    """The card of a file that `save_checkpoint` wrote, without reading its weights.

    Raises:
        ModelError: If the file isn't such a file.
    """
    return _read(Path(path), with_tensors=False)[0]


def build_network(card: ModelCard) -> nn.Module:
    """The network that a card describes, newly initialised.

    Raises:
        ModelError: If the architecture is unknown, or its configuration or the number of labels does not fit, or it is
            larger than any network.
    """
    _without_memory(card)
    try:
        return _BUILDERS[card.architecture](card)
    except (RuntimeError, MemoryError) as error:
        raise ModelError(f"There is no memory for the network {card.name!r}: {_one_line(error)}") from error


def _without_memory(card: ModelCard) -> nn.Module:
    """Return the network that a card describes without memory for its weights (on the meta device).

    Raises:
        ModelError: As `build_network`.
    """
    builder = _BUILDERS.get(card.architecture)
    if builder is None:
        raise ModelError(
            f"Model {card.name!r} has the architecture {card.architecture!r}; this version knows {sorted(_BUILDERS)}."
        )
    try:
        with torch.device("meta"):
            network = builder(card)
    except (RuntimeError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise ModelError(
            f"The card of {card.name!r} does not describe a {card.architecture}: {_one_line(error)}"
        ) from error
    if (count := sum(parameter.numel() for parameter in network.parameters())) > MAX_PARAMETERS:
        raise ModelError(
            f"The card of {card.name!r} describes a network of {count:,} parameters; at most {MAX_PARAMETERS:,} are "
            "taken."
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


_BUILDERS: dict[str, Callable[[ModelCard], nn.Module]] = {"inception_i3d": _inception_i3d, "resnet3d": _resnet3d}


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
    """Refuse a header that names something twice, of which the library would take either."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        json.loads(file.read(length), object_pairs_hook=_without_repeats)


def check_is_weights(path: Path) -> None:
    """Refuse what can be no weights whatever its format: no file, or a text, or an archive.

    Raises:
        ModelError: It is that; the message says what it is and what to do.
    """
    try:
        if not path.is_file():
            raise ModelError(f"There is no weights file {path}.")
        found = what_it_is(path)
    except OSError as error:
        raise ModelError(f"The weights file {path} cannot be read: {error.strerror}.") from error
    if found is not None:
        raise ModelError(f"{path} {found}.")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it has {name} for a number")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("it has a name twice in one object")
    return values


def _one_line(error: BaseException) -> str:
    """What an error says, as a part of a sentence."""
    words = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return words if len(words) <= _MAX_WORDS else words[:_MAX_WORDS] + " ..."


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
    """Dotted names in nested dicts `given` that `known` does not have."""
    if not isinstance(given, dict) or not isinstance(known, dict):
        return []
    unknown = [prefix + name for name in given if name not in known]
    for name in given.keys() & known.keys():
        unknown += _unknown_names(given[name], known[name], f"{prefix}{name}.")
    return sorted(unknown)
