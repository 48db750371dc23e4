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
