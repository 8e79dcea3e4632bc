//! The ops: messages with the topic `gateway:opcode`, in which services ask and the gateway
//! answers.
//!
//! What a service sends is parsed here into [`ServiceOp`]; what the gateway sends is written
//! here from [`GatewayOp`]; those about shards stand in `shard`. Who may ask what, and what happens
//! then, is decided elsewhere.

#[cfg(feature = "fault-injection")]
mod fault;
mod shard;
#[cfg(test)]
mod tests;
mod watch;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

#[cfg(feature = "fault-injection")]
pub use self::fault::{Fault, FaultIn};
pub use self::shard::{
    LeaseState, Resume, ShardAccept, ShardConnect, ShardDeath, ShardLive, ShardRevoke, ShardState, ShardWait,
    WaitReason,
};
pub use self::watch::Watch;
use super::error::{ErrorCode, RejectCode};
use super::name::{self, Name, ShardId};

/// The number of an op. 0 to 19 are the founding document's, 20 and up are extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    Identify = 0,
    Accept = 1,
    Reject = 2,
    Shutdown = 3,
    Reboot = 4,
    ShardConnect = 10,
    ShardAccept = 11,
    ShardDeath = 12,
    Error = 20,
    Receipt = 21,
    Ack = 22,
    Watch = 23,
    Presence = 24,
    ShardWait = 30,
    ShardState = 31,
    ShardLive = 32,
    ShardRevoke = 33,
}

impl Opcode {
    fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            0 => Self::Identify,
            1 => Self::Accept,
            2 => Self::Reject,
            3 => Self::Shutdown,
            4 => Self::Reboot,
            10 => Self::ShardConnect,
            11 => Self::ShardAccept,
            12 => Self::ShardDeath,
            20 => Self::Error,
            21 => Self::Receipt,
            22 => Self::Ack,
            23 => Self::Watch,
            24 => Self::Presence,
            30 => Self::ShardWait,
            31 => Self::ShardState,
            32 => Self::ShardLive,
            33 => Self::ShardRevoke,
            _ => return None,
        })
    }
}

/// An op from a service.
#[derive(Debug, Clone, PartialEq)]
pub enum ServiceOp {
    Identify(Identify),
    ShardConnect(ShardConnect),
    ShardDeath(ShardDeath),
    ShardState(ShardState),
    Ack(Ack),
    Watch(Watch),
    /// Panic, for tests.
    #[cfg(feature = "fault-injection")]
    Fault(Fault),
}

/// A secret that a service sent. Shown by no `Debug`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Hidden(String);

impl Hidden {
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Hidden(…)")
    }
}

/// `d` of IDENTIFY. `meta` is accepted and not kept.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Identify {
    /// A credential.
    pub token: Option<Hidden>,
    /// The secret of the session to take over.
    pub session: Option<Hidden>,
    /// Whether deliveries are to be numbered until acknowledged.
    #[serde(default, deserialize_with = "null_is_default")]
    pub ack: bool,
    /// Whether each accepted message with an `n` is to be answered with RECEIPT.
    #[serde(default, deserialize_with = "null_is_default")]
    pub receipts: bool,
    /// The group that the service belongs to; has the form of a name.
    pub group: Option<String>,
}

/// `d` of ACK: that delivery number and all before it are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Ack {
    pub i: u64,
}

/// An op could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OpError {
    pub code: ErrorCode,
    /// What was expected and what came; names the field.
    pub message: String,
    /// The op, where it is known.
    pub opcode: Option<Opcode>,
}

impl OpError {
    /// Whether it was to be an IDENTIFY.
    pub fn is_identify(&self) -> bool {
        self.opcode == Some(Opcode::Identify)
    }

    fn malformed(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::Malformed, message: message.into(), opcode: None }
    }
}

#[derive(Deserialize)]
struct OpcodeOnly<'a> {
    #[serde(borrow)]
    opcode: Option<&'a RawValue>,
}

impl ServiceOp {
    /// Parses `d` of a message whose topic is `gateway:opcode`. `data` is valid JSON.
    pub fn parse(data: &str) -> Result<Self, OpError> {
        #[cfg(feature = "fault-injection")]
        if let Ok(fault) = serde_json::from_str(data) {
            return Ok(Self::Fault(fault));
        }
        let opcode = opcode(data)?;
        let parsed = match opcode {
            Opcode::Identify => Identify::parse(data).map(Self::Identify),
            Opcode::ShardConnect => ShardConnect::parse(data).map(Self::ShardConnect),
            Opcode::ShardDeath => ShardDeath::parse(data).map(Self::ShardDeath),
            Opcode::ShardState => fields(data).map(Self::ShardState),
            Opcode::Ack => fields(data).map(Self::Ack),
            Opcode::Watch => Watch::parse(data).map(Self::Watch),
            gateways => Err(OpError {
                code: ErrorCode::GatewayOnlyOp,
                message: format!("op {} is sent by the gateway only", gateways as u8),
                opcode: None,
            }),
        };
        parsed.map_err(|error| OpError { opcode: Some(opcode), ..error })
    }
}

/// The opcode in `d`, a number or a numeric string.
fn opcode(data: &str) -> Result<Opcode, OpError> {
    // serde reads a struct from an array too.
    let is_object = data.trim_start().starts_with('{');
    let raw = serde_json::from_str::<OpcodeOnly<'_>>(data)
        .ok()
        .filter(|_| is_object)
        .and_then(|only| only.opcode)
        .map(RawValue::get)
        .ok_or_else(|| {
            OpError::malformed("`d.opcode` is missing; an op's `d` is an object with a number there")
        })?;
    let digits = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(raw);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(OpError::malformed("`d.opcode` must be a whole number, or one as a string"));
    }
    digits.parse().ok().and_then(Opcode::from_number).ok_or_else(|| OpError {
        code: ErrorCode::UnknownOp,
        message: format!("no op has the number {digits:.20}"),
        opcode: None,
    })
}

fn fields<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, OpError> {
    // serde_json names the field only where its type is an enum's or a struct's, so the
    // position, which it always tells, is kept.
    serde_json::from_str(data).map_err(|error| {
        OpError::malformed(format!("{}: {}", field_at(data, error.column()), shortened(&error)))
    })
}

/// The error's text. serde repeats the value that does not fit, escaped and however long it is: its
/// middle is left out.
fn shortened(error: &serde_json::Error) -> String {
    const EDGE: usize = 100;
    let text = error.to_string();
    if text.len() <= 3 * EDGE {
        return text;
    }
    let (start, end) = (text.floor_char_boundary(EDGE), text.ceil_char_boundary(text.len() - EDGE));
    format!("{} … {}", &text[..start], &text[end..])
}

/// The name of the field whose value ends at that column of one line of JSON.
fn field_at(data: &str, column: usize) -> String {
    let before = data.get(..column.min(data.len())).unwrap_or(data);
    let key = before.rfind(':').and_then(|colon| {
        let quoted = before[..colon].trim_end().strip_suffix('"')?;
        quoted.rfind('"').map(|open| &quoted[open + 1..])
    });
    key.map_or_else(|| "`d`".to_owned(), |key| format!("`d.{key:.64}`"))
}

impl Identify {
    fn parse(data: &str) -> Result<Self, OpError> {
        let identify: Self = fields(data)?;
        match &identify.group {
            Some(group) if !name::is_well_formed(group) => {
                Err(OpError::malformed("`d.group` must match [A-Za-z0-9._-]{1,64}"))
            }
            _ => Ok(identify),
        }
    }
}

fn null_is_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An op from the gateway. `t` and `n` in it are JSON as the service wrote it.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum GatewayOp {
    Accept(Accept),
    Reject(Reject),
    Shutdown { reason: String, deadline_ms: u64 },
    Reboot { reason: String, deadline_ms: u64, keep_discord_session: bool },
    ShardAccept(ShardAccept),
    Error(Error),
    Receipt { n: Box<RawValue> },
    Presence(Presence),
    ShardWait(ShardWait),
    ShardLive(ShardLive),
    ShardRevoke(ShardRevoke),
}

/// `d` of ACCEPT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Accept {
    pub service: Name,
    pub session: String,
    pub resumed: bool,
    pub heartbeat_ms: u64,
    pub resume_window_ms: u64,
    pub max_message_bytes: u64,
    pub shards: Vec<ShardId>,
    pub version: u32,
    #[serde(flatten)]
    pub ticket: Option<Ticket>,
}

/// What the answer to `POST /gateway` has beside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ticket {
    pub ticket: String,
    pub ticket_expires_ms: u64,
}

/// `d` of REJECT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reject {
    #[serde(serialize_with = "reject_code")]
    pub code: RejectCode,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// `d` of ERROR.
#[derive(Debug, Clone, Serialize)]
pub struct Error {
    #[serde(serialize_with = "error_code")]
    pub code: ErrorCode,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub t: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

impl Error {
    /// An ERROR that names no message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), t: None, n: None, target: None }
    }
}

/// `d` of PRESENCE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Presence {
    pub service: Name,
    pub event: PresenceEvent,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Name>,
    pub shards: Vec<ShardId>,
    /// Unix time in ms.
    pub at: u64,
}

/// What became of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PresenceEvent {
    Up,
    Away,
    Resumed,
    Down,
}

fn reject_code<S: serde::Serializer>(code: &RejectCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(code.as_str())
}

fn error_code<S: serde::Serializer>(code: &ErrorCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(code.as_str())
}

#[derive(Serialize)]
struct OpMessage<'a> {
    s: &'static str,
    t: &'static str,
    d: OpData<'a>,
}

#[derive(Serialize)]
struct OpData<'a> {
    opcode: u8,
    #[serde(flatten)]
    fields: &'a GatewayOp,
}

impl GatewayOp {
    pub fn opcode(&self) -> Opcode {
        match self {
            Self::Accept(_) => Opcode::Accept,
            Self::Reject(_) => Opcode::Reject,
            Self::Shutdown { .. } => Opcode::Shutdown,
            Self::Reboot { .. } => Opcode::Reboot,
            Self::ShardAccept(_) => Opcode::ShardAccept,
            Self::Error(_) => Opcode::Error,
            Self::Receipt { .. } => Opcode::Receipt,
            Self::Presence(_) => Opcode::Presence,
            Self::ShardWait(_) => Opcode::ShardWait,
            Self::ShardLive(_) => Opcode::ShardLive,
            Self::ShardRevoke(_) => Opcode::ShardRevoke,
        }
    }

    /// The whole message, as JSON.
    pub fn to_json(&self) -> String {
        let message = OpMessage {
            s: super::GATEWAY_NAME,
            t: super::OPCODE_TOPIC,
            d: OpData { opcode: self.opcode() as u8, fields: self },
        };
        serde_json::to_string(&message).expect("an op has string keys and no failing field")
    }
}
