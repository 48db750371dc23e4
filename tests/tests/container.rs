//! The image from scratch, built and run as `docs/guide/docker.md` says, with the docker engine 20.10 of Debian.
//!
//! The engine of the test has no bridge, so containers are on the host's network, where the guide publishes a port.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use portcullis_tests::{DockerEngine, Guide, Ran, Shell};
use serde_json::Value;

/// A static binary of a release build and a few names.
const LARGEST_IMAGE: u64 = 48 << 20;
/// The health check is asked each 10 seconds.
const HEALTHY: Duration = Duration::from_secs(60);

/// The folder that `cargo xtask image` makes.
fn image_folder() -> Result<PathBuf> {
    let folder =
        std::env::var_os("PORTCULLIS_IMAGE").context("PORTCULLIS_IMAGE names the folder of cargo xtask image")?;
    Ok(PathBuf::from(folder))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// An engine with the image in it, a shell whose `docker` is its client, and the guide.
struct Stage {
    // Before the folder: containers hold files in it.
    engine: DockerEngine,
    shell: Shell,
    guide: Guide,
    port: u16,
    ops_port: u16,
    admin_port: u16,
    folder: tempfile::TempDir,
}

impl Drop for Stage {
    fn drop(&mut self) {
        // The engine leaves containers running when it ends.
        let _ = self.shell.try_run("docker ps --all --quiet | xargs --no-run-if-empty docker rm --force");
    }
}

impl Stage {
    fn new() -> Result<Self> {
        let engine = DockerEngine::start()?;
        let folder = tempfile::Builder::new().prefix("portcullis-container-").tempdir()?;
        let client = if Path::new("/usr/bin/docker").exists() { "/usr/bin/docker" } else { "docker" };
        let shell =
            Shell::new(folder.path())?.program("docker", &format!("exec {client} -H {} \"$@\"", engine.socket()))?;
        let [port, ops_port, admin_port] = free_ports()?;
        let stage = Self { engine, shell, guide: Guide::open("docker.md")?, port, ops_port, admin_port, folder };
        let folder = image_folder()?.display().to_string();
        stage.shell.run(&stage.guide.block("build")?.replace("portcullis .", &format!("portcullis {folder}")))?;
        // What the guide pulls from elsewhere.
        let tar = stage.folder.path().join("busybox.tar");
        let busybox = stage.folder.path().join("rootfs/bin");
        fs::create_dir_all(&busybox)?;
        fs::copy("/bin/busybox", busybox.join("busybox")).context("busybox-static is not installed")?;
        stage.shell.run(&format!(
            "ln -s busybox rootfs/bin/rm; ln -s busybox rootfs/bin/ls; ln -s busybox rootfs/bin/id; ln -s busybox rootfs/bin/cat
             tar -C rootfs -cf {0} . && docker import --change 'ENV PATH=/bin' {0} busybox",
            tar.display()
        ))?;
        Ok(stage)
    }

    /// Logs in with the password of the last push: what docker keeps is a token, which another store does not know.
    fn log_in(&self) -> Result<()> {
        let command = format!("docker login localhost:{} --username admin --password-stdin < password", self.port);
        self.shell.run(&command).map(drop)
    }

    /// A block of the guide, on this machine's network and with free ports in place of the usual ones.
    fn commands(&self, name: &str) -> Result<String> {
        let names = format!(
            "--env PORTCULLIS_SERVER__LISTEN=0.0.0.0:{} --env PORTCULLIS_ADMIN__LISTEN=127.0.0.1:{}",
            self.port, self.admin_port
        );
        let block = self.guide.block(name)?;
        let listens = block.contains("SERVER__LISTEN");
        let block = block
            .replace("--publish 5000:5000", &format!("--network host {names}"))
            .replace("docker pull busybox\n", "")
            .replace("127.0.0.1:5002", &format!("127.0.0.1:{}", self.ops_port))
            .replace("localhost:5000", &format!("localhost:{}", self.port))
            .replace("127.0.0.1:5000", &format!("127.0.0.1:{}", self.port))
            .replace("--hostname registry.example.com", "--hostname localhost");
        Ok(match listens {
            true => block.replace(
                "--volume portcullis:",
                &format!("--env PORTCULLIS_ADMIN__LISTEN=127.0.0.1:{} --volume portcullis:", self.admin_port),
            ),
            false => block,
        })
    }

    fn block(&self, name: &str) -> Result<Ran> {
        self.shell.run(&self.commands(name)?)
    }

    /// Pushes as the guide does, where docker asks for the password.
    fn push(&self, password: &str) -> Result<Ran> {
        fs::write(self.folder.path().join("password"), password)?;
        self.shell
            .run(&self.commands("push")?.replace("--username admin", "--username admin --password-stdin < password"))
    }

    fn inspect(&self, what: &str) -> Result<Value> {
        let all = self.shell.run(&format!("docker inspect {what}"))?.json()?;
        Ok(all[0].clone())
    }

    /// Waits until the engine calls the container healthy.
    fn healthy(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let state = self.inspect("portcullis")?["State"].clone();
            if state["Health"]["Status"] == "healthy" {
                eprintln!("healthy after {:.1} s", start.elapsed().as_secs_f64());
                return Ok(());
            }
            if state["Status"] != "running" || start.elapsed() > HEALTHY {
                let log = self.shell.try_run("docker logs portcullis")?;
                bail!("not healthy: {state:#}\n{}\n{}", log.stderr, self.engine.log());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Waits until the server in the container says that it is ready.
    fn ready(&self) -> Result<String> {
        let start = Instant::now();
        loop {
            let log = self.shell.run("docker logs portcullis 2>&1")?.stdout;
            if log.contains("\"message\":\"ready\"") {
                return Ok(log);
            }
            let state = self.inspect("portcullis")?["State"].clone();
            ensure!(state["Status"] == "running" && start.elapsed() < HEALTHY, "not ready: {state:#}\n{log}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Stops it within its time, and cleanly.
    fn stop(&self, commands: &str) -> Result<()> {
        let start = Instant::now();
        self.shell.run("docker stop portcullis")?;
        let took = start.elapsed();
        ensure!(took < Duration::from_secs(10), "it took {took:?} to stop");
        let state = self.inspect("portcullis")?["State"].clone();
        ensure!(state["ExitCode"] == 0 && state["OOMKilled"] == false, "{state:#}");
        self.shell.run(commands).map(drop)
    }

    /// What a volume holds, as the owner sees it: a line a file, with owner and time.
    fn volume(&self, name: &str) -> Result<String> {
        let command =
            format!("docker run --rm --user 65532 --volume {name}:/volume:ro busybox ls -lnAR --full-time /volume");
        Ok(self.shell.run(&command)?.stdout)
    }
}

fn free_ports() -> Result<[u16; 3]> {
    // All are held until all are found, so that they differ.
    let held =
        [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok([held[0].local_addr()?.port(), held[1].local_addr()?.port(), held[2].local_addr()?.port()])
}

/// The password in `password for admin: XXXX`.
fn password(ran: &Ran) -> Result<String> {
    let line = ran.stdout.lines().find_map(|line| line.strip_prefix("password for admin: "));
    Ok(line.with_context(|| format!("no password in {ran:?}"))?.to_owned())
}

#[test]
fn the_binary_is_static_and_looks_up_names_without_the_c_library() -> Result<()> {
    let binary = image_folder()?.join("portcullis");
    let bytes = fs::read(&binary)?;
    ensure!(bytes.starts_with(b"\x7fELF\x02\x01"), "not a 64-bit little-endian ELF file");
    let number = |at: usize, length: usize| -> u64 {
        bytes[at..at + length].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let kinds: Vec<u64> = (0..count).map(|n| number((table + n * size) as usize, 4)).collect();
    ensure!(!kinds.contains(&3), "it has an interpreter (PT_INTERP): {kinds:?}");
    let ldd = Shell::new(tempfile::tempdir()?.path())?.try_run(&format!("ldd {}", binary.display()))?;
    ldd.names_the_cause(&["statically linked", "not a dynamic executable"])?;
    // NSS is plug-ins that an image from scratch does not have. The C library asks for its configuration at each lookup; we ask
    // the name servers ourselves. Nobody answers for this name.
    let folder = tempfile::tempdir()?;
    let shell = Shell::new(folder.path())?;
    let (program, data) = (binary.display(), folder.path().join("data"));
    for (command, ends) in [
        (format!("{program} health --server http://registry.invalid:5000"), 1),
        (
            format!(
                "env PORTCULLIS_DATABASE__URL='postgres://u:p@database.invalid/p' PORTCULLIS_DATABASE__START_TIMEOUT=0s \
                 {program} serve --data-dir {} --listen 127.0.0.1:0 --admin-listen off",
                data.display()
            ),
            1,
        ),
    ] {
        let ran = shell.try_run(&format!("strace -f -qq -e trace=open,openat,openat2 -o trace {command}"))?;
        ensure!(ran.status.code() == Some(ends), "{ran:#?}");
        let trace = fs::read_to_string(folder.path().join("trace"))?;
        ensure!(trace.contains("/etc/resolv.conf"), "nothing was looked up: {ran:#?}\n{trace}");
        for file in ["nsswitch.conf", "libnss", "gai.conf"] {
            ensure!(!trace.contains(file), "{command} opens {file}:\n{trace}");
        }
    }
    Ok(())
}

#[test]
fn both_dockerfiles_make_the_same_image() -> Result<()> {
    let read = |path: &str| fs::read_to_string(root().join(path));
    let (full, prebuilt) = (read("Dockerfile")?, read("packaging/docker/Dockerfile.prebuilt")?);
    let last = |text: &str| text.split_once("\nFROM scratch\n").map(|(_, last)| last.to_owned());
    let expected = last(&full).context("no last stage")?.replace("--from=build ", "").replace("/image/", "");
    ensure!(Some(expected) == last(&prebuilt), "the last stages differ by more than where the files come from");
    ensure!(
        full.contains(&format!("image.version=\"{}\"", env!("CARGO_PKG_VERSION"))),
        "the label has another version"
    );
    Ok(())
}

#[test]
fn the_image_is_small_and_asks_for_nothing() -> Result<()> {
    let stage = Stage::new()?;
    let image = stage.inspect("portcullis:latest")?;
    let size = image["Size"].as_u64().context("no size")?;
    eprintln!("the image has {} KiB", size >> 10);
    ensure!(size < LARGEST_IMAGE, "the image has {size} bytes");
    let config = &image["Config"];
    ensure!(config["User"] == "65532:65532", "{config:#}");
    ensure!(config["Entrypoint"] == serde_json::json!(["portcullis"]), "{config:#}");
    ensure!(config["Cmd"] == serde_json::json!(["serve"]), "{config:#}");
    ensure!(config["StopSignal"] == "SIGTERM", "{config:#}");
    ensure!(config["Volumes"] == serde_json::json!({ "/var/lib/portcullis": {} }), "{config:#}");
    ensure!(config["ExposedPorts"] == serde_json::json!({ "5000/tcp": {} }), "{config:#}");
    ensure!(config["Healthcheck"]["Test"] == serde_json::json!(["CMD", "portcullis", "health"]), "{config:#}");
    let labels = config["Labels"].as_object().context("no labels")?;
    for label in ["title", "description", "version", "licenses"] {
        let value = labels.get(&format!("org.opencontainers.image.{label}")).and_then(Value::as_str);
        ensure!(value.is_some_and(|value| !value.is_empty()), "no label {label}: {labels:?}");
    }
    ensure!(
        config["Env"].as_array().context("no Env")?.iter().all(|variable| {
            let name = variable.as_str().and_then(|text| text.split('=').next()).unwrap_or_default();
            ["PATH", "PORTCULLIS_DATA_DIR", "PORTCULLIS_SERVER__LISTEN"].contains(&name)
        }),
        "{config:#}"
    );
    // The binary and the folder of the volume: nothing else that somebody could run or read.
    let files = stage.shell.run(
        "docker create --name plain portcullis > /dev/null; docker export plain | tar -tvf - --numeric-owner; docker rm plain > /dev/null",
    )?;
    let regular: Vec<&str> =
        files.stdout.lines().filter(|line| line.starts_with('-') && !line.contains(" 0 20")).collect();
    ensure!(regular.len() == 1 && regular[0].ends_with(" usr/local/bin/portcullis"), "{}", files.stdout);
    ensure!(regular[0].starts_with("-rwxr-xr-x 0/0 "), "the binary is not root's: {regular:?}");
    // As shipped, it does not speak plain HTTP to a network, and says what to do.
    let refused = stage.shell.try_run("docker run --rm --network host portcullis")?;
    ensure!(refused.status.code() == Some(6), "{refused:#?}");
    refused.names_the_cause(&["portcullis init"])?;
    refused.names_the_cause(&["server.plain_from"])?;
    Ok(())
}

#[test]
fn first_push_on_one_machine() -> Result<()> {
    let stage = Stage::new()?;
    let first = stage.block("first")?;
    stage.push(&password(&first)?)?;
    let listed = stage.shell.run("docker exec portcullis portcullis tag list team/busybox")?;
    ensure!(listed.stdout.contains('1'), "{listed:#?}");
    let log = stage.ready()?;
    ensure!(
        log.contains("initial-password") && !log.contains(&password(&first)?),
        "the log tells the password:\n{log}"
    );
    ensure!(!stage.volume("portcullis")?.contains("initial-password"), "the file of the first password is there still");
    stage.stop("docker rm portcullis")
}

// security: N-10
#[test]
fn with_tls_confined_upgraded_backed_up_and_read_only() -> Result<()> {
    let stage = Stage::new()?;
    stage.block("init")?;
    stage.block("run")?;
    stage.healthy()?;
    let container = stage.inspect("portcullis")?;
    ensure!(container["HostConfig"]["ReadonlyRootfs"] == true, "{container:#}");
    let process = container["State"]["Pid"].as_u64().context("no process")?;
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    for line in
        ["Uid:\t65532\t65532\t65532\t65532", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"]
    {
        ensure!(status.contains(line), "{line} is not in\n{status}");
    }
    let admin = password(&stage.shell.run("docker exec portcullis portcullis user passwd admin")?)?;
    stage.block("authority")?;
    ensure!(fs::read_to_string(stage.folder.path().join("ca.crt"))?.contains("BEGIN CERTIFICATE"));
    ensure!(!stage.volume("portcullis")?.contains("ca.key"), "the key of the authority is in the volume still");
    stage.push(&admin)?;
    let commands = stage.block("commands")?;
    ensure!(commands.stdout.contains("team/busybox") && commands.stdout.contains("manifest.push"), "{commands:#?}");
    ensure!(stage.block("health")?.stdout.contains("healthy"));

    // A name that only the container's own files know: no NSS in an image from scratch.
    stage.shell.run(&format!(
        "docker run --rm --network host --add-host registry.test:127.0.0.1 --volume portcullis:/var/lib/portcullis portcullis \
         health --server https://registry.test:{} 2>&1 | grep -i certificate",
        stage.port
    ))?;

    stage.block("backup")?;
    stage.stop(&stage.commands("upgrade")?.replace("docker stop portcullis\n", ""))?;
    stage.block("restore")?;
    let image = format!("localhost:{}/team/busybox:1", stage.port);
    restored(&stage, &image)?;

    // The same data in a new container.
    stage.block("run")?;
    stage.healthy()?;
    stage.log_in()?;
    stage.shell.run(&format!("docker image rm {image}; docker pull {image}"))?;
    stage.stop("docker rm portcullis")?;

    read_only(&stage, &image)
}

/// The backup in its new volume is a whole registry.
fn restored(stage: &Stage, image: &str) -> Result<()> {
    let fsck = "docker run --rm --volume portcullis-new:/var/lib/portcullis portcullis fsck --json";
    let report = stage.shell.run(fsck)?.json()?;
    ensure!(report["checked"]["tags"] == 1 && report["checked"]["blobs"] == 2, "{report:#}");
    // A tar file holds times in whole seconds.
    let findings = report["findings"].as_array().context("no findings")?;
    ensure!(findings.iter().all(|finding| finding["code"] == "blob_time_changed"), "{report:#}");
    let first = stage.commands("first")?.replace("portcullis:/var", "portcullis-new:/var");
    let start = first.split("\nuntil").next().context("no command")?;
    stage.shell.run(start)?;
    stage.ready()?;
    stage.log_in()?;
    stage.shell.run(&format!("docker image rm {image}; docker pull {image}"))?;
    stage.stop("docker rm portcullis")?;
    Ok(())
}

/// Pulls out of a volume that is mounted read-only, where not a byte is changed.
fn read_only(stage: &Stage, image: &str) -> Result<()> {
    let before = stage.volume("portcullis")?;
    stage.block("read-only")?;
    let log = stage.ready()?;
    ensure!(log.contains("read-only mode"), "{log}");
    stage.healthy()?;
    stage.shell.run(&format!("docker image rm {image}; docker pull {image}"))?;
    let pushed = stage.shell.try_run(&format!(
        "docker tag busybox localhost:{0}/team/other:1; docker push localhost:{0}/team/other:1",
        stage.port
    ))?;
    ensure!(!pushed.status.success(), "{pushed:#?}");
    pushed.names_the_cause(&["read-only for maintenance"])?;
    let health = stage.shell.run("docker exec portcullis portcullis health --json")?.json()?;
    ensure!(health["ready"] == true && health["mode"] == "read-only", "{health:#}");
    stage.stop("docker rm portcullis")?;
    let after = stage.volume("portcullis")?;
    ensure!(before == after, "the volume was changed:\n{before}\n{after}");
    Ok(())
}

#[test]
fn the_compose_file_is_what_the_guide_says() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let shell = Shell::new(folder.path())?;
    let guide = Guide::open("docker.md")?;
    fs::create_dir_all(folder.path().join("packaging/docker"))?;
    fs::copy(root().join("packaging/docker/compose.yaml"), folder.path().join("packaging/docker/compose.yaml"))?;
    shell.run(guide.block("secrets")?)?;
    let secret = |name: &str| fs::read_to_string(folder.path().join("packaging/docker/secrets").join(name));
    let (password, url) = (secret("database_password")?, secret("database_url")?);
    ensure!(
        password.len() == 48 && url == format!("postgres://portcullis:{password}@/portcullis?host=/run/postgresql")
    );
    // The standalone program of Debian checks the file against the schema and prints it in one form.
    let config = shell.run("docker-compose -f packaging/docker/compose.yaml config")?.stdout;
    ensure!(!config.contains(&password), "a secret is in the configuration: {config}");
    let service = |name: &str| -> Result<String> {
        let (_, rest) = config.split_once(&format!("\n  {name}:\n")).with_context(|| format!("no service {name}"))?;
        Ok(rest.lines().take_while(|line| line.starts_with("    ")).map(|line| format!("{}\n", &line[4..])).collect())
    };
    let (registry, database) = (service("portcullis")?, service("postgres")?);
    for line in [
        "image: portcullis\n",
        "read_only: true\n",
        "cap_drop:\n- ALL\n",
        "security_opt:\n- no-new-privileges:true\n",
        "mem_limit: 512m\n",
        "pids_limit: 512\n",
        "restart: unless-stopped\n",
        "stop_grace_period: 60s\n",
        "PORTCULLIS_DATABASE__URL_FILE: /run/secrets/database_url\n",
        "- data:/var/lib/portcullis:rw\n",
        "condition: service_healthy\n",
    ] {
        ensure!(registry.contains(line), "no {line:?} in\n{registry}");
    }
    for line in ["network_mode: none\n", "POSTGRES_PASSWORD_FILE: /run/secrets/database_password\n", "pg_isready"] {
        ensure!(database.contains(line), "no {line:?} in\n{database}");
    }
    ensure!(!database.contains("ports:"), "{database}");
    // The guide's own command has the same limits.
    let run = guide.block("run")?;
    for flag in
        ["--read-only", "--cap-drop ALL", "no-new-privileges", "--memory 512m", "--pids-limit 512", "--stop-timeout 60"]
    {
        ensure!(run.contains(flag), "no {flag} in\n{run}");
    }
    Ok(())
}

#[test]
fn no_block_of_the_guide_is_left_out() -> Result<()> {
    let guide = Guide::open("docker.md")?;
    let mut run: Vec<&str> = include_str!("container.rs")
        .split("block(\"")
        .chain(include_str!("container.rs").split("commands(\""))
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    run.sort_unstable();
    let left: Vec<&str> = guide.blocks().into_iter().filter(|name| run.binary_search(name).is_err()).collect();
    ensure!(left.is_empty() && guide.blocks().len() > 10, "nobody runs {left:?}");
    Ok(())
}
