"""Coverage-guided fuzzing of every reader: `python -m tests.fuzz_readers -max_total_time=600`.

Needs atheris, which is not part of the test environment: pip install atheris. What it
finds becomes a case of `tests/test_fuzz_seeds.py`.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["costmw"]):
    from tests.readers import read_fuzzed


def main() -> None:
    """Run until a crash, or as long as libFuzzer's options say."""
    atheris.Setup(sys.argv, read_fuzzed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
