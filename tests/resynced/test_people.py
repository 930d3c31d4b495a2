"""Studies from the store and back: drafts, their videos, the command line, and people's columns of the leaderboard."""

import json
import zipfile

import pytest

from resynced import study_media
from resynced.__main__ import main
from resynced.ballots import Stimulus
from resynced.desk import open_desk
from resynced.leaderboard import find_view, leaderboard
from resynced.people import human
from resynced.raters import rater_id
from resynced.runner import video_path
from resynced.stimuli import read_index
from resynced.store import Store, data_folder
from resynced.studies import StudyError
from resynced.study_media import draft, measures_of, prepare, ready, sets_of, stimuli_of
from resynced.study_results import own_agreement, read_votes
from tests.helpers.made_study import SYSTEMS, kept_videos
from tests.helpers.rows import fill, made_set, sha


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A store with a set of eight pairs of which every system has a (false) video."""
    monkeypatch.setenv("LIPSYNC_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LIPSYNC_DATABASE", str(tmp_path / "store.sqlite"))
    made = made_set(8)
    with Store() as store:
        store.add_set(made)
        fill(store, {s: [6.0 + k + n / 10 for n in range(8)] for k, s in enumerate(SYSTEMS)}, made.sha256)
        for system in SYSTEMS:
            for pair in made.pairs:
                path = video_path(data_folder(), "made", made.sha256, system, sha(system), pair.id)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"video")
        yield store


def drafted(store, **more):
    options = {"name": "trial", "title": "A trial", "design": "preference", "training": 2} | more
    return draft(store, data_folder(), "made", options.pop("systems", SYSTEMS[:2]), **options)


def test_a_draft_takes_the_pairs_of_which_every_system_has_a_video(kept):
    assert sets_of(kept)[0]["systems"] == sorted(SYSTEMS)
    study = drafted(kept, plan="Alpha beats beta.")
    assert len(study.items) == 6 and len(study.training_items) == 2 and study.per_rater == 6
    assert study.fingerprints == (sha("secret-alpha"), sha("secret-beta")) and study.gold_system == "real"
    video_path(data_folder(), "made", study.set_sha256, "secret-beta", sha("secret-beta"), study.items[0]).unlink()
    assert study.items[0] not in drafted(kept).items
    assert drafted(kept, items=3, seed=4).items != drafted(kept, items=3, seed=5).items
    assert measures_of(kept, study).query("item == 'p03'")["lse_d"].tolist() == [6.3, 7.3]
    for change, said in (
        ({"systems": ("nobody", "real")}, "no videos of 'nobody'"),
        ({"systems": ("real",)}, "needs 2"),
    ):
        with pytest.raises(StudyError, match=said):
            drafted(kept, **change)
    with pytest.raises(StudyError, match="no scored videos"):
        draft(kept, data_folder(), "other", SYSTEMS, name="x", title="x", design="questions")


def test_the_mismatching_task_needs_other_speech_of_the_same_speaker(kept, monkeypatch):
    study = drafted(kept, design="mismatching", systems=SYSTEMS)
    assert Stimulus("real", study.items[0], "other") in stimuli_of(study, study.items[0])
    monkeypatch.setattr(study_media, "load_set", lambda _: made_set(8))
    monkeypatch.setattr(study_media, "read_sound", lambda _: ([0.0], 16_000))
    with pytest.raises(StudyError, match="no other speech of the speaker"):
        prepare(kept, data_folder(), study)


@pytest.mark.slow
def test_the_command_line_sets_a_study_up_opens_closes_and_exports_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LIPSYNC_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LIPSYNC_DATABASE", str(tmp_path / "store.sqlite"))
    with Store() as store:
        kept_videos(store)
    (tmp_path / "plan.txt").write_text("Alpha beats beta.")
    create = ["study", "create", "trial", "--set", "made", "--system", *SYSTEMS, "--plan", f"@{tmp_path / 'plan.txt'}"]
    counts = ["--training", "1", "--per-rater", "2", "--gold", "1", "--repeats", "0"]
    assert main([*create, *counts]) == 0
    with Store() as store:
        desk = open_desk(store, data_folder())
        study = desk.study("trial")
        assert study.sha256 in capsys.readouterr().out and study.plan == "Alpha beats beta."
        assert ready(study, data_folder()) == (3, 3)
        paths = read_index(study_media.media_folder(data_folder(), "trial"))
        assert set(paths) == {s for item in (*study.items, *study.training_items) for s in stimuli_of(study, item)}
        assert main([*create, *counts]) == 1 and not desk.is_open("trial")
        assert main(["study", "open", "trial"]) == 0 and desk.is_open("trial")
        token = desk.join("trial", True)
        assert desk.next_ballot(token).training
        assert main(["study", "close", "trial"]) == 0 and not desk.is_open("trial")
        capsys.readouterr()
        assert main(["study", "status", "trial"]) == 0
        state = json.loads(capsys.readouterr().out)
        assert state["raters"] == 1 and state["votes"] == 0 and state["items_ready"] == 3
        next(iter(paths.values())).unlink()
        assert main(["study", "prepare", "trial"]) == 0
        assert main(["study", "export", "trial", "--out", str(tmp_path / "t.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "t.zip") as archive:
        assert "trial/methods.md" in archive.namelist()


@pytest.mark.slow
def test_simulated_raters_on_the_command_line(capsys):
    assert main(["simulate", "--raters", "30", "--votes", "600", "--systems", "3", "--items", "12", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["systems"] == 3 and len(found["table"]) == 3


@pytest.mark.slow
def test_people_stand_beside_rows_once_a_study_is_published_and_has_enough_votes(kept):
    study = drafted(kept, training=0, gold=0, traps=0, repeats=0, votes_per_pair=1000)
    desk = open_desk(kept, data_folder())
    desk._least = 0
    desk.create(study)
    desk.open("trial")

    def rate(raters):
        for _ in range(raters):
            token = desk.join("trial", True)
            while served := desk.next_ballot(token):
                left = desk.video(served.videos["left"]).system
                desk.submit(served.token, {"preference": "left" if left == "secret-alpha" else "right"})
        return token

    rate(12)
    assert human(kept, study.set_sha256) == {}  # not published
    desk.publish("trial")
    assert human(kept, study.set_sha256) == {}  # 12 times 8 are under 100
    token = rate(5)
    found = human(kept, study.set_sha256)
    alpha = found[sha("secret-alpha")]
    assert (alpha["share"], alpha["n"], alpha["standing"]) == (1.0, 17 * len(study.items), "preliminary")
    assert found == human(kept, study.set_sha256) and found[sha("secret-beta")]["share"] == 0.0
    rows = {r["system"]: r["human"] for r in leaderboard(kept, find_view(kept, "made"))["rows"]}
    assert rows["secret-alpha"] == alpha and rows["real"] is None
    alone, everybody = desk.tables("trial", token), desk.tables("trial")
    votes = [read_votes(study, facts["ballots"], facts["votes"]) for facts in (alone, everybody)]
    own = own_agreement(*votes, rater_id(token))
    assert (own.share, own.distance, own.ballots) == (1.0, None, 8)
    desk.withdraw(token)
    assert human(kept, study.set_sha256)[sha("secret-alpha")]["n"] == 16 * len(study.items)
    desk.publish("trial", False)
    assert human(kept, study.set_sha256) == {}
