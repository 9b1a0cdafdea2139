"""A server that speaks Fireworks' documented API (docs/fireworks.md), as far as a training uses it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "fw-not-for-any-file"
ACCOUNT = "somebody"
WITH_A_MODEL = ("JOB_STATE_COMPLETED", "JOB_STATE_EARLY_STOPPED")
"""States of a job that has made one. The second is assumed: the documentation does not say."""


@dataclass
class Asked:
    method: str
    path: str
    """Below the account; of the storage: the whole one."""
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.body)
        return value


@dataclass
class Service:
    """One account's resources, and what goes wrong."""

    states: list[dict[str, Any]] = field(default_factory=list)
    """What a job says when it is looked at, one after the other; the last for ever."""
    adapter: dict[str, bytes] = field(default_factory=dict)
    """The files of the model a job makes."""
    faults: list[tuple[str, int]] = field(default_factory=list)
    """(beginning of ``METHOD path``, status) of requests that fail once; 0: the connection is dropped; -1: after the
    request was carried out; -2: likewise, once it is ``released``."""
    asked: list[Asked] = field(default_factory=list)
    resources: dict[str, dict[str, Any]] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    carried_out: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    root: str = ""

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def of(self, collection: str) -> dict[str, dict[str, Any]]:
        found = {path: each for path, each in self.resources.items() if path.startswith(f"{collection}/")}
        return {path.partition("/")[2]: each for path, each in found.items()}

    def requests(self, beginning: str) -> list[Asked]:
        return [each for each in self.asked if f"{each.method} {each.path}".startswith(beginning)]

    def answer(self, asked: Asked) -> tuple[int, Any]:
        if asked.path.startswith("/storage/"):
            return self._storage(asked)
        if asked.headers.get("Authorization") != f"Bearer {KEY}":
            return 401, refusal(16, f"no such key: {asked.headers.get('Authorization')}")
        path, _, verb = asked.path.partition(":")
        return self._do(asked, path, verb) if verb else self._resource(asked, path)

    def _storage(self, asked: Asked) -> tuple[int, Any]:
        if "Authorization" in asked.headers:
            return 400, "only one way of authorization"
        if asked.method == "PUT":
            expected = asked.headers["X-Goog-Content-Length-Range"]
            if f"{len(asked.body)},{len(asked.body)}" != expected:
                return 400, "not as long as announced"
            self.stored[asked.path] = asked.body
            return 200, ""
        return 200, self.stored[asked.path]

    def _resource(self, asked: Asked, path: str) -> tuple[int, Any]:
        if asked.method == "POST":
            body = asked.json
            if path == "supervisedFineTuningJobs":
                name, made = asked.query["supervisedFineTuningJobId"], {**body, "looks": 0}
                if self.resources.get(f"datasets/{body['dataset'].rpartition('/')[2]}", {}).get("state") != "READY":
                    return 400, refusal(3, "the dataset is not ready")
                self.resources[f"models/{body['outputModel'].rpartition('/')[2]}"] = {"state": "UPLOADING"}
            else:
                kind = path.removesuffix("s")
                name, made = body[f"{kind}Id"], {**body[kind], "state": "UPLOADING"}
            if f"{path}/{name}" in self.resources:
                return 409, refusal(6, f"{name} already exists")
            self.resources[f"{path}/{name}"] = made
            return 200, self.resources[f"{path}/{name}"]
        if path not in self.resources:
            return 404, refusal(5, f"{path} not found")
        if asked.method == "DELETE":
            del self.resources[path]
            return 200, {}
        found = self.resources[path]
        if path.startswith("supervisedFineTuningJobs/"):
            now = self.states[min(found["looks"], len(self.states) - 1)]
            found["looks"] += 1
            if now["state"] in WITH_A_MODEL:
                model = found["outputModel"].rpartition("/")[2]
                self.resources[f"models/{model}"]["state"] = "READY"
                for name, data in self.adapter.items():
                    self.stored[f"/storage/models/{model}/{name}"] = data
            return 200, {**found, **now}
        return 200, found

    def _do(self, asked: Asked, path: str, verb: str) -> tuple[int, Any]:
        if path not in self.resources:
            return 404, refusal(5, f"{path} not found")
        signed = f"{self.root}/storage/{path}"
        if verb == "upload":
            self.stored[f"/storage/{path}/file"] = part(asked)
            self.resources[path]["state"] = "READY"
            return 200, {"id": path, "object": "file", "bytes": len(part(asked))}
        if verb == "getUploadEndpoint":
            names = asked.json["filenameToSize"]
            return 200, {"filenameToSignedUrls": {name: f"{signed}/{name}?signature=secret" for name in names}}
        if verb == "validateUpload":
            self.resources[path]["state"] = "READY"
            return 200, {}
        prefix = f"/storage/{path}/"
        names = [name.removeprefix(prefix) for name in self.stored if name.startswith(prefix)]
        return 200, {"filenameToSignedUrls": {name: f"{signed}/{name}?signature=secret" for name in names}}

    def fault(self, asked: Asked) -> int | None:
        for number, (beginning, status) in enumerate(self.faults):
            if f"{asked.method} {asked.path}".startswith(beginning):
                del self.faults[number]
                return status
        return None


def refusal(code: int, message: str) -> dict[str, Any]:
    return {"code": code, "message": message, "details": []}


def part(asked: Asked) -> bytes:
    """The file of a form."""
    form = message_from_bytes(f"Content-Type: {asked.headers['Content-Type']}\r\n\r\n".encode() + asked.body)
    (only,) = form.get_payload()  # type: ignore[misc]
    data = only.get_payload(decode=True)  # type: ignore[union-attr]
    assert isinstance(data, bytes)
    return data


@contextmanager
def serving() -> Iterator[Service]:
    """A service on a port of its own."""
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            parts = urlsplit(self.path)
            path = re.sub(rf"^/v1/accounts/{ACCOUNT}/", "", parts.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.title(): value for name, value in self.headers.items()}
            asked = Asked(self.command, path, query, headers, body)
            with service.lock:
                service.asked.append(asked)
                fault = service.fault(asked)
                words = f"not now, {asked.headers.get('Authorization')}"  # some servers repeat what they refuse
                status, value = (fault, refusal(14, words)) if fault and fault > 0 else (0, "")
                if fault is None or fault < 0:
                    status, value = service.answer(asked)
            if fault == -2:
                service.carried_out.set()
                service.released.wait()
            if fault is not None and fault <= 0:
                self.close_connection = True
                return
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = handle_one  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    service.root = f"http://127.0.0.1:{http.server_address[1]}"
    yield service
    service.released.set()
    http.shutdown()
    thread.join()
    http.server_close()
