//! The words behind a command's name: flags are taken out by name, what stays are the operands.

use std::fmt;

use anyhow::Result;

/// The caller typed something that the command doesn't know; shown with the usage.
#[derive(Debug)]
pub(crate) struct Misuse(String);

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misuse {}

/// What the caller typed after the command's name.
#[derive(Debug)]
pub(crate) struct Arguments {
    words: Vec<String>,
}

impl Arguments {
    pub(crate) fn new(words: impl Iterator<Item = String>) -> Self {
        Self {
            words: words.collect(),
        }
    }

    pub(crate) fn asks_for_help(&self) -> bool {
        self.words
            .iter()
            .any(|word| word == "-h" || word == "--help")
    }

    /// Takes `--name` out and says whether it was there.
    pub(crate) fn switch(&mut self, name: &str) -> bool {
        let before = self.words.len();
        self.words.retain(|word| word != name);
        self.words.len() < before
    }

    /// Takes `--name N` or `--name=N` out.
    pub(crate) fn number(&mut self, name: &str) -> Result<Option<u64>> {
        let Some(at) = self.words.iter().position(|word| {
            word == name
                || word
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with('='))
        }) else {
            return Ok(None);
        };
        let word = self.words.remove(at);
        let text = match word.split_once('=') {
            Some((_, text)) => text.to_owned(),
            None if at < self.words.len() => self.words.remove(at),
            None => return Err(Misuse(format!("{name} needs a number")).into()),
        };
        parse_number(&text).map(Some)
    }

    /// What is left once all flags are taken; a flag that nobody took is an error.
    pub(crate) fn operands(self) -> Result<Vec<String>> {
        match self.words.iter().find(|word| word.starts_with('-')) {
            Some(flag) => Err(Misuse(format!("unknown flag {flag}")).into()),
            None => Ok(self.words),
        }
    }

    /// For commands that take flags only.
    pub(crate) fn nothing_more(self) -> Result<()> {
        match self.operands()?.first() {
            Some(word) => Err(Misuse(format!("unexpected {word:?}")).into()),
            None => Ok(()),
        }
    }
}

/// A number an operand must be; anything else is misuse.
pub(crate) fn parse_number(text: &str) -> Result<u64> {
    text.parse()
        .map_err(|_| Misuse(format!("{text:?} is not a number")).into())
}

/// An operand that isn't one of the known names.
pub(crate) fn unknown_name(name: &str, known: &[&str]) -> anyhow::Error {
    Misuse(format!(
        "unknown name {name:?}; known are {}",
        known.join(", ")
    ))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(words: &str) -> Arguments {
        Arguments::new(words.split_whitespace().map(String::from))
    }

    #[test]
    fn flags_are_taken_in_both_spellings_and_operands_stay() {
        let mut arguments = typed("7 --seeds 5 --quick 9 --rounds=3");
        assert_eq!(arguments.number("--seeds").unwrap(), Some(5));
        assert_eq!(arguments.number("--rounds").unwrap(), Some(3));
        assert_eq!(arguments.number("--seconds").unwrap(), None);
        assert!(arguments.switch("--quick"));
        assert_eq!(arguments.operands().unwrap(), ["7", "9"]);
    }

    #[test]
    fn what_is_not_understood_is_misuse() {
        for words in ["--seeds", "--seeds x", "--seeds=-1"] {
            let error = typed(words).number("--seeds").unwrap_err();
            assert!(error.is::<Misuse>(), "{words}");
        }
        assert!(typed("--what").operands().unwrap_err().is::<Misuse>());
        assert!(typed("what").nothing_more().unwrap_err().is::<Misuse>());
    }
}
