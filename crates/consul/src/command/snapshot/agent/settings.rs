//! What was said becomes settings: flags win over files, files over the environment, and that over defaults.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backup::Retention;
use backup::seal::{BadRecipient, Recipient};
use backup::stores::{Azure, AzureCloud, Destination, Gcs, S3};
use client::{Address, Config, Tls};
use model::GoDuration;

use super::document::{self, Block, Document, Value, Values};
use super::keys::{self, DESTINATIONS, Kind, RETENTION, Reader};
use crate::command::http;
use crate::config::{self, LogLevel};
use crate::console::Console;
use crate::flags::{Parsed, Value as FlagValue};
use crate::logging::Facility;

/// The shortest time from one snapshot to the next.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The longest: beyond it what is measured in intervals makes no sense.
const INTERVAL_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// All that an agent is told.
#[derive(Debug)]
pub(super) struct Settings {
    /// Whom it asks.
    pub(super) client: Config,
    pub(super) log_level: LogLevel,
    /// Where else it logs.
    pub(super) syslog: Option<Facility>,
    /// How often, unless it is once.
    pub(super) interval: Option<Duration>,
    pub(super) stale: bool,
    /// The agent's own if empty.
    pub(super) datacenter: String,
    pub(super) service: String,
    /// Never if `None`.
    pub(super) deregister_after: Option<Duration>,
    pub(super) lock_key: String,
    pub(super) max_failures: u32,
    /// For whom snapshots are encrypted; nobody if empty.
    pub(super) recipients: Vec<Recipient>,
    /// How snapshots are kept where a destination doesn't say it.
    pub(super) retention: Retention,
    /// Where snapshots go; one at least.
    pub(super) destinations: Vec<Kept>,
    /// What to tell the operator about all this.
    pub(super) words: Vec<String>,
}

/// A destination, and what is kept there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) destination: Destination,
    pub(super) retention: Retention,
}

/// What was said in all places, before anybody judged it.
pub(super) struct Said {
    flags: Values,
    files: Document,
}

impl Said {
    pub(super) fn read(parsed: &Parsed) -> Result<Self, String> {
        if let Some(argument) = parsed.arguments.first() {
            return Err(format!(
                "Too many arguments: {argument:?} is none of the flags, and nothing else is expected"
            ));
        }
        Ok(Self {
            flags: document::of_flags(parsed)?,
            files: document::read_files(parsed)?,
        })
    }

    /// The keys of which something else was said before.
    pub(super) fn differences(&self, before: &Self) -> Vec<&'static str> {
        let is_changed = |key: &&str| {
            self.flags.get(key) != before.flags.get(key)
                || self.files.values.get(key) != before.files.values.get(key)
        };
        let settings = keys::SETTINGS.iter().map(|setting| setting.key);
        let mut changed: Vec<_> = settings.filter(is_changed).collect();
        if self.files.destinations != before.files.destinations {
            changed.push(DESTINATIONS);
        }
        changed
    }

    /// Judges it all.
    pub(super) fn settle(&self, console: &mut Console<'_>) -> Result<Settings, String> {
        let given = Given {
            layers: vec![&self.flags, &self.files.values],
            variables: &console.environment,
        };
        let mut words = Vec::new();
        given.refuse_logins()?;
        if given.has("license_path") || console.variable("CONSUL_LICENSE").is_some() {
            words.push("no license is needed; the one that is given is ignored".to_owned());
        }
        if given.has("snapshot.local_scratch_path") {
            let folder = PathBuf::from(given.text("snapshot.local_scratch_path"));
            usable("snapshot.local_scratch_path", &folder)?;
            words.push(
                "snapshots go straight to where they are kept; nothing is put into local_scratch_path"
                    .to_owned(),
            );
        }
        let retention = given.retention();
        let destinations = self.destinations(&given, &mut words)?;
        let interval = match given.time("snapshot.interval") {
            Duration::ZERO => None,
            interval if !(INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) => {
                return Err(format!(
                    "snapshot.interval: {} is neither 0 nor between {} and {}",
                    GoDuration::from(interval),
                    GoDuration::from(INTERVAL_MIN),
                    GoDuration::from(INTERVAL_MAX),
                ));
            }
            interval => Some(interval),
        };
        let syslog = given
            .switch("log.enable_syslog")
            .then(|| Facility::parse(&given.text("log.syslog_facility")))
            .transpose()
            .map_err(|why| format!("log.syslog_facility: {why}"))?;
        let max_failures = given.count("snapshot.max_failures");
        let settings = Settings {
            log_level: LogLevel::parse(&given.text("log.level"))
                .map_err(|why| format!("log.level: {why}"))?,
            syslog,
            interval,
            stale: given.switch("snapshot.stale"),
            datacenter: given.text("datacenter"),
            service: given.text("snapshot.service"),
            deregister_after: Some(given.time("snapshot.deregister_after"))
                .filter(|time| !time.is_zero()),
            lock_key: given.text("snapshot.lock_key"),
            max_failures: u32::try_from(max_failures)
                .map_err(|_| "snapshot.max_failures: so many are never reached".to_owned())?,
            recipients: given.recipients()?,
            retention,
            destinations,
            words,
            client: given.client()?,
        };
        let client = http::from_environment(settings.client, console);
        Ok(Settings { client, ..settings })
    }

    /// Where snapshots go.
    fn destinations(
        &self,
        given: &Given<'_>,
        words: &mut Vec<String>,
    ) -> Result<Vec<Kept>, String> {
        let mut all = Vec::new();
        for block in &self.files.destinations {
            let kept = given.within(block).kept(block.kind);
            let kept = kept.and_then(|kept| {
                kept.ok_or_else(|| format!("{} is missing", names_it(block.kind)))
            });
            all.push(kept.map_err(|why| format!("{}: {why}", block.place))?);
        }
        if all.is_empty() {
            for kind in [Kind::Aws, Kind::Azure, Kind::Google] {
                all.extend(given.kept(kind)?);
            }
            match given.first_of(Kind::Local) {
                _ if all.is_empty() => all.extend(given.kept(Kind::Local)?),
                Some(key) => words.push(format!(
                    "{key} is ignored, since another storage is set; {DESTINATIONS} takes several"
                )),
                None => {}
            }
        } else if let Some(key) = Kind::ALL.into_iter().find_map(|kind| given.first_of(kind)) {
            return Err(format!(
                "{key} and {DESTINATIONS} don't go together; make it one of the {DESTINATIONS}"
            ));
        }
        for (position, kept) in all.iter().enumerate() {
            let place = place_of(&kept.destination);
            if all[..position]
                .iter()
                .any(|other| place_of(&other.destination) == place)
            {
                return Err(format!("the same destination is given twice: {place}"));
            }
        }
        Ok(all)
    }
}

/// What was said, the stronger voice first.
#[derive(Clone)]
struct Given<'a> {
    layers: Vec<&'a Values>,
    variables: &'a BTreeMap<String, String>,
}

impl<'a> Given<'a> {
    /// The same with what a destination says on top.
    fn within(&self, block: &'a Block) -> Self {
        let mut within = self.clone();
        within.layers.insert(0, &block.values);
        within
    }

    fn said(&self, key: &str) -> Option<&'a Value> {
        self.layers.iter().find_map(|layer| layer.get(key))
    }

    fn variable(&self, key: &str) -> Option<&'a str> {
        let setting = keys::find(key).filter(|setting| setting.reader == Reader::Command)?;
        let names = setting.variables.iter();
        names
            .filter_map(|name| self.variables.get(*name))
            .map(String::as_str)
            .find(|text| !text.is_empty())
    }

    /// Whether it was said anywhere.
    fn has(&self, key: &str) -> bool {
        self.said(key).is_some() || self.variable(key).is_some()
    }

    /// The first key of this kind of storage of which anybody said anything.
    fn first_of(&self, kind: Kind) -> Option<&'static str> {
        let of_kind = |key: &&'static str| {
            key.strip_prefix(kind.group())
                .is_some_and(|rest| rest.starts_with('.'))
        };
        let keys = self.layers.iter().flat_map(|layer| layer.keys());
        keys.copied().find(of_kind)
    }

    fn default(key: &str) -> FlagValue {
        keys::find(key)
            .expect("only settings of the table are asked for")
            .flag
            .value()
    }

    fn text(&self, key: &str) -> String {
        match (self.said(key), self.variable(key), Self::default(key)) {
            (Some(Value::Text(text)), ..) => text.clone(),
            (_, Some(text), _) => text.to_owned(),
            (_, None, FlagValue::Text(default)) => default.to_owned(),
            (_, None, _) => String::new(),
        }
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        Some(self.text(key))
            .filter(|text| !text.is_empty())
            .map(PathBuf::from)
    }

    fn switch(&self, key: &str) -> bool {
        match (self.said(key), Self::default(key)) {
            (Some(Value::Switch(switch)), _) => *switch,
            (_, FlagValue::Switch(default)) => default,
            _ => false,
        }
    }

    fn count(&self, key: &str) -> u64 {
        match (self.said(key), Self::default(key)) {
            (Some(Value::Count(count)), _) => *count,
            (_, FlagValue::Uint(default)) => default,
            _ => 0,
        }
    }

    fn time(&self, key: &str) -> Duration {
        match (self.said(key), Self::default(key)) {
            (Some(Value::Time(time)), _) => *time,
            (_, FlagValue::Duration(default)) => GoDuration::parse(default)
                .expect("defaults are durations")
                .to_std(),
            _ => Duration::ZERO,
        }
    }

    fn texts(&self, key: &str) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        if let Some(Value::Texts(texts)) = self.said(key) {
            for text in texts {
                if !all.contains(text) {
                    all.push(text.clone());
                }
            }
        }
        all
    }

    fn recipients(&self) -> Result<Vec<Recipient>, String> {
        let texts = self.texts("snapshot.encrypt_to").into_iter();
        // What was given isn't shown: it may be a secret that was put in the wrong place.
        let recipients = texts.map(|text| {
            text.parse()
                .map_err(|why: BadRecipient| format!("snapshot.encrypt_to: {why}"))
        });
        recipients.collect()
    }

    fn refuse_logins(&self) -> Result<(), String> {
        let said = self.layers.iter().flat_map(|layer| layer.keys());
        match said.copied().find(|key| key.starts_with("login.")) {
            Some(key) => Err(format!(
                "{key}: servers of this release have no auth methods, with Kubernetes or without; give a token instead"
            )),
            None => Ok(()),
        }
    }

    fn client(&self) -> Result<Config, String> {
        let address = match self.text("http_addr") {
            address if address.is_empty() => Address::default(),
            address => address
                .parse()
                .map_err(|why: client::Error| format!("http_addr: {why}"))?,
        };
        let server_name = self.text("tls_server_name");
        Ok(Config {
            address,
            token: self.text("token"),
            tls: Tls {
                ca_file: self.path("ca_file"),
                ca_path: self.path("ca_path"),
                cert_file: self.path("cert_file"),
                key_file: self.path("key_file"),
                server_name: Some(server_name).filter(|name| !name.is_empty()),
                skip_verification: self.switch("tls_skip_verify"),
            },
            ..Config::default()
        })
    }

    fn retention(&self) -> Retention {
        // No store holds more than this counts.
        let [newest, hourly, daily, weekly, monthly] =
            RETENTION.map(|key| usize::try_from(self.count(key)).unwrap_or(usize::MAX));
        Retention {
            newest,
            hourly,
            daily,
            weekly,
            monthly,
        }
    }

    /// The place of this kind, if there is one.
    fn kept(&self, kind: Kind) -> Result<Option<Kept>, String> {
        let name = names_it(kind);
        if self.text(name).is_empty() {
            // A prefix alone is what sample files have.
            let said = self.layers.iter().flat_map(|layer| layer.iter());
            let meant = said
                .filter(|(_, value)| **value != Value::Switch(false))
                .map(|(key, _)| *key)
                .find(|key| key.starts_with(kind.group()) && !key.ends_with("key_prefix"));
            return match meant {
                Some(key) => Err(format!("{key} is given, but no {name}")),
                None => Ok(None),
            };
        }
        let destination = match kind {
            Kind::Local => Destination::Local(PathBuf::from(self.text(name))),
            Kind::Aws => Destination::S3(self.s3()),
            Kind::Azure => Destination::Azure(self.azure()?),
            Kind::Google => Destination::Gcs(self.google()),
        };
        Ok(Some(Kept {
            destination,
            retention: self.retention(),
        }))
    }

    fn s3(&self) -> S3 {
        let text = |name: &str| self.text(&format!("aws_storage.{name}"));
        let switch = |name: &str| self.switch(&format!("aws_storage.{name}"));
        S3 {
            region: text("s3_region"),
            bucket: text("s3_bucket"),
            key_prefix: text("s3_key_prefix"),
            access_key_id: text("access_key_id"),
            secret_access_key: text("secret_access_key"),
            session_token: text("session_token"),
            endpoint: text("s3_endpoint"),
            force_path_style: switch("s3_force_path_style"),
            server_side_encryption: switch("s3_server_side_encryption"),
            enable_kms: switch("s3_enable_kms"),
            kms_key: text("s3_kms_key"),
            static_snapshot_name: text("s3_static_snapshot_name"),
            role_arn: text("role_arn"),
            role_session_name: text("role_session_name"),
            web_identity_token_file: text("web_identity_token_file"),
            sts_endpoint: text("sts_endpoint"),
            iam_endpoint: text("iam_endpoint"),
        }
    }

    fn azure(&self) -> Result<Azure, String> {
        let text = |name: &str| self.text(&format!("azure_blob_storage.{name}"));
        let cloud = text("environment");
        Ok(Azure {
            account_name: text("account_name"),
            account_key: text("account_key"),
            container_name: text("container_name"),
            prefix: text("key_prefix"),
            environment: AzureCloud::parse(&cloud).ok_or_else(|| {
                format!(
                    "azure_blob_storage.environment: {cloud:?} is none of AZUREPUBLICCLOUD, AZURECHINACLOUD, \
                     AZUREGERMANCLOUD, AZUREUSGOVERNMENTCLOUD"
                )
            })?,
            service_principal_id: text("service_principal_id"),
            service_principal_secret: text("service_principal_secret"),
            tenant_id: text("tenant_id"),
            endpoint: text("endpoint"),
        })
    }

    fn google(&self) -> Gcs {
        let text = |name: &str| self.text(&format!("google_storage.{name}"));
        Gcs {
            bucket: text("bucket"),
            prefix: text("key_prefix"),
            endpoint: text("endpoint"),
        }
    }
}

/// The key without which there is no place of this kind.
fn names_it(kind: Kind) -> &'static str {
    match kind {
        Kind::Local => "local_storage.path",
        Kind::Aws => "aws_storage.s3_bucket",
        Kind::Azure => "azure_blob_storage.container_name",
        Kind::Google => "google_storage.bucket",
    }
}

/// What tells two destinations apart: in the same place they would remove each other's snapshots.
fn place_of(destination: &Destination) -> String {
    match destination {
        Destination::Local(folder) => folder.display().to_string(),
        Destination::S3(s3) => {
            let name = &s3.static_snapshot_name;
            format!(
                "{}s3://{}/{}{name}",
                s3.endpoint,
                s3.bucket,
                folder(&s3.key_prefix)
            )
        }
        Destination::Gcs(gcs) => {
            format!(
                "{}gs://{}/{}",
                gcs.endpoint,
                gcs.bucket,
                folder(&gcs.prefix)
            )
        }
        Destination::Azure(azure) => format!(
            "{}az://{}/{}/{}",
            azure.endpoint,
            azure.account_name,
            azure.container_name,
            folder(&azure.prefix)
        ),
    }
}

fn folder(prefix: &str) -> String {
    format!("{}/", prefix.trim_matches('/'))
}

/// Tries whether files can be made in a folder that is made if need be, rather than when the first snapshot comes.
pub(super) fn usable(key: &str, folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder)
        .and_then(|()| tempfile::tempfile_in(folder))
        .map(drop)
        .map_err(|why| {
            format!(
                "{key}: cannot write to {}: {}",
                folder.display(),
                config::reason(&why)
            )
        })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::SYNTAX;
    use super::*;

    /// What comes of flags, a file's object, and an environment.
    pub(in super::super) fn settle(
        words: &[&str],
        ours: &str,
        environment: &[(&str, &str)],
    ) -> Result<Settings, String> {
        let room = tempfile::tempdir().unwrap();
        let file = room.path().join("agent.json");
        fs::write(&file, format!(r#"{{"snapshot_agent": {ours}}}"#)).unwrap();
        let mut line: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        line.insert(0, format!("-config-file={}", file.display()));
        let said = Said::read(&SYNTAX.parse(&line).unwrap())?;
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        said.settle(&mut Console {
            input: &mut &b""[..],
            output: &mut output,
            errors: &mut errors,
            errors_is_terminal: false,
            environment: environment
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        })
    }

    fn address(settings: &Settings) -> String {
        format!("{:?}", settings.client.address)
    }

    #[test]
    fn a_flag_wins_over_a_file_and_that_over_the_environment() {
        let environment = [
            ("CONSUL_HTTP_ADDR", "environment:1"),
            ("CONSUL_HTTP_TOKEN", "environment"),
            ("CONSUL_CAPATH", "/environment"),
        ];
        let file = r#"{"http_addr": "file:1", "token": "file", "snapshot": {"retain": 7, "interval": "2h"}}"#;
        let flags = [
            "-http-addr=flag:1",
            "-token=flag",
            "-retain=8",
            "-interval=3h",
        ];
        let seen = |words: &[&str], file: &str, environment: &[(&str, &str)]| {
            let settings = settle(words, file, environment).unwrap();
            (
                address(&settings),
                settings.client.token.clone(),
                settings.retention.newest,
                settings.interval.unwrap().as_secs() / 3600,
            )
        };
        let http = |host: &str| format!("{:?}", Address::Http(format!("{host}:1")));
        let default = format!("{:?}", Address::default());
        assert_eq!(seen(&[], "{}", &[]), (default, String::new(), 30, 1));
        assert_eq!(
            seen(&[], "{}", &environment),
            (http("environment"), "environment".to_owned(), 30, 1)
        );
        assert_eq!(
            seen(&[], file, &environment),
            (http("file"), "file".to_owned(), 7, 2)
        );
        assert_eq!(
            seen(&flags, file, &environment),
            (http("flag"), "flag".to_owned(), 8, 3)
        );
        // What is empty wasn't said.
        assert_eq!(
            seen(&["-token="], r#"{"token": ""}"#, &environment).1,
            "environment"
        );
        let tls = settle(&["-client-cert=c"], r#"{"key_file": "k"}"#, &environment)
            .unwrap()
            .client
            .tls;
        assert_eq!(
            tls,
            Tls {
                ca_path: Some("/environment".into()),
                cert_file: Some("c".into()),
                key_file: Some("k".into()),
                ..Tls::default()
            }
        );
    }

    #[test]
    fn other_commands_variables_count_too() {
        let environment = [
            ("CONSUL_HTTP_SSL", "true"),
            ("CONSUL_HTTP_SSL_VERIFY", "false"),
            ("CONSUL_HTTP_AUTH", "user:word"),
        ];
        let client = settle(&[], r#"{"http_addr": "h:1"}"#, &environment)
            .unwrap()
            .client;
        assert!(matches!(client.address, Address::Https(_)));
        assert!(client.tls.skip_verification);
        assert_eq!(client.credentials.unwrap().user, "user");
    }

    #[test]
    fn the_defaults_of_the_original() {
        let settings = settle(&[], "{}", &[]).unwrap();
        assert_eq!(settings.log_level, LogLevel::Info);
        assert_eq!(settings.syslog, None);
        assert_eq!(settings.interval, Some(Duration::from_secs(3600)));
        assert_eq!(
            settings.deregister_after,
            Some(Duration::from_secs(72 * 3600))
        );
        assert_eq!(settings.service, "consul-snapshot");
        assert_eq!(settings.lock_key, "consul-snapshot/lock");
        assert_eq!((settings.max_failures, settings.stale), (3, false));
        assert_eq!(settings.words, [""; 0]);
        let kept = Kept {
            destination: Destination::Local(".".into()),
            retention: Retention {
                newest: 30,
                ..Retention::default()
            },
        };
        assert_eq!(settings.destinations, [kept]);
        let settings = settle(
            &["-deregister-after=0", "-interval=0", "-syslog"],
            "{}",
            &[],
        )
        .unwrap();
        assert_eq!((settings.deregister_after, settings.interval), (None, None));
        assert_eq!(settings.syslog, Some(Facility::LOCAL0));
    }

    #[test]
    fn every_setting_of_a_cloud_gets_there() {
        let amazon = r#"{"aws_storage": {
            "access_key_id": "id", "secret_access_key": "secret", "session_token": "token", "iam_endpoint": "http://iam",
            "role_arn": "arn", "role_session_name": "name", "web_identity_token_file": "/token",
            "sts_endpoint": "http://sts", "s3_region": "r", "s3_bucket": "b", "s3_key_prefix": "p",
            "s3_server_side_encryption": true, "s3_static_snapshot_name": "static", "s3_enable_kms": true,
            "s3_kms_key": "kms", "s3_endpoint": "http://s3", "s3_force_path_style": true}}"#;
        let s3 = S3 {
            region: "r".into(),
            bucket: "b".into(),
            key_prefix: "p".into(),
            access_key_id: "id".into(),
            secret_access_key: "secret".into(),
            session_token: "token".into(),
            endpoint: "http://s3".into(),
            force_path_style: true,
            server_side_encryption: true,
            enable_kms: true,
            kms_key: "kms".into(),
            static_snapshot_name: "static".into(),
            role_arn: "arn".into(),
            role_session_name: "name".into(),
            web_identity_token_file: "/token".into(),
            sts_endpoint: "http://sts".into(),
            iam_endpoint: "http://iam".into(),
        };
        let destination = |words: &[&str], file: &str, environment: &[(&str, &str)]| {
            let mut settings = settle(words, file, environment).unwrap();
            assert_eq!(settings.destinations.len(), 1);
            settings.destinations.remove(0).destination
        };
        assert_eq!(destination(&[], amazon, &[]), Destination::S3(s3));
        // What stands in the environment is the store's to find.
        let environment = [("AWS_REGION", "there"), ("AWS_ROLE_ARN", "arn")];
        let s3 = S3 {
            bucket: "b".into(),
            key_prefix: "consul-snapshot".into(),
            ..S3::default()
        };
        assert_eq!(
            destination(&["-aws-s3-bucket=b"], "{}", &environment),
            Destination::S3(s3)
        );
        let azure = r#"{"azure_blob_storage": {"account_name": "a", "account_key": "k", "container_name": "c",
            "environment": "AzureChinaCloud", "service_principal_id": "id", "service_principal_secret": "secret",
            "tenant_id": "t", "key_prefix": "p", "endpoint": "http://az"}}"#;
        let expected = Azure {
            account_name: "a".into(),
            account_key: "k".into(),
            container_name: "c".into(),
            prefix: "p".into(),
            environment: AzureCloud::China,
            service_principal_id: "id".into(),
            service_principal_secret: "secret".into(),
            tenant_id: "t".into(),
            endpoint: "http://az".into(),
        };
        assert_eq!(destination(&[], azure, &[]), Destination::Azure(expected));
        let expected = Gcs {
            bucket: "b".into(),
            prefix: "consul-snapshot".into(),
            endpoint: "http://g".into(),
        };
        assert_eq!(
            destination(&["-gcs-bucket=b", "-gcs-endpoint=http://g"], "{}", &[]),
            Destination::Gcs(expected)
        );
    }

    #[test]
    fn several_destinations_keep_each_their_own() {
        let file = r#"{"snapshot": {"retain": 5, "retain_daily": 6}, "backup_destinations": {
            "local_storage": [{"path": "/a"}, {"path": "/b", "retain": 0, "retain_monthly": 2}],
            "aws_storage": [{"s3_bucket": "x", "s3_region": "r"}, {"s3_bucket": "x", "s3_region": "r", "s3_key_prefix": "other"}]}}"#;
        let settings = settle(&["-retain-daily=9"], file, &[]).unwrap();
        let mut shown: Vec<_> = settings
            .destinations
            .iter()
            .map(|kept| {
                let Retention {
                    newest,
                    daily,
                    monthly,
                    ..
                } = kept.retention;
                (place_of(&kept.destination), newest, daily, monthly)
            })
            .collect();
        shown.sort();
        let expected = [
            ("/a", 5, 9, 0),
            ("/b", 0, 9, 2),
            ("s3://x/consul-snapshot/", 5, 9, 0),
            ("s3://x/other/", 5, 9, 0),
        ];
        assert_eq!(
            shown,
            expected.map(|(place, newest, daily, monthly)| (
                place.to_owned(),
                newest,
                daily,
                monthly
            ))
        );

        // Several kinds outside of the list are several destinations, but for the folder.
        let words = ["-aws-s3-bucket=b", "-gcs-bucket=b", "-local-path=/a"];
        let settings = settle(&words, "{}", &[]).unwrap();
        assert_eq!(settings.destinations.len(), 2);
        assert_eq!(
            settings.words,
            [
                "local_storage.path is ignored, since another storage is set; backup_destinations takes several"
            ]
        );
    }

    #[test]
    fn says_what_cannot_be() {
        let cases: &[(&[&str], &str, &str)] = &[
            (
                &["-interval=1ms"],
                "{}",
                "snapshot.interval: 1ms is neither 0 nor between 1s and 8784h0m0s",
            ),
            (
                &["-interval=9000h"],
                "{}",
                "snapshot.interval: 9000h0m0s is neither 0 nor between 1s and 8784h0m0s",
            ),
            (
                &["-log-level=loud"],
                "{}",
                "log.level: Invalid log level: LOUD. Valid log levels are: [TRACE DEBUG INFO WARN ERR]",
            ),
            (
                &["-syslog", "-syslog-facility=x"],
                "{}",
                "log.syslog_facility: invalid syslog facility: x",
            ),
            (
                &["-http-addr=a b"],
                "{}",
                "http_addr: invalid address \"a b\"",
            ),
            (
                &["extra"],
                "{}",
                "Too many arguments: \"extra\" is none of the flags, and nothing else is expected",
            ),
            (
                &[
                    "-azure-blob-container-name=c",
                    "-azure-blob-environment=moon",
                ],
                "{}",
                "azure_blob_storage.environment: \"moon\" is none of AZUREPUBLICCLOUD, AZURECHINACLOUD, AZUREGERMANCLOUD, \
                 AZUREUSGOVERNMENTCLOUD",
            ),
            (
                &["-aws-s3-region=r"],
                "{}",
                "aws_storage.s3_region is given, but no aws_storage.s3_bucket",
            ),
            (
                &["-encrypt-to=ssh-ed25519 AAAA"],
                "{}",
                "snapshot.encrypt_to: ssh keys are not taken as recipients; age-keygen makes one that is",
            ),
            (
                &["-local-scratch-path=/dev/null/x"],
                "{}",
                "snapshot.local_scratch_path: cannot write to /dev/null/x: not a directory",
            ),
            (
                &["-login-auth-method=k8s"],
                "{}",
                "login.auth_method: servers of this release have no auth methods, with Kubernetes or without; give a token \
                 instead",
            ),
            (
                &["-gcs-bucket=b"],
                r#"{"backup_destinations": {"local_storage": [{"path": "/a"}]}}"#,
                "google_storage.bucket and backup_destinations don't go together; make it one of the backup_destinations",
            ),
            (
                &[],
                r#"{"backup_destinations": {"google_storage": [{"bucket": "a"}, {}]}}"#,
                "backup_destinations.google_storage[1]: google_storage.bucket is missing",
            ),
            (
                &[],
                r#"{"backup_destinations": {"local_storage": [{"path": "/a", "retain": 3}, {"path": "/a"}]}}"#,
                "the same destination is given twice: /a",
            ),
            (
                &[],
                r#"{"backup_destinations": {"aws_storage": [{"s3_bucket": "a"}, {"s3_bucket": "a", "s3_key_prefix": "/consul-snapshot/"}]}}"#,
                "the same destination is given twice: s3://a/consul-snapshot/",
            ),
        ];
        for (words, file, message) in cases {
            assert_eq!(settle(words, file, &[]).err().as_deref(), Some(*message));
        }
    }

    #[test]
    fn sample_files_of_the_original_are_read() {
        // What its documentation shows, with every key and its default.
        let file = r#"{"http_addr": "127.0.0.1:8500", "token": "", "datacenter": "", "ca_file": "", "ca_path": "",
            "cert_file": "", "key_file": "", "license_path": "/etc/license.hclic", "tls_server_name": "",
            "login": {"auth_method": "", "bearer_token": "", "bearer_token_file": "", "meta": {}},
            "log": {"level": "INFO", "enable_syslog": false, "syslog_facility": "LOCAL0"},
            "snapshot": {"interval": "1h", "retain": 30, "stale": false, "service": "consul-snapshot",
                "deregister_after": "72h", "lock_key": "consul-snapshot/lock", "max_failures": 3, "local_scratch_path": ""},
            "local_storage": {"path": "."},
            "aws_storage": {"access_key_id": "", "secret_access_key": "", "s3_region": "", "s3_bucket": "",
                "s3_key_prefix": "consul-snapshot", "s3_server_side_encryption": false, "s3_static_snapshot_name": ""},
            "azure_blob_storage": {"account_name": "", "account_key": "", "container_name": ""},
            "google_storage": {"bucket": ""}}"#;
        let settings = settle(&[], file, &[]).unwrap();
        assert_eq!(settings.destinations.len(), 1);
        assert_eq!(
            settings.words,
            ["no license is needed; the one that is given is ignored"]
        );
    }

    #[test]
    fn says_what_changed() {
        let said = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            Said::read(&SYNTAX.parse(&words).unwrap()).unwrap()
        };
        let before = said(&["-token=a", "-retain=3"]);
        assert_eq!(before.differences(&before), [""; 0]);
        let after = said(&["-token=b", "-stale"]);
        assert_eq!(
            after.differences(&before),
            ["token", "snapshot.retain", "snapshot.stale"]
        );
    }
}
