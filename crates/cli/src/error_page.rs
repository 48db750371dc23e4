//! `docs/reference/errors.md`: exit states, and the codes of errors.

use std::fmt::Write;

const HEAD: &str = "\
# Errors and exit states

Generated from the program by `portcullis man --errors`; a test fails when this page differs.

A command that fails prints `error: TEXT` and, where there is one, `help: NEXT STEP` on standard error. With `--json` it
prints `{\"error\": {\"code\": …, \"message\": …, \"help\": …, \"details\": {…}}}` instead. The admin API answers with the same
object; commands pass its code on.

## Exit states

| exit | meaning |
|---|---|
| 0 | done |
| 1 | failed |
| 2 | wrong usage or invalid configuration; all problems are listed |
| 3 | done, and problems were found: `fsck`, `backup --verify` |
| 4 | not logged in, or denied |
| 6 | refused as unsafe; the message ends with the key or the command that mends it |
| 7 | the data directory is locked by another process, or its format is too new |
";

/// Codes that commands make themselves: code, exit state, meaning.
pub const COMMAND_CODES: &[(&str, u8, &str)] = &[
    ("usage", 2, "The command, a flag or a value does not exist or makes no sense."),
    ("confirmation_needed", 2, "A destructive command without `--yes`, and no terminal to ask on."),
    ("config_invalid", 2, "Settings are invalid; `details.problems` has `key`, `origin` and `message` of each."),
    ("not_confirmed", 1, "The answer on the terminal was no; nothing was changed."),
    ("no_server", 1, "No URL, no socket in the data directory, no stored login."),
    ("unreachable", 1, "Nobody answers at the URL or the socket, or TLS fails."),
    ("timed_out", 1, "Connected, and no answer in time."),
    ("foreign_answer", 1, "What answers is not the admin API of Portcullis."),
    ("job_failed", 1, "A collection, backup or check that the server ran has failed."),
    ("not_logged_in", 4, "The server wants a login."),
    ("password_refused", 4, "`login` with a wrong name or password."),
    ("token_refused", 4, "The token of `PORTCULLIS_TOKEN` or `PORTCULLIS_TOKEN_FILE` does not count."),
    ("login_ended", 4, "The stored login has ended: after 90 days, with another password, with a disabled user."),
    ("plain_http", 6, "Credentials would be sent over plain HTTP beyond loopback."),
    ("empty_password", 6, "`--password-stdin` with nothing on standard input."),
    ("open_to_others", 6, "The file of stored logins can be read by others."),
    ("unsafe", 6, "A listener beyond loopback without TLS; a key or data directory that others can read."),
    ("data_dir_locked", 7, "Another process has the data directory open."),
    ("store_served", 7, "Another server serves the store that is in the database."),
    ("data_dir_too_new", 7, "A newer version wrote the data directory."),
    ("data_dir_damaged", 1, "The data directory is not in order."),
    ("cannot_listen", 1, "An address cannot be listened on."),
    ("tls", 1, "A certificate or key cannot be used."),
    ("database", 1, "The database failed."),
    ("system", 1, "The operating system refused something."),
    ("io", 1, "A file cannot be read or written."),
    ("failed", 1, "Anything else."),
];

/// The page.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("\n## Codes of commands\n\n| code | exit | meaning |\n|---|---|---|\n");
    for (code, exit, meaning) in COMMAND_CODES {
        // Writing to a string cannot fail, here and below.
        _ = writeln!(page, "| `{code}` | {exit} | {meaning} |");
    }
    page.push_str("\n## Codes of the admin API\n\n| code | HTTP | exit | meaning |\n|---|---|---|---|\n");
    for code in api::ErrorCode::ALL {
        let meaning = code.meaning().split_whitespace().collect::<Vec<_>>().join(" ");
        let exit = crate::error::exit_of_status(code.status()) as u8;
        _ = writeln!(page, "| `{}` | {} | {exit} | {meaning} |", code.as_str(), code.status());
    }
    page.push_str(
        "\n## Codes of the registry\n\nClients of `/v2` get the codes of the OCI distribution specification; see \
         [the protocol page](protocol.md).\n",
    );
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_is_listed_twice() {
        let mut seen = std::collections::BTreeSet::new();
        let of_commands = COMMAND_CODES.iter().map(|(code, _, _)| *code);
        for code in of_commands.chain(api::ErrorCode::ALL.iter().map(|code| code.as_str())) {
            assert!(seen.insert(code), "{code}");
        }
    }
}
