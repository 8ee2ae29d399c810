"""Finding files: every one, once, in order, without holding them all; and parts that join."""

from __future__ import annotations

import os
import subprocess
import unicodedata
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nonlocal_video as nlv
from nonlocal_video.inference import walk as walk_module
from nonlocal_video.inference.files import Selection, find_files


def test_files_folders_and_patterns_are_found_in_order(tmp_path: Path) -> None:
    for name in ("b/2.mp4", "b/1.avi", "a.mp4", "b/c/no_extension", ".hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    os.symlink(tmp_path, tmp_path / "b" / "loop")
    os.symlink(tmp_path / "a.mp4", tmp_path / "link.mp4")

    def names(*paths: object, **options: object) -> list[str]:
        return [os.path.relpath(path, tmp_path) for path in find_files(map(str, paths), **options)]

    assert names(tmp_path) == ["a.mp4", "b/1.avi", "b/2.mp4", "b/c/no_extension", "link.mp4"]
    assert names(tmp_path / "*" / "*.mp4") == ["b/2.mp4"]
    assert names(tmp_path / "**" / "[12].*") == ["b/1.avi", "b/2.mp4"]
    assert names(tmp_path / "missing.mp4", tmp_path / "a.mp4") == ["missing.mp4", "a.mp4"]
    assert names(tmp_path / "b", leave_out=[tmp_path / "b" / "2.mp4"]) == ["b/1.avi", "b/c/no_extension"]


def test_what_is_given_twice_comes_once(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("a.mp4", "b/1.mp4"):
        (tmp_path / name).touch()
    given = [tmp_path / "b" / "1.mp4", tmp_path, tmp_path / "b", tmp_path / "a.mp4", f"{tmp_path}/b/../a.mp4"]
    assert list(find_files(given)) == [f"{tmp_path}/a.mp4", f"{tmp_path}/b/1.mp4"]
    assert list(find_files([tmp_path / "gone.mp4"] * 2)) == [f"{tmp_path}/gone.mp4"]
    assert list(find_files([tmp_path / "b", tmp_path / "b" / "gone.mp4"])) == [
        f"{tmp_path}/b/1.mp4",
        f"{tmp_path}/b/gone.mp4",  # is not found in its folder, and gets its row all the same
    ]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "clip[1].mp4").touch()
    assert list(find_files([str(tmp_path / "clip[1].mp4")])) == [str(tmp_path / "clip[1].mp4")]


def test_a_link_to_itself_is_handed_on_and_ends_no_run(tmp_path: Path) -> None:
    os.symlink("loop", tmp_path / "loop")
    (tmp_path / "z.mp4").touch()
    assert list(find_files([tmp_path])) == [f"{tmp_path}/loop", f"{tmp_path}/z.mp4"]
    assert list(find_files([tmp_path / "loop"])) == [f"{tmp_path}/loop"]


def test_folders_nested_deeper_than_calls_may_be(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(1100):
            os.mkdir("d", dir_fd=here)
            inner = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
        os.close(os.open("clip.mp4", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        (found,) = find_files([tmp_path])
        assert found.count("/d") >= 1100
        assert found.endswith("clip.mp4")
    finally:
        os.close(here)
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)  # Python's own rmtree recurses


def test_a_folder_of_many_entries_is_not_listed_before_its_first_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk_module, "_SORTED_ENTRIES", 10)
    names = {f"{number:03}.mp4" for number in range(95)}
    for name in names:
        (tmp_path / name).touch()
    read = 0
    scandir = os.scandir

    class Counting:
        def __init__(self, path: str) -> None:
            self.listing = scandir(path)

        def __iter__(self) -> Counting:
            return self

        def __next__(self) -> os.DirEntry[str]:
            nonlocal read
            read += 1
            return next(self.listing)

        def __enter__(self) -> Counting:
            return self

        def __exit__(self, *_error: object) -> None:
            self.listing.close()

    monkeypatch.setattr(os, "scandir", Counting)
    found = find_files([tmp_path])
    assert len(list(islice(found, 3))) == 3
    assert read == 10
    monkeypatch.setattr(os, "scandir", scandir)
    assert {os.path.basename(path) for path in find_files([tmp_path])} == names


def test_patterns_choose_by_name_or_by_path(tmp_path: Path) -> None:
    for name in ("x/a.mp4", "x/b.avi", "y/a.mp4", "y/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def names(**options: Any) -> list[str]:
        return [os.path.relpath(path, tmp_path) for path in find_files([tmp_path], selection=Selection(**options))]

    assert names(include=["*.mp4", "*.avi"]) == ["x/a.mp4", "x/b.avi", "y/a.mp4"]
    assert names(include=["*.mp4"], exclude=["*/y/*"]) == ["x/a.mp4"]
    assert names(exclude=["a.*"]) == ["x/b.avi"]
    assert names(exclude=["a.*"], all_files=True) == ["x/b.avi", "y/notes.txt"]


@settings(deadline=None)
@given(parts=st.integers(1, 9))
def test_shards_are_disjoint_and_together_everything(parts: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("shards")
    for number in range(60):
        (folder / f"{number}.mp4").touch()
    of_part = [
        set(find_files([folder], selection=Selection.parse((), (), f"{k}/{parts}"))) for k in range(1, parts + 1)
    ]
    assert sum(map(len, of_part)) == 60
    assert set().union(*of_part) == set(find_files([folder]))
    if parts == 2:
        assert min(map(len, of_part)) > 15


def test_a_shard_is_the_same_wherever_the_folder_is(tmp_path: Path) -> None:
    chosen = []
    for place in ("here", "there"):
        (tmp_path / place / "deep").mkdir(parents=True)
        for number in range(20):
            (tmp_path / place / "deep" / f"{number}.mp4").touch()
        part = find_files([tmp_path / place], selection=Selection(shard=(2, 3)))
        chosen.append([os.path.basename(path) for path in part])
    assert chosen[0] == chosen[1] != []


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "1", "a/b", "1/2/3", "-1/2"])
def test_shards_that_are_none(text: str) -> None:
    with pytest.raises(nlv.UsageError, match="should be K/N"):
        Selection.parse((), (), text)


def _parts(given: list[str], parts: int, place: Path | str) -> list[set[str]]:
    """List what each shard takes of what is given, by the names below `place`."""
    return [
        {os.path.relpath(path, place) for path in find_files(given, selection=Selection(shard=(k, parts)))}
        for k in range(1, parts + 1)
    ]


def _two_mounts(tmp_path: Path) -> tuple[Path, Path]:
    """The same 200 files at two places, one of them deeper."""
    places = tmp_path / "a", tmp_path / "some" / "where" / "else"
    for place in places:
        for folder in ("one", "two", "two/three", "ünï"):
            (place / "clips" / folder).mkdir(parents=True)
            for number in range(50):
                (place / "clips" / folder / f"{number}.mp4").touch()
    return places


@pytest.mark.parametrize(
    "pattern",
    [
        "clips",
        "clips/",
        "clips/*",
        "clips/**/*.mp4",
        "cli*/**/*.mp4",
        "*",
        "./clips/[ot]*/*",
        "clips/../clips/**/?.mp4",
    ],
)
def test_machines_that_see_the_files_at_other_places_share_them(tmp_path: Path, pattern: str) -> None:
    """However they name them: from the root, from here, or with a slash behind."""
    here, there = _two_mounts(tmp_path)
    first, second = (_parts([f"{place}/{pattern}"], 4, place) for place in (here, there))
    assert first == second
    whole = {os.path.relpath(path, here) for path in find_files([f"{here}/{pattern}"])}
    assert sum(map(len, first)) == len(whole)
    assert set().union(*first) == whole
    assert min(map(len, first)) > 0


def test_one_machine_by_a_pattern_another_by_the_folder_or_by_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = _two_mounts(tmp_path)
    by_folder = _parts([f"{here}/clips"], 5, here)
    assert _parts([f"{there}/clips/**/*.mp4"], 5, there) == by_folder
    names = sorted(find_files([f"{there}/clips"]))
    assert _parts(names, 5, there) == by_folder  # as a shell writes a pattern out
    monkeypatch.chdir(there)
    for named in (["clips"], ["./clips/"], ["clips/*"], [f"./{os.path.relpath(name)}" for name in names]):
        assert _parts(named, 5, there) == by_folder
    monkeypatch.chdir(here / "clips")
    assert _parts(["."], 5, here) == _parts(["*"], 5, here) == by_folder


def test_files_of_one_name_in_many_folders_are_not_all_in_one_shard(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "clip.mp4").touch()
    for named in ([f"{tmp_path}/*/clip.mp4"], [f"{tmp_path}/{number}/clip.mp4" for number in range(40)]):
        parts = _parts(named, 4, tmp_path)
        assert sum(map(len, parts)) == 40
        assert min(map(len, parts)) > 3


def test_several_roots_and_single_files_are_shared_too(tmp_path: Path) -> None:
    here, there = _two_mounts(tmp_path)
    chosen = []
    for place in (here, there):
        given = [
            f"{place}/clips/one",
            f"{place}/clips/two/*.mp4",
            f"{place}/clips/ünï/1.mp4",
            f"{place}/clips/ünï/2.mp4",
        ]
        chosen.append(_parts(given, 3, place))
    assert chosen[0] == chosen[1]
    assert sum(map(len, chosen[0])) == 102


def test_accents_that_a_file_system_spells_in_its_own_way_change_no_shard(tmp_path: Path) -> None:
    chosen = []
    for form in ("NFC", "NFD"):
        for number in range(30):
            (tmp_path / form / f"{number}").mkdir(parents=True)
            (tmp_path / form / f"{number}" / unicodedata.normalize(form, "fußgänger é.mp4")).touch()
        part = find_files([tmp_path / form], selection=Selection(shard=(1, 3)))
        chosen.append([Path(path).parent.name for path in part])
    assert chosen[0] == chosen[1] != []


def test_addresses_are_shared_wherever_a_bucket_is() -> None:
    storage = fsspec.filesystem("memory")
    try:
        for bucket in ("north", "far/south"):
            for number in range(40):
                storage.pipe(f"/{bucket}/clips/{number % 4}/{number}.mp4", b"x")
        chosen = []
        for bucket in ("north", "far/south"):
            parts = [
                {url.partition("/clips/")[2] for url in find_files([named], selection=Selection(shard=(k, 3)))}
                for named in (f"memory://{bucket}/clips", f"memory://{bucket}/clips/")
                for k in (1, 2, 3)
            ]
            assert parts[:3] == parts[3:]
            chosen.append(parts[:3])
        assert chosen[0] == chosen[1]
        assert sum(map(len, chosen[0])) == 40
    finally:
        storage.rm("/north", recursive=True)
        storage.rm("/far", recursive=True)
    signed = [[f"https://host{n}.org/a/{i}/clip.mp4?key={n}{i}" for i in range(40)] for n in (1, 2)]
    by_host = [
        [{url.split("/")[4] for url in find_files(urls, selection=Selection(shard=(k, 3)))} for k in (1, 2, 3)]
        for urls in signed
    ]
    assert by_host[0] == by_host[1]
    assert sum(map(len, by_host[0])) == 40
    assert min(map(len, by_host[0])) > 3
