"""The steps of a day as functions: what DAGs, commands and tests all call.

Each step takes a shop's id and a day, opens the warehouse itself and leaves it closed, and may be run again at
any time: the second run equals the first. `STEPS` is the day from landing to report, in order.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Row, and_, func, select, update
from sqlalchemy.exc import DBAPIError, ResourceClosedError

import adloom
from adloom.errors import AdloomError, UsageError
from adloom.shop import Shop, load_shop
from adloom.turns import turn
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

log = logging.getLogger(__name__)

Step = Callable[[str, date], Any]
P = ParamSpec("P")
R = TypeVar("R")

CREATIVES, AUDIT, PICTURES, PUBLISHING = "creatives-{day}", "audit-{day}", "pictures-{day}", "publishing"
"""Whose turn it is to write files: those that order a day's creatives, its audit, those that are drawn, those that are
published.

Shards and trainings have locks of their own (`copywriting.generating`, `imagery.generating`, `copywriting.training`).
"""


def _in_turn(what: str) -> Callable[[Callable[Concatenate[str, date, P], R]], Callable[Concatenate[str, date, P], R]]:
    """Two processes take such a step one after the other; the second waits, then raises `adloom.errors.Busy`."""

    def wrapped(step: Callable[Concatenate[str, date, P], R]) -> Callable[Concatenate[str, date, P], R]:
        @wraps(step)
        def take(shop_id: str, day: date, *args: P.args, **kwargs: P.kwargs) -> R:
            with turn(load_shop(shop_id), what.format(day=day)):
                return step(shop_id, day, *args, **kwargs)

        return take

    return wrapped


@dataclass(frozen=True)
class Answer:
    """What somebody answered when asked for approval."""

    is_approval: bool
    dropped: tuple[str, ...]
    """creatives that are rejected although the rest is approved"""
    by: str | None
    """None: nobody answered in time"""
    reason: str
    at: datetime
    """UTC, without an offset"""


def ingest(shop_id: str, day: date) -> Any:
    """Bring landing folders up to ``day`` into raw; opens the day's run and marks later runs stale."""
    from adloom import sources
    from adloom.warehouse import loading

    shop = load_shop(shop_id)
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
        with engine.connect() as connection:
            loading.refuse_purged(connection, shop, day)
    with _step(shop, day, "ingest"):
        sources.land(shop, day)
        report = loading.ingest(shop, day)
        with warehouse(shop) as engine, engine.begin() as connection:
            connection.execute(
                update(ledger.runs)
                .where(ledger.runs.c.day == day)
                .values(input_digest=input_digests(connection, [day])[day])
            )
            mark_stale(connection)
    return report


def check(shop_id: str, day: date, door: str) -> Any:
    """Hold the day's data against the door's suite; raises `GateFailed` when it is red.

    A bad day must not slip through with the next day's run: the raw door looks at every earlier day whose marts are
    still to be built, the marts door at every earlier day that has not passed it.
    """
    from adloom.quality import gate
    from adloom.warehouse import dbt

    shop = load_shop(shop_id)
    if door == "creatives":
        return gate.check(shop, day, door)
    with _step(shop, day, f"check_{door}"):
        earlier = dbt.pending_days(shop, day) if door == "raw" else _unpassed_days(shop, day, door)
        for other in earlier:
            if other != day:
                gate.check(shop, other, door)
        return gate.check(shop, day, door)


def _unpassed_days(shop: Shop, day: date, door: str) -> list[date]:
    """known_dates before ``day`` that were never held against the door, or were refused by it; ascending."""
    landed, results = ledger.landing_days, ledger.quality_results
    with _reading(shop) as connection:
        known = connection.scalars(
            select(landed.c.known_date)
            .where(landed.c.known_date < day, landed.c.manifest_digest != "")
            .order_by(landed.c.known_date)
        ).all()
        of_door = select(results.c.day).where(results.c.door == door, results.c.day < day)
        judged = set(connection.scalars(of_door))
        refused = set(connection.scalars(of_door.where(~results.c.is_passed, results.c.severity == "fail")))
    return [one for one in known if one not in judged or one in refused]


def build(shop_id: str, day: date) -> Any:
    """Build the marts of every known_date up to ``day`` that are missing or older than their landing."""
    from adloom.warehouse import dbt

    shop = load_shop(shop_id)
    with _step(shop, day, "build"):
        return dbt.build(shop, day)


def evaluate(shop_id: str, day: date) -> None:
    """CTR, CR, maturity and verdicts as of ``day``."""
    from adloom import evaluation

    shop = load_shop(shop_id)
    with _step(shop, day, "evaluate"):
        _require_marts(shop, day)
        evaluation.evaluate(shop, day)


def adjust(shop_id: str, day: date) -> Any:
    """Tomorrow's shares, and what new copy is asked for, from the facts known by the end of ``day``."""
    from functools import partial

    from adloom import strategy
    from adloom.review.facts import carried

    shop = load_shop(shop_id)
    with _step(shop, day, "adjust"):
        _require_marts(shop, day)
        return strategy.adjust(shop, day, partial(carried, in_other_words=True))


@_in_turn(PUBLISHING)
def publish(shop_id: str, day: date) -> Path:
    """Hand the plan of ``day`` to the ad server's folder."""
    from adloom.publishing import plan

    shop = load_shop(shop_id)
    with _step(shop, day, "publish"):
        return plan.publish(shop, day)


def snapshot(shop_id: str, day: date) -> Path:
    """Publish Parquet copies for pages, report and ``adloom sql``."""
    from adloom.reporting import snapshots

    shop = load_shop(shop_id)
    with _step(shop, day, "snapshot"):
        return snapshots.publish(shop, day)


@_in_turn(PUBLISHING)
def report(shop_id: str, day: date) -> Path:
    """Write ``report.html`` from the published snapshot and close the day's run."""
    from adloom.reporting import report as page

    shop = load_shop(shop_id)
    with _step(shop, day, "report"):
        path = page.write(shop, day)
        _finish(shop, day)
    return path


def portraits(shop_id: str, day: date) -> Any:
    """Segments of at least k users, the words they are described with, and affinities, as of ``day``.

    No step of the daily run: what writes creatives asks for it, on the days it needs it.
    """
    from adloom.audience.making import make_portraits

    shop = load_shop(shop_id)
    _require_marts(shop, day)
    return make_portraits(shop, day)


# --- creatives: from portraits to checked copies ------------------------------------------------------------------
# None of these touches the day's row in `runs`: a copy that cannot be written is no reason to replay the day.


@_in_turn(CREATIVES)
def write_briefs(shop_id: str, day: date) -> Any:
    """Portraits as of ``day``, and the day's orders to write: within the budget, from facts alone."""
    from adloom import briefs

    portraits(shop_id, day)
    return briefs.write_briefs(load_shop(shop_id), day)


@_in_turn(CREATIVES)
def select_pairs(shop_id: str, day: date) -> Any:
    """What the copy model may learn from as of ``day``, and whether a training is worth it."""
    from adloom.copywriting import handover

    with _ledger(shop_id) as connection:
        return handover.order_training(connection, load_shop(shop_id), day)


def reason_to_skip_training(shop_id: str, day: date) -> str | None:
    """Why `select_pairs` found that no training is worth it; None: train."""
    from adloom.copywriting import handover

    return handover.training_order(load_shop(shop_id), day).reason_to_skip


def fine_tune(shop_id: str, day: date) -> str:
    """Train the copy model on what `select_pairs` wrote; files only, goes on where it was killed."""
    from adloom.copywriting import handover

    result = handover.train(load_shop(shop_id), day)
    if result is None:
        return f"no training: {reason_to_skip_training(shop_id, day)}"
    steps = [result.metrics[name] for name in ("loss_base", "loss_starter", "loss_tuned")]
    losses = "validation loss " + " → ".join(f"{loss:.3f}" for loss in steps if loss is not None)
    return f"model {result.model_id}: {losses}, {result.pairs} pairs, {result.metrics['steps']} steps"


@_in_turn(CREATIVES)
def record_model(shop_id: str, day: date) -> str:
    """Store the model that was trained on ``day``; it writes from now on if it is better."""
    from adloom.copywriting import recording

    with _ledger(shop_id) as connection:
        return recording.record_model(connection, load_shop(shop_id), day)


@_in_turn(CREATIVES)
def plan_copy(shop_id: str, day: date) -> list[str]:
    """Cut the day's briefs into shards, note which model writes them and whether it is audited; the shards' names."""
    from adloom.copywriting import counterfactual, handover

    shop = load_shop(shop_id)
    with _ledger(shop_id) as connection:
        writer = handover.choose_writer(connection, shop, day)
        counterfactual.order(connection, shop, day, writer.model_id)
    return handover.plan(shop, day)


def generate_copy(shop_id: str, day: date, shards: Sequence[str] | None = None) -> Any:
    """Write the copies of some shards of the day, or of all; files only, goes on where it was killed."""
    from adloom.copywriting import handover

    shop = load_shop(shop_id)
    return handover.generate(shop, day, handover.planned(shop, day) if shards is None else shards)


def reason_to_skip_audit(shop_id: str, day: date) -> str | None:
    """Why `plan_copy` found that the day's copy need not be audited; None: audit it."""
    from adloom.copywriting import counterfactual

    return counterfactual.reason_to_skip(load_shop(shop_id), day)


@_in_turn(AUDIT)
def write_audit(shop_id: str, day: date) -> str:
    """Write some of the day's briefs again for other genders and ages; files only, goes on where it was killed."""
    from adloom.copywriting import counterfactual

    if reason := reason_to_skip_audit(shop_id, day):
        return f"no audit: {reason}"
    counterfactual.write(load_shop(shop_id), day)
    return "written; `record-creatives` compares the two sides of every brief"


def audit_copy(shop_id: str, day: date) -> Any:
    """Write some of the day's briefs again for other genders and ages, and compare price, offer and tone.

    For whoever asks, whatever the shop's file says; after `generate_copy`. It takes as long as some hundred copies.
    """
    from adloom.copywriting import counterfactual

    shop = load_shop(shop_id)
    with turn(shop, AUDIT.format(day=day)):
        counterfactual.write(shop, day)
    # The order comes last: an audit that is killed before leaves the day as it was. It is written before the rows are
    # committed, since `record_creatives` replaces the day's findings and takes those of an ordered audit in again.
    with turn(shop, CREATIVES.format(day=day)), _ledger(shop_id) as connection:
        found = counterfactual.record(connection, shop, day)
        counterfactual.order(connection, shop, day, "", asked=True)
        return found


@_in_turn(CREATIVES)
def record_creatives(shop_id: str, day: date) -> Any:
    """Store the day's copies, what the reviews found in them and in the candidates they stopped, and the audit."""
    from adloom.copywriting import counterfactual, handover, recording

    shop = load_shop(shop_id)
    rows = handover.generated(shop, day, handover.planned(shop, day))
    with _ledger(shop_id) as connection:
        recorded = recording.record_creatives(connection, day, rows, shop)
        # Last, because what it finds hangs on the creatives and replaces nothing but its own.
        if counterfactual.reason_to_skip(shop, day) is None:
            audited = counterfactual.record(connection, shop, day)
            log.log(logging.WARNING if audited.not_compared else logging.INFO, "%s, %s: %s", shop.id, day, audited)
        return recorded


@_in_turn(CREATIVES)
def plan_images(shop_id: str, day: date) -> list[str]:
    """Order the banners of the day's copies that no review blocks, in shards; the shards' names."""
    from adloom.imagery import handover

    with _ledger(shop_id) as connection:
        return handover.plan_images(connection, load_shop(shop_id), day)


@_in_turn(CREATIVES)
def select_images(shop_id: str, day: date) -> Any:
    """Which catalogue pictures a generator may learn from as of ``day``: those that the day's portraits choose."""
    from adloom.imagery import selection

    with _ledger(shop_id) as connection:
        return selection.order_training(connection, load_shop(shop_id), day)


def train_images(shop_id: str, day: date, told: Callable[[Any], None] | None = None, **chosen: Any) -> Any:
    """Train a generator on what `select_images` wrote; files only, goes on where it was killed.

    ``chosen``: fields of `GanSettings`; ``told`` is called with a `Progress` now and then.
    """
    from adloom.imagery import selection, training
    from adloom.settings import settings

    shop = load_shop(shop_id)
    images = selection.ordered_training(shop, day)
    how = training.GanSettings(**chosen)
    return training.train_for_shop(images, shop, day, how, device=settings().device, progress=told)


def train_images_of_folder(folder: Path, out: Path, told: Callable[[Any], None] | None = None, **chosen: Any) -> Any:
    """Train a generator on a folder of class folders; results go to ``out``."""
    from adloom.imagery import training
    from adloom.settings import settings

    how = training.GanSettings(**chosen)
    images = training.class_folders(folder)
    return training.train_images(images, folder, how, out, device=settings().device, progress=told)


@_in_turn(PICTURES)
def generate_images(shop_id: str, day: date) -> Any:
    """Draw the pictures that are ordered from a generator, if any; files only, goes on where it was killed."""
    from adloom.imagery import generating

    return generating.generate_images(load_shop(shop_id), day)


def compose(shop_id: str, day: date, shards: Sequence[str] | None = None) -> Any:
    """Make the banners and videos of some shards of the day, or of all; files only, goes on where it was killed."""
    from adloom.imagery import generating, handover
    from adloom.publishing import labels

    shop = load_shop(shop_id)
    names = handover.planned(shop, day) if shards is None else shards

    def label(path: Path, creative_id: str, source: str) -> str:
        return labels.label_file(path, labels.label_of(shop, creative_id, source)).json()

    if names:
        labels.label_of(shop, "", shop.imagery.source)  # a shop that cannot label anything is told so once
    return generating.compose(shop, day, names, label)


@_in_turn(CREATIVES)
def record_images(shop_id: str, day: date) -> Any:
    """Store the day's finished images, and what is wrong with them."""
    from adloom.imagery import generating, handover, recording
    from adloom.review import similarity

    shop = load_shop(shop_id)
    rows = generating.made(shop, day, handover.planned(shop, day))
    with _ledger(shop_id) as connection:
        recorded = recording.record_images(connection, day, rows)
        similarity.review_images(connection, shop, day)
        return recorded


@_in_turn(CREATIVES)
def settle_approvals(shop_id: str, day: date) -> Path | None:
    """Decide what nobody need be asked about; what is left is written to the returned file. None: nothing waits."""
    from adloom.publishing import approving

    shop = load_shop(shop_id)
    with _ledger(shop_id) as connection:
        settled = approving.settle(connection, shop, day)
        found = approving.waiting(connection, day)
    log.info("%s, %s: %s", shop.id, day, settled)
    return approving.write_asked(shop, approving.ask(shop, day, found)) if found else None


def record_decision(shop_id: str, day: date, asked: Path, answer: Answer) -> str:
    """Store what a person answered to what `settle_approvals` asked, or that nobody did; what came of it, in words."""
    from adloom.publishing import approving
    from adloom.strategy import approvals

    shown = approving.read_asked(asked).hashes
    if unknown := sorted(set(answer.dropped) - set(shown)):
        raise AdloomError(
            f"the answer drops what was not shown: {', '.join(unknown)}",
            f"name creatives by their ids: `adloom review --shop {shop_id} --day {day}` shows them",
        )
    approve = set(shown) - set(answer.dropped) if answer.is_approval else set()
    origin = approvals.TIMEOUT if answer.by is None else approvals.PERSON
    with _ledger(shop_id) as connection:
        said = approving.decide(
            connection, day, shown, approve, answer.by or "nobody", answer.reason, answer.at, origin=origin
        )
        approving.settle(connection, load_shop(shop_id), day)  # the same content under other ids
    return str(said)


def waiting(shop_id: str, day: date) -> list[Any]:
    """The creatives of ``day`` that wait for a person, those with a finding first (`approving.Waiting`)."""
    from adloom.publishing import approving

    with _ledger(shop_id) as connection:
        approving.settle(connection, load_shop(shop_id), day)
        return approving.waiting(connection, day)


def settled(shop_id: str, day: date) -> Any:
    """How the day's creatives stand: approved, rejected, blocked, waiting (`approving.Settled`)."""
    from adloom.publishing import approving

    with _reading(load_shop(shop_id)) as connection:
        return approving.standing(connection, day)


def decide(shop_id: str, day: date, creatives: Sequence[str] | None, *, is_approval: bool, by: str, reason: str) -> str:
    """Approve or reject creatives of ours, or all that wait (None), from ``day`` on, and publish the plan accordingly.

    The plan that is made anew is that of ``day``, or of the last day that has one, if that is later.
    """
    from adloom.publishing import approving
    from adloom.strategy.approvals import contents

    if creatives is None:
        shown = {one.creative_id: one.content_hash for one in waiting(shop_id, day)}
    else:
        with _ledger(shop_id) as connection:
            known = contents(connection)
        unknown = sorted(set(creatives) - set(known))
        if unknown:
            raise UsageError(
                f"{shop_id} has written no creative {', '.join(unknown)}",
                f"`adloom review --shop {shop_id} --day {day}` shows what waits",
            )
        shown = {one: known[one].content_hash for one in creatives}
    if not shown:
        return f"nothing of {day} waits"
    with _ledger(shop_id) as connection:
        approve = set(shown) if is_approval else set()
        said = approving.decide(connection, day, shown, approve, by, reason, datetime.now(UTC).replace(tzinfo=None))
        if said.void and not said.approved and not said.rejected:
            raise AdloomError(str(said), f"see `adloom review --shop {shop_id} --day {day}`")
        approving.settle(connection, load_shop(shop_id), day)  # the same content under other ids
        last = connection.execute(select(func.max(ledger.plans.c.day))).scalar()
    published = publish_approved(shop_id, day if last is None else max(day, last))
    return f"{said}\nplan: {published}"


@_in_turn(PUBLISHING)
def publish_approved(shop_id: str, day: date) -> Path:
    """Make the next version of the plan of ``day``, with what was made and approved since, and publish it."""
    from adloom import strategy
    from adloom.publishing import plan
    from adloom.strategy.plan import CREATIVES_PRODUCER

    shop = load_shop(shop_id)
    _require_marts(shop, day)
    log.info("%s", strategy.plan_with_new_creatives(shop, day))
    return plan.publish(shop, day, CREATIVES_PRODUCER)


def dossiers(shop_id: str, day: date, creatives: Sequence[str] | None = None) -> list[Any]:
    """Write the dossiers of some creatives as of ``day``, or of all of ours that its plans show (`dossier.Written`)."""
    from adloom.publishing import dossier

    shop = load_shop(shop_id)
    with _ledger(shop_id) as connection:
        wanted = dossier.planned(connection, day) if creatives is None else creatives
        return [dossier.write(connection, shop, one, day) for one in wanted]


def last_day(shop_id: str) -> date:
    """The newest day that was run."""
    with _ledger(shop_id) as connection:
        found: date | None = connection.execute(select(func.max(ledger.runs.c.day))).scalar()
    if found is None:
        raise AdloomError(f"no day of {shop_id} was run yet", f"`adloom run --shop {shop_id} --day D`")
    return found


def export_unlabelled(
    shop_id: str, creative_id: str, format_name: str, target: Path, *, by: str, reason: str, day: date
) -> Path:
    """Hand out a copy, banner or video without its visible AI label, after writing down who, why and when."""
    from adloom.publishing import unlabelled

    shop = load_shop(shop_id)
    with _reading(shop) as connection:
        export = unlabelled.prepare(connection, shop, creative_id, format_name, target, by=by, reason=reason, day=day)
    with _ledger(shop_id) as connection:
        unlabelled.record(connection, export, datetime.now(UTC).replace(tzinfo=None))
    return unlabelled.hand_out(export)


@_in_turn(PUBLISHING)
def publish_creatives(shop_id: str, day: date) -> Path:
    """Write the dossiers of what the plans show, publish the snapshot again and write the day's report."""
    from adloom.reporting import report as page
    from adloom.reporting import snapshots

    shop = load_shop(shop_id)
    dossiers(shop_id, day)
    snapshots.publish(shop, day)
    return page.write(shop, day)


def create(shop_id: str, day: date, on_step: Callable[[str], None] = lambda name: None) -> Path:
    """From portraits to checked copies in the report; ``on_step`` hears the name of each step before it begins."""
    report_path: Path | None = None
    for name, step in CREATE_STEPS.items():
        if name in {"fine_tune", "record_model"} and reason_to_skip_training(shop_id, day):
            continue
        if name == "write_audit" and reason_to_skip_audit(shop_id, day):
            continue
        on_step(name)
        try:
            report_path = step(shop_id, day)
        except Exception as error:
            if name != "write_audit":
                raise
            # The day keeps its copies; record_creatives says of them that they were not audited.
            log.warning("%s, %s: the audit failed: %s", shop_id, day, error)
    assert isinstance(report_path, Path)  # noqa: S101 - for the type checker: the last step writes the report
    return report_path


# --- privacy: what people ask of their data, and how long any of it is kept ---------------------------------------
# A request is closed by the last of these steps only, so a run that was killed anywhere is finished by the next.


def read_requests(shop_id: str, day: date) -> str:
    """Enter the privacy requests that landed by ``day``, and flag the models that learnt from who is to be erased."""
    from adloom.copywriting import registry as copy_models
    from adloom.privacy import erasing, registry
    from adloom.warehouse import loading

    shop = load_shop(shop_id)
    loading.ingest(shop, day)
    with _ledger(shop_id) as connection:
        registry.reopen(connection)
        registry.register(connection, day)
        found = registry.open_requests(connection)
        erasing.note_impressions(connection, found)
        copy_models.flag_retrain(connection, registry.learnt_for(connection, found, day))
    kinds = Counter(one.kind for one in found)
    return ", ".join(f"{count} × {kind}" for kind, count in sorted(kinds.items())) or "no open requests"


def erase_from_files(shop_id: str, day: date) -> Any:
    """Rewrite the landing files that hold users to be erased, and make raw from them again."""
    from adloom.privacy import erasing, registry
    from adloom.warehouse import loading

    shop = load_shop(shop_id)
    with _ledger(shop_id) as connection:
        found = registry.open_requests(connection)
        impressions = erasing.pending_impressions(connection)
    erased = erasing.clean_files(shop, found, impressions)
    loading.ingest(shop, day)
    return erased


def rebuild(shop_id: str, day: date) -> Any:
    """Take the erased out of what no file makes again; then marts and portraits of every day that changed."""
    from adloom.audience.making import make_portraits
    from adloom.privacy import erasing, registry
    from adloom.warehouse import dbt

    shop = load_shop(shop_id)
    # Not while a plan is being published: it may have read the audience before and would write it after.
    with turn(shop, PUBLISHING), _ledger(shop_id) as connection:
        erasing.sweep(shop, connection, registry.open_requests(connection))
    report = dbt.build(shop, day)
    with _ledger(shop_id) as connection:
        last = connection.execute(
            select(func.max(ledger.portrait_days.c.day)).where(ledger.portrait_days.c.day <= day)
        ).scalar()
    if last is not None:
        make_portraits(shop, last)
    with _ledger(shop_id) as connection:
        erasing.forget_impressions(connection)
    return report


def replay(shop_id: str, day: date, on_step: Callable[[str], None] = lambda name: None) -> list[date]:
    """After an erasure, run every day up to ``day`` again whose landing is no longer what it was; returns those days.

    A day that was red before the erasure may stay red: it must not keep the request from being closed.
    """
    from adloom.privacy import registry

    with _ledger(shop_id) as connection:
        if not any(one.kind == registry.ERASE for one in registry.open_requests(connection)):
            return []
    purged = _purged(shop_id)
    days = [one for one in stale_days(shop_id) if one <= day and one not in purged]
    runs = ledger.runs
    with _ledger(shop_id) as connection:
        was_done = set(connection.scalars(select(runs.c.day).where(runs.c.status == "stale")))
    for number, one in enumerate(days, start=1):
        log.info("%s: replaying %s, %d of %d", shop_id, one, number, len(days))
        try:
            run_day(shop_id, one, on_step)
        except AdloomError as error:
            if one in was_done:
                raise
            log.warning("%s: %s was not done before and is not now: %s", shop_id, one, error)
    return days


def close_requests(shop_id: str, day: date) -> str:
    """Write the database file anew after an erasure, and a receipt for every request."""
    from adloom.privacy import erasing, registry

    shop = load_shop(shop_id)
    with _ledger(shop_id) as connection:
        found = registry.open_requests(connection)
    if any(one.kind == registry.ERASE for one in found):
        erasing.compact(shop)
    with _ledger(shop_id) as connection:
        registry.close(connection, found, day)
    return f"{len(found)} requests closed"


def apply_retention(shop_id: str, day: date) -> Any:
    """Delete what is older than the shop keeps it: raw, landing, rows that describe users."""
    from adloom.privacy import retention
    from adloom.warehouse import dbt

    shop = load_shop(shop_id)
    pending = frozenset(dbt.pending_days(shop, day))
    with _ledger(shop_id) as connection:
        purged = retention.purge(shop, connection, day, pending)
    with _ledger(shop_id) as connection:
        retention.remove_folders(shop, connection)
    return purged


PRIVACY_STEPS: dict[str, Step] = {
    "read_requests": read_requests,
    "erase_from_files": erase_from_files,
    "rebuild": rebuild,
    "replay": replay,
    "close_requests": close_requests,
    "apply_retention": apply_retention,
}


def privacy(shop_id: str, day: date, on_step: Callable[[str], None] = lambda name: None) -> dict[str, Any]:
    """Erasures, opt-outs and retention as of ``day``; step → what it says. ``on_step`` hears each name first."""
    told = {}
    for name, step in PRIVACY_STEPS.items():
        on_step(name)
        told[name] = step(shop_id, day)
    return told


def _purged(shop_id: str) -> frozenset[date]:
    days = ledger.landing_days
    with _ledger(shop_id) as connection:
        return frozenset(connection.scalars(select(days.c.known_date).where(days.c.purged_on.is_not(None))))


@dataclass(frozen=True)
class CopyRow:
    """A finished copy, as a terminal shows it."""

    scenario: str
    language: str
    channel: str
    item_id: str
    headline: str
    body: str
    call_to_action: str
    hashtags: tuple[str, ...]
    blocked: bool
    """a review found something that must not be shown"""


def copies(shop_id: str, day: date) -> list[CopyRow]:
    """The day's written copies, by scenario and language."""
    creatives, reviews = ledger.creatives, ledger.reviews
    with _reading(load_shop(shop_id)) as connection:
        blocking = select(reviews.c.creative_id).where(reviews.c.day == day, reviews.c.severity == "block")
        blocked = set(connection.scalars(blocking))
        rows = connection.execute(
            select(creatives)
            .where(creatives.c.day == day, creatives.c.headline.is_not(None))
            .order_by(creatives.c.scenario, creatives.c.language.desc(), creatives.c.channel, creatives.c.creative_id)
        ).all()
    return [
        CopyRow(
            row.scenario,
            row.language,
            row.channel,
            row.item_id,
            row.headline,
            row.body,
            row.call_to_action,
            tuple(json.loads(row.hashtags or "[]")),
            row.creative_id in blocked,
        )
        for row in rows
    ]


def copies_table(shop_id: str, day: date, most: int = 40) -> str:
    """`copies` as text for a terminal, one line each, every scenario and language among the first."""
    from tabulate import tabulate

    found = copies(shop_id, day)
    turns: dict[tuple[str, str], int] = {}
    ordered = []
    for row in found:
        turn = turns.setdefault((row.scenario, row.language), 0)
        turns[row.scenario, row.language] = turn + 1
        ordered.append((turn, row))
    shown = [row for _, row in sorted(ordered, key=lambda one: one[0])[:most]]
    shown.sort(key=lambda row: (row.scenario, row.language != "zh"))
    lines = [
        (row.scenario, row.language, row.channel, f"{row.headline} / {row.body}"[:90], row.call_to_action)
        for row in shown
    ]
    table = tabulate(
        lines, headers=("scenario", "language", "channel", "copy", "call to action"), disable_numparse=True
    )
    left_out = len(found) - len(shown)
    return f"{table}\n… and {left_out} more" if left_out else table


def blocked_table(shop_id: str, day: date, most: int = 12) -> str:
    """What the review stopped, and why, as text for a terminal: creatives it blocks, candidates it left unchosen."""
    from tabulate import tabulate

    with _reading(load_shop(shop_id)) as connection:
        blocked, stopped = _blocked_creatives(connection, day), _stopped_candidates(connection, day)
        of_day = and_(ledger.creatives.c.day == day, ledger.creatives.c.variant == 0)
        drawn = connection.scalar(select(func.sum(ledger.creatives.c.candidates)).where(of_day)) or 0
    candidates = sum(row.candidates for row in stopped)
    told = [
        f"creatives blocked by a review: {len(blocked)}",
        f"candidates that broke a rule and were not chosen: {candidates} of {drawn}",
    ]
    rows = [("creative", row.headline, row.rule_id, row.span, row.reason) for row in blocked]
    for row in stopped:
        example = (row.headline or "–", row.rule_id, row.span or "", row.reason or "no text is kept")
        rows.append((f"{row.candidates} × candidate", *example))
    if not rows:
        return "\n".join(told)
    shown = [(what, text[:24], rule, words[:20], why[:70]) for what, text, rule, words, why in rows[:most]]
    table = tabulate(shown, headers=("stopped", "for example", "rule", "words", "why"), disable_numparse=True)
    more = [f"… and {len(rows) - most} more: adloom.reviews, adloom.stopped_counts"] if len(rows) > most else []
    return "\n".join([table, *more, *told])


def _blocked_creatives(connection: Connection, day: date) -> list[Row[Any]]:
    """The day's blocked creatives, each with the first of its blocking findings."""
    creatives, reviews = ledger.creatives, ledger.reviews
    said = (
        select(creatives.c.creative_id, creatives.c.headline, reviews.c.rule_id, reviews.c.span, reviews.c.reason)
        .join(reviews, reviews.c.creative_id == creatives.c.creative_id)
        .where(creatives.c.day == day, reviews.c.severity == "block")
        .order_by(creatives.c.creative_id, reviews.c.rule_id, reviews.c.span)
    )
    found = {row.creative_id: row for row in reversed(connection.execute(said).all())}
    return list(reversed(found.values()))


def _stopped_candidates(connection: Connection, day: date) -> list[Row[Any]]:
    """Per rule that kept candidates of the day from being chosen, how many, and what it found in one that is kept."""
    counts, kept = ledger.stopped_counts.c, ledger.stopped_copies.c
    candidates = func.sum(counts.candidates)
    total = (
        select(counts.rule_id, candidates.label("candidates"))
        .where(counts.day == day)
        .group_by(counts.rule_id)
        .subquery("total")
    )
    place = func.row_number().over(
        partition_by=kept.rule_id, order_by=(kept.brief_id, kept.position, kept.part, kept.span)
    )
    example = (
        select(kept.rule_id, kept.headline, kept.span, kept.reason, place.label("place"))
        .where(kept.day == day, kept.severity == "block", kept.rule_id == kept.stopped_by)
        .subquery("example")
    )
    query = (
        select(total, example.c.headline, example.c.span, example.c.reason)
        .outerjoin(example, and_(example.c.rule_id == total.c.rule_id, example.c.place == 1))
        .order_by(total.c.candidates.desc(), total.c.rule_id)
    )
    return list(connection.execute(query).all())


CREATE_STEPS: dict[str, Step] = {
    "write_briefs": write_briefs,
    "select_pairs": select_pairs,
    "fine_tune": fine_tune,
    "record_model": record_model,
    "plan_copy": plan_copy,
    "generate_copy": generate_copy,
    "write_audit": write_audit,
    "record_creatives": record_creatives,
    "plan_images": plan_images,
    "generate_images": generate_images,
    "compose": compose,
    "record_images": record_images,
    "check_creatives": lambda shop_id, day: check(shop_id, day, "creatives"),
    "settle_approvals": settle_approvals,
    "publish_plan": publish_approved,
    "report": publish_creatives,
}

STEPS: dict[str, Step] = {
    "ingest": ingest,
    "check_raw": lambda shop_id, day: check(shop_id, day, "raw"),
    "build": build,
    "check_marts": lambda shop_id, day: check(shop_id, day, "marts"),
    "evaluate": evaluate,
    "adjust": adjust,
    "publish": publish,
    "snapshot": snapshot,
    "report": report,
}


def simulate(shop_id: str, day: date) -> Any:
    """Write one day of a simulated shop into its landing folder: what a shop's own systems would deliver.

    A driver's step, in no DAG: a run never makes its own input.
    """
    from adloom.simulation import sample_shop

    return sample_shop.write_day(load_shop(shop_id), day)


def run_day(shop_id: str, day: date, on_step: Callable[[str], None] = lambda name: None) -> None:
    """The whole day; ``on_step`` hears the name of each step before it begins."""
    for name, step in STEPS.items():
        on_step(name)
        step(shop_id, day)


def stale_days(shop_id: str) -> list[date]:
    """Days whose results are not what landing says now, ascending; replay them in this order.

    Looks at the landing folders first, so a folder filled, delivered again or taken away since is noticed. A day
    whose last run failed or was cut off belongs to them.
    """
    from adloom.warehouse import loading

    shop = load_shop(shop_id)
    runs = ledger.runs
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
        with engine.connect() as connection:
            last = connection.execute(select(func.max(runs.c.day))).scalar()
    if last is None:
        return []
    loading.ingest(shop, last)
    with warehouse(shop) as engine, engine.begin() as connection:
        mark_stale(connection)
        return list(connection.scalars(select(runs.c.day).where(runs.c.status != "done").order_by(runs.c.day)))


def is_newest(shop_id: str, day: date) -> bool:
    """Is ``day`` the greatest known_date among the landing folders? Only then are new creatives made."""
    from adloom.warehouse import loading

    newest = loading.newest_day(load_shop(shop_id))
    return newest is not None and day >= newest


def quality_summary(shop_id: str, day: date) -> dict[str, int]:
    """Checks of the day over all doors: how many passed, warned and failed."""
    results = ledger.quality_results
    query = (
        select(results.c.is_passed, results.c.severity, func.count())
        .where(results.c.day == day)
        .group_by(results.c.is_passed, results.c.severity)
    )
    summary = {"passed": 0, "warned": 0, "failed": 0}
    with _reading(load_shop(shop_id)) as connection:
        for is_passed, severity, count in connection.execute(query):
            summary["passed" if is_passed else "warned" if severity == "warn" else "failed"] += count
    return summary


@dataclass(frozen=True)
class PolicyRow:
    """One line of the summary a run ends with: campaign × policy over the last 7 days."""

    campaign_id: str
    policy_id: str
    impressions: int
    clicks: int
    ctr: float | None
    ctr_low: float | None
    ctr_high: float | None
    verdict: str


def summary(shop_id: str, day: date, window_days: int = 7) -> list[PolicyRow]:
    """Campaign × policy as of ``day``: counts, CTR with its interval, and the verdict of its comparison."""
    rates, verdicts = ledger.evaluations, ledger.verdicts
    with _reading(load_shop(shop_id)) as connection:
        said = {
            (row.campaign_id, arm): _verdict_words(row)
            for row in connection.execute(select(verdicts).where(verdicts.c.day == day))
            for arm in (row.arm_a, row.arm_b)
        }
        rows = connection.execute(
            select(rates)
            .where(rates.c.day == day, rates.c.grain == "policy", rates.c.window_days == window_days)
            .order_by(rates.c.campaign_id, rates.c.policy_id.desc())
        ).all()
    return [
        PolicyRow(
            row.campaign_id,
            row.policy_id,
            row.impressions,
            row.clicks,
            row.ctr,
            row.ctr_low,
            row.ctr_high,
            said.get((row.campaign_id, row.policy_id), said.get((None, row.policy_id), "")),
        )
        for row in rows
    ]


def _verdict_words(row: Row[Any]) -> str:
    """``winner: bts``, ``no difference``, ``needs about 58,000 more``, ``split broken``."""
    if row.winner is not None:
        return f"winner: {row.winner}"
    if row.verdict == "needs_more" and row.needed_more is not None:
        return f"needs about {row.needed_more:,} more"
    return str(row.verdict).replace("_", " ")


def summary_table(shop_id: str, day: date) -> str:
    """`summary` as text for a terminal or a log."""
    from tabulate import tabulate

    def percent(value: float | None) -> str:
        return "not enough data" if value is None else f"{value:.3%}"

    lines = [
        (
            row.campaign_id,
            row.policy_id,
            f"{row.impressions:,}",
            f"{row.clicks:,}",
            percent(row.ctr),
            f"{percent(row.ctr_low)} … {percent(row.ctr_high)}",
            row.verdict,
        )
        for row in summary(shop_id, day)
    ]
    interval = f"{load_shop(shop_id).evaluation.confidence:.0%} interval"
    headers = ("campaign", "policy", "impressions", "clicks", "CTR", interval, "verdict")
    return tabulate(lines, headers=headers, stralign="right", disable_numparse=True)


def run_history(shop_id: str) -> list[Row[Any]]:
    """Rows of ``adloom.runs``, ascending by day."""
    shop = load_shop(shop_id)
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
    with _reading(shop) as connection:
        return list(connection.execute(select(ledger.runs).order_by(ledger.runs.c.day)))


@dataclass(frozen=True)
class ModelRow:
    """A trained copy model, as a person lists it."""

    model_id: str
    trained_on: date
    base: str
    method: str
    pairs: int
    loss_base: float
    loss_tuned: float
    state: str
    """live | candidate | promoted DAY | rolled back DAY: why; with the day by which it must be retrained, if any"""
    licence: str


def models(shop_id: str, day: date | None = None) -> list[ModelRow]:
    """The copy models that were trained, newest first; ``day``: the day whose live model is meant (default: last)."""
    from adloom.copywriting import registry

    with _ledger(shop_id) as connection:
        rows = registry.all_models(connection)
        live = registry.live_model(connection, day or date.max)
    found = []
    for row in rows:
        metrics = json.loads(row.metrics)
        figures = float(metrics["loss_base"]), float(metrics["loss_tuned"])
        state = registry.state_words(row, live)
        found.append(ModelRow(row.model_id, row.day, row.base, row.method, row.pairs, *figures, state, row.licence))
    return found


def promote_model(shop_id: str, model_id: str, day: date, by: str) -> str:
    """Let a trained model write from ``day`` on."""
    from adloom.copywriting import registry

    with _ledger(shop_id) as connection:
        registry.promote(connection, model_id, day, by)
    return f"model {model_id} writes from {day} on"


def roll_back_model(shop_id: str, day: date, reason: str) -> str:
    """Take the model that is live on ``day`` out of use: the one before it writes again, or the base."""
    from adloom.copywriting import registry

    with _ledger(shop_id) as connection:
        withdrawn, now = registry.roll_back(connection, day, reason)
    return f"model {withdrawn} is out of use from {day} on; " + ("the base writes" if now is None else f"{now} writes")


@contextmanager
def _ledger(shop_id: str) -> Iterator[Connection]:
    """The ledger's tables, made if need be, in one transaction."""
    with warehouse(load_shop(shop_id)) as engine:
        ledger.create_ledger(engine)
        with engine.begin() as connection:
            yield connection


def query(shop_id: str, statement: str, live: bool = False) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Column names and rows of a read-only statement on the published snapshot, or on the warehouse itself."""
    from adloom.reporting import snapshots

    shop = load_shop(shop_id)
    try:
        opened = warehouse(shop, read_only=True) if live else snapshots.open_snapshot(shop)
        with opened as engine, engine.connect() as connection:
            result = connection.exec_driver_sql(statement)
            return tuple(result.keys()), [tuple(row) for row in result]
    except (DBAPIError, ResourceClosedError) as error:
        reason = str(getattr(error, "orig", None) or error)
        raise UsageError(f"the query failed: {reason}", "tables are listed by `show all tables`") from error


def input_digests(connection: Connection, days: Sequence[date]) -> dict[date, str]:
    """Day → digest of every landing manifest up to it: what a run for that day may know."""
    landed = ledger.landing_days
    manifests = connection.execute(
        select(landed.c.known_date, landed.c.manifest_digest)
        # A folder that is gone leaves an empty manifest until its marts are emptied: the same as no folder.
        .where(landed.c.manifest_digest != "")
        .order_by(landed.c.known_date)
    ).all()
    digest, position, found = hashlib.sha256(), 0, {}
    for day in sorted(days):
        while position < len(manifests) and manifests[position].known_date <= day:
            digest.update(f"{manifests[position].known_date} {manifests[position].manifest_digest}\n".encode())
            position += 1
        found[day] = digest.copy().hexdigest()
    return found


def mark_stale(connection: Connection) -> None:
    """Set ``runs.status`` of every finished day whose landing has changed since to ``stale``."""
    runs = ledger.runs
    finished = {
        row.day: row.input_digest
        for row in connection.execute(select(runs.c.day, runs.c.input_digest).where(runs.c.status == "done"))
    }
    now = input_digests(connection, list(finished))
    stale = [day for day, digest in finished.items() if digest != now[day]]
    if stale:
        connection.execute(
            update(runs)
            .where(runs.c.day.in_(stale))
            .values(status="stale", message="landing changed after this run; replay it with `adloom run --stale`")
        )


@contextmanager
def _reading(shop: Shop) -> Iterator[Connection]:
    with warehouse(shop) as engine, engine.connect() as connection:
        yield connection


@contextmanager
def _step(shop: Shop, day: date, name: str) -> Iterator[None]:
    """Write down that a step began and, if it fails, why. The step's own tables are its own transaction."""
    _record(shop, day, name, status="running")
    try:
        yield
    except Exception as error:
        _record(shop, day, name, status="failed", message=str(error))
        raise


def _record(shop: Shop, day: date, name: str, status: str, message: str | None = None) -> None:
    runs = ledger.runs
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
        with engine.begin() as connection:
            before = connection.execute(select(runs).where(runs.c.day == day)).mappings().one_or_none()
            fresh = before is None or name == "ingest"
            started = datetime.now(UTC).replace(tzinfo=None)
            row = {
                "day": day,
                "status": status,
                "step": name,
                "message": message,
                "input_digest": None if before is None else before["input_digest"],
                "config_digest": hashlib.sha256(shop.model_dump_json().encode()).hexdigest(),
                "code_version": adloom.__version__,
                "started_at": started if fresh or before is None else before["started_at"],
                "finished_at": None,
            }
            ledger.replace_rows(connection, runs, {"day": day}, [row])


def _finish(shop: Shop, day: date) -> None:
    runs = ledger.runs
    with warehouse(shop) as engine, engine.begin() as connection:
        connection.execute(
            update(runs)
            .where(runs.c.day == day)
            .values(status="done", finished_at=datetime.now(UTC).replace(tzinfo=None))
        )
        # A folder that changed while the day ran is found here, not silently kept.
        mark_stale(connection)


def _require_marts(shop: Shop, day: date) -> None:
    """Evaluation and strategy read marts that hold exactly the landing up to the day, or they do not start."""
    from adloom.warehouse import dbt

    pending = dbt.pending_days(shop, day)
    if pending:
        listed = ", ".join(str(one) for one in pending[:5]) + (" …" if len(pending) > 5 else "")
        raise AdloomError(
            f"the marts of {listed} are older than their landing",
            f"run `adloom build --shop {shop.id} --day {day}` first",
        )
