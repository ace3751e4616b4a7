"""A shop: one YAML file in ``shops/``, validated so that an error names file, key and reason."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from adloom.errors import UsageError
from adloom.rule import ShopReview
from adloom.settings import settings

Slug = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Algorithm = Literal["thompson", "top_two"]
Scenario = Literal["recommendation", "cross_category", "promotion", "social", "hot_event"]
LONGEST_DIRECTIVE = 160
"""Characters; a prompt cuts what is longer."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Part):
    """How raw files reach the landing folder."""

    kind: Literal["files", "open_bandit", "sample_shop"]
    options: dict[str, Any] = {}


class Limits(_Part):
    """Where a run stops or a row is flagged."""

    rejected_share: Share = Field(default=0.01, description="a run stops when more of a table's rows are rejected")
    impressions_per_user_day: int = Field(
        default=1000, gt=0, description="beyond it a user's views are invalid traffic"
    )
    volume_ratio_warn: float = Field(default=2.0, gt=1, description="day / median of history, or its inverse")
    volume_ratio_fail: float = Field(default=10.0, gt=1)
    refused_copies_warn: Share = Field(default=0.2, description="share of a day's copies that could not be written")
    refused_copies_fail: Share = Field(default=0.5, description="beyond it the day's creatives stay behind the door")
    similar_text_warn: Share = Field(default=0.5, description="of the letter groups of two copies, shared: named")
    similar_text_block: Share = Field(default=0.85, description="shared by more: the later copy is blocked")
    similar_image_warn: int = Field(default=6, ge=0, le=64, description="of 64 bits two pictures may differ in: named")
    similar_image_block: int | None = Field(default=None, ge=0, le=64, description="as few: blocked; none: never")
    account_similarity_warn: Share = Field(default=0.1, description="1 - originals / copies over seven days")
    account_similarity_stop: Share = Field(
        default=0.3, description="beyond it the day's creatives stay behind the door"
    )
    audience_skew: Share | None = Field(
        default=0.2,
        description="by how much a group's share of a creative's impressions may surely differ from its share of those "
        "who could have seen it; beyond it the creative leaves the placement; none: reported, never blocked",
    )
    counterfactual_difference: Share = Field(
        default=0.2,
        description="by how much the share of copies that name a price, an offer or a tone may surely differ between "
        "briefs that differ in gender or age alone",
    )


class Comparison(_Part):
    """Two arms whose CTR or CR is compared every day from ``started_on`` on, under daily looks."""

    id: Slug
    dimension: Literal["policy_id", "creative_id"] = "policy_id"
    arms: tuple[str, str] = Field(description="(reference, challenger)")
    campaign_id: str | None = None
    metric: Literal["ctr", "cr"] = "ctr"
    started_on: date
    margin: float = Field(default=0.1, gt=0, description="relative difference that still counts as none")
    intended_shares: tuple[float, float] | None = Field(
        default=None,
        description="the split that was meant, for the sample-ratio check; none: not randomised by share",
    )

    @model_validator(mode="after")
    def _split_is_whole(self) -> Comparison:
        if self.arms[0] == self.arms[1]:
            raise ValueError("arms: name two different arms")
        if self.intended_shares is not None and abs(sum(self.intended_shares) - 1) > 1e-9:
            raise ValueError("intended_shares: must sum to 1")
        return self


class Evaluation(_Part):
    """What counts as evidence."""

    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    completeness_threshold: Share = Field(default=0.9, description="a CR below it is immature")
    sample_ratio_p: float = Field(default=1e-3, gt=0, lt=1)
    retention_days: int = Field(default=400, gt=0, description="days of impressions a verdict may re-read")
    comparisons: tuple[Comparison, ...] = ()

    @field_validator("comparisons")
    @classmethod
    def _ids_differ(cls, value: tuple[Comparison, ...]) -> tuple[Comparison, ...]:
        ids = [comparison.id for comparison in value]
        if len(set(ids)) != len(ids):
            raise ValueError("two comparisons share an id")
        return value


class AlgorithmChange(_Part):
    """``algorithm`` replaces the one named here, in plans from ``valid_from`` on, if the off-policy gate passes it."""

    before: Algorithm = Field(alias="from")
    valid_from: date


class Strategy(_Part):
    """How tomorrow's shares are chosen."""

    algorithm: Algorithm = "thompson"
    change: AlgorithmChange | None = None
    holdout_share: float = Field(default=0.05, ge=0, le=0.5)
    reference_policy: Literal["uniform"] = "uniform"
    max_share_change: Share = Field(default=0.3, description="cap on a share's change from one day to the next")
    exploration_share: Share = Field(
        default=0.1, description="of a placement's impressions, for approved creatives that were not shown there yet"
    )

    @model_validator(mode="after")
    def _changes_something(self) -> Strategy:
        if self.change is not None and self.change.before == self.algorithm:
            raise ValueError(f"change.from: is {self.algorithm}, as algorithm; name the one that algorithm replaces")
        return self


class Endpoint(_Part):
    """An OpenAI-compatible server that writes the copy: a hosted model, vLLM, SGLang."""

    url: str = Field(pattern=r"^https?://", description="base URL, up to and including /v1")
    model: str
    api_key_variable: str | None = Field(
        default=None, pattern=r"^[A-Z][A-Z0-9_]*$", description="environment variable that holds the key, never the key"
    )
    timeout_seconds: float = Field(default=60, gt=0)
    max_retries: int = Field(default=4, ge=0)
    requests_per_minute: int = Field(default=60, gt=0, description="of all shards of a day together")
    parallel_requests: int = Field(default=8, gt=0)
    price_per_million_input: float = Field(default=0, ge=0, description="in the currency of max_cost")
    price_per_million_output: float = Field(default=0, ge=0)
    max_cost: float | None = Field(
        default=None,
        gt=0,
        description="of a day, all shards together: no request is sent that could cost more; an audit of the copy "
        "(review.audit_every_days) comes last and spends only what the copies left",
    )
    extra: dict[str, Any] = Field(default={}, description="more fields of the request, such as chat_template_kwargs")


class FineTuning(_Part):
    """How the copy model learns the shop's voice."""

    method: Literal["lora", "full"] = "lora"
    max_steps: int = Field(default=400, gt=0)
    max_minutes: float | None = Field(default=None, gt=0, description="of training; loading the model is not counted")
    batch_size: int = Field(default=8, gt=0, description="pairs per optimizer step")
    learning_rate: float | None = Field(default=None, gt=0, description="default: 5e-4 with LoRA, 1e-4 in full")
    lora_rank: int = Field(default=16, gt=0)
    max_tokens: int = Field(default=512, gt=0, description="longer pairs are left out, and counted")
    validation_share: float = Field(default=0.1, gt=0, lt=0.5, description="of the items, not of the pairs")
    patience: int = Field(default=3, gt=0, description="evaluations without improvement before it stops")
    evaluate_every: int = Field(default=50, gt=0, description="steps; also the distance of checkpoints")
    min_new_pairs: int = Field(default=50, ge=0, description="newly approved pairs that make another training worth it")
    seed: int = 0


class Sampling(_Part):
    """How copies are drawn from the model."""

    temperature: float = Field(default=0.8, ge=0, le=2)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_new_tokens: int = Field(default=200, gt=0)
    candidates: int = Field(default=4, ge=1, le=64, description="drawn per variant; the best one is kept")
    batch_size: int = Field(default=32, gt=0, description="sequences decoded together")


class Copywriting(_Part):
    """Which model writes, how it learns, how many briefs a day."""

    model: str = Field(
        default="package:gemma-3-270m",
        pattern=r"^(package|path|hub):\S+$|^endpoint$",
        description="package:NAME, path:/folder, hub:owner/name[@revision], or endpoint",
    )
    endpoint: Endpoint | None = None
    fine_tuning: FineTuning = FineTuning()
    sampling: Sampling = Sampling()
    briefs_per_day: int = Field(
        default=48, ge=1, le=100_000, description="the day's budget, in copies: a brief of three variants counts three"
    )
    variants_per_brief: int = Field(
        default=1, ge=1, le=10, description="copies of one brief; a directive may ask for one more"
    )
    exploration_share: Share = Field(default=0.25, description="of the briefs, for what has little evidence")
    facts_per_brief: int = Field(
        default=4, ge=1, description="attributes of an item that a brief names; of more, a short copy becomes a list"
    )
    shard_briefs: int = Field(default=256, ge=1, description="briefs per mapped task")

    @model_validator(mode="after")
    def _endpoint_is_named(self) -> Copywriting:
        if (self.model == "endpoint") != (self.endpoint is not None):
            raise ValueError("model: 'endpoint' and the key endpoint belong together")
        return self


class StandingOrder(_Part):
    """What a person asks of the copy, for the briefs that ``scenarios``, ``channels`` and ``segments`` name."""

    words: str | dict[Literal["zh", "en"], str] = Field(description="one text, or one per language")
    scenarios: tuple[Scenario, ...] = Field(default=(), description="default, as below: all")
    channels: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    until: date | None = Field(default=None, description="the last day on which copy that was asked so is shown")

    @model_validator(mode="after")
    def _says_something(self) -> StandingOrder:
        texts = [self.words] if isinstance(self.words, str) else list(self.words.values())
        if not texts or any(not 0 < len(text.strip()) <= LONGEST_DIRECTIVE for text in texts):
            raise ValueError(f"words: 1 to {LONGEST_DIRECTIVE} characters in each language")
        return self

    def said(self, language: Literal["zh", "en"]) -> str:
        """The order in ``language``; empty: it is not given in it."""
        return _in_language(self.words, language)


PictureKind = Literal["own_photo", "gan"]


class Imagery(_Part):
    """Where the pictures of ad images come from, and how many images a day."""

    enabled: bool = Field(default=True, description="false: copy only, no images")
    source: PictureKind = Field(default="own_photo", description="own_photo: items.image, never altered; gan: drawn")
    by_scenario: dict[Scenario, PictureKind] = Field(default={}, description="other sources for some scenarios")
    generator: str | None = Field(
        default=None, description="gan: folder of trained weights below the shop's models; none: the newest, or shipped"
    )
    shard_images: int = Field(default=400, ge=1, description="images per mapped task, about")
    videos_per_day: int = Field(default=4, ge=0, description="short videos for 9:16 channels; each takes seconds")

    def source_of(self, scenario: str) -> PictureKind:
        """Which source a brief of that scenario takes its picture from."""
        return dict(self.by_scenario).get(scenario, self.source)  # type: ignore[call-overload]


class Portraits(_Part):
    """What segments are made of and when they may change."""

    window_days: int = Field(default=60, ge=7, le=400, description="behaviours older than this are not looked at")
    half_life_days: float = Field(default=14, gt=0, description="after so many days a behaviour counts half")
    active_days: int = Field(default=14, ge=1, description="seen within so many days: active")
    lapsed_days: int = Field(default=45, ge=2, description="not seen for longer: lapsed; in between: lapsing")
    history_days: int = Field(default=180, ge=14, description="how far back it is looked whether a user is new")
    min_moved_users: int = Field(
        default=10, ge=3, description="fewer users than this never change segments together; counts are multiples of it"
    )
    affinity_days: int = Field(
        default=28, ge=7, description="affinities are counted over this many days and stand until as many have passed"
    )
    left_out_categories: tuple[str, ...] = Field(
        default=(), description="first levels of category paths that say too much about a person: never looked at"
    )

    @model_validator(mode="after")
    def _days_ascend(self) -> Portraits:
        if not self.active_days < self.lapsed_days <= self.window_days <= self.history_days:
            raise ValueError("active_days < lapsed_days <= window_days <= history_days must hold")
        return self


class Retention(_Part):
    """How long what is known of persons is kept, in days; aggregates stay."""

    raw_days: int = Field(default=90, ge=30, description="landing, rejected and raw rows")
    feature_days: int = Field(default=180, ge=30, description="rows that describe a user: behaviours a day, portraits")
    dossier_years: int = Field(
        default=3,
        ge=3,
        description="after a creative last ran: its dossier, and the log of its exports without the visible label",
    )
    unapproved_image_days: int = Field(
        default=180,
        ge=30,
        description="after they were made: banners and videos of creatives that nobody ever approved",
    )


class Shop(_Part):
    """One shop; the single source of what a run needs to know beside its day."""

    id: Slug
    name: str
    language: Literal["zh", "en"] = Field(description="of pages, and of item titles unless they say otherwise")
    copy_languages: tuple[Literal["zh", "en"], ...] = Field(default=(), description="default: the shop's language")
    time_zone: str
    source: Source
    start_day: date = Field(description="the first day the scheduler runs")
    end_day: date | None = Field(default=None, description="the last day of a historical shop; later days are skipped")
    schedule: str = Field(default="0 3 * * *", description="once a day: cron 'minute hour * * *', in the shop's zone")
    warehouse_url: str | None = Field(default=None, description="SQLAlchemy URL; default: DuckDB under ADLOOM_HOME")
    attribution_window_days: int = Field(default=7, ge=1, le=90)
    lookback_days: int = Field(
        default=30, ge=1, description="how far back duplicates, impressions and clicks are looked for"
    )
    min_segment_users: int = Field(default=50, ge=10)
    channels: tuple[str, ...] = ()
    brand_voice: str | dict[Literal["zh", "en"], str] = Field(
        default="", description="how the shop sounds, in a sentence: one text, or one per language"
    )
    forbidden_words: tuple[str, ...] = ()
    directives: tuple[StandingOrder, ...] = Field(
        default=(), description="standing orders to whoever writes; they come before what the strategy asks for"
    )
    ai_label_producer_id: str | None = None
    approval: Literal["required", "flagged_only", "off"] = "required"
    always_ask: tuple[Scenario, ...] = Field(
        default=(), description="flagged_only: scenarios that wait for a person though no review found anything"
    )
    approval_hours: float = Field(default=20, gt=0, description="how long a person may take; then all is rejected")
    unknown_age_is_minor: bool = False
    daily_budget: float | None = Field(default=None, gt=0)
    frequency_cap_per_day: int | None = Field(default=None, gt=0)
    bot_user_agents: str = Field(
        default=r"(?i)bot|crawler|spider|slurp|headless|python-requests|curl/|wget",
        description="regular expression; impressions and clicks of such agents are invalid traffic",
    )
    limits: Limits = Limits()
    evaluation: Evaluation = Evaluation()
    strategy: Strategy = Strategy()
    copywriting: Copywriting = Copywriting()
    imagery: Imagery = Imagery()
    portraits: Portraits = Portraits()
    review: ShopReview = ShopReview()
    retention: Retention = Retention()
    simulated: bool = Field(default=False, description="made by a simulator: everything shown says so")

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError(f"{value!r} is not an IANA time zone such as Asia/Shanghai")
        return value

    @field_validator("schedule")
    @classmethod
    def _once_a_day(cls, value: str) -> str:
        minute, hour, *rest = [*value.split(), "", ""]
        if rest[:3] != ["*"] * 3 or not (minute.isdigit() and hour.isdigit() and int(minute) < 60 and int(hour) < 24):
            raise ValueError(f"{value!r} must be 'minute hour * * *': a run is for one whole day")
        return value

    @field_validator("bot_user_agents")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value

    @model_validator(mode="after")
    def _lookback_holds_attribution(self) -> Shop:
        if self.lookback_days < self.attribution_window_days:
            raise ValueError("lookback_days: must be at least attribution_window_days")
        if self.retention.raw_days < self.lookback_days:
            raise ValueError("retention.raw_days: must be at least lookback_days")
        if self.retention.feature_days < self.portraits.window_days:
            raise ValueError("retention.feature_days: must be at least portraits.window_days")
        return self

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)

    @property
    def home(self) -> Path:
        """This shop's folder under ``ADLOOM_HOME``; one per shop, so shops never see each other."""
        return settings().home / "shops" / self.id

    @property
    def landing(self) -> Path:
        return self.home / "landing"

    @property
    def rejected(self) -> Path:
        return self.home / "rejected"

    @property
    def published(self) -> Path:
        return self.home / "published"

    @property
    def creatives(self) -> Path:
        return self.home / "creatives"

    @property
    def images(self) -> Path:
        """The folder that paths of ``items.image`` are below."""
        return self.landing / "_images"

    @property
    def models(self) -> Path:
        return self.home / "models"

    @property
    def languages(self) -> tuple[Literal["zh", "en"], ...]:
        """The languages copy is written in."""
        return self.copy_languages or (self.language,)

    def voice(self, language: Literal["zh", "en"]) -> str:
        """How the shop sounds in ``language``; empty: nothing was said in it."""
        return _in_language(self.brand_voice, language)


def _in_language(said: str | Mapping[Literal["zh", "en"], str], language: Literal["zh", "en"]) -> str:
    """One text is in the language of its letters."""
    if not isinstance(said, str):
        return said.get(language, "").strip()
    is_chinese = re.search(r"[\u3400-\u9fff]", said) is not None
    return said.strip() if is_chinese == (language == "zh") else ""


def shop_ids() -> list[str]:
    """Ids of every shop file, readable or not, sorted."""
    return sorted(path.stem for path in settings().shops_dir.glob("*.yml"))


def load_shop(shop_id: str) -> Shop:
    """The validated shop, or a `UsageError` that names file, key and reason."""
    path = settings().shops_dir / f"{shop_id}.yml"
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", shop_id) or not path.is_file():
        known = ", ".join(shop_ids()) or "none"
        raise UsageError(f"there is no shop {shop_id!r} in {settings().shops_dir}", f"known shops: {known}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path.name} is not readable YAML: {error}", "mend the file") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path.name} must hold keys and values", "see docs/for_data_engineers.md")
    try:
        shop = Shop.model_validate(content)
    except ValidationError as error:
        reasons = "; ".join(
            f"{'.'.join(str(part) for part in one['loc']) or 'shop'}: {one['msg']}" for one in error.errors()
        )
        raise UsageError(f"{path.name}: {reasons}", "mend these keys") from error
    if shop.id != shop_id:
        raise UsageError(f"{path.name}: id: is {shop.id!r}", f"name the file {shop.id}.yml or mend the id")
    return shop
