//! Who the process is: never more than it needs to be.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Gid, Uid};
use rustix::process::getuid;
use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities,
    set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::config::Config;
use crate::error::Error;

/// Ports below this one are for the privileged.
const PRIVILEGED_PORTS: u16 = 1024;

/// Who the process became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Became {
    /// It was not root and stays who it was.
    Unchanged {
        /// User id.
        user: u32,
    },
    /// It was root and is someone else now.
    User {
        /// User id.
        user: u32,
        /// Group id.
        group: u32,
    },
    /// It was root and still has that id, since the data directory is root's; its capabilities are gone.
    PowerlessRoot,
}

impl fmt::Display for Became {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unchanged { user } | Self::User { user, .. } => write!(f, "{user}"),
            Self::PowerlessRoot => f.write_str("0 without capabilities"),
        }
    }
}

/// As root: becomes the owner of the data directory, and gives up every capability but that to bind a low port where one is
/// configured. In any case nothing that is executed later gains privileges.
///
/// # Errors
/// [`Error::System`].
pub(super) fn drop_them(config: &Config) -> Result<Became, Error> {
    let failed = |source: rustix::io::Errno| Error::System { action: "give up privileges", source: source.into() };
    let became = if getuid().is_root() {
        let kept = kept(config);
        forget_bounds(kept);
        let became = become_owner(&config.data_dir, kept).map_err(failed)?;
        let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
        set_capabilities(None, sets).map_err(failed)?;
        became
    } else {
        Became::Unchanged { user: getuid().as_raw() }
    };
    set_no_new_privs(true).map_err(failed)?;
    Ok(became)
}

/// The one capability that a configuration can need.
fn kept(config: &Config) -> CapabilitySet {
    let low = |port: u16| port != 0 && port < PRIVILEGED_PORTS;
    let addresses = [Some(config.server.listen), config.admin.listen, config.ops.listen];
    if addresses.into_iter().flatten().any(|address| low(address.port())) {
        CapabilitySet::NET_BIND_SERVICE
    } else {
        CapabilitySet::empty()
    }
}

/// The bounding set only matters to programs that are executed, and none is: where it cannot be emptied, nothing is lost.
fn forget_bounds(kept: CapabilitySet) {
    for capability in CapabilitySet::all().difference(kept).iter() {
        let _ = remove_capability_from_bounding_set(capability);
    }
}

fn become_owner(data_dir: &Path, kept: CapabilitySet) -> rustix::io::Result<Became> {
    // A directory that is not there yet will be root's, as whoever starts the server as root has it.
    let owner = fs::metadata(data_dir).map_or((0, 0), |found| (found.uid(), found.gid()));
    if owner.0 == 0 {
        return Ok(Became::PowerlessRoot);
    }
    let (user, group) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    set_keep_capabilities(!kept.is_empty())?;
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    Ok(Became::User { user: owner.0, group: owner.1 })
}
