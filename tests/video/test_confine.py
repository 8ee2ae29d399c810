"""Actions that a decoding process can no longer do, tried from inside one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nonlocal_video.video.decode import VideoReader

TRIES = """
import ctypes, json, os, socket, subprocess, sys
from nonlocal_video.video._confine import confine
folder = sys.argv[1]
opened_before = open(os.path.join(folder, "log"), "w")

def attempt(act):
    try:
        act()
    except OSError as error:
        return type(error).__name__
    return "done"

def write():
    open(os.path.join(folder, "new"), "w").close()

tries = {
    "read": lambda: open(os.path.join(folder, "there")).read(),
    "list": lambda: os.listdir(folder),
    "write": write,
    "overwrite": lambda: open(os.path.join(folder, "there"), "r+"),
    "truncate": lambda: os.truncate(os.path.join(folder, "there"), 0),
    "delete": lambda: os.remove(os.path.join(folder, "there")),
    "folder": lambda: os.mkdir(os.path.join(folder, "sub")),
    "link": lambda: os.symlink("/etc/passwd", os.path.join(folder, "link")),
    "tcp": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    "udp": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
    "unix": lambda: socket.socket(socket.AF_UNIX),
    "program": lambda: os.execv("/bin/true", ["true"]),
}
before = confine() if sys.argv[2] == "confined" else []
results = {name: attempt(act) for name, act in tries.items()}
opened_before.write("still writable")
print(json.dumps([before, results]), flush=True)
"""
READS = {"read", "list"}


def tried(folder: Path, how: str) -> tuple[list[str], dict[str, str]]:
    folder.mkdir()
    (folder / "there").write_text("content")
    done = subprocess.run(
        [sys.executable, "-c", TRIES, str(folder), how], capture_output=True, text=True, check=False, timeout=60
    )
    if how == "free":  # its last try replaces it by another program
        return [], {}
    assert done.returncode == 0, done.stderr
    enforced, results = json.loads(done.stdout)
    return enforced, results


@pytest.mark.skipif(sys.platform != "linux", reason="Linux' own mechanisms")
def test_nothing_but_reading_is_left(tmp_path: Path) -> None:
    enforced, results = tried(tmp_path / "confined", "confined")
    if enforced != ["no writing to files", "no network", "no other programs"]:
        pytest.skip(f"this kernel enforces {enforced or 'nothing'}")
    assert {name for name, result in results.items() if result == "done"} == READS
    assert {result for name, result in results.items() if name not in READS} == {"PermissionError"}
    assert (tmp_path / "confined" / "there").read_text() == "content"
    assert (tmp_path / "confined" / "log").read_text() == "still writable"
    tried(tmp_path / "free", "free")
    assert not (tmp_path / "free" / "there").exists()  # the same tries do harm where nothing forbids them
    assert (tmp_path / "free" / "new").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux' own mechanisms")
def test_the_decoding_process_is_confined(clip_folder: Path, tmp_path: Path) -> None:
    with VideoReader() as reader:
        assert reader.confined == ()
        reader.probe(clip_folder / "a.mp4")
        assert reader._process is not None
        status = Path(f"/proc/{reader._process.pid}/status").read_text()
        confined = reader.confined
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["NoNewPrivs"] == "1"
    enforced, _ = tried(tmp_path / "confined", "confined")
    assert list(confined) == enforced
    assert fields["Seccomp"] == ("2" if "no network" in enforced else "0")
