"""The memory of this machine that is free."""

import os
import re
from pathlib import Path


def available_memory() -> int:
    """Bytes that can be taken without swapping, or all memory where the system does not say."""
    try:
        memory_info = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        memory_info = ""
    match = re.search(r"MemAvailable:\s+(\d+) kB", memory_info)
    return int(match[1]) * 1024 if match else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
