"""The page's answers, and the whole of it in a browser."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

gradio = pytest.importorskip("gradio")

from conftest import REPOSITORY
from serving import draw_photo, free_port, serving

from err_seg.data import ImageReadError
from err_seg.inference import NOTHING, Words, WordsError
from err_seg.vocabulary import Vocabulary
from err_seg.web import create_app, page

CHROMIUM = shutil.which("chromium")
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


@pytest.fixture
def photo(tmp_path):
    return draw_photo(tmp_path / "photo.png")


@pytest.fixture
def model(toy_model):
    return toy_model().eval()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder that the page has to itself."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # put back afterwards, whatever the page sets
    path = tmp_path / "page"
    path.mkdir()
    return path


def test_answer(model, photo):
    _, note, rows = page.label_upload(model, str(photo), "cat; dog\nsofa, couch", "", 0.0, 2)
    assert note.endswith("2 of 3 classes kept.")
    expected = model.predict([photo], ["cat", "dog", "sofa, couch"], num_kept=2)[0]
    names = [expected.vocabulary[i].split(",")[0] for i in expected.kept.tolist()]
    assert sorted(row[0] for row in rows) == sorted(names)


def test_masks_cover_every_pixel_once():
    labels = np.array([[0, 0, 1, NOTHING], [0, 0, 1, 1]])
    masks, color_map = page.annotations(labels, Words(("cat", "sofa, couch"), ("wall",)))
    assert [entry for _, entry in masks] == ["cat 50.0%", "sofa 37.5%", "none of these 12.5%"]
    assert color_map.keys() == {entry for _, entry in masks}
    for (mask, _), index in zip(masks, (0, 1), strict=False):
        np.testing.assert_array_equal(mask > 0, labels == index)


def test_a_vocabulary_s_own_colours_are_shown():
    words = Words(Vocabulary(["cat", "dog"], {"dog": (1, 2, 3)}), ("wall",))
    _, color_map = page.annotations(np.array([[0, 1]]), words)
    assert color_map["dog 50.0%"] == "#010203"


def test_wrong_input(model, photo, tmp_path, monkeypatch):
    (tmp_path / "text.png").write_text("text")
    for path, message in ((None, "Choose an image"), (str(tmp_path / "text.png"), "not an image")):
        with pytest.raises(ImageReadError, match=message):
            page.label_upload(model, path, "cat, dog", "", 0.0, 2)
    with pytest.raises(WordsError, match="no class names"):
        page.label_upload(model, str(photo), " ", "", 0.0, 2)
    with pytest.raises(WordsError, match="up to 1000"):
        page.label_upload(model, str(photo), ",".join(map(str, range(1001))), "", 0.0, 2)
    monkeypatch.setattr(page, "MAX_PIXELS", 1000)
    with pytest.raises(ImageReadError, match="90×60 pixels"):
        page.label_upload(model, str(photo), "cat, dog", "", 0.0, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_nothing_is_left_behind(tmp_path, name):
    """The folder with uploads and results goes when the page is closed."""
    command = [sys.executable, str(REPOSITORY / "tools" / "web.py"), "--model", "mini", "--port", str(free_port())]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as page:
        assert page.stdout.readline().startswith("open http://127.0.0.1:")
        time.sleep(2)  # until it serves
        assert list(tmp_path.glob("err_seg_web_*/*/scene_0.png"))
        page.send_signal(getattr(signal, name))
        assert page.wait(60) == 0
    assert not list(tmp_path.glob("err_seg_web_*"))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_in_a_browser(model, photo, folder, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    (tmp_path / "bad.jpg").write_text("text")
    hosts, complaints = set(), []
    with serving(create_app(model, "cat, dog", folder, [photo])) as site, playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        tab = browser.new_page()
        tab.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        tab.on("response", lambda response: complaints.append(response.url) if response.status >= 400 else None)
        tab.goto(f"http://127.0.0.1:{site.port}/")
        button = tab.get_by_role("button", name="Label the image")
        button.wait_for(timeout=60_000)
        button.click()
        tab.get_by_text("Choose an image first").wait_for()
        assert [url.split("?")[0].split("/")[-1] for url in complaints] == ["join"]
        tab.set_input_files("input[type=file]", photo)
        tab.get_by_label("Classes").first.fill("cup, spoon, saucer")
        tab.locator("img[src*='photo']").first.wait_for()
        button.click()
        tab.get_by_text("3 of 3 classes kept").wait_for()
        assert tab.get_by_text("%").count() >= 3
        tab.screenshot(path=tmp_path / "page.png")
        tab.reload()
        button.wait_for()
        tab.locator(".gallery-item").first.click()
        tab.locator("[data-testid=image] img, .image-container img").first.wait_for()
        button.click()
        tab.get_by_text("2 of 2 classes kept").wait_for()
        tab.reload()
        button.wait_for()
        tab.set_input_files("input[type=file]", tmp_path / "bad.jpg")
        tab.locator("img[src*='bad']").first.wait_for(state="attached")
        button.click()
        tab.get_by_text("bad.jpg: is not an image").wait_for()
        assert len(complaints) == 1
        shutil.rmtree(folder)
        button.click()
        tab.get_by_text("There is no such upload").wait_for()
        browser.close()
        assert {host for host in hosts if host} == {f"127.0.0.1:{site.port}"}
