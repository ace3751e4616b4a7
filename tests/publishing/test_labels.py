"""Labels: in every format, read by another program too; one that was stripped, changed or outlived is found out."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from adloom.creative import Copy
from adloom.errors import AdloomError, GateFailed, UsageError
from adloom.publishing import labels, metadata
from adloom.publishing.labels import Label
from adloom.shop import Shop

FORMATS = ("png", "jpeg", "webp", "mp4")
IMAGES = ("png", "jpeg", "webp")
LABEL = Label('样例-0001 <&">', "c0ffee0123456789", "compositeWithTrainedAlgorithmicMedia")


def _pixels(width: int = 96, height: int = 64) -> np.ndarray:
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack([across * 2, down * 3, (across + down) % 256], axis=-1).astype(np.uint8)


def _video(path: Path) -> None:
    with av.open(str(path), "w", options={"fflags": "bitexact"}) as made:
        stream = made.add_stream("libx264", rate=25, options={"bf": "2", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(12):
            frame = av.VideoFrame.from_ndarray(np.roll(_pixels(), 4 * number, axis=1), format="rgb24")
            for packet in stream.encode(frame):
                made.mux(packet)
        for packet in stream.encode(None):
            made.mux(packet)


@pytest.fixture
def finished(tmp_path: Path) -> Callable[..., Path]:
    """A finished file without a label, by format."""

    def make(kind: str, **options: Any) -> Path:
        path = tmp_path / f"banner.{kind}"
        if kind == "mp4":
            _video(path)
        else:
            Image.fromarray(_pixels()).save(path, format=kind.upper(), **options)
        return path

    return make


def _shown(path: Path) -> np.ndarray:
    """What a viewer decodes: the pixels of a picture, or of all frames with their times."""
    if path.suffix != ".mp4":
        with Image.open(path) as image:
            return np.asarray(image.convert("RGBA"))
    with av.open(str(path)) as opened:
        frames = list(opened.decode(video=0))
    return np.concatenate([[np.float64(frame.time), *frame.to_ndarray().ravel()] for frame in frames])


@pytest.mark.parametrize("kind", FORMATS)
def test_the_label_is_in_the_file_and_nothing_that_is_shown_changes(finished: Callable[..., Path], kind: str) -> None:
    path = finished(kind)
    before = _shown(path)
    record = labels.label_file(path, LABEL)
    assert labels.read_label(path) == record
    assert record.label == LABEL
    assert record.is_intact
    assert np.array_equal(_shown(path), before)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_input_gives_the_same_bytes_and_a_new_label_replaces_the_old(
    finished: Callable[..., Path], kind: str
) -> None:
    content = finished(kind).read_bytes()
    once = labels.labelled(content, LABEL)
    assert labels.labelled(content, LABEL) == once
    assert labels.labelled(once, LABEL) == once
    relabelled = labels.labelled(labels.labelled(content, replace(LABEL, produce_id="another")), LABEL)
    assert relabelled == once
    assert once.count(b"another") == 0


@pytest.mark.parametrize("kind", FORMATS)
def test_exiftool_reads_the_label(finished: Callable[..., Path], kind: str) -> None:
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool is not installed: apt-get install libimage-exiftool-perl")
    path = finished(kind)
    labels.label_file(path, LABEL)
    told = subprocess.run(["exiftool", "-j", "-G1", "-n", "-ee", str(path)], capture_output=True, check=True)
    tags = json.loads(told.stdout)[0]
    assert "Warning" not in " ".join(tags)
    elements = next(value for tag, value in tags.items() if tag.startswith("XMP-") and tag.lower().endswith(":aigc"))
    elements = json.loads(elements) if isinstance(elements, str) else elements
    assert list(elements) == list(labels.ELEMENTS)
    assert (elements["Label"], elements["ContentProducer"]) == ("1", LABEL.producer)
    assert tags["XMP-iptcExt:DigitalSourceType"] == labels.SOURCE_TYPES + LABEL.source_type
    if kind in {"png", "mp4"}:
        field = next(value for tag, value in tags.items() if tag.lower().endswith("aigc") and "XMP" not in tag)
        field = json.loads(field) if isinstance(field, str) else field
        assert field.get("AIGC", field) == elements


@pytest.mark.parametrize("kind", IMAGES)
def test_a_picture_saved_again_without_its_label_is_refused_by_name(finished: Callable[..., Path], kind: str) -> None:
    path = finished(kind)
    labels.label_file(path, LABEL)
    with Image.open(path) as image:
        bare = Image.fromarray(np.asarray(image.convert("RGB")))
    bare.save(path, format=kind.upper())
    assert labels.read_label(path) is None
    with pytest.raises(GateFailed, match=rf"{path.name} carries no AI label"):
        labels.verify(path, LABEL)


def test_a_video_muxed_again_without_its_label_is_refused(finished: Callable[..., Path], tmp_path: Path) -> None:
    path = finished("mp4")
    labels.label_file(path, LABEL)
    stripped = tmp_path / "stripped.mp4"
    with av.open(str(path)) as source, av.open(str(stripped), "w") as made:
        stream = made.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)
    with pytest.raises(GateFailed, match=r"stripped\.mp4 carries no AI label"):
        labels.verify(stripped, LABEL)


def test_half_a_label_is_told_by_the_half_that_is_gone(finished: Callable[..., Path]) -> None:
    path = finished("mp4")
    content = labels.labelled(path.read_bytes(), LABEL)
    path.write_bytes(content[: content.rindex(b"uuid") - 4])
    with pytest.raises(GateFailed, match=r"stripped from the file's xmp metadata"):
        labels.verify(path, LABEL)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_label_taken_from_another_file_is_found_out(finished: Callable[..., Path], kind: str) -> None:
    path = finished(kind)
    record = labels.label_file(path, LABEL)
    borrowed = LABEL.elements("0" * 64)
    line = json.dumps(borrowed, ensure_ascii=True, separators=(",", ":"))
    text = line if kind == "mp4" else f'{{"AIGC":{line}}}'
    packet = labels._packet(line, LABEL.source_type)
    path.write_bytes(metadata.with_metadata(path.read_bytes(), packet, text, path.name))
    changed = labels.read_label(path)
    assert changed is not None
    assert changed.content_hash == record.content_hash
    assert not changed.is_intact
    with pytest.raises(GateFailed, match="content is not the one its AI label was written for"):
        labels.verify(path, LABEL)


def test_a_picture_painted_over_under_its_label_is_found_out(finished: Callable[..., Path]) -> None:
    path = finished("png")
    labels.label_file(path, LABEL)
    with Image.open(path) as image:
        kept = {"xmp": image.info["xmp"], "AIGC": image.info["AIGC"]}
        painted = Image.fromarray(255 - np.asarray(image))
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    texts.add_text("AIGC", kept["AIGC"])
    texts.add_itxt("XML:com.adobe.xmp", kept["xmp"].decode())
    painted.save(path, pnginfo=texts)
    with pytest.raises(GateFailed, match=r"banner\.png: its content is not the one"):
        labels.verify(path, LABEL)


def test_labels_that_contradict_each_other_are_not_believed(finished: Callable[..., Path]) -> None:
    path = finished("png")
    line = json.dumps(LABEL.elements("ab"), ensure_ascii=True)
    other = json.dumps({"AIGC": replace(LABEL, producer="someone else").elements("ab")}, ensure_ascii=True)
    packet = labels._packet(line, LABEL.source_type)
    path.write_bytes(metadata.with_metadata(path.read_bytes(), packet, other, path.name))
    with pytest.raises(GateFailed, match="contradict"):
        labels.read_label(path)


@pytest.mark.parametrize("kind", IMAGES)
def test_a_resize_and_a_change_of_format_keep_the_label(
    finished: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    path = finished(kind)
    labels.label_file(path, LABEL)
    for suffix in ("png", "jpg", "webp"):
        target = tmp_path / f"small.{suffix}"
        record = labels.export(path, target, (48, 32))
        assert record.label == LABEL
        assert labels.verify(target, LABEL).is_intact
        with Image.open(target) as image:
            assert image.size == (48, 32)
        again = target.read_bytes()
        labels.export(path, target, (48, 32))
        assert target.read_bytes() == again


def test_an_export_of_a_stripped_file_is_refused(finished: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(GateFailed, match=r"banner\.png carries no AI label"):
        labels.export(finished("png"), tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


def test_an_export_in_another_shape_is_wrong_use(finished: Callable[..., Path], tmp_path: Path) -> None:
    path = finished("png")
    labels.label_file(path, LABEL)
    with pytest.raises(UsageError, match="another shape"):
        labels.export(path, tmp_path / "out.png", (64, 64))
    video = finished("mp4")
    labels.label_file(video, LABEL)
    with pytest.raises(UsageError, match="a video is exported as it is"):
        labels.export(video, tmp_path / "out.mp4", (48, 32))
    assert labels.export(video, tmp_path / "copy.mp4").is_intact


def test_exif_colour_profile_and_transparency_outlive_the_label(finished: Callable[..., Path]) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0131] = "a camera"
    path = finished("jpeg", exif=exif, icc_profile=profile)
    labels.label_file(path, LABEL)
    with Image.open(path) as image:
        assert image.getexif()[0x0131] == "a camera"
        assert image.info["icc_profile"] == profile
    clear = path.with_suffix(".webp")
    Image.fromarray(np.dstack([_pixels(), _pixels()[..., 0]])).save(clear, lossless=True)
    before = _shown(clear)
    labels.label_file(clear, LABEL)
    assert np.array_equal(_shown(clear), before)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_file_is_named(finished: Callable[..., Path], kind: str) -> None:
    path = finished(kind)
    content = path.read_bytes()
    cut = content[: len(content) // 2]
    with pytest.raises(AdloomError, match=r"the banner is broken"):
        labels.labelled(cut, LABEL, "the banner")


def test_a_file_is_judged_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "banner.png"
    path.write_bytes(b"GIF89a" + b"\0" * 40)
    with pytest.raises(AdloomError, match=r"banner\.png is no PNG, JPEG, WebP or MP4"):
        labels.label_file(path, LABEL)


def test_hostile_xmp_is_an_error_with_a_name(finished: Callable[..., Path]) -> None:
    path = finished("png")
    bomb = '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><a>&c;</a>'
    path.write_bytes(metadata.with_metadata(path.read_bytes(), bomb, "{}", path.name))
    with pytest.raises(GateFailed, match=r"banner\.png: its XMP packet is not readable"):
        labels.read_label(path)


def test_a_shop_without_a_producer_id_labels_nothing(make_shop: Callable[..., Shop]) -> None:
    with pytest.raises(AdloomError, match=r"corner_shop\.yml: ai_label_producer_id"):
        labels.label_of(make_shop(), "c0ffee", "own_photo")
    shop = make_shop(ai_label_producer_id="P-1")
    assert labels.label_of(shop, "c0ffee", "own_photo").source_type == "compositeWithTrainedAlgorithmicMedia"
    assert labels.label_of(shop, "c0ffee", "gan").source_type == "trainedAlgorithmicMedia"


def test_a_posted_text_ends_in_its_label_once() -> None:
    copy = Copy(headline="早八通勤", body="一杯热咖啡。", call_to_action="去看看", hashtags=("咖啡",))
    text = labels.labelled_text(copy, "zh")
    assert text.endswith("#咖啡\n（AI生成）")
    assert labels.labelled_text(text, "zh") == text
    assert labels.labelled_text("Warm socks.", "en") == "Warm socks.\n(AI-generated)"


def test_the_index_of_a_labelled_video_stands_before_its_samples(finished: Callable[..., Path]) -> None:
    path = finished("mp4")
    labels.label_file(path, LABEL)
    content, order, position = path.read_bytes(), [], 0
    while position < len(content):
        length, box = struct.unpack(">I4s", content[position : position + 8])
        order.append(box)
        position += length
    assert order.index(b"moov") < order.index(b"mdat")
    with av.open(io.BytesIO(content)) as opened:
        assert opened.duration == pytest.approx(12 / 25 * av.time_base, rel=0.1)
