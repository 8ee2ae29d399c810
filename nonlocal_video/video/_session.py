"""One request of a reader: talks to the child, limits its time, and switches to PyAV if decord fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import ERROR_CODES, ErrorCode, UsageError, VideoError
from nonlocal_video.video import _wire
from nonlocal_video.video._child import DecoderProcess, DiedIdleError
from nonlocal_video.video._choice import DecoderChoice
from nonlocal_video.video._ended import DecoderEndedError, Ending
from nonlocal_video.video._messages import ended_error, printable_name
from nonlocal_video.video.info import VideoInfo
from nonlocal_video.video.limits import DecodeLimits

_MOST_IDLE_DEATHS = 3


@dataclasses.dataclass(frozen=True)
class Plan:
    """The child's answer before it sends frames."""

    info: VideoInfo
    frame_of_time: NDArray[np.int64]
    pts_seconds: NDArray[np.float64]


class Session:
    """A request, from its start to its last answer."""

    def __init__(
        self,
        path: str,
        decoder: DecoderChoice,
        limits: DecodeLimits,
        get_child: Callable[[], DecoderProcess],
        discard_child: Callable[[], None],
        release: Callable[[], None],
    ) -> None:
        self.path = path
        self._decoder = decoder
        self._limits = limits
        self._get_child = get_child
        self._discard_child = discard_child
        self._release = release
        self._child: DecoderProcess | None = None
        self._child_is_busy = False
        self._request: dict[str, Any] = {}
        self._plan: Plan | None = None
        self._num_received = 0
        self._reserved_seconds = 0.0
        self._ending: Ending | None = None
        self.is_open = True

    @property
    def info(self) -> VideoInfo:
        """Description of the file."""
        assert self._plan is not None
        return self._plan.info

    def ask(
        self, operation: str, times_seconds: list[float] | None = None, box: tuple[int, int, int, int] | None = None
    ) -> Plan:
        """Send the request and receive the plan; with a `box`, only its pixels of each frame follow.

        Raises:
            VideoError: If the file cannot be read.
            UsageError: If the request asks for something that the file does not have.
        """
        self._request = {"op": operation, "path": self.path, "times_seconds": times_seconds, "box": box}
        return self._ask(self._limits.timeout_seconds)

    def receive_frames(self, frames_thwc: NDArray[np.uint8]) -> None:
        """Fill an array with the next frames; the time limit is for all of them together.

        Raises:
            VideoError: If one of them cannot be read.
        """
        self._start_clock(self._limits.timeout_seconds)
        for picture in frames_thwc:
            view = memoryview(picture).cast("B")
            try:
                self._expect(_wire.FRAME, view)
            except VideoError as error:
                if not self._uses_decord_by_itself:
                    raise
                self._go_over_to_pyav(error)
                self._expect(_wire.FRAME, view)
            self._num_received += 1

    def finish(self) -> None:
        """Receive the end of the answers."""
        self._start_clock(self._limits.timeout_seconds)
        try:
            answer = self._expect(_wire.DONE)
        except VideoError:
            if not self._uses_decord_by_itself:
                raise
            self._discard_child()  # decord failed after its last frame
            self._child_is_busy = False
        else:
            self._add_notes(tuple(map(str, answer.get("notes", ()))))

    def close(self) -> None:
        """Release the reader; a child that is still at work is replaced."""
        if self.is_open:
            self.is_open = False
            try:
                if self._child_is_busy:
                    self._discard_child()
            finally:
                self._release()

    @property
    def _uses_decord_by_itself(self) -> bool:
        return self._decoder == "auto" and self._plan is not None and self._plan.info.decoder == "decord"

    def _ask(self, seconds: float) -> Plan:
        self._give(seconds)
        answer = self._expect(_wire.PLAN)
        if self._request["op"] in ("probe", "frame_times"):
            self._child_is_busy = False
        try:
            info = answer["info"]
            plan = Plan(
                info=VideoInfo(**{**info, "notes": tuple(info["notes"])}),
                frame_of_time=np.asarray(answer.get("frame_of_time", ()), dtype=np.int64),
                pts_seconds=np.asarray(answer.get("pts_seconds", ()), dtype=np.float64),
            )
        except (KeyError, TypeError, ValueError):
            raise self._nonsense() from None
        if plan.info.width * plan.info.height > self._limits.max_pixels:
            raise self._nonsense()
        self._plan = plan
        return plan

    def _give(self, seconds: float) -> None:
        """Send the request to a child; one that died while idle is replaced."""
        request = {**self._request, "decoder": self._decoder, "skip": self._num_received}
        for _ in range(_MOST_IDLE_DEATHS):
            self._child = self._get_child()
            self._child_is_busy = True
            try:
                self._child.request(request, seconds=seconds)
                return
            except DiedIdleError:
                self._discard_child()
            except DecoderEndedError as error:
                self._discard_child()
                raise ended_error(error.ending, self.path, self._limits) from None
        raise VideoError(
            "decoder_crashed",
            f"{printable_name(self.path)}: {_MOST_IDLE_DEATHS} decoding processes in a row ended before they could "
            "read it; find out what kills them, and try again.",
        )

    def _start_clock(self, seconds: float) -> None:
        assert self._child is not None
        # decord may hang, and PyAV needs time after that.
        self._reserved_seconds = seconds / 2 if self._uses_decord_by_itself else 0.0
        self._child.seconds_left = seconds - self._reserved_seconds

    def _go_over_to_pyav(self, error: VideoError) -> None:
        assert self._child is not None
        assert self._plan is not None
        decord_plan, seconds = self._plan, self._child.seconds_left + self._reserved_seconds
        self._discard_child()
        self._decoder = "pyav"
        plan = self._ask(seconds)
        if not np.array_equal(plan.pts_seconds, decord_plan.pts_seconds):
            raise VideoError("internal", f"{printable_name(self.path)}: it changed while it was read; try again.")
        reason = {"timeout": "it hung", "decoder_crashed": "it crashed", "out_of_memory": "it ran out of memory"}
        why = reason.get(error.code, "it could not read the file exactly")
        if self._ending is not None and self._ending.killed_by:
            why = f"it was killed from outside, {self._ending.killed_by}"
        note = f"decord was given up ({why}): PyAV decoded it."
        self._plan = dataclasses.replace(plan, info=dataclasses.replace(plan.info, notes=(*plan.info.notes, note)))

    def _add_notes(self, notes: tuple[str, ...]) -> None:
        assert self._plan is not None
        info = self._plan.info
        new = tuple(note for note in notes if note not in info.notes)
        self._plan = dataclasses.replace(self._plan, info=dataclasses.replace(info, notes=info.notes + new))

    def _expect(self, expected: bytes, into: memoryview | None = None) -> dict[str, Any]:
        assert self._child is not None
        try:
            kind, answer = self._child.receive(into)
        except DecoderEndedError as error:
            self._discard_child()
            self._child_is_busy = False
            self._ending = error.ending
            raise ended_error(error.ending, self.path, self._limits) from None
        if kind == expected:
            self._child_is_busy = kind != _wire.DONE
            return answer
        if kind != _wire.ERROR:
            raise self._nonsense()
        self._child_is_busy = False
        code, message = answer.get("code"), str(answer.get("message"))
        if code == "usage":
            raise UsageError(message)
        if code in ("out_of_memory", "internal"):  # its state is unknown
            self._discard_child()
        if code not in ERROR_CODES:
            raise self._nonsense()
        raise VideoError(cast(ErrorCode, code), message)

    def _nonsense(self) -> VideoError:
        return VideoError(
            "internal", f"{printable_name(self.path)}: the decoding process sent an invalid message; report it."
        )
