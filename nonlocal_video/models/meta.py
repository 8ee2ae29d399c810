"""Networks on the meta device, where tensors have shapes and no storage."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def shapes_only() -> Iterator[None]:
    """Build networks on the meta device inside the block, without random initialisation.

    PyTorch draws random numbers on the meta device by way of its compiler, whose import alone takes seconds.
    """
    with torch.device("meta"), _NoInitialisation():
        yield


class _NoInitialisation(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        draws = getattr(func, "__module__", None) == nn.init.__name__ or func in (Tensor.normal_, Tensor.uniform_)
        if draws:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


class OperatorMode(TorchDispatchMode):
    """Base of the modes that look at every operator.

    By default PyTorch keeps its compiler out of a mode, for which it imports the compiler at the first operator, and
    that takes seconds. Nothing is compiled under these modes.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


def run_for_shapes(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operator on the meta device; make the results of frequent ones by their shapes.

    PyTorch finds the shapes of these in Python, and imports its compiler for that.
    """
    operands = [value for value in _members(args) if isinstance(value, Tensor)]
    if kwargs or not operands or not all(tensor.is_meta and tensor.is_floating_point() for tensor in operands):
        return func(*args, **kwargs)
    if func in _POINTWISE and all(tensor.dtype == operands[0].dtype for tensor in operands):
        return operands[0].new_empty(torch.broadcast_shapes(*(tensor.shape for tensor in operands)))
    if func is _ATEN.native_batch_norm.default and not args[5]:  # not in training: no statistics of the batch
        return args[0].new_empty(args[0].shape), args[0].new_empty(0), args[0].new_empty(0)
    if func is _ATEN.cat.default and all(tensor.ndim > 1 for tensor in operands):  # an empty vector is left out of all
        shape, dim = [*operands[0].shape], args[1] if len(args) > 1 else 0
        shape[dim] = sum(tensor.shape[dim] for tensor in operands)
        return operands[0].new_empty(shape)
    if func is _ATEN.mean.dim and args[1]:
        taken, keeps = {dim % args[0].ndim for dim in args[1]}, len(args) > 2 and args[2]
        sizes = [1 if axis in taken else size for axis, size in enumerate(args[0].shape) if keeps or axis not in taken]
        return args[0].new_empty(sizes)
    return func(*args, **kwargs)


def _members(values: Any) -> Iterator[Any]:
    for value in values:
        yield from value if isinstance(value, (list, tuple)) else (value,)


_ATEN = torch.ops.aten
_POINTWISE = {
    _ATEN.add.Tensor, _ATEN.sub.Tensor, _ATEN.mul.Tensor, _ATEN.div.Tensor, _ATEN.relu.default, _ATEN.gelu.default,
    _ATEN.clamp.default, _ATEN.hardtanh.default, _ATEN.leaky_relu.default,
}  # fmt: skip


def meta_copy(network: nn.Module) -> nn.Module:
    """Copy a network to the meta device, in eval mode, without copying its weights first.

    While it is copied nobody else may run the network with hooks.
    """
    memo: dict[int, Any] = {}
    for parameter in network.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
    for buffer in network.buffers():
        memo[id(buffer)] = buffer.to("meta")
    return copy.deepcopy(network, memo).eval()
