-- Digest of the manifest that the last commit of a claim is about to publish: if the daemon dies then, and another host
-- takes the tenant over, it shows that the tree here is stored. Empty: none.
ALTER TABLE tenant ADD COLUMN sealed TEXT NOT NULL DEFAULT '';
