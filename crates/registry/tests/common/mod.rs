//! A registry over a real database and a real folder, with a clock that tests turn and a disk that tests break.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use blobs::{Blobs, Faults, Fs};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use oci::conditional::Precondition;
use oci::{Algorithm, Clock, Digest, Hasher, Random, RepositoryName, Tag, Timestamp};
use policy::{
    Access, Caller, Credential, Grant, Grantee, Identity, Need, Refusal, RepositoryPattern, Role, Rules, Subject,
    SubjectId, SubjectKind, TagPattern, authorize,
};
use registry::manifest::{Pushed, Target};
use registry::{Body, Error, Registry, Right, Settings};
use testdb::{Database, Engine, engine};

pub const GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// Maintainer everywhere.
pub const ALICE: i64 = 1;
/// Reader everywhere.
pub const BOB: i64 = 2;
/// Writer everywhere: no deletes.
pub const CAROL: i64 = 3;
/// Maintainer of `team/**` for tags `v*` alone.
pub const DAVE: i64 = 4;
/// Reader of `open/**` and writer of `dave/**`.
pub const ERIN: i64 = 5;

pub struct World {
    pub folder: tempfile::TempDir,
    /// Where the rows are, when they are not in the folder.
    pub database: Option<Arc<Database>>,
    pub registry: Registry,
    pub faults: Faults,
    pub now: Arc<AtomicI64>,
    pub rules: Arc<Rules>,
}

pub fn settings() -> Settings {
    Settings {
        sparse_images: false,
        manifest_limit: 4 << 20,
        uploads_per_subject: 100,
        upload_idle: GRACE,
        gc_grace: GRACE,
        verify_reads: false,
    }
}

pub async fn world() -> World {
    world_with(settings()).await
}

pub async fn world_with(settings: Settings) -> World {
    let folder = tempfile::tempdir().unwrap();
    let database = database();
    let now = Arc::new(AtomicI64::new(1_800_000_000_000));
    let faults = Faults::default();
    let registry = open(folder.path(), database.as_deref(), settings, &now, &faults).await;
    World { folder, database, registry, faults, now, rules: Arc::new(rules()) }
}

/// An empty database of the engine that the run is about; `None` on SQLite, where it is a file.
pub fn database() -> Option<Arc<Database>> {
    match engine() {
        Engine::Sqlite => None,
        Engine::Postgres => Some(Arc::new(Database::create().unwrap())),
    }
}

pub fn clock(now: &Arc<AtomicI64>) -> Clock {
    let now = now.clone();
    Arc::new(move || Timestamp(now.load(Ordering::SeqCst)))
}

/// Different each time, the same in each run.
pub fn random() -> Random {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Arc::new(|bytes: &mut [u8]| {
        let seed = NEXT.fetch_add(1, Ordering::SeqCst).to_le_bytes();
        let digest = Hasher::digest(Algorithm::Sha512, &seed);
        for (byte, pair) in bytes.iter_mut().zip(digest.hex().as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        }
    })
}

async fn open(
    data: &std::path::Path,
    database: Option<&Database>,
    settings: Settings,
    now: &Arc<AtomicI64>,
    faults: &Faults,
) -> Registry {
    let root = data.join("blobs");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(data.join("format.json"), b"{\"format\":1}").unwrap();
    let db = open_database(data, database, now).await;
    let blobs = Blobs::Fs(Fs::open_faulty(&root, faults.clone()).unwrap());
    Registry::new(db, blobs, settings, clock(now), random())
}

pub async fn open_database(data: &std::path::Path, database: Option<&Database>, now: &Arc<AtomicI64>) -> meta::Db {
    match database {
        None => meta::Db::open_sqlite(&data.join("meta.db"), clock(now), random()).unwrap(),
        Some(database) => {
            let options = meta::PostgresOptions::new(meta::PostgresUrl::parse(database.url()).unwrap());
            // Boxed: one future in another, deeper than compilers look.
            meta::Db::open_postgres(&options, clock(now), random()).boxed().await.unwrap()
        }
    }
}

fn rules() -> Rules {
    let subject = |id, name: &str| Subject {
        id: SubjectId(id),
        name: name.into(),
        kind: SubjectKind::User,
        administrator: false,
        disabled: false,
        epoch: 1,
        expires_at: None,
    };
    let grant = |id, subject, role: Role, pattern: &str, tags: &[&str]| Grant {
        id,
        grantee: Grantee::Subject(SubjectId(subject)),
        verbs: role.verbs(),
        repository: RepositoryPattern::parse(pattern).unwrap(),
        tags: tags.iter().map(|tag| TagPattern::parse(tag).unwrap()).collect(),
        expires_at: None,
    };
    let subjects = [(ALICE, "alice"), (BOB, "bob"), (CAROL, "carol"), (DAVE, "dave"), (ERIN, "erin")];
    Rules::new(
        1,
        subjects.map(|(id, name)| subject(id, name)).into(),
        vec![
            grant(1, ALICE, Role::Maintainer, "**", &[]),
            grant(2, BOB, Role::Reader, "**", &[]),
            grant(3, CAROL, Role::Writer, "**", &[]),
            grant(4, DAVE, Role::Maintainer, "team/**", &["v*"]),
            grant(5, ERIN, Role::Reader, "open/**", &[]),
            grant(6, ERIN, Role::Writer, "erin/**", &[]),
        ],
    )
}

impl World {
    /// The same data directory after a restart.
    pub async fn restart(self) -> Self {
        let settings = self.registry.settings().clone();
        self.registry.db().clone().close().await.unwrap();
        let database = self.database.as_deref();
        let registry = open(self.folder.path(), database, settings, &self.now, &self.faults).await;
        registry.db().clear_leases().await.unwrap();
        Self { registry, ..self }
    }

    pub fn time(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::SeqCst))
    }

    pub fn pass(&self, time: Duration) {
        self.now.fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    pub fn caller(&self, subject: i64) -> Arc<Caller> {
        Arc::new(Caller {
            identity: Identity::Subject(SubjectId(subject)),
            credential: Credential::Basic,
            credential_id: "basic".to_owned(),
            source: "127.0.0.1".to_owned(),
            request_id: "test".to_owned(),
        })
    }

    /// What `subject` may do in `repository`, which it must be allowed to pull.
    pub fn access(&self, subject: i64, repository: &str) -> Access {
        let name = name(repository);
        authorize(&self.rules, &self.caller(subject), &name, Need::Pull, self.time()).unwrap()
    }

    pub async fn push_blob(&self, access: &Access, bytes: &[u8]) -> Digest {
        let digest = sha256(bytes);
        let again = access.clone();
        let length = Some(bytes.len() as u64);
        registry::push::monolithic(&self.registry, access, &digest, length, body(bytes), &again).await.unwrap()
    }

    pub async fn push_manifest(&self, access: &Access, reference: &str, bytes: &[u8]) -> Result<Pushed, Error> {
        let target = Target {
            reference: oci::Reference::parse(reference).unwrap(),
            tags: vec![],
            precondition: Precondition::default(),
        };
        registry::manifest::push(&self.registry, access, target, None, Bytes::copy_from_slice(bytes)).await
    }

    /// Pushes an image with a config and a layer of its own, and its tag.
    pub async fn push_image(&self, access: &Access, tag: &str, text: &str) -> Image {
        let config = self.push_blob(access, format!("config {text}").as_bytes()).await;
        let layer = self.push_blob(access, format!("layer {text}").as_bytes()).await;
        let bytes = image(&config, std::slice::from_ref(&layer));
        let digest = self.push_manifest(access, tag, &bytes).await.unwrap().digest;
        Image { config, layer, digest, bytes }
    }

    pub async fn read_blob(&self, right: &dyn Right, digest: &Digest) -> Result<Vec<u8>, Error> {
        let blob = registry::pull::blob(&self.registry, right, digest).await?;
        let bytes = match blob.source {
            blobs::Source::Inline(bytes) => bytes.to_vec(),
            blobs::Source::File { file, offset, length } => {
                let mut bytes = Vec::new();
                while (bytes.len() as u64) < length {
                    let left = length - bytes.len() as u64;
                    bytes
                        .extend_from_slice(&blobs::read_chunk(&file, offset + bytes.len() as u64, left).await.unwrap());
                }
                bytes
            }
        };
        assert_eq!(bytes.len() as u64, blob.size);
        Ok(bytes)
    }

    /// Everything in the blob store, as paths.
    pub fn files(&self) -> Vec<std::path::PathBuf> {
        let mut files = Vec::new();
        for folder in std::fs::read_dir(self.folder.path().join("blobs")).unwrap() {
            files.extend(std::fs::read_dir(folder.unwrap().path()).unwrap().map(|file| file.unwrap().path()));
        }
        files
    }
}

pub struct Image {
    pub config: Digest,
    pub layer: Digest,
    pub digest: Digest,
    pub bytes: Vec<u8>,
}

pub fn name(text: &str) -> RepositoryName {
    RepositoryName::parse(text).unwrap()
}

pub fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

pub fn sha256(bytes: &[u8]) -> Digest {
    Hasher::digest(Algorithm::Sha256, bytes)
}

/// `length` bytes that differ at each position.
pub fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}

/// A body in frames as they come from a connection.
pub fn body(bytes: &[u8]) -> Body {
    let frames: Vec<_> = bytes.chunks(16 << 10).map(|frame| Ok(Bytes::copy_from_slice(frame))).collect();
    stream::iter(frames).boxed()
}

/// No right any more.
pub struct No;

impl Right for No {
    fn decide(&self) -> Result<Access, Refusal> {
        Err(refused())
    }

    fn refresh(&self) -> BoxFuture<'_, Result<(), registry::Error>> {
        Box::pin(async { Ok(()) })
    }
}

/// A body that breaks off after `bytes`.
pub fn broken(bytes: &[u8]) -> Body {
    body(bytes).chain(stream::once(async { Err(io::ErrorKind::ConnectionReset.into()) })).boxed()
}

pub fn descriptor(media_type: &str, digest: &Digest) -> serde_json::Value {
    serde_json::json!({"mediaType": media_type, "digest": digest.as_str(), "size": 7})
}

pub fn image_json(config: &Digest, layers: &[Digest]) -> serde_json::Value {
    let layer = |digest| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", digest);
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": layers.iter().map(layer).collect::<Vec<_>>(),
    })
}

pub fn image(config: &Digest, layers: &[Digest]) -> Vec<u8> {
    image_json(config, layers).to_string().into_bytes()
}

pub fn index(children: &[Digest]) -> Vec<u8> {
    let child = |digest| descriptor("application/vnd.oci.image.manifest.v1+json", digest);
    let children: Vec<_> = children.iter().map(child).collect();
    serde_json::json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": children})
        .to_string()
        .into_bytes()
}

/// An artifact that refers to `subject`.
pub fn artifact(subject: &Digest, artifact_type: &str, note: &str) -> Vec<u8> {
    let empty = sha256(b"{}");
    let mut manifest = image_json(&empty, &[]);
    manifest["config"] = descriptor("application/vnd.oci.empty.v1+json", &empty);
    manifest["config"]["size"] = 2.into();
    manifest["artifactType"] = artifact_type.into();
    manifest["annotations"] = serde_json::json!({"note": note});
    manifest["subject"] = descriptor("application/vnd.oci.image.manifest.v1+json", subject);
    manifest.to_string().into_bytes()
}

pub fn refused() -> Refusal {
    Refusal::Denied { reason: "taken away".to_owned() }
}
