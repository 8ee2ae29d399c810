"""What a test needs and this machine may lack: CI has all of it, so there its absence is a failure."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def absent(what: str) -> NoReturn:
    """Skip the test, or fail it under CI (CI=true)."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI lacks what this test needs: {what}")
    pytest.skip(what)
