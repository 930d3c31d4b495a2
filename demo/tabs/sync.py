"""First tab: a face and a voice in, a labelled video out. Layout first, wiring after it.

A visitor's job id is the only thing that the page itself remembers; it stands behind # in the address, so that a reload
finds the job again. What happens to a job is in flow.py, how it looks in html.py.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import soundfile

from lipsync import tts as voices
from lipsync.errors import LipsyncError
from lipsync.media.reader import read_waveform
from lipsync.options import ENGINES, IF_AUDIO_LONGER, IF_AUDIO_SHORTER, Options, bounds, current_options

from .. import html, tasks
from ..context import Context
from ..i18n import ENGLISH, text, texts_for, worded
from ..jobs import Job, JobQueue
from ..theme import static
from ..uploads import delete, new_path, serve_copy, uploaded
from .flow import Flow, View

KEY = "tab_sync"
ASSETS = Path(__file__).parent.parent / "assets"
# Of ASSETS: NAME.mp4, NAME.mp3 and NAME.jpg, and what the page calls each; result.mp4 was made of the first.
EXAMPLES = {"talking": "example_talking", "closeup": "example_closeup", "two": "example_two"}
SHOWCASE = (
    '<video src="examples/result.mp4" poster="examples/result.jpg" controls muted loop playsinline '
    'preload="auto" aria-labelledby="showcase-said"></video>'
)
SOURCE_PX = 170  # height of the field that takes a face
PRIVATE: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
DEFAULT = Options()
WIDE = 320  # pixels below which an option gets a line of its own
# Gradio asks a camera for the most it can give, which is slow to film and more than a video here may have.
CAMERA = gr.WebcamOptions(mirror=False, constraints={"video": {"width": {"ideal": 1280}, "height": {"ideal": 720}}})
CRFS = {"quality_small": 26, "quality_good": DEFAULT.crf, "quality_best": 12}
OPTIONS = (
    "model", "engine", "if_audio_longer", "if_audio_shorter", "start", "background", "pad", "feather", "crf",
    "audio_delay_frames",
)  # fmt: skip


def build(page: gr.Blocks, context: Context) -> None:
    """Lay the tab out and wire it."""
    flow, jobs = Flow(context), context.jobs
    models = list(tasks.models())
    face, example_path, heard = gr.State("largest"), gr.State(""), gr.State({})
    job_id = gr.Textbox(visible="hidden", elem_id="job")

    def said(field: str) -> gr.HTML:
        return gr.HTML(js_on_load=static("mark.js"), elem_id=f"said-{field}", elem_classes="said")

    def head(step: str, title: str) -> tuple[gr.HTML, gr.Button]:
        """A step's title; beside it, once the step is folded, what was given and a button to unfold it."""
        with gr.Row(elem_classes="head"):
            gr.Markdown(text(title), container=False)
            line = gr.HTML(elem_id=f"{step}-line", elem_classes="line")
            change = gr.Button(text("change"), size="sm", elem_id=f"{step}-change")
        return line, change

    results = gr.HTML(js_on_load=static("play.js"), elem_id="results")
    facts = gr.HTML(elem_id="facts")
    with gr.Row(visible=False, equal_height=True, elem_id="after") as after:
        audio_delay_frames = gr.Slider(
            -12, 12, 0, step=1, label=text("audio_delay_frames"), elem_id="audio-delay-frames", scale=3, min_width=280
        )
        again = gr.Button(text("again"), elem_id="again", scale=1, size="md")
        remove = gr.Button(text("delete"), elem_id="delete", scale=1, size="md")
    with gr.Row(visible=False, elem_id="sure") as sure:
        gr.Markdown(text("delete_sure"), container=False)
        yes = gr.Button(text("delete_yes"), variant="stop", elem_id="delete-yes", size="md", min_width=90)
        no = gr.Button(text("delete_no"), elem_id="delete-no", size="md", min_width=90)

    with gr.Row(elem_id="steps"):
        with gr.Column():
            with gr.Column(elem_classes="step", elem_id="step-face"):
                face_line, face_change = head("face", "step_face")
                with gr.Column(elem_id="face-body"):
                    with gr.Column(elem_id="giving") as giving:
                        source = gr.File(
                            show_label=False, file_types=["video", "image"], elem_id="source", height=SOURCE_PX
                        )
                        camera = gr.Video(
                            show_label=False,
                            sources=["webcam"],
                            include_audio=True,
                            elem_id="camera",
                            webcam_options=CAMERA,
                            visible=False,
                        )
                        photo = gr.Image(
                            show_label=False,
                            sources=["webcam"],
                            type="filepath",
                            image_mode=None,
                            elem_id="photo",
                            webcam_options=CAMERA,
                            visible=False,
                        )
                        with gr.Row(elem_classes="ways"):
                            to_camera = gr.Button(text("record_video"), size="sm", min_width=90, elem_id="to-camera")
                            to_photo = gr.Button(text("take_photo"), size="sm", min_width=90, elem_id="to-photo")
                            to_file = gr.Button(
                                text("upload_file"), size="sm", min_width=90, elem_id="to-file", visible=False
                            )
                        gr.Markdown(text("examples"), elem_classes="small", container=False)
                        with gr.Row(elem_id="examples"):
                            examples = {
                                name: gr.Button(text(title), min_width=80, elem_id=f"example-{name}")
                                for name, title in EXAMPLES.items()
                            }
                        gr.Markdown(text("credit"), elem_classes="small", container=False)
                    said_face = said("face")
                    with gr.Column(visible=False, elem_id="given") as given:
                        preview = gr.HTML(js_on_load=static("pick.js"), elem_id="preview")
                        said_pick = said("pick")
                        second = gr.Slider(0, 1, 0, step=0.04, label=text("second"), visible=False, elem_id="second")
                        another = gr.Button(text("another"), size="sm", elem_id="another")
            with gr.Column(elem_classes="step", elem_id="step-voice"):
                voice_line, voice_change = head("voice", "step_voice")
                with gr.Column(elem_id="voice-body"):
                    voice = gr.Audio(
                        show_label=False, sources=["upload"], type="filepath", elem_id="voice", buttons=["download"]
                    )
                    recorder = gr.Audio(
                        show_label=False, sources=["microphone"], type="filepath", elem_id="recorder", visible=False
                    )
                    with gr.Row(elem_classes="ways"):
                        record = gr.Button(text("record_voice"), size="sm", min_width=90, elem_id="record")
                        stay = gr.Button(
                            text("upload_file"), size="sm", min_width=90, elem_id="to-voice-file", visible=False
                        )
                    said_voice = said("voice")
                    kept = gr.HTML(js_on_load=static("parts.js"), elem_id="parts")
                    add = gr.Button(text("part_add"), size="sm", elem_id="add-voice", visible=False)
                    speak = words = language = kind = None
                    with gr.Accordion(text("other_ways"), open=False, elem_id="other-ways"):
                        if voices.can_speak():
                            words = gr.Textbox(
                                show_label=False,
                                placeholder=text("words_hint"),
                                lines=2,
                                max_length=voices.MAX_LETTERS,
                                elem_id="words",
                            )
                            with gr.Row():
                                language = gr.Dropdown(
                                    list(voices.LANGUAGES.items()), label=text("language"), min_width=120
                                )
                                kind = gr.Dropdown(
                                    [(text(k), k) for k in voices.KINDS], label=text("kind"), min_width=90
                                )
                            speak = gr.Button(text("speak"), size="md", elem_id="speak")
                        else:
                            gr.Markdown(text("no_espeak"), elem_classes="small")
                        from_video = gr.UploadButton(
                            text("voice_video"), file_types=["video"], size="sm", elem_id="voice-video"
                        )
        with gr.Column():
            with gr.Column(elem_id="showcase") as showcase:
                gr.HTML(SHOWCASE, js_on_load=static("showcase.js"))
                gr.Markdown(text("showcase"), elem_id="showcase-said", elem_classes="small", container=False)
                try_it = gr.Button(text("showcase_try"), size="sm", elem_id="showcase-try")
            with gr.Column(elem_classes="step"):
                gr.Markdown(text("step_make"))
                meeting = gr.HTML(js_on_load=static("change.js"), elem_id="meeting")
                consent = gr.Checkbox(label=text("consent"), show_label=False, elem_id="consent")
                said_consent = said("consent")
                with gr.Accordion(text("options"), open=False, elem_id="options") as options_fold:
                    gr.Markdown(text("options_who"))
                    with gr.Row():
                        which = gr.Radio(
                            [(text(k), k) for k in ("largest", "all", "picked")], value="largest", label=text("which")
                        )
                        model = gr.Dropdown(
                            [(_model(m), m) for m in models],
                            value=models[0] if models else None,
                            label=text("model"),
                        )
                        compare = gr.Dropdown(
                            [(text("none"), ""), *((_model(m), m) for m in models[1:])],
                            value="",
                            label=text("compare"),
                            visible=len(models) > 1,
                            elem_id="compare",
                        )
                    gr.Markdown(text("model_info"), elem_classes="small", container=False)
                    gr.Markdown(text("options_length"))
                    with gr.Row():
                        if_audio_longer = gr.Dropdown(
                            [(text(k), k) for k in IF_AUDIO_LONGER],
                            value=DEFAULT.if_audio_longer,
                            label=text("if_audio_longer"),
                            min_width=WIDE,
                        )
                        names = {"cut": "cut_video", "keep": "keep"}
                        if_audio_shorter = gr.Dropdown(
                            [(text(names[k]), k) for k in IF_AUDIO_SHORTER],
                            value=DEFAULT.if_audio_shorter,
                            label=text("if_audio_shorter"),
                            min_width=WIDE,
                        )
                    with gr.Row():
                        with gr.Row(elem_id="part"):
                            start = gr.Number(0, label=text("start"), step=0.1, min_width=120)
                            end = gr.Number(0, label=text("end"), step=0.1, min_width=120)
                        background = gr.Slider(
                            *bounds("background"),
                            DEFAULT.background,
                            step=0.05,
                            label=text("background"),
                            min_width=WIDE,
                        )
                    said_options = said("options")
                    gr.Markdown(text("options_expert"))
                    with gr.Row():
                        crf = gr.Dropdown([(text(k), v) for k, v in CRFS.items()], value=DEFAULT.crf, label=text("crf"))
                        engine = gr.Dropdown(
                            [(text("auto") if e == "auto" else e, e) for e in ENGINES], label=text("engine")
                        )
                    with gr.Row():
                        pad = gr.Slider(*bounds("pad"), DEFAULT.pad, step=0.01, label=text("pad"), min_width=WIDE)
                        feather = gr.Slider(
                            *bounds("feather"), DEFAULT.feather, step=0.01, label=text("feather"), min_width=WIDE
                        )
                go = gr.Button(text("go"), variant="primary", elem_id="go")
                status = gr.HTML(elem_id="status")
                cancel = gr.Button(text("cancel"), size="sm", visible=False, elem_id="cancel")

    mine = gr.HTML(js_on_load=static("mine.js"), elem_id="mine")
    watch = gr.HTML(js_on_load=static("watch.js"), elem_id="watch", visible="hidden")

    fields = (
        model,
        engine,
        if_audio_longer,
        if_audio_shorter,
        start,
        background,
        pad,
        feather,
        crf,
        audio_delay_frames,
    )
    controls = dict(zip(OPTIONS, fields, strict=True))
    parts = {
        "job": job_id, "face": face, "which": which, "giving": giving, "given": given, "preview": preview,
        "second": second, "status": status, "results": results, "facts": facts, "after": after, "go": go,
        "again": again, "remove": remove, "sure": sure, "mine": mine,
        "cancel": cancel, "watch": watch, "source": source, "camera": camera, "photo": photo, "to_camera": to_camera,
        "to_photo": to_photo, "to_file": to_file, "voice": voice, "recorder": recorder, "record": record, "stay": stay,
        "showcase": showcase, "parts": kept, "add": add, "face_line": face_line, "voice_line": voice_line,
        "compare": compare, "end": end, "consent": consent, "example": example_path,
        "heard": heard, "meeting": meeting, "options_fold": options_fold, "said_face": said_face,
        "said_pick": said_pick, "said_voice": said_voice, "said_consent": said_consent, "said_options": said_options,
        **controls,
    }  # fmt: skip

    # handlers: each returns updates by the names in `parts`

    async def take(path: str | None, old: str, request: gr.Request) -> View:
        return await flow.take(path, old, _address(request), texts_for(request))

    async def take_given(path: str | None, old: str, request: gr.Request) -> View:
        return (await take(path, old, request) | giving_by("file")) if path else {}

    async def take_none(old: str, request: gr.Request) -> View:
        return await take(None, old, request) | giving_by("file")

    def giving_by(way: str) -> View:
        """One of the three ways to give a face is shown, and empty; the others are a button away."""
        fields = {"file": "source", "camera": "camera", "photo": "photo"}
        shown = {field: gr.update(visible=name == way, value=None) for name, field in fields.items()}
        return shown | {f"to_{name}": gr.update(visible=name != way) for name in fields}

    def recording(on: bool) -> View:
        """The microphone in place of the voice's field, or the other way round."""
        hidden, seen = gr.update(visible=False), gr.update(visible=True)
        fields = {"recorder": gr.update(visible=on, value=None), "stay": seen if on else hidden}
        return fields | {"voice": hidden if on else seen, "record": hidden if on else seen}

    def take_recorded(path: str | None) -> View:
        return recording(False) | {"voice": gr.update(visible=True, value=path)} if path else {}

    def example(name: str) -> Callable[[], View]:
        def fill() -> View:
            face, sound = (serve_copy(ASSETS / f"{name}.{ending}") for ending in ("mp4", "mp3"))
            seen = {"voice": gr.update(visible=True, value=sound), "showcase": gr.update(visible=False)}
            return recording(False) | seen | {"example": face}

        return fill

    async def show_second(at: float, job: str, choice: str, point: str, request: gr.Request) -> View:
        return await flow.show(job, at, point if choice == "picked" else choice, _address(request), texts_for(request))

    def pick(event: gr.EventData, job: str, request: gr.Request) -> View:
        point = str(event.face)
        try:
            tasks.pick(jobs, job, point)
        except LipsyncError as error:
            return flow.wrong("pick", worded(error.message, texts_for(request)))
        shown = html.preview(jobs.get(job), point, texts_for(request))
        return {"face": point, "which": "picked", "said_pick": "", "preview": shown}

    def unpick(choice: str, job: str, chosen: str, request: gr.Request) -> View:
        shown = html.preview(jobs.get(job), chosen if choice == "picked" else choice, texts_for(request))
        return {"preview": shown, "said_pick": ""}

    async def say(words: str, tongue: str, sort: str, request: gr.Request) -> str:
        return await _or_toast(context, lambda: voices.speak(words, tongue, sort, new_path("spoken.wav")), request)

    async def sound_of(path: str, request: gr.Request) -> str:
        def extract() -> Path:
            film = uploaded(path)
            tasks.check_voice(film, context.settings)
            out = new_path(f"{film.stem}.wav")
            soundfile.write(out, read_waveform(film, 48_000), 48_000)
            return out

        try:
            return await _or_toast(context, extract, request)
        finally:
            delete([path])

    def make(
        job: str,
        sound: str | None,
        known: View,
        agreed: bool,
        choice: str,
        point: str,
        second_model: str,
        until: float | None,
        request: gr.Request,
        *values: Any,
    ) -> View:
        t = texts_for(request)
        found = jobs.get(job)
        if found is None:
            return flow.wrong("face", t["need_source"])
        if not sound and not found.facts.get("voice") and not found.facts.get("parts"):
            return flow.wrong("voice", t["need_voice"])
        if not sound and found.facts.get("parts"):  # every voice has its face and its part already
            choice, until = "largest", None
        options = checked(sound, known, choice, point, until, values, t)
        if isinstance(options, dict):
            return options
        if not agreed:
            return flow.wrong("consent", t["need_consent"])
        return flow.start(job, sound, options, second_model or None, _address(request), t)

    def keep(
        job: str,
        sound: str | None,
        known: View,
        choice: str,
        point: str,
        until: float | None,
        request: gr.Request,
        *values: Any,
    ) -> View:
        """The voice in the field is kept for its face and part, and another one can be given."""
        t = texts_for(request)
        if jobs.get(job) is None:
            return flow.wrong("face", t["need_source"])
        if not sound:
            return flow.wrong("voice", t["need_voice"])
        options = checked(sound, known, choice, point, until, values, t)
        if isinstance(options, dict):
            return options
        return flow.keep(job, sound, known.get("seconds", 0.0), options, t)

    def checked(
        sound: str | None,
        known: View,
        choice: str,
        point: str,
        until: float | None,
        values: Sequence[Any],
        t: dict[str, str],
    ) -> Options | View:
        """The options of the fields, or what is wrong with one of them."""
        if sound and known.get("path") == sound and known.get("error"):
            return flow.wrong("voice", known["error"])
        if choice == "picked" and "@" not in point:
            return flow.wrong("pick", t["need_pick"])
        try:
            return asked(point if choice == "picked" else choice, until, values)
        except (LipsyncError, TypeError) as error:
            sentence = worded(error.message, t) if isinstance(error, LipsyncError) else t["need_numbers"]
            return flow.wrong("options", sentence) | {"options_fold": gr.update(open=True)}

    def drop(event: gr.EventData, job: str, choice: str, point: str, request: gr.Request) -> View:
        return flow.drop(job, str(event.part), point if choice == "picked" else choice, texts_for(request))

    async def hear(sound: str | None, job: str, until: float | None, request: gr.Request, *values: Any) -> View:
        """A voice was given or taken away: it is checked at once, as the face is."""
        known: View = {"path": sound}
        if sound:
            try:
                known["seconds"] = await context.voices.run(
                    lambda: tasks.check_voice(uploaded(sound), context.settings)
                )
            except LipsyncError as error:
                known["error"] = worded(error.message, texts_for(request))
        view = flow.wrong("voice", known["error"]) if "error" in known else {"said_voice": ""}
        return {"heard": known} | view | meet(known, job, until, request, *values)

    def meet(known: View, job: str, until: float | None, request: gr.Request, *values: Any) -> View:
        try:
            options = asked("largest", until, values)
        except (LipsyncError, TypeError):
            return {"meeting": ""}
        return flow.meets(job, known, options, texts_for(request))

    def others(name: str, second_model: str, request: gr.Request) -> View:
        return {"compare": _compared(models, name, second_model, texts_for(request))}

    def delete_all(job: str, sound: str | None, request: gr.Request) -> View:
        found = jobs.get(job)
        mine = [sound, *(found.facts.get("uploads", []) if found else [])]
        delete([path for path in mine if path], jobs.named_by_others(job))
        jobs.delete(job)
        t = texts_for(request)
        sentence = html.sentence(t["deleted"].format(minutes=f"{context.settings.keep_minutes:g}"), "quiet")
        return flow.empty(t, sentence) | giving_by("file") | {"voice": None}

    def reopen(wanted: str, request: gr.Request) -> View:
        t, found = texts_for(request), jobs.get(wanted)
        if not wanted:  # nothing but this: a face that was given meanwhile stays
            return {"mine": html.mine(None, t)}
        if found is None:
            return flow.empty(t, html.sentence(t["gone"], "quiet"))
        before = asked_before(found)
        view = flow.settled(found.id, before["face"], t) | flow.whole(found, before["face"], t)
        before["compare"] = _compared(models, before.get("model", DEFAULT.model), before["compare"], t)
        before["crf"] = min(CRFS.values(), key=lambda q: abs(q - before.get("crf", DEFAULT.crf)))
        return view | before | {"job": found.id, "voice": served_voice(jobs, found)}

    def settled(job: str, choice: str, point: str, request: gr.Request) -> View:
        return flow.settled(job, point if choice == "picked" else choice, texts_for(request))

    # wiring

    def named(handler: Callable) -> Callable:
        """A handler of gradio's kind, whose updates are keyed by component."""

        @functools.wraps(handler)
        async def answer(*given: Any) -> dict[Any, Any]:
            view = handler(*given)
            return {parts[name]: value for name, value in (await view if inspect.isawaitable(view) else view).items()}

        return answer

    everything = list(parts.values())

    def on(event: Callable, handler: Callable, inputs: Any = None) -> Any:
        return event(named(handler), inputs, everything, **PRIVATE)

    on(source.upload, take_given, [source, job_id])
    on(functools.partial(gr.on, [camera.input, camera.stop_recording]), take_given, [camera, job_id])
    on(photo.input, take_given, [photo, job_id])
    for button, way in ((to_file, "file"), (to_camera, "camera"), (to_photo, "photo")):
        on(button.click, functools.partial(giving_by, way))
    for button, name in [*((b, n) for n, b in examples.items()), (try_it, next(iter(EXAMPLES)))]:
        on(on(button.click, example(name)).then, take_given, [example_path, job_id])
    on(record.click, functools.partial(recording, True))
    on(stay.click, functools.partial(recording, False))
    on(functools.partial(gr.on, [recorder.input, recorder.stop_recording]), take_recorded, recorder)
    on(face_change.click, functools.partial(flow.unfold, "face"))
    on(voice_change.click, functools.partial(flow.unfold, "voice"))
    job_id.change(fn=None, inputs=job_id, js=static("link.js"), api_visibility="private")
    on(another.click, take_none, job_id)
    on(functools.partial(second.input, trigger_mode="always_last"), show_second, [second, job_id, which, face])
    on(preview.pick, pick, job_id)
    on(which.input, unpick, [which, job_id, face])
    if speak is not None:
        speak.click(say, [words, language, kind], voice, api_visibility="private")
    from_video.upload(sound_of, from_video, voice, api_visibility="private")
    lengths = [job_id, end, *controls.values()]
    on(voice.change, hear, [voice, *lengths])
    on(
        functools.partial(gr.on, [c.change for c in (if_audio_longer, if_audio_shorter, start, end)]),
        meet,
        [heard, *lengths],
    )
    on(meeting.pick, lambda: {"options_fold": gr.update(open=True)})
    on(consent.change, lambda: {"said_consent": ""})
    on(functools.partial(gr.on, [start.input, end.input]), lambda: {"said_options": ""})
    on(model.change, others, [model, compare])
    asking = [job_id, voice, heard, consent, which, face, compare, end, *controls.values()]
    on(functools.partial(gr.on, [go.click, again.click]), make, asking)
    on(add.click, keep, [job_id, voice, heard, which, face, end, *controls.values()])
    on(kept.pick, drop, [job_id, which, face])
    cancel.click(jobs.cancel, job_id, None, **PRIVATE)
    on(remove.click, lambda: {"sure": gr.update(visible=True)})
    on(no.click, lambda: {"sure": gr.update(visible=False)})
    on(yes.click, delete_all, [job_id, voice])
    on(on(watch.settled, settled, [job_id, which, face]).then, meet, [heard, *lengths])
    on(functools.partial(page.load, js=static("opened.js")), reopen, job_id)


def _address(request: gr.Request | None) -> str:
    """Where a visitor's request comes from; a proxy in front is asked to say it (docs/security.md)."""
    return request.client.host if request is not None and request.client else ""


def asked(face: str, until: float | None, values: Sequence[Any]) -> Options:
    """The options of the page's fields, `values` by OPTIONS; an empty field is the default. Raises InputError."""
    chosen = {name: value for name, value in zip(OPTIONS, values, strict=True) if value is not None}
    return Options(face=face, end=until or None, **chosen)


def _model(name: str) -> Any:
    """What the page calls a model: a word where it has one, else its name."""
    key = html.model_key(name)
    return text(key) if key in ENGLISH else name


def _compared(models: list[str], first: str, second: str, t: dict[str, str]) -> Any:
    """The choices of a second model: the first is none of them."""
    rest = [name for name in models if name != first]
    choices = [(t["none"], ""), *((html.model_name(name, t), name) for name in rest)]
    return gr.update(choices=choices, value=second if second in rest else "")


def asked_before(job: Job) -> View:
    """How a job's video was asked for, as the page's fields take it."""
    options = current_options(job.facts.get("options", {}))
    point = options.get("face", "largest")
    fields = {name: options[name] for name in OPTIONS if name in options}
    choice = "picked" if "@" in point else point
    return {
        "face": point,
        "which": choice,
        "compare": job.facts.get("compare", ""),
        "end": options.get("end") or 0,
        **fields,
    }


def served_voice(jobs: JobQueue, job: Job) -> str | None:
    """A job's voice for its field: what gradio still has of it, else a second name of the kept one."""
    kept = tasks.input_file(jobs, job, "voice")
    if kept is None:
        return None
    given = job.facts["given"]
    if not Path(given["voice"]).is_file():
        given = given | {"voice": serve_copy(kept)}
        jobs.update(job.id, given=given, uploads=[*job.facts.get("uploads", []), given["voice"]])
    return given["voice"]


async def _or_toast(context: Context, do: Callable[[], Path], request: gr.Request) -> str:
    """The path that `do` gives; its sentence as a message on the page where it cannot."""
    try:
        return str(await context.voices.run(do))
    except LipsyncError as error:
        raise gr.Error(worded(error.message, texts_for(request)), print_exception=False) from error
