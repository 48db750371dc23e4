//! Lazy pullers, which read parts of layers: podman with zstd:chunked layers, and a reader of our own that sends the ranges
//! of the stargz snapshotter, SOCI, containerd's parallel fetch and readers that resume.

use std::io::{self, Write};

use anyhow::{Context, Result, bail, ensure};
use oci::{Algorithm, Digest, Hasher};
use portcullis_tests::{PASSWORD, Stage, Tool, tried};
use serde_json::Value;
use testkit::client::Client;
use testkit::http::{Body, Connection, Response};
use testkit::image::{Blob, CONFIG, Image, MANIFEST};
use testkit::{Rng, layout, tar};

const CLIENT: &str = "lazy-reader";
const LAYER_SIZE: u64 = 5_000_003;
/// What these readers take at once.
const SPAN: u64 = 64 << 10;

/// A reader of one blob.
struct Reader {
    client: Client,
    digest: Digest,
    target: String,
}

impl Reader {
    fn new(stage: &Stage, digest: &Digest) -> Self {
        let target = format!("/v2/team/lazy/blobs/{digest}");
        Self { client: stage.client("bob"), digest: digest.clone(), target }
    }

    /// Asks for ranges. No answer may be a redirect, encoded, or without its digest.
    fn get(&mut self, range: &str, more: &[(&str, &str)]) -> Result<Response> {
        let mut headers = vec![("Range", range), ("Accept-Encoding", "identity, zstd, gzip")];
        headers.extend(more);
        let response = self.client.send("team/lazy", "GET", &self.target, &headers, Body::None)?;
        ensure!(!(300..400).contains(&response.status), "a redirect: {response:?}");
        ensure!(response.header("content-encoding").is_none(), "encoded: {response:?}");
        if response.status < 300 {
            ensure!(response.header("docker-content-digest") == Some(self.digest.as_str()), "{response:?}");
            ensure!(response.header("accept-ranges") == Some("bytes"), "{response:?}");
            let length = response.header("content-length").and_then(|length| length.parse::<usize>().ok());
            ensure!(length == Some(response.body.len()), "{response:?}");
        }
        Ok(response)
    }

    /// One range, which must come as a part of its own.
    fn single(&mut self, first: u64, last: u64) -> Result<Vec<u8>> {
        let response = self.get(&format!("bytes={first}-{last}"), &[])?.expect_status(206)?;
        ensure!(response.header("content-type") == Some("application/octet-stream"), "{response:?}");
        let (start, _) = content_range(response.header("content-range").context("no Content-Range")?)?;
        ensure!(start == first && response.body.len() as u64 == last - first + 1, "{response:?}");
        Ok(response.body)
    }

    /// The size as stargz and SOCI learn it: from the answer to a range of two bytes.
    fn probe(&mut self) -> Result<u64> {
        let response = self.get("bytes=0-1", &[])?.expect_status(206)?;
        Ok(content_range(response.header("content-range").context("no Content-Range")?)?.1)
    }
}

/// First byte and whole size of `bytes a-b/size`.
fn content_range(value: &str) -> Result<(u64, u64)> {
    let (range, size) =
        value.strip_prefix("bytes ").and_then(|rest| rest.split_once('/')).with_context(|| value.to_owned())?;
    let (first, _) = range.split_once('-').with_context(|| value.to_owned())?;
    Ok((first.parse()?, size.parse()?))
}

/// The parts of `multipart/byteranges` with their offsets, read as Go's `mime/multipart` does: by boundary, not by length.
fn parts(response: &Response) -> Result<Vec<(u64, Vec<u8>)>> {
    let kind = response.header("content-type").context("no Content-Type")?;
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").with_context(|| kind.to_owned())?;
    let separator = format!("\r\n--{boundary}");
    let mut rest = response.body.strip_prefix(&separator.as_bytes()[2..]).context("no boundary at the start")?;
    let mut found = Vec::new();
    while rest != b"--\r\n" {
        let head = find(rest, b"\r\n\r\n").context("a part without a head")?;
        let text = std::str::from_utf8(&rest[..head])?.to_lowercase();
        let range = text.lines().find_map(|line| line.strip_prefix("content-range: ")).context("no Content-Range")?;
        let body = &rest[head + 4..];
        let end = find(body, separator.as_bytes()).context("a part without an end")?;
        found.push((content_range(range)?.0, body[..end].to_vec()));
        rest = &body[end + separator.len()..];
    }
    Ok(found)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// Offsets of all spans of a blob, first and last byte.
fn spans(size: u64) -> Vec<(u64, u64)> {
    (0..size.div_ceil(SPAN)).map(|i| (i * SPAN, ((i + 1) * SPAN).min(size) - 1)).collect()
}

fn range_of(spans: &[(u64, u64)]) -> String {
    let list: Vec<String> = spans.iter().map(|(first, last)| format!("{first}-{last}")).collect();
    format!("bytes={}", list.join(","))
}

/// Fails unless these pieces together are the blob.
fn assert_is(digest: &Digest, mut pieces: Vec<(u64, Vec<u8>)>) -> Result<()> {
    pieces.sort_by_key(|(offset, _)| *offset);
    let mut whole = Vec::new();
    for (offset, bytes) in pieces {
        ensure!(offset == whole.len() as u64, "a gap or an overlap at {offset}, not {}", whole.len());
        whole.extend(bytes);
    }
    let actual = Hasher::digest(Algorithm::Sha256, &whole);
    ensure!(actual == *digest, "{} bytes of {actual}, not of {digest}", whole.len());
    Ok(())
}

fn staged() -> Result<(Stage, Blob)> {
    let stage = Stage::plain()?;
    let layer = Blob::new(Rng::announced("lazy").bytes(usize::try_from(LAYER_SIZE)?));
    let layers = vec![(layer.clone(), "application/vnd.oci.image.layer.v1.tar+gzip")];
    stage.client("alice").push_image("team/lazy", &image_of(&layers), "1")?;
    Ok((stage, layer))
}

/// An image of these layers as they are.
fn image_of(layers: &[(Blob, &str)]) -> Image {
    let diff_ids: Vec<&str> = layers.iter().map(|(layer, _)| layer.digest.as_str()).collect();
    let rootfs = serde_json::json!({"type": "layers", "diff_ids": diff_ids});
    let config = serde_json::json!({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs});
    let config = Blob::new(config.to_string().into_bytes());
    let descriptors: Vec<Value> = layers.iter().map(|(layer, kind)| layer.descriptor(kind)).collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config.descriptor(CONFIG), "layers": descriptors,
    });
    let manifest = Blob::new(manifest.to_string().into_bytes());
    let blobs = [config].into_iter().chain(layers.iter().map(|(layer, _)| layer.clone())).collect();
    Image { media_type: MANIFEST, manifest, blobs, children: Vec::new() }
}

fn record(stage: &Stage, tried: &[&str]) -> Result<()> {
    stage.record(CLIENT, &stage.tool("none", "bob")?, tried)
}

/// A probe, the footer, then several regions in one request; one range that holds them all where that is refused.
#[test]
fn ranges_of_the_stargz_snapshotter() -> Result<()> {
    let (stage, layer) = staged()?;
    let mut reader = Reader::new(&stage, &layer.digest);
    let size = reader.probe()?;
    ensure!(size == LAYER_SIZE, "the probe says {size}");
    // eStargz has a footer of 51 bytes, older ones 47; the table of contents is before it.
    let footer = reader.single(size - 51, size - 1)?;
    ensure!(footer == layer.bytes[layer.bytes.len() - 51..], "another footer");
    let spans = spans(size);
    let mut pieces = Vec::new();
    // Regions that are neighbours are asked for as they are, every other one first.
    for half in [0, 1] {
        let wanted: Vec<(u64, u64)> = spans.iter().copied().skip(half).step_by(2).collect();
        let response = reader.get(&range_of(&wanted), &[])?.expect_status(206)?;
        let found = parts(&response)?;
        let offsets: Vec<u64> = found.iter().map(|(offset, _)| *offset).collect();
        let expected: Vec<u64> = wanted.iter().map(|(first, _)| *first).collect();
        ensure!(offsets == expected, "parts in another order: {offsets:?}");
        pieces.extend(found);
    }
    assert_is(&layer.digest, pieces)?;
    // Too many: 400 and no other answer makes it ask again, for one range.
    let many: Vec<(u64, u64)> = (0..1000).map(|i| (i * 100, i * 100 + 10)).collect();
    reader.get(&range_of(&many), &[])?.expect_status(400)?;
    assert_is(&layer.digest, vec![(0, reader.single(0, size - 1)?)])?;
    record(&stage, &["several ranges in one request, as stargz", "too many ranges: 400, then one range"])?;
    stage.close()
}

/// The size by HEAD, the tail by its length, then spans, each in a request of its own and many at once.
#[test]
fn ranges_of_soci() -> Result<()> {
    const WORKERS: usize = 8;
    let (stage, layer) = staged()?;
    let mut reader = Reader::new(&stage, &layer.digest);
    let head = reader.client.send("team/lazy", "HEAD", &reader.target.clone(), &[], Body::None)?.expect_status(200)?;
    ensure!(head.header("content-length") == Some(LAYER_SIZE.to_string().as_str()), "{head:?}");
    let tail = reader.get("bytes=-1000", &[])?.expect_status(206)?;
    ensure!(tail.body == layer.bytes[layer.bytes.len() - 1000..], "another tail");
    let spans = spans(LAYER_SIZE);
    let pieces = std::thread::scope(|scope| -> Result<Vec<(u64, Vec<u8>)>> {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let mut reader = Reader::new(&stage, &layer.digest);
                let mine: Vec<(u64, u64)> = spans.iter().copied().skip(worker).step_by(WORKERS).rev().collect();
                scope.spawn(move || -> Result<Vec<(u64, Vec<u8>)>> {
                    mine.into_iter().map(|(first, last)| Ok((first, reader.single(first, last)?))).collect()
                })
            })
            .collect();
        let mut pieces = Vec::new();
        for worker in workers {
            let Ok(found) = worker.join() else { bail!("a worker panicked") };
            pieces.extend(found?);
        }
        Ok(pieces)
    })?;
    assert_is(&layer.digest, pieces)?;
    record(&stage, &["size by HEAD, tail by its length", "single ranges, many at once, as SOCI"])?;
    stage.close()
}

/// Takes so many bytes and then breaks.
struct Taking(Vec<u8>, usize);

impl Write for Taking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() >= self.1 {
            return Err(io::Error::other("enough"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Ranges without an end, dropped when enough has come: containerd 2 fetches in parallel so. A reader that was cut off goes
/// on so too, and makes sure with `If-Range` that it is the same blob.
#[test]
fn open_ranges_that_are_dropped_and_resumed() -> Result<()> {
    let (stage, layer) = staged()?;
    let mut client = stage.client("bob");
    let target = format!("/v2/team/lazy/blobs/{}", layer.digest);
    let tag = format!("\"{}\"", layer.digest);
    let mut whole: Vec<u8> = Vec::new();
    while whole.len() < layer.bytes.len() {
        let authorization = client.authorization("team/lazy")?.context("no token")?;
        let range = format!("bytes={}-", whole.len());
        let headers = [("Authorization", authorization.as_str()), ("Range", &range), ("If-Range", &tag)];
        let mut sink = Taking(Vec::new(), 600_000);
        let mut connection = Connection::open(stage.server.address(), &stage.host())?;
        match connection.send_to("GET", &target, &headers, Body::None, &mut sink) {
            Ok(response) => ensure!(response.status == 206, "{response:?}"),
            Err(error) => ensure!(error.to_string() == "enough", "{error}"),
        }
        ensure!(!sink.0.is_empty(), "no progress at {}", whole.len());
        whole.extend(sink.0);
    }
    assert_is(&layer.digest, vec![(0, whole)])?;
    let mut reader = Reader::new(&stage, &layer.digest);
    let other = reader.get("bytes=1000-", &[("If-Range", "\"sha256:another\"")])?.expect_status(200)?;
    assert_is(&layer.digest, vec![(0, other.body)])?;
    record(&stage, &["ranges without an end, dropped half way, as containerd 2", "resume with If-Range"])?;
    stage.close()
}

#[test]
fn parts_need_the_same_grants_as_the_whole() -> Result<()> {
    let (stage, layer) = staged()?;
    let target = format!("/v2/team/lazy/blobs/{}", layer.digest);
    for range in ["bytes=0-1", "bytes=-51", "bytes=0-9,20-29"] {
        let headers = [("Range", range)];
        let carol = stage.client("carol").send("team/lazy", "GET", &target, &headers, Body::None)?;
        ensure!(matches!(carol.status, 401 | 403 | 404), "{range}: {carol:?}");
        let mut nobody = stage.server.client(testkit::client::Login::Anonymous);
        let nobody = nobody.send("team/lazy", "GET", &target, &headers, Body::None)?.expect_status(401)?;
        ensure!(nobody.header("www-authenticate").is_some(), "{nobody:?}");
    }
    record(&stage, &[tried::DENIED_PULL])?;
    stage.close()
}

/// What is in a file of such an image: numbers.
fn text(seed: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let words: Vec<String> = (0..8000).map(|_| (rng.number() % 10_000).to_string()).collect();
    words.join(" ").into_bytes()
}

/// An image of one layer with files that compress: skopeo 1.9 cannot write every archive as zstd:chunked (it ends with
/// `short write`), but does these.
fn compressible(files: &[(String, u64)]) -> Result<Image> {
    let contents: Vec<(&str, Vec<u8>)> = files.iter().map(|(name, seed)| (name.as_str(), text(*seed))).collect();
    let files: Vec<(&str, &[u8])> = contents.iter().map(|(name, text)| (*name, text.as_slice())).collect();
    Ok(image_of(&[(Blob::new(tar::archive(&files)?), "application/vnd.oci.image.layer.v1.tar")]))
}

/// podman with the overlay driver and partial pulls, which it does not do by default.
fn podman(stage: &Stage, who: &str) -> Result<Tool> {
    let path = |name: &str| stage.text_path(&format!("{name}-{who}"));
    let configuration = format!(
        "[storage]\ndriver = \"overlay\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n[storage.options]\n\
         pull_options = {{enable_partial_images = \"true\", use_hard_links = \"false\", ostree_repos = \"\"}}\n",
        path("graph"),
        path("run"),
    );
    std::fs::write(path("storage.conf"), configuration)?;
    Ok(stage.tool("podman", who)?.env("CONTAINERS_STORAGE_CONF", &path("storage.conf")))
}

/// Pushes two images that have most files in common as zstd:chunked, pulls both; the second one in parts.
fn chunked(stage: &Stage, skopeo: &Tool, podman: &Tool, push: &[&str], pull: &[&str]) -> Result<()> {
    // Not in a folder: podman 4.3 copies files before it has made their folder now and then, and then fetches the whole layer.
    let shared: Vec<(String, u64)> = (0..150).map(|i| (format!("shared-{i}"), 1000 + i)).collect();
    let (mut layers, mut fetched) = (Vec::new(), Vec::new());
    for (number, tag) in [(1_u64, "first"), (2, "second")] {
        // Own files lie between the shared ones, so that many ranges are asked for.
        let mut files = Vec::new();
        for (index, file) in shared.iter().enumerate() {
            files.push(file.clone());
            if index % 2 == 0 {
                files.push((format!("own-{tag}-{index}"), number * 100_000 + index as u64));
            }
        }
        let image = compressible(&files)?;
        layout::write(&stage.path(tag), &image, "it")?;
        let (source, remote) = (format!("oci:{}:it", stage.text_path(tag)), stage.at(&format!("team/chunked:{tag}")));
        let target = format!("docker://{remote}");
        let mut arguments = vec!["copy", "-q", "--dest-compress", "--dest-compress-format", "zstd:chunked"];
        arguments.extend(push);
        arguments.extend([source.as_str(), target.as_str()]);
        skopeo.run(&arguments)?;
        let mut arguments = vec!["--log-level=debug", "pull"];
        arguments.extend(pull);
        arguments.push(&remote);
        podman.run(&arguments)?.names_the_cause(&["Retrieved partial blob"])?;
        let mounted = podman.run(&["image", "mount", &remote])?;
        for (name, seed) in files.iter().step_by(7).chain(files.last()) {
            let found = std::fs::read(std::path::Path::new(mounted.text()).join(name))?;
            ensure!(found == text(*seed), "{name} of {tag} has other bytes");
        }
        podman.run(&["image", "unmount", &remote])?;
        layers.push(image.blobs[1].bytes.len());
        fetched.push(bytes_in_parts(stage)?);
    }
    // The files of the first image are not fetched again.
    eprintln!("bytes in parts after each pull: {fetched:?}, of layers of {layers:?} bytes");
    let [first, both] = fetched[..] else { bail!("two images were pulled, not {}", fetched.len()) };
    ensure!(first > 0 && both - first < first * 2 / 3, "the second image was fetched whole: {fetched:?}");
    Ok(())
}

/// Bytes of all parts (206) so far, by the server's log.
fn bytes_in_parts(stage: &Stage) -> Result<u64> {
    let log = std::fs::read_to_string(stage.server.log_file())?;
    let requests = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(requests.filter(|line| line["status"] == 206).filter_map(|line| line["bytes"].as_u64()).sum())
}

#[test]
fn podman_pulls_what_it_misses_of_zstd_chunked_layers() -> Result<()> {
    let stage = Stage::plain()?;
    let skopeo = stage.tool("skopeo", "alice")?;
    skopeo.run(&["login", "--tls-verify=false", "-u", "alice", "-p", PASSWORD, &stage.host()])?;
    let podman = podman(&stage, "bob")?;
    podman.run(&["login", "--tls-verify=false", "-u", "bob", "-p", PASSWORD, &stage.host()])?;
    chunked(&stage, &skopeo, &podman, &["--dest-tls-verify=false"], &["--tls-verify=false"])?;
    stage.record("skopeo", &skopeo, &["push as zstd:chunked"])?;
    stage.record("podman", &podman, &["pull parts of zstd:chunked layers"])?;
    stage.close()
}

#[test]
fn podman_pulls_what_it_misses_over_tls() -> Result<()> {
    let stage = Stage::tls()?;
    let certificates = stage.certificates()?;
    let skopeo = stage.tool("skopeo", "alice")?;
    skopeo.run(&["login", "--cert-dir", &certificates, "-u", "alice", "-p", PASSWORD, &stage.host()])?;
    let podman = podman(&stage, "bob")?;
    podman.run(&["login", "--cert-dir", &certificates, "-u", "bob", "-p", PASSWORD, &stage.host()])?;
    chunked(&stage, &skopeo, &podman, &["--dest-cert-dir", &certificates], &["--cert-dir", &certificates])?;
    stage.record("skopeo", &skopeo, &["push as zstd:chunked"])?;
    stage.record("podman", &podman, &["pull parts of zstd:chunked layers"])?;
    stage.close()
}
