"""Plots of the analyser, as PNG or another matplotlib format by the file's extension."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nonlocal_video.analysis.effective_receptive_field import TWO_SIGMA, EffectiveField, FieldComparison
from nonlocal_video.analysis.patterns import AttentionPattern

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _ACCENT, _PALE = "#222222", "#d1495b", "#8d99ae"


def draw_fields(comparison: FieldComparison, path: str | os.PathLike[str]) -> Path:
    """Plot the gradient of the middle unit with and without blocks, over the frame and over time.

    Dashed boxes are the theoretical fields. Colours are logarithmic, down to a thousandth of the peak.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure  # not pyplot, which would choose a windowing backend

    variants = {"with non-local blocks": comparison.with_blocks, "without": comparison.without_blocks}
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots(1, 3)
    for ax, (description, field) in zip(axes, variants.items(), strict=False):
        picture = field.gradient.sum(axis=tuple(range(field.gradient.ndim - 2)))
        peak = picture.max()
        ax.imshow(np.maximum(picture, peak / 1e3), norm=LogNorm(peak / 1e3, peak), cmap="magma")
        _box(ax, field)
        height, width = field.extent[-2:]
        ax.set_title(f"{description}\neffective {height} x {width} pixels", fontsize=10)
        ax.set_xlabel("pixel")
    along, label = (0, "frame") if comparison.with_blocks.gradient.ndim == 3 else (1, "column, pixels")
    for (description, field), colour in zip(variants.items(), (_ACCENT, _INK), strict=True):
        profile = field.profile(along)
        axes[2].plot(profile / profile.max(), color=colour, label=f"{description}: {field.extent[along]}")
    axes[2].axhline(TWO_SIGMA, color=_PALE, linestyle="--", linewidth=1)
    axes[2].set(xlabel=label, ylabel="gradient / peak", yscale="log", ylim=(1e-4, 1.5))
    axes[2].legend(fontsize=8, frameon=False)
    share = comparison.share_beyond
    axes[2].set_title(f"{share:.2%} from beyond the convolutions' field", fontsize=10)
    figure.suptitle(f"Receptive field of {comparison.with_blocks.theoretical.layer}", fontsize=11)
    return _save(figure, path)


def draw_patterns(patterns: Sequence[AttentionPattern], path: str | os.PathLike[str]) -> Path:
    """Plot for each block the entropies of its rows in all clips with ln M, and attention by temporal distance."""
    from matplotlib.figure import Figure

    blocks = list(dict.fromkeys(pattern.block for pattern in patterns))
    if not blocks:
        raise ValueError("there are no patterns to draw.")
    figure = Figure(figsize=(10, 3.2 * len(blocks)), layout="constrained")
    for (left, right), block in zip(figure.subplots(len(blocks), 2, squeeze=False), blocks, strict=True):
        found = [pattern for pattern in patterns if pattern.block == block]
        limit = found[0].maximum_entropy_nats
        left.hist(np.concatenate([pattern.entropies for pattern in found]), bins=60, color=_PALE)
        left.axvline(limit, color=_ACCENT, label=f"ln M = {limit:.2f}")
        left.set(xlabel="row entropy, nats", ylabel="query rows", xlim=(-0.02 * max(limit, 0.1), None))
        left.legend(fontsize=8, frameon=False)
        note = " (adds exactly 0: identity)" if found[0].is_identity else ""
        left.set_title(f"{block}, {len(found)} clips{note}", fontsize=10)
        for pattern in found:
            right.plot(pattern.share_by_distance, color=_PALE, linewidth=0.8)
        lengths = {len(pattern.share_by_distance) for pattern in found}
        if len(lengths) == 1:
            mean = np.mean([pattern.share_by_distance for pattern in found], axis=0)
            right.plot(mean, color=_INK, marker="o", label="mean over clips")
        right.plot(found[0].equal_share_by_distance, color=_ACCENT, linestyle="--", label="even attention")
        right.set(xlabel="distance in time, feature frames", ylabel="share of attention", ylim=(0, None))
        right.legend(fontsize=8, frameon=False)
    return _save(figure, path)


def _box(ax: Axes, field: EffectiveField) -> None:
    """Return the theoretical field, clipped to the frame."""
    from matplotlib.patches import Rectangle

    theoretical = field.theoretical
    axes = range(len(theoretical.cells))[-2:]
    (top, bottom), (left, right) = (theoretical.span(axis, theoretical.centre[axis]) for axis in axes)
    box = Rectangle(
        (left - 0.5, top - 0.5), right - left + 1, bottom - top + 1, fill=False, edgecolor="white", linestyle="--"
    )
    ax.add_patch(box)


def _save(figure: object, path: str | os.PathLike[str]) -> Path:
    from matplotlib.figure import Figure

    assert isinstance(figure, Figure)
    path = Path(path)
    figure.savefig(path, dpi=110)
    return path
