"""The part of Gradio's server that a client can reach: the page and its events, with checked values.

Gradio answers some eighty routes. As a part of another application, it also accepts any path that a client sends as one
of its own files. Therefore only the requests listed here reach it, and a client's data are not passed on as they came:
they are written again from the checked values, so that there is only one way to read them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any

from anyio import fail_after
from fastapi import HTTPException
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, StrictInt, StrictStr, ValidationError
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from err_seg.web.files import FILE_KINDS, Uploads

MAX_UPLOAD = 20 * 2**20
MAX_FRAME = 2**16  # for what surrounds an upload in its request
MAX_EVENT = 2**20
MAX_HELD = 8 * MAX_UPLOAD  # of all bodies that are being read
BODY_SECONDS = 180
LABEL, SAMPLE = "label", "load_example"
CALL, UPLOAD, PROGRESS = f"/gradio_api/call/{LABEL}", "/gradio_api/upload", "/gradio_api/upload_progress"
EVENTS = {"/gradio_api/queue/join": (LABEL, SAMPLE), "/gradio_api/run/predict": (SAMPLE,), CALL: (LABEL,)}
PARTS = re.compile(r"/((theme\.css|favicon\.ico|manifest\.json|robots\.txt)?|(assets|static)(/\w[\w.@+-]*)+)", re.ASCII)
FILES = re.compile(r"/gradio_api/file=.+", re.DOTALL)
RESULTS = re.compile(rf"/results/[0-9a-f]{{32}}/({'|'.join(FILE_KINDS)})/(\d\d?|100)", re.ASCII)
STREAMS = re.compile(rf"/gradio_api/queue/data|{PROGRESS}|{CALL}/\w+", re.ASCII)
ADDRESS = re.compile(r"(localhost|\d+(\.\d+){3}|\[[\da-f:]+\])(:\d+)?", re.ASCII | re.IGNORECASE)
# the page's own files and nothing from anywhere else: no fonts, scripts or counters of third parties
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"
HEADERS = {b"referrer-policy": b"no-referrer", b"x-content-type-options": b"nosniff"}


class UploadedImage(BaseModel):
    """The path of an upload. Everything else in a client's description of it is ignored."""

    path: StrictStr


class Event(BaseModel):
    """An event as a client sends it: its kind, the values of its fields, and the session that gets the answer."""

    data: list[Any]
    fn_index: StrictInt | None = None
    trigger_id: StrictInt | None = None
    session_hash: Annotated[StrictStr, Field(pattern=r"^[0-9A-Za-z_]{1,64}$")] | None = None


EventKinds = Mapping[str, tuple[int | None, type[Event]]]


class Guard:
    """The outermost layer of the server.

    Args:
        app: what it guards.
        uploads: the files that may be named.
        kinds: of the events ``LABEL`` and, if there are samples, ``SAMPLE``, Gradio's number and the :class:`Event`
            whose data is a tuple of its fields' types.
        framed_by, hosts: see :func:`~err_seg.web.server.create_app` (``allowed_hosts``).
    """

    def __init__(
        self, app: ASGIApp, uploads: Uploads, kinds: EventKinds, framed_by: Sequence[str], hosts: Sequence[str]
    ):
        self.app, self.uploads, self.kinds, self.hosts = app, uploads, kinds, hosts
        self.held = 0  # bytes of the bodies that are being read
        policy = " ".join((POLICY, *framed_by)).encode("ascii")
        self.headers = [(b"content-security-policy", policy), *HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self.headers]
            await send(message)

        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            try:
                await self._answer(scope, receive, send_with_headers)
            except HTTPException as refusal:
                answer = JSONResponse({"detail": refusal.detail}, refusal.status_code)
                await answer(scope, receive, send_with_headers)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, reads = scope["path"], scope["method"] in ("GET", "HEAD")
        self._check_sender(Headers(scope=scope), reads)
        if reads and any(allowed.fullmatch(path) for allowed in (PARTS, FILES, RESULTS)):
            await self.app({**scope, "query_string": b""}, receive, send)
        elif reads and STREAMS.fullmatch(path):
            try:
                await self.app(scope, receive, send)
            except RuntimeError as error:
                if not isinstance(error.__cause__, HTTPException):
                    raise
                # no such event was begun; Gradio has answered so before it failed
                await send({"type": "http.response.body", "body": b""})
        elif scope["method"] == "POST" and path == UPLOAD:
            await self._hand_on(scope, await self._read(scope, receive, MAX_UPLOAD + MAX_FRAME), receive, send)
        elif scope["method"] == "POST" and path in EVENTS:
            event = self._checked(path, await self._read(scope, receive, MAX_EVENT))
            await self._hand_on(scope, event, receive, send)
        else:
            raise HTTPException(HTTPStatus.NOT_FOUND)

    def _check_sender(self, headers: Headers, reads: bool) -> None:
        """Refuse what other sites send by a visitor's browser, also one that gave its own name this machine's address.

        Raises:
            HTTPException: 421 for an unknown name of this server, 403 for another site.
        """
        host, origin = headers.get("host", ""), headers.get("origin")
        if not ADDRESS.fullmatch(host) and host_name(host) not in self.hosts:
            advice = f"if it is a name of this server, start it with --allowed-host {host_name(host)}"
            raise HTTPException(HTTPStatus.MISDIRECTED_REQUEST, f"Host: unknown name {host_name(host)!r}; {advice}")
        is_other = headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
        is_link = reads and headers.get("sec-fetch-mode") == "navigate"
        is_own = origin is None or origin.endswith(f"//{host}") or host_name(origin) in self.hosts
        if not is_own or (is_other and not is_link):
            advice = "behind a proxy, start the server with --allowed-host and the name in the browser's address bar"
            raise HTTPException(HTTPStatus.FORBIDDEN, f"The request comes from another site; {advice}")

    async def _hand_on(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Pass a request on with this body."""
        messages = [{"type": "http.request", "body": body}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        headers = [header for header in scope["headers"] if header[0] not in (b"content-length", b"transfer-encoding")]
        headers.append((b"content-length", str(len(body)).encode()))
        await self.app({**scope, "query_string": b"", "headers": headers}, replay, send)

    def _checked(self, path: str, body: bytes) -> bytes:
        """Check an event's values and write it again.

        Raises:
            HTTPException: 422 for a value of the wrong type, 403 for a path that is not allowed.
        """
        try:
            number = Event.model_validate_json(body).fn_index
            kinds = dict(self.kinds[name] for name in EVENTS[path] if name in self.kinds)
            kind = self.kinds[LABEL][1] if path == CALL else kinds.get(number)
            if kind is None:
                raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, "fn_index: there is no such event here")
            event = kind.model_validate_json(body)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(map(str, problem["loc"])) or "the request"
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, f"{place}: {problem['msg']}") from error
        data = [
            {"path": str(self.uploads.find(value.path)), "meta": {"_type": "gradio.FileData"}}
            if isinstance(value, UploadedImage)
            else value
            for value in event.data
        ]
        return json.dumps({**event.model_dump(exclude_none=True), "data": data}).encode()

    async def _read(self, scope: Scope, receive: Receive, most: int) -> bytes:
        """Read a request's body.

        Raises:
            HTTPException: 413 if it has more than ``most`` bytes, 503 if all together have too many, 408 if it is slow.
        """
        body = bytearray()
        try:
            with fail_after(BODY_SECONDS):
                async for part in Request(scope, receive).stream():
                    body += part
                    self.held += len(part)
                    if len(body) > most:
                        raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {most / 2**20:.2g} MiB")
                    if self.held > MAX_HELD:
                        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, "many uploads; try again in a minute")
        except ClientDisconnect as error:
            raise HTTPException(HTTPStatus.BAD_REQUEST, "the request ended too early") from error
        except TimeoutError as error:
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, f"the request took more than {BODY_SECONDS} s") from error
        finally:
            self.held -= len(body)
        return bytes(body)


def host_name(address: str) -> str:
    """Return the name in ``name:port`` or ``scheme://name:port``."""
    return address.rpartition("//")[2].partition(":")[0].lower()
