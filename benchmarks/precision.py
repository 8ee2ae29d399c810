"""Measure what `--precision` does to scores and maps: the default model on labelled clips, one view each.

    python benchmarks/precision.py CLIPS... --output benchmarks/results/precision.json

CLIPS are folders with a folder of clips for each Kinetics-400 class, its name with underscores. A run that was cut off
continues with the clips that are not in the output.

bf16 is `--precision bf16 --runtime torch` on the CPU. TF32 is emulated, as it needs a GPU: every convolution and matrix
product gets its inputs and weights rounded to TF32's 10 bits after the point, to the nearest (as NVIDIA's libraries
convert them) or cut off (as the hardware reads what was not converted), and adds in float32. docs/speed.md is made from
the file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import nonlocal_video as nlv
from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.inference.explanation import Explanation
from nonlocal_video.inference.recognizer import Recognizer

DROPPED_BITS = 13
"""Bits after the point that float32 has and TF32 has not: 23 - 10."""
FACTORS = {  # positions of what is multiplied, in the arguments of PyTorch's operations
    "aten::conv3d": (0, 1),  # in inference mode PyTorch shows the operations that were called
    "aten::linear": (0, 1),
    "aten::matmul": (0, 1),
    "aten::scaled_dot_product_attention": (0, 1, 2),
    "aten::convolution": (0, 1),  # else those that they consist of
    "aten::mm": (0, 1),
    "aten::bmm": (0, 1),
    "aten::addmm": (1, 2),
    "aten::baddbmm": (1, 2),
    "aten::_scaled_dot_product_flash_attention_for_cpu": (0, 1, 2),
}


def rounded(tensor: Tensor, *, nearest: bool) -> Tensor:
    """Return a float32 tensor with 10 bits after the point: the nearest, ties to even, or the rest cut off."""
    bits = tensor.view(torch.int32)
    if nearest:
        bits = bits + (1 << (DROPPED_BITS - 1)) - 1 + ((bits >> DROPPED_BITS) & 1)
    return (bits & -(1 << DROPPED_BITS)).view(torch.float32)


class EmulatedTF32(TorchDispatchMode):
    """Rounds what convolutions and matrix products multiply.

    Attributes:
        num_rounded: Operations whose factors were rounded.
    """

    def __init__(self, *, nearest: bool) -> None:
        super().__init__()
        self.nearest, self.num_rounded = nearest, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        positions = FACTORS.get(func.name().partition(".")[0], ())
        changed = list(args)
        for position in positions:
            if changed[position].dtype == torch.float32:
                changed[position] = rounded(changed[position], nearest=self.nearest)
        self.num_rounded += bool(positions)
        return func(*changed, **(kwargs or {}))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = (
        json.loads(options.output.read_text("utf-8"))["rows"] if options.output.exists() else []
    )
    done = {(row["set"], row["class"], row["clip"]) for row in rows}
    with (
        nlv.load(options.model, device="cpu", runtime="torch") as exact,
        nlv.load(options.model, device="cpu", runtime="torch", precision="bf16") as bf16,
    ):
        modes: dict[str, tuple[Recognizer, Any]] = {
            "tf32": (exact, lambda: EmulatedTF32(nearest=True)),
            "tf32_cut_off": (exact, lambda: EmulatedTF32(nearest=False)),
            "bf16": (bf16, nullcontext),
        }
        for path, label in labelled(options.clips, exact.card.labels):
            number = sorted(path.parent.iterdir()).index(path)
            of_set = path.parent.parent.name
            if (of_set, label, number) in done:
                continue
            print(label, number, file=sys.stderr, flush=True)
            wanted = looked(exact, path, nullcontext())
            for mode, (recognizer, context) in modes.items():
                found = looked(recognizer, path, context())
                rows.append(
                    {"set": of_set, "class": label, "clip": number, "mode": mode, **compared(found, wanted, label)}
                )
            result = {
                "model": options.model,
                "machine": describe_machine(),
                "rows": rows,
                "summary": {mode: summary([row for row in rows if row["mode"] == mode]) for mode in modes},
            }
            options.output.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def labelled(folders: list[Path], labels: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    """Yield the clips and their classes."""
    for folder in folders:
        for of_class in sorted(path for path in folder.iterdir() if path.is_dir()):
            label = of_class.name.replace("_", " ")
            if label not in labels:
                raise SystemExit(f"{of_class} is not named like a class of the model.")
            yield from ((path, label) for path in sorted(of_class.iterdir()))


def looked(recognizer: Recognizer, path: Path, context: AbstractContextManager[Any]) -> tuple[Explanation, Tensor]:
    """Return what a look at a clip leaves, and the logits of its view."""
    logits: list[Tensor] = []
    handle = recognizer.inference_network.register_forward_hook(lambda _module, _inputs, output: logits.append(output))
    try:
        with context as mode:
            look = recognizer.explain_all(path)
    finally:
        handle.remove()
    assert not isinstance(mode, EmulatedTF32) or mode.num_rounded > 50
    (of_view,) = logits
    return look, of_view.float()


def compared(found: tuple[Explanation, Tensor], exact: tuple[Explanation, Tensor], label: str) -> dict[str, Any]:
    """Return how far a look and its logits are from those of float32, and what both answer."""
    (look, logits), (exact, exact_logits) = found, exact
    best = exact.prediction.top(1)[0]
    top = look.prediction.top(5)
    return {
        "logits": float((logits - exact_logits).abs().max() / exact_logits.abs().max()),
        "score": float(np.abs(look.prediction.scores - exact.prediction.scores).max()),
        "evidence": _difference(
            look.maps(method="evidence", label=best.index).cells,
            exact.maps(method="evidence", label=best.index).cells,
        ),
        "attention": _difference(look.maps(method="attention").cells, exact.maps(method="attention").cells),
        "same_top1": top[0].index == best.index,
        "same_top5": [s.index for s in top] == [s.index for s in exact.prediction.top(5)],
        "margin": best.score - exact.prediction.top(2)[1].score,
        "right": top[0].label == label,
        "right_in_float32": best.label == label,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the largest and the middle differences, and how often the answers agree."""
    differences = {
        name: {"largest": max(row[name] for row in rows), "median": float(np.median([row[name] for row in rows]))}
        for name in ("logits", "score", "evidence", "attention")
    }
    counts = {name: sum(row[name] for row in rows) for name in ("same_top1", "same_top5", "right", "right_in_float32")}
    return {"clips": len(rows), **differences, **counts}


def _difference(found: Any, exact: Any) -> float:
    """Return the largest difference of two maps as a share of the largest value."""
    return float(np.abs(np.asarray(found) - np.asarray(exact)).max() / np.abs(np.asarray(exact)).max())


if __name__ == "__main__":
    main()
