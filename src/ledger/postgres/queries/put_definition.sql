-- The revision of a content, numbering it if it is new. $1: export; $2: hash; $3: content; $4: who.
WITH new AS (
    INSERT INTO definitions (export, revision, hash, content, applied_by)
    SELECT $1, coalesce(max(revision), 0) + 1, $2, $3, $4 FROM definitions WHERE export = $1
    ON CONFLICT (export, hash) DO NOTHING
    RETURNING revision
)
SELECT revision FROM new
UNION ALL
SELECT revision FROM definitions WHERE export = $1 AND hash = $2
LIMIT 1
