//! Every way in which a connection is closed: its code (RFC 6455 section 7.4) and its reason.

/// Why the gateway closes a connection. Doc comments say whether the service should reconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Close {
    /// The service left; its close frame is answered with its own code. No matter.
    Left,
    /// The connection ended without a close frame. This code is never sent (RFC 6455 section
    /// 7.1.5).
    Lost,
    /// The frames broke RFC 6455. Do not reconnect before it is mended.
    ProtocolError,
    /// A binary message came. Do not reconnect before it is mended.
    Binary,
    /// A text message that is not UTF-8 came. Do not reconnect before it is mended.
    NotUtf8,
    /// A message was over `max_message_bytes`. Do not reconnect before it is mended.
    TooBig,
    /// The gateway restarts. Reconnect after a random delay.
    Restart,
    /// No IDENTIFY came in time, or something else came first. Do not reconnect before it is
    /// mended.
    NotIdentified,
    /// IDENTIFY was answered with REJECT: its code says whether to try again.
    Rejected,
    /// The credential that it identified with is not valid any more, or permits other things now. Get a
    /// new one, or identify again.
    Revoked,
    /// Too little was taken in `stuck_ms` while more was waiting. Reconnect.
    TooSlow,
    /// Nothing came for three intervals of `heartbeat_ms`. Reconnect.
    Silent,
    /// Another connection resumed this session. Do not reconnect.
    Replaced,
    /// The deadline of SHUTDOWN passed, or an operator removed the service. Do not reconnect.
    ShutDown,
    /// The deadline of REBOOT passed. Reconnect.
    Rebooted,
    /// The session crashed too often. Reconnect.
    Crashed,
}

/// The service closes with this code when it leaves for good: its session ends at once.
pub const LEAVES_FOR_GOOD: u16 = 4000;

impl Close {
    pub const ALL: [Self; 16] = [
        Self::Left,
        Self::Lost,
        Self::ProtocolError,
        Self::Binary,
        Self::NotUtf8,
        Self::TooBig,
        Self::Restart,
        Self::NotIdentified,
        Self::Rejected,
        Self::Revoked,
        Self::TooSlow,
        Self::Silent,
        Self::Replaced,
        Self::ShutDown,
        Self::Rebooted,
        Self::Crashed,
    ];

    /// The status code of the close frame.
    pub fn code(self) -> u16 {
        match self {
            Self::Left => 1000,
            Self::Lost => 1006,
            Self::ProtocolError => 1002,
            Self::Binary => 1003,
            Self::NotUtf8 => 1007,
            Self::TooBig => 1009,
            Self::Restart => 1012,
            Self::NotIdentified => 4001,
            Self::Rejected | Self::Revoked => 4003,
            Self::TooSlow => 4008,
            Self::Silent => 4009,
            Self::Replaced => 4010,
            Self::ShutDown | Self::Rebooted => 4011,
            Self::Crashed => 4500,
        }
    }

    /// The reason in the close frame: what happened, and which setting decides it. At most 123
    /// bytes, as RFC 6455 section 5.5 demands.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Left | Self::Lost => "",
            Self::ProtocolError => "the frames break RFC 6455",
            Self::Binary => "a message must be text, this one was binary",
            Self::NotUtf8 => "a text message must be UTF-8",
            Self::TooBig => "the message is over max_message_bytes",
            Self::Restart => "the gateway restarts; reconnect after a random delay",
            Self::NotIdentified => "the first message must be IDENTIFY, within identify_timeout_ms",
            Self::Rejected => "rejected; the REJECT before this says why",
            Self::Revoked => "the credential has expired, was revoked, or permits other things now",
            Self::TooSlow => "less than min_drain_bytes was taken in stuck_ms while more was waiting",
            Self::Silent => "nothing came for three times heartbeat_ms",
            Self::Replaced => "another connection resumed this session",
            Self::ShutDown => "the deadline of SHUTDOWN passed",
            Self::Rebooted => "the deadline of REBOOT passed; reconnect",
            Self::Crashed => "the session crashed too often; reconnect",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_fits_into_a_control_frame() {
        for close in Close::ALL {
            assert!(close.reason().len() <= 123, "{close:?}");
        }
    }
}
