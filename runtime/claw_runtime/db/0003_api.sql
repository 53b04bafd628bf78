-- Who may use the API over TCP. The text of a token is nowhere here: only its digest.
CREATE TABLE token (
  id         TEXT PRIMARY KEY,           -- the part of the token's text that is no secret
  name       TEXT NOT NULL UNIQUE,
  sha256     TEXT NOT NULL,
  scope      TEXT NOT NULL CHECK (scope IN ('admin', 'tenant')),
  tenant     TEXT,                       -- the one tenant of scope `tenant`
  made_at    REAL NOT NULL,              -- seconds since the epoch, as all that follow
  expires_at REAL,                       -- null: never
  used_at    REAL,                       -- null: not yet; within a minute
  CHECK ((scope = 'tenant') = (tenant IS NOT NULL))
) STRICT;

-- What happened to tenants and pools, newest last; the oldest rows go.
CREATE TABLE activity (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  at         REAL NOT NULL,
  kind       TEXT NOT NULL,
  tenant     TEXT,
  pool       TEXT,
  detail     TEXT NOT NULL               -- JSON object
) STRICT;
CREATE INDEX activity_by_tenant ON activity (tenant, id);

-- Requests that carried an Idempotency-Key, for a day; status is null while one is under way.
CREATE TABLE answer (
  who        TEXT NOT NULL,              -- of whom the key is
  key        TEXT NOT NULL,
  request    TEXT NOT NULL,              -- digest of method, address and body
  at         REAL NOT NULL,
  status     INTEGER,
  body       BLOB,
  PRIMARY KEY (who, key)
) STRICT;
