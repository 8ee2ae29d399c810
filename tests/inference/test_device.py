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
