"""Tomorrow's strategy from today's facts: beliefs about creatives, shares, holdout, plan."""

from adloom.strategy.plan import PlanSummary, adjust, live_plan

__all__ = ["PlanSummary", "adjust", "live_plan"]
