//! Questions over HTTP to a cloud's services: bounded in time and size, and silent about secrets.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::DiscoverError;

/// How long one question may take, its answer included.
const QUESTION_TIME_MAX: Duration = Duration::from_secs(10);

/// A service of the metadata kind answers at once or is not there, which must not cost every start ten seconds.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);

/// The largest page of a list.
pub(super) const PAGE_MAX: usize = 8 << 20;

/// The largest answer of a service that tells one thing.
pub(super) const FACT_MAX: usize = 64 << 10;

/// The connections of one search, which end with it: an agent at rest keeps neither them nor the system's certificates.
#[derive(Debug, Default)]
pub(super) struct Http {
    /// For what lies on this machine or beside it; a proxy would ask for its own metadata.
    inside: OnceLock<reqwest::Client>,
    /// For the cloud's public interfaces, by the proxy of the environment if there is one.
    outside: OnceLock<reqwest::Client>,
}

/// An answer whose status says that it is one.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its bytes.
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The answer as text.
    pub(super) fn text(self, service: &'static str) -> Result<String, DiscoverError> {
        String::from_utf8(self.body).map_err(|_| DiscoverError::Malformed {
            service,
            why: "it is no text".to_owned(),
        })
    }
}

impl Http {
    /// The beginning of a question.
    pub(super) fn question(
        &self,
        service: &'static str,
        method: http::Method,
        url: &str,
    ) -> Result<reqwest::RequestBuilder, DiscoverError> {
        let client = self
            .client(url)
            .map_err(|why| DiscoverError::Unreachable { service, why })?;
        Ok(client.request(method, url))
    }

    fn client(&self, url: &str) -> Result<&reqwest::Client, String> {
        let builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIME_MAX);
        let encrypted = url.starts_with("https://");
        let client = if encrypted {
            &self.outside
        } else {
            &self.inside
        };
        if let Some(client) = client.get() {
            return Ok(client);
        }
        let tls = tls(encrypted).map_err(|why| why.to_string())?;
        let builder = builder.tls_backend_preconfigured(tls);
        let builder = if encrypted {
            builder
        } else {
            builder.no_proxy()
        };
        let made = builder.build().map_err(|why| last_cause(&why))?;
        Ok(client.get_or_init(|| made))
    }
}

/// Asks, and takes the answer if it is one; `code` finds the service's own word for a refusal in its body.
pub(super) async fn ask(
    service: &'static str,
    question: reqwest::RequestBuilder,
    size_max: usize,
    code: fn(&[u8]) -> Option<String>,
) -> Result<Answer, DiscoverError> {
    let asked = async {
        let mut response = question
            .send()
            .await
            .map_err(|why| unreachable(service, &why))?;
        let status = response.status();
        // Nobody needs the whole of a refusal.
        let size_max = if status.is_success() {
            size_max
        } else {
            FACT_MAX
        };
        let mut body = Vec::new();
        while let Some(part) = response
            .chunk()
            .await
            .map_err(|why| unreachable(service, &why))?
        {
            if body.len() + part.len() > size_max {
                return Err(DiscoverError::TooLarge {
                    service,
                    max: size_max,
                });
            }
            body.extend_from_slice(&part);
        }
        if !status.is_success() {
            let code = code(&body)
                .map(|code| presentable(&code))
                .filter(|code| !code.is_empty());
            return Err(DiscoverError::Refused {
                service,
                status: status.as_u16(),
                code: code.map(|code| format!(" {code}")).unwrap_or_default(),
            });
        }
        Ok(Answer { body })
    };
    match tokio::time::timeout(QUESTION_TIME_MAX, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(DiscoverError::Unreachable {
            service,
            why: format!("no answer within {} seconds", QUESTION_TIME_MAX.as_secs()),
        }),
    }
}

/// Somebody else's word, fit for a line of the log: short, and of harmless characters.
fn presentable(code: &str) -> String {
    code.chars()
        .filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c))
        .take(64)
        .collect()
}

fn unreachable(service: &'static str, why: &reqwest::Error) -> DiscoverError {
    DiscoverError::Unreachable {
        service,
        why: last_cause(why),
    }
}

/// What went wrong on the way, from the last cause, which is the one that says something.
/// The address that was asked is left out: it may carry what identifies us.
fn last_cause(why: &reqwest::Error) -> String {
    let Some(mut cause) = std::error::Error::source(why) else {
        return "the question could not be sent".to_owned();
    };
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// TLS as for any public service: the authorities are the system's, the cryptography is the one of this program.
/// Where nothing is encrypted the authorities need not be read, but the client wants a configuration all the same.
fn tls(encrypted: bool) -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = rpc::tls::provider();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = if encrypted {
        let verifier = rustls_platform_verifier::Verifier::new(provider)?;
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
    } else {
        builder.with_root_certificates(rustls::RootCertStore::empty())
    };
    Ok(builder.with_no_client_auth())
}

/// Nothing is known about how this service words its refusals.
pub(super) fn no_code(_: &[u8]) -> Option<String> {
    None
}

/// `text` as part of a query or form: everything but the unreserved characters is escaped.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// `pairs` as a form or a query.
pub(super) fn form(pairs: &[(&str, &str)]) -> String {
    pairs
        .iter()
        .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)))
        .collect::<Vec<_>>()
        .join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(
            form(&[("Filter.1.Name", "tag:röle"), ("a b", "x/y~")]),
            "Filter.1.Name=tag%3Ar%C3%B6le&a%20b=x%2Fy~"
        );
    }

    #[test]
    fn public_services_are_asked_over_tls() {
        let http = Http::default();
        let method = http::Method::GET;
        let _unsent = http.question("X", method, "https://example.org/").unwrap();
        assert!(http.outside.get().is_some() && http.inside.get().is_none());
    }

    #[test]
    fn words_of_others() {
        assert_eq!(presentable("AuthFailure"), "AuthFailure");
        assert_eq!(presentable("a\x1b[31m b\n"), "a31mb");
        assert_eq!(presentable(&"x".repeat(1000)).len(), 64);
    }
}
