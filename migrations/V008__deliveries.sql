-- Deliveries are listed by when they were recorded.
CREATE INDEX deliveries_recorded ON deliveries (recorded_at DESC);
