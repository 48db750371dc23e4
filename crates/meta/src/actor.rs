//! Who makes a change.

/// Who makes a change, as its event tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The row of the subject; none for anonymous and for the system.
    pub subject: Option<i64>,
    /// `user:alice`, `robot:payments.deploy`, `anonymous` or `system`.
    pub name: String,
    /// What proved it, for example `basic` or `token:<id>`; never the secret itself.
    pub credential: String,
    /// The address that the request came from; empty for the system.
    pub source: String,
    /// The id of the request or of the task's run.
    pub request_id: String,
    /// The policy epoch of the rules by which it was decided that it may; none where no rules were asked. A change that
    /// anybody's rights are needed for fails with [`crate::Error::Outdated`] where this is not the store's any more, so
    /// that none overtakes a revocation that was acknowledged.
    pub policy_epoch: Option<i64>,
}

impl Actor {
    /// The server itself, in one run of a task.
    pub fn system(request_id: impl Into<String>) -> Self {
        Self {
            subject: None,
            name: "system".to_owned(),
            credential: String::new(),
            source: String::new(),
            request_id: request_id.into(),
            policy_epoch: None,
        }
    }
}
