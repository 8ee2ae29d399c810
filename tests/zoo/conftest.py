"""Fixtures of the zoo's tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from published_tensors import THIN

from nonlocal_video.zoo import convert
from nonlocal_video.zoo.catalogue import entries


@pytest.fixture(scope="module")
def thin_catalogue() -> Iterator[None]:
    """The catalogue's networks are an eighth as wide for the converters."""
    rows = {
        row.name: replace(row, config={**row.config, "width": 64 // THIN})
        for row in entries().values()
        if row.architecture == "resnet3d"
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "entries", lambda: rows)
        patch.setattr(convert, "entry", rows.__getitem__)
        yield
