"""Files in, rows out: numbers on good clips, the same each time, and a reason for everything that cannot be scored."""

import csv
import subprocess
import sys
from collections import OrderedDict
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

import eval.protocols
from eval import clips, score, tracks
from eval.clips import main_face
from eval.inputs import Item
from eval.metrics import sync
from eval.metrics.base import MeasureError
from eval.protocols import PROTOCOLS, protocol
from eval.score import clip_sync, embeddings, score_file
from eval.tracks import FaceTrack
from lipsync.errors import Cancelled
from lipsync.faces import detectors
from lipsync.faces import tracking as faces
from lipsync.faces.base import Detection
from lipsync.media.reader import FrameReader, VideoWriter, probe
from lipsync.progress import Monitor
from tests.conftest import ROOT, portrait_frame
from tests.helpers.faces import FixedDetector
from tests.helpers.made import FLASHES, FlashEvaluator, flash_clip, lab_evaluator, spoken, talking_clip
from tests.helpers.media_maker import count_up, write_media

SHORT = protocol("short")


@pytest.fixture(scope="module")
def talking(tmp_path_factory) -> Path:
    """1.6 s of the astronaut with a voice."""
    return talking_clip(tmp_path_factory.mktemp("talking") / "talks.mp4", 40)


@pytest.fixture(scope="module")
def flashing(tmp_path_factory) -> Path:
    return flash_clip(tmp_path_factory.mktemp("flashing") / "flashes.mp4")


@pytest.mark.slow
def test_a_clip_with_a_voice_gives_a_row(talking):
    row = score_file(talking, lab_evaluator(), SHORT)
    assert row.error is None and row.file == str(talking) and len(row.file_sha256) == 64
    assert (row.evaluator, row.protocol, row.shifts, row.detector) == ("syncnet-lab", "short", 7, "mediapipe")
    assert row.evaluator_sha256 == lab_evaluator().sha256 and row.protocol_hash == SHORT.sha(
        "mediapipe", lab_evaluator()
    )
    assert (row.frames, row.tracks, row.coverage) == (40, 1, 1.0)
    assert len(row.curve) == 15 and row.lse_d == pytest.approx(min(row.curve), abs=1e-5)
    assert row.lse_c == pytest.approx(np.median(row.curve) - min(row.curve), abs=2e-5)
    assert len(row.confidence) == 2 and 0 <= row.certainty <= 1  # 35 windows: two seconds begun
    if row.certainty < sync.SURE:
        assert row.offset is None and any("cannot tell the offset" in r for r in row.remarks)
    else:
        assert row.offset == 7 - int(np.argmin(row.curve))
    assert score_file(talking, lab_evaluator(), SHORT) == row  # every bit of it


@pytest.mark.slow
@pytest.mark.parametrize("late", [0, 4, -3])
def test_a_click_and_flash_clip_has_the_offset_it_was_made_with(tmp_path, late):
    row = score_file(flash_clip(tmp_path / "made.mp4", late=late), FlashEvaluator(), FLASHES)
    assert row.offset == -late and row.certainty == 1 and row.lse_d < 0.1 and row.lse_c > 1.5
    assert row.remarks == [] and row.detector == "none" and row.frames == 100 and row.coverage == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sound_s", "padded"),
    [(1.8, True), *(pytest.param(s, p, marks=pytest.mark.slow) for s, p in [(1.8, False), (4, True), (7, False)])],
)
def test_what_streams_by_is_what_is_scored_at_once(tmp_path, sound_s, padded):
    """Windows that have no sound do not count, and none is embedded for nothing."""
    clip, evaluator = flash_clip(tmp_path / "made.mp4", 100, 2, sound_s), FlashEvaluator()
    row = score_file(clip, evaluator, replace(FLASHES, padded=padded))
    windows = min(100, round(25 * sound_s)) - 5
    assert windows <= evaluator.seen <= windows + 1 and evaluator.heard == windows
    video, audio = embeddings(main_face(clip, FlashEvaluator(), FLASHES), FlashEvaluator())
    assert len(video) == len(audio) == windows
    found = sync.score(sync.distance_rows(video, audio, shifts=10, padded=padded))
    assert (row.offset, row.lse_d, row.lse_c, row.certainty) == (-2, found.lse_d, found.lse_c, found.certainty)
    assert row.frames == 100


@pytest.mark.slow
def test_tracks_are_heard_from_their_own_first_frame_on(flashing, monkeypatch):
    """Two faces at once, one from frame 15 on, and one too short to count: means of two, the offset of the first."""
    box = np.array([8.0, 8, 48, 48])

    def track(first: int, count: int) -> FaceTrack:
        return FaceTrack(first, np.tile(box, (count, 1)), np.tile([[20.0], [28], [28]], count))

    monkeypatch.setattr(score, "find_tracks", lambda *_: ([track(15, 70), track(0, 60), track(80, 5)], 100))
    published = replace(FLASHES, name="real-video", faces="published")
    found = clip_sync(flashing, FlashEvaluator(), published)
    assert [s.offset for s in found.scores] == [0, 0] and [t.first for t in found.tracks] == [15, 0]
    assert [len(s.confidence) for s in found.scores] == [65, 55] and found.coverage == 0.85
    row = score_file(flashing, FlashEvaluator(), published)
    assert [(t["first"], t["frames"], t["offset"]) for t in row.per_track] == [(15, 70, 0), (0, 60, 0)]
    assert [t["lse_c"] for t in row.per_track] == [s.lse_c for s in found.scores]
    assert row.lse_c == np.mean([s.lse_c for s in found.scores]) and row.tracks == 2 and row.error is None


@pytest.mark.slow
def test_a_track_that_leaves_the_picture_takes_no_other_with_it(flashing, monkeypatch):
    box, places = np.array([8.0, 8, 48, 48]), np.tile([[20.0], [28], [28]], 70)
    gone = places.copy()
    gone[1, 40] = 900
    both = [FaceTrack(0, np.tile(box, (70, 1)), p) for p in (gone, places)]
    monkeypatch.setattr(score, "find_tracks", lambda *_: (both, 100))
    row = score_file(flashing, FlashEvaluator(), replace(FLASHES, name="real-video", faces="published"))
    assert row.error is None and row.offset == 0 and row.tracks == 1
    assert any("1 of 2 face tracks have no score" in r and "leaves no picture" in r for r in row.remarks)


@pytest.mark.slow
def test_another_sound_in_place_of_its_own(flashing, tmp_path):
    other = flash_clip(tmp_path / "other.mp4", late=5)
    row = score_file(flashing, FlashEvaluator(), FLASHES, sound=other)
    assert row.offset == -5 and row.file == str(flashing)
    mute = write_media(tmp_path / "mute.mp4", count_up(40, 64, 64))
    assert "holds no sound" in score_file(mute, FlashEvaluator(), FLASHES).error
    assert score_file(mute, FlashEvaluator(), FLASHES, sound=flashing).error is None
    assert "none.wav" in score_file(flashing, FlashEvaluator(), FLASHES, sound=tmp_path / "none.wav").error


def noise(path: Path, frames: int = 25, size: int = 96) -> Path:
    rng = np.random.default_rng(0)
    with VideoWriter(path, size, size, Fraction(25), 16_000, 1) as writer:
        for _ in range(frames):
            writer.write(rng.integers(0, 256, (size, size, 3), np.uint8))
        writer.write_sound(spoken(path.parent, frames / 25)[:, None])
    return path


def bad(name: str, folder: Path) -> Path:
    """Make the bad input of a name; its ending says how it looks from outside."""
    path, hum = folder / name, (0.1 * np.sin(np.arange(48_000) / 30)).astype(np.float32)
    match path.stem:
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("This is not a video.\n" * 50)
        case "headless":  # its index, at the end, is cut off
            write_media(path, count_up(25), sound=hum)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        case "folder":
            path.mkdir()
        case "mute":
            write_media(path, count_up(25))
        case "voice":
            soundfile.write(path, hum, 48_000)
        case "still":
            cv2.imwrite(str(path), portrait_frame(10, 10))
        case "silent":
            write_media(path, count_up(25), sound=0 * hum)
        case "thirty":
            write_media(path, count_up(30, 64, 64), 30, sound=hum)
        case "five":
            write_media(path, count_up(5, 64, 64), sound=hum)
        case "clipped":
            write_media(path, count_up(25, 64, 64), sound=hum[:7_680])
        case "noise":
            noise(path)
        case "ten":
            talking_clip(path, 10)
    return path


REASONS = [
    ("none.mp4", "lrs", "none.mp4 does not exist"),
    ("empty.mp4", "lrs", "empty.mp4 is empty"),
    ("text.mp4", "lrs", "text.mp4"),
    ("folder.mp4", "lrs", "folder.mp4 is a folder"),
    ("mute.mp4", "lrs", "mute.mp4 holds no sound"),
    ("headless.mp4", "lrs", "headless.mp4"),
    ("voice.wav", "lrs", "voice.wav holds no picture"),
    ("still.png", "lrs", "still.png holds a still picture"),
    ("silent.mp4", "lrs", "silent.mp4 is silent"),
    ("thirty.mp4", "lrs", "thirty.mp4 has 30 frames a second; the protocol lrs is for face crops at 25"),
    ("five.mp4", "lrs", "five.mp4 has 5 frames at 25 a second; the protocol lrs needs 6"),
    ("clipped.mp4", "lrs", "25 frames with a face and 4 with sound give 0 windows; the protocol lrs needs 1"),
    ("noise.mp4", "short", "noise.mp4 shows no face for 20 frames, which the protocol short needs"),
    ("ten.mp4", "short", "ten.mp4 has 10 frames at 25 a second; the protocol short needs 20"),
    ("noise.mp4", "real-video", "noise.mp4 has 25 frames at 25 a second; the protocol real-video needs 100"),
]
QUICK = 5  # of them open one decoder at most


@pytest.mark.parametrize(
    ("name", "how", "said"),
    [
        pytest.param(*r, id=f"{r[0]}-{r[1]}", marks=[pytest.mark.slow] * (place >= QUICK))
        for place, r in enumerate(REASONS)
    ],
)
def test_a_bad_file_is_a_row_with_its_reason(tmp_path, name, how, said):
    row = score_file(bad(name, tmp_path), FlashEvaluator(), PROTOCOLS[how])
    assert said in row.error and "Traceback" not in row.error and "\n" not in row.error
    assert row.file.endswith(name) and (row.evaluator, row.protocol) == ("syncnet-flash", how)
    assert row.offset is row.lse_d is row.lse_c is row.certainty is row.coverage is None and row.curve == []


def test_a_mistake_of_ours_is_a_row_as_well(flashing):
    class Broken(FlashEvaluator):
        def faces(self, crops):
            raise RuntimeError("a shape\ndoes not fit")

    assert score_file(flashing, Broken(), FLASHES).error == "internal error: RuntimeError: a shape does not fit"


@pytest.mark.slow
def test_a_file_cut_short_is_scored_as_far_as_it_goes(flashing, tmp_path):
    for share in (0.3, 0.6, 0.95):  # its index, at the front, is whole
        part = tmp_path / f"{share}.mp4"
        part.write_bytes(flashing.read_bytes()[: round(flashing.stat().st_size * share)])
        row = score_file(part, FlashEvaluator(), FLASHES)
        if row.error is None:
            assert 5 < row.frames < 100 and f"{100 - row.frames} of 100 frames are missing" in " ".join(row.remarks)
        else:
            assert part.name in row.error
    assert row.error is None and row.offset == 0  # at least nearly all of it can be


@pytest.mark.slow
def test_no_detector_of_that_name(flashing):
    assert "no face detector named 'eyes'" in score_file(flashing, FlashEvaluator(), SHORT, "eyes").error


@pytest.mark.slow
def test_thirty_frames_a_second_are_read_as_25(tmp_path):
    row = score_file(talking_clip(tmp_path / "thirty.mp4", 36, fps=30), FlashEvaluator(), SHORT)
    assert row.error is None and row.frames == 30 and "30 frames a second were read as 25." in row.remarks


@pytest.mark.slow
def test_lrs_warns_of_what_is_no_face_crop(tmp_path):
    wide = write_media(tmp_path / "wide.mp4", count_up(30, 128, 64), sound=np.full(57_600, 0.1, np.float32))
    assert any("is no face crop" in r for r in score_file(wide, FlashEvaluator(), FLASHES).remarks)


@pytest.mark.parametrize("stage", [pytest.param("faces", marks=pytest.mark.slow), "sync"])
def test_it_can_be_stopped(flashing, stage):
    steps = []

    def cancelled() -> bool:
        steps.append(1)
        return len(steps) > 5

    with pytest.raises(Cancelled):
        score_file(
            flashing, FlashEvaluator(), FLASHES if stage == "sync" else SHORT, monitor=Monitor(cancelled=cancelled)
        )
    assert len(steps) == 6


@pytest.mark.slow
def test_progress_is_told(talking, monkeypatch):
    monkeypatch.setattr(clips, "_FOUND", OrderedDict())
    told = []
    score_file(talking, FlashEvaluator(), SHORT, monitor=Monitor(lambda p: told.append((p.stage, p.done, p.total))))
    assert {stage for stage, _, _ in told} == {"faces", "sync"} and all(0 < done <= total for _, done, total in told)
    assert ("faces", 40, 40) in told and told[-1] == ("sync", 40, 40)


@pytest.mark.slow
def test_a_row_beside_a_reference_passes_over_frames_five_times_and_then_four(talking, monkeypatch):
    """Faces, crops, both videos side by side, faces of the reference; the last are known to the next system's row."""
    monkeypatch.setattr(clips, "_FOUND", OrderedDict())
    opened, begin = [], FrameReader.__init__
    monkeypatch.setattr(FrameReader, "__init__", lambda self, *a, **k: opened.append(1) or begin(self, *a, **k))
    copies = [talking.with_name(f"copy{n}.mp4") for n in range(2)]
    for copy, passes in zip(copies, (5, 4), strict=True):
        copy.write_bytes(talking.read_bytes())
        opened.clear()
        row = score.score_clip(Item(copy, reference=talking), FlashEvaluator(), SHORT, ["motion", "image"])
        assert row.values["psnr_mouth"] == 100.0 and len(opened) == passes


@pytest.mark.slow
def test_the_main_face_and_its_sound(talking):
    face = main_face(talking, FlashEvaluator(), SHORT, most=30)
    assert face.crops.shape == (30, 112, 112, 3) and face.first == 0 and face.frames_heard == 40
    assert face.mfcc.shape[1] == 13 and len(face.mfcc) >= 4 * 40 - 2
    video, audio = embeddings(face, FlashEvaluator())
    assert video.shape == audio.shape == (25, 1024)
    with pytest.raises(MeasureError, match="4 frames with a face and 40 with sound give no window"):
        embeddings(replace(face, crops=face.crops[:4]), FlashEvaluator())


def test_protocols_are_told_apart_by_a_hash():
    exact, fast, unit = FlashEvaluator(), FlashEvaluator(), FlashEvaluator()
    fast.fast, unit.unit = True, True
    hashes = {
        p.with_shifts(s).sha(d, j)
        for p in PROTOCOLS.values()
        for s in (None, 10)
        for d in ("mediapipe", "s3fd")
        for j in (exact, fast, unit)
    }
    assert len(hashes) == (2 * 2 + 1) * 2 * 3 and all(len(h) == 12 for h in hashes)  # lrs has no detector
    assert [p.shifts for p in PROTOCOLS.values()] == [15, 15, 7]
    for shifts in (0, 101):
        with pytest.raises(MeasureError, match="between 1 and 100"):
            SHORT.with_shifts(shifts)
    with pytest.raises(MeasureError, match="no protocol 'long': choose one of real-video, lrs, short"):
        protocol("long")


@pytest.mark.parametrize(
    ("module", "setting", "protocols"),
    [
        (sync, "SURE", 3),
        (sync, "BLOCK", 3),
        (sync, "CONFIDENCE_MEDIAN", 3),
        (eval.protocols, "SILENT", 3),
        (tracks, "MIN_SCENE", 1),
        (faces, "DETECT_EVERY", 1),
        (faces, "SMALL_PX", 2),
        (faces, "BOX", 1),
    ],
)
def test_every_setting_changes_the_hash(monkeypatch, module, setting, protocols):
    """Of the protocols that use it."""
    before = [p.sha("mediapipe", FlashEvaluator()) for p in PROTOCOLS.values()]
    old = getattr(module, setting)
    monkeypatch.setattr(module, setting, (*old, 0) if isinstance(old, tuple) else old + 1)
    after = [p.sha("mediapipe", FlashEvaluator()) for p in PROTOCOLS.values()]
    assert sum(a != b for a, b in zip(before, after, strict=True)) == protocols


@pytest.mark.parametrize(
    ("table", "name", "protocols"),
    [("DETECTORS", "mediapipe", 2), ("DETECTORS", "s3fd", 0), ("LANDMARKS", "mediapipe", 1)],
)
def test_another_face_model_under_the_same_name_changes_the_hash(monkeypatch, table, name, protocols):
    before = [p.sha("mediapipe", FlashEvaluator()) for p in PROTOCOLS.values()]
    monkeypatch.setattr(getattr(detectors, table)[name], "version", lambda: "another file")
    after = [p.sha("mediapipe", FlashEvaluator()) for p in PROTOCOLS.values()]
    assert sum(a != b for a, b in zip(before, after, strict=True)) == protocols


@pytest.mark.slow
def test_the_published_tracks_need_a_large_face_for_long(tmp_path, monkeypatch):
    """120 frames of a face 130 px wide are a track; what the detector says at half the size is scaled back."""
    looks = []

    class Large(FixedDetector):
        longest_px = 60

        def detect(self, frame):
            looks.append(frame.shape)
            return [Detection(np.array([10, 10, 40, 40], np.float32), 1.0)]

        def close(self):
            looks.append("closed")

    monkeypatch.setitem(clips.DETECTORS, "fixed", Large)
    path = write_media(tmp_path / "long.mp4", [np.full((240, 240, 3), 90, np.uint8)] * 120)
    info = replace(probe(path), frames=120)
    found, frames = clips.find_tracks(info, protocol("real-video"), "fixed", Monitor())
    assert frames == 120 and looks[-1] == "closed" and looks[0] == (60, 60, 3)
    assert [(t.first, t.stop) for t in found] == [(0, 120)]
    np.testing.assert_allclose(found[0].boxes[0], [40, 40, 160, 160])


PEAK = """
import resource, sys
from pathlib import Path
from eval.protocols import protocol
from eval.score import score_file
from tests.helpers.made import lab_evaluator
row = score_file(Path(sys.argv[1]), lab_evaluator(), protocol("short"))
assert row.error is None and row.frames == int(sys.argv[2]), row
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_length(tmp_path):
    """The sound's MFCC and the distances, 8 KB a second together, are all that is kept; to score them takes about
    as much again for a moment."""
    peaks = []
    for seconds in (20, 120):  # twenty fill what is read ahead
        clip = talking_clip(tmp_path / f"{seconds}.mp4", 25 * seconds, size=160)
        command = [sys.executable, "-c", PEAK, str(clip), str(25 * seconds)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        peaks.append(float(done.stdout.split()[-1]))
    assert abs(peaks[1] - peaks[0]) < 60, peaks


@pytest.mark.slow
def test_real_clips_are_in_sync(shared_data):
    """Studio sentences of GRID, filmed in sync: the evaluator finds most of them, unpadded, without knowing it."""
    with (shared_data / "manifest.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["group"] == "grid" and r["split"] == "val"][:6]
    found = [score_file(shared_data / r["file"], lab_evaluator(), SHORT) for r in rows]
    assert len(found) == 6 and all(row.error is None and row.coverage > 0.9 for row in found)
    best = [7 - int(np.argmin(row.curve)) for row in found]
    assert sum(abs(b) <= 2 for b in best) >= 4, best


@pytest.mark.slow
def test_every_protocol_scores_a_real_clip(shared_data):
    """`lrs` of a clip that is no face crop warns; `real-video` finds its tracks; frames are those of the file."""
    path = shared_data / "wild" / "syncnet_example.avi"
    with FrameReader(probe(path)) as reader:
        frames = sum(1 for _ in reader)
    for name in ("lrs", "real-video"):
        row = score_file(path, lab_evaluator(), protocol(name))
        assert row.error is None and row.frames == frames and len(row.curve) == 31, row
