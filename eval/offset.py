"""Find a constant offset between sound and picture, and put it right: the picture is copied, the sound moved.

`python -m eval offset FILE [--fix OUT.mp4]`. A positive offset means that the sound is early: it is delayed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lipsync import sandbox
from lipsync.errors import InputError
from lipsync.files import identity, through_links
from lipsync.media.demux import heard_stream, open_input, picture_stream
from lipsync.messages import Message, from_json

# The child that copies imports this module too: what it does not need is imported where it is needed.
if TYPE_CHECKING:
    import av

    from lipsync.media.reader import VideoInfo

    from .results import ScoreRow

RATE = 48_000
LAYOUTS = {1: "mono", 2: "stereo"}
MEMORY_BYTES, CPU_S, PATIENCE_S = 4 << 30, 3600, 600.0


def words(row: ScoreRow) -> str:
    """What a row says about the offset, for people, and who says so."""
    from .metrics import sync

    if row.error:
        return f"No offset: {row.error}"
    if row.offset is None:
        return f"{row.evaluator} cannot tell the offset: {sync.doubt(row.certainty, row.shifts)} [{row.heading()}]"
    if not row.offset:
        return (
            f"Sound and mouth are together (within a frame of 40 ms; certainty {row.certainty:.0%}). [{row.heading()}]"
        )
    early, size = ("early", row.offset) if row.offset > 0 else ("late", -row.offset)
    return (
        f"The sound is {early} by {size} frame{'s' if size > 1 else ''} of 40 ms ({40 * size} ms; certainty "
        f"{row.certainty:.0%}). [{row.heading()}]"
    )


def fixable(path: Path, out: Path) -> VideoInfo:
    """Raise InputError where `path` cannot be repaired into `out`, as far as that can be known before the work."""
    from lipsync.media.reader import probe

    if out.suffix.lower() not in (".mp4", ".mov", ".mkv"):
        ending = out.suffix or Message("without an ending")
        raise InputError("The repaired file is .mp4, .mov or .mkv, not {ending}.", ending=ending)
    if identity(out) == identity(path):
        raise InputError("{out} is the file that is to be repaired: give another name.", out=out)
    if not through_links(out).parent.is_dir():
        raise InputError("There is no folder {parent}.", parent=through_links(out).parent)
    if out.is_dir():
        raise InputError("The repaired file cannot be written to {out}: that is a folder.", out=out)
    info = probe(path)
    if not info.has_video or not info.has_audio:
        if info.has_video:
            raise InputError("{file} has no sound: there is nothing to repair.", file=path.name)
        raise InputError("{file} has no picture: there is nothing to repair.", file=path.name)
    return info


def fix(path: Path, out: Path, offset: int) -> list[str]:
    """Write `path` with its sound delayed by `offset` frames of 40 ms (negative: earlier) and its picture as it is.

    Returns sentences on what changed beside. Raises InputError, MeasureError; then `out` is as it was before.
    """
    from lipsync.label import manifest as label

    from .metrics.base import MeasureError
    from .protocols import FPS

    info = fixable(path, out)
    out = through_links(out)
    delay = round(Fraction(offset) / FPS * RATE)
    limits = sandbox.Limits(MEMORY_BYTES, CPU_S, PATIENCE_S, written_bytes=2 * path.stat().st_size + (1 << 30))
    # The picture's packets are copied in a child process, which is given the sound by another, through this one.
    with tempfile.TemporaryDirectory(prefix=".lipsync-", dir=out.parent) as folder:
        made = Path(folder, f"repaired{out.suffix}").resolve()
        there = str(path.resolve())
        request = {"source": there, "target": str(made), "start_s": info.start_s}
        try:
            with sandbox.Child("eval.offset:copy", request, limits, [there], [made.parent]) as child:
                for chunk in _moved(path, delay):
                    child.send(memoryview(np.ascontiguousarray(chunk)).cast("B"))
                child.end_of_input()
                answer = child.finish()
        except sandbox.Ended as ended:
            raise MeasureError(
                "{file} could not be repaired: copying it {ended}.", file=path.name, ended=ended
            ) from ended
        if "error" in answer:
            raise MeasureError(
                "{file} could not be repaired: {why}.",
                file=path.name,
                why=Message(from_json(answer["error"]), file=path.name),
            )
        made.replace(out)
    changed = answer["changed"]
    if label.verify(path).status not in (label.Status.NOT_LABELLED, label.Status.MARKED):
        changed.append("The source carries Content Credentials; they do not cover the moved sound; the copy has none.")
    return changed


def copy(source: str, target: str, start_s: float) -> dict[str, Any]:
    """The child's work: picture packets from the first shown frame on, and the sound that comes in, coded as AAC.

    Returns sentences on what is lost on the way, or an error.
    """
    from av.error import FFmpegError

    try:
        return {"changed": _copy(source, target, start_s)}
    except (FFmpegError, ValueError) as error:
        return {"error": str(error)}


def _copy(source: str, target: str, start_s: float) -> list[str]:
    import av

    changed: list[str] = []
    with open_input(source) as read, av.open(target, "w") as write:
        picture, (heard, _) = picture_stream(read), heard_stream(read, source)
        had = heard.codec_context.layout.nb_channels
        channels = 1 if had == 1 else 2
        video = write.add_stream_from_template(picture, opaque=True)
        # FFmpeg would call HEVC hev1, which Apple's players refuse; another name than hev1 promises that the parameter
        # sets stand in the header, as they do in what is copied from other containers.
        if picture.codec_context.name == "hevc" and picture.codec_context.codec_tag != "hev1":
            video.codec_context.codec_tag = "hvc1"
        sound = write.add_stream("aac", rate=RATE, layout=LAYOUTS[channels])
        sound.bit_rate = 96_000 * channels
        if had > channels:
            changed.append(f"The sound had {had} channels and was mixed to two.")
        if others := [s.type for s in read.streams if s not in (picture, heard)]:
            changed.append(f"Only the picture and its sound were copied; left out: {', '.join(others)}.")
        start = round(Fraction(start_s).limit_denominator(10**6) / picture.time_base)
        moved = _mixed(channels)
        chunk, samples = next(moved, None), 0
        for packet in _in_order(read.demux(picture), picture):
            at = float((packet.dts - start) * picture.time_base)
            while chunk is not None and samples / RATE <= at:
                samples = _encode(write, sound, chunk, samples)
                chunk = next(moved, None)
            # AVI has no times of showing; what FFmpeg gives is a guess, right only where none is shown out of order
            if (packet.pts is None or read.format.name == "avi") and picture.codec_context.has_b_frames:
                raise ValueError("its pictures carry no time and are not in order; code it again first")
            packet.pts = packet.dts if packet.pts is None else packet.pts
            packet.pts, packet.dts = packet.pts - start, packet.dts - start
            packet.stream = video
            write.mux(packet)
        while chunk is not None:
            samples = _encode(write, sound, chunk, samples)
            chunk = next(moved, None)
        write.mux(sound.encode(None))
    return changed


def _in_order(packets: Iterable[av.Packet], picture: av.VideoStream) -> Iterator[av.Packet]:
    """The packets that hold a picture, each with its time of decoding. Matroska keeps none, and of pictures out of
    order FFmpeg cannot tell the first few, the key frame among them: counted back from the first that it knows."""
    step = round(1 / (picture.average_rate * picture.time_base))
    waiting: list[av.Packet] = []
    for packet in packets:
        if not packet.size:
            continue
        waiting.append(packet)
        if packet.dts is not None:
            for back, early in enumerate(reversed(waiting)):
                early.dts = packet.dts - back * step
            yield from waiting
            waiting = []
    if waiting:
        raise ValueError("its pictures carry no time of decoding; code it again first")


def _moved(source: Path, delay: int) -> Iterator[np.ndarray]:
    """Chunks (S, 2) float32 of a file's sound, `delay` samples later: silence before it, or its beginning cut off."""
    from lipsync.media.reader import SoundReader

    if delay > 0:
        yield np.zeros((delay, 2), np.float32)
    cut = max(-delay, 0)
    with SoundReader(source, RATE, 2) as reader:
        for chunk in reader:
            if cut >= len(chunk):
                cut -= len(chunk)
                continue
            yield chunk[cut:]
            cut = 0


def _mixed(channels: int) -> Iterator[np.ndarray]:
    """Chunks (S, channels) float32 of the sound that comes in; both channels are the same where the file had one."""
    for block in sandbox.incoming(RATE * 8):
        yield np.frombuffer(block, np.float32).reshape(-1, 2)[:, :channels]


def _encode(write, stream, chunk: np.ndarray, at: int) -> int:
    """One chunk into the stream; returns the samples written so far."""
    import av

    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(chunk.T), format="fltp", layout=LAYOUTS[chunk.shape[1]])
    frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
    write.mux(stream.encode(frame))
    return at + len(chunk)
