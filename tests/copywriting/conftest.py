"""Models for tests: tiny random ones of real shapes, made here without a hub, and the real default one.

The folder that real weights are converted into is kept in pytest's cache, so that it is made once a checkout.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from adloom.copywriting.model import LocalModel

# Read by OpenMP when torch is first imported: waiting threads that spin are what makes two busy cores slow.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

CHAT = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CORPUS = (
    "这款高腰连衣裙采用复古的宝蓝色调，搭配精致的开叉设计，展现优雅时尚的气质。",
    "喜欢科幻小说的你，最近浏览了这本书？满300减40，今天下单。",
    "轻便的跑鞋，透气网面，缓震回弹，跑得更远。#跑步 #运动",
    "Wireless headphones with 30 hours of battery and quiet, clear sound.",
    "A warm winter coat in navy blue, 20% off until Sunday. Shop now.",
    "Into science fiction? This one starts on the last page. #books",
)


def _tokenizer(folder: Path) -> int:
    """Save a byte-level tokenizer of a few hundred tokens (any text can be written with it); returns its size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<pad>", "<bos>", "<eos>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=512, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", chat_template=CHAT
    )
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a GPT-2 of 2 layers with random weights, the same in every session."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("gpt2")
    size = _tokenizer(folder)
    torch.manual_seed(0)
    shape = GPT2Config(
        vocab_size=size, n_positions=1024, n_embd=32, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2
    )
    GPT2LMHeadModel(shape).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a Qwen3 of 2 layers (grouped queries, tied embeddings) with random weights."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("qwen3")
    size = _tokenizer(folder)
    torch.manual_seed(0)
    shape = Qwen3Config(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    Qwen3ForCausalLM(shape).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model_cache(pytestconfig: pytest.Config) -> Path:
    """The ``cache`` of `load_local` for real weights, kept from one session to the next."""
    assert pytestconfig.cache is not None
    return Path(pytestconfig.cache.mkdir("models"))


@pytest.fixture(scope="session")
def gemma(model_cache: Path) -> LocalModel:
    """The real default model, untuned. Shared: do not change its weights."""
    from adloom.copywriting.model import load_local

    return load_local("package:gemma-3-270m", model_cache, device="cpu")
