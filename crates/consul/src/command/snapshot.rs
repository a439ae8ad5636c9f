//! `consul snapshot`: save, restore, inspect; what compares is in `compare.rs`.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backup::{KeyDetails, Options, Report, Tally};
use bytes::{Bytes, BytesMut};
use client::{Client, RestoreOptions, Skipped, SnapshotDownload};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::sync::mpsc;

use super::kv::pretty_json;
use super::{FAILED, OK, http};
use crate::config::reason;
use crate::console::Console;
use crate::flags::{Flag, Parsed, Syntax, Value};

pub(super) mod compare;

pub(super) const INSPECT: Syntax = Syntax {
    name: "snapshot inspect",
    arguments: "FILE",
    summary: "Shows what is in a snapshot file",
    about: "Proves that a snapshot file is sound and shows what is in it. No server is needed. FILE is the name of \
            the file, or - for standard input.",
    example: "consul snapshot inspect backup.snap\n\
              consul snapshot inspect -kvdetails -kvdepth=1 backup.snap\n\
              consul snapshot inspect -format=json backup.snap",
    flags: &[&[
        Flag::new("format", Value::Text("pretty"), "format", "pretty or json."),
        Flag::switch(
            "kvdetails",
            false,
            "Also counts keys by the beginning of their names.",
        ),
        Flag::new(
            "kvdepth",
            Value::Uint(2),
            "number",
            "With -kvdetails: how many parts of a name count.",
        ),
        Flag::new(
            "kvfilter",
            Value::Text(""),
            "prefix",
            "With -kvdetails: only keys that begin with this.",
        ),
    ]],
};

pub(super) const RESTORE: Syntax = Syntax {
    name: "snapshot restore",
    arguments: "FILE",
    summary: "Restores a cluster from a snapshot file",
    about: "Replaces the whole state of the cluster by that of a snapshot file: keys, services, sessions, tokens \
            and queries. A file that isn't sound is refused before anything changes. FILE is the name of the file, \
            or - for standard input.",
    example: "consul snapshot restore backup.snap\n\
              consul snapshot restore -dry-run backup.snap",
    flags: &[
        compare::DRY_RUN,
        &[Flag::switch(
            "skip-unknown",
            false,
            "Leaves out records of types that only other releases know, instead of refusing the file.",
        )],
        http::AGENT,
        http::DATACENTER,
    ],
};

pub(super) const SAVE: Syntax = Syntax {
    name: "snapshot save",
    arguments: "FILE",
    summary: "Saves the state of a cluster to a file",
    about: "Saves the whole state of the cluster to a file: keys, services, sessions, tokens and queries. The file \
            appears under its name only when it is complete, checked and safely on disk, and only its owner may \
            read it. FILE is the name of the file, or - for standard output.",
    example: "consul snapshot save backup.snap\n\
              consul snapshot save - | gpg --encrypt -r ops > backup.snap.gpg",
    flags: &[http::AGENT, http::DATACENTER, http::STALE],
};

pub(super) fn save(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let file = match file_argument(parsed) {
        Ok(file) => file,
        Err(why) => return http::failed(console, why),
    };
    let outcome = http::client(parsed, console)
        .map_err(|why| http::cannot_connect(&why))
        .and_then(|client| http::wait_for(save_to(file, &client, parsed, console)));
    // Where the snapshot itself goes to standard output, nothing else may.
    let to_output = file == "-";
    match (outcome, to_output) {
        (Ok(index), false) => console.say(saved(index)),
        (Ok(index), true) => console.note(saved(index)),
        (Err(why), false) => return http::failed(console, why),
        (Err(why), true) => {
            console.note(why);
            return FAILED;
        }
    }
    OK
}

fn saved(index: u64) -> String {
    format!("Saved and verified snapshot to index {index}")
}

async fn save_to(
    file: &str,
    client: &Client,
    parsed: &Parsed,
    console: &mut Console<'_>,
) -> Result<u64, String> {
    // The request comes first: a refused one must not leave a trace.
    let download = client
        .snapshot_save(&http::query_options(parsed))
        .await
        .map_err(|why| format!("Error saving snapshot: {why}"))?;
    let index = download.meta.index;
    let progress = Progress::new("Saving", None, console);
    let written = |why: &io::Error| format!("Error writing snapshot file: {}", reason(why));

    let target = Target::of(file).map_err(|why| creating(file, &why))?;
    match target {
        Target::File { path, directory } => {
            let mut scratch = tempfile::Builder::new()
                .prefix(".consul-snapshot-")
                .tempfile_in(&directory)
                .map_err(|why| creating(file, &why))?;
            http::unless_stopped(receive(download, scratch.as_file_mut(), progress)).await?;
            publish(scratch, &path, &directory).map_err(|why| written(&why))?;
        }
        Target::Stream(stream) => {
            // What can't be taken back is written only when it is known to be good.
            let mut scratch = tempfile::tempfile()
                .map_err(|why| creating(&std::env::temp_dir().display().to_string(), &why))?;
            receive(download, &mut scratch, progress).await?;
            scratch.rewind().map_err(|why| written(&why))?;
            match stream {
                Some(mut stream) => io::copy(&mut scratch, &mut stream),
                None => io::copy(&mut scratch, console.output)
                    .and_then(|size| console.output.flush().map(|()| size)),
            }
            .map_err(|why| written(&why))?;
        }
    }
    Ok(index)
}

fn creating(file: &str, why: &io::Error) -> String {
    format!("Error creating snapshot file: open {file}: {}", reason(why))
}

/// Where a snapshot goes.
#[derive(Debug)]
enum Target {
    /// A regular file, which appears when it is complete.
    File { path: PathBuf, directory: PathBuf },
    /// A device, a pipe, or standard output; it can't be replaced, only written to.
    Stream(Option<File>),
}

impl Target {
    fn of(file: &str) -> io::Result<Self> {
        if file == "-" {
            return Ok(Self::Stream(None));
        }
        // A link is followed, so that it is its target that is replaced.
        let path = fs::canonicalize(file).unwrap_or_else(|_| PathBuf::from(file));
        if let Ok(metadata) = fs::metadata(&path) {
            let kind = metadata.file_type();
            if kind.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            if kind.is_char_device() || kind.is_block_device() || kind.is_fifo() || kind.is_socket()
            {
                return fs::OpenOptions::new()
                    .write(true)
                    .open(&path)
                    .map(|stream| Self::Stream(Some(stream)));
            }
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        Ok(Self::File { path, directory })
    }
}

/// Takes a whole snapshot in and proves from the file that it is sound.
async fn receive(
    mut download: SnapshotDownload,
    scratch: &mut File,
    mut progress: Progress,
) -> Result<(), String> {
    loop {
        let chunk = download
            .chunk()
            .await
            .map_err(|why| format!("Error writing snapshot file: {why}"))?;
        let Some(chunk) = chunk else { break };
        scratch
            .write_all(&chunk)
            .map_err(|why| format!("Error writing snapshot file: {}", reason(&why)))?;
        progress.advance(chunk.len());
    }
    progress.finish();
    scratch
        .rewind()
        .map_err(|why| format!("Error opening snapshot file for verify: {}", reason(&why)))?;
    let fault = match backup::inspect(scratch, &Options::default()) {
        Ok(report) => report.fault,
        Err(why) => Some(why.to_string()),
    };
    fault.map_or(Ok(()), |why| {
        Err(format!("Error verifying snapshot file: {why}"))
    })
}

/// Gives a complete file its name, so that after a power cut there is the old file or the new one.
fn publish(scratch: NamedTempFile, path: &Path, directory: &Path) -> io::Result<()> {
    scratch.as_file().sync_all()?;
    scratch.persist(path).map_err(|why| why.error)?;
    File::open(directory)?.sync_all()
}

pub(super) fn restore(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    if parsed.switch("dry-run") {
        return match file_argument(parsed) {
            Ok(file) => compare::dry_run(file, parsed, console),
            Err(why) => http::failed(console, why),
        };
    }
    let outcome = file_argument(parsed).and_then(|file| {
        let opened = if file == "-" { None } else { Some(open(file)?) };
        let client = http::client(parsed, console).map_err(|why| http::cannot_connect(&why))?;
        let size = opened
            .as_ref()
            .and_then(|file| file.metadata().ok())
            .map(|metadata| metadata.len());
        let progress = Progress::new("Sending", size, console);
        let options = RestoreOptions {
            write: http::write_options(parsed),
            skip_unknown: parsed.switch("skip-unknown"),
        };
        match opened {
            Some(mut file) => http::wait_for(restore_from(&mut file, &client, &options, progress)),
            None => http::wait_for(restore_from(console.input, &client, &options, progress)),
        }
    });
    match outcome {
        Ok(skipped) => {
            console.say("Restored snapshot");
            for Skipped { r#type, count } in skipped {
                console.say(format_args!("Skipped {count} records of type {type}", type = r#type));
            }
            OK
        }
        Err(why) => http::failed(console, why),
    }
}

async fn restore_from(
    source: &mut dyn Read,
    client: &Client,
    options: &RestoreOptions,
    mut progress: Progress,
) -> Result<Vec<Skipped>, String> {
    const PIECE_SIZE: usize = 64 << 10;
    // A few pieces keep the connection busy; reading waits when they are not taken.
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(4);
    let body = futures::stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    let reading = async move {
        loop {
            let mut piece = BytesMut::zeroed(PIECE_SIZE);
            let read = match source.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => {
                    progress.advance(read);
                    Ok(piece.freeze().split_to(read))
                }
                Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                Err(why) => Err(why),
            };
            let failed = read.is_err();
            // Nobody takes it when the request has ended early, which then says why.
            if sender.send(read).await.is_err() || failed {
                break;
            }
        }
        progress.finish();
    };
    let ((), restored) = futures::join!(reading, client.snapshot_restore(body, options));
    restored.map_err(|why| format!("Error restoring snapshot: {why}"))
}

pub(super) fn inspect(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    // Who names a prefix wants to see the keys.
    let wants_keys = parsed.switch("kvdetails") || !parsed.text("kvfilter").is_empty();
    let keys = wants_keys.then(|| KeyDetails {
        depth: usize::try_from(parsed.uint("kvdepth")).unwrap_or(usize::MAX),
        filter: parsed.text("kvfilter").as_bytes().to_vec(),
    });
    let options = Options { keys };
    let outcome = file_argument(parsed).and_then(|file| {
        let render = match parsed.text("format") {
            "json" => as_json,
            "pretty" | "text" => as_text,
            other => return Err(format!("Unknown format {other}: it is pretty or json")),
        };
        let report = if file == "-" {
            backup::inspect(&mut *console.input, &options)
        } else {
            backup::inspect(open(file)?, &options)
        };
        let refused = |why: &dyn Display| format!("Error verifying snapshot: {why}");
        let report = report.map_err(|why| refused(&why))?;
        // What can be read is shown even of a state that a restore would refuse.
        console.say(render(&report, &options));
        report.fault.map_or(Ok(()), |why| Err(refused(&why)))
    });
    match outcome {
        Ok(()) => OK,
        Err(why) => http::failed(console, why),
    }
}

fn file_argument(parsed: &Parsed) -> Result<&str, String> {
    match &parsed.arguments[..] {
        [] => Err("Missing FILE argument".to_owned()),
        [file] if file.is_empty() => Err("Missing FILE argument".to_owned()),
        [file] => Ok(file),
        more => Err(format!(
            "Too many arguments (expected 1, got {})",
            more.len()
        )),
    }
}

fn open(file: &str) -> Result<File, String> {
    File::open(file)
        .and_then(|opened| {
            // Reading a directory fails later and less clearly.
            if opened.metadata()?.is_dir() {
                Err(io::ErrorKind::IsADirectory.into())
            } else {
                Ok(opened)
            }
        })
        .map_err(|why| format!("Error opening snapshot file: open {file}: {}", reason(&why)))
}

/// The five lines that tools read, then the counts.
fn as_text(report: &Report, options: &Options) -> String {
    let meta = &report.meta;
    let mut text = format!(
        "ID           {}\nSize         {}\nIndex        {}\nTerm         {}\nVersion      {}\n",
        printable(&meta.id),
        meta.size,
        meta.index,
        meta.term,
        meta.version
    );
    text.push('\n');
    text.push_str(&table("Type", &report.types));
    if options.keys.is_some() {
        text.push('\n');
        text.push_str(&table("Key Name", &report.keys));
    }
    if !report.skipped.is_empty() {
        text.push_str("\nSkipped: types of other releases. A restore refuses them unless -skip-unknown is given.\n");
        text.push_str(&table("Type", &report.skipped));
    }
    if let Err(why) = meta.check_restorable(report.state_size) {
        text.push_str(&format!("\nA restore would fail: {why}\n"));
    }
    text.truncate(text.trim_end().len());
    text
}

fn table(title: &str, tallies: &[Tally]) -> String {
    let rule = || ["----".to_owned(), "----".to_owned(), "----".to_owned()];
    let row = |tally: &Tally| {
        [
            printable(&tally.name),
            tally.count.to_string(),
            human(tally.size),
        ]
    };
    let total = Tally {
        name: "Total".to_owned(),
        count: tallies.iter().map(|tally| tally.count).sum(),
        size: total_size(tallies),
    };
    let mut rows = vec![
        [title.to_owned(), "Count".to_owned(), "Size".to_owned()],
        rule(),
    ];
    rows.extend(tallies.iter().map(row));
    rows.extend([rule(), row(&total)]);

    const GAP: usize = 6;
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
            + GAP
    };
    let (first, second) = (width(0), width(1));
    rows.iter()
        .map(|[name, count, size]| format!("{name:first$}{count:second$}{size}\n"))
        .collect()
}

fn as_json(report: &Report, options: &Options) -> String {
    let list = |tallies: &[Tally]| -> serde_json::Value {
        tallies
            .iter()
            .map(|tally| json!({"Name": tally.name, "Sum": tally.size, "Count": tally.count}))
            .collect()
    };
    let meta = &report.meta;
    let mut value = json!({
        "Meta": {
            "ID": meta.id,
            "Size": meta.size,
            "Index": meta.index,
            "Term": meta.term,
            "Version": meta.version,
        },
        "Stats": list(&report.types),
        "Skipped": list(&report.skipped),
        "TotalSize": total_size(&report.types),
    });
    if options.keys.is_some() {
        value["StatsKV"] = list(&report.keys);
        value["TotalSizeKV"] = json!(total_size(&report.keys));
    }
    pretty_json(&value, b"   ")
}

fn total_size(tallies: &[Tally]) -> u64 {
    tallies.iter().map(|tally| tally.size).sum()
}

/// Names come out of the file, and must not steer the terminal.
fn printable(name: &str) -> String {
    name.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// A size in the largest unit that fits, with one decimal where it isn't whole: `1.5KB`.
fn human(size: u64) -> String {
    const UNITS: [&str; 4] = ["KB", "MB", "GB", "TB"];
    if size == 0 {
        return "0".to_owned();
    }
    let mut shift = 0;
    while shift < UNITS.len() && size >> (10 * (shift + 1)) > 0 {
        shift += 1;
    }
    let Some(unit) = shift.checked_sub(1).map(|unit| UNITS[unit]) else {
        return format!("{size}B");
    };
    // In tenths, rounded half up, without floating point.
    let one = 1_u128 << (10 * shift);
    let tenths = (u128::from(size) * 10 + one / 2) / one;
    match tenths % 10 {
        0 => format!("{}{unit}", tenths / 10),
        tenth => format!("{}.{tenth}{unit}", tenths / 10),
    }
}

/// A bar on standard error for work that takes more than a second, if somebody is there to see it.
struct Progress {
    begun: Instant,
    what: &'static str,
    total: Option<u64>,
    done: u64,
    shown: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new(what: &'static str, total: Option<u64>, console: &Console<'_>) -> Self {
        Self {
            begun: Instant::now(),
            what,
            total,
            done: 0,
            shown: console.errors_is_terminal,
            bar: None,
        }
    }

    fn advance(&mut self, more: usize) {
        self.done += more as u64;
        if self.shown && self.bar.is_none() && self.begun.elapsed() > Duration::from_secs(1) {
            self.bar = Some(self.start_bar());
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        }
    }

    fn start_bar(&self) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(self.total, ProgressDrawTarget::stderr());
        let template = match self.total {
            Some(_) => "{msg} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec}",
            None => "{msg} {bytes} {bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(self.what);
        // What came before the bar would look like a burst.
        bar.set_position(self.done);
        bar.reset_eta();
        bar
    }

    /// Takes the bar away; what is left of it would only be in the way of the result.
    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::command::stub::{Reply, Stub};
    use crate::console::tests::{Printed, consul};

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../fixtures/snapshots")
            .join(name)
    }

    fn saving(reply: Reply) -> Stub {
        Stub::tcp(move |_| Reply {
            headers: &[("X-Consul-Index", "68")],
            ..reply.clone()
        })
    }

    fn run(stub: &Stub, words: &[&str], input: &[u8]) -> Printed {
        let address = format!("-http-addr={}", stub.address);
        consul(
            &[&["snapshot", words[0], &address], &words[1..]].concat(),
            input,
            &[],
        )
    }

    fn names_in(room: &Path) -> Vec<String> {
        let entries = fs::read_dir(room).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn saves_whole_files_that_only_the_owner_reads() {
        let archive = fs::read(fixture("full-0.7.1.snap")).unwrap();
        let stub = saving(Reply::ok(archive.clone()));
        let room = tempfile::tempdir().unwrap();
        let file = room.path().join("a.snap");
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let link = room.path().join("link.snap");
        std::os::unix::fs::symlink(&file, &link).unwrap();

        let printed = run(&stub, &["save", "-stale", link.to_str().unwrap()], b"");
        assert_eq!(
            (printed.output.as_str(), printed.status),
            ("Saved and verified snapshot to index 68\n", 0)
        );
        assert_eq!(fs::read(&file).unwrap(), archive);
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(stub.lines(), ["GET /v1/snapshot?stale="]);
        let mut names = names_in(room.path());
        names.sort();
        assert_eq!(names, ["a.snap", "link.snap"]);
    }

    #[test]
    fn a_failed_save_leaves_no_trace() {
        let archive = fs::read(fixture("full-0.7.1.snap")).unwrap();
        let broken = fs::read(fixture("edge/crash-state-truncated.snap")).unwrap();
        let cases = [
            (
                Reply::status(403, "Permission denied"),
                "Error saving snapshot: Unexpected response code: 403 (Permission denied)\n",
            ),
            (
                Reply {
                    cut: Some(1000),
                    ..Reply::ok(archive.clone())
                },
                "Error writing snapshot file: ",
            ),
            (
                Reply::ok(&archive[..1000]),
                "Error verifying snapshot file: failed to read snapshot file: ",
            ),
            (
                Reply::ok(broken),
                "Error verifying snapshot file: unexpected EOF (record ",
            ),
            (
                Reply::ok(""),
                "Error verifying snapshot file: failed to decompress snapshot: EOF\n",
            ),
        ];
        for (reply, problem) in cases {
            let stub = saving(reply);
            let room = tempfile::tempdir().unwrap();
            let file = room.path().join("a.snap");
            let printed = run(&stub, &["save", file.to_str().unwrap()], b"");
            assert_eq!(printed.status, 1);
            assert!(printed.output.starts_with(problem), "{}", printed.output);
            assert_eq!(names_in(room.path()), [""; 0]);

            fs::write(&file, "old").unwrap();
            assert_eq!(run(&stub, &["save", file.to_str().unwrap()], b"").status, 1);
            assert_eq!(fs::read(&file).unwrap(), b"old");
            assert_eq!(names_in(room.path()), ["a.snap"]);

            let printed = run(&stub, &["save", "-"], b"");
            assert_eq!((printed.output.as_str(), printed.status), ("", 1));
            assert!(printed.errors.starts_with(problem), "{}", printed.errors);
        }
    }

    #[test]
    fn saves_to_standard_output_and_refuses_odd_places() {
        let archive = fs::read(fixture("empty.snap")).unwrap();
        let stub = saving(Reply::ok(archive.clone()));
        let mut output = Vec::new();
        let mut errors = Vec::new();
        let mut console = Console {
            input: &mut io::empty(),
            output: &mut output,
            errors: &mut errors,
            errors_is_terminal: false,
            environment: [("CONSUL_HTTP_ADDR".to_owned(), stub.address.clone())].into(),
        };
        let line = ["snapshot", "save", "-"].map(str::to_owned);
        assert_eq!(crate::command::dispatch(&line, &mut console), OK);
        assert_eq!(output, archive);
        assert_eq!(errors, b"Saved and verified snapshot to index 68\n");

        assert_eq!(run(&stub, &["save", "/dev/null"], b"").status, OK);
        assert!(
            fs::metadata("/dev/null")
                .unwrap()
                .file_type()
                .is_char_device()
        );
        let cases = [
            (
                "/nonexistent/a",
                "Error creating snapshot file: open /nonexistent/a: no such file or directory\n",
            ),
            (
                "/",
                "Error creating snapshot file: open /: is a directory\n",
            ),
        ];
        for (file, problem) in cases {
            assert_eq!(run(&stub, &["save", file], b"").output, problem);
        }
    }

    #[test]
    fn restores_from_a_file_or_standard_input() {
        let stub = Stub::tcp(|_| Reply::ok(""));
        let path = fixture("large-10k.snap");
        let archive = fs::read(&path).unwrap();
        let printed = run(&stub, &["restore", path.to_str().unwrap()], b"");
        assert_eq!(
            (printed.output.as_str(), printed.status),
            ("Restored snapshot\n", 0)
        );
        let printed = run(
            &stub,
            &["restore", "-skip-unknown", "-datacenter=d", "-"],
            &archive,
        );
        assert_eq!(
            (printed.output.as_str(), printed.status),
            ("Restored snapshot\n", 0)
        );
        let asked = stub.asked();
        assert!(asked.iter().all(|asked| asked.body == archive));
        assert_eq!(asked[0].line, "PUT /v1/snapshot");
        assert_eq!(asked[1].line, "PUT /v1/snapshot?dc=d&skip-unknown=");
    }

    #[test]
    fn says_why_a_restore_failed() {
        let stub = Stub::tcp(|_| {
            Reply::status(500, "failed to decompress snapshot: gzip: invalid header")
        });
        let printed = run(&stub, &["restore", "-"], b"x");
        assert_eq!(
            printed.output,
            "Error restoring snapshot: Unexpected response code: 500 (failed to decompress snapshot: gzip: invalid header)\n"
        );
        let cases: &[(&[&str], &str)] = &[
            (&["restore"], "Missing FILE argument\n"),
            (
                &["restore", "a", "b"],
                "Too many arguments (expected 1, got 2)\n",
            ),
            (
                &["restore", "/nonexistent"],
                "Error opening snapshot file: open /nonexistent: no such file or directory\n",
            ),
            (&["save"], "Missing FILE argument\n"),
            (&["inspect"], "Missing FILE argument\n"),
            (
                &["inspect", "a", "b"],
                "Too many arguments (expected 1, got 2)\n",
            ),
        ];
        for (words, problem) in cases {
            let line: Vec<&str> = std::iter::once(&"snapshot")
                .chain(*words)
                .copied()
                .collect();
            let printed = consul(&line, b"", &[]);
            assert_eq!(
                (printed.output.as_str(), printed.status),
                (*problem, 1),
                "{words:?}"
            );
        }
        let printed = consul(&["snapshot", "restore", "-stale", "a"], b"", &[]);
        assert_eq!(
            printed.errors.lines().next(),
            Some("flag provided but not defined: -stale")
        );
    }

    #[test]
    fn inspects_without_a_server() {
        let path = fixture("full-0.7.1.snap");
        let printed = consul(&["snapshot", "inspect", path.to_str().unwrap()], b"", &[]);
        assert_eq!(printed.status, 0);
        assert_eq!(
            printed.output,
            "ID           2-68-1795329324463\n\
             Size         141161\n\
             Index        68\n\
             Term         2\n\
             Version      1\n\
             \n\
             Type                       Count      Size\n\
             ----                       ----       ----\n\
             KVS                        24         131KB\n\
             Register                   18         3.8KB\n\
             PreparedQuery              5          1.2KB\n\
             Session                    4          615B\n\
             ACL                        5          588B\n\
             Tombstone                  5          383B\n\
             CoordinateBatchUpdate      2          310B\n\
             ----                       ----       ----\n\
             Total                      63         137.9KB\n"
        );

        let archive = fs::read(fixture("from-1.4.0.snap")).unwrap();
        let printed = consul(&["snapshot", "inspect", "-"], &archive, &[]);
        assert_eq!(printed.status, 0);
        let (_, skipped) = printed.output.split_once("\nSkipped: ").unwrap();
        assert!(skipped.contains("\nACLToken "), "{}", printed.output);
    }

    #[test]
    fn inspects_keys_and_speaks_json() {
        let path = fixture("full-0.7.1.snap");
        let path = path.to_str().unwrap();
        let words = [
            "snapshot",
            "inspect",
            "-kvdetails",
            "-kvdepth=1",
            "-kvfilter=tomb/",
            path,
        ];
        let printed = consul(&words, b"", &[]);
        let (_, keys) = printed.output.split_once("\nKey Name ").unwrap();
        assert!(keys.contains("\ntomb "), "{}", printed.output);

        let words = ["snapshot", "inspect", "-kvdetails", "-format=json", path];
        let json: serde_json::Value =
            serde_json::from_str(&consul(&words, b"", &[]).output).unwrap();
        assert_eq!(json["Meta"]["ID"], "2-68-1795329324463");
        assert_eq!(
            json["Stats"][0],
            json!({"Name": "KVS", "Sum": 134_145, "Count": 24})
        );
        assert_eq!(json["TotalSize"], 141_161);
        assert_eq!(json["TotalSizeKV"], 134_145, "{json}");
        let printed = consul(&["snapshot", "inspect", "-format=xml", path], b"", &[]);
        assert_eq!(
            (printed.output.as_str(), printed.status),
            ("Unknown format xml: it is pretty or json\n", 1)
        );
    }

    #[test]
    fn inspecting_a_bad_file_is_a_failure_and_no_more() {
        let printed = consul(&["snapshot", "inspect", "-"], b"", &[]);
        assert_eq!(
            (printed.output.as_str(), printed.status),
            (
                "Error verifying snapshot: failed to decompress snapshot: EOF\n",
                1
            )
        );
        let edge = fs::read(fixture("edge/reject-meta-version-2.snap")).unwrap();
        let printed = consul(&["snapshot", "inspect", "-"], &edge, &[]);
        assert!(
            printed
                .output
                .ends_with("\nA restore would fail: Raft error when restoring snapshot: unsupported snapshot version 2\n"),
            "{}",
            printed.output
        );
        for file in fs::read_dir(fixture("edge")).unwrap() {
            let path = file.unwrap().path();
            let printed = consul(&["snapshot", "inspect", path.to_str().unwrap()], b"", &[]);
            let refused = printed.output.contains("Error verifying snapshot: ");
            assert_eq!(printed.status == 1, refused, "{path:?}: {}", printed.output);
        }
    }

    #[test]
    fn sizes_for_people() {
        let cases = [
            (0, "0"),
            (1, "1B"),
            (1023, "1023B"),
            (1024, "1KB"),
            (1536, "1.5KB"),
            (134_145, "131KB"),
            (1 << 20, "1MB"),
            (5 << 40, "5TB"),
            (u64::MAX, "16777216TB"),
        ];
        for (size, text) in cases {
            assert_eq!(human(size), text, "{size}");
        }
    }

    #[test]
    fn names_cannot_steer_the_terminal() {
        assert_eq!(printable("a/ü\u{1b}[31m\n"), "a/ü\\u{1b}[31m\\n");
    }
}
