//! Nothing is decided by rules that are not the database's: another server may have changed them. And what that costs.

use meta::{Actor, Engine, NewGrant};

use crate::world::*;

/// How many statements a request took.
async fn statements(world: &World, method: &str, target: &str, status: u16) -> u64 {
    let before = world.db().stats().statements;
    let answer = world.call(method, target).send().await;
    assert_eq!(answer.status, status, "{method} {target}: {}", answer.text());
    world.db().stats().statements - before
}

#[tokio::test]
async fn a_pull_is_one_query() {
    let world = World::new().await;
    let [digest, config, layer] = world.image("a/b", "v1", &[7; 100_000]).await;
    for method in ["GET", "HEAD"] {
        // The first request checks the password.
        world.get("/v2/a/b/tags/list").await;
        for target in [
            "/v2/a/b/manifests/v1".to_owned(),
            format!("/v2/a/b/manifests/{digest}"),
            format!("/v2/a/b/blobs/{layer}"),
            format!("/v2/a/b/blobs/{config}"),
        ] {
            assert_eq!(statements(&world, method, &target, 200).await, 1, "{method} {target}");
        }
    }
    // Whatever is not decided with its query asks for the epoch first, where others may have changed the rules.
    let asked = u64::from(world.db().engine() == Engine::Postgres);
    assert_eq!(statements(&world, "GET", "/v2/", 200).await, asked);
    assert_eq!(statements(&world, "GET", "/v2/a/b/tags/list", 200).await, asked + 2);
}

/// A change of rights as another server makes it: this one is not told.
async fn revoke_elsewhere(world: &World, user: &str) {
    let id = world.db().credentials(user).await.unwrap().unwrap().subject.id;
    world.db().remove_grants_of(Some(id), &Actor::system("elsewhere")).await.unwrap();
}

// security: B-19
#[tokio::test]
async fn a_revocation_elsewhere_holds_for_the_next_pull() {
    let world = World::new().await;
    let [digest, _, layer] = world.image("a/b", "v1", &[7; 100_000]).await;
    world.user("bob").await;
    let targets =
        ["/v2/a/b/manifests/v1".to_owned(), format!("/v2/a/b/manifests/{digest}"), format!("/v2/a/b/blobs/{layer}")];
    for method in ["GET", "HEAD"] {
        for target in &targets {
            world.grant("user:bob", "reader", "a/**").await;
            let token = world.token("bob", &["repository:a/b:pull"]).await;
            assert_eq!(world.call(method, target).bearer(&token).send().await.status, 200);
            assert_eq!(world.call(method, target).user("bob").send().await.status, 200);
            revoke_elsewhere(&world, "bob").await;
            assert_eq!(world.call(method, target).bearer(&token).send().await.status, 404, "{method} {target}");
            assert_eq!(world.call(method, target).user("bob").send().await.status, 404, "{method} {target}");
        }
    }
}

/// Where others may change the rules: a denial, a token and a list are by those of the database too.
#[tokio::test]
async fn what_is_granted_or_taken_elsewhere_counts_for_everything() {
    let world = World::new().await;
    world.image("a/b", "v1", b"layer").await;
    world.user("bob").await;
    let bob = world.db().credentials("bob").await.unwrap().unwrap().subject.id;
    assert_eq!(world.call("GET", "/v2/a/b/manifests/v1").user("bob").send().await.status, 404);
    let grant = NewGrant {
        subject: Some(bob),
        role: None,
        verbs: "pull,list".to_owned(),
        repository: "a/**".to_owned(),
        tags: vec![],
        expires_at: None,
        reason: None,
    };
    world.db().create_grant(grant, &Actor::system("elsewhere")).await.unwrap();
    let shared = world.db().engine() == Engine::Postgres;
    let (granted, denied) = if shared { (200, 404) } else { (404, 404) };
    if !shared {
        // One process makes every change and builds its rules anew before it answers one; nobody asks for them.
        assert_eq!(world.call("GET", "/v2/a/b/manifests/v1").user("bob").send().await.status, granted);
        world.reload().await;
    }
    assert_eq!(world.call("GET", "/v2/a/b/manifests/v1").user("bob").send().await.status, 200);
    assert_eq!(world.call("GET", "/v2/a/b/tags/list").user("bob").send().await.status, 200);
    revoke_elsewhere(&world, "bob").await;
    if !shared {
        world.reload().await;
    }
    assert_eq!(world.call("GET", "/v2/a/b/tags/list").user("bob").send().await.status, denied);
    assert!(
        world.call("GET", "/v2/_catalog").user("bob").send().await.json()["repositories"]
            .as_array()
            .unwrap()
            .is_empty()
    );
}
