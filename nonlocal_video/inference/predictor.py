"""The predictor, which runs a model on clips that are loaded; everything that classifies many clips uses it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nonlocal_video.errors import DeviceError
from nonlocal_video.inference.engine import Engine
from nonlocal_video.inference.explanation import Explanation
from nonlocal_video.inference.options import RunOptions
from nonlocal_video.inference.precision import Precision
from nonlocal_video.inference.prediction import Prediction
from nonlocal_video.inference.preprocessing import ClipLoader, ClipSource, LoadedClip
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.inference.runtimes.choice import Runtime, RuntimeOption
from nonlocal_video.models.card import ModelCard
from nonlocal_video.video.decode import DecodeLimits, DecoderChoice, VideoReader
from nonlocal_video.zoo.catalogue import weights_sha256

_MANY = 100
"""Number of views that a prepared network is expected to see."""


class Predictor:
    """A model on its device, with the options it runs with; safe to use from several threads, which take turns.

    Attributes:
        network: The trained module: normalised clips (N, 3, T, H, W) to logits (N, classes). Inference uses a copy.
        card: The model's card.
        options: How the model runs.
        device: The chosen device.
        source: What `load` loads this model from in another process; None for a network made in Python.
    """

    def __init__(
        self,
        network: nn.Module,
        card: ModelCard,
        *,
        device: str = "auto",
        runtime: RuntimeOption = "auto",
        precision: Precision = "float32",
        decoder: DecoderChoice = "auto",
        limits: DecodeLimits | None = None,
    ) -> None:
        options = RunOptions(device, runtime, precision, decoder, limits or DecodeLimits())
        self._engine = Engine(network, card, device=device, runtime=runtime, precision=precision)
        self.network: nn.Module = self._engine.network
        self.card = card
        self.options = options
        self.device: torch.device = self._engine.device
        self.source: str | None = None
        self._loader = ClipLoader(options.new_reader())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.card.name!r}, {len(self.labels)} classes, {self.device})"

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.card.labels

    @property
    def runtime(self) -> Runtime:
        """Runtime of the last run; before the first one, of the next, if known. `options.runtime` is the setting."""
        return self._engine.runner.runtime

    @property
    def at_once(self) -> int:
        """Number of views to hand over together: more than 1 where the runtime may compute them at the same time."""
        return self._engine.runner.at_once

    @property
    def precision(self) -> Precision:
        """Precision of the network's convolutions and matrix products."""
        return self.options.precision

    @property
    def failed(self) -> DeviceError | None:
        """Error of a failed device, raised by every further call; None if it works."""
        return self._engine.shared.failed

    def noting_failure(self) -> AbstractContextManager[None]:
        """Make a failure of the device in the block `failed`, wherever it came up."""
        return self._engine.shared.noting_failure()

    @property
    def inference_network(self) -> nn.Module:
        """The copy of `network` for inference, with folded batch norms and without identity blocks."""
        return self._engine.folded

    def nonlocal_layers(self) -> dict[str, Any]:
        """Return the non-local blocks of the network, or a transformer's attention layers, by dotted name."""
        blocks = getattr(self.network, "nonlocal_layers", None)
        return {} if blocks is None else blocks()

    def weights_sha256(self) -> str | None:
        """Return the SHA-256 of the weights, see `zoo.catalogue`; None for a network made in Python."""
        return None if self.source is None else weights_sha256(self.source, network=self.network)

    def new_reader(self) -> VideoReader:
        """Return another reader with the same decoder and limits; the caller closes it."""
        return self.options.new_reader()

    def close(self) -> None:
        """End the decoding process."""
        self._loader.reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def load_clip(
        self, source: ClipSource, request: ClipRequest, originals: list[NDArray[np.uint8]] | None = None
    ) -> LoadedClip:
        """Decode the frames of a clip that a request needs, as `ClipLoader.load` does for this model's input."""
        return self._loader.load(source, self.card.view(fast=request.fast), request, originals=originals)

    def prepare(self) -> None:
        """Make the network ready for many clips, in the model's full and fast view, as a server does at its start.

        With the runtime `auto` on a CPU the network is compiled for OpenVINO if that is worth its time, or taken from
        the cache where it was compiled before.

        Raises:
            ModelError: The network gave something that is not a number; or OpenVINO was asked for and cannot run it.
        """
        for spec in dict.fromkeys([self.card.input, self.card.fast_input]):
            if spec is not None:
                self._engine.prepare(spec, num_ahead=_MANY)

    def predict(
        self, clips: Sequence[LoadedClip], *, batch_size: int = 1, layer: str | None = None, num_ahead: int = 0
    ) -> list[Prediction]:
        """Run the network on loaded clips; clips may share a forward pass.

        Args:
            clips: Loaded clips.
            batch_size: Views in one forward pass.
            layer: Dotted name of the layer whose pooled output becomes `Prediction.features`; PyTorch computes another
                than the one before the classifier, whatever the runtime.
            num_ahead: Number of views known to come after these. With the runtime `auto`,
                OpenVINO's start is worth it for many.
        """
        return self._engine.answer(clips, batch_size, pooled_layer=layer, num_ahead=num_ahead)[0]

    def forward(self, inputs: Tensor) -> Tensor:
        """Run the network on normalised views, as `Recognizer.classify` does.

        Args:
            inputs: (B, 3, T, S, S), normalised with mean and std of the card.

        Returns:
            Logits (B, P, classes) on the device; P is 1, or the number of windows of `ModelCard.head_window`.

        Raises:
            ModelError: The network gave something that is not a number.
        """
        return self._engine.forward(inputs)

    def explain_loaded(self, clip: LoadedClip, originals: list[NDArray[np.uint8]]) -> Explanation:
        """Run the network on the only view of a loaded clip, and keep the features that maps need.

        Args:
            clip: Loaded clip.
            originals: Its distinct frames at their own size, to draw on.
        """
        blocks = self.nonlocal_layers()
        feature_layer = getattr(self.network, "feature_layer", None)
        (prediction,), kept = self._engine.answer(
            [clip], 1, inputs_of=list(blocks), outputs_of=[feature_layer] if feature_layer else []
        )
        return Explanation(
            prediction=prediction,
            clip=clip,
            originals=originals,
            shared=self._engine.shared,
            block_inputs={name: kept.inputs[name] for name in blocks},
            features=kept.outputs[feature_layer] if feature_layer else None,
            feature_layer=feature_layer,
            blocks=blocks,
            default_block=self.card.explain_layer,
            network_input=clip.network_input(0, 0, device=self.device).contiguous(memory_format=torch.channels_last_3d),
            head_window=self.card.head_window,
        )
