"""Make the picture of how README begins: `python docs/make_readme_picture.py`. Needs the docs extra and a Chromium."""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

import markdown
from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "readme.png"
WIDTH, HEIGHT = 980, 1080
SHOWN_AFTER_MS = 6_000
"""When the moving picture shows scores and a map."""
PAGE = f"""<!DOCTYPE html><meta charset="utf-8"><base href="{ROOT.as_uri()}/"><style>
body {{ margin: 32px auto; max-width: 860px; font: 16px/1.5 "DejaVu Sans", sans-serif; color: #1f2328 }}
h1, h2 {{ border-bottom: 1px solid #d1d9e0; padding-bottom: .3em }}
img {{ max-width: 100% }}
code, pre {{ font: 85% "DejaVu Sans Mono", monospace; background: #f2f4f6 }}
pre {{ padding: 14px; white-space: pre-wrap }}
</style><body>"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        written = Path(folder) / "readme.html"
        text = (ROOT / "README.md").read_text("utf-8")
        written.write_text(PAGE + markdown.markdown(text, extensions=["fenced_code", "tables"]), "utf-8")
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(written.as_uri(), wait_until="load")
        page.wait_for_timeout(SHOWN_AFTER_MS)
        Image.open(io.BytesIO(page.screenshot())).quantize(128).save(PICTURE, optimize=True)
        browser.close()
    print(f"{PICTURE.name}: {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
