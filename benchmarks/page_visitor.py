"""A visitor of the page without a browser: posts what the page would post, and reads what comes back."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import httpx
import numpy as np
from gradio_client.utils import apply_diff
from numpy.typing import NDArray

from nonlocal_video.video.encode import write_video

ANSWER_WITHIN_SECONDS = 300
READ_WITHIN_SECONDS = 10
PREFIX = "/gradio_api"

Listener = dict[str, Any]


class Refused(Exception):
    """The server began nothing: too many wait, or it is ending."""


class Failed(Exception):
    """The sentence that the page shows instead of an answer."""


class Visitor(AbstractContextManager["Visitor"]):
    """One visit, from the opening of the page to its closing.

    Args:
        url: Where the page is.
    """

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=ANSWER_WITHIN_SECONDS)
        config = self.http.get("/config").raise_for_status().json()
        self.components: dict[int, dict[str, Any]] = {found["id"]: found for found in config["components"]}
        self.listeners: list[Listener] = config["dependencies"]
        self.session = secrets.token_hex(6)
        self._choice = 0
        # Gradio takes the end of this answer, which never comes by itself, for the closing of the page.
        request = self.http.build_request("GET", f"{PREFIX}/heartbeat/{self.session}")
        self._open_page = self.http.send(request, stream=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open_page.close()
        self.http.close()

    def upload(self, clip: Path) -> dict[str, Any]:
        """Upload a file; what stands for it in the value of a component."""
        with clip.open("rb") as file:
            answer = self.http.post(f"{PREFIX}/upload", files={"files": (clip.name, file)}).raise_for_status()
        (path,) = answer.json()
        return {"path": path, "orig_name": clip.name, "meta": {"_type": "gradio.FileData"}}

    def recognise(self, clip: dict[str, Any], *, views: str = "fast") -> dict[str, Any]:
        """`choose` and `finish`; the last event of the answer.

        Raises:
            Refused: See `choose`.
            Failed: With the sentence that the page shows instead of an answer.
        """
        event: dict[str, Any] = self.finish(self.choose(clip, views=views))["stage"]
        if event["state"] == "error":
            raise Failed(event["words"])
        return event

    def choose(self, clip: dict[str, Any], *, views: str = "fast") -> Listener:
        """Choose a clip that was uploaded, or a sample as {"sample": number}; the listener of its run, which is joined.

        Raises:
            Refused: With the sentence that the page shows at once.
        """
        stage = self._number("stage")
        (listener,) = [found for found in self.listeners if [stage, "begin"] in found["targets"]]
        self._choice += 1
        body = {
            "data": self._given(listener, {"views": views}),
            "fn_index": listener["id"],
            "session_hash": self.session,
            "event_data": {**clip, "choice": self._choice},
            "trigger_id": stage,
        }
        first = self.http.post(f"{PREFIX}/run/predict", json=body).raise_for_status().json()["data"][0]
        if first["state"] != "waiting":
            raise Refused(first["words"])
        (run,) = [found for found in self.listeners if found["trigger_after"] == listener["id"]]
        self._join(run, self._given(run, {}))
        return run

    def ask(self, function: str, about: dict[str, Any]) -> dict[str, Any]:
        """Call a function of the server as the player does: `point`, `evidence`, `check`, `standing`, `stop`."""
        body = {
            "session_hash": self.session,
            "component_id": self._number("stage"),
            "fn_name": function,
            "data": about,
        }
        reply: dict[str, Any] = self.http.post(f"{PREFIX}/component_server", json=body).raise_for_status().json()
        return reply

    def call(self, name: str, *values: Any) -> list[Any]:
        """Call an endpoint of the API with values in its order; its last outputs.

        Raises:
            Failed: With the sentence that a program gets.
        """
        (listener,) = [found for found in self.listeners if found["api_name"] == name]
        self._join(listener, list(values))
        return list(self.answers())[-1]

    def finish(self, listener: Listener) -> dict[str, Any]:
        """The last values of the components that the answer, and what follows it by itself, sets, by `elem_id`.

        Raises:
            Failed: With the sentence that the page shows.
        """
        shown: dict[str, Any] = {}
        outputs = [_elem_id(self.components[number]) for number in listener["outputs"]]
        for answer in self.answers():
            shown.update((name, value) for name, value in zip(outputs, answer, strict=True) if not _keeps(value))
        for following in self.listeners:
            if following["trigger_after"] == listener["id"] and not _is_at_once(following):
                self._join(following, self._given(following, {}))
                shown.update(self.finish(following))
        return shown

    def answers(self) -> Iterator[list[Any]]:
        """The outputs of what was begun, as often as they change."""
        shown: list[Any] | None = None
        for message in self.messages():
            if message["msg"] == "process_generating":
                # The first has the values themselves, those after it what has changed.
                data = message["output"]["data"]
                shown = data if shown is None else [apply_diff(*pair) for pair in zip(shown, data, strict=True)]
                yield shown
            elif message["msg"] == "process_completed":
                if not message["success"]:
                    raise Failed(message["output"]["error"])
                if shown is None:
                    yield message["output"]["data"]

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield the messages to this visitor until everything is answered, and leave then as Gradio's clients do."""
        with self.http.stream("GET", f"{PREFIX}/queue/data", params={"session_hash": self.session}) as answer:
            for line in answer.iter_lines():
                if line.startswith("data:"):
                    message = json.loads(line.removeprefix("data:"))
                    yield message
                    if message["msg"] == "close_stream":
                        return

    def _number(self, elem_id: str) -> int:
        (number,) = [number for number, found in self.components.items() if _elem_id(found) == elem_id]
        return number

    def _given(self, listener: Listener, values: dict[str, Any]) -> list[Any]:
        components = [self.components[number] for number in listener["inputs"]]
        return [values.get(_elem_id(found).replace("-", "_"), found["props"].get("value")) for found in components]

    def _join(self, listener: Listener, values: list[Any]) -> None:
        body = {"data": values, "fn_index": listener["id"], "session_hash": self.session}
        joined = self.http.post(f"{PREFIX}/queue/join", json=body)
        if joined.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            raise Refused(joined.json()["detail"])
        joined.raise_for_status()


def _elem_id(component: dict[str, Any]) -> str:
    return component["props"].get("elem_id") or str(component["id"])


def _is_at_once(listener: Listener) -> bool:
    """Whether a listener has no queue: it only changes what the page shows."""
    return listener["queue"] is False


def _keeps(value: Any) -> bool:
    """Whether an output leaves the component's value as it is."""
    return isinstance(value, dict) and value.get("__type__") == "update" and "value" not in value


@contextmanager
def serving(*arguments: str, temporary: Path, tree: Path | None = None) -> Iterator[tuple[str, int]]:
    """`nonlocal-video serve` on a free port, until the block ends; its address and process id.

    Args:
        arguments: Further ones.
        temporary: Where its temporary files lie.
        tree: Another checkout, whose `.venv` runs it; None is this environment.

    Raises:
        RuntimeError: It ended before it had an address; with what it said.
    """
    python = sys.executable if tree is None else str(tree / ".venv" / "bin" / "python")
    command = [python, "-m", "nonlocal_video", "serve", "--port", "0", "--device", "cpu", *arguments]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=tree)
    assert process.stderr is not None
    reader = threading.Thread(target=_pass_on, args=[process.stderr], daemon=True)
    try:
        said: list[str] = []
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"http://\S+", line):
                break
        else:
            raise RuntimeError(f"The server ended with {process.wait()}:\n{''.join(said)}")
        reader.start()
        yield found[0], process.pid
    finally:
        process.terminate()
        process.wait()
        if reader.ident is not None:  # started: the rest is printed while the caller's standard error is still open
            reader.join(READ_WITHIN_SECONDS)


def _pass_on(stream: IO[str]) -> None:
    """Print what the server says later; left unread it would fill the pipe, and the server would wait."""
    with stream:
        sys.stderr.writelines(stream)


def make_clip(
    path: Path, *, seed: int = 0, seconds: float = 10.0, width: int = 320, height: int = 240, fps: int = 25
) -> None:
    """Write an MP4 file with a textured square that crosses a textured ground, about 0.4 Mbit for each second."""
    random = np.random.default_rng(seed)
    side, num_frames = height // 3, round(seconds * fps)
    ground = random.integers(0, 128, (height, width, 3), dtype=np.uint8)
    ground += np.roll(ground, 1, axis=1)
    square = random.integers(0, 256, (side, side, 3), dtype=np.uint8)

    def frames() -> Iterator[NDArray[np.uint8]]:
        for index in range(num_frames):
            frame = np.roll(ground, index, axis=1)
            left = (width - side) * index // num_frames
            frame[side : 2 * side, left : left + side] = square
            yield frame

    write_video(path, frames(), fps=fps)
