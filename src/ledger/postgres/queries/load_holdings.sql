SELECT resource, run FROM holdings WHERE resource = ANY ($1)
