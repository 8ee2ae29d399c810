"""Show examples and options in docstrings as users type them: an extension of griffe for the site (mkdocs.yml)."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Function, Object, ParameterKind, Parameters

PARSE = "nonlocal_video.inference.request.ClipRequest.parse"


class Examples(Extension):
    """Read `Example:` as the section that griffe knows as `Examples:`."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the heading before the docstring is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)


class Options(Extension):
    """List the options behind `**options: Unpack[...]`, as `lists_options` does in a running Python."""

    def on_function(self, *, func: Function, **_: Any) -> None:
        """Replace the last parameter by the options that it stands for, with their defaults."""
        annotation: Any = next(
            (one.annotation for one in func.parameters if one.kind is ParameterKind.var_keyword), None
        )
        if not str(annotation).startswith("Unpack["):
            return
        names = func.modules_collection[annotation.slice.canonical_path].all_members
        listed = [one for one in func.modules_collection[PARSE].parameters if one.name in names]
        own = [one for one in func.parameters if one.kind is not ParameterKind.var_keyword]
        first = next((i for i, one in enumerate(own) if one.kind is ParameterKind.keyword_only), len(own))
        func.parameters = Parameters(*own[:first], *listed, *own[first:])
