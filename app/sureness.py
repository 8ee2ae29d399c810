"""How sure an answer is, in four words."""

from __future__ import annotations

NOT_SURE = "not sure"
WORDS = ("very sure", "fairly sure", "a guess", NOT_SURE)
"""From the surest to the least sure."""


def sureness_of(probability: float, lead: float) -> str:
    """Return the word for an answer.

    Args:
        probability: Score of the first label.
        lead: Its distance to the second label's score.

    Returns:
        One of `WORDS`. Where their bounds lie was measured: `benchmarks/sureness.py`.
    """
    if lead < 0.15:
        return NOT_SURE
    if probability >= 0.9:
        return "very sure"
    return "fairly sure" if probability >= 0.6 else "a guess"
