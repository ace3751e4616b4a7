"""Pictures of creatives, for who may see the runs that made them; the form that asks for approval shows them.

The application is put together on the first request: tasks load this folder too, and need none of it.
"""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/creatives"
DAG = "creatives_daily__"
SUFFIXES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}


def make_app() -> Any:
    """``GET /{dag_id}/{path}``: a picture below the shop's creatives folder; 401 without login, 403 without right."""
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
    from airflow.api_fastapi.core_api.security import requires_access_dag
    from fastapi import Depends, FastAPI, HTTPException
    from fastapi.responses import FileResponse

    from adloom.errors import UsageError
    from adloom.shop import load_shop

    may_see = Depends(requires_access_dag("GET", DagAccessEntity.RUN))
    app = FastAPI(dependencies=[may_see], docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/{dag_id}/{path:path}")
    def picture(dag_id: str, path: str) -> FileResponse:
        try:
            root = load_shop(dag_id.removeprefix(DAG)).creatives.resolve() if dag_id.startswith(DAG) else None
        except UsageError:
            root = None
        file = None if root is None else (root / path).resolve()
        if root is None or file is None or not file.is_relative_to(root) or not file.is_file():
            raise HTTPException(404)
        kind = SUFFIXES.get(file.suffix.lower())
        if kind is None:
            raise HTTPException(404)
        headers = {
            "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "private, max-age=300",
        }
        return FileResponse(file, media_type=kind, headers=headers)

    return app


class _OnFirstRequest:
    """An ASGI application that is made when it is first asked."""

    app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.app is None:
            self.app = make_app()
        await self.app(scope, receive, send)


class CreativeFiles(AirflowPlugin):
    """Registers the application under `PREFIX`."""

    name = "creative_files"
    fastapi_apps = [{"app": _OnFirstRequest(), "url_prefix": PREFIX, "name": "Creative files"}]  # noqa: RUF012
