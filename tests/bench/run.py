#!/usr/bin/env python3
"""Measures the figures: `run.py [NAME…] [--runs N]`. Appends a line per figure to bench.jsonl and prints a table.

`run.py --docs` measures nothing: it writes the tables and the picture of docs/BENCHMARKS.md from the newest lines.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import (
    bench_answer,
    bench_claim,
    bench_cli,
    bench_day,
    bench_entrypoint,
    bench_fake,
    bench_fleet,
    bench_frozen,
    bench_growth,
    bench_hostile,
    bench_image,
    bench_lab,
    bench_loss,
    bench_memory,
    bench_neighbour,
    bench_restic,
    bench_seccomp,
    bench_slot,
    bench_soak,
    bench_sync,
    bench_tiers,
    bench_verify,
    pages,
)
from bench.figures import QUIET, Figure, NotHere, allowed, append, busy, progress, table
from claw_runtime import logs
from claw_runtime.errors import ClawError


@dataclass(frozen=True, slots=True)
class Bench:
    """What measures some figures.

    Attributes:
        runs: Turns, unless somebody asks for another number.
        seconds: What its turns may take; then no more are made, but for the least that a figure needs.
        also: Figures that it gives besides the one of its own name.
    """

    measure: Callable[[int], list[Figure]]
    runs: int
    seconds: float
    also: tuple[str, ...] = ()


BENCHES: dict[str, Bench] = {
    "entrypoint_start": Bench(bench_entrypoint.measure, 60, 10),
    "cli_help_ms": Bench(bench_cli.measure_help, 20, 10),
    "cli_status_1000_ms": Bench(bench_cli.measure_status, 20, 20, ("cli_pool_list_ms",)),
    "claims_fake_per_s": Bench(
        bench_fake.measure, 3, 40, ("claims_fake_flat", "claims_fake_per_s_disk", "claims_fake_flat_disk")
    ),
    "claim_warm": Bench(bench_claim.measure, 15, 30),
    "claim_warm_cli": Bench(bench_claim.measure_cli, 15, 30),
    "release_ms": Bench(bench_claim.measure_release, 15, 40),
    "claim_slot": Bench(bench_slot.measure, 15, 45, ("claim_slot_handover", "claim_parked", "claim_parked_handover")),
    "claim_frozen": Bench(bench_frozen.measure, 60, 30, ("claim_frozen_p50",)),
    "claim_frozen_gateway": Bench(bench_frozen.measure_gateway, 20, 40, ("claim_frozen_gateway_p50",)),
    "claim_to_answer": Bench(bench_answer.measure, 5, 40, ("claim_to_ready",)),
    "answer_cold": Bench(
        bench_tiers.measure,
        5,
        80,
        ("answer_slot", "answer_waiting", "answer_prewarmed", "answer_prewarmed_narrow"),
    ),
    "answer_cold_3": Bench(
        bench_tiers.measure_three, 2, 60, ("answer_slot_3", "answer_waiting_3", "answer_prewarmed_3")
    ),
    "fleet_create": Bench(bench_fleet.measure, 2, 60, ("fleet_start", "fleet_list", "fleet_list_mb")),
    "soak_leaks": Bench(bench_soak.measure, 50, 40),
    "memory_slot_mb": Bench(
        bench_memory.measure_tiers, 1, 20, ("memory_parked_mb", "memory_waiting_mb", "memory_prewarmed_mb")
    ),
    "idle_50_cpu": Bench(bench_memory.measure_idle, 1, 50, ("idle_50_mb",)),
    "sync_up_10k_rclone": Bench(
        bench_sync.measure,
        3,
        90,
        (
            "sync_up_10k_s5cmd",
            "sync_down_10k_rclone",
            "sync_down_10k_s5cmd",
            "sync_down_10k_disk",
            "sync_nochange_10k",
            "sync_10of10k",
        ),
    ),
    "sync_1gib_up": Bench(bench_sync.measure_large, 3, 60, ("sync_1gib_down",)),
    "sync_sqlite_bytes": Bench(bench_sync.measure_database, 1, 20),
    "sync_memory_100k_mb": Bench(bench_sync.measure_memory, 1, 60, ("sync_memory_sparse_mb",)),
    "commit_small_10k_bytes": Bench(bench_growth.measure_small, 20, 60, ("commit_small_10k_s",)),
    "dense_page_bytes": Bench(bench_growth.measure_dense, 3, 90),
    "restore_after_2000": Bench(bench_growth.measure_restore, 5, 240),
    "day_bucket_ratio": Bench(bench_day.measure, 1, 300, ("day_sent_ratio",)),
    "verify_memory_mb": Bench(bench_verify.measure, 1, 120),
    "restic_backup_10of10k": Bench(bench_restic.measure, 5, 60, ("restic_restore_10k",)),
    "sync_fair_20": Bench(bench_sync.measure_fairness, 3, 30),
    "sync_loss_s": Bench(bench_loss.measure, 4, 60, ("sync_outage_s",)),
    "rpo_neighbour_s": Bench(bench_neighbour.measure, 1, 120),
    "seccomp_cost": Bench(bench_seccomp.measure, 9, 40),
    "seccomp_cost_start": Bench(bench_seccomp.measure_start, 5, 60),
    "seccomp_cost_tools": Bench(bench_seccomp.measure_tools, 9, 120),
    "hostile_p99": Bench(bench_hostile.measure, 3, 60, ("hostile_probe_s",)),
    "restart_outage_s": Bench(bench_lab.measure_restart, 3, 120),
    "boot_to_answer_s": Bench(bench_lab.measure_boot, 3, 120),
    "claim_trixie": Bench(bench_lab.measure_claim, 15, 120),
    "image_nix_mb": Bench(bench_image.measure_size, 1, 5),
    "image_nix_ready_s": Bench(bench_image.measure_ready, 3, 30),
}

GIVE_UP = 5
"""Times its seconds, and `SLACK` more, after which a bench is ended wherever it is: it hangs."""

SLACK = 120.0


class _Overdue(BaseException):
    """A bench hangs."""


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure claw against its peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"figures: {', '.join(BENCHES)}; default: all")
    parser.add_argument("--runs", type=_positive, metavar="N", help="turns of each figure, instead of its own number")
    parser.add_argument("--docs", action="store_true", help="measure nothing; write the documents from the last run")
    options = parser.parse_args(arguments)
    evidence = Path(os.environ.get("EVIDENCE_DIR") or "evidence") / "bench.jsonl"
    if options.docs:
        pages.rewrite(evidence)
        return 0
    given = {figure: name for name, bench in BENCHES.items() for figure in (name, *bench.also)}
    if unknown := [name for name in options.names if name not in given]:
        parser.error(f"there is no figure {unknown[0]!r}; there are: {', '.join(given)}")
    names = dict.fromkeys(given[name] for name in options.names) if options.names else BENCHES
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGALRM, _overdue)
    logs.configure(level="error", as_json=False)
    status, lines = 0, []
    try:
        for name in names:
            failed, figures = _measured(name, options.runs)
            status = status or failed
            lines += append(evidence, figures)
    except KeyboardInterrupt:
        print("bench: interrupted; everything is cleaned up", file=sys.stderr)
        status = 130
    finally:
        if lines:
            print(table(map(json.loads, lines)))
    return status


def _measured(name: str, runs: int | None) -> tuple[int, list[Figure]]:
    """An exit code, and the figures: none where it failed, or where what is to be compared is not on this host."""
    bench = BENCHES[name]
    before = busy()
    if before > QUIET:
        print(
            f"bench: {name}: other work uses {before:.0%} of the processors; such figures say little", file=sys.stderr
        )
    signal.setitimer(signal.ITIMER_REAL, GIVE_UP * bench.seconds + SLACK)
    try:
        with allowed(bench.seconds):
            return 0, [figure.after(before) for figure in bench.measure(runs or bench.runs)]
    except NotHere as error:
        print(f"bench: {name}: not measured on this host: {error}", file=sys.stderr)
        return 0, []
    except ClawError as error:
        print(f"bench: {name} failed: {error}\n  {error.hint}", file=sys.stderr)
        return error.exit_code, []
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace") if isinstance(error.stderr, bytes) else error.stderr or ""
        print(f"bench: {name} failed: {error}\n  {said.strip()[-1000:]}", file=sys.stderr)
    except (Exception, _Overdue) as error:  # noqa: BLE001 - one that fails must not hide the others
        print(f"bench: {name} failed: {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        progress("")
    return 1, []


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of runs")
    return number


def _end(_number: int, _frame: object) -> None:
    """SIGTERM ends a run as Ctrl-C does, through every `finally`."""
    raise KeyboardInterrupt


def _overdue(_number: int, _frame: object) -> None:
    raise _Overdue("it hangs; it was ended, and everything is cleaned up")


if __name__ == "__main__":
    sys.exit(main())
