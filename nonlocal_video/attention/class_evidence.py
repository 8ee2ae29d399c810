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
