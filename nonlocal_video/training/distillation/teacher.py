"""The teacher and its outputs: computed, or read from a disk cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import Tensor, nn

from nonlocal_video.errors import ModelError, OutputError, UsageError
from nonlocal_video.io import sha256_of
from nonlocal_video.models.card import InputSpec
from nonlocal_video.models.checkpoint import load_checkpoint
from nonlocal_video.models.folding import fold_batch_norms
from nonlocal_video.models.inception3d import InceptionI3D
from nonlocal_video.models.resnet3d import Video3DResNet
from nonlocal_video.training.disk_cache import GIBIBYTE, DiskCache
from nonlocal_video.training.distillation.alignment import derive_view
from nonlocal_video.training.objective import Batch
from nonlocal_video.zoo.catalogue import find

POOLED = "dropout"
"""Name of the module whose input is the pooled features, in all our networks."""
FILE_BYTES = 1024
"""Upper bound for the overhead of an output's file, with a few layers."""


class LayerOnGrid(NamedTuple):
    """A layer and the grid on which its features are compared."""

    layer: str
    """Dotted module name."""
    grid: tuple[int, int, int]
    """Grid (T', H', W') to resample the features to, see `to_grid`."""


class Answers(NamedTuple):
    """Outputs of a network for N clips."""

    logits: Tensor
    """Logits, (N, classes)."""
    embedding: Tensor
    """Pooled features, (N, C), averaged over time. The classifier is linear, so it maps them to `logits`."""
    features: tuple[Tensor, ...]
    """Features of the requested layers, each (N, C, T', H', W')."""


class Teacher:
    """A frozen network. Not an `nn.Module`, so that optimizers, DDP and `state_dict` do not find it.

    It pools its whole feature map, as networks do in training, even if its card asks for windows.

    Attributes:
        network: Copy of the network with folded batch norms.
        spec: Input of the network.
        labels: Classes, in the order of the outputs.
        digest: Unique identifier of the teacher's weights.
    """

    def __init__(
        self, network: Video3DResNet | InceptionI3D, spec: InputSpec, labels: Sequence[str], *, digest: str
    ) -> None:
        folded = fold_batch_norms(network.eval()).requires_grad_(False)
        assert isinstance(folded, (Video3DResNet, InceptionI3D))
        self.network = folded.to(memory_format=torch.channels_last_3d)
        self.spec, self.labels, self.digest = spec, tuple(labels), digest

    def __deepcopy__(self, _memo: object) -> Teacher:
        """Return itself: the copy of an objective that holds averaged weights shares the teacher."""
        return self

    @classmethod
    def load(cls, name: str | os.PathLike[str]) -> Teacher:
        """Load a teacher by catalogue name, `default`, folder of a training run, or weights file.

        Raises:
            ModelError: The model does not exist, or its file cannot be used.
        """
        path = find(os.fspath(name))
        network, card = load_checkpoint(path)
        assert isinstance(network, (Video3DResNet, InceptionI3D))
        return cls(network, card.input, card.labels, digest=sha256_of(path))

    @torch.no_grad()
    def answers(self, clips: Tensor, source: InputSpec, layers: Sequence[LayerOnGrid] = ()) -> Answers:
        """Return the teacher's outputs for views made for `source`; the teacher moves to their device.

        It computes in float32, whatever the student's precision; this is also faster for the default model, see
        docs/train_results.md. Features are float16, as in the cache, so that cached and computed ones are equal.

        Args:
            clips: (N, 3, T, S, S), normalised for `source`.
            source: Input that the clips were made for.
            layers: Layers whose features to return.
        """
        with torch.autocast(clips.device.type, enabled=False):
            inputs = derive_view(clips.float(), source, self.spec).to(memory_format=torch.channels_last_3d)
            found = observe(self.network.to(clips.device), inputs, [name for name, _ in layers])
            pairs = zip(found.features, layers, strict=True)
            features = tuple(to_grid(feature, grid).half() for feature, (_, grid) in pairs)
        return Answers(found.logits, found.embedding, features)


def observe(network: nn.Module, clips: Tensor, layers: Sequence[str] = ()) -> Answers:
    """Run a network once and return all outputs that distillation compares, with gradients.

    Args:
        network: A `Video3DResNet` or an `InceptionI3D`.
        clips: (N, 3, T, H, W), normalised.
        layers: Dotted names of the layers whose features to return.

    Raises:
        UsageError: The network has no such layer.
    """
    outputs: dict[str, Tensor] = {}

    def record_output(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        # A copy: the next module may change it in place.
        return lambda _module, _inputs, output: outputs.__setitem__(name, output.clone())

    def record_pooled(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        outputs[POOLED] = inputs[0].flatten(2).mean(dim=2) if inputs[0].dim() > 2 else inputs[0]

    modules = dict(network.named_modules())
    missing = [name for name in (POOLED, *layers) if name not in modules]
    if missing:
        known = ", ".join(name for name in modules if name and "." not in name)
        raise UsageError(f"{type(network).__name__} has no layer {', '.join(map(repr, missing))}; it has {known}.")
    handles = [modules[name].register_forward_hook(record_output(name)) for name in dict.fromkeys(layers)]
    handles.append(modules[POOLED].register_forward_pre_hook(record_pooled))
    try:
        logits = network(clips)
    finally:
        for handle in handles:
            handle.remove()
    return Answers(logits, outputs[POOLED], tuple(outputs[name] for name in layers))


def to_grid(features: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Resample features (N, C, T, H, W) to another grid, (N, C, T', H', W'), float32.

    Along axes where the new grid is coarser, cells are averaged; where it is finer, they are interpolated linearly.
    """
    t, h, w = (min(old, missing) for old, missing in zip(features.shape[2:], grid, strict=True))
    averaged = F.adaptive_avg_pool3d(features.float(), (t, h, w))
    if averaged.shape[2:] == torch.Size(grid):
        return averaged
    return F.interpolate(averaged, size=grid, mode="trilinear", align_corners=False)


class AnswerCache:
    """Disk cache of a teacher's outputs, for a fixed number of views per clip.

    The key of an output covers everything that it depends on: the teacher's file and input, the layers, and the view
    with the clip's bytes and index, the augmentation, the seed and the index of the view. So several runs, and several
    processes, can share a folder.

    Each view takes 4 bytes per class and per channel of the embedding, 2 per value of the features on the student's
    grid, and about 500 for the file. Once the folder is full, further outputs are computed every time.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        view_name: Callable[[int, int], str],
        *,
        max_bytes: int = 8 * GIBIBYTE,
    ) -> None:
        """Open or create the folder.

        Args:
            folder: Folder for outputs alone.
            view_name: Returns a unique name for a view, given clip index and epoch, as `ClipDataset.view_name`.
            max_bytes: Maximum size of all outputs.
        """
        self.hits, self.misses = 0, 0
        self._view_name = view_name
        self._files = DiskCache(folder, max_bytes=max_bytes, max_clip_bytes=max_bytes)

    def __deepcopy__(self, _memo: object) -> AnswerCache:
        """Return itself, as for `Teacher`."""
        return self

    def answers(
        self,
        teacher: Teacher,
        batch: Batch,
        source: InputSpec,
        layers: Sequence[LayerOnGrid] = (),
        *,
        compute_missing: bool = True,
    ) -> Answers:
        """Return the teacher's outputs from the cache; compute and cache the missing ones.

        Args:
            teacher: The teacher.
            batch: Clips that are not mixed with each other, as the cache is per clip.
            source: Input that the clips were made for.
            layers: Layers whose features to return.
            compute_missing: False if the batch does not contain the views that the teacher needs.

        Raises:
            OutputError: An output is missing and cannot be computed, or the disk is full.
            ModelError: An output of the teacher is not finite.
        """
        names = [self._name(teacher, layers, index, batch) for index in batch.indices.tolist()]
        packed = [self._files.frames(name) for name in names]
        found = {row: load(file.tobytes()) for row, file in enumerate(packed) if file is not None}
        missing = [row for row in range(len(names)) if row not in found]
        self.hits, self.misses = self.hits + len(found), self.misses + len(missing)
        if missing and not compute_missing:
            raise OutputError(
                f"The teacher's outputs for {len(missing)} views are missing or damaged in "
                f"{str(self._files.folder)!r}. Delete {str(self._files.folder.parent)!r}; the same command "
                f"with --resume recomputes them."
            )
        if missing:
            computed = teacher.answers(batch.clips[missing], source, layers)
            for position, row in enumerate(missing):
                found[row] = _tensors_of(computed, position)
                self._keep(names[row], found[row])
        device = batch.clips.device
        rows = [found[row] for row in range(len(names))]
        with torch.autocast(device.type, enabled=False):  # autocast would refuse to stack float16 tensors
            stacked = {key: torch.stack([row[key].to(device) for row in rows]) for key in rows[0]}
        features = tuple(stacked[_feature(number)] for number in range(len(layers)))
        return Answers(stacked["logits"], stacked["embedding"], features)

    def _name(self, teacher: Teacher, layers: Sequence[LayerOnGrid], index: int, batch: Batch) -> str:
        depends = (teacher.digest, teacher.spec, tuple(layers), self._view_name(index, batch.epoch))
        return hashlib.sha256(repr(depends).encode()).hexdigest()

    def _keep(self, name: str, tensors: dict[str, Tensor]) -> None:
        for key, tensor in tensors.items():
            if not tensor.isfinite().all():
                raise ModelError(f"The teacher's output {key!r} for a clip is not finite in {tensor.dtype}.")
        content = save({key: tensor.cpu().contiguous() for key, tensor in tensors.items()})
        self._files.put(name, np.frombuffer(content, np.uint8))


def _tensors_of(answers: Answers, row: int) -> dict[str, Tensor]:
    features = {_feature(number): feature[row] for number, feature in enumerate(answers.features)}
    return {"logits": answers.logits[row], "embedding": answers.embedding[row], **features}


def _feature(number: int) -> str:
    return f"features {number}"
