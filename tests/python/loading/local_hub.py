"""A Hugging Face hub on this machine: folders served over HTTP as the real one does."""

from __future__ import annotations

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any


class LocalHub:
    """Serves repositories; `fetched` lists the files that were downloaded."""

    def __init__(self, repositories: dict[tuple[str, str], Path]) -> None:
        """`repositories`: (name, revision) to folder."""
        self.fetched: list[str] = []
        self._folders = {
            (repo, name): folder
            for (repo, revision), folder in repositories.items()
            for name in (revision, commit(repo, revision))
        }
        self._shas = {key: commit(*key) for key in repositories}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        parts = request.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._api("/".join(parts[2:4]), parts[4], parts[5], request)
        else:
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), request, body)

    def _api(self, repo: str, what: str, revision: str, request: BaseHTTPRequestHandler) -> None:
        if not any(repo == known for known, _ in self._folders):
            return send(request, 404, {"X-Error-Code": "RepoNotFound"})
        folder = self._folders.get((repo, revision))
        if folder is None:
            return send(request, 404, {"X-Error-Code": "RevisionNotFound"})
        files = sorted(path.name for path in folder.iterdir())
        sha = self._shas.get((repo, revision), revision)
        entries = [
            {"type": "file", "path": n, "size": (folder / n).stat().st_size, "oid": sha}
            for n in files
        ]
        info = {"id": repo, "sha": sha, "siblings": [{"rfilename": name} for name in files]}
        content = json.dumps(entries if what == "tree" else info).encode()
        return send(request, 200, {"Content-Type": "application/json"}, content)

    def _file(
        self, repo: str, revision: str, name: str, request: BaseHTTPRequestHandler, body: bool
    ) -> None:
        content = (self._folders[repo, revision] / name).read_bytes()
        tag = hashlib.sha1(content).hexdigest()
        if body:
            self.fetched.append(name)
        headers = {"ETag": f'"{tag}"', "X-Repo-Commit": revision}
        send(request, 200, headers, content, body=body)


def commit(repo: str, revision: str) -> str:
    """Return the commit that a revision of a repository stands for."""
    return hashlib.sha1(f"{repo}@{revision}".encode()).hexdigest()


def send(
    request: BaseHTTPRequestHandler,
    status: int,
    headers: dict[str, str],
    content: bytes = b"",
    *,
    body: bool = True,
) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    if body:
        request.wfile.write(content)
