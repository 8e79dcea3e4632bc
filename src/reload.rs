//! What can be read anew while the gateway runs: by SIGHUP, or by `POST /api/v1/reload`.

use std::error::Error;

/// One thing that can be read again. Where that fails, what was in force stays so.
pub(crate) struct Reloadable {
    /// As the log and the API call it.
    pub(crate) name: &'static str,
    pub(crate) reload: Box<dyn Fn() -> Result<(), Box<dyn Error>> + Send + Sync>,
}

/// Reads all of them anew; what became of each. Waits for the disk.
pub(crate) fn reload_all(things: &[Reloadable]) -> Vec<(&'static str, Result<(), String>)> {
    let reload = |thing: &Reloadable| {
        let outcome = (thing.reload)().map_err(|error| error.to_string());
        match &outcome {
            Ok(()) => log::info!("{} reloaded", thing.name),
            Err(error) => log::error!("{} not reloaded, the old one stays in force: {error}", thing.name),
        }
        (thing.name, outcome)
    };
    things.iter().map(reload).collect()
}
