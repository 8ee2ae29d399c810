"""Export of a network to a file, which is kept only if it gives the network's logits."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nonlocal_video.errors import ExportError, ModelError, OutputError, UsageError
from nonlocal_video.export.check import TOLERANCE, Agreement, compare, eager, seconds_per_view, synthetic_clips
from nonlocal_video.export.exportable import ViewLogits, exportable, exported_card
from nonlocal_video.export.formats import FORMATS, Traced, check_installed
from nonlocal_video.inference.runtimes.traceable import trace
from nonlocal_video.models.card import ModelCard

FEWEST_VIEWS = 3
"""Number of clips that are compared; more if the file only takes a larger batch."""
TURNS = 3
"""Number of repetitions of each timing."""


@dataclass(frozen=True)
class Exported:
    """A file that was written and checked."""

    files: tuple[Path, ...]
    """Files that were written; the first is the one to open."""
    num_bytes: int
    """Size of all files."""
    shape: tuple[int | None, ...]
    """Shape of the input, (B, 3, T, S, S); None is any number."""
    agreement: Agreement
    """Difference from the network's logits."""
    runtime: str
    """Package and version that ran the check."""
    seconds_eager: float
    """Time of one view in PyTorch as `classify` runs the network: batch norms folded, channels last."""
    seconds_exported: float
    """Time of one view in the file's runtime."""
    num_threads: int
    """Number of CPU threads of both."""
    notes: tuple[str, ...]
    """Sentences about parts of the file that compute differently from the network."""


def export_network(
    network: nn.Module,
    card: ModelCard,
    output: Path,
    *,
    format_name: str,
    fast: bool = False,
    batch_size: int | None = None,
) -> Exported:
    """Write a network for another runtime, open the file with that runtime, and compare the logits.

    The file takes normalised clips (B, 3, T, S, S) of the card's input and gives logits (B, classes), both float32. It
    contains the card as JSON. The file appears complete, and only after the check.

    Args:
        network: A network on the CPU, float32, in eval mode; it does not change.
        card: Card of the network.
        output: The file to write, with its format's extension; an existing one is replaced.
        format_name: One of `FORMATS`.
        fast: Whether to export the card's cheaper input.
        batch_size: Fixed batch size B; None is any number.

    Raises:
        UsageError: If a package that the format needs is not installed, or the extension is another format's.
        ModelError: If the network itself gives values that are not finite.
        ExportError: If the format cannot express the network, or the file's logits differ from the network's.
        OutputError: If the file cannot be written.
    """
    if format_name not in FORMATS:
        raise UsageError(f"format = {format_name!r} should be one of {', '.join(FORMATS)}.")
    file_format = FORMATS[format_name]
    if output.suffix != file_format.ending:
        raise UsageError(f"output = {output} should end in {file_format.ending}, as {format_name} does.")
    check_installed(format_name)
    spec = card.view(fast=fast)
    at_once = batch_size or 1
    clips = synthetic_clips(spec, at_once * -(-FEWEST_VIEWS // at_once))
    expected = np.concatenate([eager(ViewLogits(network, card))(clip[None]) for clip in clips])
    if not np.isfinite(expected).all():
        raise ModelError(f"Model {card.name!r} gives scores that are not finite; its weights are damaged or wrong.")
    view_logits, notes = exportable(network, card, for_pytorch=file_format.for_pytorch)
    shape = (batch_size, 3, spec.num_frames, spec.crop, spec.crop)
    num_threads = torch.get_num_threads()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
            draft = Path(folder) / output.name
            with _refusals(format_name):
                file_format.write(Traced(trace(view_logits, shape), shape, exported_card(card, spec)), draft)
                run = file_format.open(draft, num_threads)
                found = np.concatenate([run(batch) for batch in _batches(clips, batch_size)])
            agreement = compare(expected, found)
            if not agreement.is_close:
                raise ExportError(
                    f"The {format_name} file is not the model: run by {file_format.runtime_version}, its logits differ "
                    f"by up to {agreement.largest_difference:.3g}, {agreement.share:.1e} of the largest logit, where "
                    f"{TOLERANCE:.0e} is allowed. It was not kept; try another format or version of the runtime."
                )
            as_classified = exportable(network, card, for_pytorch=True)[0].to(memory_format=torch.channels_last_3d)
            baseline = eager(as_classified)
            baseline(clips[:at_once])  # warm-up; `run` had its own
            seconds_eager, seconds_exported = seconds_per_view(baseline, run, clips[:at_once], turns=TURNS)
            del run  # it holds the file open
            # The file that is opened comes last, when its other files are there.
            drafts = sorted(Path(folder).iterdir(), key=lambda path: path == draft)
            num_bytes = sum(path.stat().st_size for path in drafts)
            for path in drafts:
                os.replace(path, output.parent / path.name)
    except OSError as error:
        raise OutputError(f"{output} cannot be written: {error.strerror or error}.") from error
    return Exported(
        files=tuple(output.parent / path.name for path in reversed(drafts)),
        num_bytes=num_bytes,
        shape=shape,
        agreement=agreement,
        runtime=file_format.runtime_version,
        seconds_eager=seconds_eager,
        seconds_exported=seconds_exported,
        num_threads=num_threads,
        notes=notes,
    )


@contextmanager
def _refusals(format_name: str) -> Iterator[None]:
    """Turn any error of an exporter or a runtime into one line."""
    try:
        yield
    except OSError:  # the disk's
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ExportError(
            f"{format_name} cannot hold this network: {type(error).__name__}: {reason.rstrip('.')}. Nothing was "
            "written; try another format."
        ) from error


def _batches(clips: NDArray[np.float32], batch_size: int | None) -> list[NDArray[np.float32]]:
    """Split clips as the file takes them: batches of the fixed size, or, for any size, one clip and then the others."""
    return [clips[:1], clips[1:]] if batch_size is None else np.split(clips, len(clips) // batch_size)
