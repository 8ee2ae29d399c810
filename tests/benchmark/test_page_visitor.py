"""The server that the benchmarks of the page start."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from page_visitor import serving

TALKATIVE = """#!/bin/sh
echo "Page on http://127.0.0.1:1 (Ctrl-C ends it)" >&2
head -c 300000 /dev/zero | tr '\\0' '\\n' >&2
touch "$TMPDIR/said"
exec sleep 60
"""


def a_tree(folder: Path, program: str) -> Path:
    """Make a checkout whose Python is a shell script."""
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(program)
    python.chmod(0o755)
    return folder


def wait_for(path: Path) -> None:
    """Wait until a file is there, for 20 seconds at most."""
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands for the server")
def test_a_server_that_says_much_is_not_held_up(tmp_path: Path) -> None:
    """A pipe takes 64 KiB; a process that writes more into one that nobody reads waits."""
    with serving(temporary=tmp_path, tree=a_tree(tmp_path / "tree", TALKATIVE)) as (url, _):
        assert url == "http://127.0.0.1:1"
        wait_for(tmp_path / "said")


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands for the server")
def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    tree = a_tree(tmp_path / "tree", "#!/bin/sh\necho there is no such model >&2\nexit 2\n")
    with (
        pytest.raises(RuntimeError, match="ended with 2:\nthere is no such model"),
        serving(temporary=tmp_path, tree=tree),
    ):
        pass


class SlowScreen(io.StringIO):
    """A standard error that takes its time for the first line."""

    def write(self, text: str, /) -> int:
        if not self.tell():
            time.sleep(0.3)
        return super().write(text)


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands for the server")
def test_all_that_a_server_says_is_printed_before_the_block_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that printed later would write into a standard error that is closed, with a trace at Python's end."""
    screen = SlowScreen()
    monkeypatch.setattr(sys, "stderr", screen)
    few = TALKATIVE.replace("300000", "300")  # less than a pipe takes: the server is done before anything is printed
    with serving(temporary=tmp_path, tree=a_tree(tmp_path / "tree", few)):
        wait_for(tmp_path / "said")
    assert screen.getvalue() == 300 * "\n"
