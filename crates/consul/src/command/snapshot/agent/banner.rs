//! What is printed before the log begins.

use std::fmt::Write as _;
use std::time::Duration;

use backup::Retention;
use model::GoDuration;

use super::settings::Settings;
use crate::release;

/// The text, up to where the log begins. `places` are the destinations in words.
pub(super) fn banner(settings: &Settings, places: &[String]) -> String {
    let mut text = "==> Consul snapshot agent running!\n".to_owned();
    for (label, value) in lines(settings, places) {
        // Infallible: it is a text.
        let _ = writeln!(text, "{label:>20}: {value}");
    }
    text + "\n==> Log data will now stream in as it occurs:\n"
}

fn lines(settings: &Settings, places: &[String]) -> Vec<(&'static str, String)> {
    let datacenter = match settings.datacenter.as_str() {
        "" => "(default)".to_owned(),
        name => format!("{name:?}"),
    };
    let interval = settings.interval.unwrap_or_default();
    let mut lines = vec![
        ("Version", format!("v{}", release::COMPATIBLE_VERSION)),
        ("Datacenter", datacenter),
        ("Interval", time(interval)),
        ("Retain", retain(settings.retention)),
        ("Stale", settings.stale.to_string()),
    ];
    if settings.interval.is_some() {
        lines.extend([
            ("Mode", "Daemon".to_owned()),
            ("Service", format!("{:?}", settings.service)),
            (
                "Deregister After",
                time(settings.deregister_after.unwrap_or_default()),
            ),
            ("Lock Key", format!("{:?}", settings.lock_key)),
            ("Max Failures", settings.max_failures.to_string()),
        ]);
    } else {
        lines.push(("Mode", "One-shot".to_owned()));
    }
    match settings.recipients.len() {
        0 => {}
        1 => lines.push(("Encrypted To", "1 recipient".to_owned())),
        count => lines.push(("Encrypted To", format!("{count} recipients"))),
    }
    for (place, kept) in places.iter().zip(&settings.destinations) {
        lines.push(("Snapshot Storage", place.clone()));
        if kept.retention != settings.retention {
            lines.push(("Retain There", retain(kept.retention)));
        }
    }
    lines
}

fn time(time: Duration) -> String {
    format!("\"{}\"", GoDuration::from(time))
}

/// The number, and what else is kept.
fn retain(retention: Retention) -> String {
    let Retention {
        newest,
        hourly,
        daily,
        weekly,
        monthly,
    } = retention;
    let more = [
        ("hourly", hourly),
        ("daily", daily),
        ("weekly", weekly),
        ("monthly", monthly),
    ];
    let mut text = newest.to_string();
    for (name, count) in more.into_iter().filter(|(_, count)| *count > 0) {
        let _ = write!(text, ", {name}: {count}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::settings::tests::settle;
    use super::*;

    fn shown(words: &[&str], files: &str, places: &[&str]) -> String {
        let settings = settle(words, files, &[]).unwrap();
        let places: Vec<String> = places.iter().map(|&place| place.to_owned()).collect();
        assert_eq!(settings.destinations.len(), places.len());
        banner(&settings, &places)
    }

    #[test]
    fn the_banner_of_the_original() {
        let s3 = "Amazon S3 -> Region: \"us-east-1\" Bucket: \"hc-test-slackpad\" Key Prefix: \"consul-snapshot\"";
        let words = [
            "-aws-s3-region=us-east-1",
            "-aws-s3-bucket=hc-test-slackpad",
        ];
        assert_eq!(
            shown(&words, "{}", &[s3]),
            "==> Consul snapshot agent running!\n\
             \x20            Version: v0.7.1\n\
             \x20         Datacenter: (default)\n\
             \x20           Interval: \"1h0m0s\"\n\
             \x20             Retain: 30\n\
             \x20              Stale: false\n\
             \x20               Mode: Daemon\n\
             \x20            Service: \"consul-snapshot\"\n\
             \x20   Deregister After: \"72h0m0s\"\n\
             \x20           Lock Key: \"consul-snapshot/lock\"\n\
             \x20       Max Failures: 3\n\
             \x20   Snapshot Storage: Amazon S3 -> Region: \"us-east-1\" Bucket: \"hc-test-slackpad\" Key Prefix: \"consul-snapshot\"\n\
             \n\
             ==> Log data will now stream in as it occurs:\n"
        );
    }

    #[test]
    fn what_the_original_does_not_have() {
        let files = r#"{
            "datacenter": "dc2",
            "snapshot": {"interval": "0", "retain_daily": 7, "stale": true,
                "encrypt_to": ["age13zkp9lppt3c53kcdv6nk5w24re9cu3d7c2ps353sefk9t9g70fvse2svtf"]},
            "backup_destinations": {"local_storage": [{"path": "/a"}, {"path": "/b", "retain": 2, "retain_weekly": 5}]}
        }"#;
        assert_eq!(
            shown(&[], files, &["A", "B"]),
            "==> Consul snapshot agent running!\n\
             \x20            Version: v0.7.1\n\
             \x20         Datacenter: \"dc2\"\n\
             \x20           Interval: \"0s\"\n\
             \x20             Retain: 30, daily: 7\n\
             \x20              Stale: true\n\
             \x20               Mode: One-shot\n\
             \x20       Encrypted To: 1 recipient\n\
             \x20   Snapshot Storage: A\n\
             \x20   Snapshot Storage: B\n\
             \x20       Retain There: 2, daily: 7, weekly: 5\n\
             \n\
             ==> Log data will now stream in as it occurs:\n"
        );
    }
}
