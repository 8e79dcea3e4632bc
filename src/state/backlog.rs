//! What waits for the shard pool: a moment, or, while that stands still because a step of it is not stored
//! yet, for as long as that takes.

pub mod places;

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::shards::Input;
use crate::protocol::name::Name;

/// Inputs in their order, each with what goes with it.
///
/// It holds as many ops as there are [places] for, and besides five inputs for each service that is connected
/// or away, or that the pool knows: that it was down, and, before and after that, what became of it last and
/// that it heard of its ids. Each input costs about the same, however many wait.
#[derive(Debug)]
pub struct Backlog<R, T> {
    /// By number, which grows.
    inputs: BTreeMap<u64, (Input<R>, T)>,
    next: u64,
    by_service: HashMap<Name, Numbers>,
    /// The first of its kind, if it waits still.
    wake: Option<u64>,
    /// The last of its kind.
    limit: Option<u64>,
    /// How many of them are requests for shard ids.
    requests: usize,
}

/// Those of one service's inputs that wait, in rising order.
#[derive(Debug, Default)]
struct Numbers {
    /// What is void as soon as the service comes or goes.
    requests: VecDeque<u64>,
    /// That it came or went: since when it is away decides when its ids are free. The last one counts, before
    /// it was down and after.
    presences: VecDeque<u64>,
    /// That it was down, which whoever comes next by its name does not undo: one at most.
    downs: VecDeque<u64>,
    /// That it heard of its ids: the last one stands, and the last one before it was down, which that goes by.
    heards: VecDeque<u64>,
    /// What is void as soon as it is down.
    states: VecDeque<u64>,
    deaths: VecDeque<u64>,
}

impl Numbers {
    fn of<R>(&mut self, input: &Input<R>) -> &mut VecDeque<u64> {
        match input {
            Input::State { .. } => &mut self.states,
            Input::Death { .. } => &mut self.deaths,
            Input::Down { .. } => &mut self.downs,
            Input::Heard { .. } => &mut self.heards,
            Input::Resumed { .. } | Input::Away { .. } => &mut self.presences,
            _ => &mut self.requests,
        }
    }

    fn all(&self) -> [&VecDeque<u64>; 6] {
        [&self.requests, &self.presences, &self.downs, &self.heards, &self.states, &self.deaths]
    }

    fn is_empty(&self) -> bool {
        self.all().into_iter().all(VecDeque::is_empty)
    }
}

impl<R, T> Default for Backlog<R, T> {
    fn default() -> Self {
        let (inputs, by_service) = (BTreeMap::new(), HashMap::new());
        Self { inputs, next: 0, by_service, wake: None, limit: None, requests: 0 }
    }
}

impl<R, T> Backlog<R, T> {
    /// Drops what the new input makes void: a service that came or went has lost its place in the
    /// queue, and only how it is now counts, and whether it was down before; of one that is down and of
    /// which the pool `knows` nothing, nothing does.
    pub fn push(&mut self, input: Input<R>, with: T, knows: impl Fn(&Name) -> bool) {
        if matches!(input, Input::Wake) && self.wake.is_some_and(|wake| self.inputs.contains_key(&wake)) {
            // The first one stands: else it would never have its turn where much comes.
            return;
        }
        self.drop_void(&input);
        if let Input::Down { service, .. } = &input
            && self.changes_nothing(service, knows)
        {
            return;
        }
        let number = self.next;
        self.next += 1;
        match &input {
            Input::Wake => self.wake = Some(number),
            Input::SessionStartLimit { .. } => self.limit = Some(number),
            _ => {}
        }
        if let Some(service) = input.service() {
            self.by_service.entry(service.clone()).or_default().of(&input).push_back(number);
        }
        self.requests += usize::from(is_request(&input));
        self.inputs.insert(number, (input, with));
    }

    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// All that wait, in their order.
    pub fn inputs(&self) -> impl Iterator<Item = &Input<R>> {
        self.inputs.values().map(|(input, _)| input)
    }

    /// The number of the first that waits, by which those are told that came before it.
    pub fn first(&self) -> Option<u64> {
        self.inputs.first_key_value().map(|(number, _)| *number)
    }

    /// The number of the next to come.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// How many requests for shard ids wait here.
    pub fn requests(&self) -> usize {
        self.requests
    }

    pub fn pop(&mut self) -> Option<(Input<R>, T)> {
        let number = *self.inputs.first_key_value()?.0;
        let next = self.take(number)?;
        if let Some(service) = next.0.service()
            && let Some(numbers) = self.by_service.get_mut(service)
        {
            numbers.of(&next.0).pop_front();
            if numbers.is_empty() {
                self.by_service.remove(service);
            }
        }
        Some(next)
    }

    /// Whether that the service is down is nothing to the pool: it knows nothing of it, or will not when that
    /// comes, since it was down before. That it came and went since, and deaths that it told of, are void then
    /// too.
    fn changes_nothing(&mut self, service: &Name, knows: impl Fn(&Name) -> bool) -> bool {
        let first_down = self.by_service.get(service).and_then(|numbers| numbers.downs.front().copied());
        let Some(since) = first_down.or_else(|| (!knows(service)).then_some(0)) else { return false };
        self.void_since(since, service, |numbers| &mut numbers.presences);
        self.void_since(since, service, |numbers| &mut numbers.deaths);
        true
    }

    fn drop_void(&mut self, input: &Input<R>) {
        match input {
            Input::Resumed { service } | Input::Away { service, .. } => {
                self.void(service, |numbers| &mut numbers.requests);
                let since = self.by_service.get(service).and_then(|numbers| numbers.downs.front().copied());
                self.void_since(since.unwrap_or(0), service, |numbers| &mut numbers.presences);
            }
            Input::Down { service, .. } => {
                self.void(service, |numbers| &mut numbers.requests);
                // What it told of shards that it has lost since is void; a death says why.
                self.void(service, |numbers| &mut numbers.states);
            }
            Input::Heard { service } => {
                let down = self.by_service.get(service).and_then(|numbers| numbers.downs.front().copied());
                self.void_since(down.unwrap_or_default(), service, |numbers| &mut numbers.heards);
            }
            // The last one stands.
            Input::SessionStartLimit { .. } => drop(self.limit.and_then(|number| self.take(number))),
            Input::Wake | Input::Connect { .. } | Input::Death { .. } | Input::State { .. } => {}
        }
    }

    fn void(&mut self, service: &Name, which: impl Fn(&mut Numbers) -> &mut VecDeque<u64>) {
        self.void_since(0, service, which);
    }

    fn void_since(&mut self, since: u64, service: &Name, which: impl Fn(&mut Numbers) -> &mut VecDeque<u64>) {
        let Some(numbers) = self.by_service.get_mut(service) else { return };
        let all = which(numbers);
        let void = all.split_off(all.partition_point(|number| *number < since));
        if numbers.is_empty() {
            self.by_service.remove(service);
        }
        for number in void {
            self.take(number);
        }
    }

    fn take(&mut self, number: u64) -> Option<(Input<R>, T)> {
        let taken = self.inputs.remove(&number)?;
        self.requests -= usize::from(is_request(&taken.0));
        Some(taken)
    }
}

fn is_request<R>(input: &Input<R>) -> bool {
    matches!(input, Input::Connect { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::name::Name;
    use crate::state::shards::Departure;

    fn resumed(name: &str) -> Input<u8> {
        Input::Resumed { service: Name::new(name).unwrap() }
    }

    fn away(name: &str) -> Input<u8> {
        Input::Away { service: Name::new(name).unwrap(), last_frame: None }
    }

    fn heard(name: &str) -> Input<u8> {
        Input::Heard { service: Name::new(name).unwrap() }
    }

    fn down(name: &str) -> Input<u8> {
        Input::Down { service: Name::new(name).unwrap(), departure: Departure::Left }
    }

    fn connect(name: &str) -> Input<u8> {
        let connect = serde_json::from_str("{}").unwrap();
        Input::Connect { service: Name::new(name).unwrap(), request: 0, connect }
    }

    fn death(name: &str) -> Input<u8> {
        let death = serde_json::from_str("{}").unwrap();
        Input::Death { service: Name::new(name).unwrap(), request: 0, death }
    }

    /// The numbers of those that are left.
    fn left(inputs: impl IntoIterator<Item = Input<u8>>) -> Vec<usize> {
        let mut backlog = Backlog::default();
        for (number, input) in inputs.into_iter().enumerate() {
            backlog.push(input, number, |service| service.as_str() != "stranger");
        }
        std::iter::from_fn(|| backlog.pop()).map(|(_, number)| number).collect()
    }

    #[test]
    fn ops_keep_their_order() {
        assert_eq!(left([connect("a"), connect("b"), death("a"), connect("a")]), [0, 1, 2, 3]);
    }

    #[test]
    fn who_goes_away_does_not_wait_any_more_but_its_deaths_count() {
        assert_eq!(left([connect("a"), connect("b"), death("a"), away("a")]), [1, 2, 3]);
    }

    #[test]
    fn what_a_service_that_is_down_told_of_its_shards_does_not_wait() {
        let state = |name: &str| {
            let state = serde_json::from_str(r#"{"shard_id":0,"state":"ready"}"#).unwrap();
            Input::State { service: Name::new(name).unwrap(), request: 0, state }
        };
        assert_eq!(left([state("a"), state("b"), away("a"), down("a")]), [1, 2, 3]);
        assert_eq!(left([state("a"), away("a")]), [0, 1], "it may come back");
    }

    #[test]
    fn of_names_that_come_and_go_and_that_the_pool_does_not_know_nothing_is_left() {
        let days = (0..1000).flat_map(|_| [resumed("stranger"), connect("stranger"), death("stranger")]);
        let days = days.chain([away("stranger"), down("stranger")]);
        assert_eq!(left([resumed("b")].into_iter().chain(days)), [0]);
    }

    /// The same by looking through all that waits.
    fn counted(backlog: &Backlog<u8, ()>) -> usize {
        backlog.inputs.values().filter(|(it, ())| is_request(it)).count()
    }

    #[test]
    fn what_is_counted_is_what_waits_whatever_comes() {
        let state = |name: &str| {
            let state = serde_json::from_str(r#"{"shard_id":0,"state":"ready"}"#).unwrap();
            Input::State { service: Name::new(name).unwrap(), request: 0, state }
        };
        let (mut dice, mut backlog) = (fastrand::Rng::with_seed(3), Backlog::default());
        for _ in 0..20_000 {
            let name = ["a", "b", "c", "stranger"][dice.usize(..4)];
            let input = match dice.u8(..10) {
                0..=2 => connect(name),
                3 => death(name),
                4 => state(name),
                5 => resumed(name),
                6 => away(name),
                7 => down(name),
                8 => heard(name),
                _ => Input::Wake,
            };
            backlog.push(input, (), |service| service.as_str() != "stranger");
            if dice.u8(..3) == 0 {
                backlog.pop();
            }
            assert_eq!(backlog.requests(), counted(&backlog));
            let indexed: usize =
                backlog.by_service.values().flat_map(|numbers| numbers.all().map(VecDeque::len)).sum();
            let of_services = backlog.inputs.values().filter(|(it, ())| it.service().is_some()).count();
            assert_eq!(indexed, of_services, "each is in the index once");
        }
        while backlog.pop().is_some() {}
        assert!(backlog.by_service.is_empty(), "who has nothing waiting is not kept");
    }

    /// With a look through all that waits for each of them this would take hours.
    #[test]
    fn a_long_backlog_takes_in_what_comes_and_goes_without_looking_through_it() {
        const SERVICES: usize = 65_536;
        let mut backlog = Backlog::default();
        for index in 0..SERVICES {
            backlog.push(connect(&format!("s{index}")), (), |_| true);
            assert_eq!(backlog.requests(), index + 1);
        }
        for round in 0..20 {
            for index in 0..SERVICES {
                let name = format!("s{index}");
                let input = if round % 2 == 0 { away(&name) } else { resumed(&name) };
                backlog.push(input, (), |_| true);
            }
        }
        assert_eq!((backlog.inputs.len(), backlog.requests()), (SERVICES, 0));
    }

    #[test]
    fn whoever_comes_by_the_name_of_one_that_is_down_does_not_undo_that() {
        assert_eq!(left([down("a"), resumed("a"), connect("a")]), [0, 1, 2]);
        assert_eq!(left([down("a"), resumed("a"), connect("a"), away("a"), resumed("a")]), [0, 4]);
    }

    #[test]
    fn what_a_service_heard_stands_however_it_comes_and_goes_and_of_several_times_the_last() {
        assert_eq!(left([heard("a"), heard("b"), resumed("a"), away("a"), heard("a")]), [1, 3, 4]);
        assert_eq!(
            left([heard("a"), away("a"), heard("a"), down("a"), heard("a"), heard("a")]),
            [1, 2, 3, 5]
        );
        assert_eq!(left([heard("a"), down("a"), heard("a"), away("a"), down("a")]), [0, 1, 2]);
    }

    #[test]
    fn one_that_is_down_twice_lost_its_ids_the_first_time() {
        // What the second heir told was not about the first one's ids; the first one's last word counts.
        assert_eq!(left([death("a"), down("a"), resumed("a"), death("a"), connect("a"), down("a")]), [0, 1]);
    }

    #[test]
    fn a_service_that_comes_and_goes_for_days_takes_three_places() {
        let days = || (0..1000).flat_map(|_| [resumed("a"), connect("a"), away("a"), down("a")]);
        assert_eq!(left([resumed("b")].into_iter().chain(days())), [0, 3, 4]);
        assert_eq!(left(days().chain([resumed("a")])), [2, 3, 4000]);
        assert_eq!(left([Input::Wake, resumed("a"), Input::Wake, Input::Wake]), [0, 1]);
    }
}
