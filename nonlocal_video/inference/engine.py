"""Engine: runs a network on loaded clips and returns predictions and features."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nonlocal_video.attention.capture import Captured
from nonlocal_video.inference.aggregation import average_logits, average_scores
from nonlocal_video.inference.batch_limit import views_at_once
from nonlocal_video.inference.device_errors import failure_of, no_memory, translated
from nonlocal_video.inference.precision import Precision, check_precision
from nonlocal_video.inference.prediction import Prediction, StageTimings
from nonlocal_video.inference.preprocessing import LoadedClip
from nonlocal_video.inference.runtimes.answer import NetworkAnswer
from nonlocal_video.inference.runtimes.choice import Runtime, RuntimeOption
from nonlocal_video.inference.runtimes.device import choose_device
from nonlocal_video.inference.runtimes.runner import NetworkRunner
from nonlocal_video.inference.shared_network import SharedNetwork
from nonlocal_video.inference.unknown import judged
from nonlocal_video.inference.upload import on_device
from nonlocal_video.models.card import InputSpec, ModelCard

_log = logging.getLogger(__name__)


class Engine:
    """Runs a network for several threads, which take turns.

    Attributes:
        network: The trained module: normalised clips (N, 3, T, H, W) to logits (N, classes).
        shared: The network with its lock, for maps.
        runner: Runs the network by the chosen runtime.
    """

    def __init__(
        self,
        network: nn.Module,
        card: ModelCard,
        *,
        device: str,
        runtime: RuntimeOption,
        precision: Precision = "float32",
    ) -> None:
        self.device = choose_device(device, runtime=runtime)
        check_precision(precision, self.device, runtime=runtime)
        self.card, self.precision = card, precision
        with translated(self.device, f"the weights of {card.name!r}"):
            self.network = network.eval().to(self.device)
            self.runner = NetworkRunner(self.network, card, device=self.device, option=runtime, precision=precision)
            if self.device.type != "cpu":
                _ = self.folded  # now, when it is known what the memory is for
        self.shared = SharedNetwork(self.network, self.device)
        self._fitting: dict[tuple[int, int], int] = {}  # views at a time, by frames and pixels

    @property
    def folded(self) -> nn.Module:
        """Copy of the network for inference by PyTorch, with batch norms folded into convolutions."""
        return self.runner.by_torch.folded

    def prepare(self, spec: InputSpec, *, num_ahead: int) -> None:
        """Make the network ready for this input: compiled, after a view of noise, or taken from the cache.

        Where OpenVINO would not run it in any case, nothing is done.

        Args:
            spec: The network's input.
            num_ahead: Number of views that are expected.
        """
        shape = (1, 3, spec.num_frames, spec.crop, spec.crop)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device)
        with self.shared.taken(), torch.inference_mode():
            if self.runner.may_use_openvino(noise.shape[1:]):
                self.runner(noise, num_ahead=num_ahead)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits (B, P, classes), on the device, of normalised views (B, 3, T, S, S)."""
        with self.shared.taken(), torch.inference_mode():
            size = self._at_most(len(inputs), inputs.shape[2], inputs.shape[3]) if inputs.ndim == 5 else len(inputs)
            logits = []
            for part in inputs.split(max(1, size)):
                logits.append(self.runner(part.to(self.device))[0].logits)
            return logits[0] if len(logits) == 1 else torch.cat(logits)

    def answer(
        self,
        clips: Sequence[LoadedClip],
        batch_size: int,
        *,
        num_ahead: int = 0,
        pooled_layer: str | None = None,
        inputs_of: Sequence[str] = (),
        outputs_of: Sequence[str] = (),
    ) -> tuple[list[Prediction], Captured]:
        """Answer for clips, `batch_size` views at a time, or as many as OpenVINO computes at the same time.

        Where memory runs out the batch is halved; what fitted is remembered for inputs of that size. It is split, too,
        where a feature map would have more elements than 32 bits can index (`batch_limit`).

        Args:
            clips: Loaded clips; several may share a forward pass.
            batch_size: Views in one forward pass, at most.
            num_ahead: Number of views known to come after these; it counts in the choice of a
                runtime.
            pooled_layer: Dotted name of the layer whose pooled output is the predictions' `features`; None is the one
                before the classifier, which every runtime gives.
            inputs_of: Dotted names of layers whose inputs are kept.
            outputs_of: Dotted names of layers whose outputs are kept.

        Returns:
            The predictions, and what the layers got and gave in the last batch.

        Raises:
            VideoError: `out_of_memory`, if not even one view fits.
            DeviceError: The device has failed.
            ModelError: The network gave something that is not a number.
        """
        views = [
            (owner, view, crop)
            for owner, clip in enumerate(clips)
            for view in range(len(clip.views))
            for crop in range(len(clip.crops))
        ]
        kept = Captured()
        runtime = self.runner.runtime
        logits_of: list[list[Tensor]] = [[] for _ in clips]
        pooled_of: list[list[Tensor]] = [[] for _ in clips]
        seconds = [0.0] * len(clips)
        position = 0
        with self.shared.taken(), torch.inference_mode():
            clips = [on_device(clip, self.device) for clip in clips]
            while position < len(views):
                spec = clips[views[position][0]].input
                size = self._at_most(min(batch_size, len(views)), spec.num_frames, spec.crop)
                if len(views) > position + size and (spec.num_frames, spec.crop) not in self._fitting:
                    shape = torch.Size((3, spec.num_frames, spec.crop, spec.crop))
                    at_once = self.runner.at_once_now(
                        shape, pooled_layer=pooled_layer, inputs_of=inputs_of, outputs_of=outputs_of
                    )
                    size = max(size, at_once)
                batch = views[position : position + size]
                started = time.perf_counter()
                answered = self._batch(
                    clips,
                    batch,
                    num_ahead=num_ahead + len(views) - position - len(batch),
                    pooled_layer=pooled_layer,
                    inputs_of=inputs_of,
                    outputs_of=outputs_of,
                )
                if answered is None:
                    if len(batch) == 1:
                        raise no_memory(self.device, f"one view of {spec.num_frames} frames of {spec.crop} pixels")
                    self._fitting[spec.num_frames, spec.crop] = len(batch) // 2
                    _log.warning("%s is out of memory: the batch is halved to %d views", self.device, len(batch) // 2)
                    continue
                found, runtime = answered
                logits, features, kept = found.logits, found.features, found.kept
                elapsed = (time.perf_counter() - started) / len(batch)
                for row, (owner, _, _) in enumerate(batch):
                    logits_of[owner].append(logits[row])
                    if features is not None:
                        pooled_of[owner].append(features[row])
                    seconds[owner] += elapsed
                position += len(batch)
        return [
            self._prediction(clip, torch.cat(logits), features, forward_seconds, runtime, is_last=pooled_layer is None)
            for clip, logits, features, forward_seconds in zip(clips, logits_of, pooled_of, seconds, strict=True)
        ], kept

    def _at_most(self, views: int, num_frames: int, crop: int) -> int:
        """Return the number of views, at most `views`, that the network gets at a time."""
        if views > 1 and (num_frames, crop) not in self._fitting:
            self._fitting[num_frames, crop] = views_at_once(self.folded, (3, num_frames, crop, crop))
        return min(views, self._fitting.get((num_frames, crop), views))

    def _batch(
        self,
        clips: Sequence[LoadedClip],
        batch: Sequence[tuple[int, int, int]],
        *,
        num_ahead: int,
        pooled_layer: str | None,
        inputs_of: Sequence[str],
        outputs_of: Sequence[str],
    ) -> tuple[NetworkAnswer, Runtime] | None:
        """Run the network on views; None if memory ran out, with nothing of it kept alive.

        Returns:
            The answer, its logits and features on the CPU, and what ran the network.
        """
        try:
            inputs = torch.cat(
                [clips[owner].network_input(view, crop, device=self.device) for owner, view, crop in batch]
            )
            answer, runtime = self.runner(
                inputs, num_ahead=num_ahead, pooled_layer=pooled_layer, inputs_of=inputs_of, outputs_of=outputs_of
            )
            features = None if answer.features is None else answer.features.float().cpu()
            return NetworkAnswer(answer.logits.cpu(), features, answer.kept), runtime
        except (RuntimeError, MemoryError) as error:
            if failure_of(error) != "out_of_memory":
                raise
        return None

    def _prediction(
        self,
        clip: LoadedClip,
        logits: Tensor,
        features: Sequence[Tensor],
        forward_seconds: float,
        runtime: Runtime,
        *,
        is_last: bool,
    ) -> Prediction:
        pooled_features = torch.stack(list(features)).mean(dim=0).numpy() if features else None
        found = judged(self.card, pooled_features if is_last else None)
        return Prediction(
            path=clip.path,
            model=self.card.name,
            labels=self.card.labels,
            scores=average_scores(self.card, logits),
            video=clip.info,
            views=clip.views,
            num_crops=len(clip.crops),
            num_frames=clip.input.num_frames,
            crop=clip.input.crop,
            device=str(self.device),
            runtime=runtime,
            precision=self.precision,
            timings=StageTimings(clip.decode_seconds, clip.transform_seconds, forward_seconds),
            notes=(*clip.notes, *found.notes),
            region=clip.region,
            seen=tuple(crop.seen for crop in clip.crops),
            logits=average_logits(self.card, logits),
            features=pooled_features,
            unknown=found.unknown,
        )
