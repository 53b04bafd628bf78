"""A claim with another image than the one that the tenant's state is known to suit.

A newer program may change its databases as it starts, and an older one then refuses them. So such a claim is on trial:
if it does not become ready what it wrote is dropped, and the tenant comes up with the image and the state that it had.
"""

from dataclasses import replace

import structlog

from claw_runtime.errors import ClawError, EngineFailed, HookFailed, NotReady
from claw_runtime.ports import TenantRow
from claw_runtime.state.repository import Repository
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.claim import Claim, Claimer, ClaimOptions
from claw_runtime.tenants.host import Host

log = structlog.get_logger(__name__)

FAULTS = (NotReady, HookFailed, EngineFailed)
"""Errors that may be the image's fault; after any other the image that was there before does no better."""


class Trials:
    """Claims with a new slot, for all tenants of this host. The caller holds the tenant's lock."""

    def __init__(self, host: Host, repository: Repository, claimer: Claimer) -> None:
        self._engine, self._ledger, self._pools = host.engine, host.ledger, host.pools
        self._observer = host.observer
        self._repository = repository
        self._claimer = claimer

    def claim(self, tenant: TenantId, options: ClaimOptions) -> Claim:
        """`Claimer.claim`; on trial, and with a way back, when the image is new to the tenant's state.

        Raises as `Tenants.claim`; when both images fail, the error of the new one.
        """
        row = self._ledger.tenant(tenant)
        if options.trial or row is None or not row.proven or not (row.base or row.state == "kept"):
            return self._claimer.claim(tenant, options)
        is_new = self._pools.template(options.pool, options.image).image_id != row.proven
        # Its name may have moved since anybody looked: then the slot's image tells. Not for a kept tree, which had to
        # be committed before.
        suits = "" if row.state == "kept" else row.proven
        try:
            return self._claimer.claim(tenant, replace(options, trial=is_new, suits=suits))
        except ClawError as error:
            if not (is_new or error.facts.get("trial")) or not self._may_fall_back(row, error):
                raise
            return self._fall_back(row, options, error)

    def _may_fall_back(self, row: TenantRow, error: ClawError) -> bool:
        """Whether the image is at fault, the state is untouched, and still the one that the image before had."""
        after = self._ledger.tenant(row.id)
        if not isinstance(error, FAULTS) or after is None or after.state != "cold":
            return False
        try:
            self._engine.image(row.proven)
            head = self._repository.generations.head(row.id)
        except ClawError as problem:
            log.warning("no way back to the image before", tenant=row.id, why=str(problem))
            return False
        # A kept tree became one generation more before the trial.
        ours = {row.base, row.base + 1} if row.state == "kept" else {row.base}
        return head is not None and head.generation in ours

    def _fall_back(self, row: TenantRow, options: ClaimOptions, error: ClawError) -> Claim:
        log.warning("the new image failed: back to the one before", tenant=row.id, image=row.proven, why=str(error))
        try:
            claim = self._claimer.claim(row.id, replace(options, image=row.proven))
        except ClawError as second:
            log.warning("the image before failed too", tenant=row.id, image=row.proven, why=str(second))
            raise error from second
        self._observer.record("fell-back", tenant=row.id, pool=options.pool, image=claim.image, why=str(error))
        return replace(claim, fell_back=str(error))
