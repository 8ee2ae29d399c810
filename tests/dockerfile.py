"""The Dockerfile's instructions, by stage."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, its lines joined."""

    word: str
    rest: str


Stage = list[Instruction]


def _read_stages() -> tuple[dict[str, str], dict[str, Stage]]:
    lines = [line for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines() if not line.startswith("#")]
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    instructions = [Instruction(*line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]
    starts = [index for index, instruction in enumerate(instructions) if instruction.word == "FROM"]
    stages = {}
    for begin, end in zip(starts, [*starts[1:], len(instructions)], strict=True):
        _, _, name = instructions[begin].rest.partition(" AS ")
        stages[name or "final"] = instructions[begin:end]
    before = dict(instruction.rest.split("=", 1) for instruction in instructions[: starts[0]])
    return before, stages


BEFORE, STAGES = _read_stages()
"""The arguments before the first stage; each stage's instructions by its name, the first of them its FROM."""
FINAL = STAGES["final"]


def rests(stage: Stage, word: str) -> list[str]:
    """Return what follows a word, for each of a stage's instructions that begins with it."""
    return [instruction.rest for instruction in stage if instruction.word == word]


def only(stage: Stage, word: str) -> str:
    """Return what follows a word that a stage has exactly once."""
    (rest,) = rests(stage, word)
    return rest


def arguments(*names: str) -> dict[str, str]:
    """Return the build arguments of stages, of all if none is named, and their defaults."""
    chosen = [STAGES[name] for name in names] or list(STAGES.values())
    return {name: value.strip('"') for stage in chosen for name, value in _pairs(rests(stage, "ARG"))}


def settings(stage: Stage) -> dict[str, str]:
    """Return the environment variables that a stage sets."""
    return {name: value for rest in rests(stage, "ENV") for name, value in _pairs(rest.split())}


def labels(stage: Stage) -> dict[str, str]:
    """Return a stage's labels."""
    return dict(re.findall(r'(\S+)="([^"]*)"', only(stage, "LABEL")))


def _pairs(words: list[str]) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (word.partition("=") for word in words)]
