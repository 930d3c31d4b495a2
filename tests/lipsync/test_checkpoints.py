"""The registry: cards, loading, fetching from a local server, foreign and hostile files, packed weights."""

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from lipsync.checkpoints import registry as checkpoints
from lipsync.checkpoints.download import SOURCES
from lipsync.checkpoints.quantize import pack, unpack
from lipsync.errors import Cancelled, ModelError
from lipsync.geometry import CropRule
from lipsync.models.base import open_model
from lipsync.networks.wav2lip import Wav2Lip

NAME = "tiny"
BASE = 2


def tiny_state(width: int = BASE) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return Wav2Lip(width).state_dict()


def as_published(state: dict[str, torch.Tensor], **form: bool) -> bytes:
    """A .pth as Wav2Lip's: the weights under `state_dict` with `module.` before the names, and other things beside."""
    buffer = io.BytesIO()
    wrapped = {"state_dict": {f"module.{k}": v for k, v in state.items()}, "global_step": 7, "optimizer": None}
    torch.save(wrapped, buffer, **form)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def published() -> bytes:
    return as_published(tiny_state())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; no folders or sources of the user's own."""
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LIPSYNC_WEIGHTS", raising=False)
    monkeypatch.delenv("LIPSYNC_SOURCES", raising=False)
    return tmp_path / "cache"


class Server:
    """A file server on this machine that can misbehave; `asked` are the Range headers it saw."""

    def __init__(self) -> None:
        self.body = b""
        self.ranges = True
        self.drop_at: list[int] = []  # each answer ends after so many bytes of the file, in turn
        self.status = 0
        self.asked: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers.get("Range")
                outer.asked.append(asked)
                if outer.status:
                    self.send_error(outer.status)
                    return
                first = int(asked.removeprefix("bytes=").rstrip("-")) if asked and outer.ranges else 0
                if first and first >= len(outer.body):
                    self.send_error(416)
                    return
                self.send_response(206 if first else 200)
                self.send_header("Content-Length", str(len(outer.body) - first))
                self.end_headers()
                stop = outer.drop_at.pop(0) if outer.drop_at else len(outer.body)
                self.wfile.write(outer.body[first:stop])

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/tiny.pth"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def offered(cache: Path, tmp_path: Path, server: Server, published: bytes, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server that hands out the checkpoint `tiny`, which the table of sources names."""
    server.body = published
    entry = {
        "architecture": "wav2lip",
        "config": {"width": BASE},
        "page": "https://example.org/tiny",
        "licence": "made here",
        "terms": "Use it for tests.",
        "url": server.url,
        "bytes": len(published),
        "sha256": hashlib.sha256(published).hexdigest(),
        "crop": {"x": ["cx - 0.5 s", "cx + 0.5 s"], "y": ["cy - 0.5 s", "cy + 0.5 s"]},
    }
    table = tmp_path / "sources.json"
    table.write_text(json.dumps({NAME: entry}))
    monkeypatch.setenv("LIPSYNC_SOURCES", str(table))
    return server


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["refuses", "lies", "is short", "is a page", "is cut", "is gone"])
def test_the_next_address_is_asked_where_one_has_not_the_file(offered, tmp_path, cache, wrong):
    """The first address fails in its own way, the second has the published file."""
    bad, table = Server(), tmp_path / "sources.json"
    bad.body = {
        "lies": offered.body[:-1] + bytes([offered.body[-1] ^ 1]),
        "is short": offered.body[:-100],
        "is a page": b"<!doctype html>" + b" " * (len(offered.body) - 15),
        "is cut": offered.body,
    }.get(wrong, b"")
    bad.status = 403 if wrong == "refuses" else 0
    bad.drop_at = [1000] * 3 if wrong == "is cut" else []
    entry = json.loads(table.read_text())[NAME]
    first = bad.url if wrong != "is gone" else "http://127.0.0.1:1/tiny.pth"
    table.write_text(json.dumps({NAME: entry | {"url": [first, offered.url]}}))
    try:
        path = checkpoints.fetch(NAME)
    finally:
        bad.close()
    assert path.is_file() and NAME in checkpoints.cards() and not list((cache / "weights").glob("*.part"))


def test_where_no_address_has_the_file_each_is_named(offered, tmp_path, cache):
    table = tmp_path / "sources.json"
    entry = json.loads(table.read_text())[NAME]
    offered.status = 404
    table.write_text(json.dumps({NAME: entry | {"url": [offered.url, f"{offered.url}?2"]}}))
    with pytest.raises(ModelError, match=r"None of 2 addresses has tiny\. \(1\) .*404.* \(2\) .*\?2"):
        checkpoints.fetch(NAME)
    assert left_in(cache) == []


def left_in(cache: Path) -> list[str]:
    return sorted(p.name for p in (cache / "weights").glob("*")) if cache.exists() else []


# What is shipped


@pytest.mark.slow
def test_a_shipped_model_is_listed_and_loads(cache: Path) -> None:
    card = checkpoints.cards()["wav2lip-lab"]
    assert (card.architecture, card.config["width"], card.mel_start_frames) == ("wav2lip", 8, -1)
    assert card.licence == "research use only"
    assert card.mel_start_columns == 1 == open_model(card.name, "torch").audio.start_columns  # a lag that was measured
    assert CropRule.from_card(card.crop) == CropRule()
    assert card.size_bytes == checkpoints.find(card.name).stat().st_size
    network = checkpoints.load(card.name)
    assert not network.training
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert card.size_bytes < 10e6  # packed, int8


def test_every_shipped_file_is_the_one_its_card_describes(cache: Path) -> None:
    shipped = [card for card in checkpoints.cards().values() if card.path]
    assert shipped
    for card in shipped:
        assert checkpoints.sha256(card.name) == card.sha256


def test_published_files_are_listed_though_not_here(cache: Path) -> None:
    rows = {row["name"]: row for row in checkpoints.table()}
    assert set(SOURCES) < set(rows)
    assert rows["wav2lip"] == {
        "name": "wav2lip",
        "architecture": "wav2lip width=16",
        "size": "435.8 MB",
        "licence": "research, academic and personal use only",
        "origin": SOURCES["wav2lip"].page,
        "here": "no",
    }
    assert rows["wav2lip-lab"]["here"] == "yes"
    card = checkpoints.cards()["wav2lip-gan"]
    assert card.mel_start_frames == 0 and CropRule.from_card(card.crop).bottom == 0.55
    with pytest.raises(ModelError, match="python -m lipsync fetch s3fd"):
        checkpoints.find("s3fd")
    with pytest.raises(ModelError, match="no checkpoint named 'nobody'.*wav2lip-lab"):
        checkpoints.load("nobody")


@pytest.mark.slow
def test_listing_loads_neither_torch_nor_openvino(cache: Path) -> None:
    code = (
        "import sys; from lipsync.checkpoints import registry as c; c.table(); assert 'torch' not in sys.modules; "
        "c.load('wav2lip-lab'); assert not {'openvino', 'librosa', 'av'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ, cwd=Path(__file__).parents[2])


# The user's own


@pytest.mark.slow
@pytest.mark.parametrize("form", [None, "bf16", "int8"])
def test_a_registered_checkpoint_is_offered_and_loads(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str | None
) -> None:
    monkeypatch.setenv("LIPSYNC_WEIGHTS", os.pathsep.join([str(tmp_path / "mine"), str(tmp_path / "more")]))
    state = tiny_state()
    save_file(pack(state, form) if form else state, tmp_path / "my-model.safetensors")
    card = {
        "architecture": "wav2lip",
        "config": {"width": BASE},
        "licence": "mine",
        "input": {"mel_start_frames": -1, "mel_start_columns": 1.5},
        "loss": 0.5,
    }
    path = checkpoints.register(tmp_path / "my-model.safetensors", card)
    assert path == tmp_path / "mine" / "my-model.safetensors" == checkpoints.find("my-model")
    found = checkpoints.cards()["my-model"]
    assert (found.licence, found.mel_start_frames, found.facts["loss"]) == ("mine", -1, 0.5)
    assert found.mel_start_columns == 1.5
    weights = checkpoints.load("my-model").state_dict()
    for key, value in state.items():
        bound = {None: 0.0, "bf16": 2**-8, "int8": 0.5 / 127}[form] * float(value.abs().max()) + 1e-7
        assert weights[key].dtype == value.dtype
        assert float((weights[key] - value).abs().max()) <= bound
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == ["my-model.json", "my-model.safetensors"]


def test_registering_a_foreign_network_is_refused(cache: Path, tmp_path: Path) -> None:
    save_file(tiny_state(), tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="another network than wav2lip {'width': 4}.*not"):
        checkpoints.register(tmp_path / "other.safetensors", {"architecture": "wav2lip", "config": {"width": 4}})
    with pytest.raises(ModelError, match="another network than sfd"):
        checkpoints.register(tmp_path / "other.safetensors", {"architecture": "sfd"})
    with pytest.raises(ModelError, match="'magic'; this version knows wav2lip"):
        checkpoints.register(tmp_path / "other.safetensors", {"architecture": "magic"})
    with pytest.raises(ModelError, match="does not say its architecture"):
        checkpoints.register(tmp_path / "other.safetensors", {})
    (tmp_path / "Bad Name.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="named like"):
        checkpoints.register(tmp_path / "Bad Name.safetensors", {"architecture": "wav2lip"})
    assert not cache.exists()


@pytest.mark.slow
def test_an_altered_file_does_not_load(cache: Path, tmp_path: Path) -> None:
    save_file(tiny_state(), tmp_path / "mine.safetensors")
    path = checkpoints.register(tmp_path / "mine.safetensors", {"architecture": "wav2lip", "config": {"width": BASE}})
    checkpoints.load("mine")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not the file its card describes"):
        checkpoints.load("mine")


def test_weights_that_are_not_numbers_do_not_load(cache: Path, tmp_path: Path) -> None:
    state = tiny_state()
    state["output_block.1.bias"][0] = float("nan")
    save_file(state, tmp_path / "mine.safetensors")
    with pytest.raises(ModelError, match="output_block.1.bias holds values that are not numbers"):
        checkpoints.register(tmp_path / "mine.safetensors", {"architecture": "wav2lip", "config": {"width": BASE}})


def test_a_broken_card_hides_only_itself(cache: Path, tmp_path: Path, monkeypatch, caplog) -> None:
    for name, text in {"a": "{", "b": "[]", "c": '{"architecture": "wav2lip"}', "d": '{"architecture": 1}'}.items():
        (tmp_path / f"{name}.json").write_text(text)
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    (tmp_path / "report.json").write_text("not a card: no weights beside it")
    monkeypatch.setenv("LIPSYNC_WEIGHTS", str(tmp_path))
    assert not {"a", "b", "c", "d", "report"} & set(checkpoints.cards())
    assert "wav2lip-lab" in checkpoints.cards()
    assert len({record.getMessage() for record in caplog.records}) == 4


# Fetching


@pytest.mark.slow
def test_fetch_downloads_converts_and_keeps_the_terms(cache: Path, offered: Server) -> None:
    seen: list[tuple[int, int]] = []
    assert checkpoints.table()[-1]["here"] == "no"
    path = checkpoints.fetch(NAME, progress=lambda done, total: seen.append((done, total)))
    assert left_in(cache) == [f"{NAME}.LICENSE.txt", f"{NAME}.json", f"{NAME}.safetensors"]
    assert "Use it for tests." in (cache / "weights" / f"{NAME}.LICENSE.txt").read_text()
    assert seen[-1] == (len(offered.body), len(offered.body)) and seen == sorted(seen)
    card = checkpoints.cards()[NAME]
    assert card.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert card.facts["published"]["sha256"] == hashlib.sha256(offered.body).hexdigest()
    state = checkpoints.load(NAME).state_dict()
    assert all(torch.equal(state[key], value) for key, value in tiny_state().items())
    assert checkpoints.fetch(NAME) == path and len(offered.asked) == 1  # it is here: nobody is asked again
    path.write_bytes(b"damaged")
    assert checkpoints.fetch(NAME) == path and checkpoints.sha256(NAME) == card.sha256


@pytest.mark.slow
def test_a_broken_connection_is_gone_on_with(cache: Path, offered: Server) -> None:
    offered.drop_at = [1000, 5000]
    checkpoints.fetch(NAME)
    assert offered.asked == [None, "bytes=1000-", "bytes=5000-"]
    checkpoints.load(NAME)


@pytest.mark.slow
def test_what_came_is_kept_for_the_next_command(cache: Path, offered: Server) -> None:
    offered.drop_at = [1000, 2000, 3000]
    with pytest.raises(ModelError, match="go on from 3000 bytes, or get the file from https://example.org/tiny"):
        checkpoints.fetch(NAME)
    assert left_in(cache) == [f"{NAME}.part"]
    checkpoints.fetch(NAME)
    assert offered.asked[-1] == "bytes=3000-"
    checkpoints.load(NAME)


def test_a_cancelled_download_goes_on_later(cache: Path, offered: Server) -> None:
    def cancel(done: int, total: int) -> None:
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        checkpoints.fetch(NAME, progress=cancel)
    assert left_in(cache) == [f"{NAME}.part"]
    checkpoints.fetch(NAME)


@pytest.mark.slow
def test_a_server_without_ranges_starts_over(cache: Path, offered: Server) -> None:
    offered.ranges = False
    offered.drop_at = [1000]
    checkpoints.fetch(NAME)
    assert offered.asked == [None, "bytes=1000-"]
    checkpoints.load(NAME)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda body: body[:-1] + bytes([body[-1] ^ 1]), "is not the published tiny: it has"),
        (lambda body: body[: len(body) // 2], "gives a file of .* bytes where the published tiny has"),
        (lambda body: body + b"more", "gives a file of .* bytes"),
        (lambda body: b"<!DOCTYPE html>".ljust(len(body)), "is a web page, not a checkpoint"),
    ],
)
def test_another_file_than_the_published_one_is_refused(cache: Path, offered: Server, change, words: str) -> None:
    offered.body = change(offered.body)
    with pytest.raises(ModelError, match=words):
        checkpoints.fetch(NAME)
    assert left_in(cache) == []


@pytest.mark.slow
def test_a_stale_part_does_not_stand_in_the_way(cache: Path, offered: Server) -> None:
    (cache / "weights").mkdir(parents=True)
    (cache / "weights" / f"{NAME}.part").write_bytes(b"x" * (len(offered.body) + 5))
    with pytest.raises(ModelError, match="not the published"):
        checkpoints.fetch(NAME)
    assert left_in(cache) == []
    checkpoints.fetch(NAME)


@pytest.mark.slow
def test_offline_and_missing_files_are_one_sentence(cache: Path, offered: Server) -> None:
    offered.status = 404
    with pytest.raises(ModelError, match="404.*fetch tiny --from PATH") as refused:
        checkpoints.fetch(NAME)
    assert len(offered.asked) == 1 and "\n" not in str(refused.value)
    offered.close()
    with pytest.raises(ModelError, match=r"could not be fetched from .*fetch tiny --from PATH`\.$") as refused:
        checkpoints.fetch(NAME)
    assert "\n" not in str(refused.value)
    assert left_in(cache) == []


def test_a_checkpoint_without_an_address_says_where_to_go(cache: Path, tmp_path, monkeypatch) -> None:
    (tmp_path / "sources.json").write_text('{"wav2lip": {"url": ""}}')
    monkeypatch.setenv("LIPSYNC_SOURCES", str(tmp_path / "sources.json"))
    with pytest.raises(ModelError, match="wav2lip has no direct address.*github.com.*--from PATH"):
        checkpoints.fetch("wav2lip")
    with pytest.raises(ModelError, match="'nobody' is not a published checkpoint: fetch knows wav2lip,"):
        checkpoints.fetch("nobody")
    assert left_in(cache) == []


@pytest.mark.slow
def test_two_fetches_at_once_do_not_mix(cache: Path, offered: Server) -> None:
    (cache / "locks").mkdir(parents=True)
    with FileLock(cache / "locks" / f"{NAME}.lock"), pytest.raises(ModelError, match="by another process"):
        checkpoints.fetch(NAME)
    assert offered.asked == []
    checkpoints.fetch(NAME)


def test_a_full_or_closed_disk_is_a_sentence(cache: Path, offered: Server) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.raises(ModelError, match="tiny could not be stored in"):
        checkpoints.fetch(NAME)


# Files that the user has


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.slow
def test_from_takes_the_published_file(cache: Path, offered: Server, tmp_path: Path) -> None:
    path = write(tmp_path / "wav2lip.pth", offered.body)
    checkpoints.fetch(NAME, source=path)
    assert offered.asked == [] and path.read_bytes() == offered.body
    checkpoints.load(NAME)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zip", "older", "plain", "safetensors", "half", "shared", "without counters"])
def test_from_takes_other_versions_on_trust_only(cache: Path, offered: Server, tmp_path: Path, kind: str) -> None:
    state, path = tiny_state(), tmp_path / "other.bin"
    if kind == "half":
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    if kind == "shared":
        state["output_block.1.bias"] = state["output_block.1.weight"].flatten()[:3]
    if kind == "without counters":
        state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "plain":
        torch.save(state, path)
    else:
        path.write_bytes(as_published(state, _use_new_zipfile_serialization=kind != "older"))
    if kind == "zip":
        torch.save({"model": state, "epoch": 3}, path)
    with pytest.raises(ModelError, match="is not the published tiny.*--any-version"):
        checkpoints.fetch(NAME, source=path)
    assert left_in(cache) == []
    checkpoints.fetch(NAME, source=path, any_version=True)
    loaded = checkpoints.load(NAME).state_dict()
    assert all(torch.equal(loaded[k], v.to(loaded[k].dtype)) for k, v in state.items())
    note = checkpoints.cards()[NAME].facts["published"]
    assert note["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest() and "trust" in note["note"]


class Trap:
    """What a hostile checkpoint holds: something that runs when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.mark}",)


def torchscript() -> bytes:
    """An archive laid out as TorchScript's are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"wav2lip/{name}", b"x")
    return buffer.getvalue()


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\0" * 1_000_000)
    return buffer.getvalue()


def torch_bytes(value: object, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


HOSTILE = {
    "trap": (lambda mark: torch_bytes({"state_dict": Trap(mark)}), r"holds more than tensors \(.*system\)"),
    "old trap": (lambda mark: torch_bytes({"a": Trap(mark)}, zipped=False), "holds more than tensors"),
    "bare trap": (lambda mark: pickle.dumps(Trap(mark)), "cut short, damaged or no checkpoint|more than tensors"),
    "cut archive": (lambda mark: as_published(tiny_state())[:20_000], "is cut short or damaged"),
    "cut pickle": (lambda mark: torch_bytes(tiny_state(), zipped=False)[:20_000], "cut short, damaged or no"),
    "cut safetensors": (lambda mark: b"\xff\0\0\0\0\0\0\0{" + b" " * 300, "cut short, damaged or no checkpoint"),
    "empty": (lambda mark: b"", "cut short, damaged or no checkpoint"),
    "noise": (lambda mark: os.urandom(5000), "cut short, damaged or no checkpoint"),
    "page": (lambda mark: b"\n<html><body>Sign in</body></html>", "is a web page"),
    "torchscript": (lambda mark: torchscript(), r"TorchScript program.*torch\.jit\.load.*--from and --any-version"),
    "bomb": (lambda mark: bomb(), "an archive that torch did not write"),
    "list": (lambda mark: torch_bytes([torch.zeros(3)]), "holds no named tensors"),
    "no tensors": (lambda mark: torch_bytes({"a": 1}), "holds no named tensors"),
    "sparse": (lambda mark: torch_bytes({"a": torch.zeros(3, 3).to_sparse()}), "holds no named tensors"),
    "other network": (lambda mark: torch_bytes({"a": torch.zeros(3)}), "belongs to another network"),
    "other width": (
        lambda mark: as_published(tiny_state(width=3)),
        "belongs to another network than wav2lip {'width': 2}",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_foreign_and_hostile_files_are_refused_and_not_run(
    cache: Path, offered: Server, tmp_path: Path, kind: str
) -> None:
    make, words = HOSTILE[kind]
    mark = tmp_path / "the-trap-ran"
    path = write(tmp_path / "file.pth", make(mark))
    with pytest.raises(ModelError, match=words) as refused:
        checkpoints.fetch(NAME, source=path, any_version=True)
    assert "\n" not in str(refused.value) and str(path) in str(refused.value)
    with pytest.raises(ModelError):
        checkpoints.fetch(NAME, source=path)
    assert not mark.exists()
    assert left_in(cache) == []
    assert path.exists()


def test_the_trap_is_a_real_one(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


def test_from_names_a_file_that_is_missing(cache: Path, offered: Server, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no file .*nowhere.pth"):
        checkpoints.fetch(NAME, source=tmp_path / "nowhere.pth")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be used"),
        ('{"wav2lip": {"adress": "x"}}', "wav2lip has no field 'adress': choose from architecture"),
        ('{"wav2lip": {"bytes": "many"}}', "bytes of wav2lip cannot be 'many'"),
        ('{"new": {"url": "https://example.org"}}', "missing .* required"),
        ('{"../up": {}}', "is no name"),
        ("[]", "cannot be used"),
    ],
)
def test_a_wrong_table_of_sources_is_a_sentence(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    monkeypatch.setenv("LIPSYNC_SOURCES", str(write(tmp_path / "sources.json", text.encode())))
    with pytest.raises(ModelError, match=words):
        checkpoints.cards()


def test_an_address_can_be_overridden_alone(cache: Path, tmp_path: Path, server: Server, monkeypatch) -> None:
    table = write(tmp_path / "sources.json", json.dumps({"s3fd": {"url": server.url}}).encode())
    monkeypatch.setenv("LIPSYNC_SOURCES", str(table))
    server.body = b"not it"
    with pytest.raises(ModelError, match="gives a file of 6 bytes where the published s3fd has 89844381"):
        checkpoints.fetch("s3fd")


# Packed weights


@given(st.integers(0, 2**31), st.sampled_from([(3, 4), (5, 2, 3, 3), (1, 7), (4, 3, 1, 5, 5)]), st.floats(1e-3, 1e3))
@settings(max_examples=30, deadline=None)
def test_packed_weights_stay_within_their_bounds(seed: int, shape: tuple[int, ...], size: float) -> None:
    weight = size * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    half = unpack(pack({"w.weight": weight}, "bf16"))["w.weight"]
    assert bool(((half - weight).abs() <= 2**-8 * weight.abs()).all())
    packed = pack({"w.weight": weight}, "int8")
    scale = packed["w.weight.scale"]
    assert packed["w.weight.int8"].dtype == torch.int8
    error = (unpack(packed)["w.weight"] - weight).abs()
    assert bool((error <= 0.5 * scale * (1 + 1e-5)).all())


@pytest.mark.slow
def test_int8_is_a_quarter_and_takes_the_better_axis() -> None:
    state = tiny_state(width=4)
    size = {form: sum(v.nbytes for v in pack(state, form).values()) for form in ("bf16", "int8")}
    whole = sum(v.nbytes for v in state.values())
    assert size["bf16"] < 0.53 * whole and size["int8"] < 0.29 * whole
    loud_outputs = torch.randn(6, 4, 3, 3) * torch.tensor([1.0, 10, 100, 1000])[None, :, None, None]
    assert pack({"deconv.weight": loud_outputs}, "int8")["deconv.weight.scale"].shape == (1, 4, 1, 1)


def test_zero_channels_small_tensors_and_counters_survive_packing() -> None:
    state = {"w": torch.zeros(3, 4), "b": torch.randn(3), "n": torch.tensor(5)}
    for form in ("bf16", "int8"):
        back = unpack(pack(state, form))
        assert all(torch.equal(back[key], value) and back[key].dtype == value.dtype for key, value in state.items())
    with pytest.raises(ValueError, match="bf16 or int8, not as 'int4'"):
        pack(state, "int4")


def test_half_a_pair_is_refused() -> None:
    packed = pack({"w": torch.randn(3, 4)}, "int8")
    with pytest.raises(ValueError, match="w.int8 has no w.scale"):
        unpack({"w.int8": packed["w.int8"]})
    with pytest.raises(ValueError, match="does not fit"):
        unpack({"w.int8": packed["w.int8"], "w.scale": torch.ones(3, 4, 2)})
