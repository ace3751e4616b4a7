"""The ledger: what Adloom itself writes down, schema ``adloom``, one SQLAlchemy table each.

Every table is replaced by its key inside one transaction (`replace_rows`), so a second run equals the first.
``wall_clock`` in a column's ``info`` marks what the clock wrote; content digests leave it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Date,
    DateTime,
    Double,
    Engine,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
    and_,
    bindparam,
    cast,
    func,
    select,
    text,
)

SCHEMA = "adloom"
WALL_CLOCK = {"wall_clock": True}
MONEY = Numeric(38, 6)
# Part of a table's key where an index would cost more than it guards: DuckDB's index on `evaluations` makes the table
# ten times as large and a rerun's delete take seconds, while `replace_rows` keeps the key unique by itself.
KEY = {"key": True}
# A table whose rows are persons, or counts too small to be shown: never copied into a published snapshot.
PRIVATE = {"private": True}

metadata = MetaData(schema=SCHEMA)

runs = Table(
    "runs",
    metadata,
    Column("day", Date, primary_key=True, autoincrement=False),
    Column("status", Text, nullable=False, comment="running | done | failed | stale"),
    Column("step", Text, comment="the last step that began"),
    Column("input_digest", Text, comment="digest of every landing manifest up to the day, when the run began"),
    Column("config_digest", Text, comment="digest of the shop's configuration"),
    Column("code_version", Text),
    Column("message", Text, comment="why it failed, or the reason it is stale"),
    Column("started_at", DateTime, info=WALL_CLOCK),
    Column("finished_at", DateTime, info=WALL_CLOCK),
)

landing_files = Table(
    "landing_files",
    metadata,
    Column("known_date", Date, primary_key=True),
    Column("table_name", Text, primary_key=True),
    Column("source_file", Text, primary_key=True, comment="name inside the day's folder"),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("mtime_ns", BigInteger, info=WALL_CLOCK, comment="lets an unchanged file skip hashing"),
    Column("rows_loaded", BigInteger, nullable=False),
    Column("rows_rejected", BigInteger, nullable=False),
    Column("unknown_columns", Text, comment="comma-separated; kept in the column extra"),
    Column("rejected_reason", Text, comment="why the whole file was rejected"),
    Column("loaded_at", DateTime, info=WALL_CLOCK),
)

landing_days = Table(
    "landing_days",
    metadata,
    Column("known_date", Date, primary_key=True),
    Column(
        "manifest_digest",
        Text,
        nullable=False,
        comment="digest of names, sizes and hashes of the day's files",
    ),
    Column(
        "marts_digest",
        Text,
        comment="input digest the marts of this known_date were built from; null: not built",
    ),
    Column("purged_on", Date, comment="raw retention passed: raw and landing are gone, the marts stay as they are"),
)

quality_results = Table(
    "quality_results",
    metadata,
    Column("day", Date, primary_key=True),
    Column("door", Text, primary_key=True, comment="raw | marts | creatives"),
    Column("check_id", Text, primary_key=True, comment="table.column.expectation, unique within a door"),
    Column("table_name", Text, nullable=False),
    Column("column_name", Text),
    Column("expectation", Text, nullable=False),
    Column("severity", Text, nullable=False, comment="fail | warn"),
    Column("is_passed", Boolean, nullable=False),
    Column("rows_checked", BigInteger),
    Column("rows_unexpected", BigInteger),
    Column("observed", Text),
    Column("expected", Text),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("day", Date, nullable=False, info=KEY),
    Column("window_days", Integer, nullable=False, info=KEY, comment="1 | 7 | 28, ending at day"),
    Column(
        "grain", Text, nullable=False, info=KEY, comment="overall|campaign|policy|creative|segment|creative_segment"
    ),
    Column("campaign_id", Text, nullable=False, info=KEY, comment="'' where the grain has no such key"),
    Column("policy_id", Text, nullable=False, info=KEY),
    Column("creative_id", Text, nullable=False, info=KEY),
    Column("segment_id", Text, nullable=False, info=KEY),
    Column("impressions", BigInteger, nullable=False),
    Column("clicks", BigInteger, nullable=False),
    Column("users", BigInteger, comment="distinct users; null where the shop has none"),
    Column("ctr", Double),
    Column("ctr_low", Double),
    Column("ctr_high", Double),
    Column("ctr_interval", Text, comment="wilson | user_clustered"),
    Column("cohort_clicks", BigInteger, nullable=False, comment="clicks of the window's click cohorts"),
    Column("conversions", BigInteger, nullable=False, comment="of those clicks, within the attribution window"),
    Column("cr", Double, comment="corrected for completeness while immature"),
    Column("cr_low", Double),
    Column("cr_high", Double),
    Column("cr_interval", Text, comment="wilson | user_clustered"),
    Column("conversions_value", MONEY),
    Column("cost", MONEY),
    Column("completeness", Double, comment="share of eventual conversions already known, 0 to 1"),
    Column("is_mature", Boolean, nullable=False),
)

delay_curves = Table(
    "delay_curves",
    metadata,
    Column("day", Date, primary_key=True),
    Column("lag_days", Integer, primary_key=True, comment="days from click to when a conversion is known"),
    Column("completeness", Double, nullable=False),
    Column("conversions", BigInteger, nullable=False, comment="conversions behind the estimate"),
    Column("clicks", BigInteger, nullable=False, comment="clicks of the cohorts behind it"),
)

comparison_days = Table(
    "comparison_days",
    metadata,
    Column("comparison", Text, nullable=False, info=KEY),
    Column("day", Date, nullable=False, info=KEY, comment="as of which the row stands; its facts are known by then"),
    Column("stratum_date", Date, nullable=False, info=KEY, comment="impression date (CTR) or click date (CR)"),
    Column("placement", Text, nullable=False, info=KEY, comment="with the segment where there are any: web:1 · seg"),
    Column("arm", Text, nullable=False, info=KEY),
    Column("trials", BigInteger, nullable=False),
    Column("successes", BigInteger, nullable=False),
    Column("users", BigInteger),
    Column("moments", Text, comment="JSON: sufficient statistics of evaluation.comparisons"),
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("day", Date, primary_key=True),
    Column("comparison", Text, primary_key=True),
    Column("metric", Text, nullable=False),
    Column("campaign_id", Text),
    Column("arm_a", Text, nullable=False, comment="reference"),
    Column("arm_b", Text, nullable=False, comment="challenger"),
    Column("started_on", Date, nullable=False),
    Column("verdict", Text, nullable=False, comment="winner | no_difference | needs_more | split_broken"),
    Column("winner", Text),
    Column("trials_a", BigInteger, nullable=False),
    Column("successes_a", BigInteger, nullable=False),
    Column("trials_b", BigInteger, nullable=False),
    Column("successes_b", BigInteger, nullable=False),
    Column("difference", Double, comment="stratified rate of b minus that of a"),
    Column("difference_low", Double, comment="confidence sequence: holds at all looks at once"),
    Column("difference_high", Double),
    Column("p_value", Double, comment="always valid"),
    Column("p_adjusted", Double, comment="Holm over the day's comparisons"),
    Column("sample_ratio_p", Double, comment="null where no split was intended"),
    Column("needed_more", BigInteger, comment="further trials over both arms, about"),
    Column("carried_to", Date, comment="dates up to it come from comparison_days: their impressions are gone"),
    Column("sentence", Text, nullable=False),
)

approvals = Table(
    "approvals",
    metadata,
    Column("creative_id", Text, nullable=False, info=KEY),
    Column("creative_hash", Text, nullable=False, info=KEY, comment="digest of copy and pictures; '': made elsewhere"),
    Column("decision", Text, nullable=False, info=KEY, comment="approved | rejected"),
    Column(
        "origin",
        Text,
        nullable=False,
        info=KEY,
        comment="person | policy (the shop asks nobody) | timeout (nobody answered) | external (was running already)",
    ),
    Column("decided_on", Date, nullable=False, info=KEY, comment="day of the run: approved for the plan after it"),
    Column("decided_by", Text, info=KEY),
    Column("reason", Text),
    Column("decided_at", DateTime, info=KEY | WALL_CLOCK, comment="UTC; of two words on one day the later one counts"),
)

posteriors = Table(
    "posteriors",
    metadata,
    Column("day", Date, nullable=False, info=KEY),
    Column("segment_id", Text, nullable=False, info=KEY),
    Column("placement", Text, nullable=False, info=KEY),
    Column("creative_id", Text, nullable=False, info=KEY),
    Column("family", Text, nullable=False, comment="what a creative shrinks towards: its campaign"),
    Column("impressions", BigInteger, nullable=False),
    Column("clicks", BigInteger, nullable=False),
    Column("alpha", Double, nullable=False),
    Column("beta", Double, nullable=False),
    Column("ctr", Double, nullable=False, comment="posterior mean"),
    Column("ctr_low", Double, nullable=False),
    Column("ctr_high", Double, nullable=False),
    Column("probability_best", Double, nullable=False),
)

plans = Table(
    "plans",
    metadata,
    Column("plan_id", Text, primary_key=True),
    Column("valid_from", Date, nullable=False, comment="the first day it is meant for: D+1"),
    Column("version", Text, nullable=False, comment="ordered as text; a function of day, producer and content"),
    Column("day", Date, nullable=False, comment="the run that made it"),
    Column("produced_by", Text, nullable=False),
    Column("content_digest", Text, nullable=False),
    Column("algorithm", Text, nullable=False),
    Column("gate", Text, comment="off-policy gate: not_needed | passed | held | refused"),
    Column("gate_sentence", Text),
)

allocations = Table(
    "allocations",
    metadata,
    Column("plan_id", Text, nullable=False, info=KEY),
    Column("policy_id", Text, nullable=False, info=KEY, comment="adaptive | holdout"),
    Column("segment_id", Text, nullable=False, info=KEY),
    Column("placement", Text, nullable=False, info=KEY),
    Column("creative_id", Text, nullable=False, info=KEY),
    Column("share", Double, nullable=False, comment="tomorrow's propensity"),
    Column("share_before", Double, comment="share in the plan live on the run's day; null: none"),
    Column("sentence", Text, comment="why it changed, for a marketer"),
)

retirements = Table(
    "retirements",
    metadata,
    Column("day", Date, nullable=False, info=KEY, comment="the first day whose plan leaves the creative out"),
    Column("creative_id", Text, nullable=False, info=KEY),
    Column("ended", Text, nullable=False, comment="what is over: offer | campaign | event"),
    Column("subject", Text, nullable=False, comment="its id"),
    Column("ended_on", Date, nullable=False, comment="its last day, the shop's time"),
    Column("sentence", Text, nullable=False),
)

holdout_lift = Table(
    "holdout_lift",
    metadata,
    Column("day", Date, primary_key=True),
    Column("window_days", Integer, primary_key=True),
    Column("adaptive_impressions", BigInteger, nullable=False),
    Column("adaptive_clicks", BigInteger, nullable=False),
    Column("holdout_impressions", BigInteger, nullable=False),
    Column("holdout_clicks", BigInteger, nullable=False),
    Column("lift", Double, comment="adaptive CTR / holdout CTR − 1; null: not enough data"),
    Column("lift_low", Double),
    Column("lift_high", Double),
    Column("sentence", Text, nullable=False),
)

off_policy = Table(
    "off_policy",
    metadata,
    Column("day", Date, primary_key=True),
    Column("change", Text, primary_key=True, comment="what would change: campaign and old → new policy"),
    Column("estimator", Text, primary_key=True, comment="snips | doubly_robust"),
    Column("impressions", BigInteger, nullable=False),
    Column("clicks", BigInteger, nullable=False),
    Column("supported_mass", Double, nullable=False),
    Column("effective_sample_size", Double, nullable=False),
    Column("largest_weight", Double, nullable=False),
    Column("old_value", Double),
    Column("new_value", Double),
    Column("difference", Double),
    Column("difference_low", Double),
    Column("difference_high", Double),
    Column("decision", Text, nullable=False, comment="passed | held | refused"),
    Column("sentence", Text, nullable=False),
)

directives = Table(
    "directives",
    metadata,
    Column("day", Date, primary_key=True),
    Column("directive_id", Text, primary_key=True, comment="digest of scope and words"),
    Column("position", Integer, nullable=False, comment="a person's first, then the surest"),
    Column("kind", Text, nullable=False, comment="strategy | person"),
    Column("language", Text, nullable=False, comment="of words, and of the briefs it is for"),
    Column("scenario", Text, comment="as channel and segment_id: which briefs it is for; null: any"),
    Column("channel", Text),
    Column("segment_id", Text),
    Column("category", Text, comment="only briefs whose item is of this category; null: any"),
    Column("attribute", Text, comment="only briefs whose item has this attribute; null: any"),
    Column("words", Text, nullable=False, comment="what a writer is asked for"),
    Column("more_variants", Integer, nullable=False, comment="copies asked for beyond the shop's usual number"),
    Column("why", Text, nullable=False, comment="in the shop's language, with counts and interval"),
    Column("evidence", Text, nullable=False, comment="JSON: counts, interval, how many were compared; of a person: {}"),
)

briefs = Table(
    "briefs",
    metadata,
    Column("day", Date, primary_key=True),
    Column("brief_id", Text, primary_key=True),
    Column("position", Integer, nullable=False, comment="rank within the day's budget, from 0"),
    Column("scenario", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("segment_id", Text, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("campaign_id", Text),
    Column("event_id", Text),
    Column("chosen_for", Text, nullable=False, comment="value | exploration"),
    Column("expected_value", Double, comment="of what it was ranked by; null: no evidence yet"),
    Column("content", Text, nullable=False, comment="JSON of the brief"),
    Column("evidence", Text, comment="JSON: the counts and rates that expected_value is the product of"),
)

refused_briefs = Table(
    "refused_briefs",
    metadata,
    Column("day", Date, nullable=False, info=KEY),
    Column("scenario", Text, nullable=False, info=KEY),
    Column("language", Text, nullable=False, info=KEY),
    Column("subject", Text, nullable=False, info=KEY, comment="what it would have been about: item, campaign, event"),
    Column("reason", Text, nullable=False, comment="which fact is missing"),
    Column("briefs", Integer, nullable=False, comment="how many were refused for it"),
)

models = Table(
    "models",
    metadata,
    Column("model_id", Text, primary_key=True, comment="digest of base, data and configuration"),
    Column("day", Date, nullable=False, comment="the run that trained it"),
    Column("kind", Text, nullable=False, comment="copy"),
    Column("base", Text, nullable=False),
    Column("base_digest", Text, nullable=False),
    Column("licence", Text, nullable=False),
    Column("method", Text, nullable=False, comment="lora | full"),
    Column("weights_digest", Text, nullable=False, comment="of the adapter, or of the full weights"),
    Column("path", Text, nullable=False, comment="relative to the shop's models folder"),
    Column("data_as_of", Date, nullable=False),
    Column("data_digest", Text, nullable=False),
    Column("pairs", Integer, nullable=False),
    Column("validation_pairs", Integer, nullable=False),
    Column("configuration", Text, nullable=False, comment="JSON"),
    Column("metrics", Text, nullable=False, comment="JSON: loss before and after on the validation split, steps"),
    Column("promoted_on", Date, comment="null: a candidate"),
    Column("promoted_by", Text),
    Column("withdrawn_on", Date, comment="rolled back on this day"),
    Column("withdrawn_reason", Text),
    Column("retrain_by", Date, comment="something it learnt from was erased"),
    Column("trained_at", DateTime, info=WALL_CLOCK),
)

model_pairs = Table(
    "model_pairs",
    metadata,
    Column("model_id", Text, nullable=False, info=KEY),
    Column("origin", Text, nullable=False, info=KEY, comment="creative_id, or starter"),
    Column("pairs", Integer, nullable=False),
)

creatives = Table(
    "creatives",
    metadata,
    Column("creative_id", Text, primary_key=True, comment="digest of day, brief, variant"),
    Column("creative_hash", Text, nullable=False, comment="digest of the content: approvals are bound to it"),
    Column("day", Date, nullable=False),
    Column("brief_id", Text, nullable=False),
    Column("variant", Integer, nullable=False),
    Column("scenario", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("segment_id", Text, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("campaign_id", Text),
    Column("event_id", Text),
    Column("headline", Text, comment="null: no candidate could be used; refused_reason says why"),
    Column("body", Text),
    Column("call_to_action", Text),
    Column("hashtags", Text, comment="JSON list"),
    Column("refused_reason", Text),
    Column("candidates", Integer, nullable=False, comment="drawn"),
    Column("candidates_parsed", Integer, nullable=False),
    Column("scores", Text, comment="JSON: coverage, unsupported, diversity, value of the one chosen"),
    Column("model_id", Text, nullable=False),
    Column("prompt_digest", Text, nullable=False),
    Column("seed", BigInteger, nullable=False),
)

reviews = Table(
    "reviews",
    metadata,
    Column("creative_id", Text, nullable=False, info=KEY),
    Column("creative_hash", Text, nullable=False, info=KEY),
    Column("day", Date, nullable=False),
    Column("rule_id", Text, nullable=False, info=KEY, comment="room.rule: facts.number, facts.colour …"),
    Column("rule_version", Text, nullable=False),
    Column("part", Text, nullable=False, info=KEY, comment="headline | body | call_to_action | hashtags"),
    Column("span", Text, nullable=False, info=KEY, comment="the words it is about"),
    Column("severity", Text, nullable=False, comment="block | warn"),
    Column("reason", Text, nullable=False),
)

stopped_copies = Table(
    "stopped_copies",
    metadata,
    Column("day", Date, nullable=False, info=KEY),
    Column("brief_id", Text, nullable=False, info=KEY),
    Column("position", Integer, nullable=False, info=KEY, comment="candidate of the brief, the likeliest is 0"),
    Column("scenario", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("segment_id", Text, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("headline", Text, nullable=False, comment="of a text that was thrown away: it was never a creative"),
    Column("body", Text, nullable=False),
    Column("call_to_action", Text, nullable=False),
    Column("hashtags", Text, nullable=False, comment="JSON list"),
    Column("model_id", Text, nullable=False),
    Column("stopped_by", Text, nullable=False, comment="the rule that stopped it first: one of this candidate's rows"),
    Column("rule_id", Text, nullable=False, info=KEY, comment="one row per finding, as in reviews"),
    Column("rule_version", Text, nullable=False),
    Column("part", Text, nullable=False, info=KEY),
    Column("span", Text, nullable=False, info=KEY),
    Column("severity", Text, nullable=False, comment="block | warn"),
    Column("reason", Text, nullable=False),
)

stopped_counts = Table(
    "stopped_counts",
    metadata,
    Column("day", Date, nullable=False, info=KEY),
    Column("brief_id", Text, nullable=False, info=KEY),
    Column("rule_id", Text, nullable=False, info=KEY, comment="the rule that stopped them first"),
    Column("candidates", Integer, nullable=False, comment="all of them; stopped_copies keeps the texts of a few"),
)

label_free_exports = Table(
    "label_free_exports",
    metadata,
    Column("export_id", Text, primary_key=True, comment="digest of day, creative, format, person, reason and file"),
    Column("day", Date, nullable=False),
    Column("creative_id", Text, nullable=False),
    Column("format", Text, nullable=False, comment="copy, or the format of the asset"),
    Column("exported_by", Text, nullable=False, comment="who asked for it and answers for the label from now on"),
    Column("reason", Text, nullable=False),
    Column("file_name", Text, nullable=False),
    Column("digest", Text, nullable=False, comment="SHA-256 of what was handed out, hex"),
    Column("keep_until", Date, nullable=False, comment="the log must be kept for at least six months"),
    Column("exported_at", DateTime, info=WALL_CLOCK),
)

dossiers = Table(
    "dossiers",
    metadata,
    Column("creative_id", Text, primary_key=True),
    Column("day", Date, nullable=False, comment="the day as of which it was written"),
    Column("digest", Text, nullable=False, comment="SHA-256 of the JSON file, hex"),
    Column("path", Text, nullable=False, comment="of the HTML file, relative to the shop's published folder"),
    Column("keep_until", Date, nullable=False, comment="advertising archives are kept for at least three years"),
)

image_orders = Table(
    "image_orders",
    metadata,
    Column("day", Date, nullable=False, info=KEY),
    Column("creative_id", Text, nullable=False, info=KEY),
    Column("format", Text, nullable=False, info=KEY, comment="what the creative's channel takes: see assets"),
    Column("creative_hash", Text, nullable=False),
)

assets = Table(
    "assets",
    metadata,
    Column("creative_id", Text, nullable=False, info=KEY),
    Column("format", Text, nullable=False, info=KEY, comment="feed_1080x1080 … | video_1080x1920"),
    Column("day", Date, nullable=False),
    Column("kind", Text, nullable=False, comment="image | video"),
    Column("path", Text, nullable=False, comment="relative to the shop's creatives folder"),
    Column("digest", Text, nullable=False, comment="SHA-256 of the file, hex"),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("template", Text, nullable=False),
    Column("picture_source", Text, nullable=False, comment="own_photo | gan"),
    Column("picture_digest", Text, nullable=False, comment="SHA-256 of the picture's file, hex"),
    Column("checks", Text, nullable=False, comment="JSON: what was measured on the finished image"),
    Column("label", Text, nullable=False, comment="JSON: the implicit label as it was read back from the file"),
)

erasures = Table(
    "erasures",
    metadata,
    Column("kind", Text, primary_key=True, comment="creative | item"),
    Column("subject", Text, primary_key=True, comment="id of what must not be learnt from or shown again"),
    Column("requested_on", Date, nullable=False),
    Column("reason", Text, nullable=False),
)

privacy_registry = Table(
    "privacy_registry",
    metadata,
    Column("user_hash", Text, nullable=False, info=KEY),
    Column("kind", Text, nullable=False, info=KEY, comment="erase | opt_out | opt_in"),
    Column("requested_at", DateTime, nullable=False, info=KEY, comment="UTC; an erasure covers what happened by then"),
    Column("known_date", Date, nullable=False, comment="the landing folder that brought it"),
    Column("receipt", Text, nullable=False, comment="random"),
    Column("completed_on", Date, comment="null: still to be done"),
    info=PRIVATE,
)

erased_impressions = Table(
    "erased_impressions",
    metadata,
    Column("impression_id", Text, nullable=False, comment="of an erasure that is not finished: outcomes go with it"),
    info=PRIVATE,
)

privacy_receipts = Table(
    "privacy_receipts",
    metadata,
    Column("receipt", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("known_date", Date, nullable=False),
    Column("completed_on", Date, nullable=False),
    info=PRIVATE,
)

portraits = Table(
    "portraits",
    metadata,
    Column("day", Date, primary_key=True),
    Column("segment_id", Text, primary_key=True),
    Column("users", BigInteger, nullable=False, comment="rounded down; 0: too few to say"),
    Column("content_as_of", Date, comment="the day whose facts it describes; null: nothing is said of it"),
    Column("interests", Text, nullable=False, comment="JSON list of {category, weight, zh, en}"),
    Column("recent_items", Text, nullable=False, comment="JSON list of {item_id, zh, en}"),
    Column("price_level", Text, nullable=False, comment="value | middle | premium; empty: mixed or unknown"),
    Column("life_cycle", Text, nullable=False, comment="new | active | lapsing | returning | lapsed; empty: mixed"),
    Column("engagement", Text, nullable=False, comment="JSON: share of users who kept, carted, bought; in tenths"),
    Column("words_zh", Text, nullable=False),
    Column("words_en", Text, nullable=False),
)

user_portraits = Table(
    "user_portraits",
    metadata,
    Column("day", Date, nullable=False, info=KEY),
    Column("user_hash", Text, nullable=False, info=KEY),
    Column("segment_id", Text, nullable=False, comment="what the user is served as from now on"),
    Column("counted_in", Text, nullable=False, comment="the published segment the user counts in; empty: in none yet"),
    info=PRIVATE,
)

affinities = Table(
    "affinities",
    metadata,
    Column("day", Date, nullable=False, info=KEY),
    Column("viewed_category", Text, nullable=False, info=KEY),
    Column("bought_category", Text, nullable=False, info=KEY),
    Column("users_viewed", BigInteger, nullable=False, comment="rounded down, as all counts of persons here"),
    Column("users_bought", BigInteger, nullable=False),
    Column("users_both", BigInteger, nullable=False),
    Column("users", BigInteger, nullable=False, comment="all users the shares are taken of"),
    Column("lift", Double, nullable=False, comment="P(bought | viewed) / P(bought)"),
    Column("lift_low", Double, nullable=False),
    Column("lift_high", Double, nullable=False),
)

portrait_days = Table(
    "portrait_days",
    metadata,
    Column("day", Date, primary_key=True),
    Column("input_digest", Text, nullable=False, comment="what the day's portraits were made from"),
    Column("counted_on", Date, nullable=False, comment="the day whose users are counted: the day, or an earlier one"),
)


audience_shares = Table(
    "audience_shares",
    metadata,
    Column("day", Date, nullable=False, info=KEY),
    Column("placement", Text, nullable=False, info=KEY),
    Column("creative_id", Text, nullable=False, info=KEY),
    Column("trait", Text, nullable=False, info=KEY, comment="gender | age_band"),
    Column("value", Text, nullable=False, info=KEY, comment="the group the shares are of, as the shop names it"),
    Column("since", Date, nullable=False, comment="the first known_date that is counted"),
    Column("users", BigInteger, nullable=False, comment="of known trait, who were shown the creative"),
    Column("impressions", BigInteger, nullable=False, comment="theirs, on days with other creatives beside it"),
    Column("eligible_users", BigInteger, nullable=False, comment="of known trait, who met the placement on those days"),
    Column("delivered_share", Double, comment="of the impressions; null: not enough data"),
    Column("delivered_low", Double),
    Column("delivered_high", Double),
    Column("eligible_share", Double, comment="of all impressions of the placement, weighed as the creative was shown"),
    Column("difference", Double, comment="delivered minus eligible"),
    Column("difference_low", Double, comment="confidence sequence: holds at all looks at once"),
    Column("difference_high", Double),
    Column("sentence", Text, nullable=False),
    info=PRIVATE,
)

allocation_blocks = Table(
    "allocation_blocks",
    metadata,
    Column("day", Date, nullable=False, info=KEY),
    Column("placement", Text, nullable=False, info=KEY),
    Column("creative_id", Text, nullable=False, info=KEY),
    Column("reason", Text, nullable=False, comment="audience_skew"),
    Column("blocked_since", Date, nullable=False, comment="the day whose facts first showed it; plans after it obey"),
    Column("trait", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("users", BigInteger, nullable=False, comment="as all figures here, as of blocked_since; rounded down"),
    Column("impressions", BigInteger, nullable=False),
    Column("delivered_share", Double, nullable=False),
    Column("eligible_share", Double, nullable=False),
    Column("difference_low", Double, nullable=False),
    Column("difference_high", Double, nullable=False),
    Column("most_allowed", Double, nullable=False, comment="limits.audience_skew"),
    Column("sentence", Text, nullable=False),
)

account_similarity = Table(
    "account_similarity",
    metadata,
    Column("day", Date, primary_key=True),
    Column("copies", BigInteger, nullable=False, comment="written in the seven days up to the day"),
    Column("originals", BigInteger, nullable=False, comment="those that resemble no earlier one"),
    Column("similarity", Double, comment="1 - originals / copies; null: no copies"),
    Column("verdict", Text, nullable=False, comment="none | fine | warn | stop"),
    Column("sentence", Text, nullable=False),
)

image_hashes = Table(
    "image_hashes",
    metadata,
    Column("day", Date, nullable=False, info=KEY),
    Column("creative_id", Text, nullable=False, info=KEY),
    Column("format", Text, nullable=False, info=KEY),
    Column("digest", Text, nullable=False, comment="of the file the hash was taken of"),
    Column("perceptual_hash", Text, nullable=False, comment="64 bits as hex: pictures that look alike differ in few"),
)

fatigue = Table(
    "fatigue",
    metadata,
    Column("day", Date, nullable=False, info=KEY),
    Column("creative_id", Text, nullable=False, info=KEY),
    Column("users", BigInteger, nullable=False, comment="who have seen it often enough to compare early with late"),
    Column("early_impressions", BigInteger, nullable=False),
    Column("early_clicks", BigInteger, nullable=False),
    Column("late_impressions", BigInteger, nullable=False),
    Column("late_clicks", BigInteger, nullable=False),
    Column("decline", Double, comment="1 - late CTR / early CTR of the same users; null: not enough data"),
    Column("decline_low", Double),
    Column("decline_high", Double),
    Column("verdict", Text, nullable=False, comment="tired | fresh | needs_more"),
    Column("sentence", Text, nullable=False),
)

counterfactuals = Table(
    "counterfactuals",
    metadata,
    Column("day", Date, nullable=False, info=KEY),
    Column("brief_id", Text, nullable=False, info=KEY, comment="the brief as it was ordered"),
    Column("trait", Text, nullable=False, info=KEY, comment="gender | age_band: all that the two prompts differ in"),
    Column("first", Text, nullable=False, info=KEY),
    Column("second", Text, nullable=False, info=KEY),
    Column("what", Text, nullable=False, info=KEY, comment="price | offer | amount.<amount> | tone.<kind>"),
    Column("copies_first", Integer, nullable=False),
    Column("copies_second", Integer, nullable=False),
    Column("said_first", Integer, nullable=False, comment="copies that say it"),
    Column("said_second", Integer, nullable=False),
    Column("difference", Double, comment="share of the first minus share of the second; null: not enough data"),
    Column("difference_low", Double),
    Column("difference_high", Double),
    Column("verdict", Text, nullable=False, comment="alike | differs | needs_more"),
    Column("sentence", Text, nullable=False),
    Column("model_id", Text, comment="which model wrote both sides"),
)


def create_ledger(engine: Engine) -> None:
    """Create the schema and its tables where they are missing."""
    with engine.begin() as connection:
        connection.execute(text(f"create schema if not exists {SCHEMA}"))
        _bring_up_to_date(connection)
        metadata.create_all(connection, checkfirst=True)


def _bring_up_to_date(connection: Connection) -> None:
    """Columns that tables of an older warehouse lack; ``approvals`` held but one decision per content once."""
    listed = text("select table_name, column_name from information_schema.columns where table_schema = :schema")
    present: dict[str, set[str]] = {}
    for table_name, column_name in connection.execute(listed, {"schema": SCHEMA}):
        present.setdefault(table_name, set()).add(column_name)
    if "decided_at" not in present.get("approvals", {"decided_at"}):
        # Names are constants of this module. Copied, because a primary key cannot be dropped everywhere.
        kept = f"select *, cast(null as timestamp) as decided_at from {SCHEMA}.approvals"  # noqa: S608
        connection.execute(text(f"create table {SCHEMA}.approvals_kept as {kept}"))
        connection.execute(text(f"drop table {SCHEMA}.approvals"))
        connection.execute(text(f"alter table {SCHEMA}.approvals_kept rename to approvals"))
        present["approvals"].add("decided_at")
    for table in metadata.sorted_tables:
        for column in table.columns:
            if column.nullable and column.name not in present.get(table.name, {column.name}):
                kind = column.type.compile(connection.dialect)
                connection.execute(text(f'alter table {SCHEMA}.{table.name} add column "{column.name}" {kind}'))


def replace_rows(
    connection: Connection, table: Table, key: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]
) -> int:
    """Delete the rows of ``table`` whose columns equal ``key`` and insert ``rows``, in the caller's transaction.

    Returns the number of rows inserted.
    """
    connection.execute(table.delete().where(and_(*(table.c[name] == value for name, value in key.items()))))
    fresh = [dict(row) for row in rows]
    if fresh and connection.dialect.name == "duckdb":
        # Row by row takes DuckDB a third of a millisecond each; one bound list per column is ten times as fast.
        columns = [table.c[name] for name in dict.fromkeys(name for row in fresh for name in row)]
        lists = ([_plain(row.get(column.name)) for row in fresh] for column in columns)
        values = [
            func.unnest(cast(bindparam(None, listed, unique=True), ARRAY(column.type)))
            for listed, column in zip(lists, columns, strict=True)
        ]
        connection.execute(table.insert().from_select(columns, select(*values)))
    elif fresh:
        connection.execute(table.insert(), fresh)
    return len(fresh)


def _plain(value: Any) -> Any:
    """The value as DuckDB binds it rightly: NumPy scalars as Python numbers, decimals without a positive exponent."""
    if isinstance(value, Decimal):
        return Decimal(f"{value:f}")  # duckdb 1.5 binds Decimal("1E+3") as 1
    return value.item() if hasattr(value, "item") else value
