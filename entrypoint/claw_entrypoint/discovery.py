"""Fewer extensions for the gateway to look through, where a workload names those that it uses.

The gateway looks through all that the image has, several times at each start and again at a conversation's first turn.
Here they are chosen; the image's own hook in the gateway (`extensions.mjs`) shortens the list by that choice. The image
keeps all of them: one that the gateway itself reaches for by name is still found.

This module is imported by a start whose workload names extensions, and by no other.
"""

import os
from stat import S_ISDIR

from claw_entrypoint.contract import Contract
from claw_entrypoint.errors import SeedError
from claw_entrypoint.log import Log


def narrow(contract: Contract, given: dict[str, str], log: Log, prefix: str = "") -> dict[str, str]:
    """The variable that tells the gateway which extensions there are for it.

    Raises:
        SeedError: A name is no extension of this image (when strict); otherwise the gateway is left to find them all.
    """
    discovery = contract.discovery
    if discovery is None:
        return {}
    named = given[discovery.value].replace(",", " ").split()
    unknown = [name for name in named if not _is_extension(name, prefix + discovery.source)]
    if unknown:
        hint = f"{discovery.value} takes names of directories below {discovery.source}, with commas or blanks between"
        log.defect(SeedError(f"{discovery.value} names no extension of this image: {', '.join(unknown)}", hint))
        return {}
    features = {value.feature for value in contract.values.values() if value.name in given}
    needed = (name for feature in features for name in discovery.features.get(feature, ()))
    chosen = sorted({*named, *discovery.always, *needed})
    log.info("discovery.limited", extensions=chosen)
    return {discovery.variable: ",".join(chosen)}


def _is_extension(name: str, source: str) -> bool:
    try:
        return "/" not in name and name not in (".", "..") and S_ISDIR(os.lstat(f"{source}/{name}").st_mode)
    except OSError:
        return False
