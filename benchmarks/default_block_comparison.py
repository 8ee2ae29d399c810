"""Train each variant of the default's block on every fold, and compare them on the clips that the fold left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from default_block_data import Split
from default_block_training import (
    NONE,
    TEMPERATURE,
    VARIANTS,
    Bank,
    Configuration,
    Tail,
    Trunk,
    answers,
    as_variant,
    best_temperature,
    divergences,
    initial_blocks,
    train,
)
from torch import nn

NUM_RESAMPLES = 4000


class Evaluation:
    """Measures tails; what it keeps of each is a number per file and measure."""

    def __init__(
        self,
        targets: torch.Tensor,
        labels: Sequence[int],
        scene_numbers: np.ndarray,
        still: np.ndarray,
        folders: dict[str, range],
    ) -> None:
        self.targets, self.labels, self.folders = targets, np.array(labels), folders
        self.scenes, self.still = scene_numbers, still
        self.labelled = np.flatnonzero(self.labels >= 0)

    def measure(self, tail: Tail, banks: dict[str, Bank], samples: np.ndarray) -> dict[str, np.ndarray]:
        """(N,) KL to the target, agreement with its first class and top-1, NaN for files that have no such number.

        Args:
            tail: With or without blocks.
            banks: Of the student's views and the full ones.
            samples: Indices of the test files; labelled files are measured besides.
        """
        measured = {}
        for role, bank in banks.items():
            logits, owners = answers(tail, bank, np.concatenate([samples, self.labelled]))
            wanted = self.targets[torch.from_numpy(owners).to(self.targets.device)]
            first = logits.argmax(dim=1)
            values = {
                "kl": divergences(wanted, logits).cpu().numpy(),
                "agreement": (first == wanted.argmax(dim=1)).cpu().numpy(),
                "top1": first.cpu().numpy() == self.labels[owners],
            }
            counts = np.bincount(owners, minlength=len(self.labels))
            for name, of_view in values.items():
                sums = np.bincount(owners, weights=of_view, minlength=len(self.labels))
                measured[f"{name}, {role}"] = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
        return measured

    def summary(self, measured: dict[str, np.ndarray]) -> dict[str, float]:
        """Means over clips, stills and the folders of labelled clips."""
        unlabelled = np.arange(len(self.still)) < len(self.scenes)
        means = {}
        for role in ("student", "full"):
            for name in ("kl", "agreement"):
                means[f"{name}, {role}"] = measured[f"{name}, {role}"][unlabelled & ~self.still]
            for folder, places in self.folders.items():
                if folder != "unlabelled":
                    means[f"top1 {folder}, {role}"] = measured[f"top1, {role}"][places]
        if self.still.any():
            means["kl stills, student"] = measured["kl, student"][self.still]
        return {name: round(float(np.nanmean(values)), 4) for name, values in means.items()}

    def difference(self, ours: np.ndarray, theirs: np.ndarray) -> list[float]:
        """Mean of ours - theirs over the clips, and its 95% interval: bootstrap over scenes."""
        clips = np.flatnonzero(~self.still[: len(self.scenes)])
        values = (ours - theirs)[clips]
        _, numbers = np.unique(self.scenes[clips], return_inverse=True)
        sums, counts = np.bincount(numbers, weights=values), np.bincount(numbers)
        drawn = np.random.default_rng(0).integers(len(sums), size=(NUM_RESAMPLES, len(sums)))
        low, high = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [0.025, 0.975])
        return [round(float(number), 4) for number in (values.mean(), low, high)]


def compare(
    configuration: Configuration,
    trunk: Trunk,
    banks: dict[str, Bank],
    test: Evaluation,
    splits: Sequence[Split],
) -> dict[str, Any]:
    """Train every variant on every fold, and test it on what the fold left out."""
    plain = Tail(trunk, nn.ModuleDict())
    measured = {NONE: test.measure(plain, banks, np.arange(len(test.scenes)))}
    chosen: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    by_fold: dict[str, list[dict[str, np.ndarray]]] = {variant: [] for variant in (TEMPERATURE, *VARIANTS)}
    for seed, split in enumerate(splits):
        clips = split.validation[~test.still[split.validation]]
        plain.temperature = best_temperature(plain, banks["student"], test.targets, clips)
        by_fold[TEMPERATURE].append(test.measure(plain, banks, split.test))
        plain.temperature = 1.0
        beginning = initial_blocks(configuration, trunk, banks["student"], split, seed)
        for variant in VARIANTS:
            runs = []
            for rate in configuration.learning_rates:
                blocks = as_variant(beginning, variant)
                best = train(
                    configuration, blocks, rate, trunk, banks["student"], test.targets, split, test.still, seed
                )
                runs.append((best.validation, best.step, rate, blocks))
            validation, step, rate, blocks = min(runs, key=lambda one: one[0])
            chosen[variant].append({"validation": round(validation, 4), "step": step, "learning_rate": rate})
            by_fold[variant].append(test.measure(Tail(trunk, blocks), banks, split.test))
    for variant, folds in by_fold.items():
        # An unlabelled file is tested in one fold, a labelled one in all.
        measured[variant] = {name: _mean_of_known([fold[name] for fold in folds]) for name in folds[0]}
    return {
        "test": {variant: test.summary(values) for variant, values in measured.items()},
        "differences": {
            f"block - {other}": {
                name: test.difference(measured["block"][name], values[name])
                for name in values
                if not name.startswith("top1")
            }
            for other, values in measured.items()
            if other != "block"
        },
        "chosen": chosen,
    }


def _mean_of_known(values: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over arrays (N,) of what is not NaN; NaN where all are."""
    stacked = np.stack(values)
    known = ~np.isnan(stacked)
    counts = known.sum(axis=0)
    return np.divide(np.nansum(stacked, axis=0), counts, out=np.full(len(counts), np.nan), where=counts > 0)
