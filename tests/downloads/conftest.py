"""A real HTTP server in this process, which misbehaves as it is told and remembers what it was asked."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Page = Callable[[BaseHTTPRequestHandler], None]


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *request: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client may go away
            super().handle_error(*request)


class Site:
    """Pages by path without query; of a list of pages each is shown once, the last one ever after."""

    def __init__(self) -> None:
        self.pages: dict[str, Page | list[Page]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.requests.append((self.path, dict(self.headers)))
                path = self.path
                if "://" in path:  # as a proxy is asked
                    path = "/" + path.split("/", 3)[3]
                pages = site.pages.get(path.partition("?")[0], answer(404))
                if isinstance(pages, list):
                    pages = pages.pop(0) if len(pages) > 1 else pages[0]
                pages(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def asked(self, header: str) -> list[str | None]:
        """The values of a header, request by request."""
        return [headers.get(header) for _, headers in self.requests]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def answer(status: int, data: bytes = b"", **headers: str) -> Page:
    """An answer as it should be; underscores in names of headers stand for hyphens."""

    def page(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(data)

    return page


def redirect(target: str, status: int = 302) -> Page:
    return answer(status, Location=target)


def json_page(content: Any) -> Page:
    return answer(200, json.dumps(content).encode(), Content_Type="application/json")


def file(
    data: bytes,
    etag: str = '"one"',
    ranges: bool = True,
    cut: int | None = None,
    announced: int | None = None,
    kind: str = "application/octet-stream",
    content_range: str = "bytes {start}-{end}/{total}",
) -> Page:
    """A file.

    Args:
        data: its content.
        etag: its ETag; empty for none.
        ranges: whether parts can be had.
        cut: the connection is closed after so many bytes of this answer.
        announced: the Content-Length, if it is to be wrong.
        kind: the Content-Type.
        content_range: what a partial answer says of itself.
    """

    def page(request: BaseHTTPRequestHandler) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        start = int(wanted[1]) if wanted and ranges and request.headers.get("If-Range", etag) == etag else 0
        if start and start >= len(data):
            return answer(416)(request)
        rest = data[start:]
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(rest) if announced is None else announced))
        request.send_header("Content-Type", kind)
        if etag:
            request.send_header("ETag", etag)
        if start:
            said = content_range.format(start=start, end=len(data) - 1, total=len(data))
            request.send_header("Content-Range", said)
        request.end_headers()
        request.wfile.write(rest[:cut])
        if cut is not None or announced is not None:
            request.close_connection = True

    return page


@pytest.fixture
def site():
    server = Site()
    yield server
    server.close()


@pytest.fixture
def other_site():
    server = Site()
    yield server
    server.close()


@pytest.fixture
def pauses():
    """The seconds that would have been waited; `pauses.append` is what waits."""
    return []


@pytest.fixture(autouse=True, scope="module")
def environment():
    """No setting of the machine that runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
            patch.delenv(name, raising=False)
            patch.delenv(name.lower(), raising=False)
        patch.setenv("NETRC", os.devnull)
        yield
