"""The GAN's losses and what it may be asked for."""

from __future__ import annotations

import math

import pytest
import torch

from adloom.errors import AdloomError
from adloom.imagery import gan
from adloom.imagery.conditions import Condition, ConditionSpace, age_group, refuse_minors

SPACE = ConditionSpace(category=("Bags", "Clothing/Coats"), gender=("women",), interests=("Clothing", "Shoes"))


def test_losses_are_the_textbooks() -> None:
    # scores 0 and ln 3 are probabilities 1/2 and 3/4
    half, three_quarters = 0.0, math.log(3)
    real, fake = torch.tensor([half, three_quarters]), torch.tensor([three_quarters, half])
    assert gan.generator_loss(fake).item() == pytest.approx((-math.log(0.75) - math.log(0.5)) / 2)
    of_real = (-math.log(0.5) - math.log(0.75)) / 2
    of_fake = (-math.log(1 - 0.75) - math.log(1 - 0.5)) / 2
    assert gan.discriminator_loss(real, fake).item() == pytest.approx(of_real + of_fake)


def test_losses_stay_finite_where_the_discriminator_is_sure() -> None:
    sure = torch.tensor([1e4, -1e4])
    assert math.isfinite(gan.discriminator_loss(sure, sure))
    assert math.isfinite(gan.generator_loss(sure))


def test_gradient_penalty_is_the_squared_length_of_the_gradient() -> None:
    pictures = torch.ones(2, 1, 2, 2, requires_grad=True)
    scores = 3 * pictures.flatten(1)[:, 0] + pictures.flatten(1)[:, 1].square()
    # gradient (3, 2, 0, 0) for each picture
    assert gan.gradient_penalty(scores, pictures).item() == pytest.approx(9 + 4)


@pytest.mark.parametrize("kind", gan.AUGMENTATIONS)
def test_augmentation_changes_pictures_and_lets_gradients_through(kind: gan.Augmentation) -> None:
    pictures = torch.rand(8, 3, 32, 32, requires_grad=True)
    found = gan.augment(pictures, (kind,), torch.Generator().manual_seed(1))
    again = gan.augment(pictures, (kind,), torch.Generator().manual_seed(1))
    assert found.shape == pictures.shape
    assert not torch.equal(found, pictures)
    assert torch.equal(found, again)
    found.sum().backward()
    assert pictures.grad is not None
    assert pictures.grad.abs().sum() > 0


def test_a_shifted_picture_is_the_picture_beside_black() -> None:
    picture = torch.zeros(16, 1, 8, 8)
    picture[:, :, 4, 4] = 1.0
    found = gan.augment(picture, ("translation",), torch.Generator().manual_seed(3))
    assert (found.sum((1, 2, 3)) == 1).all()
    places = {tuple(row[1:].tolist()) for row in found[:, 0].nonzero()}
    assert len(places) > 3
    assert all(3 <= down <= 5 and 3 <= right <= 5 for down, right in places)


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3), (64, 3), (128, 3)])
def test_networks_make_and_judge_pictures_of_every_size(size: int, channels: int) -> None:
    shape = gan.Shape(size=size, channels=channels, width=8, latent=8, embedding=8, features=16, space=SPACE)
    numbers, interests = gan.tensors(SPACE, [Condition(category="Bags")] * 4)
    pictures = gan.Generator(shape)(torch.randn(4, 8), numbers, interests)
    scores, categories = gan.Discriminator(shape)(pictures, numbers, interests)
    assert pictures.shape == (4, channels, size, size)
    assert pictures.abs().max() <= 1
    assert scores.shape == (4,)
    assert categories.shape == (4, 3)


def test_an_unknown_category_is_named_and_a_narrower_one_is_taken_for_the_known_one_around_it() -> None:
    assert SPACE.numbers(Condition(category="Clothing/Coats/Parkas", gender="women"))[0] == [2, 0, 0, 1]
    assert SPACE.numbers(Condition(category="Bags", gender="unheard of", interests=("Shoes",))) == (
        [1, 0, 0, 0],
        [0.0, 1.0],
    )
    with pytest.raises(AdloomError, match="never taught the category 'Phones'"):
        SPACE.numbers(Condition(category="Phones"))


@pytest.mark.parametrize("band", ["13-17", "<18", "under 18", "18歳未満", "16-24", "teen", "u18", "未成年"])
def test_nothing_is_painted_for_minors(band: str) -> None:
    assert age_group(band) == "minor"
    with pytest.raises(AdloomError, match="under 18"):
        refuse_minors([Condition(category="Bags"), Condition(category="Bags", age_band=band)])


@pytest.mark.parametrize(("band", "group"), [("18-24", "adult"), ("65+", "adult"), ("成人", "adult"), ("?", "unknown")])
def test_adults_are_told_from_unknown(band: str, group: str) -> None:
    assert age_group(band) == group


def test_a_seed_decides_its_noise_alone() -> None:
    assert torch.equal(gan.noise([7, 9], 5)[1], gan.noise([9], 5)[0])
