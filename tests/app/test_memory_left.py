"""Memory that counts as left, and uploads that are refused when it is short."""

from __future__ import annotations

from pathlib import Path

import fastapi
import pytest
from fastapi.testclient import TestClient

from nonlocal_video.app import memory_left, refusals
from nonlocal_video.app.body_limit import BodyLimit
from nonlocal_video.app.memory_left import bytes_left

MIB = 1024**2


def system(folder: Path, *, available_mib: int, size_mib: int = 1000, limit: str = "unlimited") -> Path:
    """Figures of the kernel as in /proc."""
    (folder / "self").mkdir(parents=True)
    (folder / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable:    {1024 * available_mib} kB\n")
    (folder / "self" / "status").write_text(f"Name:\tpython\nVmSize:\t {1024 * size_mib} kB\n")
    limits = (
        f"Limit                     Soft Limit           Hard Limit           Units\nMax address space         {limit}"
    )
    (folder / "self" / "limits").write_text(limits + "            unlimited            bytes\n")
    return folder


def container(folder: Path, limit: str, *, used_mib: int, droppable_mib: int) -> Path:
    """Figures of a control group."""
    folder.mkdir()
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used_mib * MIB}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {droppable_mib * MIB}\nactive_file 7\n")
    return folder


def test_the_nearest_limit_counts(tmp_path: Path) -> None:
    free = system(tmp_path / "a", available_mib=700)
    none = tmp_path / "none"
    assert bytes_left(proc=free, group=none) == 700 * MIB
    unlimited = container(tmp_path / "b", "max", used_mib=9000, droppable_mib=0)
    assert bytes_left(proc=free, group=unlimited) == 700 * MIB
    small = container(tmp_path / "c", str(2000 * MIB), used_mib=1900, droppable_mib=300)
    assert bytes_left(proc=free, group=small) == 400 * MIB
    limited = system(tmp_path / "d", available_mib=700, size_mib=1000, limit=str(1100 * MIB))
    assert bytes_left(proc=limited, group=small) == 100 * MIB
    assert bytes_left(proc=none, group=none) is None
    assert bytes_left() is None or bytes_left() > 0  # this machine


def test_uploads_are_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    app = fastapi.FastAPI()

    @app.post("/v1/classify")
    async def classify() -> str:
        return "answered"

    @app.get("/healthz")
    async def healthz() -> str:
        return "ok"

    app.add_middleware(BodyLimit, max_upload_bytes=MIB)
    left = memory_left.SPARE_BYTES - 1
    monkeypatch.setattr(memory_left, "bytes_left", lambda: left)
    with TestClient(app) as client:
        refused = client.post("/v1/classify", content=b"clip")
        assert (refused.status_code, refused.json()["code"]) == (503, "busy")
        assert refused.json()["message"] == "The server is short of memory; try again later."
        assert int(refused.headers["retry-after"]) == refusals.RETRY_SECONDS
        assert client.get("/healthz").json() == "ok"
        left = memory_left.SPARE_BYTES
        assert client.post("/v1/classify", content=b"clip").json() == "answered"
