"""torchvision's video transformers behind this project's protocol for networks: MViTv2-S and Swin3D-T."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nonlocal_video.errors import ModelError, UsageError
from nonlocal_video.models.token_layout import TokenLayout

_LAST_STRIDE = 32
"""Pixels from one token to the next in the last stage of both networks."""
_SIDE = 224


class TorchvisionNetwork(nn.Module):
    """A video transformer of torchvision, split at its classifier.

    Attributes:
        model: The library's network without its classifier.
        features: What the head takes goes through this layer.
        classifier: The library's classifier.
    """

    feature_layer = "features"
    """Layer whose output the head takes."""

    def __init__(self, model: Any, layout: TokenLayout) -> None:
        super().__init__()
        self.classifier = model.head
        model.head = nn.Identity()
        self.model = model
        self.features = nn.Identity()
        self._layout = layout

    @property
    def head_layer(self) -> str:
        """Dotted name of the linear classifier of pooled features."""
        return "classifier" if isinstance(self.classifier, nn.Linear) else f"classifier.{len(self.classifier) - 1}"

    @property
    def evidence_layer(self) -> str:
        """Layer of which class evidence is shown unless another one is named."""
        return self.feature_layer

    @property
    def last_features(self) -> tuple[int, ...]:
        """Channels, frames, rows and columns of the last stage."""
        classifier: Any = self.get_submodule(self.head_layer)
        return (classifier.in_features, *self._layout.size)

    def forward(self, clips: Tensor) -> Tensor:
        """Classify normalised clips: (B, 3, T, S, S) -> logits (B, classes)."""
        return self.head(self.forward_to(self.feature_layer, clips))

    def forward_to(self, layer: str, clips: Tensor) -> Tensor:
        """Return what the head takes; `layer` is `feature_layer`, no other one."""
        if layer != self.feature_layer:
            raise UsageError(f"layer = {layer!r} should be {self.feature_layer!r}.")
        features: Tensor = self.features(self._head_input(self.model(clips)))
        return features

    def head(self, features: Tensor) -> Tensor:
        """Classify the output of `feature_layer` -> logits (B, classes)."""
        logits: Tensor = self.classifier(self.pool_features(features))
        return logits

    @abstractmethod
    def _head_input(self, output: Tensor) -> Tensor:
        """Return what the head takes of what the model gives without its classifier."""

    @abstractmethod
    def pool_features(self, features: Tensor) -> Tensor:
        """Pool the output of `feature_layer` as the head does -> (B, C)."""

    def token_layout(self, layer: str) -> TokenLayout | None:
        """Return where the tokens of the last stage lie; earlier stages have finer ones, which have no map here."""
        return None if layer in ("model.conv_proj", "model.patch_embed.proj") else self._layout


class ClassTokenNetwork(TorchvisionNetwork):
    """The class token is classified (MViT). Places speak through the last layer's attention alone."""

    @property
    def evidence_layer(self) -> str:
        """Input of the last block, the last one whose places matter."""
        return f"model.blocks.{len(self.model.blocks) - 2}"

    def _head_input(self, output: Tensor) -> Tensor:
        return output

    def pool_features(self, features: Tensor) -> Tensor:
        """Return the token itself, (B, C)."""
        return features


class MeanNetwork(TorchvisionNetwork):
    """The mean over all places is classified (Swin): class evidence is exact."""

    def __init__(self, model: Any, layout: TokenLayout) -> None:
        super().__init__(model, layout)
        model.avgpool = nn.Identity()

    def _head_input(self, output: Tensor) -> Tensor:
        places = self._layout.num_patches
        return output.unflatten(1, (output.shape[1] // places, *self._layout.size))

    def pool_features(self, features: Tensor) -> Tensor:
        """Average all places: (B, C, T', H', W') -> (B, C)."""
        return features.mean(dim=(2, 3, 4))

    def class_activation_map(self, features: Tensor, class_indices: Tensor | Sequence[int]) -> Tensor:
        """Return the exact share of each cell in the logits of some classes, (B, K, T', H', W').

        The sum over cells and the class's bias is its logit.
        """
        weights = self.classifier.weight[torch.as_tensor(class_indices, device=features.device)]
        return torch.einsum("kc,bcthw->bkthw", weights, features) / features[0, 0].numel()


def build_torchvision(config: dict[str, Any], num_classes: int) -> TorchvisionNetwork:
    """Build the network of a card: its `config` names it as `model`, and its `num_frames`.

    Raises:
        ModelError: The configuration names no network that is known.
    """
    from torchvision.models import video

    name, num_frames = config.get("model"), config.get("num_frames")
    side = _SIDE // _LAST_STRIDE
    if name == "mvit_v2_s" and num_frames == 16:
        layout = TokenLayout((8, side, side), (2, _LAST_STRIDE, _LAST_STRIDE), num_before=1, first=(0.0, 0.0, 0.0))
        return ClassTokenNetwork(video.mvit_v2_s(num_classes=num_classes), layout)
    if name == "swin3d_t" and num_frames == 32:
        layout = TokenLayout((16, side, side), (2, _LAST_STRIDE, _LAST_STRIDE))
        return MeanNetwork(video.swin3d_t(num_classes=num_classes), layout)
    raise ModelError(f"model = {name!r} of {num_frames} frames should be mvit_v2_s of 16 or swin3d_t of 32 frames.")
