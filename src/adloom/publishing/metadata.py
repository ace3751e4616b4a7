"""Metadata of finished files: put in and read back without touching a pixel or a sample.

Writing works on the containers (PNG chunks, JPEG segments, RIFF chunks, MP4 boxes), so that nothing is encoded again
and the same input gives the same bytes. Reading goes through Pillow and PyAV, as a stranger's program would: what this
module writes wrongly it does not find again. Two carriers are used, both named by TC260-PG-20257A and -20259A: an XMP
packet in every format, and beside it the format's own text field (PNG ``tEXt`` and MP4 ``moov.udta.meta``, key AIGC).
"""

from __future__ import annotations

import hashlib
import io
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from adloom.errors import AdloomError

Format = Literal["png", "jpeg", "webp", "mp4"]
IMAGES: tuple[Format, ...] = ("png", "jpeg", "webp")
SUFFIXES: dict[str, Format] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".mp4": "mp4"}

TEXT_KEY = "AIGC"
"""Name of the text field, in PNG and MP4."""
XMP = "xmp"
TEXT = "text"
PLACES: dict[Format, tuple[str, ...]] = {"png": (XMP, TEXT), "jpeg": (XMP,), "webp": (XMP,), "mp4": (XMP, TEXT)}
"""Where a file of the format carries its label."""

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_XMP = b"XML:com.adobe.xmp"
_PNG_NOT_SHOWN = {b"tEXt", b"iTXt", b"zTXt", b"tIME", b"eXIf", b"pHYs"}
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_JPEG_MORE_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_JPEG_COLOUR = {0xE2, 0xEE}
"""APP2 (ICC profile) and APP14 (colour transform): the application segments that change what is seen."""
_MP4_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_MOST_PACKET = 65_000
"""Bytes an XMP packet may have: what one JPEG segment holds."""


def format_of(content: bytes, name: str) -> Format:
    """The format by content, never by name; `AdloomError` names the file where it is none that carries a label."""
    if content.startswith(_PNG):
        return "png"
    if content.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    if content[4:8] == b"ftyp":
        return "mp4"
    raise AdloomError(f"{name} is no PNG, JPEG, WebP or MP4 file: it cannot carry a label", "export it as one of these")


def with_metadata(content: bytes, xmp: str, text: str, name: str) -> bytes:
    """``content`` with this XMP packet and this text field in place of those it has; pixels and samples untouched."""
    packet = xmp.encode("utf-8")
    if len(packet) > _MOST_PACKET:
        raise AdloomError(f"{name}: a label of {len(packet):,} bytes does not fit", "shorten the ids in it")
    kind = format_of(content, name)
    if kind == "png":
        return _png(content, packet, text, name)
    if kind == "jpeg":
        return _jpeg(content, packet, name)
    if kind == "webp":
        return _webp(content, packet, name)
    return _mp4(content, packet, text, name)


def essence(content: bytes, name: str) -> str:
    """SHA-256, hex, of what the file shows: all of it but its metadata. A label changes nothing of it."""
    kind = format_of(content, name)
    digest = hashlib.sha256(kind.encode())
    if kind == "png":
        for chunk, data in _chunks(content, name):
            if chunk not in _PNG_NOT_SHOWN:
                digest.update(chunk + data)
    elif kind == "jpeg":
        for marker, data in _segments(content, name):
            if marker == 0 or (marker != 0xFE and not 0xE0 <= marker <= 0xEF) or marker in _JPEG_COLOUR:
                digest.update(bytes([marker]) + data)
    elif kind == "webp":
        for chunk, data in _riff(content, name):
            if chunk not in {b"VP8X", b"EXIF", b"XMP "}:
                digest.update(chunk + data)
    else:
        for part in _samples(content, name):
            digest.update(part)
    return digest.hexdigest()


def read_metadata(content: bytes, name: str) -> dict[str, str]:
    """Place (`XMP`, `TEXT`) → what stands there, read by Pillow or PyAV; a place that is empty is left out."""
    kind = format_of(content, name)
    if kind == "mp4":
        return _read_mp4(content, name)
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            if kind == "png":
                image.load()  # text behind the pixels counts too
            packet: Any = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
            text = image.info.get(TEXT_KEY)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise AdloomError(f"{name} is not readable: {error}", "make it again") from error
    found = {}
    if packet:
        found[XMP] = packet.decode("utf-8", "replace") if isinstance(packet, bytes) else str(packet)
    if text:
        found[TEXT] = str(text)
    return found


def _broken(name: str, what: str) -> AdloomError:
    return AdloomError(f"{name} is broken: {what}", "make the file again")


# --- PNG ----------------------------------------------------------------------------------------------------------


def _chunks(content: bytes, name: str) -> Iterator[tuple[bytes, bytes]]:
    """(type, data) of every chunk."""
    position = len(_PNG)
    while position < len(content):
        length, chunk = struct.unpack(">I4s", content[position : position + 8].ljust(8, b"\0"))
        data = content[position + 8 : position + 8 + length]
        if len(data) < length or position + 12 + length > len(content):
            raise _broken(name, f"its chunk {chunk.decode('latin-1')} is cut off")
        yield chunk, data
        if chunk == b"IEND":
            return
        position += 12 + length
    raise _broken(name, "it has no end")


def _png(content: bytes, packet: bytes, text: str, name: str) -> bytes:
    ours = (
        (b"tEXt", TEXT_KEY.encode() + b"\0" + text.encode("ascii")),
        (b"iTXt", _PNG_XMP + b"\0\0\0\0\0" + packet),
    )
    written = [_PNG]
    for chunk, data in _chunks(content, name):
        keyword = data.partition(b"\0")[0]
        if chunk in {b"tEXt", b"zTXt", b"iTXt"} and keyword in {TEXT_KEY.encode(), _PNG_XMP}:
            continue
        written.append(_chunk(chunk, data))
        if chunk == b"IHDR":
            written += [_chunk(*one) for one in ours]
    return b"".join(written)


def _chunk(chunk: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + chunk + data + struct.pack(">I", zlib.crc32(chunk + data))


# --- JPEG ---------------------------------------------------------------------------------------------------------


def _segments(content: bytes, name: str) -> Iterator[tuple[int, bytes]]:
    """(marker, data without its length) up to the scan, then (0, the rest of the file)."""
    position = 2
    while position + 4 <= len(content):
        if content[position] != 0xFF:
            raise _broken(name, f"no marker at byte {position:,}")
        marker = content[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == 0xDA:
            yield 0, content[position:]
            return
        (length,) = struct.unpack(">H", content[position + 2 : position + 4])
        data = content[position + 4 : position + 2 + length]
        if length < 2 or len(data) < length - 2:
            raise _broken(name, "a segment is cut off")
        yield marker, data
        position += 2 + length
    raise _broken(name, "it ends before its picture begins")


def _jpeg(content: bytes, packet: bytes, name: str) -> bytes:
    head: list[bytes] = []
    rest: list[bytes] = []
    for marker, data in _segments(content, name):
        if marker == 0:
            rest.append(data)
        elif not (marker == 0xE1 and data.startswith((_JPEG_XMP, _JPEG_MORE_XMP))):
            # Readers want JFIF and Exif before everything else.
            is_first = not rest and (marker == 0xE0 or (marker == 0xE1 and data.startswith(b"Exif\0")))
            (head if is_first else rest).append(_segment(marker, data))
    return b"\xff\xd8" + b"".join(head) + _segment(0xE1, _JPEG_XMP + packet) + b"".join(rest)


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


# --- WebP ---------------------------------------------------------------------------------------------------------


def _riff(content: bytes, name: str) -> Iterator[tuple[bytes, bytes]]:
    """(type, data) of every chunk of the RIFF."""
    (size,) = struct.unpack("<I", content[4:8])
    end = size + 8
    if end > len(content):
        raise _broken(name, "it is cut off")
    position = 12
    while position + 8 <= end:
        chunk, length = struct.unpack("<4sI", content[position : position + 8])
        if position + 8 + length > end:
            raise _broken(name, f"its chunk {chunk.decode('latin-1')} is cut off")
        yield chunk, content[position + 8 : position + 8 + length]
        position += 8 + length + length % 2


_HAS_XMP, _HAS_ALPHA = 0x04, 0x10


def _webp(content: bytes, packet: bytes, name: str) -> bytes:
    chunks = [(chunk, data) for chunk, data in _riff(content, name) if chunk != b"XMP "]
    if chunks and chunks[0][0] == b"VP8X":
        head = chunks.pop(0)[1]
        head = bytes([head[0] | _HAS_XMP]) + head[1:]
    else:
        from PIL import Image

        with Image.open(io.BytesIO(content)) as image:
            (width, height), has_alpha = image.size, image.mode == "RGBA"
        flags = _HAS_XMP | (_HAS_ALPHA if has_alpha else 0)
        sides = (side.to_bytes(3, "little") for side in (width - 1, height - 1))
        head = bytes([flags, 0, 0, 0]) + b"".join(sides)
    chunks = [(b"VP8X", head), *chunks, (b"XMP ", packet)]
    body = b"WEBP" + b"".join(
        struct.pack("<4sI", chunk, len(data)) + data + b"\0" * (len(data) % 2) for chunk, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


# --- MP4 ----------------------------------------------------------------------------------------------------------


def _mp4(content: bytes, packet: bytes, text: str, name: str) -> bytes:
    """Muxed again with the text field, samples copied; the XMP packet is a box behind everything else."""
    import av

    with tempfile.TemporaryDirectory(prefix="adloom-label-") as folder:
        # The muxer opens its own file a second time to move the index to the front, so memory will not do.
        path = Path(folder) / "labelled.mp4"
        # bitexact: no version of the muxer and no time of day in the file.
        options = {"movflags": "use_metadata_tags+faststart", "fflags": "bitexact"}
        try:
            with (
                av.open(io.BytesIO(content), "r") as source,
                av.open(str(path), "w", format="mp4", options=options) as made,
            ):
                made.metadata[TEXT_KEY] = text
                streams = {
                    stream.index: made.add_stream_from_template(stream)
                    for stream in source.streams
                    if stream.type in {"video", "audio"}
                }
                for sample in source.demux():
                    if sample.dts is not None and sample.stream.index in streams:
                        sample.stream = streams[sample.stream.index]
                        made.mux(sample)
        except av.FFmpegError as error:
            raise _broken(name, str(error)) from error
        muxed = path.read_bytes()
    return muxed + struct.pack(">I", 8 + len(_MP4_XMP) + len(packet)) + b"uuid" + _MP4_XMP + packet


def _samples(content: bytes, name: str) -> Iterator[bytes]:
    """What is played: each stream's codec and parameters, and its samples in order."""
    import av

    try:
        with av.open(io.BytesIO(content), "r") as source:
            for stream in source.streams:
                if stream.type in {"video", "audio"}:
                    yield f"{stream.index} {stream.codec_context.name}".encode()
                    yield bytes(stream.codec_context.extradata or b"")
            for sample in source.demux():
                if sample.dts is not None:
                    yield f"{sample.stream.index} ".encode() + bytes(sample)
    except av.FFmpegError as error:
        raise _broken(name, str(error)) from error


def _boxes(content: bytes, name: str) -> Iterator[tuple[bytes, bytes]]:
    """(type, payload) of the boxes on the first level."""
    position = 0
    while position + 8 <= len(content):
        length, box = struct.unpack(">I4s", content[position : position + 8])
        head = 8
        if length == 1:
            (length,) = struct.unpack(">Q", content[position + 8 : position + 16])
            head = 16
        length = length or len(content) - position
        if length < head or position + length > len(content):
            raise _broken(name, f"its box {box.decode('latin-1')} is cut off")
        yield box, content[position + head : position + length]
        position += length


def _read_mp4(content: bytes, name: str) -> dict[str, str]:
    import av

    found = {}
    for box, payload in _boxes(content, name):
        if box == b"uuid" and payload.startswith(_MP4_XMP):
            found[XMP] = payload[len(_MP4_XMP) :].decode("utf-8", "replace")
    try:
        with av.open(io.BytesIO(content), "r") as source:
            text = source.metadata.get(TEXT_KEY)
    except av.FFmpegError as error:
        raise _broken(name, str(error)) from error
    if text:
        found[TEXT] = text
    return found
