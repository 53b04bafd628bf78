-- The rules by which the local tree was restored, when they left something out; empty: they did not.
ALTER TABLE tenant ADD COLUMN withheld TEXT NOT NULL DEFAULT '';
