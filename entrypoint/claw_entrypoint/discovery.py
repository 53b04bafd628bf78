"""Fewer extensions for the gateway to look through, where a workload names those that it uses.

The gateway looks through all that the image has, several times at each start and again at a conversation's first turn.
Here it is given a directory of links to the named ones to look through instead. The image keeps all of them: one that
the gateway itself reaches for by name is still found.

This module is imported by a start whose workload names extensions, and by no other.
"""

import os
from stat import S_ISDIR

from claw_entrypoint.contract import Contract, Discovery
from claw_entrypoint.errors import SeedError
from claw_entrypoint.log import Log


def narrow(contract: Contract, given: dict[str, str], directory: int, log: Log, prefix: str = "") -> dict[str, str]:
    """Make the directory of links beside the configuration; the environment that tells the gateway of it.

    Args:
        directory: The open directory of the configuration, already emptied.

    Raises:
        SeedError: A name is no extension of this image (when strict); otherwise the gateway is left to find them all.
        OSError: The directory cannot be made.
    """
    discovery = contract.discovery
    if discovery is None:
        return {}
    named = dict.fromkeys(given[discovery.value].replace(",", " ").split())
    unknown = [name for name in named if not _is_extension(name, prefix + discovery.source)]
    if unknown:
        hint = f"{discovery.value} takes names of directories below {discovery.source}, with commas or blanks between"
        log.defect(SeedError(f"{discovery.value} names no extension of this image: {', '.join(unknown)}", hint))
        return {}
    chosen = sorted({*named, *discovery.always, *_needed(contract, discovery, given)})
    name = discovery.target.rpartition("/")[2]
    os.mkdir(name, 0o700, dir_fd=directory)
    for extension in chosen:
        os.symlink(f"{discovery.source}/{extension}", f"{name}/{extension}", dir_fd=directory)
    log.info("discovery.limited", extensions=chosen)
    return discovery.environment


def _needed(contract: Contract, discovery: Discovery, given: dict[str, str]) -> list[str]:
    """What features need that this tenant has a value for."""
    features = {value.feature for value in contract.values.values() if value.name in given}
    return [name for feature in features for name in discovery.features.get(feature, ())]


def _is_extension(name: str, source: str) -> bool:
    try:
        return "/" not in name and name not in (".", "..") and S_ISDIR(os.lstat(f"{source}/{name}").st_mode)
    except OSError:
        return False
