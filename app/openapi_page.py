"""The HTTP API's description as a page: plain HTML that fetches nothing."""

from __future__ import annotations

from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
:root { color-scheme: light dark }
h2 { border-top: 1px solid #8886; padding-top: 1rem } table { border-collapse: collapse; width: 100% }
td, th { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8883 }
code { font: .9em ui-monospace, monospace }
"""


def openapi_page(document: dict[str, Any]) -> str:
    """Describe every operation of an OpenAPI document: its fields, answers and errors.

    Args:
        document: OpenAPI 3.1 document, whose references are all to its own components.
    """
    info = document["info"]
    operations = [
        _operation(document, method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    title = escape(info["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<main><h1>{title} {escape(info['version'])}</h1><p>{escape(info.get('description', ''))}</p>"
        f'<p>For programs: <a href="openapi.json">openapi.json</a>.</p>{"".join(operations)}</main></html>'
    )


def _operation(document: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> str:
    fields = [
        (parameter["name"], parameter["schema"], parameter.get("required", False))
        for parameter in operation.get("parameters", ())
    ]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        form = _resolved(document, content["schema"])
        needed = form.get("required", ())
        fields += [(name, schema, name in needed) for name, schema in form["properties"].items()]
    takes = _table(
        ("field", "type", "default", "meaning"),
        [
            (name, _type(document, schema), "required" if needed else _default(schema), schema.get("description", ""))
            for name, schema, needed in fields
        ],
    )
    gives = _table(
        ("status", "answer"),
        [
            (status, f"{answer.get('description', '')} {_body(document, answer)}")
            for status, answer in operation["responses"].items()
        ],
    )
    words = escape(operation.get("description") or operation.get("summary", ""))
    return f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2><p>{words}</p>{takes}{gives}"


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(
        f"<tr><td><code>{escape(row[0])}</code></td>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _body(document: dict[str, Any], answer: dict[str, Any]) -> str:
    for content in answer.get("content", {}).values():
        properties = _resolved(document, content.get("schema", {})).get("properties")
        if properties:
            return f"{{{', '.join(properties)}}}"
    return ""


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        found: dict[str, Any] = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return found
    return schema


def _type(document: dict[str, Any], schema: dict[str, Any]) -> str:
    schema = _resolved(document, schema)
    if "anyOf" in schema:
        return " or ".join(_type(document, part) for part in schema["anyOf"] if part.get("type") != "null")
    if "const" in schema or "enum" in schema:
        return " or ".join(map(str, schema.get("enum", [schema.get("const")])))
    if "contentMediaType" in schema or schema.get("format") == "binary":
        return "file"
    return str(schema.get("type", "any"))


def _default(schema: dict[str, Any]) -> str:
    return str(schema["default"]) if schema.get("default") is not None else ""
