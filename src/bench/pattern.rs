//! What is sent: messages that differ only in their number.

use std::ops::Range;

/// How many digits a sequence number has.
const DIGITS: usize = 10;
/// Fills `d`: nested values, numbers, escapes, text beyond ASCII. A flat string would flatter
/// the gateway's scanner.
pub(super) const FILLER: &str =
    r#"{"id":"81384788765712384","name":"Zoë \"z\" \u2603","flags":[1,-2.5e-3,true,null],"in":{"a":[]}}"#;

/// A message that is formatted once; only its number changes.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    text: String,
    digits: Range<usize>,
}

impl Pattern {
    /// `d` of exactly `size` bytes, or as few as it can have.
    pub(super) fn data(filler: &str, size: usize) -> String {
        let frame =
            |rich: &str, pad: &str| format!(r#"{{"seq":"{:0DIGITS$}","rich":[{rich}],"pad":"{pad}"}}"#, 0);
        let free = size.saturating_sub(frame("", "").len());
        let rich = vec![filler; (free + 1) / (filler.len() + 1)].join(",");
        frame(&rich, &"x".repeat(free - rich.len()))
    }

    pub(super) fn message(source: &str, topic: &str, data: &str) -> Self {
        const BEFORE_DIGITS: &str = r#"{"seq":""#;
        let head = format!(r#"{{"s":"{source}","t":"{topic}","d":"#);
        let start = head.len() + BEFORE_DIGITS.len();
        Self { text: format!("{head}{data}}}"), digits: start..start + DIGITS }
    }

    pub(super) fn number(&mut self, sequence: u64) -> String {
        self.text.replace_range(self.digits.clone(), &format!("{sequence:0DIGITS$}"));
        self.text.clone()
    }

    /// The number of a message that is this one but for its digits.
    pub(super) fn number_of(&self, text: &str) -> Option<u64> {
        let Range { start, end } = self.digits;
        let (text, own) = (text.as_bytes(), self.text.as_bytes());
        let same = text.len() == own.len() && text[..start] == own[..start] && text[end..] == own[end..];
        let digits = same.then(|| &text[start..end]).filter(|it| it.iter().all(u8::is_ascii_digit))?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_json_of_the_size_asked_for() {
        for size in [40, 64, 137, 138, 256, 1024, 65_536] {
            let data = Pattern::data(FILLER, size);
            assert_eq!(data.len(), size.max(Pattern::data("", 0).len()));
            assert!(serde_json::from_str::<serde_json::Value>(&data).is_ok(), "{data}");
        }
    }
}
