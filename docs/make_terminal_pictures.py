"""Make the pictures of the command line: `python docs/make_terminal_pictures.py`.

Each command runs in a terminal of its own (a pty of 120 columns), and what it leaves there is drawn in Chromium.
Needs the test extra and a Chromium, and fetches the sample clips if they are not there.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright
from rich.ansi import AnsiDecoder
from rich.console import Console, Group
from rich.text import Text

from nonlocal_video.samples import fetch_samples

IMAGES = Path(__file__).parent / "images"
COLUMNS = 120
WINDOW_SECONDS = 2.4
TO_TRAIN_ON = (
    ("dance.mp4", "dancing", 24.0),
    ("pianist.mp4", "playing", 5.0),
    ("keyboard.mp4", "playing", 3.0),
)
"""Samples, their labels and seconds; `segments` cuts them into windows."""

PICTURES = {
    "terminal_errors.png": (
        "nonlocal-video classify pianist.mp4 holiday.mp4",
        "cat dancer.mp4 | nonlocal-video classify -",
        "nonlocal-video classify /dev/video0",
        "nonlocal-video classify 'https://www.youtube.com/watch?v=IcOl3hmrFVY'",
    ),
    "terminal_weights.png": ("nonlocal-video weights list | head -14",),
    "terminal_train.png": ("nonlocal-video train segments.csv --fast --epochs 4 --output run 2>&1 | tee train.log",),
}
PAGE = """<!DOCTYPE html><style>
body { margin: 0; padding: 18px 22px; width: max-content; background: #14161a; color: #e6e6e6 }
pre { margin: 0; font: 15px/1.35 "DejaVu Sans Mono", monospace }
</style><body><pre>{code}</pre>"""


def main() -> None:
    samples = fetch_samples()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        here = Path(folder)
        for sample in samples:
            shutil.copy(sample.path, here)
        (here / "holiday.mp4").write_text("This is not a video.\n" * 20)
        (here / "segments.csv").write_text(segments())
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        for name, commands in PICTURES.items():
            shown = []
            for command in commands:
                shown += [Text.assemble(("$ ", "bold green"), (command, "bold")), *screen(command, here), Text()]
            page.set_content(PAGE.replace("{code}", as_html(shown[:-1])))
            picture = Image.open(io.BytesIO(page.locator("body").screenshot()))
            picture.quantize(64).save(IMAGES / name, optimize=True)
            print(f"{name}: {picture.size}, {(IMAGES / name).stat().st_size / 1000:.0f} kB", flush=True)
        browser.close()


def segments() -> str:
    """A list of segments to train on."""
    rows = ["path,start_seconds,end_seconds,label"]
    for name, label, seconds in TO_TRAIN_ON:
        for number in range(int(seconds / WINDOW_SECONDS)):
            start = number * WINDOW_SECONDS
            rows.append(f"{name},{start:.1f},{start + WINDOW_SECONDS:.1f},{label}")
    return "\n".join(rows) + "\n"


def screen(command: str, folder: Path) -> list[Text]:
    """Run a line of the shell in a terminal; what stands there at its end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {**os.environ, "PATH": path, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    process = subprocess.Popen(command, shell=True, cwd=folder, env=environment, **streams)
    os.close(theirs)
    output = b""
    while True:
        try:
            part = os.read(ours, 65_536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not part:
            break
        output += part
    process.wait()
    os.close(ours)
    return list(AnsiDecoder().decode("\n".join(lines_left(output.decode()))))


def lines_left(output: str) -> list[str]:
    """Follow the few movements that progress bars make: back to the line's start, up, and erasing a line."""
    lines, row, column_is_start = [""], 0, True
    for part in re.split(r"(\r|\n|\x1b\[\d*A|\x1b\[\d*K|\x1b\[\?\d+[hl])", output):
        if part == "\r":
            column_is_start = True
        elif part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.endswith("A") and part.startswith("\x1b["):
            row -= int(part[2:-1] or 1)
        elif part.endswith("K") and part.startswith("\x1b["):
            lines[row] = ""
        elif part and not part.startswith("\x1b[?"):
            lines[row] = part if column_is_start else lines[row] + part
            column_is_start = False
    while lines and not lines[-1]:
        lines.pop()
    return lines


def as_html(lines: list[Text]) -> str:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Group(*lines))
    return console.export_html(inline_styles=True, code_format="{code}")


if __name__ == "__main__":
    main()
