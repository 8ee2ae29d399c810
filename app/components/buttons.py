"""Options of listeners that only update the page."""

from __future__ import annotations

from typing import Any

UNQUEUED: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Options of listeners that only update the page."""
