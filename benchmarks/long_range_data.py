"""Clips whose class is a relation between two moving squares, which may be far apart in space, in time or in both.

Every clip holds two target squares, each red or green, and three blue ones that mean nothing. All move up or down. The
class says whether the targets have the same colour. How the targets lie to each other is one of four separations:

- "near": side by side in the same frames.
- "space": in the same frames, at least `FAR_PIXELS` apart along the width.
- "time": at the same place, one gone for at least `GAP_FRAMES` frames before the other comes.
- "both": at least `FAR_PIXELS` and `GAP_FRAMES` apart.

A scene is everything but the targets' colours: places, times, motion and noise. Every scene comes in all four
colourings, two of each class. So a crop that shows only one target says nothing about the class, in every set of clips
exactly; and in training the differences between scenes, which are noise here, cancel out of a batch's gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NUM_FRAMES, HEIGHT, WIDTH = 12, 12, 72
SEPARATIONS = ("near", "space", "time", "both")
NUM_CLASSES = 2
"""0: different colours, 1: the same."""
COLOURINGS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
"""Colours of the targets, as indices into `TARGET_COLOURS`."""
CLIPS_PER_ROUND = len(SEPARATIONS) * len(COLOURINGS)

HALF_SIDE = 2  # a square is 5 pixels wide
LIFE_FRAMES = 4
SPEED = 2  # pixels per frame
FAR_PIXELS = 42  # between centres
GAP_FRAMES = 2  # without either target
NEAR_PIXELS = (6, 9)
NUM_DISTRACTORS = 3
NOISE = 0.15  # at most
TARGET_COLOURS = np.array([[1.0, 0.2, 0.2], [0.2, 1.0, 0.2]], dtype=np.float32)
DISTRACTOR_COLOUR = np.array([0.2, 0.5, 1.0], dtype=np.float32)

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Clips:
    """N generated clips, four in a row of each scene. Squares 0 and 1 of the (N, S) arrays are the targets."""

    video: Tensor
    """(N, 3, T, H, W), about 0 to 1, stored channels last."""
    labels: Tensor
    """(N,), 1 where the targets have the same colour."""
    separations: Integers
    """(N,), index into `SEPARATIONS`."""
    centre_x: Integers
    """(N, S), pixels."""
    centre_y: Integers
    """(N, S), pixels, in the middle of the motion."""
    first_frames: Integers
    """(N, S); a square is seen for `LIFE_FRAMES`."""
    target_colours: Integers
    """(N, 2), index into `TARGET_COLOURS`."""


def draw_clips(num_clips: int, rng: np.random.Generator) -> Clips:
    """Clips in which every separation and colouring occurs equally often.

    Raises:
        ValueError: If `num_clips` is not a positive multiple of `CLIPS_PER_ROUND`.
    """
    if num_clips < 1 or num_clips % CLIPS_PER_ROUND:
        raise ValueError(f"{num_clips = } should be a positive multiple of {CLIPS_PER_ROUND}, to be balanced.")
    num_scenes = num_clips // len(COLOURINGS)
    separations = np.arange(num_scenes) % len(SEPARATIONS)
    near, space, time, _ = (separations == index for index in range(len(SEPARATIONS)))
    squares = (num_scenes, 2 + NUM_DISTRACTORS)

    reach = HALF_SIDE + SPEED * (LIFE_FRAMES - 1) // 2  # of the motion, from its centre
    centre_x = rng.integers(HALF_SIDE, WIDTH - HALF_SIDE, squares)
    centre_y = rng.integers(reach, HEIGHT - reach, squares)
    first_frames = rng.integers(0, NUM_FRAMES - LIFE_FRAMES + 1, squares)

    # Pairs: near, far and at the same place.
    apart = np.where(near, rng.integers(NEAR_PIXELS[0], NEAR_PIXELS[1] + 1, num_scenes), FAR_PIXELS)
    left = rng.integers(HALF_SIDE, WIDTH - HALF_SIDE - apart)
    right = np.where(near, left + apart, rng.integers(left + apart, WIDTH - HALF_SIDE))
    centre_x[:, :2] = np.where(time[:, None], left[:, None], _either_order(left, right, rng))
    centre_y[time, 1] = centre_y[time, 0]
    # Times: together, or one after the other.
    earlier = rng.integers(0, NUM_FRAMES - 2 * LIFE_FRAMES - GAP_FRAMES + 1, num_scenes)
    later = rng.integers(earlier + LIFE_FRAMES + GAP_FRAMES, NUM_FRAMES - LIFE_FRAMES + 1)
    together = near | space
    first_frames[:, :2] = np.where(together[:, None], first_frames[:, :1], _either_order(earlier, later, rng))

    motion = SPEED * (2 * rng.integers(0, 2, squares) - 1)  # pixels per frame, down or up
    noise = NOISE * (2 * rng.random((num_scenes, NUM_FRAMES, HEIGHT, WIDTH, 3), dtype=np.float32) - 1)

    scene = np.repeat(np.arange(num_scenes), len(COLOURINGS))  # of each clip
    target_colours = np.tile(COLOURINGS, (num_scenes, 1))
    distractor_colours = np.broadcast_to(DISTRACTOR_COLOUR, (num_clips, NUM_DISTRACTORS, 3))
    colours = np.concatenate([TARGET_COLOURS[target_colours], distractor_colours], axis=1)
    video = np.zeros((num_clips, NUM_FRAMES, HEIGHT, WIDTH, 3), dtype=np.float32)
    clip, side = np.arange(num_clips)[:, None, None], np.arange(-HALF_SIDE, HALF_SIDE + 1)
    for square in reversed(range(squares[1])):  # targets last, over the others
        for age in range(LIFE_FRAMES):
            middle = centre_y[:, square] + motion[:, square] * (2 * age - LIFE_FRAMES + 1) // 2
            rows = middle[scene, None, None] + side[:, None]
            columns = centre_x[scene, square, None, None] + side
            frames = first_frames[scene, square, None, None] + age
            video[clip, frames, rows, columns] = colours[:, square, None, None]
    video += noise[scene]
    return Clips(
        video=torch.from_numpy(video).permute(0, 4, 1, 2, 3),
        labels=torch.from_numpy((target_colours[:, 0] == target_colours[:, 1]).astype(np.int64)),
        separations=separations[scene],
        centre_x=centre_x[scene],
        centre_y=centre_y[scene],
        first_frames=first_frames[scene],
        target_colours=target_colours,
    )


def _either_order(first: Integers, second: Integers, rng: np.random.Generator) -> Integers:
    """(N,), (N,) -> (N, 2), half of the rows swapped, at random."""
    pair = np.stack([first, second], axis=1)
    return np.where(rng.integers(0, 2, (len(pair), 1)) == 1, pair[:, ::-1], pair)
