"""The names under which tutorials on non-local networks reach into a 3D residual network: views of what is there.

The modules' own names, and with them the keys of state dicts, are those of `nonlocal_video.models.resnet3d`.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from nonlocal_video.blocks import NonLocalMode, VideoNonLocalBlock

if TYPE_CHECKING:
    from nonlocal_video.models.resnet3d import Video3DResNet


class TutorialNames:
    """`Video3DResNet` by the tutorial's attributes."""

    @property
    def num_classes(self) -> int:
        """Length of the logits."""
        return _network(self).config.num_classes

    @property
    def nonlocal_stages(self) -> list[int]:
        """Stages, 1 to 4, that have a non-local block."""
        return sorted({int(place[len("layer")]) for place in _network(self).config.nonlocal_blocks})

    @property
    def nonlocal_mode(self) -> NonLocalMode | None:
        """Mode of the non-local blocks; None without blocks, or if they have several modes."""
        modes = {config.mode for config in _network(self).config.nonlocal_blocks.values()}
        return modes.pop() if len(modes) == 1 else None

    @property
    def nonlocal_blocks(self) -> StageBlocks:
        """The block at the end of each stage, by names such as "stage3"; a block that is put there runs."""
        return StageBlocks(_network(self))

    @property
    def conv1(self) -> nn.Module:
        """The stem's (first) convolution."""
        return _first_unit(_network(self).stem).get_submodule("conv")

    @property
    def bn1(self) -> nn.Module:
        """The stem's (last) batch norm."""
        return _last_unit(_network(self).stem).get_submodule("bn")

    @property
    def relu(self) -> nn.Module:
        """The stem's activation."""
        return _last_unit(_network(self).stem).get_submodule("relu")

    @property
    def maxpool(self) -> nn.Module:
        """The pooling after the stem, or an `nn.Identity`."""
        return _network(self).stem_pool

    @property
    def avgpool(self) -> nn.AdaptiveAvgPool3d:
        """Apply the layers of `head` before the classifier, (B, C, T, H, W) -> (B, C, 1, 1, 1)."""
        return nn.AdaptiveAvgPool3d(1)


class StageBlocks(MutableMapping[str, nn.Module]):
    """The non-local blocks of a network by stage, "stage1" to "stage4": of several in one stage, the last.

    `network.nonlocal_layers()` has all of them. A block that is put in takes the place of the one that was there, or
    follows the stage where there was none, and `network.config` describes it.
    """

    def __init__(self, network: Video3DResNet) -> None:
        self._network = network

    def __getitem__(self, stage: str) -> nn.Module:
        return self._layer(stage).get_submodule(self._name(stage))

    def __setitem__(self, stage: str, block: nn.Module) -> None:
        if not isinstance(block, VideoNonLocalBlock):
            raise TypeError(
                f"The block of {stage!r} should be a VideoNonLocalBlock, not a {type(block).__name__}; "
                "`nonlocal_video.insert_nonlocal` puts other blocks into a network."
            )
        layer = self._layer(stage)
        name = self._name(stage) if stage in self else f"nonlocal{self._last_residual(stage)}"
        layer.add_module(name, block)
        places = self._network.config.nonlocal_blocks
        self._describe({**places, _place(stage, name): block.config})

    def __delitem__(self, stage: str) -> None:
        name = self._name(stage)
        delattr(self._layer(stage), name)
        places = dict(self._network.config.nonlocal_blocks)
        del places[_place(stage, name)]
        self._describe(places)

    def __iter__(self) -> Iterator[str]:
        return iter([f"stage{stage}" for stage in self._network.nonlocal_stages])

    def __len__(self) -> int:
        return len(self._network.nonlocal_stages)

    def _layer(self, stage: str) -> nn.Sequential:
        if stage not in ("stage1", "stage2", "stage3", "stage4"):
            raise KeyError(f"{stage!r} should be one of 'stage1' to 'stage4'.")
        return cast(nn.Sequential, getattr(self._network, f"layer{stage[-1]}"))

    def _name(self, stage: str) -> str:
        """The last block's name in its stage."""
        names = [name for name, _ in self._layer(stage).named_children() if name.startswith("nonlocal")]
        if not names:
            raise KeyError(f"{stage!r} has no non-local block; {', '.join(self) or 'no stage'} has.")
        return names[-1]

    def _last_residual(self, stage: str) -> int:
        return self._network.config.blocks_per_stage[int(stage[-1]) - 1] - 1

    def _describe(self, places: dict[str, Any]) -> None:
        self._network.config = replace(self._network.config, nonlocal_blocks=places)


class BasicBlockNames:
    """`Basic3DBlock` by the tutorial's attributes; `conv1` and `conv2` are convolutions with their norms inside."""

    @property
    def bn1(self) -> nn.Module:
        """The batch norm after the first convolution."""
        return _last_unit(_child(self, "conv1")).get_submodule("bn")

    @property
    def bn2(self) -> nn.Module:
        """The batch norm after the second convolution."""
        return _last_unit(_child(self, "conv2")).get_submodule("bn")

    @property
    def downsample(self) -> nn.Module | None:
        """The 1x1x1 convolution of the shortcut; None where the input itself is added."""
        shortcut = _child(self, "shortcut")
        return None if isinstance(shortcut, nn.Identity) else shortcut


def _network(names: TutorialNames) -> Video3DResNet:
    return cast("Video3DResNet", names)


def _child(block: BasicBlockNames, name: str) -> nn.Module:
    return cast(nn.Module, block).get_submodule(name)


def _place(stage: str, name: str) -> str:
    """Stage and block name -> the residual block that the block follows: "stage3", "nonlocal5" -> "layer3.5"."""
    return f"layer{stage[-1]}.{name.removeprefix('nonlocal')}"


def _first_unit(module: nn.Module) -> nn.Module:
    """Return the first half of a (2+1)D convolution, or else the module itself."""
    return module[0] if isinstance(module, nn.Sequential) else module


def _last_unit(module: nn.Module) -> nn.Module:
    return module[-1] if isinstance(module, nn.Sequential) else module
