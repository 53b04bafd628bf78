"""Object stores: one interface (`ports.ObjectStore`), three drivers, and a probe that checks a store's promises."""

from claw_runtime.objects.open import open_store

__all__ = ["open_store"]
