"""Labels: the stamp, the tags, and signatures that are really tampered with."""

import json
import os
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import av
import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from lipsync.errors import InputError, LabelError
from lipsync.label import manifest as label
from lipsync.label.keys import ORGANISATION, check_keys_apart, keys_dir, load_signer, make_signer, trust
from lipsync.label.manifest import Stamp, Status, describe, sign, tags, verify

SHA256 = "ab" * 32


@pytest.fixture(autouse=True)
def keys(tmp_path, monkeypatch):
    """A home of keys for each test, and no operator's settings."""
    for name in ("LIPSYNC_SIGN_CHAIN", "LIPSYNC_SIGN_KEY", "LIPSYNC_TSA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LIPSYNC_KEYS", str(tmp_path / "keys"))
    return tmp_path / "keys"


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("media") / "plain.mp4"
    _write(path, np.random.default_rng(0).integers(0, 255, (25, 96, 128, 3), np.uint8))
    return path


@pytest.fixture
def signed(plain, tmp_path) -> Path:
    out = tmp_path / "signed.mp4"
    sign(plain, out, source=plain, model="wav2lip-test", checkpoint_sha256=SHA256)
    return out


def _write(path: Path, frames: np.ndarray, codec: str = "libx264") -> None:
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        container.metadata.update(tags("wav2lip-test"))
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def _boxes(data: bytes) -> dict[bytes, int]:
    """Top-level boxes of an MP4 and where they start."""
    found, at = {}, 0
    while at < len(data):
        found[data[at + 4 : at + 8]] = at
        at += int.from_bytes(data[at : at + 4], "big")
    return found


def _flip(path: Path, at: int) -> None:
    """Change one bit of a file."""
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def _crash_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label, "WORKER", "tests.helpers.sandbox_jobs")


# The stamp ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(256, 256), (576, 768), (1280, 720), (3840, 2160), (255, 301), (64, 48), (7, 5)])
def test_stamp_changes_only_its_region(size):
    width, height = size
    frame = np.random.default_rng(1).integers(0, 255, (height, width, 3), np.uint8)
    before, stamp = frame.copy(), Stamp(width, height)
    stamp.apply(frame)
    x0, y0, x1, y1 = stamp.region
    assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
    changed = (frame != before).any(2)
    assert changed[y0:y1, x0:x1].any()
    changed[y0:y1, x0:x1] = False
    assert not changed.any()


@pytest.mark.parametrize("size", [(256, 256), (576, 768), (1920, 1080), (3840, 2160)])
def test_stamp_is_small_and_readable(size):
    width, height = size
    for background in (0, 128, 255):
        frame = np.full((height, width, 3), background, np.uint8)
        stamp = Stamp(width, height)
        stamp.apply(frame)
        x0, y0, x1, y1 = stamp.region
        assert 10 <= y1 - y0 <= max(0.036 * height, 14)
        part = frame[y0:y1, x0:x1].astype(int)
        assert part.max() - np.median(part) > 140  # white on dark, on any background


def test_stamp_is_cheap():
    frame, stamp = np.zeros((2160, 3840, 3), np.uint8), Stamp(3840, 2160)
    times = []
    for _ in range(50):
        began = time.perf_counter()
        stamp.apply(frame)
        times.append(time.perf_counter() - began)
    assert min(times) < 0.3e-3


def test_stamp_takes_the_corner_without_a_face():
    stamp = Stamp(640, 480)
    assert stamp.place(np.empty((0, 4)))[:2] > (320, 240)  # bottom right
    low = np.array([[300.0, 200, 640, 480]])
    x0, y0, x1, y1 = stamp.place(low)
    assert x1 < 300 and y0 > 240  # bottom left
    wide = np.concatenate([low, [[0.0, 240, 400, 480]], [[np.nan] * 4]])
    x0, y0, x1, y1 = stamp.place(wide)
    assert x0 > 320 and y1 < 200  # top right
    assert stamp.region == (x0, y0, x1, y1)
    everywhere = np.array([[0.0, 0, 640, 480], [0, 0, 640, 240], [320, 240, 640, 480]])
    assert stamp.place(everywhere)[0] < 320 and stamp.region[1] > 240  # the least covered one


# Signing ------------------------------------------------------------------------------------------------------------


def test_tags_survive_in_the_container(plain):
    with av.open(str(plain)) as container:
        assert container.metadata["title"] == "AI lip-synced video"
        assert "wav2lip-test" in container.metadata["comment"]
        assert label.SOURCE_TYPE in container.metadata["comment"]


def test_signed_is_intact_and_named(signed, plain):
    verdict = verify(signed)
    assert verdict.status is Status.INTACT and verdict.exit_code == 0
    assert (verdict.model, verdict.checkpoint_sha256) == ("wav2lip-test", SHA256)
    assert abs(datetime.now(UTC) - verdict.made_at) < timedelta(minutes=1)
    assert verdict.signer.startswith("Lipsync installation ")
    assert describe(verdict).startswith("Labelled and intact: AI lip-synced with wav2lip-test on ")
    assert verdict.signer in describe(verdict)
    assert np.array_equal(_decode(signed), _decode(plain))


def test_the_manifest_follows_the_rules_and_tells_no_names(plain, tmp_path):
    source, voice = tmp_path / "My private holiday.mp4", tmp_path / "Grandmother.wav"
    source.write_bytes(plain.read_bytes())
    voice.write_bytes(b"RIFF")
    out = tmp_path / "out.mp4"
    sign(plain, out, source=source, voices=[voice], model="m", checkpoint_sha256=SHA256)
    with c2pa.Reader(str(out)) as reader:
        manifest = reader.get_active_manifest()
    (actions,) = [a for a in manifest["assertions"] if a["label"] == "c2pa.actions.v2"]
    assert actions["created"]
    opened, edited, placed = actions["data"]["actions"]
    assert (opened["action"], edited["action"], placed["action"]) == ("c2pa.opened", "c2pa.edited", "c2pa.placed")
    assert edited["digitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")
    assert edited["softwareAgent"]["name"] == label.TOOL
    parent, component = manifest["ingredients"]
    assert (parent["relationship"], component["relationship"]) == ("parentOf", "componentOf")
    assert parent["instance_id"] == f"sha256:{label.hashlib.sha256(source.read_bytes()).hexdigest()}"
    assert "thumbnail" not in json.dumps(manifest)
    raw = out.read_bytes()
    for secret in (b"holiday", b"Grandmother", str(tmp_path).encode()):
        assert secret not in raw


def test_without_a_source_it_was_created(plain, tmp_path):
    out = tmp_path / "out.mp4"
    sign(plain, out, model="m", checkpoint_sha256=SHA256)
    assert verify(out).status is Status.INTACT


def test_failed_signing_leaves_nothing(tmp_path, monkeypatch, plain):
    (tmp_path / "no.mp4").write_bytes(b"not a video")
    with pytest.raises(LabelError, match="could not be signed"):
        sign(tmp_path / "no.mp4", tmp_path / "out.mp4", model="m", checkpoint_sha256=SHA256)
    monkeypatch.setenv("LIPSYNC_TSA", "http://127.0.0.1:9/")
    with pytest.raises(LabelError, match="unset LIPSYNC_TSA"):
        sign(plain, tmp_path / "out.mp4", model="m", checkpoint_sha256=SHA256)
    assert not (tmp_path / "out.mp4").exists()


@pytest.fixture
def large(tmp_path) -> Path:
    """A signed video whose last box holds 21 MB of noise, which is hashed in six chunks."""
    path, out = tmp_path / "large.mp4", tmp_path / "signed-large.mp4"
    _write(path, np.random.default_rng(0).integers(0, 255, (3, 96, 128, 3), np.uint8))
    data = path.read_bytes()
    at = _boxes(data)[b"mdat"]
    film = data[at + 8 :] + np.random.default_rng(1).bytes(21_000_000)
    path.write_bytes(data[:at] + (len(film) + 8).to_bytes(4, "big") + b"mdat" + film)
    sign(path, out, model="m", checkpoint_sha256=SHA256)
    return out


@pytest.mark.slow
def test_large_content_is_hashed_to_the_last_byte(large):
    data = large.read_bytes()
    at = _boxes(data)[b"mdat"]
    end = at + int.from_bytes(data[at : at + 4], "big")
    assert verify(large).status is Status.INTACT
    for place in (at + 8, at + 9_000_000, end - 1):
        _flip(large, place)
        assert verify(large).status is Status.ALTERED
        _flip(large, place)
    chunk = 4 << 20
    a, b = at + 16 + chunk, at + 16 + 2 * chunk
    large.write_bytes(data[:a] + data[b : b + chunk] + data[a:b] + data[b + chunk :])  # two chunks swapped
    assert verify(large).status is Status.ALTERED
    shorter = (end - at - chunk).to_bytes(4, "big")
    large.write_bytes(data[:at] + shorter + data[at + 4 : end - chunk] + data[end:])  # the last chunk left out
    assert verify(large).status is Status.ALTERED
    large.write_bytes(data + (1008).to_bytes(4, "big") + b"mdat" + bytes(1000))  # film added
    assert verify(large).status is Status.ALTERED


@pytest.mark.slow
def test_signing_and_verifying_do_not_hold_the_video_in_memory(plain, large, tmp_path):
    code = (
        "import resource, sys, lipsync.label.worker as n\n"
        "from lipsync.label.keys import load_signer; h = load_signer()\n"
        "h = h.algorithm, h.chain.decode(), h.key.decode(), None; out = sys.argv[3]; peaks = []\n"
        "a = {'action': 'c2pa.created', 'digitalSourceType': 'http://c2pa.org/digitalsourcetype/empty'}\n"
        "a = [{'label': 'c2pa.actions.v2', 'data': {'actions': [a]}}]\n"
        "for video in sys.argv[1:3]:\n"
        "    assert n.sign(video, out, {'assertions': a}, *h) == {} and 'active' in n.read(out, {})\n"
        "    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)\n"
        "print(peaks[1] - peaks[0])"
    )
    args = [sys.executable, "-c", code, plain, large, tmp_path / "again.mp4"]
    done = subprocess.run(args, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 15  # MB, for a file of 21


def test_a_crash_of_the_signing_child_leaves_nothing(plain, tmp_path, monkeypatch):
    _crash_children(monkeypatch)
    with pytest.raises(LabelError, match="could not be signed"):
        sign(plain, tmp_path / "out.mp4", model="m", checkpoint_sha256=SHA256)
    assert not (tmp_path / "out.mp4").exists()


# Tampering ----------------------------------------------------------------------------------------------------------


def test_any_flipped_byte_of_content_is_found(signed):
    size, boxes = signed.stat().st_size, _boxes(signed.read_bytes())
    for at in (boxes[b"mdat"] + 8, boxes[b"mdat"] + 900, size - 1, boxes[b"moov"] + 60):
        _flip(signed, at)
        verdict = verify(signed)
        assert verdict.status is Status.ALTERED and verdict.exit_code == 1
        assert verdict.model is None  # nothing in it can be believed any more
        _flip(signed, at)
    assert verify(signed).status is Status.INTACT


def test_a_forged_manifest_is_found(signed, tmp_path):
    """Another model's name in the manifest, same length: the claim no longer matches what was signed."""
    forged = tmp_path / "forged.mp4"
    forged.write_bytes(signed.read_bytes().replace(b"wav2lip-test", b"wav2lip-evil"))
    assert forged.read_bytes() != signed.read_bytes()
    assert verify(forged).status is Status.ALTERED


def test_frame_edit_under_the_old_label_is_found(signed, tmp_path):
    """The thief's way: edit frames, encode, and put the old manifest box back in its place."""
    frames = _decode(signed)
    frames[10:, 20:60, 20:60] = 0
    edited, data = tmp_path / "edited.mp4", signed.read_bytes()
    _write(edited, frames)
    assert verify(edited).status is Status.NOT_LABELLED
    new, at = edited.read_bytes(), _boxes(data)[b"uuid"]
    manifest = data[at : at + int.from_bytes(data[at : at + 4], "big")]
    edited.write_bytes(new[:at] + manifest + new[at:])
    assert verify(edited).status is Status.ALTERED


@pytest.mark.parametrize("damage", [lambda d: d + b"junkjunk", lambda d: d[:-3000], lambda d: d[: len(d) // 2]])
def test_cut_or_appended_is_altered(signed, tmp_path, damage):
    other = tmp_path / "damaged.mp4"
    other.write_bytes(damage(signed.read_bytes()))
    assert verify(other).status is Status.ALTERED


def test_remuxed_loses_the_label_but_may_keep_the_tags(signed, tmp_path):
    for name in ("remuxed.mp4", "remuxed.mkv"):
        other = tmp_path / name
        with av.open(str(signed)) as source, av.open(str(other), "w") as target:
            target.metadata.update(source.metadata)
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
        verdict = verify(other)
        assert verdict.status is Status.NOT_LABELLED and verdict.exit_code == 1
        assert "tags do say" in describe(verdict)


def test_not_labelled_and_not_a_video(plain, tmp_path):
    assert verify(plain).status is Status.NOT_LABELLED
    other = tmp_path / "list.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"list\.csv holds no label"):
        verify(other)
    other.write_bytes(b"")
    with pytest.raises(InputError, match=r"list\.csv"):
        verify(other)
    with pytest.raises(InputError, match="There is no file"):
        verify(tmp_path / "absent.mp4")


@pytest.mark.slow
def test_random_damage_gives_a_verdict_or_one_sentence(signed, tmp_path):
    data, rng, other = signed.read_bytes(), np.random.default_rng(3), tmp_path / "broken.mp4"
    for _ in range(12):
        broken = bytearray(data)
        for at in rng.integers(0, 12_000, 4):
            broken[at] = rng.integers(256)
        other.write_bytes(broken)
        try:
            assert verify(other).status in (Status.ALTERED, Status.NOT_LABELLED)
        except InputError as error:
            assert "\n" not in str(error)


def test_a_crash_or_a_stall_of_the_child_is_one_sentence(signed, monkeypatch):
    monkeypatch.setattr(label, "READ_S", 0.0)
    with pytest.raises(InputError, match="needs more time"):
        verify(signed)
    monkeypatch.undo()
    _crash_children(monkeypatch)
    with pytest.raises(InputError, match="broke down"):
        verify(signed)


# Hands --------------------------------------------------------------------------------------------------------------


def test_another_hand_is_unknown_until_trusted(signed, keys, tmp_path, monkeypatch):
    monkeypatch.setenv("LIPSYNC_KEYS", str(tmp_path / "elsewhere"))
    verdict = verify(signed)
    assert verdict.status is Status.UNKNOWN and verdict.exit_code == 1
    assert verdict.signer in describe(verdict) and "trust list" in describe(verdict)
    assert not keys_dir().exists()  # looking makes no keys
    (keys_dir() / "trust").mkdir(parents=True)
    (keys_dir() / "trust" / "friend.pem").write_bytes((keys / "own" / "chain.pem").read_bytes())
    assert verify(signed).status is Status.INTACT
    (keys_dir() / "trust" / "friend.pem").write_text("nonsense")
    with pytest.raises(LabelError, match="not a certificate"):
        verify(signed)


def test_a_stranger_under_our_own_name_is_unknown(signed, plain, keys, tmp_path, monkeypatch):
    """Same names and number in the certificates, another key: names prove nothing."""
    real = x509.load_pem_x509_certificates((keys / "own" / "chain.pem").read_bytes())
    key, ca_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    chain = b""
    for old, own in zip(real, (key, ca_key), strict=True):
        fake = x509.CertificateBuilder(old.issuer, old.subject, own.public_key(), old.serial_number)
        fake = fake.not_valid_before(old.not_valid_before_utc).not_valid_after(old.not_valid_after_utc)
        for extension in old.extensions:
            fake = fake.add_extension(extension.value, extension.critical)
        chain += fake.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    _as_operator(tmp_path, monkeypatch, _pem(key), chain)
    out = tmp_path / "fake.mp4"
    sign(plain, out, model="m", checkpoint_sha256=SHA256)
    monkeypatch.delenv("LIPSYNC_SIGN_CHAIN")
    verdict = verify(out)
    assert verdict.signer == verify(signed).signer and verdict.status is Status.UNKNOWN


def test_operator_signs_with_own_certificate(plain, tmp_path, monkeypatch):
    _as_operator(tmp_path, monkeypatch, *make_signer(years=1))
    out = tmp_path / "out.mp4"
    sign(plain, out, model="m", checkpoint_sha256=SHA256)
    assert not (keys_dir() / "own").exists()
    assert verify(out).status is Status.INTACT
    assert x509.load_pem_x509_certificates(trust().hands.encode())  # the leaf alone is trusted, not who issued it
    assert not trust().authorities
    monkeypatch.delenv("LIPSYNC_SIGN_KEY")
    with pytest.raises(LabelError, match="both"):
        load_signer()


def test_keys_that_cannot_be_used_are_sentences(tmp_path, monkeypatch):
    key, chain = make_signer()
    _as_operator(tmp_path, monkeypatch, make_signer()[0], chain)
    with pytest.raises(LabelError, match="does not belong"):
        load_signer()
    _as_operator(tmp_path, monkeypatch, b"nonsense", chain)
    with pytest.raises(LabelError, match="not a private key"):
        load_signer()
    _as_operator(tmp_path, monkeypatch, key, b"nonsense")
    with pytest.raises(LabelError, match="not a certificate"):
        load_signer()
    _as_operator(tmp_path, monkeypatch, *make_signer(years=0.5 / 365))
    with pytest.raises(LabelError, match="renew it"):
        load_signer()
    _as_operator(tmp_path, monkeypatch, key, chain)
    (tmp_path / "operator.key").chmod(0o644)
    with pytest.raises(LabelError, match="can read the private key"):
        load_signer()


def test_own_keys_are_private_and_long_lived(keys):
    made = load_signer()
    assert "KEY" not in repr(made)
    assert stat.S_IMODE(keys.stat().st_mode) == stat.S_IMODE((keys / "own").stat().st_mode) == 0o700
    assert stat.S_IMODE((keys / "own" / "key.pem").stat().st_mode) == 0o600
    assert sorted(os.listdir(keys)) == ["own"]  # nothing half-made lies about; the authority's key is gone
    assert sorted(os.listdir(keys / "own")) == ["chain.pem", "key.pem"]
    leaf, authority = x509.load_pem_x509_certificates(made.chain)
    assert leaf.not_valid_after_utc - datetime.now(UTC) > timedelta(days=19.9 * 365.25)
    leaf.verify_directly_issued_by(authority)
    assert load_signer().chain == made.chain


@pytest.mark.slow
def test_processes_that_come_first_at_once_share_one_key(keys):
    code = (
        "from lipsync.label.keys import load_signer\n"
        "import hashlib; print(hashlib.sha256(load_signer().key).hexdigest())"
    )
    run = lambda _: subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout  # noqa: E731
    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(run, range(6)))) == 1
    assert sorted(os.listdir(keys)) == ["own"]


def test_an_unwritable_home_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LIPSYNC_KEYS", str(tmp_path / "file" / "keys"))
    with pytest.raises(LabelError, match="LIPSYNC_KEYS"):
        load_signer()


def test_expired_is_its_own_verdict(plain, keys, tmp_path):
    out = tmp_path / "expired.mp4"
    chain = _sign_long_ago(plain, out)
    verdict = verify(out)
    assert verdict.status is Status.UNKNOWN and "ended on 2020-01-02" in describe(verdict)
    (keys / "trust").mkdir(parents=True)
    (keys / "trust" / "old.pem").write_bytes(chain)
    verdict = verify(out)
    assert verdict.status is Status.EXPIRED and verdict.exit_code == 1
    assert describe(verdict).startswith("Expired but intact: AI lip-synced with old-model")
    assert "ended on 2020-01-02" in describe(verdict) and verdict.signer == "Old hand"
    _flip(out, out.stat().st_size - 1)
    assert verify(out).status is Status.ALTERED


def test_content_credentials_that_do_not_say_ai_are_no_label(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(label, "SOURCE_TYPE", label.IPTC + "digitalCapture")
    out = tmp_path / "camera.mp4"
    sign(plain, out, model="m", checkpoint_sha256=SHA256)
    verdict = verify(out)
    assert verdict.status is Status.NOT_LABELLED and "do not say" in describe(verdict)


# What else is in a label ---------------------------------------------------------------------------------------------


AI = [{"action": "c2pa.created", "digitalSourceType": label.SOURCE_TYPE, "parameters": {"model": "wav2lip-test"}}]
EDITED = [{"action": "c2pa.opened", "parameters": {"ingredientIds": ["in"]}}, {"action": "c2pa.color_adjustments"}]
PLACED = [
    {"action": "c2pa.created", "digitalSourceType": "http://c2pa.org/digitalsourcetype/empty"},
    {"action": "c2pa.placed", "parameters": {"ingredientIds": ["in"]}},
]


@pytest.fixture
def editor(keys):
    """An editing program whose hand is on the trust list here: (key, chain)."""
    key, chain = make_signer()
    (keys / "trust").mkdir(parents=True)
    (keys / "trust" / "editor.pem").write_bytes(chain)
    return key, chain


def _edit(
    video: Path,
    out: Path,
    by: tuple[bytes, bytes],
    actions: list[dict] = EDITED,
    made_from: Path | None = None,
    relationship: str = "parentOf",
    assertions: list[dict] = (),
    trusting: str = "",
    update: bool = False,
) -> Path:
    """Sign `video` as another program does, with `made_from` as its ingredient, whose label it checks when it opens it.

    trusting  authorities of the program's own trust list; update: only the label is new
    """
    actions = [{"label": "c2pa.actions.v2", "created": True, "data": {"actions": actions}}] if actions else []
    manifest = {"claim_generator_info": [{"name": "Editor", "version": "1"}], "assertions": [*actions, *assertions]}
    settings = {"builder": {"thumbnail": {"enabled": False}}, "verify": {"verify_after_sign": False}}
    settings["trust"] = {"anchors": [{"trust_kind": "manifest", "trust_anchors": trusting}]} if trusting else {}
    with (
        c2pa.Builder(manifest, context=c2pa.Context.from_dict(settings)) as builder,
        c2pa.Signer.from_info(c2pa.C2paSignerInfo("es256", by[1], by[0], None)) as signer,
        open(video, "rb") as plain,
        open(out, "w+b") as signed,
    ):
        if update:
            builder.set_intent(c2pa.C2paBuilderIntent.UPDATE)
        if made_from:
            with open(made_from, "rb") as file:
                builder.add_ingredient({"label": "in", "relationship": relationship}, "video/mp4", file)
        builder.sign(signer, "video/mp4", plain, signed)
    return out


@pytest.mark.parametrize(
    "code, altered",
    [
        ("assertion.action.ingredientMismatch", False),
        ("cawg.x509.credential.untrusted", False),
        ("cawg.identity.sig_type.unknown", False),
        ("ingredient.unknownProvenance", False),
        ("timeStamp.mismatch", False),
        ("timeStamp.untrusted", False),
        ("algorithm.deprecated", False),
        ("com.example.a.code.of.tomorrow", False),
        ("claimSignature.outsideValidity", False),
        ("assertion.bmffHash.mismatch", True),
        ("assertion.dataHash.mismatch", True),
        ("assertion.boxesHash.mismatch", True),
        ("assertion.hashedURI.mismatch", True),
        ("claimSignature.mismatch", True),
        ("claimSignature.missing", True),
        ("assertion.missing", True),
        ("claim.hardBindings.missing", True),
    ],
)
def test_only_a_hash_or_a_signature_that_does_not_fit_means_altered(signed, monkeypatch, code, altered):
    real = label._read

    def with_code(*arguments):
        found = real(*arguments)
        found["manifests"][found["active"]]["failure"].append(code)
        return found

    monkeypatch.setattr(label, "_read", with_code)
    verdict = verify(signed)
    assert (verdict.status is Status.ALTERED) == altered
    if code == "claimSignature.outsideValidity":
        assert verdict.status is Status.UNKNOWN  # a doubt of the signer
    elif not altered:
        assert verdict.status is Status.INTACT and verdict.exit_code == 0
        assert f"Not everything in the label could be confirmed ({code})." in describe(verdict)


def test_an_intact_file_with_a_faulty_action_is_intact(plain, editor, tmp_path):
    out = _edit(plain, tmp_path / "out.mp4", editor, [{"action": "c2pa.opened"}, *AI])
    verdict = verify(out)
    assert verdict.status is Status.INTACT and "assertion.action.ingredientMismatch" in describe(verdict)
    _flip(out, out.stat().st_size - 1)
    assert verify(out).status is Status.ALTERED


@pytest.mark.parametrize("knows_us", [False, True])
def test_our_result_edited_elsewhere_is_still_labelled(signed, plain, editor, tmp_path, knows_us):
    """Whether or not the editing program had us on its own trust list."""
    us = verify(signed).signer
    trusting = trust().authorities if knows_us else ""
    once = _edit(plain, tmp_path / "once.mp4", editor, made_from=signed, trusting=trusting)
    twice = _edit(plain, tmp_path / "twice.mp4", editor, made_from=once, trusting=trusting)
    for out in (once, twice):
        verdict = verify(out)
        assert verdict.status is Status.INTACT and verdict.exit_code == 0
        assert "made from a video that a label signed by" in describe(verdict)
        assert f"signed by {us} said to be AI lip-synced with wav2lip-test on " in describe(verdict)
        assert (verdict.model, verdict.checkpoint_sha256) == ("wav2lip-test", SHA256)
        assert verdict.signer != us and "this file is signed by" in describe(verdict)
        _flip(out, out.stat().st_size - 1)
        assert verify(out).status is Status.ALTERED


def test_our_result_placed_into_another_video_is_labelled(signed, plain, editor, tmp_path):
    out = _edit(plain, tmp_path / "out.mp4", editor, PLACED, signed, "componentOf")
    verdict = verify(out)
    assert verdict.status is Status.INTACT and "made with a video that a label signed by" in describe(verdict)


def test_an_untrusted_hand_gains_nothing_from_our_label_within_its_own(signed, plain, editor, tmp_path):
    stranger = make_signer()
    out = _edit(plain, tmp_path / "out.mp4", stranger, made_from=signed)
    verdict = verify(out)
    assert verdict.status is Status.UNKNOWN and "says it was made from a video that Lipsync" in describe(verdict)
    assert verdict.model is None  # who does not say it, does not vouch for it
    again = _edit(plain, tmp_path / "again.mp4", editor, made_from=out)
    verdict = verify(again)
    assert verdict.status is Status.NOT_LABELLED and "not on the trust list" in describe(verdict)


def test_a_source_that_was_altered_or_by_a_stranger_is_told_as_such(signed, plain, editor, tmp_path):
    theirs = _edit(plain, tmp_path / "theirs.mp4", make_signer(), AI)
    verdict = verify(_edit(plain, tmp_path / "a.mp4", editor, made_from=theirs))
    assert verdict.status is Status.NOT_LABELLED and "who is not on the trust list here" in describe(verdict)
    _flip(signed, signed.stat().st_size - 1)
    verdict = verify(_edit(plain, tmp_path / "b.mp4", editor, made_from=signed))
    assert verdict.status is Status.NOT_LABELLED and "did not fit its video any more" in describe(verdict)


def test_a_label_forged_inside_an_editors_label_is_found(signed, plain, editor, tmp_path):
    out = _edit(plain, tmp_path / "out.mp4", editor, made_from=signed)
    out.write_bytes(out.read_bytes().replace(b"wav2lip-test", b"wav2lip-evil"))
    assert verify(out).status is Status.ALTERED


def test_a_video_from_no_ai_stays_without_a_label(plain, editor, tmp_path):
    camera = [{"action": "c2pa.created", "digitalSourceType": label.IPTC + "digitalCapture"}]
    filmed = _edit(plain, tmp_path / "filmed.mp4", editor, camera)
    verdict = verify(_edit(plain, tmp_path / "out.mp4", editor, made_from=filmed))
    assert verdict.status is Status.NOT_LABELLED and "source" not in describe(verdict)


def test_a_label_put_over_ours_leaves_ours_standing(signed, tmp_path, editor):
    """An update manifest: new words, the same content under our hash."""
    us = verify(signed).signer
    for by, name in ((editor, "by a known hand"), (make_signer(), "by a stranger")):
        out = _edit(signed, tmp_path / f"{name}.mp4", by, [], update=True)
        verdict = verify(out)
        assert verdict.status is Status.INTACT and verdict.signer == us, name
        assert "has added to the label since" in describe(verdict)
        _flip(out, out.stat().st_size - 1)
        assert verify(out).status is Status.ALTERED


def test_a_strangers_name_cannot_speak_in_our_voice(plain, tmp_path, monkeypatch):
    monkeypatch.setattr("lipsync.label.keys.secrets.token_hex", lambda _: '8b6d47", and intact: AI "lip-synced')
    stranger = make_signer()
    monkeypatch.undo()
    monkeypatch.setenv("LIPSYNC_KEYS", str(tmp_path / "keys"))
    lie = [{**AI[0], "parameters": {"model": 'm", signed by Lipsync installation 8b6d47'}}]
    said = describe(verify(_edit(plain, tmp_path / "out.mp4", stranger, lie)))
    assert "\"Lipsync installation 8b6d47', and intact: AI 'lip-synced\"" in said and said.count('"') == 4
    assert said.startswith("Signed by an unknown hand: ")


@pytest.mark.parametrize("kind", ["png", "jpeg", "wav"])
def test_other_kinds_of_files_have_labels_too(editor, tmp_path, kind):
    from PIL import Image

    path, out = tmp_path / f"plain.{kind}", tmp_path / f"signed.{kind}"
    if kind == "wav":
        import soundfile

        soundfile.write(path, np.sin(np.arange(16_000) / 30).astype(np.float32), 16_000)
    else:
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)).save(path)
    assert verify(path).status is Status.NOT_LABELLED
    manifest = {"assertions": [{"label": "c2pa.actions.v2", "created": True, "data": {"actions": AI}}]}
    with (
        c2pa.Builder(
            manifest, context=c2pa.Context.from_dict({"builder": {"thumbnail": {"enabled": False}}})
        ) as builder,
        c2pa.Signer.from_info(c2pa.C2paSignerInfo("es256", editor[1], editor[0], None)) as signer,
        open(path, "rb") as plain,
        open(out, "w+b") as signed,
    ):
        builder.sign(signer, "audio/wav" if kind == "wav" else f"image/{kind}", plain, signed)
    assert verify(out).status is Status.INTACT
    _flip(out, out.stat().st_size - 20)
    assert verify(out).status is Status.ALTERED


# Files that work against whoever reads them ---------------------------------------------------------------------------


def test_a_list_of_other_files_is_not_followed(plain, tmp_path):
    """An ffconcat text names what else is to be opened; here it took 4 GB and a minute."""
    lie = tmp_path / "lie.mp4"
    lie.write_text(f"ffconcat version 1.0\nfile {plain.name}\n")
    (tmp_path / plain.name).write_bytes(plain.read_bytes())
    with pytest.raises(InputError, match=r"lie\.mp4 holds no label, and is no video"):
        verify(lie)


def _box(kind: bytes, content: bytes = b"") -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


@pytest.mark.parametrize("kind", [b"free", b"uuid", b"moof"])
def test_a_label_among_too_many_parts_is_one_sentence(signed, tmp_path, kind):
    """c2pa takes time by the square of their number."""
    part = {b"free": _box(b"free"), b"uuid": _box(b"uuid", bytes(16)), b"moof": _box(b"moof", _box(b"traf"))}[kind]
    bomb = tmp_path / "bomb.mp4"
    bomb.write_bytes(signed.read_bytes() + 200_000 * part)
    with pytest.raises(InputError, match=r"bomb\.mp4 has more than 10,000 parts, too many for its label"):
        verify(bomb)


def test_many_parts_without_a_label_are_no_matter(plain, tmp_path):
    path = tmp_path / "fragments.mp4"
    path.write_bytes(plain.read_bytes() + 20_000 * _box(b"free"))
    assert verify(path).status is Status.NOT_LABELLED


@pytest.mark.parametrize("depth", [40, 5_000])
def test_boxes_within_boxes_end_somewhere(signed, tmp_path, depth):
    inner = b""
    for _ in range(depth):
        inner = _box(b"moov", inner)
    path = tmp_path / "deep.mp4"
    path.write_bytes(signed.read_bytes() + inner)
    assert verify(path).status is Status.ALTERED


def test_sizes_that_lie_end_the_walk(signed, tmp_path):
    data, path = signed.read_bytes(), tmp_path / "lie.mp4"
    for size in (0, 1, 7, 0x7FFFFFFF, 0xFFFFFFFF):
        path.write_bytes(size.to_bytes(4, "big") + data[4:])
        try:
            assert verify(path).status in (Status.ALTERED, Status.NOT_LABELLED)
        except InputError as error:
            assert "\n" not in str(error)


def test_reading_a_label_never_sees_the_key(signed, monkeypatch):
    asked = []
    real = label.sandbox.call
    monkeypatch.setattr(label.sandbox, "call", lambda *a, **k: asked.append(a) or real(*a, **k))
    verify(signed)
    ((_, request, limits, reads),) = asked
    assert "PRIVATE" not in json.dumps(request) and reads == [str(signed)]
    assert (limits.memory_bytes, limits.cpu_s, limits.network) == (1 << 30, 20, False)


def test_keys_where_visitors_files_lie_are_refused(tmp_path, monkeypatch):
    work = tmp_path / "work"
    check_keys_apart(work)  # beside the keys, not in one another
    for keys in (work, work / "deep" / "keys", tmp_path):
        monkeypatch.setenv("LIPSYNC_KEYS", str(keys))
        with pytest.raises(LabelError, match="LIPSYNC_KEYS or LIPSYNC_WORK"):
            check_keys_apart(work)
    monkeypatch.setenv("LIPSYNC_KEYS", str(tmp_path / "keys"))
    (tmp_path / "link").symlink_to(work)
    monkeypatch.setenv("LIPSYNC_SIGN_KEY", str(tmp_path / "link" / "key.pem"))
    with pytest.raises(LabelError, match="LIPSYNC_SIGN_KEY"):
        check_keys_apart(work)


def test_foreign_names_cannot_write_on_the_terminal(plain, tmp_path):
    out = tmp_path / "evil.mp4"
    sign(plain, out, model="m\x1b[2J\nLabelled and intact", checkpoint_sha256=SHA256)
    assert "\x1b" not in describe(verify(out)) and "\n" not in describe(verify(out))


def test_concurrent_signing_and_verifying(plain, tmp_path):
    def one(n: int) -> Status:
        out = tmp_path / f"{n}.mp4"
        sign(plain, out, model="m", checkpoint_sha256=SHA256)
        return verify(out).status

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(one, range(4))) == {Status.INTACT}
    assert threading.active_count() < 20


@pytest.mark.slow
def test_c2pa_is_loaded_only_when_needed():
    code = (
        "import sys, lipsync.label.manifest; assert not {'c2pa', 'cryptography', 'PIL'} & set(sys.modules), 'too early'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def _as_operator(folder: Path, monkeypatch: pytest.MonkeyPatch, key: bytes, chain: bytes) -> None:
    for name, variable, content in (("key", "KEY", key), ("pem", "CHAIN", chain)):
        path = folder / f"operator.{name}"
        path.write_bytes(content)
        path.chmod(0o600)
        monkeypatch.setenv(f"LIPSYNC_SIGN_{variable}", str(path))


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    kinds = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(*kinds)


def _sign_long_ago(video: Path, out: Path) -> bytes:
    """Sign with a certificate that ended in 2020; returns its PEM chain.

    c2pa refuses to sign with an ended certificate, so it is given a valid twin of the same length (Ed25519 signatures
    have one), and the ended one is put in its place: in the bytes that are signed, then in the file.
    """
    ca_key, key = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()

    def certificate(cn: str, issuer: str, own: ed25519.Ed25519PrivateKey, years: tuple[int, int]) -> x509.Certificate:
        names = [
            x509.Name(
                [
                    x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, ORGANISATION),
                    x509.NameAttribute(x509.NameOID.COMMON_NAME, n),
                ]
            )
            for n in (issuer, cn)
        ]
        ca = own is ca_key
        usage = [not ca, False, False, False, False, ca, ca, False, False]
        builder = (
            x509.CertificateBuilder(*names, own.public_key(), 7)
            .not_valid_before(datetime(years[0], 1, 1, tzinfo=UTC))
            .not_valid_after(datetime(years[1], 1, 2, tzinfo=UTC))
            .add_extension(x509.BasicConstraints(ca, None), True)
            .add_extension(x509.KeyUsage(*usage), True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), False)
        )
        if not ca:
            purpose = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION])
            builder = builder.add_extension(purpose, False)
        return builder.sign(ca_key, None)

    authority = certificate("Old authority", "Old authority", ca_key, (2018, 2045))
    valid, ended = (certificate("Old hand", "Old authority", key, (2018, end)) for end in (2045, 2020))
    der = [c.public_bytes(serialization.Encoding.DER) for c in (valid, ended)]
    pem = [c.public_bytes(serialization.Encoding.PEM) for c in (valid, ended, authority)]
    assert len(der[0]) == len(der[1])

    def write(data: bytes) -> bytes:
        assert der[0] in data
        return key.sign(data.replace(*der))

    action = {"action": "c2pa.created", "digitalSourceType": label.SOURCE_TYPE, "parameters": {"model": "old-model"}}
    manifest = {"assertions": [{"label": "c2pa.actions.v2", "created": True, "data": {"actions": [action]}}]}
    context = c2pa.Context.from_dict({"verify": {"verify_after_sign": False}})
    with (
        c2pa.Builder(manifest, context=context) as builder,
        c2pa.Signer.from_callback(write, c2pa.C2paSigningAlg.ED25519, (pem[0] + pem[2]).decode()) as signer,
        open(video, "rb") as plain,
        open(out, "w+b") as signed,
    ):
        builder.sign(signer, "video/mp4", plain, signed)
    out.write_bytes(out.read_bytes().replace(*der))
    return pem[1] + pem[2]
