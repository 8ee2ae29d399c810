"""The hits of a search as one HTML page that plays them, with no other file than the videos themselves."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from nonlocal_video.frame_folders import is_jpeg, natural_order, rate_of_frame_folders
from nonlocal_video.inference.object_storage import is_remote
from nonlocal_video.inference.prediction import printable
from nonlocal_video.retrieval.hit import Hit

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; media-src * file:; img-src * file:; style-src 'unsafe-inline';
  script-src 'unsafe-inline'">
<title>Moments found</title>
<style>
  body {{ font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem; color-scheme: light dark }}
  ol, ul {{
    list-style: none; padding: 0; display: grid; gap: 1rem;
    grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr))
  }}
  video, img {{ width: 100%; aspect-ratio: 16 / 10; background: #000; object-fit: contain }}
  button {{ display: block; width: 100%; padding: 0; border: 0; background: none; cursor: pointer }}
  b, small {{ display: block; overflow-wrap: anywhere }}
  small {{ opacity: .75 }}
</style>
<h1>Moments found</h1>
<h2>Like</h2>
<ul>
{examples}
</ul>
<h2>Found, the most alike first</h2>
<ol>
{hits}
</ol>
<script>
// A media fragment stops a player at its end only once: played again, a moment starts at its beginning.
for (const video of document.querySelectorAll("video")) {{
  const start = Number(video.dataset.start), end = Number(video.dataset.end);
  video.addEventListener("play", () => {{
    if (video.currentTime < start - 0.05 || video.currentTime >= end - 0.05) video.currentTime = start;
  }});
  video.addEventListener("timeupdate", () => {{
    if (video.currentTime >= end && !video.paused) video.pause();
  }});
}}
for (const image of document.querySelectorAll("img")) {{
  const frames = JSON.parse(image.dataset.frames);
  let number = 0, timer = 0;
  image.parentElement.addEventListener("click", () => {{
    clearInterval(timer);
    timer = timer ? 0 : setInterval(() => {{
      number = (number + 1) % frames.length;
      image.src = frames[number];
    }}, 1000 / Number(image.dataset.rate));
  }});
}}
</script>
</html>
"""
_ITEM = """<li><video controls muted playsinline preload="metadata" data-start="{start:.3f}" data-end="{end:.3f}"
src="{source}"></video>
<b>{caption}</b><small>{name}</small></li>"""

_FRAMES = """<li><button type="button" title="Play or pause"><img alt="" src="{source}" data-rate="{rate:g}"
data-frames="{frames}"></button>
<b>{caption}</b><small>{name}</small></li>"""
_ROUNDING_FRAMES = 1e-3


def page_of(hits: Sequence[Hit], examples: Sequence[tuple[str, float, float]], folder: Path) -> str:
    """Return the page.

    Args:
        hits: Best first.
        examples: Path, start and end in seconds of each positive example.
        folder: Where the page will lie. Videos are addressed relative to it, so that page and videos can move together.
    """
    return _PAGE.format(
        examples="\n".join(_item(path, start, end, "example", folder) for path, start, end in examples),
        hits="\n".join(
            _item(hit.path, hit.start_seconds, hit.end_seconds, f"{hit.rank}. {hit.score:.3f}", folder) for hit in hits
        ),
    )


def address_of(path: str, folder: Path) -> str:
    """Return the address of a video for a page in this folder: relative and percent-encoded, byte by byte."""
    if is_remote(path):
        return path
    try:
        relative = os.path.relpath(os.path.abspath(path), os.path.abspath(folder))
    except ValueError:  # another drive of Windows
        return Path(os.path.abspath(path)).as_uri()
    parts = [quote(os.fsencode(part), safe="") for part in relative.split(os.sep)]
    return "/".join(["." if parts[0] != ".." else "..", *(parts if parts[0] != ".." else parts[1:])])


def _item(path: str, start: float, end: float, caption: str, folder: Path) -> str:
    words = {"caption": escape(f"{caption}   {start:.2f} - {end:.2f} s"), "name": escape(printable(path))}
    rate = rate_of_frame_folders()
    if rate is not None and (frames := _frames_of(path, start, end, rate)):
        sources = [address_of(frame, folder) for frame in frames]
        return _FRAMES.format(source=escape(sources[0]), frames=escape(json.dumps(sources)), rate=rate, **words)
    source = f"{address_of(path, folder)}#t={start:.3f},{end:.3f}"
    return _ITEM.format(start=start, end=end, source=escape(source), **words)


def _frames_of(path: str, start: float, end: float, rate: float) -> list[str]:
    """Return the pictures of a folder of JPEGs that are shown in [start, end); none of anything else."""
    if is_remote(path) or not os.path.isdir(path):
        return []
    names = sorted(filter(is_jpeg, os.listdir(path)), key=natural_order)
    first = math.floor(start * rate + _ROUNDING_FRAMES)
    stop = max(first + 1, math.ceil(end * rate - _ROUNDING_FRAMES))
    return [os.path.join(path, name) for name in names[first:stop]]
