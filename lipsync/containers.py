"""Inside a media file: which streams count, and their packets and pictures in order. Used in the child alone."""

import contextlib
import os
from collections.abc import Iterator

import av
from av.codec.context import ThreadType
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import ColorRange

from .errors import InputError

# Formats that name other files or addresses, read devices, or take any text for a picture.
REFUSED_FORMATS = {
    *("concat", "dash", "hls", "hds", "imf", "lavfi", "sdp", "rtp", "rtsp", "sap", "smoothstreaming"),
    *("tty", "bin", "xbin", "adf", "idf", "data", "rawvideo", "vobsub", "svg_pipe", "ffmetadata"),
    *("alsa", "oss", "fbdev", "kmsgrab", "x11grab", "video4linux2,v4l2", "webm_dash_manifest"),
}
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


def packets(container: av.container.InputContainer, *streams: av.stream.Stream) -> Iterator[av.Packet]:
    """Packets until the file ends or breaks: a broken end is an end (what was promised is counted elsewhere)."""
    with contextlib.suppress(FFmpegError):
        yield from container.demux(*streams)


class Pictures:
    """One picture stream, decoded in the order shown; `broken` counts what was damaged."""

    def __init__(self, path: str):
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
