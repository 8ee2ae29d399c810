"""Result of a search."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from nonlocal_video.errors import VideoError
from nonlocal_video.notebook import data_frame
from nonlocal_video.retrieval.hit import Hit
from nonlocal_video.retrieval.result_files import COLUMNS, cut_hits, write_hits

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class SearchResult(Sequence[Hit]):
    """The moments that a search found, best first; a sequence of them.

    Attributes:
        query: What was asked for, as JSON: `like` and `unlike` with their paths and seconds, `model`, `layer`,
            `refined` and the number of windows, files and files without features.
        hits: Best first.
        examples: Path, start and end in seconds of each positive example.
        notes: Sentences for the user.
    """

    query: dict[str, Any]
    hits: tuple[Hit, ...]
    examples: tuple[tuple[str, float, float], ...]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        best = f", best {self.hits[0].score:.3f} in {self.hits[0].path!r}" if self.hits else ""
        return f"SearchResult({len(self.hits)} moments{best})"

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    @overload
    def __getitem__(self, index: int) -> Hit: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...

    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[index]

    def to_json(self) -> dict[str, Any]:
        """Return query and hits, as `search --json` prints them."""
        return {"query": self.query, "hits": [hit.to_row() for hit in self.hits]}

    def to_pandas(self) -> pandas.DataFrame:
        """Return the hits as a data frame with the columns of the CSV.

        Raises:
            UsageError: pandas is not installed.
        """
        rows = [hit.to_row() for hit in self.hits]
        return data_frame({name: [row[name] for row in rows] for name in COLUMNS})

    def save(self, output: str | os.PathLike[str], *, csv_escape: bool = True) -> Path:
        """Write the hits as .csv, .jsonl, .json, .png (a frame of each) or .html (plays them).

        Args:
            output: A new file.
            csv_escape: In a CSV, put an apostrophe before names that a spreadsheet would take for a formula.

        Raises:
            UsageError: Unknown ending, the folder is not there, or something has this name.
            OutputError: It cannot be written.
        """
        return write_hits(output, self.query, self.hits, examples=self.examples, csv_escape=csv_escape)

    def cut(
        self,
        folder: str | os.PathLike[str],
        *,
        on_failure: Callable[[Hit, VideoError], None] | None = None,
    ) -> list[Path]:
        """Write each hit as an MP4 without sound, named `RANK_START-END_NAME.mp4`, and return the files.

        Args:
            folder: Made if it is not there.
            on_failure: Called with each hit whose video cannot be read; the others are written all the same. Without
                it, the first such error is raised once the others are written.

        Raises:
            UsageError: A file of that name is there already.
            OutputError: The folder or a file cannot be written.
            VideoError: A video cannot be read.
        """
        failed: list[VideoError] = []
        paths = cut_hits(self.hits, folder, on_failure=on_failure or (lambda hit, error: failed.append(error)))
        if failed:
            raise failed[0]
        return paths
