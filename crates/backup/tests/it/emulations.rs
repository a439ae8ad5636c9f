//! Google's and Azure's stores: against stand-ins that check what the public descriptions of their APIs ask for, and against
//! Azurite where it is installed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use backup::stores::{Azure, Destination, Gcs, Store, open_with};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use http::{Response, StatusCode};
use ring::hmac;
use s3s::Body;

use crate::server::{BUCKET, S3Server, Seen, Server, answer, open, patience};
use crate::suite::{self, Kept, content, ids, named, write};

// Google's store speaks Amazon's language at this address: <https://cloud.google.com/storage/docs/xml-api/overview>.
store_suite!(google, async {
    let server = S3Server::with(|_| {}).await;
    Kept {
        store: open(&Destination::Gcs(google_at(&server))).unwrap(),
        keeps: Box::new(server),
    }
});

fn google_at(server: &S3Server) -> Gcs {
    Gcs {
        bucket: BUCKET.into(),
        prefix: "dc1/consul".into(),
        endpoint: server.server.url.clone(),
    }
}

store_suite!(azure, async {
    let server = azure_server().await;
    Kept {
        store: open(&Destination::Azure(azure_at(&server))).unwrap(),
        keeps: Box::new(server),
    }
});

const ACCOUNT: &str = "acme";
/// Its key, and the same in base64.
const KEY: &[u8] = b"an account's key";
const KEY_TEXT: &str = "YW4gYWNjb3VudCdzIGtleQ==";

fn azure_at(server: &Server) -> Azure {
    Azure {
        account_name: ACCOUNT.into(),
        account_key: KEY_TEXT.into(),
        container_name: BUCKET.into(),
        prefix: "dc1/consul".into(),
        endpoint: server.url.clone(),
        ..Azure::default()
    }
}

/// What lies in Azure's container.
#[derive(Default)]
struct Container {
    blobs: BTreeMap<String, Bytes>,
    blocks: BTreeMap<(String, String), Bytes>,
}

async fn azure_server() -> Server {
    let container: Arc<Mutex<Container>> = Arc::default();
    Server::start(Arc::new(move |seen, request| {
        let container = Arc::clone(&container);
        Box::pin(async move {
            let pieces: Vec<_> = request
                .into_body()
                .map(|piece| piece.unwrap())
                .collect()
                .await;
            azure_answer(
                &seen,
                pieces.concat().into(),
                &mut container.lock().unwrap(),
            )
        })
    }))
    .await
}

fn refused(status: StatusCode, code: &str) -> Response<Body> {
    answer(
        status,
        format!("<Error><Code>{code}</Code><Message>Told by Azure.</Message></Error>"),
    )
}

fn azure_answer(seen: &Seen, body: Bytes, container: &mut Container) -> Response<Body> {
    if !is_signed(seen, body.len()) {
        return refused(StatusCode::FORBIDDEN, "AuthenticationFailed");
    }
    let Some(blob) = seen.path.strip_prefix(&format!("/{BUCKET}")) else {
        return refused(StatusCode::NOT_FOUND, "ContainerNotFound");
    };
    let blob = blob.trim_start_matches('/').to_owned();
    let query = query(seen);
    let of = |name: &str| query.get(name).map_or("", |value| &value[..]);
    match (seen.method.as_str(), of("comp")) {
        ("GET", "list") => list(of("prefix"), of("marker"), of("startFrom"), container),
        ("PUT", "block") => {
            container
                .blocks
                .insert((blob, of("blockid").to_owned()), body);
            answer(StatusCode::CREATED, String::new())
        }
        ("PUT", "blocklist") => {
            let text = String::from_utf8(body.to_vec()).unwrap();
            let mut whole = Vec::new();
            for id in text.split("<Uncommitted>").skip(1) {
                let id = id.split('<').next().unwrap().to_owned();
                match container.blocks.remove(&(blob.clone(), id)) {
                    Some(block) => whole.extend_from_slice(&block),
                    None => return refused(StatusCode::BAD_REQUEST, "InvalidBlockList"),
                }
            }
            container.blobs.insert(blob, whole.into());
            tagged(StatusCode::CREATED, Bytes::new())
        }
        ("PUT", _) if seen.header("x-ms-blob-type") == Some("BlockBlob") => {
            container.blobs.insert(blob, body);
            tagged(StatusCode::CREATED, Bytes::new())
        }
        ("GET" | "HEAD", _) => match container.blobs.get(&blob) {
            Some(content) => tagged(StatusCode::OK, content.clone()),
            None => refused(StatusCode::NOT_FOUND, "BlobNotFound"),
        },
        ("POST", "batch") => batch(&body, container),
        _ => refused(StatusCode::BAD_REQUEST, "UnsupportedHeader"),
    }
}

fn tagged(status: StatusCode, content: Bytes) -> Response<Body> {
    let length = content.len();
    let mut answer = answer(status, content);
    let headers = answer.headers_mut();
    headers.insert("etag", "\"0x1\"".parse().unwrap());
    headers.insert("last-modified", now().parse().unwrap());
    headers.insert("content-length", length.into());
    answer
}

fn now() -> String {
    // Only its form matters to the client, and its age to the suite.
    httpdate::fmt_http_date(std::time::SystemTime::now())
}

/// A page of at most a thousand.
fn list(prefix: &str, marker: &str, from: &str, container: &Container) -> Response<Body> {
    let from = marker.max(from);
    let mut found = (container.blobs.iter())
        .filter(|(name, _)| name.starts_with(prefix) && name.as_str() >= from);
    let mut text = "<?xml version=\"1.0\"?><EnumerationResults><Blobs>".to_owned();
    for (name, content) in found.by_ref().take(1000) {
        text += &format!(
            "<Blob><Name>{name}</Name><Properties><Last-Modified>{}</Last-Modified><Etag>0x1</Etag>\
             <Content-Length>{}</Content-Length><Content-Type>a/b</Content-Type></Properties></Blob>",
            now(),
            content.len()
        );
    }
    let next = found.next().map_or("", |(name, _)| name);
    text += &format!("</Blobs><NextMarker>{next}</NextMarker></EnumerationResults>");
    answer(StatusCode::OK, text)
}

/// Many requests in one, each to delete a blob, as <https://learn.microsoft.com/rest/api/storageservices/blob-batch> has them.
fn batch(body: &[u8], container: &mut Container) -> Response<Body> {
    let body = std::str::from_utf8(body).unwrap();
    let asked = body.lines().filter_map(|line| {
        let path = line.strip_prefix("DELETE ")?.split(' ').next().unwrap();
        path.strip_prefix(&format!("/{BUCKET}/"))
    });
    let mut text = String::new();
    for (number, blob) in asked.enumerate() {
        let status = match container.blobs.remove(blob) {
            Some(_) => "202 Accepted",
            None => "404 Not Found",
        };
        text += &format!(
            "--batch\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\nHTTP/1.1 {status}\r\nx-ms-version: \
             2023-11-03\r\n\r\n"
        );
    }
    let mut answer = answer(StatusCode::ACCEPTED, format!("{text}--batch--\r\n"));
    let kind = "multipart/mixed; boundary=batch".parse().unwrap();
    answer.headers_mut().insert("content-type", kind);
    answer
}

fn query(seen: &Seen) -> BTreeMap<String, String> {
    let url = reqwest::Url::parse(&format!("http://x/?{}", seen.query)).unwrap();
    url.query_pairs().into_owned().collect()
}

/// Shared Key as <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key> describes it.
fn is_signed(seen: &Seen, length: usize) -> bool {
    let header = |name: &str| seen.header(name).unwrap_or_default();
    let length = match length {
        0 => String::new(),
        length => length.to_string(),
    };
    let mut text = format!("{}\n", seen.method);
    for name in ["content-encoding", "content-language"] {
        text += &format!("{}\n", header(name));
    }
    text += &format!("{length}\n");
    for name in [
        "content-md5",
        "content-type",
        "date",
        "if-modified-since",
        "if-match",
        "if-none-match",
        "if-unmodified-since",
        "range",
    ] {
        text += &format!("{}\n", header(name));
    }
    let names: BTreeMap<&str, &str> = (seen.headers.iter())
        .filter(|(name, _)| name.as_str().starts_with("x-ms-"))
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    for (name, value) in names {
        text += &format!("{name}:{value}\n");
    }
    text += &format!("/{ACCOUNT}{}", seen.path);
    for (name, value) in query(seen) {
        text += &format!("\n{}:{value}", name.to_lowercase());
    }
    let Some(signature) = header("authorization").strip_prefix(&format!("SharedKey {ACCOUNT}:"))
    else {
        return false;
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY);
    base64_simd::STANDARD.encode_to_string(hmac::sign(&key, text.as_bytes())) == signature
}

#[tokio::test]
async fn azure_tells_what_is_wrong() {
    let server = azure_server().await;
    let good = azure_at(&server);
    for (settings, expected) in [
        (
            Azure {
                account_key: "b3RoZXI=".into(),
                ..good.clone()
            },
            "the account's key or the service principal is wrong; check it (the store says: Told by Azure.)",
        ),
        (
            Azure {
                container_name: "nobodys".into(),
                ..good
            },
            "there is no such bucket; make it, or mend its name in the settings (the store says: Told by Azure.)",
        ),
    ] {
        let store = open(&Destination::Azure(settings)).unwrap();
        let told = [
            write(&*store, named(1), b"x").await.unwrap_err(),
            write(&*store, named(1), &content(9 << 20))
                .await
                .unwrap_err(),
            store.list().await.unwrap_err(),
        ];
        for why in told {
            assert!(why.to_string().ends_with(expected), "{why}");
        }
    }
}

#[tokio::test]
async fn an_answer_about_something_else_ends_nobody() {
    let server = Server::start(Arc::new(|_, _| {
        Box::pin(async {
            let text = "--batch\r\nContent-Type: application/http\r\nContent-ID: 7\r\n\r\nHTTP/1.1 404 Not Found\r\n\r\n\
                        --batch--\r\n";
            let mut answer = answer(StatusCode::ACCEPTED, text.to_owned());
            let kind = "multipart/mixed; boundary=batch".parse().unwrap();
            answer.headers_mut().insert("content-type", kind);
            answer
        })
    }))
    .await;
    let store = open(&Destination::Azure(azure_at(&server))).unwrap();
    let why = store.remove(named(1)).await.unwrap_err().to_string();
    assert!(
        why.ends_with("the answer is about objects that it was not asked for"),
        "{why}"
    );
}

#[tokio::test]
async fn a_service_principal_signs_in_where_its_cloud_says() {
    // Where it signs in, and then the store.
    let server = Server::start(Arc::new(|seen, request| {
        Box::pin(async move {
            let pieces: Vec<_> = request
                .into_body()
                .map(|piece| piece.unwrap())
                .collect()
                .await;
            let form = String::from_utf8(pieces.concat()).unwrap();
            if seen.path == "/tenant/oauth2/v2.0/token" {
                let is_known = form.contains("client_id=principal")
                    && form.contains("client_secret=its+secret");
                return match is_known {
                    true => answer(
                        StatusCode::OK,
                        "{\"access_token\":\"t\",\"expires_in\":3600,\"token_type\":\"Bearer\"}"
                            .to_owned(),
                    ),
                    false => answer(
                        StatusCode::UNAUTHORIZED,
                        "{\"error\":\"invalid_client\"}".to_owned(),
                    ),
                };
            }
            match seen.header("authorization") {
                Some("Bearer t") => list("", "", "", &Container::default()),
                _ => refused(StatusCode::FORBIDDEN, "AuthenticationFailed"),
            }
        })
    }))
    .await;
    // As Kubernetes writes it, with a slash.
    let authority = format!("{}/", server.url);
    let environment = move |name: &str| (name == "AZURE_AUTHORITY_HOST").then(|| authority.clone());
    for (secret, is_right) in [("its secret", true), ("another", false)] {
        let settings = Azure {
            account_key: String::new(),
            service_principal_id: "principal".into(),
            service_principal_secret: secret.into(),
            tenant_id: "tenant".into(),
            ..azure_at(&server)
        };
        let store = open_with(&Destination::Azure(settings), &environment, patience()).unwrap();
        let listed = store.list().await;
        assert_eq!(listed.is_ok(), is_right, "{listed:?}");
    }
}

/// The application's default credentials, as Google's tools write them: a service account and its key, made for this test.
#[tokio::test]
async fn google_is_told_who_we_are() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("account.json");
    std::fs::write(&file, include_str!("emulations/account.json")).unwrap();
    let server = Server::start(Arc::new(|_, _| {
        Box::pin(async {
            let empty = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
            answer(StatusCode::OK, empty.to_owned())
        })
    }))
    .await;
    let settings = Destination::Gcs(Gcs {
        bucket: "b".into(),
        endpoint: server.url.clone(),
        ..Gcs::default()
    });
    let environment =
        |name: &str| (name == "GOOGLE_APPLICATION_CREDENTIALS").then(|| file.display().to_string());
    let store = open_with(&settings, &environment, patience()).unwrap();
    assert_eq!(ids(&*store).await, [0; 0]);
    let seen = server.seen().remove(0);
    let token = seen.header("authorization").unwrap();
    let claims = token
        .strip_prefix("Bearer ")
        .unwrap()
        .split('.')
        .nth(1)
        .unwrap();
    let claims = base64_simd::URL_SAFE_NO_PAD.decode_to_vec(claims).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["iss"], "backup@acme.iam.gserviceaccount.com");

    std::fs::write(&file, "{}").unwrap();
    let opened = open_with(&settings, &environment, patience()).map(|_| ());
    assert!(opened.is_err(), "{opened:?}");
}

/// The account of Azurite and of every other emulation of Azure, which is public.
const AZURITE: (&str, &str) = (
    "devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
);

/// Azurite on a port that was free, until it is dropped.
struct Azurite {
    process: std::process::Child,
    /// Takes what it says further on; it dies where nobody does.
    reader: Option<std::thread::JoinHandle<()>>,
    url: String,
}

impl Drop for Azurite {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
    }
}

impl Azurite {
    /// Nothing where it isn't installed.
    fn start() -> Option<Self> {
        use std::process::{Command, Stdio};

        let mut process = Command::new("azurite-blob")
            .args([
                "--inMemoryPersistence",
                "--skipApiVersionCheck",
                "--disableTelemetry",
                "--blobPort",
                "0",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let said = std::io::BufReader::new(process.stdout.take().unwrap());
        let mut said = std::io::BufRead::lines(said);
        let url = said.find_map(|line| {
            let line = line.unwrap();
            let (_, url) = line.split_once("successfully listens on ")?;
            Some(format!("{}/{}", url.trim(), AZURITE.0))
        });
        Some(Self {
            process,
            reader: Some(std::thread::spawn(move || {
                said.map_while(Result::ok).for_each(drop)
            })),
            url: url.expect("it says where it listens"),
        })
    }

    /// Makes a container, which our stores don't.
    async fn make(&self, container: &str) {
        let key = base64_simd::STANDARD.decode_to_vec(AZURITE.1).unwrap();
        let date = now();
        let version = "2023-11-03";
        let text = format!(
            "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:{version}\n/{0}/{0}/{container}\nrestype:container",
            AZURITE.0
        );
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let signature = base64_simd::STANDARD.encode_to_string(hmac::sign(&key, text.as_bytes()));
        let made = reqwest::Client::builder()
            .tls_backend_preconfigured(tls())
            .build()
            .unwrap()
            .put(format!("{}/{container}?restype=container", self.url))
            .header("x-ms-date", date)
            .header("x-ms-version", version)
            .header(
                "authorization",
                format!("SharedKey {}:{signature}", AZURITE.0),
            )
            .header("content-length", "0")
            .send()
            .await
            .unwrap();
        assert_eq!(
            made.status(),
            StatusCode::CREATED,
            "{}",
            made.text().await.unwrap()
        );
    }
}

/// Nothing is asked over it.
fn tls() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

type Promise = for<'a> fn(&'a dyn Store) -> BoxFuture<'a, ()>;

#[tokio::test]
async fn azurite_keeps_the_promises() {
    let Some(azurite) = Azurite::start() else {
        eprintln!("azurite-blob is not installed, so nothing is tested");
        return;
    };
    let promises: [(&str, Promise); 8] = [
        ("nothing", |store| {
            Box::pin(suite::nothing_is_there_at_first(store))
        }),
        ("written", |store| {
            Box::pin(suite::what_was_written_is_read(store))
        }),
        ("shown", |store| {
            Box::pin(suite::nothing_is_shown_before_it_is_published(store))
        }),
        ("broken", |store| {
            Box::pin(suite::what_is_broken_off_leaves_nothing(store))
        }),
        ("many", |store| {
            Box::pin(suite::uploads_do_not_know_each_other(store))
        }),
        ("notes", |store| {
            Box::pin(suite::notes_lie_beside_snapshots(store))
        }),
        ("removed", |store| {
            Box::pin(suite::what_was_removed_is_gone(store))
        }),
        ("thousand", |store| {
            Box::pin(suite::a_thousand_and_more_are_listed_and_rotated(store))
        }),
    ];
    for (container, promise) in promises {
        azurite.make(container).await;
        let settings = Azure {
            account_name: AZURITE.0.into(),
            account_key: AZURITE.1.into(),
            container_name: container.into(),
            prefix: "dc1/consul".into(),
            endpoint: azurite.url.clone(),
            ..Azure::default()
        };
        promise(&*open(&Destination::Azure(settings)).unwrap()).await;
    }
}
