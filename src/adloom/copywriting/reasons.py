"""Why a brief has no copy, in the words of a page's reader. Rows hold the English words, whoever reads them."""

from __future__ import annotations

import re

from adloom.creative import Language

_CHINESE: tuple[tuple[str, str], ...] = (
    (r"^none of (\d+) candidates could be used: ?", r"\1 个候选都不能用："),
    (r"\bunsupported: ", "没有依据："),
    (r"\bforbidden word: ", "含有禁用词："),
    (r"\bheadline and body are the same\b", "标题与正文相同"),
    (r"\bheadline too long\b", "标题过长"),
    (r"\bbody too long\b", "正文过长"),
    (r"\bbody too short\b", "正文过短"),
    (r"\bcall to action too long\b", "行动语过长"),
    (r"\btoo few hashtags\b", "标签太少"),
    (r"\bthe offer is missing\b", "没有写明优惠"),
    (r"\bthe event is missing\b", "没有提到热点"),
    (r"\banother language\b", "不是要求的语言"),
    (r"\brepeats itself\b", "内容重复"),
    (r"\bthe text of another copy for this item\b", "与同一商品的另一条文案雷同"),
    (r"\btoo few candidates\b", "候选太少"),
    (r"\bmalformed: ", "格式不对："),
    (r"\bempty answer\b", "没有内容"),
    (r"\bno stop line: cut off", "没有写完"),
    (r"\btext after the stop line\b", "结束之后还有文字"),
    (r"\bfields out of order\b", "各项次序不对"),
    (r"\ba line that is no field: ", "不属于任何一项："),
    (r"\bnot a hashtag: ", "不是标签："),
    (r": missing\b", "：缺少"),
    (r": given twice\b", "：写了两次"),
    (r": empty\b", "：空着"),
    (r": holds another field\b", "：混入了另一项"),
    (r": (\d+) characters\b", r"：\1 个字符"),
    (r"\b(\d+) hashtags\b", r"\1 个标签"),
    (r"; ", "；"),
)


def in_language(reason: str, language: Language) -> str:
    """A row's ``refused_reason`` for a page in ``language``; what is not known here (a server's answer) stays."""
    if language == "zh":
        for pattern, words in _CHINESE:
            reason = re.sub(pattern, words, reason)
    return reason
