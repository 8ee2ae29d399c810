"""The folder of a training run: its files, written so that a kill at any moment leaves each of them whole."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from nonlocal_video.datasets.manifest import Manifest, read_manifest, write_manifest
from nonlocal_video.errors import ModelError, OutputError, UsageError
from nonlocal_video.io import atomic_write, lock_of, part_of
from nonlocal_video.models.card import ModelCard
from nonlocal_video.models.checkpoint import save_checkpoint
from nonlocal_video.training.provenance import describe_start, note_changed_versions, refuse_other_settings
from nonlocal_video.zoo.catalogue import RUN_CONFIG, RUN_TAUGHT, RUN_WEIGHTS

_METRICS = "metrics written"
_LOCK_SECONDS = 10.0
"""Seconds to wait for the lock: loading workers survive a killed run for up to 5 s (torch's `MP_STATUS_CHECK_INTERVAL`)
and may hold a copy of its lock."""


class RunFolder:
    """Paths in the folder of a run, and methods that write them. A context manager.

    Call `create` or `open` before writing. With several training processes, only the first (rank 0) does.

    Attributes:
        path: The folder, as given.
        config: `config.json`: settings of the run, and command, time and versions of each start.
        manifest: `manifest.csv`: the clips and their splits.
        unlabelled: `unlabelled.csv`: unlabelled clips, if any.
        images: `stills.json`: images, if any.
        metrics: `metrics.csv`, see `MetricsWriter`.
        tensorboard: Folder of TensorBoard's event files.
        curves: `curves.png`.
        best: Weights with the best validation result so far; `--model RUN` loads these.
        last: Weights of the last epoch.
        state: `state.pt`: the state to resume from.
        readme: `README.md`: the run's model card.
        cache: Folder of cached clips and features; deleted at the end of the run.
        notes: After `open`, warnings for the user of a resumed run.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Make the paths; no file is touched."""
        self.path = Path(path)
        self.config = self.path / RUN_CONFIG
        self.manifest = self.path / "manifest.csv"
        self.unlabelled = self.path / "unlabelled.csv"
        self.images = self.path / "stills.json"
        self.metrics = self.path / "metrics.csv"
        self.tensorboard = self.path / "tensorboard"
        self.curves = self.path / "curves.png"
        self.best = self.path / RUN_WEIGHTS
        self.last = self.path / "last.safetensors"
        self.state = self.path / "state.pt"
        self.readme = self.path / "README.md"
        self.cache = self.path / "cache"
        self.notes: tuple[str, ...] = ()
        self._lock_file = self.path / ".lock"
        self._lock: FileLock | None = None
        self._made = False
        self._found: frozenset[Path] | None = None  # contents of the folder before `create`

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock of the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def refuse_occupied(self) -> None:
        """Check that a run can be created here, before long preparations.

        Raises:
            UsageError: The folder holds another run or other files.
        """
        if self.config.exists():
            raise UsageError(
                f"{str(self.path)!r} holds a run already. Resume it with --resume, or choose another folder."
            )
        # Files of a run that was killed before it had a configuration.
        written = (self.manifest, self.unlabelled, self.images)
        beginnings = {
            self._lock_file.name,
            *(path.name for path in written),
            *(part_of(path).name for path in (*written, self.config)),
        }
        others = sorted({entry.name for entry in self.path.iterdir()} - beginnings) if self.path.is_dir() else []
        if others:
            raise UsageError(
                f"{str(self.path)!r} is not empty and holds no run (there is {others[0]!r}). Choose another folder."
            )

    def create(
        self,
        settings: Mapping[str, Any],
        manifest: Manifest,
        *,
        command: Sequence[str],
        write_more: Callable[[], None] = lambda: None,
    ) -> RunFolder:
        """Make the folder of a new run, and write `config.json` and `manifest.csv`.

        Args:
            settings: All settings that affect the result, as JSON values and nested dicts.
            manifest: The clips, with their splits.
            command: Command line, so that the run can be repeated.
            write_more: Called to write further files that belong to the start of the run, which can be resumed only
                from then on.

        Raises:
            UsageError: The folder holds another run or other files, or another process trains in it.
            OutputError: The folder cannot be written.
        """
        self.refuse_occupied()  # before a lock file is made in the folder
        self._made = not self.path.exists()
        found = frozenset(self.path.iterdir() if self.path.is_dir() else ())
        self._make_and_lock()
        try:
            self.refuse_occupied()  # another process may have created a run since
            self._found = found
            write_manifest(self.manifest, manifest)
            write_more()
            self._write_config({"settings": dict(settings), "starts": [describe_start(command)]})
        except BaseException:
            self.close()
            raise
        return self

    def discard(self) -> None:
        """Undo `create`, so that another run can be created in the same folder.

        For settings that turn out to be invalid. Does nothing after `open`, or once there are weights or a state. Only
        files of a run are removed, and none that existed before.
        """
        if self._found is None or any(path.exists() for path in (self.state, self.best, self.last)):
            return
        # In this order, a kill in between leaves a run or a folder that `create` accepts.
        for folder in (self.cache, self.tensorboard):
            shutil.rmtree(folder, ignore_errors=True)
        for path in (self.metrics, self.config, self.manifest, self.unlabelled, self.images):
            if path not in self._found:
                path.unlink(missing_ok=True)
        self.close()
        with suppress(OSError):  # another process may hold the lock by now, or other files were added
            if self._lock_file not in self._found:
                self._lock_file.unlink(missing_ok=True)
            if self._made:
                self.path.rmdir()
        self._found = None

    def open(
        self, settings: Mapping[str, Any], *, command: Sequence[str], may_differ: Collection[str] = ()
    ) -> RunFolder:
        """Open a run to resume it, and add this start to `config.json`.

        Args:
            settings: As for `create`.
            command: As for `create`.
            may_differ: Settings that may change, such as the number of workers, by dotted name. Their new values are
                saved.

        Raises:
            UsageError: There is no run, a setting differs, or another process trains in the folder.
            OutputError: The folder cannot be written.
        """
        self.read_settings()  # before a lock file is made in a folder without a run
        self._make_and_lock()
        try:
            for pattern in (".*.part", ".*.tmp"):  # half-written files of a killed process
                for leftover in self.path.glob(pattern):
                    leftover.unlink()
            earlier = self._read_config()
            refuse_other_settings(self.path, earlier["settings"], json.loads(json.dumps(settings)), may_differ)
            start = describe_start(command)
            self.notes = note_changed_versions(earlier["starts"][-1]["versions"], start["versions"])
            self._write_config({"settings": dict(settings), "starts": [*earlier["starts"], start]})
        except BaseException:
            self.close()
            raise
        return self

    def read_settings(self) -> dict[str, Any]:
        """Return the settings of the run in the folder.

        Raises:
            UsageError: There is no run, or it was taught and not trained.
        """
        settings: dict[str, Any] = self._read_config()["settings"]
        if RUN_TAUGHT in settings:
            raise UsageError(
                f"The run in {str(self.path)!r} was taught, not trained. `teach --resume` teaches it again; training "
                f"from it takes --model {self.path} and another --output."
            )
        return settings

    def read_manifest(self) -> Manifest:
        """Return the clips and splits of the run.

        Raises:
            UsageError: The manifest is missing or invalid.
        """
        return read_manifest(self.manifest)

    def save_best(self, network: nn.Module, card: ModelCard) -> None:
        """Replace `best.safetensors`. In float32, as the metrics were measured with exactly these weights."""
        self._writing(self.best, lambda: save_checkpoint(self.best, network, card, dtype=torch.float32))

    def save_last(self, network: nn.Module, card: ModelCard) -> None:
        """Replace `last.safetensors`."""
        self._writing(self.last, lambda: save_checkpoint(self.last, network, card, dtype=torch.float32))

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the state to resume from; the earlier one stays until the new one is complete on disk.

        Checksums of the rows of `metrics.csv` are saved too, so that a resumed run notices changed rows.

        Args:
            state: Tensors and plain values, in dicts, lists and tuples.

        Raises:
            OutputError: The disk is full or fails.
        """
        known = {_METRICS: self._checksums_of_metrics()}
        self._write(self.state, lambda file: torch.save({**state, **known}, file))

    def load_state(self, *, map_location: torch.device | str = "cpu") -> dict[str, Any] | None:
        """Load the last saved state; None if the run was interrupted before the first one.

        Raises:
            ModelError: The file is damaged, or contains more than tensors and plain values (no code in it is run); or
                rows of `metrics.csv` have changed since.
        """
        if not self.state.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(self.state, map_location=map_location, weights_only=True)
        except Exception as error:  # damage can raise anything
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"{str(self.state)!r} cannot be read ({reason}), so the run cannot be resumed. {self.best.name} and "
                f"{self.last.name} stay usable, also to start another run from."
            ) from error
        found = self._checksums_of_metrics()
        for number, checksum in enumerate(state.pop(_METRICS, ()), start=1):
            if number > len(found) or found[number - 1] != checksum:
                raise ModelError(
                    f"Line {number} of {str(self.metrics)!r} is missing or was changed, so the run cannot be resumed. "
                    f"Put the file back as it was. {self.best.name} and {self.last.name} stay usable, also to start "
                    f"another run from."
                )
        return state

    def write_readme(self, text: str) -> None:
        """Replace `README.md`."""
        self._write(self.readme, lambda file: file.write(text.encode("utf-8", "backslashreplace")))

    def _checksums_of_metrics(self) -> list[int]:
        """Return the checksum of each line of `metrics.csv`."""
        lines = self.metrics.read_bytes().splitlines(keepends=True) if self.metrics.is_file() else []
        return [zlib.crc32(line) for line in lines]

    def _make_and_lock(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = lock_of(self._lock_file)
            lock.acquire(timeout=_LOCK_SECONDS)
        except Timeout as error:
            raise UsageError(
                f"Another process trains in {str(self.path)!r}. Wait for it, or choose another folder."
            ) from error
        except OSError as error:
            raise OutputError(
                f"output = {str(self.path)!r} cannot be written: {error.strerror}. Choose another folder."
            ) from error
        self._lock = lock

    def _read_config(self) -> dict[str, Any]:
        try:
            config: dict[str, Any] = json.loads(self.config.read_text("utf-8"))
            if not isinstance(config["settings"], dict) or not config["starts"]:
                raise ValueError("it has no settings or no starts")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UsageError(
                f"{str(self.path)!r} holds no run (there is no {self.config.name}). Omit --resume to start one."
            ) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(
                f"{str(self.config)!r} is not the configuration of a run: {error}. Choose another folder."
            ) from error
        return config

    def _write_config(self, config: Mapping[str, Any]) -> None:
        text = json.dumps(config, indent=2, allow_nan=False) + "\n"
        self._write(self.config, lambda file: file.write(text.encode()))

    def _write(self, path: Path, fill: Callable[[IO[bytes]], Any]) -> None:
        """Replace a file atomically."""

        def write() -> None:
            with atomic_write(path) as file:
                fill(file)

        self._writing(path, write)

    def _writing(self, path: Path, write: Callable[[], None]) -> None:
        try:
            write()
        except (OSError, RuntimeError) as error:
            cause = (
                error if isinstance(error, OSError) else error.__context__
            )  # torch.save wraps it in another exception
            if not isinstance(cause, OSError):
                raise
            kept = " The earlier one is kept." if path.exists() else ""
            raise OutputError(
                f"{str(path)!r} cannot be written: {cause.strerror}.{kept} Make room and run the same command with "
                f"--resume."
            ) from error
