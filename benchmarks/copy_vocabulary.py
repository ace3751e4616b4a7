"""Cut a model's vocabulary to the words of some texts: most of a small model's work is words nobody here writes.

Of Gemma 3 270M's parameters 168 M are a vocabulary of 262 k tokens in all the world's languages. The cut model is a
folder that `path:` loads like any other. Texts made of the given ones' words are cut into tokens as before (a token is
kept with every token it is merged from); other texts still can be written, in smaller pieces.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def cut(local: Any, texts: Iterable[str], target: Path) -> Path:
    """Write ``local`` (an `adloom.copywriting.model.LocalModel` with a BPE tokenizer) with the tokens of ``texts``."""
    if (target / "model.safetensors").exists():
        return target
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    content = json.loads(local.tokenizer.backend_tokenizer.to_str())
    if content["model"]["type"] != "BPE":
        raise SystemExit(f"--cut-vocabulary needs a BPE tokenizer, not {content['model']['type']}")
    used = {token for text in texts for token in local.tokenizer(text, add_special_tokens=False).input_ids}
    kept = _closed(content, used)
    new_ids = {old: new for new, old in enumerate(kept)}
    words = content["model"]["vocab"]
    content["model"]["vocab"] = {word: new_ids[old] for word, old in words.items() if old in new_ids}
    content["model"]["merges"] = [pair for pair in content["model"]["merges"] if _is_kept(pair, words, new_ids)]
    content["added_tokens"] = [
        token | {"id": new_ids[token["id"]]} for token in content["added_tokens"] if token["id"] in new_ids
    ]
    for special in (content.get("post_processor") or {}).get("special_tokens", {}).values():
        special["ids"] = [new_ids[old] for old in special["ids"]]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        **{name: str(word) for name, word in local.tokenizer.special_tokens_map.items() if isinstance(word, str)},
    )

    config = copy.deepcopy(local.model.config)
    config.vocab_size = len(kept)
    for name in ("pad_token_id", "eos_token_id", "bos_token_id"):
        setattr(config, name, _new(getattr(config, name, None), new_ids))
    smaller = AutoModelForCausalLM.from_config(config, dtype=local.model.dtype)
    rows = torch.tensor(kept)
    state = local.model.state_dict()
    full = local.model.get_input_embeddings().weight.shape[0]
    smaller.load_state_dict({name: one[rows] if one.shape[:1] == (full,) else one for name, one in state.items()})
    smaller.generation_config.eos_token_id = _new(local.model.generation_config.eos_token_id, new_ids)
    fresh = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    smaller.save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    os.replace(fresh, target)
    return target


def _closed(content: dict[str, Any], used: set[int]) -> list[int]:
    """Old ids to keep, in their order: special and byte tokens, single characters, used ones and all they come from."""
    words: dict[str, int] = content["model"]["vocab"]
    names = {number: word for word, number in words.items()}
    parents: dict[str, list[tuple[str, str]]] = {}
    for left, right in content["model"]["merges"]:
        parents.setdefault(left + right, []).append((left, right))
    special = {token["id"] for token in content["added_tokens"] if token["special"]}
    small = {number for word, number in words.items() if (word[:3] == "<0x" or _is_common(word))}
    waiting, kept = [names[number] for number in used | special | small if number in names], set()
    while waiting:
        word = waiting.pop()
        if word not in kept:
            kept.add(word)
            waiting += [part for pair in parents.get(word, ()) for part in pair]
    return sorted({words[word] for word in kept if word in words} | special)


def _is_common(word: str) -> bool:
    """One character of Chinese, ASCII or their punctuation."""
    return len(word) == 1 and (word < "\x7f" or "\u3000" <= word <= "\u9fff" or "\uff00" <= word <= "\uffef")


def _is_kept(pair: list[str], words: dict[str, int], new_ids: dict[int, int]) -> bool:
    whole = pair[0] + pair[1]
    return all(words.get(word, -1) in new_ids for word in (pair[0], pair[1], whole))


def _new(old: Any, new_ids: dict[int, int]) -> Any:
    if isinstance(old, list):
        return [new_ids[one] for one in old if one in new_ids]
    return new_ids.get(old) if old is not None else None
