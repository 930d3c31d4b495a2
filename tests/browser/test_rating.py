"""Raters and the operator in a real browser: a small study from consent to code, at desktop and phone size.

LIPSYNC_SCREENSHOTS=FOLDER also keeps pictures of every step there.
"""

import os
import re
import shutil
from pathlib import Path

import pytest

from resynced.desk import open_desk
from resynced.store import Store, data_folder
from tests.helpers.accessible import accessible
from tests.helpers.live_server import serve
from tests.helpers.made_study import kept_videos, made_study

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no browser tests")
expect = sync_api.expect
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="chromium is not installed: no browser tests"),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]  # no autoplay: a rater presses Play
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 812}
PASSWORD = "correct horse battery"
WAIT = 60_000


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a page with four studies, and its desk."""
    folder = tmp_path_factory.mktemp("rating")
    patch = pytest.MonkeyPatch()
    places = {"DATA": str(folder / "data"), "DATABASE": str(folder / "store.sqlite")}
    for name, value in places.items():
        patch.setenv(f"LIPSYNC_{name}", value)
    with Store() as store:
        kept_videos(store)
        made_study(store)
        made_study(store, "scales", design="questions", language="ko", title="입 모양 연구", traps=0, training=0)
        made_study(store, "wide", least_width_px=1000)
        made_study(store, "both", design="side_by_side", per_rater=1, training=0, gold=0, traps=0)
        with serve(folder / "work", OPERATOR_PASSWORD=PASSWORD, **places) as address:
            yield address, open_desk(store, data_folder())
    patch.undo()


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, lab):
    """Open pages, each as a visitor of its own; what a browser complains about, or asks elsewhere, fails the test."""
    opened, complaints = [], []

    def open_page(route, viewport=DESKTOP, expected=(), **more):
        context = chromium.new_context(viewport=viewport, **more)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        expect.set_options(timeout=WAIT)
        page.on("console", lambda m: m.type in ("error", "warning") and complaints.append(m.text))
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.on("response", lambda r: r.status >= 400 and complaints.append(f"{r.status} {r.url}"))
        page.on("request", lambda r: r.url.startswith((lab[0], "data:", "blob:")) or complaints.append(r.url))
        page.goto(f"{lab[0]}{route}")
        opened.append(context)
        return page

    yield open_page
    for context in opened:
        context.close()
    assert not complaints


def shoot(page, name):
    if folder := os.environ.get("LIPSYNC_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/rating-{name}.png", full_page=True)


def fits(page):
    """Nothing lies outside the window's width, and axe finds no fault."""
    accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def enter(page, lab, study, name=""):
    """Consent; the sound check is passed on the server, as only ears could."""
    expect(page.locator("#begin")).to_be_disabled()
    shoot(page, f"{name}-consent")
    fits(page)
    page.check("#agree")
    page.click("#begin")
    page.wait_for_selector("#sound:not([hidden])")
    page.click("#speak")
    page.fill("#heard", "000")
    page.click("#digits .main")
    expect(page.locator("#sound-said")).not_to_be_empty()
    shoot(page, f"{name}-sound")
    fits(page)
    token = next(c["value"] for c in page.context.cookies() if c["name"] == "rater")
    lab[1].tell(token, "sound_check", {"sound_check": "passed"})
    page.reload()
    return token


def watched(page):
    """Press Play and wait until the answer is unlocked."""
    expect(page.locator("#play")).to_be_enabled()
    assert page.locator("#locked").evaluate("f => f.disabled") and page.locator("#next").is_disabled()
    page.click("#play")
    page.wait_for_selector("#locked:not([disabled])")


def number(page):
    return page.locator("#number").text_content()


def test_a_study_for_wide_windows_says_so_on_a_phone(visit):
    page = visit("/rate/wide", PHONE)
    page.check("#agree")
    expect(page.locator("#narrow")).to_contain_text("1000 pixels")
    expect(page.locator("#begin")).to_be_disabled()
    fits(page)
    page.set_viewport_size(DESKTOP)
    expect(page.locator("#narrow")).to_be_hidden()
    expect(page.locator("#begin")).to_be_enabled()


def test_a_rater_at_a_desk_finishes_a_study_with_the_keyboard(lab, visit):
    page = visit("/rate/trial?PROLIFIC_PID=5f1a2b3c")
    token = enter(page, lab, "trial", "desk")
    expect(page.locator("#number")).to_have_text("Practice 1 of 1")
    assert page.url.endswith("/rate/trial") and page.title() == "Two videos"
    top = page.locator("#answers").bounding_box()["y"]
    page.keyboard.press("ArrowLeft")
    assert page.locator("#answers :checked").count() == 0  # not before both were heard
    watched(page)
    shoot(page, "desk-practice")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    expect(page.locator("#explained")).to_contain_text("half a second late")
    shoot(page, "desk-explained")
    page.keyboard.press("Enter")
    expect(page.locator("#number")).to_have_text("1 of 4")
    page.reload()
    expect(page.locator("#number")).to_have_text("1 of 4")  # the same pair
    for k in range(1, 5):
        expect(page.locator("#number")).to_have_text(f"{k} of 4")
        assert abs(page.locator("#answers").bounding_box()["y"] - top) < 140  # a trap's or practice's sentence
        expect(page.locator("#play")).to_be_enabled()
        page.keyboard.press(" ")
        page.wait_for_selector("#locked:not([disabled])")
        instruction = page.locator("#trap").text_content() if page.locator("#trap").is_visible() else ""
        page.keyboard.press(
            "ArrowRight" if "Right" in instruction or k % 2 else "ArrowLeft" if instruction else "ArrowDown"
        )
        if k == 2:
            shoot(page, "desk-answered")
            page.keyboard.press("Enter")
            expect(page.locator("#number")).to_have_text("3 of 4")
            page.click("#back")
            expect(page.locator("#number")).to_have_text("2 of 4")
            expect(page.locator("#next")).to_be_enabled()  # the answer is there, and may be changed
            page.keyboard.press("ArrowUp" if not instruction else "ArrowLeft")
        page.keyboard.press("Enter")
    page.wait_for_selector("#end:not([hidden])")
    assert re.fullmatch("[0-9A-F]{8}", page.locator("#code").text_content())
    shoot(page, "desk-end")
    tables = lab[1].tables("trial")
    votes = tables["votes"]
    assert len(votes) == 6 and (votes["revision"] == 1).sum() == 1
    from resynced.study_results import read_votes

    seen = read_votes(lab[1].study("trial"), tables["ballots"], votes).all
    assert set(seen["playback"]) <= {"passed", "failed"} and (seen["playback"] == "passed").sum() >= 3
    page.click("#delete")
    shoot(page, "desk-delete")
    page.click("#keep")
    assert lab[1].standing(token).answered == 5
    page.click("#delete")
    page.click("#delete-now")
    expect(page.locator("#end-title")).to_contain_text("deleted")
    assert lab[1].tables("trial")["votes"].empty


def test_a_rater_with_a_phone_finishes_scales_in_korean_and_can_pause(lab, visit):
    page = visit("/rate/scales", PHONE, has_touch=True, is_mobile=True, color_scheme="dark")
    enter(page, lab, "scales", "phone")
    expect(page.locator("#number")).to_have_text("1 / 3")
    fits(page)
    page.click("#pause")
    page.click("#go-on")
    expect(page.locator("#number")).to_have_text("1 / 3")
    for k in range(1, 4):
        expect(page.locator("#number")).to_have_text(f"{k} / 3")
        expect(page.locator("#play")).to_be_enabled()
        page.tap("#play")
        page.wait_for_selector("#locked:not([disabled])")
        for scale in ("sync", "quality", "experience"):
            assert page.locator("#next").is_disabled()
            page.locator(f"label:has([name={scale}][value='3'])").tap()
        if k == 1:
            shoot(page, "phone-scales")
            assert page.locator("#next").bounding_box()["height"] >= 96
        page.tap("#next")
    page.wait_for_selector("#end:not([hidden])")
    fits(page)
    shoot(page, "phone-end")
    assert len(lab[1].tables("scales")["votes"]) == 3


def test_what_cannot_be_played_smoothly_is_said_and_the_study_goes_on(lab, visit):
    page = visit("/rate/trial", PHONE, has_touch=True, is_mobile=True)
    enter(page, lab, "trial", "phone2")
    watched(page)
    shoot(page, "phone-pair")
    fits(page)
    for label in page.locator(".choice label").all():
        assert label.bounding_box()["height"] >= 96
    page.tap("#broken")
    expect(page.locator("#number")).to_have_text("1 of 4")
    votes = lab[1].tables("trial")["votes"]
    assert votes["answer"].str.contains("cannot_play").sum() == 1


def test_two_videos_play_in_step_and_the_sound_is_that_of_the_one_pointed_at(lab, visit):
    page = visit("/rate/both", viewport={"width": 1280, "height": 1000}, color_scheme="dark")
    enter(page, lab, "both", "both")
    expect(page.locator("#play")).to_be_enabled()
    page.click("#play")
    while page.evaluate("document.querySelector('figure video').currentTime") < 0.3:
        page.wait_for_timeout(20)
    apart = page.evaluate("Math.abs([...document.querySelectorAll('video')].reduce((s, v) => v.currentTime - s, 0))")
    assert apart < 0.3
    page.hover("figure[data-side=right] video")
    assert page.evaluate("[...document.querySelectorAll('video')].map(v => v.muted)") == [True, False]
    page.wait_for_selector("#locked:not([disabled])")
    shoot(page, "both")
    for side in ("left", "right"):
        for scale in ("sync", "quality", "experience"):
            page.locator(f"label:has([name={side}_{scale}][value='4'])").click()
    page.locator("label.tie").click()
    page.click("#next")
    page.wait_for_selector("#end:not([hidden])")
    timings = lab[1].tables("both")["votes"]["timings"].iloc[0]
    assert '"left_heard_s"' in timings and '"right_heard_s"' in timings


def test_the_operator_watches_and_publishes(lab, visit):
    page = visit("/operator/login")
    page.fill("#password", PASSWORD)
    page.click("form button")
    page.goto(f"{lab[0]}/studies")
    fits(page)
    shoot(page, "studies")
    page.click("a:text-is('scales')")
    page.wait_for_url("**/studies/scales")
    shoot(page, "study")
    page.click("a:text-is('Results')")
    expect(page.locator("h1")).to_be_visible()
    shoot(page, "results")
    page.set_viewport_size(PHONE)
    fits(page)
    shoot(page, "results-phone")
    page.goto(f"{lab[0]}/studies")
    fits(page)
    shoot(page, "studies-phone")
