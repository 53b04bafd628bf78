-- Tenants whose lease this host may hold: written before a lease is acquired, removed once it has ended.
CREATE TABLE lease (
  tenant     TEXT PRIMARY KEY
) STRICT;
INSERT INTO lease (tenant) SELECT id FROM tenant WHERE state IN ('claiming', 'active', 'releasing', 'kept');
