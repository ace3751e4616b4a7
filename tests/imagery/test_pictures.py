"""Pictures as shops deliver them, hostile and broken ones too: converted where it is harmless, else a clear error."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image, ImageCms, ImageDraw

from adloom.creative import Brief, CopyLimits, ItemFacts
from adloom.imagery import pictures
from adloom.imagery.pictures import GanPictures, Opened, OwnPhotos, PictureError, drawn_name

ORANGE, GREEN = (240, 120, 30), (20, 160, 60)


def brief(item_id: str = "i1", segment: str = "all") -> Brief:
    return Brief(
        scenario="recommendation",
        language="en",
        channel="feed",
        segment_id=segment,
        item=ItemFacts(item_id=item_id, title="A lamp"),
        limits=CopyLimits(headline=45, body=180, call_to_action=20),
    )


def photo(size: tuple[int, int] = (400, 300), mode: str = "RGB") -> Image.Image:
    """Orange on the left half, green on the right one."""
    image = Image.new("RGB", size, ORANGE)
    ImageDraw.Draw(image).rectangle((size[0] // 2, 0, *size), fill=GREEN)
    return image.convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "shop" / "_images"
    made.mkdir(parents=True)
    return made


def load(folder: Path, content: bytes, name: str = "lamp.png") -> Image.Image:
    (folder / name).write_bytes(content)
    return OwnPhotos(folder, {"i1": name}).picture(brief()).image


def refusal(folder: Path, content: bytes, name: str = "lamp.png") -> str:
    with pytest.raises(PictureError) as caught:
        load(folder, content, name)
    assert caught.value.message.startswith(f"item i1: picture {name} ")
    assert caught.value.next_step
    return caught.value.message


def near(pixel: object, colour: tuple[int, int, int], by: int = 12) -> bool:
    return all(abs(one - other) <= by for one, other in zip(pixel, colour, strict=True))  # type: ignore[call-overload]


# --- broken ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_a_truncated_file_is_refused_whatever_its_format(folder: Path, kind: str) -> None:
    noisy = Image.effect_noise((400, 300), 80).convert("RGB")
    content = encoded(noisy, kind)
    assert "is damaged or cut short" in refusal(folder, content[: len(content) * 2 // 3]) or kind == "GIF"


def test_an_empty_file_is_refused(folder: Path) -> None:
    assert "is empty" in refusal(folder, b"")


def test_a_file_that_is_no_picture_is_refused(folder: Path) -> None:
    assert "is no picture that can be read" in refusal(folder, b"<html><body>404</body></html>", "lamp.jpg")


def test_a_missing_file_is_named(folder: Path) -> None:
    with pytest.raises(PictureError, match=r"item i1: picture gone\.png is not there"):
        OwnPhotos(folder, {"i1": "gone.png"}).picture(brief())


@pytest.mark.parametrize("path", [None, "", "  "])
def test_an_item_without_a_picture_is_named(folder: Path, path: str | None) -> None:
    with pytest.raises(PictureError, match="item i1 has no picture"):
        OwnPhotos(folder, {"i1": path}).picture(brief())


# --- hostile --------------------------------------------------------------------------------------------------------


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(9_000, 9_000), (60_000, 60_000), (2**31 - 1, 1)])
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(folder: Path, size: tuple[int, int]) -> None:
    assert "would unpack to" in refusal(folder, bomb(*size))


def test_a_file_of_too_many_bytes_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_BYTES", 1000)
    assert "is larger than" in refusal(folder, encoded(Image.effect_noise((400, 300), 80)))


SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="400" height="400">{}</svg>'


@pytest.mark.parametrize(
    "drawing",
    [
        SVG.format('<image href="http://127.0.0.1:9/secret.png" width="400" height="400"/>'),
        '<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
        + SVG.format("<text>&x;</text>"),
        SVG.format('<rect width="400" height="400"/>'),
    ],
)
@pytest.mark.parametrize("name", ["lamp.svg", "lamp.png"])
def test_an_svg_is_never_drawn_and_nothing_it_names_is_opened(
    folder: Path, drawing: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was fetched")

    monkeypatch.setattr(socket, "socket", refuse)
    assert "is an SVG" in refusal(folder, drawing.encode(), name)


@pytest.mark.parametrize("path", ["../secret.png", "a/../../secret.png", "/etc/passwd", "..\\secret.png", "a\0b.png"])
def test_a_path_that_leads_out_of_the_shops_folder_is_refused(folder: Path, path: str) -> None:
    (folder.parent / "secret.png").write_bytes(encoded(photo()))
    with pytest.raises(PictureError, match="leads out of the shop's picture folder"):
        OwnPhotos(folder, {"i1": path}).picture(brief())


def test_a_link_that_leads_out_of_the_shops_folder_is_refused(folder: Path) -> None:
    (folder.parent / "secret.png").write_bytes(encoded(photo()))
    (folder / "lamp.png").symlink_to(folder.parent / "secret.png")
    with pytest.raises(PictureError, match="is a link that leads out"):
        OwnPhotos(folder, {"i1": "lamp.png"}).picture(brief())


@pytest.mark.parametrize("path", ["http://127.0.0.1:9/lamp.png", "data:image/png;base64,AAAA", "file:///etc/passwd"])
def test_an_address_is_never_fetched(folder: Path, path: str) -> None:
    with pytest.raises(PictureError, match="is an address; pictures are never fetched"):
        OwnPhotos(folder, {"i1": path}).picture(brief())


def test_a_pipe_does_not_make_the_batch_wait(folder: Path) -> None:
    os.mkfifo(folder / "lamp.png")
    with pytest.raises(PictureError, match="is no file"):
        OwnPhotos(folder, {"i1": "lamp.png"}).picture(brief())


# --- what is no still photo of use ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animated_picture_is_refused(folder: Path, kind: str) -> None:
    frames = [photo(), photo().transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert "is animated, of 2 frames" in refusal(folder, content)


def test_a_still_gif_is_taken(folder: Path) -> None:
    assert near(load(folder, encoded(photo(), "GIF")).getpixel((20, 20)), ORANGE)


def test_a_thumbnail_is_refused_instead_of_blown_up(folder: Path) -> None:
    assert "120 × 90 px, which is too small" in refusal(folder, encoded(photo((120, 90))))


def test_a_picture_with_nothing_on_it_is_refused(folder: Path) -> None:
    assert "transparent all over" in refusal(folder, encoded(Image.new("RGBA", (400, 400), (0, 0, 0, 0))))


# --- converted ------------------------------------------------------------------------------------------------------


def test_cmyk_looks_as_it_did(folder: Path) -> None:
    image = load(folder, encoded(photo(mode="CMYK"), "JPEG", quality=95), "lamp.jpg")
    assert image.mode == "RGB"
    assert near(image.getpixel((40, 40)), ORANGE)
    assert near(image.getpixel((360, 40)), GREEN)


def test_sixteen_bits_are_scaled_and_not_clipped(folder: Path) -> None:
    grey = Image.new("I;16", (400, 300), 0x4080)
    assert near(load(folder, encoded(grey)).getpixel((5, 5)), (0x40, 0x40, 0x40), by=1)


def test_a_photo_is_turned_as_its_exif_says(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # held with the camera's right side up: turned by 90° clockwise to be shown
    image = load(folder, encoded(photo(), "JPEG", quality=95, exif=exif), "lamp.jpg")
    assert image.size == (300, 400)
    assert near(image.getpixel((150, 40)), ORANGE)
    assert not image.info


def test_transparency_is_kept_and_frees_the_subject(folder: Path) -> None:
    image = Image.new("RGBA", (400, 400), (0, 0, 0, 0))
    ImageDraw.Draw(image).rectangle((100, 50, 299, 349), fill=(*ORANGE, 255))
    load(folder, encoded(image))
    picture = OwnPhotos(folder, {"i1": "lamp.png"}).picture(brief())
    assert picture.is_cut_out
    assert picture.subject == (100, 50, 300, 350)


def test_a_palette_with_a_transparent_colour_is_cut_out(folder: Path) -> None:
    image = Image.new("P", (400, 400), 0)
    image.putpalette([255, 0, 255, *ORANGE])
    ImageDraw.Draw(image).rectangle((100, 100, 299, 299), fill=1)
    assert load(folder, encoded(image, transparency=0)).mode == "RGBA"


def test_the_content_decides_and_not_the_name(folder: Path) -> None:
    assert load(folder, encoded(photo(), "JPEG"), "lamp.png").size == (400, 300)


def test_colours_of_another_profile_are_brought_to_srgb(folder: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert near(load(folder, encoded(photo(), icc_profile=lab)).getpixel((5, 5)), ORANGE, by=2)
    assert near(load(folder, encoded(photo(), icc_profile=b"broken" * 20)).getpixel((5, 5)), ORANGE, by=0)


def test_a_huge_photo_is_scaled_down_when_it_is_opened(folder: Path) -> None:
    assert max(load(folder, encoded(photo((5000, 2500)), "JPEG"), "lamp.jpg").size) == pictures.LARGEST_SIDE


def test_a_phones_photo_with_a_second_picture_inside_is_taken(folder: Path) -> None:
    content = encoded(photo(), "MPO", save_all=True, append_images=[photo((320, 300))])
    assert load(folder, content, "lamp.jpg").size == (400, 300)


# --- subjects, sources ----------------------------------------------------------------------------------------------


def test_the_subject_before_a_plain_backdrop_is_found(folder: Path) -> None:
    image = Image.new("RGB", (400, 400), (238, 240, 242))
    ImageDraw.Draw(image).ellipse((120, 60, 280, 340), fill=ORANGE)
    load(folder, encoded(image, "JPEG", quality=92), "lamp.jpg")
    picture = OwnPhotos(folder, {"i1": "lamp.jpg"}).picture(brief())
    assert picture.backdrop is not None
    assert near(picture.backdrop, (238, 240, 242), by=2)
    assert picture.subject is not None
    assert near(picture.subject, (120, 60, 281, 341), by=3)  # type: ignore[arg-type]


def test_a_picture_full_of_things_has_no_backdrop(folder: Path) -> None:
    load(folder, encoded(Image.effect_noise((400, 400), 90).convert("RGB")))
    picture = OwnPhotos(folder, {"i1": "lamp.png"}).picture(brief())
    assert (picture.backdrop, picture.mask, picture.subject) == (None, None, None)


def test_a_picture_is_opened_once_for_many_banners(folder: Path) -> None:
    (folder / "lamp.png").write_bytes(encoded(photo()))
    (folder / "vase.png").write_bytes(encoded(photo()))
    source = Opened(OwnPhotos(folder, {"i1": "lamp.png", "i2": "vase.png"}), most=2)
    for number in range(6):
        assert source.picture(brief(f"i{number % 2 + 1}")).image.size == (400, 300)
    assert source.opened == 2


def test_a_drawn_picture_belongs_to_item_and_segment(tmp_path: Path) -> None:
    (tmp_path / f"{drawn_name(brief(segment='runners'))}.png").write_bytes(encoded(photo((64, 64))))
    assert GanPictures(tmp_path).picture(brief(segment="runners")).image.size == (64, 64)
    with pytest.raises(PictureError, match=r"item i1: picture [0-9a-f]{16}\.png is not drawn"):
        GanPictures(tmp_path).picture(brief(segment="readers"))
