"""Images from addresses: https only, within limits, and every failure is a sentence."""

import pickle
import shutil
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from err_seg.data import download
from err_seg.data.image_sources import image_to_tensor, open_image
from err_seg.data.images import ImageReadError, read_image


class Server(BaseHTTPRequestHandler):
    """Answers by the path; ``image`` is the content of an image file."""

    image = b""
    asked: ClassVar[list[str]] = []

    def do_GET(self):
        self.asked.append(self.path)
        kind = self.path.lstrip("/").split("?")[0]
        if kind in ("to_http", "to_file", "to_image"):
            place = {"to_http": "http://localhost:1/", "to_file": "file:///etc/passwd", "to_image": "/image"}[kind]
            self.send_response(302)
            self.send_header("Location", place)
            self.end_headers()
        elif kind == "none":
            self.send_error(404)
        elif kind == "text":
            self.answer(b"<html>not here</html>")
        elif kind == "slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"0")
                time.sleep(0.05)
        elif kind == "slow_header":
            for line in (b"HTTP/1.1 200 OK\r\n", *[b"A: b\r\n"] * 90):
                self.wfile.write(line)
                time.sleep(0.05)
        elif kind == "cut":
            self.answer(self.image, len(self.image) + 9)
        elif kind == "unannounced":
            self.answer(self.image, None)
        else:
            assert self.headers["User-Agent"].startswith("err_seg/")
            self.answer(self.image)

    def answer(self, content, length=-1):
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length if length >= 0 else len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Serve at https://localhost, with a certificate made for this run."""
    folder = tmp_path_factory.mktemp("server")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    if shutil.which("openssl") is None:
        pytest.skip("needs the command openssl")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"
    files = ["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    Server.image = (folder / "image.png").read_bytes()
    server = ThreadingHTTPServer(("localhost", 0), Server)
    server.handle_error = lambda *_: None  # a client that goes away is what is tested
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://localhost:{server.server_port}", certificate, pixels
    server.shutdown()
    server.server_close()


@pytest.fixture
def site(server, monkeypatch):
    """Return the address of the server, whose certificate is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(server[1]))
    monkeypatch.setenv("no_proxy", "localhost")
    return server[0]


def test_an_address_is_read_as_its_file_is(site, server):
    for path in ("image", "image?key=1#part", "to_image", "unannounced"):
        np.testing.assert_array_equal(image_to_tensor(f"{site}/{path}").permute(1, 2, 0), server[2])
    np.testing.assert_array_equal(read_image(download.fetch(f"HTTPS{site.removeprefix('https')}/image")), server[2])


def test_an_address_is_quoted_as_browsers_do(site, server):
    for path in ("bild ä.png", "bild%20%C3%A4.png", "bild+ä.png?text=ä b&key=1#ü"):
        np.testing.assert_array_equal(image_to_tensor(f"{site}/{path}").permute(1, 2, 0), server[2])
    assert Server.asked[-3:] == ["/bild%20%C3%A4.png"] * 2 + ["/bild+%C3%A4.png?text=%C3%A4%20b&key=1"]


def test_a_password_in_an_address_is_neither_used_nor_shown(site):
    with pytest.raises(ImageReadError, match=r"^https://localhost:[0-9]+/image: .*holds a user or password") as raised:
        image_to_tensor(site.replace("://", "://me:wo rd@") + "/image")
    assert "rd" not in str(raised.value).replace("password", "")


def test_an_address_is_fetched_once(site, server, monkeypatch):
    """A result shows the image that was labelled: its address may expire, or be that of a camera."""
    read = open_image(f"{site}/image?key=1")
    first = read()
    monkeypatch.setattr(Server, "image", b"another image")
    for reader in (read, pickle.loads(pickle.dumps(read))):
        assert torch.equal(reader(), first)
    with pytest.raises(ImageReadError, match="is not an image"):
        image_to_tensor(f"{site}/image?key=1")


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("none", r"/none: the server answers 404 \(Not Found\)"),
        ("text", "/text: is not an image in any format"),
        ("cut", "/cut: the connection ended after [0-9]+ of [0-9]+ bytes"),
        ("to_http", "/to_http: redirects to http://localhost:1/: only https:// addresses"),
        ("to_file", "/to_file: .*302"),
    ],
)
def test_what_goes_wrong_is_said(site, path, complaint):
    with pytest.raises(ImageReadError, match=complaint) as raised:
        image_to_tensor(f"{site}/{path}?key=secret")
    assert "secret" not in str(raised.value)


def test_size_and_time_are_limited(site, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    for path in ("image", "unannounced"):
        with pytest.raises(ImageReadError, match=rf"/{path}: has more than 0 MB; download it yourself"):
            download.fetch(f"{site}/{path}")
    monkeypatch.setattr(download, "MAX_SECONDS", 0.2)
    for path in ("slow", "slow_header"):
        began = time.monotonic()
        with pytest.raises(ImageReadError, match=f"/{path}: takes more than 0 s"):
            download.fetch(f"{site}/{path}")
        assert time.monotonic() - began < 4


def test_unknown_certificates_and_servers_are_refused(server, monkeypatch):
    monkeypatch.setenv("no_proxy", "localhost")
    with pytest.raises(ImageReadError, match=r"cannot be fetched .*certificate"):
        download.fetch(f"{server[0]}/image")
    with pytest.raises(ImageReadError, match=r"localhost:1/a: cannot be fetched .*; download it yourself"):
        download.fetch("https://localhost:1/a")
    with pytest.raises(ImageReadError, match="cannot be fetched"):
        download.fetch("https://[nowhere/a b")


@pytest.mark.parametrize(
    "url", ["http://me:word@host/a.png?key=1", "ftp://host/a.png", "file:///a.png", "s3://b/a.png"]
)
def test_only_https_is_fetched(url):
    with pytest.raises(ImageReadError, match=r"/a\.png: only https:// addresses are fetched, since") as raised:
        image_to_tensor(url)
    assert "word" not in str(raised.value)
