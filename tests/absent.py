"""Requirements of tests that this machine may lack: CI has all of them, so there an absence is a failure."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def absent(what: str, *, whole_module: bool = False) -> NoReturn:
    """Skip the test, or fail it under CI (CI=true); `whole_module` skips all tests of a module that is imported."""
    if _is_ci():
        pytest.fail(f"CI lacks what this test needs: {what}")
    pytest.skip(what, allow_module_level=whole_module)


def needs(found: object, what: str) -> pytest.MarkDecorator:
    """Mark tests that are skipped unless something is found; under CI they run in any case, and fail without it."""
    return pytest.mark.skipif(not found and not _is_ci(), reason=what)


def _is_ci() -> bool:
    return os.environ.get("CI") == "true"
