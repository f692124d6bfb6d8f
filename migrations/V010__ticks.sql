-- The hash of the definition that was followed at the last tick. Under another one, windows may be
-- missing that closed long before.
ALTER TABLE schedules ADD COLUMN definition text;
