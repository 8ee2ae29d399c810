"""A small Hugging Face Hub on 127.0.0.1: what `huggingface_hub` asks of the real one to upload and download a model."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_test"


@dataclass
class Hub:
    """Repositories by name, each a list of commits, which are dicts from file name to content."""

    address: str = ""
    repositories: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    """Content of large files, by SHA-256."""
    requests: list[str] = field(default_factory=list)
    """Method and path of each request."""
    damaged: bool = False
    """Whether the last byte of large files is changed on the way."""

    def commit(self, name: str, files: dict[str, bytes]) -> str:
        """Add a commit with these files beside the earlier ones, and return its name."""
        commits = self.repositories.setdefault(name, [])
        commits.append({**(commits[-1] if commits else {}), **files})
        return self.sha(name, len(commits) - 1)

    def sha(self, name: str, number: int) -> str:
        return hashlib.sha1(f"{name} {number}".encode()).hexdigest()

    def files(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commits = self.repositories.get(name, [])
        for number, files in reversed(list(enumerate(commits))):
            if revision in ("main", self.sha(name, number)):
                return self.sha(name, number), files
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def _json(self, values: Any, status: int = 200, **headers: str) -> None:
        body = json.dumps(values).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/([^/?]+).*", self.path):
            self._revision(*found.groups())
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/?]+).*", self.path):
            self._tree(*found.groups())
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path):
            self._file(*found.groups())
        else:
            self._json({"error": "not found"}, 404)

    def _revision(self, name: str, revision: str) -> None:
        found = self.hub.files(name, revision)
        if found is None or (self.hub.private.get(name) and self.headers.get("Authorization") != f"Bearer {TOKEN}"):
            self._json({"error": "Repository not found"}, 404, **{"X-Error-Code": "RepoNotFound"})
            return
        sha, files = found
        siblings = []
        for path, content in files.items():
            sha256 = hashlib.sha256(content).hexdigest()
            lfs = {"sha256": sha256, "size": len(content), "pointerSize": 130}
            siblings.append({"rfilename": path, "size": len(content), **({"lfs": lfs} if _is_large(path) else {})})
        self._json({"id": name, "sha": sha, "siblings": siblings, "tags": [], "private": False, "downloads": 0})

    def _tree(self, name: str, revision: str) -> None:
        found = self.hub.files(name, revision)
        assert found is not None
        entries = []
        for path, content in found[1].items():
            lfs = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
            one = {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            entries.append({**one, **({"lfs": lfs} if _is_large(path) else {})})
        self._json(entries)

    def _file(self, name: str, revision: str, path: str) -> None:
        found = self.hub.files(name, revision)
        content = None if found is None else found[1].get(path)
        if found is None or content is None:
            self._json({"error": "Entry not found"}, 404, **{"X-Error-Code": "EntryNotFound"})
            return
        etag = hashlib.sha256(content).hexdigest() if _is_large(path) else hashlib.sha1(content).hexdigest()
        if self.hub.damaged and _is_large(path):
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.send_response(200)
        for header, value in {"Content-Length": len(content), "ETag": f'"{etag}"', "X-Repo-Commit": found[0]}.items():
            self.send_header(header, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def do_PUT(self) -> None:
        self.hub.requests.append(f"PUT {self.path}")
        content = self._body()
        self.hub.large[self.path.rpartition("/")[2]] = content
        self._json({})

    def do_POST(self) -> None:
        self.hub.requests.append(f"POST {self.path}")
        body = self._body()
        if not self.path.endswith("/validate-yaml") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._json({"error": "Invalid username or password."}, 401)
        elif self.path == "/api/repos/create":
            values = json.loads(body)
            name = f"{values.get('organization') or 'me'}/{values['name']}"
            self.hub.private[name] = "private" in (values.get("visibility"), values.get("private") and "private")
            self.hub.repositories.setdefault(name, [])
            self._json({"url": f"{self.hub.address}/{name}"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [{"path": one["path"], "uploadMode": "lfs" if _is_large(one["path"]) else "regular",
                      "shouldIgnore": False} for one in files]  # fmt: skip
            self._json({"files": modes})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.hub.address}/large/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self._json({"transfer": "basic", "objects": objects})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path):
            self._commit(found[1], body)
        else:
            self._json({"errors": [], "warnings": []})

    def _commit(self, name: str, body: bytes) -> None:
        files = {}
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                files[line["value"]["path"]] = self.hub.large[line["value"]["oid"]]
        sha = self.hub.commit(name, files)
        self._json({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.address}/{name}/commit/{sha}"})


def _is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".bin", ".png"))


@contextmanager
def serving() -> Iterator[Hub]:
    """Run the server; its address goes into `HF_ENDPOINT`."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
