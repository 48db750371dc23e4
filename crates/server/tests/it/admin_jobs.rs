//! Collection, backup, checks, repositories and events through the admin API.

use api::Route;
use serde_json::{Value, json};

use crate::admin::Admin;
use crate::world::{World, image};

async fn world() -> (World, Admin) {
    let world = World::new().await;
    let data = &world.state.config.data_dir;
    std::fs::create_dir_all(data).unwrap();
    std::fs::write(data.join("format.json"), "{}").unwrap();
    let admin = Admin::of(&world);
    (world, admin)
}

fn pair(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn a_plan_says_what_a_collection_then_does() {
    let (world, admin) = world().await;
    let large = vec![7; 40_000];
    world.image("team/app", "v1", b"kept").await;
    world.blob("team/app", &large).await;
    let plan = |query: &'static str| admin.ask(Route::GcPlan, &[]).query(query).send();
    let nothing = plan("").await.expect(200).json();
    assert_eq!((&nothing["blobs"], &nothing["links"], &nothing["bytes"]), (&json!(0), &json!(0), &json!(0)));
    let planned = plan("grace=0").await.expect(200).json();
    assert_eq!(planned["links"], 1, "{planned}");
    world.pass(1);
    let job = admin.job(Route::GcRun, json!({ "grace": "0s" })).await;
    assert_eq!((&job["kind"], &job["state"], &job["started_by"]), (&json!("gc"), &json!("done"), &json!("socket")));
    assert_eq!((&job["report"]["links"], &job["report"]["blobs"]), (&json!(1), &json!(1)), "{job}");
    assert_eq!(job["report"]["bytes"], 40_000);
    assert_eq!(world.get("/v2/team/app/manifests/v1").await.status, 200);
    let listed = admin.ask(Route::JobList, &[]).send().await.expect(200).json();
    assert_eq!(listed["items"][0], job);
}

// security: I-15
#[tokio::test]
async fn of_many_collections_started_at_once_one_runs() {
    let (world, admin) = world().await;
    world.image("team/app", "v1", b"kept").await;
    let start = || admin.ask(Route::GcRun, &[]).body(json!({ "grace": "0s" })).send();
    let answers = futures_util::future::join_all((0..32).map(|_| start())).await;
    let statuses: Vec<u16> = answers.iter().map(|told| told.status).collect();
    let started = statuses.iter().filter(|status| **status == 202).count();
    let refused = statuses.iter().filter(|status| **status == 409).count();
    assert!(started >= 1 && refused >= 1 && started + refused == 32, "{statuses:?}");
    admin.rest().await;
    let jobs = admin.ask(Route::JobList, &[]).send().await.expect(200).json();
    assert_eq!(jobs["items"].as_array().unwrap().len(), started);
    assert_eq!(world.get("/v2/team/app/manifests/v1").await.status, 200);
}

#[tokio::test]
async fn backups_are_made_and_verified() {
    let (world, admin) = world().await;
    world.image("team/app", "v1", &vec![1; 40_000]).await;
    let directory = world.folder().join("copy");
    let job = admin.job(Route::BackupCreate, json!({ "directory": directory, "verify": true })).await;
    assert_eq!((&job["state"], &job["report"]["verified"]), (&json!("done"), &json!(true)), "{job}");
    assert_eq!((&job["report"]["blobs"], &job["report"]["findings"]), (&json!(1), &json!([])));
    let start = |body: Value| admin.ask(Route::BackupCreate, &[]).body(body).send();
    for bad in ["relative", "", "../x", directory.to_str().unwrap()] {
        assert_eq!(start(json!({ "directory": bad })).await.told(), pair(422, "invalid_directory"), "{bad}");
    }
    let job = admin.job(Route::BackupVerify, json!({ "directory": directory })).await;
    assert_eq!(job["state"], "done", "{job}");
    let empty = world.folder().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let job = admin.job(Route::BackupVerify, json!({ "directory": empty })).await;
    assert_eq!(job["state"], "failed");
    assert!(job["error"].as_str().unwrap().contains("backup"), "{job}");
}

#[tokio::test]
async fn a_check_finds_what_is_damaged() {
    let (world, admin) = world().await;
    let [_, _, layer] = world.image("team/app", "v1", &vec![1; 40_000]).await;
    let clean = admin.job(Route::FsckRun, json!({})).await;
    let checked = &clean["report"]["checked"];
    assert_eq!((&checked["manifests"], &checked["tags"], &checked["links"]), (&json!(1), &json!(1), &json!(2)));
    let errors = |job: &Value| -> Vec<Value> {
        let findings = job["report"]["findings"].as_array().unwrap();
        findings.iter().filter(|finding| finding["severity"] == "error").cloned().collect()
    };
    assert_eq!(errors(&clean), [] as [Value; 0], "{clean}");
    let file = walk(&world.folder().join("blobs")).pop().unwrap();
    std::fs::write(&file, vec![2; 40_000]).unwrap();
    let found = errors(&admin.job(Route::FsckRun, json!({})).await);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0]["code"], &found[0]["digest"]), (&json!("blob_damaged"), &json!(layer)));
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

#[tokio::test]
async fn repositories_and_tags() {
    let (world, admin) = world().await;
    let [manifest, ..] = world.image("team/app", "v1", b"layer").await;
    world.image("team/app", "v2", b"layer").await;
    world.image("other", "latest", b"layer").await;
    let names = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = admin.ask(Route::RepositoryList, &[]).query("limit=1").send().await.expect(200).json();
    assert_eq!((names(&first), &first["next"]), (vec!["other".to_owned()], &json!("other")));
    let rest = admin.ask(Route::RepositoryList, &[]).query("cursor=other").send().await.expect(200).json();
    assert_eq!((names(&rest), &rest["next"]), (vec!["team/app".to_owned()], &json!(null)));

    let shown = admin.ask(Route::RepositoryShow, &["team/app"]).send().await.expect(200).json();
    assert_eq!((&shown["tags"], &shown["manifests"], &shown["blobs"]), (&json!(2), &json!(2), &json!(3)), "{shown}");
    assert_eq!(shown["created_by"], "user:maint");
    let tags = admin.ask(Route::TagList, &["team/app"]).send().await.expect(200).json();
    assert_eq!(names(&tags), ["v1", "v2"]);
    let tag = &tags["items"][0];
    assert_eq!((&tag["digest"], &tag["pushed_by"]), (&json!(manifest), &json!("user:maint")));

    admin.ask(Route::TagRemove, &["team/app", "v1"]).send().await.expect(204);
    assert_eq!(world.get("/v2/team/app/manifests/v1").await.status, 404);
    assert_eq!(world.get(&format!("/v2/team/app/manifests/{manifest}")).await.status, 200);
    admin.ask(Route::RepositoryRemove, &["team/app"]).send().await.expect(204);
    assert_eq!(world.get("/v2/team/app/tags/list").await.told(), pair(404, "NAME_UNKNOWN"));
    assert_eq!(world.get(&format!("/v2/team/app/manifests/{manifest}")).await.status, 404);
    // A name is free again, and nothing of the old repository comes back with it.
    let config = world.blob("team/app", b"{}").await;
    world.manifest("team/app", "new", &image(&[(&config, 2)])).await;
    assert_eq!(world.get("/v2/team/app/tags/list").await.json()["tags"], json!(["new"]));
    assert_eq!(world.get(&format!("/v2/team/app/manifests/{manifest}")).await.status, 404);
}

// security: M-01
#[tokio::test]
async fn events_tell_who_did_what() {
    let (world, admin) = world().await;
    let start = world.state.clock.as_ref()();
    admin.administrator("boss").await;
    world.pass(60);
    world.image("team/app", "v1", b"layer").await;
    admin.ask(Route::UserCreate, &[]).user("boss").body(json!({ "name": "alice" })).send().await.expect(201);
    let api = &admin;
    let list =
        |query: String| async move { api.ask(Route::EventList, &[]).query(&query).send().await.expect(200).json() };
    let by_boss = list("subject=user:boss".to_owned()).await;
    let event = &by_boss["items"][0];
    assert_eq!((&event["action"], &event["reference"]), (&json!("user.add"), &json!("alice")), "{by_boss}");
    assert_eq!((&event["credential"], &event["source"]), (&json!("basic"), &json!("127.0.0.1")));
    assert_eq!((&event["outcome"], &event["request_id"]), (&json!("ok"), &json!("request-2")));
    let pushed = list("repository=team/app&action=manifest.push".to_owned()).await;
    assert_eq!(pushed["items"].as_array().unwrap().len(), 1);
    let later = list(format!("since={}", start.plus(std::time::Duration::from_secs(30)))).await;
    let actions: Vec<&Value> = later["items"].as_array().unwrap().iter().map(|event| &event["action"]).collect();
    assert_eq!(actions.first(), Some(&&json!("user.add")), "newest first");
    assert!(actions.iter().all(|action| **action != "grant.add"), "{actions:?}");

    // Page by page from the newest, and from the oldest, it is the same list.
    let all = |order: &'static str| {
        let admin = &admin;
        async move {
            let (mut ids, mut cursor) = (Vec::new(), None);
            loop {
                let after = cursor.map(|cursor: String| format!("&cursor={cursor}")).unwrap_or_default();
                let query = format!("limit=2&order={order}{after}");
                let page = admin.ask(Route::EventList, &[]).query(&query).send().await.expect(200).json();
                let items = page["items"].as_array().unwrap();
                ids.extend(items.iter().map(|event| event["id"].as_i64().unwrap()));
                match page["next"].as_str() {
                    Some(next) if !items.is_empty() => cursor = Some(next.to_owned()),
                    next => return (ids, next.map(str::to_owned)),
                }
            }
        }
    };
    let (mut newest, end) = all("newest").await;
    assert_eq!(end, None);
    newest.reverse();
    let (oldest, follow) = all("oldest").await;
    assert_eq!(newest, oldest);
    // What happens next is found from there.
    let query = format!("order=oldest&cursor={}", follow.unwrap());
    assert_eq!(list(query.clone()).await["items"], json!([]));
    admin.user("bob").await;
    assert_eq!(list(query).await["items"][0]["reference"], "bob");
}

#[tokio::test]
async fn m01_refusals_of_known_subjects_are_recorded() {
    let (world, admin) = world().await;
    admin.user("alice").await;
    for _ in 0..3 {
        assert_eq!(admin.ask(Route::UserList, &[]).user("alice").send().await.status, 403);
    }
    world.state.auth.journal().flush_all(world.state.registry.db()).await.unwrap();
    let denied = admin.ask(Route::EventList, &[]).query("action=denied").send().await.expect(200).json();
    let events = denied["items"].as_array().unwrap();
    assert_eq!(events.len(), 1, "{denied}");
    assert_eq!((&events[0]["subject"], &events[0]["outcome"]), (&json!("user:alice"), &json!("denied")));
    assert!(events[0]["detail"].to_string().contains("GET /api/v1/users"), "{denied}");
}
