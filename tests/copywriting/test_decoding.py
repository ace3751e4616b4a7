"""Decoding: the same words as transformers' own loop, whoever else is in the batch, in bounded memory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from adloom.copywriting import decoding
from adloom.copywriting.decoding import Decoder, pick, uniforms
from adloom.copywriting.model import LocalModel
from adloom.errors import AdloomError
from adloom.shop import Sampling

PROMPTS = [
    "商品：宝蓝色连衣裙\n价格：¥199\n\n",
    "Headphones with 30 hours of battery",
    "轻便的跑鞋，透气网面，缓震回弹，跑得更远。" * 8,
    "a",
    "Shop now",
]


def _local(folder: Path) -> LocalModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    # Weights this small answer nearly evenly: then a greedy test would test ties.
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(4)
    return LocalModel(model, AutoTokenizer.from_pretrained(folder), torch.device("cpu"), "tiny", "0" * 64, "none")


@pytest.fixture(scope="module")
def gpt2(tiny_gpt2: Path) -> LocalModel:
    return _local(tiny_gpt2)


@pytest.fixture(scope="module")
def qwen3(tiny_qwen3: Path) -> LocalModel:
    return _local(tiny_qwen3)


@pytest.fixture(scope="module")
def gemma3(tiny_qwen3: Path) -> LocalModel:
    """Local attention to 8 tokens in half of the layers, grouped queries, soft-capped logits, tied embeddings."""
    from transformers import AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig

    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen3)
    torch.manual_seed(1)
    shape = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"] * 2,
        final_logit_softcapping=5.0,
        max_position_embeddings=1024,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = Gemma3ForCausalLM(shape).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(8)
    return LocalModel(model, tokenizer, torch.device("cpu"), "tiny", "0" * 64, "none")


@pytest.fixture(scope="module")
def bloom(tiny_qwen3: Path) -> LocalModel:
    """Its positions are biases that depend on a padding mask: no slots for it."""
    from transformers import AutoTokenizer, BloomConfig, BloomForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen3)
    torch.manual_seed(2)
    model = BloomForCausalLM(BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=2, n_head=2)).eval()
    return LocalModel(model, tokenizer, torch.device("cpu"), "tiny", "0" * 64, "none")


def _drawn(local: LocalModel, prompts: list[str], sampling: Sampling, seeds: list[int], **kwargs) -> dict:
    return dict(Decoder(local).decode(prompts, sampling, seeds, **kwargs))


def _greedy(local: LocalModel, prompt: str, tokens: int) -> str:
    ids = torch.tensor([local.tokenizer(prompt).input_ids])
    written = local.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)
    return local.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("name", ["gpt2", "qwen3", "gemma3", "bloom"])
@pytest.mark.parametrize("slots", [3, 32])
def test_greedy_decoding_is_that_of_transformers(name, slots, request):
    local = request.getfixturevalue(name)
    assert Decoder(local).takes_slots == (name != "bloom")
    sampling = Sampling(temperature=0, max_new_tokens=16, candidates=1, batch_size=slots)
    found = _drawn(local, PROMPTS, sampling, [0] * 5)
    wanted = [_greedy(local, prompt, 16) for prompt in PROMPTS]
    assert [found[number][0].text for number in range(5)] == wanted
    assert len(set(wanted)) > 1


@pytest.mark.parametrize("name", ["gpt2", "gemma3", "bloom"])
def test_a_draw_does_not_depend_on_who_else_is_in_the_batch(name, request):
    local = request.getfixturevalue(name)
    sampling = Sampling(temperature=1, top_p=0.9, max_new_tokens=20, candidates=3, batch_size=4)
    together = _drawn(local, PROMPTS, sampling, [7, 8, 9, 10, 11])
    alone = _drawn(local, [PROMPTS[1]], sampling, [8])
    assert [draw.text for draw in together[1]] == [draw.text for draw in alone[0]]
    assert len({draw.text for draw in together[1]}) == 3
    # Nor on the number of candidates.
    fewer = _drawn(local, PROMPTS, sampling, [7, 8, 9, 10, 11], counts=[0, 2, 1, 0, 1])
    assert [draw.text for draw in fewer[1]] == [draw.text for draw in alone[0][:2]]
    assert sorted(fewer) == [1, 2, 4]
    # Another seed draws other texts.
    assert _drawn(local, [PROMPTS[1]], sampling, [9])[0][0].text != alone[0][0].text


def test_slots_and_generate_draw_the_same(qwen3):
    sampling = Sampling(temperature=0.9, top_p=0.95, max_new_tokens=20, candidates=2, batch_size=4)
    slots = Decoder(qwen3, "zh", "完")
    loop = Decoder(qwen3, "zh", "完")
    loop.takes_slots = False
    wanted = dict(loop.decode(PROMPTS, sampling, range(5)))
    found = dict(slots.decode(PROMPTS, sampling, range(5)))
    assert {n: [draw.text for draw in draws] for n, draws in found.items()} == {
        n: [draw.text for draw in draws] for n, draws in wanted.items()
    }
    for number, draws in found.items():
        for draw, other in zip(draws, wanted[number], strict=True):
            assert draw.log_probability == pytest.approx(other.log_probability, abs=1e-4)
            assert draw.is_finished == other.is_finished


def test_an_answer_ends_at_the_stop_text_and_at_end_of_text(qwen3):
    free = Sampling(temperature=1, top_p=1, max_new_tokens=80, candidates=8, batch_size=8)
    whole = _drawn(qwen3, ["x"], free, [1], ignore_end=True)[0]
    assert all(draw.tokens == 80 and not draw.is_finished for draw in whole)
    letter = Counter("".join(draw.text for draw in whole)).most_common(1)[0][0]
    cut = dict(Decoder(qwen3, stop=letter).decode(["x"], free, [1]))[0]
    ended = [draw for draw in cut if draw.is_finished and draw.text.endswith(letter)]
    assert ended
    assert all(draw.text.count(letter) == 1 for draw in ended)
    plain = _drawn(qwen3, ["x"], free.model_copy(update={"candidates": 32, "batch_size": 32}), [1])[0]
    by_token = [draw for draw in plain if draw.is_finished]
    assert by_token
    assert all(draw.tokens < 80 and "<eos>" not in draw.text for draw in by_token)


def test_only_the_scripts_of_the_language_are_written(qwen3):
    """This tokenizer has whole Chinese characters, and bytes that by chance make others: those stay."""
    texts = qwen3.tokenizer.batch_decode([[number] for number in range(len(qwen3.tokenizer))])
    chinese, english = Decoder(qwen3, "zh", "\n完"), Decoder(qwen3, "en", "\nEND")
    assert {"裙", "，", "a"} <= {texts[number] for number in chinese.words.tolist()}
    in_english = {texts[number] for number in english.words.tolist()}
    assert {"a", ".", "<eos>"} <= in_english
    assert not any("\u4e00" <= character <= "\u9fff" for text in in_english for character in text)
    assert "<pad>" not in in_english
    sampling = Sampling(temperature=1, top_p=1, max_new_tokens=60, candidates=8, batch_size=8)
    for draw in dict(english.decode(["x"], sampling, [3], ignore_end=True))[0]:
        assert "裙" not in draw.text


def test_words_allowed_by_language():
    allowed = decoding.is_written_in
    for character in "aZé9 \n，。！？「」…—¥€%★☀🎉✨～":
        assert allowed(character, "zh"), character
        assert allowed(character, "en"), character
    assert allowed("裙", "zh")
    assert not allowed("裙", "en")
    assert not allowed("優", "zh")  # traditional
    for character in "тعक한ひ\u202e\x00":
        assert not allowed(character, "zh"), character


def test_pick_draws_from_the_nucleus_with_the_right_frequencies():
    """Probabilities .5 .25 .15 .1 at temperature 1: top-p .8 keeps the first three, renormalised."""
    logits = torch.log(torch.tensor([0.15, 0.5, 0.1, 0.25]))
    count = 100_000
    random = torch.from_numpy(uniforms(1, 0, count))
    chosen, values = pick(logits.expand(count, 4), random, 1.0, 0.8)
    shares = np.bincount(chosen.numpy(), minlength=4) / count
    assert shares == pytest.approx([0.15 / 0.9, 0.5 / 0.9, 0, 0.25 / 0.9], abs=0.005)
    assert values[chosen == 1][0].item() == pytest.approx(np.log(0.5), abs=1e-5)
    # Temperature ½ squares the probabilities: .25 .0625 .0225 .01 of .345.
    chosen, values = pick(logits.expand(count, 4), random, 0.5, 1.0)
    shares = np.bincount(chosen.numpy(), minlength=4) / count
    assert shares == pytest.approx([0.0225 / 0.345, 0.25 / 0.345, 0.01 / 0.345, 0.0625 / 0.345], abs=0.005)
    # Its log-probability stays that of the model.
    assert values[chosen == 3][0].item() == pytest.approx(np.log(0.25), abs=1e-5)


def test_the_greatest_random_number_stays_within_the_nucleus():
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    chosen, _ = pick(logits, torch.tensor([np.nextafter(np.float32(1), np.float32(0))]), 1.0, 0.7)
    assert chosen.item() in (0, 1)


def test_random_numbers_are_a_function_of_seed_candidate_and_place():
    assert uniforms(3, 1, 8).tolist() == uniforms(3, 1, 20)[:8].tolist()
    assert uniforms(3, 1, 8).tolist() != uniforms(3, 2, 8).tolist()
    assert uniforms(3, 1, 2).tolist() == pytest.approx([0.863391, 0.966253], abs=1e-6)


def test_long_prompts_get_fewer_slots_and_short_ones_a_full_batch(gpt2, monkeypatch):
    """A cache bound that holds two of the long prompt or eight of the short ones."""
    decoder = Decoder(gpt2)
    sampling = Sampling(temperature=0, max_new_tokens=8, candidates=2, batch_size=8)
    long, short = "long " * 60, "short"
    room = len(decoder.encode(long)) + 8
    monkeypatch.setattr(decoding, "CACHE_BYTES", 2 * room * decoder.token_bytes)
    assert decoder.slots(room, sampling) == 2
    found = dict(decoder.decode([short, long, short], sampling, [0, 0, 0]))
    assert [len(found[number]) for number in range(3)] == [2, 2, 2]
    assert found[1][0].text == _greedy(gpt2, long, 8)
    assert found[0][0].text == _greedy(gpt2, short, 8)


def test_a_prompt_beyond_the_context_is_named(gpt2):
    with pytest.raises(AdloomError, match=r"prompt 1: the prompt has \d+ tokens, the model's context 1024"):
        list(Decoder(gpt2).decode(["a", "b" * 3000], Sampling(), [0, 0]))


def test_the_model_is_as_before_when_the_draws_are_not_read_to_the_end(qwen3):
    head = qwen3.model.get_output_embeddings()
    decoder = Decoder(qwen3, "zh", "\n完")
    draws = decoder.decode(PROMPTS, Sampling(batch_size=2), range(5))
    next(draws)
    draws.close()
    assert qwen3.model.get_output_embeddings() is head


def test_two_calls_of_one_decoder_may_be_read_in_turns(qwen3):
    decoder = Decoder(qwen3)
    sampling = Sampling(temperature=1, max_new_tokens=12, candidates=2, batch_size=2)
    alone = dict(decoder.decode(PROMPTS, sampling, range(5)))
    one, other = (decoder.decode(PROMPTS, sampling, range(5)) for _ in range(2))
    turns = [next(draws) for _ in range(5) for draws in (one, other)]
    assert all(draws == alone[number] for number, draws in turns)
    assert len(turns) == 10


def test_real_weights_decode_from_slots_in_the_scripts_of_the_language(gemma):
    """The default model, untuned: it goes on with a Chinese listing, and what it writes is simplified Chinese."""
    decoder = Decoder(gemma, "zh", "\n完")
    assert decoder.takes_slots
    assert 50_000 < len(decoder.words) < 200_000
    sampling = Sampling(temperature=1, max_new_tokens=12, candidates=2, batch_size=4)
    prompts = ["商品：宝蓝色连衣裙\n价格：¥199\n正文：", "商品：轻便的跑鞋\n正文："]
    draws = [draw for _, found in decoder.decode(prompts, sampling, [1, 2]) for draw in found]
    text = "".join(draw.text for draw in draws)
    assert sum("\u4e00" <= character <= "\u9fff" for character in text) > 20
    assert all(character == "\ufffd" or decoding.is_written_in(character, "zh") for character in text)
    assert all(-10 < draw.log_probability < 0 for draw in draws)
