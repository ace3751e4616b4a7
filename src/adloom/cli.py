"""Every step of a day as a command. Exit codes: 0 done, 1 a gate or step failed, 2 wrong use."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from adloom import pipeline
from adloom.errors import AdloomError, UsageError
from adloom.shop import load_shop, shop_ids
from adloom.window import days_between, parse_day

app = typer.Typer(
    name="adloom", help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
console = Console()
errors = Console(stderr=True)

ShopId = Annotated[str, typer.Option("--shop", "-s", help="id of the shop, the name of its file in shops/")]
DayText = Annotated[str, typer.Option("--day", "-d", help="the shop's local day, YYYY-MM-DD")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on standard output, for machines")]


class _Failing(typer.core.TyperGroup):
    """Turns an `AdloomError` of any command into one line on standard error and the exit code it stands for."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except AdloomError as error:
            errors.print(f"[bold red]✗[/] {escape(error.message)}", soft_wrap=True)
            if error.next_step:
                errors.print(f"  next: {escape(error.next_step)}", soft_wrap=True)
            raise typer.Exit(2 if isinstance(error, UsageError) else 1) from error


app.info.cls = _Failing


@app.callback()
def _set_up(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="show the steps' own log")] = False) -> None:
    if sys.stderr.isatty():
        handler: logging.Handler = RichHandler(console=errors, show_path=False, markup=False)
        line = "%(message)s"
    else:
        handler = logging.StreamHandler()
        line = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format=line)
    if os.environ.pop("ADLOOM_END_WITH_PARENT", None):
        _end_with_parent()
    logging.getLogger("adloom").setLevel(logging.INFO if verbose or not sys.stderr.isatty() else logging.WARNING)


def _end_with_parent() -> None:
    """End this process and what it started when standard input is closed: whoever started it is gone."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _show(result: Any, as_json: bool) -> None:
    """A step's result: JSON for machines, else its own words."""
    if is_dataclass(result) and not isinstance(result, type):
        if as_json:
            console.print_json(json.dumps(asdict(result), default=str))
        else:
            console.print(str(result), markup=False, soft_wrap=True)
    elif isinstance(result, Path):
        console.print_json(json.dumps({"path": str(result)})) if as_json else console.print(
            str(result), markup=False, soft_wrap=True
        )
    elif isinstance(result, (str, list)):
        shown = result if isinstance(result, str) else " ".join(map(str, result))
        console.print_json(json.dumps({"result": result})) if as_json else console.print(
            shown, markup=False, highlight=False, soft_wrap=True
        )
    elif as_json:
        console.print_json(json.dumps({"status": "done"}))


@app.command()
def run(  # noqa: PLR0917 - typer reads the options off the signature
    shop: ShopId,
    day: Annotated[str | None, typer.Option("--day", "-d", help="one day, YYYY-MM-DD")] = None,
    first: Annotated[str | None, typer.Option("--from", help="first day of a range")] = None,
    last: Annotated[str | None, typer.Option("--to", help="last day of a range")] = None,
    stale: Annotated[bool, typer.Option("--stale", help="replay the days whose landing has changed since")] = False,
    as_json: AsJson = False,
) -> None:
    """The whole day, or every day of a range, without Airflow."""
    chosen = [day is not None, first is not None or last is not None, stale]
    if sum(chosen) != 1 or (first is None) != (last is None):
        raise UsageError("which days?", "give --day D, or --from A --to B, or --stale")
    if stale:
        days = pipeline.stale_days(shop)
    elif day is not None:
        days = [parse_day(day)]
    else:
        days = list(days_between(parse_day(str(first)), parse_day(str(last))))
    load_shop(shop)
    with _progress() as progress:
        bar = progress.add_task(shop, total=len(days) * len(pipeline.STEPS))
        for one in days:

            def told(name: str, one: date = one) -> None:
                progress.update(bar, description=f"{shop} {one} {name}", advance=1)
                if not errors.is_terminal:
                    errors.print(f"{shop} {one} {name}", markup=False, highlight=False)

            pipeline.run_day(shop, one, told)
    if as_json:
        rows = [asdict(row) for row in pipeline.summary(shop, days[-1])] if days else []
        console.print_json(json.dumps({"shop": shop, "days": [str(one) for one in days], "summary": rows}))
    elif days:
        console.print(pipeline.summary_table(shop, days[-1]), markup=False, highlight=False, soft_wrap=True)
        console.print(f"report: {load_shop(shop).published / 'report.html'}", markup=False, soft_wrap=True)
    else:
        console.print("nothing to replay: no finished day is stale")


def _step_command(name: str, step: Callable[[str, date], Any]) -> None:
    def command(shop: ShopId, day: DayText, as_json: AsJson = False) -> None:
        _show(step(shop, parse_day(day)), as_json)

    command.__doc__ = (step.__doc__ or "").partition("\n")[0]
    app.command(name)(command)


for _name, _function in {
    "ingest": pipeline.ingest,
    "build": pipeline.build,
    "evaluate": pipeline.evaluate,
    "adjust": pipeline.adjust,
    "publish": pipeline.publish,
    "snapshot": pipeline.snapshot,
    "report": pipeline.report,
    "portraits": pipeline.portraits,
    "write-briefs": pipeline.write_briefs,
    "select-pairs": pipeline.select_pairs,
    "fine-tune": pipeline.fine_tune,
    "record-model": pipeline.record_model,
    "plan-copy": pipeline.plan_copy,
    "record-creatives": pipeline.record_creatives,
    "publish-creatives": pipeline.publish_creatives,
}.items():
    _step_command(_name, _function)


@app.command("generate-copy")
def generate_copy(
    shop: ShopId,
    day: DayText,
    shard: Annotated[list[str] | None, typer.Option(help="name of a shard; may be repeated. Default: all")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the copies of the day's briefs; what is finished is kept, what was cut off goes on."""
    found = pipeline.generate_copy(shop, parse_day(day), shard)
    rows = [(one.path.name, one.briefs, one.copies, one.refused) for one in found]
    _table(("shard", "briefs", "copies", "refused"), rows, as_json)


@app.command()
def create(shop: ShopId, day: DayText, as_json: AsJson = False) -> None:
    """From portraits to checked copies in the report, for a day that was run before, without Airflow."""
    chosen = parse_day(day)
    load_shop(shop)
    with _progress() as progress:
        bar = progress.add_task(shop, total=len(pipeline.CREATE_STEPS))

        def told(name: str) -> None:
            done = list(pipeline.CREATE_STEPS).index(name)
            progress.update(bar, description=f"{shop} {chosen} {name}", completed=done)
            if not errors.is_terminal:
                errors.print(f"{shop} {chosen} {name}", markup=False, highlight=False)

        path = pipeline.create(shop, chosen, told)
        progress.update(bar, completed=len(pipeline.CREATE_STEPS))
    found = pipeline.copies(shop, chosen)
    if as_json:
        rows = [asdict(row) for row in found]
        console.print_json(json.dumps({"shop": shop, "day": day, "report": str(path), "copies": rows}))
    else:
        console.print(pipeline.copies_table(shop, chosen), markup=False, highlight=False)
        console.print(f"report: {path}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def simulate(
    shop: ShopId,
    day: Annotated[str | None, typer.Option("--day", "-d", help="one day, YYYY-MM-DD")] = None,
    first: Annotated[str | None, typer.Option("--from", help="first day of a range")] = None,
    last: Annotated[str | None, typer.Option("--to", help="last day of a range")] = None,
    as_json: AsJson = False,
) -> None:
    """Write days of a simulated shop into its landing folder; the same days are the same bytes."""
    if (day is None) == (first is None and last is None) or (first is None) != (last is None):
        raise UsageError("which days?", "give --day D, or --from A --to B")
    days = [parse_day(day)] if day is not None else list(days_between(parse_day(str(first)), parse_day(str(last))))
    made = []
    with _progress() as progress:
        bar = progress.add_task(shop, total=len(days))
        for one in days:
            made.append(pipeline.simulate(shop, one))
            progress.update(bar, description=f"{shop} {one}", advance=1)
            if not errors.is_terminal:
                errors.print(str(made[-1]), markup=False, highlight=False, soft_wrap=True)
    if as_json:
        rows = [{"day": str(one.day), "rows": dict(one.rows), "written": list(one.written)} for one in made]
        console.print_json(json.dumps({"shop": shop, "simulated": True, "days": rows}))
    else:
        events = sum(one.rows["behaviours"] for one in made)
        console.print(
            f"{len(made)} simulated days with {events:,} behaviours in {load_shop(shop).landing}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=errors,
        disable=not errors.is_terminal,
    )


@app.command()
def check(
    shop: ShopId,
    day: DayText,
    door: Annotated[Literal["raw", "marts", "creatives"], typer.Option(help="which door")],
    as_json: AsJson = False,
) -> None:
    """Hold the day's data against a door's suite."""
    _show(pipeline.check(shop, parse_day(day), door), as_json)


@app.command()
def shops(as_json: AsJson = False) -> None:
    """The shops there are, and what is wrong with a file that cannot be read."""
    rows: list[tuple[str, ...]] = []
    for shop_id in shop_ids():
        try:
            shop = load_shop(shop_id)
            rows.append((shop_id, shop.name, shop.source.kind, shop.time_zone, "ok"))
        except UsageError as error:
            rows.append((shop_id, "", "", "", error.message))
    names = ("shop", "name", "source", "time zone", "state")
    _table(names, rows, as_json)


@app.command()
def status(shop: ShopId, as_json: AsJson = False) -> None:
    """Which days ran, how they ended, which are stale, and which plan is live."""
    rows = [
        (str(row.day), row.status, row.step, row.message or "", str(row.finished_at or ""))
        for row in pipeline.run_history(shop)
    ]
    _table(("day", "status", "last step", "message", "finished (UTC)"), rows, as_json)


@app.command()
def models(shop: ShopId, as_json: AsJson = False) -> None:
    """The copy models that were trained, what they gained over their base, and which one writes."""
    rows = [
        (
            row.model_id,
            str(row.trained_on),
            row.base,
            row.method,
            row.pairs,
            round(row.loss_base, 3),
            round(row.loss_tuned, 3),
            row.state,
            row.licence,
        )
        for row in pipeline.models(shop)
    ]
    names = ("model", "trained on", "base", "method", "pairs", "loss before", "loss after", "state", "licence")
    _table(names, rows, as_json)


@app.command()
def promote(
    shop: ShopId,
    model_id: Annotated[str, typer.Argument(help="as `adloom models` lists it")],
    day: DayText,
    by: Annotated[str, typer.Option("--by", help="who decided it")],
) -> None:
    """Let a trained copy model write from a day on."""
    console.print(pipeline.promote_model(shop, model_id, parse_day(day), by), markup=False, soft_wrap=True)


@app.command("roll-back")
def roll_back(
    shop: ShopId,
    day: DayText,
    reason: Annotated[str, typer.Option("--reason", help="why it must not write any more")],
) -> None:
    """Take the live copy model out of use: the one before it writes again, or the base."""
    console.print(pipeline.roll_back_model(shop, parse_day(day), reason), markup=False, soft_wrap=True)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="a SELECT over the published tables")],
    shop: ShopId,
    live: Annotated[bool, typer.Option(help="open the warehouse itself instead of the published snapshot")] = False,
    as_json: AsJson = False,
) -> None:
    """Read-only SQL on the published snapshot."""
    names, rows = pipeline.query(shop, query, live=live)
    _table(names, rows, as_json)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """What is missing on this machine and how to get it."""
    from adloom.doctor import findings

    found = findings()
    rows = [("ok" if one.is_ok else "missing", one.subject, one.detail, one.next_step) for one in found]
    _table(("state", "what", "found", "next step"), rows, as_json)
    if not all(one.is_ok for one in found):
        raise typer.Exit(1)


def _table(names: tuple[str, ...], rows: Sequence[tuple[Any, ...]], as_json: bool) -> None:
    if as_json:
        console.print_json(json.dumps([dict(zip(names, row, strict=True)) for row in rows], default=str))
        return
    table = Table(*names)
    for row in rows:
        table.add_row(*(escape("" if value is None else str(value)) for value in row))
    console.print(table)


if __name__ == "__main__":
    app()
