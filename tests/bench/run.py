#!/usr/bin/env python3
"""The figures: `run.py [NAME…] [--runs N]`. Appends a line a figure to bench.jsonl and prints a table."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import bench_answer, bench_claim, bench_cli, bench_entrypoint, bench_image
from bench.figures import Figure, append, table
from claw_runtime import logs
from claw_runtime.errors import ClawError

BENCHES: dict[str, tuple[Callable[[int], list[Figure]], int]] = {
    "entrypoint_start": (bench_entrypoint.measure, 60),
    "claim_warm": (bench_claim.measure, 15),
    "claim_warm_cli": (bench_claim.measure_cli, 15),
    "claim_to_answer": (bench_answer.measure, 5),
    "cli_help_ms": (bench_cli.measure_help, 20),
    "cli_status_1000_ms": (bench_cli.measure_status, 20),
    "image_nix_mb": (bench_image.measure_size, 1),
    "image_nix_ready_s": (bench_image.measure_ready, 3),
}
"""Name → what measures it, and how many runs it makes by default. claim_to_answer also gives claim_to_ready,
cli_status_1000_ms also cli_pool_list_ms."""


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure claw against its peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"figures: {', '.join(BENCHES)}; default: all")
    parser.add_argument("--runs", type=_positive, metavar="N", help="turns of each figure, instead of its own number")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in BENCHES]:
        parser.error(f"there is no figure {unknown[0]!r}; there are: {', '.join(BENCHES)}")
    signal.signal(signal.SIGTERM, _end)
    logs.configure(level="error", as_json=False)
    evidence = Path(os.environ.get("EVIDENCE_DIR") or "evidence") / "bench.jsonl"
    done: list[Figure] = []
    try:
        for name in options.names or BENCHES:
            measure, runs = BENCHES[name]
            figures = measure(options.runs or runs)
            if figures:  # none where what is to be compared is not on this host; the figure said so
                append(evidence, figures)
            done += figures
    except ClawError as error:
        print(f"bench: {error}\n  {error.hint}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("bench: interrupted; everything is cleaned up", file=sys.stderr)
        return 130
    finally:
        if done:
            print(table(done))
    return 0


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of runs")
    return number


def _end(_number: int, _frame: object) -> None:
    """SIGTERM ends a run as Ctrl-C does, through every `finally`."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
