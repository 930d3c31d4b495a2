"""Operator's settings, from the environment: LIPSYNC_PORT=8080 LIPSYNC_MAX_SECONDS=20 python app.py"""

from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from lipsync.errors import InputError

from .callbacks import key_of

FEWEST_LETTERS = 12  # of a password


class Settings(BaseSettings):
    """What the person who runs the page decides."""

    model_config = SettingsConfigDict(env_prefix="LIPSYNC_")

    host: str = "127.0.0.1"  # address to listen on; 0.0.0.0 lets other machines in
    port: int = Field(7860, ge=0, le=65535)  # 0: any free one
    hosts: str = "localhost,127.0.0.1,[::1]"  # host names that the page answers to, without port; * for any
    work: Path = Path("work")  # visitors' files; emptied by time
    max_seconds: float = Field(60, gt=0)  # longest clip and longest voice
    max_megabytes: float = Field(200, gt=0)  # largest upload, all files of one request together
    max_height: int = Field(1080, ge=96)  # largest shorter side of a picture, pixels, as in "1080p"
    keep_minutes: float = Field(60, gt=0)  # files go this long after they were last worked on
    at_once: int = Field(1, ge=1)  # videos made at the same time; the others wait
    max_waiting: int = Field(32, ge=1)  # videos that may wait, of all visitors
    max_waiting_each: int = Field(6, ge=1)  # of one address
    max_minutes: float = Field(30, gt=0)  # wall time that one video may take
    max_gigabytes: float = Field(20, gt=0)  # all files of all visitors
    keep_free_megabytes: float = Field(500, ge=0)  # of the disk; uploads that would take them are refused
    visible_label: bool = True  # the stamp in the picture; the signature is always made
    watermark: bool = True  # the invisible mark in the picture
    operator_password: SecretStr = SecretStr("")  # of who starts benchmarks and opens studies; empty: nobody can

    callback_hosts: str = ""  # hosts, with or without port, that the API may call back; empty: none
    callback_secret: SecretStr = Field(SecretStr(""), validate_default=True)  # by which callbacks are signed

    @field_validator("operator_password", "callback_secret")
    @classmethod
    def _long_enough(cls, given: SecretStr) -> SecretStr:
        if 0 < len(given.get_secret_value()) < FEWEST_LETTERS:
            raise ValueError(f"it has fewer than {FEWEST_LETTERS} letters")
        return given

    @field_validator("callback_secret")
    @classmethod
    def _signs(cls, given: SecretStr, others: ValidationInfo) -> SecretStr:
        if others.data.get("callback_hosts", "").strip() and not given.get_secret_value():
            raise ValueError("callbacks are signed, so it may not be empty")
        try:
            key_of(given.get_secret_value())
        except ValueError:
            raise ValueError("what follows whsec_ is no base64") from None
        return given

    @property
    def host_names(self) -> set[str]:
        """The names in `hosts`."""
        return _names(self.hosts)

    @property
    def callback_host_names(self) -> set[str]:
        """The names in `callback_hosts`."""
        return _names(self.callback_hosts)


def _names(listed: str) -> set[str]:
    return {name.strip().lower() for name in listed.split(",") if name.strip()}


def read_settings() -> Settings:
    """The settings of this environment. Raises InputError with one sentence that names the wrong variable."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = f"LIPSYNC_{first['loc'][0]}".upper()
        value = "…" if name.endswith(("PASSWORD", "SECRET")) else str(first["input"])[:80]
        said = first["msg"].removeprefix("Value error, ").lower()
        raise InputError("{name}={value} cannot be used: {said}.", name=name, value=value, said=said) from None
