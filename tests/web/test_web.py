"""The page's answers, and the whole of it in a browser."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.nn.modules.module import register_module_forward_pre_hook

gradio = pytest.importorskip("gradio")

from err_seg import ArgumentError, Exemplar
from err_seg.data import ImageReadError
from err_seg.jobs import UNLABELED, LabelSetError
from err_seg.jobs.formats import Result
from err_seg.jobs.label_set import LabelSet
from err_seg.mini.shapes import OBJECT_COLOURS
from err_seg.text.prompts import Vocabulary, VocabularyError
from err_seg.text.vocabularies import load_vocabulary
from err_seg.visualization.colors import class_colors, hex_color, oklab
from err_seg.web import create_app, files, labelling
from err_seg.web.drawing_widget import SIDE
from err_seg.web.example_widget import example_widget
from err_seg.web.files import Downloads, NoSuchUpload, Uploads
from tests.helpers.results import a_result
from tests.helpers.serving import CALL, FIELDS, free_port, image, serving, wait_for_answer
from tests.helpers.toy import REPOSITORY

CHROMIUM = shutil.which("chromium")
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


def label(
    model,
    folder,
    path,
    names="cat, dog",
    background="",
    threshold=0.0,
    num_kept=2,
    with_names=True,
    contrast=True,
    **more,
):
    return labelling.label_upload(
        model, Downloads(Uploads(folder)), path, names, background, threshold, num_kept, with_names, contrast, **more
    )


def test_answer(model, photo, folder):
    answer = label(model, folder, photo, "cat; dog\nsofa, couch")
    assert answer.note.endswith("2 of 3 classes kept.")
    expected = model.predict([photo], ["cat", "dog", "sofa, couch"], num_kept=2)[0]
    names = [expected.vocabulary[i].split(",")[0] for i in expected.kept.tolist()]
    assert sorted(row[0] for row in answer.kept) == sorted(names)
    assert [image.size for image in answer.pair] == [(540, 360)] * 2, "names need room: six times as large"
    assert not any(folder.iterdir()), "no file was asked for"


def test_a_class_by_example(model, photo, folder, tmp_path):
    mask = np.zeros((60, 90, 3), dtype=np.uint8)
    mask[:, :45] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    answer = label(model, folder, photo, num_kept=3, example=(" zorb ", photo, tmp_path / "mask.png"))
    assert {row[0] for row in answer.kept} == {"cat", "dog", "zorb"}
    shown = Exemplar(photo, mask[:, :, 0] > 0)
    words = model.vocabulary_with_examples(["cat", "dog"], {"zorb": [shown]}, use_names=False)
    expected = {row["name"]: row["share"] for row in model.predict(photo, words, num_kept=3).summary()}
    assert {row[0]: pytest.approx(row[1], abs=0.02) for row in answer.areas["data"]} == expected
    with pytest.raises(LabelSetError, match="a name"):
        label(model, folder, photo, example=("", photo, tmp_path / "mask.png"))
    Image.fromarray(mask[1:]).save(tmp_path / "mask.png")
    with pytest.raises(ArgumentError, match="of the image's size"):
        label(model, folder, photo, example=("zorb", photo, tmp_path / "mask.png"))


def test_the_mask_of_another_image_is_forgotten():
    with gradio.Blocks() as page:
        _, shown, mask = example_widget(gradio.Image())
    take, *_ = page.config["dependencies"]
    assert take["outputs"] == [shown._id, mask._id]
    assert "[image, null]" in take["js"]


def test_a_vocabulary_by_name(model, photo, folder):
    assert label(model, folder, photo, "voc20, my word").note.endswith("2 of 21 classes kept.")


def test_names_on_regions(model, photo, folder):
    with_names, without = (label(model, folder, photo, with_names=value).pair[1] for value in (True, False))
    assert np.any(np.asarray(with_names) != np.asarray(without))


def test_areas(model, photo, folder):
    answer = label(model, folder, photo, "cat", "dog")
    rows, styles = answer.areas["data"], answer.areas["metadata"]["styling"]
    assert {row[0] for row in rows} <= {"cat", "none of these"}
    assert sum(share for _, share, _ in rows) == pytest.approx(1), "numbers, since the page sorts by them"
    color = bytes(class_colors(["cat"])[0]).hex()
    assert [style[0].endswith(color) for style in styles] == [row[0] == "cat" for row in rows]
    nothing = label(model, folder, photo, threshold=1.0)
    assert nothing.areas["data"] == [["none of these", 1, None]]
    assert nothing.areas["metadata"]["display_value"] == [["none of these", "100.0%", ""]]
    assert not nothing.parts.constructor_args["value"][1][0][0].any()


@pytest.mark.parametrize(
    ("size", "shown"),
    [((3000, 2000), (1400, 933)), ((700, 1000), (700, 1000)), ((60, 90), (360, 540)), ((1, 5000), (1, 1400))],
)
def test_shown_size(size, shown):
    assert files.shown_size(size) == shown


def seen(labels, classes):
    """Return the masks and colours of a result with these labels."""
    image = np.zeros((*labels.shape, 3), dtype=np.uint8)
    segmentation = replace(a_result(len(classes), 1, size=labels.shape), vocabulary=tuple(classes))
    result = Result(name="", source="", image=image, segmentation=segmentation, label_set=LabelSet(classes))
    vars(result)["labels"] = labels
    parts, _ = labelling.classes_seen(result)
    return parts.constructor_args["value"][1], parts.constructor_args["color_map"]


def test_masks_cover_every_pixel_once():
    labels = np.array([[0, 0, 1, UNLABELED], [0, 0, 1, 1]])
    masks, color_map = seen(labels, ("cat", "sofa, couch"))
    assert [entry for _, entry in masks] == ["cat 50.0%", "sofa 37.5%", "none of these 12.5%"]
    assert color_map.keys() == {entry for _, entry in masks}
    for (mask, _), index in zip(masks, (0, 1), strict=False):
        np.testing.assert_array_equal(mask > 0, labels == index)


def test_a_vocabulary_s_own_colours_are_shown():
    classes = Vocabulary(["cat", "dog"], {"dog": (1, 2, 3)})
    _, color_map = seen(np.array([[0, 1]]), classes)
    assert color_map["dog 50.0%"] == "#010203"


def test_wrong_input(model, photo, folder, tmp_path, monkeypatch):
    (tmp_path / "text.png").write_text("text")
    for path, message in ((None, "Choose an image"), (tmp_path / "text.png", "not an image")):
        with pytest.raises(ImageReadError, match=message):
            label(model, folder, path)
    Image.open(photo).save(tmp_path / "photo.eps")
    (tmp_path / "photo.eps").rename(tmp_path / "eps.png")
    with pytest.raises(ImageReadError, match="is in the format EPS; this page takes AVIF"):
        label(model, folder, tmp_path / "eps.png")
    with pytest.raises(LabelSetError, match="no class names"):
        label(model, folder, photo, " ")
    with pytest.raises(LabelSetError, match="up to 1000"):
        label(model, folder, photo, ",".join(map(str, range(1001))))
    with pytest.raises(LabelSetError, match="class names of 100002 characters in all; this page takes up to 100000"):
        label(model, folder, photo, "cat", "a " * 49_999 + "b")
    monkeypatch.setattr(labelling, "MAX_PIXELS", 1000)
    with pytest.raises(ImageReadError, match="90×60 pixels"):
        label(model, folder, photo)


def test_an_endless_word_is_refused_at_once(model, photo, folder):
    """CLIP's tokenizer took 31 s for it, and hours for a longer one."""
    began = time.process_time()
    with pytest.raises(VocabularyError, match=r"the word 'a{40}'… has 30000 characters, more than 300; shorten it"):
        label(model, folder, photo, "cat, " + "a" * 30_000)
    assert time.process_time() - began < 1


def test_decoding_ends_in_time(model, photo, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "DECODING_SECONDS", 1)
    os.mkfifo(tmp_path / "endless.png")
    with pytest.raises(ImageReadError, match=r"endless.png: is not decoded within 1 s; save it as PNG"):
        files.read_upload(tmp_path / "endless.png")
    monkeypatch.undo()
    np.testing.assert_array_equal(files.read_upload(photo), np.asarray(Image.open(photo)))
    with pytest.raises(ImageReadError, match="no such file"):
        files.read_upload(tmp_path / "absent.png")


def test_labelling_ends_in_time(model, photo, folder, monkeypatch):
    monkeypatch.setattr(labelling, "LABELLING_SECONDS", 0)
    with pytest.raises(LabelSetError, match="labelling was stopped after 0 s; give fewer or shorter class names"):
        label(model, folder, photo, "a word, another")
    monkeypatch.undo()
    assert label(model, folder, photo, "a word, another").note.endswith("2 of 2 classes kept.")
    with register_module_forward_pre_hook(labelling.deadline(0)), ThreadPoolExecutor() as other_threads:
        assert len(other_threads.submit(model.predict, photo, ["a word", "another"]).result().kept) == 2


def test_colours_of_the_classes_shown_are_far_apart_in_all_files(model, photo, folder):
    """Three of four were blue."""
    vocabulary = load_vocabulary("ade150")
    store = Downloads(Uploads(folder))
    answer = labelling.label_upload(model, store, photo, "ade150", "", 0.0, 12, True, True)
    rows, styles = answer.areas["data"], answer.areas["metadata"]["styling"]
    shown = {row[0]: style[0][-7:] for row, style in zip(rows, styles, strict=True)}
    lab = oklab(np.array([[*bytes.fromhex(color[1:])] for color in shown.values()], dtype=np.uint8))
    apart = np.linalg.norm(lab[:, None] - lab, axis=2) + np.eye(len(lab))
    assert len(shown) >= 3
    assert apart.min() > 0.16
    (result,) = store.results.values()
    colors = class_colors(result.label_set.classes)
    assert {name: hex_color(colors[vocabulary.index(name)]) for name in shown} == shown
    entries = answer.parts.constructor_args["color_map"]
    assert {entry.rpartition(" ")[0]: color for entry, color in entries.items()} == shown


def test_the_overlay_in_any_strength(model, photo, folder):
    store = Downloads(Uploads(folder))
    with photo.open("rb") as content:
        path = store.uploads.store("photo.png", content)
    answer = labelling.label_upload(model, store, path, "cat, dog", "", 0.0, 2, False, True)
    (key,) = store.results
    plain, drawn = (np.asarray(image).astype(int) for image in answer.pair)
    shown = {
        percent: np.asarray(Image.open(store.write(key, "video", percent))).astype(int) for percent in (0, 55, 100)
    }
    assert shown[55].shape == drawn.shape
    assert abs(shown[55] - drawn).mean() < 2, "a JPEG of the same"
    assert abs(shown[0] - plain).mean() < abs(shown[55] - plain).mean() < abs(shown[100] - plain).mean()
    assert Image.open(store.write(key, "overlay", 100)).width >= 90
    with pytest.raises(NoSuchUpload):
        store.write("0" * 32, "video", 55)


def test_words_that_the_model_does_not_know(site, photo, monkeypatch):
    """The page says how to get at words that it knows."""

    def refuse(*_, **__):
        raise VocabularyError("does not know the word '<img src=x>'")

    monkeypatch.setattr("err_seg.web.page.label_upload", refuse)
    event = json.loads(site.post(CALL, {"data": [image(site.upload(photo)), *FIELDS]}).body)["event_id"]
    note = wait_for_answer(site, event)[0]
    assert "⚠ does not know the word &#x27;&lt;img src=x&gt;&#x27;" in note
    assert "“the initial class names”" in note


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


def draw_square(tab, color):
    """Draw the outline of a square in the middle of the canvas, with the mouse."""
    tab.get_by_label(color, exact=True).click()
    canvas = tab.locator("canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    corners = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x in (0.3, 0.7) for y in (0.3, 0.7)]
    tab.mouse.move(*corners[0])
    tab.mouse.down()
    for corner in (1, 3, 2):
        tab.mouse.move(*corners[corner], steps=3)
    tab.mouse.up()


@pytest.fixture
def tab(model, photo, folder):
    """The page in a browser, without a pointer's help for what is out of sight."""
    playwright = pytest.importorskip("playwright.sync_api")
    with serving(create_app(model, "cat, dog", folder, [photo])) as site, playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        tab = browser.new_page(viewport={"width": 1200, "height": 700})
        tab.goto(f"http://127.0.0.1:{site.port}/")
        tab.get_by_role("button", name="sample 1: photo.png").wait_for(timeout=60_000)
        yield tab
        browser.close()


def reload(tab):
    """Reload the page, and wait until it shows what it showed before, in whose place a new image would get lost."""
    tab.reload()
    tab.wait_for_function("window.isRestored")
    tab.wait_for_timeout(500)


def in_sight(tab, selector):
    """Whether an element lies within the window as it is scrolled."""
    tab.wait_for_timeout(1500)
    box = tab.locator(selector).first.bounding_box()
    return box["y"] >= -1 and box["y"] + box["height"] <= tab.viewport_size["height"] + 1


in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.mark.slow
@in_a_browser
def test_leaving_the_vocabularies_keeps_the_words(tab):
    words, known = tab.get_by_label("Classes").first, tab.get_by_label("Vocabularies")
    words.fill("cup, spoon")
    for leave in ("Tab", "Escape", None):
        known.click()
        tab.keyboard.press(leave) if leave else tab.get_by_text("Segment any image").click()
        tab.wait_for_timeout(500)
        assert words.input_value() == "cup, spoon", leave
        tab.get_by_text("Segment any image").click()
    known.click()
    tab.get_by_role("option", name="voc20: 20 names").click()
    tab.wait_for_timeout(500)
    assert words.input_value() == "voc20"


@pytest.mark.slow
@in_a_browser
def test_what_is_wrong_is_said_once(tab, tmp_path):
    assert not tab.get_by_text("Kept classes").is_visible(), "no empty tables"
    tab.get_by_role("button", name="Label the image").click()
    tab.get_by_text("Choose an image first").wait_for()
    assert tab.get_by_text("Error", exact=True).count() == 0
    (tmp_path / "large.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(25 * 2**20))
    tab.set_input_files("input[type=file]", tmp_path / "large.jpg")
    tab.get_by_text("exceed the maximum allowed size").wait_for()
    assert tab.get_by_text("Error", exact=True).count() == 1
    assert not tab.get_by_text("Kept classes").is_visible()


@pytest.mark.slow
@in_a_browser
@pytest.mark.parametrize("width", [1200, 400])
def test_the_result_comes_into_sight_and_survives_a_reload(tab, folder, width):
    tab.set_viewport_size({"width": width, "height": 700})
    tab.get_by_text("Draw an image").click()
    draw_square(tab, "blue")
    tab.get_by_role("button", name="Use the drawing").click()
    tab.locator("img[src*='drawing']").first.wait_for()
    tab.get_by_label("Classes").first.fill("cup, spoon, saucer")
    tab.get_by_role("button", name="Label the image").click()
    tab.get_by_text("3 of 3 classes kept").wait_for()
    assert in_sight(tab, "#result img")
    strength = tab.get_by_label("range slider for Strength of the colours (%)")
    strength.focus()
    tab.keyboard.press("End")
    tab.locator("#result img[src$='/video/100']").wait_for()
    for typed, shown in (("33.3", 33), ("-5", 0), ("1e9", 100)):
        tab.locator("#result input[type=number]").fill(typed)
        tab.locator(f"#result img[src$='/video/{shown}']").wait_for()
    assert tab.get_by_text("overlay (PNG)").get_attribute("href").endswith("/overlay/100")
    tab.reload()
    tab.locator("#result img[src$='/video/100']").wait_for()
    tab.get_by_text("3 of 3 classes kept").wait_for()
    assert tab.get_by_label("Classes").first.input_value() == "cup, spoon, saucer"
    assert tab.locator("img[src*='drawing']").first.is_visible()
    assert tab.get_by_text("Kept classes").is_visible()
    tab.get_by_role("button", name="Label the image").click()
    tab.wait_for_timeout(3000)
    tab.locator("#result img[src$='/video/100']").wait_for()
    shutil.rmtree(folder)
    tab.reload()
    tab.get_by_text("The labels will appear here").wait_for()
    tab.wait_for_function("document.querySelector('textarea')?.value == 'cup, spoon, saucer'")
    tab.wait_for_timeout(1000)
    assert not tab.locator("img[src*='drawing']").count(), "it is gone"
    assert not tab.get_by_text("Kept classes").is_visible()


@pytest.mark.slow
@in_a_browser
def test_what_another_version_of_the_page_kept_does_not_count(tab):
    tab.evaluate("sessionStorage.setItem('page', JSON.stringify(Array(40).fill(null)))")
    tab.reload()
    tab.get_by_role("button", name="sample 1: photo.png").click()
    tab.locator("img[src*='photo']").nth(1).wait_for()
    tab.get_by_role("button", name="Label the image").click()
    tab.get_by_text("2 of 2 classes kept").wait_for()


@pytest.mark.slow
@in_a_browser
def test_in_a_browser(model, photo, folder, tmp_path, monkeypatch):
    playwright = pytest.importorskip("playwright.sync_api")
    (tmp_path / "bad.jpg").write_text("text")
    hosts, complaints, said = set(), [], []
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
        assert not complaints
        tab.set_input_files("input[type=file]", photo)
        tab.get_by_label("Classes").first.fill("cup, spoon, saucer")
        tab.locator("img[src*='photo']").first.wait_for()
        button.click()
        tab.get_by_text("3 of 3 classes kept").wait_for()
        assert tab.get_by_text("%").count() >= 2
        images = tab.get_by_role("tabpanel").locator("img").all()
        assert [image.evaluate("image => image.naturalWidth") for image in images] == [540, 540]
        tab.get_by_role("tab", name="Class by class").click()
        tab.get_by_text("cup").last.wait_for()
        tab.get_by_label("Vocabularies").click()
        tab.get_by_role("option", name="voc20: 20 names").click()
        button.click()
        tab.get_by_text("of 20 classes kept").wait_for()
        with tab.expect_download() as download:
            tab.get_by_text("regions (COCO JSON)").click()
        assert json.loads(Path(download.value.path()).read_text())["images"][0]["file_name"] == "photo.png"
        reload(tab)
        tab.get_by_text("of 20 classes kept").wait_for()
        tab.get_by_label("Classes").first.fill("cat, dog")
        tab.get_by_text("Draw an image").click()
        draw_square(tab, "blue")
        use = tab.get_by_role("button", name="Use the drawing")
        with monkeypatch.context() as full:
            full.setattr("err_seg.web.server.LEAST_FREE", 2**80)
            tab.once("dialog", lambda dialog: (said.append(dialog.message), dialog.accept()))
            with tab.expect_event("dialog"):
                use.click()
        use.click()
        tab.locator("img[src*='drawing']").first.wait_for()
        button.click()
        tab.get_by_text("2 of 2 classes kept").wait_for()
        (drawing,) = folder.glob("*/drawing.png")
        pixels = np.asarray(Image.open(drawing))
        assert pixels.shape[:2] == (SIDE, SIDE)
        assert tuple(pixels[SIDE // 2, SIDE // 2, :3]) == OBJECT_COLOURS["blue"], "outlines are filled"
        assert tuple(pixels[2, 2, :3]) == (255, 255, 255)
        reload(tab)
        tab.locator(".gallery-item").first.click()
        tab.locator("[data-testid=image] img, .image-container img").first.wait_for()
        button.click()
        tab.get_by_text("2 of 2 classes kept").wait_for()
        reload(tab)
        tab.set_input_files("input[type=file]", tmp_path / "bad.jpg")
        tab.locator("img[src*='bad']").first.wait_for(state="attached")
        button.click()
        tab.get_by_text("bad.jpg: is not an image").wait_for()
        assert [url.split("?")[0].split("/")[-1] for url in complaints] == ["upload"]
        assert said == ["The server's disk is full; try again in an hour."]
        shutil.rmtree(folder)
        button.click()
        tab.get_by_text("There is no such upload").wait_for()
        assert tab.get_by_text("Error", exact=True).count() <= 2, "a badge and a heading"
        browser.close()
        assert {host for host in hosts if host} == {f"127.0.0.1:{site.port}"}
