"""The report's own words in the shop's language, and numbers as a person writes them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

ENGLISH: Mapping[str, str] = {
    "title": "advertising report",
    "simulated": "Simulated: a program made these figures. They say nothing about real customers.",
    "as_of": "What was known by the end of {day} ({zone})",
    "window": "{days} days, {first} – {last}",
    "in_short": "In short",
    "happened": "What happened",
    "known": "What is known",
    "unknown": "What is not known yet",
    "tomorrow": "What changes tomorrow",
    "total": "{impressions} impressions brought {clicks} clicks. CTR {ctr}, likely between {low} and {high}.",
    "no_data": "There are no impressions in this window. Nothing can be said about CTR.",
    "no_clicks": "{impressions} impressions, and no click so far. CTR is likely below {high}.",
    "winner": "{where}: {winner} has the better {metric}.",
    "no_difference": "{where}: {a} and {b} do equally well, as far as it matters.",
    "needs_more": "{where}: which of {a} and {b} does better. {more}",
    "about_more": "About {count} more {trials} are needed, if the difference stays as it is.",
    "split_broken": "{where}: the traffic was not split as intended, so {a} and {b} cannot be compared. "
    "Ask your data engineer.",
    "nothing_decided": "No comparison is decided. Every difference seen so far could be chance.",
    "nothing_compared": "This shop compares nothing yet: its configuration names no comparison.",
    "all_decided": "Every comparison of this shop is decided.",
    "at_place": "{place}: {sentence}",
    "whole_shop": "All campaigns",
    "no_conversions": "This shop logs no conversions, so there is no CR.",
    "not_mature": "CR is not final: by experience, {share} of the conversions of these clicks are known. The rest "
    "is on its way.",
    "first_plan": "The first plan begins on {day}. Creatives in it: {count}.",
    "plan_moves": "Shares that the plan for {day} moves by a percentage point or more: {count}.",
    "plan_still": "The plan for {day} moves no share by a percentage point or more.",
    "no_plan": "There is no plan for {day}.",
    "retired": "Retired: {sentence}.",
    "retired_more": "Retired, too: {count} more. They are in adloom.retirements.",
    "no_creative": "There is no plan for {day}: of the creatives known so far ({count}) none is approved.",
    "quality_green": "All {count} data checks of the day passed.",
    "quality_warned": "{passed} of {count} data checks of the day passed, {warned} warned.",
    "quality_failed": "{failed} of {count} data checks failed, {warned} warned. Do not act on this page.",
    "quality_skipped": "Not judged yet: {count}.",
    "space": " ",
    "quality_none": "No data check is recorded for this day.",
    "not_mature_unknown": "CR is not final: these clicks may still convert, and this shop has too little history to "
    "say how many will.",
    "immature_here": "{count} of the {total} figures below are not mature: more conversions are on their way. Do not "
    "act on them yet.",
    "plan_unused": "No impression of these {days} days followed a plan of Adloom. The shares are a proposal until the "
    "ad server uses the published plan.",
    "lift_unused": "Whether the daily changes of shares pay: no impression has followed a plan yet.",
    "lift_none": "Whether the daily changes of shares pay: the holdout has too few clicks, or its split is broken.",
    "lift_open": "Whether the daily changes of shares pay: the lift so far, {lift}, may be chance ({low} to {high}).",
    "lift_sure": "The daily changes of shares pay: lift {lift} over the holdout ({low} to {high}).",
    "lift_harm": "The daily changes of shares cost clicks: lift {lift} against the holdout ({low} to {high}).",
    "ctr_heading": "CTR by campaign and policy",
    "campaign": "campaign",
    "policy": "policy",
    "impressions": "impressions",
    "clicks": "clicks",
    "conversions": "conversions",
    "interval": "{confidence} interval",
    "seven_days": "{days} days",
    "verdict": "Verdict",
    "verdict_winner": "winner",
    "verdict_no_difference": "no difference",
    "verdict_needs_more": "not decided",
    "verdict_split_broken": "split broken",
    "rows_left_out": "Left out here, with fewer impressions: {count} rows. They are in adloom.evaluations.",
    "other_comparisons": "Other comparisons",
    "daily_heading": "CTR day by day",
    "daily_note": "Dot: CTR of the day. Line: {confidence} interval; an arrow means it goes on beyond the picture. "
    "The bold mark at the right is the whole window. Overlapping lines: the difference may be chance. "
    "Each day is shown as it was known at its own end.",
    "daily_alt": "CTR of campaign {campaign} by day with intervals, for the policies {policies}.",
    "one_day": "Only one day is there so far; a course appears with the second.",
    "daily_none": "No day of this window was evaluated with impressions.",
    "panels_left_out": "Shown: the {shown} campaigns with most impressions, at most {series} policies each.",
    "shares_heading": "Shares: now → tomorrow",
    "shares_note": "Ring: share in the plan of today. Dot: share from {day} on. The largest changes come first.",
    "shares_rest": "Further shares, which change less or not at all: {count}.",
    "shares_first": "There is no earlier plan to compare with. These creatives get the largest shares.",
    "share_alt": "share of {creative}: {before} now, {after} tomorrow",
    "new": "new",
    "now_tomorrow": "now → tomorrow",
    "gate": "Check before a change of policy",
    "policy_changes": "What if another policy were used?",
    "policy_changes_note": "Judged from the logs alone, before anyone is shown it. Passed: it may be tried, no more. "
    "Refused: the logs cannot tell. Held: the logs speak against it.",
    "decision_passed": "passed",
    "decision_held": "held",
    "decision_refused": "refused",
    "lift_heading": "Does adjusting the shares pay?",
    "lift_note": "A fixed part of the traffic, the holdout, keeps equal shares. The rest follows the plan. The "
    "difference between the two is the only proof; an interval that holds 0 proves nothing, and one good week little.",
    "group": "traffic",
    "adaptive": "follows the plan",
    "holdout": "holdout",
    "not_enough": "not enough data",
    "not_enough_yet": "Not enough data yet.",
    "colon": ": ",
    "lift_value": "Lift {lift}, {confidence} interval {low} to {high}.",
    "no_holdout": "No holdout was measured on this day.",
    "cr_heading": "CR: from click to conversion",
    "cr_note": "Clicks of these days and the conversions within {days} days of each click. While a figure is not "
    "mature, it is corrected for the conversions still to come, and no share follows it.",
    "maturity": "maturity",
    "mature": "mature",
    "immature": "not mature",
    "complete": "{share} known",
    "quality_heading": "Can the data be trusted?",
    "quality_note": "Checks before anything is computed (raw), decided (marts) or approved (creatives). "
    "A failed check stops the day; a warning does not.",
    "door": "door",
    "day": "day",
    "passed": "passed",
    "warned": "warned",
    "skipped": "not judged yet, for want of history or rows",
    "failed": "failed",
    "check": "check",
    "observed": "observed",
    "expected": "expected",
    "not_green": "Not green on {day}",
    "rejected_rows": "{count} rows of this window's files were unusable and set aside.",
    "invalid": "{count} impressions of this window were set aside as invalid traffic, such as robots.",
    "glossary": "Words",
    "w_ctr": "Clicks divided by impressions, over all rows together.",
    "w_interval": "The range in which the true rate likely lies: of 100 such intervals about {hundredth} hold it. "
    "Few clicks, wide interval.",
    "w_holdout": "Traffic that never follows the plan, so that the plan can be measured against it.",
    "w_policy": "The rule by which the ad server chooses a creative.",
    "w_share": "The part of a placement's impressions that a creative gets.",
    "w_cr": "Conversions divided by clicks.",
    "w_mature": "Enough of the conversions that belong to these clicks are known by now.",
    "w_verdict": "Given only when it holds although we look every day, and for all comparisons together.",
    "share": "share",
    "creative": "creative",
    "copies_heading": "New copies",
    "copies_none": "No new copies were made for this day. They are made for the newest day only.",
    "copies_note": "Written by a program from the facts of the shop, for the channels and segments below. Only what "
    "is approved is shown to anybody, and nothing that a review blocks. Read them as a customer would.",
    "copies_simulated": "Simulated: shop, items, offers and segments are invented.",
    "copies_counts": "{briefs} briefs, {written} copies ({languages}), {refused} not written. Of {candidates} "
    "candidates drawn, {parsed} could be read as a copy.",
    "copies_blocked": "Blocked by a review: {count}. They cannot be approved as they are.",
    "images_counts": "Finished: {images} banners and {videos} short videos.",
    "images_made": "{count} banners",
    "video_made": "video of {seconds} s",
    "label_read": "AI label in every file: {producer}",
    "image_alt": "Banner {format}: {headline}",
    "image_gone": "The file of {format} is not there any more.",
    "copies_left_out": "Not shown here: {count}. They are in adloom.creatives.",
    "copies_model": "Written by model {models}.",
    "copies_refused": "Not written, and why: {count}",
    "briefs_refused": "Not ordered, because a fact is missing",
    "asked_heading": "What the copy was asked for, and why ({count})",
    "nothing_asked": "The evidence asks for nothing in particular yet: no kind of ad is surely tired in the main, and "
    "none leads surely by words of its own.",
    "no_brief": "{count} × {subject}: {reason}",
    "for_whom": "for",
    "about_item": "item",
    "with_offer": "offer",
    "found_block": "blocked",
    "found_warn": "look again",
    "stopped_heading": "What the review stopped",
    "stopped_note": "None of these texts was shown to anybody. Creatives and at most three candidates of a brief are "
    "kept with rule, version and reason, in adloom.reviews and adloom.stopped_copies; of the others the count.",
    "stopped_before": "Before choosing: candidates that broke a rule",
    "stopped_no_copies": "No copies were ordered for this day, so there was no text to stop.",
    "stopped_none": "Of {candidates} candidates drawn, no rule stopped any.",
    "stopped_total": "Of {candidates} candidates drawn, {stopped} ({share}) broke a rule and could not be chosen. The "
    "texts of {kept} are kept, at most three of a brief.",
    "stopped_rule": "rule",
    "stopped_candidates": "candidates",
    "stopped_example": "one of them",
    "stopped_reason": "why",
    "stopped_version": "version {version}",
    "stopped_also": "also in kept texts: {count}",
    "stopped_no_example": "no text of these is kept",
    "stopped_more_rules": "Further rules: {count}. They are in adloom.stopped_counts and adloom.stopped_copies.",
    "blocked_heading": "After choosing: creatives that are blocked",
    "blocked_none": "No creative of this day is blocked.",
    "blocked_count": "Blocked creatives of this day: {count}. Nobody can approve them as they are.",
    "blocked_more": "further findings: {count}",
    "waiting_heading": "Waiting for a person",
    "waiting_none": "No creative of this day waits for a person.",
    "waiting_count": "Creatives of this day that wait: {count}. Until somebody decides, nobody is shown them.",
    "waiting_always": "no finding; the shop asks about every {scenario}",
    "waiting_required": "no finding; the shop asks about every creative",
    "waiting_else": "no finding; not settled yet",
    "texts_more": "Not shown here: {count}. They are in {table}.",
    "held_heading": "While it runs: who sees it, how often, how alike",
    "held_fairness": "Who sees it",
    "held_fairness_none": "No creative is out of a placement because of whom it was shown to: no group's share of the "
    "impressions is surely off by more than {points} points. Where data are few, nothing is said.",
    "held_fairness_off": "The shop only reports it (limits.audience_skew is not set): nothing is blocked.",
    "held_fairness_count": "Out of a placement, since a group's share of the impressions is surely off by more than "
    "{points} points: {count}.",
    "held_fatigue": "How often",
    "held_fatigue_none": "Not enough data: nobody has seen one creative often enough to tell whether it tires.",
    "held_fatigue_count": "Creatives seen again by the same users: {count}. Tired: {tired}. Not tired: {fresh}. Not "
    "enough data: {open}.",
    "held_account": "How alike",
    "held_account_none": "Not measured on this day: no copies were reviewed.",
    "held_audit": "Same words for everybody",
    "held_audit_never": "No copy was compared across genders and ages yet. `adloom audit-copy` does it.",
    "held_audit_before": "No comparison across genders and ages on this day. The last one was on {day}.",
    "held_audit_count": "Briefs written again for other genders and ages: {briefs}. Comparisons: {count}. Surely "
    "different by more than {points} points: {differs}. No sure difference: {alike}. Not enough data: {open}.",
    "held_audit_open": "Copy was due to be compared across genders and ages on this day and was not: too few answers. "
    "The creatives of its briefs carry a note for whoever approves them, and it stays due.",
    "sentences_more": "Not shown here: {count}. They are in {table}.",
    "scenario_any": "Any scenario",
    "scenario_recommendation": "Recommendation",
    "scenario_cross_category": "Cross-category",
    "scenario_promotion": "Promotion",
    "scenario_social": "Social post",
    "scenario_hot_event": "Hot event",
    "comma": ", ",
    "in_zh": "Chinese",
    "in_en": "English",
    "footer": "Written by Adloom from the published snapshot. Nothing on this page was loaded from a network.",
}

CHINESE: Mapping[str, str] = {
    "title": "广告日报",
    "simulated": "模拟数据：这些数字由程序生成，不代表真实顾客。",
    "as_of": "截至 {day} 结束时已知的数据（{zone}）",
    "window": "{days} 天，{first} – {last}",
    "in_short": "要点",
    "happened": "发生了什么",
    "known": "已经知道什么",
    "unknown": "还不知道什么",
    "tomorrow": "明天有何变化",
    "total": "{impressions} 次展示带来 {clicks} 次点击。CTR 为 {ctr}，很可能在 {low} 与 {high} 之间。",
    "no_data": "这段时间没有展示，无法谈论 CTR。",
    "no_clicks": "{impressions} 次展示，暂无点击。CTR 很可能低于 {high}。",
    "winner": "{where}：{winner} 的 {metric} 更高。",
    "no_difference": "{where}：{a} 与 {b} 没有值得在意的差别。",
    "needs_more": "{where}：{a} 与 {b} 哪个更好。{more}",
    "about_more": "若差别保持不变，大约还需要 {count} 次{trials}。",
    "split_broken": "{where}：流量没有按原定比例分配，{a} 与 {b} 无法比较。请联系数据工程师。",
    "nothing_decided": "目前没有任何比较得出结论，看到的差别都可能是偶然。",
    "nothing_compared": "本店的配置中还没有设定比较。",
    "all_decided": "本店的比较均已有结论。",
    "at_place": "{place}：{sentence}",
    "whole_shop": "全部活动",
    "no_conversions": "本店不记录转化，因此没有 CR。",
    "not_mature": "CR 尚未最终确定：按经验，这些点击的转化目前已知 {share}，其余还在路上。",
    "first_plan": "第一个计划从 {day} 开始：{count} 个创意。",
    "plan_moves": "{day} 的计划中有 {count} 个份额变动至少一个百分点。",
    "plan_still": "{day} 的计划中没有份额变动达到一个百分点。",
    "no_plan": "{day} 没有计划。",
    "retired": "下线：{sentence}。",
    "retired_more": "另有 {count} 条创意下线，见 adloom.retirements。",
    "no_creative": "{day} 没有计划：{count} 个已知创意都未获批准。",
    "quality_green": "当天 {count} 项数据检查全部通过。",
    "quality_warned": "当天 {count} 项数据检查中 {passed} 项通过，{warned} 项警告。",
    "quality_failed": "{count} 项数据检查中 {failed} 项失败，{warned} 项警告。请勿依据本页行动。",
    "quality_skipped": "尚无法判断：{count} 项。",
    "space": "",
    "quality_none": "当天没有数据检查记录。",
    "not_mature_unknown": "CR 尚未最终确定：这些点击还可能转化，而本店的历史还不足以估计有多少。",
    "immature_here": "下表 {total} 个数字中有 {count} 个未成熟：还有转化在路上，请暂勿据此行动。",
    "plan_unused": "这 {days} 天没有任何展示遵循 Adloom 的计划。在广告服务器采用已发布的计划之前，这些份额只是建议。",
    "lift_unused": "每天调整份额是否有益：尚无展示遵循计划。",
    "lift_none": "每天调整份额是否有益：对照组的点击还太少，或分流异常。",
    "lift_open": "每天调整份额是否有益：目前提升 {lift}，可能只是偶然（{low} 至 {high}）。",
    "lift_sure": "每天调整份额有益：相对对照组提升 {lift}（{low} 至 {high}）。",
    "lift_harm": "每天调整份额反而损失点击：相对对照组 {lift}（{low} 至 {high}）。",
    "ctr_heading": "各活动与策略的 CTR",
    "campaign": "活动",
    "policy": "策略",
    "impressions": "展示",
    "clicks": "点击",
    "conversions": "转化",
    "interval": "{confidence} 区间",
    "seven_days": "{days} 天",
    "verdict": "结论",
    "verdict_winner": "胜出",
    "verdict_no_difference": "无差别",
    "verdict_needs_more": "未定",
    "verdict_split_broken": "分流异常",
    "rows_left_out": "另有 {count} 行展示较少，未列出；见 adloom.evaluations。",
    "other_comparisons": "其他比较",
    "daily_heading": "每日 CTR",
    "daily_note": "圆点：当天 CTR。竖线：{confidence} 区间；箭头表示超出图外。右侧粗标记为整段时间。"
    "竖线重叠时，差别可能是偶然。每一天都按当天结束时已知的数据显示。",
    "daily_alt": "活动 {campaign} 每日 CTR 及区间，策略：{policies}。",
    "one_day": "目前只有一天；从第二天起可以看到走势。",
    "daily_none": "这段时间没有已评估且有展示的日子。",
    "panels_left_out": "仅显示展示最多的 {shown} 个活动，每个最多 {series} 个策略。",
    "shares_heading": "份额：现在 → 明天",
    "shares_note": "圆环：今天计划中的份额。圆点：从 {day} 起的份额。变动最大的在前。",
    "shares_rest": "另有 {count} 个份额变动更小或不变。",
    "shares_first": "没有更早的计划可比较。以下创意份额最大。",
    "share_alt": "{creative} 的份额：现在 {before}，明天 {after}",
    "new": "新",
    "now_tomorrow": "现在 → 明天",
    "gate": "更换策略前的检查",
    "policy_changes": "如果换一种策略？",
    "policy_changes_note": "仅根据日志判断，没有任何人看到改动。通过：仅表示可以尝试。"
    "拒绝：日志不足以判断。暂缓：日志显示会变差。",
    "decision_passed": "通过",
    "decision_held": "暂缓",
    "decision_refused": "拒绝",
    "lift_heading": "调整份额有用吗？",
    "lift_note": "固定的一小部分流量（对照组）一直使用均等份额，其余流量按计划投放。两者之差是唯一的证明；"
    "区间包含 0 时不能证明什么，一周的好成绩也说明不了多少。",
    "group": "流量",
    "adaptive": "按计划",
    "holdout": "对照组",
    "not_enough": "数据不足",
    "not_enough_yet": "数据还不够。",
    "colon": "：",
    "lift_value": "提升 {lift}，{confidence} 区间 {low} 至 {high}。",
    "no_holdout": "当天没有对照组数据。",
    "cr_heading": "CR：从点击到转化",
    "cr_note": "这些日子的点击，以及每次点击后 {days} 天内的转化。尚未成熟的数字已按将到的转化修正，"
    "且不会据此调整份额。",
    "maturity": "成熟度",
    "mature": "已成熟",
    "immature": "未成熟",
    "complete": "已知 {share}",
    "quality_heading": "数据可信吗？",
    "quality_note": "计算之前（raw）、决定之前（marts）与批准之前（creatives）的检查。"
    "检查失败会中止当天运行，警告不会。",
    "door": "关口",
    "day": "日期",
    "passed": "通过",
    "warned": "警告",
    "skipped": "尚无法判断（历史或数据不足）",
    "failed": "失败",
    "check": "检查",
    "observed": "实际",
    "expected": "期望",
    "not_green": "{day} 未通过的检查",
    "rejected_rows": "这段时间的文件中有 {count} 行无法使用，已另存。",
    "invalid": "这段时间有 {count} 次展示被判为无效流量（如机器人），已剔除。",
    "glossary": "名词",
    "w_ctr": "点击率：点击除以展示，所有行合计计算。",
    "w_interval": "真实比率可能所在的范围：100 个这样的区间中约 {hundredth} 个包含真值。点击少，区间就宽。",
    "w_holdout": "从不按计划投放的流量，用来衡量计划的效果。",
    "w_policy": "广告服务器选择创意的规则。",
    "w_share": "某广告位的展示中，一个创意得到的比例。",
    "w_cr": "转化率：转化除以点击。",
    "w_mature": "这些点击的转化中，已知的比例已经足够。",
    "w_verdict": "即使每天都看、所有比较一起算，结论仍然成立时才给出。",
    "share": "份额",
    "creative": "创意",
    "copies_heading": "新文案",
    "copies_none": "当天没有新文案：只为最新的一天撰写。",
    "copies_note": "由程序根据店铺的事实，为下列渠道与人群撰写。"
    "只有获批的才会投放，被审核拦下的不会。请以顾客的眼光来读。",
    "copies_simulated": "模拟数据：店铺、商品、优惠和人群均为虚构。",
    "copies_counts": "{briefs} 份需求，{written} 条文案（{languages}），{refused} 条未写成。"
    "生成 {candidates} 条候选，其中 {parsed} 条能读成文案。",
    "copies_blocked": "被审核拦下：{count} 条，不能原样批准。",
    "images_counts": "成品：{images} 张图片、{videos} 条短视频。",
    "images_made": "{count} 张图片",
    "video_made": "{seconds} 秒视频",
    "label_read": "每个文件均含 AI 标识：{producer}",
    "image_alt": "{format} 广告图：{headline}",
    "image_gone": "{format} 的文件已不存在。",
    "copies_left_out": "另有 {count} 条未列出；见 adloom.creatives。",
    "copies_model": "撰写模型：{models}。",
    "copies_refused": "未写成及原因：{count}",
    "briefs_refused": "缺少事实而没有下单",
    "asked_heading": "对文案提出的要求及理由（{count}）",
    "nothing_asked": "数据暂时没有提出特别的要求：没有哪类广告确认大多已疲劳，也没有哪条确认领先且有独到的说法可循。",
    "no_brief": "{count} × {subject}：{reason}",
    "for_whom": "人群",
    "about_item": "商品",
    "with_offer": "优惠",
    "found_block": "拦下",
    "found_warn": "请再看一眼",
    "stopped_heading": "审核拦下了什么",
    "stopped_note": "以下文案没有投放给任何人。创意以及每份简报最多三条候选连同规则、规则版本和理由留档，"
    "见 adloom.reviews 与 adloom.stopped_copies；其余候选只留数量。",
    "stopped_before": "选稿之前：违反规则的候选",
    "stopped_no_copies": "当天没有下单文案，因此没有可拦的内容。",
    "stopped_none": "共生成 {candidates} 条候选，没有一条违反规则。",
    "stopped_total": "共生成 {candidates} 条候选，其中 {stopped} 条（{share}）违反规则，不能入选。"
    "保留了 {kept} 条原文，每份需求最多三条。",
    "stopped_rule": "规则",
    "stopped_candidates": "候选",
    "stopped_example": "其中一条",
    "stopped_reason": "理由",
    "stopped_version": "版本 {version}",
    "stopped_also": "另见留档文案 {count} 条",
    "stopped_no_example": "没有保留这一类的原文",
    "stopped_more_rules": "另有 {count} 条规则；见 adloom.stopped_counts 与 adloom.stopped_copies。",
    "blocked_heading": "选稿之后：被拦下的创意",
    "blocked_none": "当天没有创意被拦下。",
    "blocked_count": "当天有 {count} 个创意被拦下，任何人都不能原样批准。",
    "blocked_more": "另有 {count} 处问题",
    "waiting_heading": "等待人工决定",
    "waiting_none": "当天没有创意等待人工决定。",
    "waiting_count": "当天有 {count} 个创意等待人工决定，在此之前不会投放。",
    "waiting_always": "没有发现问题；本店对“{scenario}”一律询问",
    "waiting_required": "没有发现问题；本店对每个创意都询问",
    "waiting_else": "没有发现问题；尚未处理",
    "texts_more": "另有 {count} 条未列出；见 {table}。",
    "held_heading": "投放期间：给谁看、看几次、像不像",
    "held_fairness": "给谁看",
    "held_fairness_none": "没有创意因受众偏斜而停投：没有哪个群体的展示占比确定偏离超过 {points} 个百分点。"
    "数据不足的不下结论。",
    "held_fairness_off": "本店只报告、不拦截（未设置 limits.audience_skew）。",
    "held_fairness_count": "停投 {count} 项：某一群体的展示占比确定偏离超过 {points} 个百分点。",
    "held_fatigue": "看几次",
    "held_fatigue_none": "数据不足：还没有人多次看到同一创意，无法判断疲劳。",
    "held_fatigue_count": "{count} 个被反复看到的创意中，{tired} 个已疲劳，{fresh} 个没有，{open} 个数据不足。",
    "held_account": "像不像",
    "held_account_none": "当天没有测量：没有审核文案。",
    "held_audit": "对谁都一样",
    "held_audit_never": "还没有按性别和年龄对照过文案；可运行 `adloom audit-copy`。",
    "held_audit_before": "当天没有按性别和年龄对照文案；上一次是 {day}。",
    "held_audit_count": "{briefs} 份需求换成其他性别、年龄重写。{count} 项比较中，"
    "{differs} 项确定相差超过 {points} 个百分点，{alike} 项无确定差别，{open} 项数据不足。",
    "held_audit_open": "当天应按性别和年龄对照文案，但结果不足，没有做成。"
    "相关需求的创意已注明，供审批人查看；对照仍待完成。",
    "sentences_more": "另有 {count} 项未列出；见 {table}。",
    "scenario_any": "任何场景",
    "scenario_recommendation": "推荐",
    "scenario_cross_category": "跨品类",
    "scenario_promotion": "促销",
    "scenario_social": "社交媒体",
    "scenario_hot_event": "热点",
    "comma": "，",
    "in_zh": "中文",
    "in_en": "英文",
    "footer": "由 Adloom 根据已发布的快照生成。本页不从网络加载任何内容。",
}


class Words:
    """The dictionary of one language; `ENGLISH` and `CHINESE` have the same keys."""

    def __init__(self, language: str) -> None:
        self.is_chinese = language == "zh"
        self.tag = "zh-CN" if self.is_chinese else "en"
        self._words = CHINESE if self.is_chinese else ENGLISH

    def __call__(self, key: str, **values: object) -> str:
        return self._words[key].format(**values)

    def day(self, day: date) -> str:
        if self.is_chinese:
            return f"{day.year}年{day.month}月{day.day}日"
        return f"{day.day} {MONTHS[day.month - 1]} {day.year}"

    def month(self, day: date) -> str:
        return f"{day.month}月" if self.is_chinese else MONTHS[day.month - 1]


def count(value: int) -> str:
    return f"{value:,}"


def rate(value: float | None) -> str:
    """A rate in per cent with two decimals, three below .01 %."""
    if value is None:
        return "–"
    return f"{value:.3%}" if 0 < value < 0.0001 else f"{value:.2%}"


def interval(bounds: tuple[float, float]) -> str:
    """Two rates with one sign: ``0.28 – 0.52%``."""
    low, high = bounds
    return f"{rate(low)[:-1]} – {rate(high)}"


def share(value: float | None) -> str:
    """A share in whole per cent; one decimal below 10 %."""
    if value is None:
        return "–"
    return f"{value:.1%}" if 0 < value < 0.0995 else f"{value:.0%}"


def change(value: float | None) -> str:
    """A relative change with its sign."""
    return "–" if value is None else f"{value:+.0%}"
