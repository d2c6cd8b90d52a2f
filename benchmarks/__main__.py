"""`make bench`, or `python -m benchmarks [--only ROW] [--rounds N] [--quick]`."""

from __future__ import annotations

import sys

from benchmarks.report import main

sys.exit(main())
