"""Things that lie before a face, drawn: bars, fingers, discs, polygons, masks, letters, filled with any texture.

Nothing here is a picture of a real hand or microphone; what is learnt of these is that a face has no such edges.
"""

from __future__ import annotations

import cv2
import numpy as np

SHIFT = 4  # of OpenCV's drawing: coordinates in sixteenths of a pixel


def occluder(rng: np.random.Generator, size_px: int) -> np.ndarray:
    """The outline of one: (S, S) float32 0..1, mostly over the lower half, its edge a little soft."""
    kinds = (_bar, _fingers, _disc, _polygon, _letters, _lower_face)
    cover = np.zeros((size_px, size_px), np.uint8)
    kinds[rng.choice(len(kinds), p=(0.2, 0.25, 0.15, 0.1, 0.2, 0.1))](cover, rng)
    return cv2.GaussianBlur(cover, (0, 0), rng.uniform(0.3, 1.2)).astype(np.float32) / 255


def texture(rng: np.random.Generator, size_px: int, other: np.ndarray) -> np.ndarray:
    """What it is made of: (S, S, 3) uint8 RGB, one colour, a gradient, coarse noise, stripes, or a part of another
    picture (H, W, 3), enlarged."""
    kind = rng.choice(5, p=(0.25, 0.1, 0.1, 0.05, 0.5))
    if kind == 4:
        side = int(rng.integers(min(24, len(other)), min(other.shape[:2]) + 1))
        y, x = (int(rng.integers(0, other.shape[k] - side + 1)) for k in (0, 1))
        part = cv2.resize(other[y : y + side, x : x + side], (size_px, size_px), interpolation=cv2.INTER_LINEAR)
        return np.ascontiguousarray(np.rot90(part, int(rng.integers(4))))
    a, b = _colour(rng), _colour(rng)
    if kind == 0:
        mix = rng.normal(0, 0.03, (6, 6))
    elif kind == 1:
        mix = np.linspace(0, 1, 6)[:, None] * np.ones(6)
    elif kind == 2:
        mix = rng.uniform(0, 1, (12, 12))
    else:
        mix = np.tile([[0.0], [1.0]], (int(rng.integers(3, 12)), 1)) * np.ones(2)
    mix = cv2.resize(mix.astype(np.float32), (size_px, size_px), interpolation=cv2.INTER_LINEAR)[..., None]
    if rng.random() < 0.5:
        mix = mix.transpose(1, 0, 2)
    return np.clip(a + (b - a) * mix, 0, 255).astype(np.uint8)


def covered_face(rng: np.random.Generator, face: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A face (S, S, 3) uint8 RGB with something before it, and where: (S, S) float32.

    It is made of a part of `other`, of the face's own skin, as a hand is, or of colours, and lit evenly or as if round.
    """
    size = len(face)
    where = np.zeros((size, size), np.float32)
    picture = face.astype(np.float32)
    for _ in range(1 + (rng.random() < 0.2)):
        one = occluder(rng, size)
        if rng.random() < 0.4:  # its shadow, which is no part of it
            shadow = np.roll(one, rng.integers(-4, 5, 2), (0, 1))
            picture *= 1 - rng.uniform(0.1, 0.4) * cv2.GaussianBlur(shadow, (0, 0), 3)[..., None]
        stuff = texture(rng, size, _skin(rng, face) if rng.random() < 0.35 else other).astype(np.float32)
        if rng.random() < 0.5:
            stuff *= 1 - rng.uniform(0.1, 0.5) * (1 - cv2.GaussianBlur(one, (0, 0), rng.uniform(1.5, 5)))[..., None]
        picture += one[..., None] * (stuff - picture)
        where = np.maximum(where, one)
    return picture.clip(0, 255).astype(np.uint8), where


def recorded(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """A picture as a camera and a codec leave it: blurred, noisy, quantised."""
    if rng.random() < 0.4:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.2))
    if rng.random() < 0.4:
        picture = np.clip(picture + rng.normal(0, rng.uniform(1, 6), picture.shape), 0, 255).astype(np.uint8)
    if rng.random() < 0.6:
        _, coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 95))])
        picture = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))
    return picture


def _skin(rng: np.random.Generator, face: np.ndarray) -> np.ndarray:
    """A part of a cheek or the brow, under another light."""
    size = len(face)
    side, x, y = (int(rng.uniform(low, high) * size) for low, high in ((0.27, 0.35), (0.25, 0.45), (0.15, 0.4)))
    part = face[y : y + side, x : x + side] * (rng.uniform(0.6, 1.3) * rng.uniform(0.93, 1.07, 3))
    return np.clip(part, 0, 255).astype(np.uint8)


def _colour(rng: np.random.Generator) -> np.ndarray:
    """Black, white and greys more often than chance would."""
    if rng.random() < 0.5:
        return np.full(3, rng.choice([rng.uniform(0, 30), rng.uniform(225, 255), rng.uniform(0, 255)])) + rng.normal(
            0, 4, 3
        )
    return rng.uniform(0, 255, 3)


def _place(rng: np.random.Generator, size: int) -> np.ndarray:
    """A point, mostly of the lower half."""
    return np.array([rng.uniform(0.1, 0.9), rng.uniform(0.45, 1.0)]) * size


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.round(np.asarray(points) * (1 << SHIFT)).astype(np.int32)


def _line(cover: np.ndarray, a: np.ndarray, b: np.ndarray, thick: float) -> None:
    (p, q), width = _fixed([a, b]).tolist(), max(round(thick), 1)
    cv2.line(cover, p, q, 255, width, cv2.LINE_AA, SHIFT)


def _bar(cover: np.ndarray, rng: np.random.Generator) -> None:
    """From outside to a point or through it, with square or round ends."""
    size = len(cover)
    at, angle, thick = _place(rng, size), rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.4) * size
    if rng.random() < 0.4:
        angle = rng.choice([0.0, 0.5, 1.0]) * np.pi  # as captions and poles stand: never from above the brow
    along = np.array([np.cos(angle), np.sin(angle)])
    ends = at - rng.uniform(0, 0.6) * size * along, at + rng.uniform(0.1, 1.5) * size * along
    if rng.random() < 0.5:
        _line(cover, *ends, thick)
        return
    aside = np.array([-along[1], along[0]]) * thick / 2
    corners = [ends[0] - aside, ends[1] - aside, ends[1] + aside, ends[0] + aside]
    cv2.fillPoly(cover, [_fixed(corners)], 255, cv2.LINE_AA, SHIFT)


def _fingers(cover: np.ndarray, rng: np.random.Generator) -> None:
    size = len(cover)
    at, angle, thick = _place(rng, size), rng.uniform(-0.2, 1.2) * np.pi, rng.uniform(0.07, 0.14) * size
    along = np.array([np.cos(angle), np.sin(angle)])
    aside = np.array([-along[1], along[0]])
    for k in range(int(rng.integers(1, 6))):
        tip = at + aside * k * thick * rng.uniform(1.0, 1.25) + along * rng.uniform(-0.08, 0.08) * size
        _line(cover, tip, tip + along * 1.5 * size + aside * rng.uniform(-0.1, 0.1) * size, thick)


def _disc(cover: np.ndarray, rng: np.random.Generator) -> None:
    """An ellipse, often on a stick: a microphone, a cup's rim."""
    size = len(cover)
    at, axes = _place(rng, size), rng.uniform(0.06, 0.3, 2) * size
    centre, both = _fixed(at).tolist(), _fixed(axes).tolist()
    cv2.ellipse(cover, centre, both, rng.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA, SHIFT)
    if rng.random() < 0.6:
        _line(cover, at, at + rng.normal(0, 0.4, 2) * size + [0, size], rng.uniform(0.03, 0.15) * size)


def _polygon(cover: np.ndarray, rng: np.random.Generator) -> None:
    size, count = len(cover), int(rng.integers(3, 8))
    turns = np.sort(rng.uniform(0, 2 * np.pi, count))
    reach = rng.uniform(0.08, 0.45, count)[:, None] * size
    corners = _place(rng, size) + reach * np.stack([np.cos(turns), np.sin(turns)], 1)
    cv2.fillPoly(cover, [_fixed(corners)], 255, cv2.LINE_AA, SHIFT)


def _letters(cover: np.ndarray, rng: np.random.Generator) -> None:
    """A caption: letters, some on a plate or with an outline."""
    size = len(cover)
    text = "".join(rng.choice(list("ABCDEFGHIKLMNOPRSTUVWXYZabdeghknopqsuz0123456789"), int(rng.integers(3, 12))))
    scale, thick = rng.uniform(0.3, 1.2), int(rng.integers(1, 4))
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    x, y = int(rng.integers(-width // 2, size // 2)), int(rng.integers(size // 2, size + height // 2))
    if rng.random() < 0.25:
        cv2.rectangle(cover, (x - 3, y - height - 3), (x + width + 3, y + 4), 255, -1)
    cv2.putText(cover, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thick + 1, cv2.LINE_AA)


def _lower_face(cover: np.ndarray, rng: np.random.Generator) -> None:
    """All below a curve: a mask, a scarf, a sheet of paper."""
    size = len(cover)
    x = np.linspace(-0.1, 1.1, 9)
    y = rng.uniform(0.5, 0.85) + rng.uniform(-0.2, 0.2) * (2 * x - 1) ** 2 + rng.uniform(-0.15, 0.15) * (x - 0.5)
    corners = np.concatenate([np.stack([x, y], 1), [[1.1, 1.2], [-0.1, 1.2]]]) * size
    cv2.fillPoly(cover, [_fixed(corners)], 255, cv2.LINE_AA, SHIFT)
