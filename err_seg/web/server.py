"""The server of the page: only for this machine by default, and without contacting other servers."""

import asyncio
import io
import os
import shutil
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, HTTPException, Response, UploadFile
from fastapi.responses import FileResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from err_seg.data import ImageReadError
from err_seg.prediction.model import ERRSeg
from err_seg.web.browser import STYLE
from err_seg.web.files import PROCESSES, Downloads, FileKind, NoSuchUpload, Uploads
from err_seg.web.guard import MAX_UPLOAD, PROGRESS, UPLOAD, Guard
from err_seg.web.page import WAITING, build_page, event_kinds

LEAST_FREE = 500 * 2**20  # bytes of the disk that uploads leave free
PATIENCE = 20  # seconds for the head of a request, and for reading a part of an answer
# what a browser may show; anything else, such as a page with scripts, is only offered as a download
SHOWN = {"image/avif", "image/bmp", "image/gif", "image/jpeg", "image/png", "image/tiff", "image/webp"}


class Connection(H11Protocol):
    """A connection, which ends when its client neither completes a request nor reads an answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to watch the connection."""
        super().connection_made(transport)
        self.watch()

    def watch(self, before: object = None) -> None:
        """Look what is waited for, and end the connection if it is the same as before."""
        unread = self.transport.get_write_buffer_size()
        now, is_idle = (self.cycle, unread), self.cycle is None or self.cycle.response_complete
        if now == before and (unread or is_idle):
            self.transport.abort()
        elif self in self.connections:
            self.loop.call_later(PATIENCE, self.watch, now)


SERVING: dict[str, Any] = {"log_level": "warning", "http": Connection, "ws": "none", "limit_concurrency": 200}


def create_app(
    model: ERRSeg,
    classes: str,
    folder: str | Path,
    samples: Sequence[str | Path] = (),
    framed_by: Sequence[str] = (),
    allowed_hosts: Sequence[str] = (),
) -> FastAPI:
    """Make the web application.

    It serves only uploads of at most 20 MB, their results and the samples, and no other file of the machine. It decodes
    images in other processes, so a script that calls this needs ``if __name__ == "__main__":``.

    Args:
        model: see :func:`err_seg.load`.
        classes: the first content of the field for class names.
        folder: an existing folder for uploads, results and copies of the samples; it should hold nothing else, since
            everything in it can be downloaded. ``GRADIO_TEMP_DIR`` is set to it, so that Gradio uses it.
        samples: images to try.
        framed_by: origins, such as https://huggingface.co, whose pages may show this one in a frame.
        allowed_hosts: names under which browsers may reach the server, besides localhost and its addresses.
    """
    PROCESSES.Pool(1).terminate()  # the first is slow
    uploads = Uploads(folder)
    downloads, one_at_a_time = Downloads(uploads, model.source), CapacityLimiter(1)
    os.environ["GRADIO_TEMP_DIR"] = str(uploads.folder)
    copies = [uploads.store(sample.name, io.BytesIO(sample.read_bytes())) for sample in map(Path, samples)]

    def check_disk() -> None:
        if shutil.disk_usage(uploads.folder).free < LEAST_FREE:
            raise HTTPException(HTTPStatus.INSUFFICIENT_STORAGE, "The server's disk is full; try again in an hour.")

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.post(UPLOAD)
    def upload(files: UploadFile) -> list[str]:
        check_disk()
        path = uploads.store(files.filename or "", files.file)
        page.upload_file_set.add(str(path))  # from which Gradio removes old ones
        return [str(path)]

    @app.get(PROGRESS)
    def progress() -> Response:
        return Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")  # a bar is not worth the trouble

    @app.api_route("/gradio_api/file={path:path}", methods=["GET", "HEAD"])
    def file(path: str) -> FileResponse:
        found = uploads.find(path)
        answer = FileResponse(found, filename=found.name, content_disposition_type="inline")
        if answer.media_type in SHOWN:
            return answer
        return FileResponse(found, filename=found.name, media_type="application/octet-stream")

    @app.api_route("/results/{key}/{kind}/{percent}", methods=["GET", "HEAD"])
    async def result(key: str, kind: FileKind, percent: int) -> FileResponse:
        check_disk()
        if one_at_a_time.statistics().tasks_waiting >= WAITING:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, "Many files are asked for; try again in a minute.")
        try:
            path = await to_thread.run_sync(downloads.write, key, kind, percent, limiter=one_at_a_time)
        except (NoSuchUpload, ImageReadError) as error:
            raise HTTPException(HTTPStatus.FORBIDDEN, "The result is gone; label the image again.") from error
        page.upload_file_set.add(str(path))
        return FileResponse(path, filename=path.name)

    page = build_page(model, classes, uploads, downloads, copies)
    gr.mount_gradio_app(
        app, page, path="/", css=STYLE, show_error=False, max_file_size=MAX_UPLOAD, footer_links=[], ssr_mode=False
    )
    kinds = event_kinds(page, len(copies))
    app.add_middleware(Guard, uploads=uploads, kinds=kinds, framed_by=framed_by, hosts=allowed_hosts)
    return app


def serve(app: FastAPI, host: str, port: int) -> None:
    """Serve until interrupted."""
    uvicorn.run(app, host=host, port=port, **SERVING)
