"""Routes of the HTTP API, with their statuses, their description, and an answer where there is no route."""

from __future__ import annotations

from typing import Any

import fastapi
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

from .http_api import PREFIX, HttpApi
from .http_errors import ApiError, ApiRoute, api_error
from .http_forms import ErrorBody, JobBody, RowBody
from .openapi_page import openapi_page

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": words}
    for status, words in {
        400: "The form is damaged, or has two files.",
        401: "A token or a password is needed.",
        403: "Another name than the server's, or a page of another site.",
        404: "There is no such file, or no such job.",
        408: "Nothing came for a minute.",
        413: "The clip is too large or too long.",
        415: "The clip is no video, or the body is no form.",
        422: "A setting is not allowed or given twice, or the clip is damaged.",
        429: "Too many wrong passwords.",
        500: "Something went wrong inside; the server's log has more.",
        503: "The server is busy, ending, out of disk space, or its device has failed.",
    }.items()
}
_OF_A_BODY = (400, 408, 415)
_JOB_ERRORS = {status: error for status, error in _ERRORS.items() if status not in _OF_A_BODY}
_CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


class _EveryMethod(ApiRoute):
    """Route that also answers methods it does not know, such as FOO; the page at / would otherwise."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether the path matches."""
        match, child = super().matches(scope)
        return (Match.FULL if match is Match.PARTIAL else match), child


def add_http_api(app: fastapi.FastAPI, api: HttpApi) -> None:
    """Add the routes, and their description at /v1/openapi.json and /v1/docs.

    Args:
        app: Application, without a route for everything else yet.
        api: Handlers.
    """
    router = APIRouter(prefix=PREFIX, route_class=ApiRoute, tags=["clips"])
    how: dict[str, Any] = {"methods": ["POST"], "responses": _ERRORS}
    # A row has no key but those of the command's: `unknown` is of taught models alone.
    router.add_api_route("/classify", api.classify, response_model=RowBody, response_model_exclude_unset=True, **how)
    router.add_api_route("/explain", api.explain, response_model=None, **how)
    router.add_api_route("/timeline", api.timeline, response_model=JobBody, status_code=202, **how)
    router.add_api_route("/features", api.features, response_model=JobBody, status_code=202, **how)
    router.add_api_route("/jobs/{id}", api.job, methods=["GET"], response_model=JobBody, responses=_JOB_ERRORS)
    router.add_api_route("/jobs/{id}", api.stop_job, methods=["DELETE"], response_model=JobBody, responses=_JOB_ERRORS)

    async def openapi() -> Any:
        return app.openapi()

    async def docs() -> Any:
        return HTMLResponse(openapi_page(app.openapi()), headers={"Content-Security-Policy": _CONTENT_SECURITY_POLICY})

    async def nothing_here(request: Request, rest: str) -> Any:
        # Without this, the page mounted at / would answer what no route takes.
        allowed = {
            method
            for route in router.routes
            if route is not router.routes[-1] and route.path_regex.match(request.url.path)  # type: ignore[attr-defined]
            for method in route.methods  # type: ignore[attr-defined]
        }
        if allowed:
            names = ", ".join(sorted(allowed))
            raise ApiError(
                405, "method_not_allowed", f"{request.url.path} takes {names}, not {request.method}.", {"Allow": names}
            )
        raise ApiError(404, "not_found", f"{request.url.path} was not found; {PREFIX}/docs lists all addresses.")

    async def not_here(_: Request, error: Exception) -> Response:
        return api_error(error).to_response()  # a path with a line break matches no route at all

    app.add_exception_handler(HTTPException, not_here)
    unlisted: dict[str, Any] = {"include_in_schema": False, "response_model": None}
    router.add_api_route("/openapi.json", openapi, methods=["GET"], **unlisted)
    router.add_api_route("/docs", docs, methods=["GET"], **unlisted)
    others = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
    every: dict[str, Any] = {"route_class_override": _EveryMethod, "methods": others}
    router.add_api_route("/{rest:path}", nothing_here, **every, **unlisted)
    app.include_router(router)
