"""Hashes by which a Content-Security-Policy allows a page's own script and style, and no others."""

from __future__ import annotations

import base64
import hashlib


def source_hash(text: str) -> str:
    """Return the source expression of an inline script or style; the page has to carry exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
