"""Training the GAN: resumable, deterministic, and clear about pictures it cannot learn from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from adloom.cli import app
from adloom.errors import AdloomError
from adloom.imagery import gan, generating, training
from adloom.imagery.conditions import Condition, ConditionSpace, TrainingImage
from adloom.imagery.runs import Log
from adloom.imagery.training import (
    GanResult,
    GanSettings,
    PictureSet,
    class_folders,
    read_pictures,
    read_result,
    train,
    train_for_shop,
    train_images,
)
from adloom.shop import Shop

TINY = GanSettings(
    size=28,
    width=8,
    latent=8,
    batch_size=8,
    max_steps=24,
    report_every=4,
    sheet_every=12,
    penalty_every=4,
    precision="float32",
    augment=("translation",),
)


def tiny_pictures(count: int = 80) -> PictureSet:
    """Bright and dark squares."""
    chance = np.random.default_rng(1)
    pictures = np.empty((count, 1, 28, 28), np.uint8)
    rows = []
    for one in range(count):
        is_bright = one % 2 == 0
        pictures[one] = chance.integers(200, 256) if is_bright else chance.integers(0, 56)
        rows.append((one, Condition(category="bright" if is_bright else "dark")))
    return PictureSet(pictures, rows)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> GanResult:
    return train(tiny_pictures(), TINY, tmp_path_factory.mktemp("run"), device="cpu")


CHILD = """
    import os, sys, torch
    from pathlib import Path
    torch.set_num_threads({threads})
    sys.path.insert(0, {here!r})
    from adloom.imagery import training
    from test_gan_training import TINY, tiny_pictures
    training.CHECKPOINT_SECONDS = 0
    written = training._Run._write_checkpoint
    def write(run):
        written(run)
        if run.step >= 8:
            print("checkpoint", flush=True)
            import time; time.sleep(60)
    training._Run._write_checkpoint = write
    training.train(tiny_pictures(), TINY, Path(sys.argv[1]), device="cpu")
"""


def test_a_killed_training_goes_on_to_the_same_weights_and_curve(trained: GanResult, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    child = textwrap.dedent(CHILD.format(here=str(Path(__file__).parent), threads=torch.get_num_threads()))
    process = subprocess.Popen([sys.executable, "-c", child, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "checkpoint"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(AdloomError, match="did not finish"):
        read_result(folder)
    result = train(tiny_pictures(), TINY, folder, device="cpu")
    assert result.digest == trained.digest

    def curve(path: Path) -> list[tuple[int, str, float]]:
        lines = Log(path / "metrics.jsonl").read()
        timed = {"pictures_per_second", "resumed"}
        return [(one["step"], one["metric"], one["value"]) for one in lines if one["metric"] not in timed]

    assert curve(folder) == curve(trained.path.parent)
    assert any(one["metric"] == "resumed" for one in Log(folder / "metrics.jsonl").read())


def test_a_finished_training_is_not_repeated_and_leaves_what_is_needed(trained: GanResult) -> None:
    folder = trained.path.parent
    began = time.monotonic()
    assert train(tiny_pictures(), TINY, folder, device="cpu") == trained
    assert time.monotonic() - began < 2
    assert sorted(path.name for path in trained.path.iterdir()) == [gan.CONFIG, gan.CRITIC, gan.GENERATOR]
    assert sorted(path.name for path in (folder / "samples").iterdir()) == [
        "step-0000000.png",
        "step-0000012.png",
        "step-0000024.png",
    ]
    assert not (folder / "checkpoint.pt").exists()
    assert json.loads((trained.path / gan.CONFIG).read_text())["categories"] == {"bright": 40, "dark": 40}


def test_the_condition_decides_what_is_painted(tmp_path: Path) -> None:
    longer = TINY.model_copy(update={"max_steps": 150, "report_every": 50, "sheet_every": 1000, "augment": ()})
    result = train(tiny_pictures(), longer, tmp_path / "run", device="cpu")
    painter = gan.Painter(result.path, "cpu")
    bright, dark = (
        painter.paint([Condition(category=one)] * 8, range(8)).float().mean().item() for one in ("bright", "dark")
    )
    assert bright > dark + 60


def test_only_few_pictures_are_mirrored_and_augmented_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(many: int, **chosen: Any) -> training._Run:
        monkeypatch.setattr(training, "MANY_PICTURES", many)
        settings = TINY.model_copy(update={"augment": None} | chosen)
        data = tiny_pictures()
        shape = gan.Shape(size=28, channels=1, width=8, space=ConditionSpace(category=("bright", "dark")))
        return training._Run(data, shape, settings, tmp_path, torch.device("cpu"), "id", print)

    few, many, asked = run(81), run(80), run(80, mirror=True, augment=("cutout",))
    assert (few.mirror, few.augment) == (True, gan.AUGMENTATIONS)
    assert (many.mirror, many.augment) == (False, ())
    assert (asked.mirror, asked.augment) == (True, ("cutout",))


def test_a_minute_cap_ends_a_training(tmp_path: Path) -> None:
    capped = TINY.model_copy(update={"max_steps": 1_000_000, "max_minutes": 0.02, "report_every": 1})
    result = train(tiny_pictures(), capped, tmp_path, device="cpu")
    assert result.stopped == "minutes"
    assert 0 < result.steps < 1000


def test_a_picture_does_not_depend_on_what_is_painted_beside_it(trained: GanResult) -> None:
    painter = gan.Painter(trained.path, "cpu")
    conditions = [Condition(category="bright" if one % 3 else "dark") for one in range(20)]
    whole = painter.paint(conditions, range(20), candidates=3)
    shards = [painter.paint(conditions[start::7], range(start, 20, 7), candidates=3) for start in range(7)]
    assert all(bool((whole[start::7] == part).all()) for start, part in enumerate(shards))
    assert not bool((whole == painter.paint(conditions, range(20, 40), candidates=3)).all())


def test_a_changed_generator_is_refused(trained: GanResult, tmp_path: Path) -> None:
    for path in trained.path.iterdir():
        content = path.read_bytes()
        (tmp_path / path.name).write_bytes(content[:-4] + b"abcd" if path.name == gan.GENERATOR else content)
    with pytest.raises(AdloomError, match="is not what"):
        gan.Painter(tmp_path, "cpu")
    with pytest.raises(AdloomError, match="there is no generator"):
        gan.Painter(tmp_path / "nowhere", "cpu")


# --- what is learnt from ---


def picture_folder(folder: Path, count: int = 40) -> Path:
    for name in ("coats", "shoes"):
        (folder / name).mkdir(parents=True)
        for one in range(count):
            Image.new("RGB", (40, 50), (one, 2 * one, 90)).save(folder / name / f"{one:02d}.png")
    return folder


def test_broken_pictures_are_named_and_too_many_of_them_stop_the_training(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "data")
    (folder / "coats" / "07.png").write_bytes(b"no picture")
    found = read_pictures(class_folders(folder), folder, 28, tmp_path / "pictures.npy")
    assert len(found.pictures) == 79
    assert found.left_out == {"unreadable": 1}
    whole = (folder / "shoes" / "30.png").read_bytes()
    (folder / "shoes" / "31.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AdloomError) as caught:
        train_images(class_folders(folder), folder, TINY, tmp_path / "run")
    assert "2 of 80" in caught.value.message
    assert "coats/07.png" in caught.value.message
    assert "shoes/31.png" in caught.value.message


def test_too_few_pictures_are_refused_with_the_number_needed(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "data", count=40)
    (folder / "hats").mkdir()
    Image.new("RGB", (40, 40)).save(folder / "hats" / "one.png")
    found = read_pictures(class_folders(folder), folder, 28, tmp_path / "pictures.npy")
    assert found.left_out == {"of a rare category": 1}
    few = picture_folder(tmp_path / "few", count=20)
    with pytest.raises(AdloomError, match="40 pictures can be learnt from, at least 64"):
        train_images(class_folders(few), few, TINY, tmp_path / "run")
    with pytest.raises(AdloomError, match="no pictures in the folders"):
        class_folders(tmp_path / "run")


def test_a_rare_category_is_learnt_as_the_one_around_it(tmp_path: Path) -> None:
    picture_folder(tmp_path / "data")
    images = [
        TrainingImage(path=f"coats/{one:02d}.png", condition=Condition(category=f"Clothing/{name}"))
        for one, name in enumerate(["Coats"] * 30 + ["Scarves"] * 3 + ["Hats"] * 5)
    ] + [TrainingImage(path=f"shoes/{one:02d}.png", condition=Condition(category="Shoes")) for one in range(40)]
    found = read_pictures(images, tmp_path / "data", 28, tmp_path / "pictures.npy")
    counts = Counter(condition.category for _, condition in found.rows)
    assert counts == {"Clothing/Coats": 30, "Clothing": 8, "Shoes": 40}


def test_a_shops_generator_lies_where_drawing_looks_for_it(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop()
    picture_folder(shop.images)
    images = [
        TrainingImage(path=f"{name}/{one:02d}.png", condition=Condition(category=name, interests=("coats",)))
        for name in ("coats", "shoes")
        for one in range(40)
    ]
    settings = TINY.model_copy(update={"max_steps": 4})
    result = train_for_shop(images, shop, date(2024, 3, 1), settings, device="cpu")
    assert generating.generator_folder(shop, date(2024, 3, 1)) == result.path
    assert train_for_shop(images, shop, date(2024, 3, 1), settings, device="cpu") == result
    assert gan.Painter(result.path, "cpu").paint([Condition(category="shoes")], [1]).shape == (1, 3, 28, 28)


def test_a_transparent_picture_is_learnt_on_white(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "data")
    see_through = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    see_through.putpixel((20, 20), (10, 10, 10, 255))
    see_through.save(folder / "coats" / "00.png")
    found = read_pictures(class_folders(folder), folder, 28, tmp_path / "pictures.npy")
    assert found.pictures[0].max() == 255
    assert found.pictures[0, :, 0, 0].tolist() == [255, 255, 255]


def test_no_training_takes_a_condition_of_a_minor() -> None:
    with pytest.raises(AdloomError, match="under 18"):
        PictureSet(np.zeros((1, 3, 28, 28), np.uint8), [(0, Condition(category="coats", age_band="13-17"))])


def test_the_command_trains_on_a_folder_and_says_what_is_wrong(tmp_path: Path, adloom_home: Path) -> None:
    folder, out = picture_folder(tmp_path / "data"), tmp_path / "out"
    asked = ["train-images", "--data", str(folder), "--out", str(out), "--size", "28", "--steps", "2"]
    done = CliRunner().invoke(app, [*asked, "--batch-size", "8", "--json"])
    assert done.exit_code == 0, done.output
    assert read_result(out).steps == json.loads(done.stdout)["steps"] == 2
    for wrong in (["--shop", "s"], [*asked[1:3]], [*asked[1:], "--shop", "s", "--day", "2024-03-01"]):
        assert CliRunner().invoke(app, ["train-images", *wrong]).exit_code == 2
    assert CliRunner().invoke(app, [*asked[:5], "--size", "30"]).exit_code == 2
