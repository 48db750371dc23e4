//! PostgreSQL that goes away, hangs and comes back, under a server that goes on running.

use std::fs;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use oci::{Algorithm, Hasher};
use portcullis_tests::crash::{CONFIG, End as Away, Traffic};
use testdb::{End, Mode, Pgbouncer, Postgres, Proxy};
use testkit::client::{Login, basic, location_of, with_digest};
use testkit::http::{Body, Connection, Response};
use testkit::image::Recipe;
use testkit::{Options, Rng, Server};

/// How long a blob that no manifest names is expected after its push.
const KEPT: Duration = Duration::from_secs(8);
/// A request that needs a database that does not answer is answered within this time: a statement may take 30 seconds.
const BOUND: Duration = Duration::from_secs(40);

const DATABASE: &str = "registry";

fn postgres() -> Result<Postgres> {
    let postgres = Postgres::start(&testdb::Options { durable: true, ..testdb::Options::default() })?;
    postgres.create_database(DATABASE)?;
    Ok(postgres)
}

fn server(url: String, config: &str) -> Result<Server> {
    let flags = vec!["--ops-listen".to_owned(), "127.0.0.1:0".to_owned()];
    Server::start(Options { config: config.to_owned(), database_url: Some(url), flags, ..Options::default() })
}

/// What `/readyz` says: its status and its body.
fn readiness(server: &Server) -> Result<(u16, String)> {
    let response = Connection::open(server.listener("ops")?, "localhost")?.send("GET", "/readyz", &[], Body::None)?;
    Ok((response.status, response.text()))
}

fn wait_until_ready(server: &Server) -> Result<()> {
    let start = Instant::now();
    while readiness(server)?.0 != 200 {
        ensure!(start.elapsed() < Duration::from_secs(30), "not ready: {:?}", readiness(server)?);
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Pushes, moves, deletes and collects while the database is ended again and again in one of these ways.
fn ended_in_mid_push(ends: &[End]) -> Result<()> {
    let rounds: u32 = std::env::var("PORTCULLIS_DATABASE_KILLS").ok().map_or(Ok(12), |text| text.parse())?;
    let rng = &mut Rng::announced("PostgreSQL");
    let mut postgres = postgres()?;
    let server = server(postgres.url(DATABASE), CONFIG)?;
    let process = server.id();
    let mut traffic = Traffic::new(&server, rng, 4, Away::Database)?;
    for round in 1..=rounds {
        traffic.resume(&server);
        thread::sleep(Duration::from_millis(100 + rng.below(900)));
        ensure!(traffic.wait_for_flight(), "nothing is in flight");
        let end = *rng.pick(ends).context("no end")?;
        postgres.stop(end)?;
        traffic.settle().with_context(|| format!("round {round}, {end:?}"))?;
        postgres.launch()?;
        traffic.look(&server, KEPT).with_context(|| format!("round {round}, {end:?}"))?;
        if round % 4 == 0 {
            server.assert_clean().with_context(|| format!("round {round}, {end:?}"))?;
        }
    }
    ensure!(server.id() == process, "the server was started again");
    server.run(&["gc", "run", "--wait", "--grace", "0"])?;
    server.assert_clean()?;
    let totals = traffic.totals();
    let count = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
    let (acknowledged, cut, resumed) = (count(&totals.acknowledged), count(&totals.cut), count(&totals.resumed));
    eprintln!("{rounds} ends; {acknowledged} requests acknowledged, {cut} cut, {resumed} uploads resumed");
    ensure!(acknowledged > u64::from(rounds), "nothing was acknowledged in between");
    Ok(())
}

// security: N-01
#[test]
fn killed_in_mid_push() -> Result<()> {
    ended_in_mid_push(&[End::Kill, End::Immediate])
}

// security: Q-03
#[test]
fn restarted_in_mid_push() -> Result<()> {
    ended_in_mid_push(&[End::Fast])
}

/// Connections that break while the database runs are no reason for an error that a client cannot try again.
// security: Q-03
#[test]
fn connections_cut_in_mid_push() -> Result<()> {
    let rng = &mut Rng::announced("cut connections");
    let postgres = postgres()?;
    let proxy = Proxy::start(postgres.address())?;
    let server = server(proxy.through(&postgres.url(DATABASE)), CONFIG)?;
    let mut traffic = Traffic::new(&server, rng, 4, Away::Database)?;
    for round in 1..=6 {
        traffic.resume(&server);
        for _ in 0..8 {
            thread::sleep(Duration::from_millis(20 + rng.below(100)));
            match rng.chance(50) {
                true => proxy.cut(),
                false => proxy.reset(),
            }
        }
        proxy.set(Mode::Refuse);
        proxy.cut();
        traffic.settle().with_context(|| format!("round {round}"))?;
        proxy.set(Mode::Pass);
        traffic.look(&server, KEPT).with_context(|| format!("round {round}"))?;
    }
    server.assert_clean()
}

#[test]
fn pgbouncer_restarted_in_mid_push() -> Result<()> {
    let rng = &mut Rng::announced("pgbouncer");
    let postgres = postgres()?;
    let mut pooler = Pgbouncer::start(&postgres)?;
    let server = server(pooler.url(DATABASE), CONFIG)?;
    let mut traffic = Traffic::new(&server, rng, 4, Away::Database)?;
    for round in 1..=4 {
        traffic.resume(&server);
        thread::sleep(Duration::from_millis(100 + rng.below(500)));
        pooler.stop()?;
        traffic.settle().with_context(|| format!("round {round}"))?;
        pooler.launch()?;
        traffic.look(&server, KEPT).with_context(|| format!("round {round}"))?;
    }
    server.assert_clean()
}

/// A registry with an image, two users and an upload session in the middle.
struct Scene {
    postgres: Postgres,
    proxy: Proxy,
    server: Server,
    upload: String,
    bytes: Vec<u8>,
    manifest: Vec<u8>,
}

impl Scene {
    fn new(name: &str) -> Result<Self> {
        let rng = &mut Rng::announced(name);
        let postgres = postgres()?;
        let proxy = Proxy::start(postgres.address())?;
        let server = server(proxy.through(&postgres.url(DATABASE)), "")?;
        for (user, role) in [("alice", "maintainer"), ("bob", "reader")] {
            server.add_user(user, "a long password")?;
            server.grant(&format!("user:{user}"), role, if user == "alice" { "team/**" } else { "open/**" })?;
        }
        let mut alice = server.client(Login::Bearer("alice".to_owned(), "a long password".to_owned()));
        let image = Recipe::new().layers(rng, 1, 50_000)?.image();
        alice.push_image("team/app", &image, "v1")?;
        let bytes = rng.bytes(300_000);
        let location = alice.start("team/app")?;
        let first = Body::Bytes(&bytes[..100_000]);
        let sent = alice.send("team/app", "PATCH", &location, &[], first)?.expect_status(202)?;
        Ok(Self { postgres, proxy, server, upload: location_of(&sent)?, bytes, manifest: image.manifest.bytes })
    }

    /// Every kind of request that is decided: method, target, body, and who asks.
    fn requests(&self) -> Vec<(&'static str, String, Vec<u8>, &'static str)> {
        let digest = Hasher::digest(Algorithm::Sha256, b"a");
        let get = |target: &str, user| ("GET", target.to_owned(), Vec::new(), user);
        vec![
            get("/v2/team/app/manifests/v1", "alice"),
            ("HEAD", "/v2/team/app/manifests/v1".to_owned(), Vec::new(), "alice"),
            get("/v2/team/app/tags/list", "alice"),
            get(&format!("/v2/team/app/blobs/{digest}"), "alice"),
            get(&format!("/v2/team/app/referrers/{digest}"), "alice"),
            get("/v2/_catalog", "alice"),
            ("POST", "/v2/team/app/blobs/uploads/".to_owned(), Vec::new(), "alice"),
            ("POST", format!("/v2/team/app/blobs/uploads/?digest={digest}"), b"a".to_vec(), "alice"),
            ("PATCH", self.upload.clone(), self.bytes[100_000..].to_vec(), "alice"),
            ("PUT", "/v2/team/app/manifests/v2".to_owned(), self.manifest.clone(), "alice"),
            ("DELETE", "/v2/team/app/manifests/v1".to_owned(), Vec::new(), "alice"),
            get("/token?scope=repository:team/app:pull", "alice"),
            // Refusals are decisions too.
            get("/v2/team/app/manifests/v1", "bob"),
            get("/v2/open/none/manifests/v1", "bob"),
            ("POST", "/v2/team/app/blobs/uploads/".to_owned(), Vec::new(), "bob"),
            get("/v2/team/app/manifests/v1", "stranger"),
            get("/token?scope=repository:team/app:pull", "stranger"),
        ]
    }

    fn ask(&self, method: &str, target: &str, body: &[u8], user: &str) -> Result<Response> {
        let login = basic(user, "a long password");
        let manifest = ("Content-Type", "application/vnd.oci.image.manifest.v1+json");
        let headers = [("Authorization", login.as_str()), manifest];
        let body = if body.is_empty() { Body::None } else { Body::Bytes(body) };
        Ok(Connection::open(self.server.address(), &self.server.host())?.send(method, target, &headers, body)?)
    }

    /// Every request is answered 503 in time, with a time to come back.
    fn assert_away(&self) -> Result<Duration> {
        let mut longest = Duration::ZERO;
        thread::scope(|scope| {
            let asked: Vec<_> = self
                .requests()
                .into_iter()
                .map(|(method, target, body, user)| {
                    scope.spawn(move || {
                        let start = Instant::now();
                        let answer = self.ask(method, &target, &body, user);
                        (format!("{method} {target} by {user}"), start.elapsed(), answer)
                    })
                })
                .collect();
            for thread in asked {
                let (what, time, answer) = thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
                let answer = answer.with_context(|| what.clone())?;
                ensure!(answer.status == 503, "{what}: {answer:?}");
                ensure!(answer.header("retry-after").is_some(), "{what}: no Retry-After: {answer:?}");
                ensure!(time < BOUND, "{what} took {time:?}");
                longest = longest.max(time);
            }
            anyhow::Ok(())
        })?;
        Ok(longest)
    }

    /// The same server goes on: the session is finished, the image is there.
    fn assert_back(&self) -> Result<()> {
        wait_until_ready(&self.server)?;
        let mut alice = self.server.client(Login::Bearer("alice".to_owned(), "a long password".to_owned()));
        alice.assert_whole("team/app", "v1")?;
        let status = alice.send("team/app", "GET", &self.upload, &[], Body::None)?.expect_status(204)?;
        let range = status.header("range").context("no Range")?.to_owned();
        let received = range.trim_start_matches("0-").parse::<usize>()? + 1;
        ensure!((100_000..=self.bytes.len()).contains(&received), "{range}");
        let digest = Hasher::digest(Algorithm::Sha256, &self.bytes);
        let target = with_digest(&location_of(&status)?, &digest);
        let rest = Body::Bytes(&self.bytes[received..]);
        alice.send("team/app", "PUT", &target, &[], rest)?.expect_status(201)?;
        ensure!(alice.blob("team/app", &digest)?.body == self.bytes, "other bytes came back");
        ensure!(alice.manifest("team/app", "v2")?.status == 404, "what was answered 503 was done");
        self.server.assert_clean()
    }
}

/// Nothing is decided from memory, neither for nor against; what needs no decision is answered.
#[test]
fn while_it_is_away_everything_is_answered_503_and_then_goes_on() -> Result<()> {
    let mut scene = Scene::new("away")?;
    scene.postgres.stop(End::Fast)?;
    let longest = scene.assert_away()?;
    eprintln!("away: answered within {longest:?}");
    let (status, body) = readiness(&scene.server)?;
    ensure!(status == 503 && body.contains(r#""database":"unavailable""#), "{status} {body}");
    ensure!(body.contains(r#""store":"ok""#), "{body}");
    let mut connection = Connection::open(scene.server.address(), &scene.server.host())?;
    ensure!(connection.send("GET", "/healthz", &[], Body::None)?.status == 200, "it lives");
    // A challenge decides nothing.
    ensure!(
        connection.send("GET", "/v2/", &[], Body::None)?.status == 401,
        "who asks without credentials is asked for them"
    );
    scene.postgres.launch()?;
    scene.assert_back()
}

/// A database that takes requests and never answers holds nobody up for long.
#[test]
fn a_hung_database_is_answered_503_in_time() -> Result<()> {
    let scene = Scene::new("hung")?;
    scene.proxy.set(Mode::Hang);
    let longest = scene.assert_away()?;
    eprintln!("hung: answered within {longest:?}");
    let (status, body) = readiness(&scene.server)?;
    ensure!(status == 503 && body.contains(r#""database":"unavailable""#), "{status} {body}");
    // Once more, with every connection stuck.
    scene.assert_away()?;
    // What was sent while it hung never arrives.
    scene.proxy.cut();
    scene.proxy.set(Mode::Pass);
    scene.assert_back()
}

#[test]
fn a_start_waits_for_the_database_and_says_so() -> Result<()> {
    let postgres = postgres()?;
    let proxy = Proxy::start(postgres.address())?;
    proxy.set(Mode::Refuse);
    let url = proxy.through(&postgres.url(DATABASE));
    let config = "[database]\nstart_timeout = \"1s\"\n";
    let start = Instant::now();
    let error = match server(url.clone(), config) {
        Ok(_) => anyhow::bail!("it started without its database"),
        Err(error) => format!("{error:#}"),
    };
    ensure!(error.contains("waiting for the database") && error.contains("help: "), "{error}");
    ensure!(!error.contains("a%20long") && !error.contains(testdb::PASSWORD), "the log has the password: {error}");
    ensure!(start.elapsed() > Duration::from_secs(1), "it did not wait");
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_secs(2));
            proxy.set(Mode::Pass);
        });
        let server = server(url, "")?;
        ensure!(fs::read_to_string(server.log_file())?.contains("waiting for the database"), "it did not say so");
        wait_until_ready(&server)
    })
}

/// Rows and files of different stores are not put together, and two servers do not share a database.
#[test]
fn a_data_directory_belongs_to_its_database() -> Result<()> {
    let postgres = postgres()?;
    postgres.create_database("other")?;
    let mut first = server(postgres.url(DATABASE), "")?;
    let refused = |what: Result<Server>| match what {
        Ok(_) => anyhow::bail!("it started"),
        Err(error) => Ok(format!("{error:#}")),
    };
    // A second server, with files of its own or none.
    let error = refused(server(postgres.url(DATABASE), ""))?;
    ensure!(error.contains("is not its data directory"), "{error}");
    first.stop()?;
    first.move_database(Some(postgres.url("other")));
    let error = first.launch().err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(error.contains("holds the files of store"), "{error}");
    first.move_database(Some(postgres.url(DATABASE)));
    first.launch()?;
    first.assert_clean()
}

/// A server from which another one has taken the store acknowledges nothing from that moment on, and ends.
#[test]
fn a_server_that_lost_the_store_refuses_and_ends() -> Result<()> {
    let postgres = postgres()?;
    let mut server = server(postgres.url(DATABASE), "[server]\ndrain_timeout = \"60s\"\n")?;
    let mut admin = server.admin();
    let image = Recipe::new().layers(&mut Rng::announced("lost store"), 1, 1000)?.image();
    admin.push_image("team/app", &image, "before")?;
    postgres.run(DATABASE, "UPDATE store SET served_by = 'another', served_session = 'another' WHERE id = 1")?;
    // Its next sign of life is due within five seconds; until then it may still answer, but not with 201.
    let began = Instant::now();
    if let Ok(response) = admin.put_manifest("team/app", "after", image.media_type, &image.manifest.bytes) {
        ensure!(response.status == 503, "{response:?}");
    }
    while server.is_running() {
        ensure!(began.elapsed() < Duration::from_secs(20), "it goes on: {}", server.log_tail());
        thread::sleep(Duration::from_millis(100));
    }
    let tags = postgres.run(DATABASE, "SELECT COUNT(*) FROM tag WHERE name = 'after'")?;
    ensure!(tags.trim() == "0", "the tag is there");
    Ok(())
}

mod migration {
    use std::collections::BTreeMap;
    use std::process::Stdio;

    use super::*;

    /// Every manifest of these repositories, with its bytes.
    fn manifests(server: &Server, images: u64) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut admin = server.admin();
        (0..images)
            .map(|number| {
                let (repository, tag) = (format!("team/r{}", number % 7), format!("v{number}"));
                admin.assert_whole(&repository, &tag)?;
                let manifest = admin.manifest(&repository, &tag)?.expect_status(200)?;
                Ok((format!("{repository}:{tag}"), manifest.body))
            })
            .collect()
    }

    /// Runs the command, killed at random moments before it ends; how often.
    fn migrate(server: &Server, arguments: &[&str], kills: u32, rng: &mut Rng) -> Result<u32> {
        let mut killed = 0;
        for round in 0..kills {
            let mut child = server.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
            thread::sleep(Duration::from_millis(20 + u64::from(round) * 15 + rng.below(40)));
            if let Some(status) = child.try_wait()? {
                ensure!(status.success(), "{arguments:?}: {status}");
                return Ok(killed);
            }
            child.kill()?;
            child.wait()?;
            killed += 1;
        }
        server.run(arguments)?;
        Ok(killed)
    }

    #[test]
    fn there_and_back_with_kills_in_between() -> Result<()> {
        let rng = &mut Rng::announced("migration");
        let postgres = postgres()?;
        let files = tempfile::tempdir()?;
        let url = files.path().join("url");
        fs::write(&url, postgres.url(DATABASE))?;
        let url_file = url.to_str().context("not UTF-8")?.to_owned();
        // On a file first, whatever the run is about.
        let mut server = Server::start(Options { database_url: Some("sqlite".to_owned()), ..Options::default() })?;
        let images = 60;
        let mut admin = server.admin();
        for number in 0..images {
            let image = Recipe::new().layers(rng, 2, 20_000)?.image();
            admin.push_image(&format!("team/r{}", number % 7), &image, &format!("v{number}"))?;
        }
        server.add_user("alice", "a long password")?;
        let before = manifests(&server, images)?;
        server.stop()?;

        let there = ["migrate", "--from", "sqlite", "--to-file", &url_file];
        let killed = migrate(&server, &there, 8, rng)?;
        ensure!(!server.data_dir().join("meta.db").exists(), "the old database is still in its place");
        server.move_database(Some(postgres.url(DATABASE)));
        server.launch()?;
        ensure!(manifests(&server, images)? == before, "manifests differ on PostgreSQL");
        server.assert_clean()?;
        // Ids go on where they were.
        server.add_user("bob", "a long password")?;
        let image = Recipe::new().layers(rng, 1, 20_000)?.image();
        server.admin().push_image("team/new", &image, "v1")?;
        server.stop()?;

        let back = ["migrate", "--from-file", &url_file, "--to", "sqlite"];
        let killed_back = migrate(&server, &back, 8, rng)?;
        server.move_database(Some("sqlite".to_owned()));
        server.launch()?;
        ensure!(manifests(&server, images)? == before, "manifests differ on SQLite");
        server.admin().assert_serves("team/new", &image)?;
        ensure!(server.run(&["user", "list"])?.contains("bob"), "a user is gone");
        server.assert_clean()?;
        eprintln!("killed {killed} times on the way there and {killed_back} times on the way back");
        ensure!(killed > 0 && killed_back > 0, "no kill hit the migration");
        Ok(())
    }

    #[test]
    fn what_cannot_be_migrated_is_refused() -> Result<()> {
        let postgres = postgres()?;
        postgres.create_database("taken")?;
        drop(server(postgres.url("taken"), "")?);
        let mut source = Server::start(Options { database_url: Some("sqlite".to_owned()), ..Options::default() })?;
        let files = tempfile::tempdir()?;
        let file = |name: &str, database: &str| -> Result<String> {
            fs::write(files.path().join(name), postgres.url(database))?;
            Ok(files.path().join(name).display().to_string())
        };
        let (empty, taken) = (file("empty", DATABASE)?, file("taken", "taken")?);
        let with_password = postgres.url(DATABASE);
        let refuse = |server: &Server, arguments: &[&str], state: i32, words: &str| -> Result<()> {
            let output = server.output(arguments)?;
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(
                output.status.code() == Some(state) && text.contains(words),
                "{arguments:?}: {}: {text}",
                output.status
            );
            ensure!(!text.contains("a%20long"), "the password is shown: {text}");
            Ok(())
        };
        refuse(&source, &["migrate", "--to-file", &empty], 7, "in use")?;
        source.stop()?;
        refuse(&source, &["migrate"], 2, "")?;
        refuse(&source, &["migrate", "--from", "sqlite", "--to", "sqlite"], 2, "--to")?;
        refuse(&source, &["migrate", "--from", "sqlite", "--to", &with_password], 2, "password")?;
        refuse(&source, &["migrate", "--from", "sqlite", "--to-file", &taken], 1, "holds others already")?;
        refuse(&source, &["migrate", "--from-file", &taken, "--to-file", &empty], 1, "holds the files of store")?;
        source.launch()?;
        source.assert_clean()
    }
}
