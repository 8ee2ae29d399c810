"""Runs a network by the runtime that was asked for, or that is worth it."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nonlocal_video.errors import ModelError
from nonlocal_video.inference.precision import Precision
from nonlocal_video.inference.runtimes.answer import NetworkAnswer
from nonlocal_video.inference.runtimes.choice import Runtime, RuntimeChoice, RuntimeOption, choose_runtime
from nonlocal_video.inference.runtimes.compiled_cache import CompiledCache
from nonlocal_video.inference.runtimes.openvino import OpenVINONetwork
from nonlocal_video.inference.runtimes.torch_network import TorchNetwork
from nonlocal_video.models.card import ModelCard

_log = logging.getLogger("nonlocal_video.runtime")


class NetworkRunner:
    """Runs a network; with `auto` by PyTorch until OpenVINO is worth its start, for each shape of view.

    The choice is logged at level INFO, each once; that OpenVINO was given up is a warning. Threads take turns, for
    which the caller sees.

    Attributes:
        by_torch: The network in PyTorch.
        by_openvino: The parts of the network that OpenVINO has compiled so far.
        runtime: The runtime of the last run; before the first one, of the next, if known.
    """

    def __init__(
        self, network: nn.Module, card: ModelCard, *, device: torch.device, option: RuntimeOption, precision: Precision
    ) -> None:
        self.by_torch = TorchNetwork(network, card, device, precision)
        self.by_openvino = OpenVINONetwork(network, card, CompiledCache(), bfloat16=precision == "bf16")
        self.runtime: Runtime = "openvino" if option == "openvino" else "torch"
        self._option, self._device, self._precision = option, device, precision
        self._problem: str | None = None
        self._has_warned = False
        self._seconds_by_torch: defaultdict[torch.Size, float] = defaultdict(float)
        self._told: dict[torch.Size, Runtime] = {}

    def __call__(
        self,
        views: Tensor,
        *,
        num_ahead: int = 0,
        pooled_layer: str | None = None,
        inputs_of: Sequence[str] = (),
        outputs_of: Sequence[str] = (),
    ) -> tuple[NetworkAnswer, Runtime]:
        """Run the network on normalised views (B, 3, T, S, S), on the device; return its answer and what ran it.

        Args:
            views: The views.
            num_ahead: Number of views of this shape known to come.
            pooled_layer: Dotted name of the layer whose pooled output is the answer's `features`. Another one than that
                before the classifier, which None is, comes from PyTorch.
            inputs_of: Dotted names of layers whose inputs are kept.
            outputs_of: Dotted names of layers whose outputs are kept.

        Raises:
            ModelError: The network gave something that is not a number; or OpenVINO was asked for and cannot run it.
        """
        shape = views.shape[1:]
        if self._needs_torch(pooled_layer, inputs_of, outputs_of):
            self._tell(RuntimeChoice("torch", "only PyTorch gives the features of that layer"), shape)
            self.runtime = "torch"
            answer = self.by_torch(views, pooled_layer=pooled_layer, inputs_of=inputs_of, outputs_of=outputs_of)
            return answer, "torch"
        choice = self._choose(shape, self._seconds_by_torch[shape], len(views))
        by_torch = None
        if choice.runtime == "torch":
            by_torch, seconds = self._timed(views, inputs_of, outputs_of)
            self._seconds_by_torch[shape] += seconds
            seconds_ahead = seconds / len(views) * num_ahead
            choice = self._choose(shape, self._seconds_by_torch[shape] + seconds_ahead, len(views))
        if choice.runtime == "openvino" and not self._prepared(views, by_torch):
            choice = self._choose(shape, 0.0, len(views))  # PyTorch, and why
        self._tell(choice, shape)
        self.runtime = choice.runtime
        if choice.runtime == "torch":
            return by_torch or self.by_torch(views, inputs_of=inputs_of, outputs_of=outputs_of), "torch"
        answer = self.by_openvino(views)
        if not torch.isfinite(answer.logits).all():
            raise self.by_torch.not_finite(views)
        return answer, "openvino"

    def may_use_openvino(self, shape: torch.Size) -> bool:
        """Return whether OpenVINO would run the network on views of a shape (3, T, S, S) if there were very many."""
        return self._choose(shape, math.inf).runtime == "openvino"

    @property
    def at_once(self) -> int:
        """Number of views to hand over together: more than 1 where OpenVINO may compute them at the same time."""
        may_use = choose_runtime(
            self._option,
            device=self._device,
            precision=self._precision,
            problem=self._problem,
            seconds_by_torch=math.inf,
        )
        return self.by_openvino.at_once if may_use.runtime == "openvino" else 1

    def at_once_now(
        self, shape: torch.Size, *, pooled_layer: str | None, inputs_of: Sequence[str], outputs_of: Sequence[str]
    ) -> int:
        """Return how many views of a shape (3, T, S, S) would now be computed at the same time, if there were several.

        The other arguments are those of a run.
        """
        if self._needs_torch(pooled_layer, inputs_of, outputs_of):
            return 1
        is_used = self._choose(shape, self._seconds_by_torch[shape], num_views=2).runtime == "openvino"
        return self.by_openvino.at_once if is_used else 1

    def _needs_torch(self, pooled_layer: str | None, inputs_of: Sequence[str], outputs_of: Sequence[str]) -> bool:
        return pooled_layer is not None or not self.by_openvino.gives(inputs_of=inputs_of, outputs_of=outputs_of)

    def _timed(self, views: Tensor, inputs_of: Sequence[str], outputs_of: Sequence[str]) -> tuple[NetworkAnswer, float]:
        """Run PyTorch; return its answer and the seconds that this took, without those of its start.

        The seconds are the processors', divided by the threads: what other processes do does not count. Where OpenVINO
        may be compiled next, the answer has what it is compared by.
        """
        _ = self.by_torch.folded
        if self.may_use_openvino(views.shape[1:]):
            inputs_of = list(dict.fromkeys([*inputs_of, *self.by_openvino.inputs_of]))
            outputs_of = list(dict.fromkeys([*outputs_of, *self.by_openvino.outputs_of]))
        started = time.process_time()
        answer = self.by_torch(views, inputs_of=inputs_of, outputs_of=outputs_of)
        return answer, (time.process_time() - started) / torch.get_num_threads()

    def _choose(self, shape: torch.Size, seconds_by_torch: float, num_views: int = 1) -> RuntimeChoice:
        return choose_runtime(
            self._option,
            device=self._device,
            precision=self._precision,
            problem=self._problem,
            is_compiled=lambda: self.by_openvino.is_compiled(shape, num_views),
            seconds_by_torch=seconds_by_torch,
        )

    def _prepared(self, views: Tensor, by_torch: NetworkAnswer | None) -> bool:
        """Compile the network for views (B, 3, T, S, S) unless it is; return whether OpenVINO can be used.

        Args:
            views: The views; by the first, the compiled network is compared with PyTorch.
            by_torch: What `_timed` returned for them; None if PyTorch did not run.

        Raises:
            ModelError: It cannot, and was asked for; or PyTorch's answer is not a number.
        """
        shape, view = views.shape[1:], views[:1]
        if self.by_openvino.is_compiled(shape, len(views)):
            return True
        if by_torch is None:
            by_torch = self.by_torch(view, inputs_of=self.by_openvino.inputs_of, outputs_of=self.by_openvino.outputs_of)
        try:
            self.by_openvino.compile(view, by_torch.first())
        except ModelError as error:
            if self._option == "openvino":
                raise
            self._problem = str(error)
            return False
        return self.by_openvino.is_compiled(shape, len(views))

    def _tell(self, choice: RuntimeChoice, shape: torch.Size) -> None:
        if self._option != "auto" or self._told.get(shape) == choice.runtime:
            return
        is_news = self._problem is not None and not self._has_warned
        self._has_warned |= is_news
        size = " x ".join(map(str, shape[1:]))
        level = logging.WARNING if is_news else logging.INFO
        _log.log(level, "Runtime %s for views of %s: %s.", choice.runtime, size, choice.reason)
        self._told[shape] = choice.runtime
