"""A device that fails or runs out of memory; PyTorch's exceptions are raised on the CPU."""

from __future__ import annotations

import gc
import json
import mmap
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from random_networks import KERNELS, needs_openvino, random_network, resnet_card
from torch import Tensor

import nonlocal_video as nlv
from nonlocal_video.app.application import create_app
from nonlocal_video.app.callbacks.recognise import Recognition
from nonlocal_video.app.visits import How
from nonlocal_video.errors import DeviceError, VideoError
from nonlocal_video.inference.device_errors import failure_of
from nonlocal_video.inference.folder import classify_files
from nonlocal_video.inference.prediction import Failure, Prediction
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.inference.runtimes.runner import NetworkRunner
from nonlocal_video.models.checkpoint import save_checkpoint

pytestmark = pytest.mark.slow

ILLEGAL = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later."
NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    RuntimeError("Check 'ptr' failed at src/plugins/intel_cpu/src/cpu_memory.cpp:257:\nFailed to allocate 8 bytes"),
    MemoryError(),
]
DEAD = [torch.AcceleratorError(ILLEGAL), RuntimeError("CUDA error: unspecified launch failure")]


@pytest.fixture
def recognizer(tiny_model: Path) -> Iterator[Recognizer]:
    with nlv.load(tiny_model, device="cpu") as recognizer:
        yield recognizer


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Exception], list[int]]:
    """Let every network fail from its n-th forward pass on; gives the sizes of the batches that were tried."""

    def fail(at: int, error: Exception) -> list[int]:
        sizes: list[int] = []
        run_network = NetworkRunner.__call__

        def dying(self: NetworkRunner, inputs: Tensor, *given: Any, **options: Any) -> Any:
            sizes.append(len(inputs))
            if len(sizes) >= at:
                raise error
            return run_network(self, inputs, *given, **options)

        monkeypatch.setattr(NetworkRunner, "__call__", dying)
        return sizes

    return fail


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        *((error, "out_of_memory") for error in NO_MEMORY),
        *((error, "device") for error in DEAD),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasSgemm( handle)`"), "device"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED_CUDART"), "device"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_UNEXPECTED_VALUE"), None),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (ValueError("CUDA error"), None),
    ],
    ids=lambda value: str(value)[:70],
)
def test_one_place_tells_what_happened(error: Exception, failure: str | None) -> None:
    assert failure_of(error) == failure


def test_cudnns_names_are_those_of_the_installed_one() -> None:
    """A renamed status would turn a full device into an internal error."""
    graph = Path(torch.__file__).parents[1] / "nvidia" / "cudnn" / "lib" / "libcudnn_graph.so.9"
    if not graph.is_file():
        pytest.skip("PyTorch is installed without cuDNN 9")
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as library:
        for place in ("HOST", "DEVICE"):
            name = f"CUDNN_STATUS_INTERNAL_ERROR_{place}_ALLOCATION_FAILED"
            assert failure_of(RuntimeError(f"cuDNN error: {name}")) == "out_of_memory"
            assert library.find(f"\0{name}\0".encode()) > 0, f"cuDNN has no {name}"


FULL_IN_OPENVINO = """
import resource, sys
import psutil, torch
import nonlocal_video as nlv
from nonlocal_video.inference.device_errors import failure_of

torch.set_num_threads(2)
with nlv.load(sys.argv[1], device="cpu", runtime="openvino") as recognizer:
    view = torch.zeros(1, 3, 8, 36, 36)
    recognizer.forward(view)
    views = view.repeat(4000, 1, 1, 1, 1)
    network = recognizer._engine.runner.by_openvino
    room = psutil.Process().memory_info().vms + 2**22
    resource.setrlimit(resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))
    try:
        network._run(network._compiled[view.shape[1:], 1], views)
    except RuntimeError as error:
        print(failure_of(error))
"""


@needs_openvino
@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does it")
def test_openvinos_words_are_those_of_the_installed_one(tmp_path: Path) -> None:
    card = resnet_card(KERNELS)
    save_checkpoint(tmp_path / "small.safetensors", random_network(card), card, dtype=torch.float32)
    command = [sys.executable, "-c", FULL_IN_OPENVINO, tmp_path / "small.safetensors"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "out_of_memory"


@pytest.mark.parametrize("error", DEAD, ids=["accelerator", "runtime"])
def test_a_dead_device_ends_a_folder_run_and_resume_does_the_rest(
    run: Callable[..., Any],
    failing: Callable[[int, Exception], list[int]],
    monkeypatch: pytest.MonkeyPatch,
    tiny_model: Path,
    clip_folder: Path,
    tmp_path: Path,
    error: Exception,
) -> None:
    table = tmp_path / "table.jsonl"
    command = ("classify", clip_folder, "--model", tiny_model, "--device", "cpu", "--output", table)
    undisturbed = tmp_path / "undisturbed.jsonl"
    run(*command[:-1], undisturbed)
    paths = [json.loads(line)["path"] for line in undisturbed.read_text().splitlines()]
    with monkeypatch.context() as patched:
        patched.setattr(NetworkRunner, "__call__", NetworkRunner.__call__)
        failing(3, error)
        done = run(*command)
    monkeypatch.undo()
    assert done.status == 3
    assert "The device cpu failed: CUDA error: " in done.err
    assert "--resume" in done.err
    assert "Traceback" not in done.err
    resumed = run(*command, "--resume")
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    assert resumed.status == run(*command[:-1], tmp_path / "again.jsonl").status
    assert sorted(row["path"] for row in rows) == sorted(paths)
    assert not [row for row in rows if row["error"] and row["error"]["code"] == "internal"]


@pytest.mark.parametrize(
    ("verb", "options", "said"),
    [
        ("classify", ("--output", "t.jsonl"), "What is done is kept; the same command with --resume continues."),
        ("classify", (), "or use another --device."),
        ("features", ("--output", "t.parquet"), "What is done is kept; the same command with --resume continues."),
        ("features", ("--output-dir", "t"), "What is done is kept; the same command with --resume continues."),
        ("search", ("--like", "a.mp4", "--index", "t.parquet"), "What is done is kept; the same command continues."),
        ("evaluate", ("--output", "t"), "What is done is kept; the same command with --resume continues."),
        ("evaluate", (), "or use another --device."),
        ("teach", ("--output", "t"), "What is done is kept; the same command with --resume continues."),
        ("timeline", (), "or use another --device."),
        ("explain", (), "or use another --device."),
    ],
)
def test_only_a_verb_that_has_resume_names_it(
    run: Callable[..., Any],
    failing: Callable[[int, Exception], list[int]],
    monkeypatch: pytest.MonkeyPatch,
    tiny_model: Path,
    clip_folder: Path,
    tmp_path: Path,
    verb: str,
    options: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for label in ("action 1", "action 2"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(3):
            shutil.copy(clip_folder / "a.mp4", tmp_path / "set" / label / f"{number}.mp4")
    shutil.copy(clip_folder / "a.mp4", tmp_path)
    given = "a.mp4" if verb in ("timeline", "explain") else "set"
    failing(1, DEAD[0])
    done = run(verb, given, "--model", tiny_model, "--device", "cpu", *options)
    assert done.status == 3
    last = done.err.splitlines()[-1]
    assert last.startswith("The device cpu failed: CUDA error: an illegal memory access was encountered. If it fails")
    assert last.endswith(said)


def test_a_dead_device_is_not_asked_again(
    recognizer: Recognizer, failing: Callable[[int, Exception], list[int]], clip_folder: Path
) -> None:
    sizes = failing(1, DEAD[0])
    files = [str(clip_folder / "a.mp4")] * 8
    with pytest.raises(DeviceError, match="illegal memory access"):
        list(classify_files(recognizer, files, ClipRequest(), batch_size=4))
    for ask in (recognizer.classify, recognizer.explain, recognizer.timeline):
        with pytest.raises(DeviceError, match="illegal memory access"):
            ask(clip_folder / "a.mp4")
    assert sizes == [4]


def test_a_verb_that_has_no_words_of_its_own_for_it_ends_with_a_sentence(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    def dying(*_: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nLong advice.")

    monkeypatch.setattr(torch.nn.Conv3d, "forward", dying)
    done = run("benchmark", "model", tiny_model, "--device", "cpu")
    assert done.status == 3
    assert done.err.splitlines()[-1].startswith("The device failed: CUDA error: an illegal memory access was enc")
    assert "Traceback" not in done.err


def test_the_health_check_says_so(
    recognizer: Recognizer, failing: Callable[[int, Exception], list[int]], clip_folder: Path
) -> None:
    from starlette.testclient import TestClient

    client = TestClient(create_app([recognizer]), base_url="http://127.0.0.1")
    assert client.get("/healthz").status_code == 200
    failing(1, DEAD[0])
    with pytest.raises(DeviceError):
        recognizer.classify(clip_folder / "a.mp4")
    answer = client.get("/healthz")
    assert answer.status_code == 503
    assert answer.json()["status"] == "failed"
    assert "illegal memory access" in answer.json()["error"]


def test_the_page_says_so(
    recognizer: Recognizer, failing: Callable[[int, Exception], list[int]], clip_folder: Path
) -> None:
    failing(1, DEAD[0])
    recognition = Recognition({"tiny": recognizer})
    for choice in (1, 2):  # the failure itself, and every visitor after it
        recognition.begin("ann", clip_folder / "a.mp4", How("tiny"), choice)
        (event,) = recognition.run("ann")
        assert "has failed. It answers again when the server" in event["words"]


# One of each type; that the others of `NO_MEMORY` are taken for the same is `test_one_place_tells_what_happened`.
@pytest.mark.parametrize(
    "error", {type(error): error for error in NO_MEMORY}.values(), ids=lambda error: type(error).__name__
)
def test_the_size_that_fitted_is_remembered(
    recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch, clip_folder: Path, error: Exception
) -> None:
    sizes: list[int] = []
    run_network = NetworkRunner.__call__

    def small(self: NetworkRunner, inputs: Tensor, *given: Any, **options: Any) -> Any:
        sizes.append(len(inputs))
        if len(inputs) > 2:
            raise error
        return run_network(self, inputs, *given, **options)

    monkeypatch.setattr(NetworkRunner, "__call__", small)
    outcomes = list(classify_files(recognizer, [str(clip_folder / "a.mp4")] * 8, ClipRequest(), batch_size=4))
    assert all(isinstance(outcome, Prediction) for outcome in outcomes)
    assert sizes == [4, 2, 2, 2, 2]


def test_nothing_of_a_batch_that_did_not_fit_is_alive_when_it_is_tried_again(
    recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch, clip_folder: Path
) -> None:
    first: list[weakref.ref[Tensor]] = []
    alive: list[bool] = []
    run_network, cat = NetworkRunner.__call__, torch.cat

    def small(self: NetworkRunner, inputs: Tensor, *given: Any, **options: Any) -> Any:
        if len(inputs) > 1:
            first.append(weakref.ref(inputs))
            features = inputs * 2  # of the failed step
            first.append(weakref.ref(features))
            raise torch.OutOfMemoryError("too much")
        return run_network(self, inputs, *given, **options)

    def next_batch(tensors: Any, *given: Any, **options: Any) -> Tensor:
        if tensors[0].ndim == 5:
            alive.extend(one() is not None for one in first)
        return cat(tensors, *given, **options)

    monkeypatch.setattr(NetworkRunner, "__call__", small)
    monkeypatch.setattr(torch, "cat", next_batch)
    gc.disable()
    try:
        list(classify_files(recognizer, [str(clip_folder / "a.mp4")] * 2, ClipRequest(), batch_size=2))
    finally:
        gc.enable()
    assert alive
    assert not any(alive)


def test_a_batch_that_cannot_be_put_together_is_halved(
    recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch, clip_folder: Path
) -> None:
    sizes: list[int] = []
    cat = torch.cat

    def small(tensors: Any, *given: Any, **options: Any) -> Tensor:
        if tensors[0].ndim == 5:
            sizes.append(len(tensors))
            if len(tensors) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
        return cat(tensors, *given, **options)

    monkeypatch.setattr(torch, "cat", small)
    outcomes = list(classify_files(recognizer, [str(clip_folder / "a.mp4")] * 4, ClipRequest(), batch_size=4))
    assert all(isinstance(outcome, Prediction) for outcome in outcomes)
    assert [size for size in sizes if size > 1] == [4, 2, 2]


def test_a_check_that_does_not_fit_says_so(
    recognizer: Recognizer, failing: Callable[[int, Exception], list[int]]
) -> None:
    failing(1, NO_MEMORY[0])
    with pytest.raises(VideoError) as told:  # what `explain --check` asks
        recognizer.forward(torch.zeros(1, 3, 8, 48, 48))
    assert told.value.code == "out_of_memory"


def test_where_not_even_one_view_fits_each_clip_is_tried_once_more_only(
    recognizer: Recognizer, failing: Callable[[int, Exception], list[int]], clip_folder: Path
) -> None:
    sizes = failing(1, NO_MEMORY[0])
    outcomes = list(classify_files(recognizer, [str(clip_folder / "a.mp4")] * 2, ClipRequest(), batch_size=1))
    assert [outcome.error.code for outcome in outcomes if isinstance(outcome, Failure)] == ["out_of_memory"] * 2
    assert "one view of" in outcomes[0].error.message
    assert sizes == [1, 1]


def test_maps_that_do_not_fit_say_so(
    recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch, clip_folder: Path
) -> None:
    explanation = recognizer.explain_all(clip_folder / "a.mp4")
    block = next(iter(recognizer.nonlocal_layers().values()))

    def full(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")

    monkeypatch.setattr(type(block), "attention_received", full)
    with pytest.raises(VideoError, match="cpu has no room for what this takes") as told:
        explanation.maps(method="attention")
    assert told.value.code == "out_of_memory"
    assert told.value.__context__.__traceback__ is None  # or it would hold on to tensors


def test_weights_that_do_not_fit_say_so(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    def full(*_: Any, **__: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(VideoError, match="cpu has no room for the weights of"):
        nlv.load(tiny_model, device="cpu")


def test_tf32_is_off_while_a_gpu_computes_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from nonlocal_video.inference.shared_network import SharedNetwork

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    shared = SharedNetwork(torch.nn.Identity(), torch.device("cuda:0"))
    with shared.taken():
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32
