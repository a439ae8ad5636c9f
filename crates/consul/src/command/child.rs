//! A program that a command runs for its user: words for the shell, the streams inherited.
//!
//! It stays in the process group of the command, so that an interrupt typed at the terminal reaches both, and it is
//! signalled alone: what it has started itself is its own business.
//! It is killed when its [`Child`] is dropped, so no path out of a command leaves it running.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{ChildStdin, Command};

use crate::console::Console;

/// What a program finds on its standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    /// Its end.
    Nothing,
    /// What the command itself would read.
    Inherited,
    /// These bytes, and then its end. A program need not read them.
    Bytes(Vec<u8>),
}

/// A program that was started.
#[derive(Debug)]
pub(super) struct Child {
    process: tokio::process::Child,
    /// What is still to be fed, and whereto.
    feed: Option<(ChildStdin, Vec<u8>)>,
    fed: usize,
}

/// The shell that lines are given to.
pub(super) fn shell(console: &Console<'_>) -> String {
    console.variable("SHELL").unwrap_or("/bin/sh").to_owned()
}

impl Child {
    /// Starts `shell -c line` with the command's environment and these variables.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn start(
        shell: &str,
        line: &str,
        variables: &[(&str, String)],
        input: Input,
    ) -> io::Result<Self> {
        let (stdin, bytes) = match input {
            Input::Nothing => (Stdio::null(), None),
            Input::Inherited => (Stdio::inherit(), None),
            Input::Bytes(bytes) => (Stdio::piped(), Some(bytes)),
        };
        let mut process = Command::new(shell)
            .args(["-c", line])
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(stdin)
            .kill_on_drop(true)
            .spawn()?;
        let feed = process.stdin.take().zip(bytes);
        Ok(Self {
            process,
            feed,
            fed: 0,
        })
    }

    /// Its number, until its end was seen.
    pub(super) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Feeds it and waits for its end. Given up, it goes on where it was when called again.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        while let Some((stdin, bytes)) = &mut self.feed {
            if self.fed == bytes.len() {
                self.feed = None;
                break;
            }
            tokio::select! {
                biased;
                status = self.process.wait() => return status,
                written = stdin.write(&bytes[self.fed..]) => match written {
                    Ok(0) | Err(_) => self.feed = None,
                    Ok(count) => self.fed += count,
                },
            }
        }
        self.process.wait().await
    }

    /// Asks it to end.
    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends it.
    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // There is a number only as long as its end was not seen, so it can't belong to others by now.
        let process = self.id().and_then(|id| i32::try_from(id).ok());
        if let Some(process) = process.and_then(Pid::from_raw) {
            // It fails only where the program has ended.
            let _ = kill_process(process, signal);
        }
    }
}

/// How a program ended, in the original's words; `None` if it was content.
pub(super) fn complaint(status: ExitStatus) -> Option<String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("exit status {code}")),
        (None, Some(signal)) => Some(format!("signal: {}", signal_name(signal))),
        (None, None) => Some("unknown end".to_owned()),
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        6 => "aborted",
        9 => "killed",
        11 => "segmentation fault",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::http::wait_for;

    /// How `sh` ends with this line and input, after `work` with it.
    fn ends(line: &str, input: Input, work: impl FnOnce(&Child)) -> Option<String> {
        let ended = wait_for(async {
            let variables = [("WORD", "held".to_owned())];
            let mut child = Child::start("/bin/sh", line, &variables, input).unwrap();
            work(&child);
            let status = child.wait().await.unwrap();
            assert_eq!(child.id(), None);
            // Too late, and harmless.
            child.kill();
            assert_eq!(child.wait().await.unwrap(), status);
            Ok(complaint(status))
        });
        ended.unwrap()
    }

    #[test]
    fn programs_end_as_they_like_or_as_told() {
        let nothing = |_: &Child| ();
        assert_eq!(ends("test \"$WORD\" = held", Input::Nothing, nothing), None);
        assert_eq!(
            ends("exit 3", Input::Nothing, nothing).as_deref(),
            Some("exit status 3")
        );
        for (told, words) in [
            (Child::terminate as fn(&Child), "signal: terminated"),
            (Child::kill, "signal: killed"),
        ] {
            let ended = ends("while :; do read x || :; done", Input::Nothing, told);
            assert_eq!(ended.as_deref(), Some(words));
        }
    }

    #[test]
    fn input_is_fed_whole_and_need_not_be_read() {
        assert_eq!(ends("! read line", Input::Nothing, |_| ()), None);
        // More than fits into a pipe.
        let many = Input::Bytes(vec![b'x'; 1 << 20]);
        assert_eq!(
            ends("test $(wc -c) -eq 1048576", many.clone(), |_| ()),
            None
        );
        assert_eq!(ends("exit 0", many.clone(), |_| ()), None);
        assert_eq!(ends("exec <&-; exit 0", many, |_| ()), None);
        assert_eq!(
            ends("test \"$(cat)\" = ''", Input::Bytes(Vec::new()), |_| ()),
            None
        );
    }

    #[test]
    fn waiting_goes_on_where_it_was() {
        let ended = wait_for(async {
            let input = Input::Bytes(b"one\n".to_vec());
            let line = "read first && test \"$first\" = one && ! read more";
            let mut child = Child::start("/bin/sh", line, &[], input).unwrap();
            loop {
                tokio::select! {
                    biased;
                    status = child.wait() => return Ok(complaint(status.unwrap())),
                    () = tokio::task::yield_now() => {}
                }
            }
        });
        assert_eq!(ended.unwrap(), None);
    }

    #[test]
    fn no_shell_is_an_error() {
        let started =
            wait_for(async { Ok(Child::start("/no/shell", "", &[], Input::Nothing).map(drop)) });
        started.unwrap().unwrap_err();
    }
}
