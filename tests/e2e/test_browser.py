"""The page in a real browser, against the real server."""

import os
import time
from pathlib import Path

import pytest

import demo_server

pytest.importorskip("fastapi")
webdriver = pytest.importorskip("selenium.webdriver")

from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

DRIVER, BROWSER = Path("/usr/bin/chromedriver"), Path("/usr/bin/chromium")
SECONDS = 300
COLOURS = """
const canvas = document.querySelector(arguments[0]);
const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
const sums = [0, 0, 0];
for (let i = 0; i < pixels.length; i += 4) for (let c = 0; c < 3; c++) sums[c] += pixels[i + c];
return sums.map((sum) => sum / (pixels.length / 4));
"""
SLIDE = """
const slider = document.getElementById(arguments[0]);
slider.value = arguments[1];
slider.dispatchEvent(new Event("input", {bubbles: true}));
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with demo_server.serving(tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture(scope="module")
def driver(server):
    for program in (DRIVER, BROWSER):
        if not program.exists():
            pytest.skip(f"{program} is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    words = ["--headless=new", "--window-size=1280,1000", "--disable-dev-shm-usage"]
    words += ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    words += ["--no-sandbox"] if os.geteuid() == 0 else []
    for word in words:
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    started.set_page_load_timeout(SECONDS)
    yield started
    started.quit()


class Page:
    """What a visitor does and sees."""

    def __init__(self, driver, address):
        self.driver = driver
        driver.get(f"{address}/#try")
        driver.refresh()  # a new fragment alone loads nothing
        self.until(lambda: self.body().get_attribute("data-started"))
        self.until(lambda: self.looks() == 1)  # a sample is looked at without being asked for

    def body(self):
        return self.driver.find_element(By.TAG_NAME, "body")

    def one(self, identity):
        return self.driver.find_element(By.ID, identity)

    def until(self, condition):
        return WebDriverWait(self.driver, SECONDS, 0.1).until(lambda _: condition())

    def looks(self):
        return int(self.one("panel-try").get_attribute("data-shown") or 0)

    def colours(self, canvas):
        return self.driver.execute_script(COLOURS, canvas)

    def slide(self, identity, value):
        self.driver.execute_script(SLIDE, identity, str(value))

    def upload(self, panel, path):
        self.driver.find_element(By.CSS_SELECTOR, f"#{panel} input[type=file]").send_keys(str(path))

    def choose(self, root, role, value):
        found = self.driver.find_element(By.CSS_SELECTOR, f"#{root} select[data-role={role}]")
        Select(found).select_by_value(value)

    def complaints(self):
        """What the browser logged: errors of scripts, and what the page's policy forbade."""
        return [line for line in self.driver.get_log("browser") if line["level"] == "SEVERE"]


@pytest.fixture
def page(driver, server):
    opened = Page(driver, server.address)
    yield opened
    assert opened.complaints() == []


def test_uploaded_picture_is_looked_at_and_the_slider_moves_the_overlay(page, tmp_path):
    (tmp_path / "cat.png").write_bytes(demo_server.picture(kind="PNG"))
    page.upload("try-source", tmp_path / "cat.png")
    page.until(lambda: page.looks() == 2)
    assert page.one("try-message").text == ""
    assert "ms" in page.one("try-cost").text
    assert "MACs" in page.one("try-cost").text
    assert "%" in page.one("try-found").text
    seen = {}
    for value in (0, 50, 100):
        page.slide("try-opacity", value)
        seen[value] = page.colours("#try-stage canvas")
        assert page.one("try-opacity-value").text == f"{value} %"
    for plain, half, full in zip(seen[0], seen[50], seen[100], strict=True):
        assert abs(half - (plain + full) / 2) < 1.5
    assert max(abs(a - b) for a, b in zip(seen[0], seen[100], strict=True)) > 10


def test_row_of_the_legend_shows_its_class_alone(page):
    before = page.colours("#try-stage canvas")
    page.driver.find_element(By.CSS_SELECTOR, "#try-found li button").click()
    assert page.colours("#try-stage canvas") != before
    page.driver.find_element(By.CSS_SELECTOR, "#try-found li button").click()
    assert page.colours("#try-stage canvas") == before


def test_picture_that_only_the_server_can_decode_is_shown(page, tmp_path):
    (tmp_path / "cat.tif").write_bytes(demo_server.picture(kind="TIFF"))
    page.upload("try-source", tmp_path / "cat.tif")
    page.until(lambda: page.looks() == 2)
    assert sum(page.colours("#try-stage canvas")) > 0


def test_classes_and_boxes_are_shown(page):
    page.driver.find_element(By.CSS_SELECTOR, "#try-choice [data-task=classification]").click()
    page.until(lambda: page.looks() == 2)
    assert len(page.driver.find_elements(By.CSS_SELECTOR, "#try-found .bars > div")) == 5
    page.driver.find_element(By.CSS_SELECTOR, "#try-choice [data-task=detection]").click()
    page.until(lambda: page.looks() == 3)
    assert "box" in page.one("try-found").text
    assert page.driver.find_elements(By.CSS_SELECTOR, "#try-found li") != []
    plain = page.colours("#try-stage canvas")
    page.slide("try-opacity", 0)
    assert page.colours("#try-stage canvas") != plain  # the boxes fade with the slider


def test_refusals_are_shown_and_script_in_a_file_name_stays_text(page, tmp_path):
    name = "<img src=x onerror=document.title='broken'>.png"
    (tmp_path / name).write_bytes(b"only words")
    page.upload("try-source", tmp_path / name)
    page.until(lambda: "not a picture" in page.one("try-message").text)
    assert name in page.one("try-source").text
    (tmp_path / name).write_bytes(demo_server.picture())
    page.upload("try-source", tmp_path / name)
    page.until(lambda: page.looks() == 2)
    assert page.driver.title == "espnetv2 demo"
    logged = [line for line in page.complaints() if "422" not in line["message"]]
    assert logged == []


def test_two_widths_are_compared(page):
    page.one("tab-compare").click()
    page.choose("compare-choice-first", "network", "espnetv2_seg_s0_5.camvid")
    page.choose("compare-choice-second", "network", "run:wide")
    page.one("compare-run").click()
    page.until(lambda: page.one("compare-verdict").is_displayed())
    assert "faster" in page.one("compare-verdict").text
    assert "of the pixels agree" in page.one("compare-verdict").text
    canvases = page.driver.find_elements(By.CSS_SELECTOR, "#compare-stages canvas")
    assert [canvas.is_displayed() for canvas in canvases] == [True] * 3
    pictures = {page.driver.execute_script("return arguments[0].toDataURL()", c) for c in canvases}
    assert len(pictures) == 3


def test_clip_is_drawn_on_and_plays(page, server, tmp_path):
    demo_server.write_clip(tmp_path / "clip.mp4")
    page.one("tab-video").click()
    page.one("video-file").send_keys(str(tmp_path / "clip.mp4"))
    page.until(lambda: page.one("video-result").is_displayed())
    assert "12 of 12 frames" in page.one("video-count").text
    page.until(
        lambda: page.driver.execute_script(
            "return document.getElementById('video-result').videoWidth"
        )
    )
    assert page.driver.execute_script(
        "const video = document.getElementById('video-result');"
        "return [video.videoWidth, video.videoHeight]"
    ) == [240, 180]
    assert "%" in page.one("video-found").text
    page.driver.get("about:blank")  # who leaves takes the clip along
    until = time.monotonic() + 30
    while server.left() and time.monotonic() < until:
        time.sleep(0.1)
    assert server.left() == []


def test_camera_runs_at_the_rate_of_the_engine(page):
    page.one("tab-video").click()
    page.one("video-camera").click()
    page.until(lambda: int(page.one("panel-video").get_attribute("data-frames") or 0) >= 5)
    assert "frames a second" in page.one("video-message").text
    page.one("video-stop").click()
    assert page.one("video-empty").is_displayed()


def test_unit_is_opened(page):
    page.one("tab-inside").click()
    page.until(lambda: page.one("panel-inside").get_attribute("data-measured"))
    assert len(page.driver.find_elements(By.CSS_SELECTOR, "#inside-maps canvas")) == 9
    text = page.one("inside-grids").text
    assert "field 9 x 9, 89 % holes" in text
    first = page.colours("#inside-maps canvas")
    page.slide("inside-channel", 3)
    assert page.colours("#inside-maps canvas") != first
    assert "this unit" in page.one("inside-limits").text


def test_own_runs_can_be_tried(page):
    page.one("tab-own").click()
    page.until(lambda: len(page.driver.find_elements(By.CSS_SELECTOR, ".run")) == 2)
    runs = page.driver.find_elements(By.CSS_SELECTOR, ".run")
    wide = next(run for run in runs if run.text.startswith("wide"))
    wide.find_element(By.TAG_NAME, "button").click()
    page.until(lambda: page.looks() == 2)
    chosen = page.driver.find_element(By.CSS_SELECTOR, "#try-choice select[data-role=network]")
    assert chosen.get_attribute("value") == "run:wide"


def test_keyboard_reaches_every_tab(page):
    page.one("tab-try").send_keys(Keys.ARROW_RIGHT)
    assert page.driver.switch_to.active_element.get_attribute("id") == "tab-compare"
    assert page.one("panel-compare").is_displayed()
    page.driver.switch_to.active_element.send_keys(Keys.END)
    assert page.one("panel-own").is_displayed()
    assert not page.one("panel-compare").is_displayed()


def test_phone_needs_no_sideways_scrolling(page):
    try:
        page.driver.set_window_size(390, 844)
        for name in ("compare", "video", "inside", "own", "try"):
            page.one(f"tab-{name}").click()
            wide = page.driver.execute_script(
                "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert wide <= 0, name
    finally:
        page.driver.set_window_size(1280, 1000)


def test_json_endpoint_answers_beside_the_page(page, server):
    status, answer = server.post("/predict", demo_server.picture())
    assert status == 200
    shown = page.driver.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "fetch('/health').then((answer) => answer.json()).then(done);"
    )
    assert shown["ready"] is True
    assert answer["result"]["shares"]
