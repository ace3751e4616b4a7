"""Pictures and copies to make banners of: drawn here or part of the project, nothing from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageDraw

from adloom.copywriting.starter import starter_pairs
from adloom.creative import Brief, Copy, ItemFacts, Language, Offer, channels
from adloom.imagery.fonts import font
from adloom.imagery.pictures import Picture

LABELS = {"zh": "AI生成", "en": "AI-generated"}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Picture]:
    """A product cut out, one on a plain backdrop, one low and wide, and a photo of a textured scene."""
    folder = tmp_path_factory.mktemp("pictures")
    drawings = {"cut_out": "🥮", "backdrop": "🎧", "wide": "👟"}
    for name, character in drawings.items():
        image = Image.new("RGBA", (900, 900))
        ImageDraw.Draw(image).text((40, 40), character, font=font("emoji", 600), embedded_color=True)
        image = image.crop(image.getbbox())
        if name == "backdrop":
            ground = Image.new("RGB", (image.width + 160, image.height + 160), (246, 246, 244))
            ground.paste(image, (80, 80), image)
            image = ground
        image.save(folder / f"{name}.png")
    # A smooth scene with grain: rims of many colours, as a photo's.
    across = np.linspace(0, 1, 800)
    scene = np.stack([np.outer(across, 1 - across), np.outer(1 - across, across), np.outer(across, across)], axis=2)
    grain = np.random.default_rng(3).normal(0, 0.02, scene.shape)
    photo = Image.fromarray((255 * np.clip(0.25 + 0.6 * scene + grain, 0, 1)).astype(np.uint8))
    ImageDraw.Draw(photo).rounded_rectangle((250, 200, 560, 640), 60, fill=(180, 70, 50))
    photo.save(folder / "photo.png")
    return {name: Picture(folder / f"{name}.png", f"item 1: {name}.png", "own_photo") for name in (*drawings, "photo")}


@pytest.fixture(scope="session")
def banner_copy() -> Callable[[Language], tuple[Copy, Brief]]:
    """A copy and its brief with everything a template can show."""

    @cache
    def made(language: Language) -> tuple[Copy, Brief]:
        is_zh = language == "zh"
        item = ItemFacts(
            item_id="i1",
            title="月饼礼盒" if is_zh else "Mooncake box",
            brand="青禾" if is_zh else "Greenhusk",
            price="¥168" if is_zh else "$24.90",
            list_price="¥198" if is_zh else "$29.00",
        )
        text = "茶点礼盒 85 折" if is_zh else "15% off tea and cake gifts"
        brief = Brief(
            scenario="promotion",
            language=language,
            channel="feed",
            segment_id="s",
            item=item,
            offer=Offer(campaign_id="c", name="n", text=text),
            limits=channels(language)["feed"].limits,
        )
        if is_zh:
            return Copy(
                headline="中秋的甜，先分你一半", body="六枚装，莲蓉与豆沙各三枚。", call_to_action="去挑一盒"
            ), brief
        body = "Six cakes, lotus seed and red bean."
        return Copy(headline="Half of the sweetness is yours", body=body, call_to_action="Pick a box"), brief

    return made


@pytest.fixture(scope="session")
def real_copies() -> Callable[[int], Iterator[tuple[Copy, Brief]]]:
    """So many copies of the starter corpus with their briefs, both languages and all channels in turn."""

    def taken(count: int) -> Iterator[tuple[Copy, Brief]]:
        rows = {language: starter_pairs(language) for language in ("zh", "en")}
        for number in range(count):
            of = rows["zh" if number % 2 == 0 else "en"]
            # A step prime to the corpus walks through all of it, so channels and scenarios alternate.
            pair = of[(number // 2) * 37 % len(of)]
            yield pair.copy_, pair.brief

    return taken


@pytest.fixture(scope="session")
def labels() -> dict[str, str]:
    return dict(LABELS)
