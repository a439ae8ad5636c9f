use std::future::Future;
use std::pin::pin;

use model::{Answer, KvEntry, KvParts};
use rpc::Meta;
use testkit::{Asked, Fake, FakeCluster};

use super::*;

const SESSION: &str = "b54fe110-7af5-cafc-d1fb-afc8ba432b1c";

/// Until when anything must have happened.
const SOON: Duration = Duration::from_secs(60);

fn payload(prefix: &str) -> Vec<u8> {
    format!(r#"{{"Prefix":"{prefix}","Session":"{SESSION}"}}"#).into_bytes()
}

fn job(text: &str) -> Fake {
    let entry = KvEntry::new(&KvParts {
        key: b"job",
        value: text.as_bytes(),
        ..KvParts::default()
    });
    Fake::Answer(Answer::KvGet(Some(entry)), Meta::default())
}

fn exec(cluster: &FakeCluster) -> Exec {
    let config = ExecConfig {
        enabled: true,
        node: "n1".into(),
        token: "agent".into(),
        ..ExecConfig::default()
    };
    Exec::new(config, cluster.cluster())
}

/// A cluster that has this job, and takes whatever is written.
fn with_job(text: &str) -> FakeCluster {
    let cluster = FakeCluster::new();
    cluster.answer(job(text));
    for _ in 0..1000 {
        cluster.answer(Fake::Reply(Reply::Applied(true)));
    }
    cluster
}

/// What was written: the key behind the job's own, and the value.
fn written(asked: Vec<Asked>) -> Vec<(String, Vec<u8>)> {
    let writes = asked.into_iter().filter_map(|asked| match asked {
        Asked::Write(Command::Kv(op), options) => Some((op, options)),
        _ => None,
    });
    let writes = writes.map(|(op, options)| {
        assert_eq!(options.token, *"agent");
        assert_eq!(op.verb, KvVerb::Lock(SESSION.into()));
        let key = op.key.to_string();
        let key = key.strip_prefix(&format!("_rexec/{SESSION}/n1/"));
        (key.unwrap().to_owned(), op.value.to_vec())
    });
    writes.collect()
}

/// The same of a job that is run to its end; signs of life are left out, for they depend on the machine.
async fn run(exec: &Exec, cluster: &FakeCluster) -> Vec<(String, String)> {
    let job = exec.job(&payload("_rexec"), 0).unwrap();
    tokio::time::timeout(SOON, job).await.unwrap();
    let all = written(cluster.asked()).into_iter();
    let all = all.filter(|(key, value)| !(key.starts_with("out/") && value.is_empty()));
    all.map(|(key, value)| (key, String::from_utf8_lossy(&value).into_owned()))
        .collect()
}

/// Runs something beside until it is so.
async fn until(beside: impl Future<Output = ()>, mut is_so: impl FnMut() -> bool) {
    let mut beside = pin!(beside);
    let deadline = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < deadline);
        tokio::select! {
            biased;
            () = &mut beside => panic!("it ended"),
            () = sleep(Duration::from_millis(5)) => {}
        }
    }
}

#[tokio::test]
async fn a_command_is_acknowledged_run_and_told_of() {
    let wait = r#""Wait":2000000000"#;
    for (command, output, code) in [
        ("echo hello", "hello\n", "0"),
        ("echo out; echo err >&2; exit 3", "out\nerr\n", "3"),
        ("cat; printf end", "end", "0"),
        ("kill -9 $$", "", "1"),
        ("nowhere_to_be_found 2>/dev/null", "", "127"),
        ("", "", "0"),
    ] {
        let cluster = with_job(&format!(r#"{{"Command":"{command}",{wait}}}"#));
        let told = run(&exec(&cluster), &cluster).await;
        // A machine that is busy may bring it in more than one piece.
        let pieces = told.iter().filter(|(key, _)| key.starts_with("out/"));
        let all: String = pieces.map(|(_, text)| text.as_str()).collect();
        assert_eq!(all, output, "{command}");
        let (first, last) = (&told[0], &told[told.len() - 1]);
        assert_eq!(*first, ("ack".to_owned(), String::new()), "{command}");
        assert_eq!(*last, ("exit".to_owned(), code.to_owned()), "{command}");
    }
}

#[tokio::test]
async fn output_comes_in_pieces() {
    let cluster = with_job(r#"{"Command":"head -c 10000 /dev/zero","Wait":60000000000}"#);
    let job = exec(&cluster).job(&payload("_rexec"), 0).unwrap();
    job.await;
    let told = written(cluster.asked());
    let mut sizes = told.iter().map(|(key, value)| (key.as_str(), value.len()));
    assert_eq!(sizes.next(), Some(("ack", 0)));
    assert_eq!(sizes.next_back(), Some(("exit", 1)));
    let pieces: Vec<(&str, usize)> = sizes.collect();
    assert!(pieces.iter().all(|(_, size)| *size <= 4096), "{pieces:?}");
    assert_eq!(pieces.iter().map(|(_, size)| size).sum::<usize>(), 10_000);
    let keys: Vec<String> = (0..pieces.len())
        .map(|at| format!("out/{at:05x}"))
        .collect();
    assert!(
        pieces
            .iter()
            .map(|(key, _)| *key)
            .eq(keys.iter().map(String::as_str))
    );
}

#[tokio::test]
async fn a_silent_program_gives_signs_of_life() {
    let room = tempfile::tempdir().unwrap();
    let gate = room.path().join("gate");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &gate,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let text = format!(r#"{{"Command":"cat {}","Wait":1}}"#, gate.display());
    let cluster = with_job(&text);
    let job = exec(&cluster).job(&payload("_rexec"), 0).unwrap();
    let mut job = pin!(job);
    let mut told = Vec::new();
    until(job.as_mut(), || {
        told.extend(written(cluster.asked()));
        told.len() > 2
    })
    .await;
    assert_eq!(told[1], ("out/00000".to_owned(), Vec::new()));
    assert_eq!(told[2], ("out/00001".to_owned(), Vec::new()));
    // Both ends, so that opening it waits for nobody.
    let mut gate = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&gate)
        .unwrap();
    gate.write_all(b"open").unwrap();
    until(job.as_mut(), || {
        told.extend(written(cluster.asked()));
        told.iter().any(|(_, value)| value == b"open")
    })
    .await;
    drop(gate);
    tokio::time::timeout(SOON, job).await.unwrap();
    let last = written(cluster.asked()).pop();
    assert_eq!(last, Some(("exit".to_owned(), b"0".to_vec())));
}

#[tokio::test]
async fn a_script_is_a_file_while_it_runs() {
    let room = tempfile::tempdir().unwrap();
    let folder = room.path().join("it's here");
    fs::create_dir(&folder).unwrap();
    let script =
        STANDARD.encode_to_string("#!/bin/sh\nstat -c %a \"$0\"\ndirname \"$0\"\nexit 4\n");
    let cluster = with_job(&format!(r#"{{"Script":"{script}","Wait":60000000000}}"#));
    let config = ExecConfig {
        scripts: folder.clone(),
        ..(*exec(&cluster).config).clone()
    };
    let told = run(&Exec::new(config, cluster.cluster()), &cluster).await;
    let output: String = told
        .iter()
        .filter(|(key, _)| key.starts_with("out/"))
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(output, format!("750\n{}\n", folder.display()));
    assert_eq!(told.last(), Some(&("exit".to_owned(), "4".to_owned())));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[tokio::test]
async fn what_cannot_be_started_ends_with_255() {
    let room = tempfile::tempdir().unwrap();
    let nowhere = room.path().join("nowhere");
    for (job, shell) in [
        (
            r#"{"Command":"true","Wait":2000000000}"#,
            nowhere.display().to_string(),
        ),
        (
            r#"{"Script":"dHJ1ZQ==","Wait":2000000000}"#,
            "/bin/sh".to_owned(),
        ),
    ] {
        let cluster = with_job(job);
        let config = ExecConfig {
            scripts: nowhere.clone(),
            shell,
            ..(*exec(&cluster).config).clone()
        };
        let told = run(&Exec::new(config, cluster.cluster()), &cluster).await;
        let expected = [("ack", ""), ("exit", "255")];
        assert_eq!(
            told,
            expected.map(|(key, value)| (key.to_owned(), value.to_owned()))
        );
    }
}

#[tokio::test]
async fn a_program_outlives_whoever_asked_for_it() {
    let room = tempfile::tempdir().unwrap();
    let done = room.path().join("done");
    let command = format!("head -c 100000 /dev/zero; touch {}", done.display());
    let cluster = FakeCluster::new();
    cluster.answer(job(&format!(
        r#"{{"Command":"{command}","Wait":60000000000}}"#
    )));
    cluster.answer(Fake::Reply(Reply::Applied(true)));
    // The session is gone.
    cluster.answer(Fake::Reply(Reply::Applied(false)));
    cluster.answer(Fake::Reply(Reply::Applied(false)));
    let told = run(&exec(&cluster), &cluster).await;
    let told: Vec<(&str, usize)> = told
        .iter()
        .map(|(key, value)| (key.as_str(), value.len()))
        .collect();
    assert_eq!(told, [("ack", 0), ("out/00000", 4096), ("exit", 3)]);
    assert!(done.exists());
}

#[tokio::test(start_paused = true)]
async fn what_fails_on_the_way_is_written_again() {
    let work = r#"{"Command":"true","Wait":60000000000}"#;
    let unknown = || Fake::Error(Error::OutcomeUnknown.from_afar());
    let cluster = FakeCluster::new();
    cluster.answer(job(work));
    cluster.answer(unknown());
    cluster.answer(Fake::Error(Error::NoLeader));
    cluster.answer(Fake::Error(Error::PermissionDenied));
    assert_eq!(
        run(&exec(&cluster), &cluster).await,
        vec![("ack".to_owned(), String::new()); 3]
    );
    cluster.answer(job(work));
    for _ in 0..3 {
        cluster.answer(unknown());
    }
    assert_eq!(run(&exec(&cluster), &cluster).await.len(), 3);
}

#[tokio::test]
async fn the_leader_is_asked_where_others_lag_behind() {
    let cluster = FakeCluster::new();
    cluster.answer(Fake::Answer(Answer::KvGet(None), Meta::default()));
    cluster.answer(Fake::Answer(Answer::KvGet(None), Meta::default()));
    exec(&cluster).job(&payload("/a//b/"), 0).unwrap().await;
    let asked = cluster.asked();
    assert_eq!(asked.len(), 2);
    for (asked, expected) in asked
        .into_iter()
        .zip([Consistency::Stale, Consistency::Default])
    {
        let Asked::Read(question, options) = asked else {
            panic!("{asked:?}");
        };
        let key = Text::from(format!("a/b/{SESSION}/job"));
        assert_eq!(question, KvGet { key }.into());
        assert_eq!(
            (options.consistency, options.token),
            (expected, "agent".into())
        );
    }
}

#[tokio::test]
async fn dropping_a_job_kills_its_program() {
    let room = tempfile::tempdir().unwrap();
    let note = room.path().join("pid");
    let command = format!(
        "echo $$ > {0}.new; mv {0}.new {0}; sleep 1000 & sleep 1000",
        note.display()
    );
    let cluster = with_job(&format!(r#"{{"Command":"{command}","Wait":60000000000}}"#));
    let mut job = exec(&cluster).job(&payload("_rexec"), 0).unwrap();
    until(job.as_mut(), || note.exists()).await;
    let group = fs::read_to_string(&note).unwrap().trim().to_owned();
    let members = || {
        let all = fs::read_dir("/proc").unwrap().flatten();
        let stats = all.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
        // What follows the name in parentheses: state, parent, group.
        let alive = stats.filter(|stat| {
            let fields = stat.rsplit(')').next().unwrap_or_default();
            let fields: Vec<&str> = fields.split_whitespace().collect();
            fields.get(2) == Some(&&*group) && fields.first() != Some(&"Z")
        });
        alive.count()
    };
    assert!(members() > 0);
    drop(job);
    until(std::future::pending(), || members() == 0).await;
}

#[test]
fn what_is_not_run() {
    let cluster = FakeCluster::new();
    let ready = exec(&cluster);
    assert!(ready.job(&payload("_rexec"), JOBS_MAX - 1).is_some());
    assert!(ready.job(&payload("_rexec"), JOBS_MAX).is_none());
    for bad in [
        &b""[..],
        b"{}",
        b"null",
        b"[]",
        br#"{"Prefix":"_rexec"}"#,
        b"\xff",
    ] {
        assert!(ready.job(bad, 0).is_none(), "{}", bad.escape_ascii());
    }
    let config = ExecConfig {
        enabled: false,
        ..(*ready.config).clone()
    };
    let idle = Exec::new(config, cluster.cluster());
    assert!(idle.job(&payload("_rexec"), 0).is_none());
    assert!(!ExecConfig::default().enabled);
    assert!(!format!("{ready:?}").contains("agent"), "{ready:?}");
}

#[test]
fn reads_jobs() {
    let command = |text: &str, wait| Work {
        what: What::Command(text.to_owned()),
        wait,
    };
    for (text, expected) in [
        (
            r#"{"Command":"uptime","Wait":2000000000}"#,
            Ok(command("uptime", Duration::from_secs(2))),
        ),
        (
            r#"{"Command":"uptime","Script":null,"Wait":0,"New":{}}"#,
            Ok(command("uptime", WAIT_MIN)),
        ),
        (r#"{"Wait":-5}"#, Ok(command("", WAIT_MIN))),
        (
            r#"{"Command":"x","Wait":9223372036854775807}"#,
            Ok(command("x", WAIT_MAX)),
        ),
        (
            r#"{"Script":"dHJ1ZQo=","Wait":100000000}"#,
            Ok(Work {
                what: What::Script(b"true\n".to_vec()),
                wait: WAIT_MIN,
            }),
        ),
        (
            r#"{"Script":"?"}"#,
            Err("the script is not base64".to_owned()),
        ),
    ] {
        assert_eq!(Work::read(text.as_bytes()), expected, "{text}");
    }
    assert!(Work::read(b"").is_err());
}
