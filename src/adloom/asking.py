"""The task that asks a person: Airflow's human in the loop, with what is asked known only when it runs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Param
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from adloom.errors import AdloomError

APPROVE, REJECT = "Approve", "Reject"
# "null" first: without it the form keeps both buttons grey until every field is filled in.
REASON = Param(
    None,
    type=["null", "string"],
    format="multiline",
    title="Reason / 理由",
    description="Kept with the decision, for the record and for whoever writes the next copy.",
    source="task",
)


def _drop(labels: dict[str, str]) -> Param:
    """The field that names creatives to drop; ``labels``: creative_id → how the form calls it."""
    return Param(
        [],
        type=["null", "array"],
        items={"type": "string"},
        examples=list(labels),
        values_display=labels,
        title="Drop / 剔除",
        description="These are rejected although the others are approved.",
        source="task",
    )


class AskForApproval(HITLOperator):
    """Puts the file that `pipeline.settle_approvals` wrote before a person: approve, drop some, or reject all.

    Skipped where nothing waits, and in a backfill, which decides from what is recorded and waits for nobody. The task
    holds no worker while it waits; without an answer in time everything is rejected. Its result is the answer.
    """

    template_fields = ("asked",)

    def __init__(self, *, asked: Any, **kwargs: Any) -> None:
        # Airflow hands every operator the params of its DAG; those that a form is made of are its own.
        kwargs |= {"params": {"drop": _drop({}), "reason": REASON}}
        super().__init__(subject="Approve creatives", options=[APPROVE, REJECT], defaults=[REJECT], **kwargs)
        self.asked = asked

    def execute(self, context: Any) -> Any:
        """Ask; returns nothing, for the task is left here until there is an answer."""
        from adloom.publishing import approving

        if self.asked is None:
            raise AirflowSkipException("nothing waits for a person")
        if str(context["dag_run"].run_type).endswith("backfill"):
            raise AirflowSkipException("a backfill waits for nobody: what is not decided stays out of the plan")
        try:
            found = approving.read_asked(Path(self.asked))
        except AdloomError as error:
            raise AirflowFailException(str(error)) from error
        # Airflow may be served below a path of its own.
        below = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
        self.subject, self.body = found.subject, found.body.replace("](/", f"]({below}/")
        self.params = ParamsDict({"drop": _drop(found.labels), "reason": REASON})
        return super().execute(context)


def answer(payload: dict[str, Any], timeout_hours: float) -> Any:
    """What `AskForApproval` came back with, as the pipeline takes it."""
    from adloom import pipeline

    given = payload["params_input"] or {}
    user = payload["responded_by_user"]
    at = payload["responded_at"]
    at = datetime.fromisoformat(at) if isinstance(at, str) else at
    reason = (given.get("reason") or "").strip()
    return pipeline.Answer(
        is_approval=list(payload["chosen_options"]) == [APPROVE],
        dropped=tuple(given.get("drop") or ()),
        by=None if user is None else str(user["name"] if isinstance(user, dict) else user.name),
        reason=reason if user is not None else f"nobody answered within {timeout_hours:g} hours",
        at=at.astimezone(UTC).replace(tzinfo=None),
    )
