"""What lies in a shop's landing folder: the files of every known_date, their manifest, and whether their bytes
can be read at all.

``landing/<table>/known_date=YYYY-MM-DD/<file>``. Names that start with ``.`` or ``_`` or end in ``.tmp`` are work in
progress of whoever writes them, and ignored. Anything else that fits nowhere is an error or a rejected file: a
misspelt folder must not look like a quiet day.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import json
import os
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO

from adloom.errors import AdloomError
from adloom.settings import settings
from adloom.shop import Shop
from adloom.warehouse.contract import FORMATS, TABLES, VERSION

CHUNK = 1 << 20
LONGEST_HEADER = 1 << 20
# A file written twice within one tick of the file system's clock looks unchanged; git meets the same problem in
# the same way: an mtime this close to our own reading proves nothing, so the file is hashed again.
RACY = timedelta(seconds=2)


class Unreadable(Exception):
    """A whole file cannot be used; the message says why, to be read after the file's name."""


@dataclass(frozen=True)
class LandedFile:
    """One delivered file. ``sha256`` is empty until `with_hashes`; ``reason`` says why it is rejected unread."""

    known_date: date
    table: str
    name: str
    path: Path
    size: int
    mtime_ns: int
    sha256: str = ""
    reason: str | None = None

    @property
    def format(self) -> str:
        """parquet, csv or jsonl."""
        return next(end for end in FORMATS if self.name.endswith(end)).split(".")[1]

    @property
    def is_gzip(self) -> bool:
        return self.name.endswith(".gz")


@dataclass(frozen=True)
class Seen:
    """What the ledger remembers of a file when it was loaded."""

    size: int
    mtime_ns: int
    sha256: str
    loaded_at: datetime


def landed_days(shop: Shop) -> dict[date, list[Path]]:
    """Every ``known_date=…`` folder of every table, by day; each list is ordered by table."""
    days: dict[date, list[Path]] = {}
    for table in sorted(_entries(shop.landing), key=lambda entry: entry.name):
        if not table.is_dir():
            continue
        if table.name not in TABLES:
            raise AdloomError(
                f"landing/{table.name} is not a table of the landing contract",
                f"rename it to one of {', '.join(TABLES)}, or begin its name with '_'",
            )
        for folder in _entries(Path(table.path)):
            day = _known_date(folder)
            days.setdefault(day, []).append(Path(folder.path))
    return days


def day_files(root: Path, known_date: date, folders: Iterable[Path]) -> list[LandedFile]:
    """The files of one known_date, by table and name, not hashed yet. ``root``: the landing folder, resolved."""
    found = []
    for folder in folders:
        for entry in _entries(folder):
            found.append(_file(root, known_date, folder.parent.name, entry))
    return sorted(found, key=lambda file: (file.table, file.name))


def with_hashes(files: list[LandedFile], seen: Mapping[tuple[str, str], Seen]) -> list[LandedFile]:
    """The files with their sha256; one whose size and mtime are as the ledger remembers is not read again."""

    known = [_remembered(file, seen.get((file.table, file.name))) for file in files]
    if all(file.sha256 or file.reason for file in known):
        return known
    with ThreadPoolExecutor(settings().threads) as pool:
        return list(pool.map(_hashed, known))


def _remembered(file: LandedFile, before: Seen | None) -> LandedFile:
    if before is not None and (before.size, before.mtime_ns) == (file.size, file.mtime_ns) and not file.reason:
        modified = datetime.fromtimestamp(file.mtime_ns / 1e9, UTC).replace(tzinfo=None)
        if modified < before.loaded_at - RACY:
            return replace(file, sha256=before.sha256)
    return file


def _hashed(file: LandedFile) -> LandedFile:
    if file.sha256 or file.reason:
        return file
    try:
        with file.path.open("rb") as stream:
            return replace(file, sha256=hashlib.file_digest(stream, "sha256").hexdigest())
    except OSError as error:
        return replace(file, reason=f"cannot be read: {error.strerror}")


def manifest_digest(shop: Shop, files: Iterable[LandedFile]) -> str:
    """Digest of everything that decides what a known_date's raw rows are, the user-id key apart."""
    entries = [[file.table, file.name, file.size, file.sha256, file.reason] for file in files]
    content = json.dumps({"contract": VERSION, "time_zone": shop.time_zone, "files": entries}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class TextFacts:
    """What one pass over the bytes of a CSV or JSON-lines file tells."""

    lines: int  # physical lines, the last one with or without its line feed
    has_quotes: bool
    has_open_quote: bool  # an odd number of quotes: one is opened and never closed, or stands where none may
    header: tuple[str, ...] = ()  # CSV only
    header_lines: int = 0


def text_facts(file: LandedFile) -> TextFacts:
    """Read every byte once: whole gzip, valid UTF-8, how many lines. Raises `Unreadable`.

    The engine alone would not do: it reads the readable half of a truncated gzip without an error, and never
    looks at the encoding of a column it does not need.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    feeds = offset = quotes = 0
    has_control = has_returns = False
    last = b""
    try:
        with open_bytes(file) as stream:
            while chunk := stream.read(CHUNK):
                decoder.decode(chunk)
                feeds += chunk.count(b"\n")
                has_returns = has_returns or b"\r" in chunk
                quotes += chunk.count(b'"')
                has_control = has_control or b"\x01" in chunk
                offset += len(chunk)
                last = chunk
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise Unreadable(f"is not UTF-8 (at about byte {offset + error.start})") from error
    except EOFError as error:
        raise Unreadable("is a truncated gzip file") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise Unreadable(f"is a damaged gzip file ({error})") from error
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}") from error
    if offset == 0:
        raise Unreadable("holds nothing once unpacked")
    if has_returns and not feeds:
        raise Unreadable("ends its lines with a bare carriage return; end them with a line feed")
    facts = TextFacts(feeds + (last[-1:] != b"\n"), quotes > 0, quotes % 2 == 1)
    if file.format == "csv":
        header, lines = _header(file)
        return replace(facts, header=header, header_lines=lines)
    if has_control:
        raise Unreadable("holds the control character U+0001, which JSON does not allow")
    return facts


def open_bytes(file: LandedFile) -> IO[bytes]:
    """The file's bytes, unpacked."""
    return gzip.open(file.path, "rb") if file.is_gzip else file.path.open("rb")  # type: ignore[return-value]


def line_numbers(file: LandedFile, offsets: Iterable[int]) -> dict[int, int]:
    """Byte offset (from 0) → physical line (from 1)."""
    wanted = sorted(set(offsets))
    numbers: dict[int, int] = {}
    line, position = 1, 0
    with open_bytes(file) as stream:
        for offset in wanted:
            while position < offset and (chunk := stream.read(min(CHUNK, offset - position))):
                line += chunk.count(b"\n")
                position += len(chunk)
            numbers[offset] = line
    return numbers


def blank_lines(file: LandedFile) -> int:
    """How many physical lines hold nothing; only asked of files whose rows do not add up."""
    nothing = b"\r\n" if file.format == "csv" else b" \t\r\n"
    with open_bytes(file) as stream:
        return sum(1 for line in stream if not line.strip(nothing))


def line_text(file: LandedFile, number: int) -> str:
    """One physical line, for a person to look at."""
    with open_bytes(file) as stream:
        for count, line in enumerate(stream, start=1):
            if count == number:
                return line.decode(errors="replace").rstrip("\r\n")
    return ""


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not _is_ignored(entry.name))
    except FileNotFoundError:
        return  # vanished since its parent was listed: the same as never there


def _is_ignored(name: str) -> bool:
    return name.startswith((".", "_")) or name.endswith(".tmp")


def _known_date(folder: os.DirEntry[str]) -> date:
    key, _, text = folder.name.partition("=")
    try:
        if key == "known_date" and folder.is_dir() and len(text) == len("2024-03-01"):
            return date.fromisoformat(text)
    except ValueError:
        pass
    where = f"landing/{Path(folder.path).parent.name}/{folder.name!r}"
    raise AdloomError(
        f"{where} is not a folder known_date=YYYY-MM-DD", "rename it, or begin its name with '_' to have it ignored"
    )


def _file(root: Path, known_date: date, table: str, entry: os.DirEntry[str]) -> LandedFile:
    # A name that is not UTF-8 is shown with its odd bytes escaped; the path keeps them.
    name = os.fsencode(entry.name).decode("utf-8", "backslashreplace")
    file = LandedFile(known_date, table, name, Path(entry.path), 0, 0)
    try:
        if not file.path.resolve(strict=True).is_relative_to(root):
            return replace(file, reason="is a link that leads out of the landing folder")
        status = entry.stat()
    except (OSError, RuntimeError):
        return replace(file, reason="is a link that leads nowhere")
    if stat.S_ISDIR(status.st_mode):
        return replace(file, reason="is a folder; files lie directly in the day's folder")
    if not stat.S_ISREG(status.st_mode):
        return replace(file, reason="is not a regular file")
    file = replace(file, size=status.st_size, mtime_ns=status.st_mtime_ns)
    if not name.endswith(FORMATS):
        return replace(file, reason=f"has an unknown ending; known are {', '.join(FORMATS)}")
    return file


def _header(file: LandedFile) -> tuple[tuple[str, ...], int]:
    with open_bytes(file) as stream:
        text = io.StringIO(stream.read(LONGEST_HEADER).decode("utf-8-sig", "ignore"), newline="")
    reader = csv.reader(text, strict=True)
    try:
        names = next(reader, [])
    except csv.Error as error:
        raise Unreadable(f"has a header that is not CSV ({error})") from error
    if not names:
        raise Unreadable("has an empty first line; it must name the columns")
    # A nameless column is what a data frame's index becomes; it is kept like any unknown column.
    named = tuple(name or f"column_{position}" for position, name in enumerate(names, start=1))
    return named, reader.line_num
