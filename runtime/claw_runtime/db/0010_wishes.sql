-- Since when a tenant is wanted running: the time of its claim; 0 after a release.
ALTER TABLE tenant ADD COLUMN wanted REAL NOT NULL DEFAULT 0;
UPDATE tenant SET wanted = since WHERE state = 'active';
-- Why the daemon is about to claim the tenant by itself (tenants/restarts.py); empty: it is not.
ALTER TABLE tenant ADD COLUMN restart TEXT NOT NULL DEFAULT '';
-- Why it did so last; empty after a claim by a person.
ALTER TABLE tenant ADD COLUMN restarted TEXT NOT NULL DEFAULT '';
-- Failures in a row.
ALTER TABLE tenant ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;
CREATE INDEX tenant_by_restart ON tenant (id) WHERE restart != '';

-- The boot of the machine in which this ledger was used last; no row: it is not known.
CREATE TABLE boot (
  id         TEXT NOT NULL
) STRICT;
