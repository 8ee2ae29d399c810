"""Names in the checkpoints of torchvision's video transformers: its own, with the classifier as `head`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

HEADS = {"mvit_v2_s": "head.1.weight", "swin3d_t": "head.weight"}
"""Name of the classifier's weights by model."""


class TransformerLayout:
    """Renames tensors of a `TorchvisionNetwork`."""

    title = "torchvision"

    def names(self, ours: Iterable[str], _config: Any) -> dict[str, str]:
        """Return their name of each of our tensors."""
        return {name: re.sub("^model[.]|^classifier(?=[.])", _in_theirs, name) for name in ours}


def _in_theirs(start: re.Match[str]) -> str:
    return "head" if start[0] == "classifier" else ""


LAYOUT = TransformerLayout()
