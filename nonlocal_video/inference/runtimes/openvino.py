"""The OpenVINO runtime, which is faster than PyTorch on a CPU."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from nonlocal_video.attention.capture import Captured
from nonlocal_video.errors import ModelError, NonlocalVideoError, UsageError
from nonlocal_video.inference.runtimes.answer import NetworkAnswer
from nonlocal_video.inference.runtimes.compiled_cache import CompiledCache, entry_key
from nonlocal_video.inference.runtimes.traceable import TOLERANCE, TracedAnswer, outputs_of, trace, traceable
from nonlocal_video.models.card import ModelCard

AT_ONCE = 2
"""Number of views that are computed at the same time where there are several: each has its share of the threads, and
none of these waits for the other's at the end of a layer."""
BFLOAT16_TOLERANCE = 0.1
"""Largest difference from PyTorch allowed in bfloat16, as a share of the largest value; seen were 3% of the logits."""
_log = logging.getLogger(__name__)


def is_installed() -> bool:
    """Return whether OpenVINO is installed; it is not imported."""
    return find_spec("openvino") is not None


def check_installed() -> None:
    """Check that OpenVINO is installed.

    Raises:
        UsageError: It is not; the message contains the command that installs it.
    """
    if not is_installed():
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


def has_bfloat16() -> bool:
    """Return whether OpenVINO is installed and computes in bfloat16 on this CPU; this imports it."""
    return is_installed() and "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def compiled(model: Any, num_threads: int, *, bfloat16: bool = False) -> Any:
    """Compile a model, or a file with one, for the CPU; return an `openvino.CompiledModel`.

    Args:
        model: `openvino.Model`, or the path of a file with one.
        num_threads: Number of threads.
        bfloat16: Whether to round the factors of convolutions and matrix products to bfloat16; else it is float32.
    """
    return _core().compile_model(model, "CPU", _settings(num_threads, bfloat16=bfloat16))


def _settings(num_threads: int, *, bfloat16: bool, num_streams: int = 1) -> dict[str, Any]:
    return {
        "NUM_STREAMS": num_streams,
        # CPUs with bfloat16 arithmetic would be given it without a word.
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": num_threads,
        "ENABLE_CPU_PINNING": False,  # it binds the threads of every process to the same cores
    }


@functools.cache
def _core() -> Any:
    """Return the only `openvino.Core` of the process, which is never destroyed.

    Each gives its thread a stack for signal handlers, and puts back the one that it found when it ends. Of two that end
    in the order in which they began, the second puts back what the first has freed: the next handled signal, like that
    of a child that ended, then kills the process (seen with OpenVINO 2026.4).
    """
    return import_openvino().Core()


class OpenVINONetwork:
    """A copy of a network that OpenVINO runs on the CPU, on as many threads as PyTorch has.

    Frames and pixels are fixed where a network is compiled, the number of views is not. So it is compiled for each
    shape of view, and what was compiled is kept, in memory and in the cache on disk, only if it gives PyTorch's answer
    for one view: it is another program, and one that hides damage, as its ReLU makes 0 of what is not a number.

    One view has all threads; several are computed `at_once`, by the same program with other threads.

    Attributes:
        inputs_of: Dotted names of the layers whose inputs it gives: all non-local blocks.
        outputs_of: Dotted names of the layers whose outputs it gives: the one before the classifier.
    """

    def __init__(self, network: nn.Module, card: ModelCard, cache: CompiledCache, *, bfloat16: bool = False) -> None:
        """Compile nothing yet.

        Args:
            network: In eval mode, on the CPU; it is read when a shape is compiled.
            card: The network's.
            cache: Where compiled networks are kept on disk.
            bfloat16: Whether to compute in bfloat16 in place of float32, where `has_bfloat16`.
        """
        self.card = card
        self._network, self._cache, self._bfloat16 = network, cache, bfloat16
        self._compiled: dict[tuple[torch.Size, int], Any] = {}  # by shape and views at once
        self._compiled_here: set[torch.Size] = set()  # what came from the cache cannot be exported again
        self._keys: dict[torch.Size, str | None] = {}
        self._outputs = outputs_of(network)
        self.inputs_of = [name for kind, name in self._outputs if kind == "input"]
        self.outputs_of = [name for kind, name in self._outputs if kind == "output"]

    @property
    def at_once(self) -> int:
        """Number of views that are computed at the same time where there are several."""
        return min(AT_ONCE, torch.get_num_threads())

    def gives(self, *, inputs_of: Sequence[str], outputs_of: Sequence[str]) -> bool:
        """Return whether it can keep these inputs and outputs of layers."""
        return set(inputs_of) <= set(self.inputs_of) and set(outputs_of) <= set(self.outputs_of)

    def is_compiled(self, shape: torch.Size, num_views: int = 1) -> bool:
        """Return whether the network is compiled for views of a shape (3, T, S, S), so many in a batch.

        The first time that a shape is asked for, this looks in the cache on disk.
        """
        num_streams = self._num_streams(num_views)
        if (shape, num_streams) in self._compiled:
            return True
        if shape in self._keys and not any(of_shape == shape for of_shape, _ in self._compiled):
            return False
        blob = self._blob(shape)
        if blob is None:
            return False
        try:
            self._compiled[shape, num_streams] = self._imported(blob, num_streams)
        except Exception as error:  # of another build with the same version, for one; it is compiled again
            _log.warning("the compiled network in the cache cannot be used: %s", error)
            return False
        return True

    def compile(self, view: Tensor, by_pytorch: NetworkAnswer) -> None:
        """Compile the network for views of a shape, compare it with PyTorch, and keep it.

        Args:
            view: A normalised view (1, 3, T, S, S).
            by_pytorch: PyTorch's answer for it, with these inputs and outputs of layers.

        Raises:
            ModelError: OpenVINO cannot run the network, or gives other numbers than PyTorch.
        """
        shape = view.shape[1:]
        network = self._compile(shape)
        self._check_answer(self._run(network, view), by_pytorch)
        blob = _exported(network)
        if self.at_once > 1:
            try:
                several = self._imported(blob, self.at_once)
            except Exception as error:
                raise self._not_compiled(shape, error) from error
            self._check_answer(self._run(several, view), by_pytorch)
        self._compiled[shape, 1] = network
        self._compiled_here.add(shape)
        key = self._keys.get(shape)
        if key is not None:
            self._cache.put(key, blob)

    def __call__(self, views: Tensor) -> NetworkAnswer:
        """Run the compiled network on normalised views (B, 3, T, S, S) for which it `is_compiled`."""
        num_streams = self._num_streams(len(views))
        network = self._compiled[views.shape[1:], num_streams]
        return self._run(network, views) if num_streams == 1 else self._run_at_once(network, views, num_streams)

    def _blob(self, shape: torch.Size) -> bytes | None:
        """Return the compiled network of a shape, from which it can be made for any number of streams."""
        if shape in self._compiled_here:
            return _exported(self._compiled[shape, 1])
        if shape not in self._keys:
            self._keys[shape] = entry_key(self._network, self.card, tuple(shape), bfloat16=self._bfloat16)
        key = self._keys[shape]
        return None if key is None else self._cache.get(key)

    def _num_streams(self, num_views: int) -> int:
        # Of an odd number the last view would have half of the threads for the whole of its time.
        return 1 if num_views % self.at_once else self.at_once

    def _imported(self, blob: bytes, num_streams: int) -> Any:
        settings = _settings(torch.get_num_threads(), bfloat16=self._bfloat16, num_streams=num_streams)
        return _core().import_model(blob, "CPU", settings)

    def _run(self, network: Any, views: Tensor) -> NetworkAnswer:
        # Views aren't copied; the results are, so that the next run doesn't overwrite them.
        found = network(views.contiguous().numpy(), share_inputs=True)
        return self._answer([torch.from_numpy(found[output]) for output in network.outputs])

    def _run_at_once(self, network: Any, views: Tensor, num_streams: int) -> NetworkAnswer:
        parts = views.contiguous().split(1)
        requests = [network.create_infer_request() for _ in range(num_streams)]
        found: list[list[Tensor]] = []

        def take(position: int) -> None:
            request = requests[position % num_streams]
            request.wait()
            found.append([torch.from_numpy(one.data.copy()) for one in request.output_tensors])

        try:
            for position, part in enumerate(parts):
                if position >= num_streams:
                    take(position - num_streams)
                requests[position % num_streams].start_async(part.numpy(), share_inputs=True)
            for position in range(len(found), len(parts)):
                take(position)
        finally:
            for request in requests:  # after an error the others still read the views
                with suppress(RuntimeError):
                    request.wait()
        return self._answer([torch.cat(of_all) for of_all in zip(*found, strict=True)])

    def _answer(self, outputs: Sequence[Tensor]) -> NetworkAnswer:
        logits, *others = outputs
        kept, features = Captured(), None
        for (kind, name), values in zip(self._outputs, others, strict=True):
            if kind == "pooled":
                features = values
            elif kind == "output":
                kept.outputs[name] = values
            else:
                kept.inputs[name] = values
        return NetworkAnswer(logits, features, kept)

    def _check_answer(self, found: NetworkAnswer, expected: NetworkAnswer) -> None:
        self._check("logits", found.logits, expected.logits)
        if found.features is not None and expected.features is not None:
            self._check("features", found.features, expected.features)
        for kind, of_found, of_expected in (
            ("input", found.kept.inputs, expected.kept.inputs),
            ("output", found.kept.outputs, expected.kept.outputs),
        ):
            for name, values in of_found.items():
                self._check(f"features ({kind} of {name})", values, of_expected[name])

    def _check(self, what: str, found: Tensor, expected: Tensor) -> None:
        difference, largest = float((found - expected).abs().max()), float(expected.abs().max())
        tolerance = BFLOAT16_TOLERANCE if self._bfloat16 else TOLERANCE
        if not difference <= tolerance * largest:
            raise ModelError(
                f"With OpenVINO the {what} of model {self.card.name!r} differ by up to {difference:.3g} from "
                f"PyTorch's, the largest of which is {largest:.3g}; {tolerance:g} of it is allowed. Use --runtime "
                f"torch, or another version of openvino."
            )

    def _compile(self, shape: torch.Size) -> Any:
        try:
            with torch.inference_mode(False), torch.no_grad():  # tracing does not work in inference mode
                network = traceable(self._network, for_pytorch=False)[0].eval().requires_grad_(False)
                answer = TracedAnswer(network, self.card, self._outputs).eval()
                model = convert(trace(answer, (None, *shape)), (None, *shape))
            return compiled(model, torch.get_num_threads(), bfloat16=self._bfloat16)
        except NonlocalVideoError:
            raise
        except Exception as error:
            raise self._not_compiled(shape, error) from error

    def _not_compiled(self, shape: torch.Size, error: Exception) -> ModelError:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        return ModelError(
            f"Model {self.card.name!r} cannot be compiled by OpenVINO for clips of {tuple(shape)}: "
            f"{type(error).__name__}: {reason.rstrip('.')}. Use --runtime torch."
        )


def _exported(network: Any) -> bytes:
    """Return a compiled network as bytes."""
    blob = network.export_model()
    return blob if isinstance(blob, bytes) else bytes(blob.getvalue())
