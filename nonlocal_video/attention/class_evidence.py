"""Which places speak for a class: the exact class activation map where the head is linear, else Grad-CAM."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class LinearHead(Protocol):
    """A network whose logits are a linear function of its last feature map."""

    @property
    def feature_layer(self) -> str:
        """Dotted name of the module whose output feeds the head."""
        ...

    def class_activation_map(self, features: Tensor, class_indices: Tensor) -> Tensor:
        """(B, C, T', H', W') -> (B, K, T', H', W'); the sum over cells plus the class's bias is its logit."""
        ...


def evidence_of_windows(cells: Tensor, window: tuple[int, int, int] | None) -> tuple[Tensor, int]:
    """Turn the class activation map of a head that pools all cells into that of one that slides a window over them.

    Each place of the window (stride 1) gives a logit; a cell counts in those places that cover it.

    Args:
        cells: (T', H', W'), whose sum plus the class's bias is the logit of the mean of all cells.
        window: (T, H, W) cells; None is one window over all.

    Returns:
        (T', H', W'), whose sum plus the bias is the mean of the places' logits; and the number of places.
    """
    if window is None:
        return cells, 1
    num_places, weighted = 1, cells
    for axis, (have, need) in enumerate(zip(cells.shape, window, strict=True)):
        places = have - need + 1
        index = torch.arange(have, device=cells.device)
        # Places that begin from index - need + 1 to index, and from 0 to places - 1.
        covering = index.clamp(max=places - 1) - (index - need + 1).clamp(min=0) + 1
        shape = [1, 1, 1]
        shape[axis] = have
        weighted = weighted * (covering * have / (places * need)).to(cells.dtype).reshape(shape)
        num_places *= places
    return weighted, num_places


def grad_cam(network: nn.Module, clip: Tensor, layer: str, class_index: int) -> Tensor:
    """Grad-CAM (Selvaraju et al., ICCV 2017) of one class at one layer, by the grad-cam library.

    Args:
        network: In eval mode.
        clip: (1, 3, T, H, W).
        layer: Dotted name of a module with a (1, C, T', H', W') output.
        class_index: The class.

    Returns:
        (T', H', W'): the ReLU of the features weighted by their mean gradients, on the layer's own grid.
    """
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    parameters = list(network.parameters())
    needed = [parameter.requires_grad for parameter in parameters]
    network.requires_grad_(False)
    # Gradients start at the layer, so that nothing before it has to be kept for them.
    start = network.get_submodule(layer).register_forward_hook(lambda _m, _i, out: out.detach().requires_grad_(True))
    try:
        with torch.inference_mode(False), torch.enable_grad():
            targets = [ClassifierOutputTarget(class_index)]
            with GradCAM(model=network, target_layers=[network.get_submodule(layer)]) as cam:
                scores = cam.activations_and_grads(clip.clone())
                targets[0](scores[0]).backward()
                kept = cam.activations_and_grads
                # The library's own scaling to the input takes cells as evenly divided; where they really lie is
                # the business of `geometry`, so only its weighting of the channels is used.
                weighted = cam.get_cam_image(
                    clip, cam.target_layers[0], targets, kept.activations[0].numpy(), kept.gradients[0].numpy()
                )
    finally:
        start.remove()
        for parameter, grad in zip(parameters, needed, strict=True):
            parameter.requires_grad_(grad)
    return torch.from_numpy(weighted[0]).relu()
