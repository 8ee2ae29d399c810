"""Names of our 3D ResNet's tensors in other projects.

Each of our names has one of theirs, so that a file can be read and written by the same rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from nonlocal_video.models.resnet3d import ResNet3DConfig

COUNTER = "num_batches_tracked"
"""Batch norm's counter of training steps, which no forward pass uses and some files lack."""

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
    """A convolution, batch norm or linear layer of `Video3DResNet`, parsed from its state-dict name."""

    kind: Literal["stem", "conv", "shortcut", "nonlocal", "classifier"]
    """Kind of layer."""
    part: str = ""
    """Part of the layer: conv or bn; in a non-local block theta, phi, g, W or bn."""
    stage: int = 0
    """Stage, 1 to 4."""
    block: int = 0
    """Index of the residual block within the stage; for a non-local block, of the one that it follows."""
    number: int = 0
    """Number of the convolution within its residual block, from 1."""
    half: int | None = None
    """Half of a (2+1)D convolution: 0 along space, 1 along time."""

    @property
    def letter(self) -> str:
        """Number as a letter, a, b or c, as PySlowFast, Caffe2 and PyTorchVideo write it."""
        return "abc"[self.number - 1]


def parse(name: str) -> tuple[Layer, str]:
    """Parse a name in `Video3DResNet`'s state dict into its layer and its tensor, such as "weight".

    Raises:
        ValueError: If it is not such a name.
    """
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
    """Names of one project for the tensors of a 3D ResNet."""

    title: str
    """Name of the project, for messages."""
    layer_name: Callable[[Layer, ResNet3DConfig], str]
    """Function from our layer to their name of it."""
    tensor_name: Callable[[str, Layer, str], str | None] = _dotted
    """Function from (their layer name, our layer, our tensor) to their tensor's name; None if they have none."""

    def names(self, ours: Iterable[str], config: ResNet3DConfig) -> dict[str, str]:
        """Map our state-dict names to theirs, without tensors that they do not have."""
        names = {}
        for name in ours:
            layer, tensor = parse(name)
            theirs = self.tensor_name(self.layer_name(layer, config), layer, tensor)
            if theirs is not None:
                names[name] = theirs
        return names
