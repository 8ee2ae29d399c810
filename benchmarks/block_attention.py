"""Compare non-local blocks that are not trained: whose attention lies on what the answer rests on.

    python benchmarks/block_attention.py CHOSEN_ON ASKED_OF --cache DIR --fast --output benchmarks/results/x.json

Both folders hold CLASS/FILE. Directions and settings come from the clips of CHOSEN_ON; what counts are the figures of
ASKED_OF. For each map (`block_attention_maps.py`) and the answer of the network:

- `correlation`: Spearman's, with the evidence for the answer, at every fourth frame and eighth pixel.
- `border`: share of the map on the outer ring of a seventh of the frame's side; equal shares give 0.49.
- `lost`: probability that the answer loses when the strongest 30% of all pixels are blurred.
- `kept`: probability that it has when only they are left.

The features of a clip are kept in the cache. Clips that the output file has already are kept, and maps that a clip
lacks are added, so the command can be interrupted and started again. Intervals are from drawing clips.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import block_attention_maps as kinds
import numpy as np
import torch
from block_attention_maps import COARSE, FINE, Features
from faithfulness import VIDEO_SUFFIXES, estimate
from numpy.typing import NDArray
from torch import Tensor

from nonlocal_video.attention.faithfulness import (
    Perturbation,
    centre_prior,
    displaced,
    make_baseline,
    rank_correlation,
    upsample,
)
from nonlocal_video.attention.geometry import CellGrid, layer_grids
from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.inference.load import load
from nonlocal_video.inference.map_check import class_score
from nonlocal_video.inference.preprocessing import ClipLoader, ClipRequest
from nonlocal_video.io import atomic_write
from nonlocal_video.models.card import InputSpec
from nonlocal_video.models.inception3d import InceptionI3D, InceptionI3DConfig
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.zoo.catalogue import load_network

SHARE = 0.3
DIRECTIONS, PADDING_DIRECTIONS = (16, 32, 64, 128, 256), (1, 2, 4, 8)
SHIPPED_DIRECTIONS, SHIPPED_PADDING = 128, 4
RING = 1 / 7
FIGURES = ("correlation", "border", "lost", "kept")
CHOSEN_ON, ASKED_OF = "chosen on", "asked of"
EVIDENCE, CENTRE, FORMER, DOT = "evidence", "centre", "former block", "dot product"
SHIPPED = f"{DOT}, without {SHIPPED_PADDING} of the padding"
QUERY, DISPLACED, FINER = "query, ", ", displaced", ", finer, root of the norm"
ABOVE = ", above all places' mean"
LATER = (SHIPPED + FINER, QUERY + SHIPPED, QUERY + SHIPPED + ABOVE, QUERY + SHIPPED + ABOVE + DISPLACED, QUERY + FORMER)
PERTURBED = (EVIDENCE, FORMER, DOT, f"{DOT}, less empty", SHIPPED, "norm", CENTRE, "chance", "cosine", *LATER)
"""Maps by which clips are perturbed unless `--maps` says otherwise."""


@dataclass(frozen=True)
class Clip:
    """A clip and what the trunk makes of it."""

    name: str
    part: str
    """`CHOSEN_ON` or `ASKED_OF`."""
    read: Callable[[], Tensor]
    """Reads the network's input, (1, 3, T, H, W)."""
    features: Features
    answer: int
    score: float
    """Probability of the answer."""


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chosen_on", type=Path)
    parser.add_argument("asked_of", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--fast", action="store_true", help="32 frames instead of 64")
    parser.add_argument("--maps", nargs="+", help="names of the maps to perturb the clips by; default all")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no clip after this time")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    started = time.monotonic()
    with load("default", device="cpu", runtime="openvino") as recognizer:
        spec = recognizer.card.view(fast=arguments.fast)
        clips = list(read_clips(arguments, spec))
        makers = Makers([clip.features for clip in clips if clip.part == CHOSEN_ON], spec)
        found: dict[str, Any] = {"frames": spec.num_frames, "share": SHARE, "directions": SHIPPED_DIRECTIONS}
        kept = json.loads(arguments.output.read_text("utf-8"))["clips"] if arguments.output.is_file() else []
        rows = {row["clip"]: row for row in kept}
        found["clips"] = [rows.get(clip.name) or {"clip": clip.name, "part": clip.part, "maps": {}} for clip in clips]
        found["machine"] = describe_machine()
        for clip, row in zip(clips, found["clips"], strict=True):
            evidence = makers.thinned(clip, EVIDENCE)
            row["maps"] = {
                name: row["maps"].get(name) or looks(makers.thinned(clip, name), evidence) for name in makers.of(clip)
            }
        write(found, arguments.output)
        # Those that count first, should the time run out.
        for clip, row in sorted(zip(clips, found["clips"], strict=True), key=lambda pair: pair[0].part == CHOSEN_ON):
            wanted = [name for name in arguments.maps or PERTURBED if "lost" not in row["maps"][name]]
            if not wanted or time.monotonic() - started > 60 * arguments.minutes:
                continue
            inputs = clip.read()
            perturbed = Perturbation(class_score(recognizer, clip.answer), inputs, make_baseline(inputs, "blur"))
            for name in wanted:
                curves = perturbed.curves(makers.on_pixels(clip, name), (SHARE,))
                (without,), (only,) = curves.deletion.scores, curves.insertion.scores
                row["maps"][name] |= {"lost": round(clip.score - without, 4), "kept": round(only, 4)}
            row |= {"answer": recognizer.card.labels[clip.answer], "score": round(clip.score, 4)}
            write(found, arguments.output)
            print(f"{clip.name}: {row['answer']} {clip.score:.3f}, {time.monotonic() - started:.0f} s", flush=True)


class Makers:
    """The maps of every clip, with what they take from the clips that settings are chosen on."""

    def __init__(self, chosen_on: list[Features], spec: InputSpec) -> None:
        coarse = [features.coarse for features in chosen_on]
        self.directions = kinds.principal_directions(coarse, max(DIRECTIONS))
        self.former = kinds.former_block([features.fine for features in chosen_on])
        self.padding = kinds.padding_directions(chosen_on[0].empty, max(PADDING_DIRECTIONS))
        self.size = (spec.num_frames, spec.crop, spec.crop)
        trunk = trunk_of_default()
        self.head = kinds.head_directions(trunk.logits.weight.flatten(1))
        self.grids = layer_grids(trunk, self.size, [FINE, COARSE])

    def of(self, clip: Clip) -> dict[str, Callable[[], Tensor]]:
        """Name -> a function that makes the map's cells."""
        features, query = clip.features, clip.features.query()
        theta = self.directions[:SHIPPED_DIRECTIONS]
        phi = {count: kinds.without(theta, self.padding[:count]) for count in PADDING_DIRECTIONS}
        received = partial(kinds.dot_product, features)
        shipped = partial(received, theta, phi[SHIPPED_PADDING])
        row = partial(kinds.dot_product_row, features, query)
        shipped_row = partial(row, theta, phi[SHIPPED_PADDING])
        seed = zlib.crc32(clip.name.encode())  # others in each clip, the same in each run

        def elsewhere(make: Callable[[], Tensor]) -> Callable[[], Tensor]:
            return lambda: torch.from_numpy(displaced(make().numpy(), 1, seed)[0])

        return {
            EVIDENCE: lambda: features.evidence,
            FORMER: lambda: self.former.attention_received(features.fine[None])[0].view(features.fine.shape[1:]),
            DOT: partial(received, theta),
            f"{DOT}, all channels": received,
            f"{DOT}, less empty": partial(received, theta, less_empty=True),
            f"{DOT}, head": partial(received, self.head),
            **{f"{DOT}, {count} directions": partial(received, self.directions[:count]) for count in DIRECTIONS},
            **{f"{DOT}, without {count} of the padding": partial(received, theta, keys) for count, keys in phi.items()},
            SHIPPED + DISPLACED: elsewhere(shipped),
            SHIPPED + FINER: lambda: kinds.finer(shipped(), features.fine, 0.5),
            f"{SHIPPED}, finer, norm": lambda: kinds.finer(shipped(), features.fine, 1.0),
            "cosine": lambda: kinds.cosine(features),
            "norm": lambda: kinds.norm(features.coarse),
            CENTRE: lambda: self._centre(features),
            "chance": lambda: kinds.random_cells(features.coarse[0], seed),
            QUERY + FORMER: lambda: self._former_query(features),
            QUERY + DOT: partial(row, theta),
            QUERY + SHIPPED: shipped_row,
            QUERY + SHIPPED + DISPLACED: elsewhere(shipped_row),
            QUERY + SHIPPED + ABOVE: lambda: kinds.above(shipped_row(), shipped()),
            QUERY + SHIPPED + ABOVE + DISPLACED: elsewhere(lambda: kinds.above(shipped_row(), shipped())),
            f"{QUERY}cosine": lambda: kinds.cosine_row(features, query),
        }

    def on_pixels(self, clip: Clip, name: str) -> NDArray[np.float32]:
        """(T, H, W) of the network's input."""
        if name == CENTRE:
            return centre_prior(self.size)
        cells = self.of(clip)[name]().numpy()
        return upsample(cells, self._grid(cells), self.size)

    def thinned(self, clip: Clip, name: str) -> NDArray[np.float32]:
        """A map at every fourth frame and in the middle of each square of eight pixels."""
        cells = self.of(clip)[name]().numpy()
        time, rows, columns = (
            self._grid(cells).interpolation(axis, np.arange((step - 1) / 2, length, step))
            for axis, (length, step) in enumerate(zip(self.size, (4, 8, 8), strict=True))
        )
        values: NDArray[np.float32] = np.einsum("ta,yb,xc,abc->tyx", time, rows, columns, cells, optimize=True)
        return values

    def _grid(self, cells: NDArray[np.float32]) -> CellGrid:
        return next(grid for grid in self.grids.values() if grid.size == cells.shape)

    def _centre(self, features: Features) -> Tensor:
        """The middle of the frame on the fine cells, from 0 at the corners."""
        values = torch.from_numpy(centre_prior(tuple(features.fine.shape[1:])).copy())
        return values - values.min()

    def _former_query(self, features: Features) -> Tensor:
        cell = np.unravel_index(features.query(), features.coarse.shape[1:])
        # The fine cell nearest to the coarse one's centre, on each axis.
        place = [
            self.grids[FINE].nearest(axis, self.grids[COARSE].centre(axis, int(index)))
            for axis, index in enumerate(cell)
        ]
        flat = int(np.ravel_multi_index(place, features.fine.shape[1:]))
        row = self.former.attention(features.fine[None], torch.tensor([flat]))[0, 0]
        return row.view(features.fine.shape[1:])


def looks(values: NDArray[np.float32], evidence: NDArray[np.float32]) -> dict[str, float]:
    """Describe a thinned map, without running the network."""
    positive = np.maximum(values, 0)
    rows, columns = (round(length * RING) for length in values.shape[1:])
    inner = positive[:, rows:-rows, columns:-columns].sum(dtype=np.float64)
    return {
        "correlation": round(rank_correlation(values, evidence), 4),
        "border": round(1 - float(inner / positive.sum(dtype=np.float64)), 4),
    }


def write(found: dict[str, Any], output: Path) -> None:
    """The clips, and what follows from them."""
    found["figures"] = figures(found["clips"])
    with atomic_write(output) as file:
        file.write(f"{json.dumps(found, indent=1)}\n".encode())


def figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of both parts with 95% intervals; and of each map less the shipped one, each clip with itself."""
    found: dict[str, Any] = {}
    for part in (CHOSEN_ON, ASKED_OF):
        of_part = [row for row in rows if row["part"] == part]
        scored = [row for row in of_part if "score" in row]
        found[part] = {
            "clips": len(of_part),
            "perturbed": len(scored),
            "score": round(float(np.mean([row["score"] for row in scored])), 4) if scored else None,
            "maps": {},
        }
        for name in of_part[0]["maps"]:
            for figure in FIGURES:
                have = [row["maps"] for row in of_part if figure in row["maps"][name]]
                if not have:
                    continue
                values = np.array([maps[name][figure] for maps in have])
                of_map = found[part]["maps"].setdefault(name, {})
                of_map[figure] = {"clips": len(have), **estimate(values, np.arange(len(have)))}
                if all(figure in maps[SHIPPED] for maps in have):
                    less = values - np.array([maps[SHIPPED][figure] for maps in have])
                    of_map[figure]["less_shipped"] = estimate(less, np.arange(len(have)))
    return found


def read_clips(arguments: argparse.Namespace, spec: InputSpec) -> Iterator[Clip]:
    """Every clip with its features, computed where the cache lacks them."""
    trunk = trunk_of_default()
    size = (1, 3, spec.num_frames, spec.crop, spec.crop)
    empty = cached(arguments.cache / f"empty_{spec.num_frames}.npz", trunk, lambda: torch.zeros(size))
    for part, folder in ((CHOSEN_ON, arguments.chosen_on), (ASKED_OF, arguments.asked_of)):
        paths = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in VIDEO_SUFFIXES)
        if not paths:
            sys.exit(f"{folder} should hold folders of clips.")
        for path in paths:
            name = f"{folder.name}/{path.parent.name}/{path.name}"
            read = partial(read_view, path, spec)
            key = zlib.crc32(path.read_bytes())
            kept = cached(arguments.cache / f"{key:08x}_{spec.num_frames}.npz", trunk, read)
            answer = int(kept["logits"].argmax())
            evidence = trunk.class_activation_map(kept[COARSE][None], [answer])[0, 0]
            features = Features(kept[FINE], kept[COARSE], empty[COARSE], evidence)
            yield Clip(name, part, read, features, answer, float(kept["logits"].softmax(0)[answer]))


def read_view(path: Path, spec: InputSpec) -> Tensor:
    """The clip's central view as the network's input, (1, 3, T, H, W)."""
    with VideoReader() as reader:
        return ClipLoader(reader).load(path, spec, ClipRequest(), originals=None).network_input(0, 0)


def trunk_of_default() -> InceptionI3D:
    """The default's network without its block."""
    network, _ = load_network("default")
    trunk = InceptionI3D(InceptionI3DConfig()).eval()
    trunk.load_state_dict({name: value for name, value in network.state_dict().items() if "nonlocal" not in name})
    return trunk


def cached(path: Path, trunk: InceptionI3D, read: Callable[[], Tensor]) -> dict[str, Tensor]:
    """The fine and the coarse features of one view, and its logits."""
    if not path.is_file():
        found = trunk.extract_features(read(), [FINE, COARSE])
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {name: found[name][0].half().numpy() for name in (FINE, COARSE)}
        part = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(part, logits=trunk.head(found[COARSE])[0].numpy(), **arrays)
        part.rename(path)
    with np.load(path) as kept:
        return {name: torch.from_numpy(kept[name].astype(np.float32)) for name in kept.files}


if __name__ == "__main__":
    main()
