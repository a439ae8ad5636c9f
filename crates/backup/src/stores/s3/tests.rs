use super::super::{AzureCloud, Destination, open_with};
use super::*;
use crate::stores::{Azure, Gcs};

fn nothing(_: &str) -> Option<String> {
    None
}

fn amazon() -> S3 {
    S3 {
        region: "eu-west-1".into(),
        bucket: "b".into(),
        access_key_id: "a".into(),
        secret_access_key: "s".into(),
        ..S3::default()
    }
}

#[test]
fn where_a_bucket_is() {
    let elsewhere = |endpoint: &str| S3 {
        endpoint: endpoint.into(),
        ..amazon()
    };
    let of = |s3: &S3, environment: Environment<'_>| {
        let place = s3.place(environment).unwrap();
        (place.endpoint, place.is_host, place.sts)
    };
    for (s3, endpoint, is_host) in [
        (amazon(), "https://b.s3.eu-west-1.amazonaws.com", true),
        (
            S3 {
                force_path_style: true,
                ..amazon()
            },
            "https://s3.eu-west-1.amazonaws.com",
            false,
        ),
        (
            S3 {
                bucket: "dots.in.it".into(),
                ..amazon()
            },
            "https://s3.eu-west-1.amazonaws.com",
            false,
        ),
        (
            S3 {
                region: "cn-north-1".into(),
                ..amazon()
            },
            "https://b.s3.cn-north-1.amazonaws.com.cn",
            true,
        ),
        (
            elsewhere("https://store.example.com/"),
            "https://b.store.example.com",
            true,
        ),
        (
            elsewhere("store.example.com:9000"),
            "https://b.store.example.com:9000",
            true,
        ),
        (
            elsewhere("http://127.0.0.1:9000"),
            "http://127.0.0.1:9000",
            false,
        ),
        (elsewhere("http://[::1]:9000"), "http://[::1]:9000", false),
        (elsewhere("http://minio:9000/"), "http://minio:9000", false),
    ] {
        let sts = match &s3.region[..] {
            "cn-north-1" => "https://sts.cn-north-1.amazonaws.com.cn/",
            _ => "https://sts.eu-west-1.amazonaws.com/",
        };
        let expected = (endpoint.to_owned(), is_host, sts.to_owned());
        assert_eq!(of(&s3, &nothing), expected, "{s3:?}");
    }

    let environment = |name: &str| {
        Some(match name {
            "AWS_S3_ENDPOINT" => "http://store.test".to_owned(),
            "AWS_S3_FORCE_PATH_STYLE" => "true".to_owned(),
            "AWS_ENDPOINT_URL_STS" => "http://sts.test".to_owned(),
            _ => return None,
        })
    };
    assert_eq!(
        of(&amazon(), &environment),
        ("http://store.test".into(), false, "http://sts.test/".into())
    );
}

#[test]
fn settings_that_cannot_be() {
    let open = |s3: S3| open_with(&Destination::S3(s3), &nothing, Patience::default());
    assert!(open(amazon()).is_ok());
    let bad = |change: fn(&mut S3)| {
        let mut s3 = amazon();
        change(&mut s3);
        let opened = open(s3.clone()).map(|store| store.describe());
        assert!(matches!(opened, Err(StoreError::Settings(_))), "{s3:?}");
    };
    bad(|s3| s3.bucket.clear());
    bad(|s3| s3.region.clear());
    bad(|s3| s3.secret_access_key.clear());
    bad(|s3| s3.access_key_id = "a\nb".into());
    bad(|s3| s3.session_token = "an answer\r\nwith: lines".into());
    bad(|s3| s3.key_prefix = "a//b".into());
    bad(|s3| s3.endpoint = "ftp://host".into());
    bad(|s3| s3.endpoint = "http://".into());
    bad(|s3| {
        s3.access_key_id.clear();
        s3.secret_access_key.clear();
        s3.web_identity_token_file = "/token".into();
    });
    let azure = |azure: Azure| {
        let opened = open_with(&Destination::Azure(azure), &nothing, Patience::default());
        opened.map(|store| store.describe())
    };
    let good = Azure {
        account_name: "a".into(),
        account_key: "a2V5".into(),
        container_name: "c".into(),
        environment: AzureCloud::German,
        ..Azure::default()
    };
    assert_eq!(
        azure(good.clone()).unwrap(),
        "Azure Blob -> Account: \"a\" Container: \"c\" Prefix: \"\""
    );
    for bad in [
        Azure::default(),
        Azure {
            account_key: "no base64!".into(),
            ..good.clone()
        },
        Azure {
            account_key: String::new(),
            service_principal_secret: "alone".into(),
            ..good
        },
    ] {
        assert!(matches!(azure(bad), Err(StoreError::Settings(_))));
    }
    let gcs = Destination::Gcs(Gcs::default());
    let opened = open_with(&gcs, &nothing, Patience::default()).map(|store| store.describe());
    assert!(matches!(opened, Err(StoreError::Settings(_))));
}
