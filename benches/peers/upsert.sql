-- psql: rows of a CSV file with a header into a table, by its key.
--
--   psql -X -q -v ON_ERROR_STOP=1 -v target=TABLE -v keys=KEY[,KEY …] -f upsert.sql URL < FILE
--
-- TABLE has a unique index on the keys, and a column besides them. COPY to an unlogged table, then one
-- INSERT … ON CONFLICT DO UPDATE of all columns that are not keys; all in one transaction. It is the
-- fastest plain way, and promises all or nothing, but no more: it keeps no record, checks nothing
-- except the types, and a key that is twice in the file fails it. Prints one JSON line.

-- The file is psql's standard input, for \copy takes no variables.
BEGIN;

CREATE UNLOGGED TABLE longshore_peer_staging (LIKE :target);
\copy longshore_peer_staging FROM pstdin (FORMAT csv, HEADER)

SELECT string_agg(format('%1$I = excluded.%1$I', attname), ', ' ORDER BY attnum) AS changes
FROM pg_attribute
WHERE attrelid = :'target'::regclass AND attnum > 0 AND NOT attisdropped
    AND NOT attname = ANY (string_to_array(:'keys', ',')) \gset

INSERT INTO :target SELECT * FROM longshore_peer_staging
ON CONFLICT (:keys) DO UPDATE SET :changes;
\set rows :ROW_COUNT

DROP TABLE longshore_peer_staging;
COMMIT;
\echo '{"rows": ':rows'}'
