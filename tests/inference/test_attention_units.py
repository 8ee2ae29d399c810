"""The units of attention maps: multiples of an equal share, or of the mean where a kernel has no softmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nonlocal_video as nlv
from nonlocal_video.attention.maps import AttentionMaps, QueryPoint
from nonlocal_video.blocks.config import NonLocalConfig, NonLocalType
from nonlocal_video.models.card import InputSpec, ModelCard
from nonlocal_video.models.inception3d import InceptionI3D, InceptionI3DConfig

SPEC = InputSpec(num_frames=16, frames_per_second=10, short_side=64, crop=64, mean=(0, 0, 0), std=(1, 1, 1))
POINT = QueryPoint(0.3, 0.7, 0.4)


def maps_of(kernel: NonLocalType, *, sign: float = 1.0) -> tuple[list[AttentionMaps], list[np.ndarray]]:
    """Attention received and a point's attention, and the weights that the block itself gives."""
    torch.manual_seed(0)
    config = NonLocalConfig(8, kernel, sub_sample=False, bn_layer=False, embed_bias=False)
    network = InceptionI3D(InceptionI3DConfig(num_classes=3, nonlocal_blocks={"Mixed_4f": config})).eval()
    block = network.nonlocal_layers()["nonlocal_Mixed_4f"]
    with torch.no_grad():
        block.phi.weight.copy_(sign * block.theta.weight)  # the sum over keys and queries is then a square's
    card = ModelCard(name="random", architecture="none", config={}, input=SPEC, labels=("a", "b", "c"))
    frames = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), np.uint8)
    with nlv.Recognizer(network, card, device="cpu") as recognizer, torch.inference_mode():
        explanation = recognizer.explain_all(frames, frames_per_second=10)
        found = [explanation.attention_received(), explanation.query(POINT)]
        (features,) = explanation.block_inputs.values()
        _, weights = block(features, return_nl_map=True)
    grid = found[0].grid
    size = grid.size
    place = (found[1].query_index, POINT.y * 64 - 0.5, POINT.x * 64 - 0.5)
    cell = int(np.ravel_multi_index([grid.nearest(axis, value) for axis, value in enumerate(place)], size))
    return found, [weights[0].mean(0).view(size).numpy(), weights[0, cell].view(size).numpy()]


def test_a_softmax_gives_multiples_of_an_equal_share() -> None:
    found, weights = maps_of("embedded_gaussian")
    for maps, own in zip(found, weights, strict=True):
        np.testing.assert_allclose(maps.cells, own * own.size, rtol=1e-4)
        assert maps.quantity.endswith(", 1 = equal share")
        assert maps.entropy_nats is not None


def test_a_dot_product_gives_multiples_of_the_mean() -> None:
    (received, query), (of_all, of_point) = maps_of("dot_product")
    assert of_all.sum() != pytest.approx(1, abs=0.1)  # what a softmax would give
    np.testing.assert_allclose(received.cells, of_all / of_all.mean(), rtol=1e-3, atol=1e-4)
    assert received.quantity == "attention received, 1 = mean of all places"
    # What every point attends to is taken away, so that the map is the point's own.
    expected = of_point / of_point.mean() - of_all / of_all.mean()
    np.testing.assert_allclose(query.cells, expected, rtol=1e-3, atol=1e-4)
    assert query.quantity == "attention of the marked point less that of all points, 1 = mean of all places"
    assert query.value_range()[0] >= 0


def test_weights_without_a_positive_sum_stay_as_the_kernel_gives_them() -> None:
    (received, _), (own, _) = maps_of("dot_product", sign=-1.0)
    assert own.sum() < 0
    np.testing.assert_allclose(received.cells, own * own.size, rtol=1e-3, atol=1e-9)
    assert received.quantity == "attention received, as dot product gives it"
    assert received.entropy_nats is None


def test_evidence_is_what_a_trained_block_before_the_head_gives() -> None:
    """The block's input and output are both kept: attention is of the one, class evidence of the other."""
    torch.manual_seed(1)
    config = NonLocalConfig(8, "dot_product", sub_sample=False, bn_layer=False)
    network = InceptionI3D(InceptionI3DConfig(num_classes=3, nonlocal_blocks={"Mixed_5c": config})).eval()
    block = network.nonlocal_layers()["nonlocal_Mixed_5c"]
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn_like(parameter))
    card = ModelCard(name="random", architecture="none", config={}, input=SPEC, labels=("a", "b", "c"))
    frames = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), np.uint8)
    with nlv.Recognizer(network, card, device="cpu") as recognizer, torch.inference_mode():
        explanation = recognizer.explain_all(frames, frames_per_second=10)
        logits = explanation.prediction.logits
        assert explanation.features is not None
        assert not torch.allclose(explanation.features, explanation.block_inputs["nonlocal_Mixed_5c"])
        sums = [float(explanation.class_evidence(index).cells.sum()) for index in range(3)]
        np.testing.assert_allclose(np.add(sums, network.logits.bias.numpy()), logits, rtol=1e-3, atol=1e-4)
