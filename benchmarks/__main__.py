import argparse
import importlib
import sys

NAMES = ("memory", "store_memory", "throughput", "latency")


def main() -> int:
    """Runs the named benchmarks, all without a name; 1 where `--check` finds one that fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("name", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--check", action="store_true", help="fail where a promise is not kept")
    asked = parser.parse_args()
    if unknown := sorted(set(asked.name) - set(NAMES)):
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    kept = True
    for name in asked.name or NAMES:
        kept = importlib.import_module(f"benchmarks.{name}").run() and kept
        sys.stdout.flush()
    return 0 if kept or not asked.check else 1


if __name__ == "__main__":
    sys.exit(main())
