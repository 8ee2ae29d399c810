"""Video classifiers of the `transformers` library behind this project's protocol for networks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nonlocal_video.errors import ModelError, UsageError
from nonlocal_video.models.token_attention import FrameAttention, JointAttention, TokenAttention
from nonlocal_video.models.token_layout import Axes, TokenLayout

NUM_ATTENTION_LAYERS = 4
"""Number of attention layers, the last ones, whose maps are offered: their inputs are kept with every explanation."""


@dataclass(frozen=True)
class _Family:
    """Names of one kind of model: dotted, from the classifier model."""

    encoder: str
    """Module that gives `last_hidden_state`."""
    layers: str
    """List of its layers."""
    attention: str
    """Attention of a layer, from the layer."""
    embeddings: str
    """Module that gives the first layer's input."""


FAMILIES = {
    "videomae": _Family("videomae", "videomae.encoder.layer", "attention.attention", "videomae.embeddings"),
    "timesformer": _Family("timesformer", "timesformer.encoder.layer", "attention.attention", "timesformer.embeddings"),
    "vivit": _Family("vivit", "vivit.layers", "attention", "vivit.embeddings"),
    "vjepa2": _Family("vjepa2", "vjepa2.encoder.layer", "attention", "vjepa2.encoder.embeddings"),
}
"""The kinds of models that are known, by `model_type` of their configuration."""


class TransformersNetwork(nn.Module):
    """A video classifier of `transformers`, split at the layer before its classifier.

    Attributes:
        model: The library's model, unchanged; its parameters have the library's names after `model.`.
        features: What the head takes goes through this layer.
    """

    feature_layer = "features"
    """Layer whose output the head takes."""
    head_layer = "model.classifier"
    """Linear classifier of pooled features."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.features = nn.Identity()
        self._family = FAMILIES[model.config.model_type]
        self._layout = _layout(model.config)

    @property
    def evidence_layer(self) -> str:
        """Layer of which class evidence is shown unless another one is named."""
        return self.feature_layer

    def forward(self, clips: Tensor) -> Tensor:
        """Classify normalised clips: (B, 3, T, S, S) -> logits (B, classes)."""
        return self.head(self.forward_to(self.feature_layer, clips))

    def forward_to(self, layer: str, clips: Tensor) -> Tensor:
        """Return what the head takes; `layer` is `feature_layer`, no other one."""
        if layer != self.feature_layer:
            raise UsageError(f"layer = {layer!r} should be {self.feature_layer!r}.")
        encoder = self.model.get_submodule(self._family.encoder)
        more = {"skip_predictor": True} if self.model.config.model_type == "vjepa2" else {}
        tokens = encoder(clips.transpose(1, 2), **more)[0]  # (B, T, 3, S, S) -> (B, N, C)
        features: Tensor = self.features(self._head_input(tokens))
        return features

    def head(self, features: Tensor) -> Tensor:
        """Classify the output of `feature_layer` -> logits (B, classes)."""
        logits: Tensor = self.model.classifier(self.pool_features(features))
        return logits

    @abstractmethod
    def _head_input(self, tokens: Tensor) -> Tensor:
        """Return what the head takes of the encoder's tokens, (B, N, C)."""

    @abstractmethod
    def pool_features(self, features: Tensor) -> Tensor:
        """Pool the output of `feature_layer` as the head does -> (B, C)."""

    def token_layout(self, layer: str) -> TokenLayout:
        """Return where the tokens of a layer lie, the same for all layers."""
        return self._layout

    def nonlocal_layers(self) -> dict[str, TokenAttention]:
        """Return the last attention layers by dotted name."""
        divided = getattr(self.model.config, "attention_type", "") == "divided_space_time"
        if self.model.config.model_type == "timesformer" and not divided:
            return {}  # its attention is no call of the library's interface
        kind = FrameAttention if divided else JointAttention
        layers = self.model.get_submodule(self._family.layers)
        names = [f"{self._family.layers}.{index}.{self._family.attention}" for index in range(len(layers))]
        return {
            f"model.{name}": kind(self.model.get_submodule(name), self._layout)
            for name in names[-NUM_ATTENTION_LAYERS:]
        }

    def _input_of_last_layer(self) -> str:
        """Return the layer whose output the last layer of the encoder takes."""
        count = len(self.model.get_submodule(self._family.layers))
        return f"model.{self._family.layers}.{count - 2}" if count > 1 else f"model.{self._family.embeddings}"


class MeanTokenNetwork(TransformersNetwork):
    """The mean of all tokens, normalised, is classified (VideoMAE): class evidence is exact."""

    def _head_input(self, tokens: Tensor) -> Tensor:
        return self._layout.as_map(tokens)

    def pool_features(self, features: Tensor) -> Tensor:
        """Average all positions and normalise: (B, C, T', H', W') -> (B, C)."""
        pooled: Tensor = self.model.fc_norm(features.flatten(2).mean(dim=2))
        return pooled

    def class_activation_map(self, features: Tensor, class_indices: Tensor | Sequence[int]) -> Tensor:
        """Return the exact share of each cell in the logits, given the deviation by which the mean is divided.

        Args:
            features: Output of `feature_layer`, (B, C, T', H', W').
            class_indices: Classes, (K,).

        Returns:
            Map (B, K, T', H', W'); its sum over cells is the logit less the biases of classifier and normalisation.
        """
        norm = self.model.fc_norm
        deviation = (features.flatten(2).mean(dim=2).var(dim=1, unbiased=False) + norm.eps).sqrt()  # (B,)
        weights = self.model.classifier.weight[torch.as_tensor(class_indices, device=features.device)] * norm.weight
        centred = features - features.mean(dim=1, keepdim=True)
        shares = torch.einsum("kc,bcthw->bkthw", weights, centred) / features[0, 0].numel()
        return shares / deviation[:, None, None, None, None]


class FirstTokenNetwork(TransformersNetwork):
    """The first token is classified (TimeSformer, ViViT). Patches speak through the last layer's attention alone."""

    @property
    def evidence_layer(self) -> str:
        """Input of the encoder's last layer, the last one whose patches matter."""
        return self._input_of_last_layer()

    def _head_input(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0]

    def pool_features(self, features: Tensor) -> Tensor:
        """Return the token itself, (B, C)."""
        return features


class PoolerNetwork(TransformersNetwork):
    """A query attends to all tokens, and its answer is classified (V-JEPA 2)."""

    def _head_input(self, tokens: Tensor) -> Tensor:
        return self._layout.as_map(tokens)

    def pool_features(self, features: Tensor) -> Tensor:
        """Pool by the model's own attention: (B, C, T', H', W') -> (B, C)."""
        pooled: Tensor = self.model.pooler(features.flatten(2).transpose(1, 2))
        return pooled


def wrapped(model: Any) -> TransformersNetwork:
    """Put a model of the library behind the protocol.

    Raises:
        ModelError: Its architecture is not supported.
    """
    config = model.config
    check_kind(config.model_type)
    if config.model_type == "vjepa2":
        return PoolerNetwork(model)
    if config.model_type == "videomae" and config.use_mean_pooling:
        return MeanTokenNetwork(model)
    return FirstTokenNetwork(model)


def check_kind(model_type: str) -> None:
    """Raise if a kind of model is not known here.

    Raises:
        ModelError: If so.
    """
    if model_type not in FAMILIES:
        raise ModelError(
            f"Models of type {model_type!r} cannot be used: of transformers' video classifiers this version knows "
            f"{', '.join(sorted(FAMILIES))}. A function can wrap any other network: docs/own_network.md."
        )


def build_transformers(config: dict[str, Any], num_classes: int) -> TransformersNetwork:
    """Build the network of a card: its `config` holds the library's configuration as `model`.

    Raises:
        ModelError: The configuration is not one of a known kind.
        UsageError: The library is not installed.
    """
    try:
        model_type = str(config["model"]["model_type"])
    except (KeyError, TypeError) as error:
        raise ModelError("The card does not say which model of transformers it describes.") from error
    check_kind(model_type)
    library = transformers_library()
    try:
        settings = {name: value for name, value in config["model"].items() if name != "model_type"}
        described = library.AutoConfig.for_model(model_type, **settings, num_labels=num_classes)
        model = library.AutoModelForVideoClassification.from_config(described)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"The card does not describe a {model_type}: {error}") from error
    return wrapped(model.eval())


def transformers_library() -> Any:
    """Return the library's module, imported on first use.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise UsageError("This model needs transformers: pip install 'nonlocal-video[transformers]'") from error
    return transformers


def view_of(config: Any) -> tuple[int, int]:
    """Return the frames and the side in pixels that a model takes, by the library's configuration."""
    side = config.crop_size if config.model_type == "vjepa2" else config.image_size
    frames = config.frames_per_clip if config.model_type == "vjepa2" else config.num_frames
    sides = {int(one) for one in (side if isinstance(side, (list, tuple)) else [side])}
    if len(sides) != 1:
        raise ModelError(f"The model takes pictures of {side} pixels, and only squares are supported.")
    return int(frames), sides.pop()


def _layout(config: Any) -> TokenLayout:
    num_frames, side = view_of(config)
    tubelet: Any = getattr(config, "tubelet_size", 1)
    if config.model_type == "vivit":
        frames, rows, columns = config.tubelet_size
        patch: Axes = (int(frames), int(rows), int(columns))
    else:
        size = config.patch_size
        rows, columns = (size, size) if isinstance(size, int) else size
        patch = (int(tubelet) if config.model_type != "timesformer" else 1, int(rows), int(columns))
    first = config.model_type in ("timesformer", "vivit")
    return TokenLayout(
        size=(num_frames // patch[0], side // patch[1], side // patch[2]),
        patch=patch,
        num_before=1 if first else 0,
        time_last=config.model_type == "timesformer",
    )
