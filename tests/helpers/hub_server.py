"""A Hugging Face hub on this machine: lists repositories and serves their files, as a whole or in parts."""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Handler(BaseHTTPRequestHandler):
    """Answer for the repositories below ``server.root``, a folder USER/REPO each."""

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0]
        if listing := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(\w+))?", path):
            return self.list_files(listing[1], listing[2] or "main")
        if file := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(\w+)/(.+)", path):
            return self.send_file(file[1], file[2], file[3])
        self.answer(404, b"", {})

    def list_files(self, repository, revision):
        folder = self.server.root / repository
        if not folder.is_dir() or revision not in ("main", COMMIT):
            missing = "Revision" if folder.is_dir() else "Repo"
            return self.answer(404, b"{}", {"X-Error-Code": f"{missing}NotFound"})
        files = [{"rfilename": file.relative_to(folder).as_posix()} for file in folder.rglob("*") if file.is_file()]
        facts = {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": files}
        self.answer(200, json.dumps(facts).encode(), {"Content-Type": "application/json"})

    def send_file(self, repository, revision, name):
        file = self.server.root / repository / name
        if not file.is_file() or revision not in ("main", COMMIT):
            missing = "Entry" if revision in ("main", COMMIT) else "Revision"
            return self.answer(404, b"", {"X-Error-Code": f"{missing}NotFound", "X-Repo-Commit": COMMIT})
        content = file.read_bytes()
        headers = {
            "X-Repo-Commit": COMMIT,
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "Accept-Ranges": "bytes",
        }
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if part:
            first, last = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            content = content[first : last + 1]
        if self.command == "GET":
            self.server.served.append((name, len(content)))
        self.answer(206 if part else 200, content, headers)

    def answer(self, status, content, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@contextmanager
def served(root: Path):
    """Serve the repositories below a folder; yields the server, whose ``served`` lists (file, bytes)."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.root, server.served = root, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
