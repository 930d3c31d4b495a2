"""What is measured: our models, folders of outputs, outside commands, and the floor and ceiling of every table."""

from __future__ import annotations

import hashlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict, replace
from pathlib import Path

from lipsync.checkpoints import registry
from lipsync.checkpoints.download import file_sha256
from lipsync.media.reader import FrameReader, VideoInfo, VideoWriter, probe, read_sound
from lipsync.media.timeline import SOUND_RATE, Spoken, plan, sound
from lipsync.messages import Message
from lipsync.options import OLD_NAMES, Options, current_options
from lipsync.progress import Monitor
from lipsync.version import VERSION

from .manifests import inside, read_toml
from .records import BenchmarkError, BenchmarkSet, Pair, System

TIERS = ("ours", "reproduced", "self-reported")
MOST_NAME = 80
# What is scored is as long as its voice.
LIKE_THE_ENGINE, AS_IT_IS = Options(if_audio_shorter="cut"), Options(if_audio_longer="cut", if_audio_shorter="keep")
# What an outside command is not told of: this program's own database, keys and passwords.
SECRET = ("PASSWORD", "SECRET", "TOKEN", "DATABASE_URL", "_KEY", "KEYS", "CREDENTIAL")


def fingerprint(*facts: object) -> str:
    """A sha256 over facts that JSON can hold."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


class ModelSystem(System):
    """One of our models with fixed options: `lipsync.sync`.

    name  default: the model's. Raises ModelError where its weights are not here.
    """

    def __init__(self, model: str | None = None, options: Options | None = None, name: str | None = None) -> None:
        fields = asdict(options or LIKE_THE_ENGINE)
        self.options = Options(**fields | ({"model": model} if model else {}))
        self.name = _name(name or self.options.model)
        self.weights_sha256 = registry.sha256(self.options.model)
        changed = {k: v for k, v in asdict(self.options).items() if v != getattr(LIKE_THE_ENGINE, k) and k != "model"}
        known = registry.cards()[self.options.model]
        self.card = {
            "model": known.name,
            "architecture": known.architecture,
            "licence": known.licence,
            "origin": known.origin,
            "weights_sha256": self.weights_sha256,
            "options": changed,
        }
        # Under the names of before 2026-12: a new name changes no output, so rows made before it stay this system's.
        before = {new: old for old, new in OLD_NAMES.items()}
        hashed = {before.get(k, k): v for k, v in asdict(self.options).items()}
        if not hashed["occlusion"]:  # as before there was a look for it
            del hashed["occlusion"]
        if known.mel_start_columns:
            hashed["mel_start_columns"] = known.mel_start_columns
        self.fingerprint = fingerprint("model", VERSION, self.weights_sha256, hashed)

    def make(self, pair: Pair, out: Path, monitor: Monitor | None = None) -> Path:
        from lipsync.pipeline import sync

        _check_out(out)
        monitor = monitor or Monitor()
        sync(
            pair.video.path,
            pair.voice.path,
            out,
            self.options,
            progress=lambda p: monitor.step(p.stage, p.done, p.total),
        )  # raises Cancelled
        return out


class FolderSystem(System):
    """A folder of finished outputs, ID.mp4 for each pair. What was changed since it was opened is refused.

    card  who made them and with what, for the store
    """

    def __init__(
        self, folder: str | os.PathLike, name: str, tier: str = "self-reported", card: dict[str, str] | None = None
    ) -> None:
        self.folder, self.name, self.tier, self.card = Path(folder), _name(name), _tier(tier), card or {}
        if not self.folder.is_dir():
            raise BenchmarkError("{folder} is no folder: name the folder of the outputs.", folder=self.folder)
        files = sorted(p for p in self.folder.glob("*.mp4") if p.is_file() and not p.is_symlink())
        self._sha256 = {p.name: file_sha256(p) for p in files}
        self.fingerprint = fingerprint("folder", self._sha256)

    def make(self, pair: Pair, out: Path, monitor: Monitor | None = None) -> Path:
        _check_out(out)
        (monitor or Monitor()).step("copy", 0, 1)
        try:
            source = inside(self.folder, f"{pair.id}.mp4")
        except ValueError as error:
            raise BenchmarkError(
                "{name} gave no usable video for {id}: {error}.", name=self.name, id=pair.id, error=error
            ) from error
        if source.name not in self._sha256 or not source.is_file():
            raise BenchmarkError(
                "{name} gave no video for {id}: there is no {file}.", name=self.name, id=pair.id, file=source.name
            )
        if file_sha256(source) != self._sha256[source.name]:
            raise BenchmarkError(
                "{file} of {name} was changed while it was being scored: open it again.",
                file=source.name,
                name=self.name,
            )
        with _appears(out) as part:
            shutil.copyfile(source, part)
        return out


class CommandSystem(System):
    """An outside program, started without a shell in a scratch folder, within limits; nothing of it stays.

    argv       words of the command; {video}, {audio} and {out} in them become paths. It must write {out}, an MP4
    timeout_s  wall time for a pair; memory_mb: resident, of all its processes; disk_mb: of all it writes
    files      weights and code that the command uses: their content is part of the fingerprint, as is `version`
    folder     where relative names of files in argv and `files` are looked for
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        timeout_s: float = 600,
        memory_mb: int = 8192,
        disk_mb: int = 2048,
        files: Sequence[str | os.PathLike] = (),
        version: str = "",
        tier: str = "reproduced",
        folder: str | os.PathLike = "",
    ) -> None:
        self.name, self.argv, self.tier = _name(name), tuple(_beside(word, folder) for word in argv), _tier(tier)
        self.timeout_s, self.memory_mb, self.disk_mb = timeout_s, memory_mb, disk_mb
        for wanted in ("{video}", "{audio}", "{out}"):
            if not any(wanted in word for word in self.argv[1:]):
                raise BenchmarkError(
                    "The command of {name} has no {place}: put it where the path belongs.", name=name, place=wanted
                )
        if any("\0" in word for word in self.argv):
            raise BenchmarkError("The command of {name} holds a null character.", name=name)
        if min(timeout_s, memory_mb, disk_mb) <= 0:
            raise BenchmarkError("The limits of {name} must be above 0.", name=name)
        program = shutil.which(self.argv[0])
        if program is None:
            raise BenchmarkError(
                "The command of {name} cannot be started: there is no program {program!r}.",
                name=name,
                program=self.argv[0],
            )
        used = [argv[0], *(word for word in argv[1:] if os.path.isfile(_beside(word, folder))), *files]
        try:
            sums = {
                str(word): file_sha256(Path(program if word is argv[0] else _beside(word, folder))) for word in used
            }
        except OSError as error:
            raise BenchmarkError(
                "{filename}, which {name} uses, cannot be read: {error}.",
                filename=error.filename,
                name=name,
                error=error.strerror,
            ) from error
        self.fingerprint = fingerprint("command", tuple(argv), sums, version)  # the same in every folder

    def make(self, pair: Pair, out: Path, monitor: Monitor | None = None) -> Path:
        _check_out(out)
        monitor = monitor or Monitor()
        monitor.check()
        folder = tempfile.mkdtemp(prefix=".command-", dir=out.parent)
        try:
            made = Path(folder, "out.mp4")
            paths = {"{video}": pair.video.path.resolve(), "{audio}": pair.voice.path.resolve(), "{out}": made}
            answer = self._run([_filled(word, paths) for word in self.argv], folder, monitor)
            self._check(answer, made, pair)
            made.replace(out)
        finally:
            _remove(folder)
        return out

    def _run(self, argv: list[str], folder: str, monitor: Monitor) -> dict:
        kept = {k: v for k, v in os.environ.items() if not any(word in k.upper() for word in SECRET)}
        request = {
            "argv": argv,
            "cwd": folder,
            "env": kept | {"TMPDIR": folder},
            "timeout_s": self.timeout_s,
            "memory_mb": self.memory_mb,
            "disk_mb": self.disk_mb,
        }
        began = time.monotonic()
        with subprocess.Popen(
            [sys.executable, "-m", "resynced.supervise"],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        ) as supervisor:
            try:
                supervisor.stdin.write(json.dumps(request).encode() + b"\n")
                supervisor.stdin.flush()
                while not select.select([supervisor.stdout], [], [], 0.2)[0]:
                    monitor.step(
                        "command", min(int(time.monotonic() - began), int(self.timeout_s)), int(self.timeout_s) + 1
                    )
            finally:  # it ends everything, then itself
                with suppress(OSError):
                    supervisor.stdin.close()
                said = supervisor.stdout.read()
        try:
            return json.loads(said)
        except ValueError as error:
            raise BenchmarkError(
                "The command of {name} could not be watched and was ended: try again.", name=self.name
            ) from error

    def _check(self, answer: dict, made: Path, pair: Pair) -> None:
        said = " ".join(answer["said"].split())[-300:]
        about = {"name": self.name, "pair": pair.id}
        limit_s, memory_mb, disk_mb = self.timeout_s, self.memory_mb, self.disk_mb
        talks = True  # what it said last may help
        sentence = {
            "time": Message("{name} had not finished {pair} after {limit:g} s and was ended.", **about, limit=limit_s),
            "memory": Message("{name} needed more than {most} MB for {pair} and was ended.", **about, most=memory_mb),
            "disk": Message("{name} wrote more than {most} MB for {pair} and was ended.", **about, most=disk_mb),
        }.get(answer["ended"])
        if answer["ended"] == "start":
            talks, sentence = False, Message("The command of {name} could not be started ({said}).", **about, said=said)
        if answer["ended"] == "stopped":
            talks, sentence = False, Message("{name} was stopped in {pair}.", **about)
        if sentence is None and answer["code"]:
            code = answer["code"]
            by = Message("signal {n}", n=-code) if code < 0 else Message("code {n}", n=code)
            sentence = Message("{name} failed on {pair} with {by}.", **about, by=by)
        if sentence is None and (made.is_symlink() or not made.is_file() or not made.stat().st_size):
            sentence = Message("{name} ended without an error, but wrote no video for {pair}.", **about)
        if sentence is None and not probe(made).has_video:
            talks, sentence = False, Message("{name} wrote a file without a picture for {pair}.", **about)
        if sentence and talks and said:
            raise BenchmarkError("{sentence} Its last words: {said}", sentence=sentence, said=said)
        if sentence:
            raise BenchmarkError(sentence)


def _beside(word: str | os.PathLike, folder: str | os.PathLike) -> str:
    """The whole path of a file that is named relative to a folder; any other word as it is."""
    path = os.path.join(folder, word)
    return os.path.abspath(path) if os.path.isfile(path) else str(word)


def load_command(path: str | os.PathLike) -> CommandSystem:
    """A CommandSystem from a TOML file with its arguments as keys. Raises BenchmarkError."""
    path = Path(path)
    facts = read_toml(path)
    kinds = {
        "name": str,
        "argv": list,
        "timeout_s": (int, float),
        "memory_mb": int,
        "disk_mb": int,
        "files": list,
        "version": str,
        "tier": str,
    }
    for key, value in facts.items():
        if key not in kinds:
            raise BenchmarkError(
                "{path}: there is no setting {key!r}: only {choices}.", path=path, key=key, choices=", ".join(kinds)
            )
        if not isinstance(value, kinds[key]) or isinstance(value, bool):
            raise BenchmarkError(
                "{path}: {key} has the wrong kind of value, {value!r}.", path=path, key=key, value=value
            )
    for key in ("name", "argv"):
        if not facts.get(key):
            raise BenchmarkError("{path}: it needs {key}.", path=path, key=key)
    if not all(isinstance(word, str) for word in [*facts["argv"], *facts.get("files", [])]):
        raise BenchmarkError("{path}: argv and files are lists of texts in quotes.", path=path)
    return CommandSystem(**facts, folder=path.parent)


def open_system(word: str) -> System:
    """The system that is meant by a word.

    word  MODEL, or MODEL:detail=false,pad=0.1 with options; submission:NAME of a registered one; a folder of outputs;
          a TOML block of a command
    Raises BenchmarkError, InputError, ModelError.
    """
    from .submissions import registered

    path, (name, colon, rest) = Path(word), word.partition(":")
    if name == "submission" and colon:
        return registered(rest).system()
    if path.suffix == ".toml":
        return load_command(path)
    if path.is_dir():
        return FolderSystem(path, path.resolve().name)
    if len(path.parts) > 1:
        raise BenchmarkError(
            "There is no folder {word}: name a model, a folder of outputs, or a .toml of a command.", word=word
        )
    options = _options(rest) if colon else {}
    return ModelSystem(name, replace(LIKE_THE_ENGINE, **options), f"{name} ({rest})" if rest else None)


def _options(said: str) -> dict[str, object]:
    """KEY=VALUE,KEY=VALUE of `lipsync.options.Options`, as its fields take them."""
    from pydantic import TypeAdapter, ValidationError

    found: dict[str, object] = {}
    for part in said.split(","):
        key, equals, value = part.strip().partition("=")
        if not equals or key == "model" or key not in Options.__dataclass_fields__ | OLD_NAMES:
            raise BenchmarkError(
                "{part!r} is no option of a model: write KEY=VALUE, as in detail=false,pad=0.1.", part=part[:80]
            )
        found[key] = value
    found = current_options(found)
    try:
        whole = TypeAdapter(Options).validate_python(found)
    except ValidationError as error:
        first = error.errors()[0]
        raise BenchmarkError(
            "{option}={value} cannot be used: {why}.",
            option=first["loc"][0],
            value=first["input"],
            why=first["msg"].lower(),
        ) from error
    return {key: getattr(whole, key) for key in found}


class Untouched(System):
    """The floor: the clip with the pair's voice laid over it, lengths met as our engine meets them."""

    name = "untouched"

    def __init__(self) -> None:
        self.fingerprint = fingerprint("untouched", VERSION)

    def make(self, pair: Pair, out: Path, monitor: Monitor | None = None) -> Path:
        return _lay(pair.video.path, pair.voice.path, out, monitor or Monitor())


class RealClip(System):
    """The ceiling: the clip that really says the voice's words, where the set has one."""

    name = "real"

    def __init__(self) -> None:
        self.fingerprint = fingerprint("real", VERSION)

    def make(self, pair: Pair, out: Path, monitor: Monitor | None = None) -> Path:
        if pair.reference is None:
            raise BenchmarkError(
                "Nobody was filmed saying the words of {id}: it has no really synced clip.", id=pair.id
            )
        return _lay(pair.reference, pair.reference, out, monitor or Monitor(), AS_IT_IS)


def with_limits(systems: Sequence[System], chosen: BenchmarkSet) -> list[System]:
    """The systems, and the two rows that are in every table: untouched, and real where the set has such clips."""
    real = [RealClip()] if any(pair.reference for pair in chosen.pairs) else []
    return [*systems, Untouched(), *real]


def _lay(video: Path, voice: Path, out: Path, monitor: Monitor, options: Options = LIKE_THE_ENGINE) -> Path:
    """A video with a voice and no change of its picture."""
    _check_out(out)
    info = probe(video)
    if not info.has_video:
        raise BenchmarkError("{file} holds no picture.", file=video.name)
    seconds = len(read_sound(voice)[0]) / 16_000
    try:
        _write(info, info.frames, voice, seconds, out, monitor, options)
    except _Short as short:  # the file has fewer frames than it promises
        if not short.frames:
            raise BenchmarkError("No frame of {file} could be read.", file=video.name) from short
        _write(info, short.frames, voice, seconds, out, monitor, options)
    return out


class _Short(Exception):
    def __init__(self, frames: int) -> None:
        self.frames = frames


def _write(
    info: VideoInfo, frames: int, voice: Path, seconds: float, out: Path, monitor: Monitor, options: Options
) -> None:
    """Raises _Short with the number of frames where there are fewer."""
    timeline = plan(frames, info.fps, seconds, options)
    shown, source, total = None, -1, len(timeline.indices)
    with (
        closing(sound([Spoken(timeline, [voice], options)], info.fps, None)) as pieces,
        FrameReader(info, timeline.segments()) as reader,
        VideoWriter(out, info.width, info.height, info.fps, SOUND_RATE, crf=options.crf) as writer,
    ):
        for count, wanted in enumerate(timeline.indices.tolist()):
            monitor.step("copy", count, total)
            if wanted != source:
                shown = next(reader, None)
                if shown is None:
                    raise _Short(source + 1 if frames == info.frames else 0)
                source = wanted
            writer.write(shown)
            piece = next(pieces, None) if writer.samples < writer.frames / info.fps * SOUND_RATE else None
            if piece is not None:  # just ahead of the picture, as a player wants it
                writer.write_sound(piece)
        for piece in pieces:
            writer.write_sound(piece)


class _appears:
    """A file that comes to its place whole or not at all."""

    def __init__(self, out: Path) -> None:
        self._out, self._part = out, out.with_name(f".{out.name}.part")

    def __enter__(self) -> Path:
        return self._part

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._part.replace(self._out)
        self._part.unlink(missing_ok=True)


def _check_out(out: Path) -> None:
    if out.suffix != ".mp4" or out.exists():
        raise BenchmarkError("{out} is no new .mp4 file: give a name at which there is nothing yet.", out=out.name)


def _filled(word: str, paths: dict[str, Path]) -> str:
    for place, path in paths.items():
        word = word.replace(place, str(path))
    return word


def _remove(folder: str) -> None:
    """A scratch folder, also where the command took away the right to look into it."""
    for place, folders, _ in os.walk(folder):
        for name in [place, *(os.path.join(place, f) for f in folders)]:
            if not os.path.islink(name):
                with suppress(OSError):
                    os.chmod(name, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _name(name: str) -> str:
    if not name.strip() or len(name) > MOST_NAME or not name.isprintable():
        raise BenchmarkError(
            "{name!r} is no name for a system: 1 to {most} letters on one line.",
            name=name[:MOST_NAME],
            most=MOST_NAME,
        )
    return name.strip()


def _tier(tier: str) -> str:
    if tier not in TIERS:
        raise BenchmarkError("There is no tier {tier!r}: one of {choices}.", tier=tier, choices=", ".join(TIERS))
    return tier
