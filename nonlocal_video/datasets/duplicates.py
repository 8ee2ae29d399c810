"""Detection of clips with the same content: the same bytes, or the same frames in another file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 6
"""Largest difference between thumbnails of the same content, of 255: another decoder or encoder, but not take."""


def same_content(
    sha256: Sequence[str],
    num_frames: Sequence[int],
    thumbnails: NDArray[np.uint8],
    segment_of: Sequence[str | None] | None = None,
) -> NDArray[np.int64]:
    """Number the contents of clips.

    Two clips have the same content if their bytes are equal, or if they have equally many frames and their thumbnails
    differ by at most `TOLERANCE` everywhere. That finds copies in another container, resolution or (mild) compression;
    not cut, mirrored or retimed ones.

    Args:
        sha256: Of each clip's bytes.
        num_frames: Of each clip.
        thumbnails: (clips, frames, height, width, 3), at the same places of each clip.
        segment_of: The video of which a clip is a segment, if it is one. Segments of one video are never the same: a
            scene that stands still shows the same twice.

    Returns:
        (clips,) numbers, the same for the same content, counted in the order of the clips.
    """
    frames = np.asarray(num_frames)
    # Equal thumbnails are linked here, so that a thousand black clips are one point of the search and not half a
    # million pairs.
    pictures = [(int(count), small.tobytes()) for count, small in zip(frames, thumbnails, strict=True)]
    pairs = link_equal(sha256, pictures)
    distinct = np.array(sorted({picture: place for place, picture in reversed(list(enumerate(pictures)))}.values()))
    for count in np.unique(frames):
        members = distinct[frames[distinct] == count]
        pairs += [(int(members[a]), int(members[b])) for a, b in _alike(thumbnails[members])]
    if segment_of is not None:
        pairs = [(a, b) for a, b in pairs if segment_of[a] is None or segment_of[a] != segment_of[b]]
    return connected(len(sha256), pairs)


def connected(size: int, pairs: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Number the connected components of a graph given by pairs, in order of first appearance: (size,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(ends.shape[1]), (ends[0], ends[1])), shape=(size, size))
    _, found = connected_components(graph, directed=False)
    _, first, numbers = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[numbers]


def link_equal(*lists: Sequence[Any]) -> list[tuple[int, int]]:
    """Return pairs of indices with an equal key in any of the lists; None is no key."""
    pairs = []
    for keys in lists:
        first: dict[Any, int] = {}
        for place, key in enumerate(keys):
            if key is not None and first.setdefault(key, place) != place:
                pairs.append((first[key], place))
    return pairs


def sameness(sha256: Sequence[str]) -> Literal["bytes", "pictures"]:
    """Return how clips of the same content agree: in bytes, or in frames only."""
    return "bytes" if len(set(sha256)) == 1 else "pictures"


def _alike(thumbnails: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Return pairs of clips with similar thumbnails.

    Means differ by no more than what they are means of, so a search among a few means of each clip misses no pair; what
    it finds is compared in full.
    """
    if len(thumbnails) < 2:
        return []
    from scipy.spatial import cKDTree

    clips, frames, height, width, _ = thumbnails.shape
    values = thumbnails.astype(np.float32)
    quarters = values.reshape(clips, frames, 2, height // 2, 2, width // 2, 3).mean(axis=(3, 5, 6))
    tree = cKDTree(quarters.reshape(clips, -1))
    near = tree.query_pairs(TOLERANCE + 1e-3, p=np.inf)
    return [(a, b) for a, b in sorted(near) if np.abs(values[a] - values[b]).max() <= TOLERANCE]
