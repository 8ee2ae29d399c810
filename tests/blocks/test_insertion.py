"""Blocks put into networks of others, and taken out again."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from importlib import import_module

import pytest
import torch
import torchvision
from torch import Tensor, nn

from nonlocal_video.blocks import (
    NonLocalBlock,
    NonLocalConfig,
    VideoNonLocalBlock,
    insert_nonlocal,
    remove_nonlocal,
    sparse_attention,
)
from nonlocal_video.errors import UsageError
from nonlocal_video.models.folding import fold_batch_norms


class Attributes(nn.Module):
    """A network of attribute children, as timm's are: 2D, and with modules that no block can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.act = nn.ReLU(inplace=True)  # runs twice
        self.pair = Pair()
        self.unused = nn.Conv2d(6, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.stem(x)))
        one, other = self.pair(x)
        return self.head(self.act(one + other).mean((2, 3)))


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def sequential() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(3, 4, 1), nn.Sequential(nn.Conv3d(4, 8, 1), nn.ReLU(inplace=True)), nn.Conv3d(8, 2, 1)
    )


NETWORKS: tuple[tuple[str, Callable[[], nn.Module], list[str], tuple[int, ...], list[int]], ...] = (
    ("attributes", Attributes, ["stem", "norm"], (2, 3, 8, 8), [6, 6]),
    ("sequential", sequential, ["0", "1", "1.0"], (1, 3, 4, 6, 6), [4, 8, 8]),
    ("resnet18", torchvision.models.resnet18, ["layer2", "layer3.1"], (1, 3, 64, 64), [128, 256]),
    ("mobilenet_v2", torchvision.models.mobilenet_v2, ["features.5", "features.18"], (1, 3, 64, 64), [32, 1280]),
    ("r3d_18", torchvision.models.video.r3d_18, ["layer2.1", "layer3"], (1, 3, 8, 32, 32), [128, 256]),
)
EVERY_NETWORK = pytest.mark.parametrize(
    ("make", "at", "shape", "channels"), [row[1:] for row in NETWORKS], ids=[row[0] for row in NETWORKS]
)


def trained(blocks: dict[str, NonLocalBlock]) -> None:
    for block in blocks.values():
        nn.init.normal_(block.W.weight)
        nn.init.normal_(block.bn.weight)


@EVERY_NETWORK
def test_identity_until_trained_and_gone_when_removed(
    make: Callable[[], nn.Module], at: list[str], shape: tuple[int, ...], channels: list[int]
) -> None:
    torch.manual_seed(0)
    network, x = make().eval(), torch.randn(shape)
    expected, state = network(x), copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]

    blocks = insert_nonlocal(network, at)
    assert list(blocks) == at
    assert [block.in_channels for block in blocks.values()] == channels
    assert {type(block) for block in blocks.values()} == {VideoNonLocalBlock if len(shape) == 5 else NonLocalBlock}
    assert torch.equal(network(x), expected)
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in state.items())
    network.load_state_dict(state, strict=False)
    trained(blocks)
    assert not torch.equal(network(x), expected)

    assert list(remove_nonlocal(network)) == [name for name, _ in network.named_modules() if name in at]
    assert torch.equal(network(x), expected)
    assert list(network.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
    assert [module.training for module in network.modules()] == modes
    assert remove_nonlocal(network) == {}


@EVERY_NETWORK
@pytest.mark.slow
def test_copies_files_and_folded_networks_have_the_blocks(
    make: Callable[[], nn.Module], at: list[str], shape: tuple[int, ...], channels: list[int]
) -> None:
    torch.manual_seed(0)
    network, x = make().eval(), torch.randn(shape)
    blocks = insert_nonlocal(network, at)
    unchanged = fold_batch_norms(network)(x)
    torch.testing.assert_close(unchanged, network(x), atol=1e-5, rtol=1e-4)
    trained(blocks)
    expected = network(x)

    other = make().eval()
    insert_nonlocal(other, at)
    other.load_state_dict(network.state_dict())
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    clone = copy.deepcopy(network)
    for same in (other, clone, torch.load(file, weights_only=False)):
        assert torch.equal(same(x), expected)
    torch.testing.assert_close(fold_batch_norms(network)(x), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(copy.deepcopy(network).double()(x.double()).float(), expected, atol=1e-4, rtol=1e-3)

    remove_nonlocal(network)
    assert torch.equal(clone(x), expected)  # a copy keeps its own


def test_blocks_learn() -> None:
    torch.manual_seed(0)
    network = Attributes()
    blocks = insert_nonlocal(network, ["norm"])
    network(torch.randn(2, 3, 8, 8)).sum().backward()
    assert blocks["norm"].bn.weight.grad.abs().max() > 0


def test_blocks_take_the_modules_type_and_mode() -> None:
    network = Attributes().double()
    network.pair.eval()
    assert insert_nonlocal(network, ["stem"])["stem"].g.weight.dtype == torch.float64
    assert network.stem.nonlocal_block.training
    network = Attributes().eval()
    assert not insert_nonlocal(network, ["stem"])["stem"].training


def test_config() -> None:
    config = NonLocalConfig(2, "dot_product", sub_sample=False, pool_order="pool_conv", bn_layer=False)
    for network, name in ((Attributes(), "stem"), (sequential(), "0")):
        block = insert_nonlocal(network, [name], config=config)[name]
        assert block.config == config


def test_blocks_of_ones_own() -> None:
    """There is no run where it cannot tell, and for settings that differ."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(5, 5)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.embed(x + y).transpose(1, 2)

    network = nn.Sequential(Tokens())
    block = sparse_attention(NonLocalBlock(5, dimension=1), top_k=2)
    assert insert_nonlocal(network[0], {"embed": block}) == {"embed": block}
    assert network[0].embed.nonlocal_block is block


def test_example_input() -> None:
    class TwoInputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.conv(x + y)

    x = torch.randn(1, 3, 4, 4)
    with pytest.raises(
        UsageError, match=r"find the output shape of 'conv' failed with TypeError: .* Pass example_input"
    ):
        insert_nonlocal(TwoInputs(), ["conv"])
    assert insert_nonlocal(TwoInputs(), ["conv"], example_input=(x, x))["conv"].in_channels == 4
    assert insert_nonlocal(nn.Sequential(nn.PixelUnshuffle(2)), ["0"], example_input=x)["0"].in_channels == 12


def test_pytorchvideo() -> None:
    resnet = import_module("pytorchvideo.models.resnet")
    network = resnet.create_resnet(model_num_class=5).eval()
    blocks = insert_nonlocal(network, ["blocks.2", "blocks.3.res_blocks.1"])
    assert {name: block.in_channels for name, block in blocks.items()} == {
        "blocks.2": 512,
        "blocks.3.res_blocks.1": 1024,
    }


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (["stm"], r"Attributes has no module 'stm'; did you mean stem"),
        (["qqq"], r"Attributes has no module 'qqq'; network.named_modules\(\) lists its names"),
        ([""], "has no module ''"),
        ("stem", r"at = 'stem' should be a list of names: at=\['stem'\]"),
        (["stem", "stem"], "names a module more than once"),
        (["act"], "'act' ran 2 times in one run"),
        (["unused"], "'unused' ran 0 times in one run"),
        (["pair"], "The output of 'pair' is not a tensor"),
        (["head"], r"The output of 'head' has the shape \(2, 4\); a block takes feature maps"),
    ],
)
def test_errors_leave_the_network_alone(at: list[str], message: str) -> None:
    network = Attributes()
    with pytest.raises(UsageError, match=message):
        insert_nonlocal(network, ["norm", *at] if isinstance(at, list) else at)
    assert list(network.state_dict()) == list(Attributes().state_dict())
    assert not any(module._forward_hooks for module in network.modules())
    assert all(module.training for module in network.modules())


def test_inserting_twice() -> None:
    network = Attributes()
    insert_nonlocal(network, ["stem"])
    with pytest.raises(UsageError, match="'stem' already has a non-local block"):
        insert_nonlocal(network, ["stem"])


def test_a_network_without_convolutions_needs_an_example() -> None:
    with pytest.raises(UsageError, match="no convolution to guess an input from"):
        insert_nonlocal(nn.Sequential(nn.Linear(2, 2)), ["0"])
