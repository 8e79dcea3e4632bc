//! Which flag mends what a gateway refuses.

use std::fmt::Display;

use crate::client::ClientError;
use crate::protocol::close::Close;
use crate::protocol::error::{ErrorCode, RejectCode};

/// Names the flag behind an error of a connection, where there is one.
pub(super) fn told(error: &ClientError) -> String {
    let hint = match error {
        ClientError::Rejected(rejected) => for_credential(&rejected.code),
        ClientError::Closed { code, .. } if *code == Close::TooBig.code() => {
            Some("a smaller --size may pass")
        }
        _ => None,
    };
    with(error, hint)
}

/// The same, for an answer over HTTP.
pub(super) fn for_status(status: &str) -> Option<&'static str> {
    match status {
        "401" => Some("--token is the credential's token"),
        "403" => Some("the credential of --token must permit it"),
        _ => None,
    }
}

/// The same, for the refusal of a message.
pub(super) fn for_refusal(code: &str, has_window: bool) -> Option<&'static str> {
    if code == ErrorCode::MailboxFull.as_str() {
        return Some(if has_window { "a smaller --window may pass" } else { "a lower --rate may pass" });
    }
    for_credential(code)
}

fn for_credential(code: &str) -> Option<&'static str> {
    if code == RejectCode::Unauthorized.as_str() {
        return Some("--token is the credential's token");
    }
    // The same word where a name may not be taken, and where nothing may be sent to it.
    let is_forbidden = code == RejectCode::Forbidden.as_str();
    is_forbidden.then_some("the credential of --token must permit the names, and sending to them")
}

pub(super) fn with(text: impl Display, hint: Option<&str>) -> String {
    hint.map_or_else(|| text.to_string(), |hint| format!("{text}; {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Rejected;

    #[test]
    fn what_a_flag_can_mend_names_it() {
        let rejected = |code: &str| {
            let (code, message) = (code.to_owned(), "no".to_owned());
            told(&ClientError::Rejected(Rejected { code, message, retry_after_ms: None }))
        };
        assert!(rejected("unauthorized").ends_with("(unauthorized); --token is the credential's token"));
        assert!(rejected("forbidden").contains("; the credential of --token must permit the names"));
        assert!(rejected("at_capacity").ends_with("(at_capacity)"));
        let closed = |code| told(&ClientError::Closed { code, reason: String::new() });
        assert!(closed(1009).contains("--size") && !closed(1012).contains("--"));
        assert!(for_refusal("mailbox_full", true).unwrap().contains("--window"));
        assert!(for_refusal("mailbox_full", false).unwrap().contains("--rate"));
        assert!(for_refusal("forbidden", true).unwrap().contains("--token"));
        assert_eq!((for_refusal("no_such_service", true), for_status("503")), (None, None));
    }
}
