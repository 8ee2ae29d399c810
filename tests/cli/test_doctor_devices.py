"""The doctor's sentences about devices; CUDA's answers are made up here."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nonlocal_video.cli import doctor
from nonlocal_video.errors import NonlocalVideoError


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [SimpleNamespace(name="New", major=9, minor=0, total_memory=80 * 2**30),
             SimpleNamespace(name="Old", major=6, minor=1, total_memory=8 * 2**30)]  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: cards[index])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: cards[index].name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (cards[index].major, cards[index].minor))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "sm_90"])
    monkeypatch.setattr(doctor, "_nvidia_driver", lambda: "580.65.06")


def test_the_cpu_computes_a_convolution() -> None:
    assert "right values" in doctor._convolution("cpu")


def test_the_command_tries_every_device(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def convolution(device: str) -> str:
        return f"{device} was tried"

    for check in ("_decode", "_confinement", "_default_model", "_openvino"):
        monkeypatch.setattr(doctor, check, lambda *_: "fine")
    monkeypatch.setattr(doctor, "_convolution", convolution)
    monkeypatch.setattr(doctor, "_cuda", lambda: "cuda was tried")
    done = run("doctor")
    assert done.status == 0
    assert {"cpu was tried", "cuda was tried"} <= set(re.findall(r"\w+ was tried", done.out))


def test_wrong_values_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    conv3d = torch.nn.functional.conv3d
    monkeypatch.setattr(
        torch.nn.functional, "conv3d", lambda x, w: conv3d(x, w) * (1.05 if x.dtype == torch.float32 else 1)
    )
    with pytest.raises(NonlocalVideoError, match=r"wrong values: they differ by up to [45]\.\de-02"):
        doctor._convolution("cpu")


@pytest.mark.usefixtures("two_cards")
def test_every_card_is_tried_and_described(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def convolution(device: str) -> str:
        tried.append(device)
        return "a 3D convolution gives the right values"

    monkeypatch.setattr(doctor, "_convolution", convolution)
    with pytest.raises(NonlocalVideoError) as told:
        doctor._cuda()
    first, new, old = str(told.value).splitlines()
    assert first == "driver 580.65.06, torch built for sm_80, sm_90"
    assert new == "cuda:0 New, capability 9.0, 80.0 GiB: a 3D convolution gives the right values"
    assert old.startswith("cuda:1 Old, capability 6.1, 8.0 GiB: Old has compute capability 6.1, and torch")
    assert tried == ["cuda:0"]  # nothing runs where there is no kernel for


@pytest.mark.usefixtures("two_cards")
def test_a_card_that_fails_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def convolution(device: str) -> str:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(doctor, "_convolution", convolution)
    with pytest.raises(NonlocalVideoError, match=r"cuda:0 New, .*RuntimeError: CUDA error: an illegal memory access"):
        doctor._cuda()
