"""Inside a media file: which streams count, and their packets and pictures in order. Used in the child alone."""

import contextlib
import mmap
import os
import re
import time
from collections.abc import Iterator

import av
import numpy as np
from av.codec.context import ThreadType
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import ColorRange

from .errors import InputError
from .stills import halvings, is_picture

# Formats that name other files or addresses, read devices, or take any text for a picture.
REFUSED_FORMATS = {
    *("concat", "dash", "hls", "hds", "imf", "lavfi", "sdp", "rtp", "rtsp", "sap", "smoothstreaming"),
    *("tty", "bin", "xbin", "adf", "idf", "data", "rawvideo", "vobsub", "svg_pipe", "ffmetadata"),
    *("alsa", "oss", "fbdev", "kmsgrab", "x11grab", "video4linux2,v4l2", "webm_dash_manifest"),
}
PROTECTION = re.compile(rb"sinf.{4}frma", re.DOTALL)  # of a sample entry: which coding lies below the encryption
PEEK_S = 20.0  # a track that is silent for so much of decoding is taken as it is
QUIET = 1e-3  # peak below which a track is silent, full scale 1
TILED_BRANDS = {"heic", "heix", "mif1", "avif"}


def words(error: BaseException) -> str:
    """The library's own words, without its error number and without the path."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip(". ")


def open_input(path: str) -> av.container.InputContainer:
    """Open a local file, and nothing that the file may point to.

    raises  InputError; `{file}` in any sentence of the child stands for the name that the user gave
    """
    allowed = ",".join(sorted(av.formats_available - REFUSED_FORMATS))
    # image2 takes JPEG files by their name; without patterns it reads that one file and no other.
    options = {"protocol_whitelist": "file", "format_whitelist": allowed, "pattern_type": "none"}
    try:
        return av.open(f"file:{path}", container_options=options, metadata_errors="replace")
    except (FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{{file}} cannot be read as a video, a picture or a sound ({words(error)}).") from error


def picture_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The stream to look at: the largest one that is not cover art."""
    streams = [s for s in container.streams.video if s.codec_context and not s.disposition & Disposition.attached_pic]
    if len(streams) > 1 and container.metadata.get("major_brand") in TILED_BRANDS:
        raise InputError("{file} is a photo stored in tiles, which is not supported; save it as JPEG or PNG.")
    return max(streams, key=lambda s: s.width * s.height, default=None)


def sound_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    """The stream to hear: the library's choice among those that it can decode."""
    streams = [s for s in container.streams.audio if s.codec_context and s.codec_context.sample_rate]
    best = container.streams.best("audio")
    return best if best in streams else next(iter(streams), None)


def heard_stream(
    container: av.container.InputContainer, path: str, track: int | None = None
) -> tuple[av.AudioStream | None, list[str]]:
    """The stream to hear, and sentences where there was a choice.

    track  the number that is wanted, counted from 1 among all sound tracks of the file; None: the usual one, but where
           that is silent and others are not, the first of those
    raises InputError where there is no such track
    """
    tracks, usual = list(container.streams.audio), sound_stream(container)
    if track is not None:
        if track > len(tracks) or not tracks[track - 1].codec_context:
            raise InputError(f"{{file}} has no sound track number {track} that can be decoded: it has {len(tracks)}.")
        return tracks[track - 1], []
    if usual is None or len(tracks) == 1:
        return usual, []
    number, many = tracks.index(usual) + 1, len(tracks)
    if not sounds(path, usual.index):
        usable = [s for s in tracks if s is not usual and s.codec_context and s.codec_context.sample_rate]
        heard = next((s for s in usable if sounds(path, s.index)), None)
        if heard is not None:
            instead = tracks.index(heard) + 1
            return heard, [f"Number {number} of its {many} sound tracks is silent; number {instead} was taken instead."]
    return usual, [f"It has {many} sound tracks, of which number {number} was taken."]


def is_protected(path: str) -> bool:
    """Does an MP4 say that a stream of it is encrypted (DRM)? FFmpeg does not tell. For files that did not decode."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return PROTECTION.search(data) is not None


def sounds(path: str, index: int) -> bool:
    """Is anything to be heard in the stream of this number? Also true where PEEK_S of decoding could not tell."""
    deadline = time.monotonic() + PEEK_S
    with open_input(path) as container:
        for packet in packets(container, container.streams[index]):
            try:
                frames = packet.decode()
                resample = av.AudioResampler("flt")
            except FFmpegError:
                continue
            for frame in frames:
                packed = resample.resample(frame)  # to packed: PyAV 18.1 crashes on eight planes
                if any((np.abs(part.to_ndarray()) > QUIET).any() for part in packed):
                    return True
            if time.monotonic() > deadline:
                return True
    return False


def packets(container: av.container.InputContainer, *streams: av.stream.Stream) -> Iterator[av.Packet]:
    """Packets until the file ends or breaks: a broken end is an end (what was promised is counted elsewhere)."""
    with contextlib.suppress(FFmpegError):
        yield from container.demux(*streams)


class Pictures:
    """One picture stream, decoded in the order shown; `broken` counts what was damaged."""

    def __init__(self, path: str, strict: bool = False):
        """`strict`: a JPEG that is damaged gives no picture, instead of one that is filled up."""
        self.container = open_input(path)
        stream = picture_stream(self.container)
        if stream is None:
            raise InputError("{file} has no picture track; give a video or an image.")
        self.stream = stream
        self.codec = stream.codec_context
        told = {key.lower(): value for key, value in stream.metadata.items()}  # Matroska's own tags are in capitals
        if told.get("alpha_mode") == "1" and self.codec.name in ("vp8", "vp9"):
            # FFmpeg's own decoder leaves the alpha plane of WebM out, libvpx does not.
            self.codec = av.CodecContext.create("libvpx" if self.codec.name == "vp8" else "libvpx-vp9", "r")
        if self.codec.name == "mjpeg" and is_picture(self.container):
            smaller = {"lowres": str(halvings(stream.width, stream.height))}
            self.codec.options = smaller | ({"err_detect": "explode"} if strict else {})
        self.codec.thread_type = ThreadType.AUTO
        self.codec.thread_count = min(4, os.cpu_count() or 1)
        self.broken = 0

    def decode(self, packet: av.Packet) -> list[av.VideoFrame]:
        """The frames that one packet brings out, each at `time` in units of the stream's time base."""
        try:
            # The demuxer ends each stream with an empty packet; a codec of our own wants None for it.
            frames = (
                packet.decode()
                if self.codec is self.stream.codec_context
                else self.codec.decode(packet if packet.size else None)
            )
        except FFmpegError:
            self.broken += 1
            return []
        self.broken += sum(frame.is_corrupt for frame in frames)
        return frames

    def __iter__(self) -> Iterator[av.VideoFrame]:
        merge: FieldMerger | None = None
        for packet in packets(self.container, self.stream):
            for frame in self.decode(packet):
                if merge is None and frame.interlaced_frame:
                    merge = FieldMerger(frame, self.stream)
                yield from merge(frame) if merge else (frame,)
        if merge:
            yield from merge(None)


class FieldMerger:
    """Interlaced pictures to whole ones, one for one."""

    def __init__(self, frame: av.VideoFrame, stream: av.VideoStream):
        self.unit = stream.time_base
        self.graph = graph_for(frame, [("bwdif", "mode=send_frame:deint=interlaced")], self.unit)

    def __call__(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        self.graph.vpush(frame)
        with contextlib.suppress(av.error.BlockingIOError, av.error.EOFError):
            while True:
                merged = self.graph.vpull()
                scale = merged.time_base / self.unit  # the filter counts in halves
                merged.duration = round(merged.duration * scale)
                merged.pts = None if merged.pts is None else round(merged.pts * scale)
                yield merged


def graph_for(frame: av.VideoFrame, steps: list[tuple[str, str]], unit: object = "1/1000") -> av.filter.Graph:
    """A filter chain for frames like this one."""
    graph = av.filter.Graph()
    full = frame.color_range == ColorRange.JPEG or frame.format.is_rgb
    source = (
        f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base={unit}"
        f":colorspace={int(frame.colorspace)}:range={'pc' if full else 'tv'}"
    )
    nodes = [graph.add(name, arguments) for name, arguments in [("buffer", source), *steps]]
    graph.link_nodes(*nodes, graph.add("buffersink")).configure()
    return graph


def stamp(thing: av.Packet | av.VideoFrame) -> int | None:
    """Presentation time in units of the stream; the decoding time where a container has no other."""
    return thing.pts if thing.pts is not None else thing.dts


def moment(stream: av.VideoStream, first: av.VideoFrame | None) -> int:
    """When the first picture is shown, in units of the stream."""
    return first.pts if first and first.pts is not None else stream.start_time or 0
