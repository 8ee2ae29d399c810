"""Events: once when a score rises, and what is done about them; nothing of it ends the watch."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nonlocal_video.errors import UsageError
from nonlocal_video.inference import live_events
from nonlocal_video.inference.live import LiveAnswer
from nonlocal_video.inference.live_events import (
    EventActions,
    EventDetector,
    EventRule,
    check_webhook,
    event_row,
    parse_command,
)

LABELS = ("wave", "x>=y", "rest")


def answer(seconds: float, score: float) -> LiveAnswer:
    scores = np.array([score, 0.0, 1 - score], np.float32)
    return LiveAnswer(seconds - 1, seconds, LABELS, scores, scores, "nonlocal", None, 0.1)


def begun(scores: list[float], *, gap_seconds: float = 0.0, every: float = 0.5) -> list[int]:
    detector = EventDetector([EventRule("wave", 0.8)], gap_seconds=gap_seconds)
    return [i for i, score in enumerate(scores) if detector.begun(answer(i * every, score))]


@pytest.mark.parametrize(
    ("scores", "gap", "expected"),
    [
        ([0.1, 0.9, 0.95, 0.9, 0.1], 0, [1]),
        ([0.9], 0, [0]),
        ([0.9, 0.7, 0.9, 0.41, 0.9], 0, [0]),  # wavers, and stays above half of the threshold
        ([0.9, 0.39, 0.9], 0, [0, 2]),
        ([0.9, 0.1, 0.9, 0.1, 0.9], 2.0, [0, 4]),  # 1 s after the first is too early
        ([0.9, 0.1, 0.9, 0.9, 0.9], 2.0, [0, 4]),  # and begins when it may, as the action still lasts
        ([0.79, 0.79], 0, []),
    ],
)
def test_an_event_begins_once_each_time(scores: list[float], gap: float, expected: list[int]) -> None:
    assert begun(scores, gap_seconds=gap) == expected


def test_rules_are_counted_apart() -> None:
    rules = [EventRule("wave", 0.8), EventRule("rest", 0.5)]
    detector = EventDetector(rules)
    found = [detector.begun(answer(i, score)) for i, score in enumerate([0.9, 0.2, 0.2, 0.9])]
    assert found == [[rules[0]], [rules[1]], [], [rules[0]]]


def test_rules_in_words() -> None:
    assert EventRule.parse(" wave >= 0.5", LABELS) == EventRule("wave", 0.5)
    assert EventRule.parse("x>=y>=1", LABELS) == EventRule("x>=y", 1.0)
    for text in ("wave", "wave>=", ">=0.5", "wave>0.5", "wave>=0", "wave>=1.1", "wave>=nan", "wave>=-1"):
        with pytest.raises(UsageError, match="should be LABEL>=SCORE"):
            EventRule.parse(text, LABELS)
    with pytest.raises(UsageError, match=r"no class 'waves'\. Do you mean 'wave'"):
        EventRule.parse("waves>=0.5", LABELS)
    with pytest.raises(UsageError, match="gap-seconds = -1"):
        EventDetector([], gap_seconds=-1)


@pytest.mark.parametrize("address", ["", "example.org", "ftp://example.org", "http://", "http://[x"])
def test_webhooks_are_http_addresses(address: str) -> None:
    with pytest.raises(UsageError, match="should be an address that begins with http"):
        check_webhook(address)


def test_commands_are_words() -> None:
    assert parse_command("notify 'a b' $HOME;ls") == ["notify", "a b", "$HOME;ls"]
    for text in ("", "  ", "say 'x"):
        with pytest.raises(UsageError, match="command"):
            parse_command(text)


def done(event: dict[str, Any], *, command: str | None = None, webhook: str | None = None) -> list[str]:
    """Warnings of a watch after one event."""
    warnings: list[str] = []
    with EventActions(command, webhook, warn=warnings.append) as actions:
        actions.do(event)
    return warnings


def test_a_command_gets_the_event_and_no_shell_reads_it(tmp_path: Path) -> None:
    program = tmp_path / "keep.py"
    program.write_text(
        "import json, os, sys\n"
        "json.dump([sys.argv[2:], json.load(sys.stdin), dict(os.environ)], open(sys.argv[1], 'w'))\n"
    )
    event = event_row(EventRule("wave", 0.8), answer(2.0, 0.9), "$(touch bad); `x`", 2)
    command = f"{sys.executable} {program} {tmp_path / 'out.json'} '; touch {tmp_path / 'bad'}' $HOME"
    assert done(event, command=command) == []
    arguments, given, variables = json.loads((tmp_path / "out.json").read_text())
    assert arguments == [f"; touch {tmp_path / 'bad'}", "$HOME"]
    assert given == event
    assert (given["event"], given["threshold"], given["score"]) == ("wave", 0.8, pytest.approx(0.9))
    assert [one["label"] for one in given["top"]] == ["wave", "rest"]
    assert variables["NONLOCAL_VIDEO_EVENT"] == "wave"
    assert variables["NONLOCAL_VIDEO_SOURCE"] == "$(touch bad); `x`"
    assert float(variables["NONLOCAL_VIDEO_END_SECONDS"]) == 2.0
    assert not (tmp_path / "bad").exists()


class Hook(BaseHTTPRequestHandler):
    """Keeps what is posted, and answers with the status in the path."""

    received: list[Any] = []  # noqa: RUF012 - one a class, as the server makes an object a request

    def do_POST(self) -> None:
        self.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(int(self.path[1:]))
        self.send_header("Location", "/200")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def hook() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Hook.received.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_webhook_gets_the_event_once_and_is_not_followed_elsewhere(hook: str) -> None:
    event = event_row(EventRule("wave", 0.8), answer(2.0, 0.9), "0", 1)
    assert done(event, webhook=f"{hook}/200") == []
    assert Hook.received == [event]
    assert done(event, webhook=f"{hook}/302") == ["--webhook at 127.0.0.1 answered with status 302."]
    assert done(event, webhook=f"{hook}/500") == ["--webhook at 127.0.0.1 answered with status 500."]
    assert len(Hook.received) == 3


def test_what_fails_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_events, "ACTION_SECONDS", 0.5)
    event = event_row(EventRule("wave", 0.8), answer(2.0, 0.9), "0", 1)
    assert done(event, command="/no/such/program") == [
        "--command '/no/such/program' could not be run: No such file or directory."
    ]
    assert done(event, command=f"{sys.executable} -c 'raise SystemExit(3)'")[0].endswith("ended with status 3.")
    assert "took longer than 0.5 s" in done(event, command="sleep 60")[0]
    (warning,) = done(event, webhook="http://127.0.0.1:1/x")
    assert warning == "--webhook at 127.0.0.1 was not reached (ConnectionError)."


def test_events_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_events, "MAX_WAITING", 2)
    monkeypatch.setattr(live_events, "CLOSE_SECONDS", 0.1)
    hold = threading.Event()
    warnings: list[str] = []
    monkeypatch.setattr(EventActions, "_run", lambda *_: hold.wait(5))
    with EventActions("x", None, warn=warnings.append) as actions:
        for _ in range(8):
            actions.do({"event": "wave"})
        hold.set()
    assert 5 <= len(warnings) <= 6, "one is being done, two wait"
    assert "this one is left" in warnings[0]
