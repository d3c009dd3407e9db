"""The benchmarks are scripts that import one another: they are found from here on."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
