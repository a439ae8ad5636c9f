use std::fmt::Write as _;

use super::super::signature::tests::{PRIVATE_KEY, is_ours};
use super::super::stand_in::{Reply, Request, StandIn};
use super::*;

fn config() -> Config {
    Config {
        project_name: "the-project".to_owned(),
        zone_pattern: None,
        tag_value: "consul".to_owned(),
        credentials_file: None,
    }
}

/// Everything of Google's at one stand-in, and no credentials lying about.
fn around(cloud: &StandIn) -> Surroundings {
    Surroundings {
        api_url: cloud.url(),
        metadata_url: cloud.url(),
        token_url: format!("{}/token", cloud.url()),
        named_file: None,
        home_file: None,
    }
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn instance(address: &str, status: &str, tag: &str) -> String {
    format!(
        r#"{{"kind": "compute#instance", "status": "{status}", "tags": {{"items": ["x", "{tag}"], "fingerprint": "f"}},
            "networkInterfaces": [{{"networkIP": "{address}"}}, {{"networkIP": "10.9.9.9"}}]}}"#
    )
}

const TOKEN: &str = r#"{"access_token": "the-token", "expires_in": 3599, "token_type": "Bearer"}"#;

/// Answers as an instance's metadata service and as Compute Engine with two zones.
fn cloud_of_two_zones(request: &Request) -> Reply {
    let say = |text: &str| Reply::Say(200, text.to_owned());
    if let Some(fact) = request.target.strip_prefix("/computeMetadata/v1/") {
        assert_eq!(request.header("metadata-flavor"), "Google");
        return match fact {
            "project/project-id" => say("found-project"),
            "instance/service-accounts/default/token" => say(TOKEN),
            _ => Reply::Say(404, String::new()),
        };
    }
    if request.header("authorization") != "Bearer the-token" {
        return Reply::Say(
            401,
            r#"{"error": {"code": 401, "message": "the-token", "errors": [{"reason": "authError"}]}}"#.to_owned(),
        );
    }
    let path = request
        .target
        .strip_prefix("/compute/v1/projects/")
        .unwrap();
    let (_, path) = path.split_once('/').unwrap();
    match path {
        "zones?maxResults=500" => {
            say(r#"{"items": [{"name": "europe-west1-b"}], "nextPageToken": "p/2"}"#)
        }
        "zones?maxResults=500&pageToken=p%2F2" => {
            say(r#"{"items": [{"name": "us-east1-c"}, {"name": "../../evil"}]}"#)
        }
        "zones/europe-west1-b/instances?maxResults=500" => {
            let items = [
                instance("10.0.0.1", "RUNNING", "consul"),
                instance("10.0.0.2", "TERMINATED", "consul"),
                instance("10.0.0.3", "RUNNING", "other"),
                r#"{"status": "RUNNING", "tags": {}}"#.to_owned(),
                r#"{"status": "RUNNING", "tags": {"items": ["consul"]}}"#.to_owned(),
            ];
            say(&format!(
                r#"{{"items": [{}], "nextPageToken": "more"}}"#,
                items.join(",")
            ))
        }
        "zones/europe-west1-b/instances?maxResults=500&pageToken=more" => say(&format!(
            r#"{{"items": [{}]}}"#,
            instance("10.0.0.4", "RUNNING", "consul")
        )),
        "zones/us-east1-c/instances?maxResults=500" => say(&format!(
            r#"{{"items": [{}]}}"#,
            instance("10.0.1.1", "RUNNING", "consul")
        )),
        other => panic!("asked for {other}"),
    }
}

#[tokio::test]
async fn finds_running_instances_in_every_zone() {
    let cloud = StandIn::start(cloud_of_two_zones).await;
    let found = Gce::new(config(), around(&cloud)).addresses().await;
    assert_eq!(found, Ok(ips(&["10.0.0.1", "10.0.0.4", "10.0.1.1"])));
    assert!(cloud.asked().iter().any(|request| {
        request
            .target
            .starts_with("/compute/v1/projects/the-project/")
    }));
}

#[tokio::test]
async fn a_pattern_chooses_zones_by_their_whole_names() {
    let cloud = StandIn::start(cloud_of_two_zones).await;
    for (pattern, expected) in [
        ("us-.*", &["10.0.1.1"][..]),
        ("us", &[]),
        ("us|eu.*", &["10.0.0.1", "10.0.0.4"]),
    ] {
        let options = Options::from([("tag_value", "consul"), ("zone_pattern", pattern)]);
        let Some(super::super::Config::Gce(config)) = Config::read(&options).unwrap() else {
            unreachable!()
        };
        let found = Gce::new(config, around(&cloud)).addresses().await;
        assert_eq!(found, Ok(ips(expected)), "{pattern}");
    }
    // No project was configured, so it is that of the instance.
    let last = cloud.asked().pop().unwrap();
    assert!(last.target.contains("/found-project/"));
}

#[tokio::test]
async fn nothing_found_is_an_answer() {
    let cloud = StandIn::start(|request| {
        let token = request.target.ends_with("/token");
        Reply::Say(200, if token { TOKEN } else { "{}" }.to_owned())
    })
    .await;
    let found = Gce::new(config(), around(&cloud)).addresses().await;
    assert_eq!(found, Ok(Vec::new()));
}

/// A service account's file whose tokens come from `cloud`.
fn account(room: &tempfile::TempDir, cloud: &StandIn) -> PathBuf {
    let path = room.path().join("account.json");
    let file = serde_json::json!({
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "key-1",
        "private_key": PRIVATE_KEY,
        "client_email": "consul@p.iam.gserviceaccount.com",
        "token_uri": format!("{}/token", cloud.url()),
    });
    std::fs::write(&path, file.to_string()).unwrap();
    path
}

#[tokio::test]
async fn a_service_account_signs_for_itself_each_time() {
    let cloud = StandIn::start(|request| match request.target.as_str() {
        "/token" => Reply::Say(200, TOKEN.to_owned()),
        _ => cloud_of_two_zones(request),
    })
    .await;
    let room = tempfile::tempdir().unwrap();
    let with_file = Config {
        credentials_file: Some(account(&room, &cloud)),
        ..config()
    };
    let gce = Gce::new(with_file, around(&cloud));
    for _ in 0..2 {
        assert_eq!(gce.addresses().await.unwrap().len(), 3);
    }
    let exchanges: Vec<Request> = cloud
        .asked()
        .into_iter()
        .filter(|request| request.target == "/token")
        .collect();
    // A token lasts an hour at most, so no attempt counts on an earlier one's.
    assert_eq!(exchanges.len(), 2);
    let prefix = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
    let assertion = exchanges[0].body.strip_prefix(prefix).unwrap();
    assert!(is_ours(assertion));
    let parts: Vec<serde_json::Value> = assertion
        .split('.')
        .take(2)
        .map(|part| {
            let bytes = base64_simd::URL_SAFE_NO_PAD.decode_to_vec(part).unwrap();
            serde_json::from_slice(&bytes).unwrap()
        })
        .collect();
    assert_eq!(parts[0]["kid"], "key-1");
    assert_eq!(parts[1]["iss"], "consul@p.iam.gserviceaccount.com");
    assert_eq!(parts[1]["aud"], format!("{}/token", cloud.url()));
    let lasts = parts[1]["exp"].as_i64().unwrap() - parts[1]["iat"].as_i64().unwrap();
    assert_eq!(lasts, 600);
}

#[tokio::test]
async fn files_of_the_surroundings_come_before_the_instance() {
    let cloud = StandIn::start(|request| match request.target.as_str() {
        "/token" => {
            assert_eq!(
                request.body,
                "grant_type=refresh_token&client_id=id&client_secret=cs&refresh_token=rt"
            );
            Reply::Say(200, TOKEN.to_owned())
        }
        _ => cloud_of_two_zones(request),
    })
    .await;
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("application_default_credentials.json");
    let user = r#"{"type": "authorized_user", "client_id": "id", "client_secret": "cs", "refresh_token": "rt"}"#;
    let mut surroundings = around(&cloud);
    surroundings.home_file = Some(path.clone());
    let exchanged = || {
        let asked = cloud.asked();
        asked
            .iter()
            .filter(|request| request.target == "/token")
            .count()
    };

    // It need not be there.
    let gce = Gce::new(config(), surroundings.clone());
    assert_eq!(gce.addresses().await.unwrap().len(), 3);
    assert_eq!(exchanged(), 0);
    std::fs::write(&path, user).unwrap();
    assert_eq!(gce.addresses().await.unwrap().len(), 3);
    assert_eq!(exchanged(), 1);

    // A file that was named has to be there.
    surroundings.named_file = Some(room.path().join("none.json"));
    let why = Gce::new(config(), surroundings).addresses().await;
    let why = why.unwrap_err().to_string();
    assert!(why.contains("none.json: No such file"), "{why}");
}

#[tokio::test]
async fn damaged_files_are_not_quoted() {
    let cloud = StandIn::start(cloud_of_two_zones).await;
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("file.json");
    let mut large = String::new();
    for _ in 0..40_000 {
        write!(large, "secret  ").unwrap();
    }
    let files = [
        "",
        "secret",
        r#"{"type": "secret"}"#,
        r#"{"type": "service_account", "client_email": "e", "private_key": ["secret"]}"#,
        r#"{"type": "service_account", "client_email": "e", "private_key": "secret"}"#,
        &large,
    ];
    for file in files {
        std::fs::write(&path, file).unwrap();
        let with_file = Config {
            credentials_file: Some(path.clone()),
            ..config()
        };
        let why = Gce::new(with_file, around(&cloud)).addresses().await;
        let why = why.unwrap_err().to_string();
        assert!(why.starts_with("the credentials in "), "{why}");
        assert!(!why.contains("secret"), "{why}");
    }
    let folder = Config {
        credentials_file: Some(room.path().to_owned()),
        ..config()
    };
    Gce::new(folder, around(&cloud))
        .addresses()
        .await
        .unwrap_err();
    assert!(cloud.asked().is_empty());
}

#[tokio::test]
async fn refusals_damage_and_floods_are_errors() {
    let refusal =
        r#"{"error": {"code": 403, "message": "the-token", "errors": [{"reason": "forbidden"}]}}"#;
    let cases = [
        (
            Reply::Say(403, refusal.to_owned()),
            "GCE refused: status 403 forbidden",
        ),
        (Reply::Say(500, "oh".to_owned()), "GCE refused: status 500"),
        (
            Reply::Say(200, "{\"items\": [".to_owned()),
            "the answer of GCE makes no sense: EOF",
        ),
        (
            Reply::Say(200, "[".repeat(100_000)),
            "the answer of GCE makes no sense: ",
        ),
        (
            Reply::Say(200, r#"{"nextPageToken": "again"}"#.to_owned()),
            "the answer of GCE makes no sense: more than 100 pages",
        ),
        (
            Reply::Flood,
            "the answer of GCE is larger than 8388608 bytes",
        ),
        (Reply::HangUp, "asking GCE: "),
    ];
    for (reply, expected) in cases {
        let shown = format!("{reply:.60?}");
        let cloud = StandIn::start(move |request| {
            if request.target.ends_with("/token") {
                Reply::Say(200, TOKEN.to_owned())
            } else {
                reply.clone()
            }
        })
        .await;
        let why = Gce::new(config(), around(&cloud)).addresses().await;
        let why = why.unwrap_err().to_string();
        assert!(why.starts_with(expected), "{shown}: {why}");
        assert!(!why.contains("the-token"), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_ends_in_time() {
    let cloud = StandIn::start(|_| Reply::Silence).await;
    let why = Gce::new(config(), around(&cloud)).addresses().await;
    assert_eq!(
        why.unwrap_err().to_string(),
        "asking the GCE metadata service: no answer within 10 seconds"
    );
}

#[tokio::test]
async fn refused_tokens_say_why() {
    let cloud = StandIn::start(|_| {
        let refusal = r#"{"error": "invalid_grant", "error_description": "assertion"}"#;
        Reply::Say(400, refusal.to_owned())
    })
    .await;
    let room = tempfile::tempdir().unwrap();
    let with_file = Config {
        credentials_file: Some(account(&room, &cloud)),
        ..config()
    };
    let why = Gce::new(with_file, around(&cloud)).addresses().await;
    assert_eq!(
        why.unwrap_err().to_string(),
        "Google's token service refused: status 400 invalid_grant"
    );
}

#[test]
fn options() {
    let read = |pairs: &[(&'static str, &'static str)]| {
        Config::read(&pairs.iter().copied().collect::<Options<'_>>())
    };
    assert_eq!(read(&[("project_name", "p")]), Ok(None));
    let full = [
        ("credentials_file", "/c.json"),
        ("project_name", "p"),
        ("tag_value", "t"),
        ("zone_pattern", "us-.*"),
    ];
    let Ok(Some(super::super::Config::Gce(config))) = read(&full) else {
        unreachable!()
    };
    assert_eq!(config.credentials_file, Some(PathBuf::from("/c.json")));
    assert_eq!(
        read(&[("tag_value", "t"), ("zone_pattern", "(")]).unwrap_err(),
        "retry_join_gce.zone_pattern: \"(\" is no regular expression"
    );
    assert_eq!(
        read(&[("tag_value", "t"), ("project_name", "a/b")]).unwrap_err(),
        "retry_join_gce.project_name: \"a/b\" is no project"
    );
}

/// Whatever becomes of an answer's bytes, it ends in a page or in a message.
#[test]
fn damaged_pages_are_refused_or_read() {
    let whole = format!(
        r#"{{"items": [{}], "nextPageToken": "more"}}"#,
        instance("10.0.0.1", "RUNNING", "consul")
    )
    .into_bytes();
    let parse = |bytes: &[u8]| serde_json::from_slice::<Page<Instance>>(bytes).is_ok();
    assert!(parse(&whole));
    for at in 0..whole.len() {
        assert!(!parse(&whole[..at]));
        for replacement in [b'"', b'{', b']', b',', b'\\', b'9', 0, 0xff, whole[at] ^ 1] {
            let mut damaged = whole.clone();
            damaged[at] = replacement;
            parse(&damaged);
            let _ = refusal(&damaged);
        }
    }
}
