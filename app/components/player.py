"""The player: the clip, maps over it, and questions about a point; the parts from which a `gr.HTML` is made."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from .. import texts

_HERE = Path(__file__).parent


def script(*names: str) -> str:
    """Return scripts of this folder as one, for `js_on_load`; later ones use functions of those before."""
    return "\n".join((_HERE / f"{name}.js").read_text(encoding="utf-8") for name in names)


PLAYER_SCRIPTS = ("percent", "heat", "strip", "player")
PLAYER_STYLE = (_HERE / "player.css").read_text(encoding="utf-8")


def player_template() -> str:
    """Return the player's elements, with their words."""
    words = {name: html.escape(text) for name, text in texts.PLAYER.items()}
    modes = "".join(
        f'<label class="mode-{mode}"><input type="radio" name="shown" value="{mode}"><span>{words[mode]}</span></label>'
        for mode in ("clip", "evidence", "attention")
    )
    speeds = "".join(
        f'<label><input type="radio" name="speed" value="{speed}"{" checked" if speed == 1 else ""}>'
        f"<span>{speed:g}×</span></label>"
        for speed in (0.25, 0.5, 1)
    )
    return f"""<section class="player" aria-label="{words["clip"]}">
<div class="picture" tabindex="0" role="application" aria-label="{words["picture"]}">
<video class="whole" muted loop playsinline preload="auto" hidden></video>
<video class="span" muted loop playsinline preload="auto" hidden></video>
<canvas class="heat" aria-hidden="true"></canvas>
<svg class="marks" aria-hidden="true"></svg>
<p class="cannot" hidden>{words["cannot"]}</p>
</div>
<div class="strip" role="slider" tabindex="0" aria-label="{words["scrub"]}" aria-valuemin="0" aria-valuemax="100"
aria-valuenow="0"><canvas class="film of-span" width="1200" height="84" aria-hidden="true"></canvas>
<canvas class="film of-whole" width="1200" height="84" aria-hidden="true"></canvas>
<svg viewBox="0 0 100 30" preserveAspectRatio="none" aria-hidden="true"><polygon class="area"></polygon>
<polyline class="line"></polyline></svg><div class="now"></div><span class="clock" aria-hidden="true"></span></div>
<div class="controls">
<button type="button" class="play" aria-label="{words["pause"]}"></button>
<div class="segmented switch" role="radiogroup" aria-label="{words["show"]}">{modes}</div>
<div class="segmented speed" role="radiogroup" aria-label="{words["speed"]}">{speeds}</div>
<label class="slider"><span>{words["strength"]}</span>
<input type="range" class="strength" min="0" max="100" value="80"></label>
</div>
<p class="legend" role="status">{words["waiting"]}</p>
<details class="numbers" hidden><summary>{words["numbers"]}</summary><ul></ul></details>
<details class="made"><summary>{words["made"]}</summary><p></p>
<p>{words["unseen"]} <a href="{texts.PAPER}" target="_blank" rel="noreferrer">{texts.PAPER_NAME}</a></p>
<button type="button" class="check quiet">{words["check"]}</button><p class="checked" role="status"></p></details>
</section>"""


def player_words() -> dict[str, Any]:
    """Return the words that the player's script says."""
    return {**texts.PLAYER, "madeOf": texts.MADE}
