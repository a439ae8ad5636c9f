//! Checks that run a program of this machine.
//!
//! A line is given to the shell, a list is run without one.
//! Exit 0 is passing, 1 warning, everything else critical, a program that can't be started too.
//! Standard output and standard error are one stream, of which the end is kept; however much comes, it is taken and thrown away, so
//! that the program doesn't stand still.
//!
//! The program leads a process group of its own, and the whole group is killed when its time is up, and when the check is dropped.
//! What a program leaves running in the background when it exits by itself is left alone, since that may have been the point of it;
//! should it hold on to the output, then that is read for one more second and no longer.

use std::pin::pin;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep};

use super::tail::Tail;
use super::{Config, Probe, Verdict, exit_status, script_time};
use crate::definition::{self, Every, Status};
use crate::process::{self, LINGER};

/// After so many bytes the reading pauses, so that a flood leaves this thread to others.
const BREATH: u64 = 1 << 20;

/// How much is read at once.
const READ_SIZE: usize = 8 << 10;

#[derive(Debug)]
pub(super) struct Script {
    program: String,
    arguments: Vec<String>,
    time: Duration,
    output_max: usize,
}

impl Script {
    pub(super) fn new(script: &definition::Script, every: &Every, config: &Config) -> Self {
        let (program, arguments) = match script {
            definition::Script::Line(line) => {
                (config.shell.clone(), vec!["-c".to_owned(), line.clone()])
            }
            definition::Script::List(list) => match list.split_first() {
                Some((program, arguments)) => (program.clone(), arguments.to_vec()),
                // Such a list is not allowed, and no program has an empty name: it will be critical and say so.
                None => (String::new(), Vec::new()),
            },
        };
        Self {
            program,
            arguments,
            time: script_time(every),
            output_max: config.output_max,
        }
    }

    async fn run(&self) -> Verdict {
        let (mut group, mut output) = match process::start(&self.program, &self.arguments) {
            Ok(started) => started,
            Err(why) => {
                return Verdict::critical(format!("Unable to run {:?}: {why}", self.program));
            }
        };
        let mut tail = Tail::new(self.output_max);
        let mut buffer = vec![0; READ_SIZE];
        let mut breath = BREATH;
        let mut time = pin!(sleep(self.time));
        let mut end = None;
        let mut output_open = true;
        while end.is_none() || output_open {
            // A flood must not hide that the program ended or that its time is up, so reading comes last.
            tokio::select! { biased;
                code = group.ended(), if end.is_none() => {
                    end = Some(End::Exit(code.map(i64::from)));
                    time.as_mut().reset(Instant::now() + LINGER);
                }
                () = &mut time => {
                    if end.is_some() {
                        break;
                    }
                    group.kill();
                    end = Some(End::Killed);
                    time.as_mut().reset(Instant::now() + LINGER);
                }
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
        let mut text = tail.into_text();
        let status = match end {
            Some(End::Exit(code)) => exit_status(code),
            Some(End::Killed) | None => {
                if text.last().is_some_and(|last| *last != b'\n') {
                    text.push(b'\n');
                }
                text.extend_from_slice(
                    format!("Timed out after {:?} and was killed", self.time).as_bytes(),
                );
                Status::Critical
            }
        };
        Verdict {
            status,
            output: text,
        }
    }
}

enum End {
    /// With this code, or by a signal.
    Exit(Option<i64>),
    /// By us, because its time was up.
    Killed,
}

impl Probe for Script {
    fn ask(&self) -> BoxFuture<'_, Verdict> {
        self.run().boxed()
    }
}
