"""Errors of the HTTP API: `{"code", "message"}` with a fitting status."""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException

from nonlocal_video.errors import DeviceError, ErrorCode, OutputError, UsageError, VideoError

from .messages import DEVICE_FAILED, INTERNAL_ERROR

LOGGER = logging.getLogger(__name__)

STATUS_OF_CLIP_ERROR: Mapping[ErrorCode, int] = {
    "not_found": 404,
    "not_a_video": 415,
    "no_video_stream": 415,
    "unsupported_codec": 415,
    "too_large": 413,
    "too_long": 413,
    "out_of_memory": 413,
    "corrupt": 422,
    "timeout": 422,
    "decoder_crashed": 422,
    "internal": 500,
}
"""HTTP status for each error code of a row."""
DISK_FULL = "The server's disk is full; try again later."
MAX_FIELDS = 32
MAX_FIELD_NAME = 80
"""Maximum number of characters of a field's name in a message."""
RETRY_SECONDS = 10
"""Seconds after which a client may try a busy server again."""
_FORM = "multipart/form-data"
_CODES = {
    400: "invalid_request",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    422: "invalid_argument",
}


class ApiError(Exception):
    """Error with its HTTP status, code, message and headers."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers or {})

    def to_response(self) -> JSONResponse:
        """Return the response."""
        return JSONResponse({"code": self.code, "message": self.message}, status_code=self.status, headers=self.headers)


def busy(message: str) -> ApiError:
    """Return the error for a request that may be repeated after a while."""
    return ApiError(503, "busy", message, {"Retry-After": str(RETRY_SECONDS)})


def api_error(error: Exception) -> ApiError:
    """Return any exception as an error of the API; unexpected ones are logged, and their text is not sent."""
    match error:
        case ApiError():
            return error
        case VideoError():
            return ApiError(STATUS_OF_CLIP_ERROR[error.code], error.code, error.message)
        case DeviceError():
            LOGGER.error("%s", error)
            return ApiError(503, "device_failed", DEVICE_FAILED)
        case UsageError():
            return ApiError(422, "invalid_argument", str(error))
        case RequestValidationError():
            return ApiError(422, "invalid_argument", "; ".join(map(_in_words, error.errors())))
        case HTTPException():
            code = _CODES.get(error.status_code, HTTPStatus(error.status_code).phrase.lower().replace(" ", "_"))
            return ApiError(error.status_code, code, str(error.detail), error.headers)
        case (
            OSError(errno=errno.ENOSPC | errno.EDQUOT)
            | OutputError(__cause__=OSError(errno=errno.ENOSPC | errno.EDQUOT))
        ):
            return ApiError(503, "disk_full", DISK_FULL, {"Retry-After": str(RETRY_SECONDS)})
    LOGGER.error("a request failed", exc_info=error)
    return ApiError(500, "internal", INTERNAL_ERROR)


class ApiRoute(APIRoute):
    """Route whose errors are `{"code", "message"}`, and whose forms have one file and each field once."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of FastAPI, with these errors and limits around it."""
        answer = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
                if request.method == "POST" and kind != _FORM:
                    raise ApiError(
                        415, "unsupported_media_type", f"The body is {kind or 'of no kind'} and should be {_FORM}."
                    )
                return await answer(_SmallForm(request.scope, request.receive))
            except Exception as error:
                return api_error(error).to_response()

        return handle


class _SmallForm(Request):
    """Request whose form has one file: by default 1000 files could each hold 1 MB of memory; and each field once."""

    def form(self, **_: Any) -> Any:  # FastAPI awaits it, and closes the form
        return self._read()

    async def _read(self) -> FormData:
        form = await super().form(max_files=1, max_fields=MAX_FIELDS)
        counts = Counter(name for name, _ in form.multi_items())
        repeated = [name[:MAX_FIELD_NAME] for name, count in counts.items() if count > 1]
        if repeated:
            await form.close()
            raise HTTPException(422, f"{', '.join(repeated)}: given more than once; send each field once.")
        return form


def _in_words(error: Any) -> str:
    if error["loc"] == ("body", "file"):
        return "file: should be the clip itself, with its name; for curl: -F file=@clip.mp4."
    field = ".".join(str(part)[:MAX_FIELD_NAME] for part in error["loc"] if part != "body")
    return f"{field}: {error['msg']}" if field else error["msg"]
