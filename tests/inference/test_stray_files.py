"""Other files beside the clips are skipped and counted; what is named is tried; circles of links end."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

import nonlocal_video as nlv
from nonlocal_video.inference.file_kinds import KINDS_BY_SUFFIX, PassedOver, kind_of_file, kind_of_folder
from nonlocal_video.inference.files import Selection, find_files
from nonlocal_video.training.images import check_images

Run = Callable[..., Any]  # the fixture `run`

CLIPS = (
    "a.mp4", "b/B.MOV", "b/anim.gif", "b/clip.avif", "b/clip.webp", "b/dvd.dat", "b/no_ending", "b/stream.ts",
    "b/what.xyz",
)  # fmt: skip
STRAYS = {
    "hidden": (".DS_Store", "._a.mp4", "b/.nfs0001", ".git"),
    "system files": ("Thumbs.db", "desktop.ini", "__MACOSX", "b/@eaDir", "$RECYCLE.BIN"),
    "text": ("README.md", "notes.txt"),
    "subtitles": ("a.srt", "b/B.VTT"),
    "pictures": ("a.jpg", "b/poster.PNG"),
    "tables and data": ("labels.json", "clips.csv"),
    "archives": ("b/rest.tar.gz",),
    "sound": ("b/B.wav",),
    "documents": ("consent.pdf",),
    "code": ("make.py",),
    "weights": ("best.pth",),
}
BELOW_STRAY_FOLDERS = (".git/HEAD", ".git/x.mp4", "__MACOSX/a.mp4", "b/@eaDir/a.mp4/thumb.jpg", "$RECYCLE.BIN/old.mp4")
FOLDERS = {".git", "__MACOSX", "b/@eaDir", "$RECYCLE.BIN"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Clips, or what may be some, among the files that real folders have."""
    top = tmp_path / "tree"
    strays = [name for names in STRAYS.values() for name in names if name not in FOLDERS]
    for name in (*CLIPS, *strays, *BELOW_STRAY_FOLDERS):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(b"x")
    return top


def names_of(top: Path, *paths: object, **options: Any) -> list[str]:
    given = [str(path) for path in paths or (top,)]
    return [os.path.relpath(path, top) for path in find_files(given, **options)]


def test_a_folder_gives_what_may_be_a_clip_and_counts_the_rest(tree: Path) -> None:
    passed_over = PassedOver()
    assert names_of(tree, passed_over=passed_over) == list(CLIPS)
    assert passed_over.counts == {kind: len(names) for kind, names in STRAYS.items()}
    assert passed_over.total == sum(map(len, STRAYS.values()))


def test_all_files_tries_everything_that_the_disk_has(tree: Path) -> None:
    passed_over = PassedOver()
    every = {os.path.relpath(os.path.join(top, name), tree) for top, _, names in os.walk(tree) for name in names}
    assert set(names_of(tree, selection=Selection(all_files=True), passed_over=passed_over)) == every
    assert not passed_over


def test_what_is_named_is_tried_whatever_its_name(tree: Path) -> None:
    named = [tree / "notes.txt", tree / ".DS_Store", tree / "gone.txt"]
    assert names_of(tree, *named) == ["notes.txt", ".DS_Store", "gone.txt"]
    # Beside its folder, too, in whose search it would be skipped; and once, if it would not.
    assert names_of(tree, tree, tree / "notes.txt", tree / "a.mp4") == [*CLIPS, "notes.txt"]
    assert names_of(tree, tree, tree / ".git") == [*CLIPS, ".git/HEAD", ".git/x.mp4"]
    assert names_of(tree, tree, tree / "a.jpg", selection=Selection(include=["*.jpg"])) == ["a.jpg"]


def test_a_pattern_is_like_a_folder_unless_it_spells_an_ending_out(tree: Path) -> None:
    assert names_of(tree, tree / "*") == list(CLIPS)
    assert names_of(tree, tree / "**") == list(CLIPS)
    assert names_of(tree, tree / "*.jpg") == ["a.jpg"]
    assert names_of(tree, tree / "*.j[p]g") == []
    assert names_of(tree, tree / "**" / "*.mp4") == ["a.mp4"]
    assert names_of(tree, tree / "*.db") == []
    assert names_of(tree, tree / "__MACOSX" / "*.mp4") == ["__MACOSX/a.mp4"]
    assert names_of(tree, tree / "._*.mp4") == ["._a.mp4"]
    assert names_of(tree, selection=Selection(include=["*.mp4", "*.png", "*.PNG"])) == ["a.mp4", "b/poster.PNG"]


def test_patterns_of_any_depth_find_what_globs_do_where_there_are_no_links(tree: Path) -> None:
    for pattern in ("**/*.mp4", "b/**", "**/b/*", "*/*.ts", "**/n*", "b/**/what.*", "**/*"):
        expected = {
            os.path.relpath(path, tree)
            for path in tree.glob(pattern if not pattern.endswith("**") else f"{pattern}/*")
            if path.is_file() and os.path.relpath(path, tree) in CLIPS
        }
        assert set(names_of(tree, f"{tree}/{pattern}")) == expected, pattern


def test_links_to_folders_are_followed_and_end(tmp_path: Path) -> None:
    top, far = tmp_path / "top", tmp_path / "far"
    for name in ("top/b/1.mp4", "top/.store/s.mp4", "far/2.mp4", "far/deep/3.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for link, target in {
        "top/a_far": far,
        "top/b/far_again": far / "deep",
        "top/b/up": top,
        "top/b/out": tmp_path,
        "top/same": top / "b",
        "top/stored": top / ".store",
        "far/back": top,
        "far/deep/round": far,
        "top/itself": top / "itself",
    }.items():
        os.symlink(target, tmp_path / link)
    passed_over = PassedOver()
    found = names_of(top, passed_over=passed_over)
    assert found == ["a_far/2.mp4", "a_far/deep/3.mp4", "b/1.mp4", "itself", "stored/s.mp4"]
    assert passed_over.counts == {"links to folders that are searched anyway": 6, "hidden": 1}
    real = [os.path.realpath(top / name) for name in found]
    assert len(set(real)) == len(real)
    assert names_of(top, top / "**" / "*.mp4") == [name for name in found if name.endswith(".mp4")]
    assert names_of(top, top, far) == ["b/1.mp4", "itself", "stored/s.mp4", "../far/2.mp4", "../far/deep/3.mp4"]
    inside = PassedOver()
    assert names_of(top, passed_over=inside, within=top) == ["b/1.mp4", "itself", "stored/s.mp4"]
    assert inside.counts["links out of the folder"] == 3


def test_the_runs_own_output_is_not_counted(tree: Path) -> None:
    passed_over = PassedOver()
    names_of(tree, leave_out=[tree / "clips.csv"], passed_over=passed_over)
    assert passed_over.counts["tables and data"] == 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("NOTES.TXT", "text"), ("x.mp4.txt", "text"), ("x.tar.gz", "archives"), (".mp4", "hidden"), ("txt", None),
        ("clip.txt.mp4", None), ("clip", None), ("clip.", None), ("clip.m2ts", None), ("clip.apng", None),
        ("Icon\r", "system files"), ("thumbs.DB", "system files"),
    ],
)  # fmt: skip
def test_kinds(name: str, kind: str | None) -> None:
    assert kind_of_file(name) == kind


def test_the_guide_names_every_kind_and_the_system_names() -> None:
    guide = (Path(__file__).resolve().parents[2] / "docs" / "folders.md").read_text("utf-8")
    assert all(kind in guide for kind in KINDS_BY_SUFFIX)
    quoted = [name for line in guide.splitlines() if "skipped |" in line for name in re.findall(r"`(.+?)`", line)]
    assert len(quoted) == 8
    assert all(map(kind_of_file, quoted))


def test_the_reliability_page_counts_them_right() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "reliability.md").read_text("utf-8")
    assert f"{len(STRAYS)} kinds of stray files beside {len(CLIPS)} clips: {len(CLIPS)} rows" in page


def test_folders_have_no_endings() -> None:
    assert [kind_of_folder(name) for name in ("clips.zip", "notes.txt", ".x", "lost+found")] == [
        None, None, "hidden", "system files",
    ]  # fmt: skip


def test_object_storage_by_the_same_rule(tree: Path) -> None:
    storage = fsspec.filesystem("memory")
    try:
        storage.put(f"{tree}/", "/strays/tree/", recursive=True)
        passed_over = PassedOver()
        found = list(find_files(["memory://strays/tree"], passed_over=passed_over))
        assert sorted(url.partition("/tree/")[2] for url in found) == list(CLIPS)
        assert passed_over.counts == {kind: len(names) for kind, names in STRAYS.items()}
        everything = list(find_files(["memory://strays/tree"], selection=Selection(all_files=True)))
        assert len(everything) == sum(len(names) for _, _, names in os.walk(tree))
        assert list(find_files(["memory://strays/tree/notes.txt"])) == ["memory://strays/tree/notes.txt"]
    finally:
        storage.rm("/strays", recursive=True)


def test_pictures_are_what_stills_are_made_of(tree: Path) -> None:
    rows = check_images([tree / "b"])
    assert "b/poster.PNG" in [os.path.relpath(row.path, tree) for row in rows]
    assert not {"b/B.VTT", "b/B.wav", "b/.nfs0001"} & {os.path.relpath(row.path, tree) for row in rows}


@pytest.fixture
def clips_with_strays(clip_folder: Path, tmp_path: Path) -> Path:
    """One good clip among a file of each kind that spoils a run."""
    top = tmp_path / "clips"
    top.mkdir()
    (top / "a.mp4").write_bytes((clip_folder / "a.mp4").read_bytes())
    for name in (".DS_Store", "._a.mp4", "Thumbs.db", "notes.txt", "a.srt", "a.jpg"):
        (top / name).write_bytes(b"\0\5\x16\7")
    return top


def test_classify_passes_them_over_and_says_so(run: Run, tiny_model: Path, clips_with_strays: Path) -> None:
    command = ("classify", clips_with_strays, "--model", tiny_model, "--runtime", "torch", "--json")
    done = run(*command)
    assert done.status == 0
    (row,) = map(json.loads, done.out.splitlines())
    assert (os.path.basename(row["path"]), row["status"]) == ("a.mp4", "ok")
    assert done.err.splitlines() == [
        "Passed over in folders: 2 hidden, 1 pictures, 1 subtitles, 1 system files, 1 text. --all-files tries them."
    ]
    everything = run(*command, "--all-files")
    assert everything.status == 1
    assert len(everything.out.splitlines()) == 7
    assert "Passed over" not in everything.err
    named = run("classify", clips_with_strays / "a.mp4", clips_with_strays / "notes.txt", *command[2:])
    assert named.status == 1
    assert [json.loads(line)["status"] for line in named.out.splitlines()] == ["ok", "error"]


def test_classify_counts_them_in_its_summary(run: Run, tiny_model: Path, clips_with_strays: Path) -> None:
    (clips_with_strays / "b.mp4").write_bytes((clips_with_strays / "a.mp4").read_bytes())
    output = clips_with_strays / "table.csv"
    done = run("classify", clips_with_strays, "--model", tiny_model, "--device", "cpu", "--output", output)
    assert done.status == 0
    assert done.err.splitlines()[-1] == "2 files: 2 ok; 6 passed over"


def test_a_folder_of_nothing_but_strays_says_what_there_is(run: Run, tiny_model: Path, clips_with_strays: Path) -> None:
    (clips_with_strays / "a.mp4").unlink()
    done = run("classify", clips_with_strays, "--model", tiny_model, "--device", "cpu")
    assert done.status == 2
    assert "There is no file in" in done.err
    assert "1 pictures" in done.err
    assert "--all-files tries them. If the images are frames, make clips of them: ffmpeg" in done.err


def test_python_has_the_same_rule(tiny_model: Path, clips_with_strays: Path) -> None:
    with nlv.load(tiny_model, device="cpu") as recognizer:
        (outcome,) = recognizer.classify_folder(clips_with_strays).outcomes
    assert os.path.basename(outcome.path) == "a.mp4"
