"""Kinds of files by name: which files in a folder are not videos, and counts of the skipped ones."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping

PICTURES = "pictures"
HIDDEN, SYSTEM = "hidden", "system files"
REPEATED_LINKS, OUTSIDE_LINKS = "links to folders that are searched anyway", "links out of the folder"

_SUFFIXES_BY_KIND = {
    "text": "txt text md markdown rst log nfo me 1st",
    "tables and data": (
        "csv tsv tab xls xlsx xlsm xlsb ods numbers parquet feather arrow json jsonl ndjson geojson yaml yml xml toml "
        "ini cfg conf config properties plist lst list md5 sha1 sha256 sfv crc par2 torrent db sqlite sqlite3 pkl "
        "pickle npy npz mat h5 hdf5 hdf lmdb mdb tfrecord tfrecords eaf pfsx etf boris textgrid anvil trc c3d bvh f16"
    ),
    "subtitles": "srt vtt webvtt ass ssa sub idx sbv ttml dfxp smi sami lrc sup usf stl",
    PICTURES: (
        "jpg jpeg jpe jfif pjpeg png bmp dib tif tiff heic heif hif svg svgz ico icns psd psb xcf ai eps ppm pgm pbm "
        "pnm tga exr hdr jp2 j2k jpf jpx jxl cr2 cr3 crw nef nrw arw srf orf raf rw2 dng pef thm mpo"
    ),
    "sound": "mp3 wav wave flac aac m4a m4b oga opus wma aif aiff aifc au amr ac3 mka mid midi ape wv",
    "archives": "zip tar tgz gz bz2 tbz2 xz txz lzma zst 7z rar cab jar whl deb rpm apk dmg",
    "documents": "pdf doc docx docm odt rtf ppt pptx odp tex bib epub mobi pages key html htm xhtml mht url webloc lnk",
    "code": (
        "py pyi pyc pyo pyx ipynb sh bash zsh bat cmd ps1 c cc cpp cxx h hh hpp cu java kt js mjs jsx tsx css scss rb "
        "pl php go rs swift lua r rmd m sql cmake make mk dockerfile gitignore gitattributes patch diff exe dll so "
        "dylib lock"
    ),
    "weights": "pt pth ckpt safetensors onnx pb tflite caffemodel prototxt pbtxt engine gguf keras",
    "camera side files": "xmp aae ifo bup cpi mpl bdm ctg cube lut dop pp3",
}
_TEXTS = {
    "readme", "license", "licence", "copying", "notice", "changelog", "changes", "authors", "contributors",
    "contributing", "citation", "install", "news", "version", "todo", "makefile", "dockerfile", "md5sums", "sha256sums",
}  # fmt: skip
"""Names without a suffix that are never videos."""
KINDS_BY_SUFFIX = frozenset(_SUFFIXES_BY_KIND)
_KIND_OF_SUFFIX = {suffix: kind for kind, suffixes in _SUFFIXES_BY_KIND.items() for suffix in suffixes.split()}
_SYSTEM_NAMES = {
    "__macosx", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "@eadir", "@recycle", "#recycle",
    "#snapshot", "$recycle.bin", "recycler", "system volume information", "lost+found", "icon\r", "__pycache__",
}  # fmt: skip


def kind_of_folder(name: str) -> str | None:
    """Return the kind of a folder that is not searched, hidden or made by an operating system; None for others."""
    if name.casefold() in _SYSTEM_NAMES:
        return SYSTEM
    return HIDDEN if name.startswith(".") else None


def kind_of_file(name: str) -> str | None:
    """Return the kind of a file that is not a video by name: `hidden`, `text`, `pictures` and so on.

    Returns None for names that may be videos: known video suffixes (GIF, WebP and AVIF may be animated), unknown
    suffixes, and names without one.
    """
    if kind := kind_of_folder(name):
        return kind
    if name.casefold() in _TEXTS:
        return "text"
    return _KIND_OF_SUFFIX.get(os.path.splitext(name.casefold())[1][1:])


class PassedOver:
    """Counts the files and folders that a search skips, by kind."""

    def __init__(self) -> None:
        """Start with zero counts."""
        self._counts: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._counts)

    def add(self, kind: str) -> None:
        """Count one more file or folder of a kind."""
        self._counts[kind] += 1

    def update(self, other: PassedOver) -> None:
        """Add the counts of another search."""
        self._counts.update(other._counts)

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of skipped files and folders by kind, the most frequent first."""
        return dict(sorted(self._counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def total(self) -> int:
        """Number of skipped files and folders."""
        return self._counts.total()

    def in_words(self) -> str:
        """Return the counts as text, such as `3 hidden, 1 text`; empty if nothing was skipped."""
        return ", ".join(f"{number:,} {kind}" for kind, number in self.counts.items())

    def sentence(self) -> str:
        """Return a sentence on the skipped files and the option that includes them; empty if nothing was skipped."""
        return f"Passed over in folders: {self.in_words()}. --all-files tries them." if self else ""
