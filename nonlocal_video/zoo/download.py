"""Download of published weights: get the publisher's file, check its hash, convert it and record what was seen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nonlocal_video.errors import ModelError, UsageError
from nonlocal_video.io import lock_of, sha256_of
from nonlocal_video.paths import OFFLINE_VARIABLE, is_offline
from nonlocal_video.zoo import transfer
from nonlocal_video.zoo.store import (
    Record,
    original_path,
    read_record,
    record_path,
    weights_folder,
    weights_path,
    write_record,
)

if TYPE_CHECKING:
    from nonlocal_video.zoo.entry import CatalogueEntry, Download


def check_licence(entry: CatalogueEntry, *, accepted: bool) -> None:
    """Require consent to a licence that forbids commercial use.

    Raises:
        UsageError: If the licence does and was not accepted.
    """
    if entry.licence.non_commercial and not accepted:
        raise UsageError(
            f"The weights of {entry.name!r} may not be used commercially (licence: {entry.licence.name}). "
            f"If you agree: nonlocal-video weights pull {entry.name} --accept-licence"
        )


def pull(
    entry: CatalogueEntry,
    *,
    accept_licence: bool = False,
    keep_original: bool = False,
    offline: bool = False,
    policy: transfer.RetryPolicy | None = None,
    progress: transfer.ProgressCallback | None = None,
    notify: transfer.Notify = print,
) -> Path:
    """Download, check and convert the weights of a catalogue entry; do nothing if they are here.

    Several processes may pull at once: one works, the others wait for it.

    Args:
        entry: A row of the catalogue.
        accept_licence: Consent to a licence that forbids commercial use.
        keep_original: Whether to keep the publisher's file at `original_path(entry)`. A file put there by hand is
            always kept.
        offline: Whether to work without the network; so does the environment variable NONLOCAL_VIDEO_OFFLINE=1.
        policy: Waiting times and number of attempts.
        progress: Called with the bytes received and, where known, the total.
        notify: Called with sentences about the progress.

    Returns:
        The converted file, `weights_path(entry.name)`.

    Raises:
        UsageError: If the licence was not accepted.
        ModelError: If no weights were published, or they cannot be downloaded, have another hash or cannot be
            converted.
    """
    with _locked(entry, notify):
        path = weights_path(entry.name)
        if path.is_file():
            return path
        check_licence(entry, accepted=accept_licence)
        original = original_path(entry)
        put_by_hand = original.is_file()
        _fetch(entry, offline=offline, policy=policy, progress=progress, notify=notify)
        try:
            _convert(entry, original, path, notify)
        except ModelError as error:
            raise ModelError(
                f"{error} The publisher's file stays at {original}; delete it to download it again."
            ) from error
        if not (keep_original or put_by_hand):
            original.unlink()
        return path


def fetch(
    entry: CatalogueEntry,
    *,
    offline: bool = False,
    policy: transfer.RetryPolicy | None = None,
    progress: transfer.ProgressCallback | None = None,
    notify: transfer.Notify = print,
) -> Path:
    """Download the publisher's file and check its hash; arguments and errors as for `pull`.

    Returns:
        `original_path(entry)`.
    """
    with _locked(entry, notify):
        return _fetch(entry, offline=offline, policy=policy, progress=progress, notify=notify)


def verify(entry: CatalogueEntry) -> str:
    """Compare pulled weights with the published and the recorded hashes, and load them strictly.

    Returns:
        A sentence about what was compared.

    Raises:
        ModelError: If the weights are missing or wrong; the message names every problem.
    """
    from nonlocal_video.models.checkpoint import load_checkpoint

    path = weights_path(entry.name)
    if not path.is_file():
        raise ModelError(f"{entry.name} is not here: nonlocal-video weights pull {entry.name}")
    problems = []
    record = read_record(entry.name)
    download = _published(entry)
    if record is None:
        seen = f"was not pulled here ({record_path(entry.name).name} is missing), so there is no hash to compare"
    else:
        seen = _hash_in_words(download, record.sha256)
        problems += _differences(entry, record, record.sha256, "what was downloaded")
        if (converted := sha256_of(path)) != record.converted_sha256:
            problems.append(f"{path} has SHA-256 {converted}, and had {record.converted_sha256} when it was made")
    if (original := original_path(entry)).is_file():
        problems += _differences(entry, record, sha256_of(original), str(original))
    try:
        _, card = load_checkpoint(path)
    except ModelError as error:
        problems.append(str(error).rstrip("."))
    else:
        if replace(card, source="") != replace(entry.card, source=""):  # an address may change
            problems.append(f"the card in {path} differs from the catalogue's")
    if problems:
        raise ModelError(f"{'; '.join(problems)}. Delete {path} and pull again.")
    return f"the publisher's file {seen}; in the converted one all tensors load"


def _fetch(
    entry: CatalogueEntry,
    *,
    offline: bool,
    policy: transfer.RetryPolicy | None,
    progress: transfer.ProgressCallback | None,
    notify: transfer.Notify,
) -> Path:
    download = _published(entry)
    record = read_record(entry.name)
    path = original_path(entry)
    if path.is_file():  # put there by hand, or kept
        sha256 = sha256_of(path)
        if problems := _differences(entry, record, sha256, str(path)):
            raise ModelError(
                f"{'; '.join(problems)}. It was not used; put the right file there, or none to download it."
            )
        notify(f"{path} {_hash_in_words(download, sha256)}.")
        return path
    yourself = f"save it as {path}, and run this again."
    if download.by_hand:
        raise ModelError(
            f"The weights of {entry.name!r} can only be downloaded by hand: open {download.url} "
            f"(`nonlocal-video weights info {entry.name}` describes it), {yourself}"
        )
    if offline or is_offline():
        raise ModelError(
            f"The weights of {entry.name!r} are not here, and offline (--offline or {OFFLINE_VARIABLE}) nothing is "
            f"downloaded. Fetch {download.url} elsewhere, {yourself}"
        )
    part = path.with_name(f"{path.name}.part")
    path.parent.mkdir(exist_ok=True)
    try:
        transfer.download(download.url, part, policy=policy, progress=progress, notify=notify)
    except transfer.TransferError as error:
        raise ModelError(f"{error} Or fetch the file yourself, {yourself}") from error
    sha256 = sha256_of(part)
    if problems := _differences(entry, record, sha256, download.url):
        transfer.discard(part)
        raise ModelError(f"{'; '.join(problems)}. The file was removed; nothing is installed.")
    os.replace(part, path)
    transfer.discard(part)
    notify(f"{download.url} {_hash_in_words(download, sha256)}.")
    return path


def _convert(entry: CatalogueEntry, original: Path, path: Path, notify: transfer.Notify) -> None:
    """Write the weights file, which appears only after its record."""
    from nonlocal_video.zoo.convert import convert_file

    temporary = path.with_name(f".{entry.name}.{os.getpid()}.safetensors")
    try:
        conversion = convert_file(original, temporary, name=entry.name)
        record = Record(
            url=_published(entry).url,
            sha256=conversion.input_sha256,
            num_bytes=original.stat().st_size,
            converted_sha256=sha256_of(temporary),
        )
        write_record(entry.name, record)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    notify(f"Its hash is kept in {record_path(entry.name)}.")


@contextmanager
def _locked(entry: CatalogueEntry, notify: transfer.Notify) -> Iterator[None]:
    """Hold the lock of an entry, so that one process works on it; raise a `ModelError` if the folder fails."""
    from filelock import Timeout

    folder = weights_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_of(folder / f".{entry.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            notify(f"Another process is getting {entry.name}; waiting for it.")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()
    except OSError as error:
        raise ModelError(
            f"{folder} cannot be used: {error}. NONLOCAL_VIDEO_WEIGHTS may name another folder."
        ) from error


def _published(entry: CatalogueEntry) -> Download:
    if entry.download is None:
        raise ModelError(
            f"No weights were ever published for {entry.name!r}; nlv.build({entry.name!r}) gives the network alone."
        )
    return entry.download


def _differences(entry: CatalogueEntry, record: Record | None, sha256: str, what: str) -> list[str]:
    """Compare a file's hash with the published one and with the recorded one; return the differences."""
    download = _published(entry)
    problems = []
    if download.sha256 and not sha256.startswith(download.sha256):
        problems.append(f"{what} has SHA-256 {sha256} instead of the published {download.sha256}")
    elif record is not None and record.url == download.url and sha256 != record.sha256:
        problems.append(
            f"{what} has SHA-256 {sha256} instead of {record.sha256}, as when it was first pulled "
            f"(if you trust the new file, delete {record_path(entry.name)})"
        )
    return problems


def _hash_in_words(download: Download, sha256: str) -> str:
    if download.sha256 is None:
        return f"has SHA-256 {sha256} (its publisher gives none to compare)"
    digits = "" if len(download.sha256) == 64 else f" first {len(download.sha256)} digits of the"
    return f"has the published{digits} SHA-256 {sha256}"
