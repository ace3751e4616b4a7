"""Tomorrow's strategy from today's facts: beliefs about creatives, shares, holdout, plan."""

from adloom.strategy.plan import PlanSummary, adjust, live_plan, plan_with_new_creatives

__all__ = ["PlanSummary", "adjust", "live_plan", "plan_with_new_creatives"]
