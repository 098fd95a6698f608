"""`scripts/fuzz TARGET [SECONDS]`: a target of targets.py under atheris, from its vectors and what was kept before."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main(words: list[str]) -> int:
    if words == ["--targets"]:
        from tests.fuzz.targets import TARGETS

        print("\n".join(TARGETS))
        return 0
    try:
        import atheris
    except ImportError:
        print("scripts/fuzz: atheris is not installed here; `scripts/fuzz --install` gets it", file=sys.stderr)
        return 3
    with atheris.instrument_imports(include=["pepperbus", "h11", "configobj"]):
        from tests.fuzz.targets import TARGETS
    if not words or words[0] not in TARGETS:
        print(f"scripts/fuzz TARGET [SECONDS]; the targets: {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    kept = ROOT / "var" / "fuzz" / words[0]
    kept.mkdir(parents=True, exist_ok=True)
    vectors = ROOT / "tests" / "vectors" / words[0]
    options = [
        f"-artifact_prefix={kept.parent}{os.sep}",
        f"-max_total_time={words[1] if words[1:] else 0}",
        "-max_len=4096",
    ]
    atheris.Setup([sys.argv[0], *options, str(kept), *([str(vectors)] if vectors.is_dir() else [])], TARGETS[words[0]])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
