"""Object stores: one interface (`ports.ObjectStore`), three drivers, and a probe that says whether to trust one."""

from claw_runtime.objects.open import open_store

__all__ = ["open_store"]
