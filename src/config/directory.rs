//! Where what survives a restart is kept unless a setting says otherwise.
//!
//! By the XDG Base Directory Specification: *state* "should persist between (application) restarts,
//! but ... is not important or portable enough to the user that it should be stored in
//! `$XDG_DATA_HOME`". Who holds which shard id is just that: on another machine, or next month, it
//! means nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Typed for a directory: there is none.
pub(super) const NONE: &str = "none";

/// The default, for `--help`.
pub(super) const DEFAULT: &str = "$XDG_STATE_HOME/gateway, or else ~/.local/state/gateway";

/// The default in this environment, which may not have one.
pub(super) fn default(variables: &BTreeMap<String, String>) -> Option<String> {
    // A relative path is invalid and to be ignored, says XDG.
    let absolute = |name: &str| {
        let path = Path::new(variables.get(name)?);
        path.is_absolute().then(|| path.to_owned())
    };
    let state: PathBuf =
        absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    state.join("gateway").to_str().map(str::to_owned)
}

/// Whether that can be meant for a directory. Nothing but a shell expands `~`.
pub(super) fn is_path(typed: &str) -> bool {
    !typed.is_empty() && !typed.starts_with('~') && !typed.contains(char::is_control)
}
