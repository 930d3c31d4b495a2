"""From a decoded frame to the picture that a viewer would see: upright, square pixels, 8-bit RGB, no HDR, no alpha.

Colour: the frame's own matrix and range; where it names none, BT.709 for HD and BT.601 below, as players do.
The plain path goes through planar RGB with accurate rounding and repeated chroma: writer.py's way back then
restores the stored 4:2:0 values exactly, where swscale's default darkens each pass by more than a level.
"""

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import Colorspace, ColorTrc, Interpolation, VideoReformatter

from .containers import graph_for

# PyAV 18.1 stumbles over kinds of side data newer than itself (EXIF, in every phone's JPEG): let them have a name.
SideData._missing_ = classmethod(lambda cls, value: cls.VIDEO_HINT)

Turn = tuple[bool, bool, bool]  # transpose, flip left-right, flip upside-down: in this order they bring it upright

EXACT = Interpolation.POINT | Interpolation.ACCURATE_RND
SMOOTH = Interpolation.BICUBIC | Interpolation.ACCURATE_RND
HD_LINES = 720
UNTOLD = 2  # "unspecified", for matrix, transfer and primaries


def orientation(frame: av.VideoFrame) -> Turn:
    """How the stored picture must be turned, from the display matrix (EXIF orientation included).

    For one frame of a file: PyAV 18.1 never frees a frame that was asked for its side data.
    """
    try:
        a, b, _, c, d = np.frombuffer(frame.side_data[SideData.DISPLAYMATRIX], np.int32)[:5].tolist()
    except KeyError:
        return False, False, False
    # The matrix sends a stored (x, y) to a shown (a x + c y, b x + d y).
    return (False, a < 0, d < 0) if abs(a) + abs(d) >= abs(b) + abs(c) else (True, c < 0, b < 0)


def degrees(turn: Turn) -> int:
    """Clockwise degrees of a turn; a mirror image, if any, is left out."""
    transpose, flip_x, flip_y = turn
    return (90 if flip_x else 270) if transpose else (180 if flip_y else 0)


def is_hdr(frame: av.VideoFrame) -> bool:
    """Is it PQ or HLG?"""
    return frame.color_trc in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)


def can_be_transparent(frame: av.VideoFrame) -> bool:
    """Can its format hold transparent pixels?"""
    return frame.format.name == "pal8" or any(part.is_alpha for part in frame.format.components)


class Painter:
    """Paints frames as (height, width, 3) uint8 RGB, upright; remembers the last one, which is often asked again."""

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        self.turn: Turn | None = None  # one for the whole file
        self.last: tuple[av.VideoFrame | None, np.ndarray | None] = (None, None)
        self.graphs: dict[tuple, av.filter.Graph] = {}
        self.scaler, self.packer = VideoReformatter(), VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        if self.last[0] is not frame:
            self.last = (frame, np.ascontiguousarray(self.paint(frame)))
        return self.last[1]

    def paint(self, frame: av.VideoFrame) -> np.ndarray:
        self.turn = self.turn or orientation(frame)
        transpose, flip_x, flip_y = self.turn
        steps = [("transpose", "cclock_flip")] * transpose + [("hflip", "")] * flip_x + [("vflip", "")] * flip_y
        if is_hdr(frame):
            tone = f"{self.width}:{self.height}:out_transfer=bt709:out_primaries=bt709:intent=perceptual"
            return self.through(frame, [*steps, ("scale", tone), ("format", "rgb24")]).to_ndarray()
        # Where chroma sits is forgotten on purpose: then each sample colours its own four pixels, and can be got back.
        frame = self.through(frame, [*steps, ("setparams", "chroma_location=unspecified")])
        if can_be_transparent(frame):
            picture = self.scaled(frame, "rgba").to_ndarray()
            opaque = picture[..., 3:].astype(np.uint16)
            return ((picture[..., :3] * opaque + 127) // 255).astype(np.uint8)
        planar = self.scaled(frame, "gbrp")  # straight to packed RGB, the accurate path takes twice as long
        return self.packer.reformat(planar, format="rgb24", interpolation=EXACT, threads=1).to_ndarray()

    def scaled(self, frame: av.VideoFrame, pixel_format: str) -> av.VideoFrame:
        """Plain conversion to `pixel_format` at the wanted size."""
        same = (frame.width, frame.height) == (self.width, self.height)
        untold = frame.colorspace == UNTOLD and not frame.format.is_rgb
        return self.scaler.reformat(
            frame,
            self.width,
            self.height,
            pixel_format,
            src_colorspace=Colorspace.ITU709
            if untold and max(frame.height, frame.width) >= HD_LINES * 16 / 9
            else None,
            interpolation=EXACT if same else SMOOTH,
            threads=1,
        )

    def through(self, frame: av.VideoFrame, steps: list[tuple[str, str]]) -> av.VideoFrame:
        """One frame through a filter chain that needs no others."""
        kind = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range, *steps)
        if kind not in self.graphs:
            if len(self.graphs) > 3:  # a file that changes its size with every frame
                self.graphs.clear()
            self.graphs[kind] = graph_for(frame, steps)
        graph = self.graphs[kind]
        graph.vpush(frame)
        return graph.vpull()
