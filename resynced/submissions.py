"""Submissions: a folder or zip of outputs named by pair id, with a card; checked whole before anything is scored."""

from __future__ import annotations

import functools
import json
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from lipsync.checkpoints.download import file_sha256
from lipsync.errors import InputError
from lipsync.media.reader import FrameReader, VideoInfo, probe, read_sound
from lipsync.messages import Message
from lipsync.progress import Monitor

from .manifests import ID, read_toml
from .published_rules import capped
from .records import BenchmarkError, BenchmarkSet, Pair
from .scoring import pair_file
from .store import data_folder
from .systems import MOST_NAME, FolderSystem

CODECS = ("h264", "hevc", "av1", "vp9", "vp8", "mpeg4")
SLACK_S = 0.25  # a result may be so much longer or shorter than its voice: mel windows, padding of the sound
RATE_SLACK = 0.05  # frames a second
BYTES, BYTES_PER_SECOND = 32 << 20, 8 << 20  # the most that one video may have
MOST_RATIO = 20  # of unpacking: videos hardly shrink
MOST_FAULTS = 1000
MOST_TEXT = 2000
IGNORED = re.compile(r"(^|/)(__MACOSX/|\.DS_Store$|Thumbs\.db$|desktop\.ini$)")
HARMLESS = re.compile(r"[A-Za-z0-9][\w .-]{0,99}")
MOST_DIRECTORY = 64 << 20  # bytes of a zip's list of files
CARD = "card.toml"  # may lie beside the videos


@dataclass(frozen=True)
class Card:
    """Who made a submission, and with what."""

    name: str
    authors: str
    link: str
    licence: str
    training_data: str
    hardware: str


class SubmissionRefused(BenchmarkError):
    """A submission with faults; `faults` is the whole list."""

    def __init__(self, faults: list[str]) -> None:
        more = [Message("And {n} more.", n=len(faults) - 3)] if len(faults) > 3 else []
        some = Message.join(" ", [*faults[:3], *more])
        super().__init__(Message("The submission was not taken: {faults}", faults=some))
        self.faults = faults


def read_card(path: Path) -> Card:
    """A card from a TOML file with the fields of Card as texts. Raises SubmissionRefused with all faults."""
    facts, faults = read_toml(path), []
    known = tuple(Card.__dataclass_fields__)
    for key in known:
        value = facts.get(key)
        if key == "authors" and isinstance(value, list) and all(isinstance(v, str) for v in value):
            value = facts[key] = ", ".join(value)
        if value is None:
            faults.append(Message("The card has no {key}.", key=key))
        elif not isinstance(value, str) or not value.strip():
            faults.append(Message("The card's {key} must be a text in quotes.", key=key))
        elif len(value) > (MOST_NAME if key == "name" else MOST_TEXT):
            faults.append(Message("The card's {key} has {count} letters: shorten it.", key=key, count=len(value)))
        elif key == "name" and not value.isprintable():
            faults.append(Message("The card's name must be one line of plain letters."))
        elif key == "link" and not _is_link(value):
            faults.append(
                Message("The card's link {link!r} is no address: it begins with https:// or http://.", link=value[:100])
            )
    faults += [
        Message("The card has a field {key!r} that is not known: only {choices}.", key=key, choices=", ".join(known))
        for key in facts.keys() - known
    ]
    if faults:
        raise SubmissionRefused(faults)
    return Card(**{key: facts[key].strip() for key in known})


def check(source: Path, benchmark: BenchmarkSet, card: Path, monitor: Monitor | None = None) -> list[str]:
    """Everything that is wrong with a submission, a sentence each; none: it can be scored.

    source  a folder, or a zip, of ID.mp4 for each pair; card: a TOML file, read by `read_card`
    Nothing of it is kept. Raises Cancelled, and BenchmarkError where the source cannot be read at all.
    """
    with tempfile.TemporaryDirectory(prefix="submission-") as scratch:
        return _check(Path(source), benchmark, Path(card), Path(scratch), monitor or Monitor())[1]


def open_submission(
    source: Path, benchmark: BenchmarkSet, card: Path, folder: Path, monitor: Monitor | None = None
) -> tuple[FolderSystem, Card]:
    """A submission without faults as a System, self-reported, and its card.

    folder  where its videos are kept: made here, and not there yet; nothing is left of a submission that is refused
    Raises SubmissionRefused with the whole list, BenchmarkError, Cancelled.
    """
    source, folder = Path(source), Path(folder)
    if folder.exists():
        raise BenchmarkError("{folder} is there already: a submission gets a folder of its own.", folder=folder.name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".submission-", dir=folder.parent) as scratch:
        place, faults = _check(source, benchmark, Path(card), Path(scratch), monitor or Monitor())
        if faults:
            raise SubmissionRefused(faults)
        kept = Path(scratch, "kept")
        kept.mkdir()
        for pair in benchmark.pairs:
            shutil.copyfile(place / f"{pair.id}.mp4", kept / f"{pair.id}.mp4", follow_symlinks=False)
        kept.rename(folder)
    said = read_card(Path(card))
    return FolderSystem(folder, said.name), said


def _check(
    source: Path, benchmark: BenchmarkSet, card: Path, scratch: Path, monitor: Monitor
) -> tuple[Path, list[str]]:
    """The folder of its videos, and the faults."""
    faults: list[str] = []
    try:
        read_card(card)
    except SubmissionRefused as refused:
        faults += refused.faults
    except BenchmarkError as error:
        faults.append(Message(error.message, path=card.name))
    if source.is_dir():
        place = source
    elif source.is_file():
        place = scratch / "unpacked"
        place.mkdir()
        faults += list(_unpack(source, benchmark, place, monitor))
    else:
        raise BenchmarkError(
            "{file} is neither a folder nor a zip: give one with an ID.mp4 for each pair.", file=source.name
        )
    said = {name for name in (_video_named(fault) for fault in faults) if name}
    faults += [f for f in _names(place, benchmark) if _video_named(f) not in said]
    seen: dict[str, str] = {}
    for done, pair in enumerate(benchmark.pairs):
        monitor.step("check", done, len(benchmark.pairs))
        video = place / f"{pair.id}.mp4"
        if video.is_file() and not video.is_symlink():
            faults += [Message("{file}: {fault}", file=video.name, fault=f) for f in _video(video, pair, monitor)]
            first = seen.setdefault(file_sha256(video), video.name)
            if first != video.name:
                faults.append(Message("{file}: it is the same file as {first}.", file=video.name, first=first))
    monitor.step("check", len(benchmark.pairs), max(len(benchmark.pairs), 1))
    if len(faults) > MOST_FAULTS:
        faults[MOST_FAULTS:] = [Message("And {n} more faults.", n=len(faults) - MOST_FAULTS)]
    return place, faults


def _video_named(fault: str) -> str:
    return fault.partition(":")[0] if ".mp4:" in fault else ""


# --- registered -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Registered:
    """An accepted submission, which `python -m resynced run --system submission:NAME` scores.

    name  of its folder; set_name, set_sha256: of the set that it was made for
    """

    name: str
    folder: Path
    card: Card
    set_name: str
    set_sha256: str

    def system(self) -> FolderSystem:
        """Its outputs as a system, with its card."""
        return FolderSystem(self.folder / "videos", self.card.name, card=asdict(self.card))


def register(
    source: Path, benchmark: BenchmarkSet, card: Path, monitor: Monitor | None = None, root: Path | None = None
) -> Registered:
    """Check a submission whole and keep it. The same outputs with the same name are kept once.

    root  folder of all submissions (default: in the data folder)
    Raises SubmissionRefused with the whole list, BenchmarkError, Cancelled; then nothing of it is kept.
    """
    root = root or data_folder() / "submissions"
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".coming-", dir=root) as scratch:
        coming = Path(scratch, "whole")
        coming.mkdir()
        system, said = open_submission(source, benchmark, card, coming / "videos", monitor)
        name = f"{pair_file(said.name)}-{system.fingerprint[:8]}"
        facts = {"card": asdict(said), "set_name": benchmark.name, "set_sha256": benchmark.sha256}
        (coming / "submission.json").write_text(json.dumps(facts, ensure_ascii=False, indent=1), "utf-8")
        if not (root / name).exists():
            coming.rename(root / name)
    return registered(name, root)


def registered(name: str, root: Path | None = None) -> Registered:
    """An accepted submission by its name. Raises BenchmarkError where there is none."""
    folder = (root or data_folder() / "submissions") / name
    if not ID.fullmatch(name) or not (folder / "submission.json").is_file():
        raise BenchmarkError(
            "There is no submission {name!r} here: `python -m resynced submit` adds one.", name=name[:100]
        )
    facts = json.loads((folder / "submission.json").read_text("utf-8"))
    return Registered(name, folder, Card(**facts["card"]), facts["set_name"], facts["set_sha256"])


def all_registered(root: Path | None = None) -> list[Registered]:
    """Every accepted submission, by name."""
    root = root or data_folder() / "submissions"
    return [registered(p.parent.name, root) for p in sorted(root.glob("[!.]*/submission.json"))]


# --- names ------------------------------------------------------------------------------------------------------------


def _names(place: Path, benchmark: BenchmarkSet) -> Iterator[str]:
    """Faults of what is there and what is not."""
    wanted = {f"{pair.id}.mp4" for pair in benchmark.pairs}
    found = {p.name: p for p in place.iterdir()}
    alike = {name.lower().rpartition(".")[0]: name for name in sorted(found) if name not in wanted}
    for name in sorted(wanted - found.keys()):
        near = alike.pop(name.lower().rpartition(".")[0], None)
        found.pop(near, None)
        if near:
            yield Message(
                "{name}: it is not there, but {near} is: give it this name, as an MP4.", name=name, near=near[:100]
            )
        else:
            yield Message("{name}: it is not there.", name=name)
    for name, path in sorted(found.items()):
        if name not in wanted:
            if name != CARD and not IGNORED.search(name):
                yield Message(
                    "{name} belongs to no pair of {benchmark}: outputs are named ID.mp4.",
                    name=_plain(name),
                    benchmark=benchmark.name,
                )
        elif path.is_symlink():
            yield Message("{name}: it is a link, not a video.", name=name)
        elif not path.is_file():
            yield Message("{name}: it is no ordinary file.", name=name)


def _plain(name: str) -> str:
    """A foreign name that can be shown."""
    return "".join(c if c.isprintable() else "?" for c in name)[:100]


def _is_link(text: str) -> bool:
    with suppress(ValueError):
        parts = urlsplit(text.strip())
        return parts.scheme in ("http", "https") and "." in (parts.hostname or "") and text.isprintable()
    return False


# --- videos -----------------------------------------------------------------------------------------------------------


def _most_bytes(pair: Pair) -> int:
    return BYTES + int(BYTES_PER_SECOND * _seconds(pair)[1])


@functools.lru_cache(maxsize=4096)
def _seconds(pair: Pair) -> tuple[float, float]:
    """The shortest and the longest that a result may be: as long as the voice, or as the clip where that is longer."""
    voice, clip = len(read_sound(pair.voice.path)[0]) / 16_000, _clip(pair.video.path).duration_s
    return voice, max(voice, clip)


_clip = functools.lru_cache(maxsize=4096)(probe)


def _video(path: Path, pair: Pair, monitor: Monitor) -> Iterator[str]:
    """Faults of one output; it is decoded to its end."""
    shortest, longest = _seconds(pair)
    if path.stat().st_size > BYTES + BYTES_PER_SECOND * longest:
        yield Message(
            "it has {megabytes} MB, far more than {longest:.1f} s of video need.",
            megabytes=path.stat().st_size >> 20,
            longest=longest,
        )
        return
    try:
        info = probe(path)
    except InputError as error:
        yield Message("it cannot be read: {error}", error=error)
        return
    if not info.has_video or info.is_still:
        yield Message("it holds no moving picture.")
        return
    clip = _clip(pair.video.path)
    if not info.has_audio:
        yield Message("it has no sound: an output carries the voice that it was made for.")
    if info.codec not in CODECS:
        yield Message(
            "it is coded as {codec}: give H.264, or one of {choices}.", codec=info.codec, choices=", ".join(CODECS[1:])
        )
    if (info.height, info.width) not in _sizes(clip):
        yield (
            Message(
                "its pictures are {width} × {height}, those of the clip {clip_width} × {clip_height}: give the whole "
                "picture, in its size.",
                width=info.width,
                height=info.height,
                clip_width=clip.width,
                clip_height=clip.height,
            )
        )
    if min(abs(info.fps - clip.fps), abs(info.fps - 25)) > Fraction(str(RATE_SLACK)):
        yield Message(
            "it has {fps:.3f} frames a second, the clip {clip_fps:.3f}: keep those, or give 25.",
            fps=float(info.fps),
            clip_fps=float(clip.fps),
        )
    if not shortest - SLACK_S <= info.duration_s <= longest + SLACK_S:
        span = Message("{shortest:.2f} s", shortest=shortest)
        if longest - shortest > 0.01:
            span = Message("{shortest:.2f} s to {longest:.2f} s", shortest=shortest, longest=longest)
        yield Message("it lasts {seconds:.2f} s; its voice and clip need {span}.", seconds=info.duration_s, span=span)
        return
    yield from _frames(info, monitor)


def _sizes(clip: VideoInfo) -> set[tuple[int, int]]:
    """The sizes that an output may have: the clip's, or its shorter side 720; odd ones rounded either way."""
    sizes = set()
    for height, width in ((clip.height, clip.width), capped(clip.height, clip.width)):
        sizes |= {
            (h, w)
            for h in (height, height + height % 2, height - height % 2)
            for w in (width, width + width % 2, width - width % 2)
        }
    return sizes


def _frames(info: VideoInfo, monitor: Monitor) -> Iterator[str]:
    count = 0
    try:
        with FrameReader(info) as reader:
            for _ in reader:
                count += 1
                monitor.step("frames", min(count, info.frames), max(info.frames, count))
    except InputError as error:
        yield Message("it cannot be read to its end: {error}", error=error)
        return
    if count < info.frames:
        yield Message(
            "it promises {frames} frames and holds {count}: it is cut short.", frames=info.frames, count=count
        )


# --- zips -------------------------------------------------------------------------------------------------------------


def _unpack(source: Path, benchmark: BenchmarkSet, place: Path, monitor: Monitor) -> Iterator[str]:
    """Write the videos of a zip into a folder, each under its last name, and yield what is wrong with the rest.

    Nothing else is written, and of no file more than a video of its pair may have.
    """
    wanted = {f"{pair.id}.mp4": pair for pair in benchmark.pairs}
    with _archive(source) as archive:
        entries = [e for e in archive.infolist() if not e.is_dir() and not IGNORED.search(e.filename)]
        if len(entries) > 2 * len(wanted) + 100:
            raise BenchmarkError(
                "{file} holds {files} files for {pairs} pairs: it was not unpacked.",
                file=source.name,
                files=len(entries),
                pairs=len(wanted),
            )
        tops = {PurePosixPath(e.filename).parts[0] for e in entries if "/" in e.filename}
        below = f"{tops.pop()}/" if len(tops) == 1 and all("/" in e.filename for e in entries) else ""
        for done, entry in enumerate(entries):
            monitor.step("unpack", done, len(entries))
            name, shown = entry.filename.removeprefix(below), _plain(entry.filename)
            if (
                ".." in PurePosixPath(entry.filename).parts
                or entry.filename.startswith("/")
                or "\\" in entry.orig_filename
            ):
                yield Message("The archive's {shown} leads out of its folder: it was left out.", shown=shown)
            elif stat.S_ISLNK(entry.external_attr >> 16):
                yield Message("The archive's {shown} is a link: it was left out.", shown=shown)
            elif "/" in name:
                yield Message("The archive's {shown} lies in a sub-folder: all videos lie side by side.", shown=shown)
            elif name == CARD:
                continue
            elif name not in wanted and HARMLESS.fullmatch(name):
                (place / name).touch()  # `_names` tells what it was perhaps meant to be
            elif name not in wanted:
                yield Message("The archive's {shown} has a name that no pair has.", shown=shown)
            elif (place / name).exists():
                yield Message("{name}: the archive holds it twice.", name=name)
            else:
                found = _extract(archive, entry, place / name, wanted[name])
                yield from (Message("{file}: {fault}", file=name, fault=fault) for fault in found)


@contextmanager
def _archive(source: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with source.open("rb") as file:  # all of the directory is read into memory, whatever it says
            end = zipfile._EndRecData(file)
        if end and end[zipfile._ECD_SIZE] > MOST_DIRECTORY:
            raise BenchmarkError(
                "{file} lists far more files than any set has pairs: it was not unpacked.", file=source.name
            )
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise BenchmarkError(
            "{file} is no zip, or a damaged one ({error}): pack it again.", file=source.name, error=error
        ) from error
    with archive:
        yield archive


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, pair: Pair) -> Iterator[str]:
    most = _most_bytes(pair)
    if entry.flag_bits & 1:
        yield Message("it is locked with a password.")
        return
    if entry.file_size > max(MOST_RATIO * entry.compress_size, 1 << 20) or entry.file_size > most:
        yield Message(
            "it would unpack {packed} bytes to {unpacked}: it was left out.",
            packed=entry.compress_size,
            unpacked=entry.file_size,
        )
        return
    left = entry.file_size
    try:
        with archive.open(entry) as packed, target.open("xb") as file:
            while block := packed.read(1 << 20):
                left -= len(block)
                if left < 0:
                    raise zipfile.BadZipFile("more bytes than it says")
                file.write(block)
        if left:
            raise zipfile.BadZipFile("fewer bytes than it says")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        target.unlink(missing_ok=True)
        yield Message("it cannot be unpacked ({error}).", error=error)
