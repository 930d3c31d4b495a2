"""The visible part of the label: a small chip in one corner of every frame, outside the faces."""

from __future__ import annotations

import cv2
import numpy as np

TEXT = "AI lip-sync"
SHARE = 0.035  # height of the stamp, of the frame's shorter side
MIN_TEXT_PX = 10  # smaller letters do not survive the codec


class Stamp:
    """A small chip that says "AI lip-sync", in the same corner of every frame of a video.

    width, height  of the frames, pixels. `region` is x0, y0, x1, y1 of the only pixels it changes.
    text           what it says instead, where real videos are shown among made ones (studies)
    """

    def __init__(self, width: int, height: int, text: str = TEXT):
        self._size = width, height
        grey, alpha = _chip(width, height, text)
        self._shape = alpha.shape
        # out = frame * keep / 255 + add, in whole numbers
        self._keep = np.repeat(np.round((1 - alpha) * 255).astype(np.uint8)[..., None], 3, 2)
        self._add = np.repeat(np.round(grey * alpha).astype(np.uint8)[..., None], 3, 2)
        self.region = self._corners()[0]

    def _corners(self) -> list[tuple[int, int, int, int]]:
        """Regions in order of preference: bottom right, bottom left, top right, top left; even, as chroma is."""
        (width, height), (h, w) = self._size, self._shape
        margin = h // 4 * 2
        right, low = (max(width - w - margin, 0) & ~1, max(height - h - margin, 0) & ~1)
        left, top = min(margin, right), min(margin, low)
        return [(x, y, x + w, y + h) for y in (low, top) for x in (right, left)]

    def place(self, boxes: np.ndarray) -> tuple[int, int, int, int]:
        """Choose the corner that stays clear of every face of the video, or is covered least; sets `region`.

        boxes    (N, 4) x0 y0 x1 y1, pixels; rows with no number are passed over
        returns  region, x0 y0 x1 y1, pixels
        """
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        boxes = boxes[np.isfinite(boxes).all(1)]

        def covered(region: tuple[int, int, int, int]) -> float:
            x0, y0, x1, y1 = region
            across = np.minimum(boxes[:, 2], x1) - np.maximum(boxes[:, 0], x0)
            down = np.minimum(boxes[:, 3], y1) - np.maximum(boxes[:, 1], y0)
            return float((across.clip(0) * down.clip(0)).sum())

        self.region = min(self._corners(), key=covered)  # the first of equals
        return self.region

    def apply(self, frame: np.ndarray) -> None:
        """Blend the stamp into a (H, W, 3) uint8 frame, in place."""
        x0, y0, x1, y1 = self.region
        part = frame[y0:y1, x0:x1]
        cv2.add(cv2.multiply(part, self._keep, scale=1 / 255), self._add, dst=part)


def _chip(width: int, height: int, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Grey value 0..255 and opacity 0..1 of the stamp, both (h, w) float32, h and w even, within the frame."""
    from PIL import Image, ImageDraw, ImageFont

    text_px = max(MIN_TEXT_PX, round(min(width, height) * SHARE / 1.35))
    font = ImageFont.load_default(text_px)
    x0, y0, x1, y1 = font.getbbox(text)
    h = round(text_px * 1.35 / 2) * 2
    w = round((x1 - x0 + h * 0.8) / 2) * 2
    fit = min(1.0, width / w, height / h)  # a thumbnail-sized video gets a smaller chip
    scale = 4  # drawn larger for a smooth edge
    shape = Image.new("L", (w * scale, h * scale))
    ImageDraw.Draw(shape).rounded_rectangle((0, 0, w * scale - 1, h * scale - 1), h * scale / 3, fill=255)
    letters = Image.new("L", (w, h))
    ImageDraw.Draw(letters).text(((w - x1 - x0) / 2, (h - y1 - y0) / 2), text, font=font, fill=255)
    size = max(int(w * fit) & ~1, 1), max(int(h * fit) & ~1, 1)
    ink, body = (np.asarray(i.resize(size, Image.Resampling.LANCZOS), np.float32) / 255 for i in (letters, shape))
    alpha = np.maximum(0.65 * body, 0.95 * ink)
    return (24 * (1 - ink) + 255 * ink).astype(np.float32), alpha
