//! What holds for every request of the admin API.

use axum::body::Body;
use serde_json::json;

use api::Route;

use crate::admin::Admin;
use crate::world::World;

async fn world() -> (World, Admin) {
    let world = World::new().await;
    let admin = Admin::of(&world);
    (world, admin)
}

fn pair(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// Set `UPDATE=1` to write the document anew.
#[test]
fn the_openapi_document_is_the_one_that_is_checked_in() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/openapi.json");
    let document = server::admin::document();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &document).unwrap();
    }
    let checked_in = std::fs::read_to_string(path).unwrap_or_default();
    assert!(document == checked_in, "docs/reference/openapi.json is not up to date: run this test with UPDATE=1");
}

#[tokio::test]
async fn the_openapi_document_describes_every_route() {
    let (_world, admin) = world().await;
    let document = admin.ask(Route::OpenApi, &[]).send().await.expect(200).json();
    for route in Route::ALL {
        let operation = &document["paths"][route.path()][route.method().as_str().to_lowercase()];
        assert_eq!(operation["operationId"], route.name());
        assert!(operation["responses"]["default"].is_object(), "{route:?}");
    }
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_taken() {
    let (_world, admin) = world().await;
    for target in ["/", "/api", "/api/v1", "/api/v1/", "/api/v1/users/", "/api/v2/users", "/v2/", "/api/v1/users/a/b"] {
        let told = admin.raw("GET", target).send().await;
        assert_eq!(told.told(), pair(404, "route_not_found"), "{target}");
    }
    let told = admin.raw("PUT", "/api/v1/users").send().await;
    assert_eq!(told.told(), pair(405, "method_not_allowed"));
    assert_eq!(told.headers["allow"], "GET,HEAD,POST");
    // Nothing is answered to a browser's question whether it may.
    let told = admin.raw("OPTIONS", "/api/v1/users").send().await;
    assert_eq!(told.status, 405);
    assert!(!told.headers.keys().any(|name| name.as_str().starts_with("access-control-")));
}

#[tokio::test]
async fn bodies_are_bounded_json_without_unknown_fields() {
    let (_world, admin) = world().await;
    let post = |body: &str, content_type: Option<&'static str>| {
        let body = Body::from(body.to_owned());
        admin.raw("POST", "/api/v1/users").send_raw(body, content_type)
    };
    let json = Some("application/json");
    for (body, content_type, status, code) in [
        ("{\"name\":\"a\"", json, 400, "invalid_request"),
        ("[]", json, 400, "invalid_request"),
        ("{\"name\":1}", json, 400, "invalid_request"),
        ("{\"name\":\"a\",\"has_admin_role\":true}", json, 400, "invalid_request"),
        ("{\"name\":\"a\",\"name\":\"b\"}", json, 400, "invalid_request"),
        ("{\"name\":\"a\"} x", json, 400, "invalid_request"),
        ("", json, 400, "invalid_request"),
        ("{\"name\":\"a\"}", None, 415, "unsupported_media_type"),
        ("{\"name\":\"a\"}", Some("text/plain"), 415, "unsupported_media_type"),
        ("name=a", Some("application/x-www-form-urlencoded"), 415, "unsupported_media_type"),
        ("{\"name\":\"a\"}", Some("application/json; charset=utf-8"), 201, ""),
    ] {
        let told = post(body, content_type).await;
        assert_eq!(told.told(), pair(status, code), "{body} {content_type:?}");
    }
    let long = format!("{{\"name\":\"{}\"}}", "a".repeat(api::BODY_LIMIT));
    assert_eq!(post(&long, json).await.told(), pair(413, "too_large"));
    let depth = format!("{{\"name\":{}", "[".repeat(10_000));
    assert_eq!(post(&depth, json).await.told(), pair(400, "invalid_request"));
}

/// Who may not is told so before the body is looked at.
#[tokio::test]
async fn the_decision_comes_before_the_body() {
    let (_world, admin) = world().await;
    let never = Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let told = admin.raw("POST", "/api/v1/users").tcp().send_raw(never, Some("application/json")).await;
    assert_eq!(told.told(), pair(401, "unauthorized"));
}

#[tokio::test]
async fn queries() {
    let (_world, admin) = world().await;
    for (target, status, code) in [
        ("/api/v1/users?limit=0", 400, "invalid_request"),
        ("/api/v1/users?limit=-1", 400, "invalid_request"),
        ("/api/v1/users?limit=99999999999999999999", 400, "invalid_request"),
        ("/api/v1/users?limit=0x10", 400, "invalid_request"),
        ("/api/v1/users?limit=1&limit=2", 400, "invalid_request"),
        ("/api/v1/users?password_hash=a", 400, "invalid_request"),
        ("/api/v1/users?limit=4000000000", 200, ""),
        ("/api/v1/grants?cursor=x", 400, "invalid_cursor"),
        ("/api/v1/grants?subject=alice", 422, "invalid_subject"),
        ("/api/v1/grants?subject=user:nobody", 404, "subject_not_found"),
        ("/api/v1/grants/x", 400, "invalid_request"),
        ("/api/v1/events?action=nothing", 400, "invalid_request"),
        ("/api/v1/events?since=yesterday", 400, "invalid_request"),
        ("/api/v1/events?order=random", 400, "invalid_request"),
        ("/api/v1/events?cursor=9223372036854775808", 400, "invalid_cursor"),
        ("/api/v1/jobs?cursor=x", 400, "invalid_cursor"),
        ("/api/v1/gc/plan?grace=soon", 400, "invalid_request"),
        ("/api/v1/repositories/A", 422, "invalid_name"),
        ("/api/v1/repositories/a%2F..%2Fb", 422, "invalid_name"),
        ("/api/v1/users/%FF", 400, "invalid_request"),
        ("/api/v1/users/..%2F..%2Fetc", 404, "user_not_found"),
    ] {
        let told = admin.raw("GET", target).send().await;
        assert_eq!(told.told(), pair(status, code), "{target}");
    }
}

#[tokio::test]
async fn b15_other_sites_are_refused() {
    let (_world, admin) = world().await;
    admin.administrator("boss").await;
    for origin in ["https://evil.example", "null", "http://localhost:5002"] {
        for (method, target) in [("POST", "/api/v1/users"), ("GET", "/api/v1/users"), ("OPTIONS", "/api/v1/users")] {
            let told = admin.raw(method, target).user("boss").header("origin", origin).send().await;
            assert_eq!(told.told(), pair(403, "cross_site"), "{origin} {method}");
            assert!(!told.headers.keys().any(|name| name.as_str().starts_with("access-control-")));
        }
    }
    let told = admin.raw("GET", "/api/v1/users").user("boss").header("sec-fetch-site", "cross-site").send().await;
    assert_eq!(told.told(), pair(403, "cross_site"));
    let own = admin.raw("GET", "/api/v1/users").user("boss").header("origin", "http://localhost:5001").send().await;
    assert_eq!(own.status, 200);
}

#[tokio::test]
async fn one_source_of_credentials_counts() {
    let (_world, admin) = world().await;
    admin.administrator("boss").await;
    let list = || admin.raw("GET", "/api/v1/users").tcp();
    let right = crate::world::basic("boss", &crate::world::password("boss"));
    let wrong = crate::world::basic("boss", "wrong");
    assert_eq!(list().header("authorization", &right).send().await.status, 200);
    assert_eq!(list().header("proxy-authorization", &right).send().await.status, 401);
    assert_eq!(list().header("cookie", &format!("authorization={right}")).send().await.status, 401);
    let twice = list().header("authorization", &right).header("authorization", &wrong).send().await;
    assert_eq!(twice.told(), pair(400, "invalid_request"));
    let told = list().header("authorization", &wrong).send().await;
    assert_eq!(told.told(), pair(401, "unauthorized"));
    assert_eq!(told.headers["www-authenticate"], "Basic realm=\"portcullis admin\", charset=\"UTF-8\"");
    assert_eq!(told.headers["cache-control"], "no-store");
    let overridden = list().header("x-http-method-override", "DELETE").send().await;
    assert_eq!(overridden.status, 401);
}

#[tokio::test]
async fn a_post_with_a_key_is_done_once() {
    let (_world, admin) = world().await;
    let post = |key: &str, body: serde_json::Value| {
        admin.ask(Route::UserCreate, &[]).header("idempotency-key", key).body(body).send()
    };
    let first = post("k1", json!({ "name": "alice" })).await.expect(201).json();
    assert!(first["password"].is_string());
    let again = post("k1", json!({ "name": "alice" })).await.expect(201).json();
    assert_eq!(again["password"], json!(null), "a secret is shown once");
    assert_eq!((&again["name"], &again["created_at"]), (&first["name"], &first["created_at"]));
    let other = post("k1", json!({ "name": "bob" })).await;
    assert_eq!(other.told(), pair(409, "idempotency_key_reused"));
    assert_eq!(post("k2", json!({ "name": "alice" })).await.told(), pair(409, "name_taken"));
    // What failed may be tried again with the same key, even corrected.
    assert_eq!(post("k2", json!({ "name": "Bob" })).await.told(), pair(422, "invalid_name"));
    post("k2", json!({ "name": "bob" })).await.expect(201);
    for key in ["", "with space", &"k".repeat(129)] {
        assert_eq!(post(key, json!({ "name": "carol" })).await.told(), pair(400, "invalid_idempotency_key"), "{key}");
    }
    // Keys are a caller's own.
    admin.administrator("boss").await;
    let own = admin.ask(Route::UserCreate, &[]).user("boss").header("idempotency-key", "k1");
    own.body(json!({ "name": "dora" })).send().await.expect(201);
}

#[tokio::test]
async fn keys_are_forgotten_after_a_day() {
    let (world, admin) = world().await;
    let post = |name: &str| {
        let ask = admin.ask(Route::UserCreate, &[]).header("idempotency-key", "k");
        ask.body(json!({ "name": name, "password": "p" })).send()
    };
    post("alice").await.expect(201);
    world.pass(24 * 60 * 60 - 1);
    assert_eq!(post("bob").await.status, 409);
    world.pass(2);
    post("bob").await.expect(201);
}

#[tokio::test]
async fn lists_are_paged_by_key() {
    let (_world, admin) = world().await;
    for i in 0..7 {
        admin.user(&format!("u{i}")).await;
    }
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let query = if cursor.is_empty() { "limit=3".to_owned() } else { format!("limit=3&cursor={cursor}") };
        let page = admin.ask(Route::UserList, &[]).query(&query).send().await.expect(200).json();
        names.extend(page["items"].as_array().unwrap().iter().map(|user| user["name"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(names, ["maint", "u0", "u1", "u2", "u3", "u4", "u5", "u6"]);
}

#[tokio::test]
async fn who_asks_and_what_runs() {
    let (_world, admin) = world().await;
    admin.administrator("boss").await;
    let told = admin.ask(Route::Whoami, &[]).send().await.expect(200).json();
    assert_eq!(told, json!({ "subject": "socket", "administrator": true, "credential": "socket" }));
    let told = admin.ask(Route::Whoami, &[]).user("boss").send().await.expect(200).json();
    assert_eq!(told, json!({ "subject": "user:boss", "administrator": true, "credential": "basic" }));
    let info = admin.ask(Route::ServerShow, &[]).send().await.expect(200).json();
    let engine = match testdb::engine() {
        testdb::Engine::Sqlite => "sqlite",
        testdb::Engine::Postgres => "postgres",
    };
    assert_eq!(info["database"], engine);
    assert!(info["free_bytes"].as_u64().unwrap() > 0 && info["store"].as_str().unwrap().len() == 36, "{info}");
}

// security: D-08
#[tokio::test]
async fn counting_through_ids_leads_nowhere() {
    let (_world, admin) = world().await;
    admin.user("alice").await;
    let held = admin.grant("user:alice", "reader", "team/app").await;
    for id in (held - 2..held + 20).map(|id| id.to_string()) {
        let ask = || admin.ask(Route::GrantRemove, &[&id]);
        let told = ask().user("alice").send().await.expect(403);
        assert_eq!(told.json()["error"]["code"], "denied", "the same for those that are there and those that are not");
        assert_eq!(ask().tcp().send().await.status, 401);
    }
    let jobs = ["1", "2", "00000000-0000-0000-0000-000000000000"];
    for id in jobs {
        assert_eq!(admin.ask(Route::JobShow, &[id]).user("alice").send().await.status, 403);
    }
    let left = admin.ask(Route::GrantList, &[]).send().await.expect(200).json();
    assert!(left["items"].as_array().unwrap().iter().any(|grant| grant["id"] == held), "{left}");
}
