"""The ad server's side of a published plan: which creative to show, and what to log with the impression.

Needs the folder ``published/plans`` of a shop and the key of the user ids (``ADLOOM_USER_ID_KEY``); nothing of Adloom.
"""

import base64
import hashlib
import hmac
import json
from pathlib import Path

from pyarrow import parquet


class AdServer:
    def __init__(self, plans: Path, key: bytes) -> None:
        folder = plans / json.loads((plans / "CURRENT.json").read_text())["path"]
        self.plan = json.loads((folder / "plan.json").read_text())
        audience = parquet.read_table(folder / self.plan["audience"]["file"]).to_pylist()
        self.key, self.users = key, {row["user_hash"]: row for row in audience}

    def choose(self, user_id: str, placement: str, draw: float) -> dict | None:
        """What to show and log for one impression; ``draw``: random, in [0, 1). None: the plan has nothing here."""
        user_hash = base64.urlsafe_b64encode(hmac.digest(self.key, user_id.encode(), "sha256")[:9]).decode()
        segment = self.users.get(user_hash, {}).get("segment_id", self.plan["audience"]["stranger"])
        is_personalised = "not_personalised" if segment == "not_personalised" else "personalised"
        unit = hashlib.sha256((self.plan["holdout"]["salt"] + user_hash).encode()).digest()
        in_holdout = int.from_bytes(unit[:8], "big") < self.plan["holdout"]["share"] * 2**64
        policy = "holdout" if in_holdout else "adaptive"
        for tried in (segment, *self.plan["audience"]["fallback"][is_personalised]):
            shares = self.plan["policies"][policy].get(tried, {}).get(placement, {})
            for creative_id, share in shares.items():
                draw -= share
                if draw < 0:
                    named = {"plan_id": self.plan["plan_id"], "policy_id": policy, "segment_id": tried}
                    return named | {"creative_id": creative_id, "propensity": share}
        return None
