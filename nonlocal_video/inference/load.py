"""Load a model by its name, ready to recognise actions."""

from __future__ import annotations

import os
from pathlib import Path

from nonlocal_video.inference.precision import Precision, check_precision
from nonlocal_video.inference.recognizer import Decoder, Recognizer
from nonlocal_video.inference.runtimes.device import Runtime, choose_device
from nonlocal_video.video.decode import DecodeLimits
from nonlocal_video.zoo.catalogue import find, load_network
from nonlocal_video.zoo.models import list_models, pull


def load(
    model: str | os.PathLike[str] = "default",
    *,
    device: str = "auto",
    runtime: Runtime = "torch",
    precision: Precision = "float32",
    decoder: Decoder = "auto",
    limits: DecodeLimits | None = None,
    download: bool = False,
) -> Recognizer:
    """Load a model with its weights, ready to recognise actions.

    Args:
        model: A catalogue name (see `list_models`), a .safetensors file saved by this project, or a training run's
            folder.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        runtime: `openvino` answers on the CPU in less time than `torch`, with the same scores up to rounding, after
            some seconds at the first clip. Maps need features, so `explain` runs PyTorch with either.
        precision: Of the network's convolutions and products: `tf32` (CUDA) and `bf16` move scores, `float32` does not.
        decoder: `auto` takes for each file the decoder that is measured to be exact.
        limits: What a file may cost; None is `DecodeLimits()`.
        download: Get published weights that are not here yet, as `pull` does.

    Raises:
        ModelError: No such model, a file that is not one, or weights that are not here and cannot be had.
        UsageError: No such device, a runtime or precision that does not run on it, or a licence to accept first.

    Example:
        >>> import nonlocal_video as nlv
        >>> recognizer = nlv.load()
        >>> recognizer
        Recognizer('i3d-nl-k400', 400 classes, cpu)
    """
    chosen = choose_device(device, runtime=runtime)
    check_precision(precision, chosen, runtime=runtime)
    name = model if isinstance(model, str) else Path(model)
    if download and isinstance(name, str) and name in list_models() and not Path(name).exists():
        pull(name)
    network, card = load_network(name)
    recognizer = Recognizer(
        network, card, device=str(chosen), runtime=runtime, precision=precision, decoder=decoder, limits=limits
    )
    recognizer.weights = find(name)
    return recognizer
