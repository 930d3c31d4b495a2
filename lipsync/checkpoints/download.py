"""Published files: where they are, how they come here, how they are read without running what is in them.

`SOURCES` is the one table of addresses, which are tried in order. A JSON file named by LIPSYNC_SOURCES overrides it, a
field at a time: `{"wav2lip": {"url": "https://…"}}`; it may also add names. Sizes and sums are those of protocol.md
section 9; those of `inception` are the ones that the projects using it state.
"""

from __future__ import annotations

import functools
import hashlib
import http.client
import json
import os
import pickle
import re
import time
import urllib.error
import urllib.request
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

TRIES = 3  # connections one download may use up; each goes on where the last broke
TIMEOUT_S = 30
_CHUNK = 1 << 18
_TYPES = {
    "url": str | list,
    "bytes": int,
    "config": dict,
    "crop": dict,
    "mel_start_frames": int,
}  # of Source's fields; others: str
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True)
class Source:
    """One published file and what the card of the checkpoint made from it will say."""

    architecture: str
    page: str  # where a person finds it and its terms
    licence: str
    terms: str  # kept beside the file
    url: (
        str | tuple[str, ...]
    ) = ()  # direct addresses, tried in order; a table of the user's own may give one or a list
    bytes: int = 0
    sha256: str = ""
    config: dict = field(default_factory=dict)
    crop: dict = field(default_factory=dict)
    mel_start_frames: int = 0
    note: str = ""

    @property
    def urls(self) -> tuple[str, ...]:
        """The direct addresses."""
        return tuple(filter(None, (self.url,) if isinstance(self.url, str) else self.url))


_WAV2LIP = Source(
    architecture="wav2lip",
    page="https://github.com/Rudrabha/Wav2Lip#getting-the-weights",
    licence="research, academic and personal use only",
    terms="Trained on LRS2. Its authors allow research, academic and personal use; any commercial use is prohibited.",
    config={"width": 16},
    # The published box is S3FD's, 10 px added below. Ours is another detector's, so this places it by the face mesh:
    # cheek to cheek, hairline to chin (medians over 258 frames: x ±0.42, y -0.51 .. 0.51), and the 10 px as 0.04.
    crop={
        "box": "approximates S3FD's box with 10 px added below, in parts of this program's face box; "
        "centre (cx, cy), s = max(width, height)",
        "x": ["cx - 0.42 s", "cx + 0.42 s"],
        "y": ["cy - 0.49 s", "cy + 0.55 s"],
        "size_px": 96,
        "resize": "bilinear",
    },
)

SOURCES: dict[str, Source] = {
    # The links that the authors' page gives today hand out TorchScript files of another size. Public installers name
    # these addresses together with the very sums below.
    "wav2lip": replace(
        _WAV2LIP,
        url=(
            "https://huggingface.co/Nekochu/Wav2Lip/resolve/main/wav2lip.pth",
            "https://huggingface.co/camenduru/Wav2Lip/resolve/main/checkpoints/wav2lip.pth",
        ),
        bytes=435807851,
        sha256="b78b681b68ad9fe6c6fb1debc6ff43ad05834a8af8a62ffc4167b7b34ef63c37",
        note="the published generator",
    ),
    "wav2lip-gan": replace(
        _WAV2LIP,
        url=(
            "https://huggingface.co/Nekochu/Wav2Lip/resolve/main/wav2lip_gan.pth",
            "https://huggingface.co/camenduru/Wav2Lip/resolve/main/checkpoints/wav2lip_gan.pth",
        ),
        bytes=435801865,
        sha256="ca9ab7b7b812c0e80a6e70a5977c545a1e8a365a6c49d5e533023c034d7ac3d8",
        note="the published generator, trained with the quality discriminator: sharper, a little less in sync",
    ),
    "syncnet-v2": Source(
        architecture="syncnet",
        page="https://www.robots.ox.ac.uk/~vgg/software/lipsync/",
        licence="code MIT; weights: no terms stated",
        terms="SyncNet of the Visual Geometry Group, Oxford. The code is under the MIT licence; for the weights "
        "its page states no terms of their own.",
        url="https://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model",
        bytes=54573114,
        sha256="961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442",
        config={"width": 32},
        note="the evaluator of LSE-D and LSE-C",
    ),
    "s3fd": Source(
        architecture="sfd",
        page="https://github.com/joonson/syncnet_python",
        licence="code MIT; weights: no terms stated",
        terms="S3FD face detector as the SyncNet demo hands it out. The demo's code is under the MIT licence; for the "
        "weights no terms of their own are stated.",
        url="https://www.robots.ox.ac.uk/~vgg/software/lipsync/data/sfd_face.pth",
        bytes=89844381,
        sha256="d54a87c2b7543b64729c9a25eafd188da15fd3f6e02f0ecec76ae1b30d86c491",
        note="the face detector of the published scoring",
    ),
    "inception": Source(
        architecture="inception",
        page="https://github.com/mseitzer/pytorch-fid",
        licence="Apache-2.0",
        terms="FID's Inception (TensorFlow, 2015-12-05) as converted by pytorch-fid; both are under the Apache "
        "License, version 2.0.",
        url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth",
        bytes=95628359,
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        note="features of the FID",
    ),
}


def sources() -> dict[str, Source]:
    """The table with the user's own (LIPSYNC_SOURCES) laid over it. Raises ModelError where that file is unusable."""
    path = os.environ.get("LIPSYNC_SOURCES")
    if not path:
        return SOURCES
    known = [f.name for f in fields(Source)]
    table = dict(SOURCES)
    try:
        for name, entry in json.loads(Path(path).read_text(encoding="utf-8")).items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name: use small letters, digits, dots and hyphens")
            for key, value in entry.items():
                if key not in known:
                    raise ValueError(f"{name} has no field {key!r}: choose from {', '.join(known)}")
                if not isinstance(value, _TYPES.get(key, str)):
                    raise ValueError(f"{key} of {name} cannot be {value!r}")
            table[name] = replace(table[name], **entry) if name in table else Source(**entry)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"The table of sources {path} (LIPSYNC_SOURCES) cannot be used: {error}.") from error
    return table


def by_hand(name: str, source: Source) -> str:
    """The half sentence that says how to bring a file by hand."""
    return f"get the file from {source.page} another way and run `python -m lipsync fetch {name} --from PATH`"


def download(
    name: str, source: Source, url: str, part: Path, progress: Callable[[int, int], None] | None = None
) -> None:
    """Bring one address of a source into `part`, going on where an earlier attempt stopped.

    progress  called with bytes here and bytes in all (0 where unknown)
    Raises ModelError. After a broken connection `part` stays, to be gone on with; after a wrong size it does not.
    """
    for left in reversed(range(TRIES)):
        try:
            _receive(name, source, url, part, progress)
            return
        except (urllib.error.HTTPError, ValueError) as error:  # the server said no, or it is no address
            if getattr(error, "code", None) == 416 and left:  # what is here is longer than the file: from the start
                part.unlink(missing_ok=True)
                continue
            raise ModelError(f"{name} could not be fetched from {url} ({error}): {by_hand(name, source)}.") from error
        except (OSError, http.client.HTTPException) as error:
            if left:
                time.sleep(0.2)
                continue
            kept = part.stat().st_size if part.is_file() else 0
            again = f"run the same command again to go on from {kept} bytes, or " if kept else ""
            raise ModelError(
                f"{name} could not be fetched from {url} ({error}): {again}{by_hand(name, source)}."
            ) from error


def _receive(name: str, source: Source, url: str, part: Path, progress: Callable[[int, int], None] | None) -> None:
    """One connection. Raises OSError or HTTPException where it breaks."""
    have = part.stat().st_size if part.is_file() else 0
    if source.bytes and have >= source.bytes:  # as long as it should be: the sum decides
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        if have and answer.status != 206:  # the server knows no ranges: from the start
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else source.bytes
        if source.bytes and total != source.bytes:
            part.unlink(missing_ok=True)
            raise ModelError(
                f"{url} gives a file of {total} bytes where the published {name} has {source.bytes}: "
                f"nothing was kept; {by_hand(name, source)}."
            )
        with part.open("ab" if have else "wb") as file:
            while chunk := answer.read(_CHUNK):
                have += len(chunk)
                if total and have > total:
                    break
                file.write(chunk)
                if progress:
                    progress(have, total)
    if total and have < total:
        raise ConnectionError(f"the connection ended {total - have} bytes early")


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hex; remembered for as long as its size and time stay. Raises OSError."""
    stat = path.stat()
    return _sha256(str(path), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_unreadable(path: Path, where: str) -> None:
    """ModelError for what no check of sums can explain: a web page, a TorchScript program, half an archive."""
    with path.open("rb") as file:
        head = file.read(512).lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ModelError(f"{where} is a web page, not a checkpoint: the address asks for a sign-in or a click.")
    if not head.startswith(b"pk\x03\x04"):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            inside = {name.rpartition("/")[2] for name in archive.namelist()}
            unpacked = sum(info.file_size for info in archive.infolist())
    except zipfile.BadZipFile as error:
        raise ModelError(f"{where} is cut short or damaged ({error}): fetch it again.") from error
    if "constants.pkl" in inside:
        raise ModelError(
            f"{where} is a TorchScript program, which cannot be read without running it; if you trust it, run "
            f"`python -c \"import torch; torch.save(torch.jit.load('FILE', map_location='cpu').state_dict(), "
            f"'tensors.pth')\"` and give tensors.pth with --from and --any-version."
        )
    if unpacked > path.stat().st_size:  # torch stores without compression
        raise ModelError(f"{where} is an archive that torch did not write: it is not a checkpoint.")


def read_foreign(path: Path, where: str) -> dict[str, Tensor]:
    """The tensors of a .pth (zip or older) or safetensors file, `state_dict` unwrapped, `module.` taken off.

    Nothing in the file is run (`weights_only=True`). Raises ModelError for anything that is no such file.
    """
    import torch

    try:
        if _is_safetensors(path):
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            with warnings.catch_warnings():  # torch wonders at foreign pickles before it refuses them
                warnings.simplefilter("ignore")
                state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file can break an unpickler in any way
        words = str(error).strip()
        if isinstance(error, pickle.UnpicklingError) and (found := re.search(r"GLOBAL ([\w.]+)", words)):
            raise ModelError(
                f"{where} holds more than tensors ({found[1]}): it could run code, so it was refused and not run."
            ) from error
        first = words.splitlines()[0] if words else type(error).__name__
        raise ModelError(f"{where} is cut short, damaged or no checkpoint ({first}).") from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    named = state.items() if isinstance(state, dict) else ()
    tensors = {
        str(key).removeprefix("module."): value
        for key, value in named
        if isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_quantized
    }
    if not tensors:
        raise ModelError(f"{where} holds no named tensors: it is not a checkpoint of a network.")
    return tensors


def _is_safetensors(path: Path) -> bool:
    """A safetensors file starts with the length of its JSON header."""
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size
