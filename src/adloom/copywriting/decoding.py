"""Draw many answers from a causal language model at once: the only module that decodes.

How: every sequence has a slot in one preallocated key-value cache. The candidates of a prompt share its prefill; a
sequence that ends gives its slot to the next one at once; when none is left to come, the slots shrink. Output words
are limited to the scripts of the language, which spares most of a large vocabulary its last matrix product. Memory is
bounded by the slots, not by how many prompts there are.

What is drawn depends on the model, the prompt, its seed and the candidate's number, through one random number per
token (Philox, a counter-based generator). Who else is in the batch plays no part in that number, but floating-point
sums do depend on the shape of a batch: in bfloat16 a near-tie may fall the other way beside other prompts. The same
call on the same machine with the same number of threads gives the same bytes.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from adloom.creative import Language
from adloom.errors import AdloomError
from adloom.review.text import plain
from adloom.shop import Sampling

if TYPE_CHECKING:
    from adloom.copywriting.model import LocalModel

log = logging.getLogger(__name__)

TOP_K = 256
"""Tokens that may be drawn, before top-p narrows them: passes over a whole vocabulary at every token would cost as much
as the model's layers and change next to nothing."""
SPAN = {"cpu": 16, "cuda": 128}
"""Attention reads the cache up to a multiple of this many tokens: on CUDA every length is a graph of its own."""
PREFILL_TOKENS = {"cpu": 1, "cuda": 8192}
"""Prompt tokens, padding included, read in one forward; a CPU is busy with one prompt, and needs no padding then."""
CACHE_BYTES = 1_500_000_000
"""Bound on the key-value cache in main memory; on CUDA it is a third of the card's. Fewer sequences are decoded
together where prompts are long."""
PLAIN_LAYERS = {"full_attention", "sliding_attention"}


@dataclass(frozen=True)
class Draw:
    """One candidate for one prompt."""

    text: str
    """up to and including the stop text"""
    tokens: int
    """drawn, the end-of-text token included"""
    log_probability: float
    """mean of the tokens' natural log-probabilities, at temperature 1, among the words allowed"""
    is_finished: bool
    """it came to its end; else it was cut at max_new_tokens"""


@dataclass(frozen=True)
class _Order:
    """What one call of `Decoder.decode` is to draw; lists by prompt."""

    encoded: list[list[int]]
    seeds: list[int]
    counts: list[int]
    sampling: Sampling
    ignore_end: bool

    def longest_first(self) -> list[int]:
        """The prompts that want a draw."""
        return sorted(
            (one for one, count in enumerate(self.counts) if count),
            key=lambda one: (-len(self.encoded[one]), one),
        )

    def room(self, prompt: int) -> int:
        """Tokens of a prompt and its answer."""
        return len(self.encoded[prompt]) + self.sampling.max_new_tokens

    def uniforms(self, prompt: int, candidate: int) -> np.ndarray:
        return uniforms(self.seeds[prompt], candidate, self.sampling.max_new_tokens)


@dataclass
class _Row:
    """A sequence being decoded."""

    prompt: int
    candidate: int
    slot: int
    tokens: list[int] = field(default_factory=list)
    log_probability: float = 0.0


def uniforms(seed: int, candidate: int, count: int) -> np.ndarray:
    """The ``count`` random numbers in [0, 1) that decide a candidate's tokens; a longer row starts with a shorter."""
    key = int.from_bytes(hashlib.sha256(f"{seed}:{candidate}".encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key)).random(count, dtype=np.float32)


def pick(
    logits: torch.Tensor, random: torch.Tensor, temperature: float, top_p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The token drawn for every row of ``logits`` [rows, words] by ``random`` [rows], and its log-probability.

    Of the `TOP_K` most likely ones. Temperature 0: the first of them. Else the least set of them whose probability at
    ``temperature`` reaches ``top_p``, drawn from by inverting its cumulative distribution. The log-probability is
    that at temperature 1.
    """
    top, order = logits.topk(min(TOP_K, logits.shape[-1]), dim=-1)
    top = top.float()
    values = top.log_softmax(dim=-1)
    if temperature == 0:
        # Of equals the one with the lowest id, as generate() has it.
        chosen = logits.argmax(dim=-1)
        return chosen, values[:, 0]
    probability = (top / temperature).softmax(dim=-1)
    reached = probability.cumsum(dim=-1)
    probability = probability.where(reached - probability < top_p, 0)
    reached = probability.cumsum(dim=-1)
    place = (reached <= random[:, None] * reached[:, -1:]).sum(dim=-1)
    # Rounding must not push a random number near 1 past the last token of the set.
    place = place.minimum((probability > 0).sum(dim=-1) - 1)[:, None]
    return order.gather(1, place)[:, 0], values.gather(1, place)[:, 0]


# --- which words a language may use -------------------------------------------------------------------------------


# Letters with a Latin base, digits, punctuation, symbols, currencies, emoji and their joiners, full-width forms. No
# direction marks, no invisible spaces.
_COMMON = re.compile(
    "[\t\n\x20-\x7e\u00a0-\u024f\u1e00-\u1eff\u200d\u2010-\u2027\u2030-\u205e\u2070-\u27ff\u2900-\u2bff"
    "\u3000-\u303f\ufe0e\ufe0f\uff00-\uff65\uffe0-\uffe6\U0001f000-\U0001faff]"
)
_HAN = re.compile("[\u3400-\u9fff\U00020000-\U000323af]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")
LATIN_PIECE = 4
"""Letters of the longest Latin tokens in Chinese: enough for Pro, USB, Plus."""
PART = "\ufffd"
"""How a tokenizer shows a token that is only a part of a character."""


@cache
def is_written_in(character: str, language: Language) -> bool:
    """May ``character`` stand in a copy of ``language``? Latin letters, digits, punctuation, symbols and emoji always;
    simplified Chinese in Chinese."""
    if _HAN.fullmatch(character):
        return language == "zh" and plain(character).text == character
    return _COMMON.fullmatch(character) is not None


def allowed_words(texts: Sequence[str], language: Language, never: set[int], always: set[int]) -> torch.Tensor:
    """Ids, ascending, of the tokens that ``language`` may use, given the text of each; `never` gives way to `always`.

    Tokens that are parts of a character stay: every emoji and every rare character can be spelt in bytes. So can the
    few long Latin words of a Chinese copy in pieces; without the tokens for whole ones the last matrix has two fifths
    of its rows.
    """
    most = LATIN_PIECE if language == "zh" else None
    kept = {
        number
        for number, text in enumerate(texts)
        if all(character == PART or is_written_in(character, language) for character in text)
        and (most is None or len(text) <= most or len(_LATIN.findall(text)) <= most)
    }
    return torch.tensor(sorted(kept - never | always))


# --- the cache ----------------------------------------------------------------------------------------------------


class _SlotLayer(CacheLayerMixin):
    """One layer's keys and values: [slots, heads, capacity, width] each, every slot with a length of its own."""

    is_sliding = False

    def __init__(self, owner: _Slots) -> None:
        super().__init__()
        self.owner = owner

    def fit(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Make room for tensors of this kind: [prompts, heads, tokens, width]."""
        rows, room = self.owner.most, self.owner.capacity
        self.keys = keys.new_zeros(rows, keys.shape[1], room, keys.shape[3])
        self.values = values.new_zeros(rows, values.shape[1], room, values.shape[3])
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        if not self.is_initialized:
            self.fit(key_states, value_states)
        rows, positions, span = self.owner.rows, self.owner.positions, self.owner.span
        keys, values = self.tensors()
        keys[rows, :, positions] = key_states[:, :, 0]
        values[rows, :, positions] = value_states[:, :, 0]
        return keys[: self.owner.size, :, :span], values[: self.owner.size, :, :span]

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self.keys is None or self.values is None:
            raise RuntimeError("a layer of the cache was never filled")
        return self.keys, self.values

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.fit(key_states, value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.owner.span, 0

    def get_seq_length(self) -> int:
        return self.owner.span - 1

    def get_max_length(self) -> int:
        return self.owner.capacity


class _Slots(Cache):
    """All that the sequences being decoded have on the device: keys and values, and where each of them stands.

    The first ``size`` of the slots are in use. Everything is read and written in place.
    """

    def __init__(self, layers: int, most: int, capacity: int, answer: int, device: torch.device) -> None:
        self.most, self.size, self.capacity, self.answer, self.span = most, most, capacity, answer, 1
        self.own = [_SlotLayer(self) for _ in range(layers)]
        self._rows = torch.arange(most, device=device)
        self._positions = torch.zeros(most, dtype=torch.long, device=device)
        self._drawn = torch.zeros(most, dtype=torch.long, device=device)
        self._tokens = torch.zeros(most, dtype=torch.long, device=device)
        self._random = torch.zeros(most, answer, device=device)
        self.graphs: dict[tuple[Any, ...], tuple[Any, tuple[torch.Tensor, torch.Tensor]]] = {}
        super().__init__(layers=[*self.own])

    @property
    def rows(self) -> torch.Tensor:
        return self._rows[: self.size]

    @property
    def positions(self) -> torch.Tensor:
        """Where the next token of each sequence stands."""
        return self._positions[: self.size]

    @property
    def tokens(self) -> torch.Tensor:
        """That token."""
        return self._tokens[: self.size]

    @property
    def random(self) -> torch.Tensor:
        """The numbers that decide what comes after it."""
        return self._random.gather(1, self._drawn[:, None])[: self.size, 0]

    def fill(
        self,
        slots: Sequence[int],
        prompt: Sequence[int],
        prefix: Sequence[tuple[torch.Tensor, torch.Tensor]],
        random: np.ndarray,
    ) -> None:
        """Start a prompt's candidates in ``slots``: ``prefix`` is what a prefill read, [heads, tokens, width] a layer,
        ``random`` has a row each."""
        at = torch.tensor(slots, device=self._rows.device)
        self._positions[at] = len(prompt) - 1
        self._drawn[at] = 0
        self._tokens[at] = prompt[-1]
        self._random[at] = torch.from_numpy(random).to(at.device)
        for layer, read in zip(self.own, prefix, strict=len(prompt) > 1):
            if not layer.is_initialized:
                layer.fit(read[0][None], read[1][None])
            for kept, one in zip(layer.tensors(), read, strict=True):
                kept[at, :, : one.shape[1]] = one

    def go_on(self, chosen: torch.Tensor) -> None:
        """The next token of every slot; empty ones must not count beyond the cache until they are filled again."""
        self.tokens.copy_(chosen)
        self._drawn.add_(1).clamp_(max=self.answer - 1)
        self._positions.add_(1).clamp_(max=self.capacity - 1)

    def keep(self, slots: Sequence[int], size: int) -> None:
        """Only these slots go on, in this order, in a batch of ``size``."""
        at = torch.tensor(slots, device=self._rows.device)
        own = [kept for layer in self.own for kept in layer.tensors()]
        for kept in (self._positions, self._drawn, self._tokens, self._random, *own):
            kept[: len(slots)] = kept[at]
        self.size = size


# --- decoding -----------------------------------------------------------------------------------------------------


class Decoder:
    """A model made ready to draw answers; build it once and call `decode` for every batch.

    ``language``: its scripts are all that is written (none: every token). ``stop``: text that ends an answer.
    """

    def __init__(self, local: LocalModel, language: Language | None = None, stop: str | None = None) -> None:
        self.model, self.tokenizer, self.device = local.model, local.tokenizer, torch.device(local.device)
        self.model.eval()
        self.stop = stop
        config = self.model.config.get_text_config(decoder=True)
        self.config = config
        self.context = int(getattr(config, "max_position_embeddings", 2**31))
        """tokens the model can read and write in one text"""
        self.ends = self._ends()
        count = min(int(config.vocab_size), len(self.tokenizer))
        texts = self.tokenizer.batch_decode([[number] for number in range(count)])
        self.words = self._words(language, texts)
        self._head: torch.nn.Linear | None = None
        self._slots: _Slots | None = None
        self._is_recorded = self.device.type == "cuda"
        # Decoding text is slow beside a card's step: only a token that can end the stop text is worth it.
        self._closing = {number for number, text in enumerate(texts) if stop and (stop[-1] in text or PART in text)}
        # A stop text of n characters lies in the last 4 n tokens, were each a byte.
        self._tail = 4 * len(stop or "")

    def _ends(self) -> set[int]:
        named = getattr(self.model.generation_config, "eos_token_id", None)
        found = set(named if isinstance(named, list) else [named]) | {self.tokenizer.eos_token_id}
        return {int(number) for number in found if number is not None}

    def _words(self, language: Language | None, texts: Sequence[str]) -> torch.Tensor | None:
        if language is None:
            return None
        added = self.tokenizer.added_tokens_decoder.items()
        special = set(self.tokenizer.all_special_ids) | {number for number, token in added if token.special}
        wanted = self.ends | set(self.tokenizer(self.stop or "", add_special_tokens=False).input_ids)
        return allowed_words(texts, language, special, wanted).to(self.device)

    def release(self) -> None:
        """Give back the memory of the cache and of the cut last matrix; the next draw makes them again."""
        self._head, self._slots = None, None

    def head(self) -> torch.nn.Linear | None:
        """The rows of the last matrix that belong to the allowed words, as a layer; none: cut its result instead."""
        full = self.model.get_output_embeddings()
        if self._head is not None or self.words is None or type(full) is not torch.nn.Linear:
            return self._head
        with torch.no_grad():
            self._head = head = torch.nn.utils.skip_init(
                torch.nn.Linear,
                full.in_features,
                len(self.words),
                bias=full.bias is not None,
                device=full.weight.device,
                dtype=full.weight.dtype,
            )
            head.weight.copy_(full.weight[self.words])
            if full.bias is not None:
                head.bias.copy_(full.bias[self.words])
        return head.requires_grad_(False)

    def encode(self, prompt: str) -> list[int]:
        """The tokens of a prompt, as the model reads it."""
        return list(self.tokenizer(prompt).input_ids)

    def misfit(self, prompt: str, sampling: Sampling) -> str:
        """Why the model cannot answer a prompt: there is nothing to read, or too much; empty when it can."""
        return self._misfit(self.encode(prompt), sampling)

    def _misfit(self, tokens: list[int], sampling: Sampling) -> str:
        if not tokens:
            return "an empty prompt"
        if len(tokens) + sampling.max_new_tokens > self.context:
            return (
                f"the prompt has {len(tokens)} tokens, the model's context {self.context}, of which "
                f"{sampling.max_new_tokens} are for the answer"
            )
        return ""

    def decode(
        self,
        prompts: Sequence[str],
        sampling: Sampling,
        seeds: Sequence[int],
        *,
        counts: Sequence[int] | None = None,
        ignore_end: bool = False,
    ) -> Iterator[tuple[int, list[Draw]]]:
        """(index of a prompt, its draws), in the order in which prompts are finished.

        ``counts``: draws for each prompt, by default ``sampling.candidates``. ``ignore_end``: write max_new_tokens
        tokens whatever comes, to measure speed. `AdloomError` when a prompt and its answer are longer than the
        model's context.
        """
        encoded = [self.encode(prompt) for prompt in prompts]
        for number, tokens in enumerate(encoded):
            if fault := self._misfit(tokens, sampling):
                raise AdloomError(
                    f"prompt {number}: {fault}", "shorten the prompt, or copywriting.sampling.max_new_tokens"
                )
        order = _Order(encoded, list(seeds), list(counts or [sampling.candidates] * len(encoded)), sampling, ignore_end)
        if not self.takes_slots:
            yield from self._generate(order)
            return
        for batch in self._batches(order):
            yield from _Run(self, order, batch).draws()

    def _batches(self, order: _Order) -> Iterator[list[int]]:
        """Prompts, longest first; those too long for a full batch in the cache's bytes apart from the shorter ones."""
        waiting = deque(order.longest_first())
        while waiting:
            longest = order.room(waiting[0])
            least = longest // 2 if self.slots(longest, order.sampling) < order.sampling.batch_size else 0
            batch = []
            while waiting and order.room(waiting[0]) > least:
                batch.append(waiting.popleft())
            yield batch

    def slots(self, capacity: int, sampling: Sampling) -> int:
        """How many sequences of ``capacity`` tokens are decoded together."""
        return max(1, min(sampling.batch_size, self._cache_bytes // (capacity * self.token_bytes)))

    @cached_property
    def _cache_bytes(self) -> int:
        # Of the card's whole memory: what happens to be free must not decide a batch, and with it a result.
        if self.device.type == "cuda":
            return int(torch.cuda.get_device_properties(self.device).total_memory // 3)
        return CACHE_BYTES

    @cached_property
    def token_bytes(self) -> int:
        """Bytes of keys and values of one token, over all layers."""
        heads = getattr(self.config, "num_key_value_heads", None) or self.config.num_attention_heads
        width = getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads
        return 2 * self.config.num_hidden_layers * heads * width * self.model.dtype.itemsize

    # --- forwards ---

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Sequence[int]]) -> list[list[tuple[torch.Tensor, torch.Tensor]]]:
        """Keys and values of every prompt but its last token, per layer [heads, tokens, width]."""
        lengths = [len(prompt) - 1 for prompt in prompts]
        # Padding comes after a prompt, and attention looks back only: it needs no mask.
        padded = torch.zeros(len(prompts), max(lengths), dtype=torch.long, device=self.device)
        for row, prompt in enumerate(prompts):
            padded[row, : lengths[row]] = torch.tensor(prompt[:-1])
        # A cache without a configuration keeps everything, also what a sliding window would forget.
        kept = DynamicCache()
        self._base(input_ids=padded, past_key_values=kept, use_cache=True)
        layers: list[Any] = list(kept.layers)
        return [
            [(layer.keys[row, :, :length], layer.values[row, :, :length]) for layer in layers]
            for row, length in enumerate(lengths)
        ]

    @cached_property
    def _base(self) -> torch.nn.Module:
        """The model without its last matrix, whose result a prefill has no use for."""
        base = getattr(self.model, self.model.base_model_prefix, None)
        return base if isinstance(base, torch.nn.Module) else self.model

    def slots_for(self, most: int, capacity: int, answer: int) -> _Slots:
        """Empty slots; those of the last batch where they have this shape, because CUDA graphs are bound to them.

        They are the caller's until it calls `put_back`.
        """
        held, self._slots = self._slots, None
        if held is None or (held.most, held.capacity, held.answer) != (most, capacity, answer):
            del held  # both at once would be twice the bound
            return _Slots(self.config.num_hidden_layers, most, capacity, answer, self.device)
        held.size = most
        return held

    def put_back(self, slots: _Slots) -> None:
        """The caller is done with its slots."""
        self._slots = slots

    def advance(self, slots: _Slots, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
        """One token more in every slot: (token, log-probability).

        On CUDA it is recorded as one graph per size and span: a small model's kernels are shorter than their launches.
        """
        if not self._is_recorded:
            return self._advance(slots, sampling)
        key = (slots.size, slots.span, sampling.temperature, sampling.top_p)
        if key in slots.graphs:
            graph, recorded = slots.graphs[key]
            graph.replay()
            return recorded
        # Kernels choose their workspace at the first call, which may not happen while a graph is recorded. That call
        # is this token's; the recording itself computes nothing.
        chosen, log_probability = (one.clone() for one in self._advance(slots, sampling))
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                recorded = self._advance(slots, sampling)
            slots.graphs[key] = (graph, recorded)
        except RuntimeError as error:
            log.warning("decoding without CUDA graphs: %s", error)
            self._is_recorded = False
        return chosen, log_probability

    def _advance(self, slots: _Slots, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, log_probability = pick(self.step(slots), slots.random, sampling.temperature, sampling.top_p)
        chosen = chosen if self.words is None else self.words[chosen]
        slots.go_on(chosen)
        return chosen, log_probability

    def step(self, slots: _Slots) -> torch.Tensor:
        """Logits [slots, words] behind the next token of every slot."""
        places = torch.arange(slots.span, device=self.device)
        behind = places[None] <= slots.positions[:, None]
        arguments: dict[str, Any] = {
            "input_ids": slots.tokens[:, None],
            "position_ids": slots.positions[:, None],
            "attention_mask": self._masks(behind, places, slots.positions),
            "past_key_values": slots,
            "use_cache": True,
        }
        head = self.head()
        if head is None:
            logits = self.model(**arguments).logits[:, -1]
            return logits if self.words is None else logits[:, self.words]
        full = self.model.get_output_embeddings()
        self.model.set_output_embeddings(head)
        try:
            return self.model(**arguments).logits[:, -1]
        finally:
            self.model.set_output_embeddings(full)

    def _masks(self, behind: torch.Tensor, places: torch.Tensor, positions: torch.Tensor) -> Any:
        """What each slot's token may look at, as the model's layers want it."""
        types = set(getattr(self.config, "layer_types", None) or ())
        window = getattr(self.config, "sliding_window", None)
        near = behind & (places[None] > positions[:, None] - window) if window else behind
        shaped = {"full_attention": self._mask(behind), "sliding_attention": self._mask(near)}
        if len(types) > 1:
            return shaped
        return shaped[types.pop() if types else "sliding_attention"]

    def _mask(self, seen: torch.Tensor) -> torch.Tensor:
        mask = seen[:, None, None, :]
        if self.config._attn_implementation != "eager":
            return mask
        least = torch.finfo(self.model.dtype).min
        return torch.zeros_like(mask, dtype=self.model.dtype).masked_fill(~mask, least)

    @cached_property
    def takes_slots(self) -> bool:
        """Does this architecture answer from slots as it does from its own cache? Tried on a few tokens.

        Recurrent layers, position biases and the like do not: those models decode through `generate`.
        """
        types = set(getattr(self.config, "layer_types", None) or ())
        if not types <= PLAIN_LAYERS:
            return False
        short, long = [1, 2, 3], [3, 2, 1, 4, 5]
        try:
            with torch.inference_mode():
                wanted = [self.model(input_ids=torch.tensor([one], device=self.device)) for one in (short, long)]
                expected = torch.stack([one.logits[0, -1] for one in wanted]).float()
                slots = _Slots(self.config.num_hidden_layers, 2, 8, 1, self.device)
                for slot, (one, prefix) in enumerate(zip((short, long), self.prefill([short, long]), strict=True)):
                    slots.fill([slot], one, prefix, np.zeros((1, 1), dtype=np.float32))
                slots.span = 8
                found = self.step(slots).float()
        except (TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError) as error:
            log.info("%s decodes through generate(): %s", self.config.model_type, error)
            return False
        expected = expected if self.words is None else expected[:, self.words]
        close = (found - expected).abs().max() <= 0.05 * expected.abs().max() + 1e-3
        if not close:
            log.info("%s decodes through generate(): it does not answer the same from slots", self.config.model_type)
        return bool(close)

    # --- text ---

    def is_over(self, tokens: list[int]) -> bool:
        """Has the sequence just reached its end-of-text token or the stop text?"""
        if tokens[-1] in self.ends:
            return True
        if self.stop is None or tokens[-1] not in self._closing:
            return False
        return self.stop in self._text(tokens[-self._tail :])

    def _text(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def draw(self, tokens: list[int], log_probability: float, is_finished: bool) -> Draw:
        """The finished row as text, cut behind the stop text."""
        shown = tokens[:-1] if tokens[-1] in self.ends else tokens
        text = self._text(shown)
        if self.stop is not None and (at := text.find(self.stop)) >= 0:
            text = text[: at + len(self.stop)]
        return Draw(text, len(tokens), log_probability / len(tokens), is_finished)

    # --- models that slots do not fit ---

    def _generate(self, order: _Order) -> Iterator[tuple[int, list[Draw]]]:
        """The same draws through transformers' own loop: whole batches, padded on the left."""
        from transformers import LogitsProcessorList, StoppingCriteriaList

        for batch in self._whole_batches(order):
            width = max(len(order.encoded[one]) for one in batch)
            chooser = _Chooser(self, order, [(one, n) for one in batch for n in range(order.counts[one])])
            rows = [order.encoded[prompt] for prompt, _ in chooser.rows]
            pad = int(self.tokenizer.pad_token_id or 0)
            ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=self.device)
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=self.device)
            with torch.inference_mode():
                self.model.generate(  # type: ignore[operator]
                    input_ids=ids,
                    attention_mask=mask,
                    max_new_tokens=order.sampling.max_new_tokens,
                    do_sample=False,
                    num_beams=1,
                    eos_token_id=None if order.ignore_end else sorted(self.ends),
                    pad_token_id=pad,
                    logits_processor=LogitsProcessorList([chooser]),
                    stopping_criteria=StoppingCriteriaList([chooser.stopping]),
                )
            draws = iter(chooser.finished())
            for prompt in batch:
                yield prompt, [next(draws) for _ in range(order.counts[prompt])]

    def _whole_batches(self, order: _Order) -> Iterator[list[int]]:
        """Prompts of like length whose draws fill about one batch."""
        batch: list[int] = []
        for prompt in order.longest_first():
            if batch and sum(order.counts[one] for one in (*batch, prompt)) > order.sampling.batch_size:
                yield batch
                batch = []
            batch.append(prompt)
        if batch:
            yield batch


class _Run:
    """One pass over a batch of prompts."""

    def __init__(self, decoder: Decoder, order: _Order, batch: list[int]) -> None:
        self.decoder, self.order, self.sampling = decoder, order, order.sampling
        self.unread = deque(batch)
        self.prefixes: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        self.waiting: deque[tuple[int, int]] = deque()
        self.draws_of: dict[int, dict[int, Draw]] = {}
        self.is_on_card = decoder.device.type == "cuda"
        self.unit = SPAN[decoder.device.type]
        capacity = -(-order.room(batch[0]) // self.unit) * self.unit
        most = min(decoder.slots(capacity, self.sampling), sum(order.counts[one] for one in batch))
        self.slots = decoder.slots_for(most, capacity, self.sampling.max_new_tokens)
        self.rows: list[_Row | None] = [None] * most

    @torch.inference_mode()
    def draws(self) -> Iterator[tuple[int, list[Draw]]]:
        """(prompt, its draws) as they are finished."""
        while True:
            self._admit()
            if all(row is None for row in self.rows):
                self.decoder.put_back(self.slots)
                return
            self._shrink()
            longest = max(len(self.order.encoded[row.prompt]) + len(row.tokens) for row in self.rows if row)
            self.slots.span = min(self.slots.capacity, -(-longest // self.unit) * self.unit)
            chosen, log_probabilities = self.decoder.advance(self.slots, self.sampling)
            for row, token, value in zip(self.rows, chosen.tolist(), log_probabilities.tolist(), strict=True):
                if row is None:
                    continue
                row.tokens.append(token)
                row.log_probability += value
                is_over = not self.order.ignore_end and self.decoder.is_over(row.tokens)
                if is_over or len(row.tokens) == self.sampling.max_new_tokens:
                    done = self._finish(row, is_over)
                    if done is not None:
                        yield done

    def _admit(self) -> None:
        """Give free slots to the rows that wait, reading further prompts when none waits."""
        free = deque(slot for slot, row in enumerate(self.rows) if row is None)
        while free and (self.waiting or self.unread):
            if not self.waiting:
                self._read()
            prompt = self.waiting[0][0]
            taken: list[_Row] = []
            while free and self.waiting and self.waiting[0][0] == prompt:
                row = _Row(*self.waiting.popleft(), slot=free.popleft())
                self.rows[row.slot] = row
                taken.append(row)
            random = np.stack([self.order.uniforms(prompt, row.candidate) for row in taken])
            places = [row.slot for row in taken]
            self.slots.fill(places, self.order.encoded[prompt], self.prefixes[prompt], random)
            if not self.waiting or self.waiting[0][0] != prompt:
                del self.prefixes[prompt]

    def _read(self) -> None:
        """Prefill the next prompts, as many as fit into one forward."""
        group = [self.unread.popleft()]
        width = len(self.order.encoded[group[0]])
        while self.unread and (len(group) + 1) * width <= PREFILL_TOKENS[self.decoder.device.type]:
            group.append(self.unread.popleft())
        long = [one for one in group if len(self.order.encoded[one]) > 1]
        read = self.decoder.prefill([self.order.encoded[one] for one in long]) if long else []
        self.prefixes.update({one: [] for one in group} | dict(zip(long, read, strict=True)))
        self.waiting.extend((one, candidate) for one in group for candidate in range(self.order.counts[one]))

    def _shrink(self) -> None:
        """Drop empty slots once nothing waits for them and they are many; on CUDA only to sizes worth a graph."""
        going = [row for row in self.rows if row is not None]
        size = 1 << (len(going) - 1).bit_length() if self.is_on_card else len(going)
        if size > len(self.rows) * (0.5 if self.is_on_card else 0.75):
            return
        self.slots.keep([row.slot for row in going], size)
        for slot, row in enumerate(going):
            row.slot = slot
        self.rows = [*going, *[None] * (size - len(going))]

    def _finish(self, row: _Row, is_over: bool) -> tuple[int, list[Draw]] | None:
        """Free the row's slot; the prompt and its draws if this was the last of them."""
        self.rows[row.slot] = None
        found = self.draws_of.setdefault(row.prompt, {})
        found[row.candidate] = self.decoder.draw(row.tokens, row.log_probability, is_over)
        if len(found) < self.order.counts[row.prompt]:
            return None
        del self.draws_of[row.prompt]
        return row.prompt, [found[candidate] for candidate in sorted(found)]


class _Chooser:
    """A logits processor that leaves exactly the token that `pick` draws."""

    def __init__(self, decoder: Decoder, order: _Order, rows: list[tuple[int, int]]) -> None:
        self.decoder, self.order, self.rows = decoder, order, rows
        self.random = torch.from_numpy(np.stack([order.uniforms(*row) for row in rows])).to(decoder.device)
        self.tokens: list[list[int]] = [[] for _ in rows]
        self.values: list[list[float]] = [[] for _ in rows]

    def __call__(self, _: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        words, sampling = self.decoder.words, self.order.sampling
        cut = scores if words is None else scores[:, words]
        chosen, values = pick(cut, self.random[:, len(self.tokens[0])], sampling.temperature, sampling.top_p)
        chosen = chosen if words is None else words[chosen]
        for row, (token, value) in enumerate(zip(chosen.tolist(), values.tolist(), strict=True)):
            self.tokens[row].append(token)
            self.values[row].append(value)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)

    def stopping(self, ids: torch.Tensor, _: torch.Tensor, **__: Any) -> torch.Tensor:
        """Which rows are over, for generate()."""
        found = [not self.order.ignore_end and self.decoder.is_over(row) for row in self.tokens]
        return torch.tensor(found, device=ids.device)

    def finished(self) -> Iterator[Draw]:
        """The rows' draws; what generate() went on writing behind a row's end is dropped."""
        for tokens, values in zip(self.tokens, self.values, strict=True):
            ends = (n for n in range(1, len(tokens) + 1) if self.decoder.is_over(tokens[:n]))
            end = None if self.order.ignore_end else next(ends, None)
            kept = end or len(tokens)
            yield self.decoder.draw(tokens[:kept], sum(values[:kept]), end is not None)
