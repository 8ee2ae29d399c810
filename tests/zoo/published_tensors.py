"""The tensors of published checkpoints by name and shape, and random files of that kind.

`data/published_tensors.txt.gz` lists them as the projects' own code gives them: SlowFast 287ec007, mmaction2 4d6c9347
with mmcv 2.2.0, Tushar-N's pytorch-resnet3d, pytorchvideo f3142bb0, torchvision 0.29.1, 3D-ResNets-PyTorch 540a0ea1;
`.caffe2_blobs` are the pickles' blobs. A line is a name and a shape, "-" for a scalar.
"""

from __future__ import annotations

import gzip
import math
import pickle
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

_LIST = Path(__file__).parent / "data" / "published_tensors.txt.gz"
_VARIANCES = ("running_var", "_riv")
_MEANS = ("running_mean", "_rm")


@lru_cache
def published_tensors() -> dict[str, dict[str, tuple[int, ...]]]:
    """File -> tensor's name -> shape."""
    files: dict[str, dict[str, tuple[int, ...]]] = {}
    for line in gzip.decompress(_LIST.read_bytes()).decode().splitlines():
        name, shape = line.split(" ")
        if name == "#":
            files[shape] = {}
        else:
            files[list(files)[-1]][name] = () if shape == "-" else tuple(map(int, shape.split("x")))
    return files


THIN = 8
"""Random networks have an eighth of the published channels: what they compute is the same, only sooner."""


def random_state(file: str) -> dict[str, Tensor]:
    """Random weights under a published file's names, thin, such that every layer, the non-local blocks too, matters."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, published in published_tensors()[file].items():
        shape = [size // THIN if size % 64 == 0 else size for size in published]
        normal = torch.randn(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith(_VARIANCES):
            small = 0.05 if "nonlocal" in name or "non_local" in name else 1.0  # so that eps matters
            state[name] = small * (0.5 + torch.rand(shape, generator=generator))
        elif len(shape) > 1:
            affinity = "theta" in name or "phi" in name
            # Definite attention; but dot products grow with the third power of their input, block after block.
            size = (0.05 if "dot" in file else 2.0) if affinity else 1.0
            state[name] = size * normal * math.prod(shape[1:]) ** -0.5
        elif _is_gain(name):
            state[name] = 0.5 + torch.rand(shape, generator=generator)
        else:  # means and biases; momentum and counters, too, which nothing reads
            state[name] = normal * 0.1
    return state


def _is_gain(name: str) -> bool:
    return name.endswith("_s") or (name.endswith(".weight") and not name.startswith(("head.", "cls_head.", "fc.")))


def affine(blobs: dict[str, Tensor], *, blocks: bool = False) -> dict[str, Tensor]:
    """The same as an affine model of video-nonlocal-net, whose non-local blocks have no affine layer (or do)."""
    kept = {name: blob for name, blob in blobs.items() if not name.endswith((*_VARIANCES, *_MEANS))}
    return (
        kept if blocks else {name: blob for name, blob in kept.items() if not ("nonlocal" in name and "_bn_" in name)}
    )


def save_caffe2(path: Path, blobs: dict[str, Tensor]) -> Path:
    """Writes the blobs as Caffe2's pickles hold them."""
    arrays = {name: blob.numpy() for name, blob in blobs.items()}
    path.write_bytes(pickle.dumps({"blobs": arrays}, protocol=2))
    return path
