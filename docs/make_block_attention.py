"""Writes the tables on the default block's attention in docs/faithfulness.md from benchmarks/results/.

python docs/make_block_attention.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "faithfulness.md"
RESULTS = {view: ROOT / "benchmarks" / "results" / f"block_attention_{view}.json" for view in ("fast", "default")}
SHIPPED = "dot product, without 4 of the padding"
ROWS = {  # as the page calls them, in its order
    SHIPPED: "**attention of the default's block**",
    f"{SHIPPED}, finer, root of the norm": "the same on the cells of `Mixed_4f`, times the root of the norm there",
    "dot product": "the same with the padding's directions left in",
    "dot product, less empty": "the same, an empty clip's features taken from the keys",
    "former block": "the default's former block: `Mixed_4f`, whitened, softmax",
    "cosine": "softmax of the cosine / 0.1",
    "dot product, head": "dot product of what the places say about the 400 classes",
    "norm": "length of the features",
    "centre": "nearness to the centre",
    "chance": "random cells",
    "evidence": "class evidence",
    f"query, {SHIPPED}": "what the place of most evidence attends to",
    f"query, {SHIPPED}, displaced": "the same, displaced",
    "query, former block": "the same place in the former block",
}
LOOKS, PERTURBED = ("correlation", "border"), ("lost", "kept")


def page_with_tables(text: str, results: dict[str, dict[str, Any]]) -> str:
    """The page's text with what stands between its markers as the results say."""
    for view, found in results.items():
        for kind, table in (("settings", settings), ("maps", maps), ("differences", differences)):
            marker = f"block_{view}_{kind}"
            before, begin, rest = text.partition(f"<!-- {marker} -->\n")
            _, end, after = rest.partition(f"<!-- /{marker} -->")
            if begin and end:
                text = f"{before}{begin}{table(found)}\n{end}{after}"
    return text


def settings(found: dict[str, Any]) -> str:
    """Describe the clips."""
    chosen, asked = (found["figures"][part] for part in ("chosen on", "asked of"))
    some = "" if asked["perturbed"] == asked["clips"] else f", {asked['perturbed']} of them for the last two columns"
    return (
        f"{found['frames']} frames. Directions and settings from {chosen['clips']} clips of `clips`; figures of "
        f"{asked['clips']} other clips of `windows`{some}. The answer's mean probability is {asked['score']:.2f}. "
        f"Scores by OpenVINO in float32, on {found['machine']['processor']}."
    )


def maps(found: dict[str, Any]) -> str:
    """What each map is like."""
    head = ["places are ranked by", "correlation", "border", f"lost, {found['share']:.0%} blurred", "kept"]
    rows = found["figures"]["asked of"]["maps"]
    body = [
        [words, *(_figure(rows[name].get(figure)) for figure in (*LOOKS, *PERTURBED))]
        for name, words in ROWS.items()
        if name in rows
    ]
    return _table(head, *body)


def differences(found: dict[str, Any]) -> str:
    """Each map less the attention of the default's block, each clip with itself."""
    rows = found["figures"]["asked of"]["maps"]
    body = [
        [words, *(_figure((rows[name].get(figure) or {}).get("less_shipped"), signed=True) for figure in PERTURBED)]
        for name, words in ROWS.items()
        if name != SHIPPED and "less_shipped" in rows.get(name, {}).get("lost", {})
    ]
    return _table(["less the attention of the default's block", "lost", "kept"], *body)


def _figure(found: dict[str, Any] | None, *, signed: bool = False) -> str:
    if found is None:
        return ""
    sign = "+" if signed else ""
    low, high = found["interval"]
    return f"{found['mean']:{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f})"


def _table(*rows: list[str]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    measured = {view: json.loads(path.read_text("utf-8")) for view, path in RESULTS.items() if path.is_file()}
    PAGE.write_text(page_with_tables(PAGE.read_text("utf-8"), measured), "utf-8")
