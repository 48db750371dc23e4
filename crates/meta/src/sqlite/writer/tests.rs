use std::path::Path;
use std::sync::Arc;

use oci::Timestamp;

use super::super::connection;
use super::*;

fn clock() -> Clock {
    Arc::new(|| Timestamp(1))
}

/// A writer over a table of bytes and one that may only name it when the transaction ends.
fn writer(path: &Path, settings: &str) -> Writer {
    writer_with(path, settings, &Options::default())
}

fn writer_with(path: &Path, settings: &str, options: &Options) -> Writer {
    connection::create_file(path).unwrap();
    let connection = connection::open_writer(path, Duration::from_millis(50)).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
             CREATE TABLE child (id INTEGER REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED) STRICT;",
        )
        .unwrap();
    connection.execute_batch(settings).unwrap();
    Writer::start(connection, clock(), options, Arc::default()).unwrap()
}

async fn put(writer: &Writer, id: i64, bytes: usize) -> Result<u64, Error> {
    writer
        .run(Durability::Synced, move |tx| {
            Box::pin(async move {
                let bytes = vec![0; bytes];
                tx.execute("INSERT INTO t (id, bytes) VALUES ($1, $2)", &[id.into(), bytes.as_slice().into()]).await
            })
        })
        .await
}

async fn ids(writer: &Writer) -> Vec<i64> {
    let read = writer.run(Durability::Unsynced, |tx| {
        Box::pin(async move { tx.query("SELECT id FROM t ORDER BY id", &[], |row| row.get(0)).await })
    });
    read.await.unwrap()
}

/// Holds the database from outside, so that transactions gather, and lets it go when dropped.
struct Outsider(Connection);

fn outsider(path: &Path) -> Outsider {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    Outsider(connection)
}

impl Drop for Outsider {
    fn drop(&mut self) {
        self.0.execute_batch("ROLLBACK").unwrap();
    }
}

#[tokio::test]
async fn each_member_of_a_group_has_its_own_result() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    let writer = writer(&path, "PRAGMA busy_timeout = 5000");
    let outsider = outsider(&path);
    let (a, b, c, abandoned, panicked, waited, ()) = tokio::join!(
        put(&writer, 1, 10),
        put(&writer, 1, 10),
        put(&writer, 2, 10),
        writer.run(Durability::Synced, |tx| {
            Box::pin(async move {
                tx.execute("INSERT INTO t (id, bytes) VALUES (3, x'00')", &[]).await?;
                tx.abandon();
                Ok("refused")
            })
        }),
        writer.run(Durability::Synced, |tx| {
            Box::pin(async move {
                tx.execute("INSERT INTO t (id, bytes) VALUES (4, x'00')", &[]).await?;
                assert!(tx.now() < Timestamp(0), "a mistake in a body");
                Ok(())
            })
        }),
        writer.run(Durability::Synced, |tx| {
            Box::pin(async move {
                tx.execute("INSERT INTO t (id, bytes) VALUES (5, x'00')", &[]).await?;
                std::future::pending::<()>().await;
                Ok(())
            })
        }),
        async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(outsider);
        }
    );
    assert!(matches!((a, b, c), (Ok(1), Err(Error::Conflict { .. }), Ok(1))));
    assert_eq!(abandoned.unwrap(), "refused");
    assert!(matches!((panicked, waited), (Err(Error::Db { .. }), Err(Error::Db { .. }))));
    assert_eq!(ids(&writer).await, [1, 2]);
    assert_eq!(writer.stats().transactions, 7);
    assert!(writer.stats().synced_commits <= 2, "{:?}", writer.stats());
    writer.close().await;
    assert!(matches!(put(&writer, 9, 1).await, Err(Error::Db { .. })));
}

#[tokio::test]
async fn a_failed_commit_fails_all_and_the_writer_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    let writer = writer(&path, "PRAGMA busy_timeout = 5000");
    let outsider = outsider(&path);
    // The first transaction waits for the outsider alone; the rest become one group, which fails at its COMMIT.
    let (first, (good, orphan, again), ()) = tokio::join!(
        put(&writer, 1, 10),
        async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            tokio::join!(
                put(&writer, 2, 10),
                writer.run(Durability::Synced, |tx| {
                    Box::pin(async move { tx.execute("INSERT INTO child (id) VALUES (77)", &[]).await })
                }),
                put(&writer, 2, 10),
            )
        },
        async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            drop(outsider);
        }
    );
    assert!(first.is_ok());
    for failed in [good, orphan, again] {
        let error = failed.unwrap_err();
        assert!(matches!(error, Error::Conflict { .. }) && error.is_certainly_aborted());
    }
    assert_eq!(ids(&writer).await, [1]);
    assert!(put(&writer, 2, 10).await.is_ok());
    assert_eq!(writer.stats().failed_commits, 1);
}

#[tokio::test]
async fn a_full_disk_is_said_and_survived() {
    let directory = tempfile::tempdir().unwrap();
    let writer = writer(&directory.path().join("t.db"), "PRAGMA max_page_count = 20");
    assert!(put(&writer, 1, 10_000).await.is_ok());
    let (big, small) = tokio::join!(put(&writer, 2, 1_000_000), put(&writer, 3, 100));
    assert!(matches!(big, Err(Error::Full)));
    // Either it was not in the group of the other, or it was behind it and ran on its own, or it is told.
    assert!(matches!(small, Ok(1) | Err(Error::Full)));
    assert!(put(&writer, 4, 100).await.is_ok());
    assert!(ids(&writer).await.contains(&4) && !ids(&writer).await.contains(&2));
}

#[tokio::test]
async fn a_database_that_is_held_or_read_only_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    let writer = writer(&path, "");
    let held = outsider(&path);
    let start = std::time::Instant::now();
    assert!(matches!(put(&writer, 1, 1).await, Err(Error::Busy)));
    assert!(start.elapsed() < Duration::from_secs(5), "the wait is bounded");
    drop(held);
    assert!(put(&writer, 1, 1).await.is_ok());
    writer.close().await;

    let path = directory.path().join("r.db");
    let writer = super::tests::writer(&path, "PRAGMA query_only = 1");
    assert!(matches!(put(&writer, 1, 1).await, Err(Error::ReadOnly)));
}

/// A disk that is silent: who waits is told in time, whoever comes then at once, and all goes on when it answers.
#[tokio::test]
async fn nobody_waits_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    let options = Options { timeout: Duration::from_millis(200), ..Options::default() };
    let writer = writer_with(&path, "PRAGMA busy_timeout = 60000", &options);
    let held = outsider(&path);
    let (first, second) = tokio::join!(put(&writer, 1, 1), put(&writer, 2, 1));
    assert!(
        matches!((&first, &second), (Err(Error::Unsure { .. }), Err(Error::Unsure { .. }))),
        "{first:?} {second:?}"
    );
    let start = std::time::Instant::now();
    assert!(matches!(put(&writer, 3, 1).await, Err(Error::Unavailable { .. })));
    assert!(start.elapsed() < options.timeout);
    drop(held);
    while let Err(error) = put(&writer, 4, 1).await {
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
        assert!(start.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ids(&writer).await, [1, 2, 4], "what was handed over went on");
}

#[tokio::test]
async fn nothing_is_written_after_a_failed_sync() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    connection::create_file(&path).unwrap();
    let connection = connection::open_writer(&path, Duration::from_millis(50)).unwrap();
    connection.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT").unwrap();
    let (sender, receiver) = mpsc::channel(QUEUE);
    let stats = Arc::new(Mutex::new(Stats::default()));
    let mut state = State {
        tx: tx_of(connection, clock(), Arc::default()),
        synced: None,
        failed: Arc::new(AtomicBool::new(true)),
        stats: stats.clone(),
        left: VecDeque::new(),
        make_room: MakeRoom::default(),
        tight: false,
        progress: Arc::default(),
    };
    let thread = std::thread::spawn(move || state.serve(receiver));
    let writer = Writer {
        queue: Mutex::new(Some(sender)),
        thread: Mutex::new(Some(thread)),
        timeout: Duration::from_secs(60),
        failed: Arc::default(),
        progress: Arc::default(),
        silent_at: AtomicU64::new(u64::MAX),
        stats,
    };
    for durability in [Durability::Synced, Durability::Unsynced] {
        let result = writer.run(durability, |tx| {
            Box::pin(async move { tx.execute("INSERT INTO t (id, bytes) VALUES (1, x'00')", &[]).await })
        });
        assert!(matches!(result.await, Err(Error::ReadOnly)));
    }
}
