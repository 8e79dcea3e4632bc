//! What the settings of the Unix domain socket can be.

use std::str::FromStr;

use super::setting::Kind;
use super::value::{Field, Value};

/// The default of `unix_uids`.
const OWN: &str = "own";

/// The permissions of a file, as `chmod` takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl FromStr for FileMode {
    type Err = ();

    fn from_str(typed: &str) -> Result<Self, ()> {
        let is_octal = (3..=4).contains(&typed.len()) && typed.bytes().all(|byte| byte.is_ascii_digit());
        let mode = u32::from_str_radix(typed, 8).map_err(drop)?;
        if is_octal && mode <= 0o777 { Ok(Self(mode)) } else { Err(()) }
    }
}

/// Users, by their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserList {
    /// The gateway's own user, and root.
    Own,
    Listed(Vec<u32>),
}

impl FromStr for UserList {
    type Err = ();

    fn from_str(typed: &str) -> Result<Self, ()> {
        if typed == OWN {
            return Ok(Self::Own);
        }
        let uids = typed.split(',').map(|uid| uid.trim().parse().map_err(drop));
        uids.collect::<Result<_, ()>>().map(Self::Listed)
    }
}

pub(super) const MODE: Kind = Kind::Form {
    placeholder: "MODE",
    expected: "permissions in octal such as `\"0660\"`",
    default: "0600",
    is_formed: |typed| typed.parse::<FileMode>().is_ok(),
    may_be_array: false,
};

pub(super) const USERS: Kind = Kind::Form {
    placeholder: "UID,…",
    expected: "`own`, or ids of users such as `\"0,1000\"` (in the file also `[0, 1000]`)",
    default: OWN,
    is_formed: |typed| typed.parse::<UserList>().is_ok(),
    may_be_array: true,
};

impl Field for FileMode {
    fn from_value(value: Value) -> Self {
        String::from_value(value).parse().expect("the value was checked against its kind")
    }
}

impl Field for UserList {
    fn from_value(value: Value) -> Self {
        String::from_value(value).parse().expect("the value was checked against its kind")
    }
}
