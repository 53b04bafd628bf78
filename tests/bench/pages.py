"""The documents about figures: the tables of docs/BENCHMARKS.md, and docs/figures, from the lines of a run.

`run.py --docs` keeps the newest line of each figure in docs/figures/bench.jsonl and writes everything else from it. A
test compares the documents with these lines.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.figures import QUIET, amount, columns, newest, table
from bench.picture import draw

DOCS = Path(__file__).parents[2] / "docs"
PAGE, FIGURES = DOCS / "BENCHMARKS.md", DOCS / "figures"
BEGIN, END = "<!-- figures -->\n", "<!-- /figures -->\n"
GROUPS: Mapping[str, Sequence[str]] = {
    "From the claim to the first instruction": (
        "claim_slot",
        "claim_slot_handover",
        "claim_parked",
        "claim_parked_handover",
        "claim_warm",
        "claim_warm_cli",
        "release_ms",
        "claim_frozen",
        "claim_frozen_p50",
        "claim_frozen_gateway",
        "claim_frozen_gateway_p50",
    ),
    "From the claim to the gateway's right answer": (
        "claim_to_ready",
        "claim_to_answer",
        "answer_cold",
        "answer_slot",
        "answer_waiting",
        "answer_prewarmed",
        "answer_prewarmed_narrow",
        "answer_cold_3",
        "answer_slot_3",
        "answer_waiting_3",
        "answer_prewarmed_3",
    ),
    "Beside openclaw fleet": ("fleet_create", "fleet_start", "fleet_list", "fleet_list_mb"),
    "State to the bucket and back": (
        "sync_up_10k_rclone",
        "sync_up_10k_s5cmd",
        "sync_down_10k_rclone",
        "sync_down_10k_s5cmd",
        "sync_down_10k_disk",
        "sync_nochange_10k",
        "sync_10of10k",
        "sync_1gib_up",
        "sync_1gib_down",
        "sync_sqlite_bytes",
        "sync_memory_100k_mb",
        "sync_memory_sparse_mb",
        "sync_fair_20",
        "sync_loss_s",
        "sync_outage_s",
        "rpo_neighbour_s",
        "restic_backup_10of10k",
        "restic_restore_10k",
    ),
    "Small commits, again and again": (
        "commit_small_10k_bytes",
        "commit_small_10k_s",
        "dense_page_bytes",
        "restore_after_2000",
        "day_bucket_ratio",
        "day_sent_ratio",
        "verify_memory_mb",
    ),
    "The control plane": (
        "claims_fake_per_s",
        "claims_fake_flat",
        "claims_fake_per_s_disk",
        "claims_fake_flat_disk",
        "hostile_p99",
        "hostile_probe_s",
        "soak_leaks",
        "idle_50_cpu",
        "idle_50_mb",
        "memory_slot_mb",
        "memory_parked_mb",
        "memory_waiting_mb",
        "memory_prewarmed_mb",
    ),
    "Ordinary hosts": ("restart_outage_s", "boot_to_answer_s", "claim_trixie"),
    "Commands and images": (
        "cli_help_ms",
        "cli_status_1000_ms",
        "cli_pool_list_ms",
        "entrypoint_start",
        "seccomp_cost",
        "seccomp_cost_start",
        "seccomp_cost_tools",
        "image_nix_mb",
        "image_nix_ready_s",
    ),
}


def rewrite(evidence: Path) -> None:
    """Write the documents from the newest lines of a run's file."""
    recorded = newest(evidence)
    FIGURES.mkdir(exist_ok=True)
    lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in recorded)
    (FIGURES / "bench.jsonl").write_text(lines, "utf-8")
    (FIGURES / "bench.svg").write_text(draw(grouped(recorded)), "utf-8")
    PAGE.write_text(page(PAGE.read_text("utf-8"), recorded), "utf-8")


def page(text: str, recorded: Sequence[Mapping[str, Any]]) -> str:
    """The page with its tables written anew."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}{tables(recorded)}{END}{tail}"


def grouped(recorded: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Lines by heading, in the order of `GROUPS`; empty groups are left out."""
    found = {str(one["name"]): one for one in recorded}
    groups = {title: [found[name] for name in names if name in found] for title, names in GROUPS.items()}
    return {title: some for title, some in groups.items() if some}


def tables(recorded: Sequence[Mapping[str, Any]]) -> str:
    """Everything between the markers."""
    parts = [f"### {title}\n\n{table(some)}" for title, some in grouped(recorded).items()]
    divided = [one for one in recorded if one["parts"]]
    if divided:
        rows = [("figure", "consists of"), *((str(one["name"]), _parts(one)) for one in divided)]
        parts.append(f"### What they consist of\n\nMedians.\n\n{columns(rows)}")
    for one in recorded:
        if one["counts"]:
            parts.append(f"### `{one['name']}`: {one['note']}\n\n{_counts(one['counts'])}")
    notes = [f"- `{one['name']}`: {one['note']}" for one in recorded if one["note"] and not one["counts"]]
    disturbed = [f"`{one['name']}` ({one['busy']:.0%})" for one in recorded if one["busy"] > QUIET]
    if disturbed:
        notes.append(f"- Other work used the processors just before these were measured: {', '.join(disturbed)}.")
    if notes:
        parts.append("### Notes\n\n" + "\n".join(notes))
    return "\n" + "\n\n".join(parts) + "\n\n"


def _parts(one: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {amount(cost, one['unit'])}" for name, cost in one["parts"].items())


def _counts(counts: Mapping[str, Sequence[float]]) -> str:
    rows = [("", "before", "after"), *((name, f"{before:g}", f"{after:g}") for name, (before, after) in counts.items())]
    return columns(rows)
