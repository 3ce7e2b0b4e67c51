"""Fetching an image from an address, within limits of size and time."""

import contextlib
import re
import socket
import string
import threading
from http.client import HTTPException, HTTPMessage, HTTPResponse, HTTPSConnection
from typing import IO
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from err_seg.data.images import ImageReadError
from err_seg.version import __version__

MAX_BYTES = 100_000_000
MAX_SECONDS = 60.0
"""For all of it; the server may also be silent for no longer than ``SILENT_SECONDS``."""
SILENT_SECONDS = 15.0
_PORTION = 2**16
_INSTEAD = "download it yourself and pass the file"


def is_url(text: str) -> bool:
    """Whether a text is an address ("https://...") and not a path."""
    return re.match(r"[a-z][a-z0-9+.-]+://", text, re.IGNORECASE) is not None


def fetch(url: str) -> bytes:
    """Fetch the content of an https address; redirections may lead to other https addresses only.

    Raises:
        ImageReadError: another kind of address, no answer, an answer that is no content, or more than ``MAX_BYTES``
            or ``MAX_SECONDS``. The message names the address without its query, which may hold keys.
    """
    shown = shown_url(url)
    _check_https(url, shown)
    headers = {"User-Agent": f"err_seg/{__version__}", "Accept": "image/*,*/*;q=0.5"}
    deadline = _Deadline(MAX_SECONDS)
    try:
        request = Request(_quoted(url), headers=headers)
        with deadline, build_opener(_HttpsOnly, deadline).open(request, timeout=SILENT_SECONDS) as response:
            return _read(response, shown)
    except (OSError, HTTPException, ValueError) as error:
        if deadline.is_over:
            raise ImageReadError(f"{shown}: takes more than {MAX_SECONDS:.0f} s; {_INSTEAD}") from error
        if isinstance(error, ImageReadError):
            raise
        if isinstance(error, HTTPError):
            raise ImageReadError(f"{shown}: the server answers {error.code} ({error.reason})") from error
        reason = getattr(error, "reason", None) or error
        raise ImageReadError(f"{shown}: cannot be fetched ({type(error).__name__}: {reason}); {_INSTEAD}") from error


def shown_url(url: str) -> str:
    """Return an address for messages: without user, password, query and fragment."""
    return re.sub(r"(?<=://)[^/?#]*@|[?#].*", "", url, flags=re.DOTALL)


def _quoted(url: str) -> str:
    """Encode what an address may not contain, as browsers do: spaces and all that is not ASCII."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("it holds a user or password, which would not be used")
    path, query = (quote(part, safe=string.punctuation) for part in (parts.path, parts.query))
    return parts._replace(path=path, query=query, fragment="").geturl()


def _read(response: HTTPResponse, shown: str) -> bytes:
    announced, content = response.length or 0, bytearray()
    while announced <= MAX_BYTES and len(content) <= MAX_BYTES and (portion := response.read1(_PORTION)):
        content += portion
    if max(announced, len(content)) > MAX_BYTES:
        raise ImageReadError(f"{shown}: has more than {MAX_BYTES / 1e6:.0f} MB; {_INSTEAD}")
    if len(content) < announced:
        raise ImageReadError(f"{shown}: the connection ended after {len(content)} of {announced} bytes; try again")
    return bytes(content)


class _Deadline(HTTPSHandler):
    """Opens connections, and ends them when the time is over, whatever the server is sending by then.

    A limit for each answer of the socket would not do: a server may send a byte now and then, of the header as well.
    """

    def __init__(self, seconds: float):
        super().__init__()
        self.is_over = False
        self.sockets: list[socket.socket] = []
        self.timer = threading.Timer(seconds, self.end)
        self.timer.daemon = True

    def __enter__(self) -> None:
        self.timer.start()

    def __exit__(self, *_: object) -> None:
        self.timer.cancel()
        if self.is_over:
            raise TimeoutError

    def https_open(self, req: Request) -> HTTPResponse:
        deadline = self

        class Connection(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                deadline.watch(self.sock)

        return self.do_open(Connection, req)

    def watch(self, connected: socket.socket) -> None:
        """End this connection as well, at once if the time is over."""
        self.sockets.append(connected)
        if self.is_over:
            self.end()

    def end(self) -> None:
        """End all connections."""
        self.is_over = True
        for connected in self.sockets:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connected, socket.SHUT_RDWR)


class _HttpsOnly(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """Check the new address before it is asked."""
        _check_https(newurl, f"{shown_url(req.full_url)}: redirects to {shown_url(newurl)}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_https(url: str, shown: str) -> None:
    if not url.lower().startswith("https://"):
        raise ImageReadError(
            f"{shown}: only https:// addresses are fetched, since others do not protect the content; {_INSTEAD}"
        )
