//! The right to change something, at the moment of the change.
//!
//! A body can take hours to arrive, and a revocation that was acknowledged meanwhile must hold. So whoever changes
//! something hands over no decision but a way to decide. The decision carries the epoch of its rules into the transaction,
//! which refuses it when rights have changed since; then the rules are read again and decide again.

use futures_util::future::BoxFuture;
use policy::{Access, Refusal};

use crate::{BoxError, Error};

/// How often one change is decided on before it gives up: rights would have to change as often within milliseconds.
const DECISIONS: u32 = 8;

/// Whether a caller may make a change, asked when it is made.
pub trait Right: Send + Sync {
    /// Decides by the rules at hand.
    ///
    /// # Errors
    /// What to answer when it may not, or not any more.
    fn decide(&self) -> Result<Access, Refusal>;

    /// Brings the rules at hand up to those of the store.
    fn refresh(&self) -> BoxFuture<'_, Result<(), BoxError>>;
}

/// A decision for good: that of the server's own tasks, which no rules bind. On anybody else's the store refuses to act
/// once rights have changed.
impl Right for Access {
    fn decide(&self) -> Result<Access, Refusal> {
        Ok(self.clone())
    }

    fn refresh(&self) -> BoxFuture<'_, Result<(), BoxError>> {
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
            self.right.refresh().await.map_err(Error::by_cause)?;
        }
        self.made += 1;
        Ok(self.right.decide()?)
    }
}
