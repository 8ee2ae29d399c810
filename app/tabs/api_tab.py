"""Layout of the tab that documents the API."""

from __future__ import annotations

import json

import gradio as gr

from ..components.buttons import UNQUEUED

OWN_ADDRESS = "ADDRESS"
"""Placeholder that the browser replaces by the address of the page."""
WORDS = """
Everything on this page can be asked from a program: `pip install gradio_client`, then

```python
from gradio_client import Client, handle_file

client = Client("ADDRESS")

# The likeliest actions: one row of `nonlocal-video classify --json`.
row = client.predict(handle_file("clip.mp4"), api_name="/classify")
print(row["top"])

# What the middle of the picture attends to half a second into the clip, and the overlay video.
explained, overlay = client.predict(
    handle_file("clip.mp4"), query_seconds=0.5, query_x=0.5, query_y=0.5, api_name="/explain"
)
print(explained["strongest"], overlay)

# What happens when in a long video: windows and segments.
timeline = client.predict(handle_file("clip.mp4"), fast=True, api_name="/timeline")
print(timeline["segments"])
```

- `client.view_api()` prints all arguments and their types.
- A clip that cannot be read has `"status": "error"` in its row, and why.
- `client.submit(..., api_name="/timeline")` gives what there is every few seconds; its `cancel()` ends the work.
- If the page asks for a password: `Client("ADDRESS", auth=("USER", "PASSWORD"))`.
- In other languages, by plain HTTP: `curl -F file=@clip.mp4 ADDRESSv1/classify`; `ADDRESSv1/docs` describes it.
- `GET /healthz` says whether the server is up.
"""


def api_tab(page: gr.Blocks) -> None:
    """Lay out the tab.

    Args:
        page: Page whose address the browser fills in when it loads.
    """
    shown = gr.Markdown(WORDS, elem_id="api")
    words = json.dumps(WORDS)
    address = "location.origin + location.pathname"
    page.load(None, None, shown, js=f"() => {words}.replaceAll('{OWN_ADDRESS}', {address})", **UNQUEUED)
