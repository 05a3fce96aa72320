"""The API's description: SearchSpec's schema joined to FastAPI's, examples, and a page that lists it all.

FastAPI's own documentation pages load their scripts from another host; this service loads nothing from anywhere, so
/docs is plain HTML made here, and /openapi.json is there for tools.
"""

from __future__ import annotations

from html import escape
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse

from search.spec import SearchSpec
from service.errors import MEDIA_TYPE

REF = "#/components/schemas/{model}"
EXAMPLES = {
    "smallest": {"summary": "All by default but name and data", "value": {"name": "x", "dataset": {"name": "digits"}}},
    "placement": {
        "summary": "Where does CBAM pay?",
        "value": {
            "name": "where-does-cbam-pay",
            "dataset": {"name": "cluttered-digits"},
            "backbone": {"name": "resnet14", "width": 8},
            "space": {"modules": ["none", "se", "cbam"], "reduction": [4, 8], "pattern": ["every", "last"]},
            "objectives": [{"metric": "top1"}, {"metric": "macs"}],
            "strategy": {"name": "nsga2", "seed": 0},
            "budget": {"trials": 24},
        },
    },
}  # fmt: skip
SPEC_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": REF.format(model="SearchSpec")}, "examples": EXAMPLES}},
    }
}
PROBLEM = {
    "title": "Problem",
    "description": "RFC 9457.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "id": {"type": "string", "description": "Finds an unexpected error in the log."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "field": {"type": "string"},
                    "message": {"type": "string"},
                    "choices": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
    },
}
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    "code{font-size:.95em}dt{margin-top:1rem;font-weight:600}dd{margin-left:1.5rem}b{display:inline-block;width:5rem}"
)
router = APIRouter(include_in_schema=False)


def install(app: FastAPI) -> None:
    """Makes `app.openapi()` the whole description."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _joined(get_openapi(title=app.title, version=app.version, routes=app.routes))
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """The description of a body that a route reads itself."""
    schema = model.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _joined(schema: dict[str, Any]) -> dict[str, Any]:
    spec = SearchSpec.model_json_schema(ref_template=REF)
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    components |= spec.pop("$defs", {}) | {"SearchSpec": spec, "Problem": PROBLEM}
    schema["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    schema["security"] = [{"bearer": []}]
    problem = {"description": "A problem.", "content": {MEDIA_TYPE: {"schema": {"$ref": REF.format(model="Problem")}}}}
    for operations in schema["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = problem
    for unused in ("HTTPValidationError", "ValidationError"):
        components.pop(unused, None)
    return schema


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    return JSONResponse(request.app.openapi())


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Every operation in a list."""
    schema = request.app.openapi()
    rows = []
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            summary, text = operation.get("summary", ""), operation.get("description", "")
            names = ", ".join(f"<code>{escape(p['name'])}</code>" for p in operation.get("parameters", []))
            rows.append(
                f"<dt><b>{method.upper()}</b> <code>{escape(path)}</code></dt>"
                f"<dd>{escape(summary)}. {escape(text)}{f'<br>Parameters: {names}' if names else ''}</dd>"
            )
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>attune: the API</title>'
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/docs/style.css">'
        '<h1>attune: the API</h1><p>For tools: <a href="/openapi.json">openapi.json</a>. '
        f"Errors are problem+json (RFC 9457).</p><dl>{''.join(rows)}</dl></html>"
    )
    policy = "default-src 'none'; style-src 'self'; frame-ancestors 'none'"
    return HTMLResponse(page, headers={"Content-Security-Policy": policy})


@router.get("/docs/style.css")
async def style() -> Response:
    return Response(STYLE, media_type="text/css")
