"""The non-local block on sequences, images and volumes: z = W y + x (Wang et al., CVPR 2018, eq. 6 and figure 2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Protocol, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from nonlocal_video.blocks.config import NonLocalConfig, NonLocalType, PoolOrder, Scale
from nonlocal_video.blocks.kernels import (
    concatenation_kernel,
    concatenation_rows,
    dot_product_kernel,
    dot_product_rows,
    mean_row,
    softmax_kernel,
    softmax_rows,
)


class _Projection:
    """W, a 1x1 convolution that is also found as W[0]; W[1] is the norm after it, or an `nn.Identity`."""

    norm: tuple[nn.Module, ...] = ()
    """The norm, in a tuple so that it is no submodule of the convolution: the names in state dicts stay `W.weight`."""

    def __getitem__(self, index: int) -> nn.Module:
        return (self, *self.norm)[index]  # type: ignore[return-value]


class Projection1d(_Projection, nn.Conv1d):
    """W of a block on sequences."""


class Projection2d(_Projection, nn.Conv2d):
    """W of a block on images."""


class Projection3d(_Projection, nn.Conv3d):
    """W of a block on volumes."""


_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_PROJECTION = {1: Projection1d, 2: Projection2d, 3: Projection3d}
_BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_EMBEDDING_STD = 0.01  # standard deviation of new weights of theta, phi, g and W, as in the authors' code

Rows = Callable[[Tensor, Tensor], Tensor]
"""theta (S, Q, D), phi (S, M', D) -> weights f / C, (S, Q, M')."""


class KernelVariant(Protocol):
    """Another way to compute the result. `rows` returns the weights. See `nonlocal_video.blocks.variants`."""

    def kernel(self, rows: Rows, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        """Compute y, (S, N', D'); `rows` gives the weights of the full block."""

    def rows(self, rows: Rows, theta: Tensor, phi: Tensor) -> Tensor:
        """Compute the variant's weights, (S, Q, M'), from those of the full block."""


class NonLocalBlock(nn.Module):
    """Non-local block on (B, C, *size), in one, two or three dimensions (Wang et al., CVPR 2018, eq. 1 and 6).

    z_i = x_i + BN(W y_i) with y_i = 1/C(x) * sum_j f(x_i, x_j) g(x_j). N is the number of positions of `size`, M that
    of the keys. `sub_sample` max-pools the keys by 2 (by (1, 2, 2) in three dimensions); queries are never pooled.
    Pooling drops the last row of an odd side, as the published weights expect, and keeps a side of 1. A new block is
    the identity.

    Args:
        in_channels: Number of channels C of the input.
        inter_channels: Number of channels of theta, phi and g; None is half of C (at least 1). The Gaussian compares
            the C channels of x itself and has neither theta nor phi.
        dimension: Number of dimensions of `size`: 1, 2 or 3.
        sub_sample: Whether keys and values are max-pooled.
        bn_layer: Whether a batch norm follows W.
        nonlocal_type: The pairwise function f and its normalisation; see `nonlocal_video.blocks.kernels`.
        scale: Factor on theta . phi before the softmax of the embedded Gaussian; None is 1, "inverse_sqrt" is
            inter_channels ** -0.5.
        pool_order: Max-pooling before ("pool_conv") or after ("conv_pool") phi and g.
        embed_bias: Whether theta, phi and g have a bias.
        out_bias: Whether W has a bias.

    Attributes:
        gate: Factor on what the block adds: z = x + gate * BN(W y). A training schedule raises it from 0 to 1. It is
            not part of `state_dict`; `absorb_gate` makes it part of the weights.

    Raises:
        ValueError: If an argument is out of range or has no meaning beside another one.

    Example:
        >>> block = NonLocalBlock(64, dimension=2, nonlocal_type="dot_product")
        >>> x = torch.randn(2, 64, 14, 14)
        >>> z, weights = block(x, return_nl_map=True)
        >>> z.shape, weights.shape, bool((z == x).all())
        (torch.Size([2, 64, 14, 14]), torch.Size([2, 196, 49]), True)
    """

    conv_bn_pairs: ClassVar[tuple[tuple[str, str], ...]] = (("W", "bn"),)
    """Pairs for `nonlocal_video.models.folding`: bn takes the output of W, and nothing else does."""
    factorized_rank: int | None = None
    """Number of channels of theta and phi where `factorized_attention` reduced them; None otherwise."""

    def __init__(
        self,
        in_channels: int,
        inter_channels: int | None = None,
        dimension: Literal[1, 2, 3] = 2,
        sub_sample: bool = True,
        bn_layer: bool = True,
        nonlocal_type: NonLocalType = "embedded_gaussian",
        *,
        scale: Scale = None,
        pool_order: PoolOrder = "conv_pool",
        embed_bias: bool = True,
        out_bias: bool = True,
    ) -> None:
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"{in_channels = } should be at least 1.")
        if dimension not in _CONV:
            raise ValueError(f"{dimension = } should be 1, 2 or 3.")
        self.config = NonLocalConfig(
            inter_channels=inter_channels,
            nonlocal_type=nonlocal_type,
            sub_sample=sub_sample,
            pool_order=pool_order,
            scale=scale,
            bn_layer=bn_layer,
            embed_bias=embed_bias,
            out_bias=out_bias,
        )
        self.in_channels = in_channels
        self.inter_channels = inter_channels if inter_channels is not None else max(1, in_channels // 2)
        self.dimension = dimension
        self.variant: KernelVariant | None = None
        self.gate = 1.0
        self.scale = self.inter_channels**-0.5 if scale == "inverse_sqrt" else 1.0 if scale is None else scale

        conv = _CONV[dimension]
        has_embedding = nonlocal_type != "gaussian"
        self.g = conv(in_channels, self.inter_channels, kernel_size=1, bias=embed_bias)
        self.theta = conv(in_channels, self.inter_channels, kernel_size=1, bias=embed_bias) if has_embedding else None
        self.phi = conv(in_channels, self.inter_channels, kernel_size=1, bias=embed_bias) if has_embedding else None
        # w_f of eq. 5 as one row (1, 2 D); published weights hold the same row as a convolution (1, 2 D, 1, 1).
        self.concat_project = (
            nn.Linear(2 * self.inter_channels, 1, bias=False) if nonlocal_type == "concatenation" else None
        )
        self.W = _PROJECTION[dimension](self.inter_channels, in_channels, kernel_size=1, bias=out_bias)
        self.bn = _BATCH_NORM[dimension](in_channels) if bn_layer else nn.Identity()
        self.reset_parameters()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in ("W", "bn"):  # folding batch norms replaces both
            projection, norm = self._modules.get("W"), self._modules.get("bn")
            if isinstance(projection, _Projection) and norm is not None:
                projection.norm = (norm,)

    @property
    def nonlocal_type(self) -> NonLocalType:
        """The pairwise function."""
        return self.config.nonlocal_type

    @property
    def sub_sample(self) -> bool:
        """Whether keys and values are max-pooled."""
        return self.config.sub_sample

    def reset_parameters(self) -> None:
        """Initialise the block: small random embeddings, and the identity as a whole."""
        for conv in (self.g, self.theta, self.phi, self.W):
            if conv is not None:
                nn.init.normal_(conv.weight, std=_EMBEDDING_STD)
                if conv.bias is not None:
                    nn.init.zeros_(conv.bias)
        if self.concat_project is not None:
            self.concat_project.reset_parameters()
        if isinstance(self.bn, _BatchNorm):
            self.bn.reset_parameters()
        self.zero_init()

    def zero_init(self) -> None:
        """Make the block the identity: zero gain and bias of the batch norm, or zero W if it has none.

        A network that initialises its own layers should call this last.
        """
        last = self.bn if isinstance(self.bn, _BatchNorm) else self.W
        for parameter in (last.weight, last.bias):
            if parameter is not None:
                nn.init.zeros_(parameter)

    @overload
    def forward(self, x: Tensor, return_nl_map: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, x: Tensor, return_nl_map: Literal[True]) -> tuple[Tensor, Tensor]: ...

    @overload
    def forward(self, x: Tensor, return_nl_map: bool) -> Tensor | tuple[Tensor, Tensor]: ...

    def forward(self, x: Tensor, return_nl_map: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Add to every position the weighted mean of the others (eq. 6).

        Args:
            x: Features (B, C, *size).
            return_nl_map: Whether to return the attention map as well; the result itself never needs it.

        Returns:
            z, (B, C, *size); or z and the map f / C(x), (B, N, M). Row i of the map has the weights of query i, exactly
            as z used them.

        Raises:
            ValueError: If x has another number of channels or dimensions.
        """
        self._check_input(x)
        source = self._key_source(x)
        theta, phi, g = (self._fold(grid) for grid in (self._queries(x), self._keys(source), self._values(source)))
        y = self._unfold(self._kernel(theta, phi, g), x)  # (S, N', D') -> (B, D', *size)
        change = self.bn(self.W(y))
        z = x + (change if self.gate == 1 else self.gate * change)
        return (z, self._shape_map(self._rows(theta, phi), x)) if return_nl_map else z

    @torch.no_grad()
    def absorb_gate(self) -> None:
        """Multiply the weights of W or of the batch norm by the gate, and set the gate to 1."""
        last = self.bn if isinstance(self.bn, _BatchNorm) else self.W
        for parameter in (last.weight, last.bias):
            if parameter is not None:
                parameter.mul_(self.gate)
        self.gate = 1.0

    def attention(self, x: Tensor, query_indices: Tensor) -> Tensor:
        """Compute the attention weights of some positions, without the whole map.

        Args:
            x: Features (B, C, *size), the input of the block.
            query_indices: Integers (Q,) in [0, N): positions of `size` in row-major order.

        Returns:
            Weights (B, Q, M): row q has the weights of that query on all keys, in row-major order of `key_size(size)`.

        Raises:
            ValueError: If the indices are not integers of shape (Q,), or are out of range.
        """
        self._check_input(x)
        num_positions = math.prod(x.shape[2:])
        if query_indices.dim() != 1 or query_indices.is_floating_point():
            raise ValueError(
                f"query_indices = {query_indices.dtype} {tuple(query_indices.shape)} should be integers of shape (Q,)."
            )
        if query_indices.numel() and not 0 <= int(query_indices.min()) <= int(query_indices.max()) < num_positions:
            raise IndexError(
                f"query_indices from {int(query_indices.min())} to {int(query_indices.max())} should lie in "
                f"[0, {num_positions}), the positions of {tuple(x.shape[2:])}."
            )
        theta, phi, query_positions, key_positions = self._sequences(x)
        # position -> (sequence, index in it)
        index = torch.argsort(query_positions.flatten())[query_indices.to(x.device)]
        sequence, index = index // query_positions.shape[1], index % query_positions.shape[1]
        weights = theta.new_zeros(len(x), len(query_indices), key_positions.numel())  # (B, Q, M)
        for number in sequence.unique():
            asked = (sequence == number).nonzero()[:, 0]
            rows = self._rows(theta[:, number, index[asked]], phi[:, number])
            weights[:, asked[:, None], key_positions[number]] = rows.to(weights.dtype)
        return weights

    def attention_received(self, x: Tensor) -> Tensor:
        """Return the attention that each key receives, (B, M): the mean of the map's rows over all N queries.

        Computed in chunks of queries, so the map is never held. The M values of a softmax kernel sum to 1.
        """
        self._check_input(x)
        theta, phi, _, key_positions = self._sequences(x)  # (B, S, N', D), (B, S, M', D)
        num_sequences, num_keys = key_positions.shape
        flat_phi = phi.flatten(0, 1)
        mean = mean_row(lambda chunk: self._rows(chunk, flat_phi), theta.flatten(0, 1), num_keys)  # (B S, M')
        received = mean.new_empty(len(x), num_sequences * num_keys)  # (B, M)
        received[:, key_positions.flatten()] = mean.view(len(x), num_sequences * num_keys) / num_sequences
        return received

    def key_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Return the size of the grid of keys for a grid of positions: `size` itself, or pooled. M is its product."""
        return tuple(side // kernel for side, kernel in zip(size, self._pool_kernel(size), strict=True))

    @property
    def is_identity(self) -> bool:
        """Return whether the block adds exactly zero to every finite input in eval mode, as a new block does."""
        if self.gate == 0:
            return True
        weight, bias = self.W.weight, self.W.bias
        if isinstance(self.bn, _BatchNorm):
            bn = self.bn
            assert bn.running_mean is not None
            assert bn.running_var is not None
            weight, bias = fuse_conv_bn_weights(
                weight, bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
            )
        return not weight.any() and (bias is None or not bias.any())

    def get_block_info(self) -> dict[str, Any]:
        """Return the block's settings and size; `memory_bytes` is the size of its parameters and buffers.

        `inter_channels` are those of g, `embedding_channels` those in which theta and phi (of the Gaussian, x itself)
        are compared. `memory_per_pixel` is the bytes that theta, phi, g, y and W y take for one position, keys not
        pooled; the map is not part of it, as no kernel holds it.
        """
        tensors = [*self.parameters(), *self.buffers()]
        num_parameters = sum(parameter.numel() for parameter in self.parameters())
        embeddings = sum(conv.out_channels for conv in (self.theta, self.phi) if conv is not None)
        channels_made = embeddings + 2 * self.inter_channels + self.in_channels
        return {
            "nonlocal_type": self.config.nonlocal_type,
            "dimension": self.dimension,
            "in_channels": self.in_channels,
            "inter_channels": self.inter_channels,
            "sub_sample": self.config.sub_sample,
            "pool_order": self.config.pool_order,
            "bn_layer": self.config.bn_layer,
            "scale": self.scale,
            "variant": self._variant_name(),
            "embedding_channels": self.in_channels if self.theta is None else self.theta.out_channels,
            "parameters": num_parameters,
            "total_parameters": num_parameters,
            "memory_per_pixel": channels_made * self.W.weight.element_size(),
            "memory_bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        }

    def extra_repr(self) -> str:
        """Return the kernel, the pooling and the variant for `repr`."""
        name = self._variant_name()
        variant = "" if name is None else f", {name}"
        return f"{self.config.nonlocal_type}, sub_sample={self.config.sub_sample}, {self.config.pool_order}{variant}"

    def _variant_name(self) -> str | None:
        rank = self.factorized_rank
        names = [] if rank is None else [f"factorized_attention(rank={rank})"]
        names += [] if self.variant is None else [str(self.variant)]
        return ", ".join(names) or None

    # The kernel.

    def _kernel(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        """Compute y, (S, N', D'), from (S, N', D), (S, M', D), (S, M', D')."""
        if self.variant is not None:
            return self.variant.kernel(self._full_rows, theta, phi, g)
        if self.config.nonlocal_type == "dot_product":
            return dot_product_kernel(theta, phi, g)
        if self.concat_project is not None:
            return concatenation_kernel(theta, phi, g, self.concat_project.weight[0])
        return softmax_kernel(theta, phi, g, scale=self.scale)

    def _rows(self, theta: Tensor, phi: Tensor) -> Tensor:
        """Compute the weights that `_kernel` gives the values, (S, Q, M'), from (S, Q, D), (S, M', D)."""
        return self._full_rows(theta, phi) if self.variant is None else self.variant.rows(self._full_rows, theta, phi)

    def _full_rows(self, theta: Tensor, phi: Tensor) -> Tensor:
        if self.config.nonlocal_type == "dot_product":
            return dot_product_rows(theta, phi)
        if self.concat_project is not None:
            return concatenation_rows(theta, phi, self.concat_project.weight[0])
        return softmax_rows(theta, phi, scale=self.scale)

    # Queries, keys and values as grids.

    def _queries(self, x: Tensor) -> Tensor:
        return x if self.theta is None else self.theta(x)

    def _key_source(self, x: Tensor) -> Tensor:
        """Return the input of phi and g: x, pooled if pooling comes first."""
        return self._pool(x) if self.config.pool_order == "pool_conv" else x

    def _keys(self, source: Tensor) -> Tensor:
        keys = source if self.phi is None else self.phi(source)
        return keys if self.config.pool_order == "pool_conv" else self._pool(keys)

    def _values(self, source: Tensor) -> Tensor:
        values = self.g(source)
        return values if self.config.pool_order == "pool_conv" else self._pool(values)

    def _pool(self, grid: Tensor) -> Tensor:
        kernel = self._pool_kernel(tuple(grid.shape[2:]))
        return grid if set(kernel) == {1} else _MAX_POOL[self.dimension](grid, kernel, stride=kernel)

    def _pool_kernel(self, size: tuple[int, ...]) -> tuple[int, ...]:
        pooled = self.config.sub_sample
        # In three dimensions the first is time (or depth), which is never pooled.
        return tuple(
            2 if pooled and side > 1 and not (self.dimension == 3 and axis == 0) else 1
            for axis, side in enumerate(size)
        )

    # From grids to the sets of positions that attend to each other, and back. Here all positions form one set.

    def _fold(self, grid: Tensor) -> Tensor:
        """Reshape (B, D, *size) -> (B S, L, D): the S sets of each sample, with L positions each."""
        return grid.flatten(2).transpose(1, 2)

    def _unfold(self, rows: Tensor, x: Tensor) -> Tensor:
        """Reshape (B S, N', D') -> (B, D', *size), the inverse of `_fold` for the queries of x."""
        # No -1 among the sizes, since a batch may be empty (no detected boxes, for example). The same below.
        return rows.transpose(1, 2).reshape(len(x), rows.shape[2], *x.shape[2:])

    def _shape_map(self, weights: Tensor, x: Tensor) -> Tensor:
        """Reshape (B S, N', M') to the shape that `forward` documents."""
        return weights

    def _sequences(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return theta (B, S, N', D), phi (B, S, M', D), and the grid positions of their rows, (S, N') and (S, M')."""
        theta, phi = self._fold(self._queries(x)), self._fold(self._keys(self._key_source(x)))
        size = tuple(x.shape[2:])
        query_positions, key_positions = (
            self._fold(torch.arange(math.prod(grid), device=x.device).view(1, 1, *grid)).squeeze(2)
            for grid in (size, self.key_size(size))
        )
        sets = len(x), len(query_positions)
        return theta.unflatten(0, sets), phi.unflatten(0, sets), query_positions, key_positions

    def _check_input(self, x: Tensor) -> None:
        if x.dim() != self.dimension + 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"The block got an input of shape {tuple(x.shape)}; it takes (B, {self.in_channels}, *size) with "
                f"{self.dimension} sides."
            )
