"""Search, Teach and Live in a real browser, whose camera shows a moving test picture."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import av
import pytest
from playwright.sync_api import Page, ViewportSize, expect
from serving import Server, serving_here
from visiting import DESK, PHONE, WITHIN_MS, open_page

from nonlocal_video.app.application import create_app
from nonlocal_video.inference.load import load
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.models.checkpoint import save_checkpoint

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]


def open_tab(page: Page, server: Server, name: str) -> None:
    open_page(page, server)
    page.get_by_role("tab", name=name).click()


def test_search_finds_plays_and_saves_moments(page: Page, small_server: Server) -> None:
    open_tab(page, small_server, "Search")
    page.get_by_role("button", name="Look through").click()
    said = page.locator("#search-said")
    expect(said).to_contain_text("3 clips can be searched", timeout=WITHIN_MS)
    expect(page.locator("#search-moment")).to_be_hidden()
    page.locator("#search-example input").click()
    page.get_by_role("option", name="a.mp4").click()
    page.wait_for_function("document.querySelector('#search-player video').duration > 1.9")
    page.evaluate("document.querySelector('#search-player video').currentTime = 0.5")
    page.locator("#search-moment").click()
    moments = page.locator("#search-results .moment")
    expect(said).to_contain_text("like a.mp4, at 0:00.", timeout=WITHIN_MS)
    expect(moments.first.locator("video[src]")).to_be_attached(timeout=WITHIN_MS)
    page.wait_for_function("document.querySelector('#search-results video').videoWidth > 0")
    moments.first.get_by_label("Save this one").check()
    page.locator("#search-save").click()
    archive = page.locator("#search-saved a").first
    expect(archive).to_be_visible(timeout=WITHIN_MS)
    found = page.request.get(str(archive.evaluate("link => link.href"))).body()
    assert [name[:5] for name in zipfile.ZipFile(io.BytesIO(found)).namelist()] == ["0001_"]
    name = moments.first.locator("strong").inner_text()
    moments.first.get_by_role("button", name="More like this").click()
    expect(said).to_contain_text(f"like {name}", timeout=WITHIN_MS)


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_the_buttons_stay_where_they_are_while_the_example_loads(
    page: Page, small_server: Server, clip_folder: Path, viewport: ViewportSize
) -> None:
    """A press would miss a button that moves away below it."""
    page.set_viewport_size(viewport)
    page.route(re.compile(r"gradio_api/file=.*\.mp4"), lambda route: None)
    open_tab(page, small_server, "Search")
    page.get_by_role("button", name="Look through").click()
    expect(page.locator("#search-said")).to_contain_text("3 clips can be searched", timeout=WITHIN_MS)
    page.locator("#search-upload input[type=file]").set_input_files(clip_folder / "a.mp4")
    button = page.locator("#search-whole")
    expect(button).to_be_visible(timeout=WITHIN_MS)
    page.wait_for_function("document.querySelector('#search-player video').hasAttribute('src')")
    page.locator("#search-moment").click()  # it stands at its beginning, loaded or not
    expect(page.locator("#search-said")).to_contain_text("like a.mp4, at 0:00.", timeout=WITHIN_MS)
    before = button.bounding_box()
    page.unroute_all()  # lets those go that were held
    page.wait_for_function("document.querySelector('#search-player video').videoWidth > 0")
    assert button.bounding_box() == before


def test_search_takes_an_example_that_the_browser_cannot_play(
    page: Page, small_server: Server, clip_folder: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old.avi"
    with av.open(str(clip_folder / "a.mp4")) as source, av.open(str(old), "w") as container:
        stream = container.add_stream("mpeg4", rate=10, width=96, height=72)
        for frame in source.decode(video=0):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), format="rgb24")))
        container.mux(stream.encode())
    open_tab(page, small_server, "Search")
    page.get_by_role("button", name="Look through").click()
    said = page.locator("#search-said")
    expect(said).to_contain_text("3 clips can be searched", timeout=WITHIN_MS)
    page.locator("#search-upload input[type=file]").set_input_files(old)
    expect(page.locator("#search-player")).to_contain_text("cannot play this kind of file", timeout=WITHIN_MS)
    expect(page.locator("#search-moment")).to_be_hidden()
    page.locator("#search-whole").click()
    expect(said).to_contain_text("like old.avi", timeout=WITHIN_MS)


def test_teach_by_dropped_and_recorded_clips(page: Page, small_server: Server, clip_folder: Path) -> None:
    page.context.grant_permissions(["camera"])
    open_tab(page, small_server, "Teach")
    says = page.locator(".teach-says")
    for number, (name, clip) in enumerate((("one", "a.mp4"), ("two", "b/c.mp4"))):
        card = page.locator(".teach-class").nth(number)
        card.get_by_label("Name of this action").fill(name)
        card.get_by_label("Name of this action").press("Enter")
        expect(page.locator(".teach-class").nth(number).get_by_label(f"Remove this action: {name}")).to_be_visible()
        page.locator(".teach-class").nth(number).locator("input[type=file]").set_input_files(clip_folder / clip)
        expect(page.locator(".teach-clips .teach-clip")).to_have_count(number + 1, timeout=WITHIN_MS)
    expect(says).to_contain_text("2 actions, one clip each", timeout=WITHIN_MS)
    for number in range(2):
        hold = page.locator(".teach-class").nth(number).get_by_role("button", name="Hold to record")
        hold.hover()
        page.mouse.down()
        expect(page.locator(".teach-hold.is-recording")).to_be_visible(timeout=WITHIN_MS)
        page.wait_for_timeout(1000)  # what is shorter than 0.7 s is not kept
        page.mouse.up()
        expect(page.locator(".teach-clips .teach-clip")).to_have_count(3 + number, timeout=WITHIN_MS)
    expect(says).to_contain_text("of 4 left-out clips right", timeout=WITHIN_MS)
    page.locator(".teach-try input[type=file]").set_input_files(clip_folder / "z with space.mp4")
    expect(page.locator(".teach-bars li")).to_have_count(2, timeout=WITHIN_MS)
    page.get_by_role("button", name="Use it in Recognise").click()
    expect(page.locator("#teach-used")).to_contain_text("Recognise now uses your model", timeout=WITHIN_MS)
    expect(page.locator("#teach-download")).to_be_visible()


def test_teach_leaves_the_place_where_one_is(page: Page, small_server: Server, clip_folder: Path) -> None:
    """What is drawn anew keeps the keyboard's place, before a letter is typed, too."""
    open_tab(page, small_server, "Teach")
    card = page.locator(".teach-class").first
    card.get_by_label("Name of this action").fill("one")
    card.get_by_label("Name of this action").press("Enter")
    expect(card.get_by_label("Remove this action: one")).to_be_visible()
    second = page.locator(".teach-class").nth(1).get_by_label("Name of this action")
    second.focus()
    card.locator("input[type=file]").set_input_files(clip_folder / "a.mp4")
    expect(page.locator(".teach-clip")).to_have_count(1, timeout=WITHIN_MS)
    expect(second).to_be_focused()
    card.get_by_role("button", name="Hold to record").focus()
    card.locator("input[type=file]").set_input_files(clip_folder / "b/c.mp4")
    expect(page.locator(".teach-clip")).to_have_count(2, timeout=WITHIN_MS)
    expect(card.get_by_role("button", name="Hold to record")).to_be_focused()


def test_a_clip_that_does_not_arrive_is_said_beside_its_action(
    page: Page, small_server: Server, clip_folder: Path
) -> None:
    open_tab(page, small_server, "Teach")
    page.route("**/upload*", lambda route: route.fulfill(status=507, body="the disk is full"))
    card = page.locator(".teach-class").first
    card.locator("input[type=file]").set_input_files(clip_folder / "a.mp4")
    expect(card.get_by_role("alert")).to_contain_text("It was not sent", timeout=WITHIN_MS)
    page.unroute_all()
    card.locator("input[type=file]").set_input_files(clip_folder / "a.mp4")
    expect(page.locator(".teach-clip")).to_have_count(1, timeout=WITHIN_MS)
    expect(card.get_by_role("alert")).to_be_hidden()


def test_live_answers_for_the_camera_until_it_is_stopped(page: Page, small_server: Server) -> None:
    page.context.grant_permissions(["camera"])
    open_tab(page, small_server, "Live")
    page.get_by_role("button", name="Start the camera").click()
    expect(page.locator(".live.has-answer")).to_be_attached(timeout=WITHIN_MS)
    expect(page.locator(".live-bars li")).to_have_count(5)
    expect(page.locator(".live-label")).to_contain_text("action")
    for _ in range(2):  # it goes on
        with page.expect_response(lambda response: "/live/" in response.url, timeout=WITHIN_MS) as answered:
            pass
        assert answered.value.ok
    assert page.locator(".live-strip span").count() >= 1
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Start the camera")).to_be_visible()
    assert page.evaluate("document.querySelector('.live-video').srcObject") is None, "the camera is given back"


def test_without_a_camera_the_page_says_so(page: Page, small_server: Server) -> None:
    page.add_init_script("Object.defineProperty(navigator, 'mediaDevices', {value: undefined})")
    page.add_init_script("Object.defineProperty(window, 'isSecureContext', {value: false})")
    open_tab(page, small_server, "Live")
    expect(page.locator(".live-word")).to_contain_text("only to pages over HTTPS")
    page.get_by_role("tab", name="Teach").click()
    expect(page.locator(".teach-camera-says")).to_contain_text("only to pages over HTTPS")


def test_on_a_phone_teach_begins_with_what_to_do(page: Page, small_server: Server) -> None:
    page.set_viewport_size({"width": 360, "height": 800})
    open_tab(page, small_server, "Teach")
    says, card = page.locator(".teach-says").bounding_box(), page.locator(".teach-class").first.bounding_box()
    assert says is not None
    assert card is not None
    assert says["y"] + says["height"] <= card["y"]


def test_two_models_are_compared_without_a_press(
    page: Page, tmp_path: Path, recognizer: Recognizer, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path / "other.safetensors", recognizer.network, replace(recognizer.card, name="other"))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with (
        load(tmp_path / "other.safetensors", device="cpu", runtime="torch") as other,
        serving_here(create_app([recognizer, other])) as url,
    ):
        page.goto(url)
        page.get_by_role("tab", name="Models").click()
        page.locator("#compare-clip input[type=file]").set_input_files(clip_folder / "a.mp4")
        expect(page.locator("#compare[data-state=done]")).to_be_visible(timeout=WITHIN_MS)
        expect(page.locator("#compare-players figure")).to_have_count(2)
        expect(page.locator("#compare-said .headline")).to_contain_text("Both say action")
        page.get_by_label("After", exact=True).click()
        page.get_by_role("option", name="tiny").click()
        expect(page.locator("#compare-said .headline")).to_have_text("Choose two different models.", timeout=WITHIN_MS)
        expect(page.locator("#compare-players figure")).to_have_count(0)
        page.goto("about:blank")  # an open page holds a connection, for which the server would wait
