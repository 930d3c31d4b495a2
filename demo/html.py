"""HTML of a job as its visitor sees it. Everything that a visitor named is escaped."""

from __future__ import annotations

import secrets
from html import escape

from eval.results import current_columns
from lipsync.progress import Progress

from .i18n import worded
from .jobs import Job

Words = dict[str, str]  # sentences of one language by key
TALLEST_PX = 420  # of the frame with its faces
FRAME_MS = 40  # the evaluator sees 25 frames a second
SOFT_PX = 300  # height of a face above which made mouths are clearly softer than the clip (docs/detail.md)


def status(job: Job | None, ahead: int, progress: Progress | None, t: Words) -> str:
    """One line on how a job stands, with a bar while it runs; empty where there is nothing to say."""
    if job is None or job.state == "new" or job.task == "evaluate":
        return ""  # how the measuring goes is said beside the video
    if job.busy:
        return live(job, *state(job, ahead, progress, t))
    if job.state == "failed":
        return _line(worded(job.error, t), kind="bad")
    if job.state in ("cancelled", "interrupted"):
        return _line(t[job.state], kind="quiet")
    return ""


def state(job: Job, ahead: int, progress: Progress | None, t: Words) -> tuple[str, float]:
    """What a busy job is doing, and which share of it is done, 0..1."""
    if job.state == "waiting":
        said = t["waiting"].format(n=ahead) if ahead else t["waiting_next"]
        return t["evaluate_running"] if job.task == "evaluate" else said, 0.0
    if progress is None:
        own = ("faces", "evaluate", "benchmark", "submission")
        return t[f"{job.task}_running" if job.task in own else "load_running"], 0.0
    said = t.get(f"{progress.stage}_running", progress.stage)
    if progress.total > 1 and progress.share is None:  # else the bar is the whole job's
        said += f" · {progress.done} / {progress.total}"
    if progress.seconds_left is not None and progress.seconds_left >= 1:
        said += " · " + t["left"].format(n=round(progress.seconds_left))
    return said, min(progress.done / max(progress.total, 1), 1.0) if progress.share is None else progress.share


def wrong(field: str, said: str) -> str:
    """What is wrong with a field, by its element id; static/mark.js marks it and brings the focus there."""
    return _line(said, kind="bad").replace("<div ", f'<div data-for="{field}" data-try="{secrets.token_hex(3)}" ', 1)


def meets(voice_s: float, video_s: float, key: str, t: Words) -> str:
    """What will be done with the lengths of voice and video, with a button to the options; empty for nothing."""
    if not key:
        return ""
    said = t["meet"].format(voice=f"{voice_s:.1f}", video=f"{video_s:.1f}", what=t[f"meet_{key}"])
    return f'<p class="meets">{escape(said)} <button type="button">{escape(t["change"])}</button></p>'


def note(said: str) -> str:
    """A sentence where the meeting of voice and video is said."""
    return f'<p class="meets">{escape(said)}</p>'


def sentence(said: str, kind: str = "bad") -> str:
    """One line on its own: bad | warn | good | quiet."""
    return _line(said, kind=kind)


def live(job: Job, said: str, share: float) -> str:
    """A line with a bar that static/watch.js keeps up to date while the job is busy."""
    return _line(said, share, view=job.view)


def _line(said: str, share: float | None = None, kind: str = "", view: str = "") -> str:
    bar = live = ""
    if share is not None:  # static/watch.js keeps it moving
        width = f"{100 * share:.1f}%"
        now = f'aria-valuemin="0" aria-valuemax="100" aria-valuenow="{100 * share:.0f}"'
        name = escape(said.partition(" · ")[0])
        bar = f'<div class="bar" role="progressbar" aria-label="{name}" {now}><i style="width:{width}"></i></div>'
        live = f' data-live="{view}"'
    role = ' role="alert"' if kind == "bad" else "" if live else ' role="status"'  # static/watch.js speaks live ones
    return f'<div class="say {kind}"{role}{live}><p>{escape(said)}</p>{bar}</div>'


def preview(job: Job | None, picked: str, t: Words) -> str:
    """The frame with its faces as buttons, counted from 1; those that will speak are marked.

    picked  an `Options.face`; of a point `tasks.pick` has noted who speaks. "" is the largest.
    """
    shown = job.facts.get("preview") if job else None
    if not shown:
        return ""
    width, height, second = shown["width"], shown["height"], shown["second"]
    noted = job.facts.get("picked", {})
    if picked in ("", "largest"):
        speaking = shown.get("largest", [])
    elif picked == "all":
        speaking = [int(n) for n in shown["boxes"]]
    else:
        speaking = noted["numbers"] if noted.get("point") == picked else []
    voiced = {number for part in job.facts.get("parts", []) for number in part["numbers"]}
    buttons = []
    for number, (x0, y0, x1, y1) in shown["boxes"].items():
        speaks = int(number) in speaking
        mark = (" picked" if speaks else "") + (" voiced" if int(number) in voiced else "")
        place = (
            f"left:{100 * x0 / width:.2f}%;top:{100 * y0 / height:.2f}%;"
            f"width:{100 * (x1 - x0) / width:.2f}%;height:{100 * (y1 - y0) / height:.2f}%"
        )
        point = f"{(x0 + x1) / 2:.1f},{(y0 + y1) / 2:.1f}@{second:.3f}"
        name = t["face_voiced" if int(number) in voiced else "face_number"].format(n=int(number) + 1)
        buttons.append(
            f'<button type="button" class="face{mark}" style="{place}" data-face="{point}" '
            f'aria-label="{name}" aria-pressed="{"true" if speaks else "false"}" title="{name}">'
            f"<b>{int(number) + 1}</b></button>"
        )
    here, shots, voices = len(shown["boxes"]), job.facts.get("shots", 1), ""
    tall = max((y1 - y0 for n, (_, y0, _, y1) in shown["boxes"].items() if int(n) in speaking), default=0)
    if not job.facts.get("faces"):
        said = t["faces_none"]
    elif not here:
        said = t["faces_unshown"]
    else:
        said = t["faces_one"] if here == 1 else t["faces_many"].format(n=here)
        said += " " + t["faces_shots"].format(n=shots) if shots > 1 else ""
        voices = f'<p class="note">{escape(t["faces_voices"])}</p>' if here > 1 else ""
    picture = f"jobs/{job.view}/preview.jpg?v={shown['version']}"
    # Its place is kept while it loads anew after each click: what is below must not jump.
    size = f"width:min(100%,{min(width, TALLEST_PX * width / height):.0f}px);aspect-ratio:{width}/{height}"
    frame = f'<div class="frame"><img alt="" src="{picture}" style="{size}">{"".join(buttons)}</div>'
    if tall > SOFT_PX:
        voices += f'<p class="note">{escape(t["face_large"].format(n=round(tall)))}</p>'
    return f'{frame}<p class="note">{escape(said)}</p>{voices}'


def parts(job: Job | None, t: Words) -> str:
    """The voices that were kept beside the one in the field: whose each is and when it speaks, with a button to remove
    it."""
    kept = job.facts.get("parts", []) if job else []
    rows = []
    for part in kept:
        own, name = part["options"], job.facts.get(part["key"], "").rpartition("/")[2]
        start, end = own.get("start") or 0, own.get("end")
        who = ", ".join(t["face_number"].format(n=n + 1) for n in part["numbers"])
        who = who or t.get(own.get("face", "largest"), t["picked"])
        if end:
            when = t["part_span"].format(start=f"{start:g}", end=f"{end:g}")
        else:
            when = t["part_from"].format(start=f"{start:g}") if start else t["part_whole"]
        said = escape(f"{who} · {when} · {name}")
        remove = escape(t["part_remove"])
        rows.append(
            f'<li><span>{said}</span> <button type="button" data-part="{part["key"]}" aria-label="{remove}: {said}">'
            f"{remove}</button></li>"
        )
    return f'<ul class="parts" aria-label="{escape(t["parts"])}">{"".join(rows)}</ul>' if rows else ""


def given(job: Job, step: str, t: Words) -> str:
    """What a folded step was given, in one line: the files' names, and how long a video is; step: face | voice."""
    kept = [part["key"] for part in job.facts.get("parts", [])] if step == "voice" else []
    kinds = ["source" if step == "face" else "voice", *kept]
    name = escape(", ".join(filter(None, (job.facts.get(kind, "").rpartition("/")[2] for kind in kinds))))
    seconds = job.facts.get("seconds", 0.0) if step == "face" else 0.0
    return f"<p>{name}{' · ' + escape(t['seconds'].format(n=f'{seconds:.1f}')) if seconds else ''}</p>"


def results(job: Job | None, t: Words) -> str:
    """The original beside what was made of it, with their controls."""
    made = job.facts.get("results") if job else None
    if not made:
        return ""
    base = f"jobs/{job.view}"
    if job.facts.get("still"):
        original = f'<img alt="" src="{base}/source">'
    else:
        original = (
            f'<video src="{base}/source" poster="{base}/preview.jpg" controls muted playsinline preload="metadata" '
            f'aria-label="{escape(t["original"])}" '
            "onerror=\"this.closest('figure').classList.add('broken')\"></video>"
        )
    figures = [_figure(t["original"], original + f'<p class="unplayable">{escape(t["unplayable"])}</p>')]
    for n, one in enumerate(made):
        plain = model_name(one["model"], t)
        name = t["result"] if len(made) == 1 else f"{t['result']} · {plain}"
        id_ = one["model"] if len(made) > 1 and plain != one["model"] else ""
        link = f"{base}/{one['file']}"
        sound = "" if n == 0 else "muted"
        video = f'<video src="{link}" controls playsinline preload="auto" aria-label="{escape(name)}" {sound}></video>'
        figures.append(
            _figure(name, video, f'<a class="plain" href="{link}?download=1" download>{escape(t["download"])}</a>', id_)
        )
    both = (
        f'<button type="button" class="both" data-play="{escape(t["both"])}" data-pause="{escape(t["stop_both"])}">'
        + (f"▶ {escape(t['both'])}</button>")
    )
    share = (
        f'<button type="button" class="plain share" data-share="watch/{job.shared}" data-done="{escape(t["copied"])}">'
        f"{escape(t['share'])}</button>"
    )
    return f'<div class="compare n{len(figures)}">{"".join(figures)}</div><div class="middle">{both}{share}</div>'


def mine(job: Job | None, t: Words) -> str:
    """The place of the visitor's own videos, which static/mine.js fills; it notes this one when it is finished."""
    made = job if job and job.facts.get("results") else None
    return (
        f'<div class="mine" hidden data-job="{made.id if made else ""}" data-view="{made.view if made else ""}" '
        f'data-title="{escape(t["mine"])}" data-note="{escape(t["mine_note"])}" data-name="{escape(t["result"])}">'
        "</div>"
    )


def facts(job: Job | None, busy: str, t: Words) -> str:
    """What is said of a job's results: sync, report, label. busy: a line while the sync is being measured."""
    made = job.facts.get("results") if job else None
    if not made:
        return ""
    words = "".join(f"<p>{escape(worded(one['words'], t))}</p>" for one in made)
    fits = busy or "".join(fit(one["sync"], t) for one in made if "sync" in one)
    if fits and job.facts.get("parts"):
        fits += f'<p class="note">{escape(t["fit_one"])}</p>'
    fits = f"<dt>{escape(t['fit_title'])}</dt><dd>{fits}</dd>" if fits else ""
    looks = "".join(picture(one["picture"], t) for one in made if "picture" in one)
    fits += f"<dt>{escape(t['picture_title'])}</dt><dd>{looks}</dd>" if looks else ""
    labels = "".join(f"<p>{escape(label(one['label'], t))}</p>" for one in made)
    frame = t["frame_ms"].format(ms=round(1000 / job.facts["fps"])) if job.facts.get("fps") else ""
    frame = f'<p class="note">{escape(frame)}</p>' if frame else ""  # of the slider below
    return (
        f'<dl class="facts">{fits}<dt>{escape(t["report"])}</dt><dd>{words}</dd>'
        f"<dt>{escape(t['label_title'])}</dt><dd>{labels}</dd></dl>"
        f'<p class="note">{escape(t["link"])}</p>{frame}'
    )


def model_name(model: str, t: Words) -> str:
    """What people call a model: a word of its strength, or the system that it follows."""
    return t.get(model_key(model), model)


def model_key(model: str) -> str:
    """The key of a model's plain name."""
    return f"model_{model.replace('-', '_')}"


def fit(row: dict, t: Words) -> str:
    """How well mouth and sound fit: a sentence, the curve of distances, and the numbers for those who know them."""
    row = current_columns(row)
    if row["error"]:
        return f"<p>{escape(t['fit_none'].format(why=worded(row['error'], t)))}</p>"
    offset = row["offset"]
    if offset is None:
        kind, said = "quiet", t["fit_unsure"]
    elif abs(offset) <= 1:
        kind, said = "good", t["fit_good"]
    else:
        kind, said = "warn", t["fit_early" if offset > 0 else "fit_late"].format(ms=FRAME_MS * abs(offset))
    numbers = t["fit_numbers"].format(
        evaluator=row["evaluator"],
        sha=row["evaluator_sha256"][:8],
        d=row["lse_d"],
        c=row["lse_c"],
        protocol=row["protocol"],
        offset="–" if offset is None else offset_words(offset, t),
        sure=f"{row['certainty']:.0%}",
    )
    if row["evaluator"] != "syncnet-v2":
        numbers += " " + t["fit_standard"]
    return (
        f'<p class="chip {kind}">{escape(said)}</p><details><summary>{escape(t["numbers"])}</summary>'
        f'{_curve(row["curve"], t)}<p class="note">{escape(numbers)}</p></details>'
    )


def offset_words(frames: int, t: Words) -> str:
    """An evaluator's offset (above 0: the sound is early), without a sign: the slider's runs the other way."""
    if not frames:
        return t["bench_together_now"]
    return t["bench_early" if frames > 0 else "bench_late"].format(ms=FRAME_MS * abs(frames))


def picture(found: dict, t: Words) -> str:
    """How the made mouth looks beside the clip's own (eval.picture): a sentence, and what would help."""
    if "error" in found:
        return f"<p>{escape(t['picture_none'].format(why=worded(found['error'], t)))}</p>"
    kind = {"sharp": "good", "soft": "quiet"}.get(found["grade"], "warn")
    said = t[f"picture_{found['grade']}"].format(share=f"{min(found['sharpness'], 1):.0%}")
    help_ = "" if found["grade"] == "sharp" else f'<p class="note">{escape(t["picture_help"])}</p>'
    return f'<p class="chip {kind}">{escape(said)}</p>{help_}'


def _curve(values: list[float | None], t: Words) -> str:
    """The distance of mouth and sound as a small drawing: from left to right the sound comes later, as on the slider.

    A row's curve runs the other way: at its column k the sound is taken k - v frames further on, which is earlier.
    """
    known = [(k, v) for k, v in enumerate(reversed(values)) if v is not None]
    if len(known) < 3:
        return ""
    low, high = min(v for _, v in known), max(v for _, v in known)
    middle, step = len(values) // 2, 280 / (len(values) - 1)
    at = [(10 + step * k, 8 + 54 * (high - v) / max(high - low, 1e-9)) for k, v in known]
    best = min(known, key=lambda p: p[1])[0]
    x, y = next(p for p, (k, _) in zip(at, known, strict=True) if k == best)
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in at)
    ends = FRAME_MS * middle
    name = escape(t["curve"].format(ms=ends))
    return (
        f'<figure class="curve"><svg viewBox="0 0 300 70" role="img" aria-label="{name}">'
        f'<line x1="150" y1="0" x2="150" y2="70"/><polyline points="{line}"/><circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
        f"</svg><figcaption><span>−{ends} ms</span><span>0</span><span>+{ends} ms</span></figcaption></figure>"
    )


def label(found: dict, t: Words) -> str:
    """What `tasks.verdict` found, with its sign: a lack of a label is no alarm."""
    return {"good": "✓ ", "warn": "! ", "quiet": "– ", "bad": ""}[label_kind(found)] + worded(found["words"], t)


def label_kind(found: dict) -> str:
    """How `tasks.verdict` looks: good (labelled), warn (altered, unknown, lost), quiet (no label), bad (no media)."""
    kinds = {"not labelled": "quiet", "unreadable": "bad"}
    return "good" if found["labelled"] else kinds.get(found.get("status", ""), "warn")


def _figure(name: str, inner: str, link: str = "", id_: str = "") -> str:
    small = f" <small>{escape(id_)}</small>" if id_ else ""
    return f"<figure><figcaption><span>{escape(name)}{small}</span>{link}</figcaption>{inner}</figure>"
