"""The PyTorch runtime, on any device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from nonlocal_video.attention.capture import first_non_finite_module
from nonlocal_video.errors import ModelError
from nonlocal_video.inference.precision import Precision, arithmetic
from nonlocal_video.inference.runtimes.answer import NetworkAnswer, answer_of
from nonlocal_video.models.card import ModelCard
from nonlocal_video.models.folding import fold_batch_norms, with_channels_last, with_onednn


class TorchNetwork:
    """A copy of a network that PyTorch runs, with batch norms folded into convolutions and channels last in memory.

    The copy is made when it is first needed, as another runtime may do all the work.
    """

    def __init__(self, network: nn.Module, card: ModelCard, device: torch.device, precision: Precision) -> None:
        self._network, self._card, self._device, self._precision = network, card, device, precision

    @cached_property
    def folded(self) -> nn.Module:
        """The copy."""
        return with_onednn(with_channels_last(fold_batch_norms(self._network)))

    def __call__(
        self,
        views: Tensor,
        *,
        pooled_layer: str | None = None,
        inputs_of: Sequence[str] = (),
        outputs_of: Sequence[str] = (),
    ) -> NetworkAnswer:
        """Run the network on normalised views (B, 3, T, S, S); see `answer_of`.

        Raises:
            ModelError: The logits are not finite.
        """
        views = views.contiguous(memory_format=torch.channels_last_3d)
        with arithmetic(self._precision, self._device):
            answer = answer_of(
                self.folded,
                self._card,
                views,
                pooled_layer=pooled_layer,
                inputs_of=inputs_of,
                outputs_of=outputs_of,
            )
        if self._precision == "bf16":
            features = None if answer.features is None else answer.features.float()
            answer = NetworkAnswer(answer.logits.float(), features, answer.kept.float())
        if not torch.isfinite(answer.logits).all():
            raise self.not_finite(views)
        return answer

    def not_finite(self, views: Tensor) -> ModelError:
        """Return the error for views whose logits are not finite, which names the first layer that is not."""
        return ModelError(
            f"Model {self._card.name!r} gave scores that are not finite, first in layer "
            f"{first_non_finite_module(self.folded, views)!r}; its weights file is damaged or wrong."
        )
