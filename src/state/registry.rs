//! Who is known: names, the connections and secrets that go with them, and tickets.
//!
//! The registry decides who may take a name, and when a session is over. It holds, for each
//! session, a handle `H` that it never looks into.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::grant::Grant;
use super::peer::Peer;
use super::secret::Secret;
use crate::protocol::error::RejectCode;
use crate::protocol::name::{ConnectionId, Name};
use crate::protocol::op::{Identify, Reject};

/// How long a ticket is good.
pub const TICKET_LIFE: Duration = Duration::from_secs(30);

/// After REBOOT a session is away for this many times the usual window.
const REBOOT_WINDOWS: u32 = 5;

/// The settings of the registry.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub max_sessions: usize,
    /// Of one credential or, where none are in use, of one address.
    pub max_tickets: usize,
    pub resume_window: Duration,
    /// Told in `already_connected`: when to try again.
    pub retry_after: Duration,
}

/// Somebody asks for a name.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    pub name: &'a Name,
    /// The session secret that was shown, if any.
    pub session: Option<&'a str>,
    pub address: Peer,
    /// What its credential permits.
    pub grant: &'a Arc<Grant>,
}

/// What an operator asked of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopping {
    Shutdown,
    Reboot,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Without a word from the service, or it was closed.
    Lost,
    /// The service closed it, with any code but the next.
    Closed,
    /// The service closed it with 4000.
    LeftForGood,
}

/// What became of a session whose connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is kept for that long.
    Away(Duration),
    /// It is over; the reason, for logs and PRESENCE, and whether the service wanted that: then it
    /// has closed its Discord connections.
    Down { why: &'static str, left: bool },
}

/// A session, as seen from outside.
#[derive(Debug)]
pub struct Known<H> {
    pub handle: H,
    /// What the credential permits that it identified with last.
    pub grant: Arc<Grant>,
    pub group: Option<Name>,
    /// Since when it is up, or away.
    pub since: Instant,
    pub stopping: Option<Stopping>,
    up: bool,
    connection: ConnectionId,
    secret: Secret,
    /// Valid until the first message on the connection that got `secret`.
    previous: Option<Secret>,
}

impl<H> Known<H> {
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// The connection that it is up with, or was.
    pub fn connection(&self) -> ConnectionId {
        self.connection
    }

    fn is_secret(&self, text: &str) -> bool {
        self.secret.is(text) || self.previous.as_ref().is_some_and(|previous| previous.is(text))
    }
}

/// A name that is held for whoever has the ticket.
#[derive(Debug)]
struct Hold {
    ticket: Secret,
    /// The session secret told with the ticket.
    session: Secret,
    address: Peer,
    grant: Arc<Grant>,
    until: Instant,
    identify: Identify,
}

/// What a claim would find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finds {
    /// Nobody: a new session.
    Nothing,
    /// A session without a connection.
    Away,
    /// A session whose connection has ended, which has not been noticed yet.
    HungUp,
    /// A session whose live connection is to be replaced.
    Live,
}

/// The registry.
#[derive(Debug)]
pub struct Registry<H> {
    settings: Settings,
    sessions: HashMap<Name, Known<H>>,
    names: HashMap<ConnectionId, Name>,
    holds: HashMap<Name, Hold>,
    draining: bool,
}

impl<H> Registry<H> {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            sessions: HashMap::new(),
            names: HashMap::new(),
            holds: HashMap::new(),
            draining: false,
        }
    }

    /// Whether the claim may take the name, and what it would find there. `hung_up` looks at the
    /// socket of a connection that is thought to live.
    pub fn check(
        &self,
        claim: Claim<'_>,
        hung_up: impl FnOnce(&H) -> bool,
        now: Instant,
    ) -> Result<Finds, Reject> {
        if self.draining {
            return Err(reject(RejectCode::Draining, "the gateway is stopping", None));
        }
        if let Some(hold) = self.hold(claim.name, now)
            && !hold.is_for(claim)
        {
            let left = hold.until.saturating_duration_since(now);
            return Err(reject(
                RejectCode::AlreadyConnected,
                "a ticket of somebody else's is out for this name",
                Some(left),
            ));
        }
        let Some(known) = self.sessions.get(claim.name) else { return self.check_capacity(claim.name, now) };
        if !known.up {
            return Ok(Finds::Away);
        }
        if hung_up(&known.handle) {
            return Ok(Finds::HungUp);
        }
        if claim.session.is_some_and(|text| known.is_secret(text)) {
            return Ok(Finds::Live);
        }
        let message = "the name has a live connection; show its `session` to take it over";
        Err(reject(RejectCode::AlreadyConnected, message, Some(self.settings.retry_after)))
    }

    /// Whether there is room for one more session, beside those that tickets are out for.
    fn check_capacity(&self, name: &Name, now: Instant) -> Result<Finds, Reject> {
        let promised = || {
            let is_one_more = |held: &Name| held != name && !self.sessions.contains_key(held);
            self.holds.iter().filter(|(held, hold)| hold.until > now && is_one_more(held)).count()
        };
        let max = self.settings.max_sessions;
        // Tickets are only counted where it matters.
        if self.sessions.len() + self.holds.len() < max || self.sessions.len() + promised() < max {
            return Ok(Finds::Nothing);
        }
        let message = format!("there are max_sessions = {} sessions", self.settings.max_sessions);
        Err(reject(RejectCode::AtCapacity, message, Some(self.settings.retry_after)))
    }

    /// Whether the claim may hold one more name: else one claimant could keep all of them from the others,
    /// and never come.
    pub fn check_tickets(&self, claim: Claim<'_>, now: Instant) -> Result<(), Reject> {
        let max = self.settings.max_tickets;
        // They are only looked through where it matters.
        if self.holds.len() < max {
            return Ok(());
        }
        let own = self
            .holds
            .iter()
            .filter(|(held, hold)| hold.until > now && *held != claim.name && hold.is_of(claim));
        let (count, first) = own.fold((0, None), |(count, first), (_, hold)| {
            (count + 1, Some(first.map_or(hold.until, |first: Instant| first.min(hold.until))))
        });
        if count < max {
            return Ok(());
        }
        let message = format!("max_tickets = {max} tickets are out that nobody has used");
        let left = first.map(|first| first.saturating_duration_since(now));
        Err(reject(RejectCode::AtCapacity, message, left))
    }

    /// Holds the name of a [checked](Self::check) claim for whoever shows the ticket.
    pub fn hold_name(
        &mut self,
        claim: Claim<'_>,
        identify: Identify,
        ticket: Secret,
        session: Secret,
        now: Instant,
    ) {
        let Claim { name, address, grant, .. } = claim;
        let until = now + TICKET_LIFE;
        let hold = Hold { ticket, session, address, grant: grant.clone(), until, identify };
        self.holds.insert(name.clone(), hold);
    }

    /// What a ticket stands for; it is used up. Who shows a credential beside it must have asked for it
    /// with the same one.
    pub fn redeem(&mut self, ticket: &str, shown: Option<&Grant>, now: Instant) -> Option<(Name, Redeemed)> {
        let is_own = |hold: &Hold| shown.is_none_or(|shown| shown.is_same_credential(&hold.grant));
        let live = |hold: &Hold| hold.until > now && hold.ticket.is(ticket) && is_own(hold);
        let name = self.holds.iter().find(|(_, hold)| live(hold)).map(|(name, _)| name.clone())?;
        let hold = self.holds.remove(&name)?;
        Some((name, hold.into()))
    }

    /// The ticket that is out for the name to that address; it is used up. For a service that knows no
    /// tickets, where no credentials are in use.
    pub fn redeem_by_address(&mut self, name: &Name, address: Peer, now: Instant) -> Option<Redeemed> {
        self.hold(name, now).filter(|hold| hold.grant.is_open() && hold.address == address)?;
        self.holds.remove(name).map(Redeemed::from)
    }

    /// Gives a [checked](Self::check) name to a connection, with the handle that its session has
    /// now. A ticket that is out for it is used up.
    pub fn take(&mut self, taken: Taken<'_>, handle: H, now: Instant) {
        let held = self.holds.remove(taken.name).map(|hold| hold.session);
        let before = self.sessions.remove(taken.name);
        let is_live = before.as_ref().is_some_and(|before| before.up);
        if let Some(before) = before.as_ref().filter(|_| is_live) {
            self.names.remove(&before.connection);
        }
        self.names.insert(taken.connection, taken.name.clone());
        // A takeover is no way around SHUTDOWN; who comes back after REBOOT has obeyed.
        let stopping = before.as_ref().filter(|_| is_live).and_then(|before| before.stopping);
        let known = Known {
            handle,
            grant: taken.grant,
            group: taken.group,
            since: before.as_ref().filter(|_| is_live).map_or(now, |before| before.since),
            stopping: stopping.filter(|stopping| *stopping == Stopping::Shutdown),
            up: true,
            connection: taken.connection,
            secret: taken.secret,
            previous: taken.told.or(held).or(before.map(|before| before.secret)),
        };
        self.sessions.insert(taken.name.clone(), known);
    }

    /// The first message came on a connection: the secret before its own is void.
    pub fn confirm(&mut self, connection: ConnectionId) {
        if let Some(known) = self.names.get(&connection).and_then(|name| self.sessions.get_mut(name)) {
            known.previous = None;
        }
    }

    /// A connection ended. `None`: it was nobody's, or not any more.
    pub fn ended(&mut self, connection: ConnectionId, how: Ended, now: Instant) -> Option<(Name, Fate)> {
        let name = self.names.remove(&connection)?;
        let known = self.sessions.get_mut(&name)?;
        known.up = false;
        known.since = now;
        let fate = match (how, known.stopping) {
            (Ended::LeftForGood, _) => Fate::Down { why: "it left for good", left: true },
            // A connection that was lost may not have carried SHUTDOWN.
            (Ended::Lost | Ended::Closed, Some(Stopping::Shutdown)) => {
                Fate::Down { why: "it was shut down", left: how == Ended::Closed }
            }
            (_, Some(Stopping::Reboot)) => Fate::Away(self.settings.resume_window * REBOOT_WINDOWS),
            (_, None) => Fate::Away(self.settings.resume_window),
        };
        Some((name, fate))
    }

    /// Whether the session is still away since that connection: its window may end it.
    pub fn is_away_since(&self, name: &Name, connection: ConnectionId) -> bool {
        self.sessions.get(name).is_some_and(|known| !known.up && known.connection == connection)
    }

    /// Forgets a session that is down.
    pub fn remove(&mut self, name: &Name) -> Option<Known<H>> {
        let known = self.sessions.remove(name)?;
        self.names.remove(&known.connection);
        Some(known)
    }

    pub fn get(&self, name: &Name) -> Option<&Known<H>> {
        self.sessions.get(name)
    }

    pub fn get_mut(&mut self, name: &Name) -> Option<&mut Known<H>> {
        self.sessions.get_mut(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Known<H>)> {
        self.sessions.iter()
    }

    /// The gateway is stopping: nobody new.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Forgets tickets that nobody redeemed.
    pub fn expire_holds(&mut self, now: Instant) {
        self.holds.retain(|_, hold| hold.until > now);
    }

    /// Forgets tickets whose credential does not stand any more.
    pub fn void_holds(&mut self, stands: impl Fn(&Grant) -> bool) {
        self.holds.retain(|_, hold| stands(&hold.grant));
    }

    fn hold(&self, name: &Name, now: Instant) -> Option<&Hold> {
        self.holds.get(name).filter(|hold| hold.until > now)
    }
}

/// A name goes to a connection.
#[derive(Debug)]
pub struct Taken<'a> {
    pub name: &'a Name,
    pub connection: ConnectionId,
    pub grant: Arc<Grant>,
    pub group: Option<Name>,
    /// The secret that the ACCEPT of this connection tells.
    pub secret: Secret,
    /// The secret that was told with the ticket that is redeemed.
    pub told: Option<Secret>,
}

impl Hold {
    /// Whether it is the claim's own: asked for with the same credential or, where none are in use,
    /// from the same address.
    fn is_for(&self, claim: Claim<'_>) -> bool {
        self.is_of(claim) || claim.session.is_some_and(|text| self.session.is(text))
    }

    /// Whether it is the same claimant's.
    fn is_of(&self, claim: Claim<'_>) -> bool {
        if claim.grant.is_open() {
            self.address == claim.address
        } else {
            self.grant.is_same_credential(claim.grant)
        }
    }
}

/// What was kept with a ticket.
#[derive(Debug)]
pub struct Redeemed {
    pub identify: Identify,
    /// The session secret told with it.
    pub session: Secret,
    pub grant: Arc<Grant>,
}

impl From<Hold> for Redeemed {
    fn from(hold: Hold) -> Self {
        Self { identify: hold.identify, session: hold.session, grant: hold.grant }
    }
}

fn reject(code: RejectCode, message: impl Into<String>, retry_after: Option<Duration>) -> Reject {
    let retry_after_ms = retry_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
    Reject { code, message: message.into(), retry_after_ms }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::state::grant::Source;

    const HERE: Peer = Peer::Address(IpAddr::V4(Ipv4Addr::LOCALHOST));
    const ELSEWHERE: Peer = Peer::Address(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)));
    const SETTINGS: Settings = Settings {
        max_sessions: 3,
        max_tickets: 2,
        resume_window: Duration::from_secs(30),
        retry_after: Duration::from_secs(5),
    };

    /// A registry whose handles say whether the connection has hung up unnoticed.
    struct Door {
        registry: Registry<bool>,
        now: Instant,
        next_connection: u64,
        /// What those who come have.
        grant: Arc<Grant>,
    }

    impl Door {
        fn new() -> Self {
            Self { registry: Registry::new(SETTINGS), now: Instant::now(), next_connection: 1, grant: open() }
        }

        fn check(&self, name: &Name, session: Option<&str>, address: Peer) -> Result<Finds, RejectCode> {
            let claim = Claim { name, session, address, grant: &self.grant };
            self.registry.check(claim, |hung_up| *hung_up, self.now).map_err(|reject| reject.code)
        }

        /// Identifies; the connection, and the secret that its ACCEPT tells.
        fn identify(
            &mut self,
            name: &Name,
            session: Option<&str>,
        ) -> Result<(ConnectionId, String), RejectCode> {
            self.check(name, session, HERE)?;
            let connection = ConnectionId(self.next_connection);
            self.next_connection += 1;
            let secret = Secret::random().unwrap();
            let told = secret.reveal().to_owned();
            let grant = self.grant.clone();
            let taken = Taken { name, connection, grant, group: None, secret, told: None };
            self.registry.take(taken, false, self.now);
            Ok((connection, told))
        }

        fn hold(&mut self, name: &Name, address: Peer) -> Result<String, RejectCode> {
            self.check(name, None, address)?;
            let claim = Claim { name, session: None, address, grant: &self.grant };
            self.registry.check_tickets(claim, self.now).map_err(|reject| reject.code)?;
            let (ticket, session) = (Secret::random().unwrap(), Secret::random().unwrap());
            let told = ticket.reveal().to_owned();
            self.registry.hold_name(claim, Identify::default(), ticket, session, self.now);
            Ok(told)
        }
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn open() -> Arc<Grant> {
        Arc::new(Grant::everything())
    }

    fn credential(id: &str) -> Arc<Grant> {
        Arc::new(Grant { id: id.into(), source: Source::Entry { token: None }, ..Grant::everything() })
    }

    #[test]
    fn a_live_name_is_given_only_to_who_shows_its_secret_or_finds_it_hung_up() {
        let mut door = Door::new();
        let a = name("a");
        let (first, secret) = door.identify(&a, None).unwrap();
        assert_eq!(door.check(&a, None, HERE), Err(RejectCode::AlreadyConnected));
        assert_eq!(door.check(&a, Some("guessed"), HERE), Err(RejectCode::AlreadyConnected));
        assert_eq!(door.check(&a, Some(&secret), HERE), Ok(Finds::Live));
        door.registry.get_mut(&a).unwrap().handle = true;
        assert_eq!(door.check(&a, None, HERE), Ok(Finds::HungUp));
        let (second, _) = door.identify(&a, None).unwrap();
        assert_eq!(door.registry.ended(first, Ended::Lost, door.now), None, "it is nobody's any more");
        assert_eq!(door.registry.get(&a).unwrap().connection(), second);
    }

    #[test]
    fn the_secret_before_is_valid_until_the_first_message() {
        let mut door = Door::new();
        let a = name("a");
        let (_, first) = door.identify(&a, None).unwrap();
        let (second_connection, second) = door.identify(&a, Some(&first)).unwrap();
        for secret in [&first, &second] {
            assert_eq!(door.check(&a, Some(secret), HERE), Ok(Finds::Live));
        }
        door.registry.confirm(second_connection);
        assert_eq!(door.check(&a, Some(&first), HERE), Err(RejectCode::AlreadyConnected));
        assert_eq!(door.check(&a, Some(&second), HERE), Ok(Finds::Live));
    }

    #[test]
    fn a_ticket_holds_its_name_for_its_life_and_is_good_once() {
        let mut door = Door::new();
        let a = name("a");
        let ticket = door.hold(&a, HERE).unwrap();
        assert_eq!(door.check(&a, None, ELSEWHERE), Err(RejectCode::AlreadyConnected));
        assert_eq!(
            door.check(&a, None, HERE),
            Ok(Finds::Nothing),
            "the address that asked may come without it"
        );
        assert!(door.registry.redeem_by_address(&a, ELSEWHERE, door.now).is_none());
        assert_eq!(door.registry.redeem(&ticket, None, door.now).map(|(name, ..)| name), Some(a.clone()));
        assert!(door.registry.redeem(&ticket, None, door.now).is_none(), "it is used up");
        let late = door.hold(&a, HERE).unwrap();
        door.now += TICKET_LIFE;
        assert!(door.registry.redeem(&late, None, door.now).is_none(), "it is too old");
        assert_eq!(door.check(&a, None, ELSEWHERE), Ok(Finds::Nothing));
    }

    #[test]
    fn a_ticket_is_its_credentials_and_no_address_stands_for_one() {
        let mut door = Door::new();
        let a = name("a");
        door.grant = credential("own");
        let ticket = door.hold(&a, HERE).unwrap();
        assert_eq!(door.check(&a, None, ELSEWHERE), Ok(Finds::Nothing), "the credential may be anywhere");
        assert!(door.registry.redeem_by_address(&a, HERE, door.now).is_none());
        let other = credential("other");
        assert!(door.registry.redeem(&ticket, Some(&other), door.now).is_none());
        door.grant = other;
        assert_eq!(door.check(&a, None, HERE), Err(RejectCode::AlreadyConnected));
        let own = credential("own");
        let (_, redeemed) = door.registry.redeem(&ticket, Some(&own), door.now).unwrap();
        assert_eq!(redeemed.grant, own);
        assert!(door.registry.redeem(&ticket, Some(&own), door.now).is_none());
    }

    #[test]
    fn a_ticket_ends_with_its_credential() {
        let mut door = Door::new();
        door.grant = credential("own");
        let ticket = door.hold(&name("a"), HERE).unwrap();
        door.registry.void_holds(|grant| &*grant.id != "own");
        assert!(door.registry.redeem(&ticket, None, door.now).is_none());
    }

    #[test]
    fn a_ticket_keeps_a_place_for_whoever_has_it() {
        let mut door = Door::new();
        door.identify(&name("a"), None).unwrap();
        door.identify(&name("b"), None).unwrap();
        door.hold(&name("c"), HERE).unwrap();
        assert_eq!(door.check(&name("d"), None, HERE), Err(RejectCode::AtCapacity));
        assert_eq!(door.check(&name("c"), None, HERE), Ok(Finds::Nothing));
        // One that is out for a session that is there takes no place of its own.
        door.registry.ended(ConnectionId(1), Ended::Lost, door.now).unwrap();
        door.now += TICKET_LIFE;
        door.hold(&name("a"), HERE).unwrap();
        assert_eq!(door.check(&name("d"), None, HERE), Ok(Finds::Nothing));
    }

    #[test]
    fn one_address_or_credential_holds_so_many_names_and_no_more() {
        let roomy = || {
            let mut door = Door::new();
            door.registry.settings.max_sessions = 100;
            door
        };
        let mut door = roomy();
        for held in ["a", "b"] {
            door.hold(&name(held), HERE).unwrap();
        }
        assert_eq!(door.hold(&name("c"), HERE), Err(RejectCode::AtCapacity));
        door.hold(&name("b"), HERE).expect("a new ticket takes the place of that for the same name");
        door.hold(&name("c"), ELSEWHERE).expect("others are not in its way");
        let ticket = door.hold(&name("a"), HERE).unwrap();
        door.registry.redeem(&ticket, None, door.now).unwrap();
        door.hold(&name("d"), HERE).expect("a used one counts no more");
        assert_eq!(door.hold(&name("e"), HERE), Err(RejectCode::AtCapacity));
        door.now += TICKET_LIFE;
        door.hold(&name("e"), HERE).expect("nor does one that is too old");

        let mut door = roomy();
        door.grant = credential("own");
        door.hold(&name("a"), HERE).unwrap();
        door.hold(&name("b"), ELSEWHERE).unwrap();
        assert_eq!(door.hold(&name("c"), HERE), Err(RejectCode::AtCapacity), "wherever it is shown");
        door.grant = credential("other");
        door.hold(&name("c"), HERE).unwrap();
    }

    #[test]
    fn how_a_connection_ends_decides_what_becomes_of_the_session() {
        let window = SETTINGS.resume_window;
        let down = |why, left| Fate::Down { why, left };
        for (how, stopping, fate) in [
            (Ended::Lost, None, Fate::Away(window)),
            (Ended::Closed, None, Fate::Away(window)),
            (Ended::Lost, Some(Stopping::Reboot), Fate::Away(window * 5)),
            (Ended::Closed, Some(Stopping::Reboot), Fate::Away(window * 5)),
            (Ended::Lost, Some(Stopping::Shutdown), down("it was shut down", false)),
            (Ended::Closed, Some(Stopping::Shutdown), down("it was shut down", true)),
            (Ended::LeftForGood, None, down("it left for good", true)),
            (Ended::LeftForGood, Some(Stopping::Reboot), down("it left for good", true)),
        ] {
            let mut door = Door::new();
            let (connection, _) = door.identify(&name("a"), None).unwrap();
            door.registry.get_mut(&name("a")).unwrap().stopping = stopping;
            let (_, found) = door.registry.ended(connection, how, door.now).unwrap();
            assert_eq!(found, fate, "{how:?} {stopping:?}");
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Identify { name: usize },
        Hold { name: usize },
        End { name: usize, for_good: bool },
        Remove { name: usize },
        Pass { seconds: u64 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let name = || 0..5_usize;
        let step = prop_oneof![
            4 => name().prop_map(|name| Step::Identify { name }),
            2 => name().prop_map(|name| Step::Hold { name }),
            3 => (name(), any::<bool>()).prop_map(|(name, for_good)| Step::End { name, for_good }),
            2 => name().prop_map(|name| Step::Remove { name }),
            1 => (1..40_u64).prop_map(|seconds| Step::Pass { seconds }),
        ];
        prop::collection::vec(step, 1..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_name_has_one_connection_and_an_ended_one_is_never_in_the_way(steps in steps()) {
            let mut door = Door::new();
            let names: Vec<Name> = (0..5).map(|index| name(&format!("n{index}"))).collect();
            for step in steps {
                match step {
                    Step::Identify { name } => {
                        let before = door.registry.get(&names[name]).map(Known::is_up);
                        let identified = door.identify(&names[name], None);
                        match before {
                            Some(true) => prop_assert_eq!(identified, Err(RejectCode::AlreadyConnected)),
                            Some(false) => prop_assert!(identified.is_ok()),
                            None => prop_assert_ne!(identified.err(), Some(RejectCode::AlreadyConnected)),
                        }
                    }
                    Step::Hold { name } => drop(door.hold(&names[name], HERE)),
                    Step::End { name, for_good } => {
                        let known = door.registry.get(&names[name]).map(|known| (known.is_up(), known.connection()));
                        let how = if for_good { Ended::LeftForGood } else { Ended::Lost };
                        if let Some((is_up, connection)) = known {
                            let ended = door.registry.ended(connection, how, door.now);
                            prop_assert_eq!(ended.is_some(), is_up, "an end is told once");
                            if let Some((name, Fate::Down { .. })) = ended {
                                door.registry.remove(&name);
                            }
                        }
                    }
                    Step::Remove { name } => drop(door.registry.remove(&names[name])),
                    Step::Pass { seconds } => door.now += Duration::from_secs(seconds),
                }
                let up = door.registry.iter().filter(|(_, known)| known.is_up());
                let connections: Vec<_> = up.map(|(_, known)| known.connection()).collect();
                let different: BTreeSet<_> = connections.iter().collect();
                prop_assert_eq!(different.len(), connections.len());
                prop_assert!(door.registry.iter().count() <= SETTINGS.max_sessions);
            }
        }
    }
}
