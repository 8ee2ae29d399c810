"""Video classifiers in the format of `transformers`: config.json, preprocessor_config.json, model.safetensors.

A snapshot of a repository on the Hugging Face Hub is such a folder, and is loaded by the same function.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nonlocal_video.errors import ModelError

if TYPE_CHECKING:
    from nonlocal_video.models.card import InputSpec, ModelCard
    from nonlocal_video.models.transformers_network import TransformersNetwork

CONFIG = "config.json"
WINDOW_SECONDS = 4.0
"""Length of a window of a timeline or of features: the preset says only that frames are spread over the whole clip."""
_BILINEAR = 2
_PROBED = (0, 255)


def is_transformers_folder(name: str | Path) -> bool:
    """Return whether a name is a folder in the format of transformers; the config.json of a run has no model_type."""
    try:
        config = json.loads((Path(name) / CONFIG).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and isinstance(config.get("model_type"), str)


def load_transformers_folder(
    folder: str | Path, *, name: str | None = None, source: str | None = None
) -> tuple[TransformersNetwork, ModelCard]:
    """Load a video classifier with its weights, float32, in eval mode, and make its card.

    Only safetensors are read, and no code of the folder is run.

    Args:
        folder: The folder.
        name: Name of the model; None is the folder's.
        source: Origin of the weights, for the card; None is the folder.

    Raises:
        ModelError: The folder holds no video classifier of a known kind, or its preset cannot be followed.
        UsageError: The library is not installed.
    """
    from nonlocal_video.models.transformers_network import check_kind, transformers_library, wrapped

    folder = Path(folder)
    check_kind(json.loads((folder / CONFIG).read_text("utf-8"))["model_type"])
    library = transformers_library()
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"The folder {str(folder)!r} has no .safetensors file. Pickled weights are not read, as they can run code; "
            f"in transformers, model.save_pretrained(FOLDER) writes safetensors."
        )
    try:
        with _without_bars(library):
            model, loading = library.AutoModelForVideoClassification.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise ModelError(f"transformers cannot load the model in {str(folder)!r}: {error}") from error
    if missing := sorted(loading["missing_keys"]):
        raise ModelError(
            f"The weights in {str(folder)!r} lack {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}: they "
            f"are of another network, or of one that was not trained to classify."
        )
    network = wrapped(model.float().eval())
    return network, _card(folder, model.config, library, name=name or folder.resolve().name, source=source)


def card_of_folder(folder: str | Path) -> ModelCard:
    """Return the card of a folder, as `load_transformers_folder` does, without reading weights.

    Raises:
        ModelError: As for `load_transformers_folder`.
        UsageError: The library is not installed.
    """
    from nonlocal_video.models.transformers_network import check_kind, transformers_library

    folder = Path(folder)
    check_kind(json.loads((folder / CONFIG).read_text("utf-8"))["model_type"])
    library = transformers_library()
    config = library.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return _card(folder, config, library, name=folder.resolve().name, source=None)


@contextmanager
def _without_bars(library: Any) -> Iterator[None]:
    """Keep the library's progress bars off the terminal, and its warnings, which this module gives as errors."""
    messages = library.utils.logging
    bars, level = messages.is_progress_bar_enabled(), messages.get_verbosity()
    messages.disable_progress_bar()
    messages.set_verbosity_error()
    try:
        yield
    finally:
        messages.set_verbosity(level)
        if bars:
            messages.enable_progress_bar()


def _card(folder: Path, config: Any, library: Any, *, name: str, source: str | None) -> ModelCard:
    from nonlocal_video.models.card import ModelCard

    if config.problem_type in ("multi_label_classification", "regression"):
        raise ModelError(
            f"The model in {str(folder)!r} is for {config.problem_type}, and only one label a clip is supported."
        )
    labels = tuple(str(config.id2label[index]) for index in range(config.num_labels))
    if len(set(labels)) != len(labels):
        labels = tuple(f"{label} ({index})" for index, label in enumerate(labels))
    described = json.loads(config.to_json_string(use_diff=False))
    for key in ("id2label", "label2id", "num_labels", "architectures", "transformers_version", "dtype", "torch_dtype"):
        described.pop(key, None)
    return ModelCard(
        name=name,
        architecture="transformers",
        config={"num_classes": len(labels), "model": described},
        input=_preset(folder, config, library),
        labels=labels,
        source=source or str(folder),
        notes=("Its frames are spread evenly over the whole clip, as in transformers' own pipeline.",),
    )


def _preset(folder: Path, config: Any, library: Any) -> InputSpec:
    """Return the protocol of the folder's processor."""
    from nonlocal_video.models.card import InputSpec
    from nonlocal_video.models.transformers_network import view_of

    try:
        processor = library.AutoVideoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"transformers cannot load the processor in {str(folder)!r}: {error}") from error
    if not processor.do_resize or int(processor.resample) != _BILINEAR:
        raise ModelError(
            f"The processor in {str(folder)!r} does not resize bilinearly, which is all that is supported."
        )
    num_frames, side = view_of(config)
    height, width = (_number(processor.size, key) for key in ("height", "width"))
    crop = side
    if processor.do_center_crop:
        crops = {_number(processor.crop_size, key) for key in ("height", "width")}
        crop = crops.pop() or side
        if crops:
            raise ModelError(
                f"The processor in {str(folder)!r} cuts out {processor.crop_size}, but only squares are supported."
            )
    if crop != side:
        raise ModelError(f"The processor in {str(folder)!r} gives {crop} pixels, but the model takes {side}.")
    short = _number(processor.size, "shortest_edge")
    resize_to = None if height is None or width is None else (height, width)
    if short is None and resize_to is None:
        raise ModelError(
            f"The processor in {str(folder)!r} resizes to {processor.size}; it should have shortest_edge, or height "
            f"and width."
        )
    mean, std = _normalisation(processor, num_frames, side)
    return InputSpec(
        num_frames=num_frames,
        frames_per_second=num_frames / WINDOW_SECONDS,
        short_side=min(resize_to) if resize_to else int(short or 0),
        crop=crop,
        mean=mean,
        std=std,
        resize_to=resize_to,
        frame_placement="start_of_steps",
        short_clips="spread",
        crop_placement="steps_rounded_down",
        whole_clip=True,
    )


def _number(size: Any, key: str) -> int | None:
    value = size.get(key) if isinstance(size, dict) else getattr(size, key, None)
    return None if value is None else int(value)


def _normalisation(processor: Any, num_frames: int, side: int) -> tuple[Any, Any]:
    """Return mean and std, for values from 0 to 1, of what a processor does: found by giving it black and white frames.

    Its numbers alone do not say it, since some kinds shift what they have scaled.
    """
    values = []
    for level in _PROBED:
        frames = np.full((num_frames, 3, 2 * side, 2 * side), level, np.uint8)
        (given,) = processor(frames, return_tensors="pt", do_sample_frames=False).values()
        values.append(given[0, 0, :, side // 2, side // 2].double().numpy())  # (3,)
    black, white = values
    std = 1 / (white - black)
    return tuple((-black * std).tolist()), tuple(std.tolist())
