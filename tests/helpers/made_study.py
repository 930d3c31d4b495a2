"""A small study with videos, for tests of its pages: three "systems" that move the astronaut, each its own way."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from lipsync.media.reader import VideoWriter, read_sound
from resynced.desk import StudyDesk, open_desk
from resynced.runner import video_path
from resynced.store import Store, data_folder
from resynced.studies import Study
from resynced.study_media import draft, prepare
from tests.conftest import make_voice, portrait_frame
from tests.helpers.rows import fill, made_set, sha

SYSTEMS = ("secret-alpha", "secret-beta", "real")
FEW = {"per_rater": 2, "training": 1, "gold": 1, "traps": 1, "repeats": 0, "items": 2}  # ballots


def kept_videos(store: Store, pairs: int = 3, frames: int = 30) -> None:
    """A set in the store, its scores, and the videos as the runner keeps them."""
    made = made_set(pairs)
    store.add_set(made)
    values = {s: [6.0 + k + n / 10 for n in range(pairs)] for k, s in enumerate(SYSTEMS)}
    fill(store, values, made.sha256)
    voiced = _clip(data_folder() / "made", frames)
    for system in SYSTEMS:
        for pair in made.pairs:
            path = video_path(data_folder(), made.name, made.sha256, system, sha(system), pair.id)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(voiced[system], path)


def _clip(folder: Path, frames: int) -> dict[str, Path]:
    """For each system a clip of another size or rate with a voice: what must not be seen afterwards."""

    folder.mkdir(parents=True, exist_ok=True)
    sound = read_sound(make_voice(folder / "voice.wav", frames / 25 + 0.5), 48_000)[0]
    found = {}
    for k, system in enumerate(SYSTEMS):
        found[system] = path = folder / f"{k}.mp4"
        size = (240 + 32 * k, 240 + 32 * k)
        with VideoWriter(path, *size, Fraction(25), 48_000) as writer:
            for n in range(frames + k):
                writer.write(portrait_frame(10 + 8 * np.sin(n / (5 + k)), 10, size, size[0] / 540))
            writer.write_sound(np.repeat(sound[: round((frames + k) / 25 * 48_000), None], 2, 1))
    return found


def made_study(store: Store, name: str = "trial", opened: bool = True, **changes: Any) -> tuple[Study, StudyDesk]:
    """A study of these systems, with its videos; `kept_videos` comes before."""
    options = {"title": "Two videos", "design": "preference", "votes_per_pair": 50} | FEW | changes
    systems = options.pop("systems", SYSTEMS)
    study = draft(store, data_folder(), "made", systems, name=name, **options)
    desk = open_desk(store, data_folder())
    desk.create(study)
    prepare(store, data_folder(), study)
    if opened:
        desk.open(name)
    return study, desk
