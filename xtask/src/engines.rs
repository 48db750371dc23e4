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

/// Tests that are about one engine itself and are run on it alone.
struct OneSided {
    engine: Engine,
    /// What their names have in common.
    modules: &'static str,
    reason: &'static str,
}

const fn only(engine: Engine, modules: &'static str, reason: &'static str) -> OneSided {
    OneSided { engine, modules, reason }
}

/// The list is kept short: what every engine must do is tested on both.
const ONE_SIDED: &[OneSided] = &[
    only(Engine::Sqlite, "sqlite::", "its writer thread, its migrations, its translation of SQL (meta)"),
    only(Engine::Sqlite, "tests::files::", "its file, log and permissions (meta)"),
    only(Engine::Sqlite, "tests::writer::", "commits of several transactions with one sync (meta)"),
    only(Engine::Sqlite, "tests::plans::", "its query plans (meta)"),
    only(Engine::Sqlite, "sqlite_only::", "space that is set aside for its rows on a full disk (commands)"),
    only(Engine::Postgres, "postgres::", "addresses, starters, lost connections, round trips (meta)"),
    only(Engine::Postgres, "tests::postgres_plans::", "its query plans (meta)"),
];

/// The arguments by which a run on this engine leaves out what is about the other.
pub fn left_out(engine: Engine) -> Vec<&'static str> {
    let others = ONE_SIDED.iter().filter(|tests| tests.engine != engine);
    others.flat_map(|tests| ["--skip", tests.modules]).collect()
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
    for (engine, name, number) in
        [(Engine::Sqlite, "SQLite", postgres.left_out), (Engine::Postgres, "PostgreSQL", sqlite.left_out)]
    {
        println!("{number} are about {name} itself:");
        for tests in ONE_SIDED.iter().filter(|tests| tests.engine == engine) {
            println!("  {:24} {}", tests.modules, tests.reason);
        }
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
