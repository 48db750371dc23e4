-- While a copy from another database fills this one: the identity of that store. No server starts on it.
ALTER TABLE store ADD COLUMN filled_from TEXT;
