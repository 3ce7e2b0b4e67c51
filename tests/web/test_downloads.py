"""The files of results: right, made on demand, and only for who labelled the image."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio")

from err_seg.utils.fingerprint import WeightsSource
from err_seg.web.files import Downloads, Uploads
from err_seg.web.labelling import label_upload
from tests.helpers.serving import CALL, FIELDS, image, wait_for_answer
from tests.helpers.training import environment


def labelled(site, path):
    """Label an upload; return the addresses of the files of its result."""
    event = json.loads(site.post(CALL, {"data": [image(path), *FIELDS]}).body)["event_id"]
    return ["/" + link for link in re.findall('href="(.+?)"', wait_for_answer(site, event)[-1])]


def test_downloads(site, photo, folder, model, tmp_path):
    """They hold what the model says at the image's own size, lie in the page's folder alone, and are made on demand."""
    before = {*tmp_path.rglob("*")}
    links = labelled(site, site.upload(photo))
    assert not {*tmp_path.rglob("photo_*")}, "nobody asked for a file yet"
    answers = [site.ask("GET", link) for link in links]
    labels, drawn, coco = (answer.body for answer in answers)
    assert {answer.status for answer in answers} == {200}
    names = [answer.headers["content-disposition"] for answer in answers]
    assert names == [f'attachment; filename="photo_{end}"' for end in ("labels.png", "overlay.png", "coco.json")]
    expected = model.predict([photo], ["cat", "dog"], num_kept=2)[0].labels.numpy()
    np.testing.assert_array_equal(Image.open(io.BytesIO(labels)), expected)
    assert Image.open(io.BytesIO(drawn)).width >= 90
    assert json.loads(coco)["images"][0]["file_name"] == "photo.png"
    new = {*tmp_path.rglob("*")} - before
    assert all(file.is_relative_to(folder) for file in new)
    assert site.ask("GET", links[0]).body == labels, "again"
    assert site.ask("HEAD", links[0]).status == 200


def test_only_who_knows_a_result_s_key_gets_its_files(site, photo, tmp_path):
    ours, theirs = (labelled(site, site.upload(photo)) for _ in range(2))
    assert not {*ours} & {*theirs}
    key = ours[0].split("/")[2]
    for other in (f"{int(key, 16) ^ 1:032x}", "0" * 32):
        assert site.ask("GET", f"/results/{other}/labels/55").status == 403
    for target in (
        *(f"/results/{name}/labels/5" for name in ("", key[:-1], key + "0", key.upper() + "x", "..", f"%2e%2e/{key}")),
        *(
            f"/results/{key}/{kind}/5"
            for kind in ("", "masks", "labels/", "labels.png", "../labels", "%2e%2e%2flabels")
        ),
        *(f"/results/{key}/labels{percent}" for percent in ("", "/", "/101", "/-1", "/5.5", "/005", "/5%00", "/5%0a")),
        *(f"/results/{key}", "/results/", "/results"),
    ):
        assert site.ask("GET", target).status == 404, target
    assert site.ask("POST", ours[0], b"{}").status == 404
    assert not {*tmp_path.rglob("photo_*")}


def test_files_are_made_one_at_a_time(site, photo, monkeypatch):
    (link, *_) = labelled(site, site.upload(photo))
    monkeypatch.setattr("err_seg.web.server.WAITING", 0)
    assert site.ask("GET", link).status == 503, "as many wait as may"


def test_only_the_latest_results_are_kept(site, photo, folder, monkeypatch):
    monkeypatch.setattr("err_seg.web.files.MOST_RESULTS", 2)
    path = site.upload(photo)
    first, second, third = (labelled(site, path) for _ in range(3))
    assert [site.ask("GET", links[0]).status for links in (first, second, third)] == [403, 200, 200]
    Path(path).unlink()
    assert [site.ask("GET", second[place]).status for place in (0, 1)] == [200, 403], "what was made before is there"


def test_files_name_the_weights_but_not_where_they_are(folder, model, photo):
    path = (uploads := Uploads(folder)).store(photo.name, io.BytesIO(photo.read_bytes()))
    downloads = Downloads(uploads, WeightsSource("/home/me/model.safetensors", "0" * 64))
    label_upload(model, downloads, path, *FIELDS[:-3])
    (key,) = downloads.results
    facts = json.loads(downloads.write(key, "coco").read_text())["info"]["weights"]
    assert (facts["file"], facts["sha256"]) == ("model.safetensors", "0" * 64)


def test_a_result_holds_no_maps_of_the_image_s_own_size(folder, model, photo):
    """A hundred results of large images must fit into memory."""
    path = (uploads := Uploads(folder)).store(photo.name, io.BytesIO(photo.read_bytes()))
    downloads = Downloads(uploads)
    label_upload(model, downloads, path, *FIELDS[:-3])
    ((key, result),) = downloads.results.items()
    downloads.write(key, "labels")
    assert result.segmentation.source is None
    assert "labels" not in vars(result.segmentation)


def test_uploads_are_decoded_where_there_is_no_fork_server(tmp_path):
    """As on Windows."""
    Image.new("RGB", (9, 7)).save(tmp_path / "photo.png")
    script = tmp_path / "script.py"
    script.write_text(
        "from multiprocessing import reduction\n"
        "reduction.HAVE_SEND_HANDLE = False\n"
        "from err_seg.web.files import read_upload\n"
        "if __name__ == '__main__':\n"
        "    print(read_upload('photo.png').shape)\n"
    )
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "(7, 9, 3)\n"
