"""One side of benchmarks/peers.py: reads lists of paths on stdin, and prints the seconds to the clips' scores.

    python peers_workers.py CASE peer|ours FOLDER

`peer` runs in the peer's own environment and imports nothing of this project. Both sides have the same random weights:
ours are made from a file that the peer's side wrote to FOLDER.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

Answer = Callable[[list[str]], Any]
"""Gives the scores of clips."""
PACKAGES = ("torch", "torchvision", "pytorchvideo", "transformers", "av", "decord", "openvino")


def frames_by_pyav(path: str) -> torch.Tensor:
    """Return every frame, uint8 (T, H, W, 3)."""
    import av
    import numpy as np

    with av.open(path) as container:
        return torch.from_numpy(np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]))


def pytorchvideo_slow_r50(folder: Path) -> Answer:
    """Answer with its tutorial's input: the clip's middle, 8 frames every 8th, short side 256, centre crop 256."""
    from pytorchvideo.data.encoded_video import EncodedVideo
    from pytorchvideo.models.hub import slow_r50

    torch.manual_seed(0)
    network = slow_r50(pretrained=False).eval()
    torch.save({"model_state": network.state_dict()}, folder / "slow_r50.pyth")
    mean, std = torch.full((3, 1, 1, 1), 0.45), torch.full((3, 1, 1, 1), 0.225)

    def answer(path: str) -> torch.Tensor:
        video = EncodedVideo.from_path(path, decode_audio=False)
        span = 8 * 8 / 30
        start = max(0.0, float(video.duration) / 2 - span / 2)
        clip = video.get_clip(start, start + span)["video"]  # float (3, T, H, W), 0 to 255
        chosen = clip[:, torch.linspace(0, clip.shape[1] - 1, 8).long()] / 255
        chosen = (chosen - mean) / std
        height, width = chosen.shape[-2:]
        scale = 256 / min(height, width)
        size = (int(height * scale), int(width * scale))
        resized = torch.nn.functional.interpolate(chosen, size=size, mode="bilinear", align_corners=False)
        top, left = (size[0] - 256) // 2, (size[1] - 256) // 2
        return network(resized[None, :, :, top : top + 256, left : left + 256]).softmax(dim=1)

    return lambda paths: [answer(path) for path in paths]


def transformers_videomae(folder: Path) -> Answer:
    """Its own pipeline, with the base size of VideoMAE for 400 classes."""
    import transformers

    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(num_labels=400)
    transformers.VideoMAEForVideoClassification(config).save_pretrained(folder / "videomae")
    transformers.VideoMAEVideoProcessor().save_pretrained(folder / "videomae")
    pipeline = transformers.pipeline("video-classification", model=str(folder / "videomae"), device="cpu")
    return lambda paths: pipeline(paths, num_frames=16)


def torchvision_r3d_18(folder: Path) -> Answer:
    """Its network and its preset; 16 frames at 15 per second of the clip's middle, decoded by PyAV."""
    from torchvision.models.video import R3D_18_Weights, r3d_18

    torch.manual_seed(0)
    network = r3d_18(weights=None).eval()
    torch.save(network.state_dict(), folder / "r3d_18.pth")
    preset = R3D_18_Weights.KINETICS400_V1.transforms()

    def answer(path: str) -> torch.Tensor:
        frames = frames_by_pyav(path)
        step = 2
        first = max(0, len(frames) // 2 - 16 * step // 2)
        chosen = frames[(first + step * torch.arange(16)).clamp(max=len(frames) - 1)]
        return network(preset(chosen.permute(0, 3, 1, 2))[None]).softmax(dim=1)

    return lambda paths: [answer(path) for path in paths]


def ours(case: str, folder: Path) -> tuple[Answer, Callable[[], str]]:
    """Run the network by this project, with the defaults; also return what tells the runtime that ran last."""
    import nonlocal_video as nlv
    from nonlocal_video.zoo.convert import convert_file

    rows = {"slow_r50": "slow-r50-8x8-k400-pytorchvideo", "r3d_18": "r3d-18-k400-torchvision"}
    model = folder / "videomae"
    if case in rows:
        (published,) = folder.glob(f"{case}.p*")
        model = folder / f"{case}.safetensors"
        convert_file(published, model, name=rows[case])
    recognizer = nlv.load(model, device="cpu")

    def answer(paths: list[str]) -> None:
        if len(paths) == 1:
            recognizer.classify(paths[0]).top(5)
        else:
            rows = list(recognizer.classify_folder(paths))
            assert [row["status"] for row in rows] == ["ok"] * len(paths)

    return answer, lambda: recognizer.runtime


PEERS: dict[str, Callable[[Path], Answer]] = {
    "slow_r50": pytorchvideo_slow_r50,
    "videomae": transformers_videomae,
    "r3d_18": torchvision_r3d_18,
}


def main() -> None:
    case, side, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    answer, runtime = (PEERS[case](folder), lambda: "torch") if side == "peer" else ours(case, folder)
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    print(json.dumps(versions), flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        with torch.inference_mode():
            answer(json.loads(line))
        taken = time.perf_counter() - started
        print(json.dumps({"seconds": taken, "runtime": runtime()}), flush=True)


if __name__ == "__main__":
    main()
