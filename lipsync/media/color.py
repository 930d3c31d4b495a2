"""From a decoded frame to the picture that a viewer would see: upright, square pixels, 8-bit RGB, no HDR, no alpha.

Colour: the frame's own matrix, range and primaries (of a still picture, its profile); where it names no matrix, BT.709
for HD and BT.601 below, as players do.
The plain path goes through planar RGB with accurate rounding and repeated chroma: writer.py's way back then
restores the stored 4:2:0 values exactly, where swscale's default darkens each pass by more than a level.
"""

import contextlib
import io
from collections.abc import Callable
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import Colorspace, ColorTrc, Interpolation, VideoReformatter

from .demux import graph_for

# PyAV 18.1 stumbles over kinds of side data newer than itself (EXIF, in every phone's JPEG): let them have a name.
SideData._missing_ = classmethod(lambda cls, value: cls.VIDEO_HINT)  # pyrefly: ignore[bad-assignment]

Orientation = tuple[
    bool, bool, bool
]  # transpose, flip left-right, flip upside-down: in this order they bring it upright

EXACT = Interpolation.POINT | Interpolation.ACCURATE_RND
SMOOTH = Interpolation.BICUBIC | Interpolation.ACCURATE_RND
HD_LINES = 720
UNTOLD = 2  # "unspecified", for matrix, transfer and primaries
Change = Callable[[np.ndarray], np.ndarray]  # of the colours of (H, W, 3) uint8 RGB

# x and y of red, green and blue; what is written is BT.709. FFmpeg's own conversion of 2026 is out by twenty levels.
BT709 = ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06))
WIDE = {
    9: ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046)),  # BT.2020
    12: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
}  # Display P3


def orientation(frame: av.VideoFrame) -> Orientation:
    """How the stored picture must be turned, from the display matrix (EXIF orientation included).

    For one frame of a file: PyAV 18.1 never frees a frame that was asked for its side data.
    """
    try:
        matrix: Any = frame.side_data[SideData.DISPLAYMATRIX]  # pyrefly: ignore[bad-typed-dict-key]
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    except KeyError:
        return False, False, False
    # The matrix sends a stored (x, y) to a shown (a x + c y, b x + d y).
    return (False, a < 0, d < 0) if abs(a) + abs(d) >= abs(b) + abs(c) else (True, c < 0, b < 0)


def degrees(how: Orientation) -> int:
    """Clockwise degrees of an orientation; a mirror image, if any, is left out."""
    transpose, flip_x, flip_y = how
    return (90 if flip_x else 270) if transpose else (180 if flip_y else 0)


def is_hdr(frame: av.VideoFrame) -> bool:
    """Is it PQ or HLG?"""
    return frame.color_trc in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)


def to_bt709(primaries: tuple[tuple[float, float], ...]) -> Change:
    """From other primaries under the same white (D65) to BT.709's, of a screen of gamma 2.2."""
    import cv2

    def to_xyz(corners: tuple[tuple[float, float], ...]) -> np.ndarray:
        columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in (*corners, (0.3127, 0.3290))]).T
        return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])

    matrix = 65535 * np.linalg.solve(to_xyz(BT709), to_xyz(primaries))
    light = ((np.arange(256) / 255) ** 2.2).astype(np.float32)
    level = (255 * (np.arange(65536) / 65535) ** (1 / 2.2) + 0.5).astype(np.uint8)
    return lambda rgb: level[cv2.transform(cv2.LUT(rgb, light), matrix).clip(0, 65535).astype(np.uint16)]


def srgb_from(path: str) -> Change | None:
    """From the colours of a still picture's own profile (a phone's JPEG: Display P3) to sRGB; None where that is it."""
    from PIL import Image, ImageCms

    with contextlib.suppress(Exception), Image.open(path) as picture:  # FFmpeg has read it: it is a picture
        profile = ImageCms.ImageCmsProfile(io.BytesIO(picture.info["icc_profile"]))
        if profile.profile.xcolor_space.strip() == "RGB" and "sRGB" not in ImageCms.getProfileDescription(profile):
            change = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), "RGB", "RGB")
            return lambda rgb: np.asarray(ImageCms.applyTransform(Image.fromarray(rgb), change))
    return None


def can_be_transparent(frame: av.VideoFrame) -> bool:
    """Can its format hold transparent pixels?"""
    return frame.format.name == "pal8" or any(part.is_alpha for part in frame.format.components)


class FrameConverter:
    """Converts frames to (height, width, 3) uint8 RGB, upright; remembers the last one, which is often asked again."""

    def __init__(self, width: int, height: int, to_srgb: Change | None = None):
        self.width, self.height, self.to_srgb = width, height, to_srgb
        self.orientation: Orientation | None = None  # one for the whole file
        self.last: tuple[av.VideoFrame, np.ndarray] | None = None
        self.graphs: dict[tuple, av.filter.Graph] = {}
        self.scaler, self.packer = VideoReformatter(), VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        if self.last is None or self.last[0] is not frame:
            picture = np.ascontiguousarray(self.convert(frame))
            if self.to_srgb is None and frame.color_primaries in WIDE and not is_hdr(frame):
                self.to_srgb = to_bt709(WIDE[frame.color_primaries])
            self.last = (frame, self.to_srgb(picture) if self.to_srgb else picture)
        return self.last[1]

    def convert(self, frame: av.VideoFrame) -> np.ndarray:
        self.orientation = self.orientation or orientation(frame)
        transpose, flip_x, flip_y = self.orientation
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
