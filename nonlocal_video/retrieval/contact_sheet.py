"""The hits of a search in one picture: a frame of each, with its rank, score, time and file."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from nonlocal_video.attention.contact_sheet import GAP
from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.prediction import printable
from nonlocal_video.retrieval.hit import Hit
from nonlocal_video.video.decode import VideoReader

_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

_COLUMNS = 4
_WIDTH, _HEIGHT = 300, 200
"""Size of a tile's frame, in pixels."""
_TEXT_SIZE = 14
_LINE = 19
_INK, _PAPER, _MISSING, _EXAMPLE = (30, 30, 30), (255, 255, 255), (128, 128, 128), (214, 96, 0)
MAX_TILES = 200
"""Most tiles in a sheet: more would be a picture that few programs open."""


def draw_sheet(hits: Sequence[Hit], examples: Sequence[tuple[str, float, float]] = ()) -> bytes:
    """Draw the examples and then the hits, as a PNG.

    Each hit shows the frame in the middle of its best window. A video that cannot be read has a grey tile with the
    reason.

    Args:
        hits: Best first; those beyond `MAX_TILES` have no tile, and a line says how many.
        examples: Path, start and end in seconds of each positive example.
    """
    tiles = [(path, (start + end) / 2, f"like {start:.2f} - {end:.2f} s", _EXAMPLE) for path, start, end in examples]
    for hit in hits:
        caption = f"{hit.rank}.  {hit.score:.3f}   {hit.start_seconds:.2f} - {hit.end_seconds:.2f} s"
        tiles.append((hit.path, hit.best_seconds, caption, _INK))
    left_out = len(tiles) - MAX_TILES
    tiles = tiles[:MAX_TILES]
    columns = max(1, min(_COLUMNS, len(tiles)))
    height = _HEIGHT + 2 * _LINE + GAP
    rows = -(-len(tiles) // columns)
    size = columns * (_WIDTH + GAP) + GAP, rows * (height + GAP) + GAP + (_LINE if left_out > 0 else 0)
    sheet = Image.new("RGB", size, _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT_SIZE)
    with VideoReader() as reader:
        for number, (path, seconds, caption, colour) in enumerate(tiles):
            row, column = divmod(number, columns)
            left, top = GAP + column * (_WIDTH + GAP), GAP + row * (height + GAP)
            sheet.paste(_frame(reader, path, seconds, font), (left, top))
            pen.text((left, top + _HEIGHT + 2), caption, font=font, fill=colour)
            name = _shortened(os.path.basename(printable(path)), font)
            pen.text((left, top + _HEIGHT + 2 + _LINE), name, font=font, fill=colour)
    if left_out > 0:
        pen.text((GAP, size[1] - _LINE), f"and {left_out} more", font=font, fill=_INK)
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    return stream.getvalue()


def _frame(reader: VideoReader, path: str, seconds: float, font: _Font) -> Image.Image:
    """Return a frame of a video in the middle of a tile, as large as fits."""
    tile = Image.new("RGB", (_WIDTH, _HEIGHT), _MISSING)
    try:
        picture = Image.fromarray(reader.read(path, [seconds]).frames_thwc[0])
    except (UsageError, VideoError) as error:
        code = error.code if isinstance(error, VideoError) else "not there"
        ImageDraw.Draw(tile).text((GAP, GAP), code, font=font, fill=_PAPER)
        return tile
    picture.thumbnail((_WIDTH, _HEIGHT))
    if picture.width < _WIDTH and picture.height < _HEIGHT:
        scale = min(_WIDTH / picture.width, _HEIGHT / picture.height)
        picture = picture.resize((max(1, int(picture.width * scale)), max(1, int(picture.height * scale))))
    tile.paste(picture, ((_WIDTH - picture.width) // 2, (_HEIGHT - picture.height) // 2))
    return tile


def _shortened(name: str, font: _Font) -> str:
    """Return a name for one line of a tile, its middle left out if it is too long; its beginning and end tell most."""
    name = "".join(character if character.isprintable() else "?" for character in name)
    keep = len(name)
    text = name
    while keep > 2 and font.getbbox(text)[2] > _WIDTH:
        keep -= 1
        text = f"{name[: (keep + 1) // 2]}...{name[-(keep // 2) :]}"
    return text
