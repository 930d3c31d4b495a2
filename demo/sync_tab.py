"""The first tab: a face and a voice in, a labelled video out. Layout first, wiring after it.

A visitor's job id is the only thing that the page itself remembers; it stands in the address, so that a reload finds
the job again. What happens to a job is in flow.py, how it looks in views.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr
import soundfile

from lipsync.errors import LipsyncError
from lipsync.media import read_waveform
from lipsync.records import ENGINES, LONGER, SHORTER, Options

from . import views, voices, work
from .flow import Flow
from .jobs import Job, Store
from .lending import lend, new_path, take_back
from .settings import Settings
from .texts import text, words_for
from .theme import LINK_JS, PICK_JS, PLAY_JS

TITLE = "tab_sync"
ASSETS = Path(__file__).parent / "assets"
PRIVATE: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
DEFAULT = Options()
# Gradio asks a camera for the most it can give, which is slow to film and more than a video here may have.
CAMERA = gr.WebcamOptions(mirror=False, constraints={"video": {"width": {"ideal": 1280}, "height": {"ideal": 720}}})


def build(page: gr.Blocks, store: Store, settings: Settings) -> None:
    """Lay the tab out and wire it."""
    flow = Flow(store, settings)
    models = list(work.models())
    face, example_path = gr.State("largest"), gr.State("")
    job_id = gr.Textbox(visible="hidden", elem_id="job")

    with gr.Row():
        with gr.Column(elem_classes="step"):
            gr.Markdown(text("step_face"))
            with gr.Column(elem_id="giving") as giving:
                with gr.Tabs():
                    with gr.Tab(text("video")):
                        video = gr.Video(
                            show_label=False, sources=["upload", "webcam"], include_audio=True, elem_id="video",
                            webcam_options=CAMERA,
                        )  # fmt: skip
                    with gr.Tab(text("picture")):
                        picture = gr.Image(
                            show_label=False, sources=["upload", "webcam", "clipboard"], type="filepath",
                            image_mode=None, elem_id="picture", webcam_options=CAMERA,
                        )  # fmt: skip
                        picture.preprocess = lambda given: given and given.path  # gradio would open it, in this process
                with gr.Row(elem_classes="examples"):
                    gr.Markdown(text("examples"), elem_classes="small", container=False)
                    example_picture = gr.Button(
                        text("example_picture"), size="sm", min_width=90, elem_id="example-picture"
                    )
                    example_video = gr.Button(text("example_video"), size="sm", min_width=90, elem_id="example-video")
            with gr.Column(visible=False, elem_id="given") as given:
                preview = gr.HTML(js_on_load=PICK_JS, elem_id="preview")
                second = gr.Slider(0, 1, 0, step=0.04, label=text("second"), visible=False, elem_id="second")
                another = gr.Button(text("another"), size="sm", elem_id="another")
        with gr.Column(elem_classes="step"):
            gr.Markdown(text("step_voice"))
            voice = gr.Audio(
                show_label=False, sources=["upload", "microphone"], type="filepath", editable=False, elem_id="voice"
            )
            with gr.Accordion(text("other_ways"), open=False, elem_id="other-ways"):
                if voices.can_speak():
                    words = gr.Textbox(
                        show_label=False, placeholder=text("words_hint"), lines=2, max_length=voices.MAX_LETTERS,
                        elem_id="words",
                    )  # fmt: skip
                    with gr.Row():
                        language = gr.Dropdown(list(voices.LANGUAGES.items()), label=text("language"), min_width=120)
                        kind = gr.Dropdown([(text(k), k) for k in voices.KINDS], label=text("kind"), min_width=90)
                    speak = gr.Button(text("speak"), size="md", elem_id="speak")
                else:
                    gr.Markdown(text("no_espeak"), elem_classes="small")
                from_video = gr.UploadButton(
                    text("voice_video"), file_types=["video"], size="sm", elem_id="voice-video"
                )

    with gr.Column(elem_classes="step"):
        gr.Markdown(text("step_make"))
        consent = gr.Checkbox(label=text("consent"), show_label=False, elem_id="consent")
        with gr.Accordion(text("options"), open=False, elem_id="options"):
            with gr.Row():
                which = gr.Radio(
                    [(text(k), k) for k in ("largest", "all", "picked")], value="largest", label=text("which")
                )
                model = gr.Dropdown(models, value=models[0] if models else None, label=text("model"))
                compare = gr.Dropdown(
                    [(text("none"), ""), *models], value="", label=text("compare"), visible=len(models) > 1,
                    elem_id="compare",
                )  # fmt: skip
                engine = gr.Dropdown([(text("auto") if e == "auto" else e, e) for e in ENGINES], label=text("engine"))
            with gr.Row():
                longer = gr.Dropdown([(text(k), k) for k in LONGER], value=DEFAULT.longer, label=text("longer"))
                names = {"cut": "cut_video", "keep": "keep"}
                shorter = gr.Dropdown(
                    [(text(names[k]), k) for k in SHORTER], value=DEFAULT.shorter, label=text("shorter")
                )
            with gr.Row():
                start = gr.Number(0, label=text("start"), minimum=0, maximum=settings.max_seconds, step=0.1)
                end = gr.Number(0, label=text("end"), minimum=0, maximum=settings.max_seconds, step=0.1)
                background = gr.Slider(0, 1, DEFAULT.background, step=0.05, label=text("background"))
            with gr.Row():
                pad = gr.Slider(-0.2, 0.5, DEFAULT.pad, step=0.01, label=text("pad"))
                softness = gr.Slider(0, 0.2, DEFAULT.softness, step=0.01, label=text("softness"))
                quality = gr.Slider(10, 40, DEFAULT.quality, step=1, label=text("quality"))
        go = gr.Button(text("go"), variant="primary", elem_id="go")
        status = gr.HTML(elem_id="status")
        cancel = gr.Button(text("cancel"), size="sm", visible=False, elem_id="cancel")

    results = gr.HTML(js_on_load=PLAY_JS, elem_id="results")
    with gr.Row(visible=False, equal_height=True, elem_id="after") as after:
        nudge = gr.Slider(-12, 12, 0, step=1, label=text("nudge"), elem_id="nudge", scale=3, min_width=280)
        again = gr.Button(text("again"), elem_id="again", scale=1, size="md")
        delete = gr.Button(text("delete"), variant="stop", elem_id="delete", scale=1, size="md")

    shown = [giving, given, preview, second, status, results, after, go, cancel]  # flow.SHOWN

    # wiring

    async def take(path: str | None, old: str, request: gr.Request) -> AsyncIterator[tuple]:
        async for view in flow.take(path, old, words_for(request)):
            yield view

    async def take_upload(path: str | None, old: str, request: gr.Request) -> AsyncIterator[tuple]:
        async for view in take(path, old, request):
            yield (*view, None)

    def example(kind: str, voice_name: str) -> Any:
        def fill() -> tuple[str | None, str | None, str, str]:
            given = lend(ASSETS / ("moving.mp4" if kind == "video" else "portrait.jpg"))
            return (
                given if kind == "video" else None,
                given if kind == "picture" else None,
                lend(ASSETS / voice_name),
                given,
            )

        return fill

    async def show_second(at: float, job: str, point: str, request: gr.Request) -> AsyncIterator[tuple]:
        async for view in flow.show(job, at, point, words_for(request)):
            yield view

    def pick(event: gr.EventData, job: str, request: gr.Request) -> tuple[str, str, str]:
        point = str(event.face)
        work.pick(store, job, point)
        return point, "picked", views.preview(store.get(job), point, words_for(request))

    def unpick(choice: str, job: str, chosen: str, request: gr.Request) -> str:
        return views.preview(store.get(job), chosen if choice == "picked" else "", words_for(request))

    def say(text: str, tongue: str, sort: str) -> str:
        return _or_toast(lambda: voices.speak(text, tongue, sort, new_path("spoken.wav")))

    def sound_of(path: str) -> str:
        def extract() -> Path:
            work.check_voice(Path(path), settings)
            out = new_path(f"{Path(path).stem}.wav")
            soundfile.write(out, read_waveform(path, 48_000), 48_000)
            return out

        try:
            return _or_toast(extract)
        finally:
            take_back([path])

    async def make(
        job: str, sound: str | None, agreed: bool, choice: str, point: str, second_model: str, until: float | None,
        request: gr.Request, *values: Any,
    ) -> AsyncIterator[tuple]:  # fmt: skip
        t = words_for(request)
        found = store.get(job)
        problem = (
            "need_source" if found is None
            else "need_voice" if not sound and not found.facts.get("voice")
            else "need_consent" if not agreed
            else "need_pick" if choice == "picked" and "@" not in point
            else None
        )  # fmt: skip
        if problem:
            yield flow.said(views.sentence(t[problem]))
            return
        try:
            options = Options(
                face=point if choice == "picked" else choice, end=until or None,
                **dict(zip(OPTIONS, values, strict=True)),
            )  # fmt: skip
        except LipsyncError as error:
            yield flow.said(views.sentence(str(error)))
            return
        async for view in flow.start(job, sound, options, second_model or None, t):
            yield view

    def remove(job: str, request: gr.Request, *fields: str | None) -> tuple:
        found = store.get(job)
        given = [*fields, *(found.facts.get("uploads", []) if found else [])]
        take_back([path for path in given if path], store.named_by_others(job))
        store.delete(job)
        t = words_for(request)
        view = flow.empty(t, views.sentence(t["deleted"].format(minutes=f"{settings.keep_minutes:g}"), "quiet"))
        return ("", "largest", "largest", *view, None, None, None)

    async def change_face(old: str, request: gr.Request) -> AsyncIterator[tuple]:
        async for view in flow.take(None, old, words_for(request)):
            yield (*view, None, None)

    def reopen(request: gr.Request) -> tuple:
        t, wanted = words_for(request), request.query_params.get("job")
        found = store.get(wanted)
        if found is None:
            view = flow.empty(t, views.sentence(t["gone"], "quiet") if wanted else "")
            return ("", "largest", *view, *[gr.skip()] * (4 + len(controls)))
        asked = asked_before(found)
        return (found.id, asked[0], *flow.shown(found, asked[0], t), lent_voice(store, found), *asked[1:])

    async def go_on(job: str, point: str, request: gr.Request) -> AsyncIterator[tuple]:
        async for view in flow.finish(job, point, words_for(request)):
            yield view

    taken = [job_id, face, which, *shown]
    link: dict[str, Any] = {"fn": None, "inputs": job_id, "js": LINK_JS, "api_visibility": "private"}
    filmed = [video.input, video.stop_recording]  # a recording is no input to gradio
    gr.on(filmed, take_upload, [video, job_id], [*taken, picture], **PRIVATE)
    picture.input(take_upload, [picture, job_id], [*taken, video], **PRIVATE)
    for button, sort, spoken in (
        (example_video, "video", "voice-two.mp3"),
        (example_picture, "picture", "voice-one.mp3"),
    ):
        filled = button.click(example(sort, spoken), None, [video, picture, voice, example_path], **PRIVATE)
        filled.then(take, [example_path, job_id], taken, **PRIVATE)
    job_id.change(**link)
    another.click(change_face, job_id, [*taken, video, picture], **PRIVATE)
    second.release(show_second, [second, job_id, face], shown, **PRIVATE)
    preview.pick(pick, job_id, [face, which, preview], **PRIVATE)
    which.input(unpick, [which, job_id, face], preview, **PRIVATE)
    if voices.can_speak():
        speak.click(say, [words, language, kind], voice, api_visibility="private")
    from_video.upload(sound_of, from_video, voice, api_visibility="private")
    controls = [model, engine, longer, shorter, start, background, pad, softness, quality, nudge]
    gr.on(
        [go.click, again.click], make, [job_id, voice, consent, which, face, compare, end, *controls], shown, **PRIVATE
    )
    cancel.click(store.cancel, job_id, None, **PRIVATE)
    delete.click(remove, [job_id, video, picture, voice], [*taken, video, picture, voice], **PRIVATE)
    opened = page.load(reopen, None, [job_id, face, *shown, voice, which, compare, end, *controls], **PRIVATE)
    opened.then(go_on, [job_id, face], shown, **PRIVATE)


OPTIONS = ("model", "engine", "longer", "shorter", "start", "background", "pad", "softness", "quality", "nudge")


def asked_before(job: Job) -> tuple:
    """How a job's video was asked for, as the page's fields take it: face, which, compare, end and OPTIONS."""
    asked = job.facts.get("options", {})
    point = asked.get("face", "largest")
    choice = "picked" if "@" in point else point
    return (point, choice, job.facts.get("compare", ""), asked.get("end") or 0,
            *(asked.get(name, gr.skip()) for name in OPTIONS))  # fmt: skip


def lent_voice(store: Store, job: Job) -> str | None:
    """A job's voice for its field: what gradio still has of it, else a copy."""
    kept = work.input_file(store, job, "voice")
    if kept is None:
        return None
    given = job.facts["given"]
    if not Path(given["voice"]).is_file():
        given = given | {"voice": lend(kept)}
        store.update(job.id, given=given, uploads=[*job.facts.get("uploads", []), given["voice"]])
    return given["voice"]


def _or_toast(do: Any) -> str:
    """The path that `do` gives; its sentence as a message on the page where it cannot."""
    try:
        return str(do())
    except LipsyncError as error:
        raise gr.Error(str(error), print_exception=False) from error
