"""Find a constant offset between sound and picture, and put it right: the picture is copied, the sound moved.

`python -m eval offset FILE [--fix OUT.mp4]`. A positive offset means that the sound is early: it is delayed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lipsync import label
from lipsync.containers import picture_stream, sound_stream
from lipsync.errors import InputError
from lipsync.media import SoundReader, probe

from . import sync
from .catalogue import MeasureError
from .protocols import FPS
from .rows import ScoreRow

if TYPE_CHECKING:
    import av

RATE = 48_000
LAYOUTS = {1: "mono", 2: "stereo"}
PATIENCE_S = 600


def words(row: ScoreRow) -> str:
    """What a row says about the offset, for people, and who says so."""
    if row.error:
        return f"No offset: {row.error}"
    if row.offset is None:
        return f"{row.judge} cannot tell the offset: {sync.doubt(row.certainty, row.shifts)} [{row.heading()}]"
    if not row.offset:
        return (
            f"Sound and mouth are together (within a frame of 40 ms; certainty {row.certainty:.0%}). [{row.heading()}]"
        )
    early, size = ("early", row.offset) if row.offset > 0 else ("late", -row.offset)
    return (f"The sound is {early} by {size} frame{'s' if size > 1 else ''} of 40 ms ({40 * size} ms; certainty "
            f"{row.certainty:.0%}). [{row.heading()}]")  # fmt: skip


def fix(path: Path, out: Path, offset: int) -> list[str]:
    """Write `path` with its sound delayed by `offset` frames of 40 ms (negative: earlier) and its picture as it is.

    Returns sentences on what changed beside. Raises InputError, MeasureError; then `out` is as it was before.
    """
    if out.suffix.lower() not in (".mp4", ".mov", ".mkv"):
        raise InputError(f"The repaired file is .mp4, .mov or .mkv, not {out.suffix or 'without an ending'}.")
    if out.resolve() == path.resolve():
        raise InputError(f"{out} is the file that is to be repaired: give another name.")
    if not out.parent.is_dir():
        raise InputError(f"There is no folder {out.parent}.")
    info = probe(path)
    if not info.has_video or not info.has_audio:
        raise InputError(f"{path.name} has no {'sound' if info.has_video else 'picture'}: there is nothing to repair.")
    # The picture's packets are copied in a child process: a broken file may take it down, but not us.
    root = str(Path(__file__).resolve().parent.parent)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    with tempfile.TemporaryDirectory(prefix=".lipsync-", dir=out.parent) as folder:
        made = Path(folder, f"repaired{out.suffix}")
        command = [sys.executable, "-P", "-m", "eval.repair", str(path), str(made), str(offset), str(info.start_s)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env=env)
        except subprocess.TimeoutExpired as error:
            raise MeasureError(f"{path.name} could not be repaired within {PATIENCE_S} s.") from error
        if done.returncode:
            said = done.stderr.strip().splitlines()
            raise MeasureError(
                f"{path.name} could not be repaired: {said[-1] if said else 'the copying process broke down'}."
            )
        made.replace(out)
    changed = done.stdout.splitlines()
    if label.verify(path).status not in (label.Status.NOT_LABELLED, label.Status.MARKED):
        changed.append("The source carries Content Credentials; they do not cover the moved sound; the copy has none.")
    return changed


def _copy(source: str, target: str, offset: int, start_s: float) -> None:
    """The child's work: picture packets from the first shown frame on, sound moved and coded again as AAC.

    What is lost on the way is printed, a sentence a line.
    """
    import av

    with av.open(source) as read, av.open(target, "w") as write:
        picture, heard = picture_stream(read), sound_stream(read)
        had = heard.codec_context.layout.nb_channels
        channels = 1 if had == 1 else 2
        video = write.add_stream_from_template(picture, opaque=True)
        sound = write.add_stream("aac", rate=RATE, layout=LAYOUTS[channels])
        sound.bit_rate = 96_000 * channels
        if had > channels:
            print(f"The sound had {had} channels and was mixed to two.")
        if others := [s.type for s in read.streams if s not in (picture, heard)]:
            print(f"Only the picture and its sound were copied; left out: {', '.join(others)}.")
        start = round(Fraction(start_s).limit_denominator(10**6) / picture.time_base)
        moved = _moved(source, round(Fraction(offset) / FPS * RATE), channels)
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


def _moved(source: str, delay: int, channels: int) -> Iterator[np.ndarray]:
    """Chunks (S, C) float32 of a file's sound, `delay` samples later: silence before it, or its beginning cut off."""
    if delay > 0:
        yield np.zeros((delay, channels), np.float32)
    cut = max(-delay, 0)
    with SoundReader(source, RATE, channels) as reader:
        for chunk in reader:
            if cut >= len(chunk):
                cut -= len(chunk)
                continue
            yield chunk[cut:]
            cut = 0


def _encode(write, stream, chunk: np.ndarray, at: int) -> int:
    """One chunk into the stream; returns the samples written so far."""
    import av

    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(chunk.T), format="fltp", layout=LAYOUTS[chunk.shape[1]])
    frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
    write.mux(stream.encode(frame))
    return at + len(chunk)


if __name__ == "__main__":
    try:
        _copy(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    except Exception as error:
        sys.exit(str(error))
