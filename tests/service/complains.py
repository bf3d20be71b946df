"""A child that complains of more than a pipe holds, and then says something."""

from __future__ import annotations

import sys

sys.stderr.write("a warning of some library\n" * 10_000)
print("still here", flush=True)
