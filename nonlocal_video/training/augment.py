"""Random augmentation of training clips, the same in all frames of a clip."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from nonlocal_video.errors import UsageError


@dataclass(frozen=True)
class Augmentation:
    """Strength of the random augmentation of clips."""

    crop_area: tuple[float, float] = (0.5, 1.0)
    """Range of the fraction of the frame that the random crop covers, before it is resized to the model's square."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of the crop's width divided by its height."""
    flip: float = 0.5
    """Probability of mirroring the clip left to right."""
    left_right_classes: tuple[str, ...] = ()
    """Classes that mirroring would turn into another one (`swiping left`); their clips are never mirrored."""
    brightness: float = 0.2
    """Largest change x of the brightness, which is multiplied by 1 - x to 1 + x."""
    contrast: float = 0.2
    """Largest change x of the contrast, which is multiplied by 1 - x to 1 + x."""
    saturation: float = 0.2
    """Largest change x of the saturation, which is multiplied by 1 - x to 1 + x."""
    hue: float = 0.0
    """Largest shift of the hue, as a fraction of the whole circle; much slower than the other three."""
    start: float = 1.0
    """Range of the view's position around the middle of the clip: 0 for none, 1 for anywhere."""
    speed: tuple[float, float] = (0.8, 1.25)
    """Range of the playing speed, as a multiple of the clip's own."""
    mixup: float = 0.0
    """Alpha of mixup's beta distribution (Zhang et al., 2018); 0 for off."""
    cutmix: float = 0.0
    """Alpha of CutMix's beta distribution (Yun et al., 2019); 0 for off. If mixup is on as well, each batch gets one of
    the two."""

    def __post_init__(self) -> None:
        for name, least, most in (("crop_area", 0.01, 1.0), ("crop_ratio", 0.1, 10.0), ("speed", 0.1, 10.0)):
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise UsageError(f"{name} = {(low, high)} should be two numbers from {least:g} to {most:g}, in order.")
        for name, most in (("flip", 1.0), ("brightness", 1.0), ("contrast", 1.0), ("saturation", 1.0), ("start", 1.0)):
            if not 0 <= getattr(self, name) <= most:
                raise UsageError(f"{name} = {getattr(self, name)} should be from 0 to {most:g}.")
        if not 0 <= self.hue <= 0.5:
            raise UsageError(f"hue = {self.hue} should be from 0 to 0.5.")
        for name in ("mixup", "cutmix"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise UsageError(f"{name} = {getattr(self, name)} should be a finite number, 0 or above.")

    def check_classes(self, labels: tuple[str, ...]) -> None:
        """Check that `left_right_classes` exist; the clips of a misspelt class would be flipped.

        Raises:
            UsageError: A class of `left_right_classes` is not in `labels`.
        """
        unknown = [name for name in self.left_right_classes if name not in labels]
        if unknown:
            raise UsageError(
                f"left_right_classes contains {', '.join(map(repr, unknown))}; the classes are: {', '.join(labels)}."
            )


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seed torch's CPU generator from these numbers, and restore its state afterwards.

    torchvision's transforms draw from torch's global generator and accept no other. The generators of other devices are
    left alone: `torch.manual_seed` would seed them as well and give every process of a run the same dropout.
    """
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


class ClipAugmenter:
    """Applies one random augmentation to all frames of a clip; it draws from torch's generator, see `seeded`."""

    def __init__(self, augmentation: Augmentation, size: int) -> None:
        """Make the transforms.

        Args:
            augmentation: Strength of the augmentation.
            size: Side of the output square, in pixels.
        """
        self.augmentation = a = augmentation
        self._crop = v2.RandomResizedCrop(size, scale=a.crop_area, ratio=a.crop_ratio, antialias=True)
        self._flip = v2.RandomHorizontalFlip(a.flip)
        self._colour = v2.ColorJitter(a.brightness, a.contrast, a.saturation, a.hue)

    def draw_time(self) -> tuple[float, float]:
        """Draw a speed factor and a start: 0 is the earliest that the clip allows, 0.5 the middle, 1 the latest."""
        slow, fast = self.augmentation.speed
        speed = slow * (fast / slow) ** torch.rand(()).item()  # twice as fast is as likely as half as fast
        return speed, 0.5 + self.augmentation.start * (torch.rand(()).item() - 0.5)

    def __call__(self, frames_thwc: Tensor, label: str) -> Tensor:
        """Crop, flip and jitter the colours: uint8 (T, H, W, 3) -> (T, size, size, 3).

        All frames get the same factors. Contrast is changed around each frame's own mean, as in torchvision.
        """
        clip = tv_tensors.Video(frames_thwc.permute(0, 3, 1, 2))
        clip = self._crop(clip)
        if label not in self.augmentation.left_right_classes:
            clip = self._flip(clip)
        return self._colour(clip).as_subclass(Tensor).permute(0, 2, 3, 1)


class BatchMixer:
    """Mixes the clips of a batch with each other, and their labels likewise (mixup, CutMix)."""

    def __init__(self, augmentation: Augmentation, num_classes: int) -> None:
        """Make the mixers for `num_classes` classes; with mixup and CutMix off, labels only become one-hot."""
        self.num_classes = num_classes
        self._mixers: list[v2.Transform] = []
        if augmentation.mixup:
            self._mixers.append(v2.MixUp(alpha=augmentation.mixup, num_classes=num_classes + 1))
        if augmentation.cutmix:
            self._mixers.append(v2.CutMix(alpha=augmentation.cutmix, num_classes=num_classes + 1))

    def __call__(self, clips: Tensor, classes: Tensor, *, seed: int, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
        """Mix each clip with the previous one of the batch.

        Args:
            clips: (N, 3, T, H, W), any floating-point type, on any device.
            classes: (N,) int64; negative for a clip without a label.
            seed: Seed of the run. The result depends on seed, epoch and batch alone.
            epoch: Index of the epoch.
            batch: Index of the batch in the epoch.

        Returns:
            Clips of the same shape, and float targets (N, classes). Each row sums to the labelled share of its mixture:
            1 if both clips have a label.
        """
        no_label = self.num_classes  # a class of its own while clips are mixed
        classes = torch.where(classes < 0, no_label, classes)
        if not self._mixers:
            return clips, torch.nn.functional.one_hot(classes, self.num_classes + 1)[:, :no_label].float()
        with seeded(seed, epoch, batch):
            mixer = self._mixers[int(torch.randint(len(self._mixers), ()))]
            mixed, targets = mixer(tv_tensors.Video(clips), classes)
        return mixed.as_subclass(Tensor), targets[:, :no_label]
