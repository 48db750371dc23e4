//! Changes while rights change: the decision that a transaction acts on is of the rules of that transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use futures_util::future::BoxFuture;
use oci::Reference;
use policy::{Access, Need, Refusal, Role, Rules, authorize};
use registry::push::{self, Position};
use registry::{Error, Right, delete, pull};

use crate::common::*;

/// What alice may by rules of some epoch, which only a refresh brings up to the store's.
struct Alice<'a> {
    world: &'a World,
    repository: &'static str,
    epoch: AtomicI64,
    refreshed: AtomicU32,
    /// Whether the rules after a refresh still give her anything.
    stays: bool,
}

fn alice(world: &World, stays: bool) -> Alice<'_> {
    Alice { world, repository: "a/b", epoch: AtomicI64::new(1), refreshed: AtomicU32::new(0), stays }
}

impl Right for Alice<'_> {
    fn decide(&self) -> Result<Access, Refusal> {
        let epoch = self.epoch.load(Ordering::SeqCst);
        let holds = self.stays || epoch == 1;
        let rules = Arc::new(rules_of(epoch, if holds { Role::Maintainer } else { Role::Reader }));
        authorize(&rules, &self.world.caller(ALICE), &name(self.repository), Need::Push, self.world.time())
    }

    fn refresh(&self) -> BoxFuture<'_, Result<(), registry::Error>> {
        Box::pin(async {
            self.refreshed.fetch_add(1, Ordering::SeqCst);
            self.epoch.store(self.world.registry.db().policy_epoch().await?, Ordering::SeqCst);
            Ok(())
        })
    }
}

async fn rights_change(world: &World, user: &str) {
    let user = meta::NewUser { name: user.to_owned(), administrator: false, password_hash: None };
    world.registry.db().create_user(user, &meta::Actor::system("test")).await.unwrap();
}

async fn every_change(world: &World, right: &dyn Right, image: &Image) -> Vec<Result<(), Error>> {
    let (r, fresh, small) = (&world.registry, bytes(300_000), bytes(10));
    let access = world.access(ALICE, "a/b");
    let id = push::start(r, &access, None).await.unwrap().id;
    let position = Position::default();
    let (by_tag, by_digest) = (Reference::parse("v1").unwrap(), Reference::Digest(image.digest.clone()));
    let mut ends = vec![
        push_manifest_by(world, right, "v2", &image.bytes).await.map(drop),
        push::finish(r, &access, &id, position, &sha256(&fresh), body(&fresh), right).await.map(drop),
        push::monolithic(r, &access, &sha256(&fresh), None, body(&fresh), right).await.map(drop),
        push::monolithic(r, &access, &sha256(&small), None, body(&small), right).await.map(drop),
        push::mount(r, right, &name("a/c"), &sha256(b"layer other")).await.map(|done| assert!(done)),
        push::mount_from_anywhere(r, right, &sha256(b"config other")).await.map(|done| assert!(done)),
        delete::manifest(r, right, &by_tag).await,
        delete::manifest(r, right, &by_digest).await,
        delete::blob(r, right, &image.layer).await,
    ];
    ends.push(registry::repository::delete(r, right).await);
    ends
}

#[tokio::test]
async fn a_decision_by_older_rules_is_made_again() {
    let world = world().await;
    let image = world.push_image(&world.access(ALICE, "a/b"), "v1", "one").await;
    world.push_image(&world.access(ALICE, "a/c"), "v1", "other").await;
    rights_change(&world, "x").await;
    // Each by a right of its own would refresh each time; one that has refreshed is up to date.
    let right = alice(&world, true);
    for end in every_change(&world, &right, &image).await {
        end.unwrap();
    }
    assert_eq!(right.refreshed.load(Ordering::SeqCst), 1);
}

// security: B-19
#[tokio::test]
async fn b19_no_change_overtakes_a_revocation() {
    let world = world().await;
    let image = world.push_image(&world.access(ALICE, "a/b"), "v1", "one").await;
    world.push_image(&world.access(ALICE, "a/c"), "v1", "other").await;
    let files = world.files().len();
    // The rules at hand are old and still say yes; those of the store say no.
    rights_change(&world, "x").await;
    for change in 0..10 {
        let right = alice(&world, false);
        let mut ends = every_change(&world, &right, &image).await;
        assert!(matches!(ends.swap_remove(change), Err(Error::Refused(Refusal::Denied { .. }))), "{change}");
        assert_eq!(right.refreshed.load(Ordering::SeqCst), 1);
    }
    let old = alice(&world, true);
    pull::manifest(&world.registry, &old, &Reference::parse("v1").unwrap()).await.unwrap();
    assert!(pull::manifest(&world.registry, &old, &Reference::parse("v2").unwrap()).await.is_err());
    assert_eq!(world.read_blob(&old, &image.layer).await.unwrap(), b"layer one");
    assert_eq!(world.registry.db().count_uploads().await.unwrap(), 0);
    // The file of the session that was discarded is garbage; that of the upload in one request is gone.
    assert!(world.files().len() - files <= 10);
}

/// Rules that are never those of the store, as where rights change all the time: nothing is done, and a session goes on.
#[tokio::test]
async fn who_never_catches_up_is_told_to_try_again() {
    let world = world().await;
    let access = world.access(ALICE, "a/b");
    let image = world.push_image(&access, "v1", "one").await;
    world.push_image(&world.access(ALICE, "a/c"), "v1", "other").await;
    rights_change(&world, "x").await;
    for end in every_change(&world, &access, &image).await {
        assert!(matches!(end, Err(Error::Unavailable { .. })), "{end:?}");
    }
    assert_eq!(world.registry.db().count_uploads().await.unwrap(), 1, "that of the client who knows it");
    let read = world.read_blob(&access, &image.layer).await;
    assert!(matches!(read, Err(Error::Unavailable { .. })), "no read is by older rules either: {read:?}");
}

async fn push_manifest_by(world: &World, right: &dyn Right, tag: &str, bytes: &[u8]) -> Result<(), Error> {
    let reference = Reference::parse(tag).unwrap();
    let target = registry::manifest::Target { reference, tags: vec![], precondition: Default::default() };
    registry::manifest::push(&world.registry, right, target, None, bytes.to_vec().into()).await.map(drop)
}

fn rules_of(epoch: i64, role: Role) -> Rules {
    use policy::{Grant, Grantee, RepositoryPattern, Subject, SubjectId, SubjectKind};
    let subject = Subject {
        id: SubjectId(ALICE),
        name: "alice".into(),
        kind: SubjectKind::User,
        administrator: false,
        disabled: false,
        epoch: 1,
        expires_at: None,
    };
    let grant = Grant {
        id: 1,
        grantee: Grantee::Subject(SubjectId(ALICE)),
        verbs: role.verbs(),
        repository: RepositoryPattern::parse("**").unwrap(),
        tags: vec![],
        expires_at: None,
    };
    Rules::new(epoch, vec![subject], vec![grant])
}
