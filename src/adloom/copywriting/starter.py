"""The starter corpus and the starter voice: what lets a new shop write on day one.

`starter/<language>.jsonl` holds original brief→copy pairs, as a person writes them; tone and limits come from the
channel, so that a channel that changes needs no new corpus (the tests say which copy no longer fits).

`starter/voices/<name>/` holds a LoRA adapter that learnt from these pairs and nothing else, made by
``scripts/make_starter_voice.py``. It belongs to the one base whose digest its manifest names: a shop with that base
starts from it, a shop with another starts from the bare base.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adloom.copywriting import weights
from adloom.creative import Brief, Language, Pair, channels, voiced
from adloom.errors import AdloomError

FOLDER = Path(__file__).with_name("starter")
VOICES = FOLDER / "voices"
ORIGIN = "starter"


@dataclass(frozen=True)
class StarterVoice:
    """An adapter that comes with the project."""

    path: Path
    digest: str
    """of its folder, as `LocalModel.adapter_digest` has it"""
    base_digest: str
    rank: int
    learnt: frozenset[str]
    """item ids of the corpus that it learnt from: nothing about them can show whether a copy of it is better"""


def starter_voice(base_digest: str | None) -> StarterVoice | None:
    """The voice that belongs to the base of that digest; None: there is none."""
    return _voices(VOICES).get(base_digest or "")


@cache
def _voices(folder: Path) -> dict[str, StarterVoice]:
    """Base digest → voice; `AdloomError` names a file that is not the one its manifest describes."""
    found = (read_voice(path.parent) for path in sorted(folder.glob(f"*/{weights.MANIFEST}")))
    return {one.base_digest: one for one in found}


def read_voice(folder: Path) -> StarterVoice:
    """The voice in ``folder``, checked to be whole."""
    manifest = weights.check_manifest(folder)
    shape = weights.read_json(folder / "adapter_config.json")
    try:
        return StarterVoice(
            path=folder,
            digest=weights.folder_digest(folder),
            base_digest=manifest["base_digest"],
            rank=int(shape["r"]),
            learnt=frozenset(manifest["learnt_items"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise AdloomError(
            f"{folder}: its manifest or configuration has no {error}", "make it again: scripts/make_starter_voice.py"
        ) from error


def corpus_digest() -> str:
    """SHA-256 of the corpus's files: what a voice learnt from."""
    whole = hashlib.sha256()
    for path in sorted(FOLDER.glob("*.jsonl")):
        whole.update(path.read_bytes())
    return whole.hexdigest()


def starter_pairs(language: Language, voice: str = "") -> list[Pair]:
    """The approved pairs that come with the project, in the order of the file; `AdloomError` names file and line.

    ``voice``: the shop's, which its briefs will have, too.
    """
    path = FOLDER / f"{language}.jsonl"
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            pairs.append(_pair(json.loads(line), language, voice))
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            raise AdloomError(
                f"{path.name}, line {number}: {error}",
                "mend the line: tests/copywriting/test_starter.py says the rules",
            ) from error
    return pairs


def _pair(row: dict[str, Any], language: Language, voice: str) -> Pair:
    channel = channels(language)[row["channel"]]
    facts = {name: value for name, value in row.items() if name != "copy"}
    tone = voiced(channel.tone, voice, language)
    brief = Brief(**facts, language=language, segment_id=ORIGIN, tone=tone, limits=channel.limits)
    return Pair.model_validate({"brief": brief, "copy": row["copy"], "origin": ORIGIN})
