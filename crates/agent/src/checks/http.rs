//! Checks that ask for a page: 2xx is passing, 429 warning, everything else critical, no answer too.
//!
//! Of the page as much is read as the output keeps, and no further; if the page breaks off or its time is up after its head has
//! come, then the head decides.
//! The time of the whole, redirects included, is the check's own if that is shorter than the interval, else the interval, at most 10 s.
//!
//! A redirect is followed up to ten times and only to the same host, whatever the port; another one is an answer like any other.
//! Link-local addresses are where clouds hand out credentials to whoever asks from inside, so they are asked only where the
//! configuration allows it.
//! That is judged by the address that the connection is then made to, for every connection anew: a name can change what it stands for.
//!
//! Proxies of the environment are not used, unlike in the original: a proxy would answer in the place of the service that is asked
//! for its health, and would look up names itself, where no address could be judged.

use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{ACCEPT, AUTHORIZATION, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use reqwest::Url;
use rustls::ClientConfig;
use tokio::time::timeout;

use super::exchange::Connection;
use super::tls::Trust;
use super::{Config, Probe, Shared, Verdict, dial, exchange, question_time, tls};
use crate::definition::{Every, Status};

/// Redirects that are followed.
const REDIRECTS_MAX: usize = 10;

/// How much of the server's own words for a status is shown.
const REASON_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Http {
    /// Where to ask; or why nobody can.
    url: Result<Url, String>,
    /// What people see of it: without the password.
    shown: String,
    trust: Trust,
    time: Duration,
    user_agent: HeaderValue,
    output_max: usize,
    allow_link_local: bool,
    shared: Arc<Shared>,
    /// From the first time that it is needed.
    tls: OnceLock<Arc<ClientConfig>>,
}

/// What has come so far.
#[derive(Debug, Default)]
struct Page {
    /// The status, once a head has come that is the answer.
    status: Option<(u16, String)>,
    body: Vec<u8>,
}

impl Http {
    pub(super) fn new(url: &str, skip_verify: bool, every: &Every, config: &Config) -> Self {
        let parsed = Url::parse(url)
            .map_err(|why| why.to_string())
            .and_then(askable);
        let shown = match &parsed {
            Ok(parsed) => shown(url, parsed),
            Err(_) => shown_unread(url),
        };
        Self {
            url: parsed,
            shown,
            trust: if skip_verify {
                Trust::Anyone
            } else {
                Trust::Authorities
            },
            time: question_time(every),
            user_agent: HeaderValue::from_str(&config.user_agent)
                .unwrap_or_else(|_| HeaderValue::from_static("Consul Health Check")),
            output_max: config.output_max,
            allow_link_local: config.allow_link_local,
            shared: Arc::clone(&config.shared),
            tls: OnceLock::new(),
        }
    }

    async fn run(&self) -> Verdict {
        let mut page = Page::default();
        let why = match timeout(self.time, self.fetch(&mut page)).await {
            Ok(Ok(())) => String::new(),
            Ok(Err(why)) => why,
            Err(_) => format!("no answer within {:?}", self.time),
        };
        let shown = &self.shown;
        let Some((code, text)) = page.status else {
            return Verdict::critical(format!("Get {shown}: {why}"));
        };
        let status = match code {
            200..300 => Status::Passing,
            429 => Status::Warning,
            _ => Status::Critical,
        };
        let mut output = format!("HTTP GET {shown}: {text} Output: ").into_bytes();
        output.extend_from_slice(&page.body);
        Verdict { status, output }
    }

    async fn fetch(&self, page: &mut Page) -> Result<(), String> {
        let mut url = self.url.clone()?;
        for _ in 0..=REDIRECTS_MAX {
            let connection = self.connect(&url).await?;
            let request = self.request(&url)?;
            let answered = exchange::ask(connection, request, async |response| {
                self.take(&url, response, page).await
            });
            match answered.await.map_err(|why| why.to_string())? {
                Some(next) => url = next,
                None => return Ok(()),
            }
        }
        Err(format!("stopped after {REDIRECTS_MAX} redirects"))
    }

    /// A connection to an address that may be asked.
    async fn connect(&self, url: &Url) -> Result<Box<dyn Connection>, String> {
        let (host, port) = place(url)?;
        let dial = |why| format!("dial tcp {host}:{port}: {}", dial::reason(&why));
        let mut addresses = self
            .shared
            .names
            .addresses(host, port)
            .await
            .map_err(dial)?;
        if !self.allow_link_local {
            let first = addresses.first().copied();
            addresses.retain(|address| !dial::is_link_local(address.ip()));
            if let (true, Some(first)) = (addresses.is_empty(), first) {
                let ip = first.ip();
                return Err(format!(
                    "{ip} is link-local, and asked only where enable_link_local_checks is set"
                ));
            }
        }
        let connection = dial::connect(&addresses).await.map_err(dial)?;
        if url.scheme() != "https" {
            return Ok(Box::new(connection));
        }
        let config = match self.tls.get() {
            Some(config) => Arc::clone(config),
            None => {
                let config = self.shared.tls.config(self.trust)?;
                Arc::clone(self.tls.get_or_init(|| config))
            }
        };
        Ok(Box::new(tls::encrypt(connection, host, config).await?))
    }

    fn request(&self, url: &Url) -> Result<Request<String>, String> {
        let host = url.host_str().unwrap_or_default();
        let host = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let target = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let mut request = Request::get(target)
            .header(HOST, host)
            .header(USER_AGENT, &self.user_agent)
            .header(ACCEPT, "text/plain, text/*, */*")
            .header(CONNECTION, "close");
        if !url.username().is_empty() || url.password().is_some() {
            request = request.header(AUTHORIZATION, credentials(url));
        }
        request.body(String::new()).map_err(|why| why.to_string())
    }

    /// Where to ask instead; or nothing, if this is the answer.
    async fn take(
        &self,
        url: &Url,
        mut response: Response<Incoming>,
        page: &mut Page,
    ) -> Option<Url> {
        let code = response.status();
        let location = match code.as_u16() {
            301 | 302 | 303 | 307 | 308 => response.headers().get(LOCATION),
            _ => None,
        };
        let next = location.map(|location| redirected(url, location.as_bytes()));
        if let Some(Ok(next)) = next {
            return Some(next);
        }
        let words = match response.extensions().get::<ReasonPhrase>() {
            Some(reason) => String::from_utf8_lossy(reason.as_bytes()).into_owned(),
            None => code.canonical_reason().unwrap_or_default().to_owned(),
        };
        let words: String = words.chars().take(REASON_MAX).collect();
        let text = format!("{} {words}", code.as_u16());
        page.status = Some((code.as_u16(), text.trim_end().to_owned()));
        if let Some(Err(why)) = next {
            page.body = why.into_bytes();
            page.body.truncate(self.output_max);
            return None;
        }
        let body = &mut page.body;
        let max = self.output_max;
        let read = exchange::read(response.body_mut(), |piece| {
            let room = max - body.len();
            body.extend_from_slice(&piece[..piece.len().min(room)]);
            if body.len() < max {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        if let Err(why) = read.await {
            // The head has come, and it decides.
            tracing::debug!("{}: the page broke off: {why}", self.shown);
        }
        None
    }
}

impl Probe for Http {
    fn ask(&self) -> BoxFuture<'_, Verdict> {
        self.run().boxed()
    }
}

/// `url`, if this is a kind of address that can be asked.
fn askable(url: Url) -> Result<Url, String> {
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(format!("unsupported protocol scheme {other:?}")),
    }
}

/// `url` as its definition has it, unless there is a password in it.
fn shown(given: &str, url: &Url) -> String {
    if url.password().is_none() {
        return given.to_owned();
    }
    let mut masked = url.clone();
    match masked.set_password(Some("xxxxx")) {
        Ok(()) => masked.into(),
        Err(()) => url.host_str().unwrap_or_default().to_owned(),
    }
}

/// An address that nobody can ask, without what may be a name and a password in it.
fn shown_unread(given: &str) -> String {
    let start = given.find("//").map_or(0, |slashes| slashes + 2);
    let (scheme, rest) = given.split_at(start);
    // Where it ends can't be told from an address that is none, so the last one counts.
    match rest.rsplit_once('@') {
        Some((_, place)) => format!("{scheme}xxxxx@{place}"),
        None => given.to_owned(),
    }
}

/// Host, without the brackets of an address, and port.
fn place(url: &Url) -> Result<(&str, u16), String> {
    let host = url.host_str().ok_or("no host in address")?;
    let port = url.port_or_known_default().ok_or("no port in address")?;
    Ok((host.trim_start_matches('[').trim_end_matches(']'), port))
}

/// Where `location` leads from `url`; or why nobody goes there.
fn redirected(url: &Url, location: &[u8]) -> Result<Url, String> {
    let shown = String::from_utf8_lossy(location);
    let not = |why: &str| format!("redirect to {shown} is not followed: {why}");
    let location = str::from_utf8(location).map_err(|_| not("it is no text"))?;
    let next = url
        .join(location)
        .map_err(|why| not(&why.to_string()))
        .and_then(|next| askable(next).map_err(|why| not(&why)))?;
    if next.host_str() == url.host_str() {
        Ok(next)
    } else {
        Err(not("it is another host"))
    }
}

/// What `url` says before its host, as a header that is not shown.
fn credentials(url: &Url) -> HeaderValue {
    let mut pair = unescaped(url.username());
    pair.push(b':');
    pair.extend(unescaped(url.password().unwrap_or_default()));
    let encoded = base64_simd::STANDARD.encode_to_string(&pair);
    let mut value = HeaderValue::from_str(&format!("Basic {encoded}"))
        .unwrap_or_else(|_| HeaderValue::from_static("Basic"));
    value.set_sensitive(true);
    value
}

/// The bytes that `text` stands for, where `%41` is `A`.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let pair = after.get(..2).and_then(|pair| str::from_utf8(pair).ok());
        // Else a sign would do for a digit.
        let pair = pair.filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn redirects_stay_with_the_host() {
        let from = url("http://u:p@A.example:81/x/y?z");
        for (location, leads) in [
            ("/b", Ok("http://u:p@a.example:81/b")),
            ("b?c", Ok("http://u:p@a.example:81/x/b?c")),
            ("https://a.EXAMPLE/", Ok("https://a.example/")),
            ("//a.example:82/", Ok("http://a.example:82/")),
            ("http://b.example/", Err("it is another host")),
            ("//a.example.b/", Err("it is another host")),
            ("http://a.example@b/", Err("it is another host")),
            ("\\\\b\\", Err("it is another host")),
            (
                "file:///etc/passwd",
                Err("unsupported protocol scheme \"file\""),
            ),
            ("http://", Err("empty host")),
        ] {
            let next = redirected(&from, location.as_bytes());
            match leads {
                Ok(leads) => assert_eq!(next.unwrap().as_str(), leads),
                Err(why) => {
                    let text = format!("redirect to {location} is not followed: {why}");
                    assert_eq!(next.unwrap_err(), text);
                }
            }
        }
        assert!(redirected(&from, b"\xff").is_err());
    }

    #[test]
    fn passwords_are_sent_and_not_shown() {
        let given = "http://user:se%3Acret@host/?a=b";
        assert_eq!(shown(given, &url(given)), "http://user:xxxxx@host/?a=b");
        assert_eq!(shown("HTTP://Host", &url("HTTP://Host")), "HTTP://Host");
        for (unread, seen) in [
            ("htp://user:secret@host/?a=b", "htp://xxxxx@host/?a=b"),
            ("http://user:sec/r@et@ho st/", "http://xxxxx@ho st/"),
            ("user:secret@host", "xxxxx@host"),
            ("http://", "http://"),
            ("", ""),
        ] {
            assert_eq!(shown_unread(unread), seen);
        }
        let sent = credentials(&url(given));
        assert!(sent.is_sensitive());
        // user:se:cret
        assert_eq!(sent.as_bytes(), b"Basic dXNlcjpzZTpjcmV0");
        assert_eq!(unescaped("%4%zz%"), b"%4%zz%");
        assert_eq!(unescaped("%+1%C3%a4"), b"%+1\xc3\xa4");
    }
}
