"""Train the GAN: a plain loop that may be killed at any step and ends in the same weights.

Everything a step draws (pictures, noise, augmentation) follows from the seed and the step's number, so a checkpoint
is weights, moments and a number. ``folder/``: ``configuration.json`` (what this run is), ``pictures.npy`` (what it
learns from, decoded once and read as a memory map), ``metrics.jsonl``, ``samples/step-*.png`` (the same noise every
time) and ``checkpoint.pt`` while it runs; then ``model/`` (what `gan.Painter` opens) and ``result.json``.
Nothing here opens a warehouse: pictures come in, files go out.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from adloom.errors import AdloomError
from adloom.imagery import gan
from adloom.imagery.conditions import FIELDS, Condition, ConditionSpace, TrainingImage, refuse_minors
from adloom.imagery.pictures import Picture, PictureError, inside
from adloom.imagery.runs import Clock, Log, alone, write_whole
from adloom.imagery.sheets import sheet
from adloom.shop import Shop

log = logging.getLogger(__name__)

CHECKPOINT, METRICS, RESULT, MODEL, PICTURES, SAMPLES = (
    "checkpoint.pt",
    "metrics.jsonl",
    "result.json",
    "model",
    "pictures.npy",
    "samples",
)
CHECKPOINT_SECONDS = 30
FEWEST_PICTURES = 64
FEWEST_PER_CATEGORY = 8
"""Of fewer pictures nothing is learnt but the pictures themselves."""
MOST_BROKEN = 0.02
"""Share of pictures that may be unreadable; beyond it somebody should look before hours are spent."""
MANY_PICTURES = 20_000
"""From so many on, pictures are not augmented unless asked for: the discriminator cannot learn them by heart."""
ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
SHEET_COLUMNS, MOST_SHEET_ROWS = 10, 12


class GanSettings(BaseModel):
    """How a generator learns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Literal[28, 32, 64, 128] = 64
    width: int = Field(default=64, ge=8, le=512, description="feature maps at 16 px")
    latent: int = Field(default=64, ge=1, le=1024)
    batch_size: int = Field(default=64, ge=4, multiple_of=4)
    learning_rate: float = Field(default=1e-3, gt=0)
    max_steps: int = Field(default=30_000, gt=0)
    max_minutes: float | None = Field(default=None, gt=0, description="over all attempts together")
    penalty: float = Field(default=1.0, ge=0, description="weight of R1")
    penalty_every: int = Field(default=16, gt=0, description="steps; R1 counts as often more then")
    category_weight: float = Field(default=0.1, ge=0, description="of the class head beside the GAN's own losses")
    smoothing: float = Field(default=0.999, ge=0, lt=1, description="of the averaged weights that paint in the end")
    augment: tuple[gan.Augmentation, ...] | None = Field(
        default=None, description=f"default: all kinds below {MANY_PICTURES:,} pictures, none from there on"
    )
    mirror: bool | None = Field(default=None, description="every second picture the other way round; default: when few")
    forget: float = Field(default=0.1, ge=0, lt=1, description="how often a field, or a portrait, is left unknown")
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    report_every: int = Field(default=25, gt=0, description="steps between lines of the log")
    sheet_every: int = Field(default=1000, gt=0, description="steps between sample sheets")
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class GanResult:
    """What a finished training leaves behind."""

    model_id: str
    digest: str
    """SHA-256 of the generator's file, hex"""
    path: Path
    """folder that `gan.Painter` opens"""
    data_digest: str
    pictures: int
    left_out: dict[str, int]
    """reason → pictures that were given and not used"""
    steps: int
    pictures_seen: int
    """real ones, in all steps"""
    stopped: str
    """steps | minutes"""
    seconds: float
    device: str
    precision: str

    def __str__(self) -> str:
        left = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
        return (
            f"generator {self.model_id}: {self.steps:,} steps on {self.pictures:,} pictures in "
            f"{self.seconds / 60:.1f} min ({self.device}, {self.precision})" + (f"; left out: {left}" if left else "")
        )


@dataclass(frozen=True)
class Progress:
    """Where a training stands."""

    step: int
    steps: int
    discriminator: float
    generator: float
    per_second: float
    seconds_left: float

    def __str__(self) -> str:
        left = f"{self.seconds_left / 60:.1f} min" if self.seconds_left >= 90 else f"{self.seconds_left:.0f} s"
        return (
            f"training images: step {self.step:,} of {self.steps:,}, L_D {self.discriminator:.3f}, "
            f"L_G {self.generator:.3f}, {self.per_second:,.0f} pictures/s, about {left} left"
        )


# --- what is learnt from --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PictureSet:
    """Decoded pictures (uint8, count × channels × size × size) and what each shows.

    ``rows``: (picture, condition), a picture once for every portrait it was chosen by.
    """

    pictures: np.ndarray[Any, Any]
    rows: list[tuple[int, Condition]]
    left_out: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        refuse_minors(condition for _, condition in self.rows)

    def digest(self) -> str:
        """SHA-256 of pictures and conditions."""
        found = hashlib.sha256(str(self.pictures.shape).encode())
        for start in range(0, len(self.pictures), 1024):
            found.update(np.ascontiguousarray(self.pictures[start : start + 1024]).tobytes())
        for picture, condition in self.rows:
            found.update(f"{picture} {condition.json_line()}\n".encode())
        return found.hexdigest()


def class_folders(folder: Path) -> list[TrainingImage]:
    """The pictures of a folder of class folders: what a folder is called is the category of what lies in it."""
    found = []
    if not folder.is_dir():
        raise AdloomError(f"{folder} is no folder", "give a folder that holds one folder of pictures per category")
    for one in sorted(path for path in folder.iterdir() if path.is_dir()):
        for path in sorted(one.iterdir()):
            if path.suffix.lower() in ENDINGS:
                found.append(TrainingImage(path=str(path.relative_to(folder)), condition=Condition(category=one.name)))
    if not found:
        raise AdloomError(
            f"there are no pictures in the folders of {folder}", "give a folder with one folder per category"
        )
    return found


def read_pictures(images: Sequence[TrainingImage], root: Path, size: int, target: Path) -> PictureSet:
    """Decode pictures below ``root`` once, into ``target``, a file that is then read as a memory map.

    Middle squares, scaled to ``size``; what is transparent becomes white. Unreadable ones are left out, counted and
    named in the log; more than `MOST_BROKEN` of them, or too few good ones, are an error that names the first three.
    """
    refuse_minors(one.condition for one in images)
    paths = sorted({one.path for one in images})
    shown = {one.path: one.shown for one in images}
    kept: dict[str, int] = {}
    broken: list[PictureError] = []
    fresh = target.with_name(f".{target.name}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.lib.format.open_memmap(fresh, "w+", np.uint8, (max(1, len(paths)), 3, size, size))
    for path in paths:
        try:
            pixels[len(kept)] = _square(Picture(inside(root, path, shown[path]), shown[path], "own_photo"), size)
            kept[path] = len(kept)
        except PictureError as error:
            log.warning("left out: %s", error.message)
            broken.append(error)
    named = "; ".join(error.message for error in broken[:3])
    if len(broken) > MOST_BROKEN * len(paths):
        fresh.unlink()
        raise AdloomError(
            f"{len(broken)} of {len(paths)} pictures cannot be read: {named}{'; …' if len(broken) > 3 else ''}",
            "mend or remove them; the log names every one",
        )
    rows = _common(_widened([(kept[one.path], one.condition) for one in images if one.path in kept]))
    counts = _pictures_per_category(rows)
    rare = {category for category, count in counts.items() if count < FEWEST_PER_CATEGORY}
    used = [(picture, one) for picture, one in rows if one.category not in rare]
    left_out = {"unreadable": len(broken), "of a rare category": sum(counts[category] for category in rare)}
    enough = len({picture for picture, _ in used})
    if enough < FEWEST_PICTURES:
        fresh.unlink()
        raise AdloomError(
            f"{enough} pictures can be learnt from, at least {FEWEST_PICTURES} are needed "
            f"(categories with fewer than {FEWEST_PER_CATEGORY}: {', '.join(sorted(rare)) or 'none'}; "
            f"unreadable: {len(broken)}{f': {named}' if named else ''})",
            "deliver more pictures, or let the items show their own photos",
        )
    pixels.flush()
    fresh.replace(target)
    stored = np.load(target, mmap_mode="r")[: max(1, len(kept))]
    return PictureSet(stored, used, {reason: count for reason, count in left_out.items() if count})


def _pictures_per_category(rows: Sequence[tuple[int, Condition]]) -> Counter[str]:
    return Counter(category for _, category in {(picture, one.category) for picture, one in rows})


def _widened(rows: list[tuple[int, Condition]]) -> list[tuple[int, Condition]]:
    """Categories with too few pictures become the one around them: Clothing/Coats → Clothing."""
    while True:
        counts = _pictures_per_category(rows)
        wider = {
            category: category.rpartition("/")[0]
            for category, count in counts.items()
            if count < FEWEST_PER_CATEGORY and "/" in category
        }
        if not wider:
            return rows
        rows = [
            (picture, one.model_copy(update={"category": wider.get(one.category, one.category)}))
            for picture, one in rows
        ]


def _common(rows: list[tuple[int, Condition]]) -> list[tuple[int, Condition]]:
    """A style, age band or gender of too few pictures becomes unknown: a word of one picture is that picture."""
    names = FIELDS[1:]
    shown = {(name, getattr(one, name), picture) for picture, one in rows for name in names}
    counts = Counter((name, word) for name, word, _ in shown)
    rare = {pair for pair, count in counts.items() if count < FEWEST_PER_CATEGORY}
    return [
        (picture, one.model_copy(update={name: "" for name in names if (name, getattr(one, name)) in rare}))
        for picture, one in rows
    ]


def _square(opened: Picture, size: int) -> np.ndarray[Any, Any]:
    from PIL import Image, ImageOps

    picture = opened.image
    if picture.mode == "RGBA":
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    fitted = ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.LANCZOS)
    return np.asarray(fitted).transpose(2, 0, 1)


# --- the run --------------------------------------------------------------------------------------------------------


def train_images(
    images: Sequence[TrainingImage],
    root: Path,
    settings: GanSettings,
    folder: Path,
    *,
    device: str = "auto",
    progress: Callable[[Progress], None] | None = None,
) -> GanResult:
    """Train on picture files below ``root``; results go to ``folder``. As `train`."""
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        found = read_pictures(images, root, settings.size, folder / PICTURES)
        return _train(found, settings, folder, device, progress)


def train_for_shop(
    images: Sequence[TrainingImage],
    shop: Shop,
    day: date,
    settings: GanSettings,
    *,
    device: str = "auto",
    progress: Callable[[Progress], None] | None = None,
) -> GanResult:
    """Train on the shop's catalogue; the generator goes to ``models/images/DAY-ID``, where drawing looks for it.

    ``models/image_trainings/`` holds the run: the same pictures and settings go on there, and a finished run is kept.
    """
    order = [settings.model_dump_json(), *(one.json_line() for one in images)]
    name = f"{day.isoformat()}-{hashlib.sha256(json.dumps(order).encode()).hexdigest()[:12]}"
    folder = shop.models / "image_trainings" / name
    result = train_images(images, shop.images, settings, folder, device=device, progress=progress)
    target = shop.models / "images" / f"{day.isoformat()}-{result.model_id}"
    if not target.is_dir():
        fresh = target.with_name(f".{target.name}.tmp")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(result.path, fresh)
        fresh.replace(target)
    return replace(result, path=target)


def train(
    pictures: PictureSet,
    settings: GanSettings,
    folder: Path,
    *,
    device: str = "auto",
    progress: Callable[[Progress], None] | None = None,
) -> GanResult:
    """Train on decoded pictures. A finished run is returned as it is, one cut off goes on, another one is replaced."""
    with alone(folder):
        return _train(pictures, settings, folder, device, progress)


def _train(
    pictures: PictureSet,
    settings: GanSettings,
    folder: Path,
    device: str,
    progress: Callable[[Progress], None] | None,
) -> GanResult:
    chosen = gan.chosen_device(device)
    space = ConditionSpace.of([condition for _, condition in pictures.rows])
    channels = pictures.pictures.shape[1]
    shape = gan.Shape(size=settings.size, channels=channels, width=settings.width, latent=settings.latent, space=space)
    identity = {
        # How long it may take is no part of what a run is: one that is cut off may go on with more time.
        "settings": settings.model_dump(mode="json", exclude={"max_minutes"}),
        "shape": shape.model_dump(mode="json"),
        "data_digest": pictures.digest(),
    }
    model_id = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    if (finished := _finished(folder, model_id)) is not None:
        return finished
    _begin(folder, identity | {"model_id": model_id})
    run = _Run(pictures, shape, settings, folder, chosen, model_id, progress or _log_about_every_second())
    with torch.random.fork_rng(devices=[chosen] if chosen.type == "cuda" else []):
        try:
            return run.train(identity)
        except torch.OutOfMemoryError as error:
            raise AdloomError(
                f"the GPU's memory does not hold this training: {str(error).partition('.')[0]}",
                "lower batch_size or width",
            ) from error


def read_result(folder: Path) -> GanResult:
    """The result of a finished training in ``folder``."""
    try:
        content = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        return GanResult(**content | {"path": folder / content["path"]})
    except FileNotFoundError as error:
        raise AdloomError(f"{folder}: no {RESULT}: the training did not finish", "run train-images again") from error
    except (ValueError, KeyError, TypeError) as error:
        raise AdloomError(f"{folder / RESULT}: {error}", "remove the folder and run train-images again") from error


def _finished(folder: Path, model_id: str) -> GanResult | None:
    if not (folder / RESULT).is_file():
        return None
    result = read_result(folder)
    return result if result.model_id == model_id else None


def _begin(folder: Path, configuration: dict[str, Any]) -> None:
    """Clear the folder of another run, and write what this one is."""
    path = folder / "configuration.json"
    text = json.dumps(configuration, ensure_ascii=False, indent=1, sort_keys=True)
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    for name in (RESULT, CHECKPOINT, METRICS, "configuration.json"):
        (folder / name).unlink(missing_ok=True)
    for old in (*(folder / SAMPLES).glob("step-*.png"), *(folder / MODEL).glob("*")):
        old.unlink()
    write_whole(path, lambda fresh: fresh.write_text(text, encoding="utf-8"))


@dataclass
class _Batch:
    """What one step is made of, on the device."""

    real: Tensor
    noise: Tensor
    of_real: tuple[Tensor, Tensor]
    of_fake: tuple[Tensor, Tensor]
    chance: torch.Generator


class _Run:
    """One training from its first step, or its last checkpoint, to its result."""

    def __init__(  # noqa: PLR0917
        self,
        data: PictureSet,
        shape: gan.Shape,
        settings: GanSettings,
        folder: Path,
        device: torch.device,
        model_id: str,
        told: Callable[[Progress], None],
    ) -> None:
        self.data, self.shape, self.settings, self.folder, self.device = data, shape, settings, folder, device
        self.model_id, self.told = model_id, told
        self.clock = Clock(settings.max_minutes)
        self.log = Log(folder / METRICS)
        self.step = 0
        self.stopped = ""
        torch.manual_seed(settings.seed)
        self.generator = gan.placed(gan.Generator(shape), device)
        self.critic = gan.placed(gan.Discriminator(shape), device)
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        rate = settings.learning_rate
        # No momentum, as with every GAN that alternates; the decays are those of StyleGAN2.
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), lr=rate, betas=(0.0, 0.99), eps=1e-8, fused=True)
            for name, network in (("generator", self.generator), ("critic", self.critic))
        }
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        has_few = len(data.pictures) < MANY_PICTURES
        self.mirror = has_few if settings.mirror is None else settings.mirror
        usual = gan.AUGMENTATIONS if has_few else ()
        self.augment = usual if settings.augment is None else settings.augment
        self.precision = settings.precision
        if self.precision == "auto":
            self.precision = "bfloat16" if gan.has_fast_bfloat16(device) else "float32"
        self.numbers, self.interests = gan.tensors(shape.space, [condition for _, condition in data.rows])
        self.places = np.array([picture for picture, _ in data.rows])
        self.chances = _chances([condition.category for _, condition in data.rows])

    # --- steps ---

    def train(self, identity: dict[str, Any]) -> GanResult:
        self._resume()
        settings = self.settings
        if self.step == 0:
            self._write_sheet()
        written, writing_took = self.clock.seconds, 0.0
        reported, seconds = self.clock.seconds, list[float]()
        while not self.stopped:
            self._take_step()
            self.step += 1
            is_last = self.step >= settings.max_steps
            if self.step % settings.report_every and not is_last:
                continue
            now = self.clock.seconds
            seconds = [*seconds[-19:], (now - reported) / settings.report_every]
            reported = now
            self._report(sum(seconds) / len(seconds))
            if is_last:
                self.stopped = "steps"
            elif self.clock.left < 1.2 * settings.report_every * max(seconds[-3:]):
                self.stopped = "minutes"
            if self.stopped or self.step % settings.sheet_every == 0:
                self._write_sheet()
            if self.stopped or now - written > max(CHECKPOINT_SECONDS, 20 * writing_took):
                began = self.clock.seconds
                self._write_checkpoint()
                written = self.clock.seconds
                writing_took = written - began
        return self._finish(identity)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def _batch(self) -> _Batch:
        settings = self.settings
        chance = torch.Generator().manual_seed(settings.seed * 1_000_003 + self.step)
        size = settings.batch_size
        drawn = torch.searchsorted(self.chances, torch.rand(2, size, generator=chance, dtype=torch.float64))
        drawn = drawn.clamp(max=len(self.places) - 1)
        real = torch.from_numpy(np.ascontiguousarray(self.data.pictures[self.places[drawn[0].numpy()]]))
        if self.mirror:
            is_turned = torch.rand(size, generator=chance) < 0.5
            real[is_turned] = real[is_turned].flip(3)
        return _Batch(
            real=gan.from_bytes(real.to(self.device)),
            noise=torch.randn(size, self.shape.latent, generator=chance).to(self.device),
            of_real=self._conditions(drawn[0], chance),
            of_fake=self._conditions(drawn[1], chance),
            chance=chance,
        )

    def _conditions(self, rows: Tensor, chance: torch.Generator) -> tuple[Tensor, Tensor]:
        """Numbers and interests of rows; everything but the category is left unknown now and then.

        Each field by itself, and as often the whole portrait: what is asked for where nobody is personalised.
        """
        numbers, interests = self.numbers[rows].clone(), self.interests[rows]
        forgotten = torch.rand(len(rows), numbers.shape[1] + 1, generator=chance) < self.settings.forget
        is_nobody = torch.rand(len(rows), generator=chance) < self.settings.forget
        forgotten[:, FIELDS.index("age_band") :] |= is_nobody[:, None]
        numbers[:, 1:] *= ~forgotten[:, 1:-1]
        return numbers.to(self.device), (interests * ~forgotten[:, -1:]).to(self.device)

    def _take_step(self) -> None:
        """The discriminator learns, then the generator, on the same generated pictures: they are drawn once."""
        settings, batch = self.settings, self._batch()
        size = settings.batch_size
        self.generator.train()
        with self._autocast():
            fake = self.generator(batch.noise, *batch.of_fake)
            both = torch.cat((batch.real, fake.detach()))
            conditions = [torch.cat(pair) for pair in zip(batch.of_real, batch.of_fake, strict=True)]
            scores, categories = self.critic(gan.augment(both, self.augment, batch.chance), *conditions)
        loss_critic = gan.discriminator_loss(scores[:size], scores[size:])
        told_apart = functional.cross_entropy(categories[:size], batch.of_real[0][:, 0])
        total = loss_critic + settings.category_weight * told_apart
        if settings.penalty and self.step % settings.penalty_every == 0:
            total = total + self._penalty(batch)
        self._learn("critic", total)
        self.critic.requires_grad_(False)
        with self._autocast():
            again, as_category = self.critic(gan.augment(fake, self.augment, batch.chance), *batch.of_fake)
        loss_generator = gan.generator_loss(again)
        recognised = functional.cross_entropy(as_category, batch.of_fake[0][:, 0])
        self._learn("generator", loss_generator + settings.category_weight * recognised)
        self.critic.requires_grad_(True)
        self._average_weights()
        self._count(
            loss_discriminator=loss_critic,
            loss_generator=loss_generator,
            loss_category_real=told_apart,
            loss_category_fake=recognised,
            score_real=scores[:size].mean(),
            score_fake=scores[size:].mean(),
        )

    def _penalty(self, batch: _Batch) -> Tensor:
        """R1 on half the batch, in float32; it counts for the steps it was left out of."""
        half = self.settings.batch_size // 2 // gan.GROUP * gan.GROUP or self.settings.batch_size
        pictures = gan.augment(batch.real[:half], self.augment, batch.chance).requires_grad_(True)
        scores, _ = self.critic(pictures, batch.of_real[0][:half], batch.of_real[1][:half])
        found = gan.gradient_penalty(scores, pictures)
        self._count(penalty=found)
        return 0.5 * self.settings.penalty * self.settings.penalty_every * found

    def _learn(self, name: str, loss: Tensor) -> None:
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def _average_weights(self) -> None:
        # Few steps have little to average: the first pictures would be those of the untrained network.
        keep = min(self.settings.smoothing, (1 + self.step) / (10 + self.step))
        for mean, one in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            mean.lerp_(one, 1 - keep)
        for kept, now in zip(self.average.buffers(), self.generator.buffers(), strict=True):
            if kept.dtype.is_floating_point:
                kept.lerp_(now, 1 - keep)

    def _count(self, **values: Tensor) -> None:
        for name, value in values.items():
            # Added up where they are: reading a number off a GPU waits for it.
            before = self.sums.get(name)
            self.sums[name] = value.detach() if before is None else before + value.detach()
            self.counts[name] = self.counts.get(name, 0) + 1

    def _report(self, each: float) -> None:
        means = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        if not all(map(math.isfinite, means.values())):
            raise AdloomError(f"the losses are no numbers any more at step {self.step}", "lower learning_rate")
        self.sums, self.counts = {}, {}
        settings = self.settings
        rate = settings.batch_size / max(each, 1e-9)
        self.log.add(self.step, self.clock.seconds, **means, pictures_per_second=rate)
        left = max(0.0, min((settings.max_steps - self.step) * each, self.clock.left))
        steps = min(settings.max_steps, self.step + int(left / max(each, 1e-9)))
        self.told(Progress(self.step, steps, means["loss_discriminator"], means["loss_generator"], rate, left))

    # --- files ---

    def _write_sheet(self) -> None:
        """A row per category, the same noise in every sheet."""
        conditions = [condition for _, condition in self.data.rows]
        first = {one.category: one for one in reversed(conditions)}
        shown = [first[category] for category in self.shape.space.category[:MOST_SHEET_ROWS]]
        asked = [one for one in shown for _ in range(SHEET_COLUMNS)]
        numbers, interests = (one.to(self.device) for one in gan.tensors(self.shape.space, asked))
        drawn = gan.noise(list(range(len(asked))), self.shape.latent).to(self.device)
        with torch.inference_mode():
            pictures = gan.to_bytes(self.average(drawn, numbers, interests)).cpu().numpy()
        image = sheet(pictures, SHEET_COLUMNS, [one.category for one in shown])
        path = self.folder / SAMPLES / f"step-{self.step:07d}.png"
        write_whole(path, lambda fresh: image.save(fresh, format="PNG"))

    def _write_checkpoint(self) -> None:
        content = {
            "model_id": self.model_id,
            "step": self.step,
            "stopped": self.stopped,
            "precision": self.precision,
            "networks": {name: network.state_dict() for name, network in self._networks().items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }
        write_whole(self.folder / CHECKPOINT, lambda path: _save(content, path))

    def _networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "critic": self.critic, "average": self.average}

    def _resume(self) -> None:
        path = self.folder / CHECKPOINT
        if path.is_file():
            try:
                content = torch.load(path, map_location=self.device, weights_only=True)
                for name, network in self._networks().items():
                    network.load_state_dict(content["networks"][name])
                for name, optimizer in self.optimizers.items():
                    optimizer.load_state_dict(content["optimizers"][name])
            except Exception as error:
                raise AdloomError(f"{path}: unreadable ({error})", "remove it; the training starts anew") from error
            self.step, self.stopped, self.precision = content["step"], content["stopped"], content["precision"]
            log.info("training images: goes on after step %d", self.step)
        self.clock.add(self.log.seconds())
        self.log.cut_after(self.step, self.log.seconds())

    def _finish(self, identity: dict[str, Any]) -> GanResult:
        settings, target = self.settings, self.folder / MODEL
        generator, critic = (save(_plain(network)) for network in (self.average, self.critic))
        digest = hashlib.sha256(generator).hexdigest()
        counts = Counter(condition.category for _, condition in self.data.rows)
        config = {
            "shape": self.shape.model_dump(mode="json"),
            "digest": digest,
            "model_id": self.model_id,
            "settings": identity["settings"],
            "data_digest": identity["data_digest"],
            "pictures": len(set(self.places.tolist())),
            "categories": dict(sorted(counts.items())),
            "steps": self.step,
        }
        text = json.dumps(config, ensure_ascii=False, indent=1, sort_keys=True)
        write_whole(target / gan.CRITIC, lambda path: path.write_bytes(critic))
        write_whole(target / gan.GENERATOR, lambda path: path.write_bytes(generator))
        write_whole(target / gan.CONFIG, lambda path: path.write_text(text, encoding="utf-8"))
        result = GanResult(
            model_id=self.model_id,
            digest=digest,
            path=target,
            data_digest=identity["data_digest"],
            pictures=config["pictures"],
            left_out=self.data.left_out,
            steps=self.step,
            pictures_seen=self.step * settings.batch_size,
            stopped=self.stopped,
            seconds=round(self.clock.seconds, 1),
            device=self.device.type,
            precision=self.precision,
        )
        content = json.dumps(asdict(result) | {"path": MODEL}, ensure_ascii=False, indent=1, sort_keys=True)
        write_whole(self.folder / RESULT, lambda path: path.write_text(content, encoding="utf-8"))
        (self.folder / CHECKPOINT).unlink(missing_ok=True)
        return result


def _chances(categories: Sequence[str]) -> Tensor:
    """Cumulative chances of rows: a category's share grows with the root of its size, so that rare ones are learnt."""
    counts = Counter(categories)
    weights = torch.tensor([counts[one] ** -0.5 for one in categories], dtype=torch.float64)
    return (weights / weights.sum()).cumsum(0)


def _plain(network: nn.Module) -> dict[str, Tensor]:
    return {name: one.detach().cpu().contiguous() for name, one in network.state_dict().items()}


def _save(content: dict[str, Any], path: Path) -> None:
    with path.open("wb") as stream:
        torch.save(content, stream)


def _log_about_every_second() -> Callable[[Progress], None]:
    last = 0.0

    def told(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 5 or progress.step == progress.steps:
            last = now
            log.info("%s", progress)

    return told
