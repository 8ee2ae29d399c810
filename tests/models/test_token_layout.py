"""Layout of tokens, for a network of a user's own that states it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import nonlocal_video as nlv
from nonlocal_video.errors import ModelError
from nonlocal_video.models.token_layout import TokenLayout

LAYOUT = TokenLayout(size=(2, 3, 4), patch=(2, 8, 8), num_before=1)


@pytest.mark.parametrize("time_last", [False, True])
def test_a_token_is_put_where_it_lies(time_last: bool) -> None:
    layout = TokenLayout((2, 3, 4), (2, 8, 8), num_before=2, time_last=time_last)
    tokens = torch.full((1, 2 + 24, 1), -1.0)
    for time in range(2):
        for row in range(3):
            for column in range(4):
                position = (row * 4 + column) * 2 + time if time_last else (time * 3 + row) * 4 + column
                tokens[0, 2 + position] = 100 * time + 10 * row + column
    expected = [[[[100 * t + 10 * y + x for x in range(4)] for y in range(3)] for t in range(2)]]
    assert layout.as_map(tokens).tolist() == [expected]
    assert torch.equal(layout.as_map(layout.as_map(tokens)), layout.as_map(tokens))
    assert layout.offset == (0.5, 3.5, 3.5)


def test_another_number_of_tokens_is_refused() -> None:
    with pytest.raises(ModelError, match=r"token for each of the \(2, 3, 4\) patches"):
        LAYOUT.as_map(torch.zeros(1, 24, 8))
    with pytest.raises(ValueError, match="above 0"):
        TokenLayout((0, 3, 4), (2, 8, 8))


class Patches(nn.Module):
    """A user's own network of tokens: brightness of patches, and a class token that counts nothing."""

    feature_layer = "norm"

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv3d(3, 2, (2, 8, 8), stride=(2, 8, 8), bias=False)
        self.embed.weight.data.fill_(1 / 384)
        self.embed.weight.data[1] *= -1
        self.norm = nn.Identity()

    def forward(self, clips: Tensor) -> Tensor:
        tokens = self.embed(clips).flatten(2).transpose(1, 2)
        tokens = self.norm(torch.cat([torch.zeros_like(tokens[:, :1]), tokens], dim=1))
        return self.head(tokens)

    def pool_features(self, tokens: Tensor) -> Tensor:
        return tokens[:, 1:].mean(dim=1)

    def head(self, tokens: Tensor) -> Tensor:
        return self.pool_features(tokens)

    def token_layout(self, layer: str) -> TokenLayout | None:
        return None if layer == "embed" else TokenLayout((2, 4, 4), (2, 8, 8), num_before=1)


def test_a_network_that_says_where_its_tokens_lie_is_explained() -> None:
    spec = nlv.InputSpec(num_frames=4, frames_per_second=4, short_side=32, crop=32, mean=(0, 0, 0), std=(1, 1, 1))
    card = nlv.ModelCard("patches", architecture="", config={}, input=spec, labels=("light", "dark"))
    frames = np.zeros((4, 32, 32, 3), np.uint8)
    frames[2:, 16:24, 8:16] = 255
    with nlv.Recognizer(Patches().eval(), card, device="cpu") as recognizer:
        maps = recognizer.explain(frames, label="light", frames_per_second=4)
        by_map = recognizer.explain(frames, label="light", layer="embed", frames_per_second=4)
        prediction = recognizer.classify(frames, frames_per_second=4)
    assert np.unravel_index(maps.cells.argmax(), maps.cells.shape) == (1, 2, 1)
    assert (maps.cells > 0).sum() == 1
    np.testing.assert_allclose(maps.cells, by_map.cells, atol=1e-6)  # a convolution, followed through the network
    assert maps.grid == by_map.grid
    assert prediction.features == pytest.approx([1 / 32, -1 / 32], abs=1e-5)
