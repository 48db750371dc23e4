//! Long lists are read page by page, each page as fast as the first.

use std::time::{Duration, Instant};

use super::Fresh;
use crate::DeleteManifest;
use crate::conformance::{FREE, alice, any, digest, image, name};

#[tokio::test]
async fn a_hundred_thousand_tags() {
    const TAGS: usize = 100_000;
    let fresh = Fresh::open().await;
    let (db, app) = (&fresh.bench.db, name("team/app"));
    for chunk in (0..TAGS).collect::<Vec<_>>().chunks(10_000) {
        let tags = chunk.iter().map(|n| any(&format!("v{n:06}"))).collect();
        db.push_manifest(&app, image("m", &[]), tags, &alice()).await.unwrap();
    }
    db.push_manifest(&app, image("other", &[]), vec![any("last")], &alice()).await.unwrap();
    let mut slowest = Duration::ZERO;
    let (mut read, mut last) = (0, None::<String>);
    loop {
        let start = Instant::now();
        let page = db.tags(&app, last.as_deref(), 1000).await.unwrap().unwrap();
        slowest = slowest.max(start.elapsed());
        let Some(end) = page.last() else { break };
        last = Some(end.as_str().to_owned());
        read += page.len();
    }
    assert_eq!(read, TAGS + 1);
    assert!(slowest < Duration::from_secs(2), "a page took {slowest:?}");
    assert_eq!(db.tags(&app, None, usize::MAX).await.unwrap().unwrap().len(), TAGS + 1);

    // Deleting one of the manifests looks at its own tags only.
    let start = Instant::now();
    let deleted =
        db.delete_manifest(&app, &digest("other"), std::sync::Arc::new(|_| true), &FREE, &alice()).await.unwrap();
    assert!(matches!(deleted, DeleteManifest::Done { tags } if tags.len() == 1));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}
