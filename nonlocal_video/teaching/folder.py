"""The folder of a taught run: its files, written so that a kill at any moment leaves each of them whole."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.inference.object_storage import is_remote
from nonlocal_video.io import atomic_write, lock_of
from nonlocal_video.teaching.examples import NONE_OF_THESE
from nonlocal_video.teaching.views import ExampleViews
from nonlocal_video.training.provenance import describe_start, flatten_settings
from nonlocal_video.zoo.catalogue import RUN_CONFIG, RUN_TAUGHT, RUN_WEIGHTS

if TYPE_CHECKING:
    from filelock import FileLock

_COLUMNS = ("path", "label", "group")


class TaughtFolder:
    """Paths in the folder of a taught run, and methods that write them. A context manager.

    Attributes:
        path: The folder, as given.
        config: `config.json`: settings, and command, time and versions of each time it was taught.
        weights: `best.safetensors`: the network with its card; `--model RUN` loads it.
        features: `features.parquet`: the features of the examples' views, as the command `features` writes them.
        examples: `examples.csv`: the examples, as `teach` reads them; `report.json` names those that could not be used.
        report: `report.json`.
        readme: `README.md`: the model card.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Make the paths; no file is touched."""
        self.path = Path(path)
        self.config = self.path / RUN_CONFIG
        self.weights = self.path / RUN_WEIGHTS
        self.features = self.path / "features.parquet"
        self.examples = self.path / "examples.csv"
        self.report = self.path / "report.json"
        self.readme = self.path / "README.md"
        self._lock_file = self.path / ".lock"
        self._lock: FileLock | None = None

    def __enter__(self) -> TaughtFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def open(self, settings: Mapping[str, Any], *, command: Sequence[str], resume: bool) -> TaughtFolder:
        """Make the folder of a new run, or take up one that was taught before, with the same settings.

        Args:
            settings: All settings that the features and the head depend on, as JSON values.
            command: Command line, so that the run can be repeated.
            resume: Whether the run was taught before.

        Raises:
            UsageError: The folder holds something else, or nothing to resume; a setting differs; or another process
                writes to it.
            OutputError: The folder cannot be written.
        """
        from filelock import Timeout

        settings = {RUN_TAUGHT: json.loads(json.dumps(dict(settings)))}
        starts = self._starts_before(settings) if resume else []
        if not resume:
            self._refuse_occupied()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = lock_of(self._lock_file)
            lock.acquire(timeout=0)
        except Timeout as error:
            raise UsageError(
                f"Another process writes to {str(self.path)!r}. Wait for it, or choose another."
            ) from error
        except OSError as error:
            raise OutputError(
                f"output = {str(self.path)!r} cannot be written: {error.strerror}. Choose another folder."
            ) from error
        self._lock = lock
        self.write(self.config, {"settings": settings, "starts": [*starts, describe_start(command)]})
        return self

    def write(self, path: Path, content: Mapping[str, Any] | str) -> None:
        """Replace a file by text or by JSON.

        Raises:
            OutputError: The disk is full or fails; the earlier file is kept.
        """
        text = content if isinstance(content, str) else json.dumps(content, indent=2, allow_nan=False) + "\n"
        try:
            with atomic_write(path) as file:
                file.write(text.encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise OutputError(f"{str(path)!r} cannot be written: {error.strerror}. Make room and resume.") from error

    def write_examples(self, views: Iterable[ExampleViews]) -> None:
        """Replace the list of examples: a row a class of each, in the form that `teach` reads."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for one in views:
            path = one.example.path if is_remote(one.example.path) else os.path.abspath(one.example.path)
            for label in one.example.labels or (NONE_OF_THESE,):
                writer.writerow([path, label, one.example.group or ""])
        self.write(self.examples, text.getvalue())

    def _starts_before(self, settings: Mapping[str, Any]) -> list[Any]:
        try:
            config = json.loads(self.config.read_text("utf-8"))
            earlier, starts = config["settings"][RUN_TAUGHT], list(config["starts"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(
                f"{str(self.path)!r} holds no run of teach. Omit --resume, and choose a new folder."
            ) from error
        old, new = flatten_settings(earlier), flatten_settings(settings[RUN_TAUGHT])
        changed = [name for name in dict.fromkeys([*new, *old]) if old.get(name) != new.get(name)]
        if changed:
            differences = "; ".join(f"{name} was {old.get(name)!r} and is {new.get(name)!r}" for name in changed)
            raise UsageError(
                f"The run in {str(self.path)!r} was taught with other settings: {differences}. Give those, or choose "
                f"another folder."
            )
        return starts

    def _refuse_occupied(self) -> None:
        if self.config.exists():
            raise UsageError(
                f"{str(self.path)!r} holds a run already. --resume teaches it again, with the examples given now. Or "
                f"choose another folder."
            )
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"output = {str(self.path)!r} is a file; give a folder.")
        others = (
            sorted({entry.name for entry in self.path.iterdir()} - {self._lock_file.name}) if self.path.is_dir() else []
        )
        if others:
            raise UsageError(
                f"{str(self.path)!r} is not empty and holds no run (there is {others[0]!r}). Choose another folder."
            )
