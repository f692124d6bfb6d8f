-- See the PostgreSQL migration of the same name for what it is for.
ALTER TABLE schedules ADD COLUMN definition TEXT;
