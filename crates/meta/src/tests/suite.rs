//! The suite of the seam on the engine under test, and the plans of all statements that it runs.

use super::Fresh;
use super::plans;
use crate::conformance;

macro_rules! suite {
    ($($case:ident)*) => {
        $(#[tokio::test]
        async fn $case() {
            let fresh = Fresh::open().await;
            conformance::$case(&fresh.bench).await;
        })*

        /// In one test, because the statements seen are those of the whole suite.
        #[tokio::test]
        async fn no_statement_walks_a_table() {
            // Boxed: all cases in one future would be larger than the stack.
            $(Box::pin(async {
                let fresh = Fresh::open().await;
                conformance::$case(&fresh.bench).await;
            })
            .await;)*
            plans::assert_no_walk(&Fresh::open().await).await;
        }
    };
}

suite! {
    sessions leases expiry finishing
    blob_life replaced_bytes mounts deleted_blobs
    manifest_life tag_rights all_or_nothing preconditions deleted_manifests sparse_indexes referrers tag_lists catalog
    graces touch_before_reference deleted_repositories holds checks
    users robots grants decisions signing_keys events idempotency
    serving
}
