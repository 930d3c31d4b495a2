"""The command line as a stranger uses it: exit codes, sentences, what is left behind."""

import csv
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time

import cv2
import pytest

from lipsync import batch
from lipsync.__main__ import main
from lipsync.checkpoints import registry as checkpoints
from lipsync.console import sentence
from lipsync.errors import InputError
from lipsync.report import Report
from tests.conftest import ROOT, make_clip, make_voice


def run(*args, **more):
    return subprocess.run(
        [sys.executable, "-m", "lipsync", *map(str, args)], capture_output=True, text=True, cwd=ROOT, **more
    )


@pytest.mark.slow
def test_sync_report_and_verify(clip, voice, tmp_path, capsys):
    out, report = tmp_path / "out.mp4", tmp_path / "out.json"
    assert main(["sync", str(clip), str(voice), "--out", str(out), "--report", str(report)]) == 0
    assert "50 frames at 25 a second" in capsys.readouterr().out
    assert json.loads(report.read_text())["frames_synced"] == 40
    assert main(["verify", str(out)]) == 0
    assert "intact" in capsys.readouterr().out
    assert main(["verify", str(clip)]) == 1


def test_a_missing_file_is_one_sentence(voice, tmp_path, capsys):
    assert main(["sync", str(tmp_path / "none.mp4"), str(voice), "--out", str(tmp_path / "out.mp4")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("lipsync: ") and "none.mp4" in said and "Traceback" not in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "args",
    [
        ["sync"],
        ["sync", "clip.mp4", "--out", "out.mp4"],
        ["sync", "clip.mp4", "v.wav", "--voice", "0=v.wav", "--out", "out.mp4"],
        ["sync", "clip.mp4", "--voice", "v.wav", "--out", "out.mp4"],
        ["sync", "clip.mp4", "v.wav", "--if-audio-longer", "never", "--out", "out.mp4"],
        ["sync", "clip.mp4", "--voice", "²=v.wav", "--out", "out.mp4"],
        ["sync", "clip.mp4", "--voice", "0=v.wav", "--voice", "00=w.wav", "--out", "out.mp4"],
        ["sync", "clip.mp4", "v.wav", "--engine", "x", "--out", "out.mp4"],
        ["sync", "clip.mp4", "v.wav", "--detector", "x", "--out", "out.mp4"],
        ["sync", "clip.mp4", "v.wav", "--pad", "9", "--out", "out.mp4"],
        ["sync", "clip.mp4", "v.wav", "--audio", "b.wav", "--out", "out.mp4"],
        ["sync", "clip.mp4", "--preview", "nan", "--out", "out.png"],
        ["sync", str(ROOT), "--voice", "0=v.wav", "--out", "out"],
        ["sync", "pairs.csv", "v.wav", "--out", "out"],
        ["nonsense"],
    ],
)
def test_wrong_usage_is_2(args, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and re.search(r"\. Help: python -m lipsync( sync)? --help$", said.strip())


@pytest.mark.slow
def test_json_is_all_that_is_printed(clip, voice, tmp_path, capsys):
    out = tmp_path / "out.mp4"
    assert main(["sync", str(clip), str(voice), "--out", str(out), "--end", "0.4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames_synced"] == 10
    assert main(["verify", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["status"] == "labelled and intact" and found["words"]
    assert main(["sync", str(clip), "--preview", "99", "--out", str(tmp_path / "x.png"), "--json"]) == 0
    assert [row["face"] for row in json.loads(capsys.readouterr().out)] == [0]
    assert main(["sync", str(clip), "--preview", "99", "--out", str(tmp_path / "x.png")]) == 0
    assert "has no 99 s, it is 2.00 s long" in capsys.readouterr().out
    assert main(["models", "--json"]) == 0
    assert "wav2lip-gan-lab" in [row["name"] for row in json.loads(capsys.readouterr().out)]


def test_a_value_out_of_range_says_the_range(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["sync", "clip.mp4", "v.wav", "--out", "out.mp4", "--crf", "99"])
    assert stopped.value.code == 2
    assert "between 1 and 51" in capsys.readouterr().err


@pytest.mark.slow
def test_a_preview_is_a_png(clip, tmp_path, capsys):
    out = tmp_path / "face.png"
    assert main(["sync", str(clip), "--preview", "0.5", "--out", str(out)]) == 0
    assert cv2.imread(str(out)).shape == (320, 320, 3)
    assert "face 0: 0.00 to 2.00 s" in capsys.readouterr().out


def test_models_names_what_is_here(capsys):
    assert main(["models"]) == 0
    said = capsys.readouterr().out
    assert "wav2lip-lab" in said and "research use only" in said and "syncnet-v2" in said


@pytest.mark.slow
def test_a_batch_survives_bad_items(clip, voice, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["video", "voice"], [clip, voice], [tmp_path / "broken.mp4", voice], [clip, tmp_path / "gone.wav"]]
        )
    assert main(["sync", str(tmp_path / "pairs.csv"), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert said.out.count("FAILED") == 2 and "2 of 3 pairs failed" in said.err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["0000-astronaut.mp4"]


@pytest.mark.slow
def test_a_folder_is_a_batch(clip, voice, tmp_path, capsys):
    (tmp_path / "clips").mkdir()
    os.link(clip, tmp_path / "clips" / "one.mp4")
    assert main(["sync", str(tmp_path / "clips"), str(voice), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "one.mp4").is_file()


def test_a_list_without_columns(tmp_path, capsys):
    (tmp_path / "pairs.csv").write_text("a,b\n1,2\n")
    assert main(["sync", str(tmp_path / "pairs.csv"), "--out", str(tmp_path / "out")]) == 1
    assert "columns video and voice" in capsys.readouterr().err


def made_up(monkeypatch, does):
    """Batches whose syncs do this and nothing else; returns what each was asked to write."""
    asked = []

    def sync(video, voice, out, options, progress):
        asked.append(out.name)
        does(video)
        raise InputError("no result")

    monkeypatch.setattr(batch, "sync", sync)
    return asked


def test_a_folder_with_names_alike_and_hidden_files(tmp_path, monkeypatch, capsys):
    for name in ("a.mov", "a.mp4", "b.mp4", ".DS_Store"):
        (tmp_path / name).touch()

    def full_disk(video):
        if video.name == "a.mov":
            raise OSError(errno.ENOSPC, "No space left on device", str(video))

    asked = made_up(monkeypatch, full_disk)
    assert main(["sync", str(tmp_path), "v.wav", "--out", str(tmp_path / "out")]) == 1
    assert asked == ["a.mov.mp4", "a.mp4.mp4", "b.mp4"]
    said = capsys.readouterr()
    assert "a.mov: FAILED: No space left on device" in said.out and "3 of 3 pairs failed" in said.err


def test_a_batch_that_is_stopped_says_what_is_kept(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.mp4").touch()

    def stop(video):
        raise KeyboardInterrupt

    made_up(monkeypatch, stop)
    assert main(["sync", str(tmp_path), "v.wav", "--out", str(tmp_path / "out")]) == 130
    assert "pair 1 of 1; finished results are kept" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("video,voice\na.mp4,v.wav\nb.mp4\n", "Pair 2 of .* has no voice"),
        ("video,voice,out\na.mp4,v.wav,x.mp4\nb.mp4,v.wav,x.mp4\n", "would both be written to .*x.mp4"),
    ],
)
def test_a_list_that_cannot_be_followed(rows, sentence, tmp_path, capsys):
    (tmp_path / "pairs.csv").write_text(rows)
    assert main(["sync", str(tmp_path / "pairs.csv"), "--out", str(tmp_path / "out")]) == 1
    assert re.search(sentence, capsys.readouterr().err)


def test_a_report_that_cannot_be_written_is_known_at_once(clip, voice, tmp_path, capsys):
    out, report = tmp_path / "out.mp4", tmp_path / "none" / "report.json"
    assert main(["sync", str(clip), str(voice), "--out", str(out), "--report", str(report)]) == 1
    assert "report cannot be written" in capsys.readouterr().err and not out.exists()


def test_a_fetch_that_is_stopped_says_what_is_kept(monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "fetch", stop)
    assert main(["fetch", "wav2lip"]) == 130
    assert "kept for the next try" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_nothing(tmp_path, stop):
    clip, voice = make_clip(tmp_path / "clip.mp4", 50), make_voice(tmp_path / "voice.wav", 60)
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-m", "lipsync", "sync", str(clip), str(voice), "--out", str(out / "out.mp4")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as child:
        deadline = time.monotonic() + 200
        while not list(out.glob(".lipsync-*/*.part")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert time.monotonic() < deadline
        child.send_signal(stop)
        said = child.communicate(timeout=30)[1]
    assert child.returncode == 130 and "nothing was left behind" in said
    assert list(out.iterdir()) == []


def test_it_starts_fast_and_says_its_version():
    began = os.times()
    assert run("--version").stdout.strip()
    ended = os.times()  # the child's processor time: on a busy machine all else is slow
    assert ended.children_user + ended.children_system - began.children_user - began.children_system < 3


@pytest.mark.slow
def test_a_terminal_without_a_sign_shows_another(voice, tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", 5, size=(321, 319))
    ascii_only = {**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = run("sync", clip, voice, "--out", tmp_path / "out.mp4", env=ascii_only)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert "322 ? 320" in done.stdout and (tmp_path / "out.mp4").is_file()
    lost = run("sync", tmp_path / "größe×.mp4", voice, "--out", tmp_path / "x.mp4", env=ascii_only)
    assert lost.returncode == 1 and "does not exist" in lost.stderr and "Traceback" not in lost.stderr
    for command in (["models"], ["--help"], ["sync", "--help"]):
        assert run(*command, env=ascii_only).returncode == 0
    code = "import sys; from eval.__main__ import main; sys.exit(main(sys.argv[1:]))"
    scored = subprocess.run(
        [sys.executable, "-c", code, "score", str(tmp_path / "out.mp4")],
        cwd=ROOT,
        env=ascii_only,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in scored.stderr and "out.mp4" in scored.stdout


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error():
    done = subprocess.run(f"{sys.executable} -m lipsync models | true", shell=True, cwd=ROOT, capture_output=True)
    assert done.stderr == b""


def test_an_error_without_a_file_ends_in_no_empty_name():
    assert sentence(OSError(errno.ENOSPC, "No space left on device")) == "No space left on device."
    assert sentence(OSError(errno.ENOENT, "No such file", "a.mp4")) == "No such file: a.mp4"


def test_a_file_name_that_is_no_text_can_be_reported(clip, voice, tmp_path):
    report = Report(str(tmp_path / "a\udcff.mp4"), 1, 25.0, 1, 0, [], 1, 1, 8, 8, {}, 1.0, 1.0, "m", "0", "e", "l")
    report.save(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["out"].endswith("a\udcff.mp4")


@pytest.mark.slow
def test_a_linked_result_is_written_through(clip, voice, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.mp4").symlink_to(os.path.join("real", "t.mp4"))
    assert main(["sync", str(clip), str(voice), "--out", str(tmp_path / "link.mp4")]) == 0
    assert (tmp_path / "link.mp4").is_symlink() and [p.name for p in (tmp_path / "real").iterdir()] == ["t.mp4"]
    (tmp_path / "lost.mp4").symlink_to(tmp_path / "none" / "t.mp4")
    assert main(["sync", str(clip), str(voice), "--out", str(tmp_path / "lost.mp4")]) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.mp4", "lost.mp4", "real"]
