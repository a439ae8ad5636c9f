//! A page of somebody's that is told of changes: what a watch may have instead of a program.
//!
//! The change goes as the body of a request, with the index in the header `X-Consul-Index`.
//! Proxies of the environment are not used and redirects not followed: what is told goes where it was meant to and nowhere else.

use std::fmt;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};

use crate::{Address, Error, Tls, error};

/// As much of an answer is read.
const ANSWER_MAX: usize = 4096;

/// Whom to tell, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct HookConfig {
    url: Url,
    method: Method,
    headers: HeaderMap,
    timeout: Duration,
    skip_verification: bool,
}

impl HookConfig {
    /// `timeout` is for the whole of a request; without `headers` of its own a request says that its body is JSON.
    ///
    /// # Errors
    /// What can't be a URL of HTTP, a method or a header, as a text for the user.
    pub fn new(
        url: &str,
        method: &str,
        headers: &[(String, String)],
        timeout: Duration,
        skip_verification: bool,
    ) -> Result<Self, String> {
        // What can't be read may hold a password, so it isn't shown.
        let url = Url::parse(url).map_err(|why| format!("the URL can't be read: {why}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("{}: is no scheme of HTTP", url.scheme()));
        }
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| format!("{method:?} is no method"))?;
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            let header = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("{name:?} is no name of a header"))?;
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| format!("the header {name} has a value that can't be sent"))?;
            value.set_sensitive(true);
            all.append(header, value);
        }
        if !all.contains_key(CONTENT_TYPE) {
            all.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Ok(Self {
            url,
            method,
            headers: all,
            timeout,
            skip_verification,
        })
    }
}

impl fmt::Debug for HookConfig {
    /// Headers are where keys go.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookConfig")
            .field("url", &self.to_string())
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for HookConfig {
    /// The URL without what may be secret in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.url.clone();
        // They fail only where there is nothing to hide.
        let _ = shown.set_username("");
        let _ = shown.set_password(None);
        shown.set_query(None);
        f.write_str(shown.as_str())
    }
}

/// What tells them.
#[derive(Debug, Clone)]
pub struct Hook {
    http: reqwest::Client,
    config: HookConfig,
}

impl Hook {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// When TLS can't be spoken.
    pub fn new(config: HookConfig) -> Result<Self, Error> {
        let host = config.url.host_str().unwrap_or_default().to_owned();
        let address = match config.url.scheme() {
            "https" => Address::Https(host),
            _ => Address::Http(host),
        };
        let tls = Tls {
            skip_verification: config.skip_verification,
            ..Tls::default()
        };
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // Between two changes days may pass.
            .pool_max_idle_per_host(0)
            .timeout(config.timeout)
            .tls_backend_preconfigured(tls.client_config(&address)?)
            .build()
            .map_err(|_| Error::Address(config.to_string()))?;
        Ok(Self { http, config })
    }

    /// Tells of a change, and returns the beginning of the answer.
    ///
    /// # Errors
    /// When no answer came, or one that isn't a success.
    pub async fn tell(&self, index: u64, body: String) -> Result<String, Error> {
        let config = &self.config;
        let failed = |why: &reqwest::Error| Error::Request {
            verb: "Tell",
            url: config.to_string(),
            why: error::reason(why, &dialled(&config.url)),
        };
        let request = self.http.request(config.method.clone(), config.url.clone());
        let sent = request
            .headers(config.headers.clone())
            .header("X-Consul-Index", index)
            .body(body)
            .send();
        let mut response = sent.await.map_err(|why| failed(&why))?;
        let mut answer = Vec::new();
        while answer.len() < ANSWER_MAX
            && let Some(piece) = response.chunk().await.map_err(|why| failed(&why))?
        {
            let room = ANSWER_MAX - answer.len();
            answer.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        if response.status().is_success() {
            Ok(answer)
        } else {
            Err(Error::Unexpected {
                code: response.status().as_u16(),
                body: answer,
            })
        }
    }
}

fn dialled(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port_or_known_default() {
        Some(port) => format!("tcp {host}:{port}"),
        None => format!("tcp {host}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn config(url: &str) -> Result<HookConfig, String> {
        HookConfig::new(url, "POST", &[], Duration::from_secs(60), false)
    }

    #[test]
    fn refuses_what_cannot_be_sent() {
        let header = |name: &str, value: &str| {
            let headers = [(name.to_owned(), value.to_owned())];
            HookConfig::new("http://h", "PUT", &headers, Duration::ZERO, false).map(drop)
        };
        let cases = [
            (config("h:80/x").map(drop), "h: is no scheme of HTTP"),
            (
                config("/hook").map(drop),
                "the URL can't be read: relative URL without a base",
            ),
            (
                HookConfig::new("http://h", "P T", &[], Duration::ZERO, false).map(drop),
                "\"P T\" is no method",
            ),
            (header("a b", ""), "\"a b\" is no name of a header"),
            (
                header("key", "se\ncret"),
                "the header key has a value that can't be sent",
            ),
        ];
        for (read, problem) in cases {
            assert_eq!(read, Err(problem.to_owned()));
        }
        assert_eq!(header("key", "secret"), Ok(()));
    }

    #[test]
    fn secrets_are_not_shown() {
        let headers = [("key".to_owned(), "secret".to_owned())];
        let url = "https://user:secret@h/x?key=secret";
        let config = HookConfig::new(url, "PUT", &headers, Duration::ZERO, false).unwrap();
        assert_eq!(config.to_string(), "https://h/x");
        assert!(!format!("{config:?}").contains("secret"));
    }

    /// What one request looks like that is answered like this, and what comes of it.
    fn told(answer: &'static str, headers: &[(String, String)]) -> (String, Result<String, Error>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook?a=b", listener.local_addr().unwrap());
        let other = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"[]\n") {
                let mut buffer = [0; 1024];
                let size = stream.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..size]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        });
        let config = HookConfig::new(&url, "PUT", headers, Duration::from_secs(60), false).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let told = runtime.block_on(Hook::new(config).unwrap().tell(7, "[]\n".to_owned()));
        (other.join().unwrap(), told)
    }

    #[test]
    fn tells_of_a_change() {
        let (request, told) = told("HTTP/1.1 202 Fine\r\ncontent-length: 6\r\n\r\nthanks", &[]);
        assert!(
            request.starts_with("PUT /hook?a=b HTTP/1.1\r\n"),
            "{request}"
        );
        for line in [
            "content-type: application/json\r\n",
            "x-consul-index: 7\r\n",
        ] {
            assert!(request.contains(line), "{request}");
        }
        assert_eq!(told.unwrap(), "thanks");
    }

    #[test]
    fn a_refusal_is_told() {
        let headers = [
            ("X-Key".to_owned(), "a".to_owned()),
            ("X-Key".to_owned(), "b".to_owned()),
            ("Content-Type".to_owned(), "text/plain".to_owned()),
        ];
        let (request, told) = told(
            "HTTP/1.1 302 Elsewhere\r\nlocation: /other\r\ncontent-length: 2\r\n\r\nno",
            &headers,
        );
        for line in [
            "x-key: a\r\n",
            "x-key: b\r\n",
            "content-type: text/plain\r\n",
        ] {
            assert!(request.contains(line), "{request}");
        }
        assert!(!request.contains("application/json"), "{request}");
        assert_eq!(
            told.unwrap_err().to_string(),
            "Unexpected response code: 302 (no)"
        );
    }

    #[tokio::test]
    async fn nobody_there() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let hook = Hook::new(config(&format!("http://{address}/x")).unwrap()).unwrap();
        let why = hook.tell(1, String::new()).await.unwrap_err();
        assert_eq!(
            why.to_string(),
            format!("Tell http://{address}/x: dial tcp {address}: connect: connection refused")
        );
    }
}
