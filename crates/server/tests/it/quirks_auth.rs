//! Quirks of clients: authentication. The numbers are those of the list of quirks in `docs/reference/protocol.md`.

use oci::RepositoryName;
use serde_json::Value;

use crate::world::{HOST, World, basic, password, sha256};

/// What a client reads from the challenge.
fn challenge(answer: &crate::world::Answer) -> String {
    assert_eq!(answer.headers.get_all("www-authenticate").iter().count(), 1, "exactly one scheme");
    answer.header("www-authenticate")
}

#[tokio::test]
async fn q01_the_base_asks_for_a_login_always() {
    let world = World::new().await;
    world.grant("anonymous", "reader", "**").await;
    for path in ["/v2/", "/v2"] {
        for method in ["GET", "HEAD"] {
            let answer = world.call(method, path).nobody().send().await;
            assert_eq!(answer.status, 401);
            assert!(challenge(&answer).starts_with("Bearer "), "though anything can be pulled without a login");
        }
    }
}

#[tokio::test]
async fn q02_anonymous_pull_is_a_token_of_nobody() {
    let world = World::new().await;
    world.image("public/app", "v1", b"layer").await;
    world.image("private/app", "v1", b"layer").await;
    world.grant("anonymous", "reader", "public/**").await;
    let token = world.anonymous_token(&["repository:public/app:pull", "repository:private/app:pull"]).await;
    let pull = |path: &'static str| world.call("GET", path).bearer(&token).send();
    assert_eq!(pull("/v2/").await.status, 200);
    assert_eq!(pull("/v2/public/app/manifests/v1").await.status, 200);
    assert_eq!(pull("/v2/public/app/tags/list").await.status, 200);
    assert_eq!(pull("/v2/private/app/manifests/v1").await.told(), (404, "NAME_UNKNOWN".to_owned()));
    let missing = pull("/v2/missing/app/manifests/v1").await;
    assert!(missing.header("www-authenticate").contains("insufficient_scope"));
    let push = world.call("POST", "/v2/public/app/blobs/uploads/").bearer(&token).send().await;
    assert!(push.header("www-authenticate").contains(r#"error="insufficient_scope""#));
}

#[tokio::test]
async fn q03_an_empty_name_and_password_are_no_login() {
    let world = World::new().await;
    let answer = world.call("GET", "/v2/").authorization("Basic Og==").send().await;
    let without = world.call("GET", "/v2/").nobody().send().await;
    assert_eq!(answer.show(), without.show());
    let token = world.call("GET", "/token").authorization("Basic Og==").send().await;
    assert_eq!(token.status, 200);
}

#[tokio::test]
async fn q04_one_challenge_and_only_one_scheme() {
    let world = World::new().await;
    let answer = world.call("GET", "/v2/").nobody().send().await;
    assert_eq!(challenge(&answer), r#"Bearer realm="http://localhost:5000/token",service="localhost:5000""#);
    let world = World::with(&[("PORTCULLIS_AUTH__CHALLENGE", "basic")]).await;
    let answer = world.call("GET", "/v2/").nobody().send().await;
    assert_eq!(challenge(&answer), r#"Basic realm="localhost:5000""#);
    assert_eq!(world.get("/v2/").await.status, 200);
}

#[tokio::test]
async fn q05_the_challenge_is_canonical() {
    let world = World::new().await;
    let answer = world.call("GET", "/v2/team/app/manifests/v1").nobody().send().await;
    let expected = concat!(
        r#"Bearer realm="http://localhost:5000/token",service="localhost:5000","#,
        r#"scope="repository:team/app:pull""#
    );
    assert_eq!(challenge(&answer), expected);
}

// security: F-03
#[tokio::test]
async fn q06_the_realm_is_the_host_that_was_asked() {
    let world = World::with(&[("PORTCULLIS_SERVER__PUBLIC_URLS", "https://registry.example,http://inside:8080")]).await;
    for (host, realm) in [
        ("localhost:5000", "http://localhost:5000/token"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000/token"),
        ("registry.example", "https://registry.example/token"),
        ("REGISTRY.example:443", "https://registry.example/token"),
        ("inside:8080", "http://inside:8080/token"),
    ] {
        let answer = world.call("GET", "/v2/").nobody().host(Some(host)).send().await;
        assert!(challenge(&answer).contains(&format!(r#"realm="{realm}""#)), "{host}");
    }
    for host in ["evil.example", "registry.example:5000", "localhost", "user@registry.example"] {
        let answer = world.call("GET", "/v2/").nobody().host(Some(host)).send().await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (421, String::new()), "{host}");
    }
    assert_eq!(world.call("GET", "/v2/").nobody().host(None).send().await.status, 400);
    assert_eq!(world.call("GET", "/v2/").header("host", HOST).send().await.status, 400, "two");
    let forwarded = world.call("GET", "/v2/").nobody().header("x-forwarded-host", "evil.example").send().await;
    assert!(challenge(&forwarded).contains("http://localhost:5000/token"));
}

#[tokio::test]
async fn q07_tokens_are_small() {
    let world = World::new().await;
    let name = "x".repeat(RepositoryName::MAX - 2);
    let scopes: Vec<String> = (10..43).map(|i| format!("repository:{name}{i}:pull,push,delete")).collect();
    let ask = |count: usize| {
        let (world, target) = (&world, format!("/token?offline_token=true&scope={}", scopes[..count].join("+")));
        async move { world.call("GET", &target).send().await }
    };
    let most = ask(oci::MAX_SCOPES).await;
    assert!(most.status == 200 && most.body.len() < 64 * 1024);
    let token = most.json()["token"].as_str().unwrap().to_owned();
    assert!(token.len() <= 16 * 1024, "it fits in a header");
    assert_eq!(world.call("GET", "/v2/").bearer(&token).send().await.status, 200);
    assert_eq!(ask(oci::MAX_SCOPES + 1).await.told(), (400, "UNSUPPORTED".to_owned()));
}

/// The scopes of a token, as somebody who looks inside reads them.
fn access(token: &str) -> Vec<String> {
    use base64::Engine as _;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let text = |entry: &Value| {
        let actions: Vec<&str> = entry["actions"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        format!("{}:{}:{}", entry["type"].as_str().unwrap(), entry["name"].as_str().unwrap(), actions.join(","))
    };
    claims["access"].as_array().unwrap().iter().map(text).collect()
}

// security: B-01
#[tokio::test]
async fn q08_scopes_come_repeated_or_as_a_list() {
    let world = World::new().await;
    let expected = ["repository:a:pull", "repository:b:pull,push", "repository:c:pull"];
    let form = |scope: &str| format!("grant_type=password&username=maint&password=password+of+maint&{scope}");
    for scope in [
        "scope=repository:a:pull&scope=repository:b:push,pull&scope=repository:c:pull",
        "scope=repository:a:pull+repository:b:push,pull%20repository:c:pull",
        "scope=repository:a:pull&scope=repository:b:push,pull+repository:c:pull",
    ] {
        let got = world.call("GET", &format!("/token?{scope}")).send().await;
        assert_eq!(access(got.json()["token"].as_str().unwrap()), expected, "GET {scope}");
        let posted = world
            .call("POST", "/token")
            .nobody()
            .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
            .body(form(scope))
            .send()
            .await;
        assert_eq!(access(posted.json()["access_token"].as_str().unwrap()), expected, "POST {scope}");
    }
}

#[tokio::test]
async fn q09_a_login_asks_for_no_scope_and_is_tried_on_the_base() {
    let world = World::new().await;
    world.user("alice").await;
    let query = "/token?account=alice&client_id=docker&offline_token=true&service=localhost%3A5000";
    let login = world.call("GET", query).user("alice").send().await;
    let body = login.json();
    assert_eq!((login.status, body["expires_in"].as_u64()), (200, Some(900)));
    assert_eq!(login.header("cache-control"), "no-store");
    assert_eq!(body["token"], body["access_token"]);
    assert!(body["issued_at"].as_str().unwrap().starts_with("2027-01-15T"));
    let token = body["token"].as_str().unwrap();
    assert_eq!(world.call("GET", "/v2/").bearer(token).send().await.status, 200);
    // What docker keeps instead of the password.
    let refresh = body["refresh_token"].as_str().unwrap();
    let form = format!("grant_type=refresh_token&service=localhost&client_id=docker&refresh_token={refresh}");
    let again = world.call("POST", "/token").nobody().body(form).send().await;
    let token = again.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(world.call("GET", "/v2/").bearer(&token).send().await.status, 200);
    let wrong = world.call("GET", query).authorization(&basic("alice", "wrong")).send().await;
    assert_eq!(wrong.told(), (401, "UNAUTHORIZED".to_owned()));
    let anonymous = world.call("GET", query).nobody().send().await.json();
    assert!(anonymous.get("refresh_token").is_none(), "nobody has nothing to come back with");
}

#[tokio::test]
async fn q10_actions_in_any_order_and_with_a_star() {
    let world = World::new().await;
    for (scope, granted) in [
        ("repository:a/b:push,pull", "repository:a/b:pull,push"),
        ("repository:a/b:push,pull,delete", "repository:a/b:pull,push,delete"),
        ("repository:a/b:*", "repository:a/b:pull,push,delete"),
        ("repository:localhost:5000/a/b:pull", "repository:a/b:pull"),
        ("repository(plugin):a/b:pull,fly", "repository:a/b:pull"),
        ("registry:catalog:*", "registry:catalog:*"),
    ] {
        assert_eq!(access(&world.token("maint", &[scope]).await), [granted], "{scope}");
    }
    let catalog = world.token("maint", &["registry:catalog:*"]).await;
    assert_eq!(world.call("GET", "/v2/_catalog").bearer(&catalog).send().await.status, 200);
}

#[tokio::test]
async fn q11_a_token_lives_a_quarter_of_an_hour_and_is_judged_at_the_start() {
    let world = World::new().await;
    let token = world.token("maint", &["repository:a:pull,push"]).await;
    let start = world.call("POST", "/v2/a/blobs/uploads/").bearer(&token).send().await;
    let (bytes, location) = (b"slow", start.header("location"));
    // The body takes longer than the token lives.
    let now = world.clock_handle();
    let pieces = futures_util::stream::unfold(0, move |i| {
        let now = now.clone();
        async move {
            now.fetch_add(1_000_000, std::sync::atomic::Ordering::Relaxed);
            (i < 4).then(|| (Ok::<_, std::io::Error>(bytes::Bytes::copy_from_slice(&bytes[i..=i])), i + 1))
        }
    });
    let target = format!("{location}&digest={}", sha256(bytes));
    let body = axum::body::Body::from_stream(pieces);
    assert_eq!(world.call("PUT", &target).bearer(&token).body(body).send().await.status, 201);
    let late = world.call("GET", "/v2/").bearer(&token).send().await;
    assert!(late.header("www-authenticate").contains(r#"error="invalid_token""#));
}

#[tokio::test]
async fn q12_a_token_that_asked_for_less_is_challenged_with_one_scope() {
    let world = World::new().await;
    let token = world.token("maint", &["repository:a/b:pull"]).await;
    let answer = world.call("POST", "/v2/a/b/blobs/uploads/").bearer(&token).send().await;
    let expected = concat!(
        r#"Bearer realm="http://localhost:5000/token",service="localhost:5000","#,
        r#"scope="repository:a/b:pull,push",error="insufficient_scope""#
    );
    assert_eq!((answer.status, challenge(&answer).as_str()), (401, expected));
}

// security: C-01, C-03
#[tokio::test]
async fn q13_a_mount_from_what_one_may_not_read_is_an_upload() {
    let world = World::new().await;
    world.user("alice").await;
    world.grant("user:alice", "writer", "alice/**").await;
    let [_, _, secret] = world.image("secret/app", "v1", b"secret layer").await;
    let nothing = sha256(b"nowhere");
    let mount = |digest: &str, rest: &str| {
        let target = format!("/v2/alice/app/blobs/uploads/?mount={digest}{rest}");
        let world = &world;
        async move { world.call("POST", &target).user("alice").send().await.show() }
    };
    let missing = mount(&nothing, "&from=secret/app").await;
    assert!(missing.starts_with("202\n"));
    for rest in ["&from=secret/app", "&from=missing/app", "&from=UPPER/app", "&from=secret/app&origin=x", ""] {
        assert_eq!(mount(&secret, rest).await, missing, "{rest}");
    }
    // Nor is it a reason for a challenge. What a token holds of the source does not matter: the grants decide.
    let (target, source) = ("repository:alice/app:pull,push", "repository:secret/app:pull");
    let post = |token: String, rest: &'static str| {
        let target = format!("/v2/alice/app/blobs/uploads/?mount={secret}{rest}");
        let world = &world;
        async move { world.call("POST", &target).bearer(&token).send().await }
    };
    for scopes in [&[target][..], &[target, source]] {
        let token = world.token("alice", scopes).await;
        for rest in ["&from=secret/app", ""] {
            assert_eq!(post(token.clone(), rest).await.show(), missing, "{scopes:?} {rest}");
        }
    }
    assert_eq!(post(world.token("maint", &[target]).await, "&from=secret/app").await.status, 201);
}

// security: B-16, D-01
#[tokio::test]
async fn q14_who_may_not_see_learns_nothing() {
    let world = World::new().await;
    world.user("bare").await;
    let [manifest, _, layer] = world.image("hidden/app", "v1", b"layer").await;
    let open = world.post("/v2/hidden/app/blobs/uploads/").await;
    let upload = format!("/v2/NAME/blobs/uploads/{}", open.header("docker-upload-uuid"));
    let token = |name: &str| format!("repository:{name}:pull,push,delete");
    let token = world.token("bare", &[&token("hidden/app"), &token("absent/app")]).await;
    for (method, path) in [
        ("GET", "/v2/NAME/manifests/v1".to_owned()),
        ("HEAD", "/v2/NAME/manifests/v1".to_owned()),
        ("PUT", "/v2/NAME/manifests/v1".to_owned()),
        ("DELETE", format!("/v2/NAME/manifests/{manifest}")),
        ("GET", format!("/v2/NAME/blobs/{layer}")),
        ("HEAD", format!("/v2/NAME/blobs/{layer}")),
        ("POST", "/v2/NAME/blobs/uploads/".to_owned()),
        ("POST", format!("/v2/NAME/blobs/uploads/?mount={layer}&from=hidden/app")),
        ("GET", upload.clone()),
        ("PATCH", upload.clone()),
        ("PUT", format!("{upload}?digest={layer}")),
        ("DELETE", upload),
        ("DELETE", format!("/v2/NAME/blobs/{layer}")),
        ("GET", "/v2/NAME/tags/list".to_owned()),
        ("GET", format!("/v2/NAME/referrers/{manifest}")),
    ] {
        for by in ["nobody", "token", "basic"] {
            let ask = |name: &str| {
                let call = world.call(method, &path.replace("NAME", name));
                let call = match by {
                    "nobody" => call.nobody(),
                    "token" => call.bearer(&token),
                    _ => call.user("bare"),
                };
                async { call.send().await.show().replace("hidden/app", "NAME").replace("absent/app", "NAME") }
            };
            let (hidden, absent) = (ask("hidden/app").await, ask("absent/app").await);
            assert_eq!(hidden, absent, "{method} {path} {by}");
            assert_eq!(hidden.starts_with("401"), by == "nobody", "{method} {path} {by}: {hidden}");
        }
    }
}

#[tokio::test]
async fn q15_upload_urls_name_their_repository_and_end_in_the_id() {
    let world = World::new().await;
    let answer = world.post("/v2/team/app/blobs/uploads/").await;
    let location = answer.header("location");
    let path = location.split('?').next().unwrap();
    assert_eq!(path, format!("/v2/team/app/blobs/uploads/{}", answer.header("docker-upload-uuid")));
    // A body that is refused is not read, and its sender gets the answer all the same.
    let refused = world.call("PATCH", &location).nobody().body(vec![0; 1 << 20]).send().await;
    assert_eq!(refused.status, 401);
    assert!(refused.header("www-authenticate").contains("repository:team/app:pull,push"));
}

// security: D-03
#[tokio::test]
async fn wrong_passwords_are_the_same_for_all_names() {
    let world = World::new().await;
    world.user("alice").await;
    let of = |name: &'static str| async {
        world.call("GET", "/v2/").authorization(&basic(name, "wrong")).send().await.show()
    };
    let expected = of("alice").await;
    assert!(expected.starts_with("401"));
    for name in ["nobody-of-that-name", "Alice", "a/b", "admin"] {
        assert_eq!(of(name).await, expected, "{name}");
    }
    assert_eq!(world.call("GET", "/v2/").authorization(&basic("alice", &password("alice"))).send().await.status, 200);
}
