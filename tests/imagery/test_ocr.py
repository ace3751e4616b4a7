"""An independent reader, rapidocr, reads headline and label back from the finished files.

Counted are letters, figures and Han characters of headline and label, folded by NFKC; I, l and 1 count as equal, which
in a sans serif they are. The banner is read at the width of a phone's screen, where its reader sees it.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adloom.creative import Brief, Copy, Language
from adloom.imagery.checking import check, failed
from adloom.imagery.composing import Composed, compose, encode
from adloom.imagery.formats import formats, image_format
from adloom.imagery.pictures import Picture

Copies = Callable[[int], Iterator[tuple[Copy, Brief]]]
LABEL = {"zh": "AI生成", "en": "AI-generated"}
REQUIRED = 0.98
PHONE = 720
"""Pixels of the long side of what is read."""


@pytest.fixture(scope="module")
def reader() -> Any:
    rapidocr = pytest.importorskip("rapidocr", reason="rapidocr is not installed (requirements-dev.in)")
    return rapidocr.RapidOCR(params={"Global.log_level": "error", "EngineConfig.onnxruntime.intra_op_num_threads": 1})


def _folded(text: str) -> str:
    kept = "".join(one for one in unicodedata.normalize("NFKC", text) if one.isalnum())
    return kept.lower().translate(str.maketrans("l1", "ii"))


def _read(reader: Any, content: bytes) -> list[tuple[tuple[float, float], str]]:
    """Centres (shares of the image) and texts."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    image.thumbnail((PHONE, PHONE), Image.Resampling.LANCZOS)
    result = reader(np.asarray(image)[:, :, ::-1], use_cls=False)  # nothing is upside down
    if result.boxes is None:
        return []
    centres = [(box[:, 0].mean() / image.width, box[:, 1].mean() / image.height) for box in result.boxes]
    return list(zip(centres, result.txts, strict=True))


def _recognised(composed: Composed, found: list[tuple[tuple[float, float], str]], kind: str) -> tuple[int, int]:
    """Characters of one kind of text that were read where they stand, and how many there are."""
    right = total = 0
    for drawn in composed.of(kind):
        left, top, end, bottom = drawn.box
        wide, high = composed.format.width, composed.format.height
        inside = [(x, text) for (x, y), text in found if left <= x * wide <= end and top - 6 <= y * high <= bottom + 6]
        read = _folded("".join(text for _, text in sorted(inside)))
        wanted = _folded(drawn.text)
        right += max(0, len(wanted) - _distance(wanted, read))
        total += len(wanted)
    return right, total


def _distance(first: str, second: str) -> int:
    """Levenshtein's."""
    row = list(range(len(second) + 1))
    for number, one in enumerate(first, start=1):
        before, row[0] = row[0], number
        for at, other in enumerate(second, start=1):
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, before + (one != other))
    return row[-1]


def _banners(copies: Copies, pictures: dict[str, Picture], count: int) -> Iterator[tuple[Composed, str]]:
    sizes = cycle(formats())
    shown, size = cycle(pictures.values()), formats()[0]
    for number, (copy, brief) in enumerate(copies(count)):
        # Two steps of one, so that languages, formats and pictures meet in all pairs.
        if number % 2 == 0:
            size = next(sizes)
        yield compose(copy, brief, next(shown), size, label=LABEL[brief.language]), brief.language


def _shares(reader: Any, banners: Iterator[tuple[Composed, str]]) -> tuple[dict[tuple[str, str], list[int]], list[str]]:
    counts: dict[tuple[str, str], list[int]] = {}
    worst = []
    for composed, language in banners:
        found = _read(reader, encode(composed.image, 500_000)[0])
        for kind in ("headline", "label"):
            right, total = _recognised(composed, found, kind)
            sums = counts.setdefault((language, kind), [0, 0])
            sums[0] += right
            sums[1] += total
            if right < total:
                wanted = " / ".join(one.text for one in composed.of(kind))
                worst.append(
                    f"{composed.format.name} {composed.template} {kind} “{wanted}”: {[t for _, t in found][:9]}"
                )
    return counts, worst


def _require(reader: Any, copies: Copies, pictures: dict[str, Picture], count: int) -> None:
    counts, worst = _shares(reader, _banners(copies, pictures, count))
    shares = {f"{language} {kind}": right / total for (language, kind), (right, total) in counts.items()}
    print(count, "banners:", {name: f"{share:.4f}" for name, share in shares.items()}, *worst, sep="\n")
    assert len(shares) == 4
    assert min(shares.values()) >= REQUIRED, "\n".join([str(shares), *worst])


def test_headline_and_label_are_read_back(reader: Any, real_copies: Copies, pictures: dict[str, Picture]) -> None:
    _require(reader, real_copies, pictures, 20)


@pytest.mark.proof
@pytest.mark.timeout(1800)  # a second or two a banner
def test_headline_and_label_are_read_back_from_200(
    reader: Any, real_copies: Copies, pictures: dict[str, Picture]
) -> None:
    _require(reader, real_copies, pictures, 200)


def test_a_pale_headline_is_neither_read_nor_let_through(
    reader: Any, banner_copy: Callable[[Language], tuple[Copy, Brief]], pictures: dict[str, Picture]
) -> None:
    copy, brief = banner_copy("en")
    composed = compose(copy, brief, pictures["cut_out"], image_format("feed_1080x1080"), "card", label="AI-generated")
    image = composed.image.copy()
    for one in composed.of("headline"):
        part = image.crop(one.box)
        image.paste(Image.blend(part, Image.new("RGB", part.size, "white"), 0.97), one.box)
    content, _ = encode(image, 500_000)
    assert "contrast" in [one.rule for one in failed(check(replace(composed, image=image), content, 500_000))]
    right, total = _recognised(composed, _read(reader, content), "headline")
    assert right / total < 0.5
