"""The sentences of the engine in Korean: none is missing, none too many, none made where no table can know it."""

import ast
import asyncio
import builtins
import copy
import json
import pickle
import re
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from demo import html, i18n, uploads
from demo.jobs import JobQueue
from demo.tabs.flow import Flow
from lipsync.errors import InputError
from lipsync.messages import FIELD, Message, as_json, from_json
from lipsync.options import Options
from tests.helpers.page_client import page_client

ROOT = Path(__file__).parents[2]
FOLDERS = ("lipsync", "eval", "resynced", "demo")
# What no page shows: sentences of the command line alone, and on arrays that a caller got wrong.
UNSEEN = {
    "lipsync/__main__.py", "lipsync/batch.py", "lipsync/lists.py", "lipsync/checkpoints/download.py",
    "lipsync/checkpoints/quantize.py",
    "eval/__main__.py", "eval/closure.py", "eval/encoders.py", "eval/inputs.py", "eval/landmarks.py", "eval/offset.py",
    "eval/reference.py", "eval/results.py", "eval/stats.py", "eval/table.py", "eval/validity.py",
    "eval/metrics/closure.py", "eval/metrics/frechet.py", "eval/metrics/identity.py", "eval/metrics/image.py",
    "eval/metrics/leakage.py", "eval/metrics/motion.py", "eval/metrics/retrieval.py",
    "resynced/__main__.py", "resynced/closure.py", "resynced/pairs.py", "resynced/published.py",
    "resynced/published_rules.py", "resynced/simulate.py", "resynced/studies_cli.py",
    "demo/api.py",  # answers programs, in English
}  # fmt: skip
SPEAK = {"Message", "Cancelled", "Refused", "HTTPException", "answer"}  # and all errors of ours
LISTS = {"notes", "warnings", "remarks", "faults", "alarms"}  # of sentences
OWN_WORDS = {"resynced/leaderboard.py"}  # whose sentences the page says from its facts (demo/pages/leaderboard.py)


def files():
    found = {str(path.relative_to(ROOT)): path for name in FOLDERS for path in (ROOT / name).rglob("*.py")}
    assert found.keys() > UNSEEN, UNSEEN - found.keys()
    return {name: path for name, path in sorted(found.items()) if name not in UNSEEN}


def speaks(call):
    """Does a call take a template?"""
    name = getattr(call.func, "id", getattr(call.func, "attr", ""))
    is_join = isinstance(call.func, ast.Attribute) and call.func.attr == "join"
    return not is_join and (name in SPEAK or name.endswith("Error") and not hasattr(builtins, name))


def literals(node, constants):
    """(templates, nodes that are texts but no templates) of an argument."""
    if isinstance(node, ast.Constant):
        return ([node.value] if isinstance(node.value, str) else []), []
    if isinstance(node, ast.Name) and node.id in constants:
        return [constants[node.id]], []
    if isinstance(node, ast.IfExp):
        parts = [literals(branch, constants) for branch in (node.body, node.orelse)]
        return [t for found, _ in parts for t in found], [n for _, made in parts for n in made]
    added = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod)
    formatted = isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("format", "join", "replace")
    return [], [node] if isinstance(node, ast.JoinedStr) or added or formatted else []


def walk():
    """Templates by where they stand; places of sentences that are made and not templates; wrong values."""
    templates, made, wrong = {}, [], []
    for name, path in files().items():
        tree = ast.parse(path.read_text())
        constants = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name) and isinstance(node.value.value, str)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            here = f"{name}:{node.lineno}"
            if speaks(node):
                for argument in node.args:
                    found, texts = literals(argument, constants)
                    made += [here for _ in texts]
                    for template in found:
                        templates[template] = here
                        given = {k.arg for k in node.keywords}
                        asked = {field[0] for field in FIELD.findall(template)} - {"file"}  # the parent names the file
                        if None not in given and given - {"file"} != asked:
                            wrong.append((here, given ^ asked))
            elif getattr(node.func, "id", "") == "option":
                templates |= {k.value.value: here for k in node.keywords if k.arg == "refuse"}
            elif name in OWN_WORDS:
                continue
            elif getattr(node.func, "attr", "") == "append" and getattr(node.func.value, "id", "") in LISTS:
                found, texts = literals(node.args[0], {})
                made += [here for _ in [*found, *texts]]
    return templates, made, wrong


def needs_words(template):
    """Is anything of it to be translated?"""
    return any(c.isalpha() for c in FIELD.sub("", template))


def places(template):
    return {field[0] for field in FIELD.findall(template)}


@pytest.mark.slow
def test_every_sentence_is_a_template_with_its_values():
    _, made, wrong = walk()
    assert not made, "write Message('… {name} …', name=…), not a text that is put together"
    assert not wrong, "these values and places do not belong together"


@pytest.mark.slow
def test_every_sentence_is_there_in_korean():
    templates = {template: here for template, here in walk()[0].items() if needs_words(template)}
    assert len(templates) > 300
    missing = {here: template for template, here in templates.items() if template not in i18n.MESSAGES}
    assert not missing, "messages.ko.json lacks these"
    assert not i18n.MESSAGES.keys() - templates.keys(), "messages.ko.json has these for nothing"


def test_korean_has_the_same_places_and_is_korean():
    for template, korean in i18n.MESSAGES.items():
        assert places(template) == places(korean), template
        assert all(not conversion and not form for _, conversion, form in FIELD.findall(korean)), korean
        assert re.search("[가-힣]", korean), korean


def test_the_page_shows_no_sentence_as_it_comes():
    """Outside the API every error goes through `worded`."""
    for name, path in files().items():
        if name.startswith("demo/") and name != "demo/server.py":  # whose own end is told on the terminal
            assert not re.search(r"\bstr\((error|known|full|refused|late)\)", path.read_text()), name


# how a message keeps its parts


def test_a_message_is_its_english_sentence_and_keeps_its_parts():
    why = Message("needs {n:,} MB", n=12_000)
    said = Message("{name!r} failed: {why} ({share:.0%})", name="a.mp4", why=why, share=0.256)
    assert said == "'a.mp4' failed: needs 12,000 MB (26%)" and isinstance(said, str)
    korean = {said.template: "{name} 실패, {share}: {why}", why.template: "{n} MB가 필요합니다"}
    assert said.by(korean) == "'a.mp4' 실패, 26%: 12,000 MB가 필요합니다"
    assert said.by({}) == said, "what has no translation stays English"
    for kept in (
        pickle.loads(pickle.dumps(said)),
        copy.deepcopy(said),
        from_json(json.loads(json.dumps(as_json(said)))),
    ):
        assert kept == said and kept.by(korean) == said.by(korean)


def test_an_error_keeps_its_message_through_pickles_and_other_errors():
    error = pickle.loads(pickle.dumps(InputError("{file} is empty.", file="a.mp4")))
    assert str(error) == "a.mp4 is empty." and error.message.template == "{file} is empty."
    around = InputError("{name}: {error}", name="x", error=error)
    assert str(around) == "x: a.mp4 is empty." and around.message.by(i18n.MESSAGES) == "x: a.mp4은(는) 빈 파일입니다."


def test_a_name_that_is_missing_comes_later():
    early = Message("{file} has no sound track.")
    assert early == "{file} has no sound track." and Message(early, file="a.mp4") == "a.mp4 has no sound track."


@pytest.mark.parametrize("evil", ["{file.__class__}", "{0}", "{name}", "{file!r:>999999999}", "{{file}}", "%s"])
def test_texts_from_outside_are_put_in_once_and_never_formatted(evil):
    said = Message("{name} cannot be opened ({file}).", name=evil, file="secret")
    assert said == f"{evil} cannot be opened (secret)."
    foreign = from_json({"message": evil, "values": {"file": "a", "name": {"no": "message"}}})
    assert foreign.by(i18n.MESSAGES).count("class 'str'") == 0 and len(foreign.by({})) < 100


def test_what_json_brings_that_is_no_message_stays_as_it_is():
    for other in ({"message": 1, "values": {}}, {"message": "a"}, {"message": "a", "values": []}, [1, "a", None]):
        assert from_json(other) == other


def test_a_foreign_message_grows_no_larger_than_it_may():
    bomb = {"message": "{a}" * 1000, "values": {"a": {"message": "{b}" * 1000, "values": {"b": "x" * 10_000}}}}
    assert len(from_json(bomb, 2000)) <= 2000
    fine = as_json(Message("{file} has {n} parts.", n=3))
    assert from_json(fine, 2000).by({}) == "{file} has 3 parts."


# on the page


def test_a_job_keeps_its_sentences_over_a_restart(tmp_path):
    error = Message("{file} is empty.", file="<b>.mp4")
    store = JobQueue(tmp_path)
    job = store.create()
    store.update(
        job.id, results=[{"file": "r.mp4", "model": "m", "words": error, "label": {"labelled": True, "words": error}}]
    )
    old = store.create()
    store.update(
        old.id,
        results=[
            {"file": "r.mp4", "model": "m", "words": "As <it> was.", "label": {"labelled": True, "words": "An old one"}}
        ],
    )
    store.close()

    again = JobQueue(tmp_path)
    korean, english = (html.facts(again.get(job.id), "", t) for t in (i18n.KOREAN, i18n.ENGLISH))
    assert korean.count("&lt;b&gt;.mp4은(는) 빈 파일입니다.") == 2 and "<b>" not in korean
    assert english.count("&lt;b&gt;.mp4 is empty.") == 2
    kept = html.facts(again.get(old.id), "", i18n.KOREAN)
    assert "As &lt;it&gt; was." in kept and "An old one" in kept, "sentences of older jobs are shown as they were"
    again.close()


def test_a_sentence_that_lost_its_parts_is_recognized():
    why = InputError("{file} cannot be decoded ({error}).", file="a.mp4", error="no (end)").message
    lost = str(InputError("{name} gave no usable video for {id}: {error}.", name="ours", id="p1", error=why))
    assert i18n.worded(lost, i18n.ENGLISH) == lost
    said = "ours이(가) 만든 p1의 영상을 쓸 수 없습니다: a.mp4을(를) 디코딩할 수 없습니다(no (end)).."
    assert i18n.worded(lost, i18n.KOREAN) == said
    for foreign in ("yes or no", "a.mp4", "", "Something that nobody of ours says (at all).", "{file} or {name}"):
        assert i18n.worded(foreign, i18n.KOREAN) == foreign


@pytest.mark.slow
def test_every_sentence_is_recognized():
    for template in (t for t in i18n.MESSAGES if t.endswith(".") and i18n.letters(t) >= i18n.LEAST_LETTERS):
        made = Message.of(template, {name: f"v{n}" for n, name in enumerate(sorted(places(template)))})
        assert re.search("[가-힣]", i18n.worded(str(made), i18n.KOREAN)), template


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with page_client(tmp_path_factory.mktemp("page"), **{"accept-language": "ko-KR,ko;q=0.9"}) as client:
        yield client


def test_refusals_are_in_the_visitors_language(server):
    view = "x" * 32
    for path, said in (
        ("/nothing", "이 주소에는 아무것도 없습니다."),
        (f"/jobs/{view}/status", "그런 작업이 없거나 이미 지워졌습니다."),
        (f"/jobs/{view}/source", "그런 파일이 없거나 이미 지워졌습니다."),
        ("/gradio_api/file=/files/a/b.mp4", "그런 파일이 없거나 이미 지워졌습니다."),
        ("/leaderboard/row/aaaaaaaaaaaa/aaaaaaaa", "저장소에 "),
    ):
        answer = server.get(path)
        assert answer.status_code == 404 and said in answer.text, (path, answer.text)
        english = server.get(path, headers={"accept-language": "en"}).text
        assert english.isascii() and english != answer.text
    large = server.post("/gradio_api/upload", files={"files": ("a.mp4", b"0" * 1_050_000)})
    assert large.status_code == 413 and large.text == "파일이 여기서 받는 1 MB보다 큽니다."


def finished(job):
    for _ in range(1200):
        if not job.busy:
            return
        time.sleep(0.1)
    raise AssertionError(f"{job.task} is not done after two minutes")


def given(name, write):
    """A file where gradio puts what a visitor uploads."""
    path = uploads.new_path(name)
    write(path)
    return str(path)


def taken(flow, path):
    """The job of a file that a Korean visitor gave as a face, when it was looked at, and how it is shown."""
    job = flow.context.jobs.get(asyncio.run(flow.take(path, "", "", i18n.KOREAN))["job"])
    finished(job)
    return job, flow.settled(job.id, "", i18n.KOREAN)


@pytest.mark.slow
def test_a_korean_visitor_reads_what_is_wrong_in_korean(server, tmp_path):
    flow = Flow(server.gate.context)
    _, shown = taken(flow, given("notes.mp4", lambda path: path.write_text("These are words.\n" * 99)))
    assert "동영상, 사진, 소리 어느 것으로도 읽을 수 없습니다" in shown["preview"]

    faceless = given("grey.png", lambda path: cv2.imwrite(str(path), np.full((120, 160, 3), 90, np.uint8)))
    job, shown = taken(flow, faceless)
    assert "얼굴을 찾지 못했습니다" in shown["preview"] and job.facts["faces"] == 0
    voice = given("voice.wav", lambda path: soundfile.write(path, np.zeros(16_000, np.float32), 16_000))
    flow.start(job.id, voice, Options(), None, "", i18n.KOREAN)
    finished(job)
    assert "grey.png의 1프레임 어디에서도 얼굴을 찾지 못했습니다" in flow.shown(job, "", i18n.KOREAN)["status"]
    assert "No face was found in any of the 1 frames" in flow.shown(job, "", i18n.ENGLISH)["status"]


@pytest.mark.slow
def test_a_korean_visitor_reads_the_report_in_korean(server):
    flow = Flow(server.gate.context)
    portrait = ROOT / "tests" / "data" / "page" / "portrait.jpg"
    job, _ = taken(flow, given("portrait.jpg", lambda path: path.write_bytes(portrait.read_bytes())))
    silence = given("voice.wav", lambda path: soundfile.write(path, np.zeros(24_000, np.float32), 16_000))
    flow.start(job.id, silence, Options(), None, "", i18n.KOREAN)
    finished(job)
    assert job.state == "done", job.error
    flow.settled(job.id, "", i18n.KOREAN)
    finished(job)
    shown = flow.shown(job, "", i18n.KOREAN)["facts"]
    plain = re.sub(r"<[^>]*>", " ", shown)
    assert "프레임에서 입을 새로 만들었습니다(컷 1개에서 얼굴 1개를 찾았습니다)" in plain
    assert "목소리 voice.wav에 소리가 없어 입을 다물고 있습니다." in plain
    assert "표시가 있고 온전함: " in plain and "AI 립싱크한 영상" in plain
    assert "싱크를 잴 수 없었습니다" in plain and "소리가 들리지 않아 입과 비교할 수 없습니다" in plain
    assert not re.search(r"\b(the|is|was|with|frames|signed|and)\b", plain), plain
    english = flow.shown(job, "", i18n.ENGLISH)["facts"]
    assert "the mouth was made anew" in english and "Labelled and intact" in english
