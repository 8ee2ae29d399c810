"""A kept result as the page's stage shows an answer."""

from __future__ import annotations

from typing import Any

from nonlocal_video.attention.map_file import read_maps
from nonlocal_video.inference.prediction import ScoredLabel

from .. import sentences, texts
from ..components.heat import packed
from .files import CLIP, SCENE, KeptResult


def answer_of(kept: KeptResult) -> dict[str, Any]:
    """Return the event of `callbacks.recognise` for a result; its player is there when its maps are."""
    top, video = [ScoredLabel(**one) for one in kept.row["top"]], kept.row["video"]
    return {
        "state": "answer",
        "result": kept.id,
        "name": kept.row["path"],
        "headline": sentences.headline(top),
        "confidence": sentences.confidence(top),
        "top": [[one.label, round(one.score, 4)] for one in top],
        "video": {"end": kept.end_seconds, "width": video["width"], "height": video["height"]},
        "long": False,  # its moments were not kept
        "span": [round(second, 3) for second in kept.span],
        "details": [f"{kept.row['model']}: {kept.summary}.", *kept.row["notes"]],
        **({"player": _player(kept, top[0].label)} if kept.maps else {"words": kept.words}),
    }


def _player(kept: KeptResult, label: str) -> dict[str, Any]:
    legends = {"evidence": texts.EVIDENCE_LEGEND.format(label=label), "attention": texts.ATTENTION_LEGEND}
    maps = {name: read_maps(kept.folder / SCENE, name) for name in kept.maps}
    first = maps[kept.maps[0]]
    return {
        "file": {"url": f"/r/{kept.id}/{CLIP}.mp4"},
        "seconds": [round(float(second), 3) for second in first.seconds],
        "playback": first.playback_seconds,
        "seen": [round(edge, 4) for edge in first.crop.seen],
        "maps": {
            name: packed(one, legend=legends[name], label=label if name == "evidence" else None)
            for name, one in maps.items()
        },
    }
