"""A visitor of the page's Recognise, by the requests that the page makes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

SESSION = "visitor"
CHOICES = itertools.count(1)


def choose(client: httpx.Client, clip: Path, *, session: str = SESSION) -> tuple[dict[str, Any], int]:
    """Upload a clip and choose it, as the page does; return the first event and the number of what runs."""
    (path,) = client.post("/gradio_api/upload", files={"files": (clip.name, clip.read_bytes())}).json()
    config = client.get("/config").json()
    components = {component["id"]: component["props"] for component in config["components"]}
    (stage,) = [number for number, props in components.items() if props.get("elem_id") == "stage"]
    (begin,) = [listener for listener in config["dependencies"] if [stage, "begin"] in listener["targets"]]
    (run,) = [listener for listener in config["dependencies"] if listener["trigger_after"] == begin["id"]]
    answer = client.post(
        "/gradio_api/run/predict",
        json={
            "data": [components[number].get("value") for number in begin["inputs"]],
            "fn_index": begin["id"],
            "session_hash": session,
            "event_data": {"path": path, "choice": next(CHOICES)},
        },
    )
    assert answer.status_code == 200
    return answer.json()["data"][0], run["id"]


def press(client: httpx.Client, clip: Path) -> httpx.Response:
    """Upload a clip and begin its run."""
    _, run = choose(client, clip)
    return client.post("/gradio_api/queue/join", json={"data": [], "fn_index": run, "session_hash": SESSION})


def messages(stream: httpx.Response) -> Iterator[dict[str, Any]]:
    """Yield the messages of a stream up to its end, after which Gradio's clients close the connection."""
    for line in stream.iter_lines():
        if line.startswith("data:"):
            message = json.loads(line.removeprefix("data:"))
            yield message
            if message["msg"] == "close_stream":
                return
