//! Repositories and tags.

use serde_json::json;

use crate::harness::Sandbox;

#[test]
fn repositories_and_tags() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve();
    assert_eq!(sandbox.json(&["repo", "list"]), json!({"items": [], "next": null}));
    let digest = server.push("team/app", "v1", b"layer one");
    server.push("team/app", "v2", &vec![7; 100_000]);
    server.push("other", "v1", b"layer one");

    let list = sandbox.json(&["repo", "list"]);
    let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["other", "team/app"]);
    let shown = sandbox.json(&["repo", "show", "team/app"]);
    assert_eq!((&shown["tags"], &shown["manifests"], &shown["blobs"]), (&json!(2), &json!(2), &json!(3)), "{shown}");
    assert!(sandbox.run(&["repo", "show", "team/app"]).succeeded().stdout.contains("97.6 KiB"));

    let tags = sandbox.json(&["tag", "list", "team/app"]);
    let tag = tags["items"][0].as_object().unwrap();
    let fields: Vec<_> = tag.keys().map(String::as_str).collect();
    assert_eq!(fields, ["name", "digest", "media_type", "size", "pushed_at", "pushed_by"]);
    assert_eq!((&tag["name"], &tag["digest"], &tag["pushed_by"]), (&json!("v1"), &json!(digest), &json!("user:admin")));
    assert!(sandbox.run(&["tag", "list", "team/app"]).succeeded().stdout.contains(&digest));

    sandbox.run(&["tag", "delete", "team/app", "v1"]).exited(2);
    sandbox.run(&["tag", "delete", "team/app", "v1", "--yes"]).succeeded();
    assert_eq!(sandbox.run(&["tag", "delete", "team/app", "v1", "--yes", "--json"]).exited(1).code(), "tag_not_found");
    assert_eq!(sandbox.json(&["tag", "list", "team/app"])["items"].as_array().unwrap().len(), 1);

    sandbox.run(&["repo", "delete", "team/app"]).exited(2);
    sandbox.run(&["repo", "delete", "team/app", "--yes"]).succeeded();
    assert_eq!(sandbox.run(&["repo", "show", "team/app", "--json"]).exited(1).code(), "repository_not_found");
    assert_eq!(sandbox.run(&["tag", "list", "team/app", "--json"]).exited(1).code(), "repository_not_found");
    assert_eq!(sandbox.run(&["repo", "show", "NOT/a/name", "--json"]).exited(2).code(), "invalid_name");
}

#[test]
fn a_body_that_comes_too_slowly_is_answered_408_with_one_reason() {
    use std::io::{Read, Write};
    let sandbox = Sandbox::new();
    sandbox.write("portcullis.toml", "[limits]\nprogress_time = '1s'\n");
    let server = sandbox.serve();
    let address = server.address("main");
    let login = crate::harness::login();
    for (method, path) in [("POST", "/v2/a/b/blobs/uploads/?digest=sha256:{}"), ("PUT", "/v2/a/b/manifests/v1")] {
        let path = path.replace("{}", &"0".repeat(64));
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Basic {login}\r\n\
             Content-Type: application/vnd.oci.image.manifest.v1+json\r\nContent-Length: 50000\r\n\r\nab"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        assert!(answer.contains("more slowly than limits.progress") && !answer.contains("stopping"), "{answer}");
    }
}
