"""The front matter of a model card: the YAML block from which the Hugging Face Hub fills a model's page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nonlocal_video.models.card import ModelCard

_HUB_LICENCES = (
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "gpl-3.0", "agpl-3.0", "lgpl-3.0", "mpl-2.0", "unlicense",
)  # fmt: skip
"""Identifiers that the Hub knows; another licence is `other` with its name."""
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def front_matter(
    card: ModelCard,
    sources: Sequence[ModelCard],
    *,
    tags: Sequence[str] = (),
    metrics: Mapping[str, float] | None = None,
    measured_on: str = "",
) -> str:
    """Return the block, from `---` to `---`, with a line break at its end.

    Args:
        card: Card of the model.
        sources: Cards of the weights that it was made from, the one that it started from first. Their licences apply;
            the model's own is `unknown` if this is empty.
        tags: Tags beside those that every model has.
        metrics: Name and value of each figure, fractions as fractions.
        measured_on: The data behind the metrics, in a few words.

    Example:
        >>> print(front_matter(card, [start], metrics={"top-1": 0.93}, measured_on="15 validation clips"))
        ---
        license: apache-2.0
        ...
    """
    import yaml

    values: dict[str, Any] = _licence([source.licence for source in sources])
    values["library_name"] = "nonlocal-video"
    values["pipeline_tag"] = "video-classification"
    values["tags"] = ["video", "action-recognition", "non-local", card.architecture, *tags]
    if sources and (base := _hub_name(sources[0])):
        values["base_model"] = base
    if metrics:
        result = {
            "task": {"type": "video-classification"},
            "dataset": {"type": "clips", "name": measured_on},
            "metrics": [
                {"type": "accuracy" if "top" in name or "accuracy" in name else name, "name": name, "value": value}
                for name, value in metrics.items()
            ],
        }
        values["model-index"] = [{"name": card.name, "results": [result]}]
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{text}---\n"


def _licence(names: Sequence[str]) -> dict[str, str]:
    """Return the Hub's fields for licences that all apply."""
    different = list(dict.fromkeys(names))
    if not different or different == [""]:
        return {"license": "unknown"}
    identifier = re.sub(r"[\s_]+", "-", different[0].strip().lower())
    if len(different) == 1 and identifier in _HUB_LICENCES:
        return {"license": identifier}
    return {"license": "other", "license_name": " and ".join(name or "unknown" for name in different)}


def _hub_name(card: ModelCard) -> str | None:
    """Return the name of a model on the Hub if it came from there, else its own if the Hub accepts such a name."""
    name = card.source.removeprefix("hf://").partition("@")[0] if card.source.startswith("hf://") else card.name
    return name if _HUB_NAME.fullmatch(name) else None
