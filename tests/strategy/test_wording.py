from __future__ import annotations

from typing import Any

import pytest

from adloom.strategy.wording import Change, change_sentence, percent, sure

USUAL: dict[str, Any] = {
    "creative_id": "17",
    "before": 0.12,
    "after": 0.19,
    "floor": 0.02,
    "is_capped": False,
    "impressions": 6020,
    "clicks": 41,
    "ctr": 0.0068,
    "family_ctr": 0.0037,
    "above_family": 0.96,
    "best_before": 0.13,
    "best": 0.20,
    "target": 0.20,
}


@pytest.mark.parametrize(
    ("share", "text"), [(1, "100 %"), (0.19, "19 %"), (0.0996, "10 %"), (0.024, "2.4 %"), (0.0025, "0.25 %")]
)
def test_percent_shows_two_digits_that_matter(share: float, text: str) -> None:
    assert percent(share) == text


def test_nobody_is_ever_quite_sure() -> None:
    assert (sure(0.96), sure(0.9999), sure(1.0)) == ("96 %", "99 %", "99 %")


@pytest.mark.parametrize(
    ("changes", "english", "chinese"),
    [
        (
            {},
            "creative 17: 12 % → 19 %, because it is now likelier to be the best here (its chance: 13 % → 20 %); "
            "3.1 clicks per 1,000 more than its family, 96 % sure (41 clicks in 6,020 impressions)",
            "创意 17：12 % → 19 %，因为它如今更可能是此处最佳（它成为最佳的可能性：13 % → 20 %）；"
            "每千次展示比同系列多 3.1 次点击，把握 96 %（6,020 次展示，41 次点击）",
        ),
        (
            {"before": None, "after": 0.02, "impressions": 0, "clicks": 0},
            "creative 17: new → 2.0 %; no impressions here yet, so it starts from its family "
            "(0 clicks in 0 impressions); at the least share, which keeps it in the race",
            "创意 17：新增 → 2.0 %；在此尚无展示，先按同系列的水平投放（0 次展示，0 次点击）；保留最低探索份额",
        ),
        (
            {"before": 0.1901, "ctr": 0.0036, "above_family": 0.45, "clicks": 1},
            "creative 17: stays at 19 %; no clear difference from its family yet (1 click in 6,020 impressions)",
            "创意 17：维持 19 %；与同系列尚无明显差别（6,020 次展示，1 次点击）",
        ),
        (
            {"before": 0.49, "ctr": 0.0027, "above_family": 0.03, "is_capped": True, "best_before": 0.4, "best": 0.01},
            "creative 17: 49 % → 19 %, because others are now likelier to be the best here (its chance: 40 % → 1.0 %); "
            "1.0 clicks per 1,000 fewer than its family, 97 % sure "
            "(41 clicks in 6,020 impressions); held back by the daily cap",
            "创意 17：49 % → 19 %，因为其他创意如今更可能是此处最佳（它成为最佳的可能性：40 % → 1.0 %）；"
            "每千次展示比同系列少 1.0 次点击，把握 97 %（6,020 次展示，41 次点击）"
            "；单日变动已达上限",
        ),
    ],
)
def test_every_change_has_its_sentence(changes: dict[str, Any], english: str, chinese: str) -> None:
    change = Change(**USUAL | changes)
    assert change_sentence(change, "en") == english
    assert change_sentence(change, "zh") == chinese


@pytest.mark.parametrize(
    ("changes", "english", "chinese"),
    [
        (
            {"before": 0.21, "after": 0.15, "best_before": 0.22, "best": 0.15},
            "others are now likelier",
            "其他创意如今更可能",
        ),
        ({"best_before": 0.12, "best": 0.19}, "now likelier to be the best here; 3.1", "如今更可能是此处最佳；每千次"),
        ({"best_before": 0.22, "target": 0.3}, "the plan is moving it towards 30 % day by day", "逐日接近 30 %"),
        ({"best_before": None, "target": 0.3}, "the plan is moving it towards 30 % day by day", "逐日接近 30 %"),
        ({"before": 0.30, "target": 0.4}, "it makes room for the others' least shares", "让出空间"),
        ({"best_before": 0.2, "target": 0.05}, "it takes over what others gave up", "接过其他创意让出的份额"),
    ],
)
def test_a_change_says_why_even_where_the_family_says_the_opposite(
    changes: dict[str, Any], english: str, chinese: str
) -> None:
    change = Change(**USUAL | changes)
    assert english in change_sentence(change, "en")
    assert chinese in change_sentence(change, "zh")
