"""The benchmark at toy size: both ways write what they are asked to, and every figure is there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "generation.py"


def test_both_ways_write_the_same_number_of_tokens_per_prompt():
    command = [sys.executable, str(BENCHMARK), "--shape", "tiny", "--device", "cpu", "--json"]
    command += ["--briefs", "6", "--new-tokens", "8", "--baseline-prompts", "2", "--shop-briefs", "1"]
    finished = subprocess.run(
        [*command, "--train-steps", "3"], capture_output=True, text=True, check=False, timeout=300
    )
    found = json.loads(finished.stdout)
    assert found["usual"]["tokens"] == 2 * 8
    assert found["ours"]["tokens"] == 6 * 8
    # Slow is an exit code of its own, and at this size nobody is fast.
    assert finished.returncode == int(found["ratio"] < 5)
    assert found["shop"]["candidates"] == 4
    for name in ("copy_bytes_per_second", "matmul_flops", "bytes_read_per_second", "peak_memory_gb"):
        assert found[name] > 0
    assert found["training"]["tokens"] > 0
