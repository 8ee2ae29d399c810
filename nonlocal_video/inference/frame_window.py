"""The last seconds of frames that keep coming, as the network sees them."""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from nonlocal_video.inference.crop_layout import CropPosition
from nonlocal_video.inference.preprocessing import LoadedClip, check_not_too_elongated, crops_of
from nonlocal_video.inference.window_frames import WindowFrames
from nonlocal_video.models.card import InputSpec
from nonlocal_video.video.info import VideoInfo
from nonlocal_video.video.region import Region
from nonlocal_video.video.sampling import plan_views
from nonlocal_video.video.transforms import SpatialView, cut, resize_region

MAX_RATE = 4.0
"""Frames that come faster than so many times the network's rate are thinned, so that memory is bounded."""
_CPU = torch.device("cpu")
_SAME_SECONDS = 1e-3
_CLOCK_SECONDS = 1.0
"""A frame that is so much older than the newest one is the first of another clock, which begins anew."""


class _Held(NamedTuple):
    number: int
    seconds: float
    crop: SpatialView


class FrameWindow:
    """Frames of the last window, resized and cropped; safe to use from several threads.

    A window that it gives is what `timeline` makes of the same span of a file with the same frames.
    """

    def __init__(
        self,
        spec: InputSpec,
        *,
        name: str,
        window_seconds: float | None = None,
        region: Region | None = None,
        device: torch.device = _CPU,
    ) -> None:
        """Begin without frames.

        Args:
            spec: The model's input.
            name: What the frames come from, for results.
            window_seconds: Length of a window; None is the model's own span.
            region: Part of the frame to look at; None is all of it.
            device: Device of the network, to which each frame is copied once, as its first window is taken.
        """
        self._spec, self._name, self._window, self._region = spec, name, window_seconds, region
        self._held: deque[_Held] = deque()
        self._frames, self._num_added = WindowFrames(device), 0
        self._crops: dict[tuple[int, int], SpatialView] = {}
        self._size = (0, 0)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Number of frames that are held."""
        return len(self._held)

    @property
    def seconds(self) -> float:
        """Time of the newest frame; below 0 before the first."""
        held = self._held
        return held[-1].seconds if held else -1.0

    def add(self, frame: NDArray[np.uint8], seconds: float) -> None:
        """Add a frame.

        Args:
            frame: RGB (H, W, 3).
            seconds: When it begins to be shown; one that is not after the newest frame is left out.

        Raises:
            VideoError: `too_large`; the frame is too elongated.
        """
        least = 1 / (MAX_RATE * self._rate())
        if self._held and seconds < self._held[-1].seconds - _CLOCK_SECONDS:
            with self._lock:
                self._drop(len(self._held))
        if self._held and seconds - self._held[-1].seconds < least - _SAME_SECONDS:
            return
        crop = self._crop_of(*frame.shape[:2])
        resized = resize_region(torch.from_numpy(frame)[None], crop, antialias=self._spec.antialias, is_cut_out=False)
        square = cut(resized, crop)[0].numpy().copy()  # a view would keep the whole resized frame
        with self._lock:
            self._size = frame.shape[0], frame.shape[1]
            self._held.append(_Held(self._num_added, seconds, crop))
            self._frames.add(self._num_added, square)
            self._num_added += 1
            # The frame shown when the window begins came before it.
            first = self._end() - self.window_seconds - _SAME_SECONDS
            while len(self._held) > 2 and self._held[1].seconds <= first:
                self._drop(1)

    @property
    def window_seconds(self) -> float:
        """Length of a window."""
        return self._window or self._spec.num_frames / self._rate()

    def clip(self) -> LoadedClip | None:
        """Return the newest window; None if there are too few frames for one.

        Raises:
            DeviceError: The device has failed.
        """
        with self._lock:  # `add` drops frames
            return self._clip()

    def _clip(self) -> LoadedClip | None:
        if not self._held:
            return None
        held, end, window = list(self._held), self._end(), self.window_seconds
        if end - held[0].seconds < window - _SAME_SECONDS:
            return None
        first = held[0].seconds
        info = VideoInfo(
            container="none",
            codec="none",
            width=self._size[1],
            height=self._size[0],
            rotation_degrees=0,
            num_frames=len(held),
            fps=len(held) / (end - first),
            start_seconds=first,
            duration_seconds=end - first,
            has_edit_list=False,
            decoder="memory",
        )
        (view,) = plan_views(
            info,
            num_frames=self._spec.num_frames,
            frames_per_second=self._spec.num_frames / window,
            start_seconds=max(first, end - window),
            end_seconds=end,
            frame_placement=self._spec.frame_placement,
            short_clips=self._spec.short_clips,
        )
        times = np.array([one.seconds for one in held])
        shown = np.searchsorted(times, np.array(view.times_seconds) + 1e-6, side="right") - 1
        needed, frame_of_time = np.unique(np.maximum(shown, 0), return_inverse=True)
        return LoadedClip(
            path=self._name,
            info=info,
            input=self._spec,
            views=(view,),
            crops=(held[-1].crop,),
            frames=self._frames.window([held[index].number for index in needed.tolist()]),
            positions=(CropPosition(0, 0, self._spec.crop),),
            seconds=times[needed],
            frame_of_time=frame_of_time.reshape(1, -1),
            decode_seconds=0.0,
            transform_seconds=0.0,
            notes=(),
            region=self._region,
        )

    def _drop(self, num_frames: int) -> None:
        self._frames.drop([self._held.popleft().number for _ in range(num_frames)])

    def _rate(self) -> float:
        """Number of frames a second that the network sees."""
        if self._window is not None:
            return self._spec.num_frames / self._window
        if self._spec.frame_stride is None:
            return self._spec.frames_per_second
        return self._spec.rate_in(1 / self._spacing())

    def _spacing(self) -> float:
        """Mean seconds from one frame to the next; of a single frame the model's own."""
        if len(self._held) < 2:
            return 1 / self._spec.frames_per_second
        return (self._held[-1].seconds - self._held[0].seconds) / (len(self._held) - 1)

    def _end(self) -> float:
        """Return when the newest frame ceases to be shown, if the next one comes in time."""
        return self._held[-1].seconds + self._spacing()

    def _crop_of(self, height: int, width: int) -> SpatialView:
        if (height, width) not in self._crops:
            info = VideoInfo("none", "none", width, height, 0, 1, 1.0, 0.0, 1.0, False, "memory")
            (crop,) = crops_of(info, self._spec, region=self._region)
            check_not_too_elongated(self._name, info, crop)
            if len(self._crops) > 16:  # a phone has two; somebody who sends all sizes fills no memory
                self._crops.clear()
            self._crops[height, width] = crop
        return self._crops[height, width]
