//! Patterns for names and targets: text in which `*` stands for any run of characters.

use std::fmt;

/// Whether the pattern covers the text. Linear in the text for each `*`.
pub fn covers(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Several patterns: what one of them covers, they cover.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Patterns(Vec<Box<str>>);

/// A pattern was not well formed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no pattern: 1 to 64 of A-Z a-z 0-9 . _ - / and `*`, which stands for anything")]
pub struct InvalidPattern(String);

impl Patterns {
    /// Covers everything.
    pub fn everything() -> Self {
        Self(vec!["*".into()])
    }

    /// The patterns, each checked.
    pub fn new(patterns: impl IntoIterator<Item = String>) -> Result<Self, InvalidPattern> {
        let checked = patterns.into_iter().map(|pattern| {
            if is_well_formed(&pattern) {
                Ok(pattern.into_boxed_str())
            } else {
                Err(InvalidPattern(pattern.escape_default().take(80).collect()))
            }
        });
        checked.collect::<Result<_, _>>().map(Self)
    }

    pub fn cover(&self, text: &str) -> bool {
        self.0.iter().any(|pattern| covers(pattern, text))
    }

    /// Whether there is nothing that they do not cover.
    pub fn are_everything(&self) -> bool {
        self.0.iter().any(|pattern| &**pattern == "*")
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|pattern| &**pattern)
    }
}

impl fmt::Debug for Patterns {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

fn is_well_formed(pattern: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/' | b'*');
    (1..=super::name::MAX_NAME_BYTES).contains(&pattern.len()) && pattern.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, covered, others) in [
            ("a", &["a"][..], &["", "b", "aa", "ab"][..]),
            ("*", &["", "a", "shard/3"], &[]),
            ("shard-*", &["shard-", "shard-3"], &["shard", "a-shard-3"]),
            ("*-eu", &["a-eu", "-eu"], &["eu", "a-eu-1"]),
            ("a*b*c", &["abc", "axbxc", "abbc"], &["ab", "acb", "abcd", "aXc"]),
            ("aa*aa", &["aaaa", "aaxaa"], &["aa", "aaa"]),
        ] {
            for text in covered {
                assert!(covers(pattern, text), "{pattern} {text}");
            }
            for text in others {
                assert!(!covers(pattern, text), "{pattern} {text}");
            }
        }
    }

    #[test]
    fn patterns_are_checked_and_any_of_them_will_do() {
        let patterns = Patterns::new(["a".to_owned(), "shard/*".to_owned()]).unwrap();
        assert!(patterns.cover("a") && patterns.cover("shard/1") && !patterns.cover("b"));
        assert!(!patterns.are_everything() && Patterns::everything().are_everything());
        assert!(!Patterns::default().cover(""));
        for wrong in ["", "a b", "ä", "a\n", &"x".repeat(65)] {
            assert!(Patterns::new([wrong.to_owned()]).is_err(), "{wrong:?}");
        }
    }
}
