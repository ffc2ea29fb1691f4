"""A local server that speaks the part of Hugging Face's and of ModelScope's API that downloads and uploads use."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Files = Mapping[str, bytes]


@dataclass
class FakeHub:
    """Repositories by kind and id, each with the files of its revisions; `asked` are the requests, `sent` what was uploaded."""

    repositories: dict[tuple[str, str], dict[str, Files]]
    asked: list[str] = field(default_factory=list)
    sent: dict[str, bytes] = field(default_factory=dict)
    created: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""


@contextmanager
def fake_hub(repositories: dict[tuple[str, str], dict[str, Files]]) -> Iterator[FakeHub]:
    hub = FakeHub(repositories)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    yield hub
    server.shutdown()
    server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        address = urlsplit(self.path)
        parts = unquote(address.path).strip("/").split("/")
        query = {key: values[0] for key, values in parse_qs(address.query).items()}
        if parts[:2] == ["api", "v1"]:
            self._modelscope(parts[2:], query)
        elif parts[0] == "api":
            self._hugging_face_api(parts[1:])
        else:
            kind = parts.pop(0) if parts[0] == "datasets" else "models"
            self._file(kind, "/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    def do_POST(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != "Bearer hf_of_the_login":
            return self._json({"error": "Unauthorized"}, 401)
        if self.path == "/api/repos/create":
            self.hub.created.append(json.loads(body))
            return self._json({"url": self.hub.url + "/{organization}/{name}".format(**json.loads(body))})
        if "/preupload/" in self.path:
            listed = json.loads(body)["files"]
            return self._json(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in listed
                    ]
                }
            )
        if "/commit/" in self.path:
            for row in map(json.loads, body.splitlines()):
                if row["key"] == "file":
                    self.hub.sent[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
            return self._json(
                {
                    "commitUrl": f"{self.hub.url}/me/it/commit/{commit(self.path)}",
                    "commitOid": "c" * 40,
                    "hookOutput": "",
                }
            )
        return self._json({"errors": [], "warnings": []})

    def _hugging_face_api(self, parts: list[str]) -> None:
        kind, id = parts[0], "/".join(parts[1:3])
        revision = parts[4] if len(parts) > 4 else "main"
        files = self._files(kind, id, revision)
        if files is None:
            return
        if parts[3:4] == ["tree"] and len(parts) > 5:  # no repository here has folders
            return self._json({"error": "no folder"}, 404, {"X-Error-Code": "EntryNotFound"})
        if parts[3:4] == ["tree"]:
            rows = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
            return self._json(rows)
        siblings = [{"rfilename": name} for name in files]
        self._json({"id": id, "sha": commit(revision), "siblings": siblings, "private": False, "tags": []})

    def _file(self, kind: str, id: str, revision: str, name: str) -> None:
        files = self._files(kind, id, revision)
        if files is None:
            return
        if name not in files:
            return self._json({"error": "no file"}, 404, {"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{hashlib.sha1(files[name]).hexdigest()}"', "X-Repo-Commit": commit(revision)}
        self._send(files[name], 200, headers)

    def _files(self, kind: str, id: str, revision: str) -> Files | None:
        """The files of a revision, which may be given by its commit; None where the error has been sent."""
        revisions = self.hub.repositories.get((kind, id))
        found = {commit(name): files for name, files in (revisions or {}).items()} | (revisions or {})
        if revision not in found:
            code = "RepoNotFound" if revisions is None else "RevisionNotFound"
            self._json({"error": code}, 404, {"X-Error-Code": code})
            return None
        return found[revision]

    def _modelscope(self, parts: list[str], query: dict[str, str]) -> None:
        kind, id, rest = parts[0], "/".join(parts[1:3]), parts[3:]
        revision = query.get("Revision", "master")
        files = self.hub.repositories.get((kind, id), {}).get(revision)
        if files is None:
            return self._json({"Code": 404, "Message": "not found", "Success": False}, 404)
        if rest == ["repo"]:
            return self._send(files[query["FilePath"]], 200, {})
        rows = [
            {"Path": name, "Name": name, "Type": "blob", "Size": len(content), "Sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        ]  # fmt: skip
        self._json({"Code": 200, "Success": True, "Data": {"Files": rows, "TotalCount": len(rows)}})

    def _json(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self._send(
            json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})}
        )

    def _send(self, body: bytes, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def commit(revision: str) -> str:
    """The commit that a revision points to; a commit is its own."""
    return revision if re.fullmatch("[0-9a-f]{40}", revision) else hashlib.sha1(revision.encode()).hexdigest()
