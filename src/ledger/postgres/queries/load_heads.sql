SELECT target, manifest_sha256 FROM heads WHERE target = ANY ($1)
