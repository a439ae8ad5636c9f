//! What a store or the network said, made into one line that says what to do.

use std::error::Error;

use super::StoreError;

/// The longest text of a store that is passed on.
const TEXT_MAX: usize = 300;

/// What a store said to a request.
pub(super) fn told(what: String, why: object_store::Error) -> StoreError {
    let mut below: Option<&(dyn Error + 'static)> = Some(&why);
    while let Some(inner) = below {
        if let Some(Told(why)) = inner.downcast_ref() {
            let why = why.clone();
            return StoreError::Failed { what, why };
        }
        below = inner.source();
    }
    let (said, is_advice) = explained(&chain(&why));
    if is_advice {
        return StoreError::Failed { what, why: said };
    }
    use object_store::Error as Kind;
    match why {
        Kind::NotFound { path, .. } => StoreError::NotFound(path),
        Kind::PermissionDenied { .. } | Kind::Unauthenticated { .. } => {
            StoreError::Refused { what, why: said }
        }
        _ => StoreError::Failed { what, why: said },
    }
}

/// Something that is a line for people already.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Told(pub(super) String);

/// The line for people, and whether it says what to do.
pub(super) fn explained(text: &str) -> (String, bool) {
    let code = element(text, "Code").unwrap_or_default();
    let message = element(text, "Message");
    let Some(advice) = advice(code, text) else {
        let said = message.map(|message| format!("{code}: {message}"));
        return (shortened(said.as_deref().unwrap_or(text)), false);
    };
    let said = match message {
        Some(message) => format!("{advice} (the store says: {})", shortened(message)),
        None if code.is_empty() => advice.to_owned(),
        None => format!("{advice} (the store says: {})", shortened(code)),
    };
    (said, true)
}

/// What to do about it, for what people run into. The clouds' codes first, since their texts change.
fn advice(code: &str, text: &str) -> Option<&'static str> {
    let has = |part: &str| text.contains(part);
    Some(match code {
        "RequestTimeTooSkewed" | "RequestExpired" => CLOCK,
        "NoSuchBucket" | "ContainerNotFound" | "InvalidBucketName" => {
            "there is no such bucket; make it, or mend its name in the settings"
        }
        "NoSuchUpload" => "the store has forgotten the upload that this is part of; try again",
        "InvalidAccessKeyId" => "the store knows no such access key id; check it",
        "SignatureDoesNotMatch" => {
            "the secret access key is not that of the access key id; check both"
        }
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
            "the session token is not or no longer valid; get new credentials"
        }
        "AuthenticationFailed" if has("header too old") || has("not within") => CLOCK,
        "AuthenticationFailed" | "InvalidAuthenticationInfo" => {
            "the account's key or the service principal is wrong; check it"
        }
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraint" => {
            "the bucket is in another region; set its region"
        }
        "QuotaExceeded" | "XMinioStorageFull" | "XAmzStorageFull" => FULL,
        "SlowDown" | "ServerBusy" => "the store has too much to do; try again later",
        "MethodNotAllowed" | "NotImplemented" => {
            "the store can't do that; if it isn't Amazon's, try without server-side encryption"
        }
        _ if code.starts_with("KMS.") => {
            "the key of server-side encryption can't be used; check its id and what the credentials may do with it"
        }
        _ if has("RequestTimeTooSkewed") || has("Request has expired") || has("iat and exp") => {
            CLOCK
        }
        _ if has("NoSuchBucket") || has("ContainerNotFound") => {
            "there is no such bucket; make it, or mend its name in the settings"
        }
        _ if has("redirect without LOCATION") || has("301 Moved") || has("307 Temporary") => {
            "the bucket is in another region; set its region"
        }
        _ if has("507 Insufficient Storage") => FULL,
        _ if has("invalid peer certificate") => {
            "the store's certificate is not one that this machine trusts; give the system its authority"
        }
        _ if has("URL scheme is not allowed") => {
            "the store asks to be reached over HTTP, which isn't safe; name an https:// address"
        }
        _ if has("/latest/api/token") || has("/latest/meta-data/") || has("/metadata/identity") => {
            "no credentials were given, and this machine doesn't get any from a cloud; name them in the settings or \
             the environment"
        }
        _ if has("metadata.google.internal") || has("computeMetadata") => {
            "no credentials were given, and this machine doesn't get any from a cloud; let \
             GOOGLE_APPLICATION_CREDENTIALS name a file of them"
        }
        _ if has("dns error") => {
            "nobody knows the store's address; check region, endpoint, account and this machine's name servers, and \
             whether the store wants the bucket in the path (force path style)"
        }
        _ => return None,
    })
}

const CLOCK: &str =
    "the clock of this machine is off, so the store refuses its signatures; set the clock";
const FULL: &str = "the store is full; make room or keep fewer snapshots";

/// The text of the first such element of XML or such member of JSON. It is shown to people, so entities stay as they are.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inside, _) = rest.split_once(&format!("</{name}>"))?;
    Some(inside.trim()).filter(|inside| !inside.is_empty())
}

/// An error with all that lies below it, in one line.
pub(super) fn chain(why: &dyn Error) -> String {
    let mut text = why.to_string();
    let mut source = why.source();
    while let Some(inner) = source {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = inner.source();
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ")
}

/// What a person reads of a long text.
fn shortened(text: &str) -> String {
    let mut line = text.to_owned();
    if line.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX).rev().find(|end| line.is_char_boundary(*end));
        line.truncate(end.unwrap_or(0));
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stores_say_in_one_line() {
        let generic = |text: &str| object_store::Error::Generic {
            store: "S3",
            source: text.to_owned().into(),
        };
        for (said, expected) in [
            (
                "<Error><Code>NoSuchBucket</Code>\n<Message>Gone.</Message></Error>",
                "cannot x: there is no such bucket; make it, or mend its name in the settings (the store says: Gone.)",
            ),
            ("a\n  b", "cannot x: Generic S3 error: a b"),
            (
                "<Code>Odd</Code><Message>It is \n odd</Message>",
                "cannot x: Odd: It is odd",
            ),
            (
                "<Code>RequestTimeTooSkewed</Code>",
                "cannot x: the clock of this machine is off, so the store refuses its signatures; set the clock (the \
                 store says: RequestTimeTooSkewed)",
            ),
            (
                "Request has expired",
                "cannot x: the clock of this machine is off, so the store refuses its signatures; set the clock",
            ),
        ] {
            assert_eq!(told("cannot x".into(), generic(said)).to_string(), expected);
        }
        let long = told("cannot x".into(), generic(&"é".repeat(1000)));
        assert!(long.to_string().len() < 400);
    }
}
