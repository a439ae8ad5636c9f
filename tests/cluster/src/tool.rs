//! Programs of this machine that know nothing of us: found, run beside agents, killed.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where daemons are, for users in whose `PATH` they aren't.
const SYSTEM: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// Where this program is; if nowhere, it says so, and the test that needs it is content.
#[allow(
    clippy::print_stdout,
    reason = "who reads the test's output wants to know why nothing was tried"
)]
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(std::env::split_paths(SYSTEM));
    let found = folders
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        println!("skipped: {name} is not installed on this machine");
    }
    found
}

/// A program that runs until it is dropped.
#[derive(Debug)]
pub struct Tool {
    child: Child,
    log: PathBuf,
}

impl Tool {
    /// Starts it in this folder, where its output goes into a file; it is not waited for.
    ///
    /// # Panics
    /// If it can't be started.
    pub fn start<W: AsRef<OsStr>>(program: &Path, words: &[W], folder: &Path) -> Self {
        let name = program.file_name().unwrap_or_default();
        let log = folder.join(name).with_extension("log");
        let file = File::create(&log).expect("creating a file of our own");
        let child = Command::new(program)
            .args(words)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stderr(file.try_clone().expect("one file twice"))
            .stdout(file)
            .spawn();
        Self {
            child: child.expect("starting an installed program"),
            log,
        }
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        format!(
            "-- {} --\n{}\n",
            self.log.display(),
            String::from_utf8_lossy(&text)
        )
    }

    /// Complains if it has ended by itself.
    ///
    /// # Panics
    /// If it has.
    pub fn must_run(&mut self) {
        let ended = self.child.try_wait().expect("asking for our own child");
        assert!(ended.is_none(), "it ended with {ended:?}\n{}", self.log());
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_left_out() {
        assert!(tool("sh").is_some());
        assert_eq!(tool("a program that nobody has"), None);
    }
}
