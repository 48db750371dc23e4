//! Collection, backup, checks, and the jobs that do them.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::{
    BackupReport, Checked, CollectionCounts, ErrorCode, Finding, FsckReport, GcReport, Job, JobKind, Lifetime,
    ListQuery, PlanQuery, Report, Severity, StartBackup, StartFsck, StartGc, VerifyBackup,
};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use oci::Timestamp;
use registry::{Authority, backup, fsck, gc};

use super::extract::{Admin, At, Input, Params, invalid_cursor, limit, page};
use super::{AdminState, Failure, answer};
use crate::config::{Config, SandboxMode};
use crate::data_dir::names;
use crate::offline::with_strays;

/// What a collection would remove now.
pub async fn gc_plan(
    State(state): State<AdminState>,
    Admin(_): Admin,
    Params(query): Params<PlanQuery>,
) -> Result<Response, Failure> {
    let plan = gc::plan(&state.app.registry, grace(&state, query.grace)).await?;
    Ok(answer(StatusCode::OK, &counts(&plan)))
}

/// Starts a collection.
pub async fn gc_run(
    State(state): State<AdminState>,
    Admin(access): Admin,
    Input(input): Input<StartGc>,
) -> Result<Response, Failure> {
    let (app, grace, watch) = (state.app.clone(), grace(&state, input.grace), Watch::start(&state));
    let label = access.label();
    let job = state.jobs.start(JobKind::Gc, label, |progress| async move {
        let show = |report: &gc::Report, took: u64| {
            Report::Gc(GcReport { removed: counts(report), held: report.held, duration_ms: took })
        };
        let tell = |report: &gc::Report| progress.tell(show(report, watch.elapsed()));
        let report = gc::run(&app.registry, Authority::Administrator(&access), grace, &tell).await?;
        app.metrics.gc_deleted(report.deleted_bytes);
        Ok(show(&report, watch.elapsed()))
    });
    started(job)
}

/// Starts a backup.
pub async fn backup_create(
    State(state): State<AdminState>,
    Admin(access): Admin,
    Input(input): Input<StartBackup>,
) -> Result<Response, Failure> {
    let folder = absolute(&input.directory)?;
    let config = &state.app.config;
    let staged = folder.parent() == Some(config.data_dir.join(names::STAGING).as_path());
    if staged {
        make_staging(&config.data_dir)?;
    } else if is_within(&folder, &config.data_dir) {
        let help = "name a directory outside of it, on another disk if possible";
        return Err(directory(&input.directory, "is in the data directory, which is what is to be copied", help));
    }
    if !staged {
        within_reach(config, &folder, &input.directory)?;
    }
    let occupied = tokio::fs::read_dir(&folder).await;
    if let Ok(mut entries) = occupied
        && entries.next_entry().await.ok().flatten().is_some()
    {
        return Err(directory(&input.directory, "is not empty", "name a new directory"));
    }
    let (app, watch) = (state.app.clone(), Watch::start(&state));
    let random = state.random.clone();
    let job = state.jobs.start(JobKind::Backup, access.label(), |progress| async move {
        let show = |report: &backup::Report, verified: bool| {
            Report::Backup(backup_report(&input.directory, report, verified, watch.elapsed()))
        };
        let tell = |report: &backup::Report| progress.tell(show(report, false));
        let by = Authority::Administrator(&access);
        let mut report = backup::create(&app.registry, by, &app.config.data_dir, &folder, &tell).await?;
        if input.verify {
            report = backup::verify(&folder, &app.clock, &random, &tell).await?;
        }
        Ok(show(&report, input.verify))
    });
    started(job)
}

/// Makes the folder from which commands on this machine take their backups.
fn make_staging(data_dir: &Path) -> Result<(), Failure> {
    let path = data_dir.join(names::STAGING);
    match std::fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(registry::Error::from(blobs::Error::io("mkdir", &path, error)).into())
        }
        _ => Ok(()),
    }
}

/// Refuses a directory that the sandbox keeps the server from.
fn within_reach(config: &Config, folder: &Path, typed: &str) -> Result<(), Failure> {
    if config.sandbox.mode == SandboxMode::Off || config.sandbox.write.iter().any(|root| is_within(folder, root)) {
        return Ok(());
    }
    let help = "run `portcullis backup` on the server's machine, or name a directory above it in `sandbox.write`";
    Err(directory(typed, "is out of reach of the server, which is confined to its data directory", help))
}

/// Whether `path`, or what would be made there, lies in `root`, whatever links and dots are in the names.
fn is_within(path: &Path, root: &Path) -> bool {
    let there = path.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    there.is_some_and(|there| there.starts_with(root))
}

/// Starts verifying a backup.
pub async fn backup_verify(
    State(state): State<AdminState>,
    Admin(access): Admin,
    Input(input): Input<VerifyBackup>,
) -> Result<Response, Failure> {
    let folder = absolute(&input.directory)?;
    within_reach(&state.app.config, &folder, &input.directory)?;
    if !tokio::fs::metadata(&folder).await.is_ok_and(|metadata| metadata.is_dir()) {
        return Err(directory(
            &input.directory,
            "is no directory of the server's machine",
            "name the backup's directory",
        ));
    }
    let (clock, random, watch) = (state.app.clock.clone(), state.random.clone(), Watch::start(&state));
    let job = state.jobs.start(JobKind::Backup, access.label(), |progress| async move {
        let show =
            |report: &backup::Report| Report::Backup(backup_report(&input.directory, report, true, watch.elapsed()));
        let tell = |report: &backup::Report| progress.tell(show(report));
        let report = backup::verify(&folder, &clock, &random, &tell).await?;
        Ok(show(&report))
    });
    started(job)
}

/// Starts a check.
pub async fn fsck_run(
    State(state): State<AdminState>,
    Admin(access): Admin,
    Input(input): Input<StartFsck>,
) -> Result<Response, Failure> {
    if input.repair && state.app.config.is_read_only() {
        return Err(Failure::read_only_mode("POST"));
    }
    let (app, watch) = (state.app.clone(), Watch::start(&state));
    let job = state.jobs.start(JobKind::Fsck, access.label(), |progress| async move {
        let tell = |so_far: &fsck::Checked| {
            let report =
                FsckReport { checked: checked(*so_far), duration_ms: watch.elapsed(), ..FsckReport::default() };
            progress.tell(Report::Fsck(report));
        };
        let by = Authority::Administrator(&access);
        let report = if input.repair {
            fsck::repair(&app.registry, by, &tell).await?
        } else {
            fsck::check(&app.registry, by, &tell).await?
        };
        Ok(Report::Fsck(with_strays(fsck_report(report), &app.config.data_dir)))
    });
    started(job)
}

/// Lists jobs, newest first.
pub async fn jobs(
    State(state): State<AdminState>,
    Admin(_): Admin,
    Params(query): Params<ListQuery>,
) -> Result<Response, Failure> {
    let limit = limit(query.limit)?;
    let mut jobs = state.jobs.list();
    if let Some(cursor) = &query.cursor {
        let last = jobs.iter().position(|job| job.id == *cursor).ok_or_else(invalid_cursor)?;
        jobs.drain(..=last);
    }
    Ok(answer(StatusCode::OK, &page(jobs, limit, |job| job.id.clone(), |job| job)))
}

/// Shows one job.
pub async fn job(State(state): State<AdminState>, Admin(_): Admin, At(id): At<String>) -> Result<Response, Failure> {
    let job = state.jobs.get(&id).ok_or_else(|| {
        Failure::new(ErrorCode::JobNotFound, "there is no such job", "jobs are forgotten when the server stops")
    })?;
    Ok(answer(StatusCode::OK, &job))
}

fn started(job: Result<Job, String>) -> Result<Response, Failure> {
    match job {
        Ok(job) => Ok(answer(StatusCode::ACCEPTED, &job)),
        Err(running) => {
            let help = format!("wait for the job {running}");
            let message = "one of this kind is running";
            Err(Failure::new(ErrorCode::JobRunning, message, help).with("id", running))
        }
    }
}

/// How long a job has been running.
struct Watch {
    clock: oci::Clock,
    start: Timestamp,
}

impl Watch {
    fn start(state: &AdminState) -> Self {
        Self { clock: state.app.clock.clone(), start: (state.app.clock)() }
    }

    fn elapsed(&self) -> u64 {
        u64::try_from((self.clock)().0.saturating_sub(self.start.0)).unwrap_or_default()
    }
}

fn grace(state: &AdminState, asked: Option<Lifetime>) -> Duration {
    asked.map_or(state.app.registry.settings().gc_grace, |grace| grace.0)
}

fn absolute(text: &str) -> Result<PathBuf, Failure> {
    let path = PathBuf::from(text);
    if !path.is_absolute() || text.contains('\0') {
        return Err(directory(text, "is not an absolute path", "name a directory of the server's machine"));
    }
    Ok(path)
}

fn directory(text: &str, what: &str, help: &str) -> Failure {
    Failure::new(ErrorCode::InvalidDirectory, format!("'{}' {what}", text.escape_debug()), help)
}

fn counts(report: &gc::Report) -> CollectionCounts {
    CollectionCounts {
        uploads: report.expired_uploads,
        manifests: report.deleted_manifests,
        links: report.deleted_links,
        blobs: report.deleted_blobs,
        files: report.orphan_files,
        bytes: report.deleted_bytes,
    }
}

/// What a backup, or a data directory made of one, holds.
pub(crate) fn backup_report(directory: &str, report: &backup::Report, verified: bool, took: u64) -> BackupReport {
    let missing = |digest: &String| Finding {
        code: "blob_missing".to_owned(),
        severity: Severity::Error,
        message: "the bytes of this blob were missing or damaged in the store; push it again".to_owned(),
        digest: Some(digest.clone()),
        repository: None,
        repaired: false,
    };
    BackupReport {
        directory: directory.to_owned(),
        blobs: report.blobs,
        bytes: report.bytes + report.database_bytes,
        verified,
        findings: report.missing.iter().map(missing).collect(),
        duration_ms: took,
    }
}

fn checked(checked: fsck::Checked) -> Checked {
    Checked { blobs: checked.blobs, manifests: checked.manifests, tags: checked.tags, links: checked.links }
}

/// The stable name of a kind of finding, as it is written everywhere.
fn text(code: fsck::Code) -> String {
    serde_json::to_value(code).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// What a check found.
pub(crate) fn fsck_report(report: fsck::Report) -> FsckReport {
    let finding = |finding: fsck::Finding| Finding {
        code: text(finding.code),
        severity: match finding.severity {
            fsck::Severity::Note => Severity::Note,
            fsck::Severity::Warning => Severity::Warning,
            fsck::Severity::Error => Severity::Error,
        },
        message: finding.message,
        digest: finding.digest,
        repository: finding.repository,
        repaired: finding.repaired,
    };
    FsckReport {
        checked: checked(report.checked),
        findings: report.findings.into_iter().map(finding).collect(),
        omitted: report.omitted,
        duration_ms: report.duration_ms,
    }
}
