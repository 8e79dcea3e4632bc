//! The program: its allocator, parse, run, exit code; nothing else.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use gateway::auth::Auth;
use gateway::bench;
use gateway::cli::{self, Command};
use gateway::config::Loaded;
use gateway::{discord, logging, server};
use mimalloc::MiMalloc;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A message costs 3 to 8 % less CPU than with the C library's allocator, most where messages are large
/// (7 to 9 rounds of 1 to 64 pairs, 256 B to 4 KiB). Without huge pages (its feature `no_thp`): they gain
/// nothing more, and a gateway at rest would hold 13 MiB more.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Exit code of whatever a user can mend: a wrong setting, a busy port, a damaged store.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    match cli::parse_process() {
        Ok(Command::Serve(loaded)) => serve(*loaded),
        Ok(Command::PrintConfig(text)) => print(&text),
        Ok(Command::NewToken(wish)) => match cli::new_token(&wish) {
            // Apart from the entry, so that a file which takes that does not get the token too.
            Ok((token, entry)) => {
                eprintln!("the token, shown this once: {token}");
                print(&entry)
            }
            Err(error) => refuse(&error),
        },
        Ok(Command::Bench(typed)) => bench::run(typed),
        Err(stop) => stop.exit(),
    }
}

/// Whoever reads stdout may be gone, or its disk full.
fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format_args!("stdout: {error}")),
    }
}

fn fail(error: &dyn Display) -> ExitCode {
    eprintln!("gateway: {error}");
    ExitCode::FAILURE
}

/// Says what its user can mend, after what was logged.
fn refuse(error: &dyn Display) -> ExitCode {
    logging::flush();
    eprintln!("gateway: {error}");
    ExitCode::from(USAGE)
}

fn serve(loaded: Loaded) -> ExitCode {
    logging::start(&loaded.config.log);
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    let auth = match Auth::new(loaded.config.credentials.as_deref(), loaded.config.auth_failures_per_minute) {
        Ok(auth) => auth,
        Err(error) => return refuse(&error),
    };
    let found = match server::find(&loaded.config) {
        Ok(found) => found,
        Err(error) => return refuse(&error),
    };
    // Whoever stops the gateway as soon as it can be connected to must find that it stops in order.
    let system = actix_rt::System::new();
    let signals = system.block_on(async { stop_signals() });
    let listeners = match server::Listeners::open(&loaded.config) {
        Ok(listeners) => listeners,
        Err(error) => return refuse(&error),
    };
    let ran = system.block_on(server::run(loaded.config, auth, found, listeners, stopped_by(signals)));
    logging::flush();
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let is_mendable = error.get_ref().is_some_and(|it| {
                it.is::<discord::Unauthorized>()
                    || it.is::<discord::NotAMultiple>()
                    || it.is::<server::RestoreError>()
                    || it.is::<server::TooManyWorkers>()
            });
            if is_mendable { refuse(&error) } else { fail(&error) }
        }
    }
}

/// SIGTERM and SIGINT, caught from now on.
fn stop_signals() -> io::Result<(Signal, Signal)> {
    Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
}

/// Resolves at the first of the signals; a second one ends the process at once.
async fn stopped_by(signals: io::Result<(Signal, Signal)>) {
    let (mut terminate, mut interrupt) = match signals {
        Ok(signals) => signals,
        Err(error) => {
            log::error!("signals cannot be caught: {error}");
            return std::future::pending().await;
        }
    };
    let mut next = async move || {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    };
    // Awaited outside the macros: a level that is not logged evaluates nothing.
    let first = next().await;
    log::info!("{first} came");
    actix_rt::spawn(async move {
        let second = next().await;
        log::warn!("{second} came after {first}: ending at once, what mailboxes still hold is lost");
        logging::flush();
        std::process::exit(1);
    });
}
