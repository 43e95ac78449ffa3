"""Coverage-guided fuzzing of one parser with atheris: python tests/fuzz/coverage_guided.py PARSER [libFuzzer options].

CI runs each for a few seconds (test_coverage_guided.py). A long run:
python tests/fuzz/coverage_guided.py configuration -max_total_time=3600 CORPUS_FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

with atheris.instrument_imports(include=["cni", "nft"]):
    from fuzz.targets import TARGETS

if __name__ == "__main__":
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
