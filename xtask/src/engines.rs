//! The same tests on both engines: what is left out where, with the reason, and whether the counts are equal.

use testdb::Engine;

use crate::process::Count;

/// A part on both engines.
pub struct Pair {
    /// Its name.
    pub name: &'static str,
    /// What ran on SQLite.
    pub sqlite: Count,
    /// What ran on PostgreSQL.
    pub postgres: Count,
}

/// Tests in a module of this name are about SQLite itself.
const SQLITE: &str = "sqlite_only::";
/// And those about PostgreSQL itself.
const POSTGRES: &str = "postgres_only::";

/// What is left out on PostgreSQL, in the parts of [`Pair`]: how many tests, and why. A test is not added here without reason.
const LEFT_OUT: &[(u64, &str)] = &[];

/// The modules that are left out of a run on this engine.
pub fn left_out(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => POSTGRES,
        Engine::Postgres => SQLITE,
    }
}

/// Prints the counts side by side; whether they are equal but for what is about one engine alone.
pub fn compare(pairs: &[Pair]) -> bool {
    if pairs.is_empty() {
        return true;
    }
    println!("{:22} {:>8} {:>10}", "passed on", "SQLite", "PostgreSQL");
    let mut equal = true;
    let (mut sqlite, mut postgres) = (Count::default(), Count::default());
    for pair in pairs {
        let (on_both, others) = shared(pair);
        let note = if on_both == others { "" } else { "  not equal" };
        equal &= on_both == others;
        println!("{:22} {on_both:>8} {others:>10}{note}", pair.name);
        (sqlite, postgres) = (sqlite.plus(pair.sqlite), postgres.plus(pair.postgres));
    }
    println!("only about PostgreSQL: {}; only about SQLite: {}", sqlite.left_out, postgres.left_out);
    for (number, reason) in LEFT_OUT {
        println!("  {number}: {reason}");
    }
    let listed: u64 = LEFT_OUT.iter().map(|(number, _)| number).sum();
    // All of them are in one part.
    if pairs.iter().any(|pair| pair.name == "rows") && listed != postgres.left_out {
        println!("  {listed} have a reason in xtask/src/engines.rs, {} were left out", postgres.left_out);
        equal = false;
    }
    println!();
    equal
}

/// What passed of the tests that are the same on both engines.
fn shared(pair: &Pair) -> (u64, u64) {
    (
        pair.sqlite.passed.saturating_sub(pair.postgres.left_out),
        pair.postgres.passed.saturating_sub(pair.sqlite.left_out),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_equal_without_what_is_about_one_engine() {
        let count = |passed, left_out| Count { passed, failed: 0, left_out };
        let pair = |sqlite, postgres| Pair { name: "clients", sqlite, postgres };
        assert!(compare(&[pair(count(10, 2), count(9, 3))]));
        assert!(!compare(&[pair(count(10, 2), count(8, 3))]));
        assert!(!compare(&[pair(count(10, 0), count(9, 0))]));
        assert!(compare(&[]));
    }
}
