"""The document a newcomer reads and the contract the code enforces name the same tables, columns and values."""

from __future__ import annotations

import re
from pathlib import Path

from adloom.warehouse.contract import TABLES, Kind

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "landing_contract.md"
WORDS = {
    Kind.TEXT: "text",
    Kind.LIST: "list",
    Kind.USER: "user id",
    Kind.TIME: "time",
    Kind.NUMBER: "number",
    Kind.MONEY: "number",
    Kind.COUNT: "whole number",
    Kind.SWITCH: "switch",
    Kind.JSON: "JSON",
}


def test_the_document_says_what_the_code_enforces() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### (\w+): [^\n]+\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL))
    assert list(sections) == list(TABLES)
    for table in TABLES.values():
        rows = re.findall(r"^\| (\*{0,2})(\w+)\*{0,2} \| ([^|]+) \| ?(.*?) ?\|$", sections[table.name], re.MULTILINE)[
            1:
        ]
        assert [(name, bool(bold), kind) for bold, name, kind, _ in rows] == [
            (column.name, column.required, WORDS[column.kind]) for column in table.columns
        ]
        for column, (_, _, _, rule) in zip(table.columns, rows, strict=True):
            assert all(f"`{value}`" in rule for value in column.allowed)
            assert ("not negative" in rule) == (column.range_words == "must not be negative")
            assert ("not after the end of known_date" in rule) == (column.name == table.time)
