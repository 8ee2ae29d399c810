"""The likeliest class of the windows of an archive: the model's last layer, on the features that the table has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.retrieval.archive import Archive
from nonlocal_video.retrieval.query import check_same_network


def windows_of_labels(archive: Archive, recognizer: Recognizer, labels: Sequence[str]) -> NDArray[np.bool_]:
    """Return which windows the model takes for one of the classes, (W,).

    Raises:
        UsageError: The model has no such class, is not the archive's, or the features are not those of its last layer.
    """
    check_same_network(recognizer, archive)
    unknown = [label for label in labels if label not in recognizer.labels]
    if unknown:
        raise UsageError(
            f"label = {unknown[0]!r} is not a class of {recognizer.card.name!r}, whose classes are in "
            f"`recognizer.labels`. Spell it as there."
        )
    network: Any = recognizer.network
    if archive.source.layer != getattr(network, "feature_layer", None) or not hasattr(network, "head_layer"):
        raise UsageError(
            f"label needs the features before the classifier of {recognizer.card.name!r}, but {str(archive.table)!r} "
            f"has those of {archive.source.layer!r}. Leave label out."
        )
    wanted = torch.tensor([recognizer.labels.index(label) for label in labels])
    fits = []
    classifier = network.get_submodule(network.head_layer)
    parameter = next(classifier.parameters())
    with torch.inference_mode():
        for features in archive.features():
            rows = torch.from_numpy(features).to(parameter)
            if parameter.ndim == 5:  # a convolution, which takes a map of one cell
                rows = rows[..., None, None, None]
            fits.append(torch.isin(classifier(rows).flatten(1).argmax(dim=1).cpu(), wanted).numpy())
    return np.concatenate(fits)[archive.order]
