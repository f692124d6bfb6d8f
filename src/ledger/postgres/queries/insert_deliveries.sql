-- The last of a batch is what stands at a target.
WITH new AS (
    SELECT * FROM ROWS FROM (
        json_to_recordset($1) AS (id uuid, run uuid, target text, manifest_sha256 text)
    ) WITH ORDINALITY AS n (id, run, target, manifest_sha256, place)
), head AS (
    INSERT INTO heads (target, manifest_sha256, run)
    SELECT DISTINCT ON (target) target, manifest_sha256, run FROM new ORDER BY target, place DESC
    ON CONFLICT (target) DO UPDATE
    SET manifest_sha256 = excluded.manifest_sha256, run = excluded.run
)
INSERT INTO deliveries (id, run, target, manifest_sha256)
SELECT id, run, target, manifest_sha256 FROM new
