"""Loading of models by name."""

from __future__ import annotations

import os
from pathlib import Path

from nonlocal_video.inference.precision import Precision, check_precision
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.runtimes.choice import RuntimeOption
from nonlocal_video.inference.runtimes.device import choose_device
from nonlocal_video.video.decode import DecodeLimits, DecoderChoice
from nonlocal_video.zoo.catalogue import load_network, source_of
from nonlocal_video.zoo.models import list_models, pull


def load(
    model: str | os.PathLike[str] = "default",
    *,
    device: str = "auto",
    runtime: RuntimeOption = "auto",
    precision: Precision = "float32",
    decoder: DecoderChoice = "auto",
    limits: DecodeLimits | None = None,
    download: bool = False,
) -> Recognizer:
    """Load a model with its weights, ready to recognise actions.

    Args:
        model: Catalogue name (see `list_models`), .safetensors file of this project, folder of a training run, folder
            of a video classifier in the format of transformers, `hf://owner/name[@revision]`, which is fetched from
            the Hugging Face Hub unless it is in the cache, or `package.module:function`, which returns a network and
            its `ModelCard`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        runtime: `openvino` is faster than `torch` on a CPU, with the same scores up to rounding, after some seconds of
            compilation at the first clip, once a machine. `auto` takes it on a CPU where that is worth it: if the
            network was compiled before, or after some seconds of work.
        precision: Precision of convolutions and matrix products; `tf32` (CUDA) and `bf16` change scores slightly.
        decoder: `auto` uses for each file a decoder that was measured to be exact.
        limits: Limits for a file; None is `DecodeLimits()`.
        download: Whether to download published weights that are not installed, as `pull` does.

    Raises:
        ModelError: The model does not exist, its file is invalid, or its weights are not available.
        UsageError: The device does not exist, runtime or precision do not run on it, or a licence has to be accepted.

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
    recognizer.source = source_of(name)
    return recognizer
