//! A seam for tests: makes the n-th system call of a store fail. Empty in a normal build.

#[cfg(any(test, feature = "conformance"))]
pub use on::Faults;

#[cfg(not(any(test, feature = "conformance")))]
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {}

#[cfg(not(any(test, feature = "conformance")))]
impl Faults {
    #[inline]
    pub(crate) fn check(&self, _op: &'static str) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(any(test, feature = "conformance"))]
mod on {
    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};

    use rustix::io::Errno;

    /// Makes chosen system calls of a store fail. Clones share one plan.
    #[derive(Clone, Debug, Default)]
    pub struct Faults {
        plan: Arc<Mutex<Plan>>,
    }

    #[derive(Debug, Default)]
    struct Plan {
        calls: u64,
        fail_at: Option<(u64, Errno)>,
        fail_op: Option<(&'static str, Errno)>,
    }

    impl Faults {
        /// The `n`-th call from now, counted from 1, fails with `errno`; calls before and after succeed.
        pub fn fail_at(&self, n: u64, errno: Errno) {
            let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
            plan.fail_at = Some((plan.calls + n, errno));
        }

        /// Each call named `op` fails with `errno` from now on.
        pub fn fail_op(&self, op: &'static str, errno: Errno) {
            self.plan.lock().unwrap_or_else(PoisonError::into_inner).fail_op = Some((op, errno));
        }

        /// No call fails any more.
        pub fn clear(&self) {
            let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
            (plan.fail_at, plan.fail_op) = (None, None);
        }

        /// How many calls were made.
        pub fn calls(&self) -> u64 {
            self.plan.lock().unwrap_or_else(PoisonError::into_inner).calls
        }

        pub(crate) fn check(&self, op: &'static str) -> io::Result<()> {
            let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
            plan.calls += 1;
            match (plan.fail_at, plan.fail_op) {
                (Some((n, errno)), _) if n == plan.calls => Err(errno.into()),
                (_, Some((failing, errno))) if failing == op => Err(errno.into()),
                _ => Ok(()),
            }
        }
    }
}
