//! Who goes first on the cores that gateway, bystanders and attackers share.
//!
//! An attacker would be on another machine, and what else runs on this one is none of the gateway's:
//! so what is measured has real-time priority, and waits for nothing but the gateway. Only root may
//! give that; elsewhere a bystander also waits for its turn on a core.

use std::process::{Command, Stdio};
use std::sync::LazyLock;

use crate::support::Gateway;

/// The real-time priorities: a bystander never waits for a core that the gateway keeps busy for others.
const GATEWAY: &str = "1";
const BYSTANDER: &str = "2";

/// Whether real-time priorities can be given here.
static IS_PERMITTED: LazyLock<bool> = LazyLock::new(|| {
    let is_permitted = run("chrt", &["--fifo", BYSTANDER, "true"]);
    if !is_permitted {
        println!("no real-time priorities can be given here: the bystanders are allowed a time slice more");
    }
    is_permitted
});

pub(crate) fn is_permitted() -> bool {
    *IS_PERMITTED
}

/// Puts the gateway and this thread, which measures, before all else on the machine.
pub(crate) fn go_first(gateway: &Gateway) {
    if is_permitted() {
        let pid = gateway.pid().to_string();
        must_run("chrt", &["--all-tasks", "--fifo", "--pid", GATEWAY, &pid]);
        must_run("chrt", &["--fifo", "--pid", BYSTANDER, &this_thread()]);
    }
}

/// Puts this thread after all else.
pub(crate) fn go_last() {
    if is_permitted() {
        must_run("chrt", &["--other", "--pid", "0", &this_thread()]);
    }
    must_run("renice", &["-n", "19", "-p", &this_thread()]);
}

fn this_thread() -> String {
    nix::unistd::gettid().to_string()
}

fn must_run(program: &str, arguments: &[&str]) {
    assert!(
        run(program, arguments),
        "{program} {arguments:?}, of Debian's util-linux and bsdutils, is needed"
    );
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
