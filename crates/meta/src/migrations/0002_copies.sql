-- While a copy from another database fills this one: the identity of that store. No server starts on it.
ALTER TABLE store ADD COLUMN filled_from TEXT;

-- Administrators are few, of many subjects.
CREATE INDEX subject_administrator ON subject (id) WHERE administrator = 1;
