"""Build what is published and try it where nothing else of the project is: `make release`.

The wheel is installed into a new environment in a temporary folder. From there the demo runs, and Chromium visits the
page. Nothing is uploaded: the last lines say what a person does next.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
PACKAGED = (
    "py.typed", "app/page.py", "weights/i3d-nl-k400.safetensors", "weights/catalogue.yaml", "weights/README.md",
    "weights/kinetics400.txt", "weights/kinetics600.txt", "weights/kinetics700.txt",
    "weights/kinetics700_3d_resnets.txt",
)  # fmt: skip
LICENCES = ("LICENSE", "NOTICE")
WITHIN_MS = 180_000


def main() -> None:
    """Run every step in order; the first that fails ends the program with its message."""
    wheel, sdist = build()
    version = check_contents(wheel, sdist)
    run([sys.executable, "-m", "twine", "check", "--strict", wheel, sdist])
    audit()
    with tempfile.TemporaryDirectory(prefix="nonlocal-video-release-") as folder:
        elsewhere = Path(folder)
        python = install(wheel, elsewhere)
        run([python, "-m", "nonlocal_video", "doctor"], cwd=elsewhere)
        run([python, "-m", "nonlocal_video.cli.demo", "--output", elsewhere / "demo"], cwd=elsewhere)
        for name in ("overlay.mp4", "evidence.mp4"):
            require((elsewhere / "demo" / name).stat().st_size > 10_000, f"the demo wrote no {name}")
        visit(python, elsewhere)
    print_next_steps(version, wheel, sdist)


def step(text: str) -> None:
    """Print a heading."""
    print(f"\n== {text}", flush=True)


def require(condition: bool, problem: str) -> None:
    """End the program with a sentence unless the condition holds."""
    if not condition:
        sys.exit(f"make release: {problem}.")


def run(command: Sequence[str | Path], *, cwd: Path = ROOT) -> None:
    """Run a command without the clone on the import path; its failure ends the program."""
    words = [os.fspath(word) for word in command]
    step(" ".join(words))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=cwd, env=environment, check=False)
    require(done.returncode == 0, f"{' '.join(words[:4])} ... ended with status {done.returncode}")


def build() -> tuple[Path, Path]:
    """Build the sdist, and the wheel from the sdist, from what git would hand out."""
    shutil.rmtree(DIST, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        for name in map(os.fsdecode, filter(None, listed.split(b"\0"))):
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
        run([sys.executable, "-m", "build", "--outdir", DIST, folder])
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    return wheel, sdist


def check_contents(wheel: Path, sdist: Path) -> str:
    """Check that weights, label lists and licences are inside, and return the version."""
    step("contents of the wheel and the sdist")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata_name,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(metadata_name).decode())
    info = metadata_name.removesuffix("METADATA")
    with tarfile.open(sdist) as archive_of_source:
        in_sdist = {name.partition("/")[2] for name in archive_of_source.getnames()}
    for name in PACKAGED:
        require(f"nonlocal_video/{name}" in names, f"{name} is not in {wheel.name}")
    for name in LICENCES:
        require(f"{info}licenses/{name}" in names, f"{name} is not in {wheel.name}")
        require(name in in_sdist, f"{name} is not in {sdist.name}")
    require("weights/i3d-nl-k400.safetensors" in in_sdist, f"the weights are not in {sdist.name}")
    others = {name.partition("/")[0] for name in names} - {"nonlocal_video", info.rstrip("/")}
    require(not others, f"{wheel.name} would install {sorted(others)} beside nonlocal_video")
    require(metadata["License-Expression"] == "Apache-2.0", f"the licence is {metadata['License-Expression']!r}")
    version = metadata["Version"]
    for name in ("CITATION.cff", "CHANGELOG.md"):
        require(version in (ROOT / name).read_text("utf-8"), f"{name} does not name version {version}")
    for path in (wheel, sdist):
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
    print(f"{len(PACKAGED)} data files and {' and '.join(LICENCES)} are inside; version {version}.")
    return str(version)


def audit() -> None:
    """Look the pinned versions up among published advisories; without their server, say so and return."""
    step("pip-audit on constraints.txt")
    command = [sys.executable, "-m", "pip_audit", "--requirement", "constraints.txt", "--no-deps", "--disable-pip"]
    options = ["--format", "json", "--progress-spinner", "off", "--timeout", "20"]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        audited = json.loads(done.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        print(f"NOT AUDITED: pip-audit gave no result ({reason[:300]}). Repeat it where the advisories can be reached.")
        return
    skipped = {one["name"]: one["skip_reason"] for one in audited if "skip_reason" in one}
    known = [
        f"{one['name']} {one['version']}: {', '.join(found['id'] for found in one['vulns'])}"
        for one in audited if one.get("vulns")
    ]  # fmt: skip
    print(f"{len(audited) - len(skipped)} of {len(audited)} packages audited, {len(known)} with known advisories.")
    if skipped:
        name, reason = next(iter(skipped.items()))
        others = f" and {len(skipped) - 1} more" if len(skipped) > 1 else ""
        print(f"NOT AUDITED: {name}{others} ({reason}). Repeat it where the advisories can be reached.")
    for line in known:
        print(f"ADVISORY: {line}. Raise the version, or explain in docs/security.md why it does not matter.")


def install(wheel: Path, folder: Path) -> Path:
    """Install the wheel into a new environment and return its Python."""
    run([sys.executable, "-m", "venv", folder / "environment"])
    python = folder / "environment" / "bin" / "python"
    options = ["--quiet", "--disable-pip-version-check", "--constraint", ROOT / "constraints.txt"]
    run([python, "-m", "pip", "install", *options, wheel], cwd=folder)
    command = [python, "-c", "import nonlocal_video; print(nonlocal_video.__file__)"]
    where = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
    require(Path(where).is_relative_to(folder), f"the new environment imports {where}")
    return python


def visit(python: Path, folder: Path) -> None:
    """Recognise the sample clip on the page in Chromium, with the page's server in the new environment."""
    from playwright.sync_api import expect, sync_playwright

    step("a visit of the page in Chromium")
    command = [python, "-c", "from nonlocal_video.samples import fetch_samples; print(fetch_samples()[0].path)"]
    clip = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    require(chromium is not None, "no Chromium is on PATH")
    with serving(python, folder) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address)
        page.locator("#clip-file").set_input_files(clip)
        expect(page.locator("#stage .bars")).to_contain_text("dancing ballet", timeout=WITHIN_MS)
        playing = "document.querySelector('.player.ready .span')?.currentTime > 0"
        page.wait_for_function(playing, timeout=WITHIN_MS)
        page.screenshot(path=DIST / "page.png", full_page=True)
        browser.close()
    print(f"The page recognised the sample clip and its player plays; {DIST.name}/page.png shows it.")


@contextmanager
def serving(python: Path, folder: Path) -> Iterator[str]:
    """Run `nonlocal-video serve` of the new environment on a free port and yield its address."""
    command = [python, "-m", "nonlocal_video", "serve", "--port", "0", "--device", "cpu"]
    log = folder / "serve.log"
    with log.open("w") as output, subprocess.Popen(command, cwd=folder, stdout=output, stderr=output) as process:
        try:
            for _ in range(600):
                found = re.search(r"http://\S+", log.read_text("utf-8"))
                if found or process.poll() is not None:
                    break
                try:
                    process.wait(0.2)
                except subprocess.TimeoutExpired:
                    continue
            require(found is not None, f"the server did not start:\n{log.read_text('utf-8')}")
            assert found is not None
            yield found[0]
        finally:
            process.terminate()


def print_next_steps(version: str, wheel: Path, sdist: Path) -> None:
    """Print what is left to a person."""
    print(
        f"""
== {wheel.name} and {sdist.name} are in {DIST.name}/. What a person does next:

  1. Look at {DIST.name}/page.png, and at the lines above that begin with NOT AUDITED or ADVISORY.
  2. On an idle machine: make fuzz; nonlocal-video benchmark ops and pipeline; python docs/make_reliability_tables.py
     and make_train_tables.py. On a GPU: make gpu.
  3. docker build for cpu and for one CUDA version, and the page in a browser from each.
  4. CHANGELOG.md: the date in the heading of {version}. CITATION.cff: date-released. Commit.
  5. The first time: put the public addresses into [project.urls] of pyproject.toml, repository-code of CITATION.cff
     site_url and repo_url of mkdocs.yml, and make README.md's pictures and links absolute, as the index shows it.
  6. git tag -s v{version} && git push --tags
  7. twine upload {DIST.name}/*.whl {DIST.name}/*.tar.gz, to the index's test instance first.
  8. make docs, and publish the folder site/."""
    )


if __name__ == "__main__":
    main()
