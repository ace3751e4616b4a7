"""The short video: plays in a browser, says everything in time, moves without trembling, and is labelled throughout."""

from __future__ import annotations

import base64
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw

from adloom.creative import Brief, Copy, CopyLimits, ItemFacts, Language, Offer
from adloom.errors import AdloomError
from adloom.imagery import video
from adloom.imagery.composing import character_height
from adloom.imagery.pictures import Picture
from adloom.imagery.video import Film

LIMITS = CopyLimits(headline=60, body=240, call_to_action=30)
ITEM = {
    "zh": ItemFacts(item_id="mug", title="粗陶马克杯", brand="远岚", price="¥59", list_price="¥79"),
    "en": ItemFacts(item_id="mug", title="Stoneware mug", brand="Harrow & Fen", price="$14.90"),
}
COPY = {
    "zh": Copy(headline="一杯慢下来的早晨", body="厚壁保温，咖啡凉得慢。", call_to_action="看看这只杯子"),
    "en": Copy(headline="Slow mornings, warm hands", body="Thick walls keep the heat.", call_to_action="See the mug"),
}


def _brief(language: Language, **changes: Any) -> Brief:
    fields: dict[str, Any] = {
        "scenario": "promotion",
        "language": language,
        "channel": "douyin",
        "segment_id": "all",
        "item": ITEM[language],
        "limits": LIMITS,
    }
    return Brief(**(fields | changes))


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Picture:
    """A cut-out mug."""
    image = Image.new("RGBA", (800, 800))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((180, 150, 560, 680), 60, fill=(190, 60, 40, 255))
    draw.arc((470, 260, 700, 560), -90, 90, fill=(150, 40, 30, 255), width=44)
    path = tmp_path_factory.mktemp("pictures") / "mug.png"
    image.save(path)
    return Picture(path, "item mug", "own_photo")


@pytest.fixture(scope="module")
def made(picture: Picture, tmp_path_factory: pytest.TempPathFactory) -> video.Video:
    offer = Offer(campaign_id="c", name="双11", text="双11 满300减40")
    return video.compose_video(
        picture, COPY["zh"], _brief("zh", offer=offer), tmp_path_factory.mktemp("videos") / "mug.mp4"
    )


def _decoded(path: Path) -> Iterator[np.ndarray]:
    with av.open(str(path)) as opened:
        for frame in opened.decode(video=0):
            yield frame.to_ndarray(format="rgb24", src_colorspace="ITU709", dst_colorspace="ITU709")


def test_the_file_is_what_platforms_and_browsers_take(made: video.Video) -> None:
    with av.open(str(made.path)) as opened:
        stream = opened.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, context.width, context.height) == ("h264", "yuv420p", 1080, 1920)
        assert stream.average_rate == 25
        assert float(stream.duration * stream.time_base) == pytest.approx(made.seconds)
    assert 6 <= made.seconds <= 15
    content = made.path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert made.bytes == len(content) < 8_000_000


def test_it_plays_in_a_browser_and_shows_the_frames_that_were_drawn(made: video.Video) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    browser_path = shutil.which("chromium")
    if browser_path is None:
        pytest.skip("no chromium on this machine")
    times = [0.4, 3.4, made.seconds - 0.5]
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        try:
            page = browser.new_page()
            page.goto("about:blank")
            told = page.evaluate(_PLAY, [base64.b64encode(made.path.read_bytes()).decode(), times])
        finally:
            browser.close()
    assert told["error"] is None
    assert (told["width"], told["height"]) == (1080, 1920)
    assert told["duration"] == pytest.approx(made.seconds, abs=0.05)
    assert told["played"] > 0
    frames = list(_decoded(made.path))
    seen = []
    for time, pixels in zip(times, told["frames"], strict=True):
        shown = np.frombuffer(base64.b64decode(pixels), np.uint8).reshape(480, 270, 4)[..., :3].astype(float)
        drawn = np.asarray(Image.fromarray(frames[int(time * 25)]).resize((270, 480), Image.Resampling.BOX)).astype(
            float
        )
        assert np.abs(shown - drawn).mean() < 4
        seen.append(shown)
    for one, other in itertools.pairwise(seen):
        assert np.abs(one - other).mean() > 1


_PLAY = """async ([data, times]) => {
  const bytes = Uint8Array.from(atob(data), one => one.charCodeAt(0));
  const player = document.createElement("video");
  player.muted = true;
  player.src = URL.createObjectURL(new Blob([bytes], {type: "video/mp4"}));
  const told = name => new Promise((done, failed) => {
    player.addEventListener(name, done, {once: true});
    player.addEventListener("error", () => failed(new Error(player.error.message)), {once: true});
  });
  const result = {error: null, frames: []};
  try {
    await told("loadeddata");
    result.width = player.videoWidth; result.height = player.videoHeight; result.duration = player.duration;
    await player.play();
    await new Promise(done => setTimeout(done, 400));
    player.pause();
    result.played = player.currentTime;
    const canvas = document.createElement("canvas");
    canvas.width = 270; canvas.height = 480;
    const pen = canvas.getContext("2d");
    pen.imageSmoothingQuality = "high";
    for (const time of times) {
      const sought = told("seeked");
      player.currentTime = time + 0.02;
      await sought;
      pen.drawImage(player, 0, 0, 270, 480);
      const pixels = pen.getImageData(0, 0, 270, 480).data;
      let text = "";
      for (let at = 0; at < pixels.length; at += 8192)
        text += String.fromCharCode.apply(null, pixels.subarray(at, at + 8192));
      result.frames.push(btoa(text));
    }
  } catch (error) { result.error = String(error); }
  return result;
}"""


def test_the_label_stands_still_from_the_first_frame_to_the_last(made: video.Video, picture: Picture) -> None:
    box = Film(picture, COPY["zh"], _brief("zh")).label_box
    assert box is not None
    left, top, right, bottom = box
    first = None
    for frame in _decoded(made.path):
        part = frame[top:bottom, left:right].astype(int)
        first = part if first is None else first
        assert np.abs(part - first).mean() < 6
    assert first is not None
    assert first.max() - first.min() > 150


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_label_is_high_enough_and_nothing_is_drawn_over_the_product(picture: Picture, language: Language) -> None:
    film = Film(picture, COPY[language], _brief(language))
    assert film.label_box is not None
    text = {"zh": "生", "en": "A"}[language]
    size = next(size for size in range(40, 120) if character_height(text, "bold", size) >= 54)
    assert film.label_box[3] - film.label_box[1] >= size * 0.9
    for number in range(0, film.frames, 5):
        left, top, right, bottom = film.product_box(number)
        assert left >= video.PRODUCT[0] - 0.5
        assert right <= video.PRODUCT[2] + 0.5
        assert top >= max(video.PRODUCT[1] - 0.5, film.label_box[3])
        assert bottom <= min(video.PRODUCT[3] + 0.5, video.PANEL_TOP)


def test_only_a_film_made_for_a_recorded_export_is_without_the_label(picture: Picture) -> None:
    film = Film(picture, COPY["en"], _brief("en"), has_label=False)
    assert film.label_box is None
    labelled = Film(picture, COPY["en"], _brief("en"))
    one, other = (np.asarray(each.frame(0)).astype(int) for each in (film, labelled))
    left, top, right, bottom = labelled.label_box or (0, 0, 0, 0)
    assert np.abs(one - other)[top:bottom, left:right].max() > 100
    assert not np.abs(one - other)[bottom + 1 :].any()


def test_the_picture_moves_steadily_in_less_than_pixels(picture: Picture) -> None:
    film = Film(picture, COPY["zh"], _brief("zh"))
    left = np.array([film.product_box(number)[0] for number in range(film.frames)])
    steps = np.diff(left)
    assert 0 < np.abs(steps).max() < 1.5
    assert np.abs(np.diff(steps)).max() < 0.02
    # And what is drawn follows: two frames differ where the product's edge moved by a fraction of a pixel.
    one, other = (np.asarray(film.frame(number)).astype(int)[400:1000] for number in (100, 101))
    assert 0 < np.abs(one - other).mean() < 4


def test_the_same_input_gives_the_same_bytes(picture: Picture, tmp_path: Path) -> None:
    written = set()
    for number in range(4):
        film = Film(picture, COPY["en"], _brief("en"))
        # Other memory each time: an encoder that reads what it has not written gives itself away.
        taken = [bytes([number]) * (2_000_000 + 4096 * number) for _ in range(3)]
        path = tmp_path / "mug.mp4"
        video.encode((film.frame(at) for at in range(0, film.frames, film.frames // 6)), path)
        written.add(path.read_bytes())
        del taken
    assert len(written) == 1


@pytest.mark.parametrize(
    ("language", "body"),
    [
        ("zh", "轻。"),
        ("zh", "中底加厚3毫米，落地不震膝。网面透气，跑完鞋里也是干的。双11满300减40，早跑早舒服！"),
        ("zh", "早上出门前热一杯牛奶，" * 5 + "暖到公司。" + "路上不赶。" * 30),
        ("en", "Thick stoneware keeps the heat while the water drips. One cup, no machine, three quiet minutes."),
        ("en", "No stop at the end and $14.90 in the middle of it"),
    ],
)
def test_scenes_fill_six_to_fifteen_seconds_and_are_read_in_time(language: Language, body: str) -> None:
    scenes = video.storyboard(COPY[language].model_copy(update={"body": body}), language)
    assert [scene.kind for scene in scenes] == ["headline", *["caption"] * (len(scenes) - 2), "card"]
    for scene, after in itertools.pairwise(scenes):
        assert scene.end == after.start
    assert 6 <= scenes[-1].end <= 15
    captions = scenes[1:-1]
    most = {"zh": 9.2, "en": 20.5}[language]
    assert all(len(scene.text) / (scene.end - scene.start) <= most for scene in captions)
    said = "".join(scene.text for scene in captions).replace(" ", "")
    assert body.replace(" ", "").startswith(said)
    assert said[-1] in "。！？.!?" or said == body.replace(" ", "")


def test_a_body_that_cannot_be_read_in_time_is_refused() -> None:
    endless = COPY["zh"].model_copy(update={"body": "很长" * 60})
    with pytest.raises(AdloomError, match="body: its first sentence cannot be read"):
        video.storyboard(endless, "zh")


def test_what_no_font_draws_is_named(picture: Picture) -> None:
    odd = COPY["zh"].model_copy(update={"headline": "早安\U00013000"})
    with pytest.raises(AdloomError, match=r"headline: no font draws .*U\+13000"):
        Film(picture, odd, _brief("zh"))


def test_a_failed_video_leaves_the_old_one_and_no_piece(picture: Picture, tmp_path: Path) -> None:
    target = tmp_path / "mug.mp4"
    target.write_bytes(b"the old one")
    long = COPY["en"].model_copy(update={"call_to_action": "see it " * 40})
    with pytest.raises(AdloomError, match="call_to_action"):
        video.compose_video(picture, long, _brief("en"), target)
    assert target.read_bytes() == b"the old one"
    assert [path.name for path in tmp_path.iterdir()] == ["mug.mp4"]


def test_a_photo_without_a_plain_backdrop_is_shown_whole(tmp_path: Path) -> None:
    across, down = np.meshgrid(np.arange(900), np.arange(600))
    busy = np.stack([across * 255 // 900, down * 255 // 600, (across * down) % 255], axis=-1).astype(np.uint8)
    Image.fromarray(busy).save(tmp_path / "busy.png")
    film = Film(Picture(tmp_path / "busy.png", "item x", "own_photo"), COPY["en"], _brief("en"))
    for number in (0, film.frames - 1):
        left, top, right, bottom = film.product_box(number)
        assert video.PRODUCT[0] - 1 <= left < right <= video.PRODUCT[2] + 1
        assert (right - left) / (bottom - top) == pytest.approx(1.5, abs=0.01)
