//! What waits for the shard pool while that stands still, because a step of it is not stored yet.

use std::collections::VecDeque;

use super::shards::Input;
use crate::protocol::name::Name;

/// How many ops of all services wait at most.
pub const MAX_WAITING_OPS: usize = 65_536;

/// Inputs in their order, each with what goes with it.
///
/// It holds at most [`MAX_WAITING_OPS`] ops, and besides one input for each service that is connected or
/// away, or that the pool knows: what became of it last.
#[derive(Debug)]
pub struct Backlog<R, T> {
    inputs: VecDeque<(Input<R>, T)>,
    /// How many of them are ops.
    ops: usize,
}

impl<R, T> Default for Backlog<R, T> {
    fn default() -> Self {
        Self { inputs: VecDeque::new(), ops: 0 }
    }
}

impl<R, T> Backlog<R, T> {
    /// Drops what the new input makes void: a service that came or went has lost its place in the
    /// queue, and only how it is now counts; of one that is down and of which the pool `knows` nothing,
    /// nothing does. Gives an op back for which there is no room.
    pub fn push(&mut self, input: Input<R>, with: T, knows: impl Fn(&Name) -> bool) -> Option<(Input<R>, T)> {
        if is_op(&input) && self.ops >= MAX_WAITING_OPS {
            return Some((input, with));
        }
        match &input {
            Input::Down { service, .. } if !knows(service) => {
                self.inputs.retain(|(earlier, _)| service_of(earlier) != Some(service));
                self.count();
                return None;
            }
            Input::Resumed { service } | Input::Away { service, .. } | Input::Down { service, .. } => {
                self.inputs.retain(|(earlier, _)| match earlier {
                    Input::Connect { service: earlier, .. }
                    | Input::Resumed { service: earlier }
                    | Input::Away { service: earlier, .. }
                    | Input::Down { service: earlier, .. } => earlier != service,
                    // What it told of shards that it has lost since is void; a death says why.
                    Input::State { service: earlier, .. } => {
                        !matches!(input, Input::Down { .. }) || earlier != service
                    }
                    _ => true,
                });
            }
            Input::Wake => self.inputs.retain(|(earlier, _)| !matches!(earlier, Input::Wake)),
            // The last one stands.
            Input::SessionStartLimit { .. } => {
                self.inputs.retain(|(earlier, _)| !matches!(earlier, Input::SessionStartLimit { .. }));
            }
            Input::Connect { .. } | Input::Death { .. } | Input::State { .. } => {}
        }
        let is_op = is_op(&input);
        self.inputs.push_back((input, with));
        if is_op {
            self.ops += 1;
        } else {
            self.count();
        }
        None
    }

    /// How many requests for shard ids wait here.
    pub fn requests(&self) -> usize {
        self.inputs.iter().filter(|(input, _)| matches!(input, Input::Connect { .. })).count()
    }

    pub fn pop(&mut self) -> Option<(Input<R>, T)> {
        let next = self.inputs.pop_front()?;
        self.ops -= usize::from(is_op(&next.0));
        Some(next)
    }

    fn count(&mut self) {
        self.ops = self.inputs.iter().filter(|(input, _)| is_op(input)).count();
    }
}

fn is_op<R>(input: &Input<R>) -> bool {
    matches!(input, Input::Connect { .. } | Input::Death { .. } | Input::State { .. })
}

fn service_of<R>(input: &Input<R>) -> Option<&Name> {
    match input {
        Input::Connect { service, .. }
        | Input::Death { service, .. }
        | Input::State { service, .. }
        | Input::Resumed { service }
        | Input::Away { service, .. }
        | Input::Down { service, .. } => Some(service),
        Input::SessionStartLimit { .. } | Input::Wake => None,
    }
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
            assert!(backlog.push(input, number, |service| service.as_str() != "stranger").is_none());
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
        assert_eq!(left([state("a"), state("b"), away("a"), down("a")]), [1, 3]);
        assert_eq!(left([state("a"), away("a")]), [0, 1], "it may come back");
    }

    #[test]
    fn of_names_that_come_and_go_and_that_the_pool_does_not_know_nothing_is_left() {
        let days = (0..1000).flat_map(|_| [resumed("stranger"), connect("stranger"), death("stranger")]);
        let days = days.chain([away("stranger"), down("stranger")]);
        assert_eq!(left([resumed("b")].into_iter().chain(days)), [0]);
    }

    #[test]
    fn no_more_ops_wait_than_there_is_room_for_and_what_becomes_of_services_is_noted_still() {
        let mut backlog = Backlog::default();
        let mut push = |input| backlog.push(input, (), |_| true).is_none();
        assert!((0..MAX_WAITING_OPS).all(|_| push(death("a"))));
        assert!(!push(death("a")) && !push(connect("b")));
        assert!(push(away("a")) && push(resumed("b")));
        assert!(!push(connect("b")));
        backlog.pop();
        assert!(backlog.push(connect("b"), (), |_| true).is_none());
        assert_eq!((backlog.requests(), backlog.ops), (1, MAX_WAITING_OPS));
    }

    #[test]
    fn a_service_that_comes_and_goes_for_days_takes_one_place() {
        let days = (0..1000).flat_map(|_| [resumed("a"), connect("a"), away("a"), down("a")]);
        assert_eq!(left([resumed("b")].into_iter().chain(days)), [0, 4000]);
        assert_eq!(left([Input::Wake, resumed("a"), Input::Wake, Input::Wake]), [1, 3]);
    }
}
