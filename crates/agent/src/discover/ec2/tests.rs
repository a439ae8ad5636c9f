use super::super::stand_in::{Reply, Request, StandIn};
use super::*;

const SECRET: &str = "very-secret-access-key";

fn config() -> Config {
    Config {
        region: "eu-west-1".to_owned(),
        tag_key: "role".to_owned(),
        tag_value: "consul server".to_owned(),
        credentials: Some(("AKID".to_owned(), Secret::new(SECRET))),
    }
}

/// Everything of Amazon's at one stand-in, and no credentials lying about.
fn around(cloud: &StandIn) -> Surroundings {
    Surroundings {
        api_url: Some(cloud.url()),
        metadata_url: Some(cloud.url()),
        containers_url: cloud.url(),
        container_path: None,
        credentials: None,
        credentials_file: None,
        profile: "default".to_owned(),
    }
}

fn instance(address: &str, state: &str) -> String {
    format!(
        "<item><instanceId>i-1</instanceId><instanceState><code>16</code><name>{state}</name></instanceState>\
         <privateIpAddress>{address}</privateIpAddress><ipAddress>54.0.0.1</ipAddress><networkInterfaceSet><item>\
         <privateIpAddress>10.9.9.9</privateIpAddress></item></networkInterfaceSet></item>"
    )
}

fn page(instances: &[String], next: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId>\
         <reservationSet><item><reservationId>r-1</reservationId><groupSet/><instancesSet>{}</instancesSet></item>\
         </reservationSet>{next}</DescribeInstancesResponse>",
        instances.concat()
    )
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[tokio::test]
async fn finds_running_instances_on_every_page() {
    let cloud = StandIn::start(|request| {
        if request.body.contains("NextToken=a%26b") {
            let third = instance("10.0.0.3", "running");
            return Reply::Say(200, page(&[third], "<nextToken></nextToken>"));
        }
        let instances = [
            instance("10.0.0.1", "running"),
            instance("10.0.0.2", "stopped"),
        ];
        Reply::Say(200, page(&instances, "<nextToken>a&amp;b</nextToken>"))
    })
    .await;
    let found = Ec2::new(config(), around(&cloud)).addresses().await;
    assert_eq!(found, Ok(ips(&["10.0.0.1", "10.0.0.3"])));

    let asked = cloud.asked();
    assert_eq!(asked.len(), 2);
    let first = &asked[0];
    assert_eq!(
        (first.method.as_str(), first.target.as_str()),
        ("POST", "/")
    );
    assert_eq!(
        first.body,
        "Action=DescribeInstances&Version=2016-11-15&Filter.1.Name=tag%3Arole\
         &Filter.1.Value.1=consul%20server&Filter.2.Name=instance-state-name&Filter.2.Value.1=running&MaxResults=1000"
    );
    let proof = first.header("authorization");
    assert!(proof.starts_with("AWS4-HMAC-SHA256 Credential=AKID/"));
    assert!(
        proof.contains("/eu-west-1/ec2/aws4_request, SignedHeaders=content-type;host;x-amz-date,")
    );
    // What was signed is what was sent.
    let headers = [
        ("content-type", first.header("content-type")),
        ("host", first.header("host")),
    ];
    let signed = AwsRequest {
        method: "POST",
        path: "/",
        query: "",
        headers: &headers,
        body: first.body.as_bytes(),
    };
    let credentials = AwsCredentials {
        access_key_id: "AKID".to_owned(),
        secret_access_key: Secret::new(SECRET),
        session_token: None,
    };
    let time = first.header("x-amz-date");
    let expected = signature::aws(signed, &credentials, "eu-west-1", "ec2", time);
    assert_eq!(proof, expected[0].1);
}

#[tokio::test]
async fn nothing_found_is_an_answer() {
    let cloud = StandIn::start(|_| Reply::Say(200, page(&[], ""))).await;
    let found = Ec2::new(config(), around(&cloud)).addresses().await;
    assert_eq!(found, Ok(Vec::new()));
}

#[tokio::test]
async fn refusals_damage_and_floods_are_errors() {
    let refusal = "<Response><Errors><Error><Code>AuthFailure</Code><Message>AKID very-secret</Message></Error>\
                   </Errors></Response>";
    let endless = page(&[], "<nextToken>again</nextToken>");
    let deep = "<a>".repeat(100_000);
    let cases = [
        (
            Reply::Say(403, refusal.to_owned()),
            "EC2 refused: status 403 AuthFailure",
        ),
        (
            Reply::Say(503, "busy".to_owned()),
            "EC2 refused: status 503",
        ),
        (Reply::Say(302, String::new()), "EC2 refused: status 302"),
        (
            Reply::Say(200, String::new()),
            "the answer of EC2 makes no sense: it ends too early",
        ),
        (
            Reply::Say(200, page(&[], "")[..200].to_owned()),
            "the answer of EC2 makes no sense: ",
        ),
        (
            Reply::Say(200, "<a><b></a></b>".to_owned()),
            "the answer of EC2 makes no sense: ",
        ),
        (
            Reply::Say(200, "<a>&bomb;</a>".to_owned()),
            "the answer of EC2 makes no sense: it has entities of its own",
        ),
        (
            Reply::Say(200, deep),
            "the answer of EC2 makes no sense: more than 32 elements within one another",
        ),
        (
            Reply::Say(200, page(&[instance("x", "running")], "")),
            "the answer of EC2 makes no sense: a private address is none",
        ),
        (
            Reply::Say(200, endless),
            "the answer of EC2 makes no sense: more than 100 pages",
        ),
        (
            Reply::Flood,
            "the answer of EC2 is larger than 8388608 bytes",
        ),
        (Reply::HangUp, "asking EC2: "),
    ];
    for (reply, expected) in cases {
        let shown = format!("{reply:.60?}");
        let cloud = StandIn::start(move |_| reply.clone()).await;
        let why = Ec2::new(config(), around(&cloud))
            .addresses()
            .await
            .unwrap_err()
            .to_string();
        assert!(why.starts_with(expected), "{shown}: {why}");
        assert!(!why.contains("secret"), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_ends_in_time() {
    let cloud = StandIn::start(|_| Reply::Silence).await;
    let why = Ec2::new(config(), around(&cloud)).addresses().await;
    assert_eq!(
        why.unwrap_err().to_string(),
        "asking EC2: no answer within 10 seconds"
    );
}

#[tokio::test]
async fn nobody_there() {
    let surroundings = {
        let gone = StandIn::start(|_| Reply::Silence).await;
        around(&gone)
    };
    // The stand-in's socket closes when its task has ended.
    tokio::task::yield_now().await;
    let why = Ec2::new(config(), surroundings).addresses().await;
    assert!(why.unwrap_err().to_string().starts_with("asking EC2: "));
}

/// Answers as an instance's metadata service of the newer form, and as EC2.
fn instance_cloud(request: &Request, attempt: usize) -> Reply {
    let say = |text: &str| Reply::Say(200, text.to_owned());
    if request.target == "/latest/api/token" {
        assert_eq!(request.method, "PUT");
        assert_eq!(request.header("x-aws-ec2-metadata-token-ttl-seconds"), "60");
        return say("metadata-token");
    }
    if request.method == "GET" && request.header("x-aws-ec2-metadata-token") != "metadata-token" {
        return Reply::Say(401, String::new());
    }
    match request.target.as_str() {
        "/latest/meta-data/placement/region" => Reply::Say(404, String::new()),
        "/latest/meta-data/placement/availability-zone" => say("ap-south-1b"),
        "/latest/meta-data/iam/security-credentials/" => say("the-role\n"),
        "/latest/meta-data/iam/security-credentials/the-role" => say(&format!(
            r#"{{"Code": "Success", "AccessKeyId": "AKID{attempt}", "SecretAccessKey": "s", "Token": "t{attempt}"}}"#
        )),
        "/" if request.header("x-amz-security-token") == format!("t{attempt}") => {
            say(&page(&[instance("10.0.0.1", "running")], ""))
        }
        _ => Reply::Say(
            403,
            "<Response><Errors><Error><Code>RequestExpired</Code></Error></Errors></Response>"
                .to_owned(),
        ),
    }
}

#[tokio::test]
async fn an_instance_asks_its_metadata_afresh_each_time() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    // What the metadata service hands out changes from one attempt to the next; the old one has expired then.
    let attempt = Arc::new(AtomicUsize::new(1));
    let now = Arc::clone(&attempt);
    let cloud =
        StandIn::start(move |request| instance_cloud(request, now.load(Ordering::SeqCst))).await;
    let without = Config {
        region: String::new(),
        credentials: None,
        ..config()
    };
    let ec2 = Ec2::new(without, around(&cloud));
    for number in 1..=2 {
        attempt.store(number, Ordering::SeqCst);
        assert_eq!(ec2.addresses().await, Ok(ips(&["10.0.0.1"])));
        let last = cloud.asked().pop().unwrap();
        let proof = last.header("authorization");
        assert!(proof.contains(&format!("Credential=AKID{number}/")));
        assert!(proof.contains("/ap-south-1/ec2/"));
    }
}

#[tokio::test]
async fn the_older_metadata_service_has_no_tokens() {
    let cloud = StandIn::start(|request| match request.target.as_str() {
        "/latest/meta-data/placement/region" => Reply::Say(200, "us-east-1".to_owned()),
        "/" => Reply::Say(200, page(&[], "")),
        _ => Reply::Say(404, String::new()),
    })
    .await;
    let without = Config {
        region: String::new(),
        ..config()
    };
    assert_eq!(
        Ec2::new(without, around(&cloud)).addresses().await,
        Ok(Vec::new())
    );
}

#[tokio::test]
async fn without_credentials_it_says_where_it_looked() {
    let cloud = StandIn::start(|_| Reply::Say(404, String::new())).await;
    let without = Config {
        credentials: None,
        ..config()
    };
    let mut surroundings = around(&cloud);
    let ec2 = Ec2::new(without.clone(), surroundings.clone());
    let why = ec2.addresses().await.unwrap_err().to_string();
    assert!(
        why.starts_with("no credentials for EC2 in the configuration, the environment or"),
        "{why}"
    );
    surroundings.metadata_url = None;
    let why = Ec2::new(without, surroundings).addresses().await;
    assert!(why.unwrap_err().to_string().ends_with(
        "asking the EC2 metadata service: it is switched off by AWS_EC2_METADATA_DISABLED"
    ));
}

#[tokio::test]
async fn the_order_of_credentials() {
    let cloud = StandIn::start(|request| match request.target.as_str() {
        "/container" => Reply::Say(
            200,
            r#"{"AccessKeyId": "CONTAINER", "SecretAccessKey": "s", "Token": "t", "Expiration": "x"}"#
                .to_owned(),
        ),
        _ => Reply::Say(200, page(&[], "")),
    })
    .await;
    let room = tempfile::tempdir().unwrap();
    let file = room.path().join("credentials");
    std::fs::write(
        &file,
        "[default]\naws_access_key_id = FILE\n# aws_access_key_id = no\naws_secret_access_key=s=\n[other]\n\
         aws_access_key_id = OTHER\naws_secret_access_key = s\naws_session_token = t\n",
    )
    .unwrap();
    let mut surroundings = Surroundings {
        credentials: Some(("ENV".to_owned(), Secret::new("s"), None)),
        credentials_file: Some(file.clone()),
        container_path: Some("/container".to_owned()),
        ..around(&cloud)
    };
    let used = async |config: Config, surroundings: &Surroundings| {
        let ec2 = Ec2::new(config, surroundings.clone());
        ec2.addresses().await.unwrap();
        let proof = cloud.asked().pop().unwrap();
        let id = proof.header("authorization").split(['=', '/']).nth(1);
        id.unwrap().to_owned()
    };
    let without = Config {
        credentials: None,
        ..config()
    };
    assert_eq!(used(config(), &surroundings).await, "AKID");
    assert_eq!(used(without.clone(), &surroundings).await, "ENV");
    surroundings.credentials = None;
    assert_eq!(used(without.clone(), &surroundings).await, "FILE");
    surroundings.profile = "other".to_owned();
    assert_eq!(used(without.clone(), &surroundings).await, "OTHER");
    surroundings.profile = "none".to_owned();
    assert_eq!(used(without.clone(), &surroundings).await, "CONTAINER");
}

#[tokio::test]
async fn damaged_credentials_are_not_quoted() {
    let answers = [
        r#"{"AccessKeyId": "A", "SecretAccessKey": 17, "Token": "secret"}"#,
        r#"{"AccessKeyId": "A\nB", "SecretAccessKey": "secret"}"#,
        r#"{"AccessKeyId": "A", "SecretAccessKey": "secret", "Token": "secret\u0000"}"#,
        "secret",
        "",
    ];
    for answer in answers {
        let cloud = StandIn::start(move |_| Reply::Say(200, answer.to_owned())).await;
        let without = Config {
            credentials: None,
            ..config()
        };
        let surroundings = Surroundings {
            container_path: Some("/".to_owned()),
            ..around(&cloud)
        };
        let why = Ec2::new(without, surroundings).addresses().await;
        let why = why.unwrap_err().to_string();
        assert!(!why.contains("secret"), "{why}");
    }
}

#[test]
fn options() {
    let read = |pairs: &[(&'static str, &'static str)]| {
        Config::read(&pairs.iter().copied().collect::<Options<'_>>())
    };
    assert_eq!(read(&[("region", "eu-west-1")]), Ok(None));
    assert_eq!(
        read(&[
            ("access_key_id", "AKID"),
            ("region", "eu-west-1"),
            ("secret_access_key", SECRET),
            ("tag_key", "role"),
            ("tag_value", "consul server"),
        ]),
        Ok(Some(super::super::Config::Ec2(config())))
    );
    let tags = [("tag_key", "a"), ("tag_value", "b")];
    let cases: [(&[_], &str); 4] = [
        (
            &[("tag_key", "a")],
            "tag key and value are both required for EC2 retry-join",
        ),
        (
            &[tags[0], tags[1], ("region", "x.evil.org/")],
            "retry_join_ec2.region: \"x.evil.org/\" is no region",
        ),
        (
            &[tags[0], tags[1], ("access_key_id", "a")],
            "retry_join_ec2: access_key_id and secret_access_key are needed together",
        ),
        (
            &[
                tags[0],
                tags[1],
                ("access_key_id", "a b"),
                ("secret_access_key", "s"),
            ],
            "retry_join_ec2.access_key_id is no access key id",
        ),
    ];
    for (pairs, problem) in cases {
        assert_eq!(read(pairs).unwrap_err(), problem);
    }
    assert!(!format!("{:?}", config()).contains("secret"));
}

/// Whatever becomes of an answer's bytes, it ends in a page or in a message.
#[test]
fn damaged_pages_are_refused_or_read() {
    let instances = [
        instance("10.0.0.1", "running"),
        instance("10.0.0.2", "stopped"),
    ];
    let whole = page(&instances, "<nextToken>a&amp;b&#65;</nextToken>").into_bytes();
    let parsed = parse_page(&whole).unwrap();
    assert_eq!(parsed.next.as_deref(), Some("a&bA"));
    assert_eq!(parsed.addresses, ips(&["10.0.0.1"]));
    for at in 0..whole.len() {
        parse_page(&whole[..at]).unwrap_err();
        for replacement in [
            b'<',
            b'>',
            b'/',
            b'&',
            b';',
            b'!',
            b'?',
            b'"',
            0,
            0xff,
            whole[at] ^ 1,
        ] {
            let mut damaged = whole.clone();
            damaged[at] = replacement;
            let _ = parse_page(&damaged).map_err(|why| why.len());
            let _ = refusal(&damaged);
        }
    }
}
