"""What a training keeps on disk: its lock, its log, its clock, and files that are whole or not there."""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adloom.errors import AdloomError, Busy


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process trains in a folder at a time: a retry must not meet the attempt it replaces."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"another process is training in {folder}") from error
        yield


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write through a temporary name: what was there stays until the new file is whole and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.tmp")
    try:
        write(fresh)
        with fresh.open("rb") as stream:
            os.fsync(stream.fileno())
    except BaseException as error:
        fresh.unlink(missing_ok=True)
        if isinstance(error, OSError | RuntimeError):
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
            raise AdloomError(
                f"{path} cannot be written: {reason}; what was there is kept", "free some space and run this again"
            ) from error
        raise
    fresh.replace(path)


class Clock:
    """Seconds a run has taken over all its attempts, against its cap."""

    def __init__(self, minutes: float | None) -> None:
        self.cap = math.inf if minutes is None else minutes * 60
        self._began = time.monotonic()
        self._before = 0.0

    def add(self, seconds: float) -> None:
        self._before += seconds

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    @property
    def left(self) -> float:
        return self.cap - self.seconds


@dataclass
class Log:
    """``metrics.jsonl``: one line per metric and step: step, seconds, metric, value."""

    path: Path

    def add(self, step: int, seconds: float, **values: float) -> None:
        head = {"step": step, "seconds": round(seconds, 3)}
        lines = [json.dumps(head | {"metric": name, "value": round(one, 6)}) for name, one in values.items()]
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write("".join(f"{line}\n" for line in lines))

    def read(self) -> list[dict[str, Any]]:
        found = []
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    found.append(json.loads(line))
                except ValueError:
                    continue  # the line that was being written when the process was killed
        return found

    def seconds(self) -> float:
        """What earlier attempts took."""
        return max((line["seconds"] for line in self.read()), default=0.0)

    def cut_after(self, step: int, seconds: float) -> None:
        """Forget steps after the checkpoint: they are taken again. The time they took is not forgotten."""
        kept = [line for line in self.read() if line["step"] <= step]
        if seconds:
            kept.append({"step": step, "seconds": round(seconds, 3), "metric": "resumed", "value": 1.0})
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_whole(self.path, lambda path: path.write_text(text, encoding="utf-8"))
