"""Shards of briefs in, shards of finished copy out: files only, so that a GPU worker needs no warehouse.

A shard is worked through page by page; every page is drawn, parsed, ranked and appended to a partial file, so that a
shard killed at any point goes on behind its last whole page and ends with the same bytes. It is renamed into place
when it is whole, a manifest beside it says what it was made of, and a shard whose inputs are the same is left alone.
Memory holds one page, however many briefs a shard has.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import math
import os
import time
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ConfigDict, Field

from adloom.copywriting.endpoint import EndpointModel
from adloom.copywriting.model import Identity, LocalModel
from adloom.copywriting.prompts import STOP, Unparsable, messages, parse, prompt
from adloom.copywriting.ranking import Candidate, Choice, Known, Stop, Value, choose, fitted
from adloom.copywriting.valuing import MeasuredCopy, Predicted
from adloom.creative import Brief, Copy, Language, Pair, _Row, read_rows, write_rows
from adloom.errors import AdloomError, Busy
from adloom.shop import Sampling

if TYPE_CHECKING:
    from adloom.copywriting.decoding import Decoder

log = logging.getLogger(__name__)

FORMAT = 3
"""Goes up when the same briefs would make other rows: finished shards of before are then made again."""
ROUNDS = 3
"""A brief without enough usable candidates is drawn for again, this often in all."""
PAGE_BATCHES = 8
"""Batches of sequences a page is worth: enough that the slots which run empty at its end hardly count."""
ENDPOINT_PAGE = 8
"""Briefs of a page where every answer is paid for: what a killed task has to ask for again."""
SIBLINGS, ITEMS = 16, 2000
"""Copies of an item that a new one is compared with, and items of a shard for which they are remembered."""
STOPPED = 3
"""Candidates of a brief that a review stopped, each for another reason, which are kept beside its copies."""


class Stopped(_Row):
    """A candidate that a review kept from being chosen: of those with the same first fault, the likeliest."""

    model_config = ConfigDict(populate_by_name=True)

    copy_: Copy = Field(alias="copy")
    rule_id: str = Field(description="of the first thing that was found")
    fault: str = Field(description="that thing, as a refused_reason says it")


class Generated(_Row):
    """One row per variant of a brief: its copy, or why there is none."""

    model_config = ConfigDict(populate_by_name=True)

    creative_id: str = Field(description="digest of day, brief and variant")
    brief: Brief
    variant: int = Field(ge=0)
    copy_: Copy | None = Field(alias="copy")
    refused_reason: str | None = None
    candidates: int = Field(description="drawn for the brief; its variants choose from them together")
    candidates_parsed: int
    scores: dict[str, float] = Field(default={}, description="of the chosen one; see ranking.WEIGHTS")
    model_id: str
    prompt_digest: str
    seed: int = Field(description="of the brief's first round of draws")
    stopped: tuple[Stopped, ...] = Field(default=(), description="with variant 0: the likeliest `STOPPED` of them")
    stopped_by: dict[str, int] = Field(
        default={}, description="with variant 0: rule → candidates of the brief whose first fault it was, all of them"
    )


@dataclass(frozen=True)
class Shard:
    """What became of a shard. ``was_finished``: nothing had to be done."""

    path: Path
    briefs: int
    copies: int
    refused: int
    was_finished: bool = False


@dataclass(frozen=True)
class Answer:
    """One drawn text; ``error``: it must not be used, and why."""

    text: str
    log_probability: float | None = None
    error: str | None = None


class Writer(Protocol):
    """Draws texts for briefs."""

    identity: str
    """what must be the same for the same draws: weights or endpoint"""
    page: int
    """briefs to be drawn together and kept together; a function of the shop's file alone"""

    def draw(
        self, briefs: Sequence[Brief], counts: Sequence[int], seeds: Sequence[int]
    ) -> Iterator[tuple[int, list[Answer]]]:
        """(index of a brief, its answers), in any order."""


def identity_of(model: Identity) -> str:
    """`Writer.identity` of a local model."""
    return f"{model.base_digest}:{model.adapter_digest}:{model.device}:{model.dtype}"


class LocalWriter:
    """Draws from a model in this process."""

    def __init__(self, local: LocalModel, sampling: Sampling) -> None:
        self.local, self.sampling = local, sampling
        self.identity = identity_of(
            Identity(local.base_digest, local.adapter_digest, local.device.type, str(local.model.dtype))
        )
        self.page = max(1, PAGE_BATCHES * sampling.batch_size // sampling.candidates)
        self._decoders: dict[Language, Decoder] = {}

    def draw(
        self, briefs: Sequence[Brief], counts: Sequence[int], seeds: Sequence[int]
    ) -> Iterator[tuple[int, list[Answer]]]:
        import torch

        languages = sorted({brief.language for brief in briefs})
        for language in languages:
            decoder = self._decoder(language)
            for other, unused in self._decoders.items():
                if other != language:
                    unused.release()
            prompts, places = [], []
            for place, brief in enumerate(briefs):
                if brief.language != language:
                    continue
                text = prompt(brief)
                if fault := decoder.misfit(text, self.sampling):
                    yield place, [Answer("", error=fault)] * counts[place]
                else:
                    prompts.append(text)
                    places.append(place)
            wanted = [counts[place] for place in places]
            try:
                for number, draws in decoder.decode(
                    prompts, self.sampling, [seeds[place] for place in places], counts=wanted
                ):
                    yield places[number], [Answer(draw.text, draw.log_probability) for draw in draws]
            except torch.OutOfMemoryError as error:
                raise AdloomError(
                    f"the card's memory is too small for {self.sampling.batch_size} sequences at once",
                    "lower copywriting.sampling.batch_size in the shop's file",
                ) from error

    def _decoder(self, language: Language) -> Decoder:
        from adloom.copywriting.decoding import Decoder

        if language not in self._decoders:
            self._decoders[language] = Decoder(self.local, language, "\n" + STOP[language])
        return self._decoders[language]


class EndpointWriter:
    """Draws from a server: one request per candidate."""

    def __init__(self, endpoint: EndpointModel, sampling: Sampling) -> None:
        self.endpoint, self.sampling = endpoint, sampling
        self.identity = repr(endpoint)
        self.page = ENDPOINT_PAGE

    def draw(
        self, briefs: Sequence[Brief], counts: Sequence[int], seeds: Sequence[int]
    ) -> Iterator[tuple[int, list[Answer]]]:
        chats = [messages(brief) for brief, count in zip(briefs, counts, strict=True) for _ in range(count)]
        # Servers take seeds of 32 bits.
        own = [(seed + n) % 2**31 for seed, count in zip(seeds, counts, strict=True) for n in range(count)]
        found = self.endpoint.complete(chats, self.sampling, own)
        errors = [one.error for one in found if one.error is not None]
        if errors and len(errors) == len(found) and all(error.startswith(OUTAGE) for error in errors):
            raise AdloomError(
                f"the endpoint answered none of {len(found)} requests: {errors[0]}",
                "run again when it is back; what is finished is kept",
            )
        answers = iter(Answer(one.text, error=one.error) for one in found)
        for place, count in enumerate(counts):
            yield place, [next(answers) for _ in range(count)]


OUTAGE = ("no answer", "no connection", "HTTP 5", "HTTP 429")
"""How errors begin that another try may not meet: they must not end up as the reason why a brief has no copy."""


def creative_id(day: date, brief: Brief, variant: int) -> str:
    """The id of a brief's variant on a day: 16 hex digits."""
    return hashlib.sha256(f"{day}:{brief.brief_id}:{variant}".encode()).hexdigest()[:16]


def seed_of(brief: Brief, number: int = 0) -> int:
    """The seed of a brief's ``number``-th round of draws: 63 bits of a digest of its own seed and content."""
    digest = hashlib.sha256(f"{brief.seed}:{brief.brief_id}:{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


# --- shards -------------------------------------------------------------------------------------------------------


def plan_shards(briefs_path: Path, folder: Path, size: int) -> list[Path]:
    """Cut a file of briefs into files of ``size`` briefs in ``folder``, one per mapped task; their paths, in order.

    Files of an earlier plan that this one does not have are removed, and copies of other briefs than this one's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = read_rows(briefs_path, Brief)
    planned: list[Path] = []
    while page := list(islice(rows, size)):
        path = folder / f"shard-{len(planned):05d}.briefs.jsonl"
        before = _file_digest(path) if path.is_file() else None
        write_rows(path, page)
        if before != _file_digest(path):
            for stale in folder.glob(f"{shard_path(path).name}*"):
                stale.unlink()
        planned.append(path)
    for path in folder.glob("shard-*.*"):
        if folder / f"{path.name.split('.')[0]}.briefs.jsonl" not in planned:
            path.unlink()
    return planned


def shard_path(briefs_path: Path) -> Path:
    """Where the copies of a planned file of briefs go."""
    return briefs_path.with_name(briefs_path.name.replace(".briefs.jsonl", ".copies.jsonl"))


def generate_shard(
    briefs_path: Path,
    path: Path,
    model: LocalModel | EndpointModel | Writer,
    sampling: Sampling,
    *,
    day: date,
    model_id: str,
    known_path: Path | None = None,
    measured_path: Path | None = None,
) -> Shard:
    """Write ``path`` with `Generated` rows for every brief of ``briefs_path``, in its order, one per variant.

    ``model_id``: for the rows (the models row, or the base's name). ``known_path``: `Pair` rows the model has learnt
    from; copies near them score less. ``measured_path``: `MeasuredCopy` rows that predict a copy's value. A brief that
    cannot be written for becomes rows with a reason; `AdloomError` where the shard cannot go on.
    """
    writer = _writer(model, sampling)
    inputs = _inputs(briefs_path, writer.identity, sampling, day, model_id, known_path, measured_path)
    if (finished := _finished(path, inputs)) is not None:
        return finished
    work = _Work(writer, sampling, day=day, model_id=model_id, known=_known(known_path), value=_value(measured_path))
    try:
        return work.run(briefs_path, path, inputs)
    except OSError as error:
        raise AdloomError(
            f"{path.name}: {error.strerror or error} ({error.filename or path.parent})",
            "make room or mend the folder, and run the step again: it goes on where it stopped",
        ) from error


def finished_shard(
    briefs_path: Path,
    path: Path,
    identity: str,
    sampling: Sampling,
    *,
    day: date,
    model_id: str,
    known_path: Path | None = None,
    measured_path: Path | None = None,
) -> Shard | None:
    """What `generate_shard` would find finished with a writer of that identity; None: there is something to do."""
    return _finished(path, _inputs(briefs_path, identity, sampling, day, model_id, known_path, measured_path))


def _inputs(  # noqa: PLR0917
    briefs_path: Path,
    identity: str,
    sampling: Sampling,
    day: date,
    model_id: str,
    known_path: Path | None,
    measured_path: Path | None,
) -> dict[str, Any]:
    """All that decides what is in a shard."""
    return {
        "format": FORMAT,
        "day": day.isoformat(),
        "briefs": _file_digest(briefs_path),
        "model_id": model_id,
        "model": identity,
        "sampling": sampling.model_dump(mode="json"),
        "known": _file_digest(known_path) if known_path else None,
        "measured": _file_digest(measured_path) if measured_path else None,
    }


def _writer(model: LocalModel | EndpointModel | Writer, sampling: Sampling) -> Writer:
    if isinstance(model, EndpointModel):
        return EndpointWriter(model, sampling)
    return LocalWriter(model, sampling) if isinstance(model, LocalModel) else model


def _known(path: Path | None) -> Known | None:
    return Known(pair.copy_.text for pair in read_rows(path, Pair)) if path else None


def _value(path: Path | None) -> Value | None:
    return Predicted(read_rows(path, MeasuredCopy)) if path else None


@dataclass
class _Drawn:
    """A brief and what was drawn for it so far."""

    brief: Brief
    choices: list[Choice] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    drawn: int = 0
    unparsed: list[str] = field(default_factory=list)
    reason: str = ""
    stopped: list[tuple[Candidate, Stop]] = field(default_factory=list)

    @property
    def missing(self) -> int:
        return self.brief.variants - len(self.choices)


class _Work:
    """One pass over a shard."""

    def __init__(
        self,
        writer: Writer,
        sampling: Sampling,
        *,
        day: date,
        model_id: str,
        known: Known | None,
        value: Value | None,
    ) -> None:
        self.writer, self.sampling, self.day, self.model_id = writer, sampling, day, model_id
        self.known, self.value = known, value
        self.siblings: OrderedDict[str, deque[str]] = OrderedDict()

    def run(self, briefs_path: Path, path: Path, inputs: dict[str, Any]) -> Shard:
        """Go on behind the whole pages of a partial file, and put the shard in its place."""
        total = sum(1 for _ in read_rows(briefs_path, Brief))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        counts = _Counts()
        with _Partial(partial, _digest(inputs)) as pages:
            for row in pages.kept():
                counts.add(row)
                self._remember(row)
            each = self.sampling.candidates
            progress = _Progress(path.name, total, each, done=counts.briefs, copies=counts.copies)
            briefs = islice(read_rows(briefs_path, Brief), counts.briefs, None)
            while page := list(islice(briefs, self.writer.page)):
                rows = list(self._page(page, progress))
                for row in rows:
                    counts.add(row)
                pages.append(rows)
            progress.finish(counts.copies, counts.refused)
            shard_digest = _without_marks(partial, path)
            manifest = {"inputs": inputs, "sha256": shard_digest, **counts.as_dict()}
            told = json.dumps(manifest, ensure_ascii=False, sort_keys=True, indent=1) + "\n"
            fresh = path.with_name(f".{path.name}.manifest.tmp")
            fresh.write_text(told, encoding="utf-8")
            fresh.replace(_manifest(path))
            partial.unlink()
        return Shard(path, counts.briefs, counts.copies, counts.refused)

    def _page(self, briefs: list[Brief], progress: _Progress) -> Iterator[Generated]:
        page = [_Drawn(brief) for brief in briefs]
        for number in range(ROUNDS):
            lacking = [one for one in page if one.missing]
            if not lacking:
                break
            self._round(lacking, number, progress)
            # In the page's order, whatever the order of the draws: each choice looks at the item's copies before it.
            for one in lacking:
                self._choose(one)
        for one in page:
            yield from self._rows(one)

    def _round(self, lacking: list[_Drawn], number: int, progress: _Progress) -> None:
        counts = [one.missing * self.sampling.candidates for one in lacking]
        progress.expect(sum(counts), len(lacking) if number == 0 else 0)
        seeds = [seed_of(one.brief, number) for one in lacking]
        for place, answers in self.writer.draw([one.brief for one in lacking], counts, seeds):
            one = lacking[place]
            one.drawn += len(answers)
            for answer in answers:
                self._read(one, answer)
            progress.drew(len(answers), is_first=number == 0)

    @staticmethod
    def _read(one: _Drawn, answer: Answer) -> None:
        if answer.error is not None:
            one.unparsed.append(answer.error)
            return
        try:
            copy = parse(answer.text, one.brief.language)
        except Unparsable as error:
            one.unparsed.append(f"malformed: {error.reason}")
            return
        one.candidates.append(Candidate(copy, answer.log_probability))

    def _choose(self, one: _Drawn) -> None:
        """Choose afresh from all that was drawn; earlier rounds' choices stay what they are."""
        chosen = [choice.copy for choice in one.choices]
        own = [copy.text for copy in chosen]
        item = self._copies_of(one.brief)
        # None of them was chosen in an earlier round, so this one sees them all again.
        one.stopped.clear()
        found, reason = choose(
            [other for other in one.candidates if fitted(other.copy, one.brief) not in chosen],
            one.brief,
            one.missing,
            siblings=[*(text for text in item if text not in own), *own],
            known=self.known,
            value=self.value,
            on_stop=lambda candidate, stop: one.stopped.append((candidate, stop)),
        )
        one.choices += found
        one.reason = reason
        item.extend(choice.copy.text for choice in found)

    def _copies_of(self, brief: Brief) -> deque[str]:
        """The latest copies for the brief's item."""
        key = f"{brief.language}:{brief.item.item_id}"
        found = self.siblings.setdefault(key, deque(maxlen=SIBLINGS))
        self.siblings.move_to_end(key)
        if len(self.siblings) > ITEMS:
            self.siblings.popitem(last=False)
        return found

    def _remember(self, row: Generated) -> None:
        """What an earlier run of this shard chose."""
        copies = self._copies_of(row.brief)
        if row.copy_ is not None:
            copies.append(row.copy_.text)

    def _rows(self, one: _Drawn) -> Iterator[Generated]:
        brief = one.brief
        told = "; ".join(filter(None, (one.reason, _most_common(one.unparsed))))
        for variant in range(brief.variants):
            choice = one.choices[variant] if variant < len(one.choices) else None
            yield Generated(
                creative_id=creative_id(self.day, brief, variant),
                brief=brief,
                variant=variant,
                copy=choice.copy if choice else None,
                refused_reason=None if choice else f"none of {one.drawn} candidates could be used: {told}",
                candidates=one.drawn,
                candidates_parsed=len(one.candidates),
                scores=choice.scores if choice else {},
                model_id=self.model_id,
                prompt_digest=hashlib.sha256(prompt(brief).encode()).hexdigest()[:16],
                seed=seed_of(brief),
                stopped=_likeliest(one.stopped) if variant == 0 else (),
                stopped_by=_by_rule(one.stopped) if variant == 0 else {},
            )


def _likeliest(stopped: Iterable[tuple[Candidate, Stop]]) -> tuple[Stopped, ...]:
    """One per first fault, those that the model held for likeliest; of equals and without likelihoods, as drawn."""
    ordered = sorted(stopped, key=lambda one: -math.inf if one[0].log_probability is None else -one[0].log_probability)
    first: dict[str, Stopped] = {}
    for candidate, stop in ordered:
        first.setdefault(stop.fault, Stopped(copy=candidate.copy, rule_id=stop.rule_id, fault=stop.fault))
    return tuple(islice(first.values(), STOPPED))


def _by_rule(stopped: Iterable[tuple[Candidate, Stop]]) -> dict[str, int]:
    return dict(sorted(Counter(stop.rule_id for _, stop in stopped).items()))


def _most_common(reasons: Iterable[str]) -> str:
    counts: defaultdict[str, int] = defaultdict(int)
    for reason in reasons:
        counts[reason] += 1
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return "; ".join(f"{count} × {reason}" for reason, count in ordered[:3])


# --- progress -----------------------------------------------------------------------------------------------------


@dataclass
class _Counts:
    briefs: int = 0
    copies: int = 0
    refused: int = 0

    def add(self, row: Generated) -> None:
        self.briefs += row.variant == 0
        self.copies += row.copy_ is not None
        self.refused += row.copy_ is None

    def as_dict(self) -> dict[str, int]:
        return {"briefs": self.briefs, "copies": self.copies, "refused": self.refused}


class _Progress:
    """A log line about once a second: briefs done and to come, candidates, time left.

    Time goes by candidates, not by briefs: a brief that is drawn for again takes its time again. What is to come is
    guessed from what the briefs before it took, further rounds included.
    """

    def __init__(
        self, name: str, total: int, each: int, *, done: int, copies: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._total, self._each, self._before, self._done = name, total, each, done, done
        self._clock = clock
        self._candidates = self._expected = self._begun = 0
        self._began = self._told = clock()
        if done:
            log.info("%s: goes on behind %d of %d briefs (%d copies)", name, done, total, copies)

    def expect(self, candidates: int, briefs: int) -> None:
        """A round begins: so many candidates, for so many briefs that had none yet."""
        self._expected += candidates
        self._begun += briefs

    def drew(self, candidates: int, is_first: bool) -> None:
        """Some brief's candidates were drawn; a redraw makes no brief count twice."""
        self._done += is_first
        self._candidates += candidates
        now = self._clock()
        if now - self._told < 1 or not self._candidates or not self._begun:
            return
        self._told = now
        to_begin = self._total - self._before - self._begun
        to_come = self._expected - self._candidates + to_begin * max(self._each, self._expected / self._begun)
        left = (now - self._began) / self._candidates * to_come
        log.info(
            "%s: %d of %d briefs, %d candidates, %d:%02d left",
            *(self._name, self._done, self._total, self._candidates, *divmod(round(left), 60)),
        )

    def finish(self, copies: int, refused: int) -> None:
        seconds = self._clock() - self._began
        log.info(
            "%s: %d briefs, %d copies, %d refused, %d:%02d",
            *(self._name, self._total, copies, refused, *divmod(round(seconds), 60)),
        )


# --- files --------------------------------------------------------------------------------------------------------

MARK = b'{"page":'


class _Partial:
    """The pages of a shard so far: a line that names the inputs, then per page its rows and a mark."""

    def __init__(self, path: Path, inputs: str) -> None:
        self._path, self._head = path, json.dumps({"inputs": inputs}) + "\n"

    def __enter__(self) -> _Partial:
        self._stream = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._stream.close()
            raise Busy(f"{self._path.name}: another process is writing it") from error
        # What comes after the last mark is half a page of a run that was killed.
        whole = self._whole()
        self._stream.truncate(whole)
        if not whole:
            self._stream.seek(0)
            self._stream.write(self._head.encode())
            self._sync()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def _whole(self) -> int:
        """Bytes up to the last page's end; 0: a new file, or one of other inputs."""
        if self._stream.readline() != self._head.encode():
            return 0
        whole = read = len(self._head.encode())
        for line in self._stream:
            read += len(line)
            if line.startswith(MARK) and line.endswith(b"\n"):
                whole = read
        return whole

    def kept(self) -> Iterator[Generated]:
        """The rows of the whole pages."""
        self._stream.seek(0)
        for line in islice(self._stream, 1, None):
            if not line.startswith(MARK):
                yield Generated.model_validate_json(line)
        self._stream.seek(0, os.SEEK_END)

    def append(self, rows: Sequence[Generated]) -> None:
        """Write a page so that it is on the disk, or not there."""
        lines = "".join(row.json_line() + "\n" for row in rows)
        self._stream.write(lines.encode() + MARK + f"{len(rows)}}}\n".encode())
        self._sync()

    def _sync(self) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())


def _without_marks(partial: Path, path: Path) -> str:
    """Put the rows of a whole partial file in their place; returns their SHA-256."""
    fresh, digest = path.with_name(f".{path.name}.tmp"), hashlib.sha256()
    with partial.open("rb") as rows, fresh.open("wb") as stream:
        for line in islice(rows, 1, None):
            if not line.startswith(MARK):
                stream.write(line)
                digest.update(line)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(path)
    return digest.hexdigest()


def _manifest(path: Path) -> Path:
    return path.with_name(f"{path.name}.manifest.json")


def _finished(path: Path, inputs: dict[str, Any]) -> Shard | None:
    """The shard as a run with the same inputs left it, if it did and it is unchanged."""
    try:
        manifest = json.loads(_manifest(path).read_text(encoding="utf-8"))
        if manifest["inputs"] != inputs or manifest["sha256"] != _file_digest(path):
            return None
        log.info("%s: finished before, %d copies", path.name, manifest["copies"])
        return Shard(path, manifest["briefs"], manifest["copies"], manifest["refused"], was_finished=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(inputs: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
