"""docs/zoo.md says what the catalogue says."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch
from published_tensors import random_state, save_caffe2

import nonlocal_video as nlv
from nonlocal_video.cli.main import main
from nonlocal_video.zoo.catalogue import entries

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "zoo.md").read_text("utf-8")


def test_the_table_is_the_catalogues() -> None:
    """After a change: python docs/make_zoo_table.py."""
    script = runpy.run_path(str(ROOT / "docs" / "make_zoo_table.py"))
    assert f"{script['BEGIN']}{script['table']()}\n{script['END']}" in DOCS


def test_names_in_the_text_exist() -> None:
    text = DOCS.split("<!-- table -->")[0] + (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    names = re.findall(r"[a-z0-9-]+-k\d00-(?:pyslowfast|caffe2|mmaction2|pytorchvideo|torchvision|kenshohara)", text)
    assert names
    assert not set(names) - set(entries())


THREE_LINES = re.findall(r"^nonlocal-video weights convert .*$", DOCS.split("```sh")[2].split("```")[0], re.MULTILINE)
PUBLISHED = {  # a file that the page names -> the network whose random tensors stand for it
    "I3D_NLN_8x8_R50.pkl": "pyslowfast_I3D_NLN_8x8_R50.caffe2_blobs",
    "i3d_nonlocal_32x2_IN_pretrain_400k.pkl": "videononlocalnet_i3d_nl_32x2_r50.caffe2_blobs",
    "i3d_r50_nl_kinetics.pth": "videononlocalnet_i3d_nl_32x2_r50",
    "i3d_nl_dot_product.pth": "mmaction2_i3d_nl_dot_product_r50",
    "SLOW_8x8_R50.pyth": "pytorchvideo_slow_r50",
    "r3d_18-b3b3357e.pth": "torchvision_r3d_18",
    "r3d50_K_200ep.pth": "kenshohara_r3d50_K700",
}


def test_each_source_has_three_lines() -> None:
    assert [shlex.split(line)[3] for line in THREE_LINES] == list(PUBLISHED)


@pytest.mark.usefixtures("thin_catalogue")
@pytest.mark.parametrize("line", THREE_LINES)
@pytest.mark.slow
def test_three_lines_of_each_source(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(line)
    file, output = Path(arguments[3]), arguments[-1]
    state = random_state(PUBLISHED[file.name])
    if file.suffix == ".pkl":
        save_caffe2(file, state)
    else:
        torch.save({{".pyth": "model_state"}.get(file.suffix, "state_dict"): state}, file)
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match="0"):
        main()
    with nlv.load(output, device="cpu") as recognizer:
        assert recognizer.card.labels[0] == ("slicing onion" if output == "kenshohara.safetensors" else "abseiling")
