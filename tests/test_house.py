"""The house (DESIGN): arrows of import run downward only."""

from __future__ import annotations

import ast
from pathlib import Path

from adloom.settings import CHECKOUT

SOURCE = CHECKOUT / "src" / "adloom"
# From the roof to the ground floor; a room may import what stands on a later line, and itself.
FLOORS = (
    ("__main__",),
    ("cli", "local_airflow"),
    ("orchestration", "asking"),
    ("pipeline", "doctor"),
    ("publishing", "reporting"),
    ("briefs",),
    ("copywriting", "imagery"),
    ("review",),
    ("evaluation", "strategy", "audience", "simulation", "quality", "sources", "privacy"),
    ("warehouse", "turns"),
    ("shop", "creative"),
    ("window", "settings", "rule"),
    ("errors",),
)
# What a neighbour offers to the whole street: pure statistics that the strategy's gate and its holdout's interval under
# daily looks are made of.
SHARED = {("strategy", "adloom.evaluation.off_policy"), ("strategy", "adloom.evaluation.sequences")}


def _floor(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("adloom.")}


def test_no_room_imports_a_room_above_it_or_its_neighbours_inside() -> None:
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for name in sorted(_imports(path)):
            other = name.split(".")[1]
            if other == room or not ((SOURCE / other).is_dir() or (SOURCE / f"{other}.py").is_file()):
                continue
            allowed = _floor(other) > _floor(room) or any(
                room == guest and name.startswith(offered) for guest, offered in SHARED
            )
            if not allowed:
                wrong.append(f"{path.relative_to(SOURCE)} imports {name}")
    assert not wrong, "\n".join(wrong)
