//! What parsing rules can fail with.

/// Why a verb, role or pattern was refused. `text` is a bounded, escaped part of what was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not a verb.
    #[error(
        "'{text}' is neither a role (reader, writer, maintainer) nor a verb (pull, list, push, tag-create, tag-move, tag-delete, delete)"
    )]
    Verb {
        /// What was given.
        text: String,
    },
    /// Not a role.
    #[error("'{text}' is not a role: use reader, writer or maintainer")]
    Role {
        /// What was given.
        text: String,
    },
    /// Not a pattern of repositories.
    #[error("'{text}' is not a repository pattern: {why}")]
    RepositoryPattern {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Not a pattern of tags.
    #[error("'{text}' is not a tag pattern: {why}")]
    TagPattern {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// At most 64 characters of `input`, escaped.
pub(crate) fn excerpt(input: &str) -> String {
    let mut short: String = input.chars().take(64).flat_map(char::escape_debug).collect();
    if input.chars().nth(64).is_some() {
        short.push('…');
    }
    short
}
