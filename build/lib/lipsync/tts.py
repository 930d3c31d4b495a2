"""Typed words to a voice, by espeak-ng where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from lipsync.errors import InputError

MAX_LETTERS = 600
LANGUAGES = {"English": "en-us", "English (British)": "en-gb", "한국어": "ko", "Español": "es", "Deutsch": "de",
             "Français": "fr"}  # fmt: skip
KINDS = {"low": "", "high": "+f3"}


def can_speak() -> bool:
    """Is espeak-ng installed?"""
    return shutil.which("espeak-ng") is not None


def speak(words: str, language: str, kind: str, out: Path) -> Path:
    """Say words into a WAV file.

    words     up to MAX_LETTERS letters
    language  a value of LANGUAGES; kind: a key of KINDS
    Raises InputError.
    """
    words = words.strip()
    if not words:
        raise InputError("There are no words to speak yet: type some.")
    if len(words) > MAX_LETTERS:
        raise InputError(f"That is {len(words)} letters; up to {MAX_LETTERS} can be spoken.")
    if language not in LANGUAGES.values() or kind not in KINDS:
        raise InputError(f"There is no voice {language!r}, {kind!r} here.")
    command = ["espeak-ng", "-v", language + KINDS[kind], "-s", "150", "-w", str(out), "--stdin"]
    try:
        subprocess.run(command, input=words.encode(), check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(f"espeak-ng could not speak these words ({error}).") from error
    return out
