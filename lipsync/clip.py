"""A clip: a video that was probed, with its faces once they were found. Whoever has it need not open the file again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError
from .faces.tracking import FaceMap
from .media.reader import VideoInfo, probe


@dataclass(frozen=True)
class Clip:
    """A video (or a still picture) and what is known of it.

    info   from `probe`
    faces  shots and tracks of the whole video (pipeline.find), None: not looked for yet
    """

    info: VideoInfo
    faces: FaceMap | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self.info.path

    @classmethod
    def open(cls, video: str | os.PathLike | Clip | None) -> Clip:
        """Probe a file; a clip stays what it is. Raises InputError where there is no picture in it."""
        if isinstance(video, Clip):
            return video
        if video is None:
            raise InputError("No video was given: name a video or an image.")
        info = probe(video)
        if not info.has_video:
            raise InputError("{file} holds no picture: a video or an image is needed.", file=info.path.name)
        return cls(info)
