"""Studies as the page has them: store and desk opened at first use, digits of the sound check, results kept a while."""

from __future__ import annotations

import hashlib
import hmac
import io
import math
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from sqlalchemy import func, select

from lipsync import tts

if TYPE_CHECKING:
    from resynced.ballots import Stimulus
    from resynced.desk import StudyDesk
    from resynced.store import Store
    from resynced.study_results import Agreement, Results, Votes

DIGITS = 3  # spoken in a sound check
GAP_S = 0.35  # between digits
RATE = 24_000
CHECK_S = 600  # a sound check is good for so long
AGREEMENT_S = 15.0
RESULTS_S = 60  # results of a running study are computed again after so long at the soonest
DRAWS = 500
WORDS = {
    "en": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "ko": ("영", "일", "이", "삼", "사", "오", "육", "칠", "팔", "구"),
}
VOICES = {"en": "en-us", "ko": "ko"}


class Studies:
    """What the pages of raters and of the operator share.

    store  opens the store, and gives the same one again; may raise BenchmarkError
    """

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store
        self._lock, self._computing, self._reading = threading.Lock(), threading.Lock(), threading.Lock()
        self._desk: StudyDesk | None = None
        self._results: dict[str, tuple[int, float, Results]] = {}
        self._votes: dict[str, tuple[float, Votes]] = {}
        self._indexes: dict[str, tuple[float, dict[Stimulus, Path]]] = {}
        self._making: dict[str, subprocess.Popen] = {}
        self._spoken = secrets.token_bytes(32)

    @property
    def data(self) -> Path:
        """The data folder."""
        from resynced.store import data_folder

        return data_folder()

    @property
    def store(self) -> Store:
        return self._store()

    @property
    def desk(self) -> StudyDesk:
        with self._lock:
            if self._desk is None:
                from resynced.desk import open_desk

                self._desk = open_desk(self._store(), self.data)
            return self._desk

    def close(self) -> None:
        """End the making of videos; it can be begun again."""
        for process in self._making.values():
            if process.poll() is None:
                process.terminate()

    # Videos

    def video(self, study: str, name: str) -> Path:
        """The file behind a name of the desk. Raises StudyError."""
        from resynced.stimuli import INDEX, read_index
        from resynced.studies import StudyError
        from resynced.study_media import media_folder

        stimulus, folder = self.desk.video(name), media_folder(self.data, study)
        try:
            changed = (folder / INDEX).stat().st_mtime
        except OSError as error:
            raise StudyError("There is no such video.") from error
        known = self._indexes.get(study)
        if known is None or known[0] != changed:
            known = self._indexes[study] = (changed, read_index(folder))
        path = known[1].get(stimulus)
        if path is None or not path.is_file():
            raise StudyError("There is no such video.")
        return path

    def prepare(self, study: str) -> None:
        """Make a study's missing videos, in a process of its own."""
        if not self.preparing(study):
            command = [sys.executable, "-m", "resynced", "study", "prepare", study]
            folder = self.data / "studies"
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / f"{study}.log").open("wb") as log:
                self._making[study] = subprocess.Popen(
                    command, cwd=Path(__file__).parents[1], stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )

    def preparing(self, study: str) -> bool:
        """Are its videos being made?"""
        return study in self._making and self._making[study].poll() is None

    def trouble(self, study: str) -> str:
        """The last words of a making that failed, or ""."""
        if study not in self._making or not self._making[study].poll():
            return ""
        said = (self.data / "studies" / f"{study}.log").read_text(errors="replace").strip().splitlines() or [""]
        return said[-1].replace(str(self.data), "…")[:300]

    # Results

    def results(self, study: str) -> Results:
        """Every statistic, computed anew once there are new votes; one computation at a time."""
        from resynced.ballots_tables import VoteRow
        from resynced.studies import StudyError
        from resynced.study_media import measures_of
        from resynced.study_results import compute

        made, known = self.desk.study(study), self._results.get(study)
        if not self._computing.acquire(blocking=False):  # who waited here would keep a thread from raters
            if known:
                return known[2]
            raise StudyError("The results are being computed: reload this page in a moment.")
        try:
            with self.desk.database.read() as connection:
                there = select(func.count(), func.coalesce(func.max(VoteRow.id), 0)).where(VoteRow.study == study)
                state = hash(tuple(connection.execute(there).one()))
            if known and (known[0] == state or time.monotonic() - known[1] < RESULTS_S):
                return known[2]
            found = compute(made, self.desk.tables(study), measures_of(self.store, made), DRAWS)
            self._results[study] = (state, time.monotonic(), found)
            return found
        finally:
            self._computing.release()

    def agreement(self, study: str, token: str) -> Agreement:
        """How a rater's answers stand to the others', which may be AGREEMENT_S old."""
        from resynced.raters import rater_id
        from resynced.study_results import own_agreement, read_votes

        made = self.desk.study(study)
        with self._reading:
            read, everybody = self._votes.get(study, (-math.inf, None))
            if time.monotonic() - read >= AGREEMENT_S:
                facts = self.desk.tables(study)
                everybody = read_votes(made, facts["ballots"], facts["votes"])
                self._votes[study] = (time.monotonic(), everybody)
        facts = self.desk.tables(study, token)
        return own_agreement(read_votes(made, facts["ballots"], facts["votes"]), everybody, rater_id(token))

    # The sound check: which digits are spoken follows from a random name and a key that no browser has

    def new_check(self, language: str) -> str | None:
        """The name of a sound check, None where there is no voice for it here."""
        if not tts.can_speak(VOICES[language]):
            return None
        return f"{int(time.time()):x}-{secrets.token_hex(8)}"

    def _digits(self, name: str) -> list[int]:
        digest = hmac.new(self._spoken, name.encode(), hashlib.sha256).digest()
        digits, others = [], list(range(10))
        for byte in digest[:DIGITS]:
            digits.append(others.pop(byte % len(others)))
        return digits

    def spoken(self, name: str, language: str) -> bytes:
        """The WAV file of a sound check. Raises InputError."""
        voices = _voices(language)
        pause = np.zeros(round(GAP_S * RATE), np.float32)
        sound = np.concatenate([part for k in self._digits(name) for part in (voices[k], pause)])
        file = io.BytesIO()
        soundfile.write(file, sound, RATE, "PCM_16", format="WAV")
        return file.getvalue()

    def heard(self, name: str, said: str) -> bool:
        """Are these the digits, and is the check not too old?"""
        began, _, _ = name.partition("-")
        fresh = bool(re.fullmatch(r"[0-9a-f]{1,11}", began)) and time.time() - int(began, 16) < CHECK_S
        digits = "".join(str(k) for k in self._digits(name))
        return fresh and hmac.compare_digest(digits.encode(), "".join(c for c in said if c in "0123456789").encode())


@cache
def _voices(language: str) -> list[np.ndarray]:
    """Ten spoken digits, (S,) float32 at RATE, equally loud; a second's work, once."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for word in WORDS[language]:
            path = tts.speak(word, VOICES[language], "high", Path(folder, "digit.wav"))
            sound, rate = soundfile.read(path, dtype="float32")
            if rate != RATE:
                sound = np.interp(np.arange(0, len(sound), rate / RATE), np.arange(len(sound)), sound)
            loud = np.sqrt(np.mean(np.square(sound))) or 1.0
            found.append(np.clip(sound * (0.08 / loud), -1, 1).astype(np.float32))
    return found
