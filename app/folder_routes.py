"""The corrections of a folder run as the CSV that `teach`, `train` and `evaluate` take."""

from __future__ import annotations

import csv
import io
from typing import Any

import fastapi

from nonlocal_video.datasets.clip_table import COLUMNS

from .callbacks.folder_rows import FolderRows


def add_folder_routes(app: fastapi.FastAPI, rows: FolderRows) -> None:
    """Add /folder/RUN/corrections.csv to an application that has no route for everything else yet."""

    @app.get("/folder/{run}/corrections.csv", include_in_schema=False)
    async def corrections(run: str) -> Any:
        try:
            found = rows.corrections(run)
        except KeyError:
            return fastapi.responses.JSONResponse({"code": "not_found", "message": "There is no such run."}, 404)
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerows([COLUMNS[:2], *found])
        headers = {"Content-Disposition": 'attachment; filename="corrections.csv"', "Referrer-Policy": "no-referrer"}
        return fastapi.Response(table.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)
