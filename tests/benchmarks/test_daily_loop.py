"""The benchmark at toy size: Adloom's marts are those of a script written independently of the dbt models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "daily_loop.py"


def test_both_ways_make_the_same_marts(tmp_path):
    command = [sys.executable, str(BENCHMARK), "--behaviours", "5000", "--ad-events", "20000"]
    finished = subprocess.run(
        [*command, "--json", "--keep", str(tmp_path)], capture_output=True, text=True, check=False, timeout=300
    )
    found = json.loads(finished.stdout)
    assert found["marts_differ"] == []
    # Enough happened for the agreement to mean something: repeated, invalid, clicked and converted impressions.
    assert found["marts_rows"]["fct_impressions"] == 19_980
    assert found["outcomes"]["invalid_impressions"] > 50
    assert found["outcomes"]["clicks"] > 80
    assert found["outcomes"]["conversions"] >= 3
