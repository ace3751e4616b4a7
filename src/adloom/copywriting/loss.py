"""Cross-entropy of completions, given their prompts, for any causal model, without paying for logits nobody asks about.

In a small model with a large vocabulary the output matrix is most of the work. So logits exist only where a completion
token is to be predicted, a few rows at a time, and while an adapter learns, only for the tokens that matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LARGE_VOCABULARY = 32_768
"""Narrowing a smaller one gains little."""
COVERED = 0.995
"""Share of its probability, over the validation texts, that the base gives to the tokens that are kept: with Gemma 3
30,000 of 262,000, and a third of a training step is saved. The loss is then too low by about .005, and what is left
out is not pushed down further; validation always takes the whole vocabulary, so a drift there would be seen."""
_LOGITS = {"cpu": 2**24, "cuda": 2**29}
"""Logits that exist at one time."""
_PADDED_TOKENS = {"cpu": 8192, "cuda": 65536}
"""Tokens, padding included, that go through the model at one time; a larger batch goes in parts."""


@dataclass(frozen=True)
class Encoded:
    """The tokens of one text; only the completion's are predicted."""

    prompt: list[int]
    completion: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


class CompletionLoss:
    """Summed cross-entropy of completions, given their prompts."""

    def __init__(self, model: PreTrainedModel, device: torch.device) -> None:
        self.model, self.device = model, device
        self.tokens: torch.Tensor | None = None
        """ids of the tokens that training steps choose among; None: all"""
        self._head = self._usable_head()
        self._narrow_head: torch.Tensor | None = None
        self._row_of: torch.Tensor | None = None

    def __call__(self, texts: Sequence[Encoded], mass: torch.Tensor | None = None) -> torch.Tensor:
        """The loss over ``texts``; adds what the model gives each token of the vocabulary to ``mass``."""
        ids, attention, targets = _padded(texts, self.device)
        learnt = targets[:, 1:] >= 0
        wanted = targets[:, 1:][learnt]
        if self._head is None:
            logits = self.model(input_ids=ids, attention_mask=attention, use_cache=False).logits
            return F.cross_entropy(logits[:, :-1][learnt].float(), wanted, reduction="sum")
        hidden = self.model.base_model(input_ids=ids, attention_mask=attention, use_cache=False).last_hidden_state
        head = self._head
        if not torch.is_grad_enabled():
            head = head.detach()  # else the loss would take its gradient all the same
        elif self._narrow_head is not None and self._row_of is not None:
            head, wanted = self._narrow_head, self._row_of[wanted]
        rows = max(64, _LOGITS[self.device.type] // len(head))
        loss: torch.Tensor = _HeadLoss.apply(hidden[:, :-1][learnt], head, wanted, rows, mass)
        return loss

    @torch.no_grad()
    def mean(self, model: torch.nn.Module, texts: Sequence[Encoded], mass: torch.Tensor | None = None) -> float:
        """Mean loss per completion token, over the whole vocabulary."""
        model.eval()
        ordered = sorted(texts, key=len)
        total = 0.0
        for start in range(0, len(ordered), 8):
            for part in self.parts(ordered[start : start + 8]):
                total += float(self(part, mass))
        return total / sum(len(text.completion) for text in texts)

    def parts(self, batch: Sequence[Encoded]) -> Iterator[list[Encoded]]:
        """The batch, longest text first, cut into what goes through the model at one time."""
        rest = sorted(batch, key=len, reverse=True)
        while rest:
            fitting = max(1, _PADDED_TOKENS[self.device.type] // len(rest[0]))
            yield rest[:fitting]
            rest = rest[fitting:]

    # --- the vocabulary ---

    def no_mass(self) -> torch.Tensor | None:
        """Zeros for `mean` to add each token's probability to; None where the vocabulary is not to be narrowed."""
        head = self._head
        if head is None or head.requires_grad or len(head) <= LARGE_VOCABULARY:
            return None
        return torch.zeros(len(head), dtype=torch.float64, device=self.device)

    def narrow(self, mass: torch.Tensor, texts: Sequence[Encoded]) -> None:
        """In training steps choose only among the likeliest tokens, `COVERED` of ``mass``, and the texts' own."""
        likeliest = (mass / mass.sum()).sort(descending=True, stable=True)
        count = int((likeliest.values.cumsum(0) < COVERED).sum()) + 1
        needed = {token for text in texts for token in text.completion}
        kept = torch.cat([likeliest.indices[:count].cpu(), torch.tensor(sorted(needed))])
        self.narrow_to(kept.unique())

    def narrow_to(self, tokens: torch.Tensor) -> None:
        """Choose, in training steps, only among ``tokens``."""
        if self._head is None:
            raise ValueError("this model shapes its logits itself")
        self.tokens = tokens.to(self.device)
        self._narrow_head = self._head.detach()[self.tokens].contiguous()
        self._row_of = torch.full((len(self._head),), -1, device=self.device)
        self._row_of[self.tokens] = torch.arange(len(self.tokens), device=self.device)

    @torch.no_grad()
    def _usable_head(self) -> torch.Tensor | None:
        """The output matrix, if logits are nothing but the last hidden state times it; None: let the model do it.

        Some architectures scale or cap their logits or have a bias: asked of the model itself, on a few tokens.
        """
        output = self.model.get_output_embeddings()
        weight = getattr(output, "weight", None)
        if not isinstance(weight, torch.Tensor) or getattr(output, "bias", None) is not None:
            return None
        self.model.eval()
        ids = torch.arange(1, 17, device=self.device)[None] % weight.shape[0]
        try:
            hidden = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
            logits = self.model(input_ids=ids, use_cache=False).logits
            ours = hidden @ weight.T
        except (AttributeError, RuntimeError, TypeError):
            return None
        far = (ours.float() - logits.float()).abs().max() / logits.float().abs().max().clamp(min=1e-6)
        return weight if float(far) < 1e-2 else None


class _HeadLoss(torch.autograd.Function):
    """Summed cross-entropy of ``hidden @ weight.T``, a few rows of logits at a time.

    Gradients are taken while a chunk's logits exist, so that they are neither kept nor made twice: with a vocabulary
    of 262 k a third faster than the usual way on a CPU, and a batch needs megabytes instead of gigabytes.
    """

    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        wanted: torch.Tensor,
        rows: int,
        mass: torch.Tensor | None = None,
    ) -> torch.Tensor:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        hidden_gradient = torch.empty_like(hidden) if needs_hidden else None
        weight_gradient = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), rows):
            part, target = hidden[start : start + rows], wanted[start : start + rows, None]
            logits = (part @ weight.T).float()
            logits -= logits.amax(-1, keepdim=True)
            of_target = logits.gather(1, target)
            partition = logits.exp_().sum(-1, keepdim=True)
            total += (partition.log() - of_target).sum()
            if mass is None and not (needs_hidden or needs_weight):
                continue
            probabilities = logits.div_(partition)
            if mass is not None:
                mass += probabilities.sum(0)
            probabilities.scatter_add_(1, target, torch.full_like(of_target, -1.0))
            slope = probabilities.to(weight.dtype)
            if hidden_gradient is not None:
                hidden_gradient[start : start + rows] = slope @ weight
            if weight_gradient is not None:
                weight_gradient += slope.T @ part
        ctx.gradients = hidden_gradient, weight_gradient
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        of_hidden, of_weight = ctx.gradients
        return (
            None if of_hidden is None else of_hidden * gradient.to(of_hidden.dtype),
            None if of_weight is None else (of_weight * gradient).to(ctx.weight_dtype),
            None,
            None,
            None,
        )


def _padded(texts: Sequence[Encoded], device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(token ids, attention mask, targets: -100 but for completions), padded on the right."""
    width = max(len(text) for text in texts)
    ids = torch.zeros((len(texts), width), dtype=torch.long)
    attention = torch.zeros_like(ids)
    targets = torch.full_like(ids, -100)
    for row, text in enumerate(texts):
        whole = torch.tensor(text.prompt + text.completion)
        ids[row, : len(whole)] = whole
        attention[row, : len(whole)] = 1
        targets[row, len(text.prompt) : len(whole)] = whole[len(text.prompt) :]
    return ids.to(device), attention.to(device), targets.to(device)
