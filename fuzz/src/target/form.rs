//! The token service: the form of `POST /token`, or, with a `?` first, the query of `GET /token` by the robot.

use axum::body::Body;
use http::Request;
use oci::{Actions, Resource};

use crate::world::{HOST, ROBOT, SECRET, World, basic};

// security: B-01
pub fn run(data: &[u8]) {
    World::with(|world, _| ask(world, &String::from_utf8_lossy(data)));
}

fn ask(world: &World, text: &str) {
    let request = Request::builder().header("host", HOST);
    let (fields, request) = match text.strip_prefix('?') {
        Some(query) => {
            let request = request.uri(format!("/token?{query}")).header("authorization", basic());
            (query, request.body(Body::empty()))
        }
        None => {
            let request = request.method("POST").uri("/token");
            (text, request.body(Body::from(text.to_owned())))
        }
    };
    let Ok(request) = request else { return };
    let by_form = request.method() == http::Method::POST;
    // A fragment, which no client sends, ends what the URL holds.
    let fields = if by_form { fields } else { fields.split('#').next().unwrap_or_default() };
    let fields: Vec<(String, String)> =
        form_urlencoded::parse(fields.as_bytes()).map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
    let values = |name: &str| -> Vec<&str> {
        fields.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    };
    let answer = world.ask(request);
    answer.check(false);
    let many = oci::parse_scopes(values("scope")).is_err();
    let logs_in = !by_form
        || (values("grant_type"), values("username"), values("password"))
            == (vec!["password"], vec![ROBOT], vec![SECRET])
            && values("refresh_token").len() <= 1;
    if answer.status != 200 {
        assert!(matches!(answer.status, 400 | 401), "{answer:?}");
        assert!(!logs_in || many, "{answer:?}");
        return;
    }
    assert!(logs_in && !many, "{answer:?}");
    let json = answer.json();
    let token = json["token"].as_str().unwrap();
    assert_eq!(json["access_token"].as_str(), Some(token));
    assert!(token.len() <= server::fuzzing::MAX_TOKEN);
    assert_eq!(answer.header("cache-control"), "no-store");
    opens(world, token, &oci::parse_scopes(values("scope")).unwrap());
}

/// The token opens `team/app` if that was asked, and never what is not the robot's.
fn opens(world: &World, token: &str, scopes: &[(Resource, Actions)]) {
    let get = |path: &str| {
        let request =
            Request::builder().uri(path).header("host", HOST).header("authorization", format!("Bearer {token}"));
        let answer = world.ask(request.body(Body::empty()).unwrap());
        answer.check(false);
        (answer.status, answer.code())
    };
    assert_eq!(get("/v2/"), (200, String::new()));
    for name in ["team/app", "other/app"] {
        let actions = scopes.iter().find(|(resource, _)| resource.to_string() == format!("repository:{name}"));
        let told = get(&format!("/v2/{name}/tags/list"));
        match actions {
            // What was not asked can be asked for.
            None => assert_eq!(told, (401, "UNAUTHORIZED".to_owned())),
            // One is hidden, the other does not exist: who may pull is told the same.
            Some((_, actions)) if actions.pull || name == "other/app" => {
                assert!(matches!(told.0, 401 | 404), "{told:?}");
                assert!(told.0 == 401 && !actions.pull || told.1 == "NAME_UNKNOWN", "{told:?}");
            }
            Some(_) => assert!(matches!(told.0, 401 | 403 | 404), "{told:?}"),
        }
    }
}
