"""Private copies of the clips that programs name."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from nonlocal_video.app.received import receive
from nonlocal_video.errors import VideoError


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="files without an announced size")
def test_a_file_that_grows_while_it_is_copied_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of /proc have no size before they are read."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    name = f"{os.getpid()}/smaps"
    assert (Path("/proc") / name).stat().st_size == 0
    with pytest.raises(VideoError, match="1000 are allowed here") as error:
        receive(None, name, root=Path("/proc"), max_bytes=1000)
    assert error.value.code == "too_large"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["fifo", "socket", "chain", "circle", "out/passwd", "b\\a.mp4", "a.mp4\n", "A.MP4"])
def test_what_is_no_plain_file_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A FIFO would be waited for, and links could lead out of the folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"1")
    os.mkfifo(tmp_path / "fifo")
    for link, target in {"link": "a.mp4", "chain": "link", "circle": "circle", "out": "/etc"}.items():
        (tmp_path / link).symlink_to(target)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")  # its whole path may be too long
        with pytest.raises(VideoError, match="links are not followed") as error:
            receive(None, name, root=tmp_path, max_bytes=1000)
    assert error.value.code == "not_found"
