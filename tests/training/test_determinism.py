"""The process's settings are as before, whatever happens in between."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from nonlocal_video.errors import UsageError
from nonlocal_video.training.determinism import deterministic_algorithms

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@pytest.fixture(autouse=True)
def _own_setting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(WORKSPACE, raising=False)
    yield
    torch.use_deterministic_algorithms(False)


def settings() -> tuple[bool, bool, str | None]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        os.environ.get(WORKSPACE),
    )


def test_inside_alone() -> None:
    with deterministic_algorithms(True):
        assert settings() == (True, False, ":4096:8")
    assert settings() == (False, False, None)


def test_what_the_process_had_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE, ":16:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    with deterministic_algorithms(True):
        assert settings() == (True, False, ":16:8")
    assert settings() == (True, True, ":16:8")


def test_unwanted_it_changes_nothing() -> None:
    torch.use_deterministic_algorithms(True)
    with deterministic_algorithms(False):
        assert settings() == (True, False, None)
    assert settings() == (True, False, None)


def test_an_operation_without_such_an_algorithm_is_a_wrong_setting() -> None:
    with (
        pytest.raises(UsageError, match=r"put_ does not have a deterministic implementation.*deterministic=false\.$"),
        deterministic_algorithms(True),
    ):
        torch.zeros(2).put_(torch.tensor([1]), torch.ones(1))
    assert settings() == (False, False, None)


def test_other_errors_are_what_they_were() -> None:
    with pytest.raises(RuntimeError, match="out of memory"), deterministic_algorithms(True):
        raise RuntimeError("out of memory")
    assert settings() == (False, False, None)
