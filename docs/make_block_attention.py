"""Writes the tables on the default block's attention in docs/faithfulness.md from benchmarks/results/.

python docs/make_block_attention.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "faithfulness.md"
RESULTS = ROOT / "benchmarks" / "results" / "block_attention.json"
RESULTS_64 = ROOT / "benchmarks" / "results" / "block_attention_64.json"
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
    f"query, {SHIPPED}, above all places' mean": "the same, less what all places attend to",
    "query, former block": "the same place in the former block",
}
LOOKS, PERTURBED = ("correlation", "border"), ("lost", "kept")


def page_with_tables(text: str, found: dict[str, Any], found_64: dict[str, Any]) -> str:
    """The page's text with what stands between its markers as the results say, of 32 and of 64 frames."""
    tables = {kind: table(found) for kind, table in TABLES.items()}
    tables |= {f"{kind}_64": TABLES[kind](found_64) for kind in ("settings", "maps", "differences")}
    for kind, table in tables.items():
        before, begin, rest = text.partition(f"<!-- block_{kind} -->\n")
        _, end, after = rest.partition(f"<!-- /block_{kind} -->")
        text = f"{before}{begin}{table}\n{end}{after}"
    return text


def settings(found: dict[str, Any]) -> str:
    """Describe the clips."""
    chosen, asked = (found["figures"][part] for part in PARTS)
    which = (
        "these"
        if asked["perturbed"] == asked["clips"]
        else f"the first {asked['perturbed']} of these in the order of their names"
    )
    perturbed = (
        f"The last two columns are of {which}, where the answer's mean probability is {asked['score']:.2f}. Scores by "
        f"OpenVINO in float32, on {found['machine']['processor']}."
        if asked["perturbed"]
        else "No clip was blurred at this view."
    )
    return (
        f"{found['frames']} frames. Directions and settings from the {chosen['clips']} clips of `clips`; figures of "
        f"the {asked['clips']} clips of `windows`. {perturbed}"
    )


def maps(found: dict[str, Any]) -> str:
    """Describe each map, on the clips that were not chosen on."""
    return _maps(found["figures"]["asked of"], found["share"])


def chosen(found: dict[str, Any]) -> str:
    """Return the table for the clips that were chosen on, where more maps were perturbed."""
    return _maps(found["figures"]["chosen on"], found["share"])


def differences(found: dict[str, Any]) -> str:
    """Each map less the attention of the default's block, each clip with itself."""
    part = found["figures"]["asked of"]
    body = [
        [words, *(_figure(_of_all(part, name, figure), "less_shipped") for figure in PERTURBED)]
        for name, words in ROWS.items()
        if name != SHIPPED and _of_all(part, name, "lost")
    ]
    return _table(["less the attention of the default's block", "lost", "kept"], *body)


PARTS = ("chosen on", "asked of")
TABLES = {"settings": settings, "maps": maps, "differences": differences, "chosen": chosen}


def _maps(part: dict[str, Any], share: float) -> str:
    columns = [*LOOKS, *(PERTURBED if part["perturbed"] else ())]
    words = {"lost": f"lost, {share:.0%} blurred"}
    body = [
        [words_of_map, *(_figure(_of_all(part, name, figure)) for figure in columns)]
        for name, words_of_map in ROWS.items()
        if name in part["maps"]
    ]
    return _table(["places are ranked by", *(words.get(figure, figure) for figure in columns)], *body)


def _of_all(part: dict[str, Any], name: str, figure: str) -> dict[str, Any] | None:
    """A figure of all clips of a part, or of all that were perturbed; None if some lack it."""
    found: dict[str, Any] | None = part["maps"][name].get(figure)
    return found if found and found["clips"] in (part["clips"], part["perturbed"]) else None


def _figure(found: dict[str, Any] | None, less: str | None = None) -> str:
    if found is None:
        return ""
    sign, found = ("+", found[less]) if less else ("", found)
    low, high = found["interval"]
    return f"{found['mean']:{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f})"


def _table(*rows: list[str]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    measured = [json.loads(path.read_text("utf-8")) for path in (RESULTS, RESULTS_64)]
    PAGE.write_text(page_with_tables(PAGE.read_text("utf-8"), *measured), "utf-8")
