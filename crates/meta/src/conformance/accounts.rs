//! Users, robots, grants, keys, events, idempotency keys.

use super::*;
use crate::{
    CreateGrant, Error, GrantRow, NewEvent, NewGrant, NewRobot, NewSigningKey, NewUser, OlderSecrets, Outcome,
    RemoveUser, Reserve, SubjectKind, UpdateUser, UserRow,
};

fn user(text: &str) -> NewUser {
    NewUser { name: text.to_owned(), administrator: false, password_hash: Some("$argon2id$1".to_owned()) }
}

fn grant_of(subject: Option<i64>) -> NewGrant {
    NewGrant {
        subject,
        role: Some("reader".to_owned()),
        verbs: "pull,list".to_owned(),
        repository: "team/**".to_owned(),
        tags: vec!["v*".to_owned()],
        expires_at: None,
        reason: None,
    }
}

async fn give(bench: &Bench, subject: Option<i64>, repository: &str) -> GrantRow {
    let grant = NewGrant { repository: repository.to_owned(), ..grant_of(subject) };
    match bench.db.create_grant(grant, &alice()).await.unwrap() {
        CreateGrant::Done(row) => row,
        other => panic!("{other:?}"),
    }
}

async fn update(bench: &Bench, name: &str, administrator: Option<bool>, disabled: Option<bool>) -> UserRow {
    match bench.db.update_user(name, administrator, disabled, &alice()).await.unwrap() {
        UpdateUser::Done(row) => row,
        other => panic!("{other:?}"),
    }
}

/// A change of rights is seen by the epoch; a change of credentials by the user's own.
pub async fn users(bench: &Bench) {
    let db = &bench.db;
    let first = NewUser { administrator: true, ..user("admin") };
    let admin = db.create_first_user(first.clone(), grant_of(None), &alice()).await.unwrap().unwrap();
    assert_eq!(db.create_first_user(first, grant_of(None), &alice()).await.unwrap(), None);
    let rules = db.rules().await.unwrap();
    assert_eq!((rules.subjects.len(), rules.grants[0].subject, rules.grants.len()), (1, Some(admin.id), 1));
    assert!(rules.subjects[0].administrator);

    let mut epoch = db.policy_epoch().await.unwrap();
    let created = db.create_user(user("bob"), &alice()).await.unwrap();
    assert!(matches!(db.create_user(user("bob"), &alice()).await, Err(Error::Conflict { .. })));
    for step in 0..6 {
        let now = db.policy_epoch().await.unwrap();
        assert!(now > epoch, "before step {step}");
        epoch = now;
        match step {
            0 => assert!(db.set_user_password("bob", "$argon2id$2", &alice()).await.unwrap()),
            1 => assert!(update(bench, "bob", None, Some(true)).await.disabled),
            2 => assert!(!update(bench, "bob", None, Some(false)).await.disabled),
            3 => assert!(update(bench, "bob", Some(true), None).await.administrator),
            4 => assert!(!update(bench, "bob", Some(false), None).await.administrator),
            _ => assert_eq!(give(bench, Some(created.id), "team/**").await.subject, Some(created.id)),
        }
    }
    let bob = db.user("bob").await.unwrap().unwrap();
    assert_eq!((bob.epoch, bob.disabled, bob.administrator), (created.epoch + 3, false, false));
    epoch = db.policy_epoch().await.unwrap();
    update(bench, "bob", Some(false), Some(false)).await;
    assert_eq!(db.policy_epoch().await.unwrap(), epoch, "nothing changed");
    for (administrator, disabled) in [(Some(false), None), (None, Some(true))] {
        let refused = db.update_user("admin", administrator, disabled, &alice()).await.unwrap();
        assert_eq!(refused, UpdateUser::LastAdministrator);
    }
    assert_eq!(db.remove_user("admin", &alice()).await.unwrap(), RemoveUser::LastAdministrator);
    db.set_last_login(vec![(created.id, bench.now()), (created.id, Timestamp(5))]).await.unwrap();
    let bob = db.user("bob").await.unwrap().unwrap();
    assert_eq!((bob.last_login_at, bob.password_hash.as_deref()), (Some(bench.now()), Some("$argon2id$2")));
    assert_eq!(db.credentials("bob").await.unwrap().unwrap().password_hash.as_deref(), Some("$argon2id$2"));
    assert_eq!(db.credentials("nobody").await.unwrap(), None);
    assert_eq!(db.users(Some("admin"), 10).await.unwrap(), [bob]);

    assert_eq!(db.remove_user("bob", &alice()).await.unwrap(), RemoveUser::Done);
    assert_eq!(db.remove_user("bob", &alice()).await.unwrap(), RemoveUser::Unknown);
    assert!(db.policy_epoch().await.unwrap() > epoch);
    assert_eq!(db.grants().await.unwrap().len(), 1, "its grants went with it");
    let again = db.create_user(user("bob"), &alice()).await.unwrap();
    assert!(again.id > created.id, "a row is never used again");
    for name in ["nobody", ""] {
        assert!(!db.set_user_password(name, "x", &alice()).await.unwrap());
        let unknown = db.update_user(name, Some(true), Some(true), &alice()).await.unwrap();
        assert_eq!(unknown, UpdateUser::Unknown);
    }
    assert_eq!(bench.told(Action::UserAdd).await.len(), 3);
    assert_eq!(bench.told(Action::UserEnable).await.len(), 1);
    assert_eq!(db.integrity_check().await.unwrap(), Vec::<String>::new());
}

/// A robot has at most two secrets; its name is not a user's.
pub async fn robots(bench: &Bench) {
    let db = &bench.db;
    let new = NewRobot {
        name: "team.deploy".to_owned(),
        namespace: "team".to_owned(),
        expires_at: bench.now().plus(HOUR),
        secret_hash: "hash-1".to_owned(),
    };
    db.create_user(user("team.other"), &alice()).await.unwrap();
    let taken = NewRobot { name: "team.other".to_owned(), ..new.clone() };
    assert!(matches!(db.create_robot(taken, &alice()).await, Err(Error::Conflict { .. })));
    let robot = db.create_robot(new, &alice()).await.unwrap();
    assert!(matches!(db.create_user(user("team.deploy"), &alice()).await, Err(Error::Conflict { .. })));
    assert_eq!((robot.namespace.as_str(), robot.expires_at), ("team", Some(bench.now().plus(HOUR))));
    let hashes = |robot: &crate::RobotRow| robot.secrets.iter().map(|s| s.hash.clone()).collect::<Vec<_>>();
    assert_eq!(hashes(&robot), ["hash-1"]);
    let rotate = |hash: &'static str, older, expires_at| async move {
        db.rotate_robot("team.deploy", hash, older, expires_at, &alice()).await.unwrap().unwrap()
    };
    let second = rotate("hash-2", OlderSecrets::KeepNewest, None).await;
    assert_eq!((hashes(&second), second.epoch), (vec!["hash-1".to_owned(), "hash-2".to_owned()], robot.epoch));
    let later = bench.now().plus(HOUR * 2);
    let third = rotate("hash-3", OlderSecrets::KeepNewest, Some(later)).await;
    assert_eq!((hashes(&third), third.epoch), (vec!["hash-2".to_owned(), "hash-3".to_owned()], robot.epoch + 1));
    assert_eq!(third.expires_at, Some(later));
    assert_eq!((third.secrets[0].expires_at, third.secrets[1].expires_at), (robot.expires_at, None));
    let rotated = rotate("hash-4", OlderSecrets::End, None).await;
    assert_eq!((hashes(&rotated), rotated.epoch), (vec!["hash-4".to_owned()], robot.epoch + 2));
    let none = db.rotate_robot("team.other", "x", OlderSecrets::End, None, &alice()).await.unwrap();
    assert_eq!(none, None);
    assert_eq!(db.robot("team.other").await.unwrap(), None);
    assert_eq!(db.user("team.deploy").await.unwrap(), None);
    assert_eq!(db.robots(None, 10).await.unwrap(), [rotated]);
    let credentials = db.credentials("team.deploy").await.unwrap().unwrap();
    assert_eq!((credentials.subject.kind, credentials.secrets.len()), (SubjectKind::Robot, 1));
    for disabled in [true, false] {
        let row = db.update_robot("team.deploy", disabled, &alice()).await.unwrap().unwrap();
        assert_eq!(row.disabled, disabled);
    }
    assert_eq!(db.update_robot("team.other", true, &alice()).await.unwrap(), None);
    assert_eq!(db.remove_user("team.deploy", &alice()).await.unwrap(), RemoveUser::Unknown);
    assert!(db.remove_robot("team.deploy", &alice()).await.unwrap());
    assert!(!db.remove_robot("team.deploy", &alice()).await.unwrap());
    assert_eq!(db.subjects().await.unwrap().len(), 1);
}

/// Grants are listed with who they are for, and taken away one by one or all of a subject.
pub async fn grants(bench: &Bench) {
    let db = &bench.db;
    let bob = db.create_user(user("bob"), &alice()).await.unwrap();
    let first = give(bench, Some(bob.id), "team/**").await;
    assert_eq!((first.subject_name.as_str(), first.tags.as_slice()), ("user:bob", ["v*".to_owned()].as_slice()));
    assert_eq!((first.created_by.as_str(), first.created_at), ("user:alice", bench.now()));
    for (subject, repository) in [(None, "a"), (Some(bob.id), "b"), (None, "c")] {
        give(bench, subject, repository).await;
    }
    let again = db.create_grant(grant_of(Some(bob.id)), &alice()).await.unwrap();
    assert_eq!(again, CreateGrant::There(first.id));
    let nobody = db.create_grant(grant_of(Some(bob.id + 1)), &alice()).await.unwrap();
    assert_eq!(nobody, CreateGrant::NoSubject);
    assert_eq!(db.grant(first.id).await.unwrap(), Some(first.clone()));
    let repositories = |of, after| async move {
        let page = db.list_grants(of, after, 2).await.unwrap();
        page.into_iter().map(|grant| grant.repository).collect::<Vec<_>>()
    };
    assert_eq!(repositories(None, Some(first.id)).await, ["a", "b"]);
    assert_eq!(repositories(Some(None), None).await, ["a", "c"]);
    assert_eq!(repositories(Some(Some(bob.id)), Some(first.id)).await, ["b"]);
    let epoch = db.policy_epoch().await.unwrap();
    assert!(db.remove_grant(first.id, &alice()).await.unwrap());
    assert!(!db.remove_grant(first.id, &alice()).await.unwrap());
    assert_eq!(db.remove_grants_of(None, &alice()).await.unwrap(), 2);
    assert_eq!(db.remove_grants_of(None, &alice()).await.unwrap(), 0);
    assert_eq!(db.grants().await.unwrap().len(), 1);
    assert_eq!(db.policy_epoch().await.unwrap(), epoch + 2);
    let told = bench.told(Action::GrantRemove).await;
    assert_eq!(told.len(), 3);
    assert!(told[0].detail.as_deref().unwrap().contains("\"user:bob\""));
}

/// A change that was decided on by other rules than those of the moment is not made. Whoever is disabled or removed has
/// no uploads any more.
pub async fn decisions(bench: &Bench) {
    let (db, app) = (&bench.db, name("team/app"));
    let pushed = bench.push_blob("team/app", 1, "key-1").await;
    let manifest = image("m", &[]);
    db.push_manifest(&app, manifest.clone(), vec![any("v")], &alice()).await.unwrap();
    let bob = db.create_user(user("bob"), &alice()).await.unwrap();
    let old = Actor { policy_epoch: Some(db.policy_epoch().await.unwrap()), ..alice() };
    let grant = give(bench, Some(bob.id), "team/**").await;
    let before = db.events(&EventFilter::default(), None, 100).await.unwrap().len();
    let outdated = |end: Result<(), Error>| assert!(matches!(end, Err(Error::Outdated)), "{end:?}");
    outdated(db.push_manifest(&app, image("n", &[]), vec![any("w")], &old).await.map(drop));
    outdated(db.finish_upload(&app, None, blob(2, "key-2"), &old).await.map(drop));
    outdated(db.mount_blob(&name("team/other"), &app, &pushed, false, &old).await.map(drop));
    outdated(db.delete_tag(&app, &tag("v"), &FREE, &old).await.map(drop));
    outdated(db.delete_manifest(&app, &manifest.digest, Arc::new(|_| true), &FREE, &old).await.map(drop));
    outdated(db.delete_blob(&app, &pushed, &old).await.map(drop));
    outdated(db.delete_repository(&app, &old).await.map(drop));
    assert_eq!(db.events(&EventFilter::default(), None, 100).await.unwrap().len(), before);

    // A session outlives that: the rules are asked again, and it is finished.
    db.create_upload("one", &app, bob.id, None, 9).await.unwrap();
    let lease = db.lease_upload(&app, "one", bob.id, "request", HOUR).await.unwrap();
    assert!(matches!(lease, crate::Lease::Taken(_)));
    outdated(db.finish_upload(&app, Some(("one", "request")), blob(2, "key-2"), &old).await.map(drop));
    let new = || async { Actor { policy_epoch: Some(db.policy_epoch().await.unwrap()), ..alice() } };
    let done = db.finish_upload(&app, Some(("one", "request")), blob(2, "key-2"), &new().await).await.unwrap();
    assert_eq!(done, crate::Finish::Done);
    db.delete_tag(&app, &tag("v"), &FREE, &new().await).await.unwrap();

    let actor = new().await;
    db.remove_grant(grant.id, &alice()).await.unwrap();
    outdated(db.delete_blob(&app, &pushed, &actor).await.map(drop));
    for (id, end) in [("two", false), ("three", true)] {
        db.create_upload(id, &app, bob.id, None, 9).await.unwrap();
        db.create_upload(&format!("other-{id}"), &app, bob.id + 1, None, 9).await.unwrap();
        db.lease_upload(&app, id, bob.id, "request", HOUR).await.unwrap();
        assert!(db.name_upload_key(id, "request", &format!("key-{id}")).await.unwrap());
        match end {
            false => assert!(update(bench, "bob", None, Some(true)).await.disabled),
            true => assert_eq!(db.remove_user("bob", &alice()).await.unwrap(), RemoveUser::Done),
        }
        assert_eq!(db.upload(&app, id, bob.id).await.unwrap(), None);
        assert!(bench.garbage_keys().await.contains(&format!("key-{id}")));
        assert!(!db.name_upload_key(id, "request", "key").await.unwrap());
    }
    assert_eq!(db.count_uploads().await.unwrap(), 2, "those of others stay");
    bench.assert_sound().await;
}

/// Keys are kept wrapped, retired and never lost.
pub async fn signing_keys(bench: &Bench) {
    let db = &bench.db;
    for id in ["k1", "k2"] {
        let wrapped = Bytes::copy_from_slice(id.as_bytes());
        let key = NewSigningKey { id: id.to_owned(), purpose: "token".to_owned(), wrapped };
        db.add_signing_key(key.clone(), &alice()).await.unwrap();
        assert!(matches!(db.add_signing_key(key, &alice()).await, Err(Error::Conflict { .. })));
        bench.pass(HOUR);
    }
    assert!(db.retire_signing_key("k1", &alice()).await.unwrap());
    assert!(!db.retire_signing_key("k1", &alice()).await.unwrap());
    let keys = db.signing_keys().await.unwrap();
    assert_eq!(
        keys.iter().map(|k| (k.id.as_str(), k.retired_at.is_some())).collect::<Vec<_>>(),
        [("k1", true), ("k2", false)]
    );
    assert_eq!(keys[0].wrapped, Bytes::from_static(b"k1"));
    assert_eq!(bench.told(Action::KeyRotated).await.len(), 3);
}

/// Events are listed both ways, by every filter, and page by page.
pub async fn events(bench: &Bench) {
    let db = &bench.db;
    let start = bench.now();
    for n in 0..20 {
        let actor = Actor { name: format!("user:u{}", n % 2), subject: Some(n % 2), ..alice() };
        let mut event = NewEvent::new(if n % 4 == 0 { Action::Denied } else { Action::Login }, &actor);
        event.outcome = if n % 4 == 0 { Outcome::Denied } else { Outcome::Ok };
        if n % 5 == 0 {
            event = event.repository(&name("team/app")).digest(&digest("m")).detail(serde_json::json!({ "count": n }));
        }
        db.append_events(vec![event]).await.unwrap();
        bench.pass(HOUR);
    }
    let late = NewEvent { time: Some(start.plus(HOUR * 19)), ..NewEvent::new(Action::Stop, &Actor::system("s")) };
    db.append_events(vec![late]).await.unwrap();
    let count = |filter: EventFilter| async move { db.events(&filter, None, 100).await.unwrap().len() };
    let all = EventFilter::default();
    assert_eq!(count(all.clone()).await, 21);
    assert_eq!(count(EventFilter { action: Some(Action::Denied), ..all.clone() }).await, 5);
    assert_eq!(count(EventFilter { subject: Some("user:u1".to_owned()), ..all.clone() }).await, 10);
    assert_eq!(count(EventFilter { repository: Some("team/app".to_owned()), ..all.clone() }).await, 4);
    assert_eq!(count(EventFilter { since: Some(start.plus(HOUR * 15)), ..all.clone() }).await, 6);
    assert_eq!(count(EventFilter { until: Some(start.plus(HOUR * 15)), ..all.clone() }).await, 15);
    let since = Some(start.plus(HOUR * 5));
    let both = EventFilter { since, subject: Some("user:u0".to_owned()), action: Some(Action::Denied), ..all.clone() };
    assert_eq!(count(both).await, 3);
    assert_eq!(count(EventFilter { since: Some(start.plus(HOUR * 100)), ..all.clone() }).await, 0);
    let first = db.events(&all, None, 15).await.unwrap();
    let rest = db.events(&all, Some(first[14].id), 15).await.unwrap();
    assert_eq!((first.len(), rest.len()), (15, 6));
    let newest = db.events_before(&all, None, 3).await.unwrap();
    assert_eq!(newest[0], rest[5]);
    assert_eq!(db.events_before(&all, Some(newest[2].id), 1).await.unwrap()[0], rest[2]);
    assert_eq!((first[0].outcome.as_str(), first[0].action.as_str()), ("denied", "denied"));
    for action in Action::ALL {
        assert_eq!(Action::parse(action.as_str()), Some(*action));
    }
}

/// A request is done once however often it is sent.
pub async fn idempotency(bench: &Bench) {
    let db = &bench.db;
    let reserve = |hash: &'static [u8]| db.reserve_idempotency("user:alice", "k", hash);
    assert_eq!(reserve(b"a").await.unwrap(), Reserve::New);
    assert_eq!(reserve(b"a").await.unwrap(), Reserve::Running);
    assert_eq!(reserve(b"b").await.unwrap(), Reserve::Mismatch);
    assert_eq!(db.reserve_idempotency("user:bob", "k", b"b").await.unwrap(), Reserve::New);
    db.release_idempotency("user:alice", "k").await.unwrap();
    assert_eq!(reserve(b"a").await.unwrap(), Reserve::New);
    let answer = Bytes::from_static(b"{}");
    db.complete_idempotency("user:alice", "k", 201, answer.clone()).await.unwrap();
    db.release_idempotency("user:alice", "k").await.unwrap();
    assert_eq!(reserve(b"a").await.unwrap(), Reserve::Done { status: 201, answer });
    bench.pass(HOUR);
    assert_eq!(db.expire_idempotency(bench.now().minus(HOUR * 2), 10).await.unwrap(), 0);
    assert_eq!(db.expire_idempotency(bench.now().minus(HOUR), 10).await.unwrap(), 2);
    assert_eq!(reserve(b"b").await.unwrap(), Reserve::New);
}
