//! Any request to the main listener: a byte for who asks, a line for method and target, a line for each header up to an
//! empty one, then the body.

use axum::body::Body;
use http::{HeaderName, HeaderValue, Method, Request};

use crate::Input;
use crate::oracle::percent_decoded;
use crate::world::{Answer, HOST, World, basic};

// security, G-07
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let who = input.below(3);
    let line = input.text_line();
    let (method, target) = line.split_once(' ').unwrap_or(("GET", &line));
    let Ok(method) = method.parse::<Method>() else { return };
    let mut request = Request::builder().method(&method).uri(target).header("host", HOST);
    if who > 0 {
        request = request.header("authorization", basic());
    }
    loop {
        let line = input.line();
        let Some(at) = line.iter().position(|byte| *byte == b':') else { break };
        let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(&line[..at]), HeaderValue::from_bytes(line[at + 1..].trim_ascii()))
        else {
            return;
        };
        // A second one of these is refused before anything else, which is tried elsewhere; nobody stays nobody.
        if name != "host" && name != "authorization" {
            request = request.header(name, value);
        }
    }
    let body = input.rest();
    let Ok(request) = request.body(Body::from(body.to_vec())) else { return };
    let path = request.uri().path().to_owned();
    let mounted = mounted(&method, request.uri().query().unwrap_or_default());
    World::with(|world, _| {
        let answer = world.ask(request);
        answer.check(method == Method::HEAD);
        judge(&answer, &path, who > 0);
        if answer.status == 201 {
            stored(world, answer.header("location"), body, mounted.as_deref());
        }
    });
}

fn judge(answer: &Answer, path: &str, known: bool) {
    if path != "/v2" && !path.starts_with("/v2/") {
        return;
    }
    assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
    if !known {
        assert!(matches!(answer.status, 400 | 401 | 414 | 421), "{answer:?}");
    } else if answer.status < 300 {
        // The version, lists of what one may see, and what is the robot's.
        let open = ["/v2", "/v2/", "/v2/_catalog", "/v2/_oci/ext/discover"];
        let decoded = percent_decoded(path).unwrap();
        assert!(
            open.contains(&decoded.as_str()) || decoded.contains("/referrers/") || decoded.starts_with("/v2/team/"),
            "{path} {answer:?}"
        );
    }
}

/// The digest of the blob that a request wants to have mounted: its bytes are in another repository, not in the request.
fn mounted(method: &Method, query: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let mount = pairs.find(|(key, _)| key == "mount").filter(|_| method == Method::POST);
    mount.map(|(_, digest)| digest.into_owned())
}

/// What was accepted is there, byte for byte, under the digest that was told: the body, or the blob that was to be mounted.
fn stored(world: &World, location: &str, body: &[u8], mounted: Option<&str>) {
    let request = Request::builder().uri(location).header("host", HOST).header("authorization", basic());
    let answer = world.ask(request.body(Body::empty()).unwrap());
    answer.check(false);
    assert_eq!(answer.status, 200, "{location} {answer:?}");
    let digest = location.rsplit('/').next().unwrap();
    match mounted {
        Some(mounted) => assert_eq!(digest, mounted),
        None => assert_eq!(answer.body, body),
    }
    assert_eq!(answer.header("docker-content-digest"), digest);
    assert!(crate::oracle::manifest::is_digest_of(digest, &answer.body));
    assert!(world.findings().is_empty(), "{:?}", world.findings());
}
