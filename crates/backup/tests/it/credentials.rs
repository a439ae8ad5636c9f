//! Credentials that others lend: roles, tokens, containers, instances; each asked as the public documents of its API say.

use std::sync::{Arc, Mutex};

use backup::stores::{Destination, S3, Store, open_with};
use futures::StreamExt;
use http::{Extensions, HeaderMap, Method, StatusCode, Uri};
use s3s::route::S3Route;
use s3s::{Body, S3Request, S3Response, S3Result, s3_error};

use crate::server::{LENT, S3Server, Server, answer, patience};
use crate::suite::{ids, named, write};

/// The service that gives out roles, in the same server. It checks signatures as the rest of it does.
#[derive(Clone, Default)]
struct Sts {
    asked: Arc<Mutex<Vec<String>>>,
}

#[async_trait::async_trait]
impl S3Route for Sts {
    fn is_match(&self, method: &Method, uri: &Uri, _: &HeaderMap, _: &mut Extensions) -> bool {
        method == Method::POST && uri.path() == "/"
    }

    async fn check_access(&self, _: &mut S3Request<Body>) -> S3Result<()> {
        Ok(())
    }

    async fn call(&self, request: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let who = request.credentials.map(|known| known.access_key);
        let pieces: Vec<_> = request.input.map(|piece| piece.unwrap()).collect().await;
        let form = String::from_utf8(pieces.concat()).unwrap();
        let action = form.split('&').next().unwrap();
        let has_proof = match action {
            "Action=AssumeRole" => who.is_some() && request.service.as_deref() == Some("sts"),
            "Action=AssumeRoleWithWebIdentity" => form.contains("&WebIdentityToken=to%2Fken"),
            _ => false,
        };
        self.asked
            .lock()
            .unwrap()
            .push(format!("{} {form}", who.unwrap_or_default()));
        if !has_proof {
            return Err(s3_error!(AccessDenied, "no proof"));
        }
        let (id, secret) = LENT;
        Ok(S3Response::new(Body::from(format!(
            "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Result><Credentials>\
             <AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
             <SessionToken>session</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>\
             </Credentials></Result></{action}Response>",
            action = &action[7..]
        ))))
    }
}

async fn with_sts() -> (S3Server, Sts) {
    let sts = Sts::default();
    let route = sts.clone();
    let server = S3Server::with_keys(move |builder| builder.set_route(route)).await;
    (server, sts)
}

/// Uses the store a bit; all of it must be signed with what was lent.
async fn uses_what_was_lent(store: &dyn Store, server: &S3Server) {
    write(store, named(1), b"x").await.unwrap();
    write(store, named(2), b"y").await.unwrap();
    assert_eq!(ids(store).await, [1, 2]);
    let to_bucket = server
        .server
        .seen()
        .into_iter()
        .filter(|seen| seen.path != "/");
    for seen in to_bucket {
        let authorization = seen.header("authorization").unwrap();
        assert!(authorization.contains(LENT.0), "{authorization}");
        assert_eq!(seen.header("x-amz-security-token"), Some("session"));
    }
}

#[tokio::test]
async fn a_role_is_taken_on_with_keys() {
    let (server, sts) = with_sts().await;
    let settings = S3 {
        role_arn: "arn:aws:iam::1:role/backup".into(),
        role_session_name: "nightly".into(),
        sts_endpoint: server.server.url.clone(),
        ..server.settings()
    };
    let store = open_with(&Destination::S3(settings.clone()), &|_| None, patience()).unwrap();
    uses_what_was_lent(&*store, &server).await;
    // Asked once.
    assert_eq!(
        *sts.asked.lock().unwrap(),
        [
            "AKIATEST Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fbackup&\
             RoleSessionName=nightly&DurationSeconds=3600"
        ]
    );

    let wrong = S3 {
        secret_access_key: "wrong".into(),
        ..settings
    };
    let store = open_with(&Destination::S3(wrong), &|_| None, patience()).unwrap();
    let why = store.list().await.unwrap_err().to_string();
    assert!(
        why.contains("the secret access key is not that of the access key id; check both"),
        "{why}"
    );
}

#[tokio::test]
async fn a_role_is_taken_on_with_a_token() {
    let (server, sts) = with_sts().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let settings = S3 {
        access_key_id: String::new(),
        secret_access_key: String::new(),
        ..server.settings()
    };
    // As Kubernetes says it, in the environment.
    let environment = |name: &str| {
        Some(match name {
            "AWS_WEB_IDENTITY_TOKEN_FILE" => file.display().to_string(),
            "AWS_ROLE_ARN" => "arn:r".into(),
            "AWS_ENDPOINT_URL_STS" => server.server.url.clone(),
            _ => return None,
        })
    };
    let store = open_with(&Destination::S3(settings), &environment, patience()).unwrap();
    let why = store.list().await.unwrap_err().to_string();
    assert!(why.contains("cannot read the token in "), "{why}");
    std::fs::write(&file, "wrong").unwrap();
    let why = store.list().await.unwrap_err().to_string();
    assert!(
        why.contains("cannot get the role arn:r: AccessDenied: no proof"),
        "{why}"
    );
    // Somebody puts the right one there; it is read each time.
    std::fs::write(&file, "to/ken\n").unwrap();
    uses_what_was_lent(&*store, &server).await;
    let asked = sts.asked.lock().unwrap();
    assert_eq!(asked.len(), 2);
    assert!(
        asked[1].starts_with(" Action=AssumeRoleWithWebIdentity&"),
        "{asked:?}"
    );
    assert!(
        asked[1].contains("RoleSessionName=consul-snapshot"),
        "{asked:?}"
    );
}

/// A container's or an instance's metadata, told to who asks as they have to.
async fn metadata() -> Server {
    Server::start(Arc::new(|seen, _| {
        let (id, secret) = LENT;
        let lent = format!(
            "{{\"Code\":\"Success\",\"LastUpdated\":\"2020-01-01T00:00:00Z\",\"Type\":\"AWS-HMAC\",\"AccessKeyId\":\"{id}\",\
             \"SecretAccessKey\":\"{secret}\",\"Token\":\"session\",\"Expiration\":\"2099-01-01T00:00:00Z\"}}"
        );
        let is_known = seen.header("x-aws-ec2-metadata-token") == Some("m");
        let found = match (seen.method.as_str(), &seen.path[..]) {
            ("GET", "/v2/task") if seen.header("authorization") == Some("let me in") => Some(lent),
            ("PUT", "/latest/api/token") => {
                let has_end = seen.header("x-aws-ec2-metadata-token-ttl-seconds").is_some();
                has_end.then(|| "m".to_owned())
            }
            ("GET", "/latest/meta-data/iam/security-credentials/") if is_known => Some("role".into()),
            ("GET", "/latest/meta-data/iam/security-credentials/role") if is_known => Some(lent),
            _ => None,
        };
        let answer = match found {
            Some(found) => answer(StatusCode::OK, found),
            None => answer(StatusCode::FORBIDDEN, String::new()),
        };
        Box::pin(async { answer })
    }))
    .await
}

fn without_keys(server: &S3Server) -> S3 {
    S3 {
        access_key_id: String::new(),
        secret_access_key: String::new(),
        ..server.settings()
    }
}

#[tokio::test]
async fn a_container_lends_its_credentials() {
    let server = S3Server::start().await;
    let metadata = metadata().await;
    let environment = |token: &'static str| {
        let url = format!("{}/v2/task", metadata.url);
        move |name: &str| {
            Some(match name {
                "AWS_CONTAINER_CREDENTIALS_FULL_URI" => url.clone(),
                "AWS_CONTAINER_AUTHORIZATION_TOKEN" => token.into(),
                _ => return None,
            })
        }
    };
    let destination = Destination::S3(without_keys(&server));
    let store = open_with(&destination, &environment("let me in"), patience()).unwrap();
    uses_what_was_lent(&*store, &server).await;
    assert_eq!(metadata.seen().len(), 1);
    let store = open_with(&destination, &environment("please"), patience()).unwrap();
    let why = store.list().await.unwrap_err().to_string();
    assert!(
        why.contains("cannot get the container's credentials: 403"),
        "{why}"
    );
}

#[tokio::test]
async fn an_instance_lends_its_credentials() {
    let server = S3Server::start().await;
    let metadata = metadata().await;
    let settings = S3 {
        iam_endpoint: metadata.url.clone(),
        ..without_keys(&server)
    };
    let store = open_with(&Destination::S3(settings), &|_| None, patience()).unwrap();
    uses_what_was_lent(&*store, &server).await;
    assert_eq!(metadata.seen().len(), 3);
}

#[tokio::test]
async fn an_instance_takes_on_a_role() {
    let (server, sts) = with_sts().await;
    let metadata = metadata().await;
    let settings = S3 {
        role_arn: "arn:r".into(),
        sts_endpoint: server.server.url.clone(),
        iam_endpoint: metadata.url.clone(),
        ..without_keys(&server)
    };
    let store = open_with(&Destination::S3(settings), &|_| None, patience()).unwrap();
    uses_what_was_lent(&*store, &server).await;
    assert_eq!(sts.asked.lock().unwrap().len(), 1);
    assert!(sts.asked.lock().unwrap()[0].starts_with(LENT.0));
}

#[tokio::test]
async fn who_has_no_credentials_is_told_where_they_come_from() {
    let server = S3Server::start().await;
    let nobody = Server::start(Arc::new(|_, _| {
        Box::pin(async { answer(StatusCode::NOT_FOUND, String::new()) })
    }))
    .await;
    let settings = S3 {
        iam_endpoint: nobody.url.clone(),
        ..without_keys(&server)
    };
    let store = open_with(&Destination::S3(settings), &|_| None, patience()).unwrap();
    let why = store.list().await.unwrap_err().to_string();
    assert!(
        why.contains("no credentials were given, and this machine doesn't get any from a cloud"),
        "{why}"
    );
}
