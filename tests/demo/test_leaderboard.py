"""Leaderboard page: its four states, orders, words, downloads and cards, over the real gate."""

import csv
import io
import re
import time

import pytest
from fastapi.testclient import TestClient

from demo import tasks
from demo.i18n import ENGLISH, KOREAN
from demo.pages import leaderboard as page
from demo.server import build
from demo.settings import Settings
from eval.results import VERSION
from resynced import leaderboard as board
from resynced.store import CheckFact, DistanceFact, Store
from tests.helpers.rows import facts, fill, made_set, sha

GOOD, POOR = [6.0, 6.2, 5.8, 6.1, 5.9, 6.05], [8.0, 8.1, 7.9, 8.2, 8.0, 8.05]
EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("board")


@pytest.fixture(scope="module")
def client(place):
    patch = pytest.MonkeyPatch()
    patch.setenv("GRADIO_TEMP_DIR", "")
    patch.setenv("LIPSYNC_DATABASE", str(place / "store.sqlite"))
    patch.setenv("LIPSYNC_DATA", str(place / "data"))
    patch.setattr(tasks, "warm_up", lambda: None)
    gate = build(Settings(work=place / "work", operator_password="correct horse battery"))
    client = TestClient(gate, base_url="http://localhost")
    client.gate = gate
    yield client
    patch.undo()


@pytest.fixture(scope="module")
def store(place, client):
    """Three systems, one that failed often, floor and ceiling; filled after the empty page was seen."""
    assert "Nothing has been measured here yet." in client.get("/leaderboard").text
    assert client.get("/leaderboard.json").status_code == 404
    with Store(str(place / "store.sqlite")) as store:
        store.add_set(made_set())
        run = store.add_run(sha("made6"), "python -m resynced run --set made --system A", "c0ffee+changes", {}, {})
        values = {"A": GOOD, EVIL: POOR, "=few": [6.0, None, None, None, None, None]}
        fill(store, values | {"untouched": [12.0] * 6, "real": [5.0] * 6}, run=run)
        store.add_system("A", sha("A"), "ours", {"licence": "MIT", "link": "javascript:alert(1)", "note": EVIL})
        yield store


def rows(text):
    return re.findall(r'role="row" class="line ?(\w*)".*?class="name">([^<]*)', text, re.S)


def test_the_answer_comes_before_the_table_and_limits_stand_last(client, store):
    text = client.get("/leaderboard").text
    assert text.index("On 6 clips, A is first in LSE-D.") < text.index('role="table"')
    assert [role for role, _ in rows(text)] == ["", "", "", "floor", "ceiling"]
    assert text.count('role="columnheader"') == 6 and "Made for tests." in text
    assert "not ranked: scored on 1 of 6 clips, 90% are needed" in text and "5 of 6 clips failed" in text


def test_nothing_of_a_store_is_taken_for_markup(client, store):
    for address in ("/leaderboard", f"/leaderboard/row/{board.find_view(store).id}/{sha('A')[:16]}"):
        text = client.get(address).text
        assert EVIL not in text and 'href="javascript' not in text
    policy = client.get("/leaderboard").headers["content-security-policy"]
    assert "unsafe" not in policy and "<script>" not in text and " style=" not in text


@pytest.mark.parametrize("sort", ["system", "sync", "picture", "motion", "people", "n"])
def test_every_order_is_told_to_screen_readers_and_keeps_limits_last(client, store, sort):
    up = client.get(f"/leaderboard?sort={sort}").text
    assert up.count('aria-sort="ascending"') == 1 and up.count('aria-sort="none"') == 5
    down = client.get(f"/leaderboard?sort={sort}&dir=down").text
    assert 'aria-sort="descending"' in down
    for text in (up, down):
        assert [role for role, _ in rows(text)][-2:] == ["floor", "ceiling"]
    if sort == "sync":
        assert [n for _, n in rows(up)][:1] != [n for _, n in rows(down)][:1]


def test_the_language_is_the_visitors(client, store):
    text = client.get("/leaderboard", headers={"Accept-Language": "ko"}).text
    assert "클립 6개에서 A이(가) LSE-D 1위입니다." in text and 'lang="ko"' in text
    assert client.get("/leaderboard?lang=ko").headers["content-language"] == "ko"
    assert (
        "lang=ko"
        in re.search(r'href="(/leaderboard\?[^"]*sort=sync[^"]*)"', client.get("/leaderboard?lang=ko").text)[1]
    )


def test_files_hold_the_whole_table_and_no_formulas(client, store):
    answer = client.get("/leaderboard.csv?sort=n")
    table = list(csv.DictReader(io.StringIO(answer.text)))
    assert {r["label"] for r in table} == {"A", EVIL, "'=few", "untouched", "real"} and table[0]["lse_d_low"]
    assert "attachment" in answer.headers["content-disposition"]
    found = client.get("/leaderboard.json?category=random").json()
    assert found["category"] == "random" and found["views"][0]["id"] == found["view"]["id"]
    assert len(list(csv.DictReader(io.StringIO(client.get("/leaderboard/clips.csv").text)))) == 30


def test_a_row_says_how_it_is_made_again_and_lists_its_clips(client, store):
    view = board.find_view(store)
    text = client.get(f"/leaderboard/row/{view.id}/{sha('A')[:16]}").text
    assert "git checkout c0ffee" in text and "--system A" in text and "differed from this commit" in text
    card = client.get(f"/leaderboard/row/{view.id}/{sha('A')[:16]}.json").json()
    assert card["card"]["licence"] == "MIT" and card["runs"][0]["again"][0] == "git checkout c0ffee"
    key = re.search(r"/leaderboard/score/([0-9a-f]{16})\.json", text)[1]
    assert client.get(f"/leaderboard/score/{key}.json").json()["row"]["key"].startswith(key)
    for nothing in (
        "/leaderboard/row/000000000000/00000000",
        f"/leaderboard/row/{view.id}/00000000",
        "/leaderboard/score/00000000.json",
    ):
        assert client.get(nothing).status_code == 404


def test_what_an_address_gets_wrong_shows_the_usual_table(client, store):
    odd = client.get("/leaderboard?view=zz&category=%3Ci%3E&rank_by=speedy&sort=x&dir=y&set=q&lang=<i>")
    assert odd.status_code == 200 and "<i>" not in odd.text and "On 6 clips, A is first" in odd.text


def test_a_blind_evaluator_ranks_nothing_and_says_why(client, store, place):
    same = {n: facts()[n] for n in ("measure_version", "evaluator", "evaluator_sha256", "protocol", "protocol_hash")}
    other = {"set_sha256": sha("made4"), "set_name": "other"}
    fill(store, {"A": GOOD[:4]}, **{**other, "work": "w"})
    store.add(
        CheckFact,
        [{"key": "k" * 64, "run": "", "set_sha256": sha("made4"), **same, "tried": 8, "found": 3, "record": {}}],
    )
    text = client.get(f"/leaderboard?set={sha('made4')[:12]}").text
    assert "Cannot be ranked: on this set&#39;s real clips syncnet-lab found 3 of 8 known shifts" in text
    assert "not ranked: see above" in text


def test_older_measures_are_said_to_be_old(client, store):
    fill(store, {"A": GOOD}, measure_version="2", work="old")
    text = client.get(f"/leaderboard?set={sha('made6')[:12]}").text  # the latest rows first
    assert "Measured with version 2 of the measures" in text


def test_a_run_that_goes_on_and_one_that_failed_are_said(client, store):
    store.claim("w" * 10, "elsewhere", 60)
    assert "A run is going on" in client.get("/leaderboard").text
    store.release("w" * 10, "elsewhere")
    jobs = client.gate.context.jobs

    def fails(job, progress, cancelled):
        from lipsync.errors import InputError

        raise InputError("The evaluator's file is not here.")

    job = jobs.create()
    jobs.submit(job.id, "benchmark", fails)
    until = time.monotonic() + 20
    while jobs.get(job.id).busy and time.monotonic() < until:
        time.sleep(0.02)
    assert "The last run ended early: The evaluator&#39;s file is not here." in client.get("/leaderboard").text
    jobs.delete(job.id)


def test_a_store_that_is_away_is_a_sentence_of_ours(client, store, monkeypatch):
    from resynced.records import BenchmarkError

    def gone(_):
        raise BenchmarkError("The store /secret/place could not do that.")

    monkeypatch.setattr(board, "views", gone)
    answer = client.get("/leaderboard")
    assert answer.status_code == 503 and "cannot be read at the moment" in answer.text and "secret" not in answer.text


def test_the_papers_figures_stand_apart_with_both_wav2lip_rows(client, store):
    text = client.get("/leaderboard").text
    table, papers = text.split('id="published"')
    assert "6.386" not in table and "6.386" in papers and "7.15" in papers and "102.4 %" in papers
    lrs2 = papers[papers.index("<summary>LRS2") :]
    lrs2 = lrs2[: lrs2.index("</table>")]
    assert ">Wav2Lip<" in lrs2 and "Wav2Lip (released weights, re-run)" in lrs2


def test_every_answer_has_words_in_both_languages():
    said = {"text": "", "best": ["A"], "others": ["B"], "sharpest": None}
    table = {"cannot_rank": None, "answer": said, "rank_by": "lse_d", "n": 9, "rows": [{"role": ""}], "changes": 2}
    for t in (ENGLISH, KOREAN):
        for change in ({}, {"best": ["A", "B"], "sharpest": "B"}, {"others": []}, {"best": []}):
            assert page.answer(table | {"answer": said | change}, t)
        assert "2" in page.changes(table, t) and not page.changes(table | {"changes": None}, t)


def test_the_page_opens_within_a_second_once_it_was_computed(client, store):
    client.get("/leaderboard")
    began = time.process_time()
    assert client.get("/leaderboard").status_code == 200
    assert time.process_time() - began < 1


def test_distances_stand_with_what_they_are_called(client, store):
    same = {
        "run": "",
        "set_sha256": sha("made6"),
        "category": "",
        "encoder": "e",
        "encoder_sha256": "e",
        "crop": "faces",
    }
    counts = {"clips": 6, "n_real": 9, "n_made": 9, "frechet": 1.25, "extrapolated": None, "kid": None}
    line = {"key": "d" * 64, "system": "A", "fingerprint": sha("A"), "title": "Fréchet (lab encoder)"}
    store.add(DistanceFact, [line | same | counts])
    newest = next(v for v in board.views(store) if v.measure_version == VERSION and v.set_sha256 == sha("made6"))
    text = client.get(f"/leaderboard?view={newest.id}").text
    assert "Fréchet (lab encoder)" in text and "1.250" in text


def test_people_stand_beside_what_was_measured(client, store, monkeypatch):
    said = {sha("A"): {"share": 0.625, "n": 120, "standing": "preliminary"}}
    monkeypatch.setattr(page, "human", lambda store, set_sha256: said if set_sha256 == sha("made6") else {})
    text = client.get(f"/leaderboard?set={sha('made6')[:12]}").text
    assert text.count("62% of 120 votes") == 1
