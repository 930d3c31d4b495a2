"""Studies from the command line."""

import argparse
import json
import zipfile

import pytest

from resynced import study_commands
from resynced.studies import StudyError


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    study_commands.add(parser.add_subparsers(required=True))
    args = parser.parse_args(list(words))
    return args.run(args)


def test_a_study_is_created_opened_closed_listed_and_exported(tmp_path, capsys):
    record = tmp_path / "study.json"
    fields = {"name": "trial", "title": "T", "design": "preference", "set_name": "made", "set_sha256": "0" * 64}
    fields |= {"systems": ["a", "b"], "items": ["i1", "i2"], "per_rater": 2, "gold": 0, "training": 0, "repeats": 0}
    record.write_text(json.dumps(fields))
    study = ("study", "--database", f"sqlite:///{tmp_path}/s.db", "--key", str(tmp_path / "key"))
    assert run(*study, "create", str(record)) == 0
    sha256 = capsys.readouterr().out.split()[-1]
    assert run(*study, "open", "trial") == run(*study, "list") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["open"] and row["sha256"] == sha256
    assert run(*study, "close", "trial") == 0
    assert run(*study, "export", "trial", "--out", str(tmp_path / "out.zip")) == 0
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert "trial/study.json" in archive.namelist()
    for text in ("[]", "{", '{"name": "x"}'):
        record.write_text(text)
        with pytest.raises(StudyError):
            run(*study, "create", str(record))


def test_simulate_prints_json(capsys):
    assert run("simulate", "--raters", "30", "--votes", "600", "--systems", "3", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["systems"] == 3 and 0 <= found["honest_lost"] <= 1
