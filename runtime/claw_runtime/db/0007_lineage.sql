-- The object store that the tenants' states are in: the id in its object claw-store.json. At most one row.
CREATE TABLE store (
  id         TEXT NOT NULL,
  url        TEXT NOT NULL               -- where it was when its id was first read; never compared
) STRICT;

-- HEAD of each tenant as this host last read or wrote it; an older one in the store is refused.
CREATE TABLE head (
  tenant     TEXT PRIMARY KEY,
  generation INTEGER NOT NULL,
  sha256     TEXT NOT NULL DEFAULT '',   -- digest of its manifest; empty: it names none, or it is not known
  epoch      INTEGER NOT NULL
) STRICT;
INSERT INTO head (tenant, generation, epoch) SELECT id, base, epoch FROM tenant WHERE base > 0 OR epoch > 0;

-- Digest of the manifest of `base`, since two lineages may have a generation of the same number; empty: not known.
ALTER TABLE tenant ADD COLUMN base_sha256 TEXT NOT NULL DEFAULT '';
