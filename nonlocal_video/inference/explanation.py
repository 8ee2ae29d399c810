"""The features of one forward pass, from which all kinds of maps are made without running the network again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nonlocal_video.attention.class_evidence import LinearHead, windowed_evidence
from nonlocal_video.attention.geometry import CellGrid
from nonlocal_video.attention.maps import AttentionMaps, Method, QueryPoint, evenly_spaced_frames
from nonlocal_video.blocks.config import SOFTMAX_TYPES
from nonlocal_video.errors import ModelError, UsageError
from nonlocal_video.inference.prediction import Prediction, ScoredLabel, printable
from nonlocal_video.inference.preprocessing import LoadedClip
from nonlocal_video.inference.shared_network import SharedNetwork
from nonlocal_video.notebook import FRAMES_IN_STRIP, bars, card, heading, strip
from nonlocal_video.video.transforms import resize

MEAN_UNIT = "1 = mean of all places"
"""Unit of attention maps of kernels without a softmax."""
ROUNDING = 1e-4
"""Differences of maps over their mean, below which they are rounding."""


@dataclass(frozen=True, repr=False)
class Explanation:
    """One view of a clip with its prediction and the features that maps are made from."""

    prediction: Prediction
    """Prediction for the view."""
    clip: LoadedClip
    """The decoded clip."""
    originals: list[NDArray[np.uint8]]
    """Distinct frames at their own resolution, each (height, width, 3)."""
    shared: SharedNetwork
    """Network that computed the features, shared between threads."""
    block_inputs: Mapping[str, Tensor]
    """Input (1, C, T', H', W') of each non-local block, by dotted name."""
    features: Tensor | None
    """Input (1, C, T', H', W') of the head; None if unknown."""
    feature_layer: str | None
    """Dotted name of the layer that gives `features`; None if unknown."""
    blocks: Mapping[str, Any]
    """Non-local blocks, or attention layers with their methods, by dotted name."""
    default_block: str | None
    """Dotted name of the non-local block to show by default; None for the last one."""
    network_input: Tensor | None
    """Input (1, 3, T, S, S) of the network; None if it is recomputed from the clip on demand."""
    head_window: tuple[int, int, int] | None = None
    """Window of the head, see `ModelCard.head_window`."""

    def __repr__(self) -> str:
        return f"Explanation({self.prediction!r}, blocks={list(self.block_inputs)})"

    def _repr_html_(self) -> str:
        """Show the answer in a notebook: some of the frames that the network saw, and the five likeliest classes."""
        chosen = evenly_spaced_frames(self.frame_of_time, FRAMES_IN_STRIP)
        blocks = f"Non-local blocks: {', '.join(self.block_inputs) or 'none'}"
        return card(
            heading(printable(self.prediction.path), f"{self.prediction.summary}. {blocks}"),
            strip([self.frame(index) for index in chosen], [float(self.seconds[index]) for index in chosen]),
            bars([(one.label, one.score) for one in self.prediction.top(5)]),
        )

    @property
    def network(self) -> nn.Module:
        """The network; other threads may use it at the same time, see `shared`."""
        return self.shared.network

    @property
    def evidence_layer(self) -> str | None:
        """Dotted name of the layer that `class_evidence` shows by default; None if the network names none."""
        name: str | None = getattr(self.network, "evidence_layer", self.feature_layer)
        return name

    @property
    def seconds(self) -> NDArray[np.float64]:
        """Time of each sampled frame in seconds from the start of the file, (T,)."""
        return self.clip.seconds[self.frame_of_time]

    @property
    def frame_of_time(self) -> NDArray[np.int64]:
        """Index of each sampled frame among the distinct frames, (T,)."""
        return self.clip.frame_of_time[0]

    @property
    def num_bytes(self) -> int:
        """Size in memory in bytes, without the network."""
        tensors = [*self.block_inputs.values(), self.clip.frames, self.features, self.network_input]
        return sum(frame.nbytes for frame in self.originals) + sum(
            tensor.nbytes for tensor in tensors if tensor is not None
        )

    def lightened(self, long_side: int) -> Explanation:
        """Return a smaller copy to keep: frames with this longer side, in pixels, and no network input."""
        frames = []
        for frame in self.originals:
            height, width = frame.shape[:2]
            scale = long_side / max(height, width)
            size = max(1, round(height * scale)), max(1, round(width * scale))
            frames.append(resize(torch.from_numpy(frame)[None], size)[0].numpy())
        return replace(self, originals=frames, network_input=None)

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Return sampled frame `index` at its own resolution, uint8 (height, width, 3)."""
        return self.originals[self.frame_of_time[index]]

    def maps(
        self,
        *,
        method: Method | Literal["gradcam"] | None = None,
        query: QueryPoint | None = None,
        label: str | int | None = None,
        layer: str | None = None,
    ) -> AttentionMaps:
        """Return the maps of one method; see `Recognizer.explain` for the arguments."""
        method = method or ("query" if query else "evidence" if label is not None else "attention")
        if method == "gradcam":  # the common name of class evidence
            method = "evidence"
        if method not in get_args(Method):
            raise UsageError(f"method = {method!r} should be one of {', '.join(get_args(Method))}.")
        if (method == "query") != (query is not None):
            raise UsageError("Method query needs a query point SECONDS,X,Y, and no other method takes one.")
        if label is not None and method != "evidence":
            raise UsageError(f"Only method evidence takes a label; method {method} does not.")
        if method == "evidence":
            return self.class_evidence(label, layer=layer)
        return self.attention_received(layer=layer) if query is None else self.query(query, layer=layer)

    def attention_received(self, *, layer: str | None = None) -> AttentionMaps:
        """Return the attention that each position receives, averaged over a block's queries; 1 is an equal share.

        The weights of a kernel without a softmax have any sum; the map has them over their mean.
        """
        name, block, features = self._block(layer)
        with self.shared.taken(), torch.inference_mode():
            values, unit = _in_shares(block, block.attention_received(features)[0])  # (M,)
        return self._attention_maps("attention", name, values, f"attention received, {unit}")

    def query(self, point: QueryPoint, *, layer: str | None = None) -> AttentionMaps:
        """Return the attention of one point of the clip over all frames, on the scale of `attention_received`.

        Without a softmax, strong places receive much from every point; what all points give on average is therefore
        taken away, and 0 is as much as that.
        """
        name, block, features = self._block(layer)
        grid = self._grid(name)
        index, cell = self._cell(point, grid)
        flat = int(np.ravel_multi_index(cell, grid.size))
        quantity = "attention of the marked point"
        with self.shared.taken(), torch.inference_mode():
            row = block.attention(features, torch.tensor([flat], device=features.device))[0, 0]  # (M,)
            values, unit = _in_shares(block, row)
            if unit == MEAN_UNIT:
                received, unit_of_all = _in_shares(block, block.attention_received(features)[0])
                if unit_of_all == MEAN_UNIT:
                    values, quantity = values - received, f"{quantity} less that of all points"
                    # Where all points attend alike nothing is left but rounding, which must not be drawn as a pattern.
                    values[values.abs() < ROUNDING] = 0
        return self._attention_maps("query", name, values, f"{quantity}, {unit}", query=point, query_index=index)

    def class_evidence(self, label: str | int | None = None, *, layer: str | None = None) -> AttentionMaps:
        """Return the evidence for a class at each position.

        At the last layer of a network with a linear head, this is the exact class activation map: the values of all
        cells and the bias of the class sum to its logit, or to the mean of its logits over windows
        (`ModelCard.head_window`). At any other layer it is Grad-CAM.

        Args:
            label: Name or index of the class; None is the top class.
            layer: Dotted name of a layer; None is the input of the head.
        """
        target = self._class(label)
        name = self.evidence_layer if layer is None else layer
        if name is None:
            raise UsageError(
                f"The layer before the head of this network is unknown; give a layer. {self._layers_help()}"
            )
        if isinstance(self.network, LinearHead) and self.features is not None and name == self.feature_layer:
            classes = torch.tensor([target.index], device=self.features.device)
            with self.shared.taken(), torch.inference_mode():
                cells = self.network.class_activation_map(self.features, classes)[0, 0]
                cells, num_windows = windowed_evidence(cells, self.head_window)
            logit = "logit" if num_windows == 1 else f"mean of the logits of {num_windows} windows"
            quantity = f"share of the {logit}, exact"
        else:
            self._require_layer(name)
            self._grid(name)  # rejects layers whose cells have no position in the clip
            inputs = self.network_input
            if inputs is None:
                inputs = self.clip.network_input(0, 0, device=next(self.network.parameters()).device)
            cells = self.shared.grad_cam(inputs, name, target.index)
            quantity = "Grad-CAM"
        caption = f"evidence for {target.label} {target.score:.2f}"
        return self._maps("evidence", name, cells, self._grid(name), quantity, caption)

    def _class(self, label: str | int | None) -> ScoredLabel:
        scores, labels = self.prediction.scores, self.prediction.labels
        if label is None:
            return self.prediction.top(1)[0]
        if isinstance(label, str):
            if label not in labels:
                raise UsageError(f"label = {label!r} is not a class of model {self.prediction.model!r}.")
            label = labels.index(label)
        if not 0 <= label < len(labels):
            raise UsageError(f"label = {label} should be a class index, 0 to {len(labels) - 1}.")
        return ScoredLabel(labels[label], label, float(scores[label]))

    def _block(self, layer: str | None) -> tuple[str, Any, Tensor]:
        if not self.block_inputs:
            raise UsageError(f"Model {self.prediction.model!r} has no non-local block; use method evidence.")
        name = (self.default_block or list(self.block_inputs)[-1]) if layer is None else layer
        if name not in self.block_inputs:
            known = ", ".join(self.block_inputs)
            raise UsageError(f"layer = {name!r} is not a non-local block of this model; it has: {known}.")
        return name, self.blocks[name], self.block_inputs[name]

    def _require_layer(self, name: str) -> None:
        if name not in dict(self.network.named_modules()):
            raise UsageError(f"layer = {name!r} is not a layer of this model. {self._layers_help()}")

    def _layers_help(self) -> str:
        return f"Its outermost layers are: {', '.join(name for name, _ in self.network.named_children())}."

    def _grid(self, layer: str) -> CellGrid:
        size = self.clip.crops[0].size
        return self.shared.grid(layer, (len(self.seconds), size, size))

    def _cell(self, point: QueryPoint, grid: CellGrid) -> tuple[int, tuple[int, int, int]]:
        """Return the index of the sampled frame nearest to a point, and the feature cell nearest to it."""
        span, place = self.clip.views[0], self.clip.crops[0]
        shown = self.seconds
        start = min(span.start_seconds, float(shown.min()))  # the first frame may start before the span
        if start <= self.clip.info.start_seconds:
            start = 0.0  # until then, a player shows the first frame or nothing
        if not span.looped and not start <= point.seconds <= span.end_seconds:
            raise UsageError(
                f"query seconds = {point.seconds:g} is outside the span of the view, "
                f"{start:.2f} to {span.end_seconds:.2f} s."
            )
        index = int(np.argmin(np.abs(shown - point.seconds)))
        y, x = place.frame_to_input(point.y * place.frame_height, point.x * place.frame_width)
        if not (0 <= y <= place.size and 0 <= x <= place.size):
            left, top, right, bottom = place.seen
            where = "" if self.clip.region is None else f" in region {self.clip.region}"
            raise UsageError(
                f"query x = {point.x:g}, y = {point.y:g} is outside the square that the network sees{where}: "
                f"x {left:.2f} to {right:.2f}, y {top:.2f} to {bottom:.2f}."
            )
        # A cell's centre is counted from the centre of the first pixel.
        return index, (grid.nearest(0, index), grid.nearest(1, y - 0.5), grid.nearest(2, x - 0.5))

    def _attention_maps(
        self,
        method: Method,
        layer: str,
        values: Tensor,
        quantity: str,
        *,
        query: QueryPoint | None = None,
        query_index: int | None = None,
    ) -> AttentionMaps:
        """Make maps of values (M,) at the keys of a block."""
        grid = self._grid(layer)
        block = self.blocks[layer]
        keys = grid.pooled(block.key_size(grid.size))
        best = self.prediction.top(1)[0]
        return self._maps(
            method,
            layer,
            values.reshape(keys.size),
            keys,
            quantity,
            f"{best.label} {best.score:.2f}",
            query=query,
            query_index=query_index,
        )

    def _maps(
        self,
        method: Method,
        layer: str,
        cells: Tensor,
        grid: CellGrid,
        quantity: str,
        caption: str,
        *,
        query: QueryPoint | None = None,
        query_index: int | None = None,
    ) -> AttentionMaps:
        values = cells.float().cpu().numpy()
        if not np.isfinite(values).all():
            raise ModelError(f"Layer {layer!r} gave values that are not finite; its weights are damaged or wrong.")
        return AttentionMaps(
            method=method,
            quantity=quantity,
            layer=layer,
            cells=values,
            grid=grid,
            crop=self.clip.crops[0],
            frames=self.originals,
            frame_of_time=self.frame_of_time,
            seconds=self.seconds,
            playback_seconds=self.clip.views[0].playback_seconds,
            caption=caption,
            query=query,
            query_index=query_index,
        )


def _in_shares(block: Any, weights: Tensor) -> tuple[Tensor, str]:
    """Return attention weights (M,) of a block as multiples of an equal share 1/M or of their mean, and the unit.

    Weights whose sum is not above 0 (a dot product may be negative) stay as the kernel gives them, times M.
    """
    total = float(weights.double().sum())
    if block.nonlocal_type in SOFTMAX_TYPES:
        return weights * weights.numel(), "1 = equal share"
    if total > 0:
        return weights * (weights.numel() / total), MEAN_UNIT
    return weights * weights.numel(), f"as {block.nonlocal_type.replace('_', ' ')} gives it"
