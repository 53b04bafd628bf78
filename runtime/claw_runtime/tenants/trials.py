"""A claim with another image than the one that the tenant's state is known to suit.

A newer program may change its databases when it starts, and an older one then refuses them. So such a claim is on
trial: if it does not become ready, what it wrote is dropped, and the tenant starts with its previous image and state.
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
"""Errors that the image may have caused; after any other error the previous image would fail too."""


class Trials:
    """Claims of new slots, on trial when the image is new to the state. The caller holds the tenant's lock."""

    def __init__(self, host: Host, repository: Repository, claimer: Claimer) -> None:
        self._engine, self._ledger, self._pools = host.engine, host.ledger, host.pools
        self._observer = host.observer
        self._repository = repository
        self._claimer = claimer

    def claim(self, tenant: TenantId, options: ClaimOptions) -> Claim:
        """`Claimer.claim`; on trial, with a fallback to the previous image, when the image is new to the state.

        Raises as `Tenants.claim`; when both images fail, the error of the new one.
        """
        row = self._ledger.tenant(tenant)
        if options.trial or row is None or not row.proven or not (row.base or row.state == "kept"):
            return self._claimer.claim(tenant, options)
        is_new = self._pools.template(options.pool, options.image).image_id != row.proven
        # The image's name may have moved since it was looked up: then the slot's image decides. This is not possible
        # for a kept tree, which must be committed first.
        suits = "" if row.state == "kept" else row.proven
        try:
            return self._claimer.claim(tenant, replace(options, trial=is_new, suits=suits))
        except ClawError as error:
            if not (is_new or error.facts.get("trial")) or not self._may_fall_back(row, error):
                raise
            return self._fall_back(row, options, error)

    def _may_fall_back(self, row: TenantRow, error: ClawError) -> bool:
        """Whether the image may be at fault, and the state is still the one that the previous image had."""
        after = self._ledger.tenant(row.id)
        if not isinstance(error, FAULTS) or after is None or after.state != "cold":
            return False
        try:
            self._engine.image(row.proven)
            head = self._repository.generations.head(row.id)
        except ClawError as problem:
            log.warning("cannot fall back to the previous image", tenant=row.id, why=str(problem))
            return False
        # A kept tree was committed as one more generation before the trial.
        ours = {row.base, row.base + 1} if row.state == "kept" else {row.base}
        return head is not None and head.generation in ours

    def _fall_back(self, row: TenantRow, options: ClaimOptions, error: ClawError) -> Claim:
        log.warning("new image failed; falling back", tenant=row.id, image=row.proven, why=str(error))
        try:
            claim = self._claimer.claim(row.id, replace(options, image=row.proven))
        except ClawError as second:
            log.warning("the previous image failed too", tenant=row.id, image=row.proven, why=str(second))
            raise error from second
        self._observer.record("fell-back", tenant=row.id, pool=options.pool, image=claim.image, why=str(error))
        return replace(claim, fell_back=str(error))
