"""Compiled networks on disk: two writers, damage, the bound, folders that cannot be written to, and keys."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from random_networks import KERNELS, needs_openvino, random_network, resnet_card
from torch import nn

from nonlocal_video.inference.runtimes import compiled_cache
from nonlocal_video.inference.runtimes.compiled_cache import CompiledCache, entry_key
from nonlocal_video.paths import CACHE_VARIABLE

SHAPE = (3, 8, 36, 36)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    return tmp_path / "openvino"


def test_what_is_stored_is_found() -> None:
    cache = CompiledCache()
    assert cache.get("a") is None
    cache.put("a", b"first")
    cache.put("b", b"second")
    cache.put("a", b"third")
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (b"third", b"second", None)


def test_writers_at_the_same_time_leave_one_whole_entry(folder: Path) -> None:
    cache, blobs = CompiledCache(), [bytes([number]) * 3_000_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda blob: cache.put("same", blob), blobs))
    assert cache.get("same") in blobs
    assert [path.name for path in folder.iterdir()] == ["same.blob"]


@pytest.mark.parametrize(
    "damage",
    [lambda whole: whole[:-9], lambda whole: b"", lambda whole: whole[:2], lambda whole: b"X" + whole[1:]],
    ids=["cut off", "empty", "no checksum", "another byte"],
)
def test_a_damaged_entry_counts_as_missing(
    damage: Callable[[bytes], bytes], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = CompiledCache()
    cache.put("a", b"compiled network")
    path = folder / "a.blob"
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert cache.get("a") is None
    assert "damaged; the network is compiled again" in caplog.text
    cache.put("a", b"compiled network")
    assert cache.get("a") == b"compiled network"


def test_the_entries_used_last_stay_within_the_bound(folder: Path) -> None:
    cache = CompiledCache(max_bytes=3 * 104)
    for age, name in enumerate("abc"):
        cache.put(name, bytes(100))
        os.utime(folder / f"{name}.blob", (age, age))
    assert cache.get("a") is not None  # used now
    cache.put("d", bytes(100))
    assert {path.stem for path in cache.entries()} == {"a", "c", "d"}
    cache.put("too large", bytes(1000))
    assert {path.stem for path in cache.entries()} == {"a", "c", "d"}


def test_what_a_killed_process_left_is_deleted_when_it_is_old(folder: Path) -> None:
    folder.mkdir()
    for name, age in ((".old.1.1.part", 7200), (".new.1.1.part", 0)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    CompiledCache().put("a", b"whole")
    assert {path.name for path in folder.iterdir()} == {"a.blob", ".new.1.1.part"}


def test_a_folder_that_cannot_be_had_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    cache = CompiledCache()
    cache.put("a", b"compiled")
    assert (cache.get("a"), cache.entries()) == (None, [])


def test_a_full_disk_keeps_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compiled_cache, "atomic_write", full)
    cache = CompiledCache()
    cache.put("a", b"compiled")
    assert cache.get("a") is None


@needs_openvino
def test_the_key_is_that_of_the_same_network_alone() -> None:
    card = resnet_card(KERNELS)
    network = random_network(card)
    key = entry_key(network, card, SHAPE)
    assert key is not None
    same = random_network(card)
    same.load_state_dict(network.state_dict())
    assert entry_key(same, card, SHAPE) == key

    others = [entry_key(network, card, (3, 4, 36, 36)), entry_key(random_network(card), card, SHAPE)]
    others.append(entry_key(network, card, SHAPE, bfloat16=True))
    block = same.get_submodule("layer3.nonlocal0")
    block.gate = 0.5  # neither a weight nor in `repr`
    others.append(entry_key(same, card, SHAPE))
    block.gate = 1.0
    same.get_submodule("layer2.0.conv1.conv").stride = (1, 1, 1)
    others.append(entry_key(same, card, SHAPE))
    assert None not in others
    assert len({key, *others}) == 6


@needs_openvino
def test_networks_whose_code_is_not_ours_have_no_key() -> None:
    class Doubled(nn.Conv3d):
        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(clips)

    card = resnet_card({})
    assert entry_key(nn.Sequential(Doubled(3, 4, 1)), card, SHAPE) is None
    hooked = random_network(card)
    hooked.get_submodule("layer2").register_forward_hook(lambda _module, _inputs, output: 2 * output)
    assert entry_key(hooked, card, SHAPE) is None
