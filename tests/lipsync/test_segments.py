"""Segments: parts of a video with voices, faces and options of their own; the rest stays as it is."""

import json
from fractions import Fraction

import cv2
import numpy as np
import pytest
import soundfile

import lipsync
from lipsync import pipeline
from lipsync.__main__ import main
from lipsync.errors import InputError
from lipsync.media.reader import FrameReader, VideoWriter, probe, read_sound
from lipsync.media.timeline import SOUND_RATE, Spoken, plan, sound
from lipsync.options import Options
from lipsync.segments import MOST, read_segments, segment

from ..conftest import make_voice, portrait_frame
from .test_pipeline import Recorder

FPS = Fraction(25)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Three seconds of two faces, 640 x 320, with a hum of 110 Hz."""
    path = tmp_path_factory.mktemp("pair") / "pair.mp4"
    with VideoWriter(path, 640, 320, FPS, SOUND_RATE) as writer:
        for i in range(75):
            x = 4 * np.sin(i / 5)
            writer.write(np.hstack([portrait_frame(10 + x, 10), portrait_frame(10 - x, 14)]))
        t = np.arange(3 * SOUND_RATE)
        writer.write_sound(np.repeat(0.05 * np.sin(2 * np.pi * 110 * t / SOUND_RATE)[:, None], 2, 1).astype(np.float32))
    return path


@pytest.mark.slow
def test_each_part_moves_its_face_alone_and_is_heard_in_its_time(pair, voice, tmp_path, monkeypatch):
    """Left from 0.4 to 1.2 s; right from 0.8 s with 0.6 s of voice: they overlap, and the rest is as it was."""
    monkeypatch.setattr(pipeline, "VideoWriter", Recorder)
    Recorder.kept = []
    clip, other = lipsync.find(pair), make_voice(tmp_path / "other.wav", 0.6)
    left, right = sorted(clip.faces.tracks, key=lambda t: t.boxes[0][0])
    common = Options(visible_label=False, watermark=False)
    parts = [
        segment(voice, common, start=0.4, end=1.2, face=str(left.number)),
        segment(other, common, start=0.8, face=str(right.number)),
    ]
    report = lipsync.sync(clip, parts, tmp_path / "out.mp4", common)
    assert lipsync.sync(clip, parts[:1], tmp_path / "cut.mp4", common).meeting == "cut"
    Recorder.kept = Recorder.kept[:75]
    with FrameReader(probe(pair)) as reader:
        source = np.stack(list(reader))
    changed = np.abs(np.stack(Recorder.kept).astype(int) - source).max(3).reshape(75, 320, 2, 320).max((1, 3)) > 0
    assert np.flatnonzero(changed[:, 0]).tolist() == list(range(10, 30))
    assert np.flatnonzero(changed[:, 1]).tolist() == list(range(20, 35))
    assert (report.frames, report.frames_synced, report.missed_ranges) == (75, 25, [])
    assert report.voice_seconds == pytest.approx(1.6 + 0.6) and report.meeting == ""
    heard = read_sound(tmp_path / "out.mp4", SOUND_RATE)[0]
    hum = read_sound(pair, SOUND_RATE)[0]
    outside = np.r_[2000 : int(0.38 * SOUND_RATE), int(1.45 * SOUND_RATE) : int(2.9 * SOUND_RATE)]
    assert np.corrcoef(heard[outside], hum[outside])[0, 1] > 0.99
    inside = slice(int(0.45 * SOUND_RATE), int(0.75 * SOUND_RATE))
    assert abs(np.corrcoef(heard[inside], hum[inside])[0, 1]) < 0.3


def test_levels_and_delays_are_each_parts_own(tmp_path):
    """A click at the beginning of each of two voices, the second part 0.2 s late with half of the own sound."""
    t = np.arange(4 * SOUND_RATE) / SOUND_RATE
    soundfile.write(own := tmp_path / "own.wav", (0.2 * np.sin(2 * np.pi * 110 * t)).astype(np.float32), SOUND_RATE)
    click = np.zeros(SOUND_RATE // 2, np.float32)
    click[2000:2010] = 0.9
    soundfile.write(path := tmp_path / "click.wav", click, SOUND_RATE)
    common = Options(if_audio_longer="cut")
    first = segment(path, common, start=1.0)
    second = segment(path, common, start=2.0, audio_delay_frames=5, background=0.5)
    spoken = [Spoken(plan(100, FPS, 0.5, s.options), [path], s.options) for s in (first, second)]
    heard = np.concatenate(list(sound(spoken, FPS, own)))[:, 0]
    assert len(heard) == 4 * SOUND_RATE
    clicks = np.flatnonzero(heard > 0.6)
    assert clicks.min() == SOUND_RATE + 2000 and clicks.max() < 2.2 * SOUND_RATE + 2010
    assert (clicks > 2.2 * SOUND_RATE).any()

    def level(start, end):
        return np.abs(heard[int(start * SOUND_RATE) : int(end * SOUND_RATE)]).max()

    assert level(0.1, 0.9) == pytest.approx(0.2, abs=0.01) and level(2.7, 3.9) == pytest.approx(0.2, abs=0.01)
    assert level(1.1, 1.4) < 0.01 and level(2.05, 2.15) == pytest.approx(0.1, abs=0.01)


@pytest.mark.slow
def test_two_faces_of_a_picture_speak_in_turn(tmp_path, voice):
    """The picture stands until the last voice ends; a part's end cuts its voice."""
    picture = np.hstack([portrait_frame(10, 10), portrait_frame(10, 14)])
    cv2.imwrite(str(tmp_path / "two.png"), picture[..., ::-1])
    clip = lipsync.find(tmp_path / "two.png")
    left, right = (str(t.number) for t in sorted(clip.faces.tracks, key=lambda t: t.boxes[0][0]))
    parts = [segment(voice, face=left, end=0.8), segment(voice, face=right, start=1.0)]
    report = lipsync.sync(clip, parts, tmp_path / "out.mp4")
    assert (report.frames, report.frames_synced, report.missed_ranges) == (65, 20 + 40, [])
    assert probe(tmp_path / "out.mp4").duration_s == pytest.approx(2.6, abs=0.04)
    one = lipsync.sync(clip, [segment(voice, face=left, start=0.4)], tmp_path / "one.mp4")
    assert (one.frames, one.frames_synced) == (50, 40)
    with pytest.raises(InputError, match="move one face at the same time, from 1.00 to 1.60 s"):
        lipsync.sync(clip, [segment(voice, face=left), segment(voice, face=left, start=1.0)], tmp_path / "no.mp4")
    with pytest.raises(InputError, match="ends at 100002 s; a picture can be shown for 14400 s"):
        lipsync.sync(clip, [segment(voice, face=left, start=1e5)], tmp_path / "no.mp4")


@pytest.mark.slow
def test_two_parts_may_not_move_one_face_at_once(clip, voice, tmp_path):
    parts = [segment(voice, start=0, end=1), segment(voice, start=0.5)]
    with pytest.raises(InputError, match="move one face at the same time, from 0.48 to 1.00 s"):
        lipsync.sync(clip, parts, tmp_path / "out.mp4")
    with pytest.raises(InputError, match="lies outside the video"):
        lipsync.sync(clip, [segment(voice, start=9)], tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("{}", "is no list of 1 to 100 segments"),
        ("[]", "is no list of 1 to 100 segments"),
        ([{"voice": "a.wav"}] * (MOST + 1), "is no list of 1 to 100 segments"),
        ([{"voice": "a.wav"}, 7], "Segment 2 of parts.json: it names no voice"),
        ([{"start": 1}], "Segment 1 of parts.json: it names no voice"),
        ([{"voice": "a.wav", "begin": 1}], "Segment 1 of parts.json: A segment has no option 'begin': voice, face"),
        ([{"voice": "a.wav", "crf": 20}], "has no option 'crf'"),
        ([{"voice": "a.wav", "common": {}}], "has no option 'common'"),
        ([{"voice": "a.wav", "start": "1"}], "start of a segment takes a number, not '1'"),
        ([{"voice": "a.wav", "start": True}], "start of a segment takes a number, not True"),
        ([{"voice": "a.wav", "track": 1.5}], "track of a segment takes a whole number, not 1.5"),
        ([{"voice": "a.wav", "start": None}], "start of a segment takes a number, not None"),
        ([{"voice": "a.wav", "face": "nobody"}], "A face is chosen by largest"),
        ([{"voice": "a.wav", "start": 2, "end": 1}], "ends at 1 s, before it starts at 2 s"),
        ([{"voice": "a.wav", "background": 3}], "background level must lie between"),
    ],
)
def test_a_wrong_list_is_one_sentence(rows, said, tmp_path):
    path = tmp_path / "parts.json"
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    with pytest.raises(InputError, match=said):
        read_segments(path, Options())


def test_a_list_takes_what_is_common_from_the_options(tmp_path):
    path = tmp_path / "parts.json"
    path.write_text(json.dumps([{"voice": "a.wav", "start": 1, "face": "0"}, {"voice": "b.wav", "end": None}]))
    first, second = read_segments(path, Options(background=0.3, crf=20, start=5.0))
    assert first.voices == {None: tmp_path / "a.wav"} and second.voices == {None: tmp_path / "b.wav"}
    assert (first.options.start, first.options.face, first.options.background, first.options.crf) == (1, "0", 0.3, 20)
    assert (second.options.start, second.options.face) == (0, "largest")


@pytest.mark.slow
def test_the_command_line_takes_a_list(clip, tmp_path, capsys):
    make_voice(tmp_path / "a.wav", 0.5)
    path = tmp_path / "parts.json"
    path.write_text(json.dumps([{"voice": "a.wav", "start": 0.2}, {"voice": "a.wav", "start": 1.2, "end": 1.4}]))
    out = tmp_path / "out.mp4"
    assert main(["sync", str(clip), "--segments", str(path), "--out", str(out)]) == 0
    assert probe(out).frames == 50 and "made anew in 18 of them" in " ".join(capsys.readouterr().out.split())
    for wrong in (["voice.wav", "--segments", str(path)], ["--voice", "0=a.wav", "--segments", str(path)]):
        with pytest.raises(SystemExit) as stopped:
            main(["sync", str(clip), *wrong, "--out", str(tmp_path / "other.mp4")])
        assert stopped.value.code == 2
