-- See the PostgreSQL migration of the same number.
CREATE INDEX deliveries_recorded ON deliveries (recorded_at DESC);
