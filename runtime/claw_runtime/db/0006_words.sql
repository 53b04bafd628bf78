-- The tiers of slots have new words, since `parked` is also a rest of tenants, which keeps its word:
-- slot → created (initialised), parked → entrypoint, waiting → interpreter; prewarmed stays.
ALTER TABLE slot ADD COLUMN waits_as TEXT NOT NULL DEFAULT 'created'
  CHECK (waits_as IN ('created', 'entrypoint', 'interpreter', 'prewarmed'));
UPDATE slot SET waits_as = CASE tier
  WHEN 'parked' THEN 'entrypoint' WHEN 'waiting' THEN 'interpreter' WHEN 'prewarmed' THEN 'prewarmed' ELSE 'created' END;
ALTER TABLE slot DROP COLUMN tier;
ALTER TABLE slot RENAME COLUMN waits_as TO tier;

UPDATE pool SET warmth = (
  SELECT json_group_object(
    CASE key WHEN 'slot' THEN 'created' WHEN 'parked' THEN 'entrypoint' WHEN 'waiting' THEN 'interpreter' ELSE key END,
    value
  ) FROM json_each(pool.warmth)
) WHERE json_valid(warmth);

-- What happened is told in the new words too, so that one log does not name one tier in two ways.
UPDATE activity SET detail = json_set(detail, '$.source',
  CASE json_extract(detail, '$.source')
    WHEN 'slot' THEN 'created' WHEN 'parked' THEN 'entrypoint' WHEN 'waiting' THEN 'interpreter' END
) WHERE kind = 'claimed'
  AND CASE WHEN json_valid(detail) THEN json_extract(detail, '$.source') IN ('slot', 'parked', 'waiting') ELSE 0 END;
UPDATE activity SET detail = json_set(detail, '$.warmth', json((
  SELECT json_group_object(
    CASE key WHEN 'slot' THEN 'created' WHEN 'parked' THEN 'entrypoint' WHEN 'waiting' THEN 'interpreter' ELSE key END,
    value
  ) FROM json_each(activity.detail, '$.warmth')
))) WHERE kind = 'pool-scaled'
  AND CASE WHEN json_valid(detail) THEN json_type(detail, '$.warmth') = 'object' ELSE 0 END;

-- What a slot is made from is called its template.
ALTER TABLE slot RENAME COLUMN recipe TO template;

-- What happened is an event everywhere; only the URL of the API keeps the former word, for its clients.
ALTER TABLE activity RENAME TO event;
DROP INDEX activity_by_tenant;
CREATE INDEX event_by_tenant ON event (tenant, id);
