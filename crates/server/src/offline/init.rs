//! `portcullis init`: a commented configuration, a certificate authority of one's own and a server certificate.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use time::OffsetDateTime;

use crate::clock::system_clock;
use crate::config::{Config, Environment, Flags, KEYS, Key, Problem, PublicUrl, Raw};
use crate::data_dir::sync_dir;
use crate::error::Error;

/// The directory beside the configuration.
const TLS_DIR: &str = "portcullis-tls";
const DAY: Duration = Duration::from_secs(86_400);
/// Some systems refuse longer lives, of a private authority's certificates too.
const SERVER_DAYS: u32 = 825;
const AUTHORITY_DAYS: u32 = 3650;
const PORT: u16 = 5000;

/// What was written.
#[derive(Clone, Debug)]
pub struct Init {
    /// The configuration.
    pub config: PathBuf,
    /// The authority's certificate: the file that clients need.
    pub authority: PathBuf,
    /// The authority's key, to be kept elsewhere.
    pub authority_key: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// The server's key.
    pub key: PathBuf,
    /// The names in the certificate.
    pub hostnames: Vec<String>,
    /// The URLs by which clients reach the registry.
    pub public_urls: Vec<String>,
    /// When the server's certificate expires.
    pub expires_at: Timestamp,
    /// What each client has to be told, for people.
    pub instructions: String,
}

/// Writes a configuration beside the data directory (or where `--config` says), an authority and a certificate for these
/// names; without any, for the name of this machine. `localhost` and the loopback addresses are always in it.
///
/// # Errors
/// [`Error::Unsafe`] when one of the files is there already, [`Error::Config`] for a name that is none.
pub fn init(flags: &Flags, environment: &Environment, hostnames: &[String]) -> Result<Init, Error> {
    let place = Place::of(flags, environment)?;
    let names = Names::of(hostnames)?;
    for path in [&place.config, &place.tls] {
        if fs::symlink_metadata(path).is_ok() {
            return Err(Error::refuse(
                format!("{} is there already", path.display()),
                format!("look at it, and move it away: mv {0} {0}.old", path.display()),
            ));
        }
    }
    let now = system_clock()();
    let made = Certificates::make(&names, now)?;
    let wrong = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::io("make", path, source)
    };
    let folder = parent(&place.config);
    fs::create_dir_all(folder).map_err(wrong(folder))?;
    DirBuilder::new().mode(0o700).create(&place.tls).map_err(wrong(&place.tls))?;
    let file = |name: &str| place.tls.join(name);
    let init = Init {
        config: place.config.clone(),
        authority: file("ca.crt"),
        authority_key: file("ca.key"),
        certificate: file("server.crt"),
        key: file("server.key"),
        hostnames: names.all(),
        public_urls: names.urls().iter().map(ToString::to_string).collect(),
        expires_at: now.plus(DAY * SERVER_DAYS),
        instructions: String::new(),
    };
    for (path, content, mode) in [
        (&init.authority, &made.authority, 0o644),
        (&init.authority_key, &made.authority_key, 0o600),
        (&init.certificate, &made.certificate, 0o644),
        (&init.key, &made.key, 0o600),
        (&init.config, &config_text(&place, &names), 0o600),
    ] {
        write_new(path, content, mode).map_err(wrong(path))?;
    }
    sync_dir(&place.tls)?;
    sync_dir(folder)?;
    Ok(Init { instructions: instructions(&init, &names), ..init })
}

/// Where things go.
struct Place {
    config: PathBuf,
    tls: PathBuf,
    /// The line for `data_dir`, if the default would not mean the same directory.
    data_dir: Option<PathBuf>,
}

impl Place {
    fn of(flags: &Flags, environment: &Environment) -> Result<Self, Error> {
        let config = flags
            .config
            .clone()
            .or_else(|| environment.0.get("PORTCULLIS_CONFIG").map(PathBuf::from))
            .unwrap_or_else(|| crate::config::beside(flags, environment));
        // Without a file: what flags and environment say about the directory.
        let nowhere = Flags { config: Some(PathBuf::from("/dev/null")), ..flags.clone() };
        let known: Config = Raw::gather(&nowhere, environment).check().map_err(Error::Config)?;
        let folder = parent(&config);
        let usual = folder.join("portcullis-data");
        let data_dir = (absolute(&known.data_dir)? != absolute(&usual)?).then_some(absolute(&known.data_dir)?);
        Ok(Self { tls: folder.join(TLS_DIR), config, data_dir })
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|source| Error::io("find", path, source))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn write_new(path: &Path, content: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

/// The names that clients use.
struct Names {
    /// Given, or this machine's.
    hosts: Vec<String>,
}

const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

impl Names {
    fn of(given: &[String]) -> Result<Self, Error> {
        let mut hosts: Vec<String> = given.iter().map(|name| name.trim().to_ascii_lowercase()).collect();
        if hosts.is_empty() {
            let machine = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
            hosts.extend(is_name(&machine).then_some(machine));
        }
        let problems: Vec<_> = hosts
            .iter()
            .filter(|host| !is_name(host) && host.parse::<IpAddr>().is_err())
            .map(|host| Problem {
                key: "--hostname".to_owned(),
                origin: "default".to_owned(),
                message: format!("`{host}` is neither a name such as registry.example.com nor an address"),
            })
            .collect();
        if !problems.is_empty() {
            return Err(Error::Config(problems));
        }
        hosts.sort();
        hosts.dedup();
        hosts.retain(|host| !LOOPBACK.contains(&host.as_str()));
        Ok(Self { hosts })
    }

    fn all(&self) -> Vec<String> {
        self.hosts.iter().cloned().chain(LOOPBACK.map(str::to_owned)).collect()
    }

    /// The given ones with the port; the loopback names need no mention.
    fn urls(&self) -> Vec<PublicUrl> {
        self.hosts
            .iter()
            .filter_map(|host| {
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                PublicUrl::new(true, &host, PORT).ok()
            })
            .collect()
    }
}

fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // All digits at the end would be an address, and a wrong one.
    text.len() <= 253
        && text.split('.').all(label)
        && !text.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()))
}

/// PEM texts.
struct Certificates {
    authority: String,
    authority_key: String,
    certificate: String,
    key: String,
}

impl Certificates {
    fn make(names: &Names, now: Timestamp) -> Result<Self, Error> {
        Self::try_make(names, now).map_err(|error| Error::operation("making the certificates", error))
    }

    fn try_make(names: &Names, now: Timestamp) -> Result<Self, rcgen::Error> {
        let (subject_alt_names, permitted) = subjects(&names.all())?;
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "Portcullis private authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // Whoever steals its key can speak for these names and for no others.
        authority.name_constraints =
            Some(NameConstraints { permitted_subtrees: permitted, excluded_subtrees: Vec::new() });
        (authority.not_before, authority.not_after) = validity(now, AUTHORITY_DAYS);
        let authority_key = KeyPair::generate()?;
        let authority_certificate = authority.self_signed(&authority_key)?;

        let mut server = CertificateParams::default();
        let name = names.hosts.first().map_or(LOOPBACK[0], String::as_str);
        server.distinguished_name.push(DnType::CommonName, name);
        server.subject_alt_names = subject_alt_names;
        server.use_authority_key_identifier_extension = true;
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        (server.not_before, server.not_after) = validity(now, SERVER_DAYS);
        let key = KeyPair::generate()?;
        let certificate = server.signed_by(&key, &Issuer::from_params(&authority, &authority_key))?;
        Ok(Self {
            authority: authority_certificate.pem(),
            authority_key: authority_key.serialize_pem(),
            certificate: format!("{}{}", certificate.pem(), authority_certificate.pem()),
            key: key.serialize_pem(),
        })
    }
}

/// From a day ago, for clocks that are behind.
fn validity(now: Timestamp, days: u32) -> (OffsetDateTime, OffsetDateTime) {
    let date =
        |time: Timestamp| OffsetDateTime::from_unix_timestamp(time.seconds()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    (date(now.minus(DAY)), date(now.plus(DAY * days)))
}

fn subjects(names: &[String]) -> Result<(Vec<SanType>, Vec<GeneralSubtree>), rcgen::Error> {
    let mut subjects = Vec::new();
    let mut permitted = Vec::new();
    for name in names {
        if let Ok(address) = name.parse::<IpAddr>() {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            subjects.push(SanType::IpAddress(address));
            permitted.push(GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, bits)));
        } else {
            subjects.push(SanType::DnsName(name.as_str().try_into()?));
            permitted.push(GeneralSubtree::DnsName(name.clone()));
        }
    }
    Ok((subjects, permitted))
}

/// Every setting with its meaning; those that differ from the defaults are set, the others are comments.
fn config_text(place: &Place, names: &Names) -> String {
    let quote = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut set = vec![
        ("server.tls.certificate", quote(&format!("{TLS_DIR}/server.crt"))),
        ("server.tls.key", quote(&format!("{TLS_DIR}/server.key"))),
    ];
    if let Some(data_dir) = &place.data_dir {
        set.push(("data_dir", quote(&data_dir.to_string_lossy())));
    }
    let urls: Vec<_> = names.urls().iter().map(|url| quote(&url.to_string())).collect();
    if !urls.is_empty() {
        set.push(("server.listen", quote(&format!("0.0.0.0:{PORT}"))));
        set.push(("server.public_urls", format!("[{}]", urls.join(", "))));
    }
    let mut text = "# Settings of Portcullis. What is commented out shows the default.\n\
                    # Relative paths are taken from the directory of this file.\n"
        .to_owned();
    let mut section = "";
    for key in KEYS {
        let (own, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if own != section {
            section = own;
            let _ = write!(text, "\n[{section}]\n");
        }
        text.push('\n');
        for line in wrapped(key.doc) {
            let _ = writeln!(text, "# {line}");
        }
        let _ = match set.iter().find(|(set, _)| *set == key.name) {
            Some((_, value)) => writeln!(text, "{name} = {value}"),
            None => writeln!(text, "#{name} = {}", default_text(key)),
        };
    }
    text
}

fn default_text(key: &Key) -> String {
    use crate::config::Form;
    match key.form {
        Form::Urls | Form::Networks => "[]".to_owned(),
        Form::Count | Form::Switch => key.default.to_owned(),
        _ => toml::Value::String(key.default.to_owned()).to_string(),
    }
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < 100 => {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn instructions(init: &Init, names: &Names) -> String {
    let ca = init.authority.display();
    let hosts: Vec<String> = match names.urls() {
        urls if urls.is_empty() => vec![format!("localhost:{PORT}")],
        urls => urls.iter().map(|url| url.authority().to_owned()).collect(),
    };
    let mut text = format!(
        "Clients have to trust {ca}. Copy it to each of them, and there, as root:\n\n\
         Debian, Ubuntu   cp ca.crt /usr/local/share/ca-certificates/portcullis.crt && update-ca-certificates\n\
         Fedora, RHEL     cp ca.crt /etc/pki/ca-trust/source/anchors/portcullis.crt && update-ca-trust\n\n\
         That is all for crane, oras, regctl and curl, and for docker after a restart. Or, for one client only:\n\n"
    );
    for host in &hosts {
        let _ = write!(
            text,
            "docker           mkdir -p /etc/docker/certs.d/{host} && cp ca.crt /etc/docker/certs.d/{host}/ca.crt\n\
             podman, skopeo   mkdir -p /etc/containers/certs.d/{host} && cp ca.crt /etc/containers/certs.d/{host}/ca.crt\n\
             containerd       mkdir -p /etc/containerd/certs.d/{host} && cp ca.crt /etc/containerd/certs.d/{host}/ca.crt, and\n\
             \x20                there in hosts.toml: [host.\"https://{host}\"] with ca = \"ca.crt\"\n"
        );
    }
    let _ = write!(
        text,
        "crane, oras      SSL_CERT_FILE={ca}\n\
         portcullis       --ca-file {ca}\n\n\
         {key} signs certificates for these names and nothing else: keep it off this machine. The server's certificate is\n\
         good until {until}.\n",
        key = init.authority_key.display(),
        until = init.expires_at,
    );
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::listen::Tls;

    fn at(dir: &Path) -> Flags {
        Flags { data_dir: Some(dir.join("portcullis-data")), ..Flags::default() }
    }

    #[test]
    fn what_is_written_is_a_configuration_that_is_safe_to_serve_with() {
        let dir = tempfile::tempdir().unwrap();
        let hosts = ["Registry.example.com".to_owned(), "10.1.2.3".to_owned(), "localhost".to_owned()];
        let init = init(&at(dir.path()), &Environment::default(), &hosts).unwrap();
        assert_eq!(init.hostnames, ["10.1.2.3", "registry.example.com", "localhost", "127.0.0.1", "::1"]);
        let config = crate::config::load(&at(dir.path()), &Environment::default()).unwrap();
        assert_eq!(config.file.as_deref(), Some(init.config.as_path()));
        config.refuse_unsafe().unwrap();
        assert_eq!(config.server.listen.to_string(), "0.0.0.0:5000");
        assert_eq!(config.server.public_urls.iter().map(ToString::to_string).collect::<Vec<_>>(), init.public_urls);
        Tls::load(config.server.tls.as_ref().unwrap()).unwrap();
        for (path, mode) in [(&init.authority_key, 0o600), (&init.key, 0o600), (&init.config, 0o600)] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, mode, "{}", path.display());
        }
        assert!(init.instructions.contains("/etc/docker/certs.d/registry.example.com:5000/ca.crt"));
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["localhost".to_owned()];
        let first = init(&at(dir.path()), &Environment::default(), &names).unwrap();
        let config = crate::config::load(&at(dir.path()), &Environment::default()).unwrap();
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:5000", "loopback names need no more");
        let before = fs::read_to_string(&first.key).unwrap();
        assert_eq!(init(&at(dir.path()), &Environment::default(), &names).unwrap_err().exit_code(), 6);
        fs::remove_file(&first.config).unwrap();
        assert_eq!(init(&at(dir.path()), &Environment::default(), &names).unwrap_err().exit_code(), 6);
        assert_eq!(fs::read_to_string(&first.key).unwrap(), before);
    }

    #[test]
    fn a_data_directory_elsewhere_is_written_down() {
        let dir = tempfile::tempdir().unwrap();
        let flags = Flags {
            config: Some(dir.path().join("etc/p.toml")),
            data_dir: Some(dir.path().join("var/data")),
            ..Flags::default()
        };
        init(&flags, &Environment::default(), &[]).unwrap();
        let only_config = Flags { config: flags.config.clone(), ..Flags::default() };
        let config = crate::config::load(&only_config, &Environment::default()).unwrap();
        assert_eq!(Some(config.data_dir), flags.data_dir);
    }

    #[test]
    fn names() {
        for name in ["a_b", "-a", "a..b", "", "1.2.3", "a b", "x.1"] {
            assert_eq!(Names::of(&[name.to_owned()]).err().map(|error| error.exit_code()), Some(2), "{name:?}");
        }
    }
}
