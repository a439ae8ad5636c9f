//! What was registered over the API, on disk, in the original's files.
//!
//! | file below the data directory | holds | synced |
//! | --- | --- | --- |
//! | `services/<md5 of the id>` | a service and its token | yes |
//! | `checks/<md5 of the id>` | a check, how it is run, and its token | yes |
//! | `checks/state/<md5 of the id>` | what was last said of a check that waits to be told, and until when that counts | no |
//!
//! A synced file is replaced in one step or not at all; the others are written over, which a crash of this process doesn't tear.
//! One that can't be read is moved into `damaged/`, with a line in the log, and the agent starts without it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use md5::{Digest, Md5};
use model::{Check, GoDuration, Service, Text};
use serde::{Deserialize, Serialize};

use super::state::ITEMS_MAX;
use crate::definition::{CheckDefinition, CheckKind, Script, ServiceDefinition, Status, Ways};

/// No file of ours comes near; what is larger was not written by an agent.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// How long a file of what was said may have become before it is cut again; it grows to the longest output, no further.
const STATE_BYTES_MAX: usize = 64 << 10;

const SERVICES: &str = "services";
const CHECKS: &str = "checks";
const STATES: &str = "checks/state";
const DAMAGED: &str = "damaged";

/// A change of what is kept.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Edit {
    /// A service is kept.
    Service { service: Arc<Service>, token: Text },
    /// A check is kept; its definition says how it is run.
    Check {
        check: Arc<Check>,
        definition: Box<CheckDefinition>,
    },
    /// What was said of a check is kept for as long as it counts.
    State {
        id: Text,
        status: Status,
        output: Text,
        ttl: Duration,
        /// Whether it differs from what was said before, and not only in its time.
        is_news: bool,
    },
    /// The service of this id is kept no longer.
    NoService(Text),
    /// The check of this id is kept no longer.
    NoCheck(Text),
    /// What was said of the check of this id is kept no longer.
    NoState(Text),
}

impl Edit {
    /// Whether it may wait a little: if it gets lost, what was said before counts for its time.
    pub(super) fn may_wait(&self) -> bool {
        matches!(self, Self::State { is_news: false, .. })
    }
}

/// Without the token and without what was said.
impl fmt::Debug for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, id) = match self {
            Self::Service { service, .. } => ("Service", &service.id),
            Self::Check { check, .. } => ("Check", &check.check_id),
            Self::State { id, .. } => ("State", id),
            Self::NoService(id) => ("NoService", id),
            Self::NoCheck(id) => ("NoCheck", id),
            Self::NoState(id) => ("NoState", id),
        };
        f.debug_tuple(name).field(id).finish()
    }
}

/// What was found on disk.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Services; their checks stand for themselves.
    pub(super) services: Vec<ServiceDefinition>,
    /// Checks; one without a kind says what it says.
    pub(super) checks: Vec<CheckDefinition>,
    /// What was last said of checks, also where that counts no longer.
    pub(super) states: Vec<Said>,
}

/// What was last said of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) id: Text,
    pub(super) status: Status,
    pub(super) output: Text,
    /// For how long it counts from now on; zero if it doesn't.
    pub(super) left: Duration,
}

/// The files that are to be written, the last word on each.
#[derive(Debug, Default)]
pub(super) struct Batch(BTreeMap<PathBuf, Content>);

#[derive(Debug)]
struct Content {
    /// `None` removes the file.
    bytes: Option<Vec<u8>>,
    /// Whether it is on disk for good when the batch is done.
    is_synced: bool,
}

impl Batch {
    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes up a change; what it says replaces what an earlier one says of the same file.
    pub(super) fn add(&mut self, edit: &Edit) {
        let (folder, id, bytes, is_synced) = match edit {
            Edit::Service { service, token } => (
                SERVICES,
                &service.id,
                Some(service_json(service, token)),
                true,
            ),
            Edit::Check { check, definition } => {
                let id = &check.check_id;
                (CHECKS, id, Some(check_json(check, definition)), true)
            }
            Edit::State {
                id,
                status,
                output,
                ttl,
                is_news: _,
            } => {
                let bytes = state_json(id, *status, output, unix_now() + ttl.as_secs());
                (STATES, id, Some(bytes), false)
            }
            Edit::NoService(id) => (SERVICES, id, None, true),
            Edit::NoCheck(id) => (CHECKS, id, None, true),
            Edit::NoState(id) => (STATES, id, None, false),
        };
        let place = Path::new(folder).join(file_name(id));
        self.0.insert(place, Content { bytes, is_synced });
    }

    /// A service is written after its checks and removed before them: whoever is killed in between must not find one
    /// without them, which would look healthy.
    fn in_order(self) -> impl Iterator<Item = (PathBuf, Content)> {
        let (written, removed): (BTreeMap<_, _>, BTreeMap<_, _>) = self
            .0
            .into_iter()
            .partition(|(_, content)| content.bytes.is_some());
        written.into_iter().chain(removed.into_iter().rev())
    }

    /// Writes all of it below the data directory, and goes on after a failure; the first one comes back.
    pub(super) fn write(self, data_dir: &Path) -> io::Result<()> {
        let mut outcome = Ok(());
        let mut folders = BTreeMap::new();
        for (place, content) in self.in_order() {
            let path = data_dir.join(place);
            let written = put(&path, &content);
            if let Err(error) = &written {
                tracing::error!("cannot write {}: {error}", path.display());
            }
            if content.is_synced
                && let Some(folder) = path.parent()
            {
                folders.insert(folder.to_owned(), ());
            }
            outcome = outcome.and(written);
        }
        for folder in folders.into_keys() {
            // A name that came or went is on disk for good only when its folder is.
            let synced = match File::open(&folder) {
                Ok(folder) => folder.sync_all(),
                // Nothing was ever kept there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            };
            outcome = outcome.and(synced);
        }
        outcome
    }
}

/// Replaces or removes one file.
fn put(path: &Path, content: &Content) -> io::Result<()> {
    let Some(bytes) = &content.bytes else {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
    };
    if !content.is_synced {
        return overwrite(path, bytes);
    }
    // One batch is written at a time, so nobody else uses this name.
    let aside = path.with_extension("tmp");
    let mut file = create(&aside)?;
    file.set_len(0)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    drop(file);
    fs::rename(&aside, path)
}

/// Writes over what is there, in one call and without cutting it short: blanks at the end mean nothing.
///
/// File systems bring a file to the disk before they let it take another's place, which would cost more than all the rest
/// where a thousand checks are told of every few seconds. A crash of this process doesn't tear one small write.
fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create(path)?;
    let length = file.metadata()?.len();
    match usize::try_from(length) {
        Ok(length) if length > bytes.len() && length <= STATE_BYTES_MAX => {
            let mut padded = bytes.to_vec();
            padded.resize(length, b' ');
            file.write_all(&padded)
        }
        Ok(length) if length <= bytes.len() => file.write_all(bytes),
        Ok(_) | Err(_) => {
            file.set_len(0)?;
            file.write_all(bytes)
        }
    }
}

/// Opens a file for writing, and makes it and its folder if need be. Tokens are secrets, so nobody else may read it.
fn create(path: &Path) -> io::Result<File> {
    let open = || {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
    };
    match (open(), path.parent()) {
        (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
            open()
        }
        (opened, _) => opened,
    }
}

/// Reads all that is kept below the data directory.
///
/// What can't be read is named in the log, moved aside where that may help, and otherwise left out.
pub(super) fn load(data_dir: &Path) -> Kept {
    load_at(data_dir, unix_now())
}

fn load_at(data_dir: &Path, now: u64) -> Kept {
    Kept {
        services: load_folder(data_dir, SERVICES, service_read),
        checks: load_folder(data_dir, CHECKS, check_read),
        states: load_folder(data_dir, STATES, |bytes| state_read(bytes, now)),
    }
}

/// Reads the files of one folder, by name.
fn load_folder<T>(
    data_dir: &Path,
    folder: &str,
    read: impl Fn(&[u8]) -> Result<(Text, T), String>,
) -> Vec<T> {
    let path = data_dir.join(folder);
    let names = match names_in(&path) {
        Ok(names) => names,
        Err(error) => {
            tracing::error!("cannot read {}: {error}", path.display());
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for name in names {
        let file = path.join(&name);
        let outcome = bytes_of(&file).and_then(|bytes| read(&bytes));
        let problem = match outcome {
            // A copy under another name would come back after its original is removed.
            Ok((id, _)) if file_name(&id) != name => {
                format!("it holds {id:?}, whose file has another name")
            }
            Ok((_, value)) => {
                found.push(value);
                continue;
            }
            Err(problem) => problem,
        };
        move_aside(data_dir, folder, &name, &problem);
    }
    found
}

/// The names of the files that hold something, in order.
fn names_in(path: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_ours && names.len() < ITEMS_MAX {
            names.push(name);
        } else {
            // What a crash left of a file that was being replaced, for example.
            tracing::warn!("ignoring the file {}", entry.path().display());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, String> {
    let read = || {
        let mut bytes = Vec::new();
        let file = File::open(path)?;
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error: io::Error| error.to_string())?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("larger than {FILE_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}

/// Takes a file out of the way that is no use, so that it can be looked at.
fn move_aside(data_dir: &Path, folder: &str, name: &str, problem: &str) {
    let from = data_dir.join(folder).join(name);
    let aside = data_dir.join(DAMAGED);
    let to = aside.join(format!("{}-{name}", folder.replace('/', "-")));
    let moved = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&aside)
        .and_then(|()| fs::rename(&from, &to));
    match moved {
        Ok(()) => tracing::error!(
            "{} is damaged: {problem}; it is {} now",
            from.display(),
            to.display()
        ),
        Err(error) => tracing::error!(
            "{} is damaged: {problem}; it cannot be moved aside: {error}",
            from.display()
        ),
    }
}

/// The original's name for the file of this id.
fn file_name(id: &Text) -> String {
    let mut name = String::with_capacity(32);
    for byte in Md5::digest(id.as_bytes()) {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// Seconds since 1970. What was said of a check counts across a restart, which no other clock survives.
fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceFile<'a> {
    #[serde(default, borrow)]
    token: Cow<'a, str>,
    #[serde(borrow)]
    service: ServiceShape<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceShape<'a> {
    #[serde(rename = "ID", default, borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    service: Cow<'a, str>,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default, borrow)]
    address: Cow<'a, str>,
    #[serde(default)]
    port: i64,
    #[serde(default)]
    enable_tag_override: bool,
    /// Later than 0.7.1, and written only where there is some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    meta: Option<BTreeMap<String, String>>,
    #[serde(default)]
    create_index: u64,
    #[serde(default)]
    modify_index: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CheckFile<'a> {
    #[serde(borrow)]
    check: CheckShape<'a>,
    #[serde(default)]
    chk_type: Option<KindShape>,
    #[serde(default, borrow)]
    token: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CheckShape<'a> {
    #[serde(default, borrow)]
    node: Cow<'a, str>,
    #[serde(rename = "CheckID", borrow)]
    check_id: Cow<'a, str>,
    #[serde(default, borrow)]
    name: Cow<'a, str>,
    #[serde(default, borrow)]
    status: Cow<'a, str>,
    #[serde(default, borrow)]
    notes: Cow<'a, str>,
    #[serde(default, borrow)]
    output: Cow<'a, str>,
    #[serde(rename = "ServiceID", default, borrow)]
    service_id: Cow<'a, str>,
    #[serde(default, borrow)]
    service_name: Cow<'a, str>,
    #[serde(default)]
    create_index: u64,
    #[serde(default)]
    modify_index: u64,
}

/// How a check is run; times are nanoseconds.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct KindShape {
    script: String,
    /// Later than 0.7.1, and written only where there are some; so are those further down.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<String>,
    #[serde(rename = "HTTP")]
    http: String,
    #[serde(rename = "TCP")]
    tcp: String,
    interval: i64,
    #[serde(rename = "DockerContainerID")]
    docker_container_id: String,
    shell: String,
    #[serde(rename = "TLSSkipVerify")]
    tls_skip_verify: bool,
    timeout: i64,
    #[serde(rename = "TTL")]
    ttl: i64,
    deregister_critical_service_after: i64,
    status: String,
    notes: String,
    #[serde(skip_serializing_if = "is_zero")]
    success_before_passing: u32,
    #[serde(skip_serializing_if = "is_zero")]
    failures_before_critical: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StateFile<'a> {
    #[serde(rename = "CheckID", borrow)]
    check_id: Cow<'a, str>,
    #[serde(default, borrow)]
    output: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    expires: i64,
}

/// What can't fail: these shapes have no keys but strings, and writing to memory has no end.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn text(text: &str) -> Text {
    Text::from(text)
}

fn service_json(service: &Service, token: &Text) -> Vec<u8> {
    let tags = service.tags.as_ref();
    let pairs = service.meta.iter();
    let meta: BTreeMap<_, _> = pairs
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    json(&ServiceFile {
        token: token.to_lossy(),
        service: ServiceShape {
            id: service.id.to_lossy(),
            service: service.name.to_lossy(),
            tags: tags.map(|tags| tags.iter().map(Text::to_string).collect()),
            address: service.address.to_lossy(),
            port: service.port,
            enable_tag_override: service.enable_tag_override,
            meta: (!meta.is_empty()).then_some(meta),
            create_index: 0,
            modify_index: 0,
        },
    })
}

fn service_read(bytes: &[u8]) -> Result<(Text, ServiceDefinition), String> {
    let file: ServiceFile<'_> = serde_json::from_slice(bytes).map_err(|why| why.to_string())?;
    let shape = file.service;
    let name = text(&shape.service);
    let id = match &*shape.id {
        "" => name.clone(),
        id => text(id),
    };
    let tags = shape.tags;
    let meta = shape.meta.unwrap_or_default();
    let service = Service {
        id: id.clone(),
        name,
        tags: tags.map(|tags| tags.into_iter().map(Text::from).collect()),
        address: text(&shape.address),
        port: shape.port,
        enable_tag_override: shape.enable_tag_override,
        meta: meta
            .into_iter()
            .map(|(name, value)| (Text::from(name), Text::from(value)))
            .collect(),
        ..Service::default()
    };
    let definition = ServiceDefinition {
        service,
        checks: Vec::new(),
        token: text(&file.token),
    };
    Ok((id, definition))
}

fn check_json(check: &Check, definition: &CheckDefinition) -> Vec<u8> {
    json(&CheckFile {
        check: CheckShape {
            node: check.node.to_lossy(),
            check_id: check.check_id.to_lossy(),
            name: check.name.to_lossy(),
            status: check.status.to_lossy(),
            notes: check.notes.to_lossy(),
            output: check.output.to_lossy(),
            service_id: check.service_id.to_lossy(),
            service_name: check.service_name.to_lossy(),
            create_index: 0,
            modify_index: 0,
        },
        chk_type: definition.kind.as_ref().map(|kind| KindShape {
            deregister_critical_service_after: nanoseconds(definition.deregister_after),
            status: definition
                .status
                .map_or_else(String::new, |status| status.name().to_owned()),
            notes: definition.notes.to_string(),
            success_before_passing: definition.success_before_passing,
            failures_before_critical: definition.failures_before_critical,
            ..KindShape::from(kind)
        }),
        token: definition.token.to_lossy(),
    })
}

impl From<&CheckKind> for KindShape {
    fn from(kind: &CheckKind) -> Self {
        let mut shape = Self::default();
        let every = match kind {
            CheckKind::Ttl(ttl) => {
                shape.ttl = given(*ttl);
                return shape;
            }
            CheckKind::Script { script, every } => {
                shape.set_script(script);
                every
            }
            CheckKind::Http {
                url,
                tls_skip_verify,
                every,
            } => {
                shape.http.clone_from(url);
                shape.tls_skip_verify = *tls_skip_verify;
                every
            }
            CheckKind::Tcp { address, every } => {
                shape.tcp.clone_from(address);
                every
            }
            CheckKind::Docker {
                container,
                shell,
                script,
                every,
            } => {
                shape.docker_container_id.clone_from(container);
                shape.shell.clone_from(shell);
                shape.set_script(script);
                every
            }
        };
        shape.interval = given(every.interval);
        shape.timeout = nanoseconds(every.timeout);
        shape
    }
}

impl KindShape {
    fn set_script(&mut self, script: &Script) {
        match script {
            Script::Line(line) => self.script.clone_from(line),
            Script::List(list) => self.args.clone_from(list),
        }
    }
}

fn check_read(bytes: &[u8]) -> Result<(Text, CheckDefinition), String> {
    let file: CheckFile<'_> = serde_json::from_slice(bytes).map_err(|why| why.to_string())?;
    let id = text(&file.check.check_id);
    let mut definition = CheckDefinition {
        id: id.clone(),
        name: text(&file.check.name),
        notes: text(&file.check.notes),
        service_id: text(&file.check.service_id),
        token: text(&file.token),
        ..CheckDefinition::default()
    };
    if let Some(shape) = file.chk_type {
        definition.status = Status::named(shape.status.as_bytes());
        let after = GoDuration(shape.deregister_critical_service_after);
        definition.deregister_after = after.to_std();
        definition.success_before_passing = shape.success_before_passing;
        definition.failures_before_critical = shape.failures_before_critical;
        let script = if shape.args.is_empty() {
            Script::Line(shape.script)
        } else {
            Script::List(shape.args)
        };
        let ways = Ways {
            ttl: GoDuration(shape.ttl),
            interval: GoDuration(shape.interval),
            timeout: GoDuration(shape.timeout),
            script: Some(script),
            http: shape.http,
            tls_skip_verify: shape.tls_skip_verify,
            tcp: shape.tcp,
            docker_container: shape.docker_container_id,
            shell: shape.shell,
        };
        let kind = ways.kind().ok_or("it names no way to check")?;
        definition.kind = Some(kind);
    }
    Ok((id, definition))
}

fn state_json(id: &Text, status: Status, output: &Text, expires: u64) -> Vec<u8> {
    json(&StateFile {
        check_id: id.to_lossy(),
        output: output.to_lossy(),
        status: status.name().into(),
        expires: i64::try_from(expires).unwrap_or(i64::MAX),
    })
}

fn state_read(bytes: &[u8], now: u64) -> Result<(Text, Said), String> {
    let file: StateFile<'_> = serde_json::from_slice(bytes).map_err(|why| why.to_string())?;
    let id = text(&file.check_id);
    let status = Status::named(file.status.as_bytes())
        .ok_or_else(|| format!("{:?} is no status", file.status))?;
    let expires = u64::try_from(file.expires).unwrap_or(0);
    let said = Said {
        id: id.clone(),
        status,
        output: text(&file.output),
        left: Duration::from_secs(expires.saturating_sub(now)),
    };
    Ok((id, said))
}

/// Reads the bytes as a file of each kind, for fuzzing: what can be read is written, and reads back as the same.
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Ok((id, read)) = service_read(bytes) {
        let written = service_json(&read.service, &read.token);
        assert_eq!(service_read(&written), Ok((id, read)));
    }
    if let Ok((id, read)) = check_read(bytes) {
        let check = Check {
            check_id: id.clone(),
            name: read.name.clone(),
            notes: read.notes.clone(),
            service_id: read.service_id.clone(),
            ..Check::default()
        };
        let written = check_json(&check, &read);
        assert_eq!(check_read(&written), Ok((id, read)));
    }
    let now = 1_480_000_000;
    if let Ok((id, read)) = state_read(bytes, now) {
        let expires = now + read.left.as_secs();
        let written = state_json(&id, read.status, &read.output, expires);
        assert_eq!(state_read(&written, now), Ok((id, read)));
    }
}

/// A span that was given; zero would read as one that wasn't, and comes of spans that run backwards.
fn given(span: Duration) -> i64 {
    match nanoseconds(span) {
        0 => -1,
        span => span,
    }
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
