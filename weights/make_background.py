"""Make `weights/background.safetensors`: features of one window of each of some unrelated videos.

    python weights/make_background.py VIDEO_OR_FOLDER... [--every 16] [--output weights/background.safetensors]

They are the pooled numbers that the default model gives for the middle of a clip, and hold no picture. The file in the
package was made of every sixteenth of about 480 clips of many kinds, 31 windows; `teach` needs only that they are of
nothing in particular.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from safetensors.numpy import save

import nonlocal_video as nlv
from nonlocal_video.inference.files import find_files


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--every", type=int, default=16)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("background.safetensors"))
    arguments = parser.parse_args()
    found = [path for path in find_files(arguments.paths) if isinstance(path, str)][:: arguments.every]
    rows = []
    with nlv.load() as recognizer:
        for path in found:
            try:
                rows.append(recognizer.classify(path).features)
            except nlv.VideoError as error:
                print(f"left out: {path}: {error}")
    arguments.output.write_bytes(save({"features": np.stack(rows).astype(np.float16)}))
    print(f"{len(rows)} windows written to {arguments.output}")


if __name__ == "__main__":
    main()
