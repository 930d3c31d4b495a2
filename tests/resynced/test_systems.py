"""Systems: one contract for all, and outside commands that hang, flood, leave children or break out."""

import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import psutil
import pytest

from lipsync.checkpoints.download import file_sha256
from lipsync.errors import Cancelled, LipsyncError
from lipsync.media.reader import FrameReader, probe, read_waveform
from lipsync.options import Options
from lipsync.progress import Monitor
from lipsync.version import VERSION
from resynced.records import BenchmarkError, Media, Pair, System
from resynced.systems import (
    CommandSystem,
    FolderSystem,
    ModelSystem,
    RealClip,
    Untouched,
    _Short,
    _write,
    fingerprint,
    load_command,
    open_system,
)
from tests.conftest import make_clip, make_voice
from tests.helpers.media_maker import count_up, write_media

COPY = "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[3])"
PLACES = ("{video}", "{audio}", "{out}")


class FlipSystem(System):
    """The fake: the clip's bytes, whatever the voice."""

    name, fingerprint = "flip", "f" * 64

    def make(self, pair, out, monitor=None):
        (monitor or Monitor()).step("copy", 0, 1)
        out.write_bytes(pair.video.path.read_bytes())
        return out


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Pair:
    folder = tmp_path_factory.mktemp("pair")
    clip = make_clip(folder / "clip.mp4", 20, size=(160, 160))
    voice = make_voice(folder / "voice.wav", 1.0)
    return Pair("tts-1", "tts", *(Media(p.stem, p, file_sha256(p)) for p in (clip, voice)), reference=clip)


def command(code: str, *more: str, **limits) -> CommandSystem:
    return CommandSystem("outside", [sys.executable, "-c", code, *PLACES, *more], **limits)


@pytest.fixture(params=["fake", "untouched", "real", "folder", "command", "model"])
def system(request, pair, tmp_path):
    if request.param == "folder":
        (tmp_path / "outputs").mkdir()
        (tmp_path / "outputs" / "tts-1.mp4").write_bytes(pair.video.path.read_bytes())
    return {
        "fake": FlipSystem,
        "untouched": Untouched,
        "real": RealClip,
        "folder": lambda: FolderSystem(tmp_path / "outputs", "theirs"),
        "command": lambda: command(COPY),
        "model": lambda: ModelSystem(options=Options(engine="torch")),
    }[request.param]()


def pictures(path: Path) -> np.ndarray:
    with FrameReader(probe(path)) as reader:
        return np.stack(list(reader)).astype(float)


@pytest.mark.slow
def test_every_system_keeps_the_contract(system, pair, tmp_path):
    assert system.name and len(system.fingerprint) == 64 and system.tier in ("ours", "reproduced", "self-reported")
    place = tmp_path / "made"
    place.mkdir()
    before = {p: p.stat().st_mtime_ns for p in pair.video.path.parent.iterdir()}
    first, second = place / "a.mp4", place / "b.mp4"
    for out in (first, second):
        assert system.make(pair, out, Monitor()) == out and probe(out).has_video
    assert sorted(p.name for p in place.iterdir()) == ["a.mp4", "b.mp4"]
    assert {p: p.stat().st_mtime_ns for p in pair.video.path.parent.iterdir()} == before
    # x264 rounds differently from run to run, and so do the finders of faces when threads meet in another order.
    assert np.abs(pictures(first) - pictures(second)).mean() < 2
    assert np.array_equal(read_waveform(first), read_waveform(second))
    with pytest.raises(Cancelled):
        system.make(pair, place / "c.mp4", Monitor(cancelled=lambda: True))
    assert sorted(p.name for p in place.iterdir()) == ["a.mp4", "b.mp4"]
    system.close()


@pytest.mark.slow
def test_the_floor_is_the_clip_with_the_voice_as_long_as_the_engine_makes_it(pair, tmp_path):
    out = Untouched().make(pair, tmp_path / "a.mp4")
    assert probe(out).frames == 25  # a voice of one second over 0.8 s of video: there and back
    shown, source = pictures(out), pictures(pair.video.path)
    assert np.abs(shown[:20] - source).mean() < 3 and np.abs(shown[20] - source[18]).mean() < 3
    heard, said = read_waveform(out)[:16_000], read_waveform(pair.voice.path)[:16_000]
    assert np.corrcoef(heard, said)[0, 1] > 0.95


@pytest.mark.slow
def test_the_floor_takes_any_rate_and_a_file_that_is_shorter_than_it_says(pair, tmp_path):
    for name, fps, frames in (("ntsc", Fraction(30000, 1001), 40), ("film", Fraction(24000, 1001), 31)):
        clip = make_clip(tmp_path / f"{name}.mp4", frames, fps, size=(96, 96))
        out = Untouched().make(replace(pair, video=Media(name, clip, "")), tmp_path / f"{name}-out.mp4")
        assert probe(out).frames == math.ceil(fps) and probe(out).fps == fps
    clip = write_media(tmp_path / "cut.mkv", count_up(20))
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) * 3 // 4])
    info = replace(probe(clip), frames=20)
    with pytest.raises(_Short) as short:
        _write(info, 20, pair.voice.path, 1.0, tmp_path / "a.mp4", Monitor(), Options())
    assert 0 < short.value.frames < 20
    _write(info, short.value.frames, pair.voice.path, 1.0, tmp_path / "a.mp4", Monitor(), Options())
    assert probe(tmp_path / "a.mp4").frames == 25


@pytest.mark.slow
def test_the_ceiling_is_the_reference_with_its_own_sound(pair, tmp_path):
    out = RealClip().make(pair, tmp_path / "a.mp4")
    assert probe(out).frames == 20 and np.abs(pictures(out) - pictures(pair.video.path)).mean() < 3
    with pytest.raises(BenchmarkError, match="no really synced clip"):
        RealClip().make(replace(pair, reference=None), tmp_path / "b.mp4")


def test_fingerprints_follow_whatever_could_change_an_output(pair, tmp_path):
    tool = tmp_path / "tool.py"
    tool.write_text(COPY)
    made = lambda **kinds: CommandSystem("a", [sys.executable, str(tool), *PLACES], **kinds).fingerprint  # noqa: E731
    prints = [made(), made(version="2"), made(files=[pair.video.path])]
    tool.write_text(COPY + "\n")
    prints.append(made())
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    for data in (b"a", b"b"):
        (outputs / "tts-1.mp4").write_bytes(data)
        prints.append(FolderSystem(outputs, "a").fingerprint)
    prints += [ModelSystem(options=Options(pad=pad)).fingerprint for pad in (0.0, 0.1)]
    assert len(set(prints)) == len(prints)


def test_a_folder_gives_what_it_held_when_it_was_opened(pair, tmp_path):
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    (outputs / "tts-1.mp4").write_bytes(b"a")
    (outputs / "tts-2.mp4").symlink_to("/etc/passwd")
    system = FolderSystem(outputs, "theirs")
    (outputs / "tts-1.mp4").write_bytes(b"b" * 9)
    for name, said in (("tts-1", "was changed"), ("tts-2", "over a link"), ("tts-3", "there is no tts-3.mp4")):
        with pytest.raises(BenchmarkError, match=said):
            system.make(replace(pair, id=name), tmp_path / "a.mp4")
    assert not list(tmp_path.glob("*.mp4")) and not list(tmp_path.glob(".*"))


# outside commands


CHILDREN = """
import os, subprocess, sys, time
for new in (False, True):  # one in a session of its own, whose parent is gone
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)", sys.argv[4]], start_new_session=new)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)", sys.argv[4]])
        time.sleep(300)
    os._exit(0)
"""
BAD = {
    "hangs": ("import time; time.sleep(300)", r"had not finished tts-1 after 1 s"),
    "floods": ("import os\nwhile True: os.write(1, b'x' * 65536)", r"had not finished .* Its last words: x+$"),
    "leaves children": (CHILDREN, r"wrote no video for tts-1"),
    "children and hangs": (CHILDREN + "\ntime.sleep(300)", r"had not finished"),
    "eats memory": (
        "a = [bytes([k]) * (16 << 20) for k in range(200)]; import time; time.sleep(9)",
        "more than 300 MB",
    ),
    "fills the disk": (
        "for k in range(200): open(f'{k}', 'wb').write(bytes(1 << 20)) \nimport time; time.sleep(9)",
        "more than 20 MB",
    ),
    "one huge file": (  # ended by the limit of a file, or by what is counted beside it: whichever is first
        "import sys; open(sys.argv[3], 'wb').write(bytes(30 << 20))",
        r"failed on tts-1 with|more than 20 MB",
    ),
    "fails": ("import sys; sys.exit('no such checkpoint')", r"failed on tts-1 with code 1\. .*no such checkpoint"),
    "dies": ("import os; os.kill(os.getpid(), 11)", r"failed on tts-1 with signal 11"),
    "writes nothing": ("pass", r"wrote no video for tts-1"),
    "writes a link": ("import os, sys; os.symlink(sys.argv[1], sys.argv[3])", r"wrote no video"),
    "writes no video": ("import sys; open(sys.argv[3], 'w').write('hello')", r"out\.mp4"),
    "locks its folder": ("import os; os.mkdir('a'); open('a/b', 'w'); os.chmod('a', 0); os.chmod('.', 0)", "no video"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_command_gives_one_sentence_and_leaves_nothing(pair, tmp_path, kind):
    code, said = BAD[kind]
    mark = f"mark-{os.getpid()}-{kind.replace(' ', '-')}"
    patient = kind in ("leaves children", "eats memory", "fills the disk", "one huge file")
    system = command(code, mark, timeout_s=30 if patient else 1, memory_mb=300, disk_mb=20)
    if kind not in ("hangs", "floods", "children and hangs"):
        system.timeout_s = 30
    began = time.monotonic()
    with pytest.raises(LipsyncError, match=said):
        system.make(pair, tmp_path / "a.mp4")
    assert time.monotonic() - began < 25
    assert not list(tmp_path.iterdir())
    assert not [p for p in psutil.process_iter(["cmdline"]) if mark in (p.info["cmdline"] or [])]


@pytest.mark.slow
def test_a_command_cannot_write_outside_its_folder(pair, tmp_path):
    from lipsync.confine import landlock_version

    if not landlock_version():
        pytest.skip("this kernel has no Landlock")
    place = tmp_path / "made"
    place.mkdir()
    code = f"open({str(tmp_path / 'outside')!r}, 'w').write('x')"
    with pytest.raises(BenchmarkError, match="Permission"):
        command(code).make(pair, place / "a.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


@pytest.mark.slow
def test_a_command_is_ended_when_the_work_is_stopped(pair, tmp_path):
    mark, until = f"mark-{os.getpid()}-stop", time.monotonic() + 1
    system = command(CHILDREN + "\ntime.sleep(300)", mark, timeout_s=60)
    with pytest.raises(Cancelled):
        system.make(pair, tmp_path / "a.mp4", Monitor(cancelled=lambda: time.monotonic() > until))
    assert not list(tmp_path.iterdir())
    assert not [p for p in psutil.process_iter(["cmdline"]) if mark in (p.info["cmdline"] or [])]


@pytest.mark.slow
def test_a_command_ends_when_whoever_started_it_is_killed(pair, tmp_path):
    mark = f"mark-{os.getpid()}-killed"
    code = CHILDREN + "\ntime.sleep(300)"
    program = (
        "import sys; from pathlib import Path; from resynced.records import Media, Pair\n"
        "from resynced.systems import CommandSystem\n"
        "media = [Media(p, Path(p), '') for p in sys.argv[3:5]]\n"
        "words = [sys.executable, '-c', sys.argv[1], '{video}', '{audio}', '{out}', sys.argv[2]]\n"
        "CommandSystem('a', words).make(Pair('p', 'tts', *media), Path(sys.argv[5]))"
    )
    words = [sys.executable, "-c", program, code, mark, pair.video.path, pair.voice.path, tmp_path / "a.mp4"]
    with subprocess.Popen(words) as work:
        started = lambda: [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[-1:] == [mark]]  # noqa: E731
        until = time.monotonic() + 60
        while len(started()) < 4 and time.monotonic() < until:
            time.sleep(0.1)
        assert len(started()) >= 4
        work.kill()
    until = time.monotonic() + 20
    while started() and time.monotonic() < until:
        time.sleep(0.1)
    assert not started()


@pytest.mark.slow
def test_a_command_is_told_no_secret_and_started_by_no_shell(pair, tmp_path, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://hunter2")
    monkeypatch.setenv("DEMO_PASSWORD", "hunter2")
    code = (
        "import os, shutil, sys; assert sys.argv[4] == '$(id); a b' and 'hunter2' not in str(dict(os.environ));" + COPY
    )
    out = command(code, "$(id); a b").make(pair, tmp_path / "a.mp4")
    assert probe(out).frames == 20


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "a"', "it needs argv"),
        ('name = "a"\nargv = ["python3", "{video}", "{audio}"]', r"has no \{out\}"),
        ('name = "a"\nargv = ["no-such-program", "{video}", "{audio}", "{out}"]', "there is no program"),
        ('name = "a"\nargv = "python3 {video}"', "argv has the wrong kind"),
        ('name = "a"\nargv = [1]', "lists of texts"),
        ('name = "a"\nshell = true', "there is no setting 'shell'"),
        ('name = "a\\nb"\nargv = ["python3", "{video}", "{audio}", "{out}"]', "is no name"),
        ('name = "a"\ntimeout_s = 0\nargv = ["python3", "{video}", "{audio}", "{out}"]', "above 0"),
        ('name = "a"\ntier = "best"\nargv = ["python3", "{video}", "{audio}", "{out}"]', "no tier 'best'"),
        ('name = "a"\nfiles = ["none.pth"]\nargv = ["python3", "{video}", "{audio}", "{out}"]', "cannot be read"),
        ("name", r"command\.toml is no TOML"),
    ],
)
def test_faults_of_a_command_file_are_said_before_it_runs(tmp_path, text, said):
    path = tmp_path / "command.toml"
    path.write_text(text)
    with pytest.raises(BenchmarkError, match=said):
        load_command(path)


def test_a_command_is_one_block_of_toml(pair, tmp_path):
    path = tmp_path / "command.toml"
    path.write_text(f'name = "copy"\nargv = [{sys.executable!r}, "-c", "{COPY}", "{{video}}", "{{audio}}", "{{out}}"]')
    assert probe(load_command(path).make(pair, tmp_path / "a.mp4")).frames == 20


@pytest.mark.slow
def test_files_of_a_command_lie_beside_its_block(pair, tmp_path):
    """As they are named in it, from whatever folder it is run, and in whatever folder it lies."""
    prints = []
    for name in ("one", "two"):
        folder = tmp_path / name
        (folder / "their").mkdir(parents=True)
        (folder / "their" / "inference.py").write_text(COPY)
        (folder / "their" / "weights.pth").write_bytes(b"weights")
        (folder / "theirs.toml").write_text(
            f'name = "theirs"\nargv = [{sys.executable!r}, "their/inference.py", "{{video}}", "{{audio}}", "{{out}}"]\n'
            'files = ["their/weights.pth"]\n'
        )
        system = load_command(folder / "theirs.toml")
        assert probe(system.make(pair, tmp_path / f"{name}.mp4")).frames == 20
        prints.append(system.fingerprint)
    assert prints[0] == prints[1]
    (folder / "their" / "weights.pth").write_bytes(b"others")
    assert load_command(folder / "theirs.toml").fingerprint != prints[1]


def test_options_by_their_names_of_before_are_the_same_system(caplog):
    """Rows that were made before the names changed are found by this fingerprint."""
    old = {
        "model": "wav2lip-gan-lab", "engine": "torch", "face": "largest", "detector": "mediapipe",
        "smoothing": "steady", "pad": 0.0, "softness": 0.04, "detail": True, "longer": "pingpong", "shorter": "cut",
        "start": 0.0, "end": None, "nudge": 0, "track": None, "background": 0.0, "quality": 20, "visible_label": True,
        "watermark": True, "mouth_opening": None,
    }  # fmt: skip
    system = open_system("wav2lip-gan-lab:engine=torch,quality=20")
    assert system.options.crf == 20 and system.card["options"] == {"engine": "torch", "crf": 20}
    assert "The option quality is called crf now." in caplog.messages
    assert system.fingerprint == open_system("wav2lip-gan-lab:engine=torch,crf=20").fingerprint
    looked = old | {"occlusion": True, "mel_start_columns": 1.0}  # which change what is made
    assert system.fingerprint == fingerprint("model", VERSION, system.weights_sha256, looked)
    system, old["model"] = open_system("lipgan-lab:engine=torch,crf=20,occlusion=false"), "lipgan-lab"
    assert system.fingerprint == fingerprint("model", VERSION, system.weights_sha256, old)


def test_a_word_opens_the_system_that_is_meant(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "p00.mp4").write_bytes(b"x")
    block = f'name = "copy"\nargv = ["{sys.executable}", "{{video}}", "{{audio}}", "{{out}}"]\n'
    (tmp_path / "copy.toml").write_text(block)
    found = open_system(str(tmp_path / "theirs"))
    assert isinstance(found, FolderSystem) and found.name == "theirs" and found.tier == "self-reported"
    assert isinstance(open_system(str(tmp_path / "copy.toml")), CommandSystem)
    model = open_system("wav2lip-gan-lab")
    assert isinstance(model, ModelSystem) and model.name == "wav2lip-gan-lab"
    with pytest.raises(BenchmarkError, match="no folder"):
        open_system(str(tmp_path / "nothing" / "here"))
    with pytest.raises(LipsyncError):
        open_system("no-such-model")
