"""Converted networks give what their own project's network gives, and every difference between projects shows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from plain_networks import Plain, kenshohara_logits, logits
from published_tensors import affine, random_state, save_caffe2
from torch import Tensor

from nonlocal_video.models.checkpoint import load_checkpoint
from nonlocal_video.zoo.convert import convert_file

PARITY = 1e-4
SHOWS = 1e-2
"""Fraction of the largest logit: a right network stays below it, a wrong one above."""

PYSLOWFAST = Plain("pyslowfast")
CAFFE2 = Plain("caffe2", pool=((1, 3, 3), (1, 2, 2), (0, 0, 0)))
CAFFE2_32 = replace(CAFFE2, stem_stride=2, pool=((2, 3, 3), (2, 2, 2), (0, 0, 0)))
MMACTION2 = Plain(
    "mmaction2",
    pool_first=False,
    scaled=False,
    out_bias=False,
    stem_stride=2,
    pool=((1, 3, 3), (2, 2, 2), (0, 1, 1)),
)
SLOWONLY = Plain("mmaction2", pool_first=False, out_bias=False, pool_time=False, places=((0, 2), (0, 2, 4)))
NO_BLOCKS: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())


@dataclass(frozen=True)
class Case:
    """A row of the catalogue, a published file's tensors, and what its project computes with them."""

    name: str
    tensors: str
    plain: Plain
    num_frames: int


I3D_NL = "pyslowfast_I3D_NLN_8x8_R50"
VNN = "videononlocalnet_i3d_nl_32x2_r50.caffe2_blobs"
PLAIN_I3D, PLAIN_SLOW = (replace(PYSLOWFAST, places=NO_BLOCKS, pool_time=pool_time) for pool_time in (True, False))
SLOW_DOT = replace(PYSLOWFAST, kernel="dot", pool_time=False)
MM_DOT, MM_GAUSSIAN = replace(MMACTION2, kernel="dot"), replace(MMACTION2, kernel="gaussian")
CASES = [
    Case("i3d-nl-r50-8x8-k400-pyslowfast", I3D_NL, PYSLOWFAST, 4),
    # The file that is really published.
    Case("i3d-nl-r50-8x8-k400-pyslowfast", f"{I3D_NL}.caffe2_blobs", replace(PYSLOWFAST, source="caffe2"), 4),
    Case("i3d-r50-8x8-k400-pyslowfast", "pyslowfast_I3D_8x8_R50", PLAIN_I3D, 4),
    Case("slow-r50-8x8-k400-pyslowfast", "pyslowfast_SLOW_8x8_R50", PLAIN_SLOW, 2),
    Case("c2d-nl-r50-8x8-k400-pyslowfast", "pyslowfast_C2D_NLN_8x8_R50", PYSLOWFAST, 4),
    Case("slow-nl-dot-r50-4x16-k400-pyslowfast", "pyslowfast_SLOW_NLN_4x16_R50_dot", SLOW_DOT, 2),
    Case("i3d-nl-r50-8x8-k400-caffe2", VNN, CAFFE2, 4),
    Case("i3d-nl-r50-32x2-k400-caffe2", VNN, CAFFE2_32, 16),
    Case("i3d-nl-r50-32x4-k400-caffe2", VNN, replace(CAFFE2, groups=4), 16),
    Case("i3d-nl-r50-128x1-k400-caffe2", VNN, replace(CAFFE2_32, groups=4), 64),
    Case("i3d-nl-dot-r50-32x2-k400-mmaction2", "mmaction2_i3d_nl_dot_product_r50", MM_DOT, 8),
    Case("i3d-nl-embedded-r50-32x2-k400-mmaction2", "mmaction2_i3d_nl_embedded_gaussian_r50", MMACTION2, 8),
    Case("i3d-nl-gaussian-r50-32x2-k400-mmaction2", "mmaction2_i3d_nl_gaussian_r50", MM_GAUSSIAN, 8),
    Case("i3d-r50-32x2-k400-mmaction2", "mmaction2_i3d_r50", replace(MMACTION2, places=NO_BLOCKS), 8),
    Case(
        "slowonly-nl-embedded-r50-4x16-k400-mmaction2", "mmaction2_slowonly_nl_embedded_gaussian_4x16_r50", SLOWONLY, 2
    ),
]


@dataclass(frozen=True)
class Compared:
    """The converted network's answer to a clip, and what the other project's answer is made from."""

    state: dict[str, Tensor]
    clip: Tensor
    ours: Tensor

    def difference(self, plain: Plain) -> float:
        with torch.inference_mode():
            theirs = logits(plain, self.state, self.clip)
        return float((self.ours - theirs).abs().max() / theirs.abs().max())


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case.name}, {case.tensors}")
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(scope="module")
def compared(case: Case, thin_catalogue: None, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    state = random_state(case.tensors)
    if case.plain.groups:
        state = affine(state, blocks=case.plain.stem_stride == 2)  # one case as published, one with affine blocks
    folder = tmp_path_factory.mktemp("weights")
    if case.plain.source == "caffe2":
        file = save_caffe2(folder / "weights.pkl", state)
    else:
        wrapper = "model_state" if case.plain.source == "pyslowfast" else "state_dict"
        file = folder / "weights.pth"
        torch.save({wrapper: state, "epoch": 3}, file)
    output = folder / "weights.safetensors"
    convert_file(file, output, name=case.name)
    network, card = load_checkpoint(output)
    file.unlink()
    output.unlink()
    assert card.name == case.name
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        clip = torch.randn(1, 3, case.num_frames, 56, 56)
    with torch.inference_mode():
        answer = network(clip)
    return Compared(state, clip, answer)


def mutations(plain: Plain) -> dict[str, Plain]:
    """The same project with one thing done as another does it."""
    kernel_size, stride, padding = plain.pool
    changed = {"padding": replace(plain, pool=(kernel_size, stride, (0, 1 - padding[1], 1 - padding[2])))}
    if plain.pool_time:
        changed["pooling of time"] = replace(plain, pool_time=False)
    if plain.places == NO_BLOCKS:
        return changed
    changed["order of pooling"] = replace(plain, pool_first=not plain.pool_first)
    if plain.kernel == "dot":
        changed["count of keys"] = replace(plain, count="all")
        changed["softmax"] = replace(plain, kernel="softmax")
    else:
        changed["scale"] = replace(plain, scaled=not plain.scaled)
    if plain.out_bias:
        changed["bias"] = replace(plain, out_bias=False)
    if plain.groups:
        changed["groups"] = replace(plain, groups=None)
    else:  # in groups are the affine networks, without eps
        changed["eps"] = replace(plain, block_eps=1e-3)
    return changed


@pytest.mark.slow
def test_same_logits(case: Case, compared: Compared) -> None:
    assert compared.difference(case.plain) < PARITY


def test_every_difference_between_projects_shows(case: Case, compared: Compared) -> None:
    differences = {what: compared.difference(plain) for what, plain in mutations(case.plain).items()}
    assert {what: value for what, value in differences.items() if not value > SHOWS} == {}


@pytest.mark.usefixtures("thin_catalogue")
@pytest.mark.parametrize("depth", [34, 50])
def test_kenshohara(depth: int, tmp_path: Path) -> None:
    state = random_state(f"kenshohara_r3d{depth}_K700")
    torch.save({"state_dict": state}, tmp_path / "weights.pth")
    convert_file(tmp_path / "weights.pth", tmp_path / "weights.safetensors", name=f"r3d-{depth}-k700-kenshohara")
    network, _ = load_checkpoint(tmp_path / "weights.safetensors")
    clip = torch.randn(1, 3, 16, 40, 40)
    with torch.inference_mode():
        ours, theirs = network(clip), kenshohara_logits(state, clip)
        wrong = [kenshohara_logits(state, clip, time_stride=1), kenshohara_logits(state, clip, pool_time=False)]
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < PARITY
    assert all(float((ours - other).abs().max() / theirs.abs().max()) > SHOWS for other in wrong)
