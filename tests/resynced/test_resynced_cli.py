"""The command line of the benchmark."""

import io
import json
import shutil

import pandas as pd
import pytest

from eval.closure import spoken_at
from resynced.__main__ import main
from resynced.manifests import load_set
from resynced.runner import videos_folder
from resynced.store import Store
from tests.helpers.rows import fill, made_set, sha


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("LIPSYNC_DATABASE", str(tmp_path / "store.sqlite"))
    with Store() as store:
        store.add_set(made_set())
        values = [6.0, 6.2, 5.8, 6.1, 5.9, 6.05]
        fill(store, {"A[b]": values, "B": [v + 1 for v in values], "untouched": [v + 6 for v in values]})
    return tmp_path


def test_the_table_begins_with_the_answer_and_ends_with_the_credit(place, capsys):
    assert main(["leaderboard"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("On 6 clips, A[b] is first in sync.") and "Made for tests." in said
    assert "6.01 (5.90–6.11)" in said and "6 clips would have to" not in said
    assert said.index("A[b]", 30) < said.index("B ", 60) < said.index("untouched")


def test_csv_and_json_hold_nothing_else(place, capsys):
    assert main(["leaderboard", "--csv", "--category", "random"]) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert table["label"].tolist() == ["A[b]", "B", "untouched"] and table["rank_last"].tolist()[:2] == [1, 2]
    assert main(["leaderboard", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][2]["role"] == "floor"
    assert main(["leaderboard", "--published", "--csv"]) == 0
    assert "not measured here" in capsys.readouterr().out


def test_what_is_exported_is_imported_by_another_store(place, capsys):
    folder = str(place / "out")
    assert main(["export", folder, "--as", "csv"]) == 0
    assert capsys.readouterr().out == "1 sets, 18 scores\n"
    other = ["import", folder, "--store", str(place / "other.sqlite")]
    assert main(other) == 0 and main(other) == 0
    assert capsys.readouterr().out == "1 new sets, 18 new scores\nNothing of it is new.\n"


@pytest.mark.parametrize(("form", "files"), [("every-eval-ever", 6), ("hugging-face", 6), ("croissant", 1)])
def test_the_formats_of_others_are_written_below_the_folder(place, capsys, form, files):
    assert main(["export", str(place / "out"), "--as", form]) == 0
    assert len(capsys.readouterr().out.splitlines()) == files
    assert len([p for p in (place / "out").rglob("*") if p.is_file()]) == files


@pytest.mark.slow
def test_a_system_is_withdrawn_and_its_row_keeps_a_card(place, capsys):
    main(["leaderboard", "--json"])
    assert main(["withdraw", "system", sha("B"), "--reason", "Its authors asked."]) == 0
    assert main(["leaderboard", "--csv"]) == 0
    assert "\nB," not in capsys.readouterr().out.split("Withdrawn.")[1]
    with Store() as store, store.read() as session:
        from resynced.store import ScoreFact

        key = session.query(ScoreFact.key).where(ScoreFact.system == "B").first()[0]
    assert main(["card", key]) == 0
    assert json.loads(capsys.readouterr().out)["withdrawn"] == "Its authors asked."


def test_faults_are_one_sentence(place, capsys):
    for command, said in (
        (["leaderboard", "--set", "none"], "resynced: The store has no scores of the set 'none'"),
        (["leaderboard", "--rank-by", "sharpness"], "resynced: Nothing is ranked by 'sharpness'"),
        (["card", "abc"], "resynced: 'abc' is no key of a row"),
        (["import", str(place / "none")], "resynced: There is no folder"),
        (["leaderboard", "--store", "mysql://x/y"], "resynced: A store is an SQLite file or a PostgreSQL database"),
    ):
        assert main(command) == 1
        error = capsys.readouterr().err
        assert error.startswith(said) and len(error.splitlines()) == 1


@pytest.mark.slow
def test_a_submission_is_checked_kept_and_scored_by_its_name(tmp_path, monkeypatch, capsys):
    from resynced import manifests, runner
    from resynced.systems import Untouched
    from tests.helpers.bench_fakes import film_set

    monkeypatch.setenv("LIPSYNC_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LIPSYNC_DATABASE", str(tmp_path / "store.sqlite"))
    made = film_set(tmp_path / "media", 3)
    monkeypatch.setattr(manifests, "load_set", lambda name: made)
    asked = {}
    monkeypatch.setattr(
        runner, "run", lambda chosen, systems, *_, **more: asked.update(more, systems=systems) or runner.Summary()
    )
    folder, card = tmp_path / "outputs", tmp_path / "card.toml"
    folder.mkdir()
    fields = ("name", "authors", "licence", "training_data", "hardware")
    card.write_text("".join(f'{k} = "mine"\n' for k in fields) + 'link = "https://example.org/x"\n')
    words = ["submit", str(folder), "--card", str(card), "--set", "made"]
    assert main(words) == 1 and "3 faults: nothing was kept." in capsys.readouterr().out
    for pair in made.pairs:
        Untouched().make(pair, folder / f"{pair.id}.mp4")
    assert main([*words, "--check"]) == 0 and "Nothing is wrong" in capsys.readouterr().out
    assert not list((tmp_path / "data" / "submissions").iterdir())
    assert main([*words, "--limit", "2"]) == 0
    name = capsys.readouterr().out.splitlines()[0].removeprefix("Accepted as ")
    assert name.startswith("submission:mine-") and asked["limit"] == 2
    assert asked["command"] == f"python -m resynced run --set made --system {name}"
    assert [s.name for s in asked["systems"]] == ["mine", "untouched"] and asked["systems"][0].card["licence"] == "mine"
    assert main([*words, "--no-run"]) == 0 and len(list((tmp_path / "data" / "submissions").iterdir())) == 1


def test_pairs_are_drawn_of_a_folder(tmp_path, capsys):
    from lipsync.checkpoints.download import file_sha256
    from resynced.manifests import CLIP_COLUMNS, load_set

    lines = [",".join(CLIP_COLUMNS)]
    for k in range(4):
        (tmp_path / f"c{k}.mp4").write_text(f"clip {k}")
        lines.append(f"c{k},c{k}.mp4,{file_sha256(tmp_path / f'c{k}.mp4')},,en,s{k},given,CC0,made")
    (tmp_path / "clips.csv").write_text("\n".join(lines) + "\n")
    words = ["pairs", "draw", str(tmp_path), "--name", "mine", "--seed", "3", "--count"]
    assert main([*words, "random=five"]) == 1 and "CATEGORY=N" in capsys.readouterr().err
    assert main([*words, "random=4"]) == 0
    frozen = load_set(tmp_path)
    assert capsys.readouterr().out == f"4 pairs, frozen as {frozen.sha256}\n" and len(frozen.pairs) == 4


@pytest.mark.slow
def test_closure_says_what_it_found_and_what_it_could_not_look_at(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LIPSYNC_DATA", str(tmp_path / "data"))
    chosen = load_set("starter")
    pair, broken = (p for p in chosen.pairs if p.voice.path.stem in ("tts-01-heart", "tts-02-heart"))
    folder = videos_folder(tmp_path / "data", chosen.name, chosen.sha256) / "theirs"
    assert main(["closure", "--set", "starter"]) == 1
    assert "No run of the set starter has kept videos here" in capsys.readouterr().err
    folder.mkdir(parents=True)
    shutil.copy(pair.video.path, folder / f"{pair.id}.mp4")
    (folder / f"{broken.id}.mp4").write_bytes(b"no film")
    assert main(["closure", "--set", "starter", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["system"] == "theirs" and row["closure"] is None and row["clips"] == 1 and row["missing"] == 20
    assert row["events"] == len(spoken_at(pair.voice.path.with_suffix(".json")))
    assert "cannot be read" in row["failed"][broken.id]
