"""Pages of raters and of studies over the real gate, without a browser: what is let in, kept, and never told."""

import json
import re
import zipfile
from io import BytesIO

import pytest
from fastapi.testclient import TestClient
from itsdangerous import URLSafeTimedSerializer

from demo import tasks
from demo.server import build
from demo.settings import Settings
from lipsync import tts
from lipsync.label import manifest
from resynced.store import Store
from tests.helpers.made_study import SYSTEMS, kept_videos, made_study

pytestmark = pytest.mark.slow  # a study with videos comes first
PASSWORD = "correct horse battery"
HERE = {"Origin": "http://localhost"}
PLAYED = {f"{side}_{what}_s": 1.2 for side in ("left", "right") for what in ("played", "heard", "length")} | {
    "answer_s": 2.0
}


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rating")
    patch = pytest.MonkeyPatch()
    patch.setenv("GRADIO_TEMP_DIR", "")
    patch.setenv("LIPSYNC_DATA", str(folder / "data"))
    patch.setenv("LIPSYNC_DATABASE", str(folder / "store.sqlite"))
    patch.setattr(tasks, "warm_up", lambda: None)
    with Store() as store:
        kept_videos(store)
        made_study(store, language="ko", title="두 영상", plan="The order of the two.")
        made_study(store, "shut", opened=False)
    gate = build(Settings(work=folder / "work", operator_password=PASSWORD))
    gate.context.studies.desk._least = 0
    yield gate
    gate.context.store.close()
    patch.undo()


@pytest.fixture
def rater(gate):
    return TestClient(gate, base_url="http://localhost", follow_redirects=False)


@pytest.fixture
def operator(gate):
    client = TestClient(gate, base_url="http://localhost", follow_redirects=False, headers=HERE)
    assert client.post("/operator/login", data={"password": PASSWORD}).status_code == 303
    return client


def join(rater, **more):
    answer = rater.post("/rate/trial/join", json={"consent": True, **more})
    assert answer.status_code == 200, answer.text
    return answer


def vote(rater, ballot, **more):
    answer = {"preference": ballot["instruction"] or "left"}
    return rater.post(
        "/rate/trial/answer", json={"token": ballot["token"], "answer": answer, "timings": PLAYED, **more}
    )


def test_without_consent_nothing_is_stored(gate, rater):
    page = rater.get("/rate/trial")
    assert 'lang="ko"' in page.text and "만 18세" in page.text and "checked" not in page.text
    refused = rater.post("/rate/trial/join", json={"consent": "yes"})
    assert refused.status_code == 409 and "동의" in refused.json()["error"] and not rater.cookies
    assert rater.get("/rate/trial/next").status_code == 409
    assert "끝났습니다" not in page.text and "closed" in rater.get("/rate/shut").text
    assert rater.get("/rate/nothing").status_code == 404


def test_a_rater_goes_from_consent_to_code_and_a_reload_stays_at_the_same_pair(gate, rater):
    cookie = join(rater, panel={"PROLIFIC_PID": "5f1a2b3c", "utm": "x"}, description={"age_group": "25-34"})
    assert "HttpOnly" in cookie.headers["set-cookie"] and "Path=/rate/trial" in cookie.headers["set-cookie"]
    first = rater.get("/rate/trial/next").json()["ballot"]
    assert (first["training"], first["number"], first["of"]) == (True, 1, 1)
    said = vote(rater, first).json()
    assert said["explanation"] in ("left", "right") and said["ballot"]["ballot"] == first["coming_ballot"]
    again = rater.get("/rate/trial/next").json()["ballot"]
    assert again["ballot"] == said["ballot"]["ballot"] and again["token"] != first["token"]
    assert 'data-phase="sound"' in rater.get("/rate/trial").text
    assert vote(rater, first).json()["answered"]  # twice is refused, in words of the rater's language
    while ballot := rater.get("/rate/trial/next").json()["ballot"]:
        assert vote(rater, ballot).status_code == 200
        last = ballot
    end = rater.get("/rate/trial/end").json()
    assert re.fullmatch("[0-9A-F]{8}", end["code"]) and end["share"] is None
    assert 'data-phase="end"' in rater.get("/rate/trial").text
    back = rater.post("/rate/trial/back", json={}).json()["ballot"]
    assert back["ballot"] == last["ballot"]
    assert vote(rater, back, again=True).status_code == 200
    assert rater.post("/rate/trial/back", json={}).json()["ballot"] is None
    other = TestClient(gate, base_url="http://localhost")  # the panel's link again, in another browser
    assert join(other, panel={"PROLIFIC_PID": "5f1a2b3c"}).json() == {"phase": "end"}
    tables = gate.context.studies.desk.tables("trial")
    assert "5f1a2b3c" not in json.dumps({k: t.to_json() for k, t in tables.items()})
    gone = rater.post("/rate/trial/withdraw", json={}).json()["votes"]
    assert gone == 6 and rater.get("/rate/trial/next").status_code == 409


def test_nothing_that_reaches_the_browser_before_the_vote_tells_the_system(rater):
    """Pages, answers, addresses, headers, sizes; and the files themselves, but for the signature the law asks for."""
    forbidden = [*(s.encode() for s in SYSTEMS[:2]), b"gold", b'"late"', b'"kind"', b"expected"]
    open_to_all = URLSafeTimedSerializer("no key")
    answers = [rater.get("/rate/trial"), join(rater)]
    headers_of_videos = set()
    while True:
        answers.append(rater.get("/rate/trial/next"))
        ballot = answers[-1].json()["ballot"]
        if ballot is None:
            break
        for token in (ballot["token"], *ballot["videos"].values(), *ballot["coming"].values()):
            held = open_to_all.loads_unsafe(token)[1]  # what is signed can be read by anybody
            assert all(re.fullmatch("[0-9a-f]{8,32}|left|right", part) for part in held)
        pair = [rater.get(f"/rate/trial/video/{ballot['videos'][side]}") for side in ("left", "right")]
        assert pair[0].content != pair[1].content or ballot["training"]
        assert len(pair[0].content) == len(pair[1].content)
        for answer in pair:
            hidden = {k: v for k, v in answer.headers.items() if k not in ("etag", "date")}
            assert hidden["cache-control"] == "no-store" and "content-disposition" not in hidden
            headers_of_videos.add(json.dumps(hidden | {"content-length": ""}, sort_keys=True))
            assert b"secret" not in answer.content
        assert pair[0].headers["etag"] != rater.get(f"/rate/trial/video/{ballot['videos']['left']}").headers["etag"]
        answers += pair
        answers.append(vote(rater, ballot))
    assert len(headers_of_videos) == 1
    for answer in answers:
        told = answer.url.path.encode() + json.dumps(dict(answer.headers)).encode()
        told += b"" if "video" in answer.headers["content-type"] else answer.content
        for word in forbidden:
            assert word not in told, (word, answer.url)


def test_a_video_comes_in_parts_and_is_gone_once_its_ballot_is_answered(rater, tmp_path):
    join(rater)
    ballot = rater.get("/rate/trial/next").json()["ballot"]
    address = f"/rate/trial/video/{ballot['videos']['left']}"
    part = rater.get(address, headers={"Range": "bytes=10-19"})
    assert part.status_code == 206 and len(part.content) == 10
    whole = tmp_path / "whole.mp4"
    whole.write_bytes(rater.get(address).content)
    assert manifest.verify(whole).status is manifest.Status.NOT_LABELLED  # of the real clips: training is on them
    vote(rater, ballot)
    assert rater.get(address).status_code == 404
    assert rater.get("/rate/trial/video/made-up-name-of-a-video").status_code == 404


def test_the_sound_check_knows_its_digits(gate, rater):
    join(rater)
    check = rater.post("/rate/trial/sound", json={}).json()["check"]
    if not tts.can_speak("ko"):
        assert check is None
        return
    sound = rater.get(f"/rate/trial/sound/{check}")
    assert sound.content[:4] == b"RIFF" and sound.headers["cache-control"] == "no-store"
    digits = "".join(map(str, gate.context.studies._digits(check)))
    assert len(set(digits)) == 3
    for said, heard in (("000", False), ("", False), (f" {digits[0]} {digits[1:]}", True)):
        assert rater.post("/rate/trial/sound", json={"check": check, "said": said}).json() == {"heard": heard}
    assert not rater.post("/rate/trial/sound", json={"check": "0-abcd", "said": "123"}).json()["heard"]
    assert 'data-phase="ballot"' in rater.get("/rate/trial").text


def test_other_sites_and_made_up_routes_are_refused(rater):
    join(rater)
    assert rater.post("/rate/trial/withdraw", json={}, headers={"Origin": "http://evil"}).status_code == 403
    for route in ("/rate/trial/tables", "/rate/Trial", "/rate/", "/studies/trial/votes", "/rate/trial/video/a/../b"):
        assert rater.get(route).status_code == 404
    assert rater.post("/rate/trial/answer", json={"token": 7, "answer": [], "timings": "x"}).status_code == 409
    policy = rater.get("/rate/trial").headers["content-security-policy"]
    assert "unsafe" not in policy and "media-src 'self' blob:" in policy


def test_visitors_see_no_studies_and_no_results_before_they_are_published(gate, rater, operator):
    for route in ("/studies", "/studies/trial", "/studies/trial/export"):
        assert rater.get(route).status_code == 403
    assert rater.post("/studies/trial/close", headers=HERE).status_code == 403
    assert rater.get("/studies/trial/results").status_code == 404
    join(rater)
    while ballot := rater.get("/rate/trial/next").json()["ballot"]:
        vote(rater, ballot)
    assert operator.post("/studies/trial/publish").status_code == 303
    public = rater.get("/studies/trial/results")
    assert public.status_code == 200 and "secret-alpha" not in public.text  # under 100 votes
    inside = operator.get("/studies/trial/results").text
    assert "secret-alpha" in inside and "Bradley-Terry" in inside
    assert operator.post("/studies/trial/unpublish").status_code == 303
    assert rater.get("/studies/trial/results").status_code == 404


def test_an_operator_sets_a_study_up_opens_closes_and_exports_it(gate, operator, monkeypatch):
    made = []
    monkeypatch.setattr(gate.context.studies, "prepare", made.append)
    form = operator.get("/studies").text
    assert "secret-alpha" in form and 'name="plan"' in form
    given = {
        "name": "new-one",
        "set": "made",
        "system": list(SYSTEMS[:2]),
        "design": "questions",
        "language": "en",
        "votes_per_pair": "40",
        "per_rater": "2",
        "training": "1",
        "gold": "1",
        "traps": "1",
        "repeats": "0",
        "items": "",
        "days": "3",
        "seed": "0",
        "plan": "Alpha beats beta.\r\nBy MOS.",
        "consent": "",
    }
    for change, said in (
        ({"name": "No Name"}, "no name for a study"),
        ({"days": "x"}, "whole number"),
        ({"system": []}, "1 systems"),
    ):
        answer = operator.post("/studies/new", data=given | change)
        assert answer.status_code == 400 and said in answer.text and "Alpha beats beta." in answer.text
    assert operator.post("/studies/new", data=given).headers["location"] == "/studies/new-one" and made == ["new-one"]
    page = operator.get("/studies/new-one").text
    study = gate.context.studies.desk.study("new-one")
    assert study.sha256 in page and study.plan == "Alpha beats beta.\nBy MOS." and study.fingerprints
    answer = operator.post("/studies/new-one/open")  # p00 and others were derived for the study "trial" alone
    assert answer.status_code == 409 and "has the videos of 0 of" in answer.text
    assert operator.post("/studies/shut/open").status_code == 303 and gate.context.studies.desk.is_open("shut")
    assert operator.post("/studies/shut/close").status_code == 303 and not gate.context.studies.desk.is_open("shut")
    archive = operator.get("/studies/trial/export")
    with zipfile.ZipFile(BytesIO(archive.content)) as file:
        assert "trial/study.json" in file.namelist()
    assert operator.get("/studies/nothing").status_code == 404
