//! The cells of the distribution API.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use server::config::Mode;
use server::distribution::Route;

use super::table::Cell;
use super::{FILE, Row, Table};
use crate::admin::Admin;
use crate::world::{Answer, MAINTAINER, OCI_INDEX, OCI_MANIFEST, World, basic, image, password, sha256};

/// States of lines that are about a repository.
const STATES: [&str; 4] = ["here", "absent", "shut", "shut-absent"];

/// A blob that a manifest names, and one that none does.
const ACCEPTED: &[u8] = b"the layer of an image";
const LOOSE: &[u8] = b"a blob that nothing names yet";
/// Blobs that are in no repository that is asked, but in `other` of the caller's own, or of nobody's.
const ELSEWHERE: &[u8] = b"a layer of another repository of the caller";
const SECRET: &[u8] = b"a layer that the caller must not know of";
const PUSHED: &[u8] = b"a blob that comes with the request";

/// Which lines a route must have. A new variant does not compile without an arm here.
fn lines_of(route: &Route) -> &'static [&'static str] {
    match route {
        Route::Base => &["base"],
        Route::Catalog => &["catalog"],
        Route::Discover => &["discover"],
        Route::Tags(..) => &["tags"],
        Route::Referrers(..) => &["referrers"],
        Route::ManifestGet(..) => &["manifest-get-tag", "manifest-get-digest"],
        Route::ManifestHead(..) => &["manifest-head-tag", "manifest-head-digest"],
        Route::ManifestPut(..) => &["put-digest", "put-new", "put-old"],
        Route::ManifestDelete(..) => &["delete-digest", "delete-untagged", "delete-tag"],
        Route::BlobGet(..) => &["blob-get", "blob-new-get"],
        Route::BlobHead(..) => &["blob-head", "blob-new-head"],
        Route::BlobDelete(..) => &["blob-delete", "blob-delete-needed"],
        Route::UploadStart(..) => &["upload-start", "upload-whole", "mount-own", "mount-shut", "mount-anywhere"],
        Route::UploadAppend(..) => &["upload-append"],
        Route::UploadFinish(..) => &["upload-finish"],
        Route::UploadStatus(..) => &["upload-status"],
        Route::UploadCancel(..) => &["upload-cancel"],
    }
}

/// What one line sends.
struct Sent {
    method: &'static str,
    target: String,
    content_type: Option<&'static str>,
    body: Vec<u8>,
}

/// What the callers show: the value of `Authorization`, by caller.
type Credentials = BTreeMap<&'static str, Option<String>>;

struct Stage {
    world: World,
    admin: Admin,
    credentials: Credentials,
}

// security: A-01, B-16
#[tokio::test]
async fn distribution() {
    let table = Table::parse(FILE, "distribution");
    let stage = Stage::new().await;
    let (mut wrong, mut asked) = (Vec::new(), 0);
    for row in &table.rows {
        for (caller, expected) in table.callers.iter().zip(&row.cells) {
            let Some(expected) = expected else { continue };
            asked += 1;
            let repository = repository(caller, row.state);
            let upload = stage.upload(row, caller, &repository).await;
            let sent = sent(row.line, caller, &repository, &upload);
            let answer = stage.send(caller, &sent).await;
            let mut got = told(&answer, &sent);
            if answer.status == 401 && !challenge_names(&answer, row.line, &repository) {
                got.push_str(" without the scope that is needed");
            }
            if got != *expected {
                wrong.push(format!("{} {} {caller}: expected {expected}, got {got}", row.line, row.state));
            }
            // Sessions change nothing in the repository until they are finished.
            if answer.status == 201 || (answer.status == 202 && sent.method == "DELETE") {
                stage.restore(&repository, row.state).await;
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {asked} cells differ:\n{}", wrong.len(), wrong.join("\n"));
    println!("{asked} cells");
}

/// The same cells, asked of a server in read-only mode: whoever was let in by the rights is told so by 405, and for everybody
/// and everything else nothing differs.
#[tokio::test]
async fn distribution_in_read_only_mode() {
    let table = Table::parse(FILE, "distribution");
    let mut stage = Stage::new().await;
    let (mut wrong, mut refused) = (Vec::new(), 0);
    for row in &table.rows {
        for (place, caller) in table.callers.iter().enumerate() {
            let Some(expected) = in_read_only_mode(&table, row, place) else { continue };
            let repository = repository(caller, row.state);
            let upload = stage.upload(row, caller, &repository).await;
            stage.world.set_mode(Mode::ReadOnly);
            let sent = sent(row.line, caller, &repository, &upload);
            let answer = stage.send(caller, &sent).await;
            stage.world.set_mode(Mode::ReadWrite);
            let got = told(&answer, &sent);
            if got != expected {
                wrong.push(format!("{} {} {caller}: expected {expected}, got {got}", row.line, row.state));
            }
            if expected == "405" {
                refused += 1;
                let allow = if sent.method == "POST" { "" } else { "GET, HEAD" };
                assert_eq!(answer.header("allow"), allow, "{} {caller}", row.line);
                assert!(answer.text().contains("read-only for maintenance"), "{}", answer.text());
            }
        }
    }
    assert!(wrong.is_empty(), "{} cells differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(refused > 150, "{refused} cells only were refused by the mode");
    // Nothing was changed: what is there is what was there at the beginning.
    let tags = stage.world.get("/v2/team/here/tags/list").await.json();
    assert_eq!(tags["tags"], json!(["v1"]));
}

/// What a cell is in read-only mode. For a change, what counts is whether the rights let the caller in; that is told by the line
/// that needs the right and no other, where the repository exists.
fn in_read_only_mode(table: &Table, row: &Row, place: usize) -> Cell {
    let cell = row.cells[place]?;
    let decided_by = match row.line {
        "put-digest" | "put-new" | "put-old" => "put-digest",
        "delete-digest" | "delete-untagged" => "delete-untagged",
        "blob-delete" | "blob-delete-needed" => "blob-delete",
        "upload-start" | "upload-whole" | "mount-own" | "mount-shut" | "mount-anywhere" => "upload-start",
        "upload-append" | "upload-finish" | "upload-cancel" => "upload-start",
        "delete-tag" => "delete-tag",
        _ => return Some(cell),
    };
    if row.state.starts_with("shut") {
        return Some(cell);
    }
    let decision = table.rows.iter().find(|other| other.line == decided_by && other.state == "here")?.cells[place];
    // A line without such a case: the caller has no grants that match, or none that could.
    let decision = decision.unwrap_or(cell);
    Some(if decision.starts_with('2') { "405" } else { cell })
}

#[tokio::test]
async fn what_may_not_be_seen_answers_as_what_does_not_exist() {
    let table = Table::parse(FILE, "distribution");
    let stage = Stage::new().await;
    let lines: BTreeSet<&str> = table.rows.iter().filter(|row| row.state == "shut").map(|row| row.line).collect();
    let mut wrong = Vec::new();
    for line in lines {
        for caller in &table.callers {
            let mut shown = Vec::new();
            // The same upload id for both: it exists in the first and nowhere else.
            let upload = stage.foreign_upload("shut/here").await;
            for state in ["shut", "shut-absent"] {
                let repository = repository(caller, state);
                let sent = sent(line, caller, &repository, &upload);
                shown.push(masked(&stage.send(caller, &sent).await, &repository));
            }
            if shown[0] != shown[1] {
                wrong.push(format!("{line} {caller}\n--- existing\n{}\n--- missing\n{}", shown[0], shown[1]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[tokio::test]
async fn the_catalog_names_what_may_be_listed_and_nothing_else() {
    let stage = Stage::new().await;
    for caller in
        ["anon", "bare", "admin", "reader", "pull", "list", "push", "release", "writer", "robot", "maint", "basic"]
    {
        let sent = sent("catalog", caller, "", "");
        let names = stage.send(caller, &sent).await.json()["repositories"].clone();
        // What `anonymous` may list, everybody may.
        let mut expected = vec!["public/here", "public/other"];
        if ["reader", "list", "writer", "robot", "maint", "basic"].contains(&caller) {
            expected.extend(["team/here", "team/other"]);
        }
        assert_eq!(names, json!(expected), "{caller}");
    }
}

#[test]
fn every_route_has_its_lines() {
    let table = Table::parse(FILE, "distribution");
    let lines: BTreeSet<&str> = table.rows.iter().map(|row| row.line).collect();
    for line in &lines {
        let states = table.states(line);
        let about_a_repository = !matches!(*line, "base" | "catalog" | "discover");
        let expected: &[&str] = if about_a_repository { &STATES } else { &["*"] };
        assert_eq!(states, expected, "{line}");
        let sent = sent(line, "reader", "team/here", &uuid(1));
        let path = sent.target.split('?').next().unwrap();
        let route = Route::parse(&sent.method.parse().unwrap(), path).unwrap_or_else(|_| panic!("{line}: {path}"));
        assert!(lines_of(&route).contains(line), "{line} is not a line of {route:?}");
        for other in lines_of(&route) {
            assert!(lines.contains(other), "{other} has no line");
        }
    }
    // One of each variant; `lines_of` does not compile when one is missing there.
    let variants: BTreeSet<String> = lines
        .iter()
        .map(|line| {
            let sent = sent(line, "reader", "team/here", &uuid(1));
            let path = sent.target.split('?').next().unwrap();
            let route = Route::parse(&sent.method.parse().unwrap(), path).unwrap();
            format!("{route:?}").split('(').next().unwrap().to_owned()
        })
        .collect();
    assert_eq!(variants.len(), 17, "a variant of Route has no line: {variants:?}");
}

/// The rights of a push are decided anew when it is finished: whoever lost them while the body came in is refused.
#[tokio::test]
async fn rights_that_end_while_a_body_comes_in_do_not_finish_it() {
    let stage = Stage::new().await;
    for line in ["upload-finish", "upload-whole"] {
        let name = format!("late-{line}");
        stage.admin.user(&name).await;
        let grant = stage.admin.grant(&format!("user:{name}"), "push", "team/**").await;
        let user = basic(&name, &password(&name));
        let digest = sha256(PUSHED);
        let (method, target) = if line == "upload-whole" {
            ("POST", format!("/v2/team/here/blobs/uploads/?digest={digest}"))
        } else {
            let start = stage.world.call("POST", "/v2/team/here/blobs/uploads/").authorization(&user).send().await;
            let location = start.header("location");
            let separator = if location.contains('?') { '&' } else { '?' };
            ("PUT", format!("{location}{separator}digest={digest}"))
        };
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<bytes::Bytes, std::io::Error>>(1);
        let stream = futures_util::stream::unfold(receiver, async |mut receiver| {
            receiver.recv().await.map(|piece| (piece, receiver))
        });
        let call = stage.world.call(method, &target).authorization(&user).body(axum::body::Body::from_stream(stream));
        let revoke = async {
            sender.send(Ok(bytes::Bytes::from_static(&PUSHED[..5]))).await.unwrap();
            sender.send(Ok(bytes::Bytes::from_static(&PUSHED[5..10]))).await.unwrap();
            let id = grant.to_string();
            stage.admin.ask(api::Route::GrantRemove, &[&id]).send().await.expect(204);
            sender.send(Ok(bytes::Bytes::from_static(&PUSHED[10..]))).await.unwrap();
            drop(sender);
        };
        let (answer, ()) = tokio::join!(call.send(), revoke);
        assert_eq!(answer.told(), (404, "NAME_UNKNOWN".to_owned()), "{line}");
        let blob = stage.world.head(&format!("/v2/team/here/blobs/{digest}")).await;
        assert_eq!(blob.status, 404, "{line} left the blob");
    }
}

impl Stage {
    async fn new() -> Self {
        let unbounded = "1000000";
        let limits = ["PORTCULLIS_LIMITS__FAILED_LOGINS", "PORTCULLIS_LIMITS__UPLOADS_PER_SUBJECT"];
        let world = World::with(&limits.map(|key| (key, unbounded))).await;
        let admin = Admin::of(&world);
        let mut stage = Self { world, admin, credentials: Credentials::new() };
        for repository in ["team/here", "public/here", "shut/here"] {
            stage.fill(repository).await;
        }
        for (repository, layer) in [("team/other", ELSEWHERE), ("public/other", ELSEWHERE), ("shut/other", SECRET)] {
            stage.world.image(repository, "v1", layer).await;
        }
        stage.make_callers().await;
        stage
    }

    async fn make_callers(&mut self) {
        let admin = &self.admin;
        admin.grant("anonymous", "reader", "public/**").await;
        for (user, what) in [
            ("reader", "reader"),
            ("writer", "writer"),
            ("maint-user", "maintainer"),
            ("pull", "pull"),
            ("list", "list"),
            ("push", "push"),
            ("tag", "tag-create"),
            ("release", "push,tag-create"),
            ("delete", "delete"),
            ("untag", "tag-delete"),
            ("narrow", "writer"),
            ("noscope", "maintainer"),
            ("basic", "writer"),
            ("disabled", "maintainer"),
        ] {
            admin.user(user).await;
            admin.grant(&format!("user:{user}"), what, "team/**").await;
        }
        admin.user("bare").await;
        admin.administrator("boss").await;
        let (robot, secret) = admin.robot("team", "ci", "90d").await;
        admin.grant(&format!("robot:{robot}"), "writer", "team/**").await;
        let (short, short_secret) = admin.robot("team", "short", "300s").await;
        admin.grant(&format!("robot:{short}"), "maintainer", "team/**").await;

        let all = scopes("pull,push,delete");
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let narrow = scopes("pull");
        let narrow: Vec<&str> =
            narrow.iter().filter(|scope| scope.starts_with("repository")).map(String::as_str).collect();
        let mut of = Credentials::new();
        for user in
            ["bare", "reader", "writer", "pull", "list", "push", "tag", "release", "delete", "untag", "disabled"]
        {
            of.insert(user, Some(bearer(&self.world.token(user, &all).await)));
        }
        of.insert("maint", Some(bearer(&self.world.token("maint-user", &all).await)));
        of.insert("narrow", Some(bearer(&self.world.token("narrow", &narrow).await)));
        let elsewhere = ["repository:team/elsewhere:pull,push,delete"];
        of.insert("noscope", Some(bearer(&self.world.token("noscope", &elsewhere).await)));
        of.insert("anon", Some(bearer(&self.world.anonymous_token(&all).await)));
        of.insert("robot", Some(self.robot_token(&robot, &secret, &all).await));
        of.insert("expired", Some(self.robot_token(&short, &short_secret, &all).await));
        of.insert("none", None);
        of.insert("basic", Some(basic("basic", &password("basic"))));
        of.insert("admin", Some(basic("boss", &password("boss"))));
        of.insert("disbasic", Some(basic("disabled", &password("disabled"))));
        of.insert("expbasic", Some(basic(&short, &short_secret)));
        let body = json!({ "disabled": true });
        admin.ask(api::Route::UserUpdate, &["disabled"]).body(body).send().await.expect(200);
        self.world.pass(301);
        self.credentials = of;
    }

    async fn robot_token(&self, name: &str, secret: &str, scopes: &[&str]) -> String {
        let query: Vec<String> = scopes.iter().map(|scope| format!("scope={scope}")).collect();
        let target = format!("/token?{}", query.join("&"));
        let answer = self.world.call("GET", &target).authorization(&basic(name, secret)).send().await;
        bearer(answer.json()["token"].as_str().unwrap())
    }

    /// What `here` holds: an image with a tag and a referrer, one without a tag, and a blob that nothing names.
    async fn fill(&self, repository: &str) {
        self.world.blob(repository, ACCEPTED).await;
        self.world.blob(repository, LOOSE).await;
        self.world.manifest(repository, "v1", &tagged()).await;
        self.world.manifest(repository, &digest(&untagged()), &untagged()).await;
        self.world.manifest(repository, &digest(&referrer()), &referrer()).await;
    }

    /// Puts a repository back in its state after a request that changed it.
    async fn restore(&self, repository: &str, state: &str) {
        let gone = self.admin.ask(api::Route::RepositoryRemove, &[repository]).send().await;
        assert!(matches!(gone.status, 204 | 404), "{gone:?}");
        if matches!(state, "here" | "shut") {
            self.fill(repository).await;
        }
    }

    async fn send(&self, caller: &str, sent: &Sent) -> Answer {
        let mut call = self.world.call(sent.method, &sent.target).body(sent.body.clone());
        call = match &self.credentials[caller] {
            Some(value) => call.authorization(value),
            None => call.nobody(),
        };
        if let Some(content_type) = sent.content_type {
            call = call.header("content-type", content_type);
        }
        call.send().await
    }

    /// The upload that the line is about: the caller's own where it can have one, else somebody's.
    async fn upload(&self, row: &Row, caller: &str, repository: &str) -> String {
        if !row.line.starts_with("upload-") || matches!(row.line, "upload-start" | "upload-whole") {
            return String::new();
        }
        if matches!(row.state, "absent" | "shut-absent") {
            return uuid(7);
        }
        let sent = sent("upload-start", caller, repository, "");
        let own = self.send(caller, &sent).await;
        if own.status == 202 { id_of(&own) } else { self.foreign_upload(repository).await }
    }

    /// An upload of the maintainer's.
    async fn foreign_upload(&self, repository: &str) -> String {
        let start = self.world.call("POST", &format!("/v2/{repository}/blobs/uploads/")).user(MAINTAINER).send().await;
        assert_eq!(start.status, 202);
        id_of(&start)
    }
}

/// The repository of a state. `anon` has grants on other ones than the rest.
fn repository(caller: &str, state: &str) -> String {
    let own = own_prefix(caller);
    match state {
        "here" => format!("{own}/here"),
        "absent" => format!("{own}/absent"),
        "shut" => "shut/here".to_owned(),
        "shut-absent" => "shut/gone".to_owned(),
        _ => String::new(),
    }
}

fn own_prefix(caller: &str) -> &'static str {
    if caller == "anon" { "public" } else { "team" }
}

/// The scopes that tokens ask for.
fn scopes(actions: &str) -> Vec<String> {
    let repositories = ["team/here", "team/absent", "public/here", "public/absent", "shut/here", "shut/gone"];
    let mut scopes: Vec<String> = repositories.map(|name| format!("repository:{name}:{actions}")).to_vec();
    scopes.push("registry:catalog:*".to_owned());
    scopes
}

fn sent(line: &str, caller: &str, repository: &str, upload: &str) -> Sent {
    let at = |rest: &str| format!("/v2/{repository}/{rest}");
    let plain = |method, target| Sent { method, target, content_type: None, body: Vec::new() };
    let with = |method, target, content_type, body: Vec<u8>| Sent { method, target, content_type, body };
    let put = |reference: &str| {
        with("PUT", at(&format!("manifests/{reference}")), Some(OCI_INDEX), fresh().to_string().into_bytes())
    };
    let session = at(&format!("blobs/uploads/{upload}"));
    let (accepted, loose, own) = (sha256(ACCEPTED), sha256(LOOSE), own_prefix(caller));
    let bytes = Some("application/octet-stream");
    match line {
        "base" => plain("GET", "/v2/".to_owned()),
        "discover" => plain("GET", "/v2/_oci/ext/discover".to_owned()),
        "catalog" => plain("GET", "/v2/_catalog".to_owned()),
        "tags" => plain("GET", at("tags/list")),
        "referrers" => plain("GET", at(&format!("referrers/{}", digest(&tagged())))),
        "manifest-get-tag" => plain("GET", at("manifests/v1")),
        "manifest-get-digest" => plain("GET", at(&format!("manifests/{}", digest(&tagged())))),
        "manifest-head-tag" => plain("HEAD", at("manifests/v1")),
        "manifest-head-digest" => plain("HEAD", at(&format!("manifests/{}", digest(&tagged())))),
        "put-digest" => put(&digest(&fresh())),
        "put-new" => put("v2"),
        "put-old" => put("v1"),
        "delete-digest" => plain("DELETE", at(&format!("manifests/{}", digest(&tagged())))),
        "delete-untagged" => plain("DELETE", at(&format!("manifests/{}", digest(&untagged())))),
        "delete-tag" => plain("DELETE", at("manifests/v1")),
        "blob-get" => plain("GET", at(&format!("blobs/{accepted}"))),
        "blob-head" => plain("HEAD", at(&format!("blobs/{accepted}"))),
        "blob-new-get" => plain("GET", at(&format!("blobs/{loose}"))),
        "blob-new-head" => plain("HEAD", at(&format!("blobs/{loose}"))),
        "blob-delete" => plain("DELETE", at(&format!("blobs/{loose}"))),
        "blob-delete-needed" => plain("DELETE", at(&format!("blobs/{accepted}"))),
        "upload-start" => plain("POST", at("blobs/uploads/")),
        "upload-whole" => {
            with("POST", at(&format!("blobs/uploads/?digest={}", sha256(PUSHED))), bytes, PUSHED.to_vec())
        }
        "mount-own" => plain("POST", at(&format!("blobs/uploads/?mount={}&from={own}/other", sha256(ELSEWHERE)))),
        "mount-shut" => plain("POST", at(&format!("blobs/uploads/?mount={}&from=shut/other", sha256(SECRET)))),
        "mount-anywhere" => plain("POST", at(&format!("blobs/uploads/?mount={}", sha256(SECRET)))),
        "upload-append" => with("PATCH", session, bytes, PUSHED.to_vec()),
        "upload-finish" => with("PUT", format!("{session}?digest={}", sha256(PUSHED)), bytes, PUSHED.to_vec()),
        "upload-status" => plain("GET", session),
        "upload-cancel" => plain("DELETE", session),
        _ => panic!("nobody has said what the line '{line}' sends"),
    }
}

fn tagged() -> Value {
    let blob = sha256(ACCEPTED);
    image(&[(&blob, ACCEPTED.len()), (&blob, ACCEPTED.len())])
}

fn untagged() -> Value {
    let mut manifest = tagged();
    manifest["annotations"] = json!({ "of": "the one without a tag" });
    manifest
}

fn referrer() -> Value {
    let subject = json!({
        "mediaType": OCI_MANIFEST,
        "digest": digest(&tagged()),
        "size": tagged().to_string().len(),
    });
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "artifactType": "application/vnd.example.signature",
        "manifests": [],
        "subject": subject,
    })
}

/// A manifest that is nowhere yet and needs nothing.
fn fresh() -> Value {
    json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] })
}

fn digest(manifest: &Value) -> String {
    sha256(manifest.to_string().as_bytes())
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn uuid(n: u128) -> String {
    uuid::Builder::from_u128(n).with_version(uuid::Version::Random).into_uuid().to_string()
}

fn id_of(start: &Answer) -> String {
    let location = start.header("location");
    location.split('?').next().unwrap().rsplit('/').next().unwrap().to_owned()
}

/// An answer in the words of the file. A code that does not fit its status, or a challenge that is not as it should be, is
/// written out.
fn told(answer: &Answer, sent: &Sent) -> String {
    let challenge = answer.header("www-authenticate");
    let code = if sent.method == "HEAD" { String::new() } else { answer.code() };
    let head = sent.method == "HEAD";
    match answer.status {
        200 if sent.target.contains("/referrers/") => {
            let list = answer.json();
            match list["manifests"].as_array() {
                Some(manifests) if manifests.is_empty() => "200e".to_owned(),
                Some(_) => "200".to_owned(),
                None => format!("200 without a list: {list}"),
            }
        }
        401 if challenge.contains("error=\"invalid_token\"") && (head || code == "UNAUTHORIZED") => "401t".to_owned(),
        401 if challenge.contains("error=\"insufficient_scope\"")
            && challenge.contains("scope=\"")
            && (head || code == "UNAUTHORIZED") =>
        {
            "401s".to_owned()
        }
        401 if !challenge.is_empty() && !challenge.contains("error=") && (head || code == "UNAUTHORIZED") => {
            "401".to_owned()
        }
        403 if head || code == "DENIED" => "403".to_owned(),
        // Nothing tells the codes of a HEAD apart, so the file's letter is taken from what GET says.
        404 if head && sent.target.contains(&sha256(LOOSE)) && !hidden(&sent.target) => "404b".to_owned(),
        404 if head || code == "NAME_UNKNOWN" => "404".to_owned(),
        404 if code == "BLOB_UNKNOWN" => "404b".to_owned(),
        404 if code == "BLOB_UPLOAD_UNKNOWN" => "404u".to_owned(),
        405 if code == "UNSUPPORTED" => "405".to_owned(),
        status if status < 300 => status.to_string(),
        status => format!("{status}:{code} {challenge}"),
    }
}

/// Whether the challenge says what to ask a token for: clients do not know it themselves.
fn challenge_names(answer: &Answer, line: &str, repository: &str) -> bool {
    let challenge = answer.header("www-authenticate");
    match line {
        "base" | "discover" => !challenge.contains("scope="),
        "catalog" => challenge.contains("scope=\"registry:catalog:*\""),
        _ => challenge.contains(&format!("scope=\"repository:{repository}:")),
    }
}

/// Whether the repository of the target is one that is not there for the caller.
fn hidden(target: &str) -> bool {
    target.contains("/absent/") || target.contains("/gone/") || target.contains("/shut/")
}

/// The whole answer, without what may differ: the time, the request's id, the name that the request gave.
fn masked(answer: &Answer, repository: &str) -> String {
    let mut lines: Vec<String> = answer
        .headers
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "date" | "x-request-id"))
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    let text = format!("{}\n{}\n\n{}", answer.status, lines.join("\n"), answer.text());
    // Both names have the same length, so a difference in lengths is not masked by this.
    text.replace(repository, "<repository>")
}
