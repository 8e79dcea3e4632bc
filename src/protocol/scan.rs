//! One pass over a message: is it one JSON object (RFC 8259, all of it checked), does it keep the
//! rules for the keys that are the gateway's, and where do they stand?
//!
//! This is the largest cost in the broker, so it is there twice:
//!
//! | module | what it is |
//! |---|---|
//! | [`tokens`], [`strings`] | token by token, on any machine: the reference, and what says how a message is malformed |
//! | [`blocks`] | 64 bytes at once, by bit masks; says only that an object or array is well formed, and where it ends |
//! | [`x86`] | the masks of 64 bytes, by AVX-512 or AVX2: the one place with `unsafe` |
//! | [`head`] | a message that begins, up to its target, as an earlier one did: that is one comparison |
//! | [`fields`], [`malformed`] | what the keys are held against, and what is said of a bad message |
//!
//! The message's own object goes by tokens, and an object or array in it by blocks, where the machine
//! can do that; what does not pass there is looked at by tokens. Nothing is decoded, copied or
//! allocated, but for a head, once for each target, and one bit a level beyond 64 levels of nesting. The
//! text must be UTF-8 already, and its size is bounded elsewhere.

#[cfg(any(target_arch = "x86_64", test))]
mod blocks;
mod fields;
mod head;
mod malformed;
mod strings;
mod tokens;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use self::fields::MAX_NONCE_BYTES;
pub use self::head::Head;
pub use self::malformed::{Found, Malformed};

use super::envelope::Envelope;

/// What a message may have at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Levels of nesting; the message's own object is the first.
    pub max_depth: u32,
}

/// Checks a message and finds its parts.
pub fn scan(text: &str, limits: Limits) -> Result<Envelope<'_>, Malformed> {
    scan_behind(None, text, limits)
}

/// The same. If `head` is given, the message must begin with it, and is checked from its end on.
#[inline]
fn scan_behind<'a>(head: Option<&Head>, text: &'a str, limits: Limits) -> Result<Envelope<'a>, Malformed> {
    #[cfg(target_arch = "x86_64")]
    if let Some(found) = x86::scan(head, text, limits) {
        return found;
    }
    tokens::scan(head, text, limits, tokens::NoShortcuts)
}

/// The same by the reference alone.
#[cfg(test)]
fn scan_by_tokens(text: &str, limits: Limits) -> Result<Envelope<'_>, Malformed> {
    tokens::scan(None, text, limits, tokens::NoShortcuts)
}

/// The same by each way that this machine has, for what compares them.
#[doc(hidden)]
pub fn scan_each_way(text: &str, limits: Limits) -> Vec<Result<Envelope<'_>, Malformed>> {
    scan_behind_each_way(None, text, limits)
}

fn scan_behind_each_way<'a>(
    head: Option<&Head>,
    text: &'a str,
    limits: Limits,
) -> Vec<Result<Envelope<'a>, Malformed>> {
    let reference = std::iter::once(tokens::scan(head, text, limits, tokens::NoShortcuts));
    #[cfg(target_arch = "x86_64")]
    let reference = reference.chain(x86::scan_each_way(head, text, limits));
    reference.collect()
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
pub(super) mod random;
#[cfg(test)]
mod tests;
