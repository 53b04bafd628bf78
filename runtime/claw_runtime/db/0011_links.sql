-- Tokens of scope `link`: parts of addresses, which the router passes on to their tenant. They open nothing of the API.
CREATE TABLE token_next (
  id         TEXT PRIMARY KEY,           -- for `link` random, else the part of the token's text that is no secret
  name       TEXT NOT NULL UNIQUE,
  sha256     TEXT NOT NULL,
  scope      TEXT NOT NULL CHECK (scope IN ('admin', 'tenant', 'link')),
  tenant     TEXT,                       -- the one tenant of the other scopes than `admin`
  made_at    REAL NOT NULL,
  expires_at REAL,
  used_at    REAL,
  CHECK ((scope = 'admin') = (tenant IS NULL))
) STRICT;
INSERT INTO token_next SELECT id, name, sha256, scope, tenant, made_at, expires_at, used_at FROM token;
DROP TABLE token;
ALTER TABLE token_next RENAME TO token;
