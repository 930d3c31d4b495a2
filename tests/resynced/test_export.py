"""Rows and sets in the formats of others, held against their own schemas and readers; the card of a row; figures."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from sqlalchemy import select

from resynced.export import croissant, eval_results, every_eval_ever, model_index, row_card, task_id
from resynced.leaderboard import find_view, leaderboard
from resynced.published import FIGURES, NOTES, STATUS, published
from resynced.records import BenchmarkError
from resynced.store import ScoreFact, Store
from tests.helpers.rows import fill, made_set, sha

SCHEMAS = Path(__file__).parent.parent / "data" / "every_eval_ever"


@pytest.fixture
def full(tmp_path):
    with Store(tmp_path / "store.sqlite") as store:
        store.add_set(made_set())
        store.add_system("A net", sha("A net"), "ours", {"authors": ["x"], "developer": "lab", "link": "none"})
        run = store.add_run(sha("made6"), "python -m resynced run --set made", "abc123+changes", {"python": "3"}, {})
        values = [6.0, 6.2, 5.8, 6.1, 5.9, 6.05]
        fill(store, {"A net": values, "B/../x": [None, *values[1:]], "untouched": [v + 6 for v in values]}, run=run)
        yield store


@pytest.mark.slow
def test_every_eval_ever_takes_the_aggregates_and_the_clips(full, tmp_path):
    schemas = [json.loads((SCHEMAS / f"{n}.schema.json").read_text()) for n in ("eval", "instance_level_eval")]
    written = every_eval_ever(full, find_view(full), tmp_path / "out")
    assert len(written) == 6 and all(p.resolve().is_relative_to(tmp_path / "out") for p in written)
    for path in written:
        assert path.relative_to(tmp_path / "out").parts[:2] == ("data", "resynced") and len(path.parts) >= 5
        if path.suffix == ".json":
            whole = json.loads(path.read_text())
            jsonschema.validate(whole, schemas[0])
            samples = path.with_name(path.stem + "_samples.jsonl")
            assert whole["detailed_evaluation_results"]["checksum"] == sha(samples.read_text())
        else:
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            for line in lines:
                jsonschema.validate(line, schemas[1])
    first = next(json.loads(p.read_text()) for p in written if p.suffix == ".json" and "A-net" in str(p))
    assert first["model_info"]["id"] == "lab/A-net"
    by_id = {r["evaluation_result_id"]: r for r in first["evaluation_results"]}
    assert by_id["resynced.lse_d:all"]["score_details"]["score"] == pytest.approx(6.00833, abs=1e-4)
    assert (
        by_id["resynced.lse_d:all"]["score_details"]["uncertainty"]["confidence_interval"]["confidence_level"] == 0.95
    )
    assert set(by_id) == {
        f"resynced.{n}:{c}"
        for n in ("lse_d", "lse_c", "in_sync", "identity", "sharpness", "movement", "coverage", "speed")
        for c in ("all", "random")
    }
    broken = next(json.loads(p.read_text()) for p in written if p.suffix == ".json" and "B-" in str(p))
    assert broken["evaluation_results"][0]["score_details"]["details"]["failed"] == "1"
    assert every_eval_ever(full, find_view(full), tmp_path / "out") == written  # ids are made of the content


@pytest.mark.slow
def test_hugging_face_reads_the_tasks_and_the_model_index(full):
    from huggingface_hub import ModelCardData, parse_eval_result_entries

    view = find_view(full)
    texts = eval_results(full, view, "lab/resynced", "https://example.org/board")
    entries = parse_eval_result_entries(yaml.safe_load(texts["A net"]))
    tasks = [e.task_id for e in entries]
    assert "made-v1.lse_d" in tasks and "made-v1.lse_d.random" in tasks and len(tasks) == len(set(tasks))
    assert task_id(view, "1", "lse_d") == "made-v1.lse_d"
    assert all(e.dataset_id == "lab/resynced" and "6 of 6 clips" in e.notes for e in entries)
    index = model_index(full, view, "lab/resynced")["A net"]
    card = ModelCardData(**{"model-index": index})
    assert {r.metric_type for r in card.eval_results} >= {"resynced.lse_d", "resynced.speed"}
    with pytest.raises(BenchmarkError, match="OWNER/NAME"):
        eval_results(full, view, "resynced")


@pytest.mark.slow
def test_croissant_reads_the_set_with_consent_and_licence(full, tmp_path):
    import mlcroissant

    made = croissant(full, made_set().sha256, "https://example.org/set", "files/")
    path = tmp_path / "croissant.json"
    path.write_text(json.dumps(made))
    data = mlcroissant.Dataset(path)
    assert not data.metadata.ctx.issues.errors
    assert str(data.metadata.ctx.conforms_to.value).endswith("1.1") and data.metadata.version == "1.0.0"
    assert "Consent: given" in data.metadata.personal_sensitive_information
    records = list(data.records("pairs"))
    assert len(records) == 6 and records[0]["pairs/consent"] == "given" and records[0]["pairs/licence"] == "CC-BY-4.0"
    assert data.metadata.distribution[0].sha256 == sha("clip00")
    with pytest.raises(BenchmarkError, match="no set"):
        croissant(full, sha("none"), "https://example.org")


def test_the_card_of_a_row_has_what_makes_it_again(full):
    with full.read() as session:
        key = session.scalar(select(ScoreFact.key).where(ScoreFact.system == "A net", ScoreFact.pair == "p01"))
    card = row_card(full, key[:12])
    assert card["again"] == ["git checkout abc123", "python -m resynced run --set made"] and card["changed_files"]
    assert card["system_card"]["developer"] == "lab" and card["row"]["lse_d"] == 6.2 and card["withdrawn"] is None
    full.withdraw("system", sha("A net"), "Asked.")
    assert row_card(full, key)["withdrawn"] == "Asked."
    json.dumps(card)
    for wrong, match in (("xyz", "no key"), ("0" * 64, "No row"), ("' OR 1=1", "no key")):
        with pytest.raises(BenchmarkError, match=match):
            row_card(full, wrong)


def test_published_figures_stand_apart_with_their_source():
    table = published()
    assert set(table["what"]) == {"Published, not measured here"} and table["source"].str.len().min() > 5
    lrs2 = published("LRS2").set_index("system")
    assert lrs2.loc["Wav2Lip", "lse_d"] == 6.386 and lrs2.loc["Wav2Lip (released weights, re-run)", "lse_d"] == 7.15
    assert all(f.status in STATUS for f in FIGURES) and len({(f.set, f.system) for f in FIGURES}) == len(FIGURES)
    assert any("14 raters" in note for note in NOTES) and any("102.4 %" in note for note in NOTES)


def test_published_figures_are_in_no_leaderboard(full):
    assert "6.386" not in json.dumps(leaderboard(full))
