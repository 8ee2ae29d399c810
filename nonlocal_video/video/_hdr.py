"""Tone mapping from HDR to SDR colours.

PQ and HLG are decoded to the light of a display (BT.2100), in which reference white has 203 cd/m2 (BT.2408). The
primaries are converted to those of BT.709, values brighter than reference white are compressed, and the result is
encoded for a display by BT.1886. The brightest channel decides how much a colour is darkened, which preserves its hue:

    x = max(R, G, B) / 203 cd/m2        shown(x) = x                              up to the knee k = 0.9
                                        shown(x) = k + (1 - k) s / (1 + s)        above, s = (x - k) / (1 - k)

Reference white comes out at 250 of 255, 1,000 cd/m2 at 255. Channels below 0, of colours outside BT.709, become 0.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from nonlocal_video.video._source import DECODER_THREADS

_PQ, _HLG = 16, 18  # ISO/IEC 23091-2 (H.273), TransferCharacteristics
_UNSPECIFIED = (0, 2, 3)  # in all tables of code points; 0 is RGB among the matrices
_BT709, _BT2020, _DCI_P3, _DISPLAY_P3 = 1, 9, 11, 12  # ColourPrimaries

_PAPER_WHITE = 203.0  # cd/m2
_KNEE = 0.9
_SCREEN_GAMMA = 2.4

_BLOCK_ROWS = 16
_NEXT_TO_NOTHING = np.float32(1e-9)

_D65 = (0.3127, 0.3290)
_CHROMATICITIES = {  # x, y of red, green, blue, white
    _BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    _BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    _DCI_P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    _DISPLAY_P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
}


@dataclass(frozen=True)
class HdrColours:
    """Code points that define how a picture's values map to light."""

    transfer: int
    """Transfer characteristics."""
    primaries: int
    """Colour primaries."""
    matrix_is_known: bool
    """Whether the matrix coefficients are specified."""

    @property
    def note(self) -> str:
        """Sentence for the notes on the video."""
        return f"The video is HDR ({'PQ' if self.transfer == _PQ else 'HLG'}): it is tone-mapped to SDR (BT.709)."


def hdr_colours(frame: VideoFrame, container_transfer: int, container_primaries: int) -> HdrColours | None:
    """Return a frame's HDR colours; None if it is not HDR.

    Args:
        frame: The decoded frame, whose own code points come first.
        container_transfer: The container's transfer characteristics, if the frame has none.
        container_primaries: The container's primaries, if the frame has none; BT.2020 if neither has.
    """
    transfer = container_transfer if frame.color_trc in _UNSPECIFIED else frame.color_trc
    if transfer not in (_PQ, _HLG):
        return None
    primaries = container_primaries if frame.color_primaries in _UNSPECIFIED else frame.color_primaries
    return HdrColours(
        transfer=int(transfer),
        primaries=int(primaries) if primaries in _CHROMATICITIES else _BT2020,
        matrix_is_known=frame.format.is_rgb or frame.colorspace not in _UNSPECIFIED,
    )


class ToneMapper:
    """Tone mapping of pictures with one kind of HDR colours to SDR."""

    def __init__(self, colours: HdrColours) -> None:
        signal = np.arange(1 << 16) / 65535
        light = _pq_light(signal) if colours.transfer == _PQ else _hlg_light(signal)
        self._light = (light / _PAPER_WHITE).astype(np.float32)
        self._primaries = _primaries_matrix(colours.primaries).astype(np.float32)
        # Indexed by the square root of the light, which is nearly uniform in perception.
        self._encoded = np.round(255 * signal ** (2 / _SCREEN_GAMMA)).astype(np.uint8)
        self._threads = ThreadPoolExecutor(DECODER_THREADS)

    def map(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Map a frame in the format gbrp16le to an RGB picture (H, W, 3)."""
        rows = [np.frombuffer(memoryview(plane), "<u2").reshape(frame.height, -1) for plane in frame.planes]
        planes = [plane[:, : frame.width] for plane in rows]
        picture = np.empty((frame.height, frame.width, 3), dtype=np.uint8)
        starts = range(0, frame.height, _BLOCK_ROWS)
        blocks = [slice(start, start + _BLOCK_ROWS) for start in starts]  # which fit into a processor's cache
        list(self._threads.map(lambda block: self._map_block([p[block] for p in planes], picture[block]), blocks))
        return picture

    def _map_block(self, gbr: list[NDArray[np.uint16]], shown: NDArray[np.uint8]) -> None:
        green, blue, red = (self._light[plane] for plane in gbr)
        channels = [np.maximum(r * red + g * green + b * blue, 0) for r, g, b in self._primaries]
        brightest = np.maximum(np.maximum(channels[0], channels[1]), channels[2])
        above = np.maximum(brightest - _KNEE, 0) / (1 - _KNEE)
        pressed = np.minimum(brightest, _KNEE) + (1 - _KNEE) * above / (1 + above)
        factor = pressed / np.maximum(brightest, _NEXT_TO_NOTHING)
        for number, channel in enumerate(channels):
            shown[..., number] = self._encoded[(np.sqrt(channel * factor) * 65535 + 0.5).astype(np.uint16)]


def _pq_light(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert a PQ signal to the light of a display in cd/m2: the EOTF of BT.2100, table 4."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = signal ** (1 / m2)
    return 10000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)


def _hlg_light(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert an HLG signal to the light of a display of 1,000 cd/m2: inverse OETF and OOTF of BT.2100, table 5.

    The OOTF's exponent is applied to each channel, as in FFmpeg's zscale, and not to luminance. Greys are the same,
    saturated colours slightly more so, and files made by FFmpeg are reproduced as they were.
    """
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return 1000 * scene**1.2


def _primaries_matrix(primaries: int) -> NDArray[np.float64]:
    return np.linalg.inv(_rgb_to_xyz(_BT709)) @ _rgb_to_xyz(primaries)


def _rgb_to_xyz(primaries: int) -> NDArray[np.float64]:
    *colours, white = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in _CHROMATICITIES[primaries])
    columns = np.stack(colours, axis=1)
    return columns * np.linalg.solve(columns, white)
