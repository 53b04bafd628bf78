"""Where tenants' secret values come from; files today, other sources beside them later."""
