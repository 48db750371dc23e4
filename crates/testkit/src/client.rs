//! A registry client for tests: Basic or Bearer credentials, one kept connection, the calls of a push and a pull.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use oci::{Algorithm, Digest, Hasher};

use crate::http::{Body, Connection, Response};
use crate::image::{INDEX, Image, MANIFEST};
use crate::layout::Hashing;

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Tokens live for a quarter of an hour.
const TOKEN_AGE: Duration = Duration::from_secs(600);

/// Who a client is.
#[derive(Clone, Debug)]
pub enum Login {
    /// Nobody.
    Anonymous,
    /// A name and a password, sent with each request.
    Basic(String, String),
    /// A name and a password, changed for a token of each scope.
    Bearer(String, String),
    /// This value of the `Authorization` header.
    Given(String),
}

/// A client of one server.
pub struct Client {
    address: SocketAddr,
    login: Login,
    connection: Option<Connection>,
    tokens: HashMap<String, (String, Instant)>,
}

impl Client {
    /// A client that has not connected yet.
    pub fn new(address: SocketAddr, login: Login) -> Self {
        Self { address, login, connection: None, tokens: HashMap::new() }
    }

    /// Talks to another address from now on, with the tokens that it has: for a server that was restarted.
    pub fn move_to(&mut self, address: SocketAddr) {
        self.address = address;
        self.connection = None;
    }

    /// Gives up the kept connection.
    pub fn reconnect(&mut self) {
        self.connection = None;
    }

    /// Sends a request with the credentials for this repository; connects anew when the kept connection was closed.
    pub fn send(
        &mut self,
        repository: &str,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Body<'_>,
    ) -> io::Result<Response> {
        let mut bytes = Vec::new();
        let mut response = self.send_to(repository, method, target, headers, body, &mut bytes)?;
        response.body = bytes;
        Ok(response)
    }

    /// As [`Client::send`], with the body of the answer written to `sink`.
    pub fn send_to(
        &mut self,
        repository: &str,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Body<'_>,
        sink: &mut dyn Write,
    ) -> io::Result<Response> {
        let authorization = self.authorization(repository)?;
        let mut headers = headers.to_vec();
        if let Some(authorization) = &authorization {
            headers.push(("Authorization", authorization));
        }
        let result = self.connection()?.send_to(method, target, &headers, body, sink);
        self.keep(&result);
        result
    }

    fn connection(&mut self) -> io::Result<&mut Connection> {
        match &mut self.connection {
            Some(connection) => Ok(connection),
            none => Ok(none.insert(Connection::open(self.address, &format!("localhost:{}", self.address.port()))?)),
        }
    }

    fn keep(&mut self, result: &io::Result<Response>) {
        let closed = match result {
            Ok(response) => response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")),
            Err(_) => true,
        };
        if closed {
            self.connection = None;
        }
    }

    /// The value of the `Authorization` header for this repository (`*`: the catalog; empty: none in particular).
    pub fn authorization(&mut self, repository: &str) -> io::Result<Option<String>> {
        let (name, password) = match &self.login {
            Login::Anonymous => return Ok(None),
            Login::Given(value) => return Ok(Some(value.clone())),
            Login::Basic(name, password) => return Ok(Some(basic(name, password))),
            Login::Bearer(name, password) => (name.clone(), password.clone()),
        };
        if let Some((token, since)) = self.tokens.get(repository)
            && since.elapsed() < TOKEN_AGE
        {
            return Ok(Some(token.clone()));
        }
        let scope = match repository {
            "" => String::new(),
            "*" => "&scope=registry:catalog:*".to_owned(),
            name => format!("&scope=repository:{name}:pull,push,delete"),
        };
        let service = format!("localhost:{}", self.address.port());
        let target = format!("/token?service={service}{scope}");
        let headers = [("Authorization", &*basic(&name, &password))];
        let result = self.connection()?.send("GET", &target, &headers, Body::None);
        self.keep(&result);
        let response = result?.expect_status(200)?;
        let answer: serde_json::Value = serde_json::from_slice(&response.body)?;
        let token = answer["token"].as_str().ok_or_else(|| io::Error::other("the answer has no token"))?;
        let token = format!("Bearer {token}");
        self.tokens.insert(repository.to_owned(), (token.clone(), Instant::now()));
        Ok(Some(token))
    }

    /// POST then PUT: the whole blob in the closing request. The answer must be 201 with this digest.
    pub fn push_blob(&mut self, repository: &str, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let location = self.start(repository)?;
        let target = with_digest(&location, digest);
        self.send(repository, "PUT", &target, &[], Body::Bytes(bytes))?.expect_status(201)?;
        Ok(())
    }

    /// POST, PATCH with this many bytes of a reader, then an empty PUT.
    pub fn push_stream(
        &mut self,
        repository: &str,
        digest: &Digest,
        reader: &mut dyn Read,
        length: u64,
    ) -> io::Result<()> {
        let location = self.start(repository)?;
        let headers = [("Content-Type", "application/octet-stream")];
        let response =
            self.send(repository, "PATCH", &location, &headers, Body::Sized(reader, length))?.expect_status(202)?;
        let target = with_digest(&location_of(&response)?, digest);
        self.send(repository, "PUT", &target, &[], Body::Bytes(b""))?.expect_status(201)?;
        Ok(())
    }

    /// Opens an upload session; its URL.
    pub fn start(&mut self, repository: &str) -> io::Result<String> {
        let target = format!("/v2/{repository}/blobs/uploads/");
        location_of(&self.send(repository, "POST", &target, &[], Body::Bytes(b""))?.expect_status(202)?)
    }

    /// Pushes a manifest; the answer as it is.
    pub fn put_manifest(
        &mut self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> io::Result<Response> {
        let target = format!("/v2/{repository}/manifests/{reference}");
        self.send(repository, "PUT", &target, &[("Content-Type", media_type)], Body::Bytes(bytes))
    }

    /// Pushes blobs, children and manifest, and names it `reference`.
    pub fn push_image(&mut self, repository: &str, image: &Image, reference: &str) -> io::Result<()> {
        for blob in &image.blobs {
            self.push_blob(repository, &blob.digest, &blob.bytes)?;
        }
        for child in &image.children {
            self.push_image(repository, child, child.manifest.digest.as_str())?;
        }
        self.put_manifest(repository, reference, image.media_type, &image.manifest.bytes)?.expect_status(201)?;
        Ok(())
    }

    /// Fetches a manifest; the answer as it is.
    pub fn manifest(&mut self, repository: &str, reference: &str) -> io::Result<Response> {
        let accept = [("Accept", MANIFEST), ("Accept", INDEX), ("Accept", DOCKER_MANIFEST), ("Accept", DOCKER_LIST)];
        self.send(repository, "GET", &format!("/v2/{repository}/manifests/{reference}"), &accept, Body::None)
    }

    /// Fetches a blob; the answer as it is.
    pub fn blob(&mut self, repository: &str, digest: &Digest) -> io::Result<Response> {
        self.send(repository, "GET", &format!("/v2/{repository}/blobs/{digest}"), &[], Body::None)
    }

    /// Fetches a blob of any size without keeping it: status, and digest and length of what came.
    pub fn hash_blob(&mut self, repository: &str, digest: &Digest) -> io::Result<(u16, Digest, u64)> {
        let mut sink = Hashing::new();
        let target = format!("/v2/{repository}/blobs/{digest}");
        let response = self.send_to(repository, "GET", &target, &[], Body::None, &mut sink)?;
        let (actual, length) = sink.finish();
        Ok((response.status, actual, length))
    }

    /// Deletes a manifest or a tag; the status.
    pub fn delete_manifest(&mut self, repository: &str, reference: &str) -> io::Result<u16> {
        let target = format!("/v2/{repository}/manifests/{reference}");
        Ok(self.send(repository, "DELETE", &target, &[], Body::None)?.status)
    }

    /// Fails unless a manifest and all that it names, whoever pushed it, is served with the bytes of its digest; the
    /// manifest.
    pub fn assert_whole(&mut self, repository: &str, reference: &str) -> io::Result<serde_json::Value> {
        let response = self.manifest(repository, reference)?.expect_status(200)?;
        let digest = Hasher::digest(Algorithm::Sha256, &response.body);
        if response.header("docker-content-digest") != Some(digest.as_str()) {
            return Err(io::Error::other(format!("{repository}:{reference}: the body is {digest}: {response:?}")));
        }
        let manifest: serde_json::Value = serde_json::from_slice(&response.body)?;
        for child in manifest["manifests"].as_array().into_iter().flatten() {
            self.assert_whole(repository, child["digest"].as_str().unwrap_or_default())?;
        }
        let layers = manifest["layers"].as_array().into_iter().flatten();
        for descriptor in layers.chain(manifest.get("config")) {
            let digest = descriptor["digest"].as_str().unwrap_or_default();
            let wanted = Digest::parse(digest).map_err(io::Error::other)?;
            let (status, actual, length) = self.hash_blob(repository, &wanted)?;
            if status != 200 || actual != wanted || Some(length) != descriptor["size"].as_u64() {
                return Err(io::Error::other(format!("{repository}: {wanted}: {status}, {length} bytes of {actual}")));
            }
        }
        Ok(manifest)
    }

    /// Fails unless the repository serves every blob and manifest of the image with its exact bytes.
    pub fn assert_serves(&mut self, repository: &str, image: &Image) -> io::Result<()> {
        for child in &image.children {
            self.assert_serves(repository, child)?;
        }
        for blob in &image.blobs {
            let got = self.blob(repository, &blob.digest)?.expect_status(200)?;
            if got.body != blob.bytes {
                return Err(io::Error::other(format!("{repository}: {} has other bytes", blob.digest)));
            }
        }
        let manifest = &image.manifest;
        let got = self.manifest(repository, manifest.digest.as_str())?.expect_status(200)?;
        if got.body != manifest.bytes || got.header("docker-content-digest") != Some(manifest.digest.as_str()) {
            return Err(io::Error::other(format!("{repository}: {} has other bytes", manifest.digest)));
        }
        Ok(())
    }
}

/// The `Location` of an answer.
pub fn location_of(response: &Response) -> io::Result<String> {
    response
        .header("location")
        .map(ToOwned::to_owned)
        .ok_or_else(|| io::Error::other(format!("no Location: {response:?}")))
}

/// An upload URL with `digest=` added.
pub fn with_digest(location: &str, digest: &Digest) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}digest={digest}")
}

/// The value of a Basic `Authorization` header.
pub fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}")))
}
