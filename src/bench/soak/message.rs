//! What is sent: messages of every size, each of which says where it comes from and goes to, and
//! can be told from its bytes to be whole.

use serde::Deserialize;

use crate::bench::pattern::FILLER;
use crate::client::Message;
use crate::protocol::PROXY_PREFIX;

/// The topic that the receiver sees.
pub(super) const TOPIC: &str = "soak";

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// A service of the soak, by its index.
    Service(usize),
    /// A name that no service has.
    Nobody(usize),
    /// Whoever holds that shard id.
    Shard(usize),
}

/// What is between the braces of `d`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Data {
    /// The target as its source wrote it.
    pub(super) to: String,
    /// On which of its connections the source sent it.
    pub(super) connection: u64,
    /// Its number among those from this source to this target.
    pub(super) number: u64,
    /// How many bytes fill it up.
    pub(super) fill: usize,
}

impl Target {
    /// Stands in `n`: short, and says which message of which stream it is.
    pub(super) fn nonce(self, number: u64) -> String {
        match self {
            Self::Service(index) => format!("s{index}.{number}"),
            Self::Nobody(index) => format!("n{index}.{number}"),
            Self::Shard(index) => format!("h{index}.{number}"),
        }
    }

    /// Reads what [`nonce`](Self::nonce) wrote.
    pub(super) fn of_nonce(nonce: &str) -> Option<(Self, u64)> {
        let (index, number) = nonce.get(1..)?.split_once('.')?;
        let index = index.parse().ok()?;
        let target = match nonce.as_bytes()[0] {
            b's' => Self::Service(index),
            b'n' => Self::Nobody(index),
            b'h' => Self::Shard(index),
            _ => return None,
        };
        Some((target, number.parse().ok()?))
    }
}

impl Data {
    /// `d` of a message. What fills it depends on its number.
    pub(super) fn text(&self) -> String {
        let Self { to, connection, number, fill } = self;
        let rich = vec![FILLER; fill / 2 / FILLER.len()].join(",");
        let letter = char::from(b'a' + u8::try_from(number % 26).unwrap_or_default());
        let pad = letter.to_string().repeat(fill - rich.len());
        format!(
            r#"{{"to":"{to}","connection":{connection},"number":{number},"fill":{fill},"rich":[{rich}],"pad":"{pad}"}}"#
        )
    }

    /// The whole message.
    pub(super) fn message(&self, source: &str, target: Target) -> String {
        let (to, data, nonce) = (&self.to, self.text(), target.nonce(self.number));
        format!(r#"{{"s":"{source}","t":"{PROXY_PREFIX}{to}:{TOPIC}","d":{data},"n":"{nonce}"}}"#)
    }

    /// What an arrived message says. `None`: it is not, byte for byte, one that was sent.
    pub(super) fn of(message: &Message) -> Option<Self> {
        let data: Self = serde_json::from_str(message.data.get()).ok()?;
        // Before it is written again: a number that was altered may ask for any amount.
        let is_plausible = data.fill <= message.data.get().len();
        let is_whole = message.topic == TOPIC && is_plausible && data.text() == message.data.get();
        is_whole.then_some(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Event;

    fn arrived(text: &str) -> Option<Data> {
        match Event::parse(text) {
            Ok(Event::Message(message)) => Data::of(&message),
            _ => None,
        }
    }

    #[test]
    fn a_message_is_read_as_it_was_written_whatever_its_size() {
        for fill in [0, 1, 300, 5000, 100_000] {
            let data = Data { to: "soak-7".to_owned(), connection: 3, number: 27, fill };
            let sent = data.message("soak-1", Target::Service(7));
            assert!(sent.len() > fill && sent.len() < fill + 200, "{sent}");
            assert_eq!(arrived(&sent.replace("gateway-proxy:soak-7:", "")), Some(data));
        }
    }

    #[test]
    fn a_message_altered_anywhere_in_its_data_is_known() {
        let data = Data { to: "soak-7".to_owned(), connection: 3, number: 27, fill: 300 };
        let sent = data.message("soak-1", Target::Service(7)).replace("gateway-proxy:soak-7:", "");
        let (start, end) = (sent.find("\"d\":").unwrap() + 4, sent.find(",\"n\":").unwrap());
        for at in start..end {
            let mut bytes = sent.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(altered) = String::from_utf8(bytes) else { continue };
            // A digit that became another one makes it another message: whose turn it is not.
            assert_ne!(arrived(&altered), Some(data.clone()), "byte {at}: {altered}");
        }
        assert_eq!(arrived(&sent.replace("\"t\":\"soak\"", "\"t\":\"soap\"")), None);
    }

    #[test]
    fn a_nonce_names_its_message() {
        for target in [Target::Service(199), Target::Nobody(0), Target::Shard(7)] {
            let nonce = target.nonce(u64::MAX);
            assert!(nonce.len() <= 64);
            assert_eq!(Target::of_nonce(&nonce), Some((target, u64::MAX)));
        }
        for other in ["", "s", "s1", "x1.2", "s1.x", "é1.2"] {
            assert_eq!(Target::of_nonce(other), None, "{other}");
        }
    }
}
