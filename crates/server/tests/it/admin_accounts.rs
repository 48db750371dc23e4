//! Users, robots and grants through the admin API.

use api::Route;
use serde_json::{Value, json};

use crate::admin::Admin;
use crate::world::{World, basic, password};

async fn world() -> (World, Admin) {
    let world = World::new().await;
    let admin = Admin::of(&world);
    (world, admin)
}

fn pair(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// The status of a login by Basic.
async fn login(world: &World, name: &str, secret: &str) -> u16 {
    world.call("GET", "/v2/").authorization(&basic(name, secret)).send().await.status
}

/// Actions of the newest events, newest first.
async fn actions(admin: &Admin, limit: usize) -> Vec<String> {
    let told = admin.ask(Route::EventList, &[]).query(&format!("limit={limit}")).send().await.expect(200).json();
    told["items"].as_array().unwrap().iter().map(|event| event["action"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn users_from_first_to_last() {
    let (world, admin) = world().await;
    let made = admin.ask(Route::UserCreate, &[]).body(json!({ "name": "alice" })).send().await.expect(201).json();
    let first = made["password"].as_str().unwrap().to_owned();
    assert_eq!(made["administrator"], false);
    assert_eq!(login(&world, "alice", &first).await, 200);
    assert_eq!(login(&world, "alice", "wrong").await, 401);

    let token = world.call("GET", "/token").authorization(&basic("alice", &first)).send().await.json();
    let token = token["token"].as_str().unwrap().to_owned();
    assert_eq!(world.call("GET", "/v2/").bearer(&token).send().await.status, 200);
    let changed = admin.ask(Route::UserPassword, &["alice"]).body(json!({ "password": "pä:ss" })).send().await;
    assert_eq!(changed.expect(200).json(), json!({ "name": "alice", "password": null }));
    assert_eq!(login(&world, "alice", &first).await, 401, "the old password has ended");
    assert_eq!(world.call("GET", "/v2/").bearer(&token).send().await.status, 401, "and its tokens");
    assert_eq!(login(&world, "alice", "pä:ss").await, 200);

    let update = |body: Value| admin.ask(Route::UserUpdate, &["alice"]).body(body).send();
    assert_eq!(update(json!({ "disabled": true })).await.expect(200).json()["disabled"], true);
    assert_eq!(login(&world, "alice", "pä:ss").await, 401);
    assert_eq!(
        update(json!({ "disabled": false, "administrator": true })).await.expect(200).json()["administrator"],
        true
    );
    assert_eq!(login(&world, "alice", "pä:ss").await, 200);
    let events = ["user.enable", "user.administrator", "user.disable", "user.password", "user.add"];
    assert_eq!(actions(&admin, 5).await, events);

    admin.administrator("boss").await;
    admin.ask(Route::UserRemove, &["alice"]).send().await.expect(204);
    assert_eq!(login(&world, "alice", "pä:ss").await, 401);
    assert_eq!(admin.ask(Route::UserShow, &["alice"]).send().await.told(), pair(404, "user_not_found"));
}

#[tokio::test]
async fn names_and_passwords_that_are_refused() {
    let (_world, admin) = world().await;
    let post = |body: Value| admin.ask(Route::UserCreate, &[]).body(body).send();
    for name in ["", "Alice", ".a", "a b", "a/b", "a:b", "ä", &"a".repeat(65), "user:alice"] {
        assert_eq!(post(json!({ "name": name })).await.told(), pair(422, "invalid_name"), "{name}");
    }
    for password in ["", "a\nb", "a\u{0}", &"a".repeat(1025)] {
        let told = post(json!({ "name": "a", "password": password })).await;
        assert_eq!(told.told(), pair(422, "invalid_password"), "{password:?}");
    }
    post(json!({ "name": "a.b", "password": "x".repeat(1024) })).await.expect(201);
    assert_eq!(post(json!({ "name": "a.b" })).await.told(), pair(409, "name_taken"));
    let robot = json!({ "namespace": "a", "name": "b" });
    assert_eq!(admin.ask(Route::RobotCreate, &[]).body(robot).send().await.told(), pair(409, "name_taken"));
}

#[tokio::test]
async fn passwords_count_to_their_end() {
    let (world, admin) = world().await;
    let long = "x".repeat(72);
    let body = json!({ "name": "a", "password": format!("{long}y") });
    admin.ask(Route::UserCreate, &[]).body(body).send().await.expect(201);
    assert_eq!(login(&world, "a", &format!("{long}z")).await, 401);
    assert_eq!(login(&world, "a", &long).await, 401);
    assert_eq!(login(&world, "a", &format!("{long}y")).await, 200);
}

#[tokio::test]
async fn the_last_administrator_stays() {
    let (_world, admin) = world().await;
    admin.administrator("a").await;
    admin.administrator("b").await;
    let update = |name: &'static str, body: Value| admin.ask(Route::UserUpdate, &[name]).body(body).send();
    update("b", json!({ "disabled": true })).await.expect(200);
    let refused = pair(409, "last_administrator");
    assert_eq!(update("a", json!({ "disabled": true })).await.told(), refused);
    assert_eq!(update("a", json!({ "administrator": false })).await.told(), refused);
    assert_eq!(admin.ask(Route::UserRemove, &["a"]).send().await.told(), refused);
    // By the administrator too.
    assert_eq!(admin.ask(Route::UserRemove, &["a"]).user("a").send().await.told(), refused);
    update("b", json!({ "disabled": false })).await.expect(200);
    update("a", json!({ "administrator": false })).await.expect(200);
    assert_eq!(update("b", json!({ "administrator": false, "disabled": false })).await.told(), refused);
    // Two at once: one of them stays.
    update("a", json!({ "administrator": true })).await.expect(200);
    let (one, two) =
        tokio::join!(update("a", json!({ "administrator": false })), update("b", json!({ "administrator": false })));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
}

#[tokio::test]
async fn robots_have_secrets_that_end() {
    let (world, admin) = world().await;
    let body = json!({ "namespace": "payments/api", "name": "deploy" });
    let made = admin.ask(Route::RobotCreate, &[]).body(body).send().await.expect(201).json();
    assert_eq!(made["name"], "payments.api.deploy");
    let secret = |told: &Value| told["secret"].as_str().unwrap().to_owned();
    let first = secret(&made);
    assert!(registry::accounts::is_secret(&first));
    let days = |days: i64| oci::Timestamp(1_800_000_000_000).plus(std::time::Duration::from_secs(days as u64 * 86_400));
    assert_eq!(made["expires_at"], days(90).to_string());
    let rotate = |body: Value| admin.ask(Route::RobotRotate, &["payments.api.deploy"]).body(body).send();
    let logs_in = |secret: &str| {
        let (world, secret) = (&world, secret.to_owned());
        async move { login(world, "payments.api.deploy", &secret).await == 200 }
    };

    let second = secret(&rotate(json!({})).await.expect(200).json());
    assert!(logs_in(&first).await && logs_in(&second).await, "two live at a time");
    let third = secret(&rotate(json!({})).await.expect(200).json());
    assert!(!logs_in(&first).await && logs_in(&second).await && logs_in(&third).await);
    // A later expiry is the new secret's; the older ones end when they would have ended.
    let fourth = secret(&rotate(json!({ "expires_in": "200d" })).await.expect(200).json());
    let shown = admin.ask(Route::RobotShow, &["payments.api.deploy"]).send().await.expect(200).json();
    assert_eq!(shown["expires_at"], days(200).to_string());
    let ends: Vec<&Value> = shown["secrets"].as_array().unwrap().iter().map(|secret| &secret["expires_at"]).collect();
    assert_eq!(ends, [&json!(days(90).to_string()), &json!(days(200).to_string())]);
    assert!(logs_in(&third).await && logs_in(&fourth).await);
    world.pass(90 * 86_400);
    assert!(!logs_in(&third).await && logs_in(&fourth).await);
    let fifth = secret(&rotate(json!({ "revoke_old": true })).await.expect(200).json());
    assert!(!logs_in(&fourth).await && logs_in(&fifth).await);

    let update = |disabled: bool| {
        admin.ask(Route::RobotUpdate, &["payments.api.deploy"]).body(json!({ "disabled": disabled })).send()
    };
    update(true).await.expect(200);
    assert!(!logs_in(&fifth).await);
    update(false).await.expect(200);
    assert!(logs_in(&fifth).await);
    world.pass(110 * 86_400);
    assert!(!logs_in(&fifth).await, "a robot ends by itself");
    admin.ask(Route::RobotRemove, &["payments.api.deploy"]).send().await.expect(204);
}

#[tokio::test]
async fn robots_that_cannot_be() {
    let (_world, admin) = world().await;
    let post = |body: Value| admin.ask(Route::RobotCreate, &[]).body(body).send();
    for (namespace, name) in [("", "a"), ("A", "a"), ("a/", "a"), ("a", ""), ("a", "b/c"), ("a", "B"), ("a+b", "c")] {
        let told = post(json!({ "namespace": namespace, "name": name })).await;
        assert_eq!(told.told(), pair(422, "invalid_name"), "{namespace} {name}");
    }
    for expiry in [
        json!({ "expires_in": "0" }),
        json!({ "expires_in": "367d" }),
        json!({ "expires_at": "2020-01-01T00:00:00Z" }),
        json!({ "expires_at": "2037-01-01T00:00:00Z" }),
        json!({ "expires_in": "1d", "expires_at": "2027-02-01T00:00:00Z" }),
    ] {
        let mut body = json!({ "namespace": "a", "name": "b" });
        body.as_object_mut().unwrap().extend(expiry.as_object().unwrap().clone());
        assert_eq!(post(body).await.told(), pair(422, "invalid_expiry"), "{expiry}");
    }
    post(json!({ "namespace": "a", "name": "b", "expires_in": "366d" })).await.expect(201);
}

#[tokio::test]
async fn grants_act_at_once() {
    let (world, admin) = world().await;
    admin.user("alice").await;
    world.image("team/app", "v1", b"layer").await;
    let token = world.token("alice", &["repository:team/app:pull"]).await;
    let pull = || world.call("GET", "/v2/team/app/manifests/v1").user("alice").send();
    assert_eq!(pull().await.told(), pair(404, "NAME_UNKNOWN"));
    let id = admin.grant("user:alice", "reader", "team/**").await;
    assert_eq!(pull().await.status, 200);
    let fresh = world.token("alice", &["repository:team/app:pull"]).await;
    assert_eq!(world.call("GET", "/v2/team/app/manifests/v1").bearer(&fresh).send().await.status, 200);
    let old = world.call("GET", "/v2/team/app/manifests/v1").bearer(&token).send().await;
    assert_eq!(old.status, 401, "granted after the token was issued: a new one carries it");
    let shown = admin.ask(Route::GrantShow, &[&id.to_string()]).send().await.expect(200).json();
    assert_eq!(shown["verbs"], json!(["pull", "list"]));
    assert_eq!((&shown["role"], &shown["created_by"]), (&json!("reader"), &json!("socket")));
    admin.ask(Route::GrantRemove, &[&id.to_string()]).send().await.expect(204);
    let gone = world.call("GET", "/v2/team/app/manifests/v1").bearer(&fresh).send().await;
    assert_eq!(gone.told(), pair(404, "NAME_UNKNOWN"), "the token lives and gives nothing");

    let body = json!({ "subject": "user:alice", "verbs": ["pull"], "repository": "team/app", "expires_in": "1h" });
    admin.ask(Route::GrantCreate, &[]).body(body).send().await.expect(201);
    assert_eq!(pull().await.status, 200);
    world.pass(3600);
    assert_eq!(pull().await.told(), pair(404, "NAME_UNKNOWN"), "a grant ends by itself");
}

#[tokio::test]
async fn grants_that_cannot_be() {
    let (_world, admin) = world().await;
    admin.user("alice").await;
    let base = json!({ "subject": "user:alice", "role": "reader", "repository": "team/**" });
    let post = |change: Value| {
        let mut body = base.clone();
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        admin.ask(Route::GrantCreate, &[]).body(body).send()
    };
    let tags: Vec<String> = (0..65).map(|n| format!("v{n}")).collect();
    for (change, status, code) in [
        (json!({ "subject": "alice" }), 422, "invalid_subject"),
        (json!({ "subject": "group:web" }), 422, "invalid_subject"),
        (json!({ "subject": "robot:alice" }), 404, "subject_not_found"),
        (json!({ "subject": "user:bob" }), 404, "subject_not_found"),
        (json!({ "role": "owner" }), 422, "invalid_verbs"),
        (json!({ "role": null }), 422, "invalid_verbs"),
        (json!({ "verbs": ["pull"] }), 422, "invalid_verbs"),
        (json!({ "role": null, "verbs": [] }), 422, "invalid_verbs"),
        (json!({ "role": null, "verbs": ["write"] }), 422, "invalid_verbs"),
        (json!({ "subject": "anonymous", "role": "writer" }), 422, "invalid_verbs"),
        (json!({ "subject": "anonymous", "role": null, "verbs": ["push"] }), 422, "invalid_verbs"),
        (json!({ "repository": "Team" }), 422, "invalid_pattern"),
        (json!({ "repository": "**/app" }), 422, "invalid_pattern"),
        (json!({ "repository": "" }), 422, "invalid_pattern"),
        (json!({ "tags": ["v 1"] }), 422, "invalid_pattern"),
        (json!({ "tags": tags }), 422, "invalid_pattern"),
        (json!({ "expires_in": "0s" }), 422, "invalid_expiry"),
        (json!({ "reason": "two\nlines" }), 422, "invalid_value"),
        (json!({ "reason": "x".repeat(501) }), 422, "invalid_value"),
        (json!({ "project_id": 1 }), 400, "invalid_request"),
        (json!({ "subject": "anonymous" }), 201, ""),
        (json!({}), 201, ""),
    ] {
        assert_eq!(post(change.clone()).await.told(), pair(status, code), "{change}");
    }
    let there = post(json!({})).await;
    assert_eq!(there.told(), pair(409, "grant_exists"));
    let id = there.json()["error"]["details"]["id"].as_i64().unwrap();
    post(json!({ "role": "writer" })).await.expect(201);
    let of = |subject: &str| admin.ask(Route::GrantList, &[]).query(&format!("subject={subject}")).send();
    let listed = of("user:alice").await.expect(200).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    assert_eq!(listed["items"][0]["id"], id);
    assert_eq!(of("anonymous").await.json()["items"].as_array().unwrap().len(), 1);
    let removed = admin.ask(Route::GrantRemoveBySubject, &[]).query("subject=user:alice").send().await.expect(200);
    assert_eq!(removed.json(), json!({ "removed": 2 }));
    assert_eq!(of("user:alice").await.json()["items"], json!([]));
}

#[tokio::test]
async fn b14_nobody_makes_himself_an_administrator() {
    let (world, admin) = world().await;
    admin.user("alice").await;
    for body in [json!({ "administrator": true }), json!({ "name": "x", "administrator": true })] {
        for target in ["/api/v1/users", "/api/v1/users/alice"] {
            for method in ["POST", "PATCH"] {
                let told = admin.raw(method, target).user("alice").body(body.clone()).send().await;
                assert!(matches!(told.status, 403 | 405), "{method} {target}: {}", told.status);
            }
        }
    }
    // The main listener knows nothing of it.
    assert_eq!(world.call("GET", "/api/v1/users").send().await.status, 404);
}

#[tokio::test]
async fn sessions_open_this_api_and_nothing_else() {
    let (world, admin) = world().await;
    admin.administrator("boss").await;
    admin.grant("user:boss", "maintainer", "**").await;
    let session = admin.ask(Route::SessionCreate, &[]).user("boss").send().await.expect(200).json();
    let bearer = |value: &Value| format!("Bearer {}", value.as_str().unwrap());
    let whoami = |authorization: String| admin.ask(Route::Whoami, &[]).authorization(&authorization).send();
    assert_eq!(whoami(bearer(&session["token"])).await.expect(200).json()["credential"], "token");
    // Neither token opens the registry; the refresh token opens nothing by itself.
    for token in ["token", "refresh_token"] {
        let told = world.call("GET", "/v2/").authorization(&bearer(&session[token])).send().await;
        assert_eq!(told.status, 401, "{token}");
    }
    assert_eq!(whoami(bearer(&session["refresh_token"])).await.status, 401);
    // Nor do the token service's tokens open this API.
    let docker = world.call("GET", "/token?offline_token=true").user("boss").send().await.json();
    for token in ["token", "refresh_token"] {
        assert_eq!(whoami(bearer(&docker[token])).await.status, 401, "{token}");
    }
    let refresh =
        |token: &Value| admin.ask(Route::SessionRefresh, &[]).tcp().body(json!({ "refresh_token": token })).send();
    for token in ["token", "refresh_token"] {
        assert_eq!(refresh(&docker[token]).await.told(), pair(401, "unauthorized"), "{token}");
    }
    assert_eq!(refresh(&session["token"]).await.told(), pair(401, "unauthorized"));

    world.pass(16 * 60);
    assert_eq!(whoami(bearer(&session["token"])).await.status, 401, "a token lives for minutes");
    let next = refresh(&session["refresh_token"]).await.expect(200).json();
    whoami(bearer(&next["token"])).await.expect(200);
    admin.administrator("other").await;
    let demote = json!({ "administrator": false });
    admin.ask(Route::UserUpdate, &["boss"]).body(demote).send().await.expect(200);
    assert_eq!(whoami(bearer(&next["token"])).await.told(), pair(403, "denied"));
    assert_eq!(refresh(&session["refresh_token"]).await.told(), pair(403, "denied"));
    let promote = json!({ "administrator": true });
    admin.ask(Route::UserUpdate, &["boss"]).body(promote).send().await.expect(200);
    let body = json!({ "password": password("boss") });
    admin.ask(Route::UserPassword, &["boss"]).body(body).send().await.expect(200);
    assert_eq!(refresh(&session["refresh_token"]).await.told(), pair(401, "unauthorized"), "a new password ends all");
}

#[tokio::test]
async fn the_file_of_the_first_password_goes_with_it() {
    let (world, admin) = world().await;
    let data = world.state.config.data_dir.clone();
    std::fs::create_dir_all(&data).unwrap();
    let file = data.join("initial-password");
    std::fs::write(&file, "secret").unwrap();
    admin.administrator("admin").await;
    admin.user("alice").await;
    admin.ask(Route::UserPassword, &["alice"]).body(json!({})).send().await.expect(200);
    assert!(file.exists());
    admin.ask(Route::UserPassword, &["admin"]).body(json!({})).send().await.expect(200);
    assert!(!file.exists());
}

// security: M-02
#[tokio::test]
async fn m02_secrets_are_in_no_event_and_no_row() {
    let (world, admin) = world().await;
    let body = json!({ "name": "alice", "password": "canary-password" });
    admin.ask(Route::UserCreate, &[]).header("idempotency-key", "k").body(body).send().await.expect(201);
    let (_, secret) = admin.robot("team", "ci", "90d").await;
    admin.administrator("boss").await;
    let session = admin.ask(Route::SessionCreate, &[]).user("boss").send().await.expect(200).json();
    let events = admin.ask(Route::EventList, &[]).query("limit=1000").send().await.expect(200).body;
    let mut stored = events.to_vec();
    match world.database() {
        None => {
            for file in ["meta.db", "meta.db-wal"] {
                stored.extend(std::fs::read(world.folder().join(file)).unwrap_or_default());
            }
        }
        Some(database) => stored.extend(database.dump().unwrap().into_bytes()),
    }
    let found = |needle: &[u8]| stored.windows(needle.len()).any(|window| window == needle);
    // PostgreSQL prints columns of bytes in hexadecimal digits.
    let hexadecimal = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let contains = |needle: &str| found(needle.as_bytes()) || found(hexadecimal(needle).as_bytes());
    assert!(contains("user.add"), "the search finds what is there");
    let token = session["token"].as_str().unwrap();
    for canary in ["canary-password", &secret, token, session["refresh_token"].as_str().unwrap()] {
        assert!(!contains(canary), "{canary}");
    }
}
