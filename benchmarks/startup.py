"""How long does the engine take to start? Against 0.3 s for the import and 0.6 s for the command's help.

    python benchmarks/startup.py [--repeats 10]

Each is the median of fresh processes, the interpreter's own start included; its share is printed beside it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from statistics import median

CALLS = {
    "python alone": (["-c", "pass"], None),
    "import medvar_engine": (["-c", "import medvar_engine"], 0.3),
    "medvar --help": (["-m", "medvar_engine.cli", "--help"], 0.6),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help="processes of which the median is given (default 10)")
    options = parser.parse_args()
    for name, (arguments, bound) in CALLS.items():
        start(arguments)  # files come from the disk's cache from now on
        taken = median(start(arguments) for _ in range(options.repeats))
        verdict = "" if bound is None else f"   bound {bound:.1f} s: {'met' if taken <= bound else 'MISSED'}"
        print(f"{name:<22} {taken:6.3f} s{verdict}", flush=True)


def start(arguments: list[str]) -> float:
    """Seconds that one process takes."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
