//! HTTP/2: who speaks it over TLS, many streams at a time on one connection, and without TLS.

use anyhow::{Context, Result, ensure};
use portcullis_tests::{PASSWORD, Stage, Tool, Transport, tried};
use testkit::image::{Image, Recipe};
use testkit::{Rng, layout};

/// Streams at a time; the server allows 128.
const STREAMS: usize = 100;

/// The protocol of all requests about this repository.
fn protocol(stage: &Stage, repository: &str) -> Result<String> {
    let path = format!("/v2/{repository}/");
    let protocols =
        ["GET", "HEAD", "POST", "PUT", "PATCH"].iter().filter_map(|method| stage.protocol_of(method, &path).ok());
    let mut protocols: Vec<String> = protocols.collect();
    protocols.dedup();
    ensure!(protocols.len() == 1, "{repository}: {protocols:?}");
    protocols.pop().context("no request")
}

/// Clients over TLS, each by itself; what each speaks is what it spoke when this was written.
#[test]
fn q86_clients_negotiate_http2() -> Result<()> {
    let mut stage = Stage::tls()?;
    let authority = stage.authority()?;
    let rng = &mut Rng::announced("http2");
    let image = Recipe::new().layers(rng, 30, 100_000)?.image();
    layout::write(&stage.path("image"), &image, "it")?;
    let local = stage.text_path("image");

    let crane = stage.tool("crane", "crane")?.env("SSL_CERT_FILE", &authority);
    crane.run(&["auth", "login", "-u", "alice", "-p", PASSWORD, &stage.host()])?;
    crane.run(&["push", &local, &stage.at("team/crane:1")])?;
    crane.run(&["pull", "--format=oci", &stage.at("team/crane:1"), &stage.text_path("crane-back")])?;
    layout::assert_holds(&stage.path("crane-back"), &image)?;
    ensure!(protocol(&stage, "team/crane")? == "HTTP/2", "crane speaks {}", protocol(&stage, "team/crane")?);

    let oras = stage.tool("oras", "oras")?.env("SSL_CERT_FILE", &authority);
    oras.run(&["login", "--plain-http=false", "-u", "alice", "-p", PASSWORD, &stage.host()])?;
    let (source, target) = (format!("{local}:it"), stage.at("team/oras:1"));
    oras.run(&["cp", "--from-oci-layout", &source, "--to-plain-http=false", &target, "--concurrency", "30"])?;
    let back = format!("{}:it", stage.text_path("oras-back"));
    oras.run(&["cp", "--from-plain-http=false", &target, "--to-oci-layout", &back, "--concurrency", "30"])?;
    layout::assert_holds(&stage.path("oras-back"), &image)?;
    ensure!(protocol(&stage, "team/oras")? == "HTTP/2", "oras speaks {}", protocol(&stage, "team/oras")?);

    let skopeo = stage.tool("skopeo", "skopeo")?.env("SSL_CERT_FILE", &authority);
    skopeo.run(&["login", "-u", "alice", "-p", PASSWORD, &stage.host()])?;
    let remote = format!("docker://{}", stage.at("team/skopeo:1"));
    skopeo.run(&["copy", &format!("oci:{local}:it"), &remote])?;
    skopeo.run(&["copy", &remote, &format!("oci:{}:it", stage.text_path("skopeo-back"))])?;
    layout::assert_holds(&stage.path("skopeo-back"), &image)?;
    let skopeo_speaks = protocol(&stage, "team/skopeo")?;
    stage.record_result("skopeo", &skopeo, "protocol over TLS", &skopeo_speaks)?;

    stage.set_transport(Transport::Http2);
    for (name, tool) in [("crane", &crane), ("oras", &oras)] {
        stage.record(name, tool, &[tried::LOGIN, tried::PUSH, tried::PULL_BY_TAG])?;
    }
    stage.close()
}

/// One request of curl; `lines` is in the form of its configuration files.
fn request(url: &str, lines: &str) -> String {
    let format = r"%{http_code} %{http_version} %{num_connects}\n";
    format!("next\nurl = \"{url}\"\nuser = \"alice:{PASSWORD}\"\nmax-time = 60\nwrite-out = \"{format}\"\n{lines}\n")
}

/// Sends all of these. Fails unless each is answered with this status, by HTTP/2, on one and the same connection.
fn send(stage: &Stage, curl: &Tool, requests: &[String], status: &str) -> Result<()> {
    let file = stage.text_path("requests");
    std::fs::write(&file, requests.concat().trim_start_matches("next\n"))?;
    let ran = curl.run(&["-sS", "-K", &file])?;
    let answers: Vec<Vec<&str>> = ran.stdout.lines().map(|line| line.split(' ').collect()).collect();
    ensure!(answers.len() == requests.len(), "{} answers: {ran:?}", answers.len());
    let wrong = answers.iter().find(|answer| answer[..2] != [status, "2"]);
    ensure!(wrong.is_none(), "{wrong:?}: {ran:?}");
    let connections: u32 = answers.iter().filter_map(|answer| answer[2].parse::<u32>().ok()).sum();
    ensure!(connections == 1, "{connections} connections: {ran:?}");
    Ok(())
}

/// Pushes and pulls so many layers, each longer than a fair share of the connection's window, with a password on each request.
fn blobs_go_there_and_back(stage: &Stage, url: &str, curl: &Tool, version: &str, count: usize) -> Result<()> {
    let rng = &mut Rng::announced("http2");
    let image: Image = Recipe::new().layers(rng, count, 600_000)?.image();
    layout::write(&stage.path("image"), &image, "it")?;
    let mut pushes = Vec::new();
    let mut pulls = Vec::new();
    for blob in &image.blobs[1..] {
        let file = layout::path(&stage.path("image"), &blob.digest);
        let lines = format!(
            "{version}\nrequest = POST\nupload-file = \"{}\"\nheader = \"Content-Type: application/octet-stream\"\n",
            file.display()
        );
        pushes.push(request(&format!("{url}/v2/team/streams/blobs/uploads?digest={}", blob.digest), &lines));
        let back = stage.path(&format!("back-{}", blob.digest.hex()));
        let lines = format!("{version}\noutput = \"{}\"\n", back.display());
        pulls.push(request(&format!("{url}/v2/team/streams/blobs/{}", blob.digest), &lines));
    }
    send(stage, curl, &pushes, "201")?;
    send(stage, curl, &pulls, "200")?;
    for blob in &image.blobs[1..] {
        let back = stage.path(&format!("back-{}", blob.digest.hex()));
        ensure!(std::fs::read(back)? == blob.bytes, "{} came back with other bytes", blob.digest);
    }
    Ok(())
}

#[test]
fn many_streams_on_one_connection() -> Result<()> {
    let stage = Stage::tls()?;
    let most = STREAMS.to_string();
    let curl = stage.tool("curl", "curl")?.always(&["--parallel", "--parallel-max", &most]);
    let version = format!("http2\ncacert = \"{}\"", stage.authority()?);
    blobs_go_there_and_back(&stage, &format!("https://{}", stage.host()), &curl, &version, STREAMS)?;
    stage.close()
}

#[test]
fn without_tls_by_prior_knowledge() -> Result<()> {
    let stage = Stage::plain()?;
    let (curl, url) = (stage.tool("curl", "curl")?, format!("http://{}", stage.host()));
    // One by one: Debian's curl cannot use a connection without TLS twice, with no server.
    blobs_go_there_and_back(&stage, &url, &curl, "http2-prior-knowledge", 1)?;
    blobs_go_there_and_back(&stage, &url, &curl, "http2-prior-knowledge", 1)?;
    // An offer to change over to HTTP/2 within HTTP/1.1 is not taken up, and does no harm (RFC 9113 gave it up).
    let offered = curl.run(&["-sS", "-i", "--http2", &format!("{url}/v2/")])?;
    ensure!(offered.stdout.starts_with("HTTP/1.1 401"), "{offered:?}");
    stage.close()
}
