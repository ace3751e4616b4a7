"""Shards of orders in, finished banners and videos out: files only, so that a worker needs no warehouse.

A shard is worked off order by order, the orders of one picture after each other, so that the picture is opened once.
Every finished file is renamed into place, and what was made of an order is one line in a partial file: a shard killed
at any point goes on behind its last whole line and ends with the same bytes. A shard whose inputs (orders, pictures,
this code) are the same is left alone. Memory holds a few pictures and one banner, however many a shard has.

What goes wrong with a picture or a text concerns its own banner: it becomes a finding that blocks the creative, and
the rest of the shard is made.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from adloom.creative import AI_LABEL, _Row, read_rows
from adloom.errors import AdloomError, Busy, GateFailed
from adloom.imagery import handover
from adloom.imagery.handover import VIDEO, DrawOrder, ImageOrder
from adloom.imagery.pictures import GanPictures, NoPicture, Opened, OwnPhotos, Picture, PictureError, inside
from adloom.settings import settings
from adloom.shop import PictureKind, Shop

log = logging.getLogger(__name__)

FORMAT = 1
"""Goes up when the same orders would make other rows: finished shards of before are then made again."""
LABEL_BYTES = 6_000
"""What the label may add to a file: banners are written so much smaller than their channel's limit."""
DRAWN_AT_ONCE = 32
CANDIDATES = 2
"""Drawn per picture; the one that shows its category best is kept."""

Severity = Literal["block", "warn"]
Labeller = Callable[[Path, str, PictureKind], str]
"""Writes the AI label into a finished file, reads it back and returns it as JSON: (file, creative_id, source).
Raises `GateFailed` where the label that was read is not the one that was written."""


class ImageFinding(_Row):
    """What is wrong with an image. ``rule_id``: image.picture, image.text, image.label or a check's name."""

    rule_id: str
    severity: Severity
    reason: str
    span: str = Field(default="", description="what of the image it is about, where a check finds several things")


class Asset(_Row):
    """A finished file, as ``adloom.assets`` has it."""

    kind: Literal["image", "video"]
    path: str = Field(description="relative to the shop's creatives folder")
    sha256: str = Field(description="of the file, hex")
    width: int
    height: int
    bytes: int
    template: str
    picture_source: PictureKind
    picture_digest: str
    checks: dict[str, Any]
    label: str = Field(description="JSON, as it was read back from the file")


class Made(_Row):
    """What became of one ordered image: a file, or the findings that say why there is none."""

    creative_id: str
    creative_hash: str
    format: str
    asset: Asset | None = None
    findings: tuple[ImageFinding, ...] = ()


class _Line(_Row):
    """What became of one order: a line of a partial file."""

    creative_id: str
    made: tuple[Made, ...]


@dataclass(frozen=True)
class ImageShard:
    """What became of a shard. ``was_finished``: nothing had to be done."""

    path: Path
    creatives: int
    images: int
    refused: int
    """ordered images that could not be made, or have a finding that blocks them"""
    opened: int = 0
    """pictures that were decoded for them"""
    was_finished: bool = False


def compose(shop: Shop, day: date, shards: Sequence[str], label: Labeller) -> list[ImageShard]:
    """Make the banners and videos of the named shards. Finished shards are left alone."""
    return [compose_shard(shop, day, name, label) for name in shards]


def compose_shard(shop: Shop, day: date, shard: str, label: Labeller) -> ImageShard:
    """Make the banners and videos of one shard; `AdloomError` where it cannot go on at all."""
    path = handover.made_path(shop, day, shard)
    orders = list(handover.orders(shop, day, shard))
    inputs = _inputs(shop, day, shard, orders)
    if (finished := _finished(shop, path, inputs)) is not None:
        log.info("%s: finished before, %d images", path.name, finished.images)
        return finished
    try:
        return _Work(shop, day, label).run(orders, path, inputs)
    except OSError as error:
        raise AdloomError(
            f"{path.name}: {error.strerror or error} ({error.filename or path.parent})",
            "make room or mend the folder, and run the step again: it goes on where it stopped",
        ) from error


class _Work:
    """One pass over a shard."""

    def __init__(self, shop: Shop, day: date, label: Labeller) -> None:
        self.shop, self.day, self.label = shop, day, label
        self.folder = handover.folder_of(shop, day)
        self.sources: dict[PictureKind, Opened] = {}

    def run(self, orders: list[ImageOrder], path: Path, inputs: dict[str, Any]) -> ImageShard:
        self._open_sources(orders)
        (self.folder / handover.FILES).mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        with _Partial(partial, handover.digest_of(inputs)) as lines:
            self._sweep({one.creative_id for one in orders})
            done = {line.creative_id: line for line in lines.kept() if self._stands(line)}
            progress = _Progress(path.name, sum(len(one.formats) for one in orders))
            progress.skip(sum(len(line.made) for line in done.values()))
            for order in orders:
                if order.creative_id not in done:
                    line = _Line(creative_id=order.creative_id, made=tuple(self._order(order)))
                    lines.append(line)
                    done[order.creative_id] = line
                    progress.made(line.made)
            made = [one for order in orders for one in done[order.creative_id].made]
            progress.finish()
            _write_shard(path, made, inputs)
            partial.unlink()
        return _counted(path, made, opened=sum(one.opened for one in self.sources.values()))

    def _open_sources(self, orders: Iterable[ImageOrder]) -> None:
        paths = {one.brief.item.item_id: one.image for one in orders}
        again = f"run `adloom generate-images --shop {self.shop.id} --day {self.day}`"
        self.sources = {
            "own_photo": Opened(OwnPhotos(self.shop.images, paths)),
            "gan": Opened(GanPictures(self.folder / handover.DRAWN, again)),
        }

    def _sweep(self, creatives: set[str]) -> None:
        """Remove what a run that was killed left half written. Other shards' files are none of this one's business."""
        for entry in os.scandir(self.folder / handover.FILES):
            if entry.name.startswith(".") and entry.name.lstrip(".").partition("_")[0] in creatives:
                os.unlink(entry.path)

    def _stands(self, line: _Line) -> bool:
        """Are the files of an earlier run still what it left?"""
        return all(one.asset is None or _is_intact(self.shop, one.asset) for one in line.made)

    def _order(self, order: ImageOrder) -> Iterable[Made]:
        try:
            picture = self.sources[order.source].picture(order.brief)
        except PictureError as error:
            # Without any picture a copy may still run as text, if a person says so; a broken one is a mistake to mend.
            finding = _finding("image.picture", error, "warn" if isinstance(error, NoPicture) else "block")
            return [_made(order, name, findings=(finding,)) for name in order.formats]
        return [self._one(order, name, picture) for name in order.formats]

    def _one(self, order: ImageOrder, name: str, picture: Picture) -> Made:
        target = self.folder / handover.FILES / handover.file_name(order.creative_id, name)
        fresh = target.with_name(f".{target.name}.tmp")
        try:
            drawn = _video(order, picture, fresh) if name == VIDEO else _banner(order, name, picture, fresh)
            label = self.label(fresh, order.creative_id, order.source)
            content = fresh.read_bytes()
            findings = drawn.findings
            if len(content) > drawn.most_bytes:
                too_heavy = f"the file has {len(content):,} bytes, the channel takes {drawn.most_bytes:,}"
                findings = (*findings, ImageFinding(rule_id="image.weight", severity="block", reason=too_heavy))
            os.replace(fresh, target)
        except GateFailed as error:
            return _made(order, name, findings=(_finding("image.label", error),))
        except AdloomError as error:
            # A video is more than its channel asks for: without it the creative still has its images.
            severity: Severity = "warn" if name == VIDEO else "block"
            return _made(order, name, findings=(_finding("image.text", error, severity),))
        finally:
            fresh.unlink(missing_ok=True)
        asset = Asset(
            kind="video" if name == VIDEO else "image",
            path=target.relative_to(self.shop.creatives).as_posix(),
            sha256=hashlib.sha256(content).hexdigest(),
            width=drawn.width,
            height=drawn.height,
            bytes=len(content),
            template=drawn.template,
            picture_source=order.source,
            picture_digest=picture.digest,
            checks=drawn.checks,
            label=label,
        )
        return _made(order, name, asset, findings)


@dataclass(frozen=True)
class _Drawn:
    """A written file before it is labelled."""

    width: int
    height: int
    template: str
    most_bytes: int
    checks: dict[str, Any]
    findings: tuple[ImageFinding, ...] = ()


MOST_VIDEO_BYTES = 30_000_000


def _banner(order: ImageOrder, name: str, picture: Picture, path: Path) -> _Drawn:
    from adloom.imagery import composing, formats
    from adloom.imagery.checking import check, failed

    size = formats.image_format(name)
    most = formats.channel_images(order.brief.channel).most_bytes
    words = AI_LABEL[order.brief.language]
    composed = composing.compose(order.copy_, order.brief, picture, size, label=words)
    content, quality = composing.encode(composed.image, most - LABEL_BYTES)
    results = check(composed, content, most)
    path.write_bytes(content)
    measured = {one.rule: [one.measured, one.required] for one in results}
    found = tuple(
        ImageFinding(rule_id=f"image.{one.rule}", severity="block", reason=one.detail) for one in failed(results)
    )
    left_out = {"left_out": list(composed.left_out)} if composed.left_out else {}
    told = {"quality": quality, "measured": measured, **left_out}
    return _Drawn(size.width, size.height, composed.template, most, told, found)


def _video(order: ImageOrder, picture: Picture, path: Path) -> _Drawn:
    from adloom.imagery.video import compose_video

    made = compose_video(picture, order.copy_, order.brief, path)
    return _Drawn(made.width, made.height, made.template, MOST_VIDEO_BYTES, {"seconds": made.seconds})


def _made(order: ImageOrder, name: str, asset: Asset | None = None, findings: tuple[ImageFinding, ...] = ()) -> Made:
    return Made(
        creative_id=order.creative_id, creative_hash=order.creative_hash, format=name, asset=asset, findings=findings
    )


def _finding(rule_id: str, error: AdloomError, severity: Severity = "block") -> ImageFinding:
    said = f"{error.message} → {error.next_step}" if error.next_step else error.message
    return ImageFinding(rule_id=rule_id, severity=severity, reason=said)


# --- what a generator draws ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DrawnPictures:
    """What became of the day's orders to a generator."""

    ordered: int
    drawn: int
    """now; the others were there already"""

    def __str__(self) -> str:
        if not self.ordered:
            return "no pictures to draw: the shop's images show photos"
        return f"{self.drawn} pictures drawn, {self.ordered - self.drawn} were there"


def generate_images(shop: Shop, day: date) -> DrawnPictures:
    """Draw the day's ordered pictures with the shop's generator; those that are there are kept."""
    handover.planned(shop, day)
    folder = handover.folder_of(shop, day)
    orders = list(read_rows(folder / f"{handover.DRAWN}.jsonl", DrawOrder))
    if not orders:
        return DrawnPictures(0, 0)
    from adloom.imagery.gan import Painter

    painter = Painter(generator_folder(shop, day), settings().device)
    target = folder / handover.DRAWN
    target.mkdir(parents=True, exist_ok=True)
    stamp = target / f".{handover.digest_of([painter.digest, CANDIDATES])[:16]}"
    if not stamp.is_file():
        # Of another generator, or of none.
        for path in [*target.glob("*.png"), *target.glob(".[0-9a-f]*")]:
            path.unlink()
        stamp.touch()
    missing = [one for one in orders if not _is_drawn(target / f"{one.name}.png", one)]
    progress = _Progress("pictures", len(orders))
    progress.skip(len(orders) - len(missing))
    for page in handover.pages(missing, DRAWN_AT_ONCE):
        pictures = painter.paint([one.condition for one in page], [one.seed for one in page], CANDIDATES)
        for order, picture in zip(page, pictures, strict=True):
            _write_png(target / f"{order.name}.png", picture.numpy(), order)
        progress.add(len(page))
    progress.finish()
    return DrawnPictures(len(orders), len(missing))


def generator_folder(shop: Shop, day: date) -> Path:
    """The trained generator that the shop's file names, else its newest one as of ``day``."""
    from adloom.imagery.gan import CONFIG

    if shop.imagery.generator is not None:
        return shop.models / shop.imagery.generator
    trained = [path.parent for path in (shop.models / "images").glob(f"*/{CONFIG}")]
    # Folders are named DAY-ID; those that begin with a dot are being written.
    known = sorted(
        path for path in trained if path.name[: len("2024-03-01")] <= day.isoformat() and path.name[0] != "."
    )
    if not known:
        raise AdloomError(
            f"{shop.id} has no generator of pictures trained by {day} in {shop.models / 'images'}",
            f"run `adloom select-images` and `adloom train-images --shop {shop.id} --day {day}`, "
            "or set imagery.source: own_photo in the shop's file",
        )
    return known[-1]


def _is_drawn(path: Path, order: DrawOrder) -> bool:
    """Is the picture there, and of this very order? An item that was filed elsewhere since is drawn again."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return bool(image.info.get("order") == order.digest)
    except OSError:
        return False


def _write_png(path: Path, pixels: Any, order: DrawOrder) -> None:
    """``pixels``: channels × height × width, 0 to 255."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    fresh = path.with_name(f".{path.name}.tmp")
    told = PngInfo()
    told.add_text("order", order.digest)
    image.save(fresh, "PNG", pnginfo=told)
    fresh.replace(path)


# --- shards -------------------------------------------------------------------------------------------------------


def made(shop: Shop, day: date, shards: Iterable[str]) -> Iterable[Made]:
    """The rows of finished shards, in order."""
    for name in shards:
        path = handover.made_path(shop, day, name)
        if not path.is_file():
            raise AdloomError(
                f"{path.name} is not there: its shard is not finished",
                f"run `adloom compose --shop {shop.id} --day {day}`",
            )
        yield from read_rows(path, Made)


def _inputs(shop: Shop, day: date, shard: str, orders: Iterable[ImageOrder]) -> dict[str, Any]:
    """All that decides what a shard becomes."""
    drawn = handover.folder_of(shop, day) / handover.DRAWN
    pictures = set()
    for order in orders:
        if order.source == "gan":
            pictures.add(drawn / f"{order.picture_key[2]}.png")
        elif order.image.strip():
            # A path that leads out of the folder is not opened here either; what is wrong with it is said later.
            with suppress(PictureError):
                pictures.add(inside(shop.images, order.image, order.creative_id))
    return {
        "format": FORMAT,
        "code": _code_digest(),
        "orders": _file_digest(handover.orders_path(shop, day, shard)),
        "pictures": handover.digest_of({str(path): _file_digest(path) for path in sorted(pictures)}),
        "producer": shop.ai_label_producer_id,
    }


@cache
def _code_digest() -> str:
    """Of this room and of what labels its files: what other code or templates composed is composed again."""
    package, digest = Path(__file__).parents[1], hashlib.sha256(json.dumps(AI_LABEL, sort_keys=True).encode())
    room, above = package / "imagery", package / "publishing"
    for path in sorted([*room.rglob("*.py"), *room.rglob("*.yml"), above / "labels.py", above / "metadata.py"]):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    """SHA-256, hex; empty where there is no such file."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError):
        return ""


def _is_intact(shop: Shop, asset: Asset) -> bool:
    return _file_digest(shop.creatives / asset.path) == asset.sha256


def _manifest(path: Path) -> Path:
    return path.with_name(f"{path.name}.manifest.json")


def _finished(shop: Shop, path: Path, inputs: dict[str, Any]) -> ImageShard | None:
    """The shard as a run with the same inputs left it, if it did and every file of it is unchanged."""
    try:
        manifest = json.loads(_manifest(path).read_text(encoding="utf-8"))
        if manifest["inputs"] != inputs or manifest["sha256"] != _file_digest(path):
            return None
        rows = list(read_rows(path, Made))
    except (OSError, ValueError, KeyError, TypeError, AdloomError):
        return None
    if not all(one.asset is None or _is_intact(shop, one.asset) for one in rows):
        return None
    return _counted(path, rows, was_finished=True)


def _counted(path: Path, rows: Sequence[Made], opened: int = 0, was_finished: bool = False) -> ImageShard:
    refused = sum(one.asset is None or any(found.severity == "block" for found in one.findings) for one in rows)
    return ImageShard(path, len({one.creative_id for one in rows}), len(rows) - refused, refused, opened, was_finished)


def _write_shard(path: Path, rows: Iterable[Made], inputs: dict[str, Any]) -> None:
    """Rows and manifest, each whole or not at all; the manifest last, because it vouches for the rows."""
    fresh = path.with_name(f".{path.name}.tmp")
    fresh.write_text("".join(one.json_line() + "\n" for one in rows), encoding="utf-8")
    digest = _file_digest(fresh)
    fresh.replace(path)
    fresh.write_text(json.dumps({"inputs": inputs, "sha256": digest}, sort_keys=True, indent=1) + "\n")
    fresh.replace(_manifest(path))


class _Partial:
    """What was made of a shard's orders so far: a line that names the inputs, then one per order."""

    def __init__(self, path: Path, inputs: str) -> None:
        self._path, self._head = path, json.dumps({"inputs": inputs}).encode() + b"\n"

    def __enter__(self) -> _Partial:
        self._stream = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._stream.close()
            raise Busy(f"{self._path.name}: another process is writing it") from error
        content = self._stream.read()
        whole = content.rfind(b"\n") + 1 if content.startswith(self._head) else 0
        self._lines = content[len(self._head) : whole].splitlines()
        self._stream.seek(whole)
        self._stream.truncate()
        if not whole:
            self._stream.write(self._head)
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def kept(self) -> Iterable[_Line]:
        """The whole lines of an earlier run with the same inputs."""
        return [_Line.model_validate_json(line) for line in self._lines]

    def append(self, line: _Line) -> None:
        self._stream.write(line.json_line().encode() + b"\n")
        self._stream.flush()


class _Progress:
    """A log line about once a second: images done and to come, refused ones, time left."""

    def __init__(self, name: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._total, self._clock = name, total, clock
        self._done = self._before = self._refused = 0
        self._began = self._told = clock()

    def skip(self, images: int) -> None:
        """So many were made by an earlier run."""
        self._done = self._before = images
        if images:
            log.info("%s: goes on behind %d of %d images", self._name, images, self._total)

    def made(self, rows: Sequence[Made]) -> None:
        """One more order was worked off."""
        self._refused += sum(one.asset is None for one in rows)
        self.add(len(rows))

    def add(self, images: int) -> None:
        """So many more."""
        self._done += images
        now = self._clock()
        if now - self._told < 1:
            return
        self._told = now
        left = (now - self._began) / (self._done - self._before) * (self._total - self._done)
        log.info(
            "%s: %d of %d images, %d refused, %d:%02d left",
            *(self._name, self._done, self._total, self._refused, *divmod(round(left), 60)),
        )

    def finish(self) -> None:
        seconds = self._clock() - self._began
        log.info(
            "%s: %d images, %d refused, %d:%02d",
            *(self._name, self._total, self._refused, *divmod(round(seconds), 60)),
        )
