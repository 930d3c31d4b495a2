"""Shards keep what they are given, batches say what they promise, and the sound lies where inference cuts it."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lipsync import audio
from lipsync.faces.landmarks import STEADY
from lipsync.media import reader as media
from tests.helpers.media_maker import write_media
from tests.helpers.train_data import made_arrays
from train.__main__ import main
from train.config import TrainingError
from train.data import sampling as sync_batches
from train.data import shards
from train.data.arrays import SILENCE, column, draw_augmentation, mel_window, no_augmentation, open_arrays
from train.data.preprocess import Source, _encode, gather, read_clip, sources


@pytest.fixture(scope="module")
def teach(tmp_path_factory):
    return open_arrays(made_arrays(tmp_path_factory.mktemp("arrays")), ["teach"])


@pytest.mark.slow
def test_features_survive_storage():
    rng = np.random.default_rng(0)
    waveform = rng.normal(0, 0.1, 25_600).astype(np.float32)  # 30 frames with their margins
    points = rng.uniform(0, 160, (30, 29, 2))
    stored = shards.pack_features(waveform, points, np.ones(30, bool))
    back = shards.unpack_features(stored)
    for name, most in (("mel", 4 / shards.MEL_LEVELS + 1e-5), ("mfcc", 0.25), ("mfcc12", 0.25)):
        feature = shards.FEATURES[name]
        truth = feature.extract(waveform)
        inside = np.abs(truth) < 63  # what halves of a byte hold
        assert back[name].shape == truth.shape and len(truth) >= 30 * feature.rate // 25 + 2 * feature.ahead - 3
        assert np.abs(feature.plain(back[name]) - truth)[inside].max() <= most
    assert np.abs(back["points"] - points).max() <= 0.2  # a quarter's rounding, then float16's
    assert sum(v.nbytes for v in stored.values()) < 18_000


@pytest.mark.parametrize("colour", [(200, 150, 130), (180, 90, 100), (220, 60, 60), (90, 60, 50), (60, 120, 200)])
def test_stored_crops_keep_their_colours(tmp_path, colour):
    """opencv, which unpacks shards, and the engine's own reader see what was put in."""
    video = _encode([np.full((160, 160, 3), colour, np.uint8)] * 3)
    assert np.abs(shards.decode_video(video).astype(int) - colour).max() <= 3
    (tmp_path / "crops.mp4").write_bytes(video)
    with media.FrameReader(media.probe(tmp_path / "crops.mp4")) as reader:
        assert max(np.abs(frame.astype(int) - colour).max() for frame in reader) <= 3


def test_a_reference_is_brought_onto_the_frame_as_the_engine_brings_it():
    """Of the same face elsewhere and larger, in a look that is mirrored, bent and recoloured."""
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (160, 160, 3), np.uint8), (0, 0), 5)
    picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX)
    points = rng.uniform(40, 120, (29, 2))
    points[STEADY] = [[52, 62], [70, 62], [108, 62], [90, 62], [80, 94], [80, 84]]
    move = np.array([[1.06, 0.04, 3], [-0.04, 1.06, -8]])
    elsewhere, others = cv2.warpAffine(picture, move, (160, 160)), points @ move[:, :2].T + move[:, 2]
    look = draw_augmentation(np.random.default_rng(27), 0.6, patches=False, degrade=False)
    assert look.bend is not None
    for augment in (no_augmentation(), look):
        wanted = augment(picture).astype(int)
        apart = [
            np.abs(made.astype(int) - wanted)[8:88, 8:88].mean()
            for made in (
                augment(elsewhere),
                augment.onto(points, others)(elsewhere),
                augment.onto(points, points)(picture),
            )
        ]
        assert apart[1] < 0.5 * apart[0] and apart[2] < 1, apart


def test_webdataset_layout_and_order(tmp_path):
    members = shards.clip_members("a", b"video", {"x": np.arange(3)}, {"frames": 1})
    members += shards.clip_members("b", b"other", {"x": np.arange(4)}, {"frames": 2})
    shards.write_tar(tmp_path / "s.tar", members)
    found = list(shards.read_tar(tmp_path / "s.tar"))
    assert [key for key, _ in found] == ["a", "b"]
    assert set(found[0][1]) == {"mp4", "npz", "json"}  # one key, three extensions: what webdataset groups by
    assert np.load(io.BytesIO(found[1][1]["npz"]))["x"].tolist() == [0, 1, 2, 3]
    assert not list(tmp_path.glob(".*"))


def test_windows_are_those_of_inference(teach):
    """Cut from the stored mel with its margin, or by audio.frame_columns from the whole: the same columns."""
    mel, clip = teach.mel(0), teach.clips[0]
    whole = mel[16:].T  # without the margin, as a file's own mel begins
    for start in (0, -1):
        wanted = audio.mel_windows(whole, audio.frame_columns("mel", 0, clip.frames - 6, 25, start))
        mine = np.stack([mel_window(mel, column(clip, t + start)) for t in range(clip.frames - 6)])
        np.testing.assert_array_equal(mine[1:], wanted[1:])  # frame 0 - 1 reaches into the margin


def test_outside_is_silence_and_stretch_keeps_the_ends():
    mel = np.arange(20, dtype=np.float32)[:, None].repeat(80, 1)
    assert (mel_window(mel, -16) == SILENCE).all()
    assert (mel_window(mel, 12)[:, 8:] == SILENCE).all()
    np.testing.assert_allclose(mel_window(mel, 0, 1.1)[0], np.arange(16) * 1.1, rtol=1e-5)


def test_gated_sound_is_silent_between_words(teach):
    quiet = np.flatnonzero(~teach.speech(0))
    mel, gated = teach.mel(0), teach.mel(0, gated=True)
    frame = ((np.arange(len(mel)) - 16) * 25 // 80).clip(0, teach.clips[0].frames - 1)
    assert (gated[np.isin(frame, quiet)] == SILENCE).all()
    np.testing.assert_array_equal(gated[~np.isin(frame, quiet)], mel[~np.isin(frame, quiet)])


def test_plain_look_is_the_engines_crop(teach):
    """The stored view cut again is the engine's crop of the same box."""
    from lipsync.geometry import CropRule, crop_face

    rng = np.random.default_rng(1)
    frame = np.repeat(np.repeat(rng.integers(0, 256, (30, 30, 3), dtype=np.uint8), 10, 0), 10, 1)
    box = np.array([90.0, 85.0, 190.0, 185.0], np.float32)
    direct = crop_face(frame, CropRule().alignment(box), 96)
    stored = crop_face(frame, CropRule(*shards.VIEW).alignment(box), shards.SIZE_PX)
    again = no_augmentation()(stored)
    error = np.abs(direct.astype(int) - again.astype(int))
    assert error.mean() < 6  # two resamplings; a shift of one pixel would make it 20
    shifted = np.abs(direct[:, 1:].astype(int) - again[:, :-1].astype(int))
    assert shifted.mean() > 2 * error.mean()


def test_looks_repeat_from_their_seed_and_differ(teach):
    frame = teach.frames(0)[0]
    looks = [draw_augmentation(np.random.default_rng(s))(frame) for s in (1, 1, 2)]
    assert (looks[0] == looks[1]).all() and (looks[0] != looks[2]).any()
    assert looks[0].shape == (96, 96, 3) and looks[0].dtype == np.uint8


def test_a_place_follows_the_look():
    """A dot drawn at the mouth is found where `place` says."""
    for seed in range(5):
        look = draw_augmentation(np.random.default_rng(seed), 0.8, patches=False)
        look = type(look)(look.matrix)  # no bend, no colours
        frame = np.zeros((160, 160, 3), np.uint8)
        frame[88:92, 78:82] = 255
        picture = look(frame).astype(float).sum(2)
        y, x = (np.indices(picture.shape) * picture).sum((1, 2)) / picture.sum()
        np.testing.assert_allclose(look.place(np.array([79.5, 89.5])), [x, y], atol=0.3)


def test_groups_are_one_speaker_and_near_pairs_are_left_out(teach):
    weights = sync_batches.speaker_weights(teach, {})
    places, near = sync_batches.places_of(teach, np.random.default_rng(0), weights, 3, 16, 5, 0.4)
    for g in range(3):
        group = places[16 * g : 16 * (g + 1)]
        assert len({teach.clips[i].speaker for i, _, _ in group}) == 1
        for a, (i, t, rate) in enumerate(group):
            assert t >= 0 and t + round(4 * rate) < teach.clips[i].frames
            for b, (k, u, _) in enumerate(group):
                assert near[g, a, b] == (a != b and i == k and abs(t - u) < sync_batches.APART)


def test_batches_depend_on_seed_and_step_alone(teach):
    weights = sync_batches.speaker_weights(teach, {})
    a, b = (sync_batches.sync_batch(teach, np.random.default_rng([0, 0, 7]), weights, 1, 8) for _ in range(2))
    assert all((a[k] == b[k]).all() for k in a)


def test_folder_becomes_speakers_and_splits(tmp_path):
    for name in ("ann/one.mp4", "ann/two.MOV", "bob.mkv", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = sources(tmp_path)
    assert [s.speaker for s in found] == ["ann", "ann", "bob"]
    assert len({s.split for s in found if s.speaker == "ann"}) == 1


@pytest.mark.parametrize(
    "names", [("ann/1.mp4", "bob/1.mp4"), ("ann/1.mp4", "ann/2.mp4", "ann/3.mp4"), tuple(f"{n}.mp4" for n in range(14))]
)
def test_in_a_folder_somebody_always_chooses(tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    splits = {s.path.name: s.split for s in sources(tmp_path)}
    assert {"teach", "tune"} <= {s.split for s in sources(tmp_path)}, splits


@pytest.mark.slow
def test_a_split_that_is_not_there_is_a_sentence(tmp_path, capsys):
    (tmp_path / "data" / "teach").mkdir(parents=True)
    (tmp_path / "data" / "teach" / "clips.json").write_text("[]")
    assert main(["syncnet", "--data", str(tmp_path / "data"), "--run", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert "no arrays of the split 'judge'" in said and "teach" in said and "Traceback" not in said
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").glob("last.pt"))
    with pytest.raises(TrainingError, match="it has: none"):
        open_arrays(tmp_path, ["teach"])


def test_unusable_files_become_counted_rows(tmp_path):
    """Nothing a file does ends the run; its row says why it gave no clip."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "clips").mkdir()
    for source in sources(tmp_path / "in"):
        read_clip(source, tmp_path / "clips")
    counts = gather(tmp_path, sources(tmp_path / "in"))
    assert counts["clips"] == {} and sum(counts["dropped"].values()) == 1
    assert "InputError" in next(iter(counts["dropped"]))


@pytest.mark.slow
def test_a_real_clip_comes_through_and_its_twin_is_dropped(shared_data, tmp_path):
    """Video to shard to arrays: the frames are there, the sound lies with them, a copy is told."""
    import shutil

    (tmp_path / "in" / "s1").mkdir(parents=True)
    for name in ("one", "two"):
        shutil.copy(next((shared_data / "grid").glob("s1_*.mp4")), tmp_path / "in" / "s1" / f"{name}.mp4")
    (tmp_path / "clips").mkdir()
    for source in sources(tmp_path / "in"):
        read_clip(source, tmp_path / "clips")
    counts = gather(tmp_path, sources(tmp_path / "in"))
    (split,) = counts["clips"]  # the twin would have chosen: no clip both teaches and chooses
    assert counts["clips"] == {split: 1} and counts["dropped"] == {"duplicate": 1}
    shards.unpack(tmp_path, tmp_path / "arrays")
    arrays = open_arrays(tmp_path / "arrays", [split])
    clip = arrays.clips[0]
    assert clip.frames == 75 and arrays.frames(0).shape == (75, 160, 160, 3)
    gap = np.linalg.norm(arrays.landmarks(0)[:, 23] - arrays.landmarks(0)[:, 24], axis=1)
    loud = np.array([mel_window(arrays.mel(0), column(clip, t), columns=4).mean() for t in range(75)])
    assert np.corrcoef(gap, loud)[0, 1] > 0.4  # the mouth opens where there is sound
    rows = json.loads((tmp_path / "arrays" / split / "clips.json").read_text())
    assert rows[0]["dropped"] == ""


@pytest.mark.slow
def test_a_long_video_is_read_in_pieces(shared_data, tmp_path, monkeypatch):
    """Two pieces say what the whole says, each in its own sound; only so much is held."""
    path = next((shared_data / "grid").glob("s1_*.mp4"))
    info = media.probe(path)
    found = {}
    for name, most in (("whole", 10**9), ("pieces", 40 * info.width * info.height * 3)):
        monkeypatch.setattr("train.data.preprocess.HELD_BYTES", most)
        read_clip(Source(name, path, "s1", "teach", "grid"), tmp_path)
        found[name] = [
            (json.loads(sample["json"]), dict(np.load(io.BytesIO(sample["npz"]))))
            for _, sample in shards.read_tar(tmp_path / f"{name}.tar")
        ]
    (row, whole), (early, first), (late, second) = *found["whole"], *found["pieces"]
    assert [r["frames"] for r in (row, early, late)] == [75, 40, 35] and late["start"] == 40
    assert [key for key, _ in shards.read_tar(tmp_path / "pieces.tar")] == ["pieces", "pieces+1"]
    mels = [shards.unpack_features(f)["mel"][16:].astype(int) for f in (whole, first, second)]
    count = 35 * 80 // 25
    assert np.abs(mels[2][:count] - mels[0][128 : 128 + count]).mean() < 0.5  # 40 frames are 128 columns
    points = [shards.unpack_features(f)["points"].astype(float) for f in (whole, first, second)]
    assert np.abs(points[0][45:70] - points[2][5:30]).mean() < 2  # pixels: the tracks began elsewhere


def test_every_file_has_its_own_key(tmp_path):
    names = [
        "анна/1.mp4",
        "борис/1.mp4",
        "한국/영상.mp4",
        "中国/视频.mp4",
        "ann/1.mp4",
        "ann/1.mov",
        "a/b.mp4",
        "a_b.mp4",
        "x" * 180 + ".mp4",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    keys = [s.key for s in sources(tmp_path)]
    assert len(set(keys)) == len(names) and all(k.isascii() and "." not in k and len(k) < 80 for k in keys)


def test_shards_say_what_the_manifest_says_now(tmp_path):
    """A speaker who moves to another split moves with all clips, read or not; what was there before is gone."""
    (tmp_path / "clips").mkdir()
    old = [Source(f"k{n}", tmp_path / "x.mp4", "ann", "tune", "clips") for n in range(2)]
    for source in old:
        row = {"file": "x.mp4", "speaker": "ann", "split": "tune", "group": "clips", "dropped": "", "frames": 1}
        members = shards.clip_members(source.key, b"video", {"x": np.array([hash(source.key)])}, row)
        shards.write_tar(tmp_path / "clips" / f"{source.key}.tar", members)
    assert gather(tmp_path, old)["clips"] == {"tune": 2}
    assert gather(tmp_path, [replace(s, split="teach") for s in old])["clips"] == {"teach": 2}
    assert [p.name for p in (tmp_path / "shards").iterdir()] == ["teach-000.tar"]
    rows = [json.loads(sample["json"]) for _, sample in shards.read_tar(tmp_path / "shards" / "teach-000.tar")]
    assert [r["split"] for r in rows] == ["teach", "teach"]


@pytest.mark.slow
def test_of_two_faces_the_one_that_speaks_is_taken(tmp_path):
    """Two real speakers side by side, first under the one's voice, then under the other's; the larger face is not
    asked."""
    clips = Path(__file__).parents[2] / "resynced" / "sets" / "starter" / "clips"
    sides, voices, alone = [], [], []
    for name in ("grid-s3", "grid-s22"):
        with media.FrameReader(media.probe(clips / f"{name}.mp4")) as reader:
            sides.append(list(reader))
        voices.append(media.read_waveform(clips / f"{name}.mp4"))
        alone.append(_first_crop(clips / f"{name}.mp4", tmp_path))
    frames = [np.concatenate(pair, axis=1) for pair in zip(*sides, strict=False)]
    for side, voice in enumerate(voices):
        path = write_media(tmp_path / f"{side}.mp4", frames, sound=voice, sound_rate=16_000)
        crop = _first_crop(path, tmp_path, faces=2)
        apart = [np.abs(crop - own).mean() for own in alone]
        assert apart[side] < 0.3 * apart[1 - side], apart


def _first_crop(path: Path, folder: Path, faces: int = 1) -> np.ndarray:
    read_clip(Source(path.stem, path, "ann", "teach", "clips"), folder, "expert-lab")
    ((_, sample),) = shards.read_tar(folder / f"{path.stem}.tar")
    assert json.loads(sample["json"])["faces"] == faces
    return shards.decode_video(sample["mp4"])[0].astype(float)


@pytest.mark.slow
def test_sources_that_are_none_are_sentences(tmp_path, capsys):
    for content, said in (("file,speaker\na.mp4,ann\n", "KeyError: 'split'"), (b"\xff\xfe\x00", "manifest")):
        path = tmp_path / "list.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(TrainingError, match=said):
            sources(path)
    path.write_text("\ufefffile,split,speaker\na.mp4,teach,ann\n", encoding="utf-8")  # as Excel saves it
    assert sources(path)[0].speaker == "ann"
    for words in (
        ["preprocess", str(tmp_path / "none"), str(tmp_path / "out")],
        ["unpack", str(tmp_path), str(tmp_path / "out")],
        ["preprocess", str(path), str(tmp_path / "out"), "--expert", "wav2lip-lab"],
    ):
        assert main(words) == 1
    said = capsys.readouterr().err
    assert "neither a manifest" in said and "holds no shards" in said and "wav2lip-lab holds no expert" in said


@pytest.mark.slow
def test_trainers_need_neither_a_decoder_nor_a_mesh():
    """A GPU machine has torch, numpy, safetensors and opencv; PyAV, openvino, librosa and the rest it may not have."""
    code = (
        "import sys\n"
        "for name in ('av', 'librosa', 'c2pa', 'gradio', 'openvino', 'webdataset', 'plotly'):\n"
        "    sys.modules[name] = None\n"
        "import train.tasks.sync_expert, train.tasks.wav2lip, train.tasks.syncnet, train.run, train.data.shards\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
