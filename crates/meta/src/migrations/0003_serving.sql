-- The server that serves the store: its blobs are on the disk of that one. Free when there is none, or its time is over.
ALTER TABLE store ADD COLUMN served_by TEXT;
ALTER TABLE store ADD COLUMN served_from TEXT;
ALTER TABLE store ADD COLUMN served_session TEXT;
ALTER TABLE store ADD COLUMN served_until BIGINT;
