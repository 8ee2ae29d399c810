"""All settings of training with their types, defaults and meanings, read from the dataclasses themselves."""

from __future__ import annotations

import ast
import inspect
import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from textwrap import dedent
from typing import Any, Literal

from nonlocal_video.training.config import TrainConfig

_NAMES: dict[Any, str] = {bool: "true | false", int: "integer", float: "number", str: "text", type(None): "none"}


@dataclass(frozen=True)
class Setting:
    """One setting, as a recipe or `--set` names it."""

    name: str
    """Dotted, such as `augmentation.flip`."""
    type: str
    default: str
    meaning: str


def list_settings(config: type[Any] = TrainConfig, prefix: str = "") -> Iterator[Setting]:
    """Yield every setting of a dataclass, those of its nested dataclasses after their parent.

    Args:
        config: A dataclass whose fields have docstrings.
        prefix: What precedes the names, with its dot.

    Example:
        >>> next(list_settings()).name
        'stage'
    """
    hints, meanings = typing.get_type_hints(config), _docstrings(config)
    for one in fields(config):
        kinds = typing.get_args(hints[one.name]) or (hints[one.name],)
        nested = next((kind for kind in kinds if is_dataclass(kind)), None)
        default = "" if one.default is MISSING else _value(one.default)
        kind = "settings below" if nested else _type(hints[one.name])
        yield Setting(prefix + one.name, kind, default, meanings[one.name])
        if isinstance(nested, type):
            yield from list_settings(nested, f"{prefix}{one.name}.")


def _docstrings(config: type[Any]) -> dict[str, str]:
    """Field -> the text below it."""
    (tree,) = ast.parse(dedent(inspect.getsource(config))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return found


def _type(hint: Any) -> str:
    """A type as someone who writes YAML would name it."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " | ".join(map(str, parts))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_type(part) for part in parts)
    if origin is tuple:
        inner = [_type(part) for part in parts if part is not ...]
        return f"[{', '.join(inner)}{', ...' if ... in parts else ''}]"
    return _NAMES[hint]


def _value(value: Any) -> str:
    """A default as YAML writes it, numbers with four digits."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
