"""Stand-ins on 127.0.0.1 for the Hub and for a package index, with the ways in which the real ones fail.

The Hub stand-in speaks as much of the Hub's API as huggingface_hub asks for (model_info, HEAD and GET of
files, redirects to a content host, ranges), so that the tests go through huggingface_hub's real code.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import socket
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def owner(self) -> StandIn:
        return self.server.owner  # type: ignore[attr-defined]

    def log_message(self, *args: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        with self.owner.lock:
            self.owner.requests.append((self.command, path, self.headers.get("Range")))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.owner.answer(self, path)

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """The whole body, or the range asked for."""
        asked = self.headers.get("Range")
        extra = dict(headers or {})
        if asked and status == 200:
            start = int(asked.removeprefix("bytes=").split("-")[0])
            extra["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            status, body = 206, body[start:]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in extra.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.owner.send(self, body)


class StandIn:
    """A server on a free port. `break_off[path]`: how many GETs end half-way; `hold`: they wait there."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.requests: list[tuple[str, str, str | None]] = []
        self.break_off: dict[str, int] = {}
        self.hold: dict[str, threading.Event] = {}
        self.held = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.owner = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        for event in self.hold.values():
            event.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request: Handler, path: str) -> None:
        raise NotImplementedError

    def send(self, request: Handler, body: bytes) -> None:
        path = unquote(urlsplit(request.path).path)
        half = len(body) // 2
        with self.lock:
            broken = self.break_off.get(path, 0)
            self.break_off[path] = max(broken - 1, 0)
        request.wfile.write(body[:half])
        if path in self.hold:
            request.wfile.flush()
            self.held.set()
            self.hold[path].wait(600)
        if broken:
            request.wfile.flush()
            request.connection.shutdown(socket.SHUT_RDWR)
            request.close_connection = True
            return
        request.wfile.write(body[half:])

    def count(self, ending: str, method: str = "GET") -> int:
        with self.lock:
            return sum(m == method and path.endswith(ending) for m, path, _ in self.requests)


class HubStandIn(StandIn):
    """Serves `repos[repo][file]`. `lie[file]`: what is really sent. `gated`, `private`: repos that refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.repos: dict[str, dict[str, bytes]] = {}
        self.lie: dict[str, bytes] = {}
        self.gated: set[str] = set()
        self.token: str | None = None  # the token that opens gated repos
        self.redirect = False
        self.status: int | None = None
        self.cdn_tokens: list[str | None] = []

    def answer(self, request: Handler, path: str) -> None:
        if self.status is not None:
            return request.reply(self.status, b"{}")
        if path.startswith("/cdn/"):
            self.cdn_tokens.append(request.headers.get("Authorization"))
            repo, _, name = path.removeprefix("/cdn/").partition("//")
            return request.reply(200, self._body(repo, name))
        if path.startswith("/api/models/"):
            return self._info(request, path)
        repo, _, rest = path.lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        if self._refused(request, repo, revision):
            return None
        files = self.repos[repo]
        if name not in files:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
            return request.reply(404, b"", headers)
        content = files[name]
        etag = hashlib.sha256(content).hexdigest()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'}
        if self.redirect and name.endswith((".gguf", ".safetensors")):
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))}
            # As the real one: the content is on another host, which must not see the token.
            headers["Location"] = f"http://localhost:{self.server.server_address[1]}/cdn/{repo}//{name}"
            return request.reply(302, b"", headers)
        return request.reply(200, self._body(repo, name), headers)

    def _body(self, repo: str, name: str) -> bytes:
        return self.lie.get(name, self.repos[repo][name])

    def _refused(self, request: Handler, repo: str, revision: str) -> bool:
        if repo not in self.repos:
            request.reply(401, b"", {"X-Error-Code": "RepoNotFound"})
        elif repo in self.gated and request.headers.get("Authorization") != f"Bearer {self.token}":
            request.reply(401, b"", {"X-Error-Code": "GatedRepo"})
        elif revision not in {"main", COMMIT}:
            request.reply(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            return False
        return True

    def _info(self, request: Handler, path: str) -> None:
        repo, _, revision = path.removeprefix("/api/models/").partition("/revision/")
        if self._refused(request, repo, revision or "main"):
            return
        siblings = []
        for name, content in self.repos[repo].items():
            entry: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": "0" * 40}
            if name.endswith((".gguf", ".safetensors", ".bin")):
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
            siblings.append(entry)
        body = {
            "id": repo,
            "modelId": repo,
            "sha": COMMIT,
            "siblings": siblings,
            "tags": [],
            "private": False,
        }
        request.reply(200, json.dumps(body).encode(), {"Content-Type": "application/json"})


class IndexStandIn(StandIn):
    """A simple package index with the wheels of `wheels` (file name -> bytes)."""

    def __init__(self) -> None:
        super().__init__()
        self.wheels: dict[str, bytes] = {}
        self.hashes = True

    def add(self, package: str, members: dict[str, bytes], version: str = "1.0.0") -> str:
        stem = f"{package.replace('-', '_')}-{version}"
        self.wheels[f"{stem}-py3-none-any.whl"] = make_wheel(package, version, members)
        return f"{package}=={version}"

    def answer(self, request: Handler, path: str) -> None:
        if path.startswith("/simple/"):
            package = path.removeprefix("/simple/").strip("/").replace("-", "_")
            names = [name for name in self.wheels if name.split("-")[0] == package]
            if not names:
                return request.reply(404, b"")
            links = (f'<a href="/files/{name}{self._fragment(name)}">{name}</a>' for name in names)
            page = f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>"
            return request.reply(200, page.encode(), {"Content-Type": "text/html"})
        name = path.removeprefix("/files/")
        return request.reply(200, self.wheels[name], {"Content-Type": "application/octet-stream"})

    def _fragment(self, name: str) -> str:
        return f"#sha256={hashlib.sha256(self.wheels[name]).hexdigest()}" if self.hashes else ""


def make_wheel(package: str, version: str, members: dict[str, bytes]) -> bytes:
    """A pure data wheel that pip accepts."""
    name = package.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", tags)
        archive.writestr(f"{info}/RECORD", "")
    return out.getvalue()


@contextlib.contextmanager
def silent_endpoint() -> Iterator[str]:
    """An address that takes connections and never answers: the kernel accepts, nobody reads."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def swallowing_endpoint() -> Iterator[str]:
    """An address that swallows connections, as a firewall does: the backlog is full, and nobody accepts."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
