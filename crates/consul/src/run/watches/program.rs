//! A program of this machine that is told of changes on its standard input.
//!
//! It takes as long as it likes, and leads a process group of its own, which is killed when the watch ends.
//! What it leaves running in the background when it exits by itself is left alone, since that may have been the point of it; should it
//! hold on to the output, then that is read for one more second and no longer.

use std::io;
use std::pin::pin;
use std::time::Duration;

use agent::checks::Tail;
use agent::process::{self, LINGER};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::ChildStdin;
use tokio::time::{Instant, sleep};

/// How much of the output is kept: the end.
const OUTPUT_MAX: usize = 4096;

/// After so many bytes the reading pauses, so that a flood leaves this thread to others.
const BREATH: u64 = 1 << 20;

/// How much is read at once.
const READ_SIZE: usize = 8 << 10;

/// What is run.
#[derive(Debug)]
pub(super) struct Program {
    name: String,
    arguments: Vec<String>,
    shown: String,
}

/// How it went.
#[derive(Debug)]
pub(super) struct Ended {
    /// The end of what it said.
    pub(super) output: Vec<u8>,
    /// Why it wasn't content.
    pub(super) complaint: Option<String>,
}

impl Program {
    /// A line for a shell.
    pub(super) fn line(shell: &str, line: &str) -> Self {
        Self {
            name: shell.to_owned(),
            arguments: vec!["-c".to_owned(), line.to_owned()],
            shown: line.to_owned(),
        }
    }

    /// A program and its arguments.
    pub(super) fn list(list: &[String]) -> Self {
        let (name, arguments) = list
            .split_first()
            .map_or_else(Default::default, |(name, rest)| {
                (name.clone(), rest.to_vec())
            });
        Self {
            name,
            arguments,
            shown: list.join(" "),
        }
    }

    /// What people see of it.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Runs it with this on its standard input, and waits for its end. Dropping the future kills it.
    ///
    /// # Errors
    /// When it can't be started.
    pub(super) async fn run(&self, index: u64, input: String) -> io::Result<Ended> {
        let index = index.to_string();
        let variable = ("CONSUL_INDEX", index.as_str());
        let (mut group, mut output, stdin) =
            process::start_told(&self.name, &self.arguments, variable)?;
        // What it doesn't read is its own business.
        let mut feed = pin!(feed(stdin, input));
        let mut tail = Tail::new(OUTPUT_MAX);
        let mut buffer = vec![0; READ_SIZE];
        let mut breath = BREATH;
        let mut linger = pin!(sleep(LINGER));
        let (mut end, mut is_fed, mut output_open) = (None, false, true);
        while end.is_none() || output_open {
            // A flood must not hide that the program ended, so reading comes last.
            tokio::select! { biased;
                code = group.ended(), if end.is_none() => {
                    end = Some(code);
                    linger.as_mut().reset(Instant::now() + LINGER);
                }
                () = &mut linger, if end.is_some() => break,
                () = &mut feed, if !is_fed && end.is_none() => is_fed = true,
                read = output.read(&mut buffer), if output_open => match read {
                    Ok(0) | Err(_) => output_open = false,
                    Ok(size) => {
                        tail.push(&buffer[..size]);
                        if tail.taken() >= breath {
                            breath = tail.taken().saturating_add(BREATH);
                            sleep(Duration::from_millis(1)).await;
                        }
                    }
                },
            }
        }
        Ok(Ended {
            output: tail.into_text(),
            complaint: end.and_then(complaint),
        })
    }
}

/// Writes all of it and then closes.
async fn feed(stdin: Option<ChildStdin>, input: String) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(input.as_bytes()).await;
    }
}

/// Why a program that ended with this code wasn't content, in the original's words.
fn complaint(code: Option<i32>) -> Option<String> {
    match code {
        Some(0) => None,
        Some(code) => Some(format!("exit status {code}")),
        None => Some("ended by a signal".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::unix::pipe;

    use super::*;

    async fn run(line: &str, input: &str) -> (String, Option<String>) {
        let ended = Program::line("/bin/sh", line)
            .run(7, input.to_owned())
            .await;
        let Ended { output, complaint } = ended.unwrap();
        (String::from_utf8(output).unwrap(), complaint)
    }

    #[tokio::test]
    async fn reads_what_it_is_told() {
        let content = |text: &str| (text.to_owned(), None);
        assert_eq!(
            run("echo $CONSUL_INDEX; cat; echo no >&2", "[]\n").await,
            content("7\n[]\nno\n")
        );
        let many = "x".repeat(1 << 20);
        assert_eq!(run("wc -c", &many).await, content("1048576\n"));
        // Nobody has to read.
        assert_eq!(run("exec <&-; echo done", &many).await, content("done\n"));
        let (output, complaint) = run("cat; exit 3", &many).await;
        assert_eq!(complaint.as_deref(), Some("exit status 3"));
        assert_eq!(
            output,
            format!("Captured 4096 of 1048576 bytes\n...\n{}", "x".repeat(4096))
        );
        assert_eq!(
            run("kill -9 $$", "").await.1.as_deref(),
            Some("ended by a signal")
        );
        let echo = ["echo", "a  b", "$HOME"].map(str::to_owned);
        let ended = Program::list(&echo).run(7, String::new()).await.unwrap();
        assert_eq!(ended.output, b"a  b $HOME\n");
        let missing = ["/no/such/program".to_owned()];
        Program::list(&missing)
            .run(7, String::new())
            .await
            .unwrap_err();
    }

    #[tokio::test]
    async fn what_stays_behind_is_not_waited_for() {
        assert_eq!(run("sleep 1000 & echo $!", "").await.1, None);
    }

    #[tokio::test]
    async fn given_up_it_is_killed_with_its_group() {
        let room = tempfile::tempdir().unwrap();
        let fifo = room.path().join("fifo");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let mut reader = pipe::OpenOptions::new().open_receiver(&fifo).unwrap();
        // The shell and its child keep the pipe open as long as they live.
        let line = format!("exec > {}; echo on; sleep 1000; true", fifo.display());
        let program = Program::line("/bin/sh", &line);
        let mut said = [0; 3];
        tokio::select! { biased;
            ended = program.run(7, String::new()) => panic!("{ended:?}"),
            read = reader.read_exact(&mut said) => assert_eq!(read.unwrap(), 3),
        }
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).await.unwrap();
        assert_eq!((&said, rest.len()), (b"on\n", 0));
    }
}
