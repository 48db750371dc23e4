//! The right to read or change something, at the moment at which it is done.
//!
//! A body can take hours to arrive, and a revocation that was acknowledged meanwhile must hold; and several servers may
//! share a database, of which each knows the changes of the others only from there. So whoever reads or changes
//! something hands over no decision but a way to decide. The decision carries the epoch of its rules into the query or transaction,
//! which refuses it when rights have changed since; then the rules are read again and decide again.

use futures_util::future::BoxFuture;
use policy::{Access, Refusal};

use crate::Error;

/// How often one change is decided on before it gives up: rights would have to change as often within milliseconds.
const DECISIONS: u32 = 8;

/// Whether a caller may do something, asked when it is done.
pub trait Right: Send + Sync {
    /// Decides by the rules at hand.
    ///
    /// # Errors
    /// What to answer when it may not, or not any more.
    fn decide(&self) -> Result<Access, Refusal>;

    /// Brings the rules at hand up to those of the store.
    ///
    /// # Errors
    /// When the store does not answer.
    fn refresh(&self) -> BoxFuture<'_, Result<(), Error>>;
}

/// A decision for good: that of the server's own tasks, which no rules bind. On anybody else's the store refuses to act
/// once rights have changed.
impl Right for Access {
    fn decide(&self) -> Result<Access, Refusal> {
        Ok(self.clone())
    }

    fn refresh(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
}

/// The decisions on one change: each time that the store calls the last one outdated, the next.
pub(crate) struct Decisions<'a> {
    right: &'a dyn Right,
    made: u32,
}

impl<'a> Decisions<'a> {
    pub(crate) fn on(right: &'a dyn Right) -> Self {
        Self { right, made: 0 }
    }

    /// Decides by the rules of this moment.
    pub(crate) async fn next(&mut self) -> Result<Access, Error> {
        if self.made == DECISIONS {
            return Err(Error::Unavailable { retry_after_s: 1, source: None });
        }
        if self.made > 0 {
            self.right.refresh().await?;
        }
        self.made += 1;
        Ok(self.right.decide()?)
    }
}
