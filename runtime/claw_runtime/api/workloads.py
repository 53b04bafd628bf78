"""Workloads: the files behind the pools, read and changed while the daemon runs."""

import json

from fastapi import APIRouter

from claw_runtime.api import routing
from claw_runtime.api.schemas import WorkloadAnswer, WorkloadRequest
from claw_runtime.daemon.assembly import Runtime
from claw_runtime.logs import masked
from claw_runtime.spec.loader import Document


def routes(runtime: Runtime) -> APIRouter:
    """The endpoints of workloads."""
    router = routing.router("/api/v1/workloads", "workloads")

    @router.get("")
    def workloads() -> list[WorkloadAnswer]:
        """All workloads that are loaded, in the order of their files."""
        return [answer(runtime.pools.document(pool)) for pool in runtime.pools.ids()]

    @router.get("/{workload}")
    def workload(workload: str) -> WorkloadAnswer:
        """One workload."""
        return answer(runtime.pools.document(workload))

    @router.put("/{workload}")
    def put(workload: str, body: WorkloadRequest) -> WorkloadAnswer:
        """Add or change a workload: write its file, and fill its pool accordingly."""
        document = runtime.workloads.put(text_of(body), workload)
        runtime.poked.set()
        return answer(document)

    @router.delete("/{workload}")
    def remove(workload: str) -> WorkloadAnswer:
        """Remove a workload and its pool; refused while its tenants hold slots or trees. Returns the removed
        workload."""
        document = runtime.workloads.remove(workload)
        runtime.poked.set()
        return answer(document)

    return router


def text_of(body: WorkloadRequest) -> str:
    """The text of a workload's file; JSON is valid YAML, and its line breaks give errors a position."""
    return body.yaml if body.yaml is not None else json.dumps(body.document, indent=2, ensure_ascii=False) + "\n"


def answer(document: Document) -> WorkloadAnswer:
    """The answer for a workload; values that look secret are masked."""
    file = document.workload
    return WorkloadAnswer(
        id=file.id, name=file.name, image=file.image, file=str(document.path), document=masked(document.marked.data)
    )
