"""Submissions: whatever is wrong is listed before anything is scored, and nothing is written outside its folder."""

import os
import re
import shutil
import stat
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lipsync.checkpoints.download import file_sha256
from lipsync.errors import Cancelled
from lipsync.media.reader import read_waveform
from lipsync.progress import Monitor
from resynced.manifests import set_sha256
from resynced.records import BenchmarkError, BenchmarkSet, Media, Pair
from resynced.submissions import SubmissionRefused, check, open_submission, read_card
from resynced.systems import Untouched
from tests.conftest import make_clip, make_voice
from tests.helpers.media_maker import count_up, write_media

CARD = """
name = "TalkNet 3000"
authors = ["A. Researcher", "B. Other"]
link = "https://example.org/paper"
licence = "MIT"
training_data = "LRS2"
hardware = "one GPU"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[BenchmarkSet, Path]:
    """A set of six pairs and a folder of faultless outputs."""
    folder = tmp_path_factory.mktemp("submission")
    clip = make_clip(folder / "clip.mp4", 20, size=(128, 96))
    video, pairs = Media("clip", clip, file_sha256(clip)), []
    waveform = read_waveform(make_voice(folder / "voice.wav", 1.0))
    outputs = folder / "outputs"
    outputs.mkdir()
    for k in range(6):
        voice = folder / f"voice{k}.wav"
        soundfile.write(voice, waveform * (1 - 0.1 * k), 16_000)
        pairs.append(Pair(f"tts-{k}", "tts", video, Media(voice.stem, voice, file_sha256(voice))))
        Untouched().make(pairs[-1], outputs / f"tts-{k}.mp4")
    return BenchmarkSet("small", "1", "Small", tuple(pairs), set_sha256(pairs)), outputs


@pytest.fixture
def outputs(made, tmp_path) -> Path:
    return Path(shutil.copytree(made[1], tmp_path / "outputs"))


@pytest.fixture
def card(tmp_path) -> Path:
    path = tmp_path / "card.toml"
    path.write_text(CARD)
    return path


def zipped(path: Path, entries: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.mp4"))}


@pytest.mark.slow
def test_a_submission_with_five_kinds_of_fault_is_refused_with_the_list_and_its_mended_twin_passes(
    made, outputs, card, tmp_path
):
    benchmark, good = made
    (outputs / "tts-0.mp4").unlink()  # 1: missing
    whole = (outputs / "tts-1.mp4").read_bytes()
    (outputs / "tts-1.mp4").write_bytes(whole[: len(whole) * 2 // 3])  # 2: truncated
    sound = read_waveform(good / "tts-2.mp4")
    write_media(outputs / "tts-2.mp4", count_up(25, 64, 64), sound=sound, sound_rate=16_000)  # 3: size
    write_media(outputs / "tts-3.mp4", count_up(50), sound=np.tile(sound, 2), sound_rate=16_000)  # 4: duration
    write_media(outputs / "tts-4.mp4", count_up(25), codec="mjpeg", pixels="yuvj420p", sound=sound, sound_rate=16_000)
    card.write_text(CARD.replace('licence = "MIT"', "").replace("https://", ""))  # 5: codec; 6: card
    (outputs / "notes.txt").write_text("x")
    faults = check(outputs, benchmark, card)
    said = "\n".join(faults)
    for words in (
        "The card has no licence.",
        "The card's link 'example.org/paper' is no address",
        "tts-0.mp4: it is not there.",
        "tts-1.mp4: it ",
        "tts-2.mp4: its pictures are 64 × 64, those of the clip 128 × 96",
        "tts-3.mp4: it lasts 2.00 s; its voice and clip need 1.00 s",
        "tts-4.mp4: it is coded as mjpeg: give H.264",
        "notes.txt belongs to no pair of small",
    ):
        assert words in said
    assert len(faults) == 8, said
    with pytest.raises(SubmissionRefused, match="was not taken: .* And 5 more") as refused:
        open_submission(outputs, benchmark, card, tmp_path / "kept")
    assert refused.value.faults == faults and not (tmp_path / "kept").exists()

    shutil.rmtree(outputs)
    shutil.copytree(good, outputs)
    card.write_text(CARD)
    assert check(outputs, benchmark, card) == []
    system, facts = open_submission(outputs, benchmark, card, tmp_path / "kept")
    assert (system.name, system.tier, facts.authors) == (
        "TalkNet 3000",
        "self-reported",
        "A. Researcher, B. Other",
    )
    assert contents(tmp_path / "kept") == contents(good)
    out = system.make(benchmark.pairs[0], tmp_path / "out.mp4")
    assert out.read_bytes() == (good / "tts-0.mp4").read_bytes()
    with pytest.raises(BenchmarkError, match="there already"):
        open_submission(outputs, benchmark, card, tmp_path / "kept")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["card.toml", "kept", "out.mp4", "outputs"]


@pytest.mark.slow
def test_a_zip_is_a_folder_with_or_without_one_around_it(made, card, tmp_path):
    benchmark, good = made
    for top in ("", "results/"):
        entries = {top + name: data for name, data in contents(good).items()}
        entries |= {f"{top}card.toml": b"", "__MACOSX/._x": b"x", f"{top}.DS_Store": b"x"}
        source = zipped(tmp_path / "a.zip", entries, zipfile.ZIP_STORED)
        kept = tmp_path / f"kept{len(top)}"
        assert open_submission(source, benchmark, card, kept)[0].name == "TalkNet 3000"
        assert contents(kept) == contents(good)


@pytest.mark.slow
def test_a_hostile_zip_gets_a_sentence_for_each_trick_and_writes_nothing_outside(made, card, tmp_path):
    benchmark, good = made
    place = tmp_path / "place"
    place.mkdir()
    source = place / "a.zip"
    video = (good / "tts-0.mp4").read_bytes()
    link = zipfile.ZipInfo("tts-1.mp4")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../evil.mp4", video)
        archive.writestr("/etc/evil.mp4", video)
        archive.writestr("a/b/../../../evil.mp4", video)
        archive.writestr(link, "/etc/passwd")
        archive.writestr("tts-2.mp4", bytes(30 << 20))  # 30 MB of nothing in 30 kB
        archive.writestr("sub/tts-3.mp4", video)
        archive.writestr("TTS-3.MP4", video)
        archive.writestr("tts-4.mov", video)
        archive.writestr("\x1b[31mred.mp4", video)
        archive.writestr("tts-0.mp4", video)
        with pytest.warns(UserWarning):
            archive.writestr("tts-0.mp4", video)
    faults = check(source, benchmark, card)
    said = "\n".join(faults)
    for words in (
        "The archive's ../evil.mp4 leads out of its folder",
        "The archive's /etc/evil.mp4 leads out",
        "The archive's a/b/../../../evil.mp4 leads out",
        "The archive's tts-1.mp4 is a link",
        "tts-2.mp4: it would unpack",
        "The archive's sub/tts-3.mp4 lies in a sub-folder",
        "The archive's ?[31mred.mp4 has a name that no pair has",
        "tts-0.mp4: the archive holds it twice",
        "tts-3.mp4: it is not there, but TTS-3.MP4 is",
        "tts-4.mp4: it is not there, but tts-4.mov is",
        "tts-5.mp4: it is not there.",
    ):
        assert words in said
    assert not any("\x1b" in f for f in faults)
    with pytest.raises(SubmissionRefused):
        open_submission(source, benchmark, card, place / "kept")
    assert [p.name for p in place.iterdir()] == ["a.zip"] and not list(tmp_path.rglob("*evil*"))


def lying(path: Path, at: bytes, offset: int, value: bytes) -> None:
    """Change a field of the last record that begins with `at`."""
    data = bytearray(path.read_bytes())
    start = data.rindex(at) + offset
    data[start : start + len(value)] = value
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-30]), "is no zip, or a damaged one"),
        (lambda p: p.write_bytes(b"PK\x05\x06" + bytes(18)), "tts-0.mp4: it is not there"),
        (lambda p: p.write_text("hello"), "is no zip, or a damaged one"),
        (lambda p: lying(p, b"PK\x01\x02", 8, struct.pack("<H", 1)), "it is locked with a password"),
        (lambda p: lying(p, b"PK\x01\x02", 24, struct.pack("<I", 9)), "tts-0.mp4: it cannot be unpacked"),
        (lambda p: lying(p, b"PK\x01\x02", 10, struct.pack("<H", 97)), "tts-0.mp4: it cannot be unpacked"),
        (lambda p: lying(p, b"PK\x01\x02", 16, b"\0\0\0\0"), "tts-0.mp4: it cannot be unpacked"),
        (lambda p: lying(p, b"PK\x05\x06", 12, struct.pack("<I", 70 << 20)), "far more files|is no zip"),
        (lambda p: zipped(p, {f"{k}.mp4": b"" for k in range(200)}), "holds 200 files for 1 pairs"),
    ],
)
def test_damaged_and_lying_zips_end_in_a_sentence(made, card, tmp_path, change, said):
    one = replace(made[0], pairs=made[0].pairs[:1])
    source = zipped(tmp_path / "a.zip", {"tts-0.mp4": os.urandom(5000)})
    change(source)
    try:
        faults = check(source, one, card)
    except BenchmarkError as error:
        faults = [str(error)]
    assert any(re.search(said, fault) for fault in faults), faults


@pytest.mark.slow
def test_what_is_no_video_is_said_of_each_file(made, outputs, card):
    benchmark, good = made
    for name, data in (("tts-0", b""), ("tts-1", b"hello" * 99)):
        (outputs / f"{name}.mp4").write_bytes(data)
    (outputs / "tts-2.mp4").unlink()
    (outputs / "tts-2.mp4").symlink_to(good / "tts-2.mp4")
    (outputs / "tts-3.mp4").unlink()
    (outputs / "tts-3.mp4").mkdir()
    shutil.copy(outputs / "tts-4.mp4", outputs / "tts-5.mp4")
    faults = check(outputs, benchmark, card)
    starts = [
        "tts-2.mp4: it is a link",
        "tts-3.mp4: it is no ordinary file",
        "tts-0.mp4: it cannot be read: tts-0.mp4 is empty",
        "tts-1.mp4: it cannot be read",
        "tts-5.mp4: it is the same file as tts-4.mp4",
    ]
    assert len(faults) == 5 and all(f.startswith(s) for f, s in zip(faults, starts, strict=True)), faults


@pytest.mark.slow
def test_rate_sound_and_size_are_checked(made, outputs, card):
    benchmark, _ = made
    write_media(outputs / "tts-0.mp4", count_up(25))
    write_media(outputs / "tts-1.mp4", count_up(15), fps=15, sound=np.zeros(16_000, np.float32), sound_rate=16_000)
    with (outputs / "tts-2.mp4").open("r+b") as file:
        file.truncate(60 << 20)
    faults = check(outputs, benchmark, card)
    assert faults[0].startswith("tts-0.mp4: it has no sound")
    assert faults[1].startswith("tts-1.mp4: it has 15.000 frames a second, the clip 25.000")
    assert faults[2].startswith("tts-2.mp4: it has 60 MB") and len(faults) == 3


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name =", "nom =", "has no name|'nom' that is not known"),
        ('"MIT"', "3", "licence must be a text"),
        ('"TalkNet 3000"', '"' + "x" * 99 + '"', "name has 99 letters"),
        ('"TalkNet 3000"', '"a\\nb"', "one line"),
        ("https://example.org/paper", "javascript:alert(1)", "is no address"),
        ('hardware = "one GPU"', 'hardware = "', "is no TOML"),
    ],
)
def test_a_card_is_checked_field_by_field(tmp_path, old, new, said):
    path = tmp_path / "card.toml"
    path.write_text(CARD.replace(old, new))
    with pytest.raises(BenchmarkError, match=said):
        read_card(path)


def test_a_check_can_be_stopped_and_leaves_nothing(made, outputs, card, tmp_path):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(Cancelled):
        open_submission(outputs, made[0], card, tmp_path / "kept", Monitor(cancelled=lambda: True))
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(BenchmarkError, match="neither a folder nor a zip"):
        check(tmp_path / "none", made[0], card)
