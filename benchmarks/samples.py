"""Unpicked samples of a shop's copy, to be read as a customer reads them: so many per scenario and language.

    .venv/bin/python benchmarks/samples.py --shop sample_shop --day 2025-11-07 --out samples.md
    .venv/bin/python benchmarks/samples.py … --adapter FOLDER      weights other than the starter voice
    .venv/bin/python benchmarks/samples.py … --per-cell 5 --temperature 0.5 --candidates 8

The day must have been run (``adloom simulate``, ``run``, ``portraits``). The briefs are those that it would
order with a larger budget, in an order of their own hash; the copies are drawn, refused and ranked as the shop's are.
Nothing is stored in the warehouse. Nobody chooses what is shown: a copy that could not be written shows its reason.
"""

from __future__ import annotations

import os

# Read when torch loads: threads that wait by spinning slow each other down wherever a core is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import hashlib
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

from adloom.briefs import writing
from adloom.briefs.choosing import choose
from adloom.briefs.knowing import read_known
from adloom.briefs.scenarios import possible_briefs
from adloom.copywriting import handover
from adloom.copywriting.generating import Generated, generate_shard
from adloom.copywriting.model import load_local
from adloom.copywriting.starter import starter_pairs
from adloom.creative import SCENARIOS, Brief, read_rows, write_rows
from adloom.errors import AdloomError
from adloom.settings import settings
from adloom.shop import Shop, load_shop
from adloom.warehouse.engine import warehouse

BUDGET = 4000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shop", default="sample_shop")
    parser.add_argument("--day", type=date.fromisoformat, required=True)
    parser.add_argument("--per-cell", type=int, default=20)
    parser.add_argument("--adapter", type=Path, help="weights to write with; default: the base's starter voice")
    parser.add_argument("--bare", action="store_true", help="write with the bare base")
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--candidates", type=int)
    parser.add_argument("--out", type=Path, required=True, help="a Markdown file; rows go beside it as .jsonl")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        shop = load_shop(given.shop)
        asked = {"temperature": given.temperature, "candidates": given.candidates}
        chosen = {name: value for name, value in asked.items() if value is not None}
        sampling = shop.copywriting.sampling.model_copy(update=chosen)
        adapter = given.adapter
        if adapter is None and not given.bare:
            voice = handover._starter(shop)
            adapter = None if voice is None else voice.path
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as work:
            briefs = Path(work) / "briefs.jsonl"
            known = Path(work) / "known.jsonl"
            write_rows(briefs, samples(shop, given.day, given.per_cell))
            write_rows(known, [pair for language in shop.languages for pair in starter_pairs(language)])
            model = load_local(shop.copywriting.model, handover.weights_cache(), settings().device, adapter=adapter)
            rows = given.out.with_suffix(".jsonl")
            name = f"{model.base}+{model.adapter_digest[:12] or 'nothing'}"
            generate_shard(briefs, rows, model, sampling, day=given.day, model_id=name, known_path=known)
        made = list(read_rows(rows, Generated))
    except AdloomError as error:
        sys.stderr.write(f"{error.message}\n{error.next_step}\n")
        return 1
    took = time.monotonic() - began
    head = f"{name}, temperature {sampling.temperature}, {sampling.candidates} candidates, {took:.0f} s"
    given.out.write_text(f"# {shop.name}, {given.day}: unpicked samples\n\n{head}\n" + page(made), encoding="utf-8")
    return 0


def samples(shop: Shop, day: date, per_cell: int) -> list[Brief]:
    """So many briefs per scenario and language, an item in no cell twice where there are enough."""
    wide = shop.model_copy(update={"copywriting": shop.copywriting.model_copy(update={"briefs_per_day": BUDGET})})
    with warehouse(shop) as engine, engine.connect() as connection:
        known = read_known(connection, wide, day)
    possible = possible_briefs(wide, known, writing._most(wide, known), set())
    briefs = [writing._brief(wide, day, one, possible) for one in choose(wide, day, possible.candidates, known.clicks)]
    briefs.sort(key=lambda brief: hashlib.sha256(brief.brief_id.encode()).digest())
    taken: Counter[tuple[str, str]] = Counter()
    found: list[Brief] = []
    for most in (1, 99):  # an item once, then as often as it takes
        items: Counter[tuple[str, str, str]] = Counter((one.scenario, one.language, one.item.item_id) for one in found)
        for brief in briefs:
            cell, item = (brief.scenario, brief.language), (brief.scenario, brief.language, brief.item.item_id)
            if taken[cell] < per_cell and items[item] < most and brief not in found:
                taken[cell] += 1
                items[item] += 1
                found.append(brief)
    return sorted(found, key=lambda brief: (SCENARIOS.index(brief.scenario), brief.language))


def page(rows: Sequence[Generated]) -> str:
    """The samples, a heading per scenario and language."""
    return "\n".join(_lines(rows)) + "\n"


def _lines(rows: Sequence[Generated]) -> Iterator[str]:
    heading = ""
    for number, row in enumerate(rows, start=1):
        brief, copy = row.brief, row.copy_
        cell = [one for one in rows if (one.brief.scenario, one.brief.language) == (brief.scenario, brief.language)]
        title = f"{brief.scenario} · {brief.language}"
        if title != heading:
            heading = title
            yield f"\n## {title}: {sum(one.copy_ is not None for one in cell)} of {len(cell)} written\n"
        about = "; ".join(f"{name}: {value}" for name, value in brief.item.attributes.items())
        if brief.offer:
            about += f" | {brief.offer.name}, {brief.offer.text}"
        about += f" | {brief.event.title}" if brief.event else ""
        about += f" | {brief.related}" if brief.related else ""
        yield f"{number}. *{brief.channel} · {brief.item.title} · {about}*  "
        if copy is None:
            yield f"   **not written:** {row.refused_reason}"
        else:
            tags = " ".join(f"#{tag}" for tag in copy.hashtags)
            yield f"   **{copy.headline}** / {copy.body} / [{copy.call_to_action}] {tags}"


if __name__ == "__main__":
    sys.exit(main())
