//! A network of a test's own, whose cables can be cut, slowed and made to lose packets.
//!
//! ```text
//! the gateway's host ─── switch ─┬─ a far host
//!                                └─ another
//! ```
//!
//! Hosts are network namespaces, cables are veth pairs, and the switch is a bridge in a namespace
//! between them: what happens to a cable there is told to neither side. Namespaces have no names, and
//! are gone with the last descriptor of and process in them, however the test ends.
//!
//! Needs root, iproute2, and a kernel with veth, bridge, tbf, htb and u32: `tests/run` tries that
//! first. What it cannot do is to lose packets at random: netem is missing from too many kernels.

use std::cell::Cell;
use std::fs::File;
use std::marker::PhantomData;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};

use super::Gateway;

/// Hosts are numbered from this one on.
const GATEWAYS_HOST: u8 = 1;

/// A network namespace, held by its descriptor.
struct Namespace(File);

impl Namespace {
    fn new() -> Self {
        let here = Self::current().stand();
        unshare(CloneFlags::CLONE_NEWNET)
            .unwrap_or_else(|error| panic!("a network namespace needs root (CAP_SYS_ADMIN): {error}"));
        let new = Self::current();
        drop(here);
        new.ip("link set lo up");
        new
    }

    fn current() -> Self {
        let path = "/proc/thread-self/ns/net";
        Self(File::open(path).unwrap_or_else(|error| panic!("{path}: {error}")))
    }

    /// The calling thread goes back to this namespace in the end.
    fn stand(self) -> Standing {
        Standing { back: self, of_this_thread: PhantomData }
    }

    /// Until the end, the calling thread is here: its sockets, and what it starts.
    fn enter(&self) -> Standing {
        let back = Self::current();
        setns(&self.0, CloneFlags::CLONE_NEWNET).expect("a namespace can be entered");
        back.stand()
    }

    fn ip(&self, arguments: &str) -> String {
        self.command("ip", arguments)
    }

    fn tc(&self, arguments: &str) -> String {
        self.command("tc", arguments)
    }

    fn command(&self, program: &str, arguments: &str) -> String {
        let _here = self.enter();
        let output = Command::new(program)
            .args(arguments.split(' '))
            .output()
            .unwrap_or_else(|error| panic!("`{program}`, of iproute2, does not run: {error}"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// The calling thread's stay in a namespace.
struct Standing {
    back: Namespace,
    of_this_thread: PhantomData<*const ()>,
}

impl Drop for Standing {
    fn drop(&mut self) {
        if let Err(error) = setns(&self.back.0, CloneFlags::CLONE_NEWNET) {
            eprintln!("a thread is left in another network namespace: {error}");
        }
    }
}

/// The network. While it is there the thread that made it, and what it starts, is on the gateway's
/// host.
pub(crate) struct Network {
    switch: Namespace,
    /// Of the gateway's host.
    address: Ipv4Addr,
    hosts: Cell<u8>,
    _standing: Standing,
    gateways_host: Namespace,
}

impl Network {
    pub(crate) fn new() -> Self {
        let switch = Namespace::new();
        switch.ip("link add name switch type bridge");
        switch.ip("link set switch up");
        let gateways_host = Namespace::new();
        let address = plug(&gateways_host, &switch, GATEWAYS_HOST);
        Self {
            switch,
            address,
            hosts: Cell::new(GATEWAYS_HOST),
            _standing: gateways_host.enter(),
            gateways_host,
        }
    }

    /// A gateway that every host reaches.
    pub(crate) fn gateway(&self, flags: &[&str]) -> Gateway {
        Gateway::start_on(
            &format!("{}:0", self.address),
            &[flags, &["--expose-without-credentials"]].concat(),
        )
    }

    /// What the kernel of the gateway's host keeps of each connection that is slow, in bytes: no more
    /// than this, so that the gateway sees in small steps what is taken.
    pub(crate) fn bound_send_buffers(&self, most: u32) {
        let _here = self.gateways_host.enter();
        let path = "/proc/sys/net/ipv4/tcp_wmem";
        std::fs::write(path, format!("4096 16384 {most}")).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// One more host.
    pub(crate) fn host(&self) -> Host<'_> {
        let number = self.hosts.get() + 1;
        self.hosts.set(number);
        let namespace = Namespace::new();
        plug(&namespace, &self.switch, number);
        introduce(&namespace, GATEWAYS_HOST);
        introduce(&self.gateways_host, number);
        Host { namespace, switch: &self.switch, port: format!("port{number}") }
    }
}

/// A cable between a host and the switch; the host's address. The kernel is kept from handing over
/// several segments as one packet, so that a packet is what would be one on a wire.
fn plug(host: &Namespace, switch: &Namespace, number: u8) -> Ipv4Addr {
    let there = format!("/proc/{}/fd/{}", std::process::id(), switch.0.as_raw_fd());
    let (address, hardware) = (address(number), hardware_address(number));
    host.ip(&format!("link add name eth0 address {hardware} type veth peer name port{number} netns {there}"));
    host.ip(&format!("addr add {address}/24 dev eth0"));
    host.ip("link set eth0 gso_max_segs 1 up");
    switch.ip(&format!("link set port{number} master switch gso_max_segs 1 up"));
    address
}

/// Where a host is, so that it is not asked for: while a cable is cut the question would fail.
fn introduce(host: &Namespace, number: u8) {
    let (address, hardware) = (address(number), hardware_address(number));
    host.ip(&format!("neigh replace {address} lladdr {hardware} dev eth0 nud permanent"));
}

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number)
}

fn hardware_address(number: u8) -> String {
    format!("02:00:00:00:00:{number:02x}")
}

/// A host other than the gateway's.
pub(crate) struct Host<'a> {
    namespace: Namespace,
    switch: &'a Namespace,
    port: String,
}

impl Host<'_> {
    /// Does something on this host: the sockets that it opens stay there.
    pub(crate) fn run<T>(&self, act: impl FnOnce() -> T) -> T {
        let _there = self.namespace.enter();
        act()
    }

    /// Pulls the cable at the switch: nothing passes, and nobody on the other side is told.
    pub(crate) fn cut(&self) {
        self.switch.ip(&format!("link set {} down", self.port));
    }

    /// Puts it back.
    pub(crate) fn mend(&self) {
        self.switch.ip(&format!("link set {} up", self.port));
    }

    /// What is sent to this host is lost from now on; what it sends still arrives.
    pub(crate) fn deafen(&self) {
        lose(self.switch, &self.port, "u32 0 0 at 0");
    }

    /// What is sent to this host passes no faster than this, in the words of tc(8): `256kbit`.
    pub(crate) fn slow_down(&self, rate: &str) {
        self.switch
            .tc(&format!("qdisc replace dev {} root tbf rate {rate} burst 4kb latency 200ms", self.port));
    }

    /// As fast again as a cable is.
    pub(crate) fn speed_up(&self) {
        self.switch.tc(&format!("qdisc del dev {} root", self.port));
    }

    /// One packet of sixteen is lost, either way: each connection numbers its packets in the IP header
    /// (the first answer of a connection, and resets, are number 0).
    pub(crate) fn lose_packets(&self) {
        lose(self.switch, &self.port, "u16 0x0007 0x000f at 4");
        lose(&self.namespace, "eth0", "u16 0x0007 0x000f at 4");
    }

    /// How many packets were lost on the way to this host, and from it.
    pub(crate) fn lost_packets(&self) -> [u64; 2] {
        [(self.switch, self.port.as_str()), (&self.namespace, "eth0")].map(|(namespace, device)| {
            let shown = namespace.tc(&format!("-s qdisc show dev {device}"));
            let nowhere = shown.split("qdisc pfifo").nth(1).and_then(|shown| shown.split("(dropped ").nth(1));
            let dropped = nowhere.and_then(|shown| shown.split(',').next()?.parse().ok());
            dropped.unwrap_or_else(|| panic!("no count of lost packets: {shown}"))
        })
    }
}

/// IP packets that match are sent to where there is no room.
fn lose(namespace: &Namespace, device: &str, matching: &str) {
    namespace.tc(&format!("qdisc add dev {device} root handle 1: htb default 1"));
    for class in ["1:1", "1:2"] {
        namespace
            .tc(&format!("class add dev {device} parent 1: classid {class} htb rate 10gbit quantum 60000"));
    }
    namespace.tc(&format!("qdisc add dev {device} parent 1:2 pfifo limit 0"));
    namespace.tc(&format!("filter add dev {device} parent 1: protocol ip u32 match {matching} flowid 1:2"));
}
