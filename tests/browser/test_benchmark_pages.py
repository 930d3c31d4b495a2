"""Benchmark and leaderboard in a real browser, with fake systems: run, cancel, side by side, submission, phone."""

import contextlib
import re
import shutil
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path

import pytest

from tests.helpers.accessible import accessible
from tests.helpers.bench_fakes import film_set
from tests.helpers.live_server import ROOT, free_port

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no browser tests")
expect = sync_api.expect
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="chromium is not installed: no browser tests"),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--autoplay-policy=no-user-gesture-required"]
GRADIOS_OWN = re.compile("Method not implemented|Connection errored out|AbortError|BodyStreamBuffer")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 800}
CARD = (
    'name = "Theirs"\nauthors = "They"\nlink = "https://example.org/x"\nlicence = "MIT"\n'
    'training_data = "none"\nhardware = "a laptop"\n'
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("bench-page")


@pytest.fixture(scope="module")
def address(place):
    port = free_port()
    with (place / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.bench_server", str(port), str(place)],
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
    try:
        for _ in range(900):
            assert process.poll() is None, (place / "server.log").read_text()[-2000:]
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, address):
    """Open pages, each as a visitor of its own; what a browser complains about fails the test."""
    opened, complaints = [], []

    def open_page(path, viewport=DESKTOP, signed_in=False, **more):
        context = chromium.new_context(viewport=viewport, **more)
        page = context.new_page()
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        page.on(
            "console",
            lambda m: m.type in ("error", "warning") and not GRADIOS_OWN.search(m.text) and complaints.append(m.text),
        )
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.on("request", lambda r: r.url.startswith((address, "data:", "blob:")) or complaints.append(r.url))
        if signed_in:
            page.goto(f"{address}/operator/login")
            page.fill("#password", "correct horse battery")
            page.click("main button")
            page.wait_for_url("**/?tab=benchmark")
        if not signed_in or path != "/?tab=benchmark":
            page.goto(address + path)
        opened.append(context)
        return page

    yield open_page
    for context in opened:
        context.close()
    assert not complaints


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_1_a_visitor_cannot_start_anything(visit):
    page = visit("/?tab=benchmark")
    expect(page.locator("#bench-lead")).to_contain_text("The operator starts runs")
    expect(page.locator("#bench-go")).to_be_hidden()
    expect(page.locator("#bench-submit-go")).to_be_hidden()


def test_2_a_run_shows_how_far_it_is_is_cancelled_and_goes_on(visit):
    page = visit("/?tab=benchmark", signed_in=True)
    page.get_by_role("checkbox", name="Fake B").check()
    page.click("#bench-go")
    line = page.locator("#bench-status .say p")
    expect(line).to_contain_text(re.compile(r"Making and scoring clips · [1-9]\d* / 18"), timeout=120_000)
    expect(page.locator("#bench-go")).to_be_disabled()
    visitor = visit("/?tab=benchmark")
    expect(visitor.locator("#bench-status")).to_contain_text("Making and scoring clips")
    expect(visitor.locator("#bench-cancel")).to_be_hidden()
    board = visit("/leaderboard")
    expect(board.locator(".live")).to_contain_text("A run is going on")
    page.click("#bench-cancel")
    expect(line).to_contain_text("Stopped. What was done is kept")
    expect(page.locator("#bench-clips table")).to_be_visible()  # what was done is shown
    page.click("#bench-go")
    expect(line).to_contain_text("Done.", timeout=120_000)
    expect(page.locator("#bench-clips [data-pair]")).to_have_count(6)
    expect(page.locator("#bench-cancel")).to_be_hidden()


def test_3_a_clip_is_played_by_all_systems_in_step(visit):
    page = visit("/?tab=benchmark")
    page.click("[data-pair=p02]")
    expect(page.locator("#bench-clip")).to_have_text("Clip p02")
    videos = page.locator("#bench-together video")
    expect(videos).to_have_count(3)
    page.wait_for_function("[...document.querySelectorAll('.strip video')].every(v => v.readyState > 1)")
    page.click("#bench-together .both")
    page.wait_for_function("[...document.querySelectorAll('.strip video')].every(v => v.currentTime > 0.2)")
    times, sound = page.evaluate(
        "[[...document.querySelectorAll('.strip video')].map(v => v.currentTime),"
        " [...document.querySelectorAll('.strip video')].map(v => v.muted)]"
    )
    assert max(times) - min(times) < 0.2 and sound == [False, True, True]
    page.locator(".hear").nth(1).click()
    muted = "[...document.querySelectorAll('.strip video')].map(v => v.muted)"
    assert page.evaluate(muted) == [True, False, True]
    expect(page.locator(".hear").nth(1)).to_have_attribute("aria-pressed", "true")
    page.locator("#bench-plots > button, #bench-plots .label-wrap").first.click()
    expect(page.locator("#bench-plots .js-plotly-plot")).to_have_count(3)
    accessible(page)


def test_4_on_a_phone_two_are_in_view_and_nothing_scrolls_sideways(visit):
    page = visit("/?tab=benchmark", PHONE)
    expect(page.locator("#bench-together video")).to_have_count(3)
    page.wait_for_function("[...document.querySelectorAll('.strip video')].every(v => v.readyState > 0)")
    assert fits(page)
    strip = page.locator(".strip").bounding_box()
    boxes = [page.locator(".strip figure").nth(n).bounding_box() for n in range(3)]
    inside = [b for b in boxes if b["x"] + b["width"] <= strip["x"] + strip["width"] + 1]
    assert len(inside) == 2
    accessible(page)


def test_5_a_faulty_submission_is_refused_with_its_list_and_the_mended_one_ranks(visit, place, tmp_path):
    from resynced.systems import Untouched

    made = film_set(place / "media", 6)
    for pair in made.pairs:
        Untouched().make(pair, tmp_path / f"{pair.id}.mp4")
    (tmp_path / "card.toml").write_text(CARD)
    whole = [tmp_path / f"{pair.id}.mp4" for pair in made.pairs]
    with zipfile.ZipFile(tmp_path / "good.zip", "w") as archive:
        for path in whole:
            archive.write(path, path.name)
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        for path in whole[:2]:
            archive.write(path, path.name)
        archive.writestr("p02.mp4", whole[2].read_bytes()[:2000])
        archive.writestr("../out.mp4", b"x")
        archive.writestr("extra.txt", b"x")
        archive.writestr("P03.MP4", b"x")
    page = visit("/?tab=benchmark", signed_in=True)
    give = page.locator("#bench-archive input[type=file]"), page.locator("#bench-card input[type=file]")
    give[0].set_input_files(tmp_path / "bad.zip")
    give[1].set_input_files(tmp_path / "card.toml")
    expect(page.locator("#bench-card")).to_contain_text(re.compile(r"card\s*\.toml"))
    expect(page.locator("#bench-archive")).to_contain_text(re.compile(r"bad\s*\.zip"))
    page.click("#bench-submit-go")
    checked = page.locator("#bench-checked")
    expect(checked).to_contain_text("Nothing was kept")
    for part in ("p02.mp4", "leads out of its folder", "extra.txt", "P03", "p05.mp4: it is not there"):
        expect(checked).to_contain_text(part)
    page.locator("#bench-archive").get_by_role("button", name="Clear").click()
    give[0].set_input_files(tmp_path / "good.zip")
    expect(page.locator("#bench-archive")).to_contain_text(re.compile(r"good\s*\.zip"))
    page.click("#bench-submit-go")
    expect(checked).to_contain_text("Accepted: Theirs")
    page.get_by_role("checkbox", name="Fake A").uncheck()
    page.get_by_role("checkbox", name=re.compile("Theirs")).check()
    page.click("#bench-go")
    board = visit("/leaderboard")
    row = board.locator(".line", has_text="Theirs")
    rank = row.locator(".rank", has_text=re.compile(r"\d"))
    for _ in range(180):  # a row of a run that goes on has no rank yet, and an opened board does not change
        if rank.count():
            break
        board.wait_for_timeout(1000)
        board.reload()
    expect(rank).to_be_visible()
    expect(page.locator("#bench-status")).to_contain_text("Done.")
    row.locator("summary").click()
    expect(row).to_contain_text("outputs handed in by their makers")


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_6_the_leaderboard_is_read_on_every_screen(visit, viewport, scheme):
    page = visit("/leaderboard", viewport, color_scheme=scheme)
    assert fits(page)
    expect(page.locator(".answer")).to_contain_text("On 6 clips")
    expect(page.locator(".line").last).to_contain_text("Untouched clips")
    page.locator(".line summary").first.click()
    expect(page.locator(".line .measures").first).to_be_visible()
    assert fits(page)
    page.locator("[role=columnheader] a", has_text="Sync").click()
    expect(page.locator("[role=columnheader].sync")).to_have_attribute("aria-sort", "ascending")
    expect(page.locator("form.choose button")).to_be_hidden()  # the new page's script listens
    page.select_option("select[name=category]", "tts")
    page.wait_for_url("**category=tts*")
    expect(page.locator(".answer")).to_contain_text("On 2 clips")
    page.locator("details", has_text="What the columns mean").locator("summary").click()
    expect(page.locator(".about")).to_contain_text("Lower is better")
    accessible(page)
    page.locator(".end a").click()
    expect(page.locator("h1")).to_have_text("순위표")
    assert fits(page)
    page.goto(page.url.split("?")[0])
    small = page.evaluate(
        "[...document.querySelectorAll('main a, main button, main select, main summary')]"
        ".filter(e => e.offsetHeight && e.offsetHeight < 36).map(e => e.outerHTML.slice(0, 80))"
    )
    assert not small
