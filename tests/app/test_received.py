"""Private copies of the clips that programs name."""

from __future__ import annotations

import os
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
