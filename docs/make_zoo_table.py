"""Put the catalogue's table into docs/zoo.md: `python docs/make_zoo_table.py`."""

from __future__ import annotations

from pathlib import Path

from nonlocal_video.cli.weights_text import download_in_words
from nonlocal_video.zoo.catalogue import entries
from nonlocal_video.zoo.entry import CatalogueEntry

DOCS = Path(__file__).parent / "zoo.md"
BEGIN, END = "<!-- table -->\n", "<!-- /table -->"


def main() -> None:
    before, rest = DOCS.read_text("utf-8").split(BEGIN)
    DOCS.write_text(f"{before}{BEGIN}{table()}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def table() -> str:
    """The catalogue as Markdown."""
    lines = [
        "| name | non-local blocks | input | top-1, top-5 (views) | GMAC | parameters | download | licence |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | --- |",
    ]
    lines += [f"| {' | '.join(cells(row))} |" for row in entries().values()]
    return "\n".join(lines)


def cells(row: CatalogueEntry) -> list[str]:
    accuracy = row.accuracy
    measured = "" if accuracy is None else f"{accuracy.top1}, {accuracy.top5} ({accuracy.views})"
    return [
        f"`{row.name}`",
        blocks_in_words(row),
        f"{row.input.num_frames}x{row.input.frame_stride}, {row.input.crop}",
        measured if row.download else "no weights published",
        "" if row.gmacs is None else str(row.gmacs),
        f"{row.parameters / 1e6:.1f} M",
        download_in_words(row.download_mb, is_stated=row.download is not None and row.download.size_mb is not None),
        row.licence.name + (", non-commercial" if row.licence.non_commercial else ""),
    ]


def blocks_in_words(row: CatalogueEntry) -> str:
    blocks = row.network_config.nonlocal_blocks if row.architecture == "resnet3d" else {}
    if not blocks:
        return ""
    last = list(blocks.values())[-1]
    words = [last.nonlocal_type.replace("_", " ")]
    words += ["scaled"] if last.scale else []
    words.append("pooled first" if last.pool_order == "pool_conv" else "pooled last")
    groups = {block.temporal_groups for block in blocks.values()} - {None}
    words += [f"res3 in groups of {groups.pop()} frames"] if groups else []
    return ", ".join(words)


if __name__ == "__main__":
    main()
