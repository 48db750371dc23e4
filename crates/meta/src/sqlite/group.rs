//! One transaction of a caller inside the commit of a group.

use tokio::sync::oneshot;

use super::run_now;
use crate::error::Error;
use crate::tx::{Tx, TxFuture};

/// A transaction that waits for the writer.
pub(super) trait Job: Send {
    /// Runs the body inside a savepoint. On an error what it wrote is to be undone.
    fn run(&mut self, tx: &mut Tx) -> Result<(), Error>;

    /// Answers the caller once the group is committed, or with the group's failure: what the body saw may have been
    /// another member's rows that are not there after all, so its own result counts no more, good or bad.
    fn answer(self: Box<Self>, failure: Option<&Error>);
}

pub(super) struct Transaction<T, F> {
    work: Option<F>,
    result: Option<Result<T, Error>>,
    caller: oneshot::Sender<Result<T, Error>>,
}

impl<T, F> Transaction<T, F> {
    pub(super) fn new(work: F) -> (Self, oneshot::Receiver<Result<T, Error>>) {
        let (caller, answer) = oneshot::channel();
        (Self { work: Some(work), result: None, caller }, answer)
    }
}

impl<T, F> Job for Transaction<T, F>
where
    T: Send,
    F: for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T> + Send,
{
    fn run(&mut self, tx: &mut Tx) -> Result<(), Error> {
        let Some(work) = self.work.take() else { return Ok(()) };
        self.result.insert(run_now(tx, work)).as_ref().map(drop).map_err(Clone::clone)
    }

    fn answer(self: Box<Self>, failure: Option<&Error>) {
        let result = match (failure, self.result) {
            (Some(failure), _) => Err(failure.clone()),
            (None, Some(result)) => result,
            (None, None) => Err(Error::db("running a transaction", "it was never run")),
        };
        // A caller that has gone away needs no answer.
        drop(self.caller.send(result));
    }
}
