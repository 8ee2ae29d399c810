"""Clips, stills and views of them for `default_block.py`.

Files are decoded once and divided so that no scene is on two sides. Views are full ones for the target, and short,
small or partly hidden ones for the student.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

SHORT_SIDE = 192  # pixels; larger frames are reduced to it
MAX_FRAMES = 200  # 8 s at 25 frames/s, which is the rate of all clips
THUMBNAIL = (48, 36)
SAME_SCENE = 0.65  # correlation of thumbnails from which two clips count as the same scene
VIDEO_SUFFIXES = frozenset({".avi", ".mkv", ".mov", ".mp4", ".webm"})
FULL_SIDE = 224 / 256  # of the short side, as the default model crops
FULL = (64, 224)  # frames and pixels that the trunk was trained on


@dataclass(frozen=True)
class Sample:
    """A clip, or a still, which is a clip of one frame."""

    path: str
    """Below its folder."""
    source: str
    """Source that it was cut from; two samples of one source are never on two sides."""
    frames: Tensor
    """uint8 (T, 3, H, W)."""
    label: str | None = None

    @property
    def is_still(self) -> bool:
        return len(self.frames) == 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, H, W)"""
        num_frames, _, height, width = self.frames.shape
        return num_frames, height, width


def load_unlabelled(folder: Path) -> list[Sample]:
    """The clips and stills below `folder` that its `sources.csv` (path,source) names."""
    with (folder / "sources.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    chosen: list[tuple[str, str]] = []
    for kind in ("clips", "stills"):
        of_kind = [(row["path"], row["source"]) for row in rows if row["path"].startswith(f"{kind}/")]
        present = [(path, source) for path, source in of_kind if (folder / path).is_file()]
        if len(present) < len(of_kind):
            print(f"{len(of_kind) - len(present)} of {len(of_kind)} {kind} are not below {folder}", flush=True)
        chosen += present
    if not chosen:
        sys.exit(f"{folder} has none of the files that its sources.csv names.")
    frames = read_all([folder / path for path, _ in chosen])
    return [Sample(path, source, pixels) for (path, source), pixels in zip(chosen, frames, strict=True)]


def load_labelled(folder: Path) -> list[Sample]:
    """Clips whose Kinetics label is known: a `clips.csv` with the columns path and k400, or folders named like it."""
    table = folder / "clips.csv"
    if table.is_file():
        with table.open(encoding="utf-8", newline="") as file:
            found = [(row["path"], row["k400"]) for row in csv.DictReader(file)]
    else:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
        found = [(str(path.relative_to(folder)), path.parent.name.replace("_", " ")) for path in paths]
    frames = read_all([folder / path for path, _ in found])
    return [Sample(path, path, pixels, label) for (path, label), pixels in zip(found, frames, strict=True)]


def read_all(paths: Sequence[Path]) -> list[Tensor]:
    """uint8 (T, 3, H, W) of each file, short side at most 192. Threads do: the decoder releases the interpreter."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_read, paths))


def _read(path: Path) -> Tensor:
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        frames = [_reduced(np.asarray(Image.open(path).convert("RGB")))]
    else:
        with av.open(str(path), metadata_errors="replace") as container:
            shown = islice(container.decode(video=0), MAX_FRAMES)
            frames = [_reduced(frame.to_ndarray(format="rgb24")) for frame in shown]
    if not frames:
        sys.exit(f"{path} has no frames that can be decoded; take it out of the folder.")
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()  # (T, H, W, 3) -> (T, 3, H, W)


def _reduced(frame: np.ndarray) -> np.ndarray:
    height, width, _ = frame.shape
    if min(height, width) <= SHORT_SIDE:
        return frame
    factor = SHORT_SIDE / min(height, width)
    size = (round(width * factor), round(height * factor))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))


def scenes(samples: Sequence[Sample]) -> np.ndarray:
    """(N,) numbers of scenes: samples of one source, and clips that look alike, directly or through others.

    Different files of a collection are often cut from one recording, and collections borrow from each other, so
    sources alone do not keep a place or a person on one side. Clips look alike if the middle frames' thumbnails
    correlate by `SAME_SCENE`; stills are photographs of different things and are joined by source only.
    """
    parents = list(range(len(samples)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    first_of_source: dict[str, int] = {}
    for index, sample in enumerate(samples):
        parents[root(index)] = root(first_of_source.setdefault(sample.source, index))
    clips = [index for index, sample in enumerate(samples) if not sample.is_still]
    if clips:
        vectors = np.stack([_thumbnail(samples[index]) for index in clips])
        for one, other in zip(*np.nonzero(np.triu(vectors @ vectors.T > SAME_SCENE, k=1)), strict=True):
            parents[root(clips[one])] = root(clips[other])
    return np.unique([root(index) for index in range(len(samples))], return_inverse=True)[1]


def _thumbnail(sample: Sample) -> np.ndarray:
    """A vector of length 1 with mean 0; a uniform picture is like nothing."""
    middle = sample.frames[len(sample.frames) // 2].permute(1, 2, 0).cpu().numpy()
    small = np.asarray(Image.fromarray(middle).resize(THUMBNAIL, Image.Resampling.BOX), dtype=np.float64)
    centred = small.ravel() - small.mean()
    return centred / max(float(np.linalg.norm(centred)), 1e-9)


@dataclass(frozen=True)
class Split:
    """Indices of samples; no scene is in two of them."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def make_splits(scene_numbers: np.ndarray, is_still: np.ndarray, num_folds: int, seed: int = 0) -> list[Split]:
    """Every sample is tested once: fold k is the test, a third of the other scenes decides when to stop.

    Whole scenes are dealt out in a random order, each to the fold that has the fewest of its kind so far.
    """
    if num_folds < 2:
        raise ValueError(f"{num_folds = } should be at least 2.")
    rng = np.random.default_rng(seed)
    folds = _deal(scene_numbers, is_still, num_folds, rng)
    splits = []
    for fold in range(num_folds):
        others = np.flatnonzero(folds != fold)
        thirds = _deal(scene_numbers[others], is_still[others], 3, rng)
        splits.append(Split(others[thirds != 0], others[thirds == 0], np.flatnonzero(folds == fold)))
    return splits


def _deal(scene_numbers: np.ndarray, is_still: np.ndarray, num_piles: int, rng: np.random.Generator) -> np.ndarray:
    """(N,) numbers of piles."""
    piles = np.zeros(len(scene_numbers), dtype=int)
    filled = np.zeros((2, num_piles), dtype=int)  # clips and stills in each
    for scene in rng.permutation(np.unique(scene_numbers)):
        members = np.flatnonzero(scene_numbers == scene)
        kind = int(is_still[members].all())
        pile = int(filled[kind].argmin())
        piles[members] = pile
        filled[kind, pile] += len(members)
    return piles


@dataclass(frozen=True)
class Recipe:
    """Settings for making a student's views."""

    num_frames: int = 32
    size: int = 160
    """Side of the square view in pixels."""
    side: tuple[float, float] = (0.6, 1.0)
    """Side of the random square crop, of the frame's short side; 0.6 of the side is 0.36 of the square."""
    hidden: tuple[float, float] = (0.0, 0.0)
    """Share of the cubes that are hidden, drawn for each view from this range."""
    filled: bool = False
    """Hidden cubes show another picture, a still with camera motion, instead of grey."""
    cube: tuple[int, int] = (8, 40)
    """Frames and pixels of such a cube's sides."""
    resolution: int | None = None
    """Pixels of the side to which a view is reduced and enlarged again; None leaves it sharp."""


@dataclass(frozen=True)
class View:
    """One view of one sample, all of it drawn already: the same on every device."""

    frame_indices: np.ndarray
    """(T,) into the sample's frames."""
    squares: np.ndarray
    """(T, 4): centre x, centre y and half the side in pixels, angle in radians."""
    mirrored: bool
    visible: np.ndarray | None
    """(T', H', W') booleans over equal cubes of the view, or None for all of it."""
    size: int
    resolution: int | None = None
    filler: tuple[int, View] | None = None
    """Sample and view that show where this one is hidden; None is grey."""


def student_view(recipe: Recipe, shape: tuple[int, int, int], rng: np.random.Generator) -> View:
    """A random view of a sample of (T, H, W) frames."""
    num_frames, height, width = shape
    start = int(rng.integers(max(num_frames - recipe.num_frames, 0) + 1))
    still = num_frames == 1
    squares = _moving(recipe, height, width, rng) if still else _standing(recipe, height, width, rng)
    return View(
        reflected(start, recipe.num_frames, num_frames),
        squares,
        bool(rng.random() < 0.5),
        _visible(recipe, rng),
        recipe.size,
        recipe.resolution,
    )


def full_views(
    shape: tuple[int, int, int], times: int, places: int, rng: np.random.Generator, full: tuple[int, int] = FULL
) -> list[View]:
    """The teacher's views at up to `times` times and `places` places along the long side; 1 and 1: the middle view.

    The middle view is the default model's own. A clip no longer than a view has one time (and goes there and back). A
    still gets `places` random smooth motions.
    """
    (num_frames, height, width), (count, size) = shape, full
    if num_frames == 1:
        return [student_view(Recipe(count, size, side=(0.75, 1.0)), shape, rng) for _ in range(places)]
    free = max(num_frames - count, 0)
    times = min(times, 1 + math.ceil(free / 16))  # views that begin at least 16 frames apart
    starts = [free // 2] if times == 1 else np.linspace(0, free, times).round().astype(int)
    shares = [0.5] if places == 1 else np.linspace(0, 1, places)
    half = FULL_SIDE * min(height, width) / 2
    views = []
    for start in starts:
        for share in shares:
            x = half + share * (width - 2 * half) if width > height else width / 2
            y = height / 2 if width > height else half + share * (height - 2 * half)
            squares = np.tile(np.array([x, y, half, 0.0]), (count, 1))
            views.append(View(reflected(int(start), count, num_frames), squares, False, None, size))
    return views


def reflected(start: int, count: int, length: int) -> np.ndarray:
    """Indices start, start + 1, ... that turn round at both ends: 3 frames from 1 on give 1 2 1 0 1 2."""
    if length == 1:
        return np.zeros(count, dtype=int)
    period = 2 * (length - 1)
    indices = np.arange(start, start + count) % period
    return np.minimum(indices, period - indices)


def with_filler(view: View, recipe: Recipe, shape: tuple[int, int, int], sample: int, rng: np.random.Generator) -> View:
    """The view with a random, wholly visible view of the still `sample`, of `shape`, where it is hidden."""
    plain = replace(recipe, hidden=(0.0, 0.0))
    return replace(view, filler=(sample, student_view(plain, shape, rng)))


def render(samples: Sequence[Sample], index: int, view: View) -> Tensor:
    """The view (3, T, size, size) of a sample in [-1, 1], on its device; what is hidden is 0 or the filler's."""
    video = _resampled(samples[index].frames, view)
    if view.visible is None:
        return video
    cubes = torch.from_numpy(view.visible).to(video.device, torch.float32)[None, None]
    visible = F.interpolate(cubes, size=tuple(video.shape[1:]), mode="nearest")[0]
    if view.filler is None:
        return video * visible
    return torch.where(visible > 0, video, render(samples, *view.filler))


def _resampled(frames: Tensor, view: View) -> Tensor:
    """uint8 frames (T, 3, H, W) -> all of the view, (3, T, size, size)."""
    device = frames.device
    picked = frames[torch.from_numpy(view.frame_indices).to(device)].float() / 127.5 - 1  # (T, 3, H, W)
    theta = torch.from_numpy(_affine(view, *picked.shape[2:])).to(device, torch.float32)  # (T, 2, 3)
    grid = F.affine_grid(theta, [len(picked), 3, view.size, view.size], align_corners=False)
    pixels = F.grid_sample(picked, grid, padding_mode="reflection", align_corners=False)
    if view.resolution is not None and view.resolution < view.size:
        small = F.interpolate(pixels, size=(view.resolution, view.resolution), mode="area")
        pixels = F.interpolate(small, size=(view.size, view.size), mode="bilinear", align_corners=False)
    return pixels.transpose(0, 1)


def _affine(view: View, height: int, width: int) -> np.ndarray:
    """(T, 2, 3) from the view's square [-1, 1]² to the frame's, as `affine_grid` takes it."""
    x, y, half, angle = view.squares.T
    sign = -1.0 if view.mirrored else 1.0
    cos, sin = half * np.cos(angle), half * np.sin(angle)
    across = np.stack([sign * cos * 2 / width, -sin * 2 / width, 2 * x / width - 1], axis=1)
    down = np.stack([sign * sin * 2 / height, cos * 2 / height, 2 * y / height - 1], axis=1)
    return np.stack([across, down], axis=1)


def _random_square(recipe: Recipe, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    half = rng.uniform(*recipe.side) * min(height, width) / 2
    return np.array([rng.uniform(half, width - half), rng.uniform(half, height - half), half, 0.0])


def _standing(recipe: Recipe, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    return np.tile(_random_square(recipe, height, width, rng), (recipe.num_frames, 1))


def _moving(recipe: Recipe, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A camera that pans, zooms and turns smoothly from one random square to another, at most 12 degrees each way."""
    first, last = (_random_square(recipe, height, width, rng) for _ in range(2))
    first[3], last[3] = rng.uniform(-math.radians(12), math.radians(12), size=2)
    way = np.linspace(0, 1, recipe.num_frames)[:, None]
    way = way * way * (3 - 2 * way)
    return first + (last - first) * way


def _visible(recipe: Recipe, rng: np.random.Generator) -> np.ndarray | None:
    if not recipe.hidden[1]:
        return None
    frames, pixels = recipe.cube
    across = math.ceil(recipe.size / pixels)
    cubes = (math.ceil(recipe.num_frames / frames), across, across)
    # An exact number of cubes, not each by chance: at least one always stays.
    hidden = round(rng.uniform(*recipe.hidden) * math.prod(cubes))
    order = rng.permutation(math.prod(cubes)).reshape(cubes)
    return order >= min(hidden, order.size - 1)
