"""File formats: how each is written, and run by its users' runtime."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.runtimes.openvino import compiled, convert, import_openvino
from nonlocal_video.models.checkpoint import CARD_KEY

INPUT, OUTPUT = "clip", "logits"
"""Names of the file's input and output."""
ONNX_OPSET = 18

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""A function from clips (B, 3, T, S, S) to logits (B, classes)."""


@dataclass(frozen=True)
class Traced:
    """A traced network, ready to be written."""

    program: torch.export.ExportedProgram
    """The traced network."""
    shape: tuple[int | None, ...]
    """Shape of the input, (B, 3, T, S, S); None is any number."""
    card: str
    """Model card as JSON, stored with the file."""


@dataclass(frozen=True)
class FileFormat:
    """One format of exported files."""

    ending: str
    """File name extension; OpenVINO's weights are in a second file with the same name."""
    runtime: str
    """Name of the package that runs the file."""
    write: Callable[[Traced, Path], None]
    """Function that writes the file."""
    open: Callable[[Path, int], Run]
    """Function from (file, threads) to a function that runs it on the CPU in float32."""
    packages: tuple[str, ...] = ()
    """Packages needed to write and run the file, besides this project's dependencies."""
    extra: str | None = None
    """This project's extra that installs `packages`."""
    for_pytorch: bool = False
    """Whether PyTorch runs the file."""

    @property
    def runtime_version(self) -> str:
        """Return the runtime's name and version, such as "onnxruntime 1.23.2"."""
        return f"{self.runtime} {version(self.runtime)}"


def check_installed(name: str) -> None:
    """Check that a format's packages are installed.

    Raises:
        UsageError: If one is not; the message has the command that installs it.
    """
    missing = [package for package in FORMATS[name].packages if find_spec(package) is None]
    if missing:
        extra = FORMATS[name].extra
        command = f"pip install 'nonlocal-video[{extra}]'" if extra else f"pip install {' '.join(missing)}"
        raise UsageError(f"--format {name} needs {', '.join(missing)}: {command}")


def _write_onnx(traced: Traced, path: Path) -> None:
    with _only_errors("onnxscript"):
        program = torch.onnx.export(
            traced.program,
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=ONNX_OPSET,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props[CARD_KEY] = traced.card
    program.save(path, external_data=False)


def _open_onnx(path: Path, num_threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda clips: session.run([OUTPUT], {INPUT: clips})[0]


def _write_openvino(traced: Traced, path: Path) -> None:
    model = convert(traced.program, traced.shape)
    model.inputs[0].get_tensor().set_names({INPUT})
    model.outputs[0].get_tensor().set_names({OUTPUT})
    model.set_rt_info(traced.card, [CARD_KEY])
    import_openvino().save_model(model, path, compress_to_fp16=False)


def _open_openvino(path: Path, num_threads: int) -> Run:
    network = compiled(path, num_threads)
    return lambda clips: network({INPUT: clips})[OUTPUT]


def _write_torch_export(traced: Traced, path: Path) -> None:
    torch.export.save(traced.program, path, extra_files={CARD_KEY: traced.card})


def _open_torch_export(path: Path, num_threads: int) -> Run:
    network = torch.export.load(path).module()  # runs on PyTorch's own threads, which `num_threads` counts

    def run(clips: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            logits: NDArray[np.float32] = network(torch.from_numpy(clips)).numpy()
        return logits

    return run


FORMATS: dict[str, FileFormat] = {
    "onnx": FileFormat(
        ".onnx", "onnxruntime", _write_onnx, _open_onnx, packages=("onnx", "onnxruntime", "onnxscript"), extra="onnx"
    ),
    "openvino": FileFormat(".xml", "openvino", _write_openvino, _open_openvino, packages=("openvino",)),
    "torch-export": FileFormat(".pt2", "torch", _write_torch_export, _open_torch_export, for_pytorch=True),
}


@contextmanager
def _only_errors(logger_name: str) -> Iterator[None]:
    """Hide a library's warnings about its own optimisations."""
    logger = logging.getLogger(logger_name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
