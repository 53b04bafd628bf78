"""The ledger: records of this host's slots and tenants, in SQLite."""
