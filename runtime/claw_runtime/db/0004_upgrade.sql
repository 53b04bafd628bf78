-- Image (its id) with which the tenant last became active: the one that its state is known to suit. Empty: none.
ALTER TABLE tenant ADD COLUMN proven TEXT NOT NULL DEFAULT '';

-- The last upgrade of each pool.
CREATE TABLE upgrade (
  pool       TEXT PRIMARY KEY,
  reference  TEXT NOT NULL,              -- as the operator named the new image
  image      TEXT NOT NULL,              -- its id: a name may move to another image meanwhile
  state      TEXT NOT NULL
             CHECK (state IN ('running', 'paused', 'failed', 'aborting', 'aborted', 'done')),
  canary     TEXT NOT NULL DEFAULT '',   -- the tenant of wave 0; empty: nobody ran
  batch      INTEGER NOT NULL,           -- tenants in a wave; 0: 1, 2, 4 and so on
  soak       REAL NOT NULL,              -- seconds
  switched   INTEGER NOT NULL DEFAULT 0, -- 1: the pool's slots are made from the new image, or are about to be
  error      TEXT NOT NULL DEFAULT '',
  hint       TEXT NOT NULL DEFAULT '',
  begun      REAL NOT NULL,              -- seconds since the epoch, as `changed`
  changed    REAL NOT NULL
) STRICT;

-- One tenant's way to the new image; `state` is written before the step that it names is done.
CREATE TABLE move (
  pool       TEXT NOT NULL REFERENCES upgrade (pool) ON DELETE CASCADE,
  tenant     TEXT NOT NULL,
  wave       INTEGER NOT NULL,
  state      TEXT NOT NULL DEFAULT 'waiting'
             CHECK (state IN ('waiting', 'sealing', 'trying', 'soaking', 'returning', 'returned', 'done', 'left')),
  image      TEXT NOT NULL DEFAULT '',   -- id of the image that it had
  generation INTEGER NOT NULL DEFAULT 0, -- sealed before the new image began
  ports      TEXT NOT NULL DEFAULT '[]', -- JSON: ports that it had on the way, and that must come free
  down_at    REAL NOT NULL DEFAULT 0,    -- seconds since the epoch when its program was asked to end
  outage     REAL NOT NULL DEFAULT 0,    -- milliseconds until it was ready again
  error      TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (pool, tenant)
) STRICT;
