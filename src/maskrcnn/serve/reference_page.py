"""The page `/docs`: the OpenAPI description as plain HTML.

The pages that FastAPI brings load scripts from another host. This one needs no other host and no script.
"""

from __future__ import annotations

from html import escape
from typing import Any

from fastapi.responses import HTMLResponse

STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:50em;margin:2em auto;padding:0 1em}code{background:#eee;padding:.1em .3em}"
)
HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


def reference_page(openapi: dict[str, Any]) -> HTMLResponse:
    title = f"{openapi['info']['title']} {openapi['info']['version']}"
    parts = [f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}</style>"]
    parts.append(f"<h1>{escape(title)}</h1><p>For programs: <a href=/openapi.json>openapi.json</a></p>")
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2>")
            parts.append(f"<p>{escape(operation.get('summary', ''))}</p>")
            if "requestBody" in operation:
                parts.append(f"<p>Body: {escape(operation['requestBody'].get('description', 'JSON'))}</p>")
            parts += [
                f"<p><code>{escape(entry['name'])}</code> {escape(_values(entry))}</p>" for entry in _queries(operation)
            ]
    return HTMLResponse("".join(parts), headers=HEADERS)


def _queries(operation: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry for entry in operation.get("parameters", []) if entry["in"] == "query"]


def _values(entry: dict[str, Any]) -> str:
    schema = entry["schema"]
    values = ", ".join(schema["enum"]) if "enum" in schema else schema.get("type", "")
    return f"{values} (default: {schema['default']})" if schema.get("default") is not None else values
