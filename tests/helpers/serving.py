"""A page that is served to this machine, and how to ask it."""

import json
import socket
import threading
import time
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import NamedTuple

import uvicorn

CALL = "/gradio_api/call/label"
META = {"_type": "gradio.FileData"}
FIELDS = ["cat, dog", "", 0, 2, True, True, "", None, None]
"""The values of a labelling event, after its image."""


class Answer(NamedTuple):
    """A response of the server."""

    status: int
    headers: dict
    body: bytes


class Site(NamedTuple):
    """A running server."""

    port: int

    def ask(self, method, target, body=None, **headers):
        """Send a request as it is; no client's library tidies the target up."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, target, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return Answer(response.status, dict(response.headers), response.read())
        finally:
            connection.close()

    def post(self, target, body):
        """Post JSON, or text that should be some."""
        content = body if isinstance(body, str | bytes) else json.dumps(body)
        return self.ask("POST", target, content, content_type="application/json")

    def upload(self, file):
        """Upload a file; return the path that the server names it by."""
        head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{file.name}"\r\n\r\n'
        body = head.encode() + file.read_bytes() + b"\r\n--x--\r\n"
        answer = self.ask("POST", "/gradio_api/upload", body, content_type="multipart/form-data; boundary=x")
        assert answer.status == 200, answer
        return json.loads(answer.body)[0]


def free_port():
    """Find a port of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def serving(app):
    """Serve an application in a ``with`` block."""
    port = free_port()
    from err_seg.web.server import SERVING  # which needs Gradio

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, **SERVING))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    try:
        yield Site(port)
    finally:
        server.should_exit = True
        thread.join()


def image(path, **more):
    """Name an image in an event."""
    return {"path": str(path), "meta": META, **more}


def wait_for_answer(site, event):
    """Wait for an event's answer."""
    stream = site.ask("GET", f"{CALL}/{event}").body.decode()
    return json.loads(stream.split("event: complete\ndata: ")[1].splitlines()[0])
