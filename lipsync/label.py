"""What says that a video was made by a machine: a visible stamp, container tags, and signed Content Credentials.

The stamp is for people, the tags for players, the signature (C2PA 2, c2pa.org) for whoever must be sure. The first may
be switched off by the operator, the signature never. docs/labels.md says what law and paper ask, and what a label
cannot do.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from . import __version__
from .credentials import hand, trust
from .errors import InputError, LabelError

TOOL = "lipsync-lab"
STAMP_TEXT = "AI lip-sync"
STAMP_SHARE = 0.035  # height of the stamp, of the frame's shorter side
STAMP_MIN_TEXT_PX = 10  # smaller letters do not survive the codec
IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
SOURCE_TYPE = IPTC + "compositeWithTrainedAlgorithmicMedia"
MADE_BY_AI = {SOURCE_TYPE, IPTC + "trainedAlgorithmicMedia"}
BINDINGS = {"assertion.bmffHash.match", "assertion.dataHash.match", "assertion.boxesHash.match"}
VERIFY_S = 120.0  # hashing takes about a second a gigabyte
HASH_CHUNK_KB = 4096  # hashes in a tree: one flat hash would hold up to the whole file in memory


class Stamp:
    """A small chip that says "AI lip-sync", in the same corner of every frame of a video.

    width, height  of the frames, pixels. `region` is x0, y0, x1, y1 of the only pixels it changes.
    """

    def __init__(self, width: int, height: int):
        self._size = width, height
        grey, alpha = _chip(width, height)
        self._shape = alpha.shape
        # out = frame * keep / 255 + add, in whole numbers
        self._keep = np.repeat(np.round((1 - alpha) * 255).astype(np.uint8)[..., None], 3, 2)
        self._add = np.repeat(np.round(grey * alpha).astype(np.uint8)[..., None], 3, 2)
        self.region = self._corners()[0]

    def _corners(self) -> list[tuple[int, int, int, int]]:
        """Regions in order of preference: bottom right, bottom left, top right, top left; even, as chroma is."""
        (width, height), (h, w) = self._size, self._shape
        margin = h // 4 * 2
        right, low = (max(width - w - margin, 0) & ~1, max(height - h - margin, 0) & ~1)
        left, top = min(margin, right), min(margin, low)
        return [(x, y, x + w, y + h) for y in (low, top) for x in (right, left)]

    def place(self, boxes: np.ndarray) -> tuple[int, int, int, int]:
        """Choose the corner that stays clear of every face of the video, or is covered least; sets `region`.

        boxes    (N, 4) x0 y0 x1 y1, pixels; rows with no number are passed over
        returns  region, x0 y0 x1 y1, pixels
        """
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        boxes = boxes[np.isfinite(boxes).all(1)]

        def covered(region: tuple[int, int, int, int]) -> float:
            x0, y0, x1, y1 = region
            across = np.minimum(boxes[:, 2], x1) - np.maximum(boxes[:, 0], x0)
            down = np.minimum(boxes[:, 3], y1) - np.maximum(boxes[:, 1], y0)
            return float((across.clip(0) * down.clip(0)).sum())

        self.region = min(self._corners(), key=covered)  # the first of equals
        return self.region

    def apply(self, frame: np.ndarray) -> None:
        """Blend the stamp into a (H, W, 3) uint8 frame, in place."""
        x0, y0, x1, y1 = self.region
        part = frame[y0:y1, x0:x1]
        cv2.add(cv2.multiply(part, self._keep, scale=1 / 255), self._add, dst=part)


def _chip(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey value 0..255 and opacity 0..1 of the stamp, both (h, w) float32, h and w even, within the frame."""
    from PIL import Image, ImageDraw, ImageFont

    text_px = max(STAMP_MIN_TEXT_PX, round(min(width, height) * STAMP_SHARE / 1.35))
    font = ImageFont.load_default(text_px)
    x0, y0, x1, y1 = font.getbbox(STAMP_TEXT)
    h = round(text_px * 1.35 / 2) * 2
    w = round((x1 - x0 + h * 0.8) / 2) * 2
    fit = min(1.0, width / w, height / h)  # a thumbnail-sized video gets a smaller chip
    scale = 4  # drawn larger for a smooth edge
    shape = Image.new("L", (w * scale, h * scale))
    ImageDraw.Draw(shape).rounded_rectangle((0, 0, w * scale - 1, h * scale - 1), h * scale / 3, fill=255)
    letters = Image.new("L", (w, h))
    ImageDraw.Draw(letters).text(((w - x1 - x0) / 2, (h - y1 - y0) / 2), STAMP_TEXT, font=font, fill=255)
    size = max(int(w * fit) & ~1, 1), max(int(h * fit) & ~1, 1)
    ink, body = (np.asarray(i.resize(size, Image.Resampling.LANCZOS), np.float32) / 255 for i in (letters, shape))
    alpha = np.maximum(0.65 * body, 0.95 * ink)
    return (24 * (1 - ink) + 255 * ink).astype(np.float32), alpha


def tags(model: str) -> dict[str, str]:
    """Container tags for a result: keys that MP4, MOV and Matroska all keep."""
    said = f"AI-generated: the mouth in this video was made by a neural network ({model}) to match the sound."
    return {
        "title": "AI lip-synced video",
        "comment": f"{said} {TOOL} {__version__}. Digital source type: {SOURCE_TYPE}",
        "description": said,
    }


def sign(
    video: Path,
    out: Path,
    *,
    source: Path | None = None,
    voices: Sequence[Path] = (),
    model: str,
    checkpoint_sha256: str,
) -> None:
    """Write `out`: the MP4 `video` with signed Content Credentials; nothing is left at `out` if that fails.

    source, voices  what the video was made from: listed as ingredients by SHA-256 and kind of file alone. No name,
                    path or thumbnail goes in, and no manifest of theirs, which may hold names, places and pictures.

    Raises LabelError.
    """
    import c2pa

    signer, actions, ingredients = hand(), [], []
    made_from = [("source", source, "parentOf", "c2pa.opened")] if source is not None else []
    made_from += [(f"voice{n}", voice, "componentOf", "c2pa.placed") for n, voice in enumerate(voices)]
    for name, path, relationship, action in made_from:
        ingredients.append(_ingredient(name, path, relationship))
        actions.append({"action": action, "parameters": {"ingredientIds": [name]}})
    actions.insert(
        1 if source is not None else 0,
        {
            "action": "c2pa.edited" if source is not None else "c2pa.created",
            "when": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "digitalSourceType": SOURCE_TYPE,
            "softwareAgent": {"name": TOOL, "version": __version__},
            "description": "The mouth was generated by a neural network to match a voice.",
            "parameters": {"model": model, "checkpoint_sha256": checkpoint_sha256},
        },
    )
    manifest = {
        "claim_generator_info": [{"name": TOOL, "version": __version__}],
        "title": "AI lip-synced video",
        "format": "video/mp4",
        "ingredients": ingredients,
        "assertions": [{"label": "c2pa.actions.v2", "created": True, "data": {"actions": actions}}],
    }
    settings = {
        "builder": {"thumbnail": {"enabled": False}},
        "core": {"merkle_tree_chunk_size_in_kb": HASH_CHUNK_KB, "backing_store_memory_threshold_in_mb": 16},
        "verify": {"remote_manifest_fetch": False},
    }
    assert Path(video) != Path(out), "signing in place would destroy the video"
    try:
        info = c2pa.C2paSignerInfo(signer.algorithm, signer.chain, signer.key, signer.timestamps)
        with (
            c2pa.Signer.from_info(info) as pen,
            c2pa.Builder(manifest, context=c2pa.Context.from_dict(settings)) as builder,
            open(video, "rb") as plain,
            open(out, "w+b") as signed,
        ):
            builder.sign(pen, "video/mp4", plain, signed)
    except (c2pa.C2paError, OSError) as error:
        Path(out).unlink(missing_ok=True)
        hint = f" (timestamps come from {signer.timestamps}: unset LIPSYNC_TSA to do without)" * bool(signer.timestamps)
        raise LabelError(f"The video could not be signed: {error}{hint}") from error
    except BaseException:
        Path(out).unlink(missing_ok=True)
        raise


def _ingredient(label: str, path: Path, relationship: str) -> dict[str, str]:
    """What may be said of a visitor's file: that there was one, of which kind, and its fingerprint."""
    try:
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LabelError(f"{path} cannot be read to be listed in the label: {error.strerror}.") from error
    return {
        "label": label,
        "title": "Source" if relationship == "parentOf" else "Voice",
        "relationship": relationship,
        "format": mimetypes.guess_type(path.name)[0] or "application/octet-stream",
        "instance_id": f"sha256:{sha256}",
    }


class Status(StrEnum):
    """What a label is worth; the value is how it is said."""

    INTACT = "labelled and intact"
    ALTERED = "labelled but altered"
    UNKNOWN = "signed by an unknown hand"
    EXPIRED = "expired but intact"
    NOT_LABELLED = "not labelled"


@dataclass(frozen=True)
class Verdict:
    """What verify found. Everything but `status` is None where the label does not say, or cannot be believed."""

    status: Status
    detail: str  # a sentence
    signer: str | None = None  # the name in the certificate; proven unless the status is ALTERED or UNKNOWN
    model: str | None = None
    checkpoint_sha256: str | None = None
    made_at: datetime | None = None  # by a trusted timestamp, else by the clock of the machine that made it

    @property
    def exit_code(self) -> int:
        """0: labelled and intact; 1: anything else."""
        return 0 if self.status is Status.INTACT else 1


def describe(verdict: Verdict) -> str:
    """One or two sentences for a person, naming the signer where there is one."""
    return f"{verdict.status.capitalize()}: {verdict.detail}"


def verify(path: str | os.PathLike) -> Verdict:
    """Read the label of a file, in a child process, offline, in bounded time and memory.

    Trusted are this installation's hand, the operator's, and whoever lies in the trust folder (credentials.py).
    Raises InputError where the file cannot be read at all, LabelError where the trust list cannot.
    """
    path, found = Path(path), _inspect(Path(path))
    if "error" in found:
        return _unlabelled(path, found)
    signature = found["signature"]
    certificate = signature.get("certificateInfo", {})
    name = certificate.get("subject", {})
    signer = _clean(name.get("CN") or name.get("O") or "nobody by name")
    ends = _time(certificate.get("validity", {}).get("notAfter"))
    made = next((a for a in found["actions"] if a.get("digitalSourceType") in MADE_BY_AI), None)
    about = (made or {}).get("parameters") or {}
    stamped = signature.get("timeStampInfo", {}).get("timestamp") if "timeStamp.trusted" in found["success"] else None
    facts = {
        "signer": signer,
        "model": _clean(about.get("model")),
        "checkpoint_sha256": _clean(about.get("checkpoint_sha256")),
        "made_at": _time(stamped) or _time((made or {}).get("when")),
    }
    what = "AI lip-synced" if facts["model"] else "made or edited with AI"
    what += f" with {facts['model']}" if facts["model"] else ""
    what += f" on {facts['made_at']:%Y-%m-%d}" if facts["made_at"] else ""

    success, failure = set(found["success"]), set(found["failure"])
    doubts = {c for c in failure if c.startswith("signingCredential.")}
    broken = sorted(failure - doubts)
    if broken or "claimSignature.validated" not in success or not BINDINGS & success:
        why = ", ".join(map(_clean, broken)) or "its signature does not cover the content"
        detail = f"the label names {signer} as its signer, but the file was changed after it was signed ({why})."
        return Verdict(Status.ALTERED, detail, signer=signer)
    if "signingCredential.trusted" not in success or doubts - {"signingCredential.expired"}:
        says = f"says it was {what}" if made else "does not say that it was made by AI"
        late = f", and whose certificate ended on {ends:%Y-%m-%d}" * bool(ends and ends < datetime.now(UTC))
        detail = f"the file is as it was signed and {says}, but by {signer}, who is not on the trust list here{late}."
        return Verdict(Status.UNKNOWN, detail, **facts)
    if made is None:
        detail = f"Content Credentials by {signer} are intact, but they do not say that the video was made by AI."
        return Verdict(Status.NOT_LABELLED, detail, signer=signer)
    if doubts:
        lapsed = f"ended on {ends:%Y-%m-%d}" if ends else "has ended"
        detail = f"{what}, signed by {signer} and unchanged since, but the certificate {lapsed}."
        return Verdict(Status.EXPIRED, detail, **facts)
    return Verdict(Status.INTACT, f"{what}, signed by {signer}.", **facts)


def _unlabelled(path: Path, found: dict[str, Any]) -> Verdict:
    """The verdict on a file whose label cannot be read. Raises InputError where it is no media file at all."""
    if found["carries"]:
        words = _clean(found["error"])
        return Verdict(Status.ALTERED, f"it carries a label that cannot be read, so the file was damaged ({words}).")
    if not found["playable"]:
        raise InputError(f"{path.name} holds no label, and is no video that can be read.")
    said = any("ai-generated" in v.lower() or "ai lip-sync" in v.lower() for v in found["tags"].values())
    hint = " Its tags do say that AI made it, but anyone can write or remove those." * said
    return Verdict(Status.NOT_LABELLED, f"there are no Content Credentials in it.{hint}")


def _inspect(path: Path) -> dict[str, Any]:
    """Run inspector.py on a file, with the trust list of this moment."""
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    known = trust()
    anchors = {"trust_kind": "manifest", "trust_anchors": known.authorities, "allowed_list": known.hands or None}
    stamps = {"trust_kind": "tsa", "trust_anchors": known.timestamps}
    job = {"path": str(path.resolve()), "trust": {"anchors": [anchors, stamps]}}
    search = os.pathsep.join(filter(None, (str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "lipsync.inspector"],
            input=json.dumps(job).encode(),
            capture_output=True,
            timeout=VERIFY_S,
            process_group=0,  # Ctrl-C is for the parent to handle
            env={**os.environ, "PYTHONPATH": search},
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"Reading the label of {path.name} took more than {VERIFY_S:g} s and was given up.") from error
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise InputError(f"{path.name} is broken in a way that ends whatever reads it: {_clean(words[0])}")
    return json.loads(done.stdout)


def _clean(text: Any, longest: int = 120) -> str | None:
    """Foreign text made fit for a terminal and a page: printable, one line, short."""
    if not isinstance(text, str) or not text:
        return None
    return re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip()[:longest]


def _time(text: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
