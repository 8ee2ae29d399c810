"""A publisher's server on 127.0.0.1 that can be made to fail."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from nonlocal_video.zoo.entry import CatalogueEntry, Download, Licence, PublishedInput


def entry(url: str, sha256: str | None = None, **changes: object) -> CatalogueEntry:
    """A row that is not in the catalogue."""
    row = CatalogueEntry(
        name="tiny-k400",
        source="pyslowfast",
        config={},
        input=PublishedInput(8, 8, "thirtieths", 64, 48, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        labels="kinetics400",
        parameters=1,
        last_features=(512, 4, 2, 2),
        gmacs=None,
        licence=Licence("Apache-2.0"),
        download=Download(url, "caffe2", sha256),
    )
    return replace(row, **changes)


@dataclass
class Publisher:
    """Answers of the server for every path, and what goes wrong; lists have one item a request, then None."""

    data: bytes
    address: str = ""
    tag: str = '"1"'
    """The ETag, if any."""
    knows_ranges: bool = True
    compares_tags: bool = True
    """Whether a range is only given of the file that If-Range names."""
    content_type: str = "application/octet-stream"
    statuses: list[int | None] = field(default_factory=list)
    cut_after: list[int | None] = field(default_factory=list)
    """Bytes of the body after which the connection is closed."""
    silent_after: list[int | None] = field(default_factory=list)
    """Bytes of the body after which nothing comes any more; -1 is before the status line."""
    requests: list[dict[str, str]] = field(default_factory=list)
    """Headers of the requests that came, their path as "path"."""
    bodies: list[int] = field(default_factory=list)
    """Bytes sent for each request."""
    hold: threading.Event = field(default_factory=threading.Event)
    """While it is not set, bodies wait before their last byte; silence ends when the test does."""

    def url(self, name: str = "weights.pkl") -> str:
        """The address of a file."""
        return f"{self.address}/{name}"


@contextmanager
def serving(publisher: Publisher) -> Iterator[Publisher]:
    """Serves until the block ends."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            publisher.requests.append({"path": self.path, **dict(self.headers.items())})
            status = publisher.statuses.pop(0) if publisher.statuses else None
            cut = publisher.cut_after.pop(0) if publisher.cut_after else None
            silent = publisher.silent_after.pop(0) if publisher.silent_after else None
            self.close_connection = True
            if silent == -1:
                over.wait(30)
                return
            if status is not None:
                self.send_error(status)
                return
            body, headers = publisher.data, {"Content-Type": publisher.content_type}
            if publisher.tag:
                headers["ETag"] = publisher.tag
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            same = not publisher.compares_tags or self.headers.get("If-Range") == publisher.tag
            if wanted and publisher.knows_ranges and same:
                first = int(wanted[1])
                if first >= len(body):
                    self.send_error(416)
                    return
                headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
                body = body[first:]
                self.send_response(206)
            else:
                self.send_response(200)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            end = next((place for place in (cut, silent) if place is not None), len(body) - 1)
            self.wfile.write(body[:end])
            publisher.bodies.append(end)
            if silent is not None:
                over.wait(30)
            elif cut is None:
                publisher.hold.wait(30)
                self.wfile.write(body[end:])
                publisher.bodies[-1] = len(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    publisher.address = f"http://127.0.0.1:{server.server_port}"
    publisher.hold.set()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield publisher
    finally:
        over.set()
        publisher.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()
