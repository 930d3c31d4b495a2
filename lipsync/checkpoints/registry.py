"""The registry of checkpoints: names, cards, files; load, fetch, register.

A checkpoint is NAME.safetensors with its card NAME.json beside it. Whatever lies in these folders is offered, the first
folder that has a name winning:
  LIPSYNC_WEIGHTS     the user's own folders, a list as PATH is one
  lipsync/weights/    shipped, package data
  CACHE/weights/      fetched; CACHE is LIPSYNC_CACHE, else ~/.cache/lipsync
Published files that are not here yet are listed too (`download.SOURCES`). Files are checked against their card's sha256
before they are used.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelError
from ..files import cache_dir, expanded, listed
from ..messages import Message
from .download import Source, by_hand, download, file_sha256, read_foreign, refuse_unreadable, sources
from .state_dict import architectures, build_network, read, validate_state_dict

if TYPE_CHECKING:
    from torch import Tensor, nn

SHIPPED = Path(__file__).parent.parent / "weights"  # package data
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Card:
    """What is known of a checkpoint. `facts` is its whole JSON, `path` its file (None: not here)."""

    name: str
    architecture: str  # a key of models.MODELS or state_dict.NETWORKS
    config: dict  # the network's dimensions, as its class takes them
    parts: dict[str, str]  # second networks of the model, by what they do: names of other checkpoints
    licence: str
    origin: str
    size_bytes: int  # of the file here, or of the published one
    sha256: str  # of the same
    crop: dict  # the rule that geometry.CropRule reads; empty where the network sees no crops
    size_px: int  # side of its crops
    mel_start_frames: int  # where a frame's 200 ms of sound starts, relative to it (protocol.md section 11),
    mel_start_columns: float  # and columns of 12.5 ms beyond: what was measured of a trained network's lag
    note: str
    path: Path | None
    facts: dict


def folders() -> list[Path]:
    """The folders that are looked through, first wins."""
    own = os.environ.get("LIPSYNC_WEIGHTS", "").split(os.pathsep)
    return [*(expanded(p) for p in own if p), SHIPPED, cache_dir() / "weights"]


def cards() -> dict[str, Card]:
    """Every checkpoint by name: those that are here, then published ones that could be fetched.

    A card that cannot be read is left out, with a line in the log.
    """
    found: dict[str, Card] = {}
    for folder in folders():
        for path in listed(folder, "*.json"):
            weights = path.with_suffix(".safetensors")
            if path.stem in found or not os.path.isfile(weights):
                continue
            try:
                found[path.stem] = _card(path.stem, json.loads(path.read_text(encoding="utf-8")), weights)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                _log.warning("The card %s cannot be read and is left out: %r", path, error)
    for name, source in sources().items():
        if name not in found:
            found[name] = _card(name, _facts(source) | {"sha256": source.sha256}, None)
    return found


def _card(name: str, facts: dict, path: Path | None) -> Card:
    """A card from its JSON. Raises KeyError, TypeError, ValueError or AttributeError where that is none."""
    architecture, config = str(facts["architecture"]), dict(facts.get("config", {}))
    if facts.get("base") is not None:  # a card of before 2026-12
        config.setdefault("width", int(facts["base"]))
    if match := re.fullmatch(r"compact-expert-(\d)", architecture):  # the same
        architecture, config = "compact-expert", config | {"frames": int(match[1])}
    crop = dict(facts.get("crop", {}))
    return Card(
        name=name,
        architecture=architecture,
        config=config,
        parts={str(k): str(v) for k, v in facts.get("parts", {}).items()},
        licence=str(facts.get("licence", "not stated")),
        origin=str(facts.get("origin", "not stated")),
        size_bytes=path.stat().st_size if path else int(facts["published"]["bytes"]),
        sha256=str(facts["sha256"]),
        crop=crop,
        size_px=int(crop.get("size_px", 96)),
        mel_start_frames=int(facts.get("input", {}).get("mel_start_frames", 0)),
        mel_start_columns=float(facts.get("input", {}).get("mel_start_columns", 0)),
        note=str(facts.get("note") or facts.get("quality", "")),
        path=path,
        facts=facts,
    )


def _facts(source: Source) -> dict:
    """The card's JSON of a published file, without the sum of the converted one."""
    return {
        "architecture": source.architecture,
        "config": source.config,
        "licence": source.licence,
        "origin": source.page,
        "crop": source.crop,
        "input": {"mel_start_frames": source.mel_start_frames},
        "note": source.note,
        "published": {"url": next(iter(source.urls), ""), "bytes": source.bytes, "sha256": source.sha256},
    }


def _known(name: str) -> Card:
    known = cards()
    if name not in known:
        raise ModelError(
            "There is no checkpoint named {name!r}: choose one of {choices}.", name=name, choices=", ".join(known)
        )
    return known[name]


def find(name: str) -> Path:
    """The file of a checkpoint. Raises ModelError where the name is unknown or the file is not here."""
    return _present(_known(name))


def _present(card: Card) -> Path:
    if card.path is None:
        raise ModelError("The checkpoint {card} is not here yet: run `python -m lipsync fetch {card}`.", card=card.name)
    return card.path


def sha256(name: str) -> str:
    """The sha256 of a checkpoint's file, found to be its card's. Raises ModelError where it is not."""
    return _verified(_known(name))


def _verified(card: Card) -> str:
    path = _present(card)
    try:
        measured = file_sha256(path)
    except OSError as error:
        raise ModelError("The checkpoint {path} cannot be read: {error}.", path=path, error=error) from error
    if measured != card.sha256:
        raise ModelError(
            "The checkpoint {path} is not the file its card describes: sha256 {measured}…, the card says "
            "{sha256}…; fetch or copy it again.",
            path=path,
            measured=measured[:12],
            sha256=card.sha256[:12],
        )
    return measured


def tensors(name: str) -> dict[str, Tensor]:
    """A checkpoint's state dict, floats as float32 whatever form they are stored in; for networks built elsewhere.

    Raises ModelError where the file is missing, altered, or belongs to another network.
    """
    card = _known(name)
    _verified(card)
    return validate_state_dict(read(_present(card)), card.architecture, card.config, str(card.path))


def load(name: str) -> nn.Module:
    """A checkpoint's network, in eval mode, float32, on the processor. Raises ModelError as `tensors` does."""
    card, state = _known(name), tensors(name)
    network = build_network(card.architecture, card.config)
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval()


def write_card(weights: Path, card: dict) -> Path:
    """Write NAME.json beside NAME.safetensors, with that file's true size and sha256; returns the card's path.

    card  architecture, config, licence, origin, crop, input.mel_start_frames, note and whatever else is worth knowing
    """
    path = weights.with_suffix(".json")
    with _whole(path) as temporary:
        temporary.write_text(_described(weights.stem, weights, card), encoding="utf-8")
    return path


def _described(name: str, weights: Path, card: dict) -> str:
    facts = {"name": name} | card | {"size_bytes": weights.stat().st_size, "sha256": file_sha256(weights)}
    return json.dumps(facts, indent=1, ensure_ascii=False) + "\n"


def register(weights: Path, card: dict, folder: Path | None = None) -> Path:
    """Offer a trained checkpoint: check that it fits its card, copy it into a folder, write the card; returns the file.

    weights  NAME.safetensors, plain or packed (quantize.pack); NAME is the checkpoint's name
    card     see write_card
    folder   default: the first of LIPSYNC_WEIGHTS, else the cache
    Raises ModelError.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*\.safetensors", weights.name):
        raise ModelError(
            "A checkpoint is named like my-model.safetensors (small letters, digits), not {weights}.",
            weights=weights.name,
        )
    if "architecture" not in card:
        raise ModelError(
            "The card of {weights} does not say its architecture: one of {choices}.",
            weights=weights,
            choices=", ".join(architectures()),
        )
    known = _card(weights.stem, card | {"sha256": ""}, weights)
    validate_state_dict(read(weights), known.architecture, known.config, str(weights))
    target = (folder or next(f for f in folders() if f != SHIPPED)) / weights.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.resolve() != weights.resolve():
        with _whole(target) as temporary:
            shutil.copyfile(weights, temporary)
    write_card(target, card)
    return target


@contextlib.contextmanager
def _whole(path: Path):
    """A temporary name beside `path`, renamed to it at the end; after an error nothing is left."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def fetch(
    name: str,
    source: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    any_version: bool = False,
) -> Path:
    """Bring a published checkpoint here as safetensors, its card and its terms beside it; returns the file.

    source       a file that the user has, instead of a download; it is read, never changed
    progress     called with bytes here and bytes in all
    any_version  take a file of another sha256 than the published one (newer links hand out others); it must still be
                 tensors of the right network, and the card says which file it was
    Raises ModelError; then nothing is left in the cache but, after a broken connection, the part to go on from.
    """
    from filelock import FileLock, Timeout
    from safetensors import SafetensorError

    table = sources()
    if name not in table:
        raise ModelError(
            "{name!r} is not a published checkpoint: fetch knows {choices}.", name=name, choices=", ".join(table)
        )
    published, folder = table[name], cache_dir() / "weights"
    target, part = folder / f"{name}.safetensors", folder / f"{name}.part"
    if source is not None and not source.is_file():
        raise ModelError(
            "There is no file {source}: give --from the path of the {name} that you downloaded.",
            source=source,
            name=name,
        )
    try:
        (cache_dir() / "locks").mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(cache_dir() / "locks" / f"{name}.lock", timeout=0):
            if source is not None:
                _convert(name, published, source, str(source), target, any_version)
                return target
            if here := _usable(name):
                return here
            _first_good(name, published, part, progress, target, any_version)
            return target
    except Timeout as error:
        raise ModelError("{name} is being fetched by another process: wait for it to finish.", name=name) from error
    except (OSError, SafetensorError) as error:
        raise ModelError(
            "{name} could not be stored in {folder}: {error}.", name=name, folder=folder, error=error
        ) from error


def _first_good(
    name: str,
    published: Source,
    part: Path,
    progress: Callable[[int, int], None] | None,
    target: Path,
    any_version: bool,
) -> None:
    """Bring the file from the first address that has it. Raises ModelError that says what each of them gave."""
    if not published.urls:
        raise ModelError("{name} has no direct address: {how}.", name=name, how=by_hand(name, published))
    said = []
    for url in published.urls:
        try:
            download(name, published, url, part, progress)
            try:
                _convert(name, published, part, url, target, any_version)
            finally:
                part.unlink(missing_ok=True)
            return
        except ModelError as error:
            said.append(error.message)
    if len(said) == 1:
        raise ModelError(said[0])
    each = Message.join(" ", (Message("({n}) {why}", n=n, why=why) for n, why in enumerate(said, 1)))
    raise ModelError("None of {count} addresses has {name}. {each}", count=len(said), name=name, each=each)


def _usable(name: str) -> Path | None:
    """The file of a checkpoint that is here and whole."""
    card = cards()[name]
    try:
        _verified(card)
    except ModelError:
        return None
    return card.path


def _convert(name: str, published: Source, raw: Path, where: str, target: Path, any_version: bool) -> None:
    """The foreign file `raw`, called `where`, checked, to safetensors with terms and card. Leaves all or nothing."""
    from safetensors.torch import save_file

    refuse_unreadable(raw, where)
    size, measured = raw.stat().st_size, file_sha256(raw)
    if measured != published.sha256 and not any_version:
        raise ModelError(
            "{where} is not the published {name}: it has {size} bytes, sha256 {measured}…, not {bytes} bytes, "
            "{wanted}…; {how}, with --any-version if you trust another version.",
            where=where,
            name=name,
            size=size,
            measured=measured[:12],
            bytes=published.bytes,
            wanted=published.sha256[:12] or "none stated",
            how=by_hand(name, published),
        )
    state = validate_state_dict(read_foreign(raw, where), published.architecture, published.config, where)
    state = {key: value.clone() for key, value in state.items()}  # safetensors wants no shared memory
    facts = _facts(published)
    if measured != published.sha256:
        facts["published"] = {"bytes": size, "sha256": measured, "url": "", "note": "another version, taken on trust"}
    with (
        _whole(target.with_suffix(".json")) as card,
        _whole(target.with_suffix(".LICENSE.txt")) as terms,
        _whole(target) as weights,
    ):  # renamed from the last to the first, so that the card never stands alone
        save_file(state, weights, metadata={"format": "pt"})
        terms.write_text(f"{name}\n{published.page}\n\n{published.terms}\n", encoding="utf-8")
        card.write_text(_described(name, weights, facts), encoding="utf-8")


def table() -> list[dict[str, str]]:
    """What `python -m lipsync models` prints, a row a checkpoint: name, architecture, size, licence, origin, here."""
    return [
        {
            "name": card.name,
            "architecture": " ".join([card.architecture, *(f"{k}={v}" for k, v in card.config.items())]),
            "size": f"{card.size_bytes / 1e6:.1f} MB",
            "licence": card.licence,
            "origin": card.origin,
            "here": "yes" if card.path else "no",
        }
        for card in cards().values()
    ]
