"""The answer of a network: logits, pooled features and feature maps from one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from nonlocal_video.attention.capture import Captured, forward_and_capture
from nonlocal_video.inference.aggregation import pooled_as_by_head, pooled_layer_output, window_logits
from nonlocal_video.models.card import ModelCard


@dataclass(frozen=True)
class NetworkAnswer:
    """Outputs of a network for B views, as float32."""

    logits: Tensor
    """(B, P, classes); P is 1, or the number of windows of `ModelCard.head_window`."""
    features: Tensor | None
    """Pooled features (B, C); None if the network does not name the layer before its classifier."""
    kept: Captured = field(default_factory=Captured)
    """Inputs and outputs of the layers that were asked for."""

    def first(self) -> NetworkAnswer:
        """Return the answer for the first view alone."""
        kept = Captured(
            *({name: one[:1] for name, one in each.items()} for each in (self.kept.inputs, self.kept.outputs))
        )
        return NetworkAnswer(self.logits[:1], None if self.features is None else self.features[:1], kept)


def feature_layer_of(network: nn.Module) -> str | None:
    """Return the dotted name of the layer before the classifier; None if the network does not name it."""
    name: str | None = getattr(network, "feature_layer", None)
    return name


def answer_of(
    network: nn.Module,
    card: ModelCard,
    views: Tensor,
    *,
    pooled_layer: str | None = None,
    inputs_of: Sequence[str] = (),
    outputs_of: Sequence[str] = (),
) -> NetworkAnswer:
    """Run a network on normalised views (B, 3, T, S, S).

    Args:
        network: The network, in eval mode.
        card: Its model card.
        views: The views.
        pooled_layer: Dotted name of the layer whose pooled output is `features`; None is the one before the classifier.
        inputs_of: Dotted names of layers whose inputs are kept.
        outputs_of: Dotted names of layers whose outputs are kept.
    """
    before_head = feature_layer_of(network)
    pooled_layer = pooled_layer or before_head
    layers = [name for name in (pooled_layer, before_head) if name is not None]
    logits, kept = forward_and_capture(
        network, views, capture_inputs=inputs_of, capture_outputs=list(dict.fromkeys([*outputs_of, *layers]))
    )
    logits = window_logits(card, network, kept.outputs[str(before_head)]) if card.head_window else logits[:, None]
    features = None
    if pooled_layer is not None:
        output = kept.outputs[pooled_layer]
        is_last = pooled_layer == before_head
        features = pooled_as_by_head(network, output) if is_last else pooled_layer_output(network, pooled_layer, output)
    return NetworkAnswer(logits, features, kept)
