"""Inside a media file: which streams count, and their packets and pictures in order. Used in the child alone."""

import contextlib
import mmap
import os
import re
import time
from collections.abc import Iterator
from functools import cache

import av
import numpy as np
from av.codec import Codec
from av.codec.codec import UnknownCodecError
from av.codec.context import ThreadType
from av.error import FFmpegError, InvalidDataError
from av.stream import Disposition
from av.video.reformatter import ColorRange

from ..errors import InputError
from ..messages import Message
from .stills import halvings, is_picture


def words_of(text: str) -> set[str]:
    return set(text.split())


# What people have, and nothing else that the library can read: no format that names other files or addresses, reads
# devices, takes any text for a picture, or lived on one console of 1995 and was hardly looked at since.
FORMATS = words_of("""
    mov mp4 m4a 3gp 3g2 mj2 matroska webm avi mpegts mpeg flv asf mxf ogg dv nut ivf h264 hevc vvc av1 obu m4v
    mpegvideo mjpeg yuv4mpegpipe gif apng wav w64 aiff au caf mp3 aac loas ac3 eac3 dts truehd flac wv ape tta gsm amr
    amrnb amrwb image2 png_pipe jpeg_pipe webp_pipe bmp_pipe tiff_pipe gif_pipe j2k_pipe jpegxl_pipe ppm_pipe pgm_pipe
    pbm_pipe pam_pipe""")
CODECS = words_of("""
    h264 hevc vvc av1 vp8 vp9 vp3 vp6 vp6a vp6f theora dirac mpeg1video mpeg2video mpeg4 msmpeg4v1 msmpeg4v2 msmpeg4v3
    h261 h263 h263i h263p flv1 flashsv flashsv2 wmv1 wmv2 wmv3 vc1 prores dnxhd cfhd dvvideo ffv1 ffvhuff huffyuv
    utvideo magicyuv hap rawvideo v210 qtrle cinepak svq1 svq3 msrle msvideo1 mjpeg mjpegb png apng gif bmp tiff webp
    jpeg2000 jpegxl targa ppm pgm pgmyuv pbm pam aac aac_latm mp1 mp2 mp3 ac3 eac3 dts truehd mlp opus vorbis speex flac
    alac wavpack ape tta amr_nb amr_wb wmav1 wmav2 wmapro wmavoice wmalossless gsm gsm_ms ilbc nellymoser s302m adpcm_ms
    adpcm_ima_wav adpcm_ima_qt adpcm_swf adpcm_yamaha adpcm_g722 adpcm_g726 adpcm_g726le pcm_alaw pcm_mulaw pcm_bluray
    pcm_dvd pcm_s8 pcm_u8 pcm_s8_planar pcm_s16le_planar pcm_s16be_planar pcm_s24le_planar pcm_s32le_planar""")
CODECS |= {f"pcm_{kind}{bits}{order}" for kind in "suf" for bits in (16, 24, 32, 64) for order in ("le", "be")}
PROTECTION = re.compile(rb"sinf.{4}frma", re.DOTALL)  # of a sample entry: which coding lies below the encryption
PEEK_S = 20.0  # a track that is silent for so much of decoding is taken as it is
QUIET = 1e-3  # peak below which a track is silent, full scale 1
TILED_BRANDS = {"heic", "heix", "mif1", "avif"}


def words(error: BaseException) -> str:
    """The library's own words, without its error number and without the path; ours for what it says most."""
    if isinstance(error, InvalidDataError):
        return Message("damaged, or of an unknown kind")
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip(". ")


def open_input(path: str) -> av.container.InputContainer:
    """Open a local file, and nothing that the file may point to.

    raises  InputError; `{file}` in any sentence of the child stands for the name that the user gave
    """
    # image2 takes JPEG files by their name; without patterns it reads that one file and no other.
    options = {"protocol_whitelist": "file", "pattern_type": "none"}
    options |= {"format_whitelist": ",".join(sorted(FORMATS)), "codec_whitelist": ",".join(decoders())}
    try:
        return av.open(f"file:{path}", container_options=options, metadata_errors="replace")
    except MemoryError:
        raise
    except (FFmpegError, OSError, ValueError) as error:
        raise InputError(
            "{file} cannot be read as a video, a picture or a sound ({error}).", error=words(error)
        ) from error


@cache
def decoders() -> list[str]:
    """The library's decoders of CODECS; a codec may have several."""
    found = []
    for name in sorted(av.codecs_available):
        with contextlib.suppress(UnknownCodecError):  # an encoder alone
            if Codec(name, "r").canonical_name in CODECS:
                found.append(name)
    return found


def is_taken(stream: av.stream.Stream) -> bool:
    """Can it be decoded here?"""
    return bool(stream.codec_context) and stream.codec_context.codec.canonical_name in CODECS


def picture_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The stream to look at: the largest one that is not cover art."""
    pictures = [s for s in container.streams.video if s.codec_context and not s.disposition & Disposition.attached_pic]
    streams = [s for s in pictures if is_taken(s)]
    if pictures and not streams:
        codec = pictures[0].codec_context.codec.canonical_name
        raise InputError(
            "The pictures of {file} are coded as {codec}, which is not taken; save it as MP4 with H.264.", codec=codec
        )
    if len(streams) > 1 and container.metadata.get("major_brand") in TILED_BRANDS:
        raise InputError("{file} is a photo stored in tiles, which is not supported; save it as JPEG or PNG.")
    return max(streams, key=lambda s: s.width * s.height, default=None)


def sound_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    """The stream to hear: the library's choice among those that it can decode."""
    streams = [s for s in container.streams.audio if is_taken(s) and s.codec_context.sample_rate]
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
            raise InputError(
                "{file} has no sound track number {track} that can be decoded: it has {count}.",
                track=track,
                count=len(tracks),
            )
        return tracks[track - 1], []
    if usual is None or len(tracks) == 1:
        return usual, []
    number, many = tracks.index(usual) + 1, len(tracks)
    if not sounds(path, usual.index):
        usable = [s for s in tracks if s is not usual and s.codec_context and s.codec_context.sample_rate]
        heard = next((s for s in usable if sounds(path, s.index)), None)
        if heard is not None:
            instead = tracks.index(heard) + 1
            note = Message(
                "Number {number} of its {many} sound tracks is silent; number {instead} was taken instead.",
                number=number,
                many=many,
                instead=instead,
            )
            return heard, [note]
    return usual, [Message("It has {many} sound tracks, of which number {number} was taken.", many=many, number=number)]


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
        self.starved = False  # some of it would have needed more memory than there is

    def decode(self, packet: av.Packet) -> list[av.VideoFrame]:
        """The frames that one packet brings out, each at `time` in units of the stream's time base."""
        try:
            # The demuxer ends each stream with an empty packet; a codec of our own wants None for it.
            frames = (
                packet.decode()
                if self.codec is self.stream.codec_context
                else self.codec.decode(packet if packet.size else None)
            )
        except FFmpegError as error:
            self.broken += 1
            self.starved |= isinstance(error, MemoryError)
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
