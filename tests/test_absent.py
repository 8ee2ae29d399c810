"""A missing requirement skips a test on somebody's machine, and fails it under CI."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from absent import absent, needs

TESTS = Path(__file__).parent
INSTALLABLE = {"find_spec", "which", "importorskip", "PackageNotFoundError", "distribution", "is_dir"}
"""Names in a skip's condition that ask for something which can be installed."""


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_what_is_absent_fails_under_ci(monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no browser"):
        absent("no browser")


@pytest.mark.parametrize(
    ("ci", "found", "skipped"), [("true", None, False), ("true", "", False), ("", None, True), ("", "/bin/x", False)]
)
def test_marked_tests_run_under_ci(monkeypatch: pytest.MonkeyPatch, ci: str, found: object, skipped: bool) -> None:
    monkeypatch.setenv("CI", ci)
    assert needs(found, "no decoder").mark.args == (skipped,)


def test_nothing_else_skips_what_can_be_installed() -> None:
    found = [
        f"{path.relative_to(TESTS)}:{line}"
        for path in sorted(TESTS.rglob("*.py"))
        if path.name != "absent.py"
        for line in skips_of_installables(path.read_text("utf-8"))
    ]
    assert not found, "use absent() or needs() of tests/absent.py"


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("if which('ffmpeg') is None:\n    pytest.skip('no ffmpeg')", [1]),
        ("m = pytest.mark.skipif(find_spec('x') is None, reason='pip install x')", [1]),
        ("\nx = pytest.importorskip('x')", [2]),
        ("try:\n    distribution('x')\nexcept PackageNotFoundError:\n    pytest.skip('no x')", [1]),
        ("if not cuda.is_available():\n    pytest.skip('no GPU')", []),
        ("m = pytest.mark.skipif(os.geteuid() == 0, reason='root')", []),
        ("if which('ffmpeg') is None:\n    absent('no ffmpeg')", []),
    ],
)
def test_such_a_skip_is_found(code: str, lines: list[int]) -> None:
    assert skips_of_installables(code) == lines


def skips_of_installables(code: str) -> list[int]:
    """Return the lines of statements that skip tests by themselves where something is not installed."""
    return sorted(
        {
            node.lineno
            for node in ast.walk(ast.parse(code))
            if isinstance(node, ast.If | ast.Try | ast.Call)
            and (names := _names(node)) & {"skip", "skipif", "importorskip"}
            and names & INSTALLABLE
        }
    )


def _names(node: ast.AST) -> set[str]:
    found = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    return found | {inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute)}
