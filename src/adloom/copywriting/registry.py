"""The models that were trained: recorded, promoted, rolled back, and which one is live as of a day.

A model is live from the day it is promoted until a later one is, or until it is withdrawn. Every answer is a function
of the rows and the day asked about, so the order in which days are run does not matter. Without a live model the base
writes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, select, update

from adloom.copywriting.starter import starter_voice
from adloom.errors import AdloomError, UsageError
from adloom.warehouse import ledger

if TYPE_CHECKING:
    from adloom.copywriting.training import TrainingResult

KIND = "copy"
BY_LOSS = "adloom"
"""promoted_by of a model that was promoted for its validation loss; a person's word on the same day outranks it"""
RETRAIN_WITHIN_DAYS = 30
"""After an erasure: how long a model that learnt from what is erased may stay in use."""


def record(
    connection: Connection, day: date, result: TrainingResult, origins: Mapping[str, int], models_folder: Path
) -> None:
    """Store the run of ``day``'s model as a candidate, with what it learnt from (origin → pairs).

    Recorded again, it keeps what was decided about it. ``models_folder``: the shop's; rows hold paths below it.
    """
    models = ledger.models
    if not result.path.resolve().is_relative_to(models_folder.resolve()):
        raise AdloomError(f"{result.path} is not inside {models_folder}", "train into the shop's models folder")
    before = connection.execute(select(models).where(models.c.model_id == result.model_id)).mappings().one_or_none()
    decided = ("promoted_on", "promoted_by", "withdrawn_on", "withdrawn_reason", "retrain_by", "trained_at")
    row = {
        "model_id": result.model_id,
        "day": day,
        "kind": KIND,
        "base": result.base,
        "base_digest": result.base_digest,
        "licence": result.licence,
        "method": result.method,
        "weights_digest": result.weights_digest,
        "path": str(result.path.resolve().relative_to(models_folder.resolve())),
        "data_as_of": result.data_as_of,
        "data_digest": result.data_digest,
        "pairs": result.pairs,
        "validation_pairs": result.validation_pairs,
        "configuration": json.dumps(result.configuration, sort_keys=True),
        "metrics": json.dumps(result.metrics, sort_keys=True),
        "trained_at": datetime.now(UTC).replace(tzinfo=None),
    }
    row |= {name: before[name] for name in decided} if before is not None else dict.fromkeys(decided[:-1])
    ledger.replace_rows(connection, models, {"model_id": result.model_id}, [row])
    learnt = [{"model_id": result.model_id, "origin": one, "pairs": count} for one, count in sorted(origins.items())]
    ledger.replace_rows(connection, ledger.model_pairs, {"model_id": result.model_id}, learnt)


def live_model(connection: Connection, day: date) -> Row[Any] | None:
    """The `ledger.models` row of the model that writes on ``day``, or None: the base does."""
    models = ledger.models
    promoted = select(models).where(models.c.kind == KIND, models.c.promoted_on <= day)
    rows = [row for row in connection.execute(promoted) if row.withdrawn_on is None or row.withdrawn_on > day]
    return max(rows, key=_rank, default=None)


def _rank(row: Row[Any]) -> tuple[date, bool, date, str]:
    return row.promoted_on, row.promoted_by != BY_LOSS, row.data_as_of, row.model_id


def all_models(connection: Connection) -> Sequence[Row[Any]]:
    """Every trained copy model, newest first."""
    models = ledger.models
    newest_first = (models.c.day.desc(), models.c.model_id)
    return connection.execute(select(models).where(models.c.kind == KIND).order_by(*newest_first)).all()


def state_words(row: Row[Any], live: Row[Any] | None) -> str:
    """``live since 2024-03-05``, ``candidate``, ``rolled back on …: why``, and by when it must be retrained."""
    if row.withdrawn_on is not None:
        words = f"rolled back on {row.withdrawn_on}: {row.withdrawn_reason}"
    elif row.promoted_on is None:
        words = "candidate"
    else:
        is_live = live is not None and live.model_id == row.model_id
        words = f"live since {row.promoted_on}" if is_live else f"promoted on {row.promoted_on}"
    return words if row.retrain_by is None else f"{words}; learnt from what was erased: retrain by {row.retrain_by}"


def promote(connection: Connection, model_id: str, day: date, by: str) -> None:
    """Let a model write from ``day`` on; ``by``: who decided it. A second time changes nothing."""
    row = _row(connection, model_id)
    if day < row.day:
        raise UsageError(f"model {model_id} was trained on {row.day}", f"promote it on {row.day} or later")
    if row.promoted_on is not None and row.withdrawn_on is None:
        live = live_model(connection, day)
        if live is None or live.model_id != model_id:
            raise UsageError(
                f"model {model_id} was promoted on {row.promoted_on} and is not the live one on {day}",
                "roll back the models promoted after it: adloom roll-back",
            )
        return
    _set(connection, model_id, promoted_on=day, promoted_by=by, withdrawn_on=None, withdrawn_reason=None)


def promote_if_better(connection: Connection, model_id: str, day: date) -> str:
    """Promote a candidate if its validation loss is below that of what would write else; returns what was decided.

    That is the live model, and without one the starter voice of the base, or the bare base.

    Losses are per token of the same validation texts, of items that none of them learnt from. No bar is a live model
    that has to be retrained for an erasure, or one of another base, whose tokens are others: it is enough to be better
    than the base.
    """
    row = _row(connection, model_id)
    live = live_model(connection, day)
    if row.withdrawn_on is not None:
        return f"model {model_id} was rolled back on {row.withdrawn_on}: it stays a candidate"
    if live is not None and live.model_id == model_id:
        return f"model {model_id} is live since {live.promoted_on}"
    metrics = json.loads(row.metrics)
    tuned, base, of_live = metrics["loss_tuned"], metrics["loss_base"], metrics["loss_live"]
    of_starter = metrics.get("loss_starter")
    figures = f"validation loss {tuned:.3f}, base {base:.3f}"
    figures += "" if of_starter is None else f", starter voice {of_starter:.3f}"
    figures += "" if of_live is None else f", live model {of_live:.3f}"
    figures += f", on {row.validation_pairs} pairs"
    if of_starter is None and starter_voice(row.base_digest) is not None:
        of_starter = -math.inf  # with settings that cannot go on from the voice it was not compared: a person decides
    for bar, name in ((base, "its base"), (of_starter, "the starter voice")):
        if bar is not None and not tuned < bar:
            return f"model {model_id} stays a candidate: no better than {name} ({figures})"
    if live is not None and live.retrain_by is None and live.base_digest == row.base_digest:
        if of_live is None:
            return f"model {model_id} stays a candidate: it was not compared with the live {live.model_id} ({figures})"
        if not tuned < of_live:
            return f"model {model_id} stays a candidate: no better than the live {live.model_id} ({figures})"
    promote(connection, model_id, day, BY_LOSS)
    return f"model {model_id} is live from {day} ({figures})"


def roll_back(connection: Connection, day: date, reason: str) -> tuple[str, str | None]:
    """Withdraw the model live on ``day``; (its id, the id of the one that writes instead, None: the base).

    The same day and reason again is the same roll-back, not a second one.
    """
    models = ledger.models
    done = select(models.c.model_id).where(models.c.withdrawn_on == day, models.c.withdrawn_reason == reason)
    withdrawn = connection.execute(done.where(models.c.kind == KIND).order_by(models.c.model_id)).scalar()
    if withdrawn is None:
        live = live_model(connection, day)
        if live is None:
            raise UsageError(f"no model is live on {day}: the base writes", "adloom models lists what was trained")
        withdrawn = live.model_id
        _set(connection, withdrawn, withdrawn_on=day, withdrawn_reason=reason)
    now = live_model(connection, day)
    return withdrawn, None if now is None else now.model_id


def learnt_from(connection: Connection, models: Sequence[Row[Any]]) -> dict[str, int]:
    """Origin → most pairs of it that any of ``models`` learnt from."""
    pairs = ledger.model_pairs
    ids = [row.model_id for row in models]
    found: dict[str, int] = {}
    for origin, count in connection.execute(select(pairs.c.origin, pairs.c.pairs).where(pairs.c.model_id.in_(ids))):
        found[origin] = max(count, found.get(origin, 0))
    return found


def erased_origins(connection: Connection) -> dict[str, date]:
    """creative_id → first day on which it, or the item it is about, was asked to be erased."""
    erasures, creatives = ledger.erasures, ledger.creatives
    asked = {(row.kind, row.subject): row.requested_on for row in connection.execute(select(erasures))}
    found = {subject: requested for (kind, subject), requested in asked.items() if kind == "creative"}
    items = {subject: requested for (kind, subject), requested in asked.items() if kind == "item"}
    about = select(creatives.c.creative_id, creatives.c.item_id).where(creatives.c.item_id.in_(list(items)))
    for creative, item in connection.execute(about):
        found[creative] = min(items[item], found.get(creative, items[item]))
    return found


def flag_retrain(connection: Connection, also: Mapping[str, date] | None = None) -> list[str]:
    """Set ``retrain_by`` of every model that learnt from what was erased; returns the ids, sorted.

    Call it while the erased creatives are still in the ledger: an item's copies are found through them. ``also``:
    further creative_id → day, such as copies written for a segment that an erased user was counted in.
    """
    erased, pairs = {**(also or {}), **erased_origins(connection)}, ledger.model_pairs
    due: dict[str, date] = {}
    learnt = select(pairs.c.model_id, pairs.c.origin).where(pairs.c.origin.in_(list(erased)))
    for model_id, origin in connection.execute(learnt):
        by = erased[origin] + timedelta(days=RETRAIN_WITHIN_DAYS)
        due[model_id] = min(by, due.get(model_id, by))
    for model_id, by in due.items():
        _set(connection, model_id, retrain_by=by)
    return sorted(due)


def _row(connection: Connection, model_id: str) -> Row[Any]:
    models = ledger.models
    row = connection.execute(select(models).where(models.c.model_id == model_id)).one_or_none()
    if row is None:
        raise UsageError(f"there is no model {model_id!r}", "adloom models lists those there are")
    return row


def _set(connection: Connection, model_id: str, **values: Any) -> None:
    connection.execute(update(ledger.models).where(ledger.models.c.model_id == model_id).values(**values))
