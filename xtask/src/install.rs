//! What the tests need beyond Rust: packages of Debian, and Go modules at fixed versions.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{output, run};

/// Packages and what needs them.
const PACKAGES: &[&str] = &[
    "ca-certificates", // Go, to fetch modules
    "g++",             // libFuzzer
    "skopeo",
    "podman",
    "docker.io",
    "containerd",
    "runc", // docker and podman
    "xfsprogs",
    "e2fsprogs", // power cuts
    "mount",
    "strace", // kill at each system call
    "buildah",
    "umoci",
    "busybox-static", // what images hold
    "nginx-light",
    "haproxy", // reverse proxies
    "curl",    // single requests over TLS and HTTP/2
    "gnupg",   // signed charts
    "postgresql",
    "pgbouncer",
    "docker-compose",
];

/// A program of a Go module.
struct Module {
    /// What it is called in `PATH`; another name than its own where Debian has another version of it.
    name: &'static str,
    path: &'static str,
    version: &'static str,
    build: Build,
}

/// How a program is built.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Build {
    /// `go install`.
    Install,
    /// As a tool of an empty module: `go install` refuses a module that replaces or excludes others.
    Tool,
}

const fn module(name: &'static str, path: &'static str, version: &'static str, build: Build) -> Module {
    Module { name, path, version, build }
}

const CONTAINERD: &str = "v2.4.2";
const BUILDKIT: &str = "v0.34.2";

const MODULES: &[Module] = &[
    module(
        "conformance",
        "github.com/opencontainers/distribution-spec/conformance",
        "v0.0.0-20260831232431-97274622c111",
        Build::Install,
    ),
    module("crane", "github.com/google/go-containerregistry/cmd/crane", "v0.22.1", Build::Install),
    module("oras", "oras.land/oras/cmd/oras", "v1.3.6", Build::Install),
    module("regctl", "github.com/regclient/regclient/cmd/regctl", "v0.11.7", Build::Install),
    module("ctr2", "github.com/containerd/containerd/v2/cmd/ctr", CONTAINERD, Build::Install),
    module("containerd2", "github.com/containerd/containerd/v2/cmd/containerd", CONTAINERD, Build::Install),
    module("helm3", "helm.sh/helm/v3/cmd/helm", "v3.22.0", Build::Install),
    module("helm4", "helm.sh/helm/v4/cmd/helm", "v4.3.1", Build::Install),
    module("cosign", "github.com/sigstore/cosign/v3/cmd/cosign", "v3.1.3", Build::Install),
    module("buildctl", "github.com/moby/buildkit/cmd/buildctl", BUILDKIT, Build::Tool),
    module("buildkitd", "github.com/moby/buildkit/cmd/buildkitd", BUILDKIT, Build::Tool),
    module("dockerd2", "github.com/moby/moby/v2/cmd/dockerd", "v2.0.0-beta.24", Build::Tool),
];

/// Oldest Go (1.x) that builds all modules.
const GO_MINOR: u32 = 26;
/// The Go that is fetched, as a module, where there is none or an older one.
const GO_VERSION: &str = "1.26.8";

/// Keeps services from starting while packages are installed: `invoke-rc.d` asks this program (policy-rc.d(8) of Debian).
struct NoServices {
    file: &'static str,
    ours: bool,
}

impl NoServices {
    fn enforce() -> Result<Self> {
        let file = "/usr/sbin/policy-rc.d";
        let ours = !Path::new(file).exists();
        if ours {
            fs::write(file, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {file}; run as root"))?;
            fs::set_permissions(file, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { file, ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(self.file);
        }
    }
}

/// Installs what tests of a database need, and nothing else.
pub fn databases() -> Result<()> {
    packages(&["postgresql", "pgbouncer"])
}

/// Installs what is missing and prints the versions; folders for `PATH`.
pub fn everything() -> Result<Vec<PathBuf>> {
    packages(PACKAGES)?;
    let listed = output(Command::new("dpkg-query").args(["-W", "-f", "${Package} ${Version}\n"]).args(PACKAGES))?;
    eprint!("{listed}");
    let folders: Vec<PathBuf> =
        MODULES.iter().map(|module| cache().map(|cache| cache.join(module.folder()))).collect::<Result<_>>()?;
    let missing: Vec<&Module> = MODULES
        .iter()
        .zip(&folders)
        .filter(|(module, folder)| !folder.join(module.name).exists())
        .map(|(module, _)| module)
        .collect();
    if !missing.is_empty() {
        let go = go()?;
        eprint!("{}", output(Command::new(&go).arg("version"))?);
        missing.into_iter().try_for_each(|module| module.install(&go))?;
    }
    for module in MODULES {
        eprintln!("{} {}", module.name, module.version);
    }
    Ok(folders)
}

/// Installs the packages that are not there.
fn packages(names: &[&str]) -> Result<()> {
    let missing: Vec<&str> = names.iter().copied().filter(|name| !installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let guard = NoServices::enforce()?;
    // A source of packages that has nothing to do with us may be out of order; the installation tells.
    if let Err(error) = run(Command::new("apt-get").args(["update", "-q"])) {
        eprintln!("{error:#}");
    }
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-q", "-y", "--no-install-recommends"]);
    let result = run(install.args(&missing));
    drop(guard);
    result
}

fn installed(package: &str) -> bool {
    let status =
        Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]).stderr(Stdio::null()).output();
    status.is_ok_and(|output| output.status.success() && output.stdout == b"installed")
}

/// Where built tools are kept from one run to the next, each in a folder named after its version.
fn cache() -> Result<PathBuf> {
    let base = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
        (_, Some(home)) => Path::new(&home).join(".cache"),
        _ => bail!("neither XDG_CACHE_HOME nor HOME is set"),
    };
    Ok(base.join("portcullis-tools"))
}

impl Module {
    fn folder(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    fn install(&self, go: &Path) -> Result<()> {
        let folder = cache()?.join(self.folder());
        let partial = folder.with_extension("partial");
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir_all(&partial)?;
        let command = || {
            let mut command = Command::new(go);
            // Linking without debug information takes half the time.
            command.env("GOBIN", &partial).env("CGO_ENABLED", "0").env("GOFLAGS", "-ldflags=-s");
            command.current_dir(&partial);
            command
        };
        match self.build {
            Build::Install => run(command().arg("install").arg(format!("{}@{}", self.path, self.version)))?,
            Build::Tool => {
                run(command().args(["mod", "init", "tools"]))?;
                run(command().args(["get", "-tool"]).arg(format!("{}@{}", self.path, self.version)))?;
                run(command().arg("install").arg(self.path))?;
            }
        }
        let built = self.path.rsplit('/').next().context("a module has a path")?;
        if built != self.name {
            fs::rename(partial.join(built), partial.join(self.name))?;
        }
        let _ = fs::remove_dir_all(&folder);
        fs::rename(&partial, &folder)?;
        Ok(())
    }
}

/// A Go that is new enough: the one in `PATH`, else one that an older one fetches as a module.
fn go() -> Result<PathBuf> {
    let kept = cache()?.join(format!("go-{GO_VERSION}/bin/go"));
    for candidate in [Path::new("go"), Path::new("/usr/local/go/bin/go"), &kept] {
        if minor(candidate).is_some_and(|minor| minor >= GO_MINOR) {
            return Ok(candidate.to_owned());
        }
    }
    if minor(Path::new("go")).is_none() {
        packages(&["golang-go"])?;
    }
    fetch_go(&kept)?;
    Ok(kept)
}

/// The 26 of `go version go1.26.8 linux/amd64`.
fn minor(go: &Path) -> Option<u32> {
    // An older Go must say its own version, not that of a Go that it would fetch.
    let text = output(Command::new(go).arg("version").env("GOTOOLCHAIN", "local")).ok()?;
    text.split_once("go1.")?.1.split(['.', ' ']).next()?.parse().ok()
}

/// Fetches Go as the module that Go itself uses to change versions (golang.org/toolchain), which any Go with modules can
/// download; the two things that only Go 1.21 and later know about it are done here (cmd/go/internal/toolchain).
fn fetch_go(kept: &Path) -> Result<()> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("no Go for {other} is known here"),
    };
    let module = format!("golang.org/toolchain@v0.0.1-go{GO_VERSION}.linux-{architecture}");
    let answer =
        output(Command::new("go").args(["mod", "download", "-json", &module]).current_dir(std::env::temp_dir()))?;
    let answer: serde_json::Value = serde_json::from_str(&answer)?;
    let source = answer["Dir"].as_str().context("go mod download named no folder")?;
    let folder = kept.ancestors().nth(2).context("the kept Go has no folder")?;
    let partial = folder.with_extension("partial");
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial)?;
    // Modules are kept without the permission to execute or to write.
    run(Command::new("cp").args(["-r", "--no-preserve=mode"]).arg(format!("{source}/.")).arg(&partial))?;
    make_executable(&partial.join("bin"))?;
    make_executable(&partial.join("pkg/tool"))?;
    // A module cannot contain another one's go.mod.
    for place in ["src", "src/cmd"] {
        let hidden = partial.join(place).join("_go.mod");
        if hidden.exists() {
            fs::rename(&hidden, hidden.with_file_name("go.mod"))?;
        }
    }
    let _ = fs::remove_dir_all(folder);
    fs::rename(&partial, folder)?;
    ensure!(minor(kept).is_some_and(|minor| minor >= GO_MINOR), "{} does not run", kept.display());
    Ok(())
}

fn make_executable(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            make_executable(&path)?;
        } else {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}
