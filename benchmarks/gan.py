"""How good are the GAN's pictures? Trained on class folders (or Debian's Fashion-MNIST), judged beside real pictures.

    .venv/bin/python benchmarks/gan.py --fashion-mnist --minutes 25
    .venv/bin/python benchmarks/gan.py --data FOLDER --size 64 --minutes 60      FOLDER/train/CLASS, FOLDER/test/CLASS

A classifier is trained on the same training pictures, with a seed, shape and augmentation of its own; the generator
never sees it. Generated are as many pictures of every class as there are real test pictures of it. Then:

- conditional accuracy: how often the classifier sees the class that was asked for, beside its accuracy on real ones
- precision and recall: manifolds of 3 neighbours in the classifier's features, generated against real test pictures;
  beside them what as many real training pictures reach
- diversity: mean distance between two pictures of a class, as a share of the real test pictures' own
- memorised: nearer to a training picture than all but 1 % of real test pictures are; 1 % would be chance. In pixels
  (at most 32 px, of photos also mirrored); in features beside it

Exit code 1 where a target is missed. ``--keep`` holds the training (which goes on where it was cut off), the
classifier, ``figures.json`` and ``sheet.png``: a row per class, real test pictures left, generated ones right.
"""

from __future__ import annotations

import os

# Read when torch loads: threads that wait by spinning slow each other down wherever a core is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import gzip
import json
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent))

import gan_metrics as metrics

from adloom.errors import AdloomError
from adloom.imagery import gan
from adloom.imagery.conditions import Condition
from adloom.imagery.runs import alone, write_whole
from adloom.imagery.sheets import sheet
from adloom.imagery.training import MANY_PICTURES, GanSettings, PictureSet, class_folders, read_pictures, train
from adloom.settings import settings

FASHION = Path("/usr/share/datasets/fashion-mnist")
FASHION_NAMES = (
    "T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
SHEET_COLUMNS = 6
MOST_PIXELS = 32
"""Side at which pixels are compared."""


@dataclass(frozen=True)
class Targets:
    """What must be reached; ``accuracy`` as a share of the classifier's accuracy on real test pictures."""

    accuracy: float
    recall: float
    diversity: float
    memorised: float = 0.02


FASHION_TARGETS = Targets(accuracy=1.0, recall=0.5, diversity=0.0)
PHOTO_TARGETS = Targets(accuracy=0.9, recall=0.3, diversity=0.7)


@dataclass(frozen=True)
class Labelled:
    """Pictures (uint8, count × channels × size × size), the class of each, and what classes are called."""

    pictures: np.ndarray
    classes: np.ndarray
    names: tuple[str, ...]


# --- data -----------------------------------------------------------------------------------------------------------


def fashion_mnist(folder: Path, part: str) -> Labelled:
    """``part``: train or t10k."""

    def read(kind: str, offset: int) -> np.ndarray:
        for name in (f"{part}-{kind}-ubyte.gz", f"{part}-{kind}-ubyte"):
            if (folder / name).is_file():
                content = (folder / name).read_bytes()
                content = gzip.decompress(content) if name.endswith(".gz") else content
                return np.frombuffer(content, np.uint8)[offset:].copy()  # one that may be written to, as torch wants it
        raise AdloomError(
            f"{folder}: no {part}-{kind}-ubyte.gz", "apt-get install dataset-fashion-mnist, or name its folder"
        )

    pictures = read("images-idx3", 16).reshape(-1, 1, 28, 28)
    return Labelled(pictures, read("labels-idx1", 8).astype(np.int64), FASHION_NAMES)


def photos(folder: Path, part: str, size: int, work: Path) -> Labelled:
    """``part``: train or test, folders of class folders."""
    found = read_pictures(class_folders(folder / part), folder / part, size, work / f"{part}-{size}.npy")
    names = tuple(sorted({condition.category for _, condition in found.rows}))
    places = [picture for picture, _ in found.rows]
    classes = np.array([names.index(condition.category) for _, condition in found.rows])
    return Labelled(np.asarray(found.pictures[places]), classes, names)


# --- the classifier -------------------------------------------------------------------------------------------------


class Classifier(nn.Module):
    """A plain convolutional network; `features` are what it decides on."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before, side = channels, size
        while side > 7:
            maps = min(128, 32 * size // side)
            layers += [nn.Conv2d(before, maps, 4, stride=2, padding=1), nn.BatchNorm2d(maps), nn.ReLU()]
            before, side = maps, side // 2
        self.layers = nn.Sequential(*layers)
        self.hidden = nn.Linear(before * side * side, 128)
        self.out = nn.Linear(128, classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers(x.contiguous(memory_format=torch.channels_last)).flatten(1)
        return functional.relu(self.hidden(functional.dropout(x, 0.3, self.training)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(functional.dropout(self.features(x), 0.3, self.training))


def train_classifier(data: Labelled, epochs: int, device: torch.device, seed: int = 20_240) -> Classifier:
    """Adam on cross-entropy with mirrored and shifted pictures; colours vary a little where there are any."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        chance = np.random.default_rng(seed)
        _, channels, size, _ = data.pictures.shape
        model = Classifier(channels, size, len(data.names)).to(device, memory_format=torch.channels_last)
        steps = epochs * (len(data.pictures) // 128)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
        fast = gan.has_fast_bfloat16(device)
        kinds: tuple[gan.Augmentation, ...] = ("translation",) if channels == 1 else ("colour", "translation")
        shifts = torch.Generator().manual_seed(seed)
        model.train()
        for step in range(steps):
            if step % (steps // epochs) == 0:
                order = chance.permutation(len(data.pictures))
                if sys.stderr.isatty() or step % (5 * (steps // epochs)) == 0:
                    print(f"classifier: step {step} of {steps}", file=sys.stderr)
            rows = order[(step * 128) % (len(order) // 128 * 128) :][:128]
            x = gan.from_bytes(torch.from_numpy(data.pictures[rows])).to(device)
            mirrored = torch.from_numpy(chance.random(len(rows)) < 0.5).to(device)
            x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
            # Half of the pictures stay in place, as all that it is going to judge are.
            x = torch.cat((gan.augment(x[: len(x) // 2], kinds, shifts), x[len(x) // 2 :]))
            with torch.autocast(device.type, torch.bfloat16, enabled=fast):
                said = model(x)
            loss = functional.cross_entropy(
                said.float(), torch.from_numpy(data.classes[rows]).to(device), label_smoothing=0.05
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.inference_mode()
def judged(model: Classifier, pictures: np.ndarray, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """(features, class) of every picture, in float32."""
    features, classes = [], []
    for start in range(0, len(pictures), 256):
        found = model.features(gan.from_bytes(torch.from_numpy(pictures[start : start + 256])).to(device))
        features.append(found.cpu().numpy())
        classes.append(model.out(found).argmax(1).cpu().numpy())
    return np.concatenate(features), np.concatenate(classes)


# --- figures --------------------------------------------------------------------------------------------------------


def generate(folder: Path, classes: np.ndarray, names: Sequence[str], candidates: int, device: str) -> np.ndarray:
    """A generated picture per wanted class."""
    painter = gan.Painter(folder, device)
    found = []
    for start in range(0, len(classes), 64):
        wanted = classes[start : start + 64]
        seeds = range(start, start + len(wanted))
        conditions = [Condition(category=names[one]) for one in wanted]
        found.append(painter.paint(conditions, list(seeds), candidates).numpy())
    return np.concatenate(found)


def pixels(pictures: np.ndarray) -> np.ndarray:
    """Pictures as rows of numbers from 0 to 1, at most 32 px a side."""
    x = torch.from_numpy(np.ascontiguousarray(pictures)).float() / 255
    if x.shape[-1] > MOST_PIXELS:
        x = functional.interpolate(x, size=MOST_PIXELS, mode="area")
    return x.flatten(1).numpy()


def measure(  # noqa: PLR0917
    model: Classifier,
    generated: np.ndarray,
    asked: np.ndarray,
    training: Labelled,
    test: Labelled,
    device: torch.device,
) -> dict[str, Any]:
    """Every figure of the report."""
    of_test, said_of_test = judged(model, test.pictures, device)
    of_training, _ = judged(model, training.pictures, device)
    of_generated, said = judged(model, generated, device)
    chance = np.random.default_rng(7)
    # As many real training pictures of every class: what a perfect generator would reach.
    twins = np.concatenate(
        [
            chance.choice(
                np.flatnonzero(training.classes == one), min(count, int((training.classes == one).sum())), False
            )
            for one, count in enumerate(np.bincount(test.classes, minlength=len(test.names)))
        ]
    )
    seen = pixels(training.pictures)
    if training.pictures.shape[1] > 1:
        # Photos are learnt both ways round.
        seen = np.concatenate((seen, pixels(training.pictures[..., ::-1])))
    generated_pixels, test_pixels = pixels(generated), pixels(test.pictures)
    right = said == asked
    return {
        "classifier_accuracy": float((said_of_test == test.classes).mean()),
        "conditional_accuracy": float(right.mean()),
        "accuracy_by_class": {name: float(right[asked == one].mean()) for one, name in enumerate(test.names)},
        "precision": metrics.covered(of_generated, of_test),
        "recall": metrics.covered(of_test, of_generated),
        "precision_of_real": metrics.covered(of_training[twins], of_test),
        "recall_of_real": metrics.covered(of_test, of_training[twins]),
        "diversity": metrics.spread(of_generated, asked) / metrics.spread(of_test, test.classes),
        "diversity_pixels": metrics.spread(generated_pixels, asked) / metrics.spread(test_pixels, test.classes),
        "memorised": metrics.memorised(generated_pixels, seen, test_pixels),
        "memorised_features": metrics.memorised(of_generated, of_training, of_test),
        "generated": len(generated),
        "test": len(test.pictures),
        "training": len(training.pictures),
    }


def report(found: dict[str, Any], targets: Targets) -> bool:
    """Print the figures; whether all targets are met."""
    share = found["conditional_accuracy"] / found["classifier_accuracy"]
    low, high = metrics.interval(found["conditional_accuracy"], found["generated"])
    real_low, real_high = metrics.interval(found["classifier_accuracy"], found["test"])
    lines = [
        (
            f"conditional accuracy {found['conditional_accuracy']:.3f} "
            f"({low:.3f}–{high:.3f}, {found['generated']:,} generated); "
            f"the classifier on {found['test']:,} real test pictures {found['classifier_accuracy']:.3f} "
            f"({real_low:.3f}–{real_high:.3f})",
            f"{share:.3f} × of it",
            f"≥ {targets.accuracy:g} ×",
            share >= targets.accuracy,
        ),
        (
            f"recall (real training pictures: {found['recall_of_real']:.3f})",
            f"{found['recall']:.3f}",
            f"≥ {targets.recall:g}",
            found["recall"] >= targets.recall,
        ),
        (
            f"diversity within a class, share of real test pictures' (pixels: {found['diversity_pixels']:.3f})",
            f"{found['diversity']:.3f}",
            f"≥ {targets.diversity:g}" if targets.diversity else "",
            found["diversity"] >= targets.diversity,
        ),
        (
            f"memorised (in features: {found['memorised_features']:.4f}; {found['training']:,} training pictures)",
            f"{found['memorised']:.4f}",
            f"≤ {targets.memorised:g}",
            found["memorised"] <= targets.memorised,
        ),
        (
            f"precision (real training pictures: {found['precision_of_real']:.3f})",
            f"{found['precision']:.3f}",
            "",
            True,
        ),
    ]
    for what, value, target, is_met in lines:
        mark = "  " if not target else "✓ " if is_met else "✗ "
        print(f"{mark}{what}: {value}{f' (target {target})' if target else ''}")
    weakest = sorted(found["accuracy_by_class"].items(), key=lambda one: one[1])[:3]
    print("  weakest classes: " + ", ".join(f"{name} {value:.2f}" for name, value in weakest))
    return all(is_met for *_, is_met in lines)


def write_sheet(path: Path, generated: np.ndarray, asked: np.ndarray, test: Labelled) -> None:
    """A row per class: real test pictures, a gap, generated ones; the first of each, none chosen."""
    rows = []
    for one in range(len(test.names)):
        real, fake = (
            some[kind == one][:SHEET_COLUMNS] for some, kind in ((test.pictures, test.classes), (generated, asked))
        )
        blank = np.full((1, *test.pictures.shape[1:]), 255, np.uint8)
        filled = [np.concatenate((part, *[blank] * (SHEET_COLUMNS - len(part)))) for part in (real, fake)]
        rows.append(np.concatenate((filled[0], blank, filled[1])))
    image = sheet(np.concatenate(rows), 2 * SHEET_COLUMNS + 1, test.names)
    write_whole(path, lambda fresh: image.save(fresh, format="PNG"))


# --- the command ----------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--data", type=Path, help="folder with train/CLASS and test/CLASS")
    data.add_argument("--fashion-mnist", type=Path, nargs="?", const=FASHION, help=f"its folder, default {FASHION}")
    parser.add_argument("--size", type=int, default=64, choices=gan.SIZES, help="pixels; Fashion-MNIST has 28")
    parser.add_argument("--minutes", type=float, help="cap of the GAN's training, over all attempts")
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--batch-size", type=int, help="default 64, or 32 below 20,000 pictures")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="more of `GanSettings`, values as JSON"
    )
    parser.add_argument("--candidates", type=int, default=1, help="drawn per picture, the critic keeps one")
    parser.add_argument("--epochs", type=int, help="of the classifier; default 6, or 40 below 20,000 pictures")
    parser.add_argument("--most-test", type=int, help="real test pictures that are looked at, of every class as many")
    parser.add_argument("--model", type=Path, help="judge this generator instead of training one")
    parser.add_argument("--keep", type=Path, help="folder for everything that is made, and goes on from there")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    with tempfile.TemporaryDirectory() as scratch:
        work = arguments.keep or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        try:
            with alone(work):
                return _run(arguments, work)
        except AdloomError as error:
            print(f"✗ {error.message}\n  next: {error.next_step}", file=sys.stderr)
            return 1


def _run(arguments: argparse.Namespace, work: Path) -> int:
    device = settings().device
    chosen = gan.chosen_device(device)
    if arguments.fashion_mnist is not None:
        training, test = (fashion_mnist(arguments.fashion_mnist, part) for part in ("train", "t10k"))
        targets, size = FASHION_TARGETS, 28
    else:
        training, test = (photos(arguments.data, part, arguments.size, work) for part in ("train", "test"))
        targets, size = PHOTO_TARGETS, arguments.size
    if training.names != test.names:
        raise AdloomError("training and test pictures are not of the same classes", "give both the same class folders")
    if arguments.most_test is not None:
        test = _fewer(test, arguments.most_test // len(test.names))
    model = arguments.model
    if model is None:
        chosen_settings: dict[str, Any] = {
            "size": size,
            "width": arguments.width,
            # Pictures a second hardly depend on it on a CPU: of few pictures, twice the steps are worth more.
            "batch_size": arguments.batch_size or (32 if len(training.pictures) < MANY_PICTURES else 64),
            "max_steps": arguments.steps,
            "max_minutes": arguments.minutes,
        }
        chosen_settings |= {name: json.loads(value) for name, _, value in (one.partition("=") for one in arguments.set)}
        rows = [(place, Condition(category=training.names[one])) for place, one in enumerate(training.classes)]
        result = train(PictureSet(training.pictures, rows), GanSettings(**chosen_settings), work / "gan", device=device)
        print(f"{result}; {result.pictures_seen:,} pictures seen, stopped by {result.stopped}")
        model = result.path
    classifier = _classifier(training, arguments.epochs, work / f"classifier-{size}.pt", chosen)
    began = time.monotonic()
    generated = generate(model, test.classes, test.names, arguments.candidates, device)
    seconds = time.monotonic() - began
    print(f"{len(generated):,} pictures of {size} px in {seconds:.1f} s: {len(generated) / seconds:,.0f} a second")
    write_sheet(work / "sheet.png", generated, test.classes, test)
    found = measure(classifier, generated, test.classes, training, test, chosen)
    is_met = report(found, targets)
    (work / "figures.json").write_text(json.dumps(found, ensure_ascii=False, indent=1))
    if arguments.keep:
        print(f"sheet: {work / 'sheet.png'}")
    return 0 if is_met else 1


def _fewer(data: Labelled, each: int) -> Labelled:
    """The first pictures of every class."""
    rows = np.concatenate([np.flatnonzero(data.classes == one)[:each] for one in range(len(data.names))])
    return Labelled(data.pictures[rows], data.classes[rows], data.names)


def _classifier(training: Labelled, epochs: int | None, path: Path, device: torch.device) -> Classifier:
    """The classifier in ``path``, or a fresh one that is then kept there."""
    if epochs is None:
        epochs = 40 if len(training.pictures) < MANY_PICTURES else 6
    if path.is_file():
        _, channels, size, _ = training.pictures.shape
        model = Classifier(channels, size, len(training.names))
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.to(device).eval()
    model = train_classifier(training, epochs, device)
    write_whole(path, lambda fresh: torch.save(model.state_dict(), fresh))
    return model


if __name__ == "__main__":
    sys.exit(main())
