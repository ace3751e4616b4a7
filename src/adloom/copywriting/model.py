"""Where a copy model comes from: the only module that knows.

A shop names its model in one setting: ``package:NAME`` (weights that travel in Python packages, so that a machine
without a hub works), ``path:/folder``, ``hub:owner/name[@revision]`` or ``endpoint`` (an OpenAI-compatible server).
Nothing outside knows which; nothing here knows one architecture from another. PyTorch and transformers are imported
only when weights are loaded.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache as remembered
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from adloom.copywriting import weights
from adloom.copywriting.endpoint import Completion, EndpointModel, Prompt
from adloom.errors import AdloomError, UsageError
from adloom.shop import Copywriting, Endpoint

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "Completion",
    "Description",
    "EndpointModel",
    "LocalModel",
    "Prompt",
    "attach",
    "describe_device",
    "fast_dtype",
    "identify",
    "load_local",
    "pick_device",
    "resolve",
]

log = logging.getLogger(__name__)

LORA_WEIGHTS = "adapter_model.safetensors"
HUB_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
# Of a hub's repository: what transformers reads, and no pickles, no second copy of the weights in another layout.
HUB_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja", "README.md", "LICENSE*", "NOTICE*")
HUB_LEFT_OUT = ("consolidated*", "original/*", "*/*")
TRY_DEFAULT = "or use the weights package: copywriting.model: package:gemma-3-270m"


@dataclass
class LocalModel:
    """A causal language model in this process, ready to generate: in eval mode and on its device.

    The tokenizer has a pad token and pads on the left, as batched generation needs; training pads as it likes.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    base: str
    """``package:gemma-3-270m``, ``path:…`` or ``hub:owner/name@commit``, as the models row has it"""
    base_digest: str
    """SHA-256 of the base: that of the package's pinned file, else over its folder's files (name, size, content)"""
    licence: str
    """what the user must know of the weights' licence, with its link"""
    adapter_digest: str = ""
    """the same of the adapter's folder; empty without one"""


@dataclass(frozen=True)
class Description:
    """What a shop's setting means, found without loading weights: for the doctor, the models row and logs."""

    base: str
    kind: Literal["package", "path", "hub", "endpoint"]
    detail: str
    """one line for a person"""
    licence: str
    problem: str = ""
    """why it cannot be used here; empty when it can"""
    next_step: str = ""


@dataclass(frozen=True)
class _Base:
    """A folder of safetensors and tokenizer, and what is known of where it came from."""

    name: str
    folder: Path
    digest: str
    licence: str


def load_local(
    name: str, cache: Path, device: str = "auto", adapter: Path | None = None, dtype: str | None = None
) -> LocalModel:
    """Load ``name`` (``package:``, ``path:`` or ``hub:``), with ``adapter`` on top, into this process.

    ``cache``: folder for converted weights and digests. ``device``: auto, cpu or cuda. ``dtype``: bfloat16 or float32;
    by default what generates fastest (`fast_dtype`). ``adapter``: a folder with a LoRA adapter (it has
    ``adapter_config.json``; it is merged into the weights) or with full weights (``model.safetensors``).

    `AdloomError` names the file or id at fault and the next step.
    """
    import torch

    where = torch.device(pick_device(device))
    base = _find(name, cache)
    _show_licence(base)
    is_lora = adapter is not None and (adapter / "adapter_config.json").is_file()
    adapter_digest = "" if adapter is None else _check_adapter(adapter, base, cache)
    folder = base.folder if adapter is None or is_lora else adapter
    configuration = _causal_configuration(folder if (folder / "config.json").is_file() else base.folder)
    model = _load_weights(folder, configuration, where, getattr(torch, dtype or fast_dtype(where.type)))
    tokenizer = _load_tokenizer(folder if weights.has_tokenizer(folder) else base.folder)
    _check_vocabulary(folder, tokenizer, model)
    if adapter is not None and is_lora:
        model = _merge(model, adapter)
    _set_special_tokens(folder, tokenizer, model)
    model.eval()
    return LocalModel(model, tokenizer, where, base.name, base.digest, base.licence, adapter_digest)


@dataclass(frozen=True)
class Identity:
    """Which model `load_local` would load, found without loading it."""

    base_digest: str
    adapter_digest: str
    device: str
    dtype: str


def identify(name: str, cache: Path, device: str = "auto", adapter: Path | None = None) -> Identity:
    """What `load_local` with the same arguments would answer to; `AdloomError` as there."""
    where = pick_device(device)
    base = _find(name, cache)
    digest = "" if adapter is None else _check_adapter(adapter, base, cache)
    return Identity(base.digest, digest, where, f"torch.{fast_dtype(where)}")


def pinned_digest(name: str) -> str | None:
    """The digest of a base that is known without its files; None: only its files tell."""
    kind, _, rest = name.partition(":")
    return weights.weights_package(rest).sha256 if kind == "package" else None


def resolve(copywriting: Copywriting) -> Description:
    """What the shop's model setting means on this machine; loads nothing and never raises for what is missing."""
    if copywriting.endpoint is not None:
        return _describe_endpoint(copywriting.endpoint)
    kind, _, rest = copywriting.model.partition(":")
    describe = {"package": _describe_package, "path": _describe_path, "hub": _describe_hub}[kind]
    found, check = describe(copywriting.model, rest)
    try:
        check()
    except AdloomError as error:
        return replace(found, problem=error.message, next_step=error.next_step)
    return found


# --- device and precision -------------------------------------------------------------------------------------------


def pick_device(device: str = "auto") -> str:
    """``cuda`` or ``cpu``; `AdloomError` where CUDA is asked for and there is none."""
    import torch

    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise AdloomError(
            f"device cuda: PyTorch {torch.__version__} sees no CUDA device",
            "install the CUDA build of torch and a driver (nvidia-smi lists the cards), or set ADLOOM_DEVICE=auto",
        )
    return "cuda" if has_cuda and device != "cpu" else "cpu"


def describe_device(device: str = "auto") -> str:
    """`pick_device`'s choice in words: the card, or the CPU, and the precision it generates in."""
    import torch

    if pick_device(device) == "cuda":
        card = torch.cuda.get_device_properties(0)
        return f"{card.name}, {card.total_memory / 2**30:.0f} GiB, {fast_dtype('cuda')}"
    return f"CPU, {torch.get_num_threads()} threads, {fast_dtype('cpu')}"


def fast_dtype(device: str) -> str:
    """The precision that generates and trains fastest: bfloat16, or float32 on hardware without instructions for it.

    Generation reads every weight for every token, so half the bytes are about half the time. Gemma 3 270M on 2 cores
    with AVX-512 bf16, tokens per CPU second at batch 1 / 8: bfloat16 10 / 54, float32 8 / 20; a training step of
    4 × 96 tokens: bfloat16 6.2, float32 under bfloat16 autocast 6.6, float32 10.8 CPU seconds.
    """
    import torch

    if device == "cuda":
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        can = torch.cpu.get_capabilities()
        has_bfloat16 = any(can.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last: ARM
    return "bfloat16" if has_bfloat16 else "float32"


# --- where the base is ----------------------------------------------------------------------------------------------


def _find(name: str, cache: Path) -> _Base:
    kind, _, rest = name.partition(":")
    if kind == "package":
        package = weights.weights_package(rest)
        folder = weights.package_folder(rest, cache)
        # The pinned file is the identity: the folder made of it may differ from one transformers to the next.
        return _Base(name, folder, package.sha256, package.licence_words)
    if kind == "path":
        folder = Path(rest).expanduser().resolve()
        base_name = name
    elif kind == "hub":
        folder = _hub_snapshot(rest)
        base_name = f"hub:{_hub_name(rest)['repo']}@{folder.name}"
    else:
        raise UsageError(f"copywriting.model {name!r} is not loaded here", "use package:NAME, path:/folder or hub:ID")
    _check_folder(folder)
    digest = weights.folder_digest(folder, weights.digest_memory(cache))
    return _Base(base_name, folder, digest, _folder_licence(folder))


def _hub_name(rest: str) -> dict[str, str | None]:
    match = HUB_NAME.fullmatch(rest)
    if match is None:
        raise UsageError(f"hub:{rest}: not an id of a hub", "write hub:owner/name or hub:owner/name@revision")
    return match.groupdict()


def _hub_snapshot(rest: str) -> Path:
    """The repository's files in the hub's own cache, downloaded if need be; the folder's name is the commit."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    name = _hub_name(rest)
    repo = str(name["repo"])
    try:
        return Path(
            snapshot_download(
                repo, revision=name["revision"], allow_patterns=list(HUB_FILES), ignore_patterns=list(HUB_LEFT_OUT)
            )
        )
    except GatedRepoError as error:
        raise AdloomError(
            f"hub:{rest}: its owner asks you to accept a licence first",
            f"accept it at https://huggingface.co/{repo} and set HF_TOKEN, {TRY_DEFAULT}",
        ) from error
    except RevisionNotFoundError as error:
        raise AdloomError(f"hub:{rest}: no such revision", f"see https://huggingface.co/{repo}/commits") from error
    except RepositoryNotFoundError as error:
        raise AdloomError(
            f"hub:{rest}: no such repository, or not visible to this token",
            "check the id, and HF_TOKEN if it is private",
        ) from error
    except (OSError, HfHubHTTPError, ValueError) as error:
        raise AdloomError(
            f"hub:{rest}: not in this machine's cache, and the hub cannot be reached ({type(error).__name__})",
            f"where there is a network: hf download {repo}, and copy that folder here as path:/folder, {TRY_DEFAULT}",
        ) from error


def _check_folder(folder: Path) -> None:
    """`AdloomError` unless the folder holds a causal model's configuration, whole safetensors and a tokenizer."""
    if not folder.is_dir():
        raise AdloomError(f"{folder}: no such folder", "check copywriting.model: path:/folder")
    weights.read_json(folder / "config.json")
    weights.check_weights(folder)
    if not weights.has_tokenizer(folder):
        raise AdloomError(
            f"{folder}: no tokenizer ({', '.join(weights.TOKENIZERS)})",
            "save the base's tokenizer there: save_pretrained",
        )


def _folder_licence(folder: Path) -> str:
    """The licence that a model card names, else the licence file, else that none is named."""
    card = folder / "README.md"
    if card.is_file():
        match = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
        try:
            facts = yaml.safe_load(match[1]) if match else {}
        except yaml.YAMLError:
            facts = {}
        if isinstance(facts, dict) and facts.get("license"):
            named = [facts.get("license_name") or facts["license"], facts.get("license_link")]
            return ", ".join(str(one) for one in named if one)
    texts = sorted(path.name for path in folder.glob("LICEN[CS]E*"))
    return f"see {texts[0]}" if texts else "none named: ask whoever the weights come from"


@remembered
def _show_licence(base: _Base) -> None:
    """Once a process and base."""
    log.info("weights %s (%s); licence: %s", base.name, base.digest[:12], base.licence)


# --- describing without loading --------------------------------------------------------------------------------------


def _describe_package(base: str, rest: str) -> tuple[Description, Callable[[], object]]:
    package = weights.weights_packages().get(rest)
    licence = "unknown" if package is None else package.licence
    found = Description(base, "package", rest if package is None else package.title, licence)
    return found, lambda: weights.installed_parts(weights.weights_package(rest))


def _describe_path(base: str, rest: str) -> tuple[Description, Callable[[], object]]:
    folder = Path(rest).expanduser()
    return Description(base, "path", str(folder), _folder_licence(folder)), lambda: _check_folder(folder)


def _describe_hub(base: str, rest: str) -> tuple[Description, Callable[[], object]]:
    from huggingface_hub import try_to_load_from_cache

    found = Description(base, "hub", "to be downloaded by the first task that needs it", "as its model card says")
    match = HUB_NAME.fullmatch(rest)
    cached = match and try_to_load_from_cache(match["repo"], "config.json", revision=match["revision"])
    if isinstance(cached, str):
        folder = Path(cached).parent
        detail = f"in the hub's cache, commit {folder.name[:12]}"
        return replace(found, detail=detail, licence=_folder_licence(folder)), lambda: _check_folder(folder)
    return found, lambda: _hub_name(rest)


def _describe_endpoint(endpoint: Endpoint) -> Description:
    variable = endpoint.api_key_variable
    is_missing = variable is not None and not os.environ.get(variable, "").strip()
    return Description(
        base=f"endpoint:{endpoint.model}",
        kind="endpoint",
        detail=f"{endpoint.model} at {endpoint.url}",
        licence="the terms of whoever runs the endpoint",
        problem=f"its key is not in the environment variable {variable}" if is_missing else "",
        next_step=f"export {variable}, where tasks run too" if is_missing else "",
    )


# --- loading --------------------------------------------------------------------------------------------------------


def _causal_configuration(folder: Path) -> PreTrainedConfig:
    """The configuration; `AdloomError` where the architecture does not continue text, or is unknown here."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    said = weights.read_json(folder / "config.json")
    try:
        configuration = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, KeyError, OSError, TypeError, AttributeError) as error:
        kind = said.get("model_type", "none named")
        raise AdloomError(
            f"{folder / 'config.json'}: architecture {kind!r} is not one that transformers {transformers.__version__} "
            "has built in (code that travels with weights is not run)",
            "take a model of a built-in causal architecture, or a newer transformers",
        ) from error
    named = said.get("architectures") or []
    is_causal = bool(set(named) & set(CAUSAL.values())) if named else configuration.model_type in CAUSAL
    if not is_causal:
        raise AdloomError(
            f"{folder / 'config.json'}: {', '.join(named) or configuration.model_type} does not continue text",
            "point copywriting.model to a causal language model (…ForCausalLM)",
        )
    return configuration


def _load_weights(
    folder: Path, configuration: PreTrainedConfig, device: torch.device, dtype: torch.dtype
) -> PreTrainedModel:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    next_step = "config.json and the weights are of two models: copy the folder again"
    try:
        with weights.without_progress():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=configuration,
                dtype=dtype,
                device_map={"": device},
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # to name them below
            )
    except SafetensorError as error:
        raise AdloomError(f"{folder}: unreadable safetensors: {error}", "copy or download them again") from error
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        if "out of memory" in str(error).lower():
            raise AdloomError(f"{folder}: does not fit into {device}'s memory", "take a smaller model") from error
        raise AdloomError(f"{folder}: {_first_line(error)}", next_step) from error
    model, found = loaded
    # transformers fills in random numbers for what does not fit, and says so in a warning only.
    if mismatched := sorted(found["mismatched_keys"]):
        tensor, is_there, wanted = mismatched[0]
        raise AdloomError(
            f"{folder}: {tensor} has shape {tuple(is_there)}, config.json wants {tuple(wanted)}", next_step
        )
    if missing := sorted(found["missing_keys"]):
        raise AdloomError(f"{folder}: no weights for {missing[0]} ({len(missing)} missing)", next_step)
    return model


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        is_blind = not tokenizer("a", add_special_tokens=False)["input_ids"]
    except Exception as error:  # tokenizers raises bare Exception for a damaged file
        raise AdloomError(
            f"{folder}: its tokenizer cannot be read: {_first_line(error)}", "copy the tokenizer's files again"
        ) from error
    if is_blind:
        raise AdloomError(f"{folder}: its tokenizer makes nothing of a letter", "copy the tokenizer's files again")
    return tokenizer


def _embeddings(model: PreTrainedModel) -> int:
    embeddings: Any = model.get_input_embeddings()
    return int(embeddings.weight.shape[0])


def _check_vocabulary(folder: Path, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """A token beyond the embeddings would be an index error in the middle of a batch, on CUDA a dead process."""
    rows = _embeddings(model)
    if tokenizer.vocab_size > rows:
        raise AdloomError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model {rows} embeddings",
            "they are of two models: save the model's own tokenizer beside it",
        )
    if beyond := [token for token, number in tokenizer.get_added_vocab().items() if number >= rows]:
        # Usual for the text half of a model that also sees pictures; no text has them unless somebody writes them.
        log.warning("%s: no embeddings for the added tokens %s", folder, ", ".join(sorted(beyond)[:5]))


def _set_special_tokens(folder: Path, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """An end token and a pad token among those there are (a new one would have no embedding), known to model too."""
    rows = _embeddings(model)
    ends = model.config.eos_token_id
    end = ends[0] if isinstance(ends, list) else ends
    # Not every conversion of a tokenizer carries them over; some name tokens that the model never had.
    if end is not None and not _is_below(tokenizer.eos_token_id, rows):
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    if not _is_below(tokenizer.pad_token_id, rows):
        spares = (model.config.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id)
        spare = next((one for one in spares if _is_below(one, rows)), None)
        if spare is None:
            raise AdloomError(
                f"{folder}: the tokenizer has neither a pad nor an end token", "name them in tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(spare)
    tokenizer.padding_side = "left"
    model.config.pad_token_id = tokenizer.pad_token_id
    if model.generation_config is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id


def _is_below(token: int | None, rows: int) -> bool:
    return token is not None and 0 <= token < rows


# --- adapters -------------------------------------------------------------------------------------------------------


def _check_adapter(adapter: Path, base: _Base, cache: Path) -> str:
    """The adapter's digest; `AdloomError` unless it is whole and was trained on this base."""
    if not adapter.is_dir():
        raise AdloomError(f"{adapter}: no such folder", "train again, or promote another model")
    weights.check_weights(adapter)
    if (adapter / "adapter_config.json").is_file() and not (adapter / LORA_WEIGHTS).is_file():
        raise AdloomError(f"{adapter}: no {LORA_WEIGHTS} beside adapter_config.json", "train again, or copy it again")
    memory = weights.digest_memory(cache)
    if (adapter / weights.MANIFEST).is_file():
        trained_on = weights.check_manifest(adapter, memory).get("base_digest")
        if trained_on is not None and trained_on != base.digest:
            raise AdloomError(
                f"{adapter}: was trained on base {str(trained_on)[:12]}…, {base.name} is {base.digest[:12]}…",
                "set copywriting.model to the base it was trained on, or train again",
            )
    return weights.folder_digest(adapter, memory)


def attach(model: PreTrainedModel, adapter: Path, *, is_trainable: bool = False) -> PeftModel:
    """The model with the LoRA adapter beside its weights, in the model's own precision."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file

    next_step = "set copywriting.model to the base it was trained on, or train again"
    try:
        with weights.without_progress():
            wrapped = PeftModel.from_pretrained(
                model, str(adapter), is_trainable=is_trainable, autocast_adapter_dtype=not is_trainable
            )
    except (RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
        raise AdloomError(f"{adapter}: does not fit this base: {_first_line(error)}", next_step) from error
    # peft leaves what it does not find at zero and warns only. (Embeddings are asked about on the hub unless told not.)
    wanted = set(get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    given = set(load_file(adapter / LORA_WEIGHTS))
    if odd := (wanted - given) | {name for name in given - wanted if "lora_" in name}:
        example = sorted(odd)[0]
        raise AdloomError(f"{adapter}: does not fit this base: {example} is on one side only", next_step)
    return wrapped


def _merge(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """The model with the LoRA adapter added to its weights: no slower than the base."""
    merged: PreTrainedModel = attach(model, adapter).merge_and_unload(safe_merge=True)
    return merged


def _first_line(error: Any) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] or type(error).__name__
