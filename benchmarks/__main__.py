import argparse
import importlib
import sys

NAMES = ("memory", "store_memory", "throughput", "latency")


def main() -> int:
    """Run the named benchmarks, by default all; return 1 if `--check` finds a failed one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("name", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--check", action="store_true", help="exit with 1 if a limit is not met")
    asked = parser.parse_args()
    if unknown := sorted(set(asked.name) - set(NAMES)):
        parser.error(f"no such benchmark: {', '.join(unknown)}; known: {', '.join(NAMES)}")
    kept = True
    for name in asked.name or NAMES:
        kept = importlib.import_module(f"benchmarks.{name}").run() and kept
        sys.stdout.flush()
    return 0 if kept or not asked.check else 1


if __name__ == "__main__":
    sys.exit(main())
