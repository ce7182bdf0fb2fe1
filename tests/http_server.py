"""A server on the local machine that misbehaves as told: it breaks off, lies about sizes, serves rubbish."""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class Resource:
    """What the server has under one path, and how it treats those who ask for it.

    Attributes
    ----------
    body : bytes
    etag, last_modified : str or None
        Validators, sent if there are any.
    ranges : bool
        Whether ``Range`` is honoured, or answered with 200 and everything.
    breaks : list of int
        Offsets in the body at which the connection is cut, one an answer.
    reset : bool
        Whether a cut is a TCP reset, which may lose bytes under way, or an orderly end.
    stall : float
        Seconds of silence before a cut.
    statuses : list of int
        Statuses to fail with first, one an answer.
    declared : int or None
        ``Content-Length`` to claim instead of the true one.
    framing : {"length", "chunked", "close"}
        How the end of a body is told.
    headers : dict
        More headers of an answer, replacing those of the same name.
    """

    body: bytes
    etag: str | None = '"v1"'
    last_modified: str | None = None
    ranges: bool = True
    breaks: list[int] = field(default_factory=list)
    reset: bool = False
    stall: float = 0.0
    statuses: list[int] = field(default_factory=list)
    declared: int | None = None
    framing: str = "length"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    """A request as it came in."""

    path: str
    headers: dict[str, str]


class Server(ThreadingHTTPServer):
    """Serves ``resources`` by path, and remembers the ``requests``."""

    daemon_threads = False
    block_on_close = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.resources: dict[str, Resource] = {}
        self.requests: list[Request] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet: a client that has seen enough hangs up."""

    def ranges_asked(self) -> list[str | None]:
        return [request.headers.get("range") for request in self.requests]

    def clear(self) -> None:
        self.resources.clear()
        self.requests.clear()


@contextmanager
def serve() -> Iterator[Server]:
    """Run a server for as long as the context lasts; afterwards its threads and sockets are gone."""
    with Server() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5
    server: Server

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append(Request(self.path, headers))
        resource = self.server.resources.get(self.path)
        if resource is None:
            self._fail(404)
        elif resource.statuses:
            self._fail(resource.statuses.pop(0), resource.headers)
        else:
            self._answer(resource, headers)

    def _fail(self, status: int, headers: dict[str, str] | None = None) -> None:
        self._head(status, {"Content-Length": "0"} | (headers or {}))

    def _answer(self, resource: Resource, headers: dict[str, str]) -> None:
        start, size = self._start(resource, headers), len(resource.body)
        told = {"ETag": resource.etag, "Last-Modified": resource.last_modified}
        answer = {name: value for name, value in told.items() if value}
        if start is not None and start >= size:
            self._fail(416, answer | {"Content-Range": f"bytes */{size}"})
            return
        if start is not None:
            answer["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        answer |= self._framing(resource, size - (start or 0))
        self._head(200 if start is None else 206, answer | resource.headers)
        self._body(resource, start or 0)

    def _start(self, resource: Resource, headers: dict[str, str]) -> int | None:
        asked = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
        validators = (None, resource.etag, resource.last_modified)
        if asked is None or not resource.ranges or headers.get("if-range") not in validators:
            return None
        return int(asked[1])

    def _framing(self, resource: Resource, length: int) -> dict[str, str]:
        if resource.framing == "chunked":
            return {"Transfer-Encoding": "chunked"}
        if resource.framing == "close":
            return {"Connection": "close"}
        return {"Content-Length": str(length if resource.declared is None else resource.declared)}

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _body(self, resource: Resource, start: int) -> None:
        cut = resource.breaks.pop(0) if resource.breaks else None
        piece = resource.body[start : cut if cut is None else max(cut, start)]
        if resource.framing == "chunked":
            self._chunks(piece, ended=cut is None)
        else:
            self.wfile.write(piece)
        if cut is not None:
            self.wfile.flush()
            time.sleep(resource.stall)
        if cut is not None or resource.declared is not None or resource.framing == "close":
            self._hang_up(reset=resource.reset and cut is not None)

    def _chunks(self, piece: bytes, *, ended: bool) -> None:
        for start in range(0, len(piece), 1000):
            chunk = piece[start : start + 1000]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        if ended:
            self.wfile.write(b"0\r\n\r\n")

    def _hang_up(self, *, reset: bool) -> None:
        self.wfile.flush()
        self.close_connection = True
        if reset:
            linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
