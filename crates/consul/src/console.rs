//! The outside world of a command: its three streams and its environment, all of which tests can supply.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io::{self, Read, Write};

/// What a command reads from and writes to.
pub struct Console<'a> {
    /// Standard input.
    pub input: &'a mut (dyn Read + Send),
    /// Standard output, for results.
    pub output: &'a mut (dyn Write + Send),
    /// Standard error, for what isn't part of the result.
    pub errors: &'a mut dyn Write,
    /// Whether standard error is a terminal, so that a progress bar makes sense.
    pub errors_is_terminal: bool,
    /// The environment variables whose names begin with `CONSUL_`, `AWS_`, `AZURE_` or `GOOGLE_`, and `SHELL`.
    pub environment: BTreeMap<String, String>,
}

impl Console<'_> {
    /// Looks up environment variables, for parts that don't know of consoles.
    pub fn lookup(&self) -> impl Fn(&str) -> Option<String> + use<> {
        let environment = self.environment.clone();
        move |name| {
            environment
                .get(name)
                .filter(|value| !value.is_empty())
                .cloned()
        }
    }

    /// Prints a line of the result, and the messages of failures too:
    /// the original's commands print their errors to standard output, and scripts look for them there.
    pub fn say(&mut self, line: impl Display) {
        // A reader that has gone away has heard enough; the exit status still tells.
        let _ = writeln!(self.output, "{line}");
    }

    /// Prints a line that isn't part of the result.
    pub fn note(&mut self, line: impl Display) {
        let _ = writeln!(self.errors, "{line}");
    }

    /// Writes bytes of the result as they are.
    ///
    /// # Errors
    /// When the reader has gone away or the disk is full.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.write_all(bytes)
    }

    /// The environment variable of that name, unless it is empty.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }
}

impl fmt::Debug for Console<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The environment has secrets in it.
        f.debug_struct("Console").finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a command printed, and its exit status.
    #[derive(Debug, PartialEq, Eq)]
    pub(crate) struct Printed {
        pub(crate) status: u8,
        pub(crate) output: String,
        pub(crate) errors: String,
    }

    /// Runs a command line as `main` would.
    pub(crate) fn consul(
        arguments: &[&str],
        input: &[u8],
        environment: &[(&str, &str)],
    ) -> Printed {
        let arguments: Vec<String> = arguments
            .iter()
            .map(|&argument| argument.to_owned())
            .collect();
        let (mut output, mut errors, mut input) = (Vec::new(), Vec::new(), input);
        let mut console = Console {
            input: &mut input,
            output: &mut output,
            errors: &mut errors,
            errors_is_terminal: false,
            environment: environment
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        };
        let status = crate::command::dispatch(&arguments, &mut console);
        Printed {
            status,
            output: String::from_utf8_lossy(&output).into_owned(),
            errors: String::from_utf8_lossy(&errors).into_owned(),
        }
    }
}
