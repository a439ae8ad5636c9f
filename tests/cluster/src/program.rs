//! The program under test: where it lies, and its commands run to their end.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a command may take; then it is killed, and the test fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(40);

/// The built program: `CONSUL_PROGRAM`, or what was built into the same folder as this test.
///
/// # Panics
/// If there is none.
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("CONSUL_PROGRAM") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().expect("a process knows its own program");
    let built = test.parent().and_then(|folder| folder.parent());
    let path = built.map(|folder| folder.join("consul"));
    match path {
        Some(path) if path.is_file() => path,
        _ => panic!(
            "the program is not built beside {}; build it with: cargo build -p consul",
            test.display()
        ),
    }
}

/// What a command left behind.
#[derive(Debug)]
pub struct Printed {
    /// Its exit status; -1 if a signal ended it.
    pub code: i32,
    /// What it printed.
    pub out: String,
    /// What it complained about.
    pub err: String,
}

/// Runs `consul` with these words to its end.
///
/// # Panics
/// If it does not come to an end.
pub fn consul(words: &[&str]) -> Printed {
    let mut child = Command::new(program())
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starting the program");
    let deadline = Instant::now() + PATIENCE;
    // What these commands print fits into a pipe.
    while child
        .try_wait()
        .expect("asking for our own child")
        .is_none()
    {
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("consul {} does not end", words.join(" "));
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    let output = child.wait_with_output().expect("reading from our child");
    Printed {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
