"""Cameras of visitors: the last seconds of each, and the answers for them. Nothing of it is kept on disk."""

from __future__ import annotations

import secrets
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.frame_window import FrameWindow
from nonlocal_video.inference.live import EVERY_SECONDS, LiveAnswers
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.models.card import InputSpec
from nonlocal_video.video.live import PictureReader

from .http_errors import ApiError, busy
from .sureness import sureness_of
from .turns import Turns

MAX_CAMERAS = 16
"""Most cameras at a time; a window of the default model takes 10 MB, and the answers of a minute 1 MB."""
IDLE_SECONDS = 20.0
"""Seconds without a picture after which a camera is forgotten."""
_HEAD = struct.Struct("<dI")  # seconds, number of bytes of the picture


@dataclass
class LiveSession:
    """One camera."""

    recognizer: Recognizer
    spec: InputSpec
    window: FrameWindow
    answers: LiveAnswers
    used: float = field(default_factory=time.monotonic)
    answered: float = -1.0
    """Time of the newest picture of the last answer."""
    adding: threading.Lock = field(default_factory=threading.Lock)

    def to_json(self) -> dict[str, Any]:
        """Return what a browser has to know: how often to send pictures, and of which size."""
        return {
            "window_seconds": self.window.window_seconds,
            "every_seconds": EVERY_SECONDS,
            "frames_per_second": self.spec.num_frames / self.window.window_seconds,
            "short_side": self.spec.short_side,
        }


@dataclass
class LiveSessions:
    """The cameras of one server; each is known by an unguessable name."""

    recognizers: Mapping[str, Recognizer]
    """Recognizers by model name; the first is the default."""
    turns: Turns
    pictures: PictureReader = field(default_factory=PictureReader)
    """Decodes the pictures of all, in one confined process."""
    now: Callable[[], float] = time.monotonic
    _sessions: dict[str, LiveSession] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, model: str | None, *, fast: bool) -> dict[str, Any]:
        """Begin with a camera, and return its name and what it should send.

        Raises:
            UsageError: There is no such model, or it has no fast view.
            ApiError: 503, busy; there are too many cameras.
        """
        name = model or next(iter(self.recognizers))
        if name not in self.recognizers:
            raise UsageError(f"model = {name!r} should be one of {', '.join(self.recognizers)}.")
        recognizer = self.recognizers[name]
        fast = fast and recognizer.card.fast_input is not None
        spec = recognizer.card.view(fast=fast)
        has_features = getattr(recognizer.network, "feature_layer", None) is not None
        answers = LiveAnswers(recognizer, context="nonlocal" if has_features else "none")
        window = FrameWindow(spec, name="camera", device=recognizer.device)
        session = LiveSession(recognizer, spec, window, answers, used=self.now())
        with self._lock:
            self._forget_idle()
            if len(self._sessions) >= MAX_CAMERAS:
                raise busy(f"{MAX_CAMERAS} cameras are watched, the most that this server takes; try again later.")
            id = secrets.token_urlsafe(16)
            self._sessions[id] = session
        return {"id": id, **session.to_json()}

    def add(self, id: str, body: bytes) -> dict[str, Any]:
        """Take pictures: before each its seconds (float64) and its number of bytes (uint32), little-endian.

        Raises:
            ApiError: 404; there is no such camera any more. 503; the pictures before are still being read.
            UsageError: The body is not of that form.
            VideoError: A picture cannot be read.
        """
        session = self._of(id)
        if not session.adding.acquire(blocking=False):
            raise busy("The pictures before these are still being read; send fewer.")
        try:
            times, pictures = zip(*_parts(body), strict=True)
            for seconds, frame in zip(times, self.pictures.read(pictures), strict=True):
                session.window.add(frame, seconds)
        finally:
            session.adding.release()
        session.used = self.now()
        return {"held": len(session.window)}

    async def answer(self, id: str) -> dict[str, Any]:
        """Answer for the newest window when it is this camera's turn; None before there is a new one.

        Raises:
            ApiError: 404; there is no such camera any more. 503; too many wait.
        """
        session = self._of(id)
        row = await self.turns.run(partial(self._answer, session))
        return {"answer": row}

    def _answer(self, session: LiveSession) -> dict[str, Any] | None:
        with session.recognizer.noting_failure():
            newest, clip = session.window.seconds, session.window.clip()
        if clip is None or newest <= session.answered:
            return None
        session.answered = newest
        answer = session.answers.answer(clip)
        best, *others = answer.top(2)
        lead = best.score - (others[0].score if others else 0.0)
        return answer.to_row() | {"seconds": round(answer.seconds, 3), "sure": sureness_of(best.score, lead)}

    def end(self, id: str) -> None:
        """Forget a camera, if it is known."""
        with self._lock:
            self._sessions.pop(id, None)

    def close(self) -> None:
        """Forget all cameras and end the process that decodes."""
        self._sessions.clear()
        self.pictures.close()

    def __len__(self) -> int:
        return len(self._sessions)

    def _of(self, id: str) -> LiveSession:
        with self._lock:
            self._forget_idle()
            if (session := self._sessions.get(id)) is None:
                words = f"This camera is not watched any more: no picture came for {IDLE_SECONDS:g} s. Start it again."
                raise ApiError(404, "not_found", words)
            return session

    def _forget_idle(self) -> None:
        for id, session in list(self._sessions.items()):
            if self.now() - session.used > IDLE_SECONDS:
                del self._sessions[id]


def _parts(body: bytes) -> Iterator[tuple[float, bytes]]:
    position = 0
    while position < len(body) or not body:
        if len(body) - position < _HEAD.size:
            raise UsageError("The body should be pictures, each after its seconds and its number of bytes.")
        seconds, length = _HEAD.unpack_from(body, position)
        position += _HEAD.size + length
        if not 0 <= seconds < 1e9 or position > len(body):  # also false for NaN
            raise UsageError("The body should be pictures, each after its seconds and its number of bytes.")
        yield seconds, body[position - length : position]
