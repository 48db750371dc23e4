//! The cells of the admin API.

use std::collections::BTreeMap;

use api::{Method, Route};
use serde_json::json;
use server::config::Mode;

use super::{FILE, Table};
use crate::admin::{Admin, Ask, Told};
use crate::world::{World, basic, image, password};

/// What a caller shows.
#[derive(Clone)]
enum Shows {
    Nothing,
    Header(String),
    Socket,
}

struct Stage {
    world: World,
    admin: Admin,
    callers: BTreeMap<&'static str, Shows>,
    /// Refresh tokens of those who have one.
    refresh: BTreeMap<&'static str, String>,
    backup: String,
    job: String,
}

// security: A-01, B-16
#[tokio::test]
async fn admin() {
    let table = Table::parse(FILE, "admin");
    let mut stage = Stage::new().await;
    let mut wrong = Vec::new();
    let mut grant = stage.reset().await;
    for (number, row) in table.rows.iter().enumerate() {
        let route = route(row.line);
        for (caller, expected) in table.callers.iter().zip(&row.cells) {
            let Some(expected) = expected else { continue };
            if route.method() == Method::Post {
                stage.admin.rest().await;
            }
            let ask = stage.ask(route, row.state, caller, grant, number);
            let told = stage.as_caller(caller, ask).send().await;
            let got = in_words(&told);
            if got != *expected {
                wrong.push(format!("{} {} {caller}: expected {expected}, got {got}", row.line, row.state));
            }
            if told.status < 300 && route.method() != Method::Get {
                grant = stage.reset().await;
            }
        }
    }
    assert!(wrong.is_empty(), "{} cells differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// What a server in read-only mode does for an administrator all the same, besides reads.
const STILL_DONE: [Route; 5] =
    [Route::SessionCreate, Route::SessionRefresh, Route::BackupCreate, Route::BackupVerify, Route::FsckRun];

#[tokio::test]
async fn admin_in_read_only_mode() {
    let table = Table::parse(FILE, "admin");
    let mut stage = Stage::new().await;
    let grant = stage.reset().await;
    stage.world.set_mode(Mode::ReadOnly);
    stage.admin = Admin::of(&stage.world);
    // Jobs are those since the start.
    let job = stage.admin.job(Route::BackupVerify, json!({ "directory": stage.backup })).await;
    stage.job = job["id"].as_str().unwrap().to_owned();
    let mut wrong = Vec::new();
    for (number, row) in table.rows.iter().enumerate() {
        let route = route(row.line);
        let refused = route.method() != Method::Get && !STILL_DONE.contains(&route);
        for (caller, expected) in table.callers.iter().zip(&row.cells) {
            let Some(expected) = expected else { continue };
            let administrator = matches!(*caller, "admin" | "session" | "socket");
            let expected = if refused && administrator { "405:read_only" } else { expected };
            if route.method() == Method::Post {
                stage.admin.rest().await;
            }
            let ask = stage.ask(route, row.state, caller, grant, number);
            let told = stage.as_caller(caller, ask).send().await;
            let got = in_words(&told);
            if got != expected {
                wrong.push(format!("{} {} {caller}: expected {expected}, got {got}", row.line, row.state));
            }
            if refused && administrator {
                let allow = told.headers["allow"].to_str().unwrap();
                assert!(!allow.contains(route.method().as_str()), "{route:?}: {allow}");
            }
        }
    }
    assert!(wrong.is_empty(), "{} cells differ:\n{}", wrong.len(), wrong.join("\n"));
    stage.admin.rest().await;
    let repair = stage.admin.ask(Route::FsckRun, &[]).body(json!({ "repair": true })).send().await;
    assert_eq!(repair.told(), (405, "read_only".to_owned()));
    let info = stage.admin.ask(Route::ServerShow, &[]).send().await.expect(200).json();
    assert_eq!(info["mode"], "read-only");
}

#[tokio::test]
async fn who_is_no_administrator_learns_nothing() {
    let mut stage = Stage::new().await;
    let grant = stage.reset().await;
    for route in Route::ALL.iter().copied().filter(|route| *route != Route::SessionRefresh) {
        for caller in ["none", "user", "robot", "docker", "disabled", "demoted"] {
            let mut shown = Vec::new();
            for state in ["here", "absent"] {
                let ask = stage.ask(route, state, caller, grant, 0);
                shown.push(whole(&stage.as_caller(caller, ask).send().await));
            }
            assert_eq!(shown[0], shown[1], "{route:?} {caller}");
        }
    }
}

#[test]
fn every_route_has_its_lines() {
    let table = Table::parse(FILE, "admin");
    for route in Route::ALL {
        let states = table.states(route.name());
        // A route that names a thing is asked for one that is there and for one that is not.
        let names_a_thing = route.path().contains('{');
        let expected: &[&[&str]] = if names_a_thing { &[&["here", "absent"]] } else { &[&["*"], &["here", "absent"]] };
        assert!(expected.contains(&states.as_slice()), "{}: {states:?}", route.name());
    }
    for row in &table.rows {
        route(row.line);
    }
}

fn route(name: &str) -> Route {
    let found = Route::ALL.iter().copied().find(|route| route.name() == name);
    found.unwrap_or_else(|| panic!("there is no route {name}"))
}

fn in_words(told: &Told) -> String {
    match (told.status, told.code().as_str()) {
        (401, "unauthorized") if told.headers.contains_key("www-authenticate") => "401".to_owned(),
        (403, "denied") => "403".to_owned(),
        (status, "") => status.to_string(),
        (status, code) => format!("{status}:{code}"),
    }
}

fn whole(told: &Told) -> String {
    let mut lines: Vec<String> =
        told.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    format!("{}\n{}\n\n{}", told.status, lines.join("\n"), String::from_utf8_lossy(&told.body))
}

impl Stage {
    async fn new() -> Self {
        let world = World::with(&[("PORTCULLIS_LIMITS__FAILED_LOGINS", "1000000")]).await;
        let admin = Admin::of(&world);
        admin.user("plain").await;
        admin.grant("user:plain", "maintainer", "**").await;
        let (robot, secret) = admin.robot("team", "ci", "90d").await;
        admin.grant(&format!("robot:{robot}"), "maintainer", "**").await;
        for name in ["boss", "was-disabled", "was-demoted"] {
            admin.administrator(name).await;
        }
        let mut refresh = BTreeMap::new();
        let mut sessions = BTreeMap::new();
        for (caller, user) in [
            ("admin", "boss"),
            ("session", "boss"),
            ("socket", "boss"),
            ("disabled", "was-disabled"),
            ("demoted", "was-demoted"),
        ] {
            let session = admin.ask(Route::SessionCreate, &[]).user(user).send().await.expect(200).json();
            refresh.insert(caller, session["refresh_token"].as_str().unwrap().to_owned());
            sessions.insert(caller, format!("Bearer {}", session["token"].as_str().unwrap()));
        }
        let docker = world.token("boss", &["repository:team/here:pull"]).await;
        admin.ask(Route::UserUpdate, &["was-disabled"]).body(json!({ "disabled": true })).send().await.expect(200);
        admin.ask(Route::UserUpdate, &["was-demoted"]).body(json!({ "administrator": false })).send().await.expect(200);
        let callers = BTreeMap::from([
            ("none", Shows::Nothing),
            ("user", Shows::Header(basic("plain", &password("plain")))),
            ("robot", Shows::Header(basic(&robot, &secret))),
            ("docker", Shows::Header(format!("Bearer {docker}"))),
            ("disabled", Shows::Header(basic("was-disabled", &password("was-disabled")))),
            ("demoted", Shows::Header(sessions["demoted"].clone())),
            ("admin", Shows::Header(basic("boss", &password("boss")))),
            ("session", Shows::Header(sessions["session"].clone())),
            ("socket", Shows::Socket),
        ]);
        let data = &world.state.config.data_dir;
        std::fs::create_dir_all(data).unwrap();
        std::fs::write(data.join("format.json"), "{}").unwrap();
        let backup = world.folder().join("backup").display().to_string();
        let job = admin.job(Route::BackupCreate, json!({ "directory": backup })).await;
        assert_eq!(job["state"], "done", "{job}");
        let job = job["id"].as_str().unwrap().to_owned();
        Self { world, admin, callers, refresh, backup, job }
    }

    /// Puts back what the lines name; the id of the grant.
    async fn reset(&mut self) -> i64 {
        for (route, name) in [
            (Route::UserRemove, "victim"),
            (Route::UserRemove, "newcomer"),
            (Route::RobotRemove, "team.victim"),
            (Route::RobotRemove, "team.newcomer"),
            (Route::RepositoryRemove, "team/victim"),
        ] {
            let told = self.admin.ask(route, &[name]).send().await;
            assert!(matches!(told.status, 204 | 404), "{told:?}");
        }
        self.admin.user("victim").await;
        self.admin.robot("team", "victim", "90d").await;
        let config = self.world.blob("team/victim", b"{}").await;
        self.world.manifest("team/victim", "v1", &image(&[(&config, 2)])).await;
        self.admin.rest().await;
        self.admin.grant("user:victim", "reader", "team/**").await
    }

    fn ask(&self, route: Route, state: &str, caller: &str, grant: i64, number: usize) -> Ask {
        let here = state != "absent";
        let name = |there: &'static str, gone: &'static str| if here { there } else { gone };
        let (user, robot) = (name("victim", "newcomer"), name("team.victim", "team.newcomer"));
        let repository = name("team/victim", "team/nowhere");
        let grant = if here { grant.to_string() } else { "999999".to_owned() };
        let job = if here { self.job.clone() } else { "no-such-job".to_owned() };
        let ask = |parameters: &[&str]| self.admin.ask(route, parameters);
        let subject = format!("user:{user}");
        match route {
            Route::OpenApi
            | Route::Whoami
            | Route::SessionCreate
            | Route::UserList
            | Route::RobotList
            | Route::GrantList
            | Route::RepositoryList
            | Route::EventList
            | Route::GcPlan
            | Route::JobList
            | Route::TaskList
            | Route::ServerShow => ask(&[]),
            Route::SessionRefresh => {
                let token = self.refresh.get(caller).map_or("not.a.token", String::as_str);
                ask(&[]).body(json!({ "refresh_token": token }))
            }
            Route::UserCreate => ask(&[]).body(json!({ "name": user, "password": "p" })),
            Route::UserShow | Route::UserRemove => ask(&[user]),
            Route::UserUpdate => ask(&[user]).body(json!({ "disabled": true })),
            Route::UserPassword => ask(&[user]).body(json!({ "password": "q" })),
            Route::RobotCreate => ask(&[]).body(json!({ "namespace": "team", "name": name("victim", "newcomer") })),
            Route::RobotShow | Route::RobotRemove | Route::RobotRotate => ask(&[robot]),
            Route::RobotUpdate => ask(&[robot]).body(json!({ "disabled": true })),
            Route::GrantCreate => {
                ask(&[]).body(json!({ "subject": subject, "role": "writer", "repository": "elsewhere/**" }))
            }
            Route::GrantRemoveBySubject => ask(&[]).query(&format!("subject={subject}")),
            Route::GrantShow | Route::GrantRemove => ask(&[&grant]),
            Route::RepositoryShow | Route::RepositoryRemove | Route::TagList => ask(&[repository]),
            Route::TagRemove => ask(&["team/victim", name("v1", "v2")]),
            Route::GcRun | Route::FsckRun => ask(&[]).body(json!({})),
            Route::BackupCreate => {
                let directory = self.world.folder().join(format!("backup-{number}-{caller}"));
                ask(&[]).body(json!({ "directory": directory }))
            }
            Route::BackupVerify => {
                let directory = if here { self.backup.clone() } else { format!("{}-nowhere", self.backup) };
                ask(&[]).body(json!({ "directory": directory }))
            }
            Route::JobShow => ask(&[&job]),
        }
    }

    fn as_caller(&self, caller: &str, ask: Ask) -> Ask {
        match &self.callers[caller] {
            Shows::Nothing => ask.tcp(),
            Shows::Header(value) => ask.authorization(value),
            Shows::Socket => ask,
        }
    }
}
