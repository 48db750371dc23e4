//! Collection against a model, and collection against pushes at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use oci::Digest;
use proptest::prelude::*;

use super::Fresh;
use crate::conformance::{Bench, FREE, GRACE, HOUR, alice, any, blob, digest, image, name, tag};
use crate::{Actor, DeleteBlob, DeleteManifest, DeleteTag, PushManifest};

const REPOSITORIES: [&str; 2] = ["team/a", "team/b"];

#[derive(Clone, Debug)]
enum Step {
    PushBlob { repository: usize, blob: u64 },
    Mount { from: usize, blob: u64 },
    PushManifest { repository: usize, manifest: u64, tag: u64 },
    DeleteManifest { repository: usize, manifest: u64 },
    DeleteTag { repository: usize, tag: u64 },
    DeleteBlob { repository: usize, blob: u64 },
    DeleteRepository { repository: usize },
    Pass { hours: u32 },
    Collect,
}

fn step() -> impl Strategy<Value = Step> {
    let (repository, few) = (0..REPOSITORIES.len(), 0..4u64);
    prop_oneof![
        4 => (repository.clone(), few.clone()).prop_map(|(repository, blob)| Step::PushBlob { repository, blob }),
        1 => (repository.clone(), few.clone()).prop_map(|(from, blob)| Step::Mount { from, blob }),
        5 => (repository.clone(), few.clone(), few.clone())
            .prop_map(|(repository, manifest, tag)| Step::PushManifest { repository, manifest, tag }),
        2 => (repository.clone(), few.clone())
            .prop_map(|(repository, manifest)| Step::DeleteManifest { repository, manifest }),
        1 => (repository.clone(), few.clone()).prop_map(|(repository, tag)| Step::DeleteTag { repository, tag }),
        1 => (repository.clone(), few).prop_map(|(repository, blob)| Step::DeleteBlob { repository, blob }),
        1 => repository.prop_map(|repository| Step::DeleteRepository { repository }),
        3 => (0..4u32).prop_map(|hours| Step::Pass { hours }),
        3 => Just(Step::Collect),
    ]
}

/// What a repository must have. The time of a blob is its last reference or push, in hours.
#[derive(Clone, Debug, Default)]
struct Repository {
    exists: bool,
    blobs: BTreeMap<u64, u32>,
    manifests: BTreeSet<u64>,
    tags: BTreeMap<u64, u64>,
}

/// The blobs that manifest number `m` needs.
fn layers(manifest: u64) -> [u64; 2] {
    [manifest, (manifest + 1) % 4]
}

#[derive(Debug, Default)]
struct Model {
    repositories: [Repository; 2],
    now: u32,
    keys: u32,
}

impl Model {
    fn needed(&self, repository: usize, blob: u64) -> bool {
        self.repositories[repository].manifests.iter().any(|manifest| layers(*manifest).contains(&blob))
    }

    fn delete_manifest(&mut self, repository: usize, manifest: u64) {
        let now = self.now;
        let there = &mut self.repositories[repository];
        there.manifests.remove(&manifest);
        there.tags.retain(|_, to| *to != manifest);
        for layer in layers(manifest) {
            there.blobs.entry(layer).and_modify(|touched| *touched = now);
        }
    }

    async fn apply(&mut self, bench: &Bench, step: &Step) {
        match step {
            Step::PushBlob { repository, blob } => {
                self.keys += 1;
                bench.push_blob(REPOSITORIES[*repository], *blob, &format!("key-{}", self.keys)).await;
                let there = &mut self.repositories[*repository];
                there.exists = true;
                there.blobs.insert(*blob, self.now);
            }
            Step::Mount { from, blob: number } => {
                let (from, to) = (*from, 1 - *from);
                let has = self.repositories[from].blobs.contains_key(number);
                let digest = blob(*number, "").digest;
                let (source, target) = (name(REPOSITORIES[from]), name(REPOSITORIES[to]));
                assert_eq!(bench.db.mount_blob(&target, &source, &digest, false, &alice()).await.unwrap(), has);
                if has {
                    self.repositories[to].exists = true;
                    self.repositories[to].blobs.insert(*number, self.now);
                }
            }
            Step::PushManifest { repository, manifest, tag } => self.push(bench, *repository, *manifest, *tag).await,
            Step::DeleteManifest { repository, manifest } => {
                let there = self.repositories[*repository].manifests.contains(manifest);
                let digest = digest(&format!("manifest {manifest}"));
                let judge = std::sync::Arc::new(|_: &oci::Tag| true);
                let deleted = bench
                    .db
                    .delete_manifest(&name(REPOSITORIES[*repository]), &digest, judge, &FREE, &alice())
                    .await
                    .unwrap();
                assert_eq!(matches!(deleted, DeleteManifest::Done { .. }), there);
                if there {
                    self.delete_manifest(*repository, *manifest);
                }
            }
            Step::DeleteTag { repository, tag: number } => {
                let there = self.repositories[*repository].tags.remove(number).is_some();
                let tag = tag(&format!("v{number}"));
                let deleted =
                    bench.db.delete_tag(&name(REPOSITORIES[*repository]), &tag, &FREE, &alice()).await.unwrap();
                assert_eq!(deleted == DeleteTag::Done, there);
            }
            Step::DeleteBlob { repository, blob: number } => {
                let digest = blob(*number, "").digest;
                let deleted = bench.db.delete_blob(&name(REPOSITORIES[*repository]), &digest, &alice()).await.unwrap();
                let there = self.repositories[*repository].blobs.contains_key(number);
                match deleted {
                    DeleteBlob::Unknown => assert!(!there),
                    DeleteBlob::InUse(_) => assert!(there && self.needed(*repository, *number)),
                    DeleteBlob::Done => {
                        assert!(there && !self.needed(*repository, *number));
                        self.repositories[*repository].blobs.remove(number);
                    }
                }
            }
            Step::DeleteRepository { repository } => {
                let deleted = bench.db.delete_repository(&name(REPOSITORIES[*repository]), &alice()).await.unwrap();
                assert_eq!(deleted, self.repositories[*repository].exists);
                self.repositories[*repository] = Repository::default();
            }
            Step::Pass { hours } => {
                bench.pass(HOUR * *hours);
                self.now += hours;
            }
            Step::Collect => {
                let cutoff = bench.now().minus(GRACE);
                let upload_cutoff = bench.now().minus(HOUR * 1000);
                while bench.db.gc_repositories(3, &Actor::system("gc")).await.unwrap().more {}
                let plan = bench.db.gc_plan(bench.now(), cutoff, upload_cutoff).await.unwrap();
                let removed = bench.collect().await;
                assert_eq!(removed, [plan.manifests, plan.links, plan.blobs], "the plan is what is done");
                let (now, needed) = (self.now, |model: &Self, r, b| model.needed(r, b));
                for repository in 0..REPOSITORIES.len() {
                    let gone: Vec<u64> = self.repositories[repository]
                        .blobs
                        .iter()
                        .filter(|(blob, touched)| *touched + 4 <= now && !needed(self, repository, **blob))
                        .map(|(blob, _)| *blob)
                        .collect();
                    for blob in gone {
                        self.repositories[repository].blobs.remove(&blob);
                    }
                }
            }
        }
    }

    async fn push(&mut self, bench: &Bench, repository: usize, manifest: u64, tag: u64) {
        let digests = layers(manifest).map(|layer| blob(layer, "").digest);
        let pushed = image(&format!("manifest {manifest}"), &digests.each_ref());
        let tags = vec![any(&format!("v{tag}"))];
        let result = bench.db.push_manifest(&name(REPOSITORIES[repository]), pushed, tags, &alice()).await.unwrap();
        let there = &mut self.repositories[repository];
        let missing: Vec<Digest> = layers(manifest)
            .into_iter()
            .filter(|layer| !there.blobs.contains_key(layer))
            .map(|layer| blob(layer, "").digest)
            .collect();
        if missing.is_empty() {
            assert!(matches!(result, PushManifest::Done { .. }), "{result:?}");
            there.manifests.insert(manifest);
            there.tags.insert(tag, manifest);
            for layer in layers(manifest) {
                there.blobs.insert(layer, self.now);
            }
        } else {
            assert_eq!(result, PushManifest::MissingBlobs(missing));
        }
    }

    /// Everything that must be there is there and readable; nothing else is.
    async fn check(&self, bench: &Bench) {
        let garbage = bench.garbage_keys().await;
        for (text, there) in REPOSITORIES.iter().zip(&self.repositories) {
            let (index, repository) = (REPOSITORIES.iter().position(|r| r == text).unwrap(), name(text));
            for number in 0..4 {
                let row = bench.db.blob(&repository, &blob(number, "").digest, None).await.unwrap();
                assert_eq!(row.is_some(), there.blobs.contains_key(&number), "blob {number} in {text}");
                if let Some(row) = row {
                    let crate::Location::File { key, .. } = row.location else { panic!("not a file") };
                    assert!(!garbage.contains(&key), "the bytes of a blob are garbage");
                    assert_eq!(row.accepted, self.needed(index, number));
                }
                let digest = digest(&format!("manifest {number}"));
                let row = bench.db.manifest_by_digest(&repository, &digest, u64::MAX, None).await.unwrap();
                assert_eq!(row.is_some(), there.manifests.contains(&number), "manifest {number} in {text}");
                let row =
                    bench.db.manifest_by_tag(&repository, &tag(&format!("v{number}")), u64::MAX, None).await.unwrap();
                let to = there.tags.get(&number).map(|manifest| format!("manifest {manifest}").into_bytes());
                assert_eq!(row.and_then(|row| row.bytes).map(|bytes| bytes.to_vec()), to, "tag {number} in {text}");
            }
        }
        bench.assert_sound().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_what_it_must_and_nothing_else(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let fresh = Fresh::open().await;
            let bench = &fresh.bench;
            // Every reference touches, so that the model needs no thresholds.
            bench.db.set_touch_after(Duration::ZERO);
            let mut model = Model::default();
            for step in &steps {
                model.apply(bench, step).await;
                model.check(bench).await;
            }
            for repository in REPOSITORIES {
                bench.db.delete_repository(&name(repository), &alice()).await.unwrap();
            }
            bench.collect().await;
            bench.pass(GRACE);
            bench.collect().await;
            prop_assert!(bench.db.check_blobs(None, 100).await.unwrap().is_empty());
            prop_assert!(bench.db.check_links(None, 100).await.unwrap().is_empty());
            prop_assert!(bench.db.check_manifests(None, 100).await.unwrap().is_empty());
            let all: BTreeSet<String> = (1..=model.keys).map(|n| format!("key-{n}")).collect();
            prop_assert_eq!(bench.garbage_keys().await, all, "every key that was ever used");
            Ok(())
        })?;
    }
}

/// Old blobs that nothing names, collection, and a push that names them, all at once, many times: the push either has
/// them all, for good, or says that they are missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_races_with_collection() {
    let fresh = Fresh::open().await;
    let (bench, db) = (&fresh.bench, &fresh.bench.db);
    db.set_touch_after(GRACE / 4);
    let mut ends = [0, 0];
    for round in 0..150u64 {
        let layers: Vec<Digest> = {
            let mut layers = Vec::new();
            for n in 0..4 {
                layers.push(bench.push_blob("team/app", round * 4 + n, &format!("key-{round}-{n}")).await);
            }
            layers
        };
        bench.pass(GRACE * 2);
        let cutoff = bench.now().minus(GRACE);
        let collecting = {
            let db = db.clone();
            tokio::spawn(async move {
                for _ in 0..4 {
                    db.gc_links(cutoff, 1, &Actor::system("gc")).await.unwrap();
                    db.gc_blobs(cutoff, 1, &Actor::system("gc")).await.unwrap();
                }
            })
        };
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        let pushed = image(&format!("m{round}"), &layers.iter().collect::<Vec<_>>());
        let result = db.push_manifest(&name("team/app"), pushed, vec![], &alice()).await.unwrap();
        collecting.await.unwrap();
        bench.collect().await;
        let mut there = 0;
        for layer in &layers {
            there += usize::from(db.blob(&name("team/app"), layer, None).await.unwrap().is_some());
        }
        match result {
            PushManifest::Done { .. } => {
                ends[0] += 1;
                assert_eq!(there, 4, "round {round}: collection took a blob under a push");
            }
            PushManifest::MissingBlobs(missing) => {
                ends[1] += 1;
                assert!(!missing.is_empty() && there == 0, "round {round}");
            }
            PushManifest::TagDenied { .. } | PushManifest::PreconditionFailed => panic!("there were no tags"),
        }
    }
    println!("{} pushes won, {} lost", ends[0], ends[1]);
    bench.assert_sound().await;
}
