"""Where the picture of a banner comes from: one interface, two sources, and what makes a delivered file safe to open.

A source gives a `Picture` for a brief, or a `PictureError` that names item, file and next step. A delivered file is
decided on by its content, never by its name; nothing it refers to is fetched; and nothing outside the folder it was
delivered in is opened, whatever path it is named by. `OwnPhotos` gives the item's own photo, in its own pixels: turned
upright, brought to sRGB, scaled down where it is larger than any banner, and never retouched.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from adloom.creative import Brief
from adloom.errors import AdloomError

if TYPE_CHECKING:
    from PIL.Image import Image

Kind = Literal["own_photo", "gan"]
Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels; right and bottom are the first ones outside"""

MOST_BYTES = 40 * 2**20
MOST_PIXELS = 64_000_000
LARGEST_SIDE = 2160
"""A picture is scaled down to it when it is opened: no banner is larger, and memory stays flat."""
SMALLEST_SIDE = 300
"""A photo below it would be blown up until it looks broken."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""What is decoded at all: no format that runs another program or holds instructions to draw."""
STILL = ("MPO",)
"""A phone's JPEG with a second picture behind the first is no animation."""
EVEN = 14
"""A backdrop is plain where no pixel of the rim is further than this (of 255) from the rim's median colour."""
RIM = 0.02
PRESENT = 28
"""A pixel further than this from a plain backdrop belongs to the subject."""


class PictureError(AdloomError):
    """A picture that cannot be used; the message names item and file. The rest of a batch goes on without it."""


class NoPicture(PictureError):
    """There is none, by nobody's mistake: the shop delivers no picture of the item."""


class Picture:
    """One picture, opened when it is first looked at.

    ``name``: how errors name it (item and file). ``kind``: the source it comes from. ``smallest``: pixels of the short
    side below which it is refused.
    """

    def __init__(self, path: Path, name: str, kind: Kind, smallest: int = 1) -> None:
        self.path, self.name, self.kind, self.smallest = path, name, kind, smallest

    def __repr__(self) -> str:
        return f"Picture({self.name!r}, {self.kind!r})"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file, hex."""
        return hashlib.sha256(_bytes(self.path, self.name)).hexdigest()

    @cached_property
    def image(self) -> Image:
        """The pixels, RGB or (where something is transparent) RGBA, upright, sRGB. Do not draw on it: take a copy."""
        content = _bytes(self.path, self.name)
        self.digest = hashlib.sha256(content).hexdigest()
        return decode(content, self.name, self.smallest)

    @property
    def is_cut_out(self) -> bool:
        """Does the subject stand free, with transparency around it?"""
        return self.image.mode == "RGBA"

    @cached_property
    def mask(self) -> Image | None:
        """The subject as a mask (L, 255: subject) of the picture's size; None: there is no plain backdrop behind it."""
        if self.is_cut_out:
            return self.image.getchannel("A")
        return _subject(self.image)

    @cached_property
    def subject(self) -> Box | None:
        """The box that holds the subject; None: take the whole picture for it."""
        mask = self.mask
        if mask is None:
            return None
        found: Box | None = mask.point([0] * 24 + [255] * 232).getbbox()
        return found

    @cached_property
    def backdrop(self) -> tuple[int, int, int] | None:
        """The colour of a plain backdrop; None: it has none, or the subject is cut out."""
        return None if self.is_cut_out else _rim_colour(self.image)


class PictureSource(Protocol):
    """Where pictures come from. A third one, a diffusion model, would be another class with this method."""

    kind: Kind

    def picture(self, brief: Brief) -> Picture:
        """The picture for a brief; raises `PictureError` where there is none."""


class OwnPhotos:
    """The item's own photo, below ``folder``. ``paths``: item_id → path as the shop delivers it (``items.image``)."""

    kind: Kind = "own_photo"

    def __init__(self, folder: Path, paths: Mapping[str, str | None]) -> None:
        self._folder, self._paths = folder, paths

    def picture(self, brief: Brief) -> Picture:
        item = brief.item.item_id
        path = self._paths.get(item) or ""
        if not path.strip():
            raise NoPicture(
                f"item {item} has no picture", f"deliver items.image, a path below {self._folder}, or let the GAN draw"
            )
        name = f"item {item}: picture {shown(path)}"
        return Picture(inside(self._folder, path, name), name, self.kind, SMALLEST_SIDE)


class GanPictures:
    """What `adloom generate-images` drew, one file per item and segment."""

    kind: Kind = "gan"

    def __init__(self, folder: Path, next_step: str = "run `adloom generate-images`") -> None:
        self._folder, self._next_step = folder, next_step

    def picture(self, brief: Brief) -> Picture:
        path = self._folder / f"{drawn_name(brief)}.png"
        name = f"item {brief.item.item_id}: picture {path.name}"
        if not path.is_file():
            raise PictureError(f"{name} is not drawn", self._next_step)
        return Picture(path, name, self.kind)


def drawn_name(brief: Brief) -> str:
    """The name of the picture a generator draws for a brief: one per item and segment, 16 hex digits."""
    return hashlib.sha256(f"{brief.item.item_id}\n{brief.segment_id}".encode()).hexdigest()[:16]


class Opened:
    """The last few pictures of a source, so that the banners of an item open its picture once.

    ``most``: pictures kept open. ``opened``: how many were decoded so far.
    """

    def __init__(self, source: PictureSource, most: int = 4) -> None:
        self.source, self.kind, self.most, self.opened = source, source.kind, most, 0
        self._kept: OrderedDict[tuple[Path, str], Picture] = OrderedDict()

    def picture(self, brief: Brief) -> Picture:
        fresh = self.source.picture(brief)
        key = fresh.path, fresh.name
        if key not in self._kept:
            fresh.image  # noqa: B018 - a picture that cannot be opened is not kept
            self.opened += 1
            self._kept[key] = fresh
            while len(self._kept) > self.most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


# --- which file ---------------------------------------------------------------------------------------------------


def inside(folder: Path, path: str, name: str) -> Path:
    """The regular file that ``path`` names below ``folder``; `PictureError` where it leads anywhere else."""
    next_step = f"deliver a path below {folder}, such as {shown(Path(path.replace(chr(92), '/')).name or 'item.jpg')}"
    if "://" in path or path.lower().startswith(("data:", "//")):
        raise PictureError(f"{name} is an address; pictures are never fetched", next_step)
    if "\0" in path or "\\" in path or Path(path).is_absolute() or ".." in Path(path).parts:
        raise PictureError(f"{name} leads out of the shop's picture folder", next_step)
    try:
        found = (folder / path).resolve(strict=True)
        is_file = stat.S_ISREG(found.stat().st_mode)
    except (OSError, RuntimeError, ValueError) as error:
        reason = "is not there" if isinstance(error, FileNotFoundError) else "cannot be reached"
        raise PictureError(f"{name} {reason}", f"put the file into {folder}, or mend items.image") from error
    if not found.is_relative_to(folder.resolve()):
        raise PictureError(f"{name} is a link that leads out of the shop's picture folder", next_step)
    if not is_file:
        raise PictureError(f"{name} is no file", next_step)
    return found


def shown(path: str) -> str:
    """A delivered path as a message shows it: one short line."""
    text = path.encode("utf-8", "backslashreplace").decode()
    text = "".join(letter if letter.isprintable() else "�" for letter in text)
    return text if len(text) <= 120 else f"{text[:117]}…"


def _bytes(path: Path, name: str) -> bytes:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise PictureError(f"{name} cannot be read: {error.strerror or error}", "mend the file's rights") from error
    if not content:
        raise PictureError(f"{name} is empty", "deliver it again")
    if len(content) > MOST_BYTES:
        raise PictureError(f"{name} is larger than {MOST_BYTES >> 20} MB", "deliver a smaller one: 2000 px are enough")
    return content


# --- what is in it ------------------------------------------------------------------------------------------------


def decode(content: bytes, name: str, smallest: int = 1) -> Image:
    """The pixels of a picture file as RGB or RGBA, upright, in sRGB, at most `LARGEST_SIDE`; else `PictureError`."""
    from PIL import Image, ImageFile, UnidentifiedImageError

    if _is_drawing(content):
        raise PictureError(
            f"{name} is an SVG, which may refer to other files and is not drawn here",
            "export it as PNG with at least 800 px and deliver that",
        )
    Image.init()  # else `open` knows only the commonest formats
    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
        _require_size(image, name, smallest)
        if getattr(image, "n_frames", 1) > 1 and image.format not in STILL:
            raise PictureError(f"{name} is animated, of {_frames(image)} frames", "deliver one still picture")
        image.draft("RGB", (LARGEST_SIDE, LARGEST_SIDE))
        was_tolerant, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            image.load()
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = was_tolerant
        return _converted(image, name)
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(name, None) from error
    except UnidentifiedImageError as error:
        if _begins_as_a_picture(content):
            raise PictureError(f"{name} is damaged or cut short", "deliver it again") from error
        raise PictureError(
            f"{name} is no picture that can be read (it begins with {content[:8]!r})",
            f"deliver one of {', '.join(FORMATS)}",
        ) from error
    # A decoder met with broken bytes ends in any of these.
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        LookupError,
        TypeError,
        RuntimeError,
        ArithmeticError,
        AttributeError,
        MemoryError,
        struct.error,
    ) as error:
        raise PictureError(f"{name} is damaged or cut short: {error}", "deliver it again") from error


def _begins_as_a_picture(content: bytes) -> bool:
    from PIL import Image

    known = (Image.OPEN[one][1] for one in FORMATS)
    return any(accept(content[:16]) is True for accept in known if accept)


def _is_drawing(content: bytes) -> bool:
    head = content[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return head.startswith((b"<svg", b"\x1f\x8b")) or (
        head.startswith((b"<?xml", b"<!")) and b"<svg" in content[:65536]
    )


def _require_size(image: Image, name: str, smallest: int) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise _too_large(name, image.size)
    if min(width, height) < smallest:
        raise PictureError(
            f"{name} has {width} × {height} px, which is too small to be shown large",
            f"deliver one with at least {smallest} px on the short side, better 1000",
        )


def _too_large(name: str, size: tuple[int, int] | None) -> PictureError:
    what = f"{size[0]:,} × {size[1]:,} px" if size else "too many pixels"
    return PictureError(f"{name} would unpack to {what}; at most {MOST_PIXELS:,} are opened", "deliver a smaller one")


def _frames(image: Any) -> int:
    return int(getattr(image, "n_frames", 1))


def _converted(image: Image, name: str) -> Image:
    """Upright, sRGB, 8 bit, RGB or RGBA."""
    from PIL import Image as images
    from PIL import ImageOps

    profile = image.info.get("icc_profile")
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith(("I", "F")):
        upright = _eight_bits(upright, name)
    elif upright.mode in ("P", "PA", "1", "LA", "La", "RGBa"):
        has_alpha = upright.mode not in ("P", "1") or "transparency" in upright.info
        upright = upright.convert("RGBA" if has_alpha else "RGB")
    elif upright.mode in ("L", "RGB") and "transparency" in upright.info:
        upright = upright.convert("RGBA")
    if max(upright.size) > LARGEST_SIDE:
        upright.thumbnail((LARGEST_SIDE, LARGEST_SIDE), images.Resampling.LANCZOS, reducing_gap=3.0)
    found = _in_srgb(upright, profile)
    if found.mode == "RGBA":
        least, most = found.getchannel("A").getextrema()
        if most == 0:
            raise PictureError(f"{name} is transparent all over", "deliver one that shows the item")
        if least == 255:
            found = found.convert("RGB")
    return found


def _eight_bits(image: Image, name: str) -> Image:
    """Of 16 bits the upper 8; Pillow's own conversion would clip."""
    import numpy as np
    from PIL import Image as images

    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 0xFFFF:
        raise PictureError(f"{name} has pixels of {values.dtype}, which no shop's photo has", "deliver 8 or 16 bits")
    is_deep = image.mode.startswith("I;16") or values.max() > 0xFF
    return images.fromarray((values >> 8 if is_deep else values).astype(np.uint8)).convert("RGB")


def _in_srgb(image: Image, profile: bytes | None) -> Image:
    """By the picture's own colour profile where it has a readable one."""
    from PIL import ImageCms

    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    if profile and image.mode in ("RGB", "RGBA", "CMYK", "L"):
        try:
            own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" in ImageCms.getProfileDescription(own) and image.mode in ("RGB", "RGBA"):
                return _plain(image, mode)
            turned = ImageCms.profileToProfile(image, own, ImageCms.createProfile("sRGB"), outputMode=mode)
            if turned is not None:
                return _plain(turned, mode)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # a broken profile is as good as none
    return _plain(image, mode)


def _plain(image: Image, mode: str) -> Image:
    """In the mode, without what the file said besides its pixels (EXIF, place, comments, profile)."""
    found = image if image.mode == mode else image.convert(mode)
    found.info = {}
    return found


# --- where the subject is -----------------------------------------------------------------------------------------


def _rim_colour(image: Image) -> tuple[int, int, int] | None:
    """The median colour of the picture's rim, if the rim is even enough to be a backdrop."""
    import numpy as np

    small = image.convert("RGB")
    small.thumbnail((256, 256), reducing_gap=2.0)
    pixels = np.asarray(small).astype(np.int16)
    deep = max(1, round(RIM * min(pixels.shape[:2])))
    rim = np.concatenate(
        [part.reshape(-1, 3) for part in (pixels[:deep], pixels[-deep:], pixels[:, :deep], pixels[:, -deep:])]
    )
    median = np.median(rim, axis=0)
    if np.percentile(np.abs(rim - median).max(axis=1), 99) > EVEN:
        return None
    return int(median[0]), int(median[1]), int(median[2])


def _subject(image: Image) -> Image | None:
    """What differs from a plain backdrop, as a mask; None: no plain backdrop, or nothing stands before it."""
    import numpy as np
    from PIL import Image as images

    colour = _rim_colour(image)
    if colour is None:
        return None
    pixels = np.asarray(image.convert("RGB")).astype(np.int16)
    found = np.abs(pixels - np.array(colour, np.int16)).max(axis=2) > PRESENT
    return images.fromarray(found.astype(np.uint8) * 255) if found.any() else None


Source = Callable[[Mapping[str, str | None]], PictureSource]
"""Makes a source from item_id → delivered path."""
