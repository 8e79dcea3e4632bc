//! Where a connection comes from: what tells two clients apart before either has said who it is.

use std::fmt;
use std::net::IpAddr;

/// An IP address, or, over a Unix domain socket, the user that the kernel vouches for: there is no
/// address there, and processes of one user are to each other what processes of one address are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    Address(IpAddr),
    /// A user's id.
    User(u32),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::User(uid) => write!(f, "user {uid}"),
        }
    }
}
