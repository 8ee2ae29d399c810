"""Models on the Hugging Face Hub: the address `hf://owner/name[@revision]`, and the download into the cache.

Only weights in safetensors, their configuration and the model card are fetched: no pickles and no code.
"""

from __future__ import annotations

import fnmatch
import glob
import logging
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from nonlocal_video.errors import ModelError
from nonlocal_video.io import sha256_of
from nonlocal_video.paths import OFFLINE_VARIABLE, is_offline, weights_folder

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

SCHEME = "hf://"
_ADDRESS = re.compile(r"hf://([\w-][\w.-]*/[\w-][\w.-]*)(?:@([^\s@]+))?")
_PRESETS = ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json")
"""Names under which versions of transformers have written the preset of a processor."""
_FETCHED = ("*.safetensors", "*.safetensors.index.json", "config.json", *_PRESETS, "README.md")
"""Patterns of the files in a repository's top folder that are fetched."""
_RUN_WEIGHTS = "best.safetensors"  # of a run that `weights push` uploaded; last.safetensors beside it is not needed
_SECONDS = 10.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubAddress:
    """Address of a model on the Hub."""

    repository: str
    """Owner and name."""
    revision: str = "main"
    """Branch, tag or commit."""

    @classmethod
    def parse(cls, text: str) -> HubAddress:
        """Read `hf://owner/name` or `hf://owner/name@revision`.

        Raises:
            ModelError: It is something else.
        """
        found = _ADDRESS.fullmatch(text)
        if found is None or ".." in text:
            raise ModelError(f"Model {text!r} should be hf://owner/name or hf://owner/name@revision.")
        return cls(found[1], found[2] or "main")

    def __str__(self) -> str:
        return f"{SCHEME}{self.repository}" + ("" if self.revision == "main" else f"@{self.revision}")


def is_on_hub(name: str | Path) -> bool:
    """Return whether a model's name is an address on the Hub."""
    return isinstance(name, str) and name.startswith(SCHEME)


def local_model(name: str | Path) -> str | Path:
    """Return the model that a name stands for on this machine: an address is fetched, other names are unchanged.

    Returns:
        Of an address, the snapshot's folder, which has the form of a run's folder or of another library; or its only
        weights file, if there is no `config.json` that says what the folder is.

    Raises:
        ModelError: As for `fetch`.
    """
    if not is_on_hub(name):
        return name
    folder = fetch(HubAddress.parse(str(name)))
    files = sorted(folder.glob("*.safetensors"))
    return files[0] if len(files) == 1 and not (folder / "config.json").is_file() else folder


def fetch(address: HubAddress) -> Path:
    """Fetch a model's files into the cache, unless they are there, and return the folder of that revision.

    A process asks the Hub once for each address, so that all its parts use the same revision.

    Raises:
        ModelError: There is no such repository or revision, access is refused, it has no safetensors file, what came
            is damaged, or there is no connection and the files are not in the cache.
    """
    return _fetch(address, endpoint(), weights_folder() / "hub")


@lru_cache
def _fetch(address: HubAddress, server: str | None, cache: Path) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    offline = is_offline() or constants.HF_HUB_OFFLINE
    info = None
    try:
        info = None if offline else _info(address)
        folder = Path(
            snapshot_download(
                address.repository,
                revision=address.revision,
                cache_dir=cache,
                endpoint=server,
                allow_patterns=[glob.escape(name) for name in _files_of(address, info)] if info else list(_FETCHED),
                local_files_only=info is None,
                library_name="nonlocal-video",
            )
        )
    except LocalEntryNotFoundError as error:
        if info is None:
            raise ModelError(_missing(address, offline=offline)) from error
        why = str(error.__cause__ or error).splitlines()[0]
        raise ModelError(f"{address} cannot be downloaded: {why} Try again.") from error
    except HfHubHTTPError as error:
        raise ModelError(_refused(address, error.response.status_code)) from error
    except transport_error() as error:
        raise ModelError(f"{address} cannot be downloaded: {error or type(error).__name__}. Try again.") from error
    except OSError as error:
        raise ModelError(f"{address} cannot be kept in {str(cache)!r}: {error}.") from error
    _check(address, folder, info, offline=offline)
    return folder


def endpoint() -> str | None:
    """Return the address of the Hub or of a mirror, `$HF_ENDPOINT`; None for huggingface_hub's own."""
    return os.environ.get("HF_ENDPOINT") or None


def transport_error() -> type[Exception]:
    """Return the class of failed connections: `HTTPError` of httpx or of httpx2, as huggingface_hub's version uses."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(base for base in HfHubHTTPError.__mro__ if base.__module__.partition(".")[0] in ("httpx", "httpx2"))


def _info(address: HubAddress) -> ModelInfo | None:
    """Ask the Hub for the list of files; None without a connection, when a copy in the cache has to do."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(endpoint=endpoint())
    try:
        return api.model_info(address.repository, revision=address.revision, files_metadata=True, timeout=_SECONDS)
    except HfHubHTTPError:
        raise
    except transport_error() as error:
        _log.warning("%s: the Hub cannot be reached (%s); a copy in the cache is used if there is one.", address, error)
        return None


def _files_of(address: HubAddress, info: ModelInfo) -> list[str]:
    """Return the names of the files to fetch."""
    names = [file.rfilename for file in info.siblings or ()]
    wanted = [name for name in names if "/" not in name and any(fnmatch.fnmatch(name, one) for one in _FETCHED)]
    weights = [name for name in wanted if name.endswith(".safetensors")]
    if not weights:
        others = ", ".join(sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl", ".ckpt"))))
        instead = f" (it has {others}, which can run code and is never fetched)" if others else ""
        raise ModelError(f"{address} has no weights in safetensors{instead}. Ask its owner for such a file.")
    if _RUN_WEIGHTS in weights:
        wanted = [name for name in wanted if name not in weights or name == _RUN_WEIGHTS]
    return wanted


def _check(address: HubAddress, folder: Path, info: ModelInfo | None, *, offline: bool) -> None:
    """Compare the weights with the Hub's hashes, and show them."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelError(_missing(address, offline=offline))
    published = {file.rfilename: file.lfs.sha256 for file in (info.siblings or () if info else ()) if file.lfs}
    for path in weights:
        sha256 = sha256_of(path)
        if sha256 != published.get(path.name, sha256):
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise ModelError(
                f"{address}: {path.name} has SHA-256 {sha256} instead of the Hub's {published[path.name]}. It was "
                f"removed; try again."
            )
        _log.warning("%s at %s: %s, SHA-256 %s", address, folder.name[:12], path.name, sha256)


def _missing(address: HubAddress, *, offline: bool) -> str:
    why = f"offline ({OFFLINE_VARIABLE} or HF_HUB_OFFLINE)" if offline else "without a connection"
    return (
        f"{address} is not in the cache ({str(weights_folder() / 'hub')!r}), and {why} nothing is downloaded. Load it "
        f"once with a connection, or give the path of its files."
    )


def _refused(address: HubAddress, status: int) -> str:
    if status in (401, 403, 404):
        return (
            f"{address}: the Hub has no such model or revision, or does not show it to you (it answered {status}). "
            f"Check the name; for a private or gated model log in with `hf auth login` or set HF_TOKEN."
        )
    return f"{address} cannot be downloaded: the Hub answered {status}. Try again later."
