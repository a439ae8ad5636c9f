use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A program that runs, and prints to a file. Killed when dropped.
#[derive(Debug)]
pub struct Logged {
    /// Its process.
    pub child: Child,
    log: PathBuf,
}

impl Logged {
    /// Starts it, without anything to read from.
    pub fn start(command: &mut Command, log: PathBuf) -> Self {
        let out = File::create(&log).expect("creating the log");
        let child = command
            .stdin(Stdio::null())
            .stderr(out.try_clone().expect("the log twice"))
            .stdout(out)
            .spawn()
            .expect("starting the program");
        Self { child, log }
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("reading the log")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        // It may have ended; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        self.kill();
    }
}
