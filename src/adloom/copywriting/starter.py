"""The starter corpus: original brief→copy pairs, so that a new shop has a voice on day one.

`starter/<language>.jsonl` holds what a person writes; tone and limits come from the channel, so that a channel that
changes needs no new corpus (the tests say which copy no longer fits).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adloom.creative import Brief, Language, Pair, channels
from adloom.errors import AdloomError

FOLDER = Path(__file__).with_name("starter")
ORIGIN = "starter"


def starter_pairs(language: Language) -> list[Pair]:
    """The approved pairs that come with the project, in the order of the file; `AdloomError` names file and line."""
    path = FOLDER / f"{language}.jsonl"
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            pairs.append(_pair(json.loads(line), language))
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            raise AdloomError(
                f"{path.name}, line {number}: {error}",
                "mend the line: tests/copywriting/test_starter.py says the rules",
            ) from error
    return pairs


def _pair(row: dict[str, Any], language: Language) -> Pair:
    channel = channels(language)[row["channel"]]
    facts = {name: value for name, value in row.items() if name != "copy"}
    brief = Brief(**facts, language=language, segment_id=ORIGIN, tone=channel.tone, limits=channel.limits)
    return Pair.model_validate({"brief": brief, "copy": row["copy"], "origin": ORIGIN})
