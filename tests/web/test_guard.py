"""Ways in: whatever a client asks for, it gets uploads, samples, results and the page, and nothing else."""

import base64
import json
import os
import re
import socket
import time
from contextlib import suppress

import pytest
from PIL import Image

gradio = pytest.importorskip("gradio")

from err_seg.web import create_app
from err_seg.web.files import NoSuchUpload, Uploads
from err_seg.web.guard import MAX_EVENT, MAX_UPLOAD
from tests.helpers.serving import CALL, FIELDS, META, image, serving, wait_for_answer

JOIN, RUN, UPLOAD = (f"/gradio_api/{name}" for name in ("queue/join", "run/predict", "upload"))
SAMPLE_EVENT, SKETCH_EVENT, TAKE_EVENT, USE_EVENT, FORGET_EVENT, VOCABULARY_EVENT, LABEL_EVENT = range(7)


@pytest.fixture
def secret(tmp_path):
    """An image that nobody uploaded."""
    Image.new("RGB", (64, 64), (200, 30, 30)).save(tmp_path / "secret.png")
    return tmp_path / "secret.png"


def quoted(path, times=1):
    text = str(path)
    for _ in range(times):
        text = "".join(f"%{byte:02x}" for byte in text.encode())
    return text


def ways_in(folder, photo, secret, listener):
    """Paths by which someone may ask for a file that is not theirs, or that is not there."""
    (folder / "link.png").symlink_to(secret)
    (folder / "linked").symlink_to(secret.parent)
    (folder / "circle.png").symlink_to(folder / "circle.png")
    return {
        "absent in the folder": folder / "absent.png",
        "absent elsewhere": "/absent/absent.png",
        "absolute": secret,
        "no image": "/etc/passwd",
        "relative": os.path.relpath(secret),
        "dots": f"{folder}/../{secret.name}",
        "dots after an absent folder": f"{folder}/absent/../../{secret.name}",
        "many dots": "../" * 30 + str(secret)[1:],
        "link": folder / "link.png",
        "linked folder": folder / "linked" / secret.name,
        "dots after a link": f"{folder}/linked/../{secret.parent.name}/{secret.name}",
        "circle of links": folder / "circle.png",
        "by way of /proc": f"/proc/self/root{secret}",
        "two slashes": f"/{secret}",
        "encoded": quoted(secret),
        "encoded twice": quoted(secret, 2),
        "encoded dots": f"{folder}/%2e%2e/{secret.name}",
        "file:": f"file://{secret}",
        "http:": f"http://127.0.0.1:{listener.getsockname()[1]}/secret.png",
        "another address of the page": f"/gradio_api/file={secret}",
        "data:": "data:image/png;base64," + base64.b64encode(secret.read_bytes()).decode(),
        "null character at the end": f"{secret}\0",
        "null character within": f"{folder}\0/../{secret.name}",
        "blank at the end": f"{secret} ",
        "home": f"~/{secret.name}",
        "sample at its own place": photo,
        "Gradio's examples": os.path.join(os.path.dirname(gradio.__file__), "media_assets", "images", "bus.png"),
        "the program": __file__,
        "folder": folder,
        "nothing": "",
        "too long": "/a" * 5000,
    }


def test_every_way_in_has_the_same_answer(site, folder, photo, secret, capfd):
    """By every route that takes a path, what is not allowed and what is not there are told apart by nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        paths = ways_in(folder, photo, secret, listener)
        before = sorted(folder.rglob("*"))
        answers = {}
        for name, path in paths.items():
            for extra in ({}, {"is_stream": True}, {"url": f"http://127.0.0.1:{site.port}/gradio_api/file={secret}"}):
                data = [image(path, **extra), *FIELDS]
                answers[name, "call", str(extra)] = site.post(CALL, {"data": data})
                event = {"data": data, "fn_index": LABEL_EVENT, "session_hash": "mine"}
                answers[name, "join", str(extra)] = site.post(JOIN, event)
            answers[name, "no meta"] = site.post(CALL, {"data": [{"path": str(path)}, *FIELDS]})
            if path:
                answers[name, "file"] = site.ask("GET", f"/gradio_api/file={quoted(path)}")
                answers[name, "range"] = site.ask("GET", f"/gradio_api/file={quoted(path)}", range="bytes=0-9")
        assert {(answer.status, answer.body) for answer in answers.values()} == {
            (403, b'{"detail":"There is no such upload; choose the image again."}')
        }
        with pytest.raises(TimeoutError):
            listener.accept()  # no address was asked for anything
    assert sorted(folder.rglob("*")) == before, "nothing was copied"
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("form", ["{0}", "%2f{0}", "/{0}", "..%2f..%2f..%2f..%2f..{0}", "{1}", "{2}", "file://{0}"])
def test_addresses_that_only_look_different(site, secret, form):
    target = "/gradio_api/file=" + form.format(secret, quoted(secret), quoted(secret, 2))
    assert site.ask("GET", target).status == 403
    assert site.ask("HEAD", target).status == 403


def test_nothing_outside_is_looked_at(folder, secret, monkeypatch):
    uploads = Uploads(folder)

    def resolve(path, strict=False):
        raise AssertionError(f"{path} was looked at")

    monkeypatch.setattr("err_seg.web.files.Path.resolve", resolve)
    for path in (str(secret), f"{folder}/../{secret.name}", "/etc/passwd", os.path.relpath(secret)):
        with pytest.raises(NoSuchUpload):
            uploads.find(path)


def test_uploads_samples_and_results_work(site, photo, folder):
    front = site.ask("GET", "/")
    assert (front.status, site.ask("GET", "/?page=absent&deep_link=..").status) == (200, 200)
    assert "default-src 'self'" in front.headers["content-security-policy"]
    for part in set(re.findall(rb"\./(assets/[\w./-]+)", front.body)):
        assert site.ask("GET", f"/{part.decode()}").status == 200
    path = site.upload(photo)
    file = site.ask("GET", f"/gradio_api/file={path}")
    assert (file.body, file.headers["content-type"]) == (photo.read_bytes(), "image/png")
    event = json.loads(site.post(CALL, {"data": [image(path), *FIELDS]}).body)["event_id"]
    note, pair, parts, areas, kept, _ = wait_for_answer(site, event)
    assert "2 of 2 classes kept" in note
    assert {row[0] for row in kept["data"]} == {"cat", "dog"} >= {row[0] for row in areas["data"]}
    shown = [*pair, parts["value"]["image"], *(part["image"] for part in parts["value"]["annotations"])]
    for result in shown:
        assert site.ask("GET", result["url"].split(str(site.port))[1]).status == 200
    sample = json.loads(site.post(RUN, {"data": [0], "fn_index": SAMPLE_EVENT, "session_hash": "me"}).body)
    sample_path = sample["data"][0]["value"]["path"]
    assert site.ask("GET", f"/gradio_api/file={sample_path}").body == photo.read_bytes()
    event = {"data": [image(sample_path), *FIELDS], "fn_index": LABEL_EVENT, "session_hash": "me", "trigger_id": 3}
    assert site.post(JOIN, event).status == 200
    assert "2 of 2 classes kept" in site.ask("GET", "/gradio_api/queue/data?session_hash=me").body.decode()


def test_no_other_route_of_gradio_is_reached(model, folder):
    app = create_app(model, "cat, dog", folder)
    inner = next(route.app for route in app.routes if isinstance(getattr(route, "app", None), gradio.routes.App))
    routes = [(method.upper(), path) for path, methods in inner.openapi()["paths"].items() for method in methods]
    routes += [("GET", f"/{name}") for name in ("openapi.json", "docs", "redoc", "file=/etc/passwd", "file/etc/passwd")]
    routes += [("GET", "/gradio_api/info"), ("GET", "/gradio_api/openapi.json"), ("PUT", UPLOAD), ("DELETE", "/")]
    reached = set()
    with serving(app) as site:
        for method, path in routes:
            target = re.sub(r"\{(\w+)(:path)?\}", "a.png", path)
            status = site.ask(method, target, b"{}" if method == "POST" else None).status
            if status != 404:
                reached.add((method, path, status))
    assert len(routes) > 50
    parts = {"/", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt"}
    allowed = {*((method, part, 200) for method in ("GET", "HEAD") for part in parts)}
    allowed |= {(method, "/gradio_api/file={path_or_url}", 403) for method in ("GET", "HEAD")}
    allowed |= {("POST", target, 422) for target in (JOIN, UPLOAD)}
    allowed |= {("GET", "/gradio_api/queue/data", 422), ("GET", "/gradio_api/upload_progress", 200)}
    assert {route for route in reached if "HEAD" not in route} <= allowed, reached - allowed


BAD_FIELDS = [
    *((0, value) for value in (5, True, "text", [], {}, {"path": None}, {"path": 5}, {"path": ["x"]})),
    *((0, {"url": value, "meta": META}) for value in ("http://127.0.0.1:1/x.png", "file:///etc/passwd")),
    *((place, value) for place in (1, 2) for value in (None, 5, True, [], {}, ["cat"])),
    *((3, value) for value in (None, "0", True, [], -0.1, 1.1, 1e308, 10**400)),
    *((4, value) for value in (None, "2", True, [], 0, 65, -1, 1.5, 10**400)),
    *((5, value) for value in (None, 0, 1, "true", [], {})),
]
BAD_BODIES = [
    *("", "null", "[]", "{", "{}", '{"data":null}', '{"data":[]}', '{"data":{}}', '{"data":[1,2]}', '{"data":"text"}'),
    *("[" * 100_000, '{"data":[NaN,NaN,NaN,NaN,NaN,NaN]}', '{"data":[],"fn_index":"x"}', b"\xff\xfe", "\0"),
    '{"data":[{"path":"x"},"\\ud800","",0,2,true,true,"",null,null]}',
]


def test_wrong_fields_are_told(site, photo, capfd):
    path = site.upload(photo)
    good = [image(path), *FIELDS]
    for place, value in BAD_FIELDS:
        data = [*good[:place], value, *good[place + 1 :]]
        for answer in (
            site.post(CALL, {"data": data}),
            site.post(JOIN, {"data": data, "fn_index": LABEL_EVENT, "session_hash": "me"}),
        ):
            assert answer.status == 422, (place, value, answer)
            assert f"data.{place}" in json.loads(answer.body)["detail"]
    for body in BAD_BODIES:
        for target in (CALL, JOIN, RUN):
            assert site.post(target, body).status == 422, (target, body[:40])
    for number, data, session in [
        *((number, good, "me") for number in (None, 99, -1, "1", True)),
        *((VOCABULARY_EVENT, data, "me") for data in (["voc20", None], good)),
        *((SKETCH_EVENT, data, "me") for data in ([], [image(path)], good)),
        *((SAMPLE_EVENT, [value], "me") for value in (None, -1, 1, "0", True, 10**30, {})),
        *((LABEL_EVENT, good, session) for session in (5, {}, "../x", "", "a" * 1000)),
    ]:
        event = {"data": data, "fn_index": number, "session_hash": session}
        assert site.post(JOIN, event).status == 422, event
        assert site.post(RUN, event).status == 422, event
    assert site.post(JOIN, {"data": good, "fn_index": LABEL_EVENT}).status == 400
    assert site.post(CALL, " " * (MAX_EVENT + 1)).status == 413
    for target in (f"{CALL}/{'0' * 32}", "/gradio_api/queue/data?session_hash=nobody"):
        assert b"Not Found" in site.ask("GET", target).body
    assert site.post(CALL, {"data": [image(path), "cat\0, dog", "\0", 0, 2, True, True, "", None, None]}).status == 200
    assert "Traceback" not in "".join(capfd.readouterr())


def test_no_image_is_told_where_the_result_appears(site):
    """A refused request puts a red badge over every part of the page."""
    event = json.loads(site.post(CALL, {"data": [None, *FIELDS]}).body)["event_id"]
    assert wait_for_answer(site, event)[0] == '<p role="alert">⚠ Choose an image first.</p>'


OTHER_SITES = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:1"},  # another program of this machine
    {"origin": "http://127.0.0.1.evil.example"},
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site", "sec_fetch_mode": "cors"},
    {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "origin": "https://evil.example"},
]


@pytest.mark.parametrize("headers", OTHER_SITES)
def test_other_sites_can_not_send_requests(site, folder, photo, headers):
    path, before = site.upload(photo), {*folder.rglob("*")}
    own = {"origin": f"http://127.0.0.1:{site.port}", "sec_fetch_site": "same-origin", "sec_fetch_mode": "cors"}
    form = {"content_type": "multipart/form-data; boundary=x"}
    upload = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\na\r\n--x--\r\n'
    event = json.dumps({"data": [image(path), *FIELDS]}).encode()
    for method, target, body, more in [
        ("POST", UPLOAD, upload, form),
        ("POST", CALL, event, {"content_type": "application/json"}),
        ("GET", f"/gradio_api/file={path}", None, {}),
    ]:
        refused = site.ask(method, target, body, **more, **headers)
        assert refused.status == 403, target
        assert "comes from another site; behind a proxy" in refused.body.decode()
        assert {*folder.rglob("*")} == before
        assert site.ask(method, target, body, **more, **own).status == 200, target
        before = {*folder.rglob("*")}


def test_links_from_other_sites_open_the_page(site):
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert site.ask("GET", "/", **link).status == 200
    assert site.ask("POST", CALL, b"{}", **link).status == 403


def test_names_of_the_server(model, folder):
    """Any site can give its name this machine's address; addresses and localhost are not names that it can take."""
    with serving(create_app(model, "cat, dog", folder, allowed_hosts=["my.site"])) as site:
        for host in (
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1:7860",
            "192.168.0.2",
            "[::1]:7860",
            "my.site",
            "My.Site:443",
        ):
            assert site.ask("GET", "/", host=host).status == 200, host
        for host in (
            "evil.example",
            "evil.example:7860",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
            "a@b",
        ):
            assert site.ask("GET", "/", host=host).status == 421, host
        refused = site.ask("GET", "/", host="evil.example:80").body.decode()
        assert "Host: unknown name 'evil.example'; " in refused
        assert "start it with --allowed-host evil.example" in refused
        proxied = {"host": f"127.0.0.1:{site.port}", "sec_fetch_site": "same-origin"}
        assert site.ask("POST", CALL, b"{}", origin="https://my.site", **proxied).status == 422, "it has gone through"
        assert site.ask("POST", CALL, b"{}", origin="https://my.site.evil.example", **proxied).status == 403


def closed_after(site, request, most=10):
    """Send the beginning of a request and wait for its end; return the answer and the seconds that it took."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=most) as client:
        client.sendall(request)
        began, answer = time.monotonic(), b""
        while part := client.recv(2**16):
            answer += part
        return answer, time.monotonic() - began


HEAD = b"Host: localhost\r\nContent-Type: application/json\r\n"
HALF_BODY = b"POST " + CALL.encode() + b" HTTP/1.1\r\n" + HEAD + b"Content-Length: 1000\r\n\r\n{"


@pytest.mark.parametrize("begun", [b"", b"GET / HT", b"GET / HTTP/1.1\r\n" + HEAD])
def test_half_heads_have_a_deadline(site, begun, monkeypatch):
    monkeypatch.setattr("err_seg.web.server.PATIENCE", 0.5)
    whole = b"GET /robots.txt HTTP/1.1\r\n" + HEAD + b"\r\n"
    assert closed_after(site, begun)[1] < 3
    answer, seconds = closed_after(site, whole + begun)
    assert answer.startswith(b"HTTP/1.1 200")
    assert seconds < 3


def test_half_bodies_have_a_deadline_and_a_total(site, photo, monkeypatch):
    monkeypatch.setattr("err_seg.web.guard.BODY_SECONDS", 1)
    answer, seconds = closed_after(site, HALF_BODY)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"the request took more than 1 s" in answer
    assert seconds < 9, "it is kept for another request for 5 s"
    monkeypatch.setattr("err_seg.web.guard.MAX_HELD", 1500)
    half = HALF_BODY.replace(b"1000", b"100000") + b" " * 1000
    with socket.create_connection(("127.0.0.1", site.port)) as first:
        first.sendall(half)
        time.sleep(0.3)
        assert b"many uploads; try again" in closed_after(site, half)[0]
    monkeypatch.undo()
    assert site.upload(photo), "what was read has been forgotten"


def test_who_reads_no_answer_is_left(site, folder, monkeypatch):
    (folder / "large.png").write_bytes(bytes(2**24))
    monkeypatch.setattr("err_seg.web.server.PATIENCE", 0.5)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**12)
        client.connect(("127.0.0.1", site.port))
        client.settimeout(10)
        client.sendall(f"GET /gradio_api/file={folder}/large.png HTTP/1.1\r\n".encode() + HEAD + b"\r\n")
        time.sleep(3)
        got = b""
        with suppress(ConnectionResetError):
            while part := client.recv(2**16):
                got += part
    assert got.startswith(b"HTTP/1.1 200")
    assert len(got) < 2**23, "nothing comes after a while"


def test_wrong_uploads_are_told(site, tmp_path, capfd):
    form = "multipart/form-data; boundary=x"
    text = b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\ntext\r\n--x--\r\n'
    for body, kind in [
        (b"x", form),
        (b"", form),
        (b"x", "multipart/form-data"),
        (b"{}", "application/json"),
        (text, form),
    ]:
        assert site.ask("POST", UPLOAD, body, content_type=kind).status in (400, 422)
    (tmp_path / "large.png").write_bytes(bytes(MAX_UPLOAD + 2**17))
    with pytest.raises(AssertionError, match="status=413"):
        site.upload(tmp_path / "large.png")
    (tmp_path / "evil.html").write_text("<script>alert(1)</script>")
    (tmp_path / "evil.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>")
    for name in ("evil.html", "evil.svg"):
        file = site.ask("GET", f"/gradio_api/file={site.upload(tmp_path / name)}")
        assert file.headers["content-type"] == "application/octet-stream"
        assert file.headers["content-disposition"].startswith("attachment")
    assert "Traceback" not in "".join(capfd.readouterr())


def test_uploads_leave_room_on_the_disk(site, photo, folder, monkeypatch):
    before = {*folder.rglob("*")}
    monkeypatch.setattr("err_seg.web.server.LEAST_FREE", 2**80)
    with pytest.raises(AssertionError, match=r"status=507.*disk is full"):
        site.upload(photo)
    assert {*folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("photo.png", "photo.png"),
        ("../../etc/cron.d/job", "job"),
        ("..", "image"),
        ("", "image"),
        (".hidden", "hidden"),
        ("a b\0c?.png", "a_b_c_.png"),
        ("猫" * 300 + ".png", "猫" * 56 + ".png"),
    ],
)
def test_names_of_uploads(folder, photo, name, kept):
    uploads = Uploads(folder)
    with photo.open("rb") as content:
        path = uploads.store(name, content)
    assert path.name == kept
    assert path.parent.parent == folder
    assert uploads.find(str(path)) == path
