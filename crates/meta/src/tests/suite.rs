//! The suite of the seam on SQLite, and the plans of all statements that it runs.

use super::{disk, plans};
use crate::conformance;

macro_rules! suite {
    ($($case:ident)*) => {
        $(#[tokio::test]
        async fn $case() {
            let disk = disk();
            conformance::$case(&disk.bench).await;
        })*

        /// In one test, because the statements seen are those of the whole suite.
        #[tokio::test]
        async fn no_statement_walks_a_table() {
            $({
                let disk = disk();
                conformance::$case(&disk.bench).await;
            })*
            plans::assert_no_walk(&disk().path);
        }
    };
}

suite! {
    sessions leases expiry finishing
    blob_life replaced_bytes mounts deleted_blobs
    manifest_life tag_rights all_or_nothing preconditions deleted_manifests sparse_indexes referrers tag_lists catalog
    graces touch_before_reference deleted_repositories holds checks
    users robots grants decisions signing_keys events idempotency
}
