"""What a file is: the facts of media.VideoInfo, found in the child from all packets and one decoded picture."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import numpy as np

from ..errors import InputError
from ..messages import Message
from .color import can_be_transparent, degrees, is_hdr, orientation
from .demux import Pictures, is_protected, moment, open_input, packets, picture_stream, sound_stream, stamp
from .stills import LARGEST_STILL_PX, animated_webp, check_whole, film_size, is_picture

SCAN_S = 5.0  # packets are read for so long, then the container is trusted for the rest
SLACK_S = 0.15  # headers round the length up by so much, padding of the sound included
LONGEST_S = 4 * 3600
LARGEST_PX = 40_000_000  # 8K is 33 million
FASTEST_FPS, SLOWEST_FPS, PLAIN_FPS = Fraction(121, 2), 10, Fraction(25)
COMMON_RATES = [Fraction(n, 1001) for n in (24000, 30000, 60000)] + [Fraction(n) for n in (24, 25, 30, 48, 50, 60)]


def probe(path: str) -> dict[str, Any]:
    """The fields of media.VideoInfo as JSON, `path` left out.

    raises  InputError when there is neither picture nor sound, or too much of it
    """
    container = open_input(path)
    sound = sound_stream(container)
    if picture_stream(container) is None:
        if sound is None:
            raise InputError("{file} has neither a picture nor a sound track that can be decoded.")
        return sound_facts(container, sound)
    container.close()

    pictures = Pictures(path, strict=True)
    stream, stored = pictures.stream, (pictures.stream.width, pictures.stream.height)
    most = LARGEST_STILL_PX if is_picture(pictures.container) else LARGEST_PX
    check_size(*stored, most)
    found, strictly = scan(pictures), True
    if found.first is None and is_picture(pictures.container):
        pictures, strictly = Pictures(path), False
        stream, found = pictures.stream, scan(pictures)
    if found.first is None and pictures.starved:
        raise MemoryError
    if found.first is None:
        raise why_not(path, stream)
    still = found.pictures <= 1 >= stream.frames or pictures.container.format.name.endswith("_pipe")
    harm = check_whole(path, stream.codec_context.name, strictly) if still else []
    timing = still_timing(found) if still else moving_timing(pictures, found)
    if timing["frames"] / timing["fps"] > LONGEST_S:
        hours = float(timing["frames"] / timing["fps"]) / 3600
        raise InputError(
            "{file} says that it lasts {hours:.3g} hours; at most {most} are taken.",
            hours=hours,
            most=LONGEST_S // 3600,
        )

    oriented = orientation(found.first)
    width, height = square_pixels(stream, found.first)
    check_size(width, height, most)
    hdr, alpha = is_hdr(found.first), is_transparent(found.first)
    notes = timing.pop("notes") + harm
    if still and film_size(width, height) != (width, height):
        width, height = film_size(width, height)
        notes.append(
            Message(
                "The picture of {from_width} × {from_height} pixels was made smaller, to {width} × {height}.",
                from_width=stored[0],
                from_height=stored[1],
                width=width,
                height=height,
            )
        )
    notes += [Message("The video is HDR; it was tone-mapped to ordinary brightness and colours.")] * hdr
    notes += [Message("Transparent parts were put on black.")] * alpha
    notes += [Message("The video is interlaced; its fields were merged.")] * bool(found.first.interlaced_frame)
    fps = timing["fps"]
    return {
        **timing,
        "fps": str(fps),
        "duration_s": float(timing["frames"] / fps),
        "width": height if oriented[0] else width,
        "height": width if oriented[0] else height,
        "has_video": True,
        "has_audio": sound is not None,
        "is_still": still,
        "codec": stream.codec_context.name,
        "rotation": degrees(oriented),
        "hdr": hdr,
        "alpha": alpha,
        "notes": notes,
    }


def sound_facts(container: av.container.InputContainer, sound: av.AudioStream) -> dict[str, Any]:
    """The same for a file without pictures."""
    length = sound.duration * sound.time_base if sound.duration else Fraction(container.duration or 0, av.time_base)
    return {
        **dict.fromkeys(("width", "height", "frames", "rotation"), 0),
        **dict.fromkeys(("varies", "has_video", "is_still", "hdr", "alpha"), False),
        "fps": str(PLAIN_FPS),
        "duration_s": float(length),
        "start_s": float((sound.start_time or 0) * sound.time_base),
        "has_audio": True,
        "codec": sound.codec_context.name,
        "timed": True,
        "notes": [],
    }


def why_not(path: str, stream: av.VideoStream) -> InputError:
    """The error on pictures that do not decode: what is known of the cause, and what to do."""
    if is_protected(path):
        return InputError(
            "No picture in {file} could be decoded: it is protected against copying (DRM). Give a video without "
            "protection."
        )
    if stream.codec_context.name != "webp":
        return InputError("No picture in {file} could be decoded.")
    if animated_webp(path):
        return InputError(
            "No picture in {file} could be decoded. Animated WebP is not supported; save it as GIF or MP4."
        )
    return InputError("No picture in {file} could be decoded: the file is cut short.")


# --- packets ---------------------------------------------------------------------------------------------------


@dataclass
class Scan:
    """What the packets of a file said."""

    first: av.VideoFrame | None = None  # the first picture that decoded
    pictures: int = 0  # packets of the picture stream
    lengths: dict[int, int] = field(default_factory=dict)  # presentation time -> duration, shown pictures alone
    timed: bool = True  # every picture has a presentation time of its own
    end_s: float = 0.0  # latest moment in any stream
    complete: bool = True


def scan(pictures: Pictures) -> Scan:
    """Read packets up to the end of the file, or for SCAN_S."""
    found, deadline, shown = Scan(), time.monotonic() + SCAN_S, 0
    for packet in packets(pictures.container):
        if time.monotonic() > deadline:
            found.complete = False
            break
        when = stamp(packet)
        if when is not None and packet.time_base:
            found.end_s = max(found.end_s, float((when + (packet.duration or 0)) * packet.time_base))
        if packet.stream is not pictures.stream:
            continue
        if found.first is None:
            found.first = next(iter(pictures.decode(packet)), None)
        if packet.size:
            found.pictures += 1
            if packet.pts is None:
                found.timed = False
            elif not packet.is_discard:
                shown += 1
                found.lengths[packet.pts] = packet.duration or 0
    found.timed &= found.first is not None and found.first.pts is not None and len(found.lengths) >= 0.9 * shown
    return found


# --- time ----------------------------------------------------------------------------------------------------


def still_timing(found: Scan) -> dict[str, Any]:
    return {"fps": PLAIN_FPS, "varies": False, "frames": 1, "start_s": 0.0, "timed": found.timed, "notes": []}


def moving_timing(pictures: Pictures, found: Scan) -> dict[str, Any]:
    """Rate, start and promised number of frames of a video."""
    container, stream = pictures.container, pictures.stream
    unit = stream.time_base
    stated = [r for r in (stream.average_rate, stream.guessed_rate, stream.base_rate) if r and 0 < r < 1000]
    start = moment(stream, found.first)
    ordered = []
    if found.timed:
        ordered = sorted(when for when in found.lengths if when >= start) or [start]
        elapsed = (np.array(ordered, np.float64) - start) * float(unit)
        rate, varies = frame_rate(elapsed, float(unit), stated)
    else:
        rate, varies = (stated or [PLAIN_FPS])[0], False
    fps, notes = speakable(rate, varies)
    if ordered:
        last = max(found.lengths.get(ordered[-1], 0) * unit, 1 / rate)
        frames = round(((ordered[-1] - start) * unit + last) * fps)
    else:
        frames = math.ceil(found.pictures * fps / rate)

    if stream.frames > found.pictures:  # the index lists more pictures than were found
        frames = max(frames, round((stream.frames - found.pictures + len(found.lengths)) * fps / rate))
    elif found.timed and not stream.frames and container.duration:
        lacking = (container.duration + (container.start_time or 0)) / av.time_base - found.end_s
        if lacking > SLACK_S or not found.complete:
            frames += max(0, round(lacking * fps))
    return {
        "fps": fps,
        "varies": varies,
        "frames": max(1, frames),
        "start_s": float(start * unit),
        "timed": found.timed,
        "notes": notes,
    }


def frame_rate(elapsed: np.ndarray, unit: float, stated: Sequence[Fraction]) -> tuple[Fraction, bool]:
    """(rate, does it vary) of pictures shown `elapsed` seconds after the first, ascending, rounded to `unit`.

    The rate that a header states, or else a common one, if every picture keeps it to the unit. Where none does: the
    rate of most steps, however long the others hold their picture, and the average if there is none.
    """
    if len(elapsed) < 2:
        return (list(stated) or [PLAIN_FPS])[0], False
    measured = (len(elapsed) - 1) / float(elapsed[-1])
    average = max(Fraction(measured).limit_denominator(1001), Fraction(1, 1001))
    near = [rate for rate in [*stated, *COMMON_RATES] if abs(float(rate) / measured - 1) < 0.2]
    places, slack = np.arange(len(elapsed)), max(min(1.01 * unit, 0.1 / measured), 1e-4)
    for rate in near:
        if np.abs(elapsed - places / float(rate)).max() <= slack:
            return rate, False
    if np.abs(elapsed - places / measured).max() <= 2 * slack:
        return average, False
    if nominal := step_rate(elapsed, unit, stated):
        return nominal, True
    trusted = [rate for rate in stated[:1] if abs(float(rate) / measured - 1) < 0.05]
    return (trusted or [average])[0], True


def step_rate(elapsed: np.ndarray, unit: float, stated: Sequence[Fraction]) -> Fraction | None:
    """The rate that more than half of the steps between pictures keep, to the unit of their times; None: none.

    Of the rates near their mean (stated, common, whole, a fraction), the one on whose grid all the pictures lie best:
    held pictures are held for whole steps, and the longer the film, the more a wrong rate is off at its end.
    """
    steps = np.diff(elapsed)
    middle = float(np.median(steps))
    alike = steps[np.abs(steps - middle) <= max(min(1.01 * unit, 0.15 * middle), 1e-4)]
    if middle <= 0 or len(alike) <= len(steps) / 2:
        return None
    measured = 1 / float(alike.mean())
    own = Fraction(measured).limit_denominator(1001)
    near = [
        r
        for r in [*stated, *COMMON_RATES, Fraction(round(measured))]
        if abs(float(r) / measured - 1) < 0.5 * unit / middle + 1e-3
    ]

    def away(rate: Fraction) -> float:
        places = elapsed * float(rate)
        return round(float(np.abs(places - places.round()).mean()), 3)

    return min([*near, own], key=away)


def speakable(rate: Fraction, varies: bool) -> tuple[Fraction, list[str]]:
    """The rate that frames are given at: whole fractions of what is too fast, 25 for what is too slow; and why."""
    if rate > FASTEST_FPS:
        fps = rate / math.ceil(rate / FASTEST_FPS)
        return fps, [Message("{rate:.5g} frames a second were reduced to {fps:.5g}.", rate=float(rate), fps=float(fps))]
    if rate < SLOWEST_FPS:
        few = Message(
            "{rate:.3g} frames a second are too few for speech; they were repeated to make 25.", rate=float(rate)
        )
        return PLAIN_FPS, [few]
    if varies:
        return rate, [
            Message("The frame rate varies; {rate:.5g} frames a second are used throughout.", rate=float(rate))
        ]
    return rate, []


# --- pictures ------------------------------------------------------------------------------------------------


def square_pixels(stream: av.VideoStream, frame: av.VideoFrame) -> tuple[int, int]:
    """(width, height) with square pixels, before turning. Never loses pixels: the short side grows."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    if not Fraction(1, 4) <= aspect <= 4 or abs(aspect - 1) < Fraction(1, 200):  # absurd, or no more than rounding
        aspect = Fraction(1)
    return round(frame.width * max(aspect, 1)), round(frame.height / min(aspect, 1))


def is_transparent(frame: av.VideoFrame) -> bool:
    """Is any pixel of it not opaque?"""
    return can_be_transparent(frame) and bool((frame.to_ndarray(format="rgba")[..., 3] < 255).any())


def check_size(width: int, height: int, most: int = LARGEST_PX) -> None:
    if width * height > most:
        limit = most // 10**6
        raise InputError(
            "{file} is {width} x {height} pixels; at most {limit} million pixels are taken.",
            width=width,
            height=height,
            limit=limit,
        )
