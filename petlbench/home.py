"""Where petlbench keeps what can be made again: decoded images, measured speeds, judged records."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    folder = os.environ.get("PETLBENCH_CACHE") or "~/.cache/petlbench"
    return Path(folder).expanduser()
