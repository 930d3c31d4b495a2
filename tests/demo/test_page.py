"""The page's parts without the engine: what is served to whom, limits, sentences, both languages."""

import asyncio
import re
import shutil
import string
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from gradio.data_classes import FileData

from demo import api, fields, html, i18n, tasks, uploads
from demo.context import Context
from demo.jobs import Job, JobQueue
from demo.settings import Settings
from demo.tabs import sync as sync_tab
from demo.tabs.flow import Flow
from lipsync import tts as voices
from lipsync.clip import Clip
from lipsync.errors import Cancelled, InputError
from lipsync.faces.tracking import FaceMap, Track
from lipsync.media.reader import VideoWriter
from lipsync.options import IF_AUDIO_LONGER, Options
from lipsync.pipeline import _check_signing
from lipsync.progress import Progress
from lipsync.report import Report
from resynced import leaderboard
from resynced.published import NOTES, STATUS
from resynced.records import CATEGORIES
from resynced.submissions import Card
from resynced.systems import TIERS
from tests.conftest import make_voice
from tests.helpers.live_server import ROOT
from tests.helpers.page_client import page_client

MOVING = ROOT / "tests" / "data" / "page" / "moving.mp4"


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    store = JobQueue(tmp_path / "jobs")
    yield store
    store.close()


@pytest.fixture
def flow(store):
    return Flow(Context(Settings(), store))


def uploaded(name, write):
    """A file where gradio puts what a visitor uploads."""
    path = uploads.new_path(name)
    write(path)
    return path


def video(path, width=128, height=96, frames=5, fps=25):
    with VideoWriter(path, width, height, Fraction(fps)) as writer:
        for n in range(frames):
            writer.write(np.full((height, width, 3), 10 * n % 256, np.uint8))
    return path


def faces(frames=50, spans=((0, 50),)):
    """A FaceMap with one still face a span."""
    tracks = tuple(
        Track(
            n,
            0,
            a,
            np.tile(np.float32([10 + 30 * n, 20, 30 + 30 * n, 40]), (b - a, 1)),
            np.zeros((b - a, 25, 2), np.float32),
            np.ones(b - a, bool),
        )
        for n, (a, b) in enumerate(spans)
    )
    return FaceMap(frames, Fraction(25), ((0, frames),), tracks)


# what is served to whom


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with page_client(tmp_path_factory.mktemp("page")) as client:
        yield client


def test_health_and_first_view(server):
    assert server.get("/healthz").json() == {"status": "ok"}
    page = server.get("/")
    assert page.status_code == 200 and "Lip-sync" in page.text
    assert "fonts.googleapis" not in page.text


@pytest.mark.slow
def test_only_the_link_leads_to_the_files(server):
    job = server.gate.context.jobs.create()
    folder = server.gate.context.jobs.folder(job.id)
    (folder / "result-1.mp4").write_bytes(b"0123456789")
    (folder / "left-over.mp4").write_bytes(b"x")
    server.gate.context.jobs.update(job.id, results=[{"file": "result-1.mp4"}])

    whole = server.get(f"/jobs/{job.view}/result-1.mp4")
    assert whole.content == b"0123456789" and whole.headers["content-type"] == "video/mp4"
    assert whole.headers["cache-control"] == "private, no-store"
    assert "sandbox" in whole.headers["content-security-policy"]
    part = server.get(f"/jobs/{job.view}/result-1.mp4", headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, b"234")
    server.gate.context.jobs.update(
        job.id, source="source/My clip.mov", results=[{"file": "result-1.mp4", "model": "lab"}]
    )
    saved = server.get(f"/jobs/{job.view}/result-1.mp4?download=1").headers["content-disposition"]
    assert "attachment" in saved and "My%20clip_lab.mp4" in saved

    other = server.gate.context.jobs.create()
    for wrong in (
        f"/jobs/{other.view}/result-1.mp4",
        f"/jobs/{job.view}/job.json",
        f"/jobs/{job.view}/left-over.mp4",
        f"/jobs/{job.view}/source",
        f"/jobs/{job.view}/preview.jpg",
        f"/jobs/{job.view}/..%2f..%2fapp.py",
        "/jobs/x/source",
        f"/jobs/{job.view}",
        "/jobs/",
        "/jobs",
        f"/jobs/{job.id}/result-1.mp4",
    ):
        assert server.get(wrong).status_code == 404, wrong
    by_path = server.get(f"/gradio_api/file={folder / 'result-1.mp4'}")
    assert by_path.status_code in (403, 404)
    server.gate.context.jobs.delete(job.id)
    assert server.get(f"/jobs/{job.view}/result-1.mp4").status_code == 404


@pytest.mark.slow
def test_the_link_to_share_shows_the_result_and_nothing_else(server):
    job = server.gate.context.jobs.create()
    folder = server.gate.context.jobs.folder(job.id)
    source = uploaded("clip.mp4", video)
    tasks.store_upload(server.gate.context.jobs, job, "source", source)
    assert server.get(f"/watch/{job.shared}").status_code == 404  # nothing is finished yet
    video(folder / "result-1.mp4")
    one = {"file": "result-1.mp4", "model": "m", "words": "", "report": {},
           "label": {"labelled": True, "words": "Labelled <b>."}}  # fmt: skip
    server.gate.context.jobs.update(job.id, results=[one])
    page = server.get(f"/watch/{job.shared}", headers={"Accept-Language": "ko"})
    assert page.status_code == 200 and "립싱크 영상" in page.text and "Labelled &lt;b&gt;." in page.text
    assert f'content="http://localhost/watch/{job.shared}/preview.jpg"' in page.text and "og:title" in page.text
    assert "unsafe" not in page.headers["content-security-policy"] and "<script" not in page.text
    assert job.id not in page.text and job.view not in page.text and "style=" not in page.text
    assert server.get(f"/watch/{job.shared}/0.mp4").content == (folder / "result-1.mp4").read_bytes()
    assert server.get(f"/watch/{job.shared}/preview.jpg").headers["content-type"] == "image/jpeg"
    assert (folder / "result-1.jpg").is_file()
    (folder / "result-1.jpg").unlink()
    (folder / "result-1.mp4").write_bytes(b"damaged")
    assert server.get(f"/watch/{job.shared}/preview.jpg").status_code == 503
    for wrong in (
        f"/watch/{job.shared}/1.mp4",
        f"/watch/{job.shared}/source",
        f"/watch/{job.view}",
        f"/watch/{job.id}",
        f"/jobs/{job.shared}/source",
        f"/jobs/{job.shared}/result-1.mp4",
        f"/jobs/{job.shared}/status",
    ):
        assert server.get(wrong).status_code == 404, wrong
    ask = f"/mine?views={job.view},{'x' * 32},{server.gate.context.jobs.create().view}"
    assert server.get(ask).json() == [job.view] and server.get("/mine").json() == []
    server.gate.context.jobs.delete(job.id)
    assert server.get(f"/watch/{job.shared}").status_code == 404 and server.get(ask).json() == []


def test_a_page_is_never_served_from_an_upload(server):
    job = server.gate.context.jobs.create()
    page = uploaded("page.html", lambda path: path.write_text("<h1>"))
    tasks.store_upload(server.gate.context.jobs, job, "source", page)
    answer = server.get(f"/jobs/{job.view}/source")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_too_large_upload_is_refused(server):
    answer = server.post("/gradio_api/upload", files={"files": ("big.mp4", b"0" * 1_100_000)})
    assert answer.status_code == 413
    assert server.post("/gradio_api/upload", files={"files": ("small.mp4", b"0" * 1000)}).status_code == 200


def test_the_named_endpoints_and_no_others(server):
    named = server.get("/gradio_api/info").json()["named_endpoints"]
    assert sorted(named) == ["/faces", "/segments", "/sync", "/verify"]


# limits and inputs


@pytest.mark.slow
def test_limits_are_sentences(tmp_path):
    path = video(tmp_path / "clip.mp4", frames=50)
    assert tasks.check_source(path, Settings()).frames == 50
    with pytest.raises(InputError, match=r"clip.mp4 is 2 s long; this page takes up to 1 s"):
        tasks.check_source(path, Settings(max_seconds=1))
    with pytest.raises(InputError, match=r"clip.mp4 is 128 × 98; here the shorter side may have 96"):
        tasks.check_source(video(tmp_path / "clip.mp4", height=98, frames=2), Settings(max_height=96))
    path.write_bytes(b"0" * 3_000_000)
    with pytest.raises(InputError, match=r"clip.mp4 has 3 MB; this page takes up to 2 MB"):
        tasks.check_source(path, Settings(max_megabytes=2))
    with pytest.raises(InputError, match="has no sound track"):
        tasks.check_voice(video(tmp_path / "mute.mp4"), Settings())
    with pytest.raises(InputError, match=r"short.wav is 0.10 s long: a voice has 0.5 s at least"):
        tasks.check_voice(make_voice(tmp_path / "short.wav", 0.1), Settings())
    path.write_bytes(b"not a film at all")
    with pytest.raises(InputError, match="clip.mp4"):
        tasks.check_source(path, Settings())


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("my clip (1).mp4", "my_clip_1_.mp4"),
        (".hidden", "hidden"),
        ("목소리.wav", "목소리.wav"),
        ("a" * 120 + ".mov", None),
    ],
)
def test_inputs_get_tame_names(store, given, kept):
    job, path = store.create(), uploaded(given, lambda path: path.write_text("x"))
    found = tasks.store_upload(store, job, "source", path)
    assert found.parent == store.folder(job.id) / "source" and len(found.name) <= 80
    assert kept is None or found.name == kept
    assert tasks.input_file(store, job, "source") == found
    tasks.store_upload(store, job, "source", path)
    assert len(list(found.parent.iterdir())) == 1


def test_an_upload_that_has_expired_is_asked_for_again(store):
    with pytest.raises(InputError, match="upload it again"):
        tasks.store_upload(store, store.create(), "source", uploads.new_path("gone.mp4"))


def test_a_kept_file_outlives_its_upload_and_a_failed_successor(store):
    job, upload = store.create(), uploaded("voice.wav", lambda path: path.write_text("first"))
    kept = tasks.store_upload(store, job, "voice", upload)
    assert kept.samefile(upload)  # two names of one file, not two copies
    upload.unlink()
    assert tasks.store_upload(store, job, "voice", upload) == kept  # that very file is here already
    other = uploads.new_path("other.wav")
    with pytest.raises(InputError, match="upload it again"):
        tasks.store_upload(store, job, "voice", other)
    assert tasks.input_file(store, job, "voice") == kept and kept.read_text() == "first"
    other.write_text("second")
    assert tasks.store_upload(store, job, "voice", other).read_text() == "second" and not kept.exists()
    assert sorted(p.name for p in store.folder(job.id).iterdir()) == ["job.json", "voice"]


def test_a_sound_without_a_stated_length_keeps_to_the_limit(tmp_path):
    """As browsers record it: a stream, whose length nobody knew when its head was written."""
    import av

    path = tmp_path / "live.webm"
    with av.open(str(path), "w", options={"live": "1"}) as file:
        stream = file.add_stream("libopus", rate=48_000)
        stream.layout = "mono"
        for n in range(100):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), "flt", "mono")
            frame.sample_rate, frame.pts = 48_000, 960 * n
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    assert tasks.probe(path).duration_s == 0
    assert tasks.check_voice(path, Settings(max_seconds=2)) == pytest.approx(2, abs=0.05)
    with pytest.raises(InputError, match=r"sound of live.webm is longer than the 1 s"):
        tasks.check_voice(path, Settings(max_seconds=1))


def test_two_jobs_at_once_share_one_evaluator(monkeypatch):
    from eval import syncnet as evaluator

    class Slow:
        def __init__(self, fast):
            time.sleep(0.05)

    monkeypatch.setattr(evaluator, "Evaluator", Slow)
    monkeypatch.setattr(tasks, "_built_evaluator", cache(tasks._built_evaluator.__wrapped__))
    with ThreadPoolExecutor(2) as pool:
        assert len({id(evaluator) for evaluator in pool.map(lambda _: tasks._evaluator(), range(2))}) == 1


def test_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("LIPSYNC_MAX_SECONDS", "12")
    monkeypatch.setenv("LIPSYNC_VISIBLE_LABEL", "off")
    assert (Settings().max_seconds, Settings().visible_label) == (12, False)


# faces and results of a job


def test_looking_for_faces_writes_the_preview(store, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "find", lambda clip, *_, **__: replace(clip, faces=faces(5, ((0, 5), (2, 5)))))
    job = store.create()
    tasks.store_upload(store, job, "source", uploaded("clip.mp4", video))
    tasks.look(store, Settings())(job, lambda p: None, lambda: False)
    shown = store.get(job.id).facts["preview"]
    assert (store.folder(job.id) / "preview.jpg").is_file()
    assert shown["boxes"] == {"0": [10.0, 20.0, 30.0, 40.0]} and (shown["width"], shown["height"]) == (128, 96)
    assert job.facts["faces"] == 2 and not job.facts["still"]
    tasks.show(store, job, store.memory.get(job.id), 0.12)
    assert list(job.facts["preview"]["boxes"]) == ["0", "1"]
    tasks.pick(store, job.id, "50.0,30.0@0.120")
    page = html.preview(job, "50.0,30.0@0.120", i18n.ENGLISH)
    assert "2 faces in this frame" in page and "shots" not in page
    assert re.findall(r'class="face( picked)?"', page) == ["", " picked"]
    assert re.findall(r'data-face="([^"]+)"', page) == ["20.0,30.0@0.120", "50.0,30.0@0.120"]


def test_a_click_marks_its_face_and_no_other_at_that_place(store):
    """Two shots of two people who sit at the same place: one of them speaks after a click."""
    box = np.tile(np.float32([10, 20, 30, 40]), (25, 1))
    tracks = tuple(Track(n, n, 25 * n, box, np.zeros((25, 25, 2), np.float32), np.ones(25, bool)) for n in range(2))
    job, point = store.create(), "20.0,30.0@0.200"
    shown = {"second": 0.2, "width": 128, "height": 96, "version": "1", "boxes": {"0": [10, 20, 30, 40]}}
    store.update(job.id, faces=2, shots=2, preview=shown)
    video = type("Info", (), {"fps": Fraction(25)})
    store.memory.put(job.id, Clip(video, FaceMap(50, Fraction(25), ((0, 25), (25, 50)), tracks)))
    tasks.pick(store, job.id, point)
    page = html.preview(job, point, i18n.ENGLISH)
    assert "face picked" in page and "One face in this frame. The clip is cut into 2 shots" in page
    shown["boxes"] = {"1": [10, 20, 30, 40]}
    assert "face picked" not in html.preview(job, point, i18n.ENGLISH)
    store.memory.pop(job.id)  # as after a restart
    tasks.pick(store, job.id, point)
    assert job.facts["picked"]["numbers"] == [1]


def test_the_lengths_are_said_before_they_meet(flow, store):
    job, t = store.create(), i18n.ENGLISH
    store.update(job.id, seconds=4.9)

    def said(heard, **options):
        return flow.meets(job.id, heard, Options(**options), t)["meeting"]

    assert "Voice 7.0 s, video 4.9 s: the video will play back and forth." in said({"seconds": 7.0})
    assert "the voice will be cut" in said({"seconds": 7.0}, if_audio_longer="cut")
    assert "the rest of the video stays as it is" in said({"seconds": 3.0})
    assert said({"seconds": 4.92}) == said({}) == flow.meets("", {"seconds": 3.0}, Options(), t)["meeting"] == ""


def test_who_will_speak_is_marked_and_counted_from_one(store):
    job = store.create()
    boxes = {"0": [10, 20, 30, 40], "1": [50, 20, 90, 60]}
    shown = {"second": 0.0, "width": 128, "height": 96, "version": "1", "boxes": boxes, "largest": [1]}
    store.update(job.id, faces=2, preview=shown)

    def pressed(picked):
        return re.findall(r'aria-pressed="(\w+)"', html.preview(job, picked, i18n.ENGLISH))

    assert pressed("") == pressed("largest") == ["false", "true"] and pressed("all") == ["true", "true"]
    page = html.preview(job, "", i18n.ENGLISH)
    assert "<b>1</b>" in page and 'aria-label="Face 2"' in page and "<b>0</b>" not in page
    assert "will look softer" not in page
    store.update(job.id, preview=shown | {"height": 960, "boxes": {"0": [0, 0, 99, 99], "1": [90, 200, 500, 620]}})
    assert "This face is 420 px high" in html.preview(job, "", i18n.ENGLISH)


def test_a_clip_without_a_face_turns_the_button_off(flow, store):
    job = store.create()
    store.update(job.id, faces=0)
    go = flow.shown(job, "", i18n.ENGLISH)["go"]
    assert not go["interactive"] and "face is needed" in go["value"]
    store.update(job.id, faces=1)
    assert flow.shown(job, "", i18n.ENGLISH)["go"]["interactive"]


def test_an_empty_field_is_its_default():
    values = dict.fromkeys(sync_tab.OPTIONS)
    assert sync_tab.asked("largest", None, values.values()) == Options()
    with pytest.raises(InputError, match="ends at 1 s, before it starts at 2"):
        sync_tab.asked("largest", 1, (values | {"start": 2}).values())


def test_the_first_frame_shown_has_the_most_faces():
    assert tasks.first_face(faces(50, ((20, 50),))) == pytest.approx(0.8)
    assert tasks.first_face(faces(50, ((0, 50), (25, 40)))) == pytest.approx(1.0)
    assert tasks.first_face(faces(50, ())) == 0


def made(monkeypatch, fails=()):
    """A fake engine that writes the options it was given; a model named in `fails` raises."""

    def sync(clip, voice, out, options, **_):
        if options.model in fails:
            raise InputError("no")
        assert isinstance(clip, Clip) and voice.is_file()
        out.write_text(repr(options))
        return Report(
            out=str(out),
            frames=5,
            fps=25.0,
            frames_synced=5,
            frames_passed=0,
            passed_ranges=[],
            faces=1,
            shots=1,
            width=128,
            height=96,
            seconds={},
            total_seconds=1.0,
            peak_rss_mb=1.0,
            model=options.model,
            checkpoint_sha256="",
            engine="none",
            label="signature",
            warnings=["done <b>"],
        )

    monkeypatch.setattr(tasks, "sync", sync)
    monkeypatch.setattr(tasks, "verdict", lambda path: {"labelled": True, "words": "Labelled."})
    monkeypatch.setattr(tasks, "check_voice", lambda *_: 1.0)


@pytest.mark.slow
def test_a_job_of_the_page_starts_five_children(store, monkeypatch):
    """Sound for the model, frames, sound for the video, the label, and its check; the voice was heard before."""
    started, begin = [], tasks.sandbox.Child.__init__

    def counted(self, job, request, *others, **more):
        started.append(request.get("job", job))
        begin(self, job, request, *others, **more)

    job, voice = (
        store.create(),
        uploaded("voice.mp3", lambda path: shutil.copy(MOVING.with_name("voice-two.mp3"), path)),
    )
    tasks.store_upload(store, job, "source", uploaded("clip.mp4", lambda path: shutil.copy(MOVING, path)))
    tasks.look(store, Settings())(job, lambda _: None, lambda: False)
    assert tasks.check_voice(voice, Settings()) > 1
    _check_signing()  # once in a process
    monkeypatch.setattr(tasks.sandbox.Child, "__init__", counted)
    tasks.make(store, Settings(), Options(), given=voice)(job, lambda _: None, lambda: False)
    assert len(started) <= 5, started


def test_two_models_and_a_second_try(store, tmp_path, monkeypatch):
    made(monkeypatch)
    job = store.create()
    for kind in ("source", "voice"):
        tasks.store_upload(store, job, kind, uploaded(kind, lambda path: path.write_text(path.name)))
    store.memory.put(job.id, Clip(None, faces()))

    def run(options, second=None):
        tasks.make(store, Settings(visible_label=False), options, second)(job, lambda p: None, lambda: False)
        return sorted(p.name for p in store.folder(job.id).glob("result-*"))

    first = run(Options(model="a"), "b")
    assert [r["model"] for r in job.facts["results"]] == ["a", "b"]
    assert sorted(r["file"] for r in job.facts["results"]) == first
    assert "visible_label=False" in (store.folder(job.id) / first[0]).read_text()
    page = html.results(job, i18n.ENGLISH)
    assert page.count("<video") == 3 and "compare n3" in page and job.id not in page
    assert "done &lt;b&gt;" in html.facts(job, "", i18n.ENGLISH)

    second = run(Options(model="a", audio_delay_frames=3))
    assert len(second) == 1 and second[0] not in first

    made(monkeypatch, fails=("b",))
    with pytest.raises(InputError):
        run(Options(model="a"), "b")
    assert [p.name for p in store.folder(job.id).glob("result-*")] == second  # the video of before stays


# sentences


def test_both_languages_say_the_same():
    def places(said):
        return {name for _, name, _, _ in string.Formatter().parse(said) if name}

    assert i18n.ENGLISH.keys() == i18n.KOREAN.keys()
    for key, said in i18n.ENGLISH.items():
        assert places(said) == places(i18n.KOREAN[key]), key


def of_the_benchmark():
    """Keys made of a name of the benchmark."""
    names = {
        "measure": [c.name for c in leaderboard.COLUMNS],
        "about": [c.name for c in leaderboard.COLUMNS],
        "category": CATEGORIES,
        "tier": [t.replace("-", "_") for t in TIERS],
        "role": ("floor", "ceiling"),
        "status": [s.replace("-", "_").replace(" ", "_") for s in STATUS],
        "card": Card.__dataclass_fields__,
        "col": ("system", "sync", "picture", "motion"),
        "paper_note": range(1, len(NOTES) + 1),
        "paper": ("lse_d", "lse_c", "fid", "sync", "visual", "overall", "preference"),
    }
    return {f"{prefix}_{name}" for prefix, found in names.items() for name in found}


def test_every_text_is_there_and_used():
    code = "".join(p.read_text() for p in ROOT.glob("demo/**/*.py") if "i18n" not in p.parts)
    asked = set(re.findall(r"""(?:\btext\(|\bt\[)["'](\w+)["']""", code))
    assert asked <= i18n.ENGLISH.keys(), asked - i18n.ENGLISH.keys()
    stages = ("faces", "load", "sync", "label", "check", "pairs", "distances", "submission", "benchmark")
    choices = {*IF_AUDIO_LONGER, *voices.KINDS, *(f"{stage}_running" for stage in stages), *of_the_benchmark()}
    assert choices - {*IF_AUDIO_LONGER} <= i18n.ENGLISH.keys()
    templates = "".join(p.read_text() for p in ROOT.glob("demo/templates/*.html"))
    named = set(re.findall(r"\bt\.(\w+)", templates)) - {"get"}
    assert named <= i18n.ENGLISH.keys(), named - i18n.ENGLISH.keys()
    begins = (
        "model_",
        *re.findall(r't(?:\[|\.get\()"(\w+_)" ~', templates),
        *re.findall(r't(?:\[|\.get\()f"(\w+_)\{', code),
    )
    composed = {k for k in i18n.ENGLISH if k.startswith(begins) or k.endswith("_running")}
    unused = {k for k in i18n.ENGLISH if f'"{k}"' not in code and k not in asked | choices | named | composed}
    assert not unused


class Browser:
    def __init__(self, language):
        self.headers = {"accept-language": language}


def test_the_browser_chooses_the_language():
    assert i18n.texts_for(Browser("ko-KR,ko;q=0.9,en;q=0.8")) is i18n.KOREAN
    assert i18n.texts_for(Browser("fr,ko;q=0.5")) is i18n.ENGLISH
    assert i18n.texts_for(None) is i18n.ENGLISH


def test_status_sentences():
    t, now = i18n.ENGLISH, time.time()
    job = Job("a" * 32, now, now, "waiting", "sync")
    assert "3 before you" in html.status(job, 3, None, t)
    job.state = "running"
    said = html.status(job, 0, Progress("sync", 30, 120, 7.6), t)
    assert "Making the mouth move · 30 / 120 · about 8 s left" in said and "width:25.0%" in said
    job.state, job.error = "failed", "<script>.mp4 is empty."
    said = html.status(job, 0, None, t)
    assert "&lt;script&gt;.mp4 is empty." in said and 'role="alert"' in said
    job.state = "interrupted"
    assert "restarted" in html.status(job, 0, None, t)


# typed words, and the API's options


def test_one_bar_runs_once_over_all_that_a_video_takes():
    told = []
    for turn in range(2):
        show = tasks.whole(told.append, turn, 2)
        for stage, total in (("load", 1), ("sync", 4), ("label", 1)):
            for done in range(total + 1):
                show(Progress(stage, done, total))
    shares = [step.share for step in told]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1
    assert html.state(Job("x" * 32, 0, 0, "running", "sync"), 0, told[3], {"sync_running": "Now"})[1] == shares[3]


@pytest.mark.slow
def test_typed_words_become_a_voice(tmp_path):
    from lipsync.media.reader import probe

    for language, kind, words in (("en-us", "high", "Hello there."), ("ko", "high", "안녕하세요.")):
        if not voices.can_speak(language):
            pytest.skip(f"nothing here speaks {language}: typed words are not tested")
        assert 0.3 < probe(voices.speak(words, language, kind, tmp_path / f"{kind}.wav")).duration_s < 5


@pytest.mark.parametrize(
    ("words", "language", "said"),
    [
        (" ", "en-us", "no words"),
        ("a" * 601, "en-us", "601 letters"),
        ("a", "../x", "no voice"),
        ("a", "-w", "no voice"),
    ],
)
def test_words_that_cannot_be_spoken(tmp_path, words, language, said):
    with pytest.raises(InputError, match=said):
        voices.speak(words, language, "low", tmp_path / "out.wav")


def test_api_options_are_checked():
    import gradio as gr

    assert api.checked(None) == ("", Options())
    assert api.checked({"face": "all", "pad": 0.1, "end": 2}) == ("", Options(face="all", pad=0.1, end=2.0))
    assert api.checked({"quality": 26, "nudge": 2}) == ("", Options(crf=26, audio_delay_frames=2))  # names of before
    for wrong, said in (
        ({"visible_label": False}, "no option 'visible_label'"),
        ({"detector": "s3fd"}, "no option"),
        ({"pad": "wide"}, "option pad is wrong"),
        ({"pad": 3}, "padding must lie"),
        ({"if_audio_longer": "x"}, "longer voice"),
        ({"longer": "x"}, "longer voice"),
        ({"callback": 3}, "callback is an address"),
    ):
        with pytest.raises(gr.Error, match=said):
            api.checked(wrong)


def test_a_camera_picture_is_made_smaller(store, tmp_path, monkeypatch):
    import cv2

    made(monkeypatch)
    monkeypatch.setattr(tasks, "find", lambda clip, *_, **__: replace(clip, faces=faces(1, ((0, 1),))))
    photo = uploaded("photo.jpg", lambda path: cv2.imwrite(str(path), np.zeros((300, 400, 3), np.uint8)))
    voice = uploaded("voice.wav", lambda path: path.write_text("x"))
    job = store.create()
    tasks.store_upload(store, job, "source", photo)
    run = tasks.make(store, Settings(max_height=150), Options(), given=voice)  # as the API does
    run(job, lambda p: None, lambda: False)
    assert (job.facts["preview"]["width"], job.facts["preview"]["height"]) == (200, 150)
    assert job.facts["still"] and job.facts["source"] == "source/photo.png"
    assert [p.name for p in (store.folder(job.id) / "source").iterdir()] == ["photo.png"]
    assert "photo.jpg was made smaller, from 400 × 300 to 200 × 150." in job.facts["results"][0]["words"]
    monkeypatch.setattr(tasks, "MAX_PIXELS", 1000)
    with pytest.raises(InputError, match=r"photo.jpg has 0 million pixels; here a picture may have 0\."):
        tasks.check_source(photo, Settings())


def test_faces_are_followed_as_the_options_say(store, tmp_path, monkeypatch):
    made(monkeypatch)
    asked = []

    def find(clip, options, **_):
        asked.append(options.smoothing)
        return replace(clip, faces=faces(5, ((0, 5),)))

    monkeypatch.setattr(tasks, "find", find)
    job = store.create()
    clip = uploaded("clip.mp4", video)
    tasks.store_upload(store, job, "source", clip)
    tasks.store_upload(store, job, "voice", clip)
    tasks.make(store, Settings(), Options(smoothing="published"))(job, lambda p: None, lambda: False)
    assert asked == ["published"]


def fake_engine(monkeypatch, ready=None):
    """`made`, with faces that are found once `ready` is set, and an evaluator who gives every video the same row."""
    made(monkeypatch)

    def find(clip, *_, **__):
        assert ready is None or ready.wait(5)
        return replace(clip, faces=faces(5, ((0, 5),)))

    def measure(store):
        def work(job, progress, cancelled):
            store.update(job.id, measured=job.facts.get("measured", 0) + 1)

        return work

    monkeypatch.setattr(tasks, "find", find)
    monkeypatch.setattr(tasks, "measure", measure)


def settle(store, job_id):
    """Wait until nothing is done on a job."""
    until = time.monotonic() + 5
    while store.get(job_id).busy and time.monotonic() < until:
        time.sleep(0.005)
    return store.get(job_id)


def take(flow, path, old="", address=""):
    return asyncio.run(flow.take(path and str(path), old, address, i18n.ENGLISH))


@pytest.mark.slow
def test_the_flow_of_a_visitor(flow, store, monkeypatch):
    """Give a face, start before it was found, give another face: the first job goes, a finished one stays."""
    ready = threading.Event()
    fake_engine(monkeypatch, ready)
    clip, other = uploaded("clip.mp4", video), uploaded("other.mp4", video)
    voice, t = uploaded("voice.wav", lambda path: path.write_text("x")), i18n.ENGLISH

    view = take(flow, clip)
    job_id = view["job"]
    job = store.get(job_id)
    assert (
        view["face"] == view["which"] == "largest"
        and "consent" not in view  # whoever ticked while the file was on its way meant this one
        and view["go"]["interactive"]
        and view["cancel"]["visible"]
    )
    assert view["watch"] == f"{job.view} faces" and "data-live" in view["preview"]
    state = flow.progress(job.view, t)
    assert (state["busy"], state["task"], state["share"]) == (True, "faces", 0.0)
    view = flow.start(job_id, str(voice), Options(), None, "", t)
    assert not view["go"]["interactive"] and view["cancel"]["visible"]
    assert not view["remove"]["interactive"] and "stop the work first" in view["remove"]["value"]
    ready.set()
    job = settle(store, job_id)
    assert flow.progress(job.view, t) == {"busy": False, "task": "sync", "stage": "The video is ready."}
    view = flow.settled(job_id, "", t)
    assert "<video" in view["results"] and view["given"]["visible"] and view["go"]["interactive"]
    settle(store, job_id)
    view = flow.settled(job_id, "", t)
    assert view["remove"]["interactive"] and "sure" not in view  # the question stays while the sync is measured
    assert "results" not in view and view["watch"] == ""  # the videos stay, and may be playing
    assert store.get(job_id).facts["measured"] == 1

    view = take(flow, other, job_id)
    second = view["job"]
    assert view["consent"] is False  # for another face it is asked again
    settle(store, second)
    assert store.get(job_id).facts["results"] and second != job_id
    again = take(flow, other, second)["job"]  # the same upload once more
    settle(store, again)
    assert store.get(second) is None and tasks.input_file(store, store.get(again), "source").is_file()
    view = take(flow, None, again)
    assert view["job"] == "" and view["giving"]["visible"]
    assert store.get(again) is None and not other.exists() and clip.exists() and voice.exists()
    assert flow.progress(job.view[::-1], t) is None


def test_an_upload_that_is_gone_leaves_the_face_before_it(flow, store, monkeypatch):
    fake_engine(monkeypatch)
    first = take(flow, uploaded("clip.mp4", video))["job"]
    view = take(flow, uploads.new_path("gone.mp4"), first)
    assert "job" not in view and "upload it again" in view["said_face"] and 'data-for="giving"' in view["said_face"]
    assert len(list(store.folder_of_all.iterdir())) == 1
    settle(store, first)


def test_a_full_queue_is_a_sentence_and_leaves_nothing(flow, store, monkeypatch):
    ready = threading.Event()
    fake_engine(monkeypatch, ready)
    store._max_waiting_each = 1
    running = take(flow, uploaded("a.mp4", video), address="10.0.0.1")["job"]
    until = time.monotonic() + 5
    while store.get(running).state != "running" and time.monotonic() < until:
        time.sleep(0.005)
    waiting = take(flow, uploaded("b.mp4", video), address="10.0.0.1")["job"]
    view = take(flow, uploaded("c.mp4", video), address="10.0.0.1")
    assert "wait here already" in view["said_face"] and "job" not in view
    assert len(list(store.folder_of_all.iterdir())) == 2
    ready.set()
    settle(store, waiting)


def test_kept_voices_are_of_one_video(flow, store, monkeypatch):
    """A voice of before is kept once, is not taken away while it is read, and goes with its face."""

    def given(name):
        return uploaded(name, lambda path: path.write_bytes(name.encode()))

    job, anna, ben = store.create(), given("anna.wav"), given("ben.wav")
    tasks.store_upload(store, job, "source", given("clip.mp4"))
    tasks.store_upload(store, job, "voice", anna)
    tasks.keep_part(store, job, anna, {"start": 1.0, "face": "all", "crf": 3}, 2.0)
    tasks.keep_part(store, job, ben, {"start": 0.0, "end": 1.0})
    first, second = job.facts["parts"]
    assert first["options"] == {"start": 1.0, "face": "all"} and not job.facts["voice"]
    assert "all of them · from 1 s · anna.wav" in html.parts(job, i18n.ENGLISH)
    assert "the largest · 0 to 1 s · ben.wav" in html.parts(job, i18n.ENGLISH)
    monkeypatch.setattr(tasks, "check_voice", lambda *_: 2.0)
    voice, last_s = tasks._voices(store, job, Options(crf=20), None, job.facts["parts"], Settings())
    assert [(s.options.start, s.options.end, s.options.crf) for s in voice] == [(1, None, 20), (0, 1, 20)]
    assert last_s == 3
    job.state, job.task = "running", "sync"
    assert "when it is done" in flow.drop(job.id, first["key"], "", i18n.ENGLISH)["said_voice"]
    job.state = "done"
    assert "anna" not in flow.drop(job.id, first["key"], "", i18n.ENGLISH)["parts"]
    assert [part["key"] for part in job.facts["parts"]] == [second["key"]]
    assert not (store.folder(job.id) / first["key"]).exists()
    flow.leave(job.id)
    assert not ben.exists()
    job = store.create()
    for n in range(tasks.MOST_PARTS):
        tasks.keep_part(store, job, given(f"{n}.wav"), {})
    with pytest.raises(InputError, match="12 voices here at most"):
        tasks.keep_part(store, job, given("more.wav"), {})


@pytest.mark.parametrize("task", ["sync", "evaluate"])
def test_a_finished_video_outlives_another_face(flow, store, task):
    job, running = store.create(), threading.Event()
    (store.folder(job.id) / "result-1.mp4").write_text("video")
    store.update(job.id, results=[{"file": "result-1.mp4"}])

    def work(job, progress, cancelled):
        running.set()
        while not cancelled():
            time.sleep(0.005)
        raise Cancelled("stopped")

    store.submit(job.id, task, work)
    assert running.wait(5)
    flow.leave(job.id)
    assert store.get(job.id) is not None and (store.folder(job.id) / "result-1.mp4").is_file()


def test_a_video_is_measured_for_whoever_opens_its_link(flow, store, monkeypatch):
    """The visitor reloaded while it was made, or the server was restarted while it was measured."""
    fake_engine(monkeypatch)
    job = store.create()
    store.submit(job.id, "sync", lambda *_: None)
    for times in (1, 1):
        settle(store, job.id)
        flow.settled(job.id, "", i18n.ENGLISH)
        settle(store, job.id)
        assert job.facts["measured"] == times
    job.state = "interrupted"
    flow.settled(job.id, "", i18n.ENGLISH)
    settle(store, job.id)
    assert job.facts["measured"] == 2


def test_a_reload_brings_the_voice_and_the_choices_back(flow, store, monkeypatch):
    fake_engine(monkeypatch)
    voice = uploaded("voice.wav", lambda path: path.write_text("x"))
    job_id = take(flow, uploaded("clip.mp4", video))["job"]
    settle(store, job_id)
    options = Options(face="20.0,30.0@0.120", model="a", audio_delay_frames=3, end=2.0)
    flow.start(job_id, str(voice), options, "b", "", i18n.ENGLISH)
    job = settle(store, job_id)
    asked = sync_tab.asked_before(job)
    assert (asked.pop("which"), asked.pop("compare")) == ("picked", "b")
    assert Options(**asked) == options
    stored = job.facts["options"]
    stored["nudge"] = stored.pop("audio_delay_frames")  # a job of before the names changed
    assert sync_tab.asked_before(job)["audio_delay_frames"] == 3
    assert sync_tab.served_voice(store, job) == str(voice)  # gradio has it still: no second copy
    voice.unlink()
    served = sync_tab.served_voice(store, job)
    assert served == sync_tab.served_voice(store, job) and Path(served).read_text() == "x"
    assert served in job.facts["uploads"]


def test_the_curve_dips_on_the_side_of_the_repair():
    """Sound two frames early: the offset is +2, and the dip is where the sound is delayed by 80 ms."""
    from eval.metrics.sync import score

    distances = np.full((60, 15), 9.0) + np.random.default_rng(0).uniform(0, 0.1, (60, 15))
    distances[:, 7 - 2] = 3.0  # the picture of window i fits the sound of window i - 2
    found = score(distances)
    made_by = {"evaluator": "syncnet-lab", "evaluator_sha256": "0123456789abcdef", "protocol": "short"}
    curve = {"offset": found.offset, "curve": found.curve.tolist()}
    row = {"error": None, "lse_d": 3.0, "lse_c": 6.0, "certainty": 1.0} | made_by | curve
    page = html.fit(row, i18n.ENGLISH)
    assert found.offset == 2 and "80 ms before the mouth" in page
    assert float(re.search(r'circle cx="([\d.]+)"', page)[1]) == pytest.approx(10 + 280 * (7 + 2) / 14)
    old = {name.replace("evaluator", "judge"): value for name, value in row.items()}  # stored before the name changed
    assert re.sub("judge", "evaluator", html.fit(old, i18n.ENGLISH)) == page
    assert "LSE-D (syncnet-lab) 3.000" in page and "(sha256 01234567…)" in page and "syncnet_v2.model" in page


@pytest.mark.parametrize("kind", [gr.File, gr.UploadButton, gr.Image])
def test_a_field_gives_the_path_and_opens_nothing_also_when_it_was_made_anew(kind, tmp_path, monkeypatch):
    for one in (gr.File, gr.UploadButton, gr.Image):
        monkeypatch.setattr(one, "preprocess", one.preprocess)  # put back afterwards
    fields.give_paths()
    path = tmp_path / "no-picture.png"
    path.write_bytes(b"nobody reads this")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with gr.Blocks():
        first = kind()
        again = kind(**first.constructor_args, visible=False)  # as gradio does for a change of looks
    for one in (first, again):
        assert one.preprocess(FileData(path=str(path))) == str(path) and one.preprocess(None) is None
    assert [p.name for p in tmp_path.iterdir()] == ["no-picture.png"]
