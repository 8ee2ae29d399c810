"""Class evidence: the exact class activation map where the head is linear, else Grad-CAM."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from nonlocal_video.models.token_layout import first_tensor, layout_of


@runtime_checkable
class LinearHead(Protocol):
    """A network whose logits are a linear function of its last feature map."""

    @property
    def feature_layer(self) -> str:
        """Dotted name of the module whose output the head takes."""
        ...

    def class_activation_map(self, features: Tensor, class_indices: Tensor) -> Tensor:
        """Map features (B, C, T', H', W') to evidence (B, K, T', H', W'), which sums to the logits less the biases."""
        ...


def windowed_evidence(cells: Tensor, window: tuple[int, int, int] | None) -> tuple[Tensor, int]:
    """Turn the class activation map of a head that pools all cells into that of a head with a sliding window.

    Each position of the window (stride 1) gives a logit; a cell counts at the positions that cover it.

    Args:
        cells: Map (T', H', W') whose sum plus the class's bias is the logit of the mean of all cells.
        window: Size (T, H, W) of the window in cells; None is one window over all.

    Returns:
        Map (T', H', W') whose sum plus the bias is the mean of the logits; and the number of positions of the window.
    """
    if window is None:
        return cells, 1
    num_positions, weighted = 1, cells
    for axis, (have, need) in enumerate(zip(cells.shape, window, strict=True)):
        positions = have - need + 1
        index = torch.arange(have, device=cells.device)
        # Positions that begin from index - need + 1 to index, and from 0 to positions - 1.
        covering = index.clamp(max=positions - 1) - (index - need + 1).clamp(min=0) + 1
        shape = [1, 1, 1]
        shape[axis] = have
        weighted = weighted * (covering * have / (positions * need)).to(cells.dtype).reshape(shape)
        num_positions *= positions
    return weighted, num_positions


def grad_cam(network: nn.Module, clip: Tensor, layer: str, class_index: int) -> Tensor:
    """Compute Grad-CAM (Selvaraju et al., ICCV 2017, eq. 1 and 2) of one class at one layer.

    Args:
        network: A network in eval mode.
        clip: Input (1, 3, T, H, W).
        layer: Dotted name of a module whose output is (1, C, T', H', W'), or tokens of which the network says where
            they lie (`models.token_layout`).
        class_index: Index of the class.

    Returns:
        Map (T', H', W') on the layer's own grid: the ReLU of the features weighted by their mean gradients.
    """
    kept: list[Tensor] = []

    def start(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        # Gradients start here, so that nothing before the layer is kept for them.
        kept.append(first_tensor(output).detach().requires_grad_(True))
        begun = kept[-1].clone()  # the next module may be an in-place ReLU
        return (begun, *output[1:]) if isinstance(output, tuple) else begun

    parameters = list(network.parameters())
    needed = [parameter.requires_grad for parameter in parameters]
    network.requires_grad_(False)
    handle = network.get_submodule(layer).register_forward_hook(start)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            logits = network(clip.clone())
            (gradient,) = torch.autograd.grad(logits[0, class_index], kept[-1])
    finally:
        handle.remove()
        for parameter, grad in zip(parameters, needed, strict=True):
            parameter.requires_grad_(grad)
    features = kept[-1].detach()
    if (layout := layout_of(network, layer)) is not None:
        features, gradient = layout.as_map(features), layout.as_map(gradient)
    features, gradient = features[0], gradient[0]  # (C, T', H', W')
    weights = gradient.mean(dim=(1, 2, 3))  # (C,)
    return torch.einsum("c,cthw->thw", weights, features).relu()
