"""Clips of one run that refine each other: answers are kept as they come, and made final when all are there."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.inference.context import refined
from nonlocal_video.inference.prediction import Outcome, Prediction

ANSWER = "answer"
"""Key of a journal's entry under which logits and features are kept."""
_LITTLE_ENDIAN = np.dtype("<f4")


def kept_answer(outcome: Outcome) -> dict[str, str] | None:
    """Logits and features of a clip as text; None of a clip without an answer."""
    if not isinstance(outcome, Prediction) or outcome.logits is None or outcome.features is None:
        return None
    return {"logits": _to_text(outcome.logits), "features": _to_text(outcome.features)}


def refined_rows(
    entries: Callable[[], Iterator[dict[str, Any]]], labels: Sequence[str], top_k: int
) -> Iterator[dict[str, Any]]:
    """The final rows of a run, each refined by all others that have an answer.

    Args:
        entries: Gives the journal's entries, a file once, as often as it is called.
        labels: Of the model.
        top_k: Classes in a row.
    """
    answers = [entry[ANSWER] for entry in entries() if entry.get(ANSWER)]
    if not answers:
        yield from (entry["row"] for entry in entries())
        return
    scores = refined(*(np.stack([_of_text(answer[name]) for answer in answers]) for name in ("logits", "features")))
    del answers
    number = 0
    for entry in entries():
        row = entry["row"]
        if entry.get(ANSWER):
            of_clip = scores[number]
            order = np.argsort(-of_clip, kind="stable")[:top_k]
            top = [{"label": labels[i], "index": int(i), "score": float(of_clip[i])} for i in order]
            row = row | {"top": top, "notes": [*row["notes"], *_note(len(scores))]}
            if "true_rank" in row:  # `evaluate` keeps beside the answer where the true class is
                index = labels.index(row["label"])
                rank = int(np.flatnonzero(np.argsort(-of_clip, kind="stable") == index)[0]) + 1
                row |= {"true_rank": rank, "true_score": float(of_clip[index])}
            number += 1
        yield row


def refined_outcomes(outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """The same for outcomes: predictions with the refined scores, failures as they are."""
    answered = [outcome for outcome in outcomes if kept_answer(outcome)]
    if not answered:
        return tuple(outcomes)
    logits, features = (np.stack([getattr(outcome, name) for outcome in answered]) for name in ("logits", "features"))
    scores = iter(refined(logits, features))
    return tuple(
        replace(outcome, scores=next(scores).astype(float), notes=(*outcome.notes, *_note(len(answered))))
        if isinstance(outcome, Prediction) and kept_answer(outcome)
        else outcome
        for outcome in outcomes
    )


def _note(num_clips: int) -> list[str]:
    others = num_clips - 1
    return [f"Refined by the {others} other clip{'s' if others > 1 else ''} of the run."] if others else []


def _to_text(row: NDArray[np.float32]) -> str:
    return base64.b64encode(row.astype(_LITTLE_ENDIAN).tobytes()).decode()


def _of_text(text: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), _LITTLE_ENDIAN).astype(np.float32)
