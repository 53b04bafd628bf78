"""The ledger: what this host knows of its slots and tenants, in SQLite."""
