//! The server that serves the store.

use super::*;
use crate::{Server, TakeStore};

fn server(holder: &str, session: &str) -> Server {
    Server { holder: holder.to_owned(), session: session.to_owned(), label: format!("process of {holder}") }
}

/// One server at a time; another one takes over when there is no sign of life, and the first notices.
pub async fn serving(bench: &Bench) {
    let (db, time) = (&bench.db, Duration::from_secs(30));
    let (first, restarted, other) = (server("a", "a1"), server("a", "a2"), server("b", "b1"));
    assert_eq!(db.take_store(&first, time, None).await.unwrap(), TakeStore::Taken);
    let held = TakeStore::Held { label: "process of a".to_owned(), until: bench.now().plus(time) };
    assert_eq!(db.take_store(&other, time, None).await.unwrap(), held);
    assert_eq!(db.take_store(&restarted, time, None).await.unwrap(), TakeStore::Taken, "on the same data directory");
    assert!(!db.keep_store("a1", time).await.unwrap());
    bench.pass(time / 2);
    assert!(db.keep_store("a2", time).await.unwrap());
    bench.pass(time / 2);
    assert!(matches!(db.take_store(&other, time, None).await.unwrap(), TakeStore::Held { .. }), "it was prolonged");
    bench.pass(time);
    let TakeStore::Held { until, .. } = db.take_store(&other, time, None).await.unwrap() else {
        panic!("it was taken by the clock of another machine")
    };
    assert!(db.keep_store("a2", time).await.unwrap(), "nobody else came");
    assert!(
        matches!(db.take_store(&other, time, Some(until)).await.unwrap(), TakeStore::Held { .. }),
        "there was a sign of life meanwhile"
    );
    let TakeStore::Held { until, .. } = db.take_store(&other, time, None).await.unwrap() else { panic!("taken") };
    assert_eq!(db.take_store(&other, time, Some(until)).await.unwrap(), TakeStore::Taken);
    assert!(!db.keep_store("a2", time).await.unwrap());
    db.leave_store("a2").await.unwrap();
    assert!(matches!(db.take_store(&first, time, None).await.unwrap(), TakeStore::Held { .. }));
    db.leave_store("b1").await.unwrap();
    assert_eq!(db.take_store(&first, time, None).await.unwrap(), TakeStore::Taken);
}
