use std::path::{Path, PathBuf};

use super::*;

/// Times for scripts that have to get somewhere first: the first that is long enough on this machine decides.
const TIMES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(25),
];

fn config() -> Config {
    Config::default()
}

fn script(script: Script, timeout: Duration) -> CheckKind {
    CheckKind::Script {
        script,
        every: every(timeout),
    }
}

#[tokio::test]
async fn programs_that_end() {
    use Status::{Critical, Passing, Warning};
    let zero = Duration::ZERO;
    let cases: [(Script, Status, &str); 16] = [
        (line("echo fine"), Passing, "fine\n"),
        (line("echo look; exit 1"), Warning, "look\n"),
        (line("echo bad; exit 2"), Critical, "bad\n"),
        (line("exit 255"), Critical, ""),
        (line("kill -9 $$"), Critical, ""),
        (
            line("echo out; echo err >&2; echo out"),
            Passing,
            "out\nerr\nout\n",
        ),
        (line("cat; echo end"), Passing, "end\n"),
        (line("exec >&- 2>&-; exit 1"), Warning, ""),
        (line("printf '\\303\\244'"), Passing, "ä"),
        (line("nowhere_to_be_found 2>/dev/null"), Critical, ""),
        (
            list(&["echo", "$HOME", "a  b; exit 2"]),
            Passing,
            "$HOME a  b; exit 2\n",
        ),
        (list(&["false"]), Warning, ""),
        (
            list(&["/nowhere/at all"]),
            Critical,
            "Unable to run \"/nowhere/at all\": No such file or directory (os error 2)",
        ),
        (
            list(&["/"]),
            Critical,
            "Unable to run \"/\": Permission denied (os error 13)",
        ),
        (
            list(&[]),
            Critical,
            "Unable to run \"\": No such file or directory (os error 2)",
        ),
        (
            list(&["echo", "a\0b"]),
            Critical,
            "Unable to run \"echo\": nul byte found in provided data",
        ),
    ];
    for (what, status, output) in cases {
        let shown = match &what {
            Script::Line(line) => line.clone(),
            Script::List(list) => list.join(" "),
        };
        let verdict = ask(&script(what, zero), &config()).await;
        assert_eq!(verdict.status, status, "{shown}");
        assert_eq!(
            String::from_utf8(verdict.output).unwrap(),
            output,
            "{shown}"
        );
    }
}

#[tokio::test]
async fn a_shell_that_is_not_there() {
    let config = Config::new(|name| (name == "SHELL").then(|| "/no/shell".to_owned()));
    let verdict = ask(&script(line("true"), Duration::ZERO), &config).await;
    assert_eq!(verdict.status, Status::Critical);
    assert!(verdict.output.starts_with(b"Unable to run \"/no/shell\""));
}

#[tokio::test]
async fn of_a_flood_the_end_is_kept() {
    let flood = "head -c 5000000 /dev/zero | tr '\\0' a; echo end";
    let verdict = ask(&script(line(flood), Duration::ZERO), &config()).await;
    let kept = format!("{}end\n", "a".repeat(4092));
    let text = format!("Captured 4096 of 5000004 bytes\n...\n{kept}");
    assert_eq!(verdict.status, Status::Passing);
    assert!(verdict.output == text.as_bytes());

    for time in TIMES {
        let endless = ask(&script(list(&["yes"]), time), &config()).await;
        assert_eq!(endless.status, Status::Critical);
        let text = String::from_utf8(endless.output).unwrap();
        let killed = format!("Timed out after {time:?} and was killed");
        assert!(text.ends_with(&killed), "{text}");
        if text != killed {
            assert!(text.starts_with("Captured 4096 of "), "{text}");
            assert!(text.len() < 4200);
            return;
        }
    }
    panic!("this machine starts no programs");
}

/// A script that starts a child and a grandchild which ignore what they can, tells their numbers in a file, and waits for them.
fn family(pids: &Path) -> Script {
    line(&format!(
        "trap '' TERM HUP INT
         sh -c 'trap \"\" TERM HUP INT; sleep 900 & echo $! >> {0}; echo $$ >> {0}; wait' &
         echo $$ >> {0}
         echo started
         wait; wait",
        pids.display()
    ))
}

/// The numbers in the file, of which the last may be on its way.
fn numbers(pids: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(pids).unwrap_or_default();
    let lines = text.split_inclusive('\n');
    let whole = lines.filter_map(|line| line.strip_suffix('\n'));
    whole.map(str::to_owned).collect()
}

/// The numbers in the file, once there are `count`.
async fn told(pids: &Path, count: usize) -> Vec<String> {
    wait_for("numbers of processes", || {
        Some(numbers(pids)).filter(|numbers| numbers.len() == count)
    })
    .await
}

/// Whether this process still runs; one that nobody has reaped doesn't.
fn runs(pid: &str) -> bool {
    let Ok(stat) = std::fs::read_to_string(PathBuf::from("/proc").join(pid).join("stat")) else {
        return false;
    };
    let state = stat.rsplit_once(") ").map(|(_, state)| state);
    !state.is_some_and(|state| state.starts_with(['Z', 'X']))
}

async fn end_of(pids: &[String]) {
    wait_for("end of all processes", || {
        (!pids.iter().any(|pid| runs(pid))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn at_the_timeout_the_whole_family_is_killed() {
    for time in TIMES {
        let directory = tempfile::tempdir().unwrap();
        let pids = directory.path().join("pids");
        let verdict = ask(&script(family(&pids), time), &config()).await;
        assert_eq!(verdict.status, Status::Critical);
        let family = numbers(&pids);
        end_of(&family).await;
        if family.len() == 3 {
            assert_eq!(
                String::from_utf8(verdict.output).unwrap(),
                format!("started\nTimed out after {time:?} and was killed")
            );
            return;
        }
    }
    panic!("this machine starts no programs");
}

#[tokio::test]
async fn nobody_is_left_unburied() {
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let (sender, _reports) = mpsc::channel(1);
    let sleeper = format!("echo $$ > {}; exec sleep 900", pids.display());
    let kind = script(line(&sleeper), Duration::ZERO);
    let runner = start("c".into(), 0, &kind, &config(), sender, 0);
    let sleeper = told(&pids, 1).await;
    drop(runner);
    let process = Path::new("/proc").join(&sleeper[0]);
    wait_for("end of the process", || (!process.exists()).then_some(())).await;
}

#[tokio::test]
async fn dropping_a_runner_kills_the_whole_family() {
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let (sender, mut reports) = mpsc::channel(1);
    let kind = script(family(&pids), Duration::ZERO);
    let runner = start("c".into(), 0, &kind, &config(), sender, 0);
    let family = told(&pids, 3).await;
    assert!(family.iter().all(|pid| runs(pid)));
    drop(runner);
    end_of(&family).await;
    assert!(reports.recv().await.is_none());
}

#[test]
fn the_end_of_the_program_kills_the_whole_family() {
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let program = runtime();
    let (runner, family) = program.block_on(async {
        let (sender, _reports) = mpsc::channel(1);
        let kind = script(family(&pids), Duration::ZERO);
        let runner = start("c".into(), 0, &kind, &config(), sender, 0);
        (runner, told(&pids, 3).await)
    });
    program.shutdown_background();
    runtime().block_on(end_of(&family));
    drop(runner);
}

#[tokio::test]
async fn what_runs_on_in_the_background_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let left = format!(
        "sleep 100 & echo $! > {}; echo done; exit 1",
        pids.display()
    );
    let begin = Instant::now();
    let verdict = ask(&script(line(&left), Duration::ZERO), &config()).await;
    assert_eq!(verdict.output, b"done\n");
    assert_eq!(verdict.status, Status::Warning);
    assert!(begin.elapsed() < Duration::from_secs(20));
    // It was not killed either: a script may have been meant to start it.
    let background = told(&pids, 1).await;
    assert!(runs(&background[0]));
    kill(&background[0]);
}

#[tokio::test]
async fn late_words_of_the_background_still_count() {
    // The shell is gone before its child writes, which holds the output until then.
    let late = "(while kill -0 $$ 2>/dev/null; do :; done; echo late) & echo early";
    let verdict = ask(&script(line(late), Duration::ZERO), &config()).await;
    assert_eq!(verdict.status, Status::Passing);
    assert!(verdict.output.starts_with(b"early\n"), "{verdict:?}");
}

#[tokio::test]
async fn who_leaves_the_group_cannot_hold_up_the_verdict() {
    for time in TIMES {
        let directory = tempfile::tempdir().unwrap();
        let pids = directory.path().join("pids");
        let escape = format!(
            "setsid sh -c 'echo $$ > {}; exec sleep 100' & sleep 100",
            pids.display()
        );
        let begin = Instant::now();
        let verdict = ask(&script(line(&escape), time), &config()).await;
        let killed = format!("Timed out after {time:?} and was killed");
        assert_eq!(verdict.output, killed.as_bytes());
        assert!(begin.elapsed() < time + Duration::from_secs(20));
        if let [escaped] = &numbers(&pids)[..] {
            kill(escaped);
            return;
        }
    }
    panic!("this machine starts no programs");
}

/// Ends a process that a script of ours has left.
fn kill(pid: &str) {
    use rustix::process::{Pid, Signal, kill_process};
    let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
    let _ = kill_process(pid, Signal::KILL);
}
