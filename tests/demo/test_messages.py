"""The sentences of the engine in Korean: none is missing, none too many, none made where no table can know it."""

import ast
import builtins
import copy
import json
import pickle
import re
from pathlib import Path

import pytest

from demo import html, i18n
from demo.jobs import JobQueue
from lipsync.errors import InputError
from lipsync.messages import FIELD, Message, as_json, from_json

ROOT = Path(__file__).parents[2]
FOLDERS = ("lipsync", "eval", "resynced", "demo")
# What no page shows: sentences of the command line alone, and on arrays that a caller got wrong.
UNSEEN = {
    "lipsync/__main__.py", "lipsync/batch.py", "lipsync/lists.py", "lipsync/checkpoints/download.py",
    "lipsync/checkpoints/quantize.py",
    "eval/__main__.py", "eval/encoders.py", "eval/inputs.py", "eval/landmarks.py", "eval/offset.py",
    "eval/reference.py", "eval/results.py", "eval/stats.py", "eval/table.py", "eval/validity.py",
    "eval/metrics/frechet.py", "eval/metrics/identity.py", "eval/metrics/image.py", "eval/metrics/leakage.py",
    "eval/metrics/motion.py", "eval/metrics/retrieval.py",
    "resynced/__main__.py", "resynced/pairs.py", "resynced/published.py", "resynced/published_rules.py",
    "resynced/simulate.py", "resynced/studies_cli.py",
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


def test_every_sentence_is_a_template_with_its_values():
    _, made, wrong = walk()
    assert not made, "write Message('… {name} …', name=…), not a text that is put together"
    assert not wrong, "these values and places do not belong together"


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
