"""Number of views of a clip whose scores are averaged: `CLIPSxCROPS`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nonlocal_video.errors import UsageError

ALLOWED_CROPS = (1, 3)


@dataclass(frozen=True)
class ViewCount:
    """Number of temporal clips times spatial crops; the paper's protocol is 10x3."""

    num_clips: int = 1
    """Number of temporal clips."""
    num_crops: int = 1
    """Number of spatial crops per clip, 1 or 3."""

    def __str__(self) -> str:
        return f"{self.num_clips}x{self.num_crops}"

    @classmethod
    def parse(cls, text: str) -> ViewCount:
        """Parse a view count: `"10x3"` is 10 clips with 3 crops each.

        Raises:
            UsageError: The text is invalid.
        """
        match = re.fullmatch(r"([1-9]\d{0,2})x(\d+)", str(text))
        if match is None or int(match[2]) not in ALLOWED_CROPS:
            raise UsageError(
                f"views = {text!r} should be CLIPSxCROPS with 1 to 999 clips and 1 or 3 crops, such as 1x1 or 10x3."
            )
        return cls(int(match[1]), int(match[2]))
