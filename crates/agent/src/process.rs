//! Programs that this agent runs: each leads a process group of its own, and its output is one stream.
//!
//! The group is killed when its [`Group`] is dropped, unless the program has ended by itself.
//! A child that has left the group (`setsid`, a daemon) can't be followed.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStdin, Command};

/// How long the output of a program that has ended may still be held open by others.
pub const LINGER: Duration = Duration::from_secs(1);

/// Starts a program without input; what it and its children say, on standard output and standard error alike, comes out of
/// the pipe.
pub(crate) fn start(program: &str, arguments: &[String]) -> io::Result<(Group, pipe::Receiver)> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    spawn(command)
}

/// Starts a program that is told something: this environment variable, and what goes into the pipe to its standard input.
///
/// # Errors
/// Those of the system.
pub fn start_told(
    program: &str,
    arguments: &[String],
    (name, value): (&str, &str),
) -> io::Result<(Group, pipe::Receiver, Option<ChildStdin>)> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env(name, value)
        .stdin(Stdio::piped());
    let (mut group, output) = spawn(command)?;
    let input = group.0.stdin.take();
    Ok((group, output, input))
}

/// The command is used up, because it keeps an end of the pipe: were it to live on, the output would never end.
fn spawn(mut command: Command) -> io::Result<(Group, pipe::Receiver)> {
    let (ours, theirs) = io::pipe()?;
    command
        .stdout(theirs.try_clone()?)
        .stderr(theirs)
        .process_group(0);
    let group = Group(command.spawn()?);
    let output = pipe::Receiver::from_owned_fd(ours.into())?;
    Ok((group, output))
}

/// A program and those of its children that stayed in its group; dropping it kills them, unless it has ended by itself.
#[derive(Debug)]
pub struct Group(Child);

impl Group {
    /// Waits for the end of the program, and says with which code it ended; `None` if it was by a signal.
    pub async fn ended(&mut self) -> Option<i32> {
        let exit = self.0.wait().await;
        exit.ok().and_then(|exit| exit.code())
    }

    pub(crate) fn kill(&self) {
        // There is an id only as long as the program is not reaped, so the number can't belong to others by now.
        let leader = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let Some(leader) = leader.and_then(Pid::from_raw) {
            // It fails only where nobody is left.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
