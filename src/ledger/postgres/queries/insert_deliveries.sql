WITH new AS (
    SELECT * FROM json_to_recordset($1)
                  AS n (id uuid, run uuid, target text, manifest_sha256 text)
), head AS (
    INSERT INTO heads (target, manifest_sha256, run)
    SELECT DISTINCT ON (target) target, manifest_sha256, run FROM new
    ON CONFLICT (target) DO UPDATE
    SET manifest_sha256 = excluded.manifest_sha256, run = excluded.run
)
INSERT INTO deliveries (id, run, target, manifest_sha256)
SELECT id, run, target, manifest_sha256 FROM new
