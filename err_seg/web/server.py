"""The server of the page: on this machine alone unless told otherwise, and without any other server's help."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI, Request, Response

from err_seg.modeling.err_seg import ERRSeg
from err_seg.web.page import build_page

MAX_UPLOAD = 20 * 2**20
# the page's own files and nothing from anywhere else: no fonts, scripts or counters of third parties
CONTENT_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"


def create_app(model: ERRSeg, words: str, samples: Sequence[str | Path] = ()) -> FastAPI:
    """Make the web application.

    Only uploads of at most 20 MB, their results, and the samples are ever served; no other file of the machine is.

    Args:
        model, words, samples: see :func:`build_page`.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def restrict(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await proceed(request)
        response.headers["Content-Security-Policy"] = CONTENT_POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    page = build_page(model, words, samples)
    return gr.mount_gradio_app(
        app, page, path="/", show_error=False, max_file_size=MAX_UPLOAD, footer_links=[], ssr_mode=False
    )


def serve(app: FastAPI, host: str, port: int) -> None:
    """Serve until interrupted."""
    uvicorn.run(app, host=host, port=port, log_level="warning")
