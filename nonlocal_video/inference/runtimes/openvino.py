"""The OpenVINO runtime, which is faster than PyTorch on a CPU."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from nonlocal_video.errors import ModelError, NonlocalVideoError, UsageError
from nonlocal_video.inference.runtimes.traceable import TOLERANCE, LogitsAndFeatures, PlaceLogits, trace, traceable
from nonlocal_video.models.card import ModelCard


def check_installed() -> None:
    """Check that OpenVINO is installed.

    Raises:
        UsageError: It is not; the message contains the command that installs it.
    """
    if find_spec("openvino") is None:
        raise UsageError("runtime = 'openvino' needs openvino: pip install openvino")


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry package, which reports imports and conversions to its makers."""
    if "openvino" not in sys.modules:
        # As if the package were not installed, which OpenVINO supports.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def convert(program: torch.export.ExportedProgram, shape: tuple[int | None, ...]) -> Any:
    """Return an `openvino.Model` of a traced network, for clips of `shape` (B, 3, T, S, S); None is any number."""
    model = import_openvino().convert_model(program)
    model.reshape([-1 if side is None else side for side in shape])  # the conversion keeps the channels alone
    return model


def compiled(model: Any, num_threads: int) -> Any:
    """Compile a model, or a file with one, for the CPU in float32; return an `openvino.CompiledModel`."""
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",  # CPUs with bfloat16 arithmetic would be given it otherwise
        "INFERENCE_NUM_THREADS": num_threads,
        "ENABLE_CPU_PINNING": False,  # it binds the threads of every process to the same cores
    }
    return _core().compile_model(model, "CPU", settings)


@functools.cache
def _core() -> Any:
    """Return the only `openvino.Core` of the process, which is never destroyed.

    Each gives its thread a stack for signal handlers, and puts back the one that it found when it ends. Of two that end
    in the order in which they began, the second puts back what the first has freed: the next handled signal, like that
    of a child that ended, then kills the process (seen with OpenVINO 2026.4).
    """
    return import_openvino().Core()


Answer = tuple[Tensor, Tensor | None]
"""Logits (B, P, classes), and pooled features (B, C) where the network names its layer before the classifier."""


def _run(network: Any, clips: Tensor) -> Answer:
    # Clips aren't copied; the results are, so that the next run doesn't overwrite them.
    found = network(clips.contiguous().numpy(), share_inputs=True)
    logits, *features = (torch.from_numpy(found[position]) for position in range(len(found)))
    return logits, features[0] if features else None


class OpenVINONetwork:
    """A copy of a network that OpenVINO runs on the CPU, in float32 on as many threads as PyTorch has.

    Frames and pixels are fixed where a network is compiled, the number of clips is not. So it is compiled for each
    shape of clip that comes, when the first of them does. That clip is answered by PyTorch, too, and what was compiled
    is kept only if both agree: it is another program, and one that hides damage, as its ReLU makes 0 of what is not a
    number.

    Args:
        network: In eval mode, on the CPU; what becomes of it later doesn't matter here.
        card: The network's.
        by_pytorch: PyTorch's answer for the same clips, or a ModelError if it isn't numbers.
    """

    def __init__(self, network: nn.Module, card: ModelCard, by_pytorch: Callable[[Tensor], Answer]) -> None:
        self.network = traceable(network, for_pytorch=False)[0].eval().requires_grad_(False)
        """What is compiled, as PyTorch has it."""
        self.card = card
        self._by_pytorch = by_pytorch
        self._compiled: dict[torch.Size, Any] = {}

    def __call__(self, clips: Tensor) -> Answer:
        """The answer for normalised clips (B, 3, T, S, S); see `LogitsAndFeatures`.

        Raises:
            ModelError: OpenVINO cannot run the network, or gives other numbers than PyTorch.
        """
        shape = clips.shape[1:]
        if shape not in self._compiled:
            network = self._compile(shape)
            found, expected = _run(network, clips[:1]), self._by_pytorch(clips[:1])
            self._check("logits", found[0], expected[0])
            if found[1] is not None and expected[1] is not None:
                self._check("features", found[1], expected[1])
            self._compiled[shape] = network
        return _run(self._compiled[shape], clips)

    def _check(self, what: str, found: Tensor, expected: Tensor) -> None:
        difference, largest = float((found - expected).abs().max()), float(expected.abs().max())
        if not difference <= TOLERANCE * largest:
            raise ModelError(
                f"With OpenVINO the {what} of model {self.card.name!r} differ by up to {difference:.3g} from "
                f"PyTorch's, the largest of which is {largest:.3g}; {TOLERANCE:.0e} of it is allowed. Use --runtime "
                f"torch, or another version of openvino."
            )

    def _compile(self, shape: torch.Size) -> Any:
        try:
            with torch.inference_mode(False), torch.no_grad():  # tracing does not work in inference mode
                named = hasattr(self.network, "feature_layer") and hasattr(self.network, "head")
                answer = (LogitsAndFeatures if named else PlaceLogits)(self.network, self.card).eval()
                model = convert(trace(answer, (None, *shape)), (None, *shape))
            return compiled(model, torch.get_num_threads())
        except NonlocalVideoError:
            raise
        except Exception as error:
            reason = (str(error).strip().splitlines() or ["no reason given"])[0]
            raise ModelError(
                f"Model {self.card.name!r} cannot be compiled by OpenVINO for clips of {tuple(shape)}: "
                f"{type(error).__name__}: {reason.rstrip('.')}. Use --runtime torch."
            ) from error
