"""Show examples in docstrings as code: an extension of griffe for the documentation's site (mkdocs.yml)."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object


class Examples(Extension):
    """Read `Example:` as the section that griffe knows as `Examples:`."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the heading before the docstring is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
