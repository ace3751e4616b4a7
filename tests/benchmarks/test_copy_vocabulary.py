"""A cut vocabulary changes what a model costs, not what it says of the texts it was cut for."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import copy_vocabulary

TEXTS = ["宽松的版型很显瘦", "宽松的裙摆很显高", "red dress"]
OTHER = "the blue and the grey of the sea"


@pytest.fixture(scope="module")
def whole():
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    import torch

    backend = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=200, special_tokens=["<pad>", "<eos>", "<unk>"])
    backend.train_from_iterator([*TEXTS * 4, OTHER * 4], trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        tie_word_embeddings=True, eos_token_id=1, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    return SimpleNamespace(model=transformers.LlamaForCausalLM(config).eval(), tokenizer=tokenizer)


def test_the_cut_model_reads_and_says_the_same(whole, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = copy_vocabulary.cut(whole, TEXTS, tmp_path / "small")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) < len(whole.tokenizer)
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    rows = torch.tensor(whole.tokenizer.convert_tokens_to_ids(names))
    for text in TEXTS:
        before, after = whole.tokenizer(text, return_tensors="pt"), tokenizer(text, return_tensors="pt")
        assert tokenizer.convert_ids_to_tokens(after.input_ids[0]) == whole.tokenizer.convert_ids_to_tokens(
            before.input_ids[0]
        )
        with torch.no_grad():
            said, wanted = model(after.input_ids).logits, whole.model(before.input_ids).logits[..., rows]
        assert torch.allclose(said, wanted, atol=1e-5)
    assert "<unk>" not in tokenizer.tokenize(OTHER)


def test_a_tokenizer_that_is_no_bpe_is_refused(whole, tmp_path):
    import tokenizers

    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    other = SimpleNamespace(model=whole.model, tokenizer=SimpleNamespace(backend_tokenizer=backend))
    with pytest.raises(SystemExit, match="BPE"):
        copy_vocabulary.cut(other, TEXTS, tmp_path / "small")
