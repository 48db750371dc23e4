//! Rows: schema, migrations and every SQL statement.
