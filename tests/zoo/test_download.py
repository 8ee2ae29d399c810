"""Getting weights from a publisher whose connection, files and hashes go wrong."""

from __future__ import annotations

import hashlib
import io
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from weights_server import Publisher, entry, serving

import nonlocal_video as nlv
from nonlocal_video.errors import ModelError, UsageError
from nonlocal_video.models.checkpoint import load_checkpoint
from nonlocal_video.zoo import catalogue, transfer
from nonlocal_video.zoo.download import fetch, pull, verify
from nonlocal_video.zoo.entry import CatalogueEntry, Download, Licence
from nonlocal_video.zoo.store import original_path, read_record, record_path, weights_folder, weights_path

DATA = np.random.default_rng(0).bytes(500_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
SMALLEST = "mc3-18-k400-torchvision"
QUICK = transfer.RetryPolicy(attempts=3, connect_seconds=5, silence_seconds=0.4, pause_seconds=0.01)


@pytest.fixture(autouse=True)
def _own_folder_and_no_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NONLOCAL_VIDEO_WEIGHTS", str(tmp_path / "weights"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "nonlocal_video_offline"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with serving(Publisher(DATA)) as server:
        yield server


def ranges_asked(publisher: Publisher) -> list[str | None]:
    return [request.get("Range") for request in publisher.requests]


def files_here() -> set[str]:
    """Every file under the weights folder but the lock."""
    folder = weights_folder()
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


@pytest.mark.parametrize("published", [SHA256, SHA256[:8], None])
def test_the_file_is_whole_checked_and_alone(publisher: Publisher, published: str | None) -> None:
    steps: list[tuple[int, int | None]] = []
    said: list[str] = []
    path = fetch(entry(publisher.url(), published), progress=lambda *step: steps.append(step), notify=said.append)
    assert path.read_bytes() == DATA
    assert steps[-1] == (len(DATA), len(DATA))
    assert steps == sorted(steps)
    assert files_here() == {"downloads/tiny-k400.pkl"}
    (sentence,) = said
    assert SHA256 in sentence
    assert ("its publisher gives none" in sentence) == (published is None)


def test_a_cut_connection_is_taken_up_where_it_broke(publisher: Publisher) -> None:
    publisher.cut_after = [200_000, 100_000]
    said: list[str] = []
    assert fetch(entry(publisher.url(), SHA256), policy=QUICK, notify=said.append).read_bytes() == DATA
    first, second, third = publisher.requests
    offsets = [int(request["Range"].removeprefix("bytes=").removesuffix("-")) for request in (second, third)]
    assert "Range" not in first
    assert 100_000 < offsets[0] <= 200_000  # at most one piece of 64 KiB is lost in a cut
    assert offsets[0] < offsets[1] <= 300_000
    assert second["If-Range"] == third["If-Range"] == publisher.tag
    assert sum(publisher.bodies) < 1.3 * len(DATA)
    assert len([sentence for sentence in said if "trying again in" in sentence]) == 2


def test_what_a_failed_call_left_is_the_next_call_s_beginning(publisher: Publisher) -> None:
    publisher.cut_after = [150_000, 1_000, 1_000]
    with pytest.raises(ModelError, match=r"3 attempts; 1\d\d,\d\d\d bytes are kept"):
        fetch(entry(publisher.url(), SHA256), policy=QUICK)
    assert files_here() == {"downloads/tiny-k400.pkl.part", "downloads/tiny-k400.pkl.part.json"}
    kept = (weights_folder() / "downloads" / "tiny-k400.pkl.part").stat().st_size
    assert fetch(entry(publisher.url(), SHA256), policy=QUICK).read_bytes() == DATA
    assert ranges_asked(publisher)[3] == f"bytes={kept}-"
    assert files_here() == {"downloads/tiny-k400.pkl"}


@pytest.mark.parametrize("ending", ["part", "part.json"])
def test_bytes_and_tag_are_written_through_no_link(publisher: Publisher, tmp_path: Path, ending: str) -> None:
    (tmp_path / "precious").write_text("precious")
    link = weights_folder() / "downloads" / f"tiny-k400.pkl.{ending}"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "precious")
    with pytest.raises(UsageError, match="is a link"):
        fetch(entry(publisher.url(), SHA256), policy=QUICK)
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_server_without_ranges_sends_it_all_again(publisher: Publisher) -> None:
    publisher.knows_ranges = False
    publisher.cut_after = [200_000]
    assert fetch(entry(publisher.url(), SHA256), policy=QUICK).read_bytes() == DATA
    assert ranges_asked(publisher)[1] is not None


@pytest.mark.parametrize("tag", ["", 'W/"1"'])  # a weak one may stand for files that differ
def test_a_file_without_a_tag_is_never_pieced_together(publisher: Publisher, tag: str) -> None:
    publisher.tag = tag
    publisher.cut_after = [200_000]
    assert fetch(entry(publisher.url(), SHA256), policy=QUICK).read_bytes() == DATA
    assert ranges_asked(publisher) == [None, None]


@pytest.mark.parametrize("compares_tags", [True, False])
def test_a_file_that_changed_meanwhile_is_not_mixed_with_the_old(publisher: Publisher, compares_tags: bool) -> None:
    publisher.cut_after = [200_000, 0, 0]
    with pytest.raises(ModelError, match="bytes are kept"):
        fetch(entry(publisher.url()), policy=QUICK)
    publisher.data, publisher.tag = DATA[::-1], '"2"'
    publisher.compares_tags = compares_tags
    publisher.requests.clear()
    assert fetch(entry(publisher.url()), policy=QUICK).read_bytes() == DATA[::-1]
    assert publisher.requests[0]["If-Range"] == '"1"'


def test_more_here_than_there_starts_again(publisher: Publisher) -> None:
    publisher.cut_after = [400_000, 0, 0]
    with pytest.raises(ModelError, match="bytes are kept"):
        fetch(entry(publisher.url()), policy=QUICK)
    publisher.data = DATA[:1000]  # under the same tag: a server that lies
    assert fetch(entry(publisher.url()), policy=QUICK).read_bytes() == DATA[:1000]


@pytest.mark.parametrize("published", ["0" * 64, "12345678"])
def test_a_wrong_hash_installs_nothing(publisher: Publisher, published: str) -> None:
    with pytest.raises(ModelError, match=f"has SHA-256 {SHA256} instead of the published {published}"):
        fetch(entry(publisher.url(), published))
    assert files_here() == set()


@pytest.mark.parametrize("status", [404, 403])
def test_a_refusal_is_one_line_with_the_url_and_is_not_repeated(publisher: Publisher, status: int) -> None:
    publisher.statuses = [status] * 3
    with pytest.raises(ModelError) as caught:
        fetch(entry(publisher.url(), SHA256), policy=QUICK)
    message = str(caught.value)
    assert message.startswith(f"{publisher.url()} cannot be downloaded: the server answered {status} ")
    assert str(original_path(entry(publisher.url(), SHA256))) in message
    assert "\n" not in message
    assert len(publisher.requests) == 1


def test_a_busy_server_is_asked_again(publisher: Publisher) -> None:
    publisher.statuses = [503, 429]
    assert fetch(entry(publisher.url(), SHA256), policy=QUICK).read_bytes() == DATA
    assert len(publisher.requests) == 3


@pytest.mark.parametrize("silent_after", [-1, 0, 200_000])
@pytest.mark.slow
def test_a_silent_server_is_given_up(publisher: Publisher, silent_after: int) -> None:
    publisher.silent_after = [silent_after, 0, 0]
    with pytest.raises(ModelError, match=r"timed out \(3 attempts"):
        fetch(entry(publisher.url(), SHA256), policy=QUICK)
    assert len(publisher.requests) == 3
    publisher.silent_after = []
    assert fetch(entry(publisher.url(), SHA256), policy=QUICK).read_bytes() == DATA


def test_no_network_is_one_line_at_once_with_the_url_and_the_folder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}/weights.pkl"
    said: list[str] = []
    with pytest.raises(ModelError) as caught:
        fetch(entry(address), notify=said.append)  # with the usual policy: nothing is waited for
    message = str(caught.value)
    assert message.startswith(f"{address} cannot be downloaded: no connection (")
    assert f"save it as {original_path(entry(address))}" in message
    assert "\n" not in message
    assert said == []


def test_a_web_page_is_not_a_file(publisher: Publisher) -> None:
    publisher.content_type = "text/html; charset=utf-8"
    with pytest.raises(ModelError, match="a web page came instead"):
        fetch(entry(publisher.url()), policy=QUICK)
    assert files_here() == set()


def test_the_proxy_of_the_environment_is_used(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", publisher.address)
    row = entry("http://publisher.invalid/weights.pkl")
    assert fetch(row).read_bytes() == DATA
    assert publisher.requests[0]["path"] == "http://publisher.invalid/weights.pkl"


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_offline_asks_for_the_file_and_takes_it(publisher: Publisher, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    if by == "environment":
        monkeypatch.setenv("NONLOCAL_VIDEO_OFFLINE", "1")
    row = entry(publisher.url(), SHA256)
    with pytest.raises(ModelError) as caught:
        fetch(row, offline=by == "argument")
    path = original_path(row)
    assert f"Fetch {publisher.url()} elsewhere, save it as {path}" in str(caught.value)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(DATA[::-1])
    with pytest.raises(ModelError, match="instead of the published"):
        fetch(row, offline=by == "argument")
    assert path.read_bytes() == DATA[::-1]  # what a person put there is not ours to remove
    path.write_bytes(DATA)
    assert fetch(row, offline=by == "argument") == path
    assert fetch(row) == path
    assert publisher.requests == []


def test_a_page_for_persons_is_not_asked(publisher: Publisher) -> None:
    row = entry("", download=Download(publisher.url("open?id=1"), "torch", by_hand=True))
    with pytest.raises(ModelError) as caught:
        fetch(row)
    assert f"open {publisher.url('open?id=1')} " in str(caught.value)
    assert f"save it as {original_path(row)}" in str(caught.value)
    assert publisher.requests == []
    original_path(row).parent.mkdir(exist_ok=True)
    original_path(row).write_bytes(DATA)
    assert fetch(row).read_bytes() == DATA


@pytest.fixture(scope="module")
def published_file() -> bytes:
    """File as the publisher of `SMALLEST` gives it, with random numbers."""
    buffer = io.BytesIO()
    torch.save(torchvision.models.video.mc3_18().state_dict(), buffer)
    return buffer.getvalue()


def smallest(publisher: Publisher, sha256: str | None = None) -> CatalogueEntry:
    """The catalogue's row of it, with the test's server for its publisher's."""
    row = catalogue.entry(SMALLEST)
    assert row.download is not None
    return replace(row, download=replace(row.download, url=publisher.url(), sha256=sha256))


def test_pulled_weights_load_and_nothing_is_left_over(publisher: Publisher, published_file: bytes) -> None:
    publisher.data = published_file
    publisher.cut_after = [10_000_000]
    sha256 = hashlib.sha256(published_file).hexdigest()
    row = smallest(publisher, sha256[:8])
    path = pull(row, policy=QUICK)
    assert path == weights_path(SMALLEST) == catalogue.find(SMALLEST)
    assert files_here() == {f"{SMALLEST}.safetensors", f"{SMALLEST}.json"}
    network, card = load_checkpoint(path)
    assert card == catalogue.entry(SMALLEST).card
    stored = torch.load(io.BytesIO(published_file), weights_only=True)
    assert torch.equal(network.state_dict()["fc.weight"], stored["fc.weight"])
    assert f"has the published first 8 digits of the SHA-256 {sha256}" in verify(row)
    with pytest.raises(ModelError, match=r"the card in .* differs from the catalogue's"):
        verify(replace(row, average="logits"))
    assert pull(row, policy=QUICK) == path
    assert len(publisher.requests) == 2


def test_python_pulls_and_loads_by_name(
    publisher: Publisher, published_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.data = published_file
    rows = {**catalogue.entries(), SMALLEST: smallest(publisher)}
    monkeypatch.setattr(catalogue, "entries", lambda: rows)
    with pytest.raises(ModelError, match=rf"not here yet.*nlv\.load\('{SMALLEST}', download=True\)"):
        nlv.load(SMALLEST)
    assert publisher.requests == []
    with nlv.load(SMALLEST, download=True, device="cpu") as recognizer:
        assert repr(recognizer) == f"Recognizer('{SMALLEST}', 400 classes, cpu)"
        assert recognizer.labels == rows[SMALLEST].card.labels
    assert nlv.pull(SMALLEST) == weights_path(SMALLEST)
    assert len(publisher.requests) == 1
    assert nlv.pull("default").name == "i3d-nl-k400.safetensors"


def test_names_are_found_by_pattern() -> None:
    assert nlv.list_models() == sorted([*catalogue.EMBEDDED, *catalogue.entries()])
    nonlocal_ones = nlv.list_models("*-nl-*")
    assert "i3d-nl-k400" in nonlocal_ones
    assert all("-nl-" in name for name in nonlocal_ones)
    assert nlv.list_models("nothing-like-this") == []


def test_an_unpublished_hash_is_recorded_and_a_changed_file_refused(
    publisher: Publisher, published_file: bytes
) -> None:
    publisher.data = published_file
    row = smallest(publisher)
    said: list[str] = []
    path = pull(row, notify=said.append, keep_original=True)
    record = read_record(SMALLEST)
    assert record is not None
    assert record.sha256 == hashlib.sha256(published_file).hexdigest()
    assert any(record.sha256 in sentence and "its publisher gives none" in sentence for sentence in said)
    assert original_path(row).read_bytes() == published_file
    assert "its publisher gives none to compare" in verify(row)

    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ModelError, match=r"and had \w+ when it was made\. Delete"):
        verify(row)

    path.unlink()
    original_path(row).unlink()
    publisher.data, publisher.tag = published_file[:-1] + b"x", '"2"'
    with pytest.raises(ModelError, match=f"instead of {record.sha256}, as when it was first pulled") as caught:
        pull(row)
    assert f"delete {record_path(SMALLEST)}" in str(caught.value)
    assert files_here() == {f"{SMALLEST}.json"}


def test_a_file_that_does_not_convert_installs_nothing_and_is_named(publisher: Publisher) -> None:
    publisher.data = pickle.dumps({"blobs": {}}, protocol=2)
    row = smallest(publisher)
    with pytest.raises(ModelError) as caught:
        pull(row)
    assert f"stays at {original_path(row)}; delete it" in str(caught.value)
    assert files_here() == {f"downloads/{original_path(row).name}"}


def test_non_commercial_weights_ask_for_consent(publisher: Publisher) -> None:
    row = entry(publisher.url(), licence=Licence("CC-BY-NC-4.0", non_commercial=True))
    with pytest.raises(UsageError, match=r"CC-BY-NC-4\.0.*--accept-licence"):
        pull(row)
    assert publisher.requests == []


def test_a_network_without_weights_says_so() -> None:
    with pytest.raises(ModelError, match=r"No weights were ever published.*nlv\.build"):
        pull(entry("", download=None))


def test_a_folder_that_cannot_be_written_is_named(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("a file")
    with pytest.raises(ModelError, match="NONLOCAL_VIDEO_WEIGHTS may name another folder"):
        fetch(entry(publisher.url(), SHA256))


@pytest.mark.slow
def test_two_processes_at_once_download_once(publisher: Publisher, published_file: bytes) -> None:
    publisher.data = published_file
    publisher.hold.clear()
    code = (
        "import sys; from dataclasses import replace; from nonlocal_video.zoo import catalogue, download; "
        "row = catalogue.entry(sys.argv[1]); "
        "print(download.pull(replace(row, download=replace(row.download, url=sys.argv[2], sha256=None))))"
    )
    command = [sys.executable, "-u", "-c", code, SMALLEST, publisher.url()]

    def lines_of(process: subprocess.Popen[str]) -> list[str]:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.strip())
            if "waiting for it" in line:  # the file's end is held back until then, so both are at it
                publisher.hold.set()
        return lines

    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        outputs = list(threads.map(lines_of, both))
    assert [process.wait() for process in both] == [0, 0]
    assert [lines[-1] for lines in outputs] == [str(weights_path(SMALLEST))] * 2
    assert sum(f"Another process is getting {SMALLEST}" in line for lines in outputs for line in lines) == 1
    assert publisher.bodies == [len(published_file)]
    load_checkpoint(weights_path(SMALLEST))
    assert files_here() == {f"{SMALLEST}.safetensors", f"{SMALLEST}.json"}
