"""Maps in one file: the frames as JPEG once, and any number of maps over them, to be drawn again later."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nonlocal_video.attention.geometry import CellGrid
from nonlocal_video.attention.maps import AttentionMaps, QueryPoint
from nonlocal_video.video.transforms import SpatialView

_QUALITY = 90
_SCENE = "scene.json"


def write_maps(path: str | os.PathLike[str], maps: Mapping[str, AttentionMaps]) -> None:
    """Write maps of one view of a clip.

    Args:
        path: Zip file to write.
        maps: At least one map by name; all have the frames, times and crop of the first.

    Example:
        >>> write_maps("maps.zip", {"evidence": explanation.class_evidence()})
        >>> read_maps("maps.zip", "evidence").save_overlay("overlay.mp4").name
        'overlay.mp4'
    """
    first = next(iter(maps.values()))
    scene = {
        "crop": asdict(first.crop),
        "frame_of_time": first.frame_of_time.tolist(),
        "seconds": first.seconds.tolist(),
        "playback_seconds": first.playback_seconds,
        "num_frames": len(first.frames),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_SCENE, json.dumps(scene))
        for index, frame in enumerate(first.frames):
            archive.writestr(f"frames/{index:04d}.jpg", jpeg(frame, quality=_QUALITY))
        for name, one in maps.items():
            archive.writestr(f"maps/{name}.json", json.dumps(_description(one)))
            cells = io.BytesIO()
            np.save(cells, one.cells)
            archive.writestr(f"maps/{name}.npy", cells.getvalue())


def map_names(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the maps in a file, in the order in which they were written."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return [name.removeprefix("maps/").removesuffix(".json") for name in names if _is_description(name)]


def read_maps(path: str | os.PathLike[str], name: str) -> AttentionMaps:
    """Read one map with the frames.

    Args:
        path: File that `write_maps` wrote.
        name: Name of the map.

    Raises:
        KeyError: The file has no map of this name.
    """
    with zipfile.ZipFile(path) as archive:
        scene = json.loads(archive.read(_SCENE))
        described = json.loads(archive.read(f"maps/{name}.json"))
        cells = np.load(io.BytesIO(archive.read(f"maps/{name}.npy")), allow_pickle=False)
        frames = [_image(archive.read(f"frames/{index:04d}.jpg")) for index in range(scene["num_frames"])]
    grid, query, crop = described.pop("grid"), described.pop("query"), scene["crop"]
    box = crop.pop("region_box")
    return AttentionMaps(
        cells=cells,
        grid=CellGrid(**{field: _triple(values) for field, values in grid.items()}),
        crop=SpatialView(**crop, region_box=None if box is None else (box[0], box[1], box[2], box[3])),
        frames=frames,
        frame_of_time=np.array(scene["frame_of_time"], np.int64),
        seconds=np.array(scene["seconds"], np.float64),
        playback_seconds=scene["playback_seconds"],
        query=None if query is None else QueryPoint(**query),
        **described,
    )


def jpeg(frame: NDArray[np.uint8], *, quality: int = 80, long_side: int | None = None) -> bytes:
    """Return a frame (height, width, 3) as JPEG, with its longer side at most this many pixels."""
    image = Image.fromarray(frame)
    if long_side is not None:
        image.thumbnail((long_side, long_side))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return data.getvalue()


def _is_description(name: str) -> bool:
    return name.startswith("maps/") and name.endswith(".json")


def _description(maps: AttentionMaps) -> dict[str, Any]:
    return {
        "method": maps.method,
        "quantity": maps.quantity,
        "layer": maps.layer,
        "grid": asdict(maps.grid),
        "caption": maps.caption,
        "query": None if maps.query is None else asdict(maps.query),
        "query_index": maps.query_index,
    }


def _image(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data), formats=["JPEG"]))


def _triple(values: Sequence[Any]) -> tuple[Any, Any, Any]:
    first, second, third = values
    return first, second, third
