"""Clips of one run that refine each other: answers are kept as they come, and made final when all are there."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.inference.context import refined
from nonlocal_video.inference.prediction import Outcome, Prediction
from nonlocal_video.inference.unknown import NOTE_BEGINS, unknown_note
from nonlocal_video.models.card import ModelCard
from nonlocal_video.models.checkpoint import typed
from nonlocal_video.models.taught import TaughtClasses, mean_share

ANSWER = "answer"
"""Key of a journal's entry under which logits and features are kept."""
_LITTLE_ENDIAN = np.dtype("<f4")
_FEW_CLIPS = 2
"""Clips a class below which the mean of a folder is said to be that of its actions."""


def context_settings(card: ModelCard, context: str) -> dict[str, Any]:
    """Return the settings of a run that its final rows are made by, beside those that its answers depend on.

    Args:
        card: Of the model.
        context: `folder` or `none`.
    """
    found: dict[str, Any] = {} if card.taught is None else {"unknown": True}
    if context == "none":
        return found
    if card.taught is not None:
        found["taught"] = {field: getattr(card.taught, field) for field in TaughtClasses.__dataclass_fields__}
    return found | {"context": context, "labels": list(card.labels)}


def kept_answer(outcome: Outcome) -> dict[str, str] | None:
    """Logits and features of a clip as text; None of a clip without an answer."""
    if not isinstance(outcome, Prediction) or outcome.logits is None or outcome.features is None:
        return None
    return {"logits": _to_text(outcome.logits), "features": _to_text(outcome.features)}


def refined_rows(
    entries: Callable[[], Iterator[dict[str, Any]]], settings: dict[str, Any], top_k: int
) -> Iterator[dict[str, Any]]:
    """The final rows of a run, each refined by all others that have an answer.

    Args:
        entries: Gives the journal's entries, a file once, as often as it is called.
        settings: Those of `context_settings`.
        top_k: Classes in a row.
    """
    labels: Sequence[str] = settings["labels"]
    answers = [entry[ANSWER] for entry in entries() if entry.get(ANSWER)]
    if not answers:
        yield from (entry["row"] for entry in entries())
        return
    taught = typed(TaughtClasses, settings["taught"]) if settings.get("taught") else None
    logits, features = (np.stack([_of_text(answer[name]) for answer in answers]) for name in ("logits", "features"))
    final = iter(_final_answers(logits, features, labels, taught))
    del answers
    for entry in entries():
        row = entry["row"]
        if entry.get(ANSWER):
            answer = next(final)
            order = np.argsort(-answer.scores, kind="stable")[:top_k]
            top = [{"label": labels[i], "index": int(i), "score": float(answer.scores[i])} for i in order]
            row = row | {"top": top, "notes": [*_without_judgement(row["notes"]), *answer.notes]}
            if taught is not None:
                row["unknown"] = answer.unknown
            if "true_rank" in row:  # `evaluate` keeps beside the answer where the true class is
                index = labels.index(row["label"])
                rank = int(np.flatnonzero(np.argsort(-answer.scores, kind="stable") == index)[0]) + 1
                row |= {"true_rank": rank, "true_score": float(answer.scores[index])}
        yield row


def refined_outcomes(outcomes: Sequence[Outcome], card: ModelCard) -> tuple[Outcome, ...]:
    """Refine outcomes: predictions with the refined scores, failures as they are."""
    answered = [outcome for outcome in outcomes if kept_answer(outcome)]
    if not answered:
        return tuple(outcomes)
    logits, features = (np.stack([getattr(outcome, name) for outcome in answered]) for name in ("logits", "features"))
    final = iter(_final_answers(logits, features, card.labels, card.taught))
    return tuple(
        _with_answer(outcome, next(final)) if isinstance(outcome, Prediction) and kept_answer(outcome) else outcome
        for outcome in outcomes
    )


@dataclass(frozen=True)
class _FinalAnswer:
    scores: NDArray[np.float32]
    unknown: bool | None
    notes: tuple[str, ...]


def _final_answers(
    logits: NDArray[np.float32], features: NDArray[np.float32], labels: Sequence[str], taught: TaughtClasses | None
) -> list[_FinalAnswer]:
    """The final answers for N clips by their logits (N, classes) and features (N, C).

    With a taught model the mean of the clips is subtracted first, so that what they all share, such as their place,
    speaks for no class.
    """
    if taught is None:
        notes = _refined_note(len(logits))
        return [_FinalAnswer(scores, None, notes) for scores in refined(logits, features)]
    share = mean_share(len(logits))
    mean = logits.mean(axis=0, dtype=np.float64)
    moved = (logits - share * (mean - mean.mean())).astype(np.float32)
    found = taught.likeness(features, folder=True)
    notes = (*_refined_note(len(logits), share), *_lopsided_note(logits, labels))
    return [
        _FinalAnswer(
            scores,
            bool(unknown),
            (*((unknown_note(labels[nearest], value, found.least),) if unknown else ()), *notes),
        )
        for scores, unknown, nearest, value in zip(
            refined(moved, features), found.unknown, found.nearest, found.value, strict=True
        )
    ]


def _with_answer(outcome: Prediction, answer: _FinalAnswer) -> Prediction:
    return replace(
        outcome,
        scores=answer.scores.astype(float),
        unknown=answer.unknown,
        notes=(*_without_judgement(outcome.notes), *answer.notes),
    )


def _without_judgement(notes: Sequence[str]) -> list[str]:
    """The notes of a clip without the one on whether it is unknown by itself."""
    return [note for note in notes if not note.startswith(NOTE_BEGINS)]


def _refined_note(num_clips: int, share: float = 0.0) -> tuple[str, ...]:
    others = num_clips - 1
    if not others:
        return ()
    less = f"Less {share:.0%} of the mean of the {num_clips} clips of the run, and refined" if share else "Refined"
    return (f"{less} by the {others} other clip{'s' if others > 1 else ''} of the run.",)


def _lopsided_note(logits: NDArray[np.float32], labels: Sequence[str]) -> tuple[str, ...]:
    """A note on a run whose mean may be that of its actions rather than of its place."""
    counts = np.bincount(logits.argmax(axis=1), minlength=len(labels))
    largest, num_clips = int(counts.argmax()), len(logits)
    if num_clips < _FEW_CLIPS * len(labels):
        return (
            f"The mean of the run was subtracted, and {num_clips} clips of up to {len(labels)} classes are few: it "
            f"is partly that of their actions. More clips of the same place, or --context none, may be better.",
        )
    if counts[largest] > num_clips * (1 + 1 / len(labels)) / 2:
        return (
            f"Lopsided: by themselves {counts[largest]} of the {num_clips} clips look like {labels[largest]!r}. If "
            f"they show it, use --context none, as subtracting their mean takes that action away; if they only look "
            f"alike because of their place, subtracting it is right.",
        )
    return ()


def _to_text(row: NDArray[np.float32]) -> str:
    return base64.b64encode(row.astype(_LITTLE_ENDIAN).tobytes()).decode()


def _of_text(text: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), _LITTLE_ENDIAN).astype(np.float32)
