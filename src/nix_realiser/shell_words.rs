//! Splitting `PROVIUM_NIX_ARGS` as a shell would.

use std::fmt;

/// A text that a shell would not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SplitError {
    /// A quote was opened and not closed.
    OpenQuote {
        /// Which one.
        quote: char,
    },
    /// The text ends with a backslash.
    TrailingBackslash,
}

impl fmt::Display for SplitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenQuote { quote } => write!(f, "the quote `{quote}` is not closed"),
            Self::TrailingBackslash => f.write_str("a `\\` stands at the end with nothing behind it"),
        }
    }
}

impl std::error::Error for SplitError {}

/// Splits at blanks. Single quotes keep everything, double quotes everything but `\"`, `\\`, `\$` and a backtick behind a
/// backslash; elsewhere a backslash keeps the next character. Nothing is expanded.
///
/// # Errors
/// An open quote, or a backslash at the end.
pub fn split_like_shell(text: &str) -> Result<Vec<String>, SplitError> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => single_quoted(&mut chars, word.get_or_insert_default())?,
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => word.get_or_insert_default().push(chars.next().ok_or(SplitError::TrailingBackslash)?),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

fn single_quoted(chars: &mut impl Iterator<Item = char>, word: &mut String) -> Result<(), SplitError> {
    for c in chars {
        if c == '\'' {
            return Ok(());
        }
        word.push(c);
    }
    Err(SplitError::OpenQuote { quote: '\'' })
}

fn double_quoted(chars: &mut impl Iterator<Item = char>, word: &mut String) -> Result<(), SplitError> {
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok(()),
            '\\' => match chars.next().ok_or(SplitError::TrailingBackslash)? {
                kept @ ('"' | '\\' | '$' | '`') => word.push(kept),
                other => word.extend(['\\', other]),
            },
            other => word.push(other),
        }
    }
    Err(SplitError::OpenQuote { quote: '"' })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn splits() {
        let split = |text| split_like_shell(text).unwrap();
        assert_eq!(split(""), Vec::<String>::new());
        assert_eq!(split("  --a  b\n"), ["--a", "b"]);
        assert_eq!(split(r#"--option x 'a b' "c \" \n d"e \ f ''"#), ["--option", "x", "a b", "c \" \\n de", " f", ""]);
    }

    #[test]
    fn refuses_what_is_open() {
        assert_eq!(split_like_shell("a 'b").unwrap_err().to_string(), "the quote `'` is not closed");
        assert_eq!(split_like_shell("\"b").unwrap_err(), SplitError::OpenQuote { quote: '"' });
        assert_eq!(split_like_shell("b\\").unwrap_err(), SplitError::TrailingBackslash);
    }

    proptest! {
        #[test]
        fn single_quotes_keep_every_word(words in proptest::collection::vec("[^']{0,8}", 0..5)) {
            let text: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
            prop_assert_eq!(split_like_shell(&text.join(" ")).unwrap(), words);
        }
    }
}
