"""Sources of tenants' secret values: files of the host."""
