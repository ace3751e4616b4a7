"""Print pip's settings as uv's environment variables, for `eval` in a shell.

uv ignores pip's configuration files and variables. On a machine with a mirror, a wheel folder or a certificate of
its own, pip knows it; this hands it over. Variables of uv that are already set win.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping

# pip's setting → uv's variable and what separates several values there.
NAMES = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "cert": ("SSL_CERT_FILE", " "),
    "constraint": ("UV_CONSTRAINT", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
}


def pip_settings(listing: str) -> dict[str, str]:
    """Settings from the output of ``pip config list``: environment before ``[install]`` before ``[global]``."""
    found: dict[str, tuple[int, str]] = {}
    ranks = {":env:": 3, "install": 2, "global": 1}
    for line in listing.splitlines():
        key, separator, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if separator and section in ranks and ranks[section] > found.get(name, (0, ""))[0]:
            found[name] = (ranks[section], value.strip().strip("'\""))
    return {name: value for name, (_, value) in found.items()}


def uv_environment(settings: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """uv's variables for pip's ``settings``, without those the ``environment`` already has."""
    wanted = {
        variable: separator.join(settings[name].replace("\\n", " ").split())
        for name, (variable, separator) in NAMES.items()
        if settings.get(name)
    }
    if "UV_INDEX" in wanted:
        # pip looks through all indexes for a version; uv stops at the first that knows the name.
        wanted["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return {name: value for name, value in wanted.items() if name not in environment}


if __name__ == "__main__":
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    for name, value in uv_environment(pip_settings(listing), os.environ).items():
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
