//! `database.url`: which engine keeps the rows, and where.

use std::fmt;

use meta::PostgresUrl;

/// Which engine keeps the rows. Neither `Debug` nor `Display` shows a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A file in the data directory.
    Sqlite,
    /// A PostgreSQL server.
    Postgres(PostgresUrl),
}

impl DatabaseUrl {
    /// Parses `sqlite` or `postgres://…`. No message repeats the password.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "sqlite" => Ok(Self::Sqlite),
            _ if text.contains("://") => {
                PostgresUrl::parse(text).map(Self::Postgres).map_err(|error| error.to_string())
            }
            _ => Err("is neither `sqlite` nor an address such as postgres://USER:PASSWORD@HOST/DATABASE".to_owned()),
        }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite => f.write_str("sqlite"),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m02_no_problem_and_no_print_tells_the_password() {
        for wrong in [
            "postgres://u:canary@db",
            "postgres://u:canary@db/",
            "postgres://u:can/ary@db/x",
            "postgres://u:can#ary@db/x",
            "postgres://u:can?ary@db/x",
            "postgres://:canary@db/x",
            "postgres://u:canary@/x",
            "postgres://u:canary@a,b/x",
            "postgres://u:canary@db:0/x",
            "postgres://u:canary@d b/x",
            "postgres://u:%ff@db/x",
            "postgres://u:canary@db/x?sslmode=prefer",
            "postgres://u:canary@db/x?sslmode=disable",
            "postgres://u:canary@db/x?unknown=1",
            "mysql://u:canary@db/x",
            "canary",
            "",
        ] {
            let problem = DatabaseUrl::parse(wrong).unwrap_err();
            assert!(!problem.contains("canary") && !problem.contains("ary@"), "{wrong}: {problem}");
        }
        let url = DatabaseUrl::parse("postgres://u:canary@[::1]:5/d").unwrap();
        assert!(url.to_string().starts_with("postgres://u@[::1]:5/d"), "{url}");
        assert!(!format!("{url:?}").contains("canary"));
        assert_eq!(DatabaseUrl::parse("sqlite"), Ok(DatabaseUrl::Sqlite));
    }
}
