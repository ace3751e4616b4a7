"""What the tasks that open the warehouse leave for those that must not, and what these do with it: files, both ways.

``creatives/day=D/``: ``briefs.jsonl`` (what to write), ``training.jsonl`` and ``training.json`` (what to learn, or why
nothing is learnt), ``measured.jsonl`` (copies that were shown, with what came of it), ``writer.json`` (which model
writes) and ``shards/``. Training and generating read nothing else but
the shop's file and its models, so that they run on a machine that has a GPU and no warehouse.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from adloom.copywriting import pairs, registry
from adloom.copywriting.starter import StarterVoice, starter_voice
from adloom.copywriting.valuing import measured_copies
from adloom.creative import Pair, read_rows, write_rows
from adloom.errors import AdloomError
from adloom.settings import settings
from adloom.shop import Shop

if TYPE_CHECKING:
    from adloom.copywriting.endpoint import EndpointModel
    from adloom.copywriting.generating import Generated, Shard
    from adloom.copywriting.model import Identity, LocalModel
    from adloom.copywriting.training import TrainingResult

log = logging.getLogger(__name__)

BRIEFS, PAIRS, TRAINING, WRITER, SHARDS = "briefs.jsonl", "training.jsonl", "training.json", "writer.json", "shards"
MEASURED = "measured.jsonl"
ACCOUNT = "endpoint.sqlite"
"""What the day's requests to an endpoint cost and when they began: its shards, and then its audit, keep one limit."""


@dataclass(frozen=True)
class Training:
    """What was decided about learning on a day."""

    pairs: int
    new: int
    """pairs that no model trained before has learnt from"""
    refused: dict[str, int]
    """reason → copies that must not be learnt from"""
    folder: str
    """where the run's files go, below the shop's models folder: the same pairs and settings, the same folder"""
    live: str | None
    """weights in use, below the models folder: what the result is held against"""
    reason_to_skip: str | None
    starter: str | None = None
    """digest of the starter voice that the training goes on from; None: it begins with the bare base"""

    def __str__(self) -> str:
        if self.reason_to_skip:
            return f"no training: {self.reason_to_skip}"
        left_out = ", ".join(f"{count} {reason}" for reason, count in self.refused.items())
        return f"training on {self.pairs} pairs, {self.new} of them new" + (f" (left out: {left_out})" * bool(left_out))


@dataclass(frozen=True)
class Writer:
    """Which model writes on a day."""

    model_id: str
    """of the models row; else the base's name, and the digest of the starter voice if it writes"""
    base: str
    adapter: str | None
    """trained weights, below the shop's models folder; None: the base writes, or the starter voice"""
    starter: str | None = None
    """digest of the starter voice, where it writes"""


def folder_of(shop: Shop, day: date) -> Path:
    """The files of one day's creatives."""
    return shop.creatives / f"day={day.isoformat()}"


def weights_cache() -> Path:
    """Folder of converted base weights and digests, shared by all shops."""
    return settings().home / "weights"


# --- before the GPU: the warehouse is open ------------------------------------------------------------------------


def order_training(connection: Connection, shop: Shop, day: date) -> Training:
    """Write what may be learnt from as of ``day``, and whether a training is worth it."""
    selection = pairs.training_pairs(connection, shop, day)
    folder = folder_of(shop, day)
    path = folder / PAIRS
    pairs.write_training(connection, shop, day, path, selection.pairs)
    copywriting = shop.copywriting
    live = _live(connection, shop, day)
    if copywriting.endpoint is not None:
        reason: str | None = "the shop's copy comes from an endpoint, which is not trained here"
    else:
        reason = selection.reason_to_skip(copywriting.fine_tuning.min_new_pairs)
    what = hashlib.sha256(path.read_bytes())
    what.update(f"{copywriting.model} {copywriting.fine_tuning.model_dump_json(exclude={'min_new_pairs'})}".encode())
    starter = _starter(shop)
    what.update(starter.digest.encode() if starter else b"")
    found = Training(
        pairs=len(selection.pairs),
        new=selection.new,
        refused=selection.refused,
        folder=f"{day.isoformat()}-{what.hexdigest()[:12]}",
        live=None if live is None else live.path,
        reason_to_skip=reason,
        starter=starter.digest if starter else None,
    )
    _write(folder / TRAINING, asdict(found))
    return found


def choose_writer(connection: Connection, shop: Shop, day: date) -> Writer:
    """Note which model writes on ``day``: the live one, else the base with the starter voice that belongs to it.

    Beside it goes what is known of shown copies by then, from which the value of new ones is predicted.
    """
    write_rows(folder_of(shop, day) / MEASURED, measured_copies(connection, day))
    base = shop.copywriting.model
    live = _live(connection, shop, day)
    if shop.copywriting.endpoint is not None:
        found = Writer(f"endpoint:{shop.copywriting.endpoint.model}", base, None)
    elif live is None and (starter := _starter(shop)) is not None:
        found = Writer(f"{base}+starter:{starter.digest[:12]}", base, None, starter.digest)
    elif live is None:
        found = Writer(base, base, None)
    else:
        found = Writer(live.model_id, live.base, live.path)
    _write(folder_of(shop, day) / WRITER, asdict(found))
    return found


def _starter(shop: Shop, expected: str | None = None) -> StarterVoice | None:
    """The starter voice of the shop's base; with ``expected``, the digest of one, that one or `AdloomError`."""
    if shop.copywriting.endpoint is not None:
        return None
    from adloom.copywriting.model import pinned_digest

    found = starter_voice(pinned_digest(shop.copywriting.model))
    if expected is not None and (found is None or found.digest != expected):
        raise AdloomError(
            f"the starter voice {expected[:12]} that was planned with is not the one that is installed here",
            "install the same version of adloom on both machines, or plan again: plan-copy, select-pairs",
        )
    return found


def _live(connection: Connection, shop: Shop, day: date) -> Any | None:
    """The row of the live model, if it was trained from the base that the shop's file names."""
    live = registry.live_model(connection, day)
    if live is not None and not pairs.is_same_base(live.base, shop.copywriting.model):
        log.warning(
            "model %s was trained from %s and the shop now names %s: it does not write",
            *(live.model_id, live.base, shop.copywriting.model),
        )
        return None
    return live


def plan(shop: Shop, day: date) -> list[str]:
    """Cut the day's briefs into shards; their names, in order. None where there is nothing to write."""
    from adloom.copywriting import generating

    folder = folder_of(shop, day)
    briefs = folder / BRIEFS
    if not briefs.is_file():
        raise AdloomError(f"{briefs} is not there", _run("write-briefs", shop, day))
    found = generating.plan_shards(briefs, folder / SHARDS, shop.copywriting.shard_briefs)
    return [path.name.partition(".")[0] for path in found]


# --- on the GPU: files only ---------------------------------------------------------------------------------------


def training_order(shop: Shop, day: date) -> Training:
    """What `order_training` decided."""
    return Training(**_read(folder_of(shop, day) / TRAINING, _run("select-pairs", shop, day)))


def train(shop: Shop, day: date) -> TrainingResult | None:
    """Train as `order_training` decided; None: it is not worth it, the log says why. A finished training is kept."""
    order = training_order(shop, day)
    if order.reason_to_skip:
        log.info("%s", order)
        return None
    _quiet_threads()
    from adloom.copywriting.training import RESULT, fine_tune, read_result

    folder = shop.models / order.folder
    if (folder / RESULT).is_file():
        log.info("fine-tuning: finished before")
        return read_result(folder)
    log.info("%s", order)
    texts = pairs.training_texts(read_rows(folder_of(shop, day) / PAIRS, Pair))
    copywriting = shop.copywriting
    return fine_tune(
        copywriting.model,
        texts,
        copywriting.fine_tuning,
        folder,
        data_as_of=day,
        cache=weights_cache(),
        device=settings().device,
        live=None if order.live is None else shop.models / order.live,
        starter=None if order.starter is None else _starter(shop, order.starter),
    )


def generate(shop: Shop, day: date, shards: Sequence[str]) -> list[Shard]:
    """Write the copies of the named shards with the day's model, loaded once. Finished shards are left alone."""
    from adloom.copywriting import generating

    folder = folder_of(shop, day)
    writer = writer_of(shop, day)
    paths = [folder / SHARDS / f"{name}.briefs.jsonl" for name in shards]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise AdloomError(f"there is no {missing[0]} in {folder / SHARDS}", _run("plan-copy", shop, day))
    _quiet_threads()
    known, measured = folder / PAIRS, folder / MEASURED
    about: dict[str, Any] = {
        "day": day,
        "model_id": writer.model_id,
        "known_path": known if known.is_file() else None,
        "measured_path": measured if measured.is_file() else None,
    }
    sampling = shop.copywriting.sampling
    if shop.copywriting.endpoint is None:
        # Loading takes seconds: a task that is run again when all is done needs only to know what would be loaded.
        identity = generating.identity_of(_identity(shop, writer))
        found = [
            generating.finished_shard(path, generating.shard_path(path), identity, sampling, **about) for path in paths
        ]
        done = [shard for shard in found if shard is not None]
        if len(done) == len(paths):
            return done
    model = _model(shop, day, writer)
    return [generating.generate_shard(path, generating.shard_path(path), model, sampling, **about) for path in paths]


def writer_of(shop: Shop, day: date) -> Writer:
    """What `choose_writer` noted for the day."""
    return Writer(**_read(folder_of(shop, day) / WRITER, _run("plan-copy", shop, day)))


def model_of(shop: Shop, day: date) -> LocalModel | EndpointModel:
    """The model itself that `choose_writer` chose for the day."""
    _quiet_threads()
    return _model(shop, day, writer_of(shop, day))


def _adapter(shop: Shop, writer: Writer) -> Path | None:
    if writer.adapter is not None:
        return shop.models / writer.adapter
    voice = None if writer.starter is None else _starter(shop, writer.starter)
    return None if voice is None else voice.path


def _identity(shop: Shop, writer: Writer) -> Identity:
    from adloom.copywriting.model import identify

    return identify(writer.base, weights_cache(), settings().device, adapter=_adapter(shop, writer))


def _model(shop: Shop, day: date, writer: Writer) -> LocalModel | EndpointModel:
    from adloom.copywriting.model import EndpointModel, load_local

    if shop.copywriting.endpoint is not None:
        return EndpointModel(shop.copywriting.endpoint, account=folder_of(shop, day) / ACCOUNT)
    return load_local(writer.base, weights_cache(), settings().device, adapter=_adapter(shop, writer))


def _quiet_threads() -> None:
    """Read by OpenMP when torch is first imported: threads that spin while they wait slow down whatever runs beside."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


# --- after the GPU ------------------------------------------------------------------------------------------------


def generated(shop: Shop, day: date, shards: Sequence[str]) -> Iterator[Generated]:
    """The rows of the shards, in order."""
    from adloom.copywriting import generating

    for path in _finished(shop, day, shards):
        yield from read_rows(path, generating.Generated)


def require_finished(shop: Shop, day: date) -> None:
    """`AdloomError` where a copy that `plan` asks for is still to be written."""
    for _ in _finished(shop, day, planned(shop, day)):
        pass


def _finished(shop: Shop, day: date, shards: Sequence[str]) -> Iterator[Path]:
    """The files of the shards, in order."""
    from adloom.copywriting import generating

    for name in shards:
        path = generating.shard_path(folder_of(shop, day) / SHARDS / f"{name}.briefs.jsonl")
        if not path.is_file():
            raise AdloomError(f"{path.name} is not there: its shard is not finished", _run("generate-copy", shop, day))
        yield path


def planned(shop: Shop, day: date) -> list[str]:
    """Names of the shards that `plan` cut, in order."""
    folder = folder_of(shop, day)
    if not (folder / WRITER).is_file():
        raise AdloomError(f"nothing is planned for {day}: {folder / WRITER} is not there", _run("plan-copy", shop, day))
    return sorted(path.name.partition(".")[0] for path in (folder / SHARDS).glob("shard-*.briefs.jsonl"))


def _run(command: str, shop: Shop, day: date) -> str:
    return f"run `adloom {command} --shop {shop.id} --day {day}`"


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.tmp")
    fresh.write_text(json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    fresh.replace(path)


def _read(path: Path, next_step: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content
    except FileNotFoundError as error:
        raise AdloomError(f"{path} is not there", next_step) from error
    except ValueError as error:
        raise AdloomError(f"{path} is not readable: {error}", next_step) from error
