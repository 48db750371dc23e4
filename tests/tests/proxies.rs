//! Behind nginx and haproxy, with the configurations of docs/guide/proxies.md; plain HTTP and TLS between them and the server.

use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use portcullis_tests::proxy::{Kind, PROXY, Proxied};
use portcullis_tests::{Containerd, DockerEngine, Line, PASSWORD, Ran, Tool, tried};
use testkit::image::{self, FIVE_PLATFORMS, Image, Recipe};
use testkit::{Rng, layout};

const LARGE: usize = 200 << 20;

/// An image with one layer of 200 MiB, made once.
fn large() -> Result<&'static Image> {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    if let Some(image) = IMAGE.get() {
        return Ok(image);
    }
    let image = Recipe::new().layer(&mut Rng::announced("proxies"), LARGE)?.image();
    Ok(IMAGE.get_or_init(|| image))
}

/// The images that each client moves: an index of five platforms, and the large one.
fn images() -> Result<[(&'static str, Image); 2]> {
    let five = image::index(&mut Rng::announced("proxies"), &FIVE_PLATFORMS, 50_000)?;
    Ok([("five", five), ("large", large()?.clone())])
}

fn crane(proxied: &Proxied, who: &str) -> Result<Tool> {
    let tool = proxied.stage.tool("crane", who)?.env("SSL_CERT_FILE", &proxied.authority());
    tool.run(&["auth", "login", "-u", who, "-p", PASSWORD, &proxied.host()])?;
    Ok(tool)
}

fn crane_goes_through(proxied: &Proxied, images: &[(&str, Image)]) -> Result<()> {
    let crane = crane(proxied, "alice")?;
    for (name, image) in images {
        let remote = proxied.at(&format!("team/{name}:1"));
        layout::write(&proxied.stage.path(name), image, "it")?;
        crane.run(&["push", "--index", &proxied.stage.text_path(name), &remote])?;
        let by_digest = proxied.at(&format!("team/{name}@{}", image.manifest.digest));
        crane.run(&["tag", &by_digest, "1"])?;
        let back = format!("{name}-crane");
        crane.run(&["pull", "--format=oci", &remote, &proxied.stage.text_path(&back)])?;
        layout::assert_holds(&proxied.stage.path(&back), image)?;
        std::fs::remove_dir_all(proxied.stage.path(&back))?;
    }
    record(proxied, "crane", &crane)
}

fn skopeo_goes_through(proxied: &Proxied, images: &[(&str, Image)]) -> Result<()> {
    let stage = &proxied.stage;
    let skopeo = stage.tool("skopeo", "skopeo")?.env("SSL_CERT_FILE", &proxied.authority());
    skopeo.run(&["login", "-u", "alice", "-p", PASSWORD, &proxied.host()])?;
    for (name, image) in images {
        let (local, back) = (format!("oci:{}:it", stage.text_path(name)), format!("{name}-skopeo"));
        let remote = format!("docker://{}", proxied.at(&format!("team/{name}-skopeo:1")));
        skopeo.run(&["copy", "--all", &local, &remote])?;
        skopeo.run(&["copy", "--all", &remote, &format!("oci:{}:it", stage.text_path(&back))])?;
        layout::assert_holds(&stage.path(&back), image)?;
        std::fs::remove_dir_all(stage.path(&back))?;
    }
    record(proxied, "skopeo", &skopeo)
}

/// Pulls what crane pushed, and pushes it as somebody who may not read there, so that nothing can be mounted.
fn containerd_goes_through(proxied: &Proxied, images: &[(&str, Image)]) -> Result<()> {
    let stage = &proxied.stage;
    let containerd = Containerd::start(Line::Current)?;
    let folder = stage.path("hosts").join(proxied.host());
    std::fs::create_dir_all(&folder)?;
    let url = format!("https://{}", proxied.host());
    let text = format!("server = \"{url}\"\n[host.\"{url}\"]\nca = \"{}\"\n", proxied.authority());
    std::fs::write(folder.join("hosts.toml"), text)?;
    let hosts = stage.text_path("hosts");
    let ctr = containerd.ctr(stage, "proxy")?;
    let (alice, carol) = (format!("alice:{PASSWORD}"), format!("carol:{PASSWORD}"));
    for (name, image) in images {
        let repository = format!("{name}-ctr");
        stage.server.grant("user:carol", "writer", &repository)?;
        let (source, target) = (proxied.at(&format!("team/{name}:1")), proxied.at(&format!("{repository}:1")));
        ctr.run(&["images", "pull", "--all-platforms", "--hosts-dir", &hosts, "--user", &alice, &source])?;
        ctr.run(&["images", "tag", &source, &target])?;
        ctr.run(&["images", "push", "--hosts-dir", &hosts, "--user", &carol, &target])?;
        let crane = crane(proxied, "carol")?;
        let back = format!("{name}-ctr-back");
        crane.run(&["pull", "--format=oci", &target, &stage.text_path(&back)])?;
        layout::assert_holds(&stage.path(&back), image)?;
        std::fs::remove_dir_all(stage.path(&back))?;
    }
    record(proxied, Line::Current.name(), &ctr)
}

/// As containerd. The engine takes loopback for insecure, so it is not told of the authority.
fn docker_goes_through(proxied: &Proxied, images: &[(&str, Image)]) -> Result<()> {
    let (stage, engine) = (&proxied.stage, DockerEngine::start()?);
    let program = if Path::new("/usr/bin/docker").exists() { "/usr/bin/docker" } else { "docker" };
    let docker = |who: &str| -> Result<Tool> {
        let docker = stage.tool(program, who)?.always(&["-H", &engine.socket()]);
        docker.run_with(&["login", "-u", who, "--password-stdin", &proxied.host()], PASSWORD)?;
        Ok(docker)
    };
    let (alice, carol) = (docker("alice")?, docker("carol")?);
    for (name, image) in images {
        let repository = format!("{name}-docker");
        stage.server.grant("user:carol", "writer", &repository)?;
        let (source, target) = (proxied.at(&format!("team/{name}:1")), proxied.at(&format!("{repository}:1")));
        alice.run(&["pull", "-q", &source])?;
        alice.run(&["tag", &source, &target])?;
        carol.run(&["push", &target])?;
        let chosen = image.children.first().unwrap_or(image);
        alice.run(&["image", "rm", "-f", chosen.blobs[0].digest.as_str()])?;
        carol.run(&["pull", "-q", &target])?;
        let inspected = carol.run(&["image", "inspect", &target])?.json()?;
        ensure!(inspected[0]["Id"] == chosen.blobs[0].digest.as_str(), "{target} has another config: {inspected:#}");
        carol.run(&["image", "rm", "-f", chosen.blobs[0].digest.as_str()])?;
    }
    record(proxied, "docker", &alice)
}

fn record(proxied: &Proxied, client: &str, tool: &Tool) -> Result<()> {
    let tried = [tried::LOGIN, tried::PUSH, tried::PULL_BY_TAG, tried::PLATFORMS, "a layer of 200 MiB"];
    proxied.stage.record(client, tool, &tried)
}

/// curl as one of the people, from an address of its own.
fn curl(proxied: &Proxied, who: &str) -> Result<Tool> {
    let (login, authority) = (format!("{who}:{PASSWORD}"), proxied.authority());
    let always = ["-sS", "-i", "--max-time", "60", "--cacert", &authority, "--interface", CLIENT, "-u", &login];
    Ok(proxied.stage.tool("curl", who)?.always(&always))
}

/// Where curl comes from.
const CLIENT: &str = "127.0.0.5";

fn header<'a>(ran: &'a Ran, name: &str) -> Result<&'a str> {
    let lines = ran.stdout.lines().filter_map(|line| line.split_once(": "));
    let found = lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    Ok(found.with_context(|| format!("no {name} in {ran:?}"))?.1.trim())
}

fn assert_status(ran: &Ran, status: &str) -> Result<()> {
    let line = ran.stdout.lines().rfind(|line| line.starts_with("HTTP/")).unwrap_or_default();
    ensure!(line.split(' ').nth(1) == Some(status), "status {status} expected: {ran:?}");
    Ok(())
}

/// What single requests show: names, ranges, whom the server believes, and how it is spoken to.
fn single_requests(proxied: &Proxied, kind: Kind, five: &Image) -> Result<()> {
    let (curl, url) = (curl(proxied, "alice")?, format!("https://{}", proxied.host()));
    let nobody = proxied.stage.tool("curl", "nobody")?.always(&["-sS", "-i", "--cacert", &proxied.authority()]);
    let challenge = nobody.run(&[&format!("{url}/v2/")])?;
    ensure!(challenge.stdout.starts_with("HTTP/2 401"), "no HTTP/2 in front: {challenge:?}");
    let realm = format!("realm=\"{url}/token\",service=\"{}\"", proxied.host());
    ensure!(header(&challenge, "www-authenticate")?.contains(&realm), "{challenge:?}");
    for version in ["--http1.1", "--http2"] {
        assert_status(&nobody.run(&[version, "-H", "Host: other.example", &format!("{url}/v2/")])?, "421")?;
    }

    let layer = &five.children[0].blobs[1];
    let blob = format!("{url}/v2/team/five/blobs/{}", layer.digest);
    let part = curl.run(&["-r", "10-13", &blob, "-o", &proxied.stage.text_path("part"), "-D", "-"])?;
    assert_status(&part, "206")?;
    ensure!(header(&part, "content-range")? == format!("bytes 10-13/{}", layer.bytes.len()), "{part:?}");
    ensure!(std::fs::read(proxied.stage.path("part"))?.ends_with(&layer.bytes[10..14]), "a range has other bytes");
    let parts = curl.run(&["-r", "0-1,20-21", "--output", "/dev/null", "-D", "-", &blob])?;
    ensure!(header(&parts, "content-type")?.starts_with("multipart/byteranges"), "{parts:?}");
    let head = curl.run(&["-I", &blob])?;
    ensure!(header(&head, "content-length")? == layer.bytes.len().to_string(), "{head:?}");

    // A client that lies: its address is what the proxy saw.
    let manifest = format!("{url}/v2/team/five/manifests/lied");
    let file = proxied.stage.path("manifest");
    std::fs::write(&file, &five.manifest.bytes)?;
    let (data, media_type) = (format!("@{}", file.display()), format!("Content-Type: {}", image::INDEX));
    let lies = ["-H", "X-Forwarded-For: 6.6.6.6", "-H", "Forwarded: for=7.7.7.7", "-H", "X-Real-IP: 8.8.8.8"];
    let mut arguments = vec!["-X", "PUT", "--data-binary", &data, "-H", &media_type];
    arguments.extend(lies);
    arguments.push(&manifest);
    assert_status(&curl.run(&arguments)?, "201")?;
    let events = proxied.stage.server.run(&["event", "list", "--json", "--repository", "team/five"])?;
    let events: serde_json::Value = serde_json::from_str(&events)?;
    let source = |reference: &str| {
        let mut events = events["items"].as_array().into_iter().flatten();
        events.find(|event| event["reference"] == reference).map(|event| event["source"].clone())
    };
    ensure!(source("lied") == Some(CLIENT.into()), "the audit trail believes a lie: {events:#}");
    ensure!(source("1") == Some("127.0.0.1".into()), "the audit trail has not the client: {events:#}");
    let requests = proxied.stage.requests()?;
    let lied = requests.iter().find(|line| line["path"] == "/v2/team/five/manifests/lied").context("no line of it")?;
    ensure!(lied["client"] == CLIENT && lied["peer"] == PROXY, "{lied:#}");
    let protocol = if kind == Kind::HaproxyTls { "HTTP/2" } else { "HTTP/1.1" };
    ensure!(lied["protocol"] == protocol, "{lied:#}");
    Ok(())
}

/// Beside the proxy nobody is believed.
fn direct_lies(proxied: &Proxied) -> Result<()> {
    let curl = proxied.stage.tool("curl", "direct")?.always(&["-sS", "-i", "-k", "--interface", CLIENT]);
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://{}/v2/direct-{scheme}", proxied.stage.host());
        let _ = curl.try_run(&["-H", "X-Forwarded-For: 6.6.6.6", "-H", "Forwarded: for=7.7.7.7", &url], "")?;
    }
    let requests = proxied.stage.requests()?;
    let direct = |line: &&serde_json::Value| line["path"].as_str().is_some_and(|path| path.contains("/direct-"));
    let lines: Vec<_> = requests.iter().filter(direct).collect();
    ensure!(!lines.is_empty() && lines.iter().all(|line| line["client"] == CLIENT), "{lines:#?}");
    Ok(())
}

/// An upload that is cut in the middle: the server has what was sent before, so no proxy kept it; and the upload goes on.
fn an_upload_is_resumed(proxied: &Proxied) -> Result<()> {
    let (curl, url) = (curl(proxied, "alice")?, format!("https://{}", proxied.host()));
    let bytes = Rng::announced("proxies").bytes(8 << 20);
    let digest = oci::Hasher::digest(oci::Algorithm::Sha256, &bytes);
    let begun = curl.run(&["-X", "POST", "-d", "", &format!("{url}/v2/team/resumed/blobs/uploads/")])?;
    assert_status(&begun, "202")?;
    let location = header(&begun, "location")?;
    ensure!(location.starts_with("/v2/team/resumed/blobs/uploads/"), "{begun:?}");
    let target = format!("{url}{location}");
    let (whole, rest) = (proxied.stage.text_path("whole"), proxied.stage.text_path("rest"));
    std::fs::write(&whole, &bytes)?;
    let octets = ["-H", "Content-Type: application/octet-stream"];
    let slow = ["-X", "PATCH", "-T", &whole, "--limit-rate", "2M", "--max-time", "2", octets[0], octets[1], &target];
    curl.fails(&slow)?;
    // The proxy may take a moment to see that the client has gone, and the server to keep what came.
    let mut received = 0;
    let mut status = curl.run(&[&target])?;
    for _ in 0..50 {
        status = curl.run(&[&target])?;
        let range = header(&status, "range")?.trim_start_matches("0-").parse::<usize>()?;
        received = if range == 0 { 0 } else { range + 1 };
        if received > 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_status(&status, "204")?;
    ensure!((1 << 20..bytes.len()).contains(&received), "the server has {received} bytes of what was sent in 2 s");
    std::fs::write(&rest, &bytes[received..])?;
    let range = format!("Content-Range: {received}-{}", bytes.len() - 1);
    let target = format!("{url}{}", header(&status, "location")?);
    let more = curl.run(&["-X", "PATCH", "-T", &rest, "-H", &range, octets[0], octets[1], &target])?;
    assert_status(&more, "202")?;
    let location = header(&more, "location")?;
    let separator = if location.contains('?') { '&' } else { '?' };
    let closing = format!("{url}{location}{separator}digest={digest}");
    assert_status(&curl.run(&["-X", "PUT", "-d", "", &closing])?, "201")?;
    let back = proxied.stage.text_path("resumed");
    curl.run(&["-o", &back, "-D", "-", "--no-include", &format!("{url}/v2/team/resumed/blobs/{digest}")])?;
    ensure!(std::fs::read(back)? == bytes, "a resumed upload has other bytes");
    Ok(())
}

fn behind(kind: Kind) -> Result<()> {
    let proxied = Proxied::start(kind)?;
    let images = images()?;
    crane_goes_through(&proxied, &images)?;
    single_requests(&proxied, kind, &images[0].1)?;
    direct_lies(&proxied)?;
    an_upload_is_resumed(&proxied)?;
    skopeo_goes_through(&proxied, &images)?;
    containerd_goes_through(&proxied, &images)?;
    docker_goes_through(&proxied, &images)?;
    proxied.close()
}

#[test]
fn nginx() -> Result<()> {
    behind(Kind::Nginx)
}

#[test]
fn nginx_with_tls_to_the_server() -> Result<()> {
    behind(Kind::NginxTls)
}

#[test]
fn haproxy() -> Result<()> {
    behind(Kind::Haproxy)
}

#[test]
fn haproxy_with_tls_to_the_server() -> Result<()> {
    behind(Kind::HaproxyTls)
}
