"""How a system's video is encoded and scored: the same for all, with made clips and the real evaluator."""

import shutil
from fractions import Fraction

import numpy as np
import pytest
from sqlalchemy import select

from lipsync.checkpoints.download import file_sha256
from lipsync.media.reader import probe
from lipsync.progress import Monitor
from resynced.leaderboard import leaderboard
from resynced.records import BenchmarkError, BenchmarkSet, Media, Pair, System
from resynced.runner import run
from resynced.scoring import Scoring, encode, pair_file, scorable, shifted
from resynced.store import CheckFact, ScoreFact, Store
from tests.conftest import make_clip
from tests.helpers.rows import sha


class Copying(System):
    """Gives back a file, the same for every pair."""

    def __init__(self, name, path):
        self.name, self.path, self.fingerprint = name, path, sha(name)

    def make(self, pair, out, monitor=None):
        return shutil.copy(self.path, out)


def coded(source, out, like, longest_s=60.0):
    remarks: list[str] = []
    return encode(source, out, scorable(like), longest_s, remarks, Monitor()), remarks


@pytest.mark.slow
def test_whatever_a_system_gives_has_the_clips_size_and_25_frames_a_second(tmp_path, clip):
    made = make_clip(tmp_path / "made.mkv", frames=60, fps=Fraction(30), size=(200, 160))
    out, remarks = coded(made, tmp_path / "out.mp4", clip)
    info = probe(out)
    assert (info.width, info.height, info.fps, info.frames) == (320, 320, 25, 50)
    assert info.has_audio and remarks == ["200 × 160 was brought to the clip's 320 × 320."]


@pytest.mark.slow
def test_the_same_video_is_encoded_to_the_same_bytes(tmp_path, clip):
    first, second = (coded(clip, tmp_path / f"{k}.mp4", clip)[0] for k in range(2))
    assert file_sha256(first) == file_sha256(second)


def test_what_cannot_be_scored_is_said_and_leaves_nothing(tmp_path, clip, voice):
    for source, longest_s, match in ((clip, 1.0, "lasts 2.0 s, where 1.0 s"), (voice, 60.0, "holds no picture")):
        with pytest.raises(BenchmarkError, match=match):
            coded(source, tmp_path / "out.mp4", clip, longest_s)
    assert not list(tmp_path.iterdir())


def test_shifted_sound_is_as_long_and_silent_where_nothing_came():
    sound = np.arange(1, 9, dtype=np.float32)
    assert shifted(sound, 1, 3).tolist() == [0, 0, 0, 1, 2, 3, 4, 5]
    assert shifted(sound, -1, 3).tolist() == [4, 5, 6, 7, 8, 0, 0, 0]


@pytest.mark.parametrize("name", ["../up", "", "a b", "é", "x" * 90, ".hidden", "CON:1"])
def test_no_name_leads_out_of_its_folder(name, tmp_path):
    part = pair_file(name)
    assert (tmp_path / part).resolve().parent == tmp_path.resolve() and not part.startswith(".") and len(part) < 80
    assert pair_file("p-01_x+") == "p-01_x+" and pair_file("a b") != pair_file("a_b")


@pytest.mark.slow
def test_real_clips_are_scored_checked_and_given_a_distance(tmp_path, clip, voice):
    files = [Media(p.stem, p, file_sha256(p), "en", "astronaut", "public domain", "", "made") for p in (clip, voice)]
    chosen = BenchmarkSet("small", "1", "One pair", (Pair("p0", "random", *files),), sha("small"))
    small = make_clip(tmp_path / "small.mp4", frames=50, size=(240, 240))
    systems = [Copying("untouched", clip), Copying("small", small), Copying("sound", voice)]
    with Store(tmp_path / "store.sqlite") as store:
        done = run(chosen, systems, store, tmp_path / "work", Scoring())
        assert (done.made, done.failed) == (3, 1)
        with store.read() as session:
            rows = {r.system: r for r in session.scalars(select(ScoreFact))}
            assert session.scalars(select(CheckFact)).one().record["trials"]
        table = leaderboard(store)
    same = rows["untouched"]
    assert same.reason is None and same.lse_d > 0 and same.frames == 50 and same.coverage > 0.9
    assert same.sharpness == pytest.approx(1.0) and same.record["values"]["psnr_mouth"] == 100.0
    assert rows["small"].reason is None and "was brought to" in rows["small"].record["remarks"][0]
    assert "holds no picture" in rows["sound"].reason
    distances = {r["system"]: r["distance"] for r in table["rows"]}
    assert distances["untouched"]["frechet"] == pytest.approx(0, abs=1e-6) and distances["sound"] is None
    assert distances["small"]["n_made"] == 10 and "FID" not in distances["small"]["title"]
