"""How another project names the tensors of our 3D ResNet: each of our names has one of theirs, so a file can be read
and written by the same rule."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from nonlocal_video.models.resnet3d import ResNet3DConfig

COUNTER = "num_batches_tracked"
"""Batch norm's counter of training steps: no forward pass reads it, and not every file has it."""

_OUR_NAME = re.compile(
    r"""(?:
        stem (?:\.(?P<stem_half>[01]))? \. (?P<stem_part>conv|bn)
      | layer(?P<stage>[1-4]) \. (?:
            (?P<block>\d+) \. (?: conv(?P<number>[1-3]) (?:\.(?P<half>[01]))? | shortcut ) \. (?P<part>conv|bn)
          | nonlocal(?P<after>\d+) \. (?P<nonlocal_part>theta|phi|g|W|bn)
        )
      | fc
    ) \. (?P<tensor>\w+)""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Layer:
    """A convolution, batch norm or linear layer of `Video3DResNet`, as its state dict names it."""

    kind: Literal["stem", "conv", "shortcut", "nonlocal", "classifier"]
    part: str = ""
    """conv or bn; in a non-local block theta, phi, g, W or bn."""
    stage: int = 0
    """1 to 4."""
    block: int = 0
    """Residual block within the stage, from 0; of a non-local block, the one that it follows."""
    number: int = 0
    """Number of the convolution within its residual block, from 1."""
    half: int | None = None
    """0 and 1 are the convolutions along space and along time that make a (2+1)D convolution."""

    @property
    def letter(self) -> str:
        """a, b or c: the number as PySlowFast, Caffe2 and PyTorchVideo write it."""
        return "abc"[self.number - 1]


def parse(name: str) -> tuple[Layer, str]:
    """The layer and the tensor, "weight" or the like, that a name in `Video3DResNet`'s state dict stands for."""
    found = _OUR_NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"{name!r} is not a tensor of a Video3DResNet.")
    tensor, stage = found["tensor"], int(found["stage"] or 0)
    if found["stem_part"]:
        return Layer("stem", found["stem_part"], half=_half(found["stem_half"])), tensor
    if found["number"]:
        half = _half(found["half"])
        return Layer("conv", found["part"], stage, int(found["block"]), int(found["number"]), half), tensor
    if found["part"]:
        return Layer("shortcut", found["part"], stage, int(found["block"])), tensor
    if found["nonlocal_part"]:
        return Layer("nonlocal", found["nonlocal_part"], stage, int(found["after"])), tensor
    return Layer("classifier"), tensor


def _half(text: str | None) -> int | None:
    return None if text is None else int(text)


def _dotted(layer_name: str, layer: Layer, tensor: str) -> str:
    return f"{layer_name}.{tensor}"


@dataclass(frozen=True)
class Layout:
    """One project's names for the tensors of a 3D ResNet."""

    title: str
    """The project, for messages."""
    layer_name: Callable[[Layer, ResNet3DConfig], str]
    """Our layer -> their name of it."""
    tensor_name: Callable[[str, Layer, str], str | None] = _dotted
    """(their layer name, our layer, our tensor) -> their tensor's name, or None if they keep no such tensor."""

    def names(self, ours: Iterable[str], config: ResNet3DConfig) -> dict[str, str]:
        """Our state-dict names -> theirs; what they do not keep is left out."""
        names = {}
        for name in ours:
            layer, tensor = parse(name)
            theirs = self.tensor_name(self.layer_name(layer, config), layer, tensor)
            if theirs is not None:
                names[name] = theirs
        return names
