"""Writes the measured tables of docs/faithfulness.md and its picture from benchmarks/results/faithfulness.json.

python docs/make_faithfulness.py
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "faithfulness.md"
PICTURE = ROOT / "docs" / "images" / "faithfulness.png"
RESULTS = ROOT / "benchmarks" / "results" / "faithfulness.json"
BASELINES = {"blur": "blur", "mean_colour": "mean colour"}
CURVES = ("deletion", "insertion")
LINES = {  # order in the picture: colour and style
    "class evidence": ("#c1121f", "-"),
    "class evidence, displaced": ("#c1121f", ":"),
    "class evidence, averaged over time": ("#c1121f", "--"),
    "centre": ("#555555", "-."),
}


def page_with_tables(text: str, results: dict[str, Any]) -> str:
    """The page's text with what stands between its markers as the results say."""
    for marker, table in TABLES.items():
        before, begin, rest = text.partition(f"<!-- {marker} -->\n")
        _, end, after = rest.partition(f"<!-- /{marker} -->")
        text = f"{before}{begin}{table(results)}\n{end}{after}"
    return text


def settings(results: dict[str, Any]) -> str:
    """Describe the clips and the method of the measurement."""
    chosen, clips, machine = results["settings"], results["clips"], results["machine"]
    view, labelled = chosen["view"], sum(clip["label"] is not None for clip in clips)
    origins = {clip["origin"] for clip in clips} - {None}
    fractions = "; ".join(
        f"{BASELINES[name]} at {', '.join(f'{fraction:g}' for fraction in of_one)}"
        for name, of_one in chosen["fractions"].items()
    )
    draws = f"{chosen['draws']} displaced map{'s' if chosen['draws'] > 1 else ''}"
    others = f", and {len(clips) - labelled} from {len(origins)} repositories without labels" if origins else ""
    return (
        f"`{chosen['model']}`, {view['num_frames']} frames of {view['crop']} pixels. {len(clips)} clips: {labelled} of "
        f"as many Kinetics classes{others}. Shares taken away: {fractions}. The blur has a standard deviation of "
        f"{chosen['blur_sigma_pixels']:g} pixels. {draws} of each map and clip. Maps by PyTorch, scores by "
        f"{'OpenVINO' if chosen['runtime'] == 'openvino' else 'PyTorch'} in float32, on {machine['processor']}."
    )


def areas(results: dict[str, Any]) -> str:
    """Area below each curve."""
    head = [f"{curve}, {words}" for words in BASELINES.values() for curve in CURVES]
    rows = [["places are ranked by", *head]]
    for name in LINES:
        cells = [_figure(results["figures"][one]["areas"].get(name, {}).get(c)) for one in BASELINES for c in CURVES]
        rows.append([name, *cells])
    return _table(*rows)


def gains(results: dict[str, Any]) -> str:
    """Differences of areas, each clip with itself."""
    head = [f"{curve}, {words}" for words in BASELINES.values() for curve in CURVES]
    rows = [["compared", *head]]
    total = len(results["clips"])
    for pair in results["figures"]["blur"]["gains"]:
        found = [results["figures"][one]["gains"].get(pair, {}).get(curve) for one in BASELINES for curve in CURVES]
        rows.append([pair.replace(" - ", " against "), *(_gain(one, total) for one in found)])
    return _table(*rows)


def sanity(results: dict[str, Any]) -> str:
    """Rank correlations."""
    rows = [["maps", "Spearman's rank correlation", "its size on average"]]
    for name, found in results["figures"]["rank_correlation"].items():
        rows.append([name, _figure(found, signed=True), f"{found['mean_absolute']:.2f}"])
    return _table(*rows)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "faith_settings": settings,
    "faith_areas": areas,
    "faith_gains": gains,
    "faith_sanity": sanity,
}


def draw(results: dict[str, Any]) -> None:
    """The mean curves with blurred places."""
    from matplotlib.figure import Figure  # not pyplot, which would choose a window system

    figure = Figure(figsize=(9, 4), layout="constrained")
    for ax, curve in zip(figure.subplots(1, 2, sharey=True), CURVES, strict=True):
        for name, (colour, style) in LINES.items():
            scores = results["figures"]["blur"]["mean_curves"][name][curve]
            ax.plot(results["settings"]["fractions"]["blur"], scores, style, color=colour, label=name, linewidth=1.6)
        ax.set(xlabel=f"share of the places {'blurred' if curve == 'deletion' else 'shown'}", xlim=(0, 1))
        ax.set_title(f"{curve}: {'lower' if curve == 'deletion' else 'higher'} is better", fontsize=10)
        ax.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set(ylabel="probability of the class", ylim=(0, None))
    lines, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, names, fontsize=8, frameon=False, loc="outside lower center", ncols=4)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100)
    Image.open(drawn).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(PICTURE, optimize=True)


def _figure(found: dict[str, Any] | None, *, signed: bool = False) -> str:
    if found is None:
        return ""
    sign = "+" if signed else ""
    low, high = found["interval"]
    return f"{found['mean']:{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f})"


def _gain(found: dict[str, Any] | None, total: int) -> str:
    return "" if found is None else f"{_figure(found, signed=True)}, {found['clips_above_0']} of {total}"


def _table(*rows: list[str]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    measured = json.loads(RESULTS.read_text("utf-8"))
    PAGE.write_text(page_with_tables(PAGE.read_text("utf-8"), measured), "utf-8")
    draw(measured)
