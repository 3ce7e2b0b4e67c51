"""The page's answers, what the server gives away, and the whole of it in a browser."""

import shutil
import socket
import threading
import time

import numpy as np
import pytest
from PIL import Image

gradio = pytest.importorskip("gradio")

import uvicorn  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402

from err_seg.data import ImageReadError  # noqa: E402
from err_seg.inference import NOTHING, Words, WordsError  # noqa: E402
from err_seg.web import create_app, page  # noqa: E402

CHROMIUM = shutil.which("chromium")
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def model(toy_model):
    return toy_model().eval()


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


def test_wrong_input(model, photo, tmp_path, monkeypatch):
    (tmp_path / "text.png").write_text("text")
    for path, message in ((None, "Choose a picture"), (str(tmp_path / "text.png"), "not a picture")):
        with pytest.raises(ImageReadError, match=message):
            page.label_upload(model, path, "cat, dog", "", 0.0, 2)
    with pytest.raises(WordsError, match="no class names"):
        page.label_upload(model, str(photo), " ", "", 0.0, 2)
    with pytest.raises(WordsError, match="up to 1000"):
        page.label_upload(model, str(photo), ",".join(map(str, range(1001))), "", 0.0, 2)
    monkeypatch.setattr(page, "MAX_PIXELS", 1000)
    with pytest.raises(ImageReadError, match="90×60 pixels"):
        page.label_upload(model, str(photo), "cat, dog", "", 0.0, 2)


def test_server_gives_nothing_else_away(model, photo):
    with TestClient(create_app(model, "cat, dog")) as client:
        front = client.get("/")
        assert front.status_code == 200
        assert "default-src 'self'" in front.headers["Content-Security-Policy"]
        for path in ("/etc/passwd", str(photo), __file__):
            assert client.get(f"/gradio_api/file={path}").status_code == 403
        assert client.get("/docs").status_code == 404


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_in_a_browser(model, photo, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = create_app(model, "cat, dog")
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    (tmp_path / "bad.jpg").write_text("text")
    hosts = set()
    try:
        with playwright.sync_playwright() as browsers:
            browser = browsers.chromium.launch(executable_path=CHROMIUM, args=QUIET)
            tab = browser.new_page()
            tab.on("request", lambda request: hosts.add(request.url.split("/")[2]))
            tab.goto(f"http://127.0.0.1:{port}/")
            button = tab.get_by_role("button", name="Label the picture")
            button.wait_for(timeout=60_000)
            button.click()
            tab.get_by_text("Choose a picture first").wait_for()
            tab.set_input_files("input[type=file]", photo)
            tab.get_by_label("Classes").first.fill("cup, spoon, saucer")
            tab.locator("img[src*='photo']").first.wait_for()
            button.click()
            tab.get_by_text("3 of 3 classes kept").wait_for()
            assert tab.get_by_text("%").count() >= 3
            tab.screenshot(path=tmp_path / "page.png")
            tab.reload()
            button.wait_for()
            tab.set_input_files("input[type=file]", tmp_path / "bad.jpg")
            tab.locator("img[src*='bad']").first.wait_for(state="attached")
            button.click()
            tab.get_by_text("bad.jpg: is not a picture").wait_for()
            browser.close()
    finally:
        server.should_exit = True
        thread.join()
    assert {host for host in hosts if host} == {f"127.0.0.1:{port}"}
