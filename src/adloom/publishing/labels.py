"""AI labels: what people can see in a copy, and what machines find in every file that leaves the house.

The visible label of pictures and videos is drawn where they are composed; its words are `creative.AI_LABEL` alone. Here
is the other half: the implicit label of GB 45438-2025 (key AIGC, seven elements) and IPTC's digital source type. It is
written last, into the finished file, and read back from the file after every export and resize. ReservedCode1, which
the standard leaves to the producer for the integrity of content and label, holds a hash of what the file shows, so a
picture that was changed under its label is found out as well as a label that was stripped.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args
from xml.etree.ElementTree import ParseError
from xml.sax.saxutils import escape

from adloom.creative import AI_LABEL, Copy, Language
from adloom.errors import AdloomError, GateFailed, UsageError
from adloom.publishing import metadata
from adloom.publishing.metadata import TEXT, XMP, Format
from adloom.shop import Shop

if TYPE_CHECKING:
    from PIL.Image import Image

NAMESPACE = "http://www.tc260.org.cn/ns/AIGC/1.0/"
IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
SourceType = Literal["trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"]
ELEMENTS = (
    "Label",
    "ContentProducer",
    "ProduceID",
    "ReservedCode1",
    "ContentPropagator",
    "PropagateID",
    "ReservedCode2",
)
GENERATED = "1"
"""Label: is made by AI (2: may be, 3: is suspected to be)."""
_HASH = "sha256:"
_ENCODING: dict[Format, dict[str, Any]] = {
    # Full colour resolution and a high quality: letters on a picture show every saving.
    "jpeg": {"format": "JPEG", "quality": 92, "subsampling": 0, "optimize": True},
    "webp": {"format": "WEBP", "quality": 92, "method": 4},
    "png": {"format": "PNG"},
}
_SAME_SHAPE = 0.01
"""Relative difference of width / height up to which a resize counts as the same picture."""


@dataclass(frozen=True)
class Label:
    """Who made which content, and of what kind it is."""

    producer: str
    """ContentProducer: the shop's ``ai_label_producer_id``"""
    produce_id: str
    """ProduceID: the creative's id"""
    source_type: SourceType
    propagator: str = ""
    """ContentPropagator and PropagateID are the platform's to fill in"""
    propagate_id: str = ""

    def elements(self, content_hash: str) -> dict[str, str]:
        """The seven elements, in the standard's order."""
        values = (GENERATED, self.producer, self.produce_id, _HASH + content_hash)
        return dict(zip(ELEMENTS, (*values, self.propagator, self.propagate_id, ""), strict=True))


@dataclass(frozen=True)
class LabelRecord:
    """A label as it was found in a file."""

    label: Label
    format: Format
    places: tuple[str, ...]
    """where it stands: xmp, text"""
    stated_hash: str
    """what the label says that the file shows"""
    content_hash: str
    """what the file shows, SHA-256 without its metadata"""

    @property
    def is_intact(self) -> bool:
        """The label stands in every place of the format, and the content is the one it was written for."""
        return self.stated_hash == self.content_hash and self.places == metadata.PLACES[self.format]

    def json(self) -> str:
        """For a row of ``adloom.assets``."""
        content = {
            "AIGC": self.label.elements(self.stated_hash),
            "digitalSourceType": self.label.source_type,
            "places": self.places,
        }
        return json.dumps(content, ensure_ascii=False, sort_keys=True)


def label_of(shop: Shop, creative_id: str, picture_source: str) -> Label:
    """The label of a creative's files. ``picture_source``: own_photo, or what drew the picture.

    Raises `AdloomError` where the shop has no producer id: nothing leaves without a label.
    """
    if not (shop.ai_label_producer_id or "").strip():
        raise AdloomError(
            f"{shop.id}.yml: ai_label_producer_id: is not set, and no file leaves without an AI label",
            "set it to the name or code under which the shop answers for AI-made content",
        )
    own = picture_source == "own_photo"
    kind: SourceType = "compositeWithTrainedAlgorithmicMedia" if own else "trainedAlgorithmicMedia"
    return Label(str(shop.ai_label_producer_id).strip(), creative_id, kind)


def labelled_text(copy: Copy | str, language: Language) -> str:
    """A copy as it is posted, its label the last line; a text that carries it already stays as it is."""
    text = copy.text if isinstance(copy, Copy) else copy
    mark = text_label(language)
    return text if mark in text else f"{text}\n{mark}"


def text_label(language: Language) -> str:
    """The label of a text: AI生成 in the brackets of its language."""
    return f"（{AI_LABEL[language]}）" if language == "zh" else f"({AI_LABEL[language]})"


def labelled(content: bytes, label: Label, name: str = "the file") -> bytes:
    """The finished file with its label; what it had of one is replaced. Nothing it shows is changed."""
    elements = label.elements(metadata.essence(content, name))
    line = json.dumps(elements, ensure_ascii=True, separators=(",", ":"))
    # The guide for pictures wraps the elements in their key; in a video the key is the field's name.
    wrapped = f'{{"AIGC":{line}}}'
    is_video = metadata.format_of(content, name) == "mp4"
    return metadata.with_metadata(content, _packet(line, label.source_type), line if is_video else wrapped, name)


def label_file(path: Path, label: Label) -> LabelRecord:
    """Label a finished file in place, whole or not at all, and read it back."""
    _replace(path, labelled(path.read_bytes(), label, path.name))
    return verify(path, label)


def read_label(path: Path) -> LabelRecord | None:
    """The label that stands in the file, None where there is none. Raises `GateFailed` where it cannot be believed."""
    return read_bytes(path.read_bytes(), path.name)


def read_bytes(content: bytes, name: str) -> LabelRecord | None:
    """As `read_label`, for a file in memory; ``name`` is what errors call it."""
    found = metadata.read_metadata(content, name)
    read = {place: _elements(place, text, name) for place, text in found.items()}
    told = {place: elements for place, elements in read.items() if elements is not None}
    if not told:
        return None
    if any(elements != next(iter(told.values())) for elements in told.values()):
        raise GateFailed(f"{name}: its labels contradict each other ({' and '.join(told)})", "export the file again")
    elements = next(iter(told.values()))
    source_type = _source_type(found.get(XMP, ""), name)
    if source_type is None and XMP in told:
        raise GateFailed(f"{name}: its label names no digital source type", "export the file again")
    kind = metadata.format_of(content, name)
    return LabelRecord(
        label=Label(
            producer=elements["ContentProducer"],
            produce_id=elements["ProduceID"],
            source_type=source_type or "trainedAlgorithmicMedia",
            propagator=elements["ContentPropagator"],
            propagate_id=elements["PropagateID"],
        ),
        format=kind,
        places=tuple(place for place in metadata.PLACES[kind] if place in told),
        stated_hash=elements["ReservedCode1"].removeprefix(_HASH),
        content_hash=metadata.essence(content, name),
    )


def verify(path: Path, expected: Label) -> LabelRecord:
    """Read the label back from the file; raises `GateFailed` naming the file where it is not ``expected``, or stale."""
    return verify_bytes(path.read_bytes(), expected, path.name)


def verify_bytes(content: bytes, expected: Label, name: str) -> LabelRecord:
    """As `verify`, for a file in memory; ``name`` is what errors call it."""
    again = "label it again as the last step, after every export and resize"
    record = read_bytes(content, name)
    if record is None:
        raise GateFailed(f"{name} carries no AI label: it was never written, or something stripped it", again)
    if missing := [place for place in metadata.PLACES[record.format] if place not in record.places]:
        raise GateFailed(f"{name}: its AI label was stripped from the file's {' and '.join(missing)} metadata", again)
    if record.label != expected:
        raise GateFailed(
            f"{name}: its AI label says {record.label.producer} / {record.label.produce_id} / "
            f"{record.label.source_type}, not {expected.producer} / {expected.produce_id} / {expected.source_type}",
            again,
        )
    if record.stated_hash != record.content_hash:
        raise GateFailed(f"{name}: its content is not the one its AI label was written for", again)
    return record


def export(source: Path, target: Path, size: tuple[int, int] | None = None) -> LabelRecord:
    """A labelled file again in another size or format (by the target's suffix), labelled anew and read back.

    The visible label shrinks with the picture and keeps its share of it, so only the same shape is exported: another
    one is composed. A video keeps its size. Raises `GateFailed` where the source is not properly labelled itself.
    """
    content = source.read_bytes()
    before = read_bytes(content, source.name)
    if before is None:
        raise GateFailed(f"{source.name} carries no AI label", "export the labelled file")
    before = verify_bytes(content, before.label, source.name)
    wanted = metadata.SUFFIXES.get(target.suffix.lower())
    if wanted is None:
        raise UsageError(f"{target.name}: no format ends in {target.suffix!r}", ", ".join(metadata.SUFFIXES))
    if "mp4" in {wanted, before.format}:
        if size is not None or wanted != before.format:
            raise UsageError(f"{source.name}: a video is exported as it is", "compose it in the format that is wanted")
    elif size is not None or wanted != before.format:
        content = _drawn_again(content, wanted, size, source.name)
    _replace(target, labelled(content, before.label, target.name))
    return verify(target, before.label)


def preview(content: bytes, longest: int, name: str) -> bytes:
    """A small JPEG of a labelled picture, or of a labelled video's first frame, that carries the same label."""
    import io

    record = read_bytes(content, name)
    if record is None:
        raise GateFailed(f"{name} carries no AI label", "export the labelled file")
    if record.format == "mp4":
        import av

        with av.open(io.BytesIO(content), "r") as opened:
            frame = next(opened.decode(video=0))
            written = io.BytesIO()
            frame.to_image().save(written, "PNG", compress_level=1)
        content = written.getvalue()
    from PIL import Image as images

    with images.open(io.BytesIO(content)) as image:
        share = min(1.0, longest / max(image.size))
        size = max(1, round(image.width * share)), max(1, round(image.height * share))
    return labelled(_drawn_again(content, "jpeg", size, name, any_shape=True), record.label, name)


def _drawn_again(
    content: bytes, wanted: Format, size: tuple[int, int] | None, name: str, *, any_shape: bool = False
) -> bytes:
    import io

    from PIL import Image as images

    with images.open(io.BytesIO(content)) as opened:
        image: Image = opened.convert("RGBA" if opened.mode in {"RGBA", "LA", "P"} else "RGB")
        colours = {"icc_profile": opened.info["icc_profile"]} if opened.info.get("icc_profile") else {}
    if size is not None:
        if min(size) < 1 or (not any_shape and abs(size[0] / size[1] / (image.width / image.height) - 1) > _SAME_SHAPE):
            raise UsageError(
                f"{name} is {image.width}×{image.height}: {size[0]}×{size[1]} has another shape",
                "compose it in the format that is wanted",
            )
        image = image.resize(size, images.Resampling.LANCZOS)
    if wanted == "jpeg" and image.mode == "RGBA":
        white = images.new("RGBA", image.size, "white")
        image = images.alpha_composite(white, image).convert("RGB")
    written = io.BytesIO()
    image.save(written, **_ENCODING[wanted], **colours)
    return written.getvalue()


def _packet(line: str, source_type: str) -> str:
    """The XMP packet. Element values, not attributes: what every reader understands."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:TC260="{NAMESPACE}" xmlns:Iptc4xmpExt="{IPTC}">'
        f"<TC260:AIGC>{escape(line)}</TC260:AIGC>"
        f"<Iptc4xmpExt:DigitalSourceType>{SOURCE_TYPES}{source_type}</Iptc4xmpExt:DigitalSourceType>"
        "</rdf:Description></rdf:RDF></x:xmpmeta>\n"
        '<?xpacket end="r"?>'
    )


def _elements(place: str, text: str, name: str) -> dict[str, str] | None:
    """The seven elements that stand in one place; None: there is a packet, and no label in it."""
    line = _property(text, NAMESPACE, "AIGC", name) if place == XMP else text
    if line is None:
        return None
    try:
        content = json.loads(line)
        content = content.get("AIGC", content) if place == TEXT else content
        elements = {key: content[key] for key in ELEMENTS}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GateFailed(f"{name}: its {place} label is not readable: {error!r}", "export the file again") from error
    if not all(isinstance(value, str) for value in elements.values()) or elements["Label"] != GENERATED:
        raise GateFailed(f"{name}: its {place} label does not say that it was made by AI", "export the file again")
    return elements


def _source_type(packet: str, name: str) -> SourceType | None:
    found = (_property(packet, IPTC, "DigitalSourceType", name) or "").removeprefix(SOURCE_TYPES)
    return next((kind for kind in get_args(SourceType) if kind == found), None)


def _property(packet: str, namespace: str, key: str, name: str) -> str | None:
    """A simple property of an XMP packet, as an element or as an attribute, as XMP allows either."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    if not packet:
        return None
    try:
        root = fromstring(packet.strip("\ufeff\0 \r\n\t"))
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise GateFailed(f"{name}: its XMP packet is not readable: {error}", "export the file again") from error
    for node in root.iter():
        if node.tag == f"{{{namespace}}}{key}":
            return node.text or ""
        if (value := node.get(f"{{{namespace}}}{key}")) is not None:
            return str(value)
    return None


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.tmp")
    fresh.write_bytes(content)
    os.replace(fresh, path)
