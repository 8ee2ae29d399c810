"""`python -m gpu`: all checks on one device; `benchmarks/gpu.sh` starts it."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from gpu import answers, capacity, clips, runs
from gpu.command import in_fork
from gpu.harness import Check, run_checks

CHECKS = (  # the cheapest and most important first
    Check("doctor", answers.doctor, 45),
    Check("same_answers", answers.same_answers, 75),
    Check("dead_context", runs.dead_context, 75),
    Check("device_tests", answers.device_tests, 120),
    Check("out_of_memory", capacity.out_of_memory, 60),
    Check("speed", capacity.speed, 60),
    Check("threads", answers.threads, 45),
    Check("pipeline", capacity.pipeline, 90),
    Check("training", runs.training, 120),
)


def main() -> None:
    """Run the checks; exit status 0 only if every one has passed."""
    parser = argparse.ArgumentParser(prog="gpu.sh", description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: the same in miniature")
    parser.add_argument(
        "--out", type=Path, default=Path("out/gpu"), help="folder of results.jsonl, log.txt, summary.txt"
    )
    parser.add_argument("--seconds", type=float, default=470.0, help="for all checks together")
    parser.add_argument("--frames", choices=["auto", "videos", "arrays"], default="auto", help="how clips are stored")
    parser.add_argument("--only", action="append", choices=[check.name for check in CHECKS], help="repeatable")
    asked = parser.parse_args()

    frames = asked.frames if asked.frames != "auto" else "videos" if clips.can_decode() else "arrays"
    if frames == "videos" and not clips.can_decode():
        parser.error("--frames videos needs PyAV, which is not installed; take arrays.")
    asked.out.mkdir(parents=True, exist_ok=True)
    for name in ("results.jsonl", "log.txt", "summary.txt"):
        (asked.out / name).unlink(missing_ok=True)
    if frames == "arrays":
        clips.read_arrays_for_videos()
        print("No video is decoded: clips are arrays of frames.", flush=True)
    import nonlocal_video.cli.main
    import nonlocal_video.inference.recognizer  # noqa: F401  # once for all forks; nothing here may touch the device

    chosen = [check for check in CHECKS if asked.only is None or check.name in asked.only]
    with tempfile.TemporaryDirectory(prefix="nonlocal-video-gpu-") as name:
        folder = Path(name)
        model = "default"
        if asked.device == "cpu":
            model = str(folder / "model.safetensors")
            in_fork(lambda: clips.small_model(folder / "model.safetensors"))
        records = run_checks(
            chosen,
            device=asked.device,
            model=model,
            frames=frames,
            folder=folder,
            output=asked.out,
            seconds=asked.seconds,
        )
    print((asked.out / "summary.txt").read_text(), flush=True)
    sys.exit(0 if all(record["status"] == "passed" for record in records) else 1)


if __name__ == "__main__":
    main()
