"""The operator's settings, from the environment: LIPSYNC_PORT=8080 LIPSYNC_MAX_SECONDS=20 python app.py"""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What the person who runs the page decides."""

    model_config = SettingsConfigDict(env_prefix="LIPSYNC_")

    host: str = "127.0.0.1"  # 0.0.0.0 lets other machines in
    port: int = 7860
    work: Path = Path("work")  # visitors' files; emptied by time
    max_seconds: float = Field(60, gt=0)  # longest clip and longest voice
    max_megabytes: float = Field(200, gt=0)  # largest upload
    max_height: int = Field(1080, ge=96)  # largest shorter side of a picture, pixels, as in "1080p"
    keep_minutes: float = Field(60, gt=0)  # files go this long after they were last worked on
    at_once: int = Field(1, ge=1)  # jobs running at the same time; the others wait
    visible_label: bool = True  # the stamp in the picture; the signature is always made
    watermark: bool = True  # the invisible mark in the picture
