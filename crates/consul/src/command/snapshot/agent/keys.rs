//! Every setting of the snapshot agent: its flag, its key in a file, and the environment variables that stand in for both.
//!
//! What is read, what `-h` prints and what `docs/snapshot-agent.md` must list follow from this one table.

use crate::flags::{Flag, Value as FlagValue};

/// One setting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    /// Its key below `snapshot_agent`, with the group in front: `snapshot.interval`.
    pub(super) key: &'static str,
    /// Its flag, which also says what it takes and what it is when nobody says anything.
    pub(super) flag: Flag,
    /// Environment variables that count when neither a flag nor a file says anything, the first of them first.
    pub(super) variables: &'static [&'static str],
    /// Who looks at them.
    pub(super) reader: Reader,
}

/// Who looks at a setting's environment variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// This command.
    Command,
    /// The store that the setting is for: there, which of them count depends on what else is set.
    Store,
}

/// What a setting's value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A text.
    Text,
    /// `true` or `false`.
    Switch,
    /// A whole number that is not negative.
    Count,
    /// A duration, which a file has as a text.
    Time,
    /// A list of texts; as a flag, one of them each time.
    Texts,
    /// An object of texts; as a flag, `name=value` each time.
    Pairs,
}

/// A kind of places where snapshots are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Local,
    Aws,
    Azure,
    Google,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Local, Self::Aws, Self::Azure, Self::Google];

    /// The group of its settings, which is also the name of its list among the destinations.
    pub(super) const fn group(self) -> &'static str {
        match self {
            Self::Local => "local_storage",
            Self::Aws => "aws_storage",
            Self::Azure => "azure_blob_storage",
            Self::Google => "google_storage",
        }
    }
}

/// The group of the lists of destinations.
pub(super) const DESTINATIONS: &str = "backup_destinations";

/// The rules of keeping: settings of the whole, which each destination may have as well, without the group.
pub(super) const RETENTION: [&str; 5] = [
    "snapshot.retain",
    "snapshot.retain_hourly",
    "snapshot.retain_daily",
    "snapshot.retain_weekly",
    "snapshot.retain_monthly",
];

/// The one setting that is an object of texts.
const PAIRS: &str = "login.meta";

impl Setting {
    const fn new(key: &'static str, flag: Flag) -> Self {
        Self {
            key,
            flag,
            variables: &[],
            reader: Reader::Command,
        }
    }

    const fn or(self, variables: &'static [&'static str]) -> Self {
        Self { variables, ..self }
    }

    const fn or_in_store(self, variables: &'static [&'static str]) -> Self {
        Self {
            variables,
            reader: Reader::Store,
            ..self
        }
    }

    /// What its value looks like.
    pub(super) fn shape(&self) -> Shape {
        match self.flag.value() {
            FlagValue::Switch(_) => Shape::Switch,
            FlagValue::Text(_) => Shape::Text,
            FlagValue::Int(_) | FlagValue::Uint(_) => Shape::Count,
            FlagValue::Duration(_) => Shape::Time,
            FlagValue::Many if self.key == PAIRS => Shape::Pairs,
            FlagValue::Many => Shape::Texts,
        }
    }
}

/// The setting of that key.
pub(super) fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The setting of that flag.
pub(super) fn of_flag(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.flag.name() == name)
}

const fn text(
    key: &'static str,
    flag: &'static str,
    placeholder: &'static str,
    help: &'static str,
) -> Setting {
    defaulted(key, flag, "", placeholder, help)
}

const fn defaulted(
    key: &'static str,
    flag: &'static str,
    default: &'static str,
    placeholder: &'static str,
    help: &'static str,
) -> Setting {
    Setting::new(
        key,
        Flag::new(flag, FlagValue::Text(default), placeholder, help),
    )
}

const fn time(
    key: &'static str,
    flag: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting::new(
        key,
        Flag::new(flag, FlagValue::Duration(default), "time", help),
    )
}

const fn count(key: &'static str, flag: &'static str, default: u64, help: &'static str) -> Setting {
    Setting::new(
        key,
        Flag::new(flag, FlagValue::Uint(default), "number", help),
    )
}

const fn many(
    key: &'static str,
    flag: &'static str,
    placeholder: &'static str,
    help: &'static str,
) -> Setting {
    Setting::new(key, Flag::new(flag, FlagValue::Many, placeholder, help))
}

const fn switch(key: &'static str, flag: &'static str, help: &'static str) -> Setting {
    Setting::new(key, Flag::switch(flag, false, help))
}

/// The flags of all settings, in the order of the table.
pub(super) const FLAGS: [Flag; SETTINGS.len()] = {
    let mut flags = [SETTINGS[0].flag; SETTINGS.len()];
    let mut place = 0;
    while place < flags.len() {
        flags[place] = SETTINGS[place].flag;
        place += 1;
    }
    flags
};

/// The settings, by subject.
pub(super) const SETTINGS: &[Setting] = &[
    // whom it asks, and as whom
    text(
        "http_addr",
        "http-addr",
        "address",
        "The agent to ask: host:port, also with http:// or https:// in front, or unix:///path. CONSUL_HTTP_ADDR when \
         not given, else 127.0.0.1:8500.",
    )
    .or(&["CONSUL_HTTP_ADDR"]),
    text(
        "token",
        "token",
        "token",
        "The ACL token to ask with. It must be a management token, since a snapshot holds everything. \
         CONSUL_HTTP_TOKEN when not given.",
    )
    .or(&["CONSUL_HTTP_TOKEN"]),
    text(
        "datacenter",
        "datacenter",
        "name",
        "The datacenter to save; the agent's own when not given. Another one can only be saved with -interval=0.",
    ),
    text(
        "ca_file",
        "ca-file",
        "file",
        "With https: the certificate authorities to trust, in PEM. CONSUL_CACERT when not given, else the system's.",
    )
    .or(&["CONSUL_CACERT"]),
    text(
        "ca_path",
        "ca-path",
        "folder",
        "With https: a folder of such files, all of which are trusted. CONSUL_CAPATH when not given.",
    )
    .or(&["CONSUL_CAPATH"]),
    text(
        "cert_file",
        "client-cert",
        "file",
        "With https: a certificate to show to the agent, in PEM. CONSUL_CLIENT_CERT when not given.",
    )
    .or(&["CONSUL_CLIENT_CERT"]),
    text(
        "key_file",
        "client-key",
        "file",
        "With https: the key of that certificate, in PEM. CONSUL_CLIENT_KEY when not given.",
    )
    .or(&["CONSUL_CLIENT_KEY"]),
    text(
        "tls_server_name",
        "tls-server-name",
        "name",
        "With https: the name that the agent's certificate must be valid for. CONSUL_TLS_SERVER_NAME when not given, \
         else the host in the address.",
    )
    .or(&["CONSUL_TLS_SERVER_NAME"]),
    switch(
        "tls_skip_verify",
        "tls-skip-verify",
        "With https: any certificate will do. Also with CONSUL_HTTP_SSL_VERIFY=false.",
    ),
    text(
        "license_path",
        "license-path",
        "file",
        "Ignored, and so are CONSUL_LICENSE and CONSUL_LICENSE_PATH: no license is needed.",
    )
    .or(&["CONSUL_LICENSE_PATH", "CONSUL_LICENSE"]),
    text(
        "login.auth_method",
        "login-auth-method",
        "name",
        "Refused: servers of this release have no auth methods; use -token.",
    ),
    text(
        "login.bearer_token",
        "login-bearer-token",
        "token",
        "Refused, as -login-auth-method is.",
    ),
    text(
        "login.bearer_token_file",
        "login-bearer-token-file",
        "file",
        "Refused, as -login-auth-method is.",
    ),
    many(
        "login.meta",
        "login-meta",
        "name=value",
        "Refused, as -login-auth-method is.",
    ),
    // what it says
    defaulted(
        "log.level",
        "log-level",
        "INFO",
        "level",
        "TRACE, DEBUG, INFO, WARN or ERR.",
    ),
    switch("log.enable_syslog", "syslog", "Also logs to syslog."),
    defaulted(
        "log.syslog_facility",
        "syslog-facility",
        "LOCAL0",
        "name",
        "With -syslog: the facility.",
    ),
    // what it does, and when
    time(
        "snapshot.interval",
        "interval",
        "1h",
        "The time from one snapshot to the next. With 0 one snapshot is saved, old ones are removed, and the program \
         ends; nobody is elected and nothing is registered then.",
    ),
    count(
        "snapshot.retain",
        "retain",
        30,
        "How many of the newest snapshots are kept. 0 keeps all, unless one of the four below says otherwise.",
    ),
    count(
        "snapshot.retain_hourly",
        "retain-hourly",
        0,
        "Also keeps the newest snapshot of each of so many hours, of those that have any, in UTC.",
    ),
    count(
        "snapshot.retain_daily",
        "retain-daily",
        0,
        "Also keeps the newest snapshot of each of so many days.",
    ),
    count(
        "snapshot.retain_weekly",
        "retain-weekly",
        0,
        "Also keeps the newest snapshot of each of so many weeks, which begin on Mondays.",
    ),
    count(
        "snapshot.retain_monthly",
        "retain-monthly",
        0,
        "Also keeps the newest snapshot of each of so many months.",
    ),
    switch(
        "snapshot.stale",
        "stale",
        "Any server may make the snapshot, also while there is no leader, of a state that may be old.",
    ),
    defaulted(
        "snapshot.service",
        "service",
        "consul-snapshot",
        "name",
        "The service under which it is registered, with its checks.",
    ),
    time(
        "snapshot.deregister_after",
        "deregister-after",
        "72h",
        "How long after an instance has gone silent its service is removed; at least a minute. With 0 it never is.",
    ),
    defaulted(
        "snapshot.lock_key",
        "lock-key",
        "consul-snapshot/lock",
        "key",
        "The key that instances compete for; who holds it saves the snapshots.",
    ),
    count(
        "snapshot.max_failures",
        "max-failures",
        3,
        "After how many failures in a row an instance gives the lock to another. With 0 it never does.",
    ),
    text(
        "snapshot.local_scratch_path",
        "local-scratch-path",
        "folder",
        "Where scratch files go, if any are needed; the system's folder for them when not given.",
    ),
    many(
        "snapshot.encrypt_to",
        "encrypt-to",
        "recipient",
        "Encrypts snapshots to this age recipient, so that only its identity can read them.",
    ),
    // a folder
    defaulted(
        "local_storage.path",
        "local-path",
        ".",
        "folder",
        "The folder for snapshots, unless another kind of storage is set.",
    ),
    // Amazon S3
    text(
        "aws_storage.access_key_id",
        "aws-access-key-id",
        "id",
        "With S3: whose credentials. When not given: AWS_ACCESS_KEY_ID, the file of Amazon's tools, the role of the \
         task or the instance.",
    )
    .or_in_store(&["AWS_ACCESS_KEY_ID"]),
    text(
        "aws_storage.secret_access_key",
        "aws-secret-access-key",
        "secret",
        "With S3: their secret. AWS_SECRET_ACCESS_KEY goes with AWS_ACCESS_KEY_ID.",
    )
    .or_in_store(&["AWS_SECRET_ACCESS_KEY"]),
    text(
        "aws_storage.session_token",
        "aws-session-token",
        "token",
        "With S3: the token of credentials that end. AWS_SESSION_TOKEN goes with those two.",
    )
    .or_in_store(&["AWS_SESSION_TOKEN"]),
    text(
        "aws_storage.iam_endpoint",
        "aws-iam-endpoint",
        "url",
        "With S3: where the instance's credentials are asked for, if not at Amazon's usual address.",
    )
    .or_in_store(&["AWS_EC2_METADATA_SERVICE_ENDPOINT"]),
    text(
        "aws_storage.role_arn",
        "aws-role-arn",
        "arn",
        "With S3: a role to take on. AWS_ROLE_ARN when not given.",
    )
    .or_in_store(&["AWS_ROLE_ARN"]),
    text(
        "aws_storage.role_session_name",
        "aws-role-session-name",
        "name",
        "With S3: what sessions in that role are called. AWS_ROLE_SESSION_NAME when not given.",
    )
    .or_in_store(&["AWS_ROLE_SESSION_NAME"]),
    text(
        "aws_storage.web_identity_token_file",
        "aws-web-identity-token-file",
        "file",
        "With S3: a token that proves who may take the role on. AWS_WEB_IDENTITY_TOKEN_FILE when not given.",
    )
    .or_in_store(&["AWS_WEB_IDENTITY_TOKEN_FILE"]),
    text(
        "aws_storage.sts_endpoint",
        "aws-sts-endpoint",
        "url",
        "With S3: where roles are given, if not at Amazon's.",
    )
    .or_in_store(&["AWS_ENDPOINT_URL_STS"]),
    text(
        "aws_storage.s3_region",
        "aws-s3-region",
        "name",
        "With S3: the region. AWS_REGION or AWS_DEFAULT_REGION when not given.",
    )
    .or_in_store(&["AWS_REGION", "AWS_DEFAULT_REGION"]),
    text(
        "aws_storage.s3_bucket",
        "aws-s3-bucket",
        "name",
        "Saves to this bucket of Amazon S3, or of what speaks like it.",
    ),
    defaulted(
        "aws_storage.s3_key_prefix",
        "aws-s3-key-prefix",
        "consul-snapshot",
        "prefix",
        "With S3: the folder in the bucket.",
    ),
    switch(
        "aws_storage.s3_server_side_encryption",
        "aws-s3-server-side-encryption",
        "With S3: the store encrypts what it keeps.",
    ),
    text(
        "aws_storage.s3_static_snapshot_name",
        "aws-s3-static-snapshot-name",
        "name",
        "With S3: every snapshot has this name and replaces the one before, for buckets that keep versions. \
         Nothing is removed then.",
    ),
    switch(
        "aws_storage.s3_enable_kms",
        "aws-s3-enable-kms",
        "With S3: the store encrypts what it keeps with a key of KMS.",
    ),
    text(
        "aws_storage.s3_kms_key",
        "aws-s3-kms-key",
        "key",
        "With -aws-s3-enable-kms: which key; KMS's default one when not given.",
    ),
    text(
        "aws_storage.s3_endpoint",
        "aws-s3-endpoint",
        "url",
        "With S3: where the store is, if it isn't Amazon's. AWS_S3_ENDPOINT when not given.",
    )
    .or_in_store(&["AWS_S3_ENDPOINT"]),
    switch(
        "aws_storage.s3_force_path_style",
        "aws-s3-force-path-style",
        "With S3: the bucket is named in the path instead of in the host, as MinIO and Ceph want it.",
    ),
    // Azure
    text(
        "azure_blob_storage.account_name",
        "azure-blob-account-name",
        "name",
        "With Azure: the storage account.",
    ),
    text(
        "azure_blob_storage.account_key",
        "azure-blob-account-key",
        "key",
        "With Azure: its key; without one the service principal or the machine's identity is used.",
    )
    .or_in_store(&["AZURE_STORAGE_ACCOUNT_KEY"]),
    text(
        "azure_blob_storage.container_name",
        "azure-blob-container-name",
        "name",
        "Saves to this container of Azure Blob Storage.",
    ),
    text(
        "azure_blob_storage.environment",
        "azure-blob-environment",
        "name",
        "With Azure: which cloud: AZUREPUBLICCLOUD, the default, AZURECHINACLOUD, AZUREGERMANCLOUD or \
         AZUREUSGOVERNMENTCLOUD.",
    ),
    text(
        "azure_blob_storage.service_principal_id",
        "azure-blob-service-principal-id",
        "id",
        "With Azure: a service principal to sign in as.",
    )
    .or_in_store(&["AZURE_CLIENT_ID"]),
    text(
        "azure_blob_storage.service_principal_secret",
        "azure-blob-service-principal-secret",
        "secret",
        "With Azure: its secret.",
    )
    .or_in_store(&["AZURE_CLIENT_SECRET"]),
    text(
        "azure_blob_storage.tenant_id",
        "azure-blob-tenant-id",
        "id",
        "With Azure: its tenant.",
    )
    .or_in_store(&["AZURE_TENANT_ID"]),
    defaulted(
        "azure_blob_storage.key_prefix",
        "azure-blob-key-prefix",
        "consul-snapshot",
        "prefix",
        "With Azure: the folder in the container.",
    ),
    text(
        "azure_blob_storage.endpoint",
        "azure-blob-endpoint",
        "url",
        "With Azure: where the store is, if it isn't Microsoft's.",
    ),
    // Google
    text(
        "google_storage.bucket",
        "gcs-bucket",
        "name",
        "Saves to this bucket of Google Cloud Storage, with the application's default credentials.",
    ),
    defaulted(
        "google_storage.key_prefix",
        "gcs-key-prefix",
        "consul-snapshot",
        "prefix",
        "With Google: the folder in the bucket.",
    ),
    text(
        "google_storage.endpoint",
        "gcs-endpoint",
        "url",
        "With Google: where the store is, if it isn't Google's; nothing is signed there.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_consistent() {
        for (place, setting) in SETTINGS.iter().enumerate() {
            let before = &SETTINGS[..place];
            assert!(
                before
                    .iter()
                    .all(|other| other.key != setting.key
                        && other.flag.name() != setting.flag.name()),
                "{}",
                setting.key
            );
            assert!(setting.key.split('.').count() <= 2, "{}", setting.key);
            assert!(setting.flag.help().ends_with('.'), "{}", setting.key);
        }
        for key in RETENTION {
            assert_eq!(find(key).map(Setting::shape), Some(Shape::Count), "{key}");
        }
        assert_eq!(find(PAIRS).map(Setting::shape), Some(Shape::Pairs));
        for kind in Kind::ALL {
            let of_kind = format!("{}.", kind.group());
            assert!(
                SETTINGS
                    .iter()
                    .any(|setting| setting.key.starts_with(&of_kind))
            );
        }
    }

    /// The manual has one row for each setting, with its flag, its variables and its default, and no others.
    #[test]
    fn the_manual_lists_every_setting() {
        const MANUAL: &str = include_str!("../../../../../../docs/snapshot-agent.md");
        let rows: Vec<Vec<&str>> = MANUAL
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.split('|').map(str::trim).skip(1).take(4).collect())
            .collect();
        let code = |text: &str| match text {
            "" => String::new(),
            text => format!("`{text}`"),
        };
        let expected: Vec<Vec<String>> = SETTINGS
            .iter()
            .map(|setting| {
                let variables: Vec<String> =
                    setting.variables.iter().map(|name| code(name)).collect();
                let default = match setting.flag.value() {
                    FlagValue::Switch(default) => default.to_string(),
                    FlagValue::Text(default) | FlagValue::Duration(default) => default.to_owned(),
                    FlagValue::Int(default) => default.to_string(),
                    FlagValue::Uint(default) => default.to_string(),
                    FlagValue::Many => String::new(),
                };
                let flag = format!("-{}", setting.flag.name());
                vec![
                    code(setting.key),
                    code(&flag),
                    variables.join(" "),
                    code(&default),
                ]
            })
            .collect();
        assert_eq!(rows, expected);
        for flag in super::super::SYNTAX.shown() {
            assert!(
                MANUAL.contains(&format!("`-{}", flag.name())),
                "{}",
                flag.name()
            );
        }
    }

    /// Its examples are read as they stand.
    #[test]
    fn the_manual_shows_what_can_be_read() {
        use super::super::settings::tests::settle;
        const MANUAL: &str = include_str!("../../../../../../docs/snapshot-agent.md");
        let examples: Vec<&str> = MANUAL
            .split("```json\n")
            .skip(1)
            .filter_map(|rest| rest.split("```").next())
            .collect();
        assert_eq!(examples.len(), 2);
        for (example, destinations) in examples.into_iter().zip([1, 3]) {
            let file: serde_json::Value = serde_json::from_str(example).unwrap();
            let ours = file["snapshot_agent"].to_string();
            let settings = settle(&[], &ours, &[]).unwrap();
            assert_eq!(settings.destinations.len(), destinations);
        }
    }
}
