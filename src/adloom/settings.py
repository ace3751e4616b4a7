"""Settings of an installation: read from the environment (``ADLOOM_*``), with defaults that work in a checkout."""

from __future__ import annotations

import os
import secrets
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

CHECKOUT = Path(__file__).resolve().parents[2]


class Settings(BaseSettings):
    """Where things are and how much of the machine a step may use."""

    model_config = SettingsConfigDict(env_prefix="ADLOOM_")

    home: Path = Field(default=CHECKOUT / "var", description="everything that is not code")
    shops_dir: Path = Field(default=CHECKOUT / "shops", description="one YAML per shop")
    dbt_project_dir: Path = Field(default=CHECKOUT / "dbt_project")
    user_id_key: SecretStr | None = Field(default=None, description="key of the HMAC that replaces user ids")
    threads: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, description="DuckDB and dbt threads")
    memory_limit: str = Field(default="3GB", description="DuckDB's memory limit; it spills to disk beyond it")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="where models train and generate")
    gpu_queue: str = Field(default="default", description="queue of GPU tasks; production: one with GPU workers")
    gpu_executor: str | None = Field(default=None, description="executor of GPU tasks, one of [core] executor")
    lock_timeout_seconds: float = Field(default=120, ge=0, description="how long to wait for a busy warehouse")


def settings() -> Settings:
    """The settings in force now (the environment is read on every call; it is cheap and tests change it)."""
    found = Settings()
    return found.model_copy(update={"home": found.home.expanduser().resolve()})


def user_id_key() -> bytes:
    """The HMAC key for user ids: from ``ADLOOM_USER_ID_KEY``, else generated once under ``ADLOOM_HOME``.

    Never logged, never in SQL text. A changed key makes every user a stranger: keep it with the backups.
    """
    configured = settings().user_id_key
    if configured is not None:
        return configured.get_secret_value().encode()
    return _development_key(settings().home / "user_id_key")


@lru_cache
def _development_key(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # A private file is written whole and linked into place: two first runs agree on one key.
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        fresh.touch(mode=0o600)
        fresh.write_text(secrets.token_hex(32))
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_bytes()
