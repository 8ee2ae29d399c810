"""A kept result on the disk, and the files that are made of it when somebody asks for them."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nonlocal_video.attention.map_file import map_names, read_maps
from nonlocal_video.attention.pictures import write_animation, write_strip
from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.inference.prediction import Prediction, printable
from nonlocal_video.video.encode import write_video

CLIP = "clip"
"""Name of the frames without a map over them."""
KINDS = (".mp4", ".gif", ".webp", ".png")
JSON, ZIP, THUMBNAIL, SCENE = "result.json", "all.zip", "thumbnail.jpg", "maps.zip"


@dataclass(frozen=True)
class KeptResult:
    """One result."""

    id: str
    row: dict[str, Any]
    """Row of `classify --json`, with the name of the file in place of its path."""
    summary: str
    """Description of what the network saw of the clip."""
    span: tuple[float, float]
    """Seconds of the clip that were seen."""
    end_seconds: float
    """Length of the clip."""
    created: float
    """Time of its creation, in seconds since 1970."""
    folder: Path
    maps: tuple[str, ...] = ()
    """Names of the maps that can be drawn; none until they are known."""
    words: str = ""
    """Why there are no maps; empty if they are still to come."""
    is_saved: bool = False
    """Whether it stays until it is deleted or the server ends."""

    @classmethod
    def of(cls, id: str, prediction: Prediction, *, created: float, folder: Path) -> KeptResult:
        """Return the result of a prediction, without maps."""
        row = prediction.to_row() | {"path": printable(Path(prediction.path).name)}
        view = prediction.views[0]
        span = (view.start_seconds, view.end_seconds)
        return cls(id, row, prediction.summary, span, prediction.video.end_seconds, created, folder)

    @property
    def name(self) -> str:
        """Name of the clip without its ending, as the beginning of the names of downloads."""
        return Path(self.row["path"]).stem or "clip"

    @property
    def files(self) -> list[str]:
        """Names of the files that `file` makes."""
        drawn = [f"{name}{kind}" for name in self.maps for kind in KINDS]
        return [JSON, *([f"{CLIP}.mp4", *drawn, THUMBNAIL, ZIP] if self.maps else [])]

    def file(self, name: str) -> Path:
        """Return one of `files`, which is made now if nobody has asked for it before.

        Raises:
            FileNotFoundError: The result was deleted meanwhile.
        """
        path = self.folder / name
        if not path.is_file():
            if not self.folder.is_dir():
                raise FileNotFoundError(self.folder)
            part = path.with_name(f"part-{name}")
            try:
                self._make(name, part)
            except (OutputError, UsageError) as error:  # of writers whose folder has vanished
                if not self.folder.is_dir():
                    raise FileNotFoundError(self.folder) from error
                raise
            os.replace(part, path)
        return path

    def _make(self, name: str, part: Path) -> None:
        if name == ZIP:
            with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
                for other in self.files:
                    if other not in (ZIP, THUMBNAIL):
                        archive.write(self.file(other), f"{self.name} {other}")
            return
        stem, _, kind = name.partition(".")
        scene = self.folder / SCENE
        maps = read_maps(scene, map_names(scene)[0] if stem == CLIP else stem)
        if stem == CLIP:
            write_video(part, map(maps.frame, range(len(maps))), fps=len(maps) / maps.playback_seconds)
        elif kind == "mp4":
            maps.save_overlay(part)
        elif kind == "png":
            write_strip(maps, part)
        else:
            write_animation(maps, part)
