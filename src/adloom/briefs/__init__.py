"""Briefs: which copy is ordered for a day, for whom, about what, where, and from which facts."""

from adloom.briefs.writing import BriefReport, write_briefs

__all__ = ["BriefReport", "write_briefs"]
