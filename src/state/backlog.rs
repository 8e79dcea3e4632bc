//! What waits for the shard pool while that stands still, because a step of it is not stored yet.

use std::collections::VecDeque;

use super::shards::Input;

/// Inputs in their order, each with what goes with it.
///
/// It holds as many ops as the services may have unanswered, and besides one input for each service:
/// what became of it last.
#[derive(Debug)]
pub struct Backlog<R, T> {
    inputs: VecDeque<(Input<R>, T)>,
}

impl<R, T> Default for Backlog<R, T> {
    fn default() -> Self {
        Self { inputs: VecDeque::new() }
    }
}

impl<R, T> Backlog<R, T> {
    /// Drops what the new input makes void: a service that came or went has lost its place in the
    /// queue, and only how it is now counts.
    pub fn push(&mut self, input: Input<R>, with: T) {
        match &input {
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
            _ => {}
        }
        self.inputs.push_back((input, with));
    }

    pub fn pop(&mut self) -> Option<(Input<R>, T)> {
        self.inputs.pop_front()
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
            backlog.push(input, number);
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
    fn a_service_that_comes_and_goes_for_days_takes_one_place() {
        let days = (0..1000).flat_map(|_| [resumed("a"), connect("a"), away("a"), down("a")]);
        assert_eq!(left([resumed("b")].into_iter().chain(days)), [0, 4000]);
        assert_eq!(left([Input::Wake, resumed("a"), Input::Wake, Input::Wake]), [1, 3]);
    }
}
