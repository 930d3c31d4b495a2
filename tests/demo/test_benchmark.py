"""Benchmark on the page: runs in their own process, submissions, who may see what; with fake systems."""

import os
import signal
import time
import zipfile
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest
from fastapi.testclient import TestClient

from demo import benchmark, plots, tasks
from demo.i18n import ENGLISH
from demo.server import build
from demo.settings import Settings
from demo.tabs import benchmark as tab
from lipsync.errors import InputError, LipsyncError
from resynced import leaderboard as board
from resynced.runner import run
from resynced.store import ScoreFact, Store
from resynced.submissions import all_registered
from resynced.systems import Untouched
from tests.helpers.bench_fakes import FilmScoring, FilmSystem, film_set

PASSWORD = "correct horse battery"
CARD = "\n".join(
    f'{k} = "{v}"'
    for k, v in {
        "name": "Theirs",
        "authors": "They",
        "link": "https://example.org/x",
        "licence": "MIT",
        "training_data": "none",
        "hardware": "a laptop",
    }.items()
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("benchmark")


@pytest.fixture(scope="module")
def made(place):
    """A set of three pairs with real media."""
    return film_set(place / "media")


@pytest.fixture(scope="module")
def gate(place, made):
    patch = pytest.MonkeyPatch()
    patch.setenv("GRADIO_TEMP_DIR", "")
    patch.setenv("LIPSYNC_DATABASE", str(place / "store.sqlite"))
    patch.setenv("LIPSYNC_DATA", str(place / "data"))
    patch.setattr(tasks, "warm_up", lambda: None)
    patch.setattr(benchmark, "load_set", lambda name: made)
    yield build(Settings(work=place / "work", operator_password=PASSWORD))
    patch.undo()


@pytest.fixture
def context(gate):
    return gate.context


@pytest.fixture
def client(gate):
    return TestClient(gate, base_url="http://localhost")


def asked(place, made, scoring=None, **changed):
    """A run of two fake systems."""
    film = made.pairs[0].video.path
    systems = (FilmSystem("A", film=film, **changed), FilmSystem("untouched", film=film))
    return benchmark.Request(
        made, systems, scoring or FilmScoring(), benchmark.store_place(), place / "data", None, "typed"
    )


def ended(jobs, job, seconds=120):
    until = time.monotonic() + seconds
    while job.busy and time.monotonic() < until:
        time.sleep(0.05)
    assert not job.busy
    return jobs.get(job.id)


def spawned():
    """Processes that this one has begun by multiprocessing."""
    return [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def scores(place):
    with Store(str(place / "store.sqlite")) as store, store.read() as session:
        return session.query(ScoreFact).count()


@pytest.mark.slow
def test_a_run_is_cancelled_and_goes_on_where_it_was(context, place, made):
    """The first pair is done when the run is stopped; the second start makes the other five."""
    jobs = context.jobs
    job = benchmark.start(context, asked(place, made, seconds=1.5))
    with pytest.raises(InputError, match="going on already"):
        benchmark.start(context, asked(place, made))
    until = time.monotonic() + 100
    while time.monotonic() < until and not ((p := jobs.progress(job.id)) and p.stage == "pairs" and p.done):
        time.sleep(0.02)
    assert "A run is going on" in benchmark.state(context, ENGLISH)["running"]
    jobs.cancel(job.id)
    assert ended(jobs, job).state == "cancelled" and 0 < scores(place) < 6
    again = benchmark.start(context, asked(place, made))
    assert ended(jobs, again).state == "done" and scores(place) == 6
    assert "were there already" in again.facts["words"]
    assert tab.run_status(again, 0, None, ENGLISH).count("Done.") == 1


@pytest.mark.slow
def test_a_run_that_dies_or_cannot_begin_is_a_sentence(context, place, made):
    jobs = context.jobs
    job = benchmark.start(context, asked(place, made, FilmScoring(broken=True)))
    assert ended(jobs, job).error == "The evaluator's file is not here."
    others = spawned()  # of whatever else this process has begun
    job = benchmark.start(context, asked(place, made, fingerprint="f" * 64, seconds=60))
    until = time.monotonic() + 60
    while not (mine := [c for c in spawned() if c not in others]):
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(mine[0].pid, signal.SIGKILL)
    assert "ended by itself" in ended(jobs, job).error


def test_what_is_asked_for_is_checked_and_can_be_typed(place, made, monkeypatch):
    monkeypatch.setattr(benchmark, "sets", lambda: {"starter": place})
    monkeypatch.setattr(benchmark, "load_set", lambda name: made)
    words = [word for _, word in benchmark.system_words()]
    found = benchmark.request("starter", words[:1], 2, "detail=false,pad=0.1")
    assert found.command == f"python -m resynced run --set starter --system {words[0]}:detail=false,pad=0.1 --limit 2"
    assert [s.name for s in found.systems] == [f"{words[0]} (detail=false,pad=0.1)", "untouched"]
    for wrong in (
        ("other", words[:1], None, ""),
        ("starter", ["/etc/passwd"], None, ""),
        ("starter", words[:1], None, "model=x"),
        ("starter", words[:1], None, "pad=wide"),
    ):
        with pytest.raises(LipsyncError):
            benchmark.request(*wrong)


# submissions


@pytest.fixture(scope="module")
def outputs(place, made):
    folder = place / "outputs"
    folder.mkdir()
    for pair in made.pairs:
        Untouched().make(pair, folder / f"{pair.id}.mp4")
    return folder


def packed(path, outputs, faulty=False):
    """A zip of outputs; with five kinds of fault: out of the folder, missing, odd name, cut short, no video."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(outputs.glob("*.mp4")):
            if not faulty:
                archive.write(file, file.name)
        if faulty:
            archive.writestr("../escaped.mp4", b"x")
            archive.writestr("notes.txt", b"x")
            archive.writestr("p00.mp4", (outputs / "p00.mp4").read_bytes()[:3000])
            archive.writestr("p01.mp4", b"no video")
    (path.parent / "card.toml").write_text(CARD if not faulty else CARD.replace("https", "ftp"))
    return path, path.parent / "card.toml"


@pytest.mark.slow
def test_a_faulty_submission_is_refused_with_the_whole_list_and_its_mended_twin_is_kept(
    context, place, outputs, tmp_path
):
    jobs = context.jobs
    job = benchmark.submit(context, *packed(tmp_path / "bad.zip", outputs, faulty=True), "made")
    faults = ended(jobs, job).facts["faults"]
    said = "\n".join(faults)
    for part in ("link", "leads out of its folder", "notes.txt", "p00.mp4:", "p01.mp4:", "p02.mp4: it is not there"):
        assert part in said, (part, said)
    assert str(tmp_path) not in said and not all_registered() and not (place / "data" / "escaped.mp4").exists()
    shown = tab.submission_verdict(job, ENGLISH)
    assert shown.count("<li>") == len(faults) and 'role="alert"' in shown
    job = benchmark.submit(context, *packed(tmp_path / "good.zip", outputs), "made")
    assert ended(jobs, job).facts.get("faults") == [] and "Accepted: Theirs" in tab.submission_verdict(job, ENGLISH)
    (kept,) = all_registered()
    assert job.facts["word"] == f"submission:{kept.name}" and kept.system().card["licence"] == "MIT"
    assert (f"Theirs · {kept.name[-8:]}", f"submission:{kept.name}") in benchmark.system_words("made")
    assert ("Theirs", f"submission:{kept.name}") not in benchmark.system_words("other")


def test_text_of_visitors_and_makers_is_escaped():
    job = SimpleNamespace(state="done", facts={"faults": ["<b>.mp4: it is not there."]}, error="")
    assert "&lt;b&gt;.mp4" in tab.submission_verdict(job, ENGLISH)
    assert benchmark._tame("/srv/secret/place/x.zip is no zip") == "x.zip is no zip"


# watching


@pytest.fixture
def view(context, place, made):
    request = asked(place, made)
    run(made, request.systems, context.store, request.work, request.scoring)
    return board.find_view(context.store)


def test_videos_of_a_free_set_are_served_and_of_another_to_the_operator_alone(context, client, view, monkeypatch):
    found = board.clips(context.store, view)
    row = found[found["pair"] == "p00"].iloc[0]
    address = f"/benchmark/video/{view.id}/{row['fingerprint'][:16]}/p00"
    answer = client.get(address)
    assert answer.status_code == 200 and answer.headers["content-type"] == "video/mp4" and len(answer.content) > 1000
    assert "sandbox" in answer.headers["content-security-policy"]
    for nothing in (address[:-3] + "p99", address.replace(view.id, "0" * 12), address.replace("/p00", "/..%2fp00")):
        assert client.get(nothing).status_code == 404
    monkeypatch.setattr(benchmark, "FREE", __import__("re").compile("never"))
    assert client.get(address).status_code == 404
    client.post("/operator/login", data={"password": PASSWORD}, headers={"Origin": "http://localhost"})
    assert client.get(address).status_code == 200


def test_a_clip_is_shown_by_all_systems_in_step(context, view):
    found = board.clips(context.store, view)
    table = board.leaderboard(context.store, view)
    labels = tab.labels_of(table, ENGLISH)
    listed = tab.clips_table(found, labels, "p01", ENGLISH)
    assert listed.count("data-pair") == 3 and listed.count('aria-current="true"') == 1 and "Untouched clips" in listed
    shown = tab.side_by_side(context, view, found, labels, "p01", SimpleNamespace(cookies={}), ENGLISH)
    assert shown.count("<video") == 2 and shown.count('class="hear"') == 2 and "Play together" in shown
    assert tab.first_shown(table)[0] == next(f for f, label in labels.items() if label == "Untouched clips")


def test_a_failed_clip_says_why_in_place_of_its_video(context, view):
    found = board.clips(context.store, view)
    found.loc[found["pair"] == "p02", "reason"] = "<No face> was found."
    labels = tab.labels_of(board.leaderboard(context.store, view), ENGLISH)
    shown = tab.side_by_side(context, view, found, labels, "p02", SimpleNamespace(cookies={}), ENGLISH)
    assert "&lt;No face&gt; was found." in shown and "<video" not in shown and "Play together" not in shown
    assert "failed" in tab.clips_table(found, labels, "p02", ENGLISH)


# plots


def test_plots_show_what_the_rows_say(context, view):
    found = board.clips(context.store, view)
    table = board.leaderboard(context.store, view)
    labels = tab.labels_of(table, ENGLISH)
    plane = plots.plane(table, labels, ENGLISH)
    assert [d.name for d in plane.data] == list(labels.values())
    assert plane.data[0].x[0] == 3.0 and plane.data[0].y[0] == pytest.approx(
        table["rows"][0]["values"]["lse_d"]["mean"]
    )
    boxes = plots.by_category(found, labels, ENGLISH)
    assert sum(len(d.y) for d in boxes.data) == 6
    bars = plots.offsets(found, labels, ENGLISH)
    assert [list(d.x) for d in bars.data] == [[0], [0]] and bars.data[0].y[0] == 1.0
    colours = {d.name: d.marker.color for d in plane.data}
    assert all(d.marker.color == colours[d.name] for figure in (boxes, bars) for d in figure.data)


def test_where_nothing_was_measured_there_is_no_plot(context, view):
    empty = board.clips(context.store, view).iloc[:0]
    assert plots.by_category(empty, {}, ENGLISH) is None and plots.offsets(empty, {}, ENGLISH) is None
    assert plots.failures(pd.DataFrame(columns=["system", "category", "reason", "clips"]), {}, ENGLISH) is None
    fails = pd.DataFrame(
        [["A", "tts", "<i>No face</i> was found in any of the frames of a film.", 3]],
        columns=["system", "category", "reason", "clips"],
    )
    figure = plots.failures(fails, {"A": "A & co"}, ENGLISH)
    assert "<i>" not in figure.data[0].y[0] and figure.data[0].x[0] == 3 and figure.data[0].name == "A &amp; co"
