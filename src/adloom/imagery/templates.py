"""Templates as data (``templates/*.yml``): where things stand, how large they are, what they need, whom they suit."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adloom.creative import Brief, Copy, Scenario
from adloom.errors import AdloomError, UsageError
from adloom.imagery.fonts import Face
from adloom.imagery.formats import Format, Shape

Show = Literal["brand", "headline", "body", "offer", "price", "action", "label"]
Area = Annotated[
    tuple[float, float, float, float], Field(description="left, top, right, bottom as shares of the canvas")
]
Look = Literal["plain", "pill", "tag", "link"]
FOLDER = Path(__file__).with_name("templates")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Block(_Part):
    """One piece of text, or two side by side (``beside``). Sizes are shares of the canvas's short side."""

    show: Show
    size: float = Field(default=0.05, gt=0, description="as large as it is where there is room")
    floor: float = Field(default=0.026, gt=0, description="and never smaller than this")
    lines: int = Field(default=1, ge=1)
    gap: float = Field(default=0.03, ge=0, description="space above it")
    push: bool = Field(default=False, description="what is left of the column's height goes above it")
    face: Face = "regular"
    colour: str = "ink"
    look: Look = "plain"
    fill: str = "accent"
    beside: Block | None = Field(default=None, description="stands at the other end of the same line, where both fit")


class Column(_Part):
    """Blocks one below the other. What falls outside the format's safe area is cut off."""

    area: Area
    align: Literal["left", "centre"] = "left"
    anchor: Literal["top", "middle", "bottom"] = "top"
    blocks: tuple[Block, ...]


class Shaped(_Part):
    """A filled area; ``radius`` is a share of the short side. A circle fills the square in the middle of its area."""

    area: Area
    fill: str
    radius: float = Field(default=0, ge=0)
    shape: Literal["rectangle", "circle"] = "rectangle"


class Place(_Part):
    """Where the picture stands. ``inset``: space kept around the subject, as a share of the short side."""

    area: Area
    inset: float = Field(default=0.05, ge=0)
    free: Area | None = Field(default=None, description="where a free-standing subject goes; none: the area less inset")
    radius: float = Field(default=0, ge=0)
    fill: str | None = Field(default=None, description="behind a photo that does not fill the area")
    stage: Shaped | None = Field(default=None, description="behind a subject that is cut out")


class Layout(_Part):
    """One shape of canvas: ground, fields in the order they are painted, picture, columns of text."""

    ground: str
    fields: tuple[Shaped, ...] = ()
    picture: Place
    over: tuple[Shaped, ...] = Field(default=(), description="fields painted after the picture; never over the subject")
    columns: tuple[Column, ...]


class Template(_Part):
    """A design that adapts to every shape of canvas."""

    id: str
    version: int = Field(ge=1)
    needs: tuple[Literal["brand", "price", "list_price", "offer"], ...] = ()
    scenarios: tuple[Scenario, ...] = ()
    styles: tuple[str, ...] = ()
    layouts: dict[Shape, Layout]
    roomy: dict[Shape, Layout] = Field(default={}, description="the same design with more room for a long body")


@cache
def templates() -> dict[str, Template]:
    """Id → template; `AdloomError` names file and key."""
    found = {}
    for path in sorted(FOLDER.glob("*.yml")):
        try:
            template = Template.model_validate({"id": path.stem, **yaml.safe_load(path.read_text(encoding="utf-8"))})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise AdloomError(f"{path.name}: {where}: {first['msg']}", "mend the template") from error
        found[template.id] = template
    return found


def template(name: str) -> Template:
    """The template of that name; `UsageError` lists the names there are."""
    if name not in templates():
        raise UsageError(f"there is no template {name}", f"one of {', '.join(templates())}")
    return templates()[name]


def missing(template: Template, brief: Brief) -> list[str]:
    """The fields a template needs and the brief lacks."""
    return [name for name in template.needs if not field(brief, name)]


def body_size(layout: Layout) -> float:
    """Of the body's text where there is room, as a share of the short side; 0 in a layout that shows none."""
    return next((one.size for column in layout.columns for one in column.blocks if one.show == "body"), 0.0)


def field(brief: Brief, name: str) -> str:
    """What the brief says for ``brand``, ``price``, ``list_price`` or ``offer``; empty where it says nothing."""
    if name == "offer":
        return brief.offer.text if brief.offer else ""
    return str(getattr(brief.item, name))


def suitable(copy: Copy, brief: Brief, style: str, format: Format) -> list[Template]:
    """Templates the brief has everything for, best first; equals are ordered by the copy, so that copies differ."""
    digest = copy.digest

    def order(one: Template) -> tuple[int, str]:
        points = (brief.scenario in one.scenarios) + (style in one.styles)
        return -points, hashlib.sha256(f"{digest} {one.id}".encode()).hexdigest()

    fitting = [one for one in templates().values() if format.shape in one.layouts and not missing(one, brief)]
    return sorted(fitting, key=order)
