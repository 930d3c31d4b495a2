"""The whole job on made media: what is changed, what is not, how long it is, what is left behind."""

import errno
import json
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import cv2
import numpy as np
import pytest
import soundfile
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

import lipsync
from lipsync import pipeline
from lipsync.blending import mouth_mask
from lipsync.clip import Clip
from lipsync.errors import Cancelled, InputError, LabelError, LipsyncError, ModelError, NoFaceError
from lipsync.faces.tracking import FaceMap, Track
from lipsync.geometry import CropRule
from lipsync.label.keys import make_signer
from lipsync.media.reader import FrameReader, VideoWriter, probe, read_waveform
from lipsync.options import Options
from lipsync.pipeline import _check_target, _find, _other_shots, find, preview, sync
from lipsync.progress import Monitor
from tests.conftest import make_clip, make_voice, portrait_frame
from tests.helpers.media_maker import write_media
from tests.helpers.wild import WILD, each_wild_clip


@pytest.fixture(scope="module")
def done(clip, voice, tmp_path_factory):
    """One sync of the made clip, and its report."""
    out = tmp_path_factory.mktemp("done") / "out.mp4"
    return lipsync.sync(clip, voice, out, Options(if_audio_shorter="cut")), out


def test_three_lines_make_a_video(done):
    report, out = done
    info = probe(out)
    assert (info.width, info.height, info.fps, info.frames) == (320, 320, 25, 40)
    assert info.has_audio and info.duration_s == pytest.approx(1.6, abs=0.04)
    assert (report.frames, report.frames_synced, report.frames_passed) == (40, 40, 0)
    assert report.faces == 1 and report.shots == 1 and report.engine and len(report.checkpoint_sha256) == 64
    assert {"faces", "generate", "paste", "encode", "label"} <= set(report.seconds)
    assert "40 frames" in report.words() and "Voice 1.6 s, video 2.0 s: the video is cut." in report.words()


def test_the_voice_is_heard_where_it_was_laid(done, voice):
    made, given = read_waveform(done[1]), read_waveform(voice)
    n = min(len(made), len(given))
    lag = np.argmax(np.correlate(made[: n // 2], given[200 : n // 2 - 200], "valid")) - 200
    assert abs(lag) <= 32  # 2 ms


class Recorder(VideoWriter):
    """Keeps what is written, before any codec."""

    kept: list[np.ndarray] = []

    def write(self, frame):
        if frame.shape[:2] != (16, 16):  # not the film of one frame by which the signer is tried
            self.kept.append(frame.copy())
        super().write(frame)


@pytest.fixture
def written(monkeypatch):
    monkeypatch.setattr(pipeline, "VideoWriter", Recorder)
    Recorder.kept = []
    return Recorder.kept


@pytest.mark.slow
def test_pixels_outside_mask_and_stamp_are_untouched_without_a_watermark(clip, voice, tmp_path, written):
    found = find(clip)
    faces = found.faces
    sync(found, voice, tmp_path / "out.mp4", Options(watermark=False, if_audio_shorter="cut"))
    (track,) = faces.tracks
    stamp = lipsync.label.manifest.Stamp(320, 320).place(track.boxes)
    with FrameReader(probe(clip)) as reader:
        for i, (old, new) in enumerate(zip(reader, written, strict=False)):  # the voice is shorter
            changed = (old != new).any(2)
            x0, y0, x1, y1 = (int(v) for v in stamp)
            changed[y0:y1, x0:x1] = False
            region = CropRule().region(track.boxes[i])
            mask = mouth_mask(track.landmarks[i], CropRule().alignment(track.boxes[i]))
            rows, columns = np.nonzero(mask)
            scale = (region[2:] - region[:2]) / 96
            top, left = region[1] + (rows.min() - 1) * scale[1], region[0] + (columns.min() - 1) * scale[0]
            bottom, right = region[1] + (rows.max() + 2) * scale[1], region[0] + (columns.max() + 2) * scale[0]
            at = np.nonzero(changed)
            assert len(at[0]) > 200, "the mouth was not changed at all"
            assert at[0].min() >= top - 1 and at[0].max() <= bottom + 1
            assert at[1].min() >= left - 1 and at[1].max() <= right + 1
    assert len(written) == 40


def mouth_motion(frames, track):
    """Mean change of the mouth region from frame to frame, grey levels."""
    x0, y0, x1, y1 = track.boxes.mean(0).astype(int)
    cut = np.stack([f[(y0 + 2 * y1) // 3 : y1, x0:x1] for f in frames]).astype(float)
    return np.abs(np.diff(cut, axis=0)).mean()


@pytest.mark.slow
def test_the_mouth_rests_in_silence(tmp_path, voice, written):
    """A still face under speech and under silence: the second moves less than a third as much."""
    still = tmp_path / "still.png"
    cv2.imwrite(str(still), portrait_frame(10, 10)[..., ::-1])
    silence = tmp_path / "silence.wav"
    soundfile.write(silence, np.random.default_rng(0).normal(0, 1e-4, 25_600), 16_000)
    track = find(still).faces.tracks[0]
    sync(still, voice, tmp_path / "a.mp4")
    speech = mouth_motion(written, track)
    written.clear()
    report = sync(still, silence, tmp_path / "b.mp4")
    assert mouth_motion(written, track) < speech / 3
    assert any("silent" in w for w in report.warnings)


@pytest.mark.slow
@pytest.mark.slow
def test_a_quiet_recording_moves_the_mouth_as_far(tmp_path, voice, written):
    """The same voice at -40 dB, as a 16-bit file holds it; what is heard stays as quiet as it was."""
    still = tmp_path / "still.png"
    cv2.imwrite(str(still), portrait_frame(10, 10)[..., ::-1])
    samples, rate = soundfile.read(voice)
    quiet = tmp_path / "quiet.wav"
    soundfile.write(quiet, samples * 0.01, rate)
    found = find(still)
    motion = []
    for spoken in (voice, quiet):
        written.clear()
        sync(found, spoken, tmp_path / "out.mp4", Options(visible_label=False))
        motion.append(mouth_motion(written, found.faces.tracks[0]))
    assert motion[1] >= 0.9 * motion[0] > 0
    assert np.abs(read_waveform(tmp_path / "out.mp4")).max() < 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "seconds", "synced"),
    [
        (Options(if_audio_longer="pingpong"), 3.2, 80),
        (Options(if_audio_longer="cut"), 2.0, 50),
        (Options(if_audio_longer="stretch"), 3.2, 80),
        (Options(start=0.4, end=1.2), 2.0, 20),
    ],
)
def test_a_longer_voice(clip, tmp_path, options, seconds, synced):
    report = sync(clip, make_voice(tmp_path / "long.wav", 3.2), tmp_path / "out.mp4", options)
    assert report.frames == round(seconds * 25) and report.frames_synced == synced
    assert len(read_waveform(tmp_path / "out.mp4")) == pytest.approx(seconds * 16_000, abs=400)


@pytest.mark.slow
def test_keeping_the_rest_keeps_its_sound(clip, voice, tmp_path):
    report = sync(clip, voice, tmp_path / "out.mp4")
    assert (report.frames, report.frames_synced, report.passed_ranges) == (50, 40, [(40, 50)])
    assert report.missed_ranges == [] and "untouched: 10 outside the part that has the voice." in report.words()
    assert "the rest of the video stays as it is" in report.words()
    sound = read_waveform(tmp_path / "out.mp4")
    tail = sound[int(1.7 * 16_000) : int(1.95 * 16_000)]
    assert 0.02 < np.abs(tail).max() < 0.08  # the clip's own hum


@pytest.mark.slow
def test_the_nudge_moves_the_sound_alone(clip, voice, tmp_path):
    sync(clip, voice, tmp_path / "out.mp4", Options(audio_delay_frames=5))
    made, given = read_waveform(tmp_path / "out.mp4"), read_waveform(voice)
    lag = np.argmax(np.correlate(made[:16_000], given[:8_000], "valid"))
    assert lag == pytest.approx(5 * 640, abs=40)


@pytest.mark.slow
def test_background_keeps_the_own_sound(clip, voice, tmp_path):
    def hum(level):
        out = tmp_path / f"{level}.mp4"
        sync(clip, voice, out, Options(background=level))
        sound = read_waveform(out)[:16_000]
        return np.abs(np.fft.rfft(sound))[110]

    assert hum(1.0) > hum(0.0) + 200


@pytest.mark.slow
def test_a_still_image_speaks(voice, tmp_path):
    cv2.imwrite(str(tmp_path / "still.jpg"), portrait_frame(10, 10, (321, 319))[..., ::-1])
    report = sync(tmp_path / "still.jpg", voice, tmp_path / "out.mp4")
    assert report.frames == report.frames_synced == 40 and (report.width, report.height) == (322, 320)
    assert any("odd" in w for w in report.warnings)
    assert sync(tmp_path / "still.jpg", voice, tmp_path / "out.mp4", Options(end=0.4)).frames == 10


@pytest.mark.slow
def test_frames_without_the_face_are_counted_and_placed(clip, voice, tmp_path):
    """The face found in frames 4 to 27 alone, of which 10 to 12 are bridged."""
    whole = find(clip)
    (track,) = whole.faces.tracks
    part = slice(4, 28)
    bridged = np.zeros(24, bool)
    bridged[6:9] = True
    short = replace(
        track, start=4, boxes=track.boxes[part], landmarks=track.landmarks[part], seen=track.seen[part], bridged=bridged
    )
    found = replace(whole, faces=replace(whole.faces, tracks=(short,)))
    report = sync(found, voice, tmp_path / "out.mp4", Options(start=0.08, end=1.4))
    assert report.frames_synced == 24 and report.frames_bridged == 3
    assert report.passed_ranges == [(0, 4), (28, 50)] and report.missed_ranges == [(2, 4), (28, 35)]
    said = report.words()
    assert "26 frames passed through untouched: 9 without the face (0.08 to 0.16 s, 1.12 to 1.40 s)" in said
    assert "and 17 outside the part that has the voice." in said and "In 3 frames the face was not found" in said


@pytest.mark.slow
def test_the_stamp_keeps_clear_of_faces_that_do_not_speak(clip, voice, tmp_path, monkeypatch):
    found = find(clip)
    (track,) = found.faces.tracks
    corner = replace(track, number=1, boxes=np.tile(np.float32([220, 280, 320, 320]), (50, 1)))
    places, place = [], lipsync.label.manifest.Stamp.place
    monkeypatch.setattr(lipsync.label.manifest.Stamp, "place", lambda *a: places.append(place(*a)) or places[-1])
    both = replace(found, faces=replace(found.faces, tracks=(track, corner)))
    sync(both, voice, tmp_path / "out.mp4", Options(face="0"))
    assert places[0][2] < 220 or places[0][3] < 280


@pytest.mark.slow
def test_two_faces_two_voices(tmp_path, voice):
    video = tmp_path / "pair.mp4"
    with VideoWriter(video, 640, 320, Fraction(25)) as writer:
        for i in range(25):
            x = 4 * np.sin(i / 5)
            writer.write(np.hstack([portrait_frame(10 + x, 10), portrait_frame(10 - x, 14)]))
    other = make_voice(tmp_path / "other.wav", 0.6)
    report = sync(video, {0: voice, 1: other}, tmp_path / "out.mp4")
    assert report.faces == 2 and report.frames_synced == report.frames == 40
    with pytest.raises(InputError, match="no face number 5"):
        sync(video, {5: voice}, tmp_path / "out5.mp4")
    assert not (tmp_path / "out5.mp4").exists()


@pytest.mark.slow
def test_a_preview_numbers_the_faces(clip):
    found = find(clip)
    shown = preview(found, 0.5)
    with FrameReader(probe(clip), [(12, 13)]) as reader:
        plain = next(iter(reader))
    assert shown.shape == plain.shape and (shown != plain).any(2).sum() > 300
    with pytest.raises(InputError, match="not nan"):
        preview(found, float("nan"))


def test_it_is_said_where_a_number_does_not_hold():
    boxes = np.tile(np.float32([10, 10, 50, 50]), (20, 1))
    tracks = [Track(n, n, 20 * n, boxes, np.zeros((20, 25, 2), np.float32), np.ones(20, bool)) for n in range(2)]
    faces = FaceMap(40, Fraction(25), ((0, 20), (20, 40)), tuple(tracks))
    assert _other_shots(faces, tracks) == []
    assert "from 0.80 to 1.60 s" in _other_shots(faces, tracks[1:])[0]


def left(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.slow
def test_stopping_leaves_nothing(clip, voice, tmp_path):
    calls = []

    def cancelled():
        calls.append(1)
        return len(calls) > 42  # 40 frames of the first pass, then into the second

    with pytest.raises(Cancelled):
        sync(clip, voice, tmp_path / "out.mp4", cancelled=cancelled)
    assert left(tmp_path) == []
    assert threading.active_count() < 20


def test_no_face_is_one_sentence(tmp_path, voice):
    with VideoWriter(tmp_path / "grey.mp4", 64, 64, Fraction(25)) as writer:
        for _ in range(10):
            writer.write(np.full((64, 64, 3), 90, np.uint8))
    with pytest.raises(NoFaceError, match="No face was found in any of the 10 frames of grey.mp4"):
        sync(tmp_path / "grey.mp4", voice, tmp_path / "out.mp4")
    assert left(tmp_path) == ["grey.mp4"]


@pytest.mark.slow
def test_a_video_that_goes_on_after_its_promise_is_stopped(tmp_path):
    """Its header says a few frames, its last picture comes a day later: nobody agreed to wait for that."""
    blank = np.zeros((48, 64, 3), np.uint8)
    info = probe(write_media(tmp_path / "long.mp4", [blank] * 1600))
    with pytest.raises(InputError, match="says that it has 20 frames, and goes on after 154"):
        _find(Clip(replace(info, frames=20)), 20, Options(), Monitor())


@pytest.mark.slow
def test_errors_before_any_work(clip, voice, tmp_path):
    with pytest.raises(ModelError, match="no lip-sync model named 'nope'"):
        sync(clip, voice, tmp_path / "out.mp4", Options(model="nope"))
    with pytest.raises(InputError, match="there is no folder"):
        sync(clip, voice, tmp_path / "none" / "out.mp4")
    with pytest.raises(InputError, match="ends in .mp4"):
        sync(clip, voice, tmp_path / "out.mkv")
    with pytest.raises(InputError, match="overwrite"):
        sync(clip, voice, clip)
    with pytest.raises(InputError, match="no picture"):
        sync(voice, voice, tmp_path / "out.mp4")
    with pytest.raises(InputError, match="between 1 and 51"):
        replace(Options(), crf=99)
    with pytest.raises(InputError, match="No video was given"):
        sync(None, voice, tmp_path / "out.mp4")
    for none in (None, {}, {0: None}):
        with pytest.raises(InputError, match="No voice was given"):
            sync(clip, none, tmp_path / "out.mp4")
    assert left(tmp_path) == []


@pytest.mark.slow
def test_a_damaged_voice_is_a_warning(clip, tmp_path):
    """Zeros in the middle of an MP3: what is left is heard, and the report says so."""
    t = np.arange(2 * 48_000) / 48_000
    path = write_media(tmp_path / "voice.mp3", sound=0.3 * np.sin(2 * np.pi * 300 * t), sound_codec="libmp3lame")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 900] = b"\xff\xfb\x00\x00" * 225
    path.write_bytes(data)
    report = sync(clip, path, tmp_path / "out.mp4")
    assert any("voice.mp3" in w and "damaged" in w for w in report.warnings)


@pytest.mark.slow
def test_a_file_cut_short_says_what_it_promised(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", 10)
    info = replace(probe(path), frames=40)
    found = _find(Clip(info), 30, Options(), Monitor())
    assert "promises 40 frames, but only 10" in found.faces.notes[0]


def test_a_folder_that_takes_no_files_is_known_at_once(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refused)
    with pytest.raises(InputError, match="out.mp4: Permission denied"):
        _check_target(tmp_path / "out.mp4", [])


def test_a_report_is_json(done, tmp_path):
    done[0].save(tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text())
    wanted = "frames fps frames_synced frames_passed faces shots seconds peak_rss_mb model checkpoint_sha256 engine"
    assert set(wanted.split()) <= set(read)


@pytest.fixture
def no_work(monkeypatch):
    """Faces may not be looked for: what stops a job has to be known by then."""
    monkeypatch.setattr(pipeline, "find_faces", lambda *_: pytest.fail("the work had begun"))


def operator(folder, start, years=5.0, purposes=True):
    """A chain and a key of an operator, PEM files, valid from `start` days from now on."""
    key, chain = make_signer(years)
    (folder / "key.pem").write_bytes(key)
    (folder / "key.pem").chmod(0o600)
    if start or not purposes:
        now = datetime.now(UTC) + timedelta(days=start, hours=-1)
        own = serialization.load_pem_private_key(key, None)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "operator")])
        leaf = x509.CertificateBuilder(
            name, name, own.public_key(), x509.random_serial_number(), now, now + timedelta(days=9)
        ).sign(own, hashes.SHA256())
        chain = leaf.public_bytes(serialization.Encoding.PEM)
    (folder / "chain.pem").write_bytes(chain)
    return {"LIPSYNC_SIGN_CHAIN": str(folder / "chain.pem"), "LIPSYNC_SIGN_KEY": str(folder / "key.pem")}


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("keys that are a file", "No signing key can be made in .* LIPSYNC_KEYS"),
        ("a chain alone", "Set both LIPSYNC_SIGN_CHAIN and LIPSYNC_SIGN_KEY"),
        ("a chain that is not there", "cannot be read"),
        ("a certificate of tomorrow", "is valid from .* not today"),
        ("a certificate that has lapsed", "is valid from .* not today"),
        ("a certificate for something else", "could not be signed"),
        ("a timestamp authority that does not answer", "could not be signed.*LIPSYNC_TSA"),
    ],
)
def test_what_hinders_the_signature_is_known_before_the_first_frame(
    case, said, clip, voice, tmp_path, monkeypatch, no_work
):
    (tmp_path / "file").touch()
    settings = {
        "keys that are a file": lambda: {"LIPSYNC_KEYS": str(tmp_path / "file" / "keys")},
        "a chain alone": lambda: {"LIPSYNC_SIGN_CHAIN": "chain.pem"},
        "a chain that is not there": lambda: {"LIPSYNC_SIGN_CHAIN": "none.pem", "LIPSYNC_SIGN_KEY": "none.pem"},
        "a certificate of tomorrow": lambda: operator(tmp_path, 1),
        "a certificate that has lapsed": lambda: operator(tmp_path, -30),
        "a certificate for something else": lambda: operator(tmp_path, 0, purposes=False),
        "a timestamp authority that does not answer": lambda: {"LIPSYNC_TSA": "http://127.0.0.1:9"},
    }[case]()
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "out").mkdir()
    with pytest.raises(LabelError, match=said):
        sync(clip, voice, tmp_path / "out" / "out.mp4")
    assert left(tmp_path / "out") == []


@pytest.mark.slow
def test_samples_that_are_no_numbers_end_nothing(voice, tmp_path):
    """In the voice and in the video's own sound: finite sound, and a warning for each."""
    wave = read_waveform(voice)
    wave[::5000] = np.nan
    soundfile.write(tmp_path / "nan.wav", wave, 16_000, subtype="FLOAT")
    own = make_voice(tmp_path / "own.wav", 2.0)
    sound = np.repeat(np.where(np.arange(96_000) % 7000, np.repeat(read_waveform(own), 3), np.inf)[:, None], 2, 1)
    clip = write_media(tmp_path / "clip.mov", [portrait_frame(10, 10)] * 50, sound=sound, sound_codec="pcm_f32le")
    report = sync(clip, tmp_path / "nan.wav", tmp_path / "out.mp4", Options(background=0.5))
    assert report.frames_synced == 40 and np.isfinite(read_waveform(tmp_path / "out.mp4")).all()
    said = [w for w in report.warnings if "no numbers" in w]
    assert [w.partition(":")[0] for w in said] == ["nan.wav", "clip.mov"]


@pytest.mark.slow
def test_a_stereo_voice_out_of_phase_moves_the_mouth_as_the_mono_one_does(clip, voice, tmp_path, written):
    wave, found = read_waveform(voice), find(clip)
    soundfile.write(tmp_path / "two.wav", np.stack([wave, -wave], 1), 16_000, subtype="FLOAT")
    sync(found, voice, tmp_path / "a.mp4")
    one = mouth_motion(written, found.faces.tracks[0])
    written.clear()
    report = sync(found, tmp_path / "two.wav", tmp_path / "b.mp4")
    assert mouth_motion(written, found.faces.tracks[0]) == pytest.approx(one, rel=0.1)
    assert any("two.wav: A mix of its channels" in w for w in report.warnings)


@pytest.mark.slow
def test_the_result_is_named_where_it_cannot_be_written(clip, voice, tmp_path, monkeypatch):
    """No inner file, no folder of the server, in what a visitor may read."""
    monkeypatch.setattr(pipeline, "VideoWriter", Full)
    with pytest.raises(LipsyncError) as caught:
        sync(clip, voice, tmp_path / "mine.mp4")
    assert str(caught.value) == "mine.mp4 could not be written (No space left on device)."
    assert left(tmp_path) == []


class Full(VideoWriter):
    """Stands on a full disk."""

    def write(self, frame):
        with self._sentences():
            raise OSError(errno.ENOSPC, "No space left on device", str(self._temp))


@pytest.fixture(scope="module")
def spoken(shared_data, tmp_path_factory):
    """Two seconds of real speech."""
    path = tmp_path_factory.mktemp("spoken") / "voice.wav"
    soundfile.write(path, read_waveform(shared_data / "wild" / "obama.mp4")[:32_000], 16_000)
    return path


def test_all_wild_clips_are_here(shared_data):
    assert len(WILD) == 41


@each_wild_clip
def test_a_wild_clip_works(video, spoken, tmp_path, monkeypatch):
    """It has the frames, seconds and size it should have, and nothing but face regions and the stamp was changed."""
    info = probe(video)
    expected = min(info.frames, int(np.ceil(2 * info.fps)))
    clip = _find(Clip(info), expected, Options(), Monitor())
    faces = clip.faces
    stamp = lipsync.label.manifest.Stamp(info.width, info.height)
    x0, y0, x1, y1 = stamp.place(np.concatenate([t.boxes for t in faces.tracks]))
    source, strayed = FrameReader(info, [(0, expected)]), []

    class Comparing(VideoWriter):
        def write(self, frame):
            changed, at = (frame != next(source)).any(2), len(strayed)
            changed[y0:y1, x0:x1] = False
            for track in (t for t in faces.tracks if t.has(at)):
                place = CropRule().alignment(track.boxes[at - track.start], track.landmarks[at - track.start])
                corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) @ place[:, :2].T + place[:, 2]
                (left, top), (right, bottom) = (np.maximum(v.astype(int), 0) for v in (corners.min(0), corners.max(0)))
                changed[top : bottom + 2, left : right + 2] = False
            strayed.append(int(changed.sum()))
            super().write(frame)

    pipeline._check_signing()  # writes a film of its own
    monkeypatch.setattr(pipeline, "VideoWriter", Comparing)
    with source:
        report = sync(clip, spoken, tmp_path / "out.mp4", Options(if_audio_longer="cut", watermark=False))
    made = probe(tmp_path / "out.mp4")
    assert report.frames == made.frames == expected == len(strayed) and not any(strayed)
    assert (made.fps, made.width, made.height) == (info.fps, info.width + info.width % 2, info.height + info.height % 2)
    assert made.duration_s == pytest.approx(expected / float(info.fps), abs=0.05)
    assert report.frames_synced > 0 or video.name == "stage_cuts.mp4"


@pytest.mark.bench
def test_ten_minutes_take_no_more_memory_than_one(tmp_path):
    script = (
        "import sys, lipsync; o = lipsync.Options(if_audio_longer='loop')\n"
        "print(lipsync.sync(*sys.argv[1:4], o).peak_rss_mb)"
    )
    clip = make_clip(tmp_path / "clip.mp4", 50)
    peaks = []
    for seconds in (60, 600):
        voice = make_voice(tmp_path / "voice.wav", seconds)
        command = [sys.executable, "-c", script, str(clip), str(voice), str(tmp_path / "out.mp4")]
        peaks.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]))
    assert peaks[1] < 1.1 * peaks[0], peaks
