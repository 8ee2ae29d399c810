"""Confidence of an answer, in four words."""

from __future__ import annotations

NOT_SURE = "not sure"
WORDS = ("very sure", "fairly sure", "a guess", NOT_SURE)
"""Degrees of certainty, the surest first."""
VERY_SURE_FROM = 0.94
FAIRLY_SURE_FROM = 0.8
LEAST_LEAD = 0.2
"""Below it the first two labels are too close to call."""


def sureness_of(probability: float, lead: float) -> str:
    """Return the word for an answer.

    Args:
        probability: Score of the first label.
        lead: Its distance to the second label's score.

    Returns:
        One of `WORDS`. How often each is right was measured: `benchmarks/sureness.py`, docs/page.md.
    """
    if lead < LEAST_LEAD:
        return NOT_SURE
    if probability >= VERY_SURE_FROM:
        return WORDS[0]
    return WORDS[1] if probability >= FAIRLY_SURE_FROM else WORDS[2]
