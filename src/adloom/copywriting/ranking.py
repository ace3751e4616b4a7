"""Which of the candidates drawn for a brief becomes its copy, and why the others do not.

A candidate with a fault is never chosen: an unsupported claim, a length the channel does not take, a forbidden word, a
missing offer or event, another language, empty repetition, the text of a sibling. What a review would block is told to
the caller, who keeps it with its reason. Among the clean ones the score decides; its parts are kept with the choice.
Pure functions of texts: nothing is drawn or looked up here.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from adloom.creative import Brief, Copy
from adloom.review.brand import EXCLUSION
from adloom.review.facts import coverage, unsupported
from adloom.review.text import plain, squeezed

Value = Callable[[Copy, Brief], float]
"""Predicted value of a copy for its brief, 0 to 1: from the strategy, once there is evidence."""

WEIGHTS = {
    "coverage": 1.0,
    "diversity": 0.6,
    "fluency": 2.5,
    "value": 1.0,
    "named": 0.3,
    "repetition": -2.0,
    "warnings": -0.15,
    "copied": -2.0,
}
"""What each part adds to a score. Chosen by reading what wins on a lightly tuned small model: likelihood alone prefers
texts that go round in circles, coverage alone lists of attributes; a copied text loses to any other clean one. Of what
a small model writes, what it finds likely is what a reader can follow: so fluency counts most."""
GRAM = 4
"""Characters of the pieces that two texts are compared by (self-BLEU and distinct-4 look at four, too)."""
SAME = 0.8
"""Shared pieces from which two siblings are the same text to a reader."""
COPIED_RUN = 13
"""Characters in a row that a text shares with a training text only if it was copied."""
REPEATED = 0.2
"""Share of pieces that stood before from which a text goes round in circles; the starter corpus stays below .16."""


@dataclass(frozen=True)
class Candidate:
    """A parsed answer. ``log_probability``: mean per token, of the model that wrote it; none from an endpoint."""

    copy: Copy
    log_probability: float | None = None


@dataclass(frozen=True)
class Choice:
    """The chosen candidate's copy as it is to be shown, and its scores (see `WEIGHTS`; ``total`` is their sum)."""

    copy: Copy
    scores: dict[str, float]


@dataclass(frozen=True)
class Stop:
    """What a review blocks in a candidate: the rule, and the words it is about as they go into a `refused_reason`."""

    rule_id: str
    fault: str


OnStop = Callable[[Candidate, Stop], None]


class Known:
    """Runs of `COPIED_RUN` characters of texts a model has learnt from: what is not to be copied out."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._runs = {hash(run) for text in texts for run in _pieces(squeezed(text), COPIED_RUN)}

    def holds_part_of(self, text: str) -> bool:
        """Does ``text`` share a run with a training text?"""
        return any(hash(run) in self._runs for run in _pieces(squeezed(text), COPIED_RUN))


def choose(
    candidates: Sequence[Candidate],
    brief: Brief,
    wanted: int,
    *,
    siblings: Sequence[str] = (),
    known: Known | None = None,
    value: Value | None = None,
    on_stop: OnStop = lambda candidate, stop: None,
) -> tuple[list[Choice], str]:
    """The best ``wanted`` clean candidates, each chosen in view of those before it, and why there are not more.

    ``siblings``: texts of other copies for the same item. ``on_stop`` hears of every candidate that a review blocks,
    with the first thing it blocks. The reason is empty when all that were wanted were found.
    """
    faults: Counter[str] = Counter()
    clean: list[tuple[Copy, float | None]] = []
    for candidate in candidates:
        copy = fitted(candidate.copy, brief)
        stop = next(find_stops(copy, brief), None)
        if stop is not None:
            on_stop(Candidate(copy, candidate.log_probability), stop)
        fault = next(_of_form(copy, brief), None) if stop is None else stop.fault
        if fault is None:
            clean.append((copy, candidate.log_probability))
        else:
            faults[fault] += 1
    chosen: list[Choice] = []
    beside = [pieces(text) for text in siblings]
    while clean and len(chosen) < wanted:
        scored = []
        for copy, log_probability in clean:
            nearest = max((similarity(pieces(copy.text), other) for other in beside), default=0.0)
            if nearest >= SAME:
                faults["the text of another copy for this item"] += 1
            else:
                parts = score(copy, brief, nearest=nearest, log_probability=log_probability, known=known, value=value)
                scored.append((copy, log_probability, parts))
        if not scored:
            break
        # max() keeps the first of equals: the order of the candidates decides, and that is fixed by their seeds.
        best = max(scored, key=lambda one: one[2]["total"])
        chosen.append(Choice(best[0], best[2]))
        beside.append(pieces(best[0].text))
        clean = [(copy, log_probability) for copy, log_probability, _ in scored if copy is not best[0]]
    return chosen, "" if len(chosen) == wanted else _told(faults)


def _told(faults: Counter[str]) -> str:
    """Most frequent first: ``3 × unsupported: 红色; 1 × body too long``."""
    ordered = sorted(faults.items(), key=lambda one: (-one[1], one[0]))
    return "; ".join(f"{count} × {fault}" for fault, count in ordered[:4]) or "too few candidates"


def score(
    copy: Copy,
    brief: Brief,
    *,
    nearest: float = 0.0,
    log_probability: float | None = None,
    known: Known | None = None,
    value: Value | None = None,
) -> dict[str, float]:
    """The parts of a clean candidate's score and their weighted sum ``total``, rounded to four decimals.

    ``nearest``: similarity to the closest sibling. Fluency is the geometric mean of the tokens' probabilities.
    """
    covered, facts = coverage(copy, brief)
    parts = {
        "named": float(names_item(copy, brief)),
        "repetition": repetition(copy),
        "coverage": covered / facts if facts else 1.0,
        "diversity": 1 - nearest,
        "warnings": float(sum(finding.severity == "warn" for finding in unsupported(copy, brief))),
        "copied": float(known is not None and known.holds_part_of(copy.text)),
    }
    if log_probability is not None:
        parts["fluency"] = math.exp(log_probability)
    if value is not None:
        parts["value"] = value(copy, brief)
    parts["total"] = sum(WEIGHTS[name] * part for name, part in parts.items())
    return {name: round(part, 4) for name, part in sorted(parts.items())}


# --- faults -------------------------------------------------------------------------------------------------------


def fitted(copy: Copy, brief: Brief) -> Copy:
    """The copy with the hashtags its channel takes: none twice, none too many, none where there are none."""
    tags: dict[str, str] = {}
    for tag in copy.hashtags:
        tags.setdefault(squeezed(tag), tag)
    kept = tuple(tags.values())[: brief.limits.hashtags]
    return copy if kept == copy.hashtags else copy.model_copy(update={"hashtags": kept})


def find_faults(copy: Copy, brief: Brief) -> Iterator[str]:
    """Every reason why ``copy`` cannot be shown for ``brief``; what a review blocks comes first."""
    yield from (stop.fault for stop in find_stops(copy, brief))
    yield from _of_form(copy, brief)


def find_stops(copy: Copy, brief: Brief) -> Iterator[Stop]:
    """Everything a review blocks that can be seen without the warehouse."""
    for finding in unsupported(copy, brief):
        if finding.severity == "block":
            yield Stop(finding.rule_id, f"unsupported: {finding.span}")
    if word := forbidden(copy, brief):
        yield Stop(EXCLUSION, f"forbidden word: {word}")


def _of_form(copy: Copy, brief: Brief) -> Iterator[str]:
    yield from _off_limits(copy, brief)
    if not has_offer(copy, brief):
        yield "the offer is missing"
    if not has_event(copy, brief):
        yield "the event is missing"
    if not is_in_language(copy, brief):
        yield "another language"
    if repetition(copy) > REPEATED:
        yield "repeats itself"
    if squeezed(copy.headline) == squeezed(copy.body):
        yield "headline and body are the same"


def _off_limits(copy: Copy, brief: Brief) -> Iterator[str]:
    limits = brief.limits
    if len(copy.headline) > limits.headline:
        yield "headline too long"
    if len(copy.body) > limits.body:
        yield "body too long"
    if len(copy.body) < limits.body_min:
        yield "body too short"
    if len(copy.call_to_action) > limits.call_to_action:
        yield "call to action too long"
    if len(copy.hashtags) < limits.hashtags_min:
        yield "too few hashtags"


def forbidden(copy: Copy, brief: Brief) -> str:
    """The first forbidden word in the copy; empty: none. Latin words count as words, not inside longer ones."""
    text = plain(copy.text).text
    for word in brief.forbidden_words:
        wanted = plain(word).text.strip()
        if re.search(r"[a-z0-9]", wanted):
            found = re.search(rf"(?<![a-z0-9]){re.escape(wanted)}(?![a-z0-9])", text)
        else:
            found = re.search(re.escape(squeezed(word)), squeezed(copy.text)) if wanted else None
        if found:
            return word
    return ""


_NUMBER = re.compile(r"\d+(?:\.\d+)?")
OFFER_SHARE = 0.6


def has_offer(copy: Copy, brief: Brief) -> bool:
    """Does a promotion state its offer? Every number of it, or, of an offer without numbers, most of its words."""
    if brief.scenario != "promotion" or brief.offer is None:
        return True
    said, offer = plain(copy.text).text, plain(brief.offer.text).text
    if numbers := _NUMBER.findall(offer):
        return set(numbers) <= set(_NUMBER.findall(said))
    if re.search(r"[a-z]", offer):
        words, text = set(re.findall(r"[a-z']+", offer)), set(re.findall(r"[a-z']+", said))
        return len(words & text) >= OFFER_SHARE * len(words)
    pairs = set(_pieces(squeezed(brief.offer.text), 2))
    return len(pairs & set(_pieces(squeezed(copy.text), 2))) >= OFFER_SHARE * len(pairs)


def has_event(copy: Copy, brief: Brief) -> bool:
    """Does a copy for a hot event allude to it? One longer word of its title or keywords, or two characters of them."""
    if brief.scenario != "hot_event" or brief.event is None:
        return True
    said = squeezed(copy.text)
    for words in (brief.event.title, *brief.event.keywords):
        latin, rest = _words(words)
        longer = [word for word in latin if len(word) > 3]
        if squeezed(words) in said or any(piece in said for piece in (*longer, *rest)):
            return True
    return False


_HAN = re.compile(r"[\u3400-\u9fff]")
_LATIN = re.compile(r"[a-zà-ɏ]")


def is_in_language(copy: Copy, brief: Brief) -> bool:
    """Are the copy's letters those of its language? What the brief itself spells otherwise (a brand, a title) is its
    own; of the rest Chinese needs half in Chinese characters, English all in Latin letters."""
    own = _foreign_words(brief)
    for part in (copy.headline, copy.body):
        text = plain(part).text
        for word in own:
            text = text.replace(word, "")
        letters = [letter for letter in text if letter.isalpha()]
        han, latin = (sum(bool(kind.match(letter)) for letter in letters) for kind in (_HAN, _LATIN))
        if brief.language == "zh" and han < len(letters) / 2:
            return False
        if brief.language == "en" and latin < len(letters):
            return False
        if han + latin < len(letters):
            return False
    return True


def _foreign_words(brief: Brief) -> list[str]:
    """Words of the brief's facts in another script than its language's, longest first."""
    item = brief.item
    facts = [item.title, item.brand, *item.attributes.values()]
    facts += [brief.event.title, *brief.event.keywords] if brief.event else []
    facts += [brief.offer.name, brief.offer.text] if brief.offer else []
    script = r"[^\W\d_\u3400-\u9fff]+" if brief.language == "zh" else r"[^\W\d_a-zà-ɏ]+"
    found = {word for fact in facts for word in re.findall(script, plain(fact).text)}
    return sorted(found, key=lambda word: (-len(word), word))


def repetition(copy: Copy) -> float:
    """Share of a copy's pieces that stood in it before, 0 to 1; hashtags aside, which repeat what was said."""
    found = list(_pieces(squeezed(f"{copy.headline}\n{copy.body}\n{copy.call_to_action}"), GRAM))
    return 1 - len(set(found)) / len(found) if found else 0.0


def names_item(copy: Copy, brief: Brief) -> bool:
    """Does a reader learn what it is about: a word of the item's title, brand or category, or two characters of it?

    No duty: one good ad in seven does without, beside a picture.
    """
    said = squeezed(copy.text)
    for fact in (brief.item.title, brief.item.brand, brief.item.category.rpartition("/")[2]):
        latin, rest = _words(fact)
        if any(piece in said for piece in (*(word.removesuffix("s") for word in latin if len(word) > 2), *rest)):
            return True
    return False


def _words(text: str) -> tuple[list[str], list[str]]:
    """Latin words of a text, and pairs of its other characters."""
    normal = plain(text).text
    return re.findall(r"[a-z]+", normal), list(_pieces(re.sub(r"[a-z\s]+", "", normal), 2))


# --- likeness -----------------------------------------------------------------------------------------------------


def _pieces(text: str, length: int) -> Iterator[str]:
    return (text[at : at + length] for at in range(len(text) - length + 1))


def pieces(text: str) -> frozenset[str]:
    """The `GRAM` characters long pieces of a text, normalised, without spaces; a shorter text is its own piece."""
    joined = squeezed(text)
    return frozenset(_pieces(joined, GRAM)) or frozenset((joined,))


def similarity(one: frozenset[str], other: frozenset[str]) -> float:
    """Shared pieces as a share of the smaller text's, 0 to 1."""
    return len(one & other) / min(len(one), len(other))
