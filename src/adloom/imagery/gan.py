"""The conditional GAN: networks, losses and the augmentation that lets it learn from few pictures.

Two small convolutional networks, chosen by what a step costs. Only strided 4×4 convolutions change the resolution
(a quarter of the work of upsampling before a 3×3 one), every resolution costs about the same, and the generator adds
up a picture over its resolutions, so that coarse colours are there from the first steps on.

Conditioning: category, style, age band, gender and interests each have an embedding, added up to one vector. The
generator's batch normalisation takes its gains from it (and from the noise), the discriminator's last layer is
multiplied with it (projection discriminator, Miyato & Koyama 2018), and a class head on the same features keeps the
categories apart.

Losses, as the field's standard writes them: L_G = −log D(G(z)), L_D = −log D(x) − log(1 − D(G(z))), with
D = sigmoid(score). −log sigmoid(s) is softplus(−s), which does not overflow. R1 (Mescheder 2018) keeps the
discriminator smooth around real pictures.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from adloom.errors import AdloomError
from adloom.imagery.conditions import FIELDS, Condition, ConditionSpace, refuse_minors

GENERATOR, CRITIC, CONFIG = "generator.safetensors", "critic.safetensors", "config.json"
SIZES = (28, 32, 64, 128)
SLOPE = 0.2
GROUP = 4
"""Pictures whose spread the discriminator sees together: a generator that repeats itself gives itself away."""
TOGETHER = 16
"""Pictures painted at once."""
MOST_CANDIDATES = 64

Network = TypeVar("Network", bound=nn.Module)
Augmentation = Literal["colour", "translation", "cutout"]
AUGMENTATIONS: tuple[Augmentation, ...] = ("colour", "translation", "cutout")


class Shape(BaseModel):
    """What the networks look like; together with the weights all that is needed to build them again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(description="pixels of a side")
    channels: Literal[1, 3] = 3
    width: int = Field(default=64, ge=8, le=512, description="feature maps at 16 px; other resolutions in proportion")
    latent: int = Field(default=64, ge=1, le=1024)
    embedding: int = Field(default=64, ge=1, le=1024)
    features: int = Field(default=192, ge=8, le=4096, description="numbers the discriminator decides on")
    space: ConditionSpace

    @field_validator("size")
    @classmethod
    def _known_size(cls, value: int) -> int:
        if value not in SIZES:
            raise ValueError(f"{value} px: one of {', '.join(map(str, SIZES))}")
        return value

    @property
    def resolutions(self) -> tuple[int, ...]:
        """From the coarsest (4 or 7 px) to the picture's own."""
        found = [self.size]
        while found[0] % 2 == 0 and found[0] > 4:
            found.insert(0, found[0] // 2)
        return tuple(found)

    def maps(self, resolution: int) -> int:
        """Feature maps at a resolution: halved where it doubles, a multiple of 16 (what processors take at once)."""
        return max(16, 16 * round(self.width / resolution))


# --- networks -------------------------------------------------------------------------------------------------------


def _begin(network: nn.Module) -> None:
    """Weights that keep the size of what passes through (He et al. 2015).

    PyTorch's own are smaller by √3 and more at every layer: five of them down, a discriminator without normalisation
    saw photos as all the same for its first hundreds of steps.
    """
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            fan = part.weight[0].numel()
            if isinstance(part, nn.ConvTranspose2d):
                # Every pixel is reached by a quarter of a strided kernel.
                fan = part.weight.shape[0] * part.weight[0, 0].numel() // 4
            nn.init.normal_(part.weight, std=math.sqrt(2 / (1 + SLOPE**2) / fan))
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for part in network.modules():
        if isinstance(part, ConditionEmbedding) and part.interests is not None:
            nn.init.normal_(part.interests.weight)  # as loud as the words of the other fields


class ConditionEmbedding(nn.Module):
    """Numbers of a condition → one vector."""

    def __init__(self, space: ConditionSpace, size: int) -> None:
        super().__init__()
        self.fields = nn.ModuleList(nn.Embedding(count, size) for count in space.sizes)
        self.interests = nn.Linear(len(space.interests), size, bias=False) if space.interests else None

    def forward(self, numbers: Tensor, interests: Tensor) -> Tensor:
        found = sum(table(numbers[:, place]) for place, table in enumerate(self.fields))
        if self.interests is not None:
            # A mean: somebody with many interests does not shout down the category.
            found = found + self.interests(interests / interests.sum(1, keepdim=True).clamp(min=1))
        return found


class ConditionalNorm(nn.Module):
    """Batch normalisation whose gains and shifts come from a vector."""

    def __init__(self, maps: int, vector: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(maps, affine=False)
        self.gains = nn.Linear(vector, 2 * maps)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        gain, shift = self.gains(vector).to(x.dtype)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(shift, self.norm(x), gain + 1)


class Generator(nn.Module):
    """Noise and a condition → a picture with values from −1 to 1."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        first, *rest = shape.resolutions
        vector = shape.latent + shape.embedding
        self.embedding = ConditionEmbedding(shape.space, shape.embedding)
        self.start = nn.Linear(vector, shape.maps(first) * first * first)
        self.first = nn.Conv2d(shape.maps(first), shape.maps(first), 3, padding=1)
        self.first_norms = nn.ModuleList(ConditionalNorm(shape.maps(first), vector) for _ in range(2))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(shape.maps(one // 2), shape.maps(one), 4, stride=2, padding=1) for one in rest
        )
        self.norms = nn.ModuleList(ConditionalNorm(shape.maps(one), vector) for one in rest)
        self.colours = nn.ModuleList(nn.Conv2d(shape.maps(one), shape.channels, 1) for one in shape.resolutions)
        _begin(self)
        for part in self.modules():
            if isinstance(part, ConditionalNorm):
                nn.init.normal_(part.gains.weight, std=0.02)
            elif isinstance(part, nn.Conv2d) and part.out_channels == shape.channels:
                # Their sum is the picture: it begins grey, not saturated.
                nn.init.normal_(part.weight, std=0.1 / math.sqrt(part.in_channels))

    def forward(self, noise: Tensor, numbers: Tensor, interests: Tensor) -> Tensor:
        vector = torch.cat((noise, self.embedding(numbers, interests)), dim=1)
        side = self.shape.resolutions[0]
        x = self.start(vector).view(len(noise), -1, side, side).contiguous(memory_format=torch.channels_last)
        x = functional.leaky_relu(self.first_norms[0](x, vector), SLOPE)
        x = functional.leaky_relu(self.first_norms[1](self.first(x), vector), SLOPE)
        picture = self.colours[0](x)
        for up, norm, colour in zip(self.up, self.norms, self.colours[1:], strict=True):
            x = functional.leaky_relu(norm(up(x), vector), SLOPE)
            picture = colour(x) + functional.interpolate(picture, scale_factor=2.0, mode="nearest")
        return torch.tanh(picture.float())


class _Down(nn.Module):
    """Half the resolution: a strided convolution beside a plain average."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(before, after, 4, stride=2, padding=1)
        self.beside = nn.Conv2d(before, after, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        found = functional.leaky_relu(self.convolution(x), SLOPE)
        return (found + self.beside(functional.avg_pool2d(x, 2))) * math.sqrt(0.5)


class _Spread(nn.Module):
    """One more map: the mean standard deviation within each group of pictures that follow each other.

    Outside of training pictures are judged alone: then the map holds what was usual in training.
    """

    usual: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("usual", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            size = GROUP if len(x) % GROUP == 0 else len(x)
            groups = x.permute(0, 2, 3, 1).float().reshape(len(x) // size, size, -1)
            around = groups - groups.mean(1, keepdim=True)
            spread = (around.square().mean(1) + 1e-8).sqrt().mean(1)
            self.usual.lerp_(spread.detach().mean(), 0.01)
            spread = spread.repeat_interleave(size)
        else:
            spread = self.usual.expand(len(x))
        return torch.cat((x, spread[:, None, None, None].expand(-1, 1, *x.shape[2:]).to(x.dtype)), dim=1)


class Discriminator(nn.Module):
    """A picture and a condition → (score that it is real, a score per category)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        resolutions = shape.resolutions[::-1]
        maps = [shape.channels, *(shape.maps(one) for one in resolutions[1:])]
        last, side = maps[-1], resolutions[-1]
        self.down = nn.ModuleList(_Down(before, after) for before, after in itertools.pairwise(maps))
        self.spread = _Spread()
        self.last = nn.Conv2d(last + 1, last, 3, padding=1)
        self.features = nn.Linear(last * side * side, shape.features)
        self.score = nn.Linear(shape.features, 1)
        self.embedding = ConditionEmbedding(shape.space, shape.features)
        self.category = nn.Linear(shape.features, shape.space.sizes[0])
        _begin(self)

    def forward(self, pictures: Tensor, numbers: Tensor, interests: Tensor) -> tuple[Tensor, Tensor]:
        x = pictures.contiguous(memory_format=torch.channels_last)
        for down in self.down:
            x = down(x)
        x = functional.leaky_relu(self.last(self.spread(x)), SLOPE)
        found = functional.leaky_relu(self.features(x.flatten(1)), SLOPE)
        embedded = self.embedding(numbers, interests).to(found.dtype)
        score = self.score(found).squeeze(1) + (found * embedded).sum(1) / math.sqrt(found.shape[1])
        return score.float(), self.category(found).float()


# --- losses ---------------------------------------------------------------------------------------------------------


def generator_loss(fake: Tensor) -> Tensor:
    """L_G = −log D(G(z)), the mean over a batch of scores."""
    return functional.softplus(-fake).mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """L_D = −log D(x) − log(1 − D(G(z))), the means over two batches of scores."""
    return functional.softplus(-real).mean() + functional.softplus(fake).mean()


def gradient_penalty(scores: Tensor, pictures: Tensor) -> Tensor:
    """R1 without its factor: the mean squared length of a score's gradient at the real pictures."""
    (gradient,) = torch.autograd.grad(scores.sum(), pictures, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


# --- augmentation ---------------------------------------------------------------------------------------------------


def augment(pictures: Tensor, kinds: Sequence[Augmentation], chance: torch.Generator) -> Tensor:
    """Differentiable augmentation (Zhao et al. 2020) of real and generated pictures alike, every picture its own.

    ``chance`` is a generator on the CPU: the same draws on every device.
    """
    if "colour" in kinds:
        pictures = _recoloured(pictures, chance)
    if "translation" in kinds:
        pictures = _shifted(pictures, chance)
    if "cutout" in kinds:
        pictures = _cut(pictures, chance)
    return pictures


def _uniform(pictures: Tensor, chance: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(len(pictures), *shape, generator=chance).to(pictures.device)


def _recoloured(pictures: Tensor, chance: torch.Generator) -> Tensor:
    brightness, saturation, contrast = _uniform(pictures, chance, 3)[:, :, None, None, None].unbind(1)
    x = pictures + (brightness - 0.5)
    if x.shape[1] > 1:
        grey = x.mean(1, keepdim=True)
        x = torch.lerp(grey, x, 2 * saturation)
    return torch.lerp(x.mean((1, 2, 3), keepdim=True), x, contrast + 0.5)


def _offsets(pictures: Tensor, chance: torch.Generator, low: int, high: int) -> tuple[Tensor, Tensor]:
    """Whole numbers of pixels (down, right) per picture, from low to high, both included."""
    drawn = torch.randint(low, high + 1, (2, len(pictures)), generator=chance).to(pictures.device)
    return drawn[0], drawn[1]


def _shifted(pictures: Tensor, chance: torch.Generator) -> Tensor:
    """By up to an eighth of a side, black where nothing was."""
    side = pictures.shape[-1]
    most = max(1, round(side / 8))
    down, right = _offsets(pictures, chance, -most, most)
    place = torch.arange(side, device=pictures.device)
    # Pixels are looked up in a picture with a border of one black pixel.
    rows = (place[None, :] - down[:, None] + 1).clamp(0, side + 1)
    columns = (place[None, :] - right[:, None] + 1).clamp(0, side + 1)
    bordered = functional.pad(pictures, (1, 1, 1, 1)).permute(0, 2, 3, 1)
    picture = torch.arange(len(pictures), device=pictures.device)[:, None, None]
    return bordered[picture, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _cut(pictures: Tensor, chance: torch.Generator) -> Tensor:
    """A square of half a side goes black, wherever its middle falls."""
    side = pictures.shape[-1]
    half = side // 4
    down, right = _offsets(pictures, chance, 0, side - 1)
    place = torch.arange(side, device=pictures.device)
    rows = (place[None, :] - down[:, None]).abs() < half
    columns = (place[None, :] - right[:, None]).abs() < half
    return pictures * ~(rows[:, None, :, None] & columns[:, None, None, :])


# --- conditions and weights as tensors ------------------------------------------------------------------------------


def tensors(space: ConditionSpace, conditions: Sequence[Condition]) -> tuple[Tensor, Tensor]:
    """(numbers, interests) of conditions, as both networks take them."""
    pairs = [space.numbers(one) for one in conditions]
    numbers = torch.tensor([pair[0] for pair in pairs], dtype=torch.long).view(-1, len(FIELDS))
    return numbers, torch.tensor([pair[1] for pair in pairs], dtype=torch.float32).view(len(pairs), -1)


def noise(seeds: Sequence[int], size: int) -> Tensor:
    """One row of standard normal numbers per seed, each a function of its seed alone."""
    rows = [torch.randn(size, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows) if rows else torch.empty(0, size)


class Painter:
    """A trained generator, with the critic that learnt beside it: opened from the folder a training left."""

    def __init__(self, folder: Path, device: str = "auto") -> None:
        self.folder, self.device = folder, chosen_device(device)
        config = _read_config(folder)
        try:
            self.shape = Shape.model_validate(config["shape"])
        except (KeyError, ValidationError) as error:
            raise AdloomError(f"{folder / CONFIG}: {error}", "train the generator again") from error
        self.digest = str(config.get("digest", ""))
        self.generator = self._loaded(Generator(self.shape), GENERATOR, self.digest)
        has_critic = (folder / CRITIC).is_file()
        self.critic = self._loaded(Discriminator(self.shape), CRITIC, None) if has_critic else None

    def _loaded(self, network: nn.Module, name: str, digest: str | None) -> Any:
        path = self.folder / name
        try:
            if digest is not None and hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                raise AdloomError(f"{path} is not what {CONFIG} beside it says", "copy the whole folder again")
            network.load_state_dict(load_file(path))
        except AdloomError:
            raise
        except Exception as error:
            raise AdloomError(f"{path} cannot be loaded: {error}", "train the generator again") from error
        return placed(network, self.device).eval().requires_grad_(False)

    @torch.inference_mode()
    def paint(self, conditions: Sequence[Condition], seeds: Sequence[int], candidates: int = 1) -> Tensor:
        """Pictures (uint8, count × channels × size × size), each decided by its condition and seed alone.

        ``candidates``: drawn per picture; the one that the critic is surest of showing the category is kept. Always as
        many are computed together (the last few are repeated): what is drawn beside a picture does not change a byte.
        """
        refuse_minors(conditions)
        numbers, interests = tensors(self.shape.space, conditions)
        each = candidates if self.critic is not None else 1
        found = [torch.empty(0, self.shape.channels, self.shape.size, self.shape.size, dtype=torch.uint8)]
        for start in range(0, len(conditions), TOGETHER):
            rows = range(start, min(start + TOGETHER, len(conditions)))
            filled = [*rows, *[rows[-1]] * (TOGETHER - len(rows))]
            pictures = self._painted(numbers[filled], interests[filled], [seeds[one] for one in filled], each)
            found.append(pictures[: len(rows)])
        return torch.cat(found)

    def _painted(self, numbers: Tensor, interests: Tensor, seeds: Sequence[int], each: int) -> Tensor:
        asked = [one.to(self.device).repeat_interleave(each, 0) for one in (numbers, interests)]
        drawn = noise([seed * MOST_CANDIDATES + one for seed in seeds for one in range(each)], self.shape.latent)
        pictures = self.generator(drawn.to(self.device), *asked)
        if each > 1:
            assert self.critic is not None  # noqa: S101 - for the type checker
            _, categories = self.critic(pictures, *asked)
            sure = functional.log_softmax(categories, 1).gather(1, asked[0][:, :1])
            best = sure.view(-1, each).argmax(1)
            pictures = pictures.view(-1, each, *pictures.shape[1:])[torch.arange(len(seeds)), best]
        return to_bytes(pictures).cpu()


def to_bytes(pictures: Tensor) -> Tensor:
    """From −1…1 to 0…255."""
    return ((pictures.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def from_bytes(pictures: Tensor) -> Tensor:
    """From 0…255 to −1…1."""
    return pictures.float() / 127.5 - 1


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except FileNotFoundError as error:
        raise AdloomError(f"there is no generator in {folder}: no {CONFIG}", "run `adloom train-images`") from error
    except ValueError as error:
        raise AdloomError(f"{path} is not readable: {error}", "train the generator again") from error


# --- where it runs --------------------------------------------------------------------------------------------------


def chosen_device(device: str) -> torch.device:
    """``auto``: the GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise AdloomError(
            "ADLOOM_DEVICE is cuda and torch finds no GPU", "set ADLOOM_DEVICE=auto, or see adloom doctor"
        )
    return torch.device(device)


def placed(network: Network, device: torch.device) -> Network:
    """The network on the device, its convolutions' weights in the order that is fastest there."""
    moved: Any = network.to(device)
    moved = moved.to(memory_format=torch.channels_last)
    found: Network = moved
    return found


def has_fast_bfloat16(device: torch.device) -> bool:
    """Are products of bfloat16 faster than of float32 here? On CPUs only where there are instructions for them."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(ask is not None and ask() for ask in found)
