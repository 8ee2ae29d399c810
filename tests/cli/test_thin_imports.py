"""A verb imports only what it needs: what a command loads is what its start costs."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HEAVY = {
    "gradio", "lightning", "pandas", "pytorch_grad_cam", "pytorchvideo", "ray", "sklearn", "tensorboard",
    "torchmetrics", "torchvision", "transformers",
}  # fmt: skip
RUN = """
import contextlib, sys
from nonlocal_video.cli.main import main
with contextlib.suppress(SystemExit):
    main()
print(*sorted(sys.modules), file=sys.stderr)
"""


def loaded_by(*arguments: object) -> set[str]:
    """Names of the modules that a command has loaded when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=True
    )
    return set(done.stderr.splitlines()[-1].split())


def test_the_help_loads_no_torch() -> None:
    loaded = loaded_by("--help")
    assert "nonlocal_video.cli.main" in loaded
    assert not loaded & (HEAVY | {"torch", "numpy", "matplotlib", "scipy", "pyarrow", "av", "openvino"})


def test_classify_of_one_view_loads_the_network_and_little_else(tiny_model: Path, clip_folder: Path) -> None:
    loaded = loaded_by("classify", clip_folder / "a.mp4", "--model", tiny_model, "--runtime", "torch", "--json")
    assert "torch" in loaded
    assert not loaded & (HEAVY | {"matplotlib", "scipy", "pyarrow", "torch._dynamo"})


def test_explain_loads_no_library_of_maps(tiny_model: Path, clip_folder: Path, tmp_path: Path) -> None:
    loaded = loaded_by(
        "explain", clip_folder / "a.mp4", "--model", tiny_model, "--method", "evidence", "--output", tmp_path / "maps"
    )
    assert (tmp_path / "maps" / "overlay.mp4").is_file()
    assert not loaded & HEAVY


def test_several_views_load_pytorchvideos_sampler(tiny_model: Path, clip_folder: Path) -> None:
    loaded = loaded_by("classify", clip_folder / "a.mp4", "--model", tiny_model, "--views", "3x1", "--json")
    assert "pytorchvideo.data.clip_sampling" in loaded


@pytest.mark.parametrize("count", [2, 3, 10])
@pytest.mark.parametrize(("total", "span"), [(10, 3), (Fraction(100, 7), Fraction(64, 30)), (2, 5), (5, 5)])
def test_pytorchvideos_sampler_is_the_formula(total: int | Fraction, span: int | Fraction, count: int) -> None:
    """The left ends of equal parts of the free time, to the last digit."""
    from nonlocal_video.video.sampling import _lefts

    free = max(Fraction(total) - Fraction(span), Fraction(0))
    assert _lefts(Fraction(total), Fraction(span), count) == [index * free / count for index in range(count)]
