"""Devices that are visible and cannot be used: said, refused or warned about before the first kernel."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.runtimes import device
from nonlocal_video.inference.runtimes.device import choose_device

WHEEL = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]
TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by downloading "
    "and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    device._warn.cache_clear()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A machine with cards of these compute capabilities, and a wheel built for these architectures."""

    def machine(*capabilities: tuple[int, int], wheel: list[str] = WHEEL) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capabilities[index])
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"Card {index}")
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: wheel)

    return machine


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str | None, str], None]:
    """A machine with a device file, on which CUDA does not start for this reason; a build for this CUDA or none."""

    def machine(cuda: str | None, reason: str) -> None:
        def init() -> None:
            raise RuntimeError(reason)

        (tmp_path / "nvidia0").touch()
        monkeypatch.setattr(device, "_device_files", lambda: [tmp_path / "nvidia0"])
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.cuda, "init", init)
        monkeypatch.setattr(torch.version, "cuda", cuda)

    return machine


@pytest.mark.parametrize(
    ("capability", "wheel", "usable"),
    [
        ((7, 5), WHEEL, True),
        ((8, 9), WHEEL, True),  # by sm_86
        ((9, 0), WHEEL, True),
        ((12, 1), WHEEL, True),
        ((13, 0), WHEEL, True),  # by compute_120
        ((7, 0), WHEEL, False),
        ((6, 1), WHEEL, False),
        ((9, 0), ["sm_80", "sm_90a"], True),
        ((8, 0), ["sm_86"], False),
        ((10, 0), ["sm_90"], False),
        ((6, 1), [], True),  # a build that does not say
    ],
)
def test_cards_older_than_the_wheel(
    cards: Callable[..., None], capability: tuple[int, int], wheel: list[str], usable: bool
) -> None:
    cards(capability, wheel=wheel)
    if usable:
        assert choose_device("cuda") == choose_device("auto") == torch.device("cuda:0")
        return
    with pytest.raises(UsageError, match=rf"Card 0 has compute capability {capability[0]}\.{capability[1]}, and torch"):
        choose_device("cuda")
    assert choose_device("auto") == torch.device("cpu")


def test_auto_takes_the_first_card_that_works(cards: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    cards((6, 1), (8, 0))
    assert choose_device("auto") == torch.device("cuda:1")
    assert not caplog.records
    with pytest.raises(UsageError, match=r"device = 'cuda:0', but Card 0 has compute capability 6\.1"):
        choose_device("cuda:0")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UsageError, match="has cuda:0 to cuda:1"):
        choose_device("cuda:2")


@pytest.mark.parametrize(
    ("cuda", "reason", "said"),
    [
        ("13.0", TOO_OLD, "the NVIDIA driver is too old for torch.*found version 11040.*update the driver"),
        (None, "Torch not compiled with CUDA enabled", "was built without CUDA; install a CUDA build"),
        ("13.0", "Unexpected error from cudaGetDeviceCount()", "no usable NVIDIA GPU and driver.*cudaGetDeviceCount"),
    ],
)
def test_the_cpu_is_never_taken_silently(
    driver: Callable[[str | None, str], None],
    cuda: str | None,
    reason: str,
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    driver(cuda, reason)
    with caplog.at_level(logging.WARNING):
        assert [choose_device("auto") for _ in range(3)] == [torch.device("cpu")] * 3
    (warning,) = caplog.messages  # once
    assert warning.startswith("The CPU is used although there is an NVIDIA device: ")
    with pytest.raises(UsageError, match=said):
        choose_device("cuda")


def test_a_device_that_this_user_may_not_open(
    driver: Callable[[str | None, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver("13.0", "No CUDA GPUs are available")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UsageError, match=r"may not open .*nvidia0.*--group-add"):
        choose_device("cuda")


WSL_LIBRARY = "usr/lib/wsl/lib/libcuda.so.1"
WSL_DRIVER = "usr/lib/wsl/drivers/nv_dispi.inf_amd64_0a1b/libcuda.so.1.1"
WSL_OF_OTHERS = ("usr/lib/wsl/lib/libdxcore.so", "usr/lib/wsl/drivers/iigd_dch.inf_amd64_0a1b/libze.so")


@pytest.mark.parametrize(
    ("files", "visible"),
    [
        (("dev/nvidia0",), True),
        (("dev/nvidia11", "dev/nvidiactl"), True),
        (("dev/null",), False),
        (("dev/nvidiactl", "dev/nvidia-uvm"), False),  # what is left of a driver whose cards are not given
        (("dev/dxg", *WSL_OF_OTHERS, WSL_LIBRARY), True),  # a distribution under WSL 2
        (("dev/dxg", *WSL_OF_OTHERS, WSL_DRIVER), True),  # a container there, with GPUs
        (("dev/dxg", *WSL_OF_OTHERS), False),  # a GPU of another maker
        ((*WSL_OF_OTHERS, WSL_LIBRARY, WSL_DRIVER), False),  # a container there, without GPUs
        (("usr/lib/x86_64-linux-gnu/libcuda.so.1",), False),  # a container of an image that brings the library
    ],
)
def test_the_files_that_tell_of_an_nvidia_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: tuple[str, ...], visible: bool
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(device, "_ROOT", tmp_path)
    assert device.nvidia_device_is_visible() == visible
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not device.nvidia_device_is_visible()


@pytest.mark.parametrize("driver_is_there", [True, False])
def test_on_windows_the_driver_tells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, driver_is_there: bool) -> None:
    monkeypatch.setattr(device, "_ROOT", tmp_path / "none")
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("SYSTEMROOT", str(tmp_path))
    (tmp_path / "System32").mkdir()
    if driver_is_there:
        (tmp_path / "System32" / "nvcuda.dll").touch()
    assert device.nvidia_device_is_visible() == driver_is_there


@pytest.mark.parametrize("cuda", [None, "13.0"])
def test_under_wsl_the_cpu_is_not_taken_silently(
    cards: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    cuda: str | None,
) -> None:
    def init() -> None:
        raise RuntimeError(TOO_OLD)

    cards()
    for name in ("dev/dxg", WSL_LIBRARY):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(device, "_ROOT", tmp_path)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "init", init)
    assert choose_device("auto") == torch.device("cpu")
    (warning,) = caplog.messages
    assert ("the NVIDIA driver is too old" if cuda else "was built without CUDA") in warning


@pytest.mark.parametrize("value", ["void", "all"])
def test_a_container_that_got_its_devices_by_cdi_has_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    """CDI sets `NVIDIA_VISIBLE_DEVICES=void`, so that the older way of giving devices does nothing more."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    monkeypatch.setattr(device, "_ROOT", tmp_path)
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", value)
    assert device.nvidia_device_is_visible()


@pytest.mark.parametrize("hidden", ["", "-1", "none"])
def test_a_device_that_the_user_has_hidden_is_no_surprise(
    driver: Callable[[str | None, str], None],
    hidden: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    driver("13.0", "No CUDA GPUs are available")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert choose_device("auto") == torch.device("cpu")
    assert not caplog.records


def test_a_machine_without_cards_is_no_surprise(
    cards: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cards()
    monkeypatch.setattr(device, "_device_files", list)
    assert choose_device("auto") == torch.device("cpu")
    assert not caplog.records
