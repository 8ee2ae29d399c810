"""What the teacher says of a view: computed, or read back from the disk."""

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
from nonlocal_video.training.clip_cache import GIBIBYTE, ClipCache
from nonlocal_video.training.distillation.alignment import derive_view
from nonlocal_video.training.objective import Batch
from nonlocal_video.zoo.catalogue import find

POOLED = "dropout"
"""The module of our networks that takes what the classifier takes: the pooled features."""
FILE_BYTES = 1024
"""More than an answer's file takes besides its numbers, with a few layers."""


class LayerOnGrid(NamedTuple):
    """A layer's features as they are to be compared."""

    layer: str
    """Dotted module name."""
    grid: tuple[int, int, int]
    """T', H', W' to bring them to, see `to_grid`."""


class Answers(NamedTuple):
    """What a network says of N clips."""

    logits: Tensor
    """(N, classes)."""
    embedding: Tensor
    """(N, C): the pooled features. The classifier is linear: its answer to their mean over time is `logits`."""
    features: tuple[Tensor, ...]
    """(N, C, T', H', W') of each layer that was asked for, in that order."""


class Teacher:
    """A frozen network. Not an `nn.Module`: nothing that looks for what learns, or is saved, finds it.

    It pools its whole feature map, as networks do in training, whatever its card says of windows.

    Attributes:
        network: A copy with its batch norms folded into the convolutions.
        spec: Its input.
        labels: Its classes, in the order of its outputs.
        digest: What tells it from other teachers.
    """

    def __init__(
        self, network: Video3DResNet | InceptionI3D, spec: InputSpec, labels: Sequence[str], *, digest: str
    ) -> None:
        folded = fold_batch_norms(network.eval()).requires_grad_(False)
        assert isinstance(folded, (Video3DResNet, InceptionI3D))
        self.network = folded.to(memory_format=torch.channels_last_3d)
        self.spec, self.labels, self.digest = spec, tuple(labels), digest

    def __deepcopy__(self, _memo: object) -> Teacher:
        """Itself: a copy of an objective, for averaged weights, has the same teacher."""
        return self

    @classmethod
    def load(cls, name: str | os.PathLike[str]) -> Teacher:
        """A catalogue name, `default`, a training run's folder, or a weights file of ours.

        Raises:
            ModelError: There is no such model, or its file cannot be used.
        """
        path = find(os.fspath(name))
        network, card = load_checkpoint(path)
        assert isinstance(network, (Video3DResNet, InceptionI3D))
        return cls(network, card.input, card.labels, digest=sha256_of(path))

    @torch.no_grad()
    def answers(self, clips: Tensor, of: InputSpec, layers: Sequence[LayerOnGrid] = ()) -> Answers:
        """Its answers to views that were made as `of` says; it moves to the device where they are.

        It computes in float32 whatever the student's precision: the default is also faster so, see
        docs/train_results.md. Features are float16, as the cache keeps them, so that it makes no difference where they
        come from.
        """
        with torch.autocast(clips.device.type, enabled=False):
            seen = derive_view(clips.float(), of, self.spec).to(memory_format=torch.channels_last_3d)
            found = observe(self.network.to(clips.device), seen, [name for name, _ in layers])
            pairs = zip(found.features, layers, strict=True)
            features = tuple(to_grid(feature, grid).half() for feature, (_, grid) in pairs)
        return Answers(found.logits, found.embedding, features)


def observe(network: nn.Module, clips: Tensor, layers: Sequence[str] = ()) -> Answers:
    """Run one of our networks once and keep what distillation compares; gradients flow through all of it.

    Args:
        network: A `Video3DResNet` or an `InceptionI3D`.
        clips: (N, 3, T, H, W), normalised.
        layers: Dotted names of modules whose output to keep.

    Raises:
        UsageError: The network has no such layer.
    """
    kept: dict[str, Tensor] = {}

    def keep_output(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        # A copy: the next module may change it in place.
        return lambda _module, _inputs, output: kept.__setitem__(name, output.clone())

    def keep_pooled(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        kept[POOLED] = inputs[0].flatten(2).mean(dim=2) if inputs[0].dim() > 2 else inputs[0]

    modules = dict(network.named_modules())
    missing = [name for name in (POOLED, *layers) if name not in modules]
    if missing:
        known = ", ".join(name for name in modules if name and "." not in name)
        raise UsageError(f"{type(network).__name__} has no layer {', '.join(map(repr, missing))}; it has {known}.")
    handles = [modules[name].register_forward_hook(keep_output(name)) for name in dict.fromkeys(layers)]
    handles.append(modules[POOLED].register_forward_pre_hook(keep_pooled))
    try:
        logits = network(clips)
    finally:
        for handle in handles:
            handle.remove()
    return Answers(logits, kept[POOLED], tuple(kept[name] for name in layers))


def to_grid(features: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Features (N, C, T, H, W) on another grid of the same extent, (N, C, T', H', W'), float32.

    Along axes where the new grid is coarser cells are averaged, where it is finer they are interpolated linearly.
    """
    t, h, w = (min(old, new) for old, new in zip(features.shape[2:], grid, strict=True))
    averaged = F.adaptive_avg_pool3d(features.float(), (t, h, w))
    if averaged.shape[2:] == torch.Size(grid):
        return averaged
    return F.interpolate(averaged, size=grid, mode="trilinear", align_corners=False)


class AnswerCache:
    """A teacher's answers on the disk, for clips that are shown in a fixed number of views.

    A name says all that an answer depends on: the teacher's file and input, the layers, and the view, that is the
    clip's bytes, its place, the augmentation, the seed and the number of the view. So one folder may serve several
    runs; a run that changes any of it computes anew. Several processes may use it at the same time.

    What a clip costs: 4 bytes a class and a channel of the embedding, 2 a number of the features on the student's grid,
    some 500 for the file. When the folder is full, further answers are computed each time.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        view_name: Callable[[int, int], str],
        *,
        max_bytes: int = 8 * GIBIBYTE,
    ) -> None:
        """Open or make the folder.

        Args:
            folder: For answers alone.
            view_name: (place, epoch) -> what tells a view from others, as `TrainingSet.view_name`.
            max_bytes: Of all answers together.
        """
        self.hits, self.misses = 0, 0
        self._view_name = view_name
        self._files = ClipCache(folder, max_bytes=max_bytes, max_clip_bytes=max_bytes)

    def __deepcopy__(self, _memo: object) -> AnswerCache:
        """Itself, as for `Teacher`."""
        return self

    def answers(
        self, teacher: Teacher, batch: Batch, of: InputSpec, layers: Sequence[LayerOnGrid] = (), *, ask: bool = True
    ) -> Answers:
        """From the folder where it has them; the teacher runs for the other clips alone, and they are kept.

        Args:
            teacher: Whose answers.
            batch: Its clips may not be mixed with each other: a mixture is no view of one clip.
            of: How its clips were made.
            layers: Whose features to give, too.
            ask: False where the clips are not what the teacher would have to see.

        Raises:
            OutputError: An answer is not there and may not be asked for, or the disk is full.
            ModelError: The teacher gave something that is not a finite number.
        """
        names = [self._name(teacher, layers, place, batch) for place in batch.places.tolist()]
        packed = [self._files.frames(name) for name in names]
        found = {row: load(file.tobytes()) for row, file in enumerate(packed) if file is not None}
        new = [row for row in range(len(names)) if row not in found]
        self.hits, self.misses = self.hits + len(found), self.misses + len(new)
        if new and not ask:
            raise OutputError(
                f"The teacher's answers to {len(new)} views are missing or damaged in {str(self._files.folder)!r}. "
                f"Delete {str(self._files.folder.parent)!r}, and the same command with --resume makes it again."
            )
        if new:
            computed = teacher.answers(batch.clips[new], of, layers)
            for place, row in enumerate(new):
                found[row] = _tensors_of(computed, place)
                self._keep(names[row], found[row])
        device = batch.clips.device
        rows = [found[row] for row in range(len(names))]
        with torch.autocast(device.type, enabled=False):  # it would refuse to stack what is float16 already
            together = {key: torch.stack([row[key].to(device) for row in rows]) for key in rows[0]}
        features = tuple(together[_feature(number)] for number in range(len(layers)))
        return Answers(together["logits"], together["embedding"], features)

    def _name(self, teacher: Teacher, layers: Sequence[LayerOnGrid], place: int, batch: Batch) -> str:
        depends = (teacher.digest, teacher.spec, tuple(layers), self._view_name(place, batch.epoch))
        return hashlib.sha256(repr(depends).encode()).hexdigest()

    def _keep(self, name: str, tensors: dict[str, Tensor]) -> None:
        for key, tensor in tensors.items():
            if not tensor.isfinite().all():
                raise ModelError(f"The teacher's {key} of a clip has numbers that are not finite as {tensor.dtype}.")
        content = save({key: tensor.cpu().contiguous() for key, tensor in tensors.items()})
        self._files.put(name, np.frombuffer(content, np.uint8))


def _tensors_of(answers: Answers, row: int) -> dict[str, Tensor]:
    features = {_feature(number): feature[row] for number, feature in enumerate(answers.features)}
    return {"logits": answers.logits[row], "embedding": answers.embedding[row], **features}


def _feature(number: int) -> str:
    return f"features {number}"
