//! Upload sessions as a state machine: bytes are read as a sequence of requests and restarts, whose answers are compared with
//! those of a list of byte strings and a map of blobs.

use std::collections::BTreeMap;

use axum::body::Body;
use bytes::Bytes;
use http::Request;
use oci::{Algorithm, Hasher};
use registry::fsck::Severity;

use crate::Input;
use crate::world::{Answer, HOST, World, basic};

/// More steps than this are not taken: what goes wrong does so in few.
const STEPS: usize = 24;

// security: E-06, H-01, H-02, H-04, H-05, H-06
pub fn run(data: &[u8]) {
    World::with(|world, number| {
        let mut input = Input::new(data);
        let repository = format!("team/app-{number}");
        let mut model = Model { world, repository, sessions: Vec::new(), blobs: BTreeMap::new() };
        for _ in 0..STEPS {
            if input.is_empty() {
                break;
            }
            model.step(&mut input);
        }
        model.compare();
        // The check walks the whole store: now and then is enough, by what the input itself says.
        if data.len().is_multiple_of(8) {
            let found = model.world.findings();
            let lost: Vec<_> = found.iter().filter(|finding| finding.severity == Severity::Error).collect();
            assert!(lost.is_empty(), "{lost:?}");
        }
        model.clear();
    });
}

struct Model<'a> {
    world: &'a mut World,
    /// Each input has one of its own.
    repository: String,
    sessions: Vec<Session>,
    /// Those of the repository, by digest.
    blobs: BTreeMap<String, Vec<u8>>,
}

struct Session {
    id: String,
    /// What was received and kept; `None` once it is finished, discarded or cancelled.
    bytes: Option<Vec<u8>>,
}

/// A request that sends bytes.
struct Sending {
    pieces: Vec<Vec<u8>>,
    /// Whether the body breaks off behind the pieces.
    breaks: bool,
    length: Option<usize>,
    state: Option<String>,
    range: Option<String>,
}

/// What a request that sends bytes to a session does, before it is closed.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// All of it was taken.
    Taken,
    /// Status and code; the session has now this many bytes more.
    Refused(u16, &'static str, usize),
}

impl Model<'_> {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(12) {
            0 | 1 => self.start(input),
            2..=4 => self.append(input),
            5 | 6 => self.finish(input),
            7 => self.status(input),
            8 => self.cancel(input),
            9 => self.whole(input),
            10 => self.remove(input),
            _ => {
                self.world.pass(i64::from(input.byte()));
                self.world.restart(input.byte().is_multiple_of(2));
            }
        }
    }

    fn path(&self, below: &str) -> String {
        format!("/v2/{}/blobs/{below}", self.repository)
    }

    fn ask(&self, method: &str, target: &str, headers: &[(&str, String)], body: Body) -> Answer {
        let mut request =
            Request::builder().method(method).uri(target).header("host", HOST).header("authorization", basic());
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let answer = self.world.ask(request.body(body).unwrap());
        answer.check(method == "HEAD");
        answer
    }

    fn start(&mut self, input: &mut Input<'_>) {
        let algorithm =
            ["", "?digest-algorithm=sha256", "?digest-algorithm=sha512", "?digest-algorithm=md5"][input.below(4)];
        let answer = self.ask("POST", &self.path(&format!("uploads/{algorithm}")), &[], Body::empty());
        if algorithm.ends_with("md5") {
            assert_eq!((answer.status, answer.code().as_str()), (400, "DIGEST_INVALID"));
            return;
        }
        assert_eq!(answer.status, 202, "{answer:?}");
        let id = answer.header("docker-upload-uuid").to_owned();
        assert!(!self.sessions.iter().any(|session| session.id == id));
        told(&answer, &self.repository, &id, 0);
        self.sessions.push(Session { id, bytes: Some(Vec::new()) });
    }

    /// One of the sessions, those that are over among them; one that never was where there is none.
    fn pick(&mut self, input: &mut Input<'_>) -> usize {
        if self.sessions.is_empty() {
            self.sessions.push(Session { id: "01234567-89ab-4def-8123-456789abcdef".to_owned(), bytes: None });
        }
        input.below(self.sessions.len())
    }

    fn append(&mut self, input: &mut Input<'_>) {
        let at = self.pick(input);
        let offset = self.sessions[at].bytes.as_ref().map(Vec::len);
        let sending = Sending::read(input, offset.unwrap_or(0));
        let outcome = sending.outcome(offset);
        let answer = self.ask("PATCH", &self.target(at, &sending, None), &sending.headers(), sending.body());
        match outcome {
            Outcome::Taken => {
                self.keep(at, &sending, usize::MAX);
                assert_eq!(answer.status, 202, "{answer:?}");
                told(&answer, &self.repository, &self.sessions[at].id, self.length(at));
            }
            refused => self.refused(at, &sending, &answer, &refused),
        }
    }

    fn finish(&mut self, input: &mut Input<'_>) {
        let at = self.pick(input);
        let kind = input.below(8);
        let offset = self.sessions[at].bytes.as_ref().map(Vec::len);
        let mut sending = Sending::read(input, offset.unwrap_or(0));
        if kind >= 5 {
            sending = Sending { pieces: Vec::new(), breaks: false, length: Some(0), state: None, range: None };
        }
        let mut bytes = self.sessions[at].bytes.clone().unwrap_or_default();
        bytes.extend(sending.pieces.concat());
        let digest = match kind {
            0 => None,
            1 => Some("sha256:abc".to_owned()),
            2 => Some(Hasher::digest(Algorithm::Sha256, b"something else").to_string()),
            3 | 5 => Some(Hasher::digest(Algorithm::Sha512, &bytes).to_string()),
            _ => Some(Hasher::digest(Algorithm::Sha256, &bytes).to_string()),
        };
        let target = self.target(at, &sending, digest.as_deref());
        let answer = self.ask("PUT", &target, &sending.headers(), sending.body());
        let wrong = Outcome::Refused(400, "DIGEST_INVALID", 0);
        let outcome = if kind < 2 { wrong } else { sending.outcome(offset) };
        match (outcome, digest) {
            (Outcome::Taken, Some(_)) if kind == 2 => {
                assert_eq!((answer.status, answer.code().as_str()), (400, "DIGEST_INVALID"), "{answer:?}");
                self.sessions[at].bytes = None;
            }
            (Outcome::Taken, Some(digest)) => {
                self.created(&answer, &digest, bytes);
                self.sessions[at].bytes = None;
            }
            (refused, _) => self.refused(at, &sending, &answer, &refused),
        }
    }

    fn refused(&mut self, at: usize, sending: &Sending, answer: &Answer, outcome: &Outcome) {
        let Outcome::Refused(status, code, kept) = outcome else { panic!("not refused: {answer:?}") };
        assert_eq!((answer.status, answer.code().as_str()), (*status, *code), "{answer:?}");
        self.keep(at, sending, *kept);
        if *status == 416 {
            told(answer, &self.repository, &self.sessions[at].id, self.length(at));
        }
    }

    fn keep(&mut self, at: usize, sending: &Sending, most: usize) {
        if let Some(bytes) = &mut self.sessions[at].bytes {
            let all = sending.pieces.concat();
            bytes.extend_from_slice(&all[..all.len().min(most)]);
        }
    }

    fn length(&self, at: usize) -> usize {
        self.sessions[at].bytes.as_ref().map_or(0, Vec::len)
    }

    fn target(&self, at: usize, sending: &Sending, digest: Option<&str>) -> String {
        let mut target = self.path(&format!("uploads/{}?from=fuzz", self.sessions[at].id));
        if let Some(state) = &sending.state {
            target.push_str(&format!("&state={state}"));
        }
        if let Some(digest) = digest {
            target.push_str(&format!("&digest={digest}"));
        }
        target
    }

    fn status(&mut self, input: &mut Input<'_>) {
        let at = self.pick(input);
        self.compare_session(at);
        // Nobody else's, and not of another repository.
        let answer =
            self.ask("GET", &format!("/v2/team/other/blobs/uploads/{}", self.sessions[at].id), &[], Body::empty());
        assert_eq!((answer.status, answer.code().as_str()), (404, "BLOB_UPLOAD_UNKNOWN"), "{answer:?}");
    }

    fn compare_session(&self, at: usize) {
        let session = &self.sessions[at];
        let target = self.path(&format!("uploads/{}", session.id));
        let answer = self.ask("GET", &target, &[], Body::empty());
        match &session.bytes {
            Some(bytes) => {
                assert_eq!(answer.status, 204, "{answer:?}");
                told(&answer, &self.repository, &session.id, bytes.len());
            }
            None => assert_eq!((answer.status, answer.code().as_str()), (404, "BLOB_UPLOAD_UNKNOWN"), "{answer:?}"),
        }
    }

    fn cancel(&mut self, input: &mut Input<'_>) {
        let at = self.pick(input);
        self.end(at);
    }

    fn end(&mut self, at: usize) {
        let target = self.path(&format!("uploads/{}", self.sessions[at].id));
        let answer = self.ask("DELETE", &target, &[], Body::empty());
        match self.sessions[at].bytes.take() {
            Some(_) => assert_eq!(answer.status, 204, "{answer:?}"),
            None => assert_eq!((answer.status, answer.code().as_str()), (404, "BLOB_UPLOAD_UNKNOWN"), "{answer:?}"),
        }
    }

    /// A blob in one request.
    fn whole(&mut self, input: &mut Input<'_>) {
        let kind = input.below(4);
        let mut sending = Sending::read(input, 0);
        (sending.state, sending.range) = (None, None);
        let bytes = sending.pieces.concat();
        let digest = match kind {
            0 => Hasher::digest(Algorithm::Sha256, b"something else"),
            1 => Hasher::digest(Algorithm::Sha512, &bytes),
            _ => Hasher::digest(Algorithm::Sha256, &bytes),
        };
        let target = self.path(&format!("uploads/?digest={digest}"));
        let answer = self.ask("POST", &target, &sending.headers(), sending.body());
        // A small one is taken in before anything is judged.
        let outcome = match sending.breaks && bytes.len() <= registry::INLINE_MAX {
            true => Outcome::Refused(400, "BLOB_UPLOAD_INVALID", 0),
            false => sending.outcome(Some(0)),
        };
        match outcome {
            Outcome::Taken if kind == 0 => {
                assert_eq!((answer.status, answer.code().as_str()), (400, "DIGEST_INVALID"), "{answer:?}");
            }
            Outcome::Taken => self.created(&answer, digest.as_str(), bytes),
            Outcome::Refused(status, code, _) => {
                assert_eq!((answer.status, answer.code().as_str()), (status, code), "{answer:?}");
            }
        }
    }

    fn created(&mut self, answer: &Answer, digest: &str, bytes: Vec<u8>) {
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(answer.header("location"), self.path(digest));
        assert_eq!(answer.header("docker-content-digest"), digest);
        self.blobs.insert(digest.to_owned(), bytes);
    }

    fn remove(&mut self, input: &mut Input<'_>) {
        let some: Vec<String> = self.blobs.keys().cloned().collect();
        let known = (!some.is_empty()).then(|| some[input.below(some.len())].clone());
        let digest = known.clone().unwrap_or_else(|| Hasher::digest(Algorithm::Sha256, b"something else").to_string());
        let answer = self.ask("DELETE", &self.path(&digest), &[], Body::empty());
        assert_eq!(answer.status, if known.is_some() { 202 } else { 404 }, "{answer:?}");
        self.blobs.remove(&digest);
        let answer = self.ask("HEAD", &self.path(&digest), &[], Body::empty());
        assert_eq!(answer.status, 404, "{answer:?}");
    }

    /// Leaves no session behind, since a subject may have only so many.
    fn clear(&mut self) {
        for at in 0..self.sessions.len() {
            self.end(at);
        }
    }

    /// Everything that should be there is, and nothing else.
    fn compare(&self) {
        for at in 0..self.sessions.len() {
            self.compare_session(at);
        }
        for (digest, bytes) in &self.blobs {
            let answer = self.ask("GET", &self.path(digest), &[], Body::empty());
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.body, bytes);
            assert!(crate::oracle::manifest::is_digest_of(digest, &answer.body));
        }
    }
}

/// `Range`, `Location` and the id say how far the session is.
fn told(answer: &Answer, repository: &str, id: &str, offset: usize) {
    assert_eq!(answer.header("docker-upload-uuid"), id);
    assert_eq!(answer.header("range"), format!("0-{}", offset.saturating_sub(1)));
    assert_eq!(answer.header("location"), format!("/v2/{repository}/blobs/uploads/{id}?state={offset}"));
}

impl Sending {
    fn read(input: &mut Input<'_>, offset: usize) -> Self {
        let piece = |seed: u8| {
            // Around the size up to which bytes stay in the database, as well as small.
            let length = if seed < 200 { usize::from(seed) % 50 } else { usize::from(seed - 200) * 601 };
            (0..length).map(|at| u8::try_from(at % 251).unwrap_or(0) ^ seed).collect::<Vec<u8>>()
        };
        let pieces: Vec<Vec<u8>> = (0..input.below(3)).map(|_| piece(input.byte())).collect();
        let total = pieces.iter().map(Vec::len).sum::<usize>();
        let last = (offset + total).wrapping_sub(1);
        let length = match input.below(6) {
            0 => None,
            1 => Some(total + 1),
            2 => total.checked_sub(1),
            _ => Some(total),
        };
        let state = match input.below(6) {
            0 | 1 => None,
            2 => Some((offset + 1).to_string()),
            3 => Some(["-1", "x", "", "99999999999999999999"][input.below(4)].to_owned()),
            _ => Some(offset.to_string()),
        };
        let range = match input.below(10) {
            0 => Some(format!("{offset}-{last}")).filter(|_| total > 0),
            1 => Some(format!("{}-{}", offset + 1, offset + total)),
            2 => Some(format!("{offset}-{}", offset + total)),
            3 => Some(format!("0-{}", offset + total)),
            4 => Some(["bytes 0-1", "0-", "5-4", "0-99999999999999999999"][input.below(4)].to_owned()),
            _ => None,
        };
        Self { pieces, breaks: input.below(5) == 4, length, state, range }
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = Vec::new();
        headers.extend(self.length.map(|length| ("content-length", length.to_string())));
        headers.extend(self.range.clone().map(|range| ("content-range", range)));
        headers
    }

    fn body(&self) -> Body {
        let pieces = self.pieces.iter().map(|piece| Ok(Bytes::from(piece.clone())));
        let broken = self.breaks.then(|| Err(std::io::Error::other("the client is gone")));
        Body::from_stream(futures_util::stream::iter(pieces.chain(broken).collect::<Vec<_>>()))
    }

    /// What a session with this many bytes makes of it (the specification, "Pushing a blob in chunks").
    fn outcome(&self, offset: Option<usize>) -> Outcome {
        let unknown = Outcome::Refused(404, "BLOB_UPLOAD_UNKNOWN", 0);
        let claimed = match self.state.as_deref().map(str::parse::<usize>) {
            None => None,
            Some(Ok(claimed)) => Some(claimed),
            Some(Err(_)) => return unknown,
        };
        let parsed = self.range.as_deref().map(|range| {
            let (first, last) = range.split_once('-')?;
            let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last).then_some((first, last))
        });
        if parsed == Some(None) {
            return Outcome::Refused(400, "RANGE_INVALID", 0);
        }
        let Some(offset) = offset else { return unknown };
        let range = parsed.flatten();
        let expected = match (range, claimed) {
            (Some((first, _)), _) if first != offset => return Outcome::Refused(416, "RANGE_INVALID", 0),
            (Some((first, last)), _) => Some(last - first + 1),
            (None, Some(claimed)) if claimed != offset => return Outcome::Refused(416, "RANGE_INVALID", 0),
            (None, _) => self.length,
        };
        let size = Outcome::Refused(400, "SIZE_INVALID", 0);
        if self.length.is_some_and(|length| expected != Some(length)) {
            return size;
        }
        let total = self.pieces.iter().map(Vec::len).sum::<usize>();
        if expected.is_some_and(|expected| total > expected) {
            return size;
        }
        if self.breaks {
            return Outcome::Refused(400, "BLOB_UPLOAD_INVALID", total);
        }
        if expected.is_some_and(|expected| total != expected) { size } else { Outcome::Taken }
    }
}
