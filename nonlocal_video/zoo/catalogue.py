"""The models that can be loaded by name, and the location of their weights."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nonlocal_video.errors import ModelError
from nonlocal_video.io import sha256_of
from nonlocal_video.zoo.hub import is_on_hub, local_model
from nonlocal_video.zoo.own_network import call_function, digest_of_state, is_function
from nonlocal_video.zoo.store import weights_path
from nonlocal_video.zoo.transformers_folder import card_of_folder, is_transformers_folder, load_transformers_folder

if TYPE_CHECKING:
    from torch import nn

    from nonlocal_video.models.card import ModelCard
    from nonlocal_video.zoo.entry import CatalogueEntry

DEFAULT = "i3d-nl-k400"
EMBEDDED = (DEFAULT,)
"""Models whose weights are part of the package."""
EMBEDDED_SIZES = {DEFAULT: (13_221_552, 111.4)}
"""Their parameters, and 1e9 multiply-accumulates of one view, by name."""
RUN_CONFIG, RUN_WEIGHTS = "config.json", "best.safetensors"
"""Files of a training run's folder: its configuration, by which it is recognised, and its weights."""
RUN_TAUGHT = "taught"
"""Key of a configuration's settings if the run was taught by examples."""


@lru_cache
def entries() -> dict[str, CatalogueEntry]:
    """Return the published checkpoints by name, as listed in `weights/catalogue.yaml`.

    Raises:
        ValueError: If a row does not fit `CatalogueEntry`.
    """
    from pydantic import TypeAdapter

    from nonlocal_video.zoo.catalogue_file import read_rows
    from nonlocal_video.zoo.entry import CatalogueEntry

    text = (files("nonlocal_video.weights") / "catalogue.yaml").read_text("utf-8")
    rows = TypeAdapter(list[CatalogueEntry]).validate_python(read_rows(text))
    return {row.name: row for row in rows}


@lru_cache
def recommended() -> dict[str, str]:
    """Return which models to take, the likeliest first: name -> why, in one or two sentences."""
    from nonlocal_video.zoo.catalogue_file import read_yaml

    text = (files("nonlocal_video.weights") / "catalogue.yaml").read_text("utf-8")
    return {row["name"]: row["why"] for row in read_yaml(text)["recommended"]}


def entry(name: str) -> CatalogueEntry:
    """Return the catalogue's row of a name.

    Raises:
        ModelError: If the name is not in the catalogue; the message has similar names.
    """
    found = entries().get(name)
    if found is None:
        raise ModelError(_unknown(name))
    return found


def find(name_or_path: str | Path) -> Path:
    """Return the safetensors file of a catalogue name, `default`, a run's folder, a path, or an `hf://` address.

    Raises:
        ModelError: If there is no such name, file or run, its weights are not here yet, or it is a function.
    """
    if is_function(name_or_path):
        raise ModelError(
            f"Model {str(name_or_path)!r} is a function, which has no weights file, and one is needed here. Give the "
            f"path of a .safetensors file saved by this project, a training run's folder, or a catalogue name."
        )
    name_or_path = local_model(name_or_path)
    name = DEFAULT if str(name_or_path) == "default" else str(name_or_path)
    if name in EMBEDDED:
        return Path(str(files("nonlocal_video.weights"))) / f"{name}.safetensors"
    path = Path(name_or_path)
    if path.is_file():
        return path
    if name not in entries():
        if is_transformers_folder(path):
            raise ModelError(
                f"The folder {name!r} is in the format of transformers, and a weights file of this project is needed "
                f"here. `classify`, `explain`, `timeline`, `features`, `search`, `teach` and `serve` take the folder."
            )
        if name and path.is_dir():
            return _weights_of_run(path)
        raise ModelError(_unknown(name))
    pulled = weights_path(name)
    if pulled.is_file():
        return pulled
    if entries()[name].download is None:
        raise ModelError(f"No weights were ever published for {name!r}; nlv.build({name!r}) gives the network alone.")
    raise ModelError(
        f"The weights of {name!r} are not here yet: nonlocal-video weights pull {name}, or in Python "
        f"nlv.load({name!r}, download=True)."
    )


def card_of(name_or_path: str | Path) -> ModelCard:
    """Return the card of anything that `load_network` loads; a file's weights are not read.

    Raises:
        ModelError: As for `load_network`.
    """
    from nonlocal_video.models.checkpoint import read_card

    if is_function(name_or_path):
        return call_function(str(name_or_path))[1]
    local = local_model(name_or_path)
    return card_of_folder(local) if is_transformers_folder(local) else read_card(find(local))


def weights_sha256(name_or_path: str | Path, *, network: nn.Module | None = None) -> str:
    """Return the SHA-256 of a model's weights file, or of the values in a network that has no such file.

    Args:
        name_or_path: As for `load_network`.
        network: The network that a function or a folder of transformers has given; None loads it.

    Raises:
        ModelError: As for `load_network`.
    """
    if is_function(name_or_path):
        return digest_of_state(call_function(str(name_or_path))[0] if network is None else network)
    local = local_model(name_or_path)
    if is_transformers_folder(local):
        return digest_of_state(load_transformers_folder(local)[0] if network is None else network)
    return sha256_of(find(local))


def source_of(name_or_path: str | Path) -> str:
    """Return what loads the same model in another process: a path, or the name of a function.

    Raises:
        ModelError: As for `load_network`.
    """
    if is_function(name_or_path):
        return str(name_or_path)
    local = local_model(name_or_path)
    return os.path.abspath(local) if is_transformers_folder(local) else str(find(local))


def load_network(name_or_path: str | Path) -> tuple[nn.Module, ModelCard]:
    """Load a network with its weights, float32, in eval mode, and its card.

    Args:
        name_or_path: A catalogue name, `default`, a .safetensors file of this project, a training run's folder, a
            video classifier's folder in the format of transformers, `hf://owner/name[@revision]` for either kind of
            folder, or `package.module:function`, which returns both.

    Raises:
        ModelError: If the file cannot be used, or was pulled by a version whose catalogue described another network
            under that name.
    """
    from nonlocal_video.models.checkpoint import load_checkpoint

    if is_function(name_or_path):
        return call_function(str(name_or_path))
    local = local_model(name_or_path)
    if is_transformers_folder(local):
        if is_on_hub(name_or_path):
            return load_transformers_folder(local, name=str(name_or_path), source=str(name_or_path))
        return load_transformers_folder(local)
    path = find(local)
    network, card = load_checkpoint(path)
    if is_on_hub(name_or_path):
        return network, replace(card, source=str(name_or_path))
    row = entries().get(str(name_or_path))
    if row is not None and path == weights_path(row.name) and not _is_of(card, row.card):
        raise ModelError(
            f"{path} was made by another version of this project, whose catalogue described {row.name!r} differently. "
            f"Remove the file and get it again: nonlocal-video weights pull {row.name}"
        )
    return network, card


def _is_of(card: ModelCard, published: ModelCard) -> bool:
    """Compare the parts of a card that decide a network's scores; names, notes and addresses may change."""
    fields = ("architecture", "config", "input", "labels", "average", "head_window")
    return all(getattr(card, field) == getattr(published, field) for field in fields)


def build(name_or_path: str | Path) -> nn.Module:
    """Build the network of a catalogue name, newly initialised; its weights are neither needed nor read.

    Args:
        name_or_path: A catalogue name, `default`, a .safetensors file of this project, or a training run's folder.

    Raises:
        ModelError: If there is no such model.

    Example:
        >>> network = nlv.build("i3d-nl-r50-8x8-k400-pyslowfast")
        >>> type(network).__name__, len(network.nonlocal_layers())
        ('Video3DResNet', 5)
    """
    from nonlocal_video.models.checkpoint import build_network, read_card

    row = entries().get(str(name_or_path))
    if row is None:
        return build_network(read_card(find(name_or_path)))
    check_row(row)
    return build_network(row.card)


@lru_cache
def _shapes(name: str) -> tuple[int, tuple[int, ...]]:
    """Return the number of parameters and the shape of the last features of a row's network."""
    import torch

    from nonlocal_video.models.checkpoint import build_network

    row = entry(name)
    with torch.device("meta"), torch.inference_mode():  # shapes only: no memory, no arithmetic
        network: Any = build_network(row.card).eval()
        if row.architecture == "torchvision":
            return sum(parameter.numel() for parameter in network.parameters()), network.last_features
        view = torch.empty(1, 3, row.input.num_frames, row.view_side, row.view_side)
        features = network.extract_features(view, ["stage4"])["stage4"]
    return sum(parameter.numel() for parameter in network.parameters()), tuple(features.shape[1:])


def check_row(row: CatalogueEntry) -> None:
    """Check the network that a row describes against the row's figures, before it is built or filled.

    Raises:
        ModelError: If its number of parameters or the shape of its last features differs from its publisher's.
    """
    parameters, features = _shapes(row.name)
    if (parameters, features) != (row.parameters, row.last_features):
        raise ModelError(
            f"The catalogue's row {row.name!r} builds {parameters:,} parameters and last features of {features}, where "
            f"its publisher has {row.parameters:,} and {row.last_features}: this installation is damaged or its "
            f"catalogue was edited; install nonlocal-video again."
        )


def _weights_of_run(folder: Path) -> Path:
    weights = folder / RUN_WEIGHTS
    if not (folder / RUN_CONFIG).is_file():
        raise ModelError(
            f"The folder {str(folder)!r} holds no training run (it has no {RUN_CONFIG}). Give the folder that `train "
            f"--output` wrote, a .safetensors file saved by this project, or a name of `nonlocal-video weights list`."
        )
    if not weights.is_file():
        raise ModelError(
            f"The run in {str(folder)!r} has no {RUN_WEIGHTS} yet: it is written when the network is first "
            f"validated. Wait for that, or resume an interrupted run: nonlocal-video train ... --resume"
        )
    return weights


def _unknown(name: str) -> str:
    from difflib import get_close_matches

    known = ["default", *EMBEDDED, *entries()]
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    return (
        f"There is no model or weights file {name!r}. {hint}`nonlocal-video weights list` shows all {len(known) - 1} "
        "names. Or give the path of a .safetensors file saved by this project, of a training run's folder or of a "
        "folder in transformers' format, hf://owner/name, or the package.module:function that returns a network and "
        "its card."
    )
