//! The table of settings: every key once, with its form, default and meaning. Parsing, environment names, flags, help
//! and the reference page all come from here.

/// What a setting's value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A path. Relative ones in the file are taken from the file's directory, others from the working directory.
    Path,
    /// An address and a port.
    Address,
    /// An address and a port, or `off`.
    AddressOrOff,
    /// Several URLs.
    Urls,
    /// Several networks.
    Networks,
    /// Several paths.
    Paths,
    /// A span of time.
    Duration,
    /// A number of bytes.
    Size,
    /// A whole number.
    Count,
    /// `true` or `false`.
    Switch,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// Any text.
    Text,
}

impl Form {
    /// The form in words, for the reference.
    pub fn describe(self) -> String {
        match self {
            Self::Path => "path".to_owned(),
            Self::Address => "address and port".to_owned(),
            Self::AddressOrOff => "address and port, or `off`".to_owned(),
            Self::Urls => "list of URLs".to_owned(),
            Self::Networks => "list of networks".to_owned(),
            Self::Paths => "list of absolute paths".to_owned(),
            Self::Duration => "duration".to_owned(),
            Self::Size => "size".to_owned(),
            Self::Count => "number".to_owned(),
            Self::Switch => "`true` or `false`".to_owned(),
            Self::Choice(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
            Self::Text => "text".to_owned(),
        }
    }
}

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// Its name: `a.b` in the file.
    pub name: &'static str,
    /// What its value looks like.
    pub form: Form,
    /// The default as it would be typed; empty when there is none.
    pub default: &'static str,
    /// The flag of `serve`, with its argument.
    pub flag: Option<&'static str>,
    /// Never shown, and no flag.
    pub secret: bool,
    /// What it does, in sentences.
    pub doc: &'static str,
}

impl Key {
    /// The variable of the environment that sets it.
    pub fn variable(&self) -> String {
        format!("PORTCULLIS_{}", self.name.replace('.', "__").to_ascii_uppercase())
    }

    /// The flag without its argument.
    pub fn flag_name(&self) -> Option<&'static str> {
        self.flag.and_then(|flag| flag.split(' ').next())
    }
}

const fn key(name: &'static str, form: Form, default: &'static str, doc: &'static str) -> Key {
    Key { name, form, default, flag: None, secret: false, doc }
}

const fn flag(name: &'static str, form: Form, default: &'static str, flag: &'static str, doc: &'static str) -> Key {
    Key { name, form, default, flag: Some(flag), secret: false, doc }
}

/// Every setting, in the order of the reference.
pub const KEYS: &[Key] = &[
    flag(
        "data_dir",
        Form::Path,
        "./portcullis-data",
        "--data-dir DIR",
        "The directory with everything that must survive: database, blobs, keys. Made at the first start, mode 0700; one \
         server at a time. Needs a local file system.",
    ),
    flag(
        "server.listen",
        Form::Address,
        "127.0.0.1:5000",
        "--listen ADDR:PORT",
        "Where clients connect. Port 0 takes a free one, see `addresses.json` in the data directory. Beyond loopback \
         `server.tls` or `server.plain_from` is needed.",
    ),
    flag(
        "server.public_urls",
        Form::Urls,
        "",
        "--public-url URL",
        "The URLs by which clients reach the registry; requests for another host are answered 421. While loopback is \
         listened on, `localhost`, `127.0.0.1` and `[::1]` with the port are added, else the \
         address that is listened on.",
    ),
    key(
        "server.mode",
        Form::Choice(&["read-write", "read-only"]),
        "read-write",
        "`read-only`: for maintenance. Whoever may push or delete is answered 405 `UNSUPPORTED`, changes of the admin API are \
         answered 405 `read_only`; pulls, lists, logins, checks and backups go on. Nothing in the store or in the database is \
         changed: no collection, no audit trail (its lines go to the log), no time of the last login. The data directory may be \
         mounted read-only.",
    ),
    key(
        "server.plain_from",
        Form::Networks,
        "",
        "Peers that may speak plain HTTP beyond loopback: an ingress, a bridge of containers. Anyone else is closed at \
         accept, or has to speak TLS where that is configured.",
    ),
    key(
        "server.tls.certificate",
        Form::Path,
        "",
        "PEM file with the certificate chain, the server's own first. It and the key are watched: a renewed one is taken \
         up without a restart. TLS is spoken on `server.listen`, and on the other listeners where they are not loopback.",
    ),
    key(
        "server.tls.key",
        Form::Path,
        "",
        "PEM file with the private key. Refused when everybody can read it or the group can write it.",
    ),
    key(
        "server.tls.client_ca",
        Form::Path,
        "",
        "PEM file with authorities; then clients have to present a certificate of one of them, in addition to their login.",
    ),
    key(
        "server.drain_timeout",
        Form::Duration,
        "30s",
        "How long requests in flight may go on after SIGTERM or Ctrl-C. A second signal stops at once.",
    ),
    flag(
        "admin.listen",
        Form::AddressOrOff,
        "127.0.0.1:5001",
        "--admin-listen ADDR:PORT|off",
        "Where the admin API listens, besides the socket in the data directory. Here it needs an administrator's token.",
    ),
    flag(
        "ops.listen",
        Form::AddressOrOff,
        "off",
        "--ops-listen ADDR:PORT",
        "Where `/healthz`, `/readyz` and `/metrics` are served without a login, and nothing else.",
    ),
    Key {
        name: "database.url",
        form: Form::Text,
        default: "sqlite",
        flag: None,
        secret: true,
        doc: "`sqlite`: a database in the data directory. `postgres://USER:PASSWORD@HOST:PORT/DATABASE`: PostgreSQL, directly \
              or behind pgbouncer. Beyond loopback it has to speak TLS with a certificate for its name; \
              `?sslrootcert=FILE` names the authorities if they are not those of the system, `?host=DIR` the folder of a \
              socket. `?sslmode=disable&allow_plaintext=true` is for a network that is private itself. Put it into a file \
              of its own, named by `database.url_file`.",
    },
    key(
        "database.connections",
        Form::Count,
        "16",
        "Connections to PostgreSQL at a time. A request that gets none in time is answered 503.",
    ),
    key(
        "database.start_timeout",
        Form::Duration,
        "60s",
        "How long a start waits for PostgreSQL when it does not answer.",
    ),
    key(
        "storage.reserve",
        Form::Size,
        "64MiB",
        "What pushes leave free on the disk, at most a twentieth of it: with less they are answered 507, while deletions, \
         collections and changes of accounts go on. A quarter of it is set aside in the file `reserve` of the data \
         directory, which is given up when others fill the disk. `0` switches both off.",
    ),
    key(
        "storage.timeout",
        Form::Duration,
        "60s",
        "How long a request waits for a disk that does not answer, before it is answered 503. A sync has a second more for \
         each MiB that it has to write.",
    ),
    key(
        "storage.verify_reads",
        Form::Switch,
        "false",
        "Hash each blob again while it is read, before the first byte is sent. Without it, bytes are verified when they are \
         pushed, and size and modification time when they are opened.",
    ),
    key(
        "sandbox.mode",
        Form::Choice(&["best-effort", "required", "off"]),
        "best-effort",
        "Whether `serve` confines itself before it listens: no files but the data directory and, for reading, the \
         directories of the files named in this configuration; no ports but its own; no programs, devices, other processes \
         (Landlock, seccomp). `best-effort` takes what the kernel gives and logs what is missing, `required` does not start \
         without all of it. Started as root, the process becomes the owner of the data directory and gives up every \
         capability, whatever stands here.",
    ),
    key(
        "sandbox.write",
        Form::Paths,
        "",
        "Further directories in which the server may write: for backups that are asked for over the network. They have to \
         be there when it starts. `portcullis backup` on the same machine needs none.",
    ),
    key(
        "keys.kek_file",
        Form::Path,
        "",
        "File with the key that opens the signing keys in the database: 64 hexadecimal digits. Without it, `keys/kek` in \
         the data directory.",
    ),
    key(
        "auth.challenge",
        Form::Choice(&["bearer", "basic"]),
        "bearer",
        "How clients are asked for credentials: with the token service, or with name and password on each request. Both are \
         taken in either case; with `basic` nobody gets at public images without a login.",
    ),
    key(
        "auth.token_lifetime",
        Form::Duration,
        "15m",
        "How long an access token is good, from a minute to a day. Rights are decided anew at each request, whatever the \
         token says.",
    ),
    key(
        "auth.backoff",
        Form::Duration,
        "1s",
        "The first pause after too many failed logins, see `limits.failed_logins`; doubled by each further failure, up to \
         five minutes, and up to 30 seconds for an account over all sources. Attempts during a pause are answered 429 \
         unseen. `0s` switches it off.",
    ),
    key(
        "content.sparse_images",
        Form::Switch,
        "false",
        "Accept image manifests whose layers are not in the repository.",
    ),
    key("limits.manifest", Form::Size, "4MiB", "The largest manifest."),
    key(
        "limits.connections",
        Form::Count,
        "10000",
        "Connections at a time. When there are that many, the one that has waited longest without a request is closed to \
         make room.",
    ),
    key(
        "limits.connections_per_source",
        Form::Count,
        "1000",
        "Connections at a time from one address. Loopback and `server.plain_from` are not counted, since many clients may \
         stand behind them.",
    ),
    key(
        "limits.uploads_per_subject",
        Form::Count,
        "100",
        "Upload sessions that one user or robot may have open; one more is answered 429.",
    ),
    key(
        "limits.header",
        Form::Size,
        "32KiB",
        "Request line and headers together; more is answered 431, a longer target 414.",
    ),
    key(
        "limits.header_time",
        Form::Duration,
        "30s",
        "How long a client may take for the TLS handshake, and how long for a request's headers.",
    ),
    key("limits.idle", Form::Duration, "120s", "How long a connection may stay open without a request."),
    key(
        "limits.progress",
        Form::Size,
        "1KiB",
        "What a client has to send of a body, or take of an answer, in a second, averaged over `limits.progress_time`; time \
         that the server needs does not count. `0` switches it off.",
    ),
    key("limits.progress_time", Form::Duration, "60s", "The time over which `limits.progress` is measured."),
    key(
        "limits.failed_logins",
        Form::Count,
        "10",
        "Failed logins of one account from one source that bring the first pause (`auth.backoff`); five times as many of a \
         source over all accounts, or of an account over all sources. Failures are forgotten 15 minutes after the last \
         one. A success forgets those of the account from that source and no others, and for a day the pauses of the \
         account over all sources do not bind that source. A source is an IPv4 address or an IPv6 /64.",
    ),
    key("upload.idle", Form::Duration, "24h", "An upload session that nobody touches for this long is removed."),
    key("gc.interval", Form::Duration, "1h", "Time between two collections."),
    key(
        "gc.grace",
        Form::Duration,
        "24h",
        "What nothing references is removed after this time, and not before: it has to be longer than the longest push.",
    ),
    key(
        "log.format",
        Form::Choice(&["auto", "pretty", "json"]),
        "auto",
        "`auto` is `pretty` on a terminal and `json` elsewhere. Logs go to standard error.",
    ),
    key(
        "log.level",
        Form::Text,
        "info",
        "`error`, `warn`, `info`, `debug`, `trace`, or filters such as `info,registry=debug`. `info` has a line for each \
         request. No level prints secrets.",
    ),
    key(
        "bootstrap.password_file",
        Form::Path,
        "",
        "The password of the first administrator, instead of a generated one. Read only while there is no user.",
    ),
];

/// The setting of this name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The known key that `name` was probably meant to be.
pub fn nearest(name: &str) -> Option<&'static str> {
    let last = |key: &str| key.rsplit('.').next().map(str::to_owned);
    let section = name.contains('.');
    KEYS.iter()
        .enumerate()
        .filter_map(|(place, key)| {
            let distance = distance(key.name, name);
            // A right last part in a wrong section is as good as a few wrong letters; without any section the first key
            // of that last part is meant.
            let same_end = last(key.name) == last(name);
            let near = distance <= 2 + key.name.len() / 5 || same_end && distance <= 12;
            near.then_some((if same_end && !section { 0 } else { distance }, place, key.name))
        })
        .min()
        .map(|(_, _, key)| key)
}

/// Levenshtein's distance, on at most the first 64 bytes of each.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (&a.as_bytes()[..a.len().min(64)], &b.as_bytes()[..b.len().min(64)]);
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            row.push((above[j] + usize::from(x != y)).min(row[j] + 1).min(above[j + 1] + 1));
        }
        above = row;
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_secrets_have_no_flag() {
        for (i, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..i].iter().all(|other| other.name != key.name), "{}", key.name);
            assert!(key.doc.ends_with('.') && !(key.secret && key.flag.is_some()), "{}", key.name);
        }
        assert_eq!(find("server.tls.key").map(Key::variable).as_deref(), Some("PORTCULLIS_SERVER__TLS__KEY"));
    }

    #[test]
    fn nearest_known_key() {
        for (typed, meant) in [
            ("server.lsten", Some("server.listen")),
            ("servre.listen", Some("server.listen")),
            ("data-dir", Some("data_dir")),
            ("listen", Some("server.listen")),
            ("tls.certificate", Some("server.tls.certificate")),
            ("gc.graze", Some("gc.grace")),
            ("limits.manifests", Some("limits.manifest")),
            ("completely.different", None),
        ] {
            assert_eq!(nearest(typed), meant, "{typed}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
