-- How warm a slot waits: slot (initialised) | parked | waiting | prewarmed (a process waits at its door).
ALTER TABLE slot ADD COLUMN tier TEXT NOT NULL DEFAULT 'slot' CHECK (tier IN ('slot', 'parked', 'waiting', 'prewarmed'));

-- A released tenant may leave its own container (frozen) or its tree (parked) behind for a while.
CREATE TABLE tenant_with_affinity (
  id         TEXT PRIMARY KEY,
  state      TEXT NOT NULL
             CHECK (state IN ('cold', 'claiming', 'active', 'releasing', 'kept', 'frozen', 'parked')),
  pool       TEXT,
  slot       TEXT UNIQUE REFERENCES slot (id),
  step       TEXT NOT NULL DEFAULT '',   -- written before the step is done; see tenants/lifecycle.py
  source     TEXT NOT NULL DEFAULT '',   -- where the tree in the slot came from
  base       INTEGER NOT NULL DEFAULT 0, -- generation that the local tree grew from
  epoch      INTEGER NOT NULL DEFAULT 0, -- ours, as of the last lease
  error      TEXT NOT NULL DEFAULT '',
  since      REAL NOT NULL,
  image      TEXT NOT NULL DEFAULT '',   -- image that it is held to, instead of its pool's; empty: none
  trial      INTEGER NOT NULL DEFAULT 0, -- 1: its container is on trial, what it writes is dropped if it fails
  seen       REAL NOT NULL DEFAULT 0,    -- seconds since the epoch of its last activity; 0: never
  synced     REAL NOT NULL DEFAULT 0,    -- likewise of its last commit
  metadata   TEXT NOT NULL DEFAULT ''    -- JSON that came with the claim; never obeyed
) STRICT;

INSERT INTO tenant_with_affinity (id, state, pool, slot, step, source, base, epoch, error, since)
  SELECT id, state, pool, slot, step, source, base, epoch, error, since FROM tenant;
DROP TABLE tenant;
ALTER TABLE tenant_with_affinity RENAME TO tenant;
CREATE INDEX tenant_by_state ON tenant (state, pool);

-- What an operator set for a pool, over what its workload file says; null or empty: nothing.
CREATE TABLE pool (
  id         TEXT PRIMARY KEY,
  min_size   INTEGER,
  max_size   INTEGER,
  warmth     TEXT,                       -- JSON: tier → count
  image      TEXT,
  drained    INTEGER NOT NULL DEFAULT 0  -- 1: no slot is made and no claim is begun
) STRICT;
