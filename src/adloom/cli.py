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
    "write-audit": pipeline.write_audit,
    "audit-copy": pipeline.audit_copy,
    "select-images": pipeline.select_images,
    "plan-images": pipeline.plan_images,
    "generate-images": pipeline.generate_images,
    "record-images": pipeline.record_images,
    "publish-approved": pipeline.publish_approved,
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


@app.command("train-images")
def train_images(  # noqa: PLR0917 - typer reads the options off the signature
    shop: Annotated[str | None, typer.Option("--shop", "-s", help="learn from its catalogue (with --day)")] = None,
    day: Annotated[str | None, typer.Option("--day", "-d", help="what `select-images` chose for this day")] = None,
    data: Annotated[Path | None, typer.Option(help="or: a folder with one folder of pictures per category")] = None,
    out: Annotated[Path | None, typer.Option(help="with --data: where checkpoints and the generator go")] = None,
    size: Annotated[int, typer.Option(help="pixels of a side: 28, 32, 64 or 128")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="at most so many")] = 30_000,
    minutes: Annotated[float | None, typer.Option(help="at most so long, over all attempts together")] = None,
    batch_size: Annotated[int, typer.Option(min=4, help="pictures per step, a multiple of 4")] = 64,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Train the generator of pictures; a training that was cut off goes on, a finished one is kept."""
    of_shop, of_folder = (shop is not None and day is not None), (data is not None and out is not None)
    if of_shop == of_folder or (shop is None) != (day is None) or (data is None) != (out is None):
        raise UsageError("learn from what?", "give --shop S --day D, or --data FOLDER --out FOLDER")
    if size not in {28, 32, 64, 128}:
        raise UsageError(f"--size {size}", "one of 28, 32, 64, 128")
    if batch_size % 4 or (minutes is not None and minutes <= 0):
        raise UsageError("--batch-size must be a multiple of 4, and --minutes positive")
    chosen = {"size": size, "max_steps": steps, "max_minutes": minutes, "batch_size": batch_size, "seed": seed}
    with _progress() as progress:
        bar = progress.add_task("train-images", total=steps)

        def told(now: Any) -> None:
            progress.update(bar, description=str(now), completed=now.step, total=now.steps)

        shown = told if errors.is_terminal else None
        if shop is not None and day is not None:
            found = pipeline.train_images(shop, parse_day(day), shown, **chosen)
        else:
            assert data is not None  # noqa: S101 - for the type checker
            assert out is not None  # noqa: S101
            found = pipeline.train_images_of_folder(data, out, shown, **chosen)
    _show(found, as_json)
    if not as_json:
        console.print(f"{found.path}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def compose(
    shop: ShopId,
    day: DayText,
    shard: Annotated[list[str] | None, typer.Option(help="name of a shard; may be repeated. Default: all")] = None,
    as_json: AsJson = False,
) -> None:
    """Make the banners and videos of the day's copies; what is finished is kept, what was cut off goes on."""
    found = pipeline.compose(shop, parse_day(day), shard)
    rows = [(one.path.name, one.creatives, one.images, one.refused, one.opened) for one in found]
    _table(("shard", "creatives", "images", "refused", "pictures opened"), rows, as_json)


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
        console.print(f"\n{pipeline.blocked_table(shop, chosen)}\n", markup=False, highlight=False, soft_wrap=True)
        state = pipeline.settled(shop, chosen)
        console.print(str(state), markup=False, highlight=False, soft_wrap=True)
        if state.waiting:
            console.print(f"what waits: adloom review --shop {shop} --day {day}", markup=False, highlight=False)
        console.print(f"report: {path}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def privacy(shop: ShopId, day: DayText, as_json: AsJson = False) -> None:
    """Erasures, opt-outs and retention as of a day: what people ask of their data, and how long any of it is kept."""
    chosen = parse_day(day)
    load_shop(shop)
    with _progress() as progress:
        bar = progress.add_task(shop, total=len(pipeline.PRIVACY_STEPS))

        def told(name: str) -> None:
            progress.update(bar, description=f"{shop} {chosen} {name}", advance=1)
            if not errors.is_terminal:
                errors.print(f"{shop} {chosen} {name}", markup=False, highlight=False)

        found = pipeline.privacy(shop, chosen, told)
    rows = [(name, found[name]) for name in ("read_requests", "close_requests", "apply_retention")]
    _table(("step", "what it did"), rows, as_json)


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
def review(shop: ShopId, day: DayText, as_json: AsJson = False) -> None:
    """What waits for a person's approval, with what the review says of it, and how the day's creatives stand."""
    chosen = parse_day(day)
    found = pipeline.waiting(shop, chosen)
    if as_json:
        listed = [asdict(one) for one in found]
        state = asdict(pipeline.settled(shop, chosen))
        console.print_json(json.dumps({"shop": shop, "day": day, "state": state, "waiting": listed}))
        return
    for one in found:
        lines = [f"{one.creative_id}  {one.channel} · {one.language}  {one.segment_words or one.segment_id}"]
        lines += [f"    {part}" for part in (one.headline, one.body, one.call_to_action) if part]
        lines += ["    " + " ".join(f"#{tag}" for tag in one.hashtags)] if one.hashtags else []
        lines += [f"  ! {note.rule_id} “{note.span}”: {note.reason}" for note in one.notes]
        console.print("\n".join(lines) + "\n", markup=False, highlight=False, soft_wrap=True)
    console.print(str(pipeline.settled(shop, chosen)), markup=False, highlight=False)
    if found:
        console.print(f'next: adloom approve --shop {shop} --day {day} --all --by "your name"', markup=False)


Decider = Annotated[str, typer.Option("--by", help="who decides")]
Creatives = Annotated[list[str] | None, typer.Option("--creative", help="id of a creative; may be repeated")]
AllOfThem = Annotated[bool, typer.Option("--all", help="everything of the day that waits")]


@app.command()
def approve(  # noqa: PLR0917 - typer reads the options off the signature
    shop: ShopId,
    day: DayText,
    by: Decider,
    creative: Creatives = None,
    everything: AllOfThem = False,
    reason: Annotated[str, typer.Option("--reason", help="why, for the record")] = "",
) -> None:
    """Approve creatives as they are now, from the day on, and publish the plan with them."""
    _decide(shop, day, creative, everything, is_approval=True, by=by, reason=reason)


@app.command()
def reject(  # noqa: PLR0917 - typer reads the options off the signature
    shop: ShopId,
    day: DayText,
    by: Decider,
    reason: Annotated[str, typer.Option("--reason", help="why, for whoever writes the next one")],
    creative: Creatives = None,
    everything: AllOfThem = False,
) -> None:
    """Reject creatives, or take approved ones out again, and publish the plan without them."""
    _decide(shop, day, creative, everything, is_approval=False, by=by, reason=reason)


def _decide(
    shop: str, day: str, creative: list[str] | None, everything: bool, *, is_approval: bool, by: str, reason: str
) -> None:
    if bool(creative) == everything:
        raise UsageError("which creatives?", "give --creative ID, as often as needed, or --all")
    if not by.strip():
        raise UsageError("--by is empty", "say who decides")
    chosen = None if everything else creative
    said = pipeline.decide(shop, parse_day(day), chosen, is_approval=is_approval, by=by.strip(), reason=reason)
    console.print(said, markup=False, highlight=False, soft_wrap=True)


@app.command()
def dossier(
    shop: ShopId,
    creative_id: Annotated[str | None, typer.Argument(help="as the report and `adloom review` show it")] = None,
    day: Annotated[str | None, typer.Option("--day", "-d", help="as of this day; default: the last one run")] = None,
    everything: Annotated[bool, typer.Option("--all", help="all of ours in the day's plans")] = False,
    as_json: AsJson = False,
) -> None:
    """All that was decided about a creative and why, as a page and a JSON file in published/dossiers."""
    if (creative_id is None) != everything:
        raise UsageError("which creative?", "give its id, or --all")
    load_shop(shop)
    chosen = pipeline.last_day(shop) if day is None else parse_day(day)
    found = pipeline.dossiers(shop, chosen, None if creative_id is None else [creative_id])
    if as_json:
        console.print_json(json.dumps([asdict(one) for one in found], default=str))
    for one in [] if as_json else found:
        console.print(str(one), markup=False, highlight=False, soft_wrap=True)


@app.command("export-unlabelled")
def export_unlabelled(  # noqa: PLR0917 - typer reads the options off the signature
    creative_id: Annotated[str, typer.Argument(help="as the report and `adloom review` show it")],
    shop: ShopId,
    day: DayText,
    to: Annotated[Path, typer.Option("--to", help="the file to write")],
    by: Annotated[str, typer.Option("--by", help="who asks for it and answers for the label from now on")],
    reason: Annotated[str, typer.Option("--reason", help="what it is needed for")],
    format_name: Annotated[str, typer.Option("--format", help="copy, feed_1080x1080, video_1080x1920 …")] = "copy",
) -> None:
    """Hand out a copy, banner or video without its visible AI label; who, why and when are written down first."""
    path = pipeline.export_unlabelled(shop, creative_id, format_name, to, by=by, reason=reason, day=parse_day(day))
    console.print(f"{path} is without its visible AI label; the log is in adloom.label_free_exports", markup=False)


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
