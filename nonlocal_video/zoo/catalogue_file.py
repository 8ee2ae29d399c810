"""Reading of `weights/catalogue.yaml`, where rows refer to shared parts.

The file has no YAML anchors and no merge keys. Which of several merged mappings wins differs between YAML libraries,
even between releases of one, and a wrong stem stride or padding changes no tensor's shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

_LIKE = "like"


def read_yaml(text: str) -> Any:
    """Parse YAML with libyaml where PyYAML has it: the catalogue is read at every start, and it takes a seventh."""
    import yaml

    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def read_rows(text: str) -> list[dict[str, Any]]:
    """Return the rows of a catalogue, each with the fields of `CatalogueEntry` as plain values.

    Args:
        text: YAML with the sections `trunks`, `nonlocal_blocks`, `inputs`, `licences`, `shared_notes` and
            `checkpoints`. A row's `config` is its `trunk`, then its `changes`, then its `nonlocal_blocks`, which lists
            the residual blocks that each kind of block follows: `{pooled_scaled: [layer2.1, layer3.1]}`.

    Raises:
        ValueError: If a row refers to a part that does not exist.
    """
    document = read_yaml(text)
    trunks = _resolved(document["trunks"], "trunks")
    blocks = _resolved(document["nonlocal_blocks"], "nonlocal_blocks")
    inputs = _resolved(document["inputs"], "inputs")
    rows = []
    for row in document["checkpoints"]:
        fields = dict(row)
        config = {**_part(trunks, fields.pop("trunk"), "trunks"), **fields.pop("changes", {})}
        nonlocal_blocks = {
            position: _part(blocks, kind, "nonlocal_blocks")
            for kind, positions in fields.pop("nonlocal_blocks", {}).items()
            for position in positions
        }
        if nonlocal_blocks:
            config["nonlocal_blocks"] = nonlocal_blocks
        notes = [_part(document["shared_notes"], name, "shared_notes") for name in fields.pop("shared_notes", ())]
        rows.append(
            {
                **fields,
                "config": config,
                "input": _part(inputs, fields["input"], "inputs"),
                "licence": _part(document["licences"], fields["licence"], "licences"),
                "notes": [*notes, *fields.get("notes", ())],
            }
        )
    return rows


def _resolved(section: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    """Fill in the fields that a part inherits from the earlier part named by `like`."""
    resolved: dict[str, dict[str, Any]] = {}
    for part, fields in section.items():
        base = _part(resolved, fields[_LIKE], name) if _LIKE in fields else {}
        resolved[part] = {**base, **{field: value for field, value in fields.items() if field != _LIKE}}
    return resolved


def _part(section: Mapping[str, Any], name: str, section_name: str) -> Any:
    """Return a copy of a part, since rows that share it must not change each other's."""
    if name not in section:
        raise ValueError(
            f"{section_name} of the catalogue has no {name!r} above this use; it has {', '.join(section)}."
        )
    return deepcopy(section[name])
