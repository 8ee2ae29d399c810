"""Make the README's picture from the sample clip: `python docs/make_pictures.py`.

Three rows of the same four frames: attention received, what the marked hand attends to, evidence for the answer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import nonlocal_video as nlv
from nonlocal_video.attention.maps import QueryPoint
from nonlocal_video.samples import fetch_samples

FRAMES = (10, 24, 40, 54)
HAND = QueryPoint(seconds=0.4, x=0.24, y=0.42)
WIDTH = 1200


def main() -> None:
    dancer = fetch_samples()[0].path
    with nlv.load("default") as recognizer:
        explanation = recognizer.explain_all(dancer)
    rows = [explanation.attention_received(), explanation.query(HAND), explanation.class_evidence()]
    sheet = np.concatenate([np.concatenate([maps.draw_frame(index) for index in FRAMES], axis=1) for maps in rows])
    picture = Image.fromarray(sheet)
    picture = picture.resize((WIDTH, round(WIDTH * picture.height / picture.width)), Image.Resampling.LANCZOS)
    picture.save(Path(__file__).parent / "images" / "dancer.jpg", quality=82, optimize=True)


if __name__ == "__main__":
    main()
