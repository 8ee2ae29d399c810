"""Events of continuous recognition: an action that begins, and what is done about it, once each time."""

from __future__ import annotations

import json
import math
import os
import queue
import shlex
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.live import LiveAnswer

RELEASE = 0.5
"""An event is over when the score falls below this share of its threshold."""
GAP_SECONDS = 2.0
"""Least seconds from the beginning of an event to the next one of the same rule."""
MAX_WAITING = 16
"""Most events that wait for their command and webhook; further ones are dropped, with a warning."""
ACTION_SECONDS = 30.0
"""Longest run of a command, and longest wait for a webhook."""
CLOSE_SECONDS = 10.0
"""Longest wait, at the end, for actions that are still to be done."""


@dataclass(frozen=True)
class EventRule:
    """A class and the score from which it is an event."""

    label: str
    threshold: float

    @classmethod
    def parse(cls, text: str, labels: Sequence[str]) -> EventRule:
        """Return the rule of `LABEL>=SCORE`.

        Raises:
            UsageError: It is not of that form, the model has no such class, or the score is not one.

        Example:
            >>> EventRule.parse("playing harp>=0.8", ["playing harp"])
            EventRule(label='playing harp', threshold=0.8)
        """
        label, separator, number = (part.strip() for part in text.rpartition(">="))
        try:
            threshold = float(number)
        except ValueError:
            threshold = math.nan
        if not (separator and label and 0 < threshold <= 1):
            raise UsageError(
                f"on = {text!r} should be LABEL>=SCORE with a score above 0 and at most 1, such as 'playing harp>=0.8'."
            )
        if label not in labels:
            import difflib

            near = difflib.get_close_matches(label, labels, n=3, cutoff=0.5)
            hint = f"Do you mean {' or '.join(map(repr, near))}?" if near else "`nlv.load(MODEL).labels` lists them."
            raise UsageError(f"on = {text!r}: the model has no class {label!r}. {hint}")
        return cls(label, threshold)


class EventDetector:
    """Says when events begin: once when a score rises to its threshold, and not again before it has fallen."""

    def __init__(self, rules: Sequence[EventRule], *, gap_seconds: float = GAP_SECONDS) -> None:
        """Begin with no event going on.

        Args:
            rules: What events are.
            gap_seconds: Least seconds between the beginnings of two events of a rule.

        Raises:
            UsageError: The gap is negative or not finite.
        """
        if not 0 <= gap_seconds < math.inf:
            raise UsageError(f"gap-seconds = {gap_seconds:g} should be a finite number, 0 or above.")
        self._rules, self._gap = rules, gap_seconds
        self._is_on = [False] * len(rules)
        self._began = [-math.inf] * len(rules)

    def begun(self, answer: LiveAnswer) -> list[EventRule]:
        """Return the rules whose event begins with this answer; give it each answer in the order of time."""
        found = []
        for number, rule in enumerate(self._rules):
            score = answer.score_of(rule.label)
            if self._is_on[number]:
                self._is_on[number] = score >= RELEASE * rule.threshold
            elif score >= rule.threshold and answer.end_seconds - self._began[number] >= self._gap:
                self._is_on[number], self._began[number] = True, answer.end_seconds
                found.append(rule)
        return found


def event_row(rule: EventRule, answer: LiveAnswer, source: str, top_k: int) -> dict[str, Any]:
    """Return an event as JSON: what, when, where, and the answer that it began with."""
    return {
        "event": rule.label,
        "threshold": rule.threshold,
        "score": answer.score_of(rule.label),
        "source": source,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        **answer.to_row(top_k),
    }


class EventActions:
    """Runs a command and posts to a webhook for each event, in another thread; nothing of it ends the watch.

    A context manager, whose end waits a while for actions in progress.
    """

    def __init__(self, command: str | None, webhook: str | None, *, warn: Callable[[str], None]) -> None:
        """Check what is to be done.

        Args:
            command: Program with its arguments, in a shell's notation, which no shell interprets.
            webhook: Address to which an event is posted as JSON.
            warn: Told what failed, a sentence each.

        Raises:
            UsageError: One of them cannot be used.
        """
        self._command, self._webhook, self._warn = parse_command(command), check_webhook(webhook), warn
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None

    def do(self, event: dict[str, Any]) -> None:
        """Do it soon; drop it with a warning if too many are waiting."""
        if not (self._command or self._webhook):
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="events", daemon=True)
            self._thread.start()
        try:
            self._events.put_nowait(event)
        except queue.Full:
            self._warn(f"{event['event']}: {MAX_WAITING} events wait for their command or webhook; this one is left.")

    def _work(self) -> None:
        while (event := self._events.get()) is not None:
            if self._command:
                self._run(self._command, event)
            if self._webhook:
                self._post(self._webhook, event)

    def _run(self, command: list[str], event: dict[str, Any]) -> None:
        variables = {
            "NONLOCAL_VIDEO_EVENT": event["event"],
            "NONLOCAL_VIDEO_SCORE": f"{event['score']:.6f}",
            "NONLOCAL_VIDEO_SOURCE": event["source"],
            "NONLOCAL_VIDEO_START_SECONDS": f"{event['start_seconds']:.3f}",
            "NONLOCAL_VIDEO_END_SECONDS": f"{event['end_seconds']:.3f}",
            "NONLOCAL_VIDEO_TIME": event["time"],
        }
        try:
            # Its output goes to standard error: standard output has the answers alone.
            done = subprocess.run(
                command,
                input=json.dumps(event).encode() + b"\n",
                stdout=2,
                env={**os.environ, **variables},
                timeout=ACTION_SECONDS,
                start_new_session=True,  # Ctrl-C is for the watch
                check=False,
            )
        except subprocess.TimeoutExpired:
            self._warn(f"--command {command[0]!r} took longer than {ACTION_SECONDS:g} s and was ended.")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            self._warn(f"--command {command[0]!r} could not be run: {reason}.")
        else:
            if done.returncode:
                self._warn(f"--command {command[0]!r} ended with status {done.returncode}.")

    def _post(self, webhook: str, event: dict[str, Any]) -> None:
        import requests

        host = urlsplit(webhook).hostname
        try:
            # A redirect would lead to a host that nobody named.
            with requests.post(webhook, json=event, timeout=ACTION_SECONDS, allow_redirects=False) as answer:
                if not 200 <= answer.status_code < 300:
                    self._warn(f"--webhook at {host} answered with status {answer.status_code}.")
        except requests.RequestException as error:
            self._warn(f"--webhook at {host} was not reached ({type(error).__name__}).")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            try:
                self._events.put(None, timeout=CLOSE_SECONDS)
            except queue.Full:
                return
            self._thread.join(CLOSE_SECONDS)


def parse_command(command: str | None) -> list[str]:
    """Return the words of a command; none of None.

    Raises:
        UsageError: It has no words, or a quote is not closed.
    """
    if command is None:
        return []
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"command = {command!r} cannot be split into words ({error}).") from None
    if not words:
        raise UsageError("command is empty; give a program with its arguments, or leave it out.")
    return words


def check_webhook(webhook: str | None) -> str | None:
    """Return the address of a webhook.

    Raises:
        UsageError: It is not an http or https address.
    """
    try:
        address = None if webhook is None else urlsplit(webhook)
    except ValueError:
        address = urlsplit("")
    if address is not None and not (address.scheme in ("http", "https") and address.hostname):
        raise UsageError(f"webhook = {webhook!r} should be an address that begins with http:// or https://.")
    return webhook
