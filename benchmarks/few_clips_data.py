"""Clips of `few_clips.py`: the last feature map of the frozen default trunk for each, kept on disk.

    python benchmarks/few_clips_data.py --actions CLIPS.csv --places FOLDER --features FOLDER

CLIPS.csv is a list `path,label,group` of clips; FOLDER of places holds PLACE/CLASS/GROUP_*.mp4. One view a clip, the
central one of the model's cheaper view. The files are not committed: they depend on the clips and the weights alone.
"""

from __future__ import annotations

import argparse
import csv
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import nonlocal_video as nlv


@dataclass(frozen=True)
class Clips:
    """Labelled clips and what the trunk makes of them.

    Attributes:
        maps: (N, C, T, H, W) what goes into the head, float32.
        labels: (N,) index of each clip's class.
        groups: (N,) people, or pairs of people, by number.
        places: (N,) names; "" where all clips are of one place.
        names: Names of the classes.
    """

    maps: Tensor
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    places: NDArray[np.str_]
    names: tuple[str, ...]


def read_actions(table: Path, features: Path) -> Clips:
    """The clips of a CSV `path,label,group`; paths are relative to it."""
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    paths = [table.parent / row["path"] for row in rows]
    return _clips(paths, [row["label"] for row in rows], [row["group"] for row in rows], [""] * len(rows), features)


def read_places(folder: Path, features: Path) -> Clips:
    """The clips of PLACE/CLASS/GROUP_*.mp4 below a folder."""
    paths = sorted(folder.glob("*/*/*.mp4"))
    return _clips(
        paths,
        [path.parent.name for path in paths],
        [path.name.partition("_")[0] for path in paths],
        [path.parent.parent.name for path in paths],
        features,
    )


def _clips(
    paths: Sequence[Path], labels: Sequence[str], groups: Sequence[str], places: Sequence[str], features: Path
) -> Clips:
    names, numbers = np.unique(labels, return_inverse=True)
    return Clips(
        feature_maps(paths, features),
        numbers,
        np.unique(groups, return_inverse=True)[1],
        np.array(places),
        tuple(names.tolist()),
    )


def feature_maps(paths: Sequence[Path], folder: Path) -> Tensor:
    """(N, C, T, H, W), computed where the folder lacks them."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = [folder / f"{zlib.crc32(path.read_bytes()):08x}.npy" for path in paths]
    missing = [(path, file) for path, file in zip(paths, kept, strict=True) if not file.is_file()]
    if missing:
        with nlv.load("default", device="cpu", runtime="openvino") as recognizer:
            for number, (path, file) in enumerate(missing, start=1):
                found = recognizer.explain_all(path, fast=True).features
                assert found is not None
                part = file.with_suffix(f".{os.getpid()}.npy")
                np.save(part, found[0].half().numpy())
                part.rename(file)
                print(f"{number} of {len(missing)}: {path.name}", flush=True)
    return torch.stack([torch.from_numpy(np.load(file)).float() for file in kept])


def main() -> None:
    """Fill the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actions", type=Path, required=True)
    parser.add_argument("--places", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True)
    arguments = parser.parse_args()
    for clips in (
        read_places(arguments.places, arguments.features),
        read_actions(arguments.actions, arguments.features),
    ):
        print(tuple(clips.maps.shape), clips.names)


if __name__ == "__main__":
    main()
