"""Every word on the page, in one place and in one language."""

from __future__ import annotations

TITLE = "What is happening in this video?"
INTRODUCTION = "A network with non-local blocks names the action and shows, frame by frame, where it looked."
LIMITS = """Up to {megabytes} MB, {hours:g} hours and {megapixels:g} megapixels a frame. A clip stays on this server,
where it is deleted after {minutes:g} minutes."""
