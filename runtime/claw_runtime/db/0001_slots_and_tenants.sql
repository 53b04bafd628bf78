-- One row a slot: a container made ahead, used by at most one tenant, once.
CREATE TABLE slot (
  id         TEXT PRIMARY KEY,
  pool       TEXT NOT NULL,
  state      TEXT NOT NULL CHECK (state IN ('filling', 'ready', 'claimed')),
  recipe     TEXT NOT NULL,              -- digest of image and workload: a slot of another recipe is replaced
  container  TEXT,                       -- null until the engine has answered
  port       INTEGER,
  made_at    REAL NOT NULL
) STRICT;

-- One row a tenant that was ever claimed here.
CREATE TABLE tenant (
  id         TEXT PRIMARY KEY,
  state      TEXT NOT NULL CHECK (state IN ('cold', 'claiming', 'active', 'releasing', 'kept')),
  pool       TEXT,
  slot       TEXT UNIQUE REFERENCES slot (id),
  step       TEXT NOT NULL DEFAULT '',   -- written before the step is done; see tenants/lifecycle.py
  source     TEXT NOT NULL DEFAULT '',   -- restored | kept: where the tree in the slot came from
  base       INTEGER NOT NULL DEFAULT 0, -- generation that the local tree grew from
  epoch      INTEGER NOT NULL DEFAULT 0, -- ours, as of the last lease
  error      TEXT NOT NULL DEFAULT '',
  since      REAL NOT NULL
) STRICT;

CREATE INDEX slot_by_pool ON slot (pool, state);
