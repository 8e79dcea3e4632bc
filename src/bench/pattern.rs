//! What is sent: messages that differ only in their number.

/// How many digits a number has.
pub(super) const DIGITS: usize = 10;
/// Fills `d`: nested values, numbers, escapes, text beyond ASCII. A flat string would flatter
/// the gateway's scanner.
pub(super) const FILLER: &str =
    r#"{"id":"81384788765712384","name":"Zoë \"z\" \u2603","flags":[1,-2.5e-3,true,null],"in":{"a":[]}}"#;

/// A message that is formatted once; only its number changes. It stands in `d`, and in `n` where
/// RECEIPTs are asked for.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    text: Vec<u8>,
    /// Where the digits start, in order.
    places: Vec<usize>,
}

impl Pattern {
    /// `d` of exactly `size` bytes, or as few as it can have.
    pub(super) fn data(size: usize) -> String {
        let frame =
            |rich: &str, pad: &str| format!(r#"{{"seq":"{:0DIGITS$}","rich":[{rich}],"pad":"{pad}"}}"#, 0);
        let free = size.saturating_sub(frame("", "").len());
        let rich = vec![FILLER; (free + 1) / (FILLER.len() + 1)].join(",");
        frame(&rich, &"x".repeat(free - rich.len()))
    }

    /// The fewest bytes that `d` can have.
    pub(super) fn least_bytes() -> usize {
        Self::data(0).len()
    }

    pub(super) fn message(source: &str, topic: &str, data: &str, has_nonce: bool) -> Self {
        let nonce = if has_nonce { format!(r#""n":"{:0DIGITS$}","#, 0) } else { String::new() };
        let text = format!(r#"{{"s":"{source}","t":"{topic}",{nonce}"d":{data}}}"#);
        let keys: &[&str] =
            if has_nonce { &[r#","n":""#, r#","d":{"seq":""#] } else { &[r#","d":{"seq":""#] };
        let place = |key: &&str| text.find(*key).expect("it was written above") + key.len();
        Self { places: keys.iter().map(place).collect(), text: text.into_bytes() }
    }

    /// The message number 0.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    pub(super) fn places(&self) -> &[usize] {
        &self.places
    }

    /// The number of a message that is this one but for its digits. `body` comes after its first brace:
    /// the gateway may have put a delivery number between.
    pub(super) fn number_of(&self, body: &[u8]) -> Option<u64> {
        let own = &self.text[1..];
        if body.len() != own.len() {
            return None;
        }
        let (mut from, mut number) = (0, None);
        for place in &self.places {
            let (start, end) = (place - 1, place - 1 + DIGITS);
            let found = decimal(&body[start..end])?;
            if body[from..start] != own[from..start] || number.is_some_and(|number| number != found) {
                return None;
            }
            (from, number) = (end, Some(found));
        }
        number.filter(|_| body[from..] == own[from..])
    }
}

/// The value of these digits.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// Counts one up; starts again from 0 after all nines.
pub(super) fn increment(digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        if *digit < b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_json_of_the_size_asked_for() {
        for size in [0, 40, 64, 137, 138, 256, 1024, 65_536] {
            let data = Pattern::data(size);
            assert_eq!(data.len(), size.max(Pattern::least_bytes()));
            assert!(serde_json::from_str::<serde_json::Value>(&data).is_ok(), "{data}");
        }
    }

    #[test]
    fn digits_are_counted_up() {
        let mut digits = *b"0098";
        for expected in [b"0099", b"0100", b"0101"] {
            increment(&mut digits);
            assert_eq!(&digits, expected);
        }
        assert_eq!(
            (decimal(b"0101"), decimal(b"01x1"), decimal(b"99999999999999999999")),
            (Some(101), None, None)
        );
    }

    #[test]
    fn the_number_is_read_where_all_else_is_the_same() {
        for has_nonce in [false, true] {
            let pattern = Pattern::message("a", "x:y", &Pattern::data(300), has_nonce);
            let mut text = pattern.text().to_vec();
            for place in pattern.places() {
                text[place + DIGITS - 1] = b'7';
            }
            let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(json["d"]["seq"], "0000000007");
            assert_eq!(json["n"], if has_nonce { "0000000007".into() } else { serde_json::Value::Null });
            assert_eq!(pattern.number_of(&text[1..]), Some(7));
            for at in 1..text.len() {
                let mut altered = text.clone();
                altered[at] ^= 0x40;
                assert_eq!(pattern.number_of(&altered[1..]), None, "byte {at}");
            }
            assert_eq!(pattern.number_of(&text[1..text.len() - 1]), None);
        }
    }
}
