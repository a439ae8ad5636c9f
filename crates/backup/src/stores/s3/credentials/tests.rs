use super::*;

#[test]
fn profiles() {
    let text = "# c\n[other]\naws_access_key_id = x\naws_secret_access_key=y\n[ default ]\naws_access_key_id = a=b\n\
                aws_secret_access_key = s\naws_session_token = t\n[half]\naws_access_key_id = z\n";
    let parse = |name| Keys::parse(text, name).map(|keys| (keys.id, keys.secret, keys.token));
    assert_eq!(
        parse("default"),
        Some(("a=b".into(), "s".into(), Some("t".into())))
    );
    assert_eq!(parse("other"), Some(("x".into(), "y".into(), None)));
    assert_eq!(parse("half"), None);
    assert_eq!(parse("none"), None);
}

type Variables<'a> = &'a [(&'a str, &'a str)];

/// What the plan is, in a word.
fn planned(s3: &S3, variables: Variables<'_>) -> String {
    let environment = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let source = match plan(s3, &environment) {
        Err(why) => return format!("error: {why}"),
        Ok(Source::Keys(keys)) => format!("keys {} {:?}", keys.id, keys.token),
        Ok(Source::Token(token)) => format!("token {:?} {}", token.file, token.role.arn),
        Ok(Source::Container(container)) => format!("container {}", container.url),
        Ok(Source::Instance { endpoint }) => format!("instance {endpoint:?}"),
    };
    match role(s3, &environment) {
        None => source,
        Some(role) => format!("{source}, then {} as {}", role.arn, role.session),
    }
}

#[test]
fn settings_go_before_the_environment_and_that_before_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    std::fs::write(
        &file,
        "[default]\naws_access_key_id=f\naws_secret_access_key=s\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let keys = S3 {
        access_key_id: "set".into(),
        secret_access_key: "s".into(),
        ..S3::default()
    };
    let token = S3 {
        web_identity_token_file: "/t".into(),
        role_arn: "arn:r".into(),
        ..S3::default()
    };
    let role = S3 {
        role_arn: "arn:r".into(),
        role_session_name: "nightly".into(),
        ..S3::default()
    };
    let own = |endpoint: &str| S3 {
        iam_endpoint: endpoint.into(),
        ..S3::default()
    };
    let none = S3::default();
    let both = [("AWS_ACCESS_KEY_ID", "env"), ("AWS_SECRET_ACCESS_KEY", "s")];
    let kubernetes = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/k"),
        ("AWS_ROLE_ARN", "arn:k"),
        ("AWS_SHARED_CREDENTIALS_FILE", file),
    ];
    let with_token = [both[0], both[1], ("AWS_SESSION_TOKEN", "t")];
    let profile = [("AWS_SHARED_CREDENTIALS_FILE", file)];
    let ecs = [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x")];
    let cases: [(&S3, Variables<'_>, &str); 17] = [
        (&keys, &with_token, "keys set None"),
        (&keys, &kubernetes, "keys set None"),
        (&token, &both, "token \"/t\" arn:r"),
        (&none, &with_token, "keys env Some(\"t\")"),
        (&none, &kubernetes, "token \"/k\" arn:k"),
        (&role, &kubernetes, "token \"/k\" arn:r"),
        (&none, &profile, "keys f None"),
        (&role, &profile, "keys f None, then arn:r as nightly"),
        (
            &none,
            &[profile[0], ("AWS_ROLE_ARN", "arn:e")],
            "keys f None, then arn:e as consul-snapshot",
        ),
        (&none, &ecs, "container http://169.254.170.2/v2/x"),
        (&none, &[], "instance None"),
        (&role, &[], "instance None, then arn:r as nightly"),
        (
            &own("http://imds.test/"),
            &[],
            "instance Some(\"http://imds.test\")",
        ),
        (&own("https://iam.amazonaws.com"), &[], "instance None"),
        (
            &none,
            &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://[fd00::1]/")],
            "instance Some(\"http://[fd00::1]\")",
        ),
        (
            &none,
            &both[..1],
            "error: the environment has one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; set both or neither",
        ),
        (
            &none,
            &[("AWS_EC2_METADATA_DISABLED", "true")],
            "error: S3 has no credentials: the settings and the environment name none, and AWS_EC2_METADATA_DISABLED forbids \
             to ask this machine",
        ),
    ];
    for (s3, variables, expected) in cases {
        assert_eq!(planned(s3, variables), expected, "{variables:?}");
    }
}

#[test]
fn loans_end() {
    let lent = |expiration: Option<&str>| {
        let word = |word: &str| Some(word.to_owned());
        let before = Instant::now();
        let loan = loan(
            word("a"),
            word("s"),
            word("t"),
            expiration.map(str::to_owned),
        );
        loan.unwrap().until.duration_since(before).as_secs()
    };
    assert_eq!(lent(None), 3300);
    assert_eq!(lent(Some("2999-01-01T00:00:00Z")), 3300);
    // What has ended by this machine's clock, which may be off, is not asked for all the time.
    assert_eq!(lent(Some("2001-01-01T00:00:00Z")), 30);
    assert_eq!(lent(Some("soon")), 3300);
    assert!(loan(Some("a\r\nb: c".into()), Some("s".into()), None, None).is_err());
    assert!(loan(None, Some("s".into()), None, None).is_err());
}

#[test]
fn elements() {
    let xml = "<?xml version=\"1.0\"?><R xmlns=\"u\"><Credentials><AccessKeyId>a</AccessKeyId>\n<SessionToken> t= \
               </SessionToken></Credentials></R>";
    assert_eq!(element(xml, "AccessKeyId").as_deref(), Some("a"));
    assert_eq!(element(xml, "SessionToken").as_deref(), Some("t="));
    assert_eq!(element(xml, "Other"), None);
    assert_eq!(element("<a><b", "b"), None);
    assert_eq!(element("no XML", "b"), None);
}
