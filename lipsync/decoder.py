"""The decoding child: `python -m lipsync.decoder REQUEST`, started by media.py and by nothing else.

A broken file can kill or stall the process that decodes it, so visitors' files are opened only here. The
request is JSON on the command line. Frames (raw RGB) or samples (float32) leave on standard output; one JSON
report, the only words, leaves on the file descriptor that the request names. When the parent goes, so does
the child. Imports stay at av and numpy: start-up is part of every probe.
"""

import contextlib
import json
import math
import os
import resource
import select
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import ColorRange, Colorspace, ColorTrc, Interpolation

from .errors import InputError

MEMORY_BYTES = 4 << 30  # address space of this process; an 8K 10-bit film needs about half of it
CHUNK_BYTES = 128 << 20  # pictures held at once while a run is given backwards
SCAN_S = 5.0  # a probe reads packets for so long, then trusts the container for the rest
LONGEST_S = 4 * 3600
LARGEST_PX = 40_000_000  # 8K is 33 million
FASTEST_FPS, SLOWEST_FPS, PLAIN_FPS = 60.5, 10, Fraction(25)
# Formats that name other files or addresses, read devices, or take any text for a picture.
REFUSED_FORMATS = {
    *("concat", "dash", "hls", "hds", "image2", "imf", "lavfi", "sdp", "rtp", "rtsp", "sap", "smoothstreaming"),
    *("tty", "bin", "xbin", "adf", "idf", "data", "rawvideo", "vobsub", "svg_pipe", "ffmetadata", "webm_dash_manifest"),
    *("alsa", "oss", "fbdev", "kmsgrab", "x11grab", "video4linux2,v4l2", "vapoursynth", "avs"),
}  # fmt: skip
COMMON_RATES = [Fraction(n, d) for n, d in ((24000, 1001), (30000, 1001), (60000, 1001))] + [
    Fraction(n) for n in (24, 25, 30, 48, 50, 60, 15, 20, 12, 10)
]


# --- opening -----------------------------------------------------------------------------------------------


def words(error: BaseException) -> str:
    """The library's own words, without its error number and without the path."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip(". ")


def open_input(path: str) -> av.container.InputContainer:
    """Open a local file, and nothing that the file may point to."""
    allowed = ",".join(sorted(av.formats_available - REFUSED_FORMATS))
    options = {"protocol_whitelist": "file", "format_whitelist": allowed}
    try:
        return av.open(f"file:{path}", container_options=options, metadata_errors="replace")
    except (FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{{file}} cannot be read as a video, a picture or a sound ({words(error)}).") from error


def picture_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The stream to look at: the largest one that is not cover art."""
    attached = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if s.codec_context and not s.disposition & attached]
    return max(streams, key=lambda s: s.width * s.height, default=None)


def sound_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    """The stream to hear: the library's choice among those that it can decode."""
    streams = [s for s in container.streams.audio if s.codec_context and s.codec_context.sample_rate]
    best = container.streams.best("audio")
    return best if best in streams else next(iter(streams), None)


def packets(container: av.container.InputContainer, *streams: av.stream.Stream) -> Iterator[av.Packet]:
    """Packets until the file ends or breaks: a broken end is an end (what was promised is counted elsewhere)."""
    with contextlib.suppress(FFmpegError):
        yield from container.demux(*streams)


def stamp(thing: av.Packet | av.VideoFrame) -> int | None:
    return thing.pts if thing.pts is not None else thing.dts


class Pictures:
    """Decoded frames of one stream, in the order shown; counts the packets that would not decode."""

    def __init__(self, path: str):
        self.container = open_input(path)
        self.stream = picture_stream(self.container)
        if self.stream is None:
            raise InputError("{file} has no picture track; give a video or an image.")
        self.stream.thread_type = "AUTO"
        self.stream.codec_context.thread_count = min(4, os.cpu_count() or 1)
        self.broken = 0

    def __iter__(self) -> Iterator[av.VideoFrame]:
        for packet in packets(self.container, self.stream):
            try:
                for frame in packet.decode():
                    self.broken += bool(frame.is_corrupt)
                    yield frame
            except FFmpegError:
                self.broken += 1


# --- what a picture looks like -------------------------------------------------------------------------------


def orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """(transpose, flip left-right, flip upside-down) that bring the stored picture upright, in this order."""
    try:
        a, b, _, c, d = np.frombuffer(frame.side_data[SideData.DISPLAYMATRIX], np.int32)[:5].tolist()
    except KeyError:
        return False, False, False
    # The matrix sends a stored (x, y) to a shown (a x + c y, b x + d y).
    return (False, a < 0, d < 0) if abs(a) + abs(d) >= abs(b) + abs(c) else (True, c < 0, b < 0)


def degrees(turn: tuple[bool, bool, bool]) -> int:
    """Clockwise turn of an orientation; its mirror image, if any, is left out."""
    transpose, flip_x, flip_y = turn
    return (90 if flip_x else 270) if transpose else (180 if flip_y else 0)


def is_hdr(frame: av.VideoFrame) -> bool:
    return frame.color_trc in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)


def has_alpha(frame: av.VideoFrame) -> bool:
    return frame.format.name == "pal8" or any(part.is_alpha for part in frame.format.components)


def shown_size(stream: av.VideoStream, frame: av.VideoFrame) -> tuple[int, int]:
    """(width, height) with square pixels, before turning. Never loses pixels: the short side grows."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    if not Fraction(1, 4) <= aspect <= 4 or abs(aspect - 1) < 0.005:  # absurd, or rounding: leave the pixels alone
        aspect = Fraction(1)
    return round(frame.width * max(aspect, 1)), round(frame.height / min(aspect, 1))


class Painter:
    """Turns decoded frames into (H, W, 3) uint8 RGB of one given size, upright."""

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        self.graph: av.filter.Graph | None = None
        self.graph_for: tuple = ()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        turn = orientation(frame)
        width, height = (self.height, self.width) if turn[0] else (self.width, self.height)
        if is_hdr(frame):
            picture = self.tone_mapped(frame, width, height).to_ndarray()
        else:
            picture = self.plain(frame, width, height)
        transpose, flip_x, flip_y = turn
        picture = picture.transpose(1, 0, 2) if transpose else picture
        picture = picture[:, ::-1] if flip_x else picture
        picture = picture[::-1] if flip_y else picture
        return np.ascontiguousarray(picture)

    @staticmethod
    def plain(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
        alpha = has_alpha(frame)
        untold = frame.colorspace == 2 and not alpha  # players take HD for BT.709 and SD for BT.601
        same_size = (width, height) == (frame.width, frame.height)
        picture = frame.reformat(
            width,
            height,
            "rgba" if alpha else "rgb24",
            src_colorspace=Colorspace.ITU709 if untold and frame.height >= 720 else None,
            interpolation=Interpolation.BILINEAR if same_size else Interpolation.BICUBIC,
            threads=1,
        ).to_ndarray()
        if alpha:
            picture = (picture[..., :3].astype(np.uint16) * picture[..., 3:] + 127) // 255
        return picture.astype(np.uint8, copy=False)

    def tone_mapped(self, frame: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
        """HDR (PQ or HLG, wide gamut) to BT.709 by swscale's perceptual mapping."""
        full = frame.color_range == ColorRange.JPEG
        kind = (frame.width, frame.height, frame.format.name, frame.colorspace, full)
        if kind != self.graph_for:
            graph = av.filter.Graph()
            source = graph.add(
                "buffer",
                f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/1000"
                f":colorspace={frame.colorspace}:range={'pc' if full else 'tv'}",
            )
            scale = graph.add(
                "scale", f"{width}:{height}:out_transfer=bt709:out_primaries=bt709:intent=perceptual"
            )
            graph.link_nodes(source, scale, graph.add("format", "rgb24"), graph.add("buffersink")).configure()
            self.graph, self.graph_for = graph, kind
        self.graph.vpush(frame)
        return self.graph.vpull()


# --- probe -------------------------------------------------------------------------------------------------


def frame_rate(times: np.ndarray, unit: float, stated: list[Fraction]) -> tuple[Fraction, bool]:
    """(rate, varies) of sorted presentation times in seconds, rounded to `unit`.

    The rate that a header states and every timestamp keeps; else a common rate that every timestamp keeps;
    else, where the rate varies, the nominal one if nine frames in ten keep it, and the average if not.
    """
    if len(times) < 2:
        return (stated or [PLAIN_FPS])[0], False
    elapsed, places = times - times[0], np.arange(len(times))
    measured = Fraction((len(times) - 1) / elapsed[-1])
    near = [rate for rate in [*stated, *COMMON_RATES] if abs(rate / measured - 1) < 0.2]
    slack = max(1.01 * unit, 1e-4)
    for rate in near:
        if np.abs(elapsed - places / float(rate)).max() <= slack:
            return rate, False
    if np.abs(elapsed - places / float(measured)).max() <= 2 * slack:
        return measured.limit_denominator(1001), False
    steps = np.diff(elapsed)
    for rate in near:
        if np.mean(np.abs(steps - 1 / float(rate)) <= slack) >= 0.9:
            return rate, True
    return measured.limit_denominator(1001), True


def probe(path: str) -> dict[str, Any]:
    """What media.VideoInfo holds, as JSON. Reads the packets of the whole file, decodes one picture."""
    container = open_input(path)
    stream, sound = picture_stream(container), sound_stream(container)
    if stream is None:
        if sound is None:
            raise InputError("{file} has neither a picture nor a sound track that can be decoded.")
        return probe_sound(container, sound)
    if stream.width * stream.height > LARGEST_PX:
        raise InputError(
            f"{{file}} is {stream.width} x {stream.height} pixels; more than {LARGEST_PX // 10**6} million are not taken."
        )
    first, stamps, untimed, seen, last_s, complete = scan(container, stream)
    if first is None:
        raise InputError("{file} has a picture track, but no picture in it could be decoded.")

    unit = stream.time_base
    start = stamp(first)
    untimed = untimed or start is None or len(set(stamps)) < len(stamps) * 0.9
    stated = [r for r in (stream.average_rate, stream.guessed_rate, stream.base_rate) if r and 0 < r < 1000]
    if untimed:
        start = stream.start_time or 0
        rate, varies, count, hold = (stated or [PLAIN_FPS])[0], False, max(seen, 1), 1
        times = np.arange(count) / float(rate)
    else:
        kept = {s: length for s, length in stamps.items() if s >= start} or {start: 0}
        ordered = sorted(kept)
        times = (np.array(ordered, np.float64) - start) * float(unit)
        rate, varies = frame_rate(times, float(unit), stated)
        hold = kept[ordered[-1]] * unit
    still = len(times) == 1 and stream.frames <= 1 or container.format.name.endswith("_pipe")
    notes = []
    fps = rate
    if still:
        fps, varies = PLAIN_FPS, False
    elif rate > FASTEST_FPS:
        fps = rate / math.ceil(rate / Fraction(FASTEST_FPS))
        notes.append(f"{float(rate):.5g} frames a second were reduced to {float(fps):.5g}.")
    elif rate < SLOWEST_FPS:
        fps = PLAIN_FPS
        notes.append(f"{float(rate):.3g} frames a second are too few for speech; frames are repeated to make 25.")
    elif varies:
        notes.append(f"The frame rate varies; {float(fps):.5g} frames a second are used throughout.")
    if untimed:
        frames = len(times) if fps == rate else math.ceil(len(times) * fps / rate)
    else:
        frames = int(math.floor(times[-1] * float(fps) + 0.5)) + max(1, round(hold * fps))
    if still:
        frames = 1
    elif stream.frames > seen:  # the index lists more pictures than the file holds
        frames += math.ceil((stream.frames - seen) * fps / rate)
    elif not untimed and container.duration:
        begin = (container.start_time or 0) / av.time_base
        lacking = container.duration / av.time_base - (last_s - begin)
        if lacking > 0.5 or not complete:
            frames += max(0, round(lacking * float(fps)))
    if frames / fps > LONGEST_S:
        raise InputError(
            f"{{file}} says that it lasts {float(frames / fps) / 3600:.3g} hours; at most {LONGEST_S // 3600} are taken."
        )

    width, height = shown_size(stream, first)
    turn = orientation(first)
    if turn[0]:
        width, height = height, width
    if width * height > LARGEST_PX:
        raise InputError(f"{{file}} would be shown at {width} x {height} pixels, which is too many.")
    hdr = is_hdr(first)
    see_through = has_alpha(first) and bool((first.reformat(format="rgba").to_ndarray()[..., 3] < 255).any())
    if hdr:
        notes.append("The video is HDR; it was tone-mapped to ordinary brightness and colours.")
    if see_through:
        notes.append("Transparent parts were put on black.")
    return {
        "width": width,
        "height": height,
        "fps": str(fps),
        "varies": varies,
        "frames": frames,
        "duration_s": float(frames / fps),
        "start_s": float(start * unit),
        "has_video": True,
        "has_audio": sound is not None,
        "is_still": still,
        "codec": stream.codec_context.name,
        "rotation": degrees(turn),
        "hdr": hdr,
        "alpha": see_through,
        "timed": not untimed,
        "notes": notes,
    }


def scan(container: av.container.InputContainer, stream: av.VideoStream) -> tuple:
    """Read packets to the end: (first picture, {stamp: length}, untimed, packets seen, last second, complete)."""
    deadline = time.monotonic() + SCAN_S
    first, stamps, untimed, seen, last_s = None, {}, False, 0, 0.0
    for packet in packets(container):
        if time.monotonic() > deadline:
            return first, stamps, untimed, seen, last_s, False
        when = stamp(packet)
        if when is not None and packet.time_base:
            last_s = max(last_s, float((when + (packet.duration or 0)) * packet.time_base))
        if packet.stream is not stream:
            continue
        if packet.size:
            seen += 1
            if packet.pts is None:
                untimed = True
            elif not packet.is_discard:
                stamps[packet.pts] = packet.duration or 0
        if first is None:
            with contextlib.suppress(FFmpegError):
                first = next(iter(packet.decode()), None)
    return first, stamps, untimed, seen, last_s, True


def probe_sound(container: av.container.InputContainer, sound: av.AudioStream) -> dict[str, Any]:
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


# --- frames --------------------------------------------------------------------------------------------------


class Ticks:
    """Pictures at a constant rate: tick k shows the last picture whose time, in ticks, rounds to k or less."""

    def __init__(self, path: str, info: dict[str, Any]):
        self.path, self.timed = path, info["timed"]
        self.fps, self.start_s = Fraction(info["fps"]), Fraction(info["start_s"])
        self.paint = Painter(info["width"], info["height"])
        self.broken = 0
        self.pictures: Pictures | None = None
        self.rewind()

    def rewind(self, seconds_before: float | None = None, tick: int = 0) -> None:
        """Go to a key frame at least so long before a tick, or to the start of the file."""
        if seconds_before is None:
            self.pictures = Pictures(self.path)
            self.start = round(self.start_s / self.pictures.stream.time_base)
        else:
            when = self.start + (tick / self.fps - Fraction(seconds_before)) / self.pictures.stream.time_base
            self.pictures.container.seek(round(when), stream=self.pictures.stream)
        self.source = self.numbered()
        self.shown, self.ahead = None, next(self.source, None)
        self.painted: np.ndarray | None = None

    def numbered(self) -> Iterator[tuple[int, int, av.VideoFrame]]:
        """(tick, ticks it lasts, frame)"""
        unit = self.pictures.stream.time_base * self.fps
        stated = self.pictures.stream.average_rate or self.fps
        for place, frame in enumerate(self.pictures):
            if self.timed:
                when = stamp(frame)
                if when is not None and when >= self.start:
                    yield math.floor((when - self.start) * unit + Fraction(1, 2)), round((frame.duration or 0) * unit), frame
            else:
                yield math.floor(place * self.fps / stated + Fraction(1, 2)), 1, frame

    def go(self, tick: int) -> None:
        """Make ready to show a tick, whatever was shown before."""
        if self.shown is not None and self.shown[0] <= tick or self.shown is None and self.ahead and self.ahead[0] <= tick:
            near = self.ahead is None or tick - (self.shown or self.ahead)[0] < 2 * self.fps
            if near or not self.timed:
                return
        if self.timed and tick > self.fps:
            for seconds_before in (0, 1, 10):
                with contextlib.suppress(FFmpegError):
                    self.rewind(seconds_before, tick)
                    if self.ahead and self.ahead[0] <= tick:
                        return
        self.rewind()

    def run(self, first: int, stop: int) -> Iterator[np.ndarray]:
        """Pictures of ticks first..stop-1; ends early where the file does."""
        self.go(first)
        for tick in range(first, stop):
            while self.ahead and (self.ahead[0] <= tick or self.shown is None):
                self.shown, self.ahead, self.painted = self.ahead, next(self.source, None), None
            if self.shown is None or self.ahead is None and tick >= self.shown[0] + max(1, self.shown[1]):
                return
            if self.painted is None:
                self.painted = self.paint(self.shown[2])
            yield self.painted


def frames(path: str, info: dict[str, Any], segments: list[tuple[int, int]] | None) -> dict[str, Any]:
    """Write the pictures of the segments to standard output."""
    ticks = Ticks(path, info)
    chunk = max(1, CHUNK_BYTES // (info["width"] * info["height"] * 3))
    given = 0
    for first, stop in segments or [(0, LONGEST_S * 61)]:
        if first <= stop:
            for picture in ticks.run(first, stop):
                send(picture)
                given += 1
        else:
            for top in range(first, stop, -chunk):
                for picture in reversed(list(ticks.run(max(stop, top - chunk), top))):
                    send(picture)
                    given += 1
    broken = ticks.pictures.broken
    return {"given": given, "notes": [f"{broken} pictures were damaged."] if broken else []}


def send(array: np.ndarray) -> None:
    view = memoryview(array).cast("B")
    while view:
        view = view[os.write(1, view) :]


# --- sound ---------------------------------------------------------------------------------------------------


def sound(path: str, sample_rate: int, channels: int) -> dict[str, Any]:
    """Write float32 samples (S, C), interleaved, from the moment of the first picture on."""
    container = open_input(path)
    stream = sound_stream(container)
    if stream is None:
        raise InputError("{file} has no sound track.")
    start = first_moment(path) if picture_stream(container) else None
    layout = "mono" if channels == 1 else "stereo"
    rate, mix, convert = 0, None, None
    expected, sent = start, 0

    def give(samples: np.ndarray) -> None:
        """(C, S) at the file's rate"""
        nonlocal sent
        if rate == sample_rate:
            converted = [samples]
        else:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", layout)
            frame.sample_rate = rate
            converted = [part.to_ndarray() for part in convert.resample(frame)]
        for part in converted:
            send(np.ascontiguousarray(part.T, np.float32))
            sent += part.shape[1]
        if sent > LONGEST_S * sample_rate:
            raise InputError(f"The sound of {{file}} lasts longer than {LONGEST_S // 3600} hours.")

    def flush() -> None:
        for part in convert.resample(None) if convert and rate != sample_rate else []:
            send(np.ascontiguousarray(part.to_ndarray().T, np.float32))

    kind: tuple = ()
    broken = 0
    for packet in packets(container, stream):
        try:
            decoded = packet.decode()
        except FFmpegError:
            broken += 1
            continue
        for frame in decoded:
            if (frame.sample_rate, frame.format.name, frame.layout.name) != kind:
                kind = (frame.sample_rate, frame.format.name, frame.layout.name)
                mix = av.AudioResampler("fltp", layout, frame.sample_rate)
                if rate != frame.sample_rate:
                    flush()
                    rate, convert = frame.sample_rate, av.AudioResampler("fltp", layout, sample_rate)
            at = frame.pts * frame.time_base if frame.pts is not None else expected
            slack = rate // 50 if sent else 0  # rounded timestamps are no gaps; the start is exact
            expected = at if expected is None else expected
            gap = 0 if at is None else round((at - expected) * rate)
            gap = gap if abs(gap) > slack else 0
            samples = np.concatenate([part.to_ndarray() for part in mix.resample(frame)] or [np.zeros((channels, 0))], 1)
            while gap > 0:
                silence = min(gap, rate)
                give(np.zeros((channels, silence), np.float32))
                gap -= silence
                expected = (expected or 0) + Fraction(silence, rate)
            samples = samples[:, -gap:]
            if samples.shape[1]:
                give(samples)
                expected = (expected or 0) + Fraction(samples.shape[1], rate)
    flush()
    if not sent:
        raise InputError("The sound track of {file} could not be decoded.")
    return {"given": sent, "notes": [f"{broken} pieces of the sound were damaged."] if broken else []}


def first_moment(path: str) -> Fraction | None:
    """Presentation time of the first picture that decodes."""
    pictures = Pictures(path)
    for frame in pictures:
        when = stamp(frame)
        return Fraction(0) if when is None else when * pictures.stream.time_base
    return None


# --- the process -----------------------------------------------------------------------------------------------


def leave_with(report: int) -> None:
    """Wait until nobody reads the report any more (the parent closed it or died), then leave at once."""
    poll = select.poll()
    poll.register(report, 0)  # errors alone
    poll.poll()
    os._exit(1)


def main() -> None:
    request = json.loads(sys.argv[1])
    report = request.pop("report")
    threading.Thread(target=leave_with, args=(report,), daemon=True).start()
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    job = {"probe": probe, "frames": frames, "sound": sound}[request.pop("job")]
    try:
        answer = job(**request)
    except InputError as error:
        answer = {"error": str(error)}
    except MemoryError:
        answer = {"error": "{file} needs more memory than one file is given."}
    except FFmpegError as error:
        answer = {"error": f"{{file}} cannot be decoded ({words(error)})."}
    except BrokenPipeError:
        os._exit(1)
    os.write(report, json.dumps(answer).encode())
    os.close(1)
    os._exit(0)  # a decoder that hangs while it is taken down must not hold the answer


if __name__ == "__main__":
    main()
