"""How fast are banners made? Adloom's composing against a plain Pillow script and against a browser, one layout.

    .venv/bin/python benchmarks/imagery.py                        banners, and pictures of the generator
    .venv/bin/python benchmarks/imagery.py --generator FOLDER     with trained weights: speed needs none
    .venv/bin/python benchmarks/imagery.py --only banners | gan

Banners are 1080 × 1080, the layout "card" of ``imagery/templates``, of the sample shop's items in both languages.
Adloom sets the text without orphan punctuation, chooses colours and contrast from the picture, encodes under the
channel's limit, runs every check on the finished file, writes the AI label and reads it back. The plain script
opens the picture, pastes it, wraps lines at a fixed number of characters, draws and saves: no check, no label,
fixed colours. The browser is one warm headless Chromium that is given the same layout as HTML and takes a
screenshot as JPEG.

Compared are CPU seconds (of the browser: of all its processes), because a banner a second and core is what a machine of
many cores is planned by; elapsed time is given beside it. Wanted: 0.7 × the plain script, 5 × the browser.

Generator: pictures a second on the CPU and, where there is a card, floating-point operations of a batch as a share of
what a large matrix product in bfloat16 reaches on it in the same run.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import platform
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from PIL import Image, ImageDraw, features

from adloom.creative import AI_LABEL, Brief, Copy, CopyLimits, ItemFacts, Language
from adloom.errors import AdloomError
from adloom.imagery.checking import check, failed
from adloom.imagery.composing import compose, encode
from adloom.imagery.fonts import font
from adloom.imagery.formats import image_format
from adloom.imagery.pictures import Opened, OwnPhotos
from adloom.publishing import labels
from adloom.simulation.catalogue import Item, catalogue
from adloom.simulation.pictures import file_name, write_pictures

FORMAT = image_format("feed_1080x1080")
SIDE = 1080
MOST_BYTES = 500_000
RATIOS = {"pillow": 0.7, "chromium": 5.0}
CHROMIUM = Path("/usr/bin/chromium")
LABEL = labels.Label("benchmark", "0" * 16, "compositeWithTrainedAlgorithmicMedia")
LANGUAGES: tuple[Language, Language] = ("zh", "en")


@dataclass(frozen=True)
class Order:
    """One banner to make."""

    brief: Brief
    copy: Copy
    picture: Path


@dataclass(frozen=True)
class Timing:
    """What making ``banners`` took."""

    banners: int
    cpu_seconds: float
    seconds: float

    @property
    def rate(self) -> float:
        return self.banners / self.cpu_seconds


# --- what is made ---------------------------------------------------------------------------------------------------


def orders(folder: Path, items: int, per_item: int) -> list[Order]:
    """Banners of the sample shop's items, those of an item after each other."""
    shop = catalogue()
    chosen = shop.items[:: max(1, len(shop.items) // items)][:items]
    write_pictures(folder, [item.item_id for item in chosen])
    found = []
    for item in chosen:
        for number in range(per_item):
            language = LANGUAGES[number % 2]
            found.append(Order(_brief(item, language), _copy(item, language, number), folder / file_name(item.item_id)))
    return found


def _brief(item: Item, language: Language) -> Brief:
    facts = ItemFacts(
        item_id=item.item_id,
        title=item.title[language],
        brand=item.brand[language],
        price=f"¥{item.price:g}",
        list_price=f"¥{item.list_price:g}",
        attributes=item.attributes[language],
    )
    return Brief(
        scenario="recommendation",
        language=language,
        channel="feed",
        segment_id="all",
        item=facts,
        limits=CopyLimits(headline=45, body=180, call_to_action=20),
    )


def _copy(item: Item, language: Language, number: int) -> Copy:
    values = list(item.attributes[language].items())[:3]
    if language == "zh":
        body = f"{'，'.join(f'{name}{value}' for name, value in values)}。第{number + 1}次心动，不如带回家慢慢用。"
        return Copy(headline="认真挑的，自己也想要", body=body, call_to_action="去看看")
    body = f"{'. '.join(f'{name}: {value}' for name, value in values)}. Reason {number + 1} to bring it home this week."
    return Copy(headline="The one we would pick ourselves", body=body, call_to_action="Take a look")


# --- three ways -----------------------------------------------------------------------------------------------------


def adloom(made: Sequence[Order], target: Path) -> None:
    """As `adloom compose` does it, file by file."""
    source = Opened(OwnPhotos(made[0].picture.parent, {one.brief.item.item_id: one.picture.name for one in made}))
    for number, one in enumerate(made):
        picture = source.picture(one.brief)
        composed = compose(one.copy, one.brief, picture, FORMAT, "card", label=AI_LABEL[one.brief.language])
        content, _ = encode(composed.image, MOST_BYTES)
        if wrong := failed(check(composed, content, MOST_BYTES)):
            raise AdloomError(f"a banner fails {wrong[0].rule}: {wrong[0].detail}", "mend the template")
        path = target / f"{number}.jpg"
        path.write_bytes(content)
        labels.label_file(path, LABEL)


def pillow(made: Sequence[Order], target: Path) -> None:
    """What one writes in an hour."""
    for number, one in enumerate(made):
        item, language = one.brief.item, one.brief.language
        picture = Image.open(one.picture).convert("RGB")
        canvas = Image.new("RGB", (SIDE, SIDE), picture.getpixel((2, 2)))
        picture = picture.resize((545, 545), Image.Resampling.LANCZOS)
        canvas.paste(picture, ((SIDE - 545) // 2, 0))
        draw = ImageDraw.Draw(canvas)
        draw.rounded_rectangle((49, 545, 1031, 1031), 38, fill=(255, 244, 232))
        draw.text((103, 586), item.brand, font=font("regular", 37), fill=(110, 100, 90))
        draw.text((977, 586), AI_LABEL[language], font=font("regular", 60), fill=(110, 100, 90), anchor="ra")
        draw.text((103, 660), one.copy.headline, font=font("bold", 60), fill=(40, 34, 30))
        lines = textwrap.wrap(one.copy.body, 24 if language == "zh" else 48)
        for line, text in enumerate(lines[:4]):
            draw.text((103, 750 + 50 * line), text, font=font("regular", 36), fill=(110, 100, 90))
        draw.text((103, 910), item.price, font=font("bold", 84), fill=(176, 84, 20))
        draw.text((420, 950), item.list_price, font=font("regular", 40), fill=(150, 140, 130))
        draw.line((415, 975, 520, 975), fill=(150, 140, 130), width=3)
        draw.rounded_rectangle((700, 915, 980, 995), 40, fill=(176, 84, 20))
        draw.text((840, 955), one.copy.call_to_action, font=font("bold", 40), fill="white", anchor="mm")
        canvas.save(target / f"{number}.jpg", quality=92, subsampling=0)


PAGE = """<!doctype html><html lang="{lang}"><meta charset="utf-8"><style>
@font-face {{ font-family: N; src: url({regular}); }}
@font-face {{ font-family: N; font-weight: 700; src: url({bold}); }}
body {{ margin: 0; width: 1080px; height: 1080px; background: {ground}; font: 36px/50px N; color: #6e645a; }}
img {{ position: absolute; left: 268px; top: 0; width: 545px; height: 545px; }}
main {{ position: absolute; left: 49px; top: 545px; width: 874px; height: 404px; padding: 41px 54px;
  background: #fff4e8; border-radius: 38px; }}
h1 {{ font: 700 60px/76px N; color: #28221e; margin: 20px 0 14px; }} p {{ margin: 0; height: 150px; overflow: hidden; }}
.label {{ position: absolute; right: 54px; top: 36px; font-size: 60px; }} .row {{ display: flex; align-items: center; }}
b {{ font: 700 84px/100px N; color: #b05414; }} s {{ flex: 1; margin-left: 24px; }}
.go {{ font: 700 40px/80px N; color: #fff; background: #b05414; border-radius: 40px; padding: 0 40px; }}
</style><img src="{picture}"><main><div>{brand}</div><div class="label">{label}</div><h1>{headline}</h1><p>{body}</p>
<div class="row"><b>{price}</b><s>{list_price}</s><div class="go">{action}</div></div></main></html>"""


class Browser:
    """One warm headless Chromium; pictures and fonts are handed over as data, fonts once per page."""

    def __init__(self) -> None:
        from playwright.sync_api import sync_playwright

        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        self._page = self._browser.new_page(viewport={"width": SIDE, "height": SIDE})

    def close(self) -> None:
        self._browser.close()
        self._playwright.stop()

    def make(self, made: Sequence[Order], target: Path) -> None:
        faces = {name: f"file://{font(name, 10).path}" for name in ("regular", "bold")}
        for number, one in enumerate(made):
            item = one.brief.item
            words = {
                "brand": item.brand,
                "label": AI_LABEL[one.brief.language],
                "headline": one.copy.headline,
                "body": one.copy.body,
                "price": item.price,
                "list_price": item.list_price,
                "action": one.copy.call_to_action,
            }
            page = target / "banner.html"
            page.write_text(
                PAGE.format(
                    lang=one.brief.language,
                    ground="#f4f1ec",
                    picture=f"file://{one.picture}",
                    **faces,
                    **{name: html.escape(text) for name, text in words.items()},
                ),
                encoding="utf-8",
            )
            self._page.goto(f"file://{page}")
            self._page.evaluate("document.fonts.ready")
            self._page.screenshot(path=target / f"{number}.jpg", type="jpeg", quality=92)


def timed(
    make: Callable[[Sequence[Order], Path], None], made: Sequence[Order], folder: Path, with_children: bool = False
) -> Timing:
    """CPU seconds of this process, and of its children where asked for."""
    folder.mkdir(exist_ok=True)
    make(made[:2], folder)  # fonts, templates and pages are read
    cpu, began = _cpu(with_children), time.perf_counter()
    make(made, folder)
    return Timing(len(made), _cpu(with_children) - cpu, time.perf_counter() - began)


def _cpu(with_children: bool) -> float:
    own = time.process_time()
    return own + (_children_cpu() if with_children else 0.0)


def _children_cpu() -> float:
    """CPU seconds of every living process that this one started, directly or not."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    tick = os.sysconf("SC_CLK_TCK")
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.name)] = int(fields[1])
        used[int(entry.name)] = (int(fields[11]) + int(fields[12])) / tick

    def is_ours(process: int) -> bool:
        while process in parents:
            process = parents[process]
            if process == os.getpid():
                return True
        return False

    return sum(seconds for process, seconds in used.items() if is_ours(process))


def banners(options: argparse.Namespace) -> dict[str, Any]:
    """Rates of the three ways, and ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = orders(folder / "pictures", options.items, options.per_item)
        ours = [timed(adloom, made, folder / "adloom") for _ in range(options.repeat)]
        plain = [timed(pillow, made, folder / "pillow") for _ in range(options.repeat)]
        found = {
            "banners": len(made),
            "items": options.items,
            "adloom": _best(ours),
            "pillow": _best(plain),
            "ratio_pillow": _best(ours)["rate"] / _best(plain)["rate"],
        }
        if CHROMIUM.is_file() and not options.no_browser:
            browser = Browser()
            try:
                shot = timed(browser.make, made[: options.browser_banners], folder / "chromium", with_children=True)
            finally:
                browser.close()
            found["chromium"] = _best([shot])
            found["ratio_chromium"] = found["adloom"]["rate"] / found["chromium"]["rate"]
        if options.keep:
            for way in ("adloom", "pillow", "chromium"):
                if (folder / way / "1.jpg").is_file():
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / f"{way}.jpg").write_bytes((folder / way / "1.jpg").read_bytes())
        return found


def _best(timings: Sequence[Timing]) -> dict[str, float]:
    best = max(timings, key=lambda one: one.rate)
    return {"rate": best.rate, "rate_elapsed": best.banners / best.seconds, "banners": best.banners}


# --- the generator --------------------------------------------------------------------------------------------------


def generator(options: argparse.Namespace) -> dict[str, Any]:
    """Pictures a second on the CPU, and on the card where there is one."""
    import torch

    found: dict[str, Any] = {}
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        found[device] = _generator_rate(device, options)
    return found


def _generator_rate(device: str, options: argparse.Namespace) -> dict[str, Any]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from adloom.imagery.conditions import Condition, ConditionSpace
    from adloom.imagery.gan import Generator, Painter, Shape, noise, tensors

    if options.generator is not None:
        network: Any = Painter(options.generator, device).generator
        categories = network.shape.space.category
    else:
        categories = tuple(f"c{number}" for number in range(20))
        shape = Shape(size=options.size, space=ConditionSpace(category=categories))
        network = Generator(shape).to(device, memory_format=torch.channels_last).eval()
    batch = options.batch or (256 if device == "cuda" else 32)
    conditions = [Condition(category=categories[number % len(categories)]) for number in range(batch)]
    numbers, interests = (one.to(device) for one in tensors(network.shape.space, conditions))
    drawn = noise(range(batch), network.shape.latent).to(device)
    kind = torch.bfloat16 if device == "cuda" else torch.float32

    def once() -> None:
        with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            network(drawn, numbers, interests)

    with FlopCounterMode(display=False) as counter:
        once()
    seconds = _repeated(once, device)
    rate, flops = batch / seconds, counter.get_total_flops() / seconds
    side = 8192 if device == "cuda" else 1024
    left = torch.randn(side, side, device=device, dtype=kind)
    peak = 2 * side**3 / _repeated(lambda: torch.mm(left, left), device)
    return {
        "size": network.shape.size,
        "batch": batch,
        "rate": rate,
        "flops": flops,
        "matmul_flops": peak,
        "matmul_dtype": str(kind).removeprefix("torch."),
        "share": flops / peak,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
    }


def _repeated(once: Callable[[], Any], device: str, least: float = 2.0) -> float:
    """Seconds of one call, over at least so many seconds of them."""
    import torch

    for _ in range(3):
        once()
    if device == "cuda":
        torch.cuda.synchronize()
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < least:
        for _ in range(5 if device == "cuda" else 1):
            once()
            calls += 1
        if device == "cuda":
            torch.cuda.synchronize()
    return (time.perf_counter() - began) / calls


# --- report ---------------------------------------------------------------------------------------------------------


def report(found: dict[str, Any]) -> str:
    lines = [found["machine"], ""]
    if "banners" in found:
        made = found["banners"]
        lines.append(f"banners of 1080 × 1080: {made['banners']} of {made['items']} items")
        for way, words in (
            ("adloom", "Adloom, checked and labelled"),
            ("pillow", "plain Pillow script"),
            ("chromium", "Chromium"),
        ):
            if way in made:
                lines.append(
                    f"  {words:<30}{made[way]['rate']:>8.1f} /s and core   ({made[way]['rate_elapsed']:.1f} /s elapsed)"
                )
        for way, wanted in RATIOS.items():
            if f"ratio_{way}" in made:
                lines.append(f"  ratio to {way:<21}{made[f'ratio_{way}']:>8.2f} ×            (wanted: {wanted:g} ×)")
    for device, one in found.get("gan", {}).items():
        lines.append(
            f"generator, {one['size']} px, {one['batch']} at once, {device}: {one['rate']:,.0f} pictures/s, "
            f"{one['flops'] / 1e12:.3f} of {one['matmul_flops'] / 1e12:.2f} TFLOP/s ({one['matmul_dtype']}): "
            f"{one['share']:.0%}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--only", choices=("banners", "gan"))
    parser.add_argument("--items", type=int, default=10)
    parser.add_argument("--per-item", type=int, default=10, help="banners of each item")
    parser.add_argument("--repeat", type=int, default=3, help="the best of so many passes counts, here and there")
    parser.add_argument("--browser-banners", type=int, default=40)
    parser.add_argument("--no-browser", action="store_true")
    parser.add_argument("--keep", type=Path, help="a folder for one banner of each way")
    parser.add_argument("--generator", type=Path, help="folder of trained weights; default: random ones")
    parser.add_argument("--size", type=int, default=64, help="pixels of a side of the generator's pictures")
    parser.add_argument("--batch", type=int, help="pictures at once; default: 32 on the CPU, 256 on a card")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    raqm = "with" if features.check("raqm") else "without"
    found: dict[str, Any] = {"machine": f"{platform.machine()}, Python {platform.python_version()}, Pillow {raqm} raqm"}
    try:
        if options.only != "gan":
            found["banners"] = banners(options)
        if options.only != "banners":
            found["gan"] = generator(options)
    except AdloomError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(found, indent=1) if options.json else report(found))
    made = found.get("banners", {})
    return int(any(made.get(f"ratio_{way}", wanted) < wanted for way, wanted in RATIOS.items()))


if __name__ == "__main__":
    sys.exit(main())
