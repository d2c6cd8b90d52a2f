"""`python -m benchmarks.learning CLAIM --seeds N`."""

from __future__ import annotations

import sys

from benchmarks.learning.command import main

sys.exit(main())
