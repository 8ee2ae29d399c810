"""The recognizer, which runs a model on clips; the page, the command line and Python all use it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nonlocal_video.attention.maps import AttentionMaps, Method, QueryPoint
from nonlocal_video.errors import DeviceError, UsageError
from nonlocal_video.inference.batch_run import BatchProgress, FolderResult, run_folder
from nonlocal_video.inference.context import Context, FolderContext
from nonlocal_video.inference.engine import Engine
from nonlocal_video.inference.explanation import Explanation
from nonlocal_video.inference.feature_stream import window_features
from nonlocal_video.inference.files import Selection
from nonlocal_video.inference.object_storage import is_folder
from nonlocal_video.inference.precision import Precision
from nonlocal_video.inference.prediction import Outcome, Prediction
from nonlocal_video.inference.preprocessing import ClipLoader, ClipRequest, ClipSource, LoadedClip
from nonlocal_video.inference.runtimes.device import Runtime, choose_devices
from nonlocal_video.inference.sliding import last_of, slide
from nonlocal_video.inference.timeline import Timeline
from nonlocal_video.inference.views import ViewCount
from nonlocal_video.models.card import ModelCard
from nonlocal_video.video.decode import DecodeLimits, VideoReader
from nonlocal_video.video.region import Region, RegionLike

Decoder = Literal["auto", "decord", "pyav"]
Stage = Literal["reading", "network"]


class Recognizer:
    """Runs a model on video clips; safe to call from several threads, which take turns.

    `network` is the trained module: normalised clips (N, 3, T, H, W) to logits (N, classes). Inference uses a copy with
    folded batch norms, in the chosen `runtime` (see `load`).
    """

    def __init__(
        self,
        network: nn.Module,
        card: ModelCard,
        *,
        device: str = "auto",
        runtime: Runtime = "torch",
        precision: Precision = "float32",
        decoder: Decoder = "auto",
        limits: DecodeLimits | None = None,
    ) -> None:
        self._engine = Engine(network, card, device=device, runtime=runtime, precision=precision)
        self.network, self.device = self._engine.network, self._engine.device
        self.runtime: Runtime = runtime
        self.precision: Precision = precision
        self.card = card
        self.weights: Path | None = None  # the file that `load` read
        self._loader = ClipLoader(VideoReader(decoder=decoder, limits=limits or DecodeLimits()))

    def __repr__(self) -> str:
        return f"Recognizer({self.card.name!r}, {len(self.labels)} classes, {self.device})"

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.card.labels

    @property
    def failed(self) -> DeviceError | None:
        """Error of a failed device, raised by every further call; None if it works."""
        return self._engine.shared.failed

    def close(self) -> None:
        """End the decoding process."""
        self._loader.reader.close()

    def __enter__(self) -> Recognizer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def classify(
        self,
        source: ClipSource,
        *,
        views: str = "1x1",
        fast: bool = False,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        frames_per_second: float | None = None,
        region: RegionLike = None,
        on_stage: Callable[[Stage], None] = lambda stage: None,
    ) -> Prediction:
        """Recognise the action of a clip; calling the recognizer does the same.

        Args:
            source: Path or URL (https://, s3://, ...) of a video file, its bytes, or frames as uint8 (T, H, W, 3) RGB.
            views: Number of views, CLIPSxCROPS; the softmax is averaged over them. One clip is the middle of the video.
            fast: Whether to use the cheaper input of the model card.
            start_seconds: Start of the part to use.
            end_seconds: End of the part to use.
            frames_per_second: Rate of frames given as an array; None assumes the model's rate, with a note.
            region: Region of the frame to use, (x0, y0, x1, y1) in fractions, or as text; see `Region`.
            on_stage: Called at the start of each stage.

        Raises:
            VideoError: The clip cannot be read.
            UsageError: An argument has a value that is not allowed, or the source is a folder.
            ModelError: The network gave something that is not a number.

        Example:
            >>> prediction = recognizer.classify("cello.mp4", views="3x1")
            >>> prediction.top1.label
            'playing cello'
        """
        request = ClipRequest(
            ViewCount.parse(views), start_seconds, end_seconds, frames_per_second, Region.parse(region)
        )
        _refuse_folder(source)
        on_stage("reading")
        clip = self._loader.load(source, self.card.view(fast=fast), request, originals=None)
        on_stage("network")
        return self.predict([clip])[0]

    __call__ = classify

    def preprocess(
        self,
        source: ClipSource,
        *,
        views: str = "1x1",
        fast: bool = False,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        frames_per_second: float | None = None,
        region: RegionLike = None,
    ) -> Tensor:
        """Return the input of the network in `classify`: (V, 3, T, S, S) float32, normalised, on the CPU.

        The V views are ordered by time, and then by crop from left to right or top to bottom. Arguments and errors are
        those of `classify`.

        Example:
            >>> views = recognizer.preprocess("cello.mp4", views="3x1")
            >>> logits = recognizer.network(views.to(recognizer.device))
        """
        request = ClipRequest(
            ViewCount.parse(views), start_seconds, end_seconds, frames_per_second, Region.parse(region)
        )
        _refuse_folder(source)
        clip = self._loader.load(source, self.card.view(fast=fast), request, originals=None)
        return torch.cat([clip.network_input(v, c) for v in range(len(clip.views)) for c in range(len(clip.crops))])

    def classify_folder(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        output: str | os.PathLike[str] | None = None,
        resume: bool = False,
        views: str = "1x1",
        fast: bool = False,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        region: RegionLike = None,
        top_k: int = 5,
        workers: int | None = None,
        batch_size: int | None = None,
        devices: str | Sequence[str] = (),
        selection: Selection | None = None,
        context: FolderContext = "none",
        on_progress: Callable[[BatchProgress], None] = lambda progress: None,
    ) -> FolderResult:
        """Recognise the action in each of many clips, as the command `classify` does, with a row for every file.

        Args:
            paths: Files, folders (searched through), glob patterns, addresses; one or several.
            output: Table to write, .csv, .jsonl or .parquet. None writes none, and keeps all outcomes in memory.
            resume: Take up an earlier run with this output: only files without a row, or changed since, are read.
            views: As for `classify`.
            fast: As for `classify`.
            start_seconds: As for `classify`.
            end_seconds: As for `classify`.
            region: As for `classify`.
            top_k: Classes in a row.
            workers: Decoding processes beside the network; None is as many as suit the device.
            batch_size: Views in one forward pass; None is as many as suit the device.
            devices: `cuda:all`, or names like `cuda:1`: a process each, in place of this recogniser's device.
            selection: Which of the files count; None is all of them.
            context: `folder` refines each clip's answer by the clips like it, once all are read.
            on_progress: Called after each row; in a context with the clip's own answer, which is not the final one.

        Raises:
            UsageError: An argument is invalid, or the output cannot be resumed.
            OutputError: The table cannot be written; the rows so far are kept beside it.
            DeviceError: The device has failed; `resume` does the rest.

        Example:
            >>> table = recognizer.classify_folder("clips/", output="actions.csv")
            >>> [row["path"] for row in table if row["status"] == "error"]
            ['clips/note.mp4']
        """
        request = ClipRequest(ViewCount.parse(views), start_seconds, end_seconds, region=Region.parse(region))
        outcomes: list[Outcome] = []

        def tell(progress: BatchProgress) -> None:
            if output is None and context == "none":
                outcomes.append(progress.outcome)
            on_progress(progress)

        result = run_folder(
            self,
            [paths] if isinstance(paths, (str, os.PathLike)) else paths,
            request,
            output=output,
            resume=resume,
            fast=fast,
            top_k=top_k,
            workers=workers,
            batch_size=batch_size,
            devices=choose_devices(devices, runtime=self.runtime) if isinstance(devices, str) else devices,
            selection=selection,
            context=context,
            on_progress=tell,
        )
        return replace(result, outcomes=(*result.outcomes, *outcomes))

    def predict(
        self, clips: Sequence[LoadedClip], *, batch_size: int = 1, layer: str | None = None
    ) -> list[Prediction]:
        """Run the network on loaded clips; clips may share a forward pass.

        Args:
            clips: Loaded clips.
            batch_size: Views in one forward pass.
            layer: Dotted name of the layer whose pooled output becomes `Prediction.features`; PyTorch computes another
                than the one before the classifier, whatever the runtime.
        """
        return self._engine.answer(clips, batch_size, runtime=self.runtime, pooled_layer=layer)[0]

    @property
    def inference_network(self) -> nn.Module:
        """The copy of `network` for inference, with folded batch norms and without identity blocks."""
        return self._engine.folded if self._engine.openvino is None else self._engine.openvino.network

    def forward(self, inputs: Tensor) -> Tensor:
        """Run the network on normalised views, as `classify` does.

        Args:
            inputs: (B, 3, T, S, S), normalised with mean and std of the card.

        Returns:
            Logits (B, P, classes) on the device; P is 1, or the number of windows of `ModelCard.head_window`.

        Raises:
            ModelError: The network gave something that is not a number.
        """
        return self._engine.forward(inputs, self.runtime)

    @property
    def decoder(self) -> Decoder:
        """The requested decoder."""
        return self._loader.reader.decoder

    @property
    def limits(self) -> DecodeLimits:
        """Limits for a file."""
        return self._loader.reader.limits

    def new_reader(self) -> VideoReader:
        """Return another reader with the same decoder and limits; the caller closes it."""
        return VideoReader(decoder=self.decoder, limits=self.limits)

    def explain_all(
        self,
        source: ClipSource,
        *,
        fast: bool = False,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        around_seconds: float | None = None,
        frames_per_second: float | None = None,
        region: RegionLike = None,
        on_stage: Callable[[Stage], None] = lambda stage: None,
    ) -> Explanation:
        """Recognise one view of a clip and keep its features, from which maps are made; always runs PyTorch.

        Args:
            source: As for `classify`, except a folder.
            fast: The model card's cheaper view.
            start_seconds: Only look from here on.
            end_seconds: Only look up to here.
            around_seconds: Use the span around this time if the default one does not contain it.
            frames_per_second: Rate of frames given as an array.
            region: As for `classify`.
            on_stage: Called when a stage begins.
        """
        on_stage("reading")
        if around_seconds is not None and start_seconds is None and end_seconds is None:
            spec = self.card.view(fast=fast)
            start_seconds, end_seconds = self._loader.span_around(source, around_seconds, spec, frames_per_second)
        originals: list[NDArray[np.uint8]] = []
        request = ClipRequest(ViewCount(), start_seconds, end_seconds, frames_per_second, Region.parse(region))
        clip = self._loader.load(source, self.card.view(fast=fast), request, originals=originals)
        on_stage("network")
        blocks = self.nonlocal_layers()
        feature_layer = getattr(self.network, "feature_layer", None)
        (prediction,), kept = self._engine.answer(
            [clip], 1, runtime="torch", inputs_of=list(blocks), outputs_of=[feature_layer] if feature_layer else []
        )
        return Explanation(
            prediction=prediction,
            clip=clip,
            originals=originals,
            shared=self._engine.shared,
            block_inputs={name: kept[name] for name in blocks},
            features=kept[feature_layer] if feature_layer else None,
            feature_layer=feature_layer,
            default_block=self.card.explain_layer,
            network_input=clip.network_input(0, 0, device=self.device).contiguous(memory_format=torch.channels_last_3d),
            head_window=self.card.head_window,
        )

    def explain(
        self,
        source: ClipSource,
        *,
        method: Method | None = None,
        query: tuple[float, float, float] | None = None,
        label: str | int | None = None,
        layer: str | None = None,
        fast: bool = False,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        frames_per_second: float | None = None,
        region: RegionLike = None,
    ) -> AttentionMaps:
        """Return maps of where the network looked, for every sampled frame; always runs PyTorch.

        Args:
            source: As for `classify`, except a folder.
            method: `attention` (received in a non-local block), `query` (what one point attends to) or `evidence`
                (class evidence: the exact class activation map at the last layer, Grad-CAM at another). None is
                `query` if a query is given, `evidence` if a label is, else `attention`.
            query: (seconds, x, y); seconds from the clip's beginning, fractions of the frame's width and height.
                If the default span does not contain this time, the span around it is used.
            label: Class for `evidence`, by name or index; None is the top class.
            layer: Dotted name of a non-local block (attention, query) or of any layer (evidence).
            fast: The model card's cheaper view.
            start_seconds: Only look from here on.
            end_seconds: Only look up to here.
            frames_per_second: Rate of frames given as an array.
            region: As for `classify`; maps, queries and overlays still refer to the whole frame.
        """
        point = None if query is None else QueryPoint.parse(query)
        explanation = self.explain_all(
            source,
            fast=fast,
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            around_seconds=None if point is None else point.seconds,
            frames_per_second=frames_per_second,
            region=region,
        )
        return explanation.maps(method=method, query=point, label=label, layer=layer)

    def timeline(
        self,
        path: str | os.PathLike[str],
        *,
        window_seconds: float | None = None,
        stride_seconds: float | None = None,
        fast: bool = False,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        batch_size: int | None = None,
        region: RegionLike = None,
        context: Context = "nonlocal",
    ) -> Timeline:
        """Return the timeline of a long video; `inference.sliding.slide` yields it window by window.

        Args:
            path: A video file.
            window_seconds: Length of a window; None is the model's own span.
            stride_seconds: From one window to the next; None is half a window.
            fast: The model card's cheaper view.
            start_seconds: Only look from here on.
            end_seconds: Only look up to here.
            batch_size: Windows in one forward pass; None is as many as suit the device.
            region: As for `classify`.
            context: `nonlocal` refines each window's answer by the windows like it; `none` leaves it alone.

        Returns:
            The timeline. Where the video breaks after some windows, it has these, `is_complete` is False, `error` says
            why, and Python's `warnings` tell it.

        Raises:
            VideoError: Not even one window can be read.
            UsageError: An argument has a value that is not allowed.
        """
        steps = slide(
            self,
            path,
            window_seconds=window_seconds,
            stride_seconds=stride_seconds,
            fast=fast,
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            batch_size=batch_size,
            region=region,
            context=context,
        )
        return last_of(steps)

    features = window_features

    def nonlocal_layers(self) -> dict[str, nn.Module]:
        """Return the non-local blocks of the network, by dotted name."""
        blocks = getattr(self.network, "nonlocal_layers", None)
        return {} if blocks is None else blocks()


def _refuse_folder(source: ClipSource) -> None:
    if isinstance(source, (str, os.PathLike)) and is_folder(os.fspath(source)):
        raise UsageError(f"{os.fspath(source)!r} is a folder; use recognizer.classify_folder(...) for its clips.")
