//! The server under a memory limit of 256 MiB: a blob of 4 GiB, 100,000 tags, hundreds of large manifests at once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use oci::Digest;
use serde_json::{Value, json};
use testkit::client::Login;
use testkit::http::Body;
use testkit::image::{MANIFEST, Recipe};
use testkit::layout::Hashing;
use testkit::{Client, Noise, Rng, Server};

const LIMIT: u64 = 256 << 20;

/// Fails unless the server lives and never had more memory than the limit. Where the machine sets limits, going beyond would
/// have been its end; the highest resident memory tells everywhere.
fn assert_within_limit(server: &Server) -> Result<()> {
    let peak = server.peak_memory().context("the server is gone")?;
    eprintln!("highest resident memory: {} MiB", peak >> 20);
    ensure!(peak < LIMIT, "{} MiB of memory", peak >> 20);
    if let Some(limit) = server.memory_limit() {
        ensure!(limit.kills() == 0, "the kernel killed the server");
    }
    Ok(())
}

#[test]
fn a_blob_of_four_gibibytes() -> Result<()> {
    const SIZE: u64 = 4 << 30;
    let server = Server::start_default()?;
    let mut sink = Hashing::new();
    std::io::copy(&mut Noise::new(17, SIZE), &mut sink)?;
    let (digest, length) = sink.finish();
    ensure!(length == SIZE, "{length} bytes were made");
    let mut admin = server.admin();
    let start = Instant::now();
    admin.push_stream("large/blob", &digest, &mut Noise::new(17, SIZE), SIZE)?;
    let pushed = start.elapsed();
    let start = Instant::now();
    let (status, actual, length) = admin.hash_blob("large/blob", &digest)?;
    eprintln!("pushed in {:.1} s, pulled in {:.1} s", pushed.as_secs_f64(), start.elapsed().as_secs_f64());
    ensure!((status, length) == (200, SIZE) && actual == digest, "{status}: {length} bytes of {actual}");
    assert_within_limit(&server)
}

/// Pushes a manifest under so many tags, many in each request.
fn tag_often(client: &mut Client, repository: &str, tags: &[String]) -> Result<Digest> {
    let image = Recipe::new().image();
    client.push_image(repository, &image, "first")?;
    for some in tags.chunks(64) {
        let query: Vec<String> = some.iter().map(|tag| format!("tag={tag}")).collect();
        let reference = format!("{}?{}", image.manifest.digest, query.join("&"));
        client.put_manifest(repository, &reference, MANIFEST, &image.manifest.bytes)?.expect_status(201)?;
    }
    Ok(image.manifest.digest)
}

fn tags_of(client: &mut Client, target: &str) -> Result<(Vec<String>, Option<String>)> {
    let response = client.send("many/tags", "GET", target, &[], Body::None)?.expect_status(200)?;
    let body: Value = serde_json::from_slice(&response.body)?;
    let tags = body["tags"].as_array().context("no tags")?.iter().filter_map(|tag| Some(tag.as_str()?.to_owned()));
    let next =
        response.header("link").map(|link| link.trim_start_matches('<').split('>').next().unwrap_or("").to_owned());
    Ok((tags.collect(), next))
}

// security: D-06
#[test]
fn a_hundred_thousand_tags() -> Result<()> {
    const NUMBER: usize = 100_000;
    let server = Server::start_default()?;
    let mut admin = server.admin();
    // Some are prefixes of others: t1, t10, t100.
    let mut tags: Vec<String> = (1..NUMBER).map(|number| format!("t{number}")).collect();
    let start = Instant::now();
    tag_often(&mut admin, "many/tags", &tags)?;
    eprintln!("{NUMBER} tags in {:.1} s", start.elapsed().as_secs_f64());
    tags.push("first".to_owned());
    tags.sort_unstable();

    let start = Instant::now();
    let (all, next) = tags_of(&mut admin, "/v2/many/tags/tags/list")?;
    eprintln!("listed in one answer in {:.2} s", start.elapsed().as_secs_f64());
    ensure!(all == tags && next.is_none(), "{} tags, next {next:?}", all.len());

    // Page through while another client creates and deletes tags between them.
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let changing = scope.spawn(|| -> Result<()> {
            let mut other = server.admin();
            let image = Recipe::new().image();
            let mut rng = Rng::new(5);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let tag = format!("t{}-passing", rng.below(NUMBER as u64));
                other.put_manifest("many/tags", &tag, MANIFEST, &image.manifest.bytes)?.expect_status(201)?;
                let status = other.delete_manifest("many/tags", &tag)?;
                ensure!(status == 202, "delete of {tag}: {status}");
            }
            Ok(())
        });
        let mut seen: Vec<String> = Vec::new();
        let mut target = Some("/v2/many/tags/tags/list?n=1000".to_owned());
        let paged = (|| -> Result<()> {
            while let Some(next) = target.take() {
                let (page, next) = tags_of(&mut admin, &next)?;
                seen.extend(page);
                target = next;
                ensure!(seen.len() < NUMBER + 50_000, "the pages do not end");
            }
            Ok(())
        })();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        paged?;
        changing.join().map_err(|_| anyhow::anyhow!("the other client panicked"))??;
        ensure!(seen.is_sorted_by(|a, b| a < b), "the pages repeat a tag or change their order");
        seen.retain(|tag| !tag.ends_with("-passing"));
        ensure!(seen == tags, "{} of {} tags were on the pages", seen.len(), tags.len());
        Ok(())
    })?;
    assert_within_limit(&server)
}

// security: I-01
#[test]
fn five_hundred_manifests_of_four_mebibytes_at_once() -> Result<()> {
    const NUMBER: usize = 500;
    let server = Server::start_default()?;
    let mut admin = server.admin();
    let image = Recipe::new().image();
    admin.push_image("large/manifests", &image, "small")?;
    let config = image.blobs[0].descriptor(testkit::image::CONFIG);
    let filler = "x".repeat(10_000);
    // One text, in which each client writes its own number.
    let annotations: serde_json::Map<String, Value> =
        (0..410).map(|index| (format!("{index}"), json!(filler))).collect();
    let template = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [],
        "annotations": annotations, "number": "_____",
    })
    .to_string()
    .into_bytes();
    ensure!((4_100_000..4 << 20).contains(&template.len()), "{} bytes", template.len());
    let place = template.windows(5).rposition(|window| window == b"_____").context("no place for the number")?;
    let manifest = |number: usize| -> Vec<u8> {
        let mut bytes = template.clone();
        bytes[place..place + 5].copy_from_slice(format!("{number:05}").as_bytes());
        bytes
    };
    let start = Instant::now();
    let address = server.address();
    let login = Login::Given(admin.authorization("large/manifests")?.context("no token")?);
    let mut statuses: Vec<(u16, u32)> = Vec::new();
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..NUMBER)
            .map(|number| {
                let (login, manifest) = (login.clone(), &manifest);
                scope.spawn(move || -> Result<u16> {
                    let mut client = Client::new(address, login);
                    let target = format!("/v2/large/manifests/manifests/m{number}");
                    let headers = [("Content-Type", MANIFEST)];
                    let body = manifest(number);
                    Ok(client.send("large/manifests", "PUT", &target, &headers, Body::Bytes(&body))?.status)
                })
            })
            .collect();
        // Somebody else is served meanwhile.
        std::thread::sleep(Duration::from_secs(1));
        let mut slowest = Duration::ZERO;
        for _ in 0..10 {
            let start = Instant::now();
            admin.manifest("large/manifests", "small")?.expect_status(200)?;
            slowest = slowest.max(start.elapsed());
        }
        eprintln!("slowest pull meanwhile: {:.2} s", slowest.as_secs_f64());
        ensure!(slowest < Duration::from_secs(10), "a pull took {slowest:?}");
        for thread in threads {
            let status = thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            match statuses.iter_mut().find(|(known, _)| *known == status) {
                Some((_, count)) => *count += 1,
                None => statuses.push((status, 1)),
            }
        }
        Ok(())
    })?;
    eprintln!("{NUMBER} manifests in {:.1} s: {statuses:?}", start.elapsed().as_secs_f64());
    ensure!(statuses.iter().all(|(status, _)| matches!(status, 201 | 429 | 503)), "{statuses:?}");
    ensure!(statuses.iter().any(|(status, _)| *status == 201), "none was taken: {statuses:?}");

    // A body without an end is refused at the limit, not collected.
    let mut endless = Noise::new(3, 64 << 20);
    let headers = [("Content-Type", MANIFEST)];
    let target = "/v2/large/manifests/manifests/endless";
    let response = admin.send("large/manifests", "PUT", target, &headers, Body::Chunked(&mut endless))?;
    ensure!(response.status == 413, "{response:?}");
    assert_within_limit(&server)?;
    server.assert_clean()
}
