"""Upload of a run to the Hugging Face Hub: its weights, its card and its figures, and nothing of its clips."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from nonlocal_video.errors import ModelError, UsageError
from nonlocal_video.io import sha256_of
from nonlocal_video.models.checkpoint import read_card
from nonlocal_video.zoo.catalogue import RUN_CONFIG, RUN_WEIGHTS
from nonlocal_video.zoo.hub import SCHEME, endpoint, transport_error

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

_AS_THEY_ARE = ("metrics.csv", "curves.png")
"""Files of a run that are uploaded unchanged if it has them. The others name clips or paths of this machine."""
_USE = re.compile(r"^## How to use it\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def push(
    run: str | Path,
    repository: str,
    *,
    public: bool = False,
    notify: Callable[[str], None] = lambda sentence: None,
) -> str:
    """Upload a trained or taught run in one commit, and return the commit's address.

    The token is the one of `hf auth login`, or `$HF_TOKEN`. A repository that does not exist is created.

    Args:
        run: Folder of the run.
        repository: `owner/name`.
        public: Whether a new repository can be seen by everybody; the owner can change that later.
        notify: Called with a sentence for each file, before anything is uploaded.

    Raises:
        ModelError: The folder holds no run with weights, or the Hub refuses or cannot be reached.
        UsageError: The name is not valid.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
    from huggingface_hub.utils import validate_repo_id

    repository = repository.removeprefix(SCHEME)
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UsageError(f"repository = {repository!r} should be owner/name: {error}") from error
    if "/" not in repository:
        raise UsageError(f"repository = {repository!r} should be owner/name.")
    files = _files(Path(run), repository, notify)
    api = HfApi(endpoint=endpoint(), library_name="nonlocal-video")
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        done = api.create_commit(repository, files, commit_message=f"Upload {Path(run).name} with nonlocal-video")
    except LocalTokenNotFoundError as error:
        raise ModelError("There is no token for the Hub: log in with `hf auth login`, or set HF_TOKEN.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        hint = "Log in with `hf auth login`, or set HF_TOKEN to a token that may write."
        hint = hint if status in (401, 403) else "Try again later."
        raise ModelError(f"The Hub refused the upload to {repository!r} (it answered {status}). {hint}") from error
    except transport_error() as error:
        raise ModelError(f"The upload to {repository!r} failed: {error or type(error).__name__}.") from error
    return str(done.commit_url)


def _files(run: Path, repository: str, notify: Callable[[str], None]) -> list[CommitOperationAdd]:
    """Return the files to upload, after a sentence about each."""
    from huggingface_hub import CommitOperationAdd

    weights = run / RUN_WEIGHTS
    if not ((run / RUN_CONFIG).is_file() and weights.is_file()):
        raise ModelError(f"{str(run)!r} holds no run with weights (it should have {RUN_CONFIG} and {RUN_WEIGHTS}).")
    card = asdict(read_card(weights))
    facts = {"library_name": "nonlocal-video", "version": version("nonlocal-video"), "card": card}
    made = {RUN_CONFIG: json.dumps(facts, indent=1, ensure_ascii=False).encode() + b"\n"}
    if (readme := run / "README.md").is_file():
        made["README.md"] = card_for_hub(readme.read_text("utf-8"), repository).encode()
    notify(f"{RUN_WEIGHTS}: {weights.stat().st_size:,} bytes, SHA-256 {sha256_of(weights)}")
    files = [CommitOperationAdd(RUN_WEIGHTS, weights)]
    for name, content in made.items():
        notify(f"{name}: {len(content):,} bytes")
        files.append(CommitOperationAdd(name, content))
    for path in (run / name for name in _AS_THEY_ARE):
        if path.is_file():
            notify(f"{path.name}: {path.stat().st_size:,} bytes")
            files.append(CommitOperationAdd(path.name, path))
    return files


def card_for_hub(text: str, repository: str) -> str:
    """Return a run's card with the commands that load it from the Hub instead of those that name its folder."""
    address = f"{SCHEME}{repository}"
    use = (
        f"## How to use it\n\n```sh\nnonlocal-video classify clip.mp4 --model {address}\n```\n\n"
        f'In Python: `nonlocal_video.load("{address}")`.\n\n'
    )
    return _USE.sub(lambda _: use, text, count=1)
