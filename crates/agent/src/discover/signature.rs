//! Amazon's signature for requests, version 4, and the one that Google asks for in a service account's assertion.
//! Both are functions of their inputs; the time is one of them.

use ring::{digest, hmac, rand, signature};

use super::Secret;

/// What Amazon knows us by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AwsCredentials {
    /// The public half.
    pub(super) access_key_id: String,
    /// The secret half.
    pub(super) secret_access_key: Secret,
    /// What temporary credentials need beside.
    pub(super) session_token: Option<Secret>,
}

/// A request as far as it is signed.
#[derive(Debug, Clone, Copy)]
pub(super) struct AwsRequest<'a> {
    /// The method, such as `POST`.
    pub(super) method: &'a str,
    /// The path, at least `/`.
    pub(super) path: &'a str,
    /// The query, escaped and sorted by name.
    pub(super) query: &'a str,
    /// The headers to sign, in lower case and sorted by name; `host` is one of them.
    /// `x-amz-date` and `x-amz-security-token` are added by the signature.
    pub(super) headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub(super) body: &'a [u8],
}

/// The headers that a signed request carries beside those that were signed.
///
/// `time` is the moment in the form `20150830T123600Z`, of which the service accepts a few minutes' difference.
pub(super) fn aws(
    request: AwsRequest<'_>,
    credentials: &AwsCredentials,
    region: &str,
    service: &str,
    time: &str,
) -> Vec<(&'static str, String)> {
    let date = time.get(..8).unwrap_or(time);
    let scope = format!("{date}/{region}/{service}/aws4_request");

    let mut headers: Vec<(&str, &str)> = request.headers.to_vec();
    headers.push(("x-amz-date", time));
    if let Some(token) = &credentials.session_token {
        headers.push(("x-amz-security-token", token.reveal()));
    }
    headers.sort_unstable();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let lines: String = headers
        .iter()
        .map(|(name, value)| format!("{name}:{}\n", value.trim()))
        .collect();

    let canonical = [
        request.method,
        request.path,
        request.query,
        &lines,
        &names,
        &hex(digest::digest(&digest::SHA256, request.body).as_ref()),
    ]
    .join("\n");
    let canonical = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{canonical}");

    let root = format!("AWS4{}", credentials.secret_access_key.reveal());
    let key = [date, region, service, "aws4_request"]
        .iter()
        .fold(root.into_bytes(), |key, part| keyed(&key, part));
    let signature = hex(&keyed(&key, &to_sign));

    let mut added = vec![
        (
            "authorization",
            format!(
                "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
                credentials.access_key_id
            ),
        ),
        ("x-amz-date", time.to_owned()),
    ];
    if let Some(token) = &credentials.session_token {
        added.push(("x-amz-security-token", token.reveal().to_owned()));
    }
    added
}

fn keyed(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A JSON web token over `claims`, signed with RS256.
///
/// # Errors
/// When the key, in PEM, is none. The message says nothing of its content.
pub(super) fn jwt(header: &str, claims: &str, private_key: &Secret) -> Result<String, String> {
    let key = rsa_key(private_key.reveal())?;
    let encode = |bytes: &[u8]| base64_simd::URL_SAFE_NO_PAD.encode_to_string(bytes);
    let signed = format!(
        "{}.{}",
        encode(header.as_bytes()),
        encode(claims.as_bytes())
    );
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(
        &signature::RSA_PKCS1_SHA256,
        &rand::SystemRandom::new(),
        signed.as_bytes(),
        &mut signature,
    )
    .map_err(|_| "the private key can't sign".to_owned())?;
    Ok(format!("{signed}.{}", encode(&signature)))
}

fn rsa_key(pem: &str) -> Result<signature::RsaKeyPair, String> {
    let refused = || "the private key is no RSA key in PEM".to_owned();
    let (kind, rest) = pem
        .split_once("-----BEGIN ")
        .and_then(|(_, rest)| rest.split_once("-----"))
        .ok_or_else(refused)?;
    let (body, _) = rest.split_once("-----END ").ok_or_else(refused)?;
    let body: String = body.split_ascii_whitespace().collect();
    let der = base64_simd::STANDARD
        .decode_to_vec(body)
        .map_err(|_| refused())?;
    match kind {
        "PRIVATE KEY" => signature::RsaKeyPair::from_pkcs8(&der),
        "RSA PRIVATE KEY" => signature::RsaKeyPair::from_der(&der),
        _ => return Err(refused()),
    }
    .map_err(|why| format!("the private key can't be used: {why}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A key that was made for these tests and is used nowhere else.
    pub(in super::super) const PRIVATE_KEY: &str =
        include_str!("../../tests/fixtures/discover/private-key.pem");
    const PUBLIC_KEY: &[u8] = include_bytes!("../../tests/fixtures/discover/public-key.der");

    /// Whether our test key has signed `token`.
    pub(in super::super) fn is_ours(token: &str) -> bool {
        let Some((signed, proof)) = token.rsplit_once('.') else {
            return false;
        };
        let proof = base64_simd::URL_SAFE_NO_PAD.decode_to_vec(proof).unwrap();
        signature::UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, PUBLIC_KEY)
            .verify(signed.as_bytes(), &proof)
            .is_ok()
    }

    fn example() -> AwsCredentials {
        AwsCredentials {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            session_token: None,
        }
    }

    fn signed(request: AwsRequest<'_>, credentials: &AwsCredentials, service: &str) -> String {
        let added = aws(
            request,
            credentials,
            "us-east-1",
            service,
            "20150830T123600Z",
        );
        added[0].1.clone()
    }

    /// The vectors that Amazon publishes.
    #[test]
    fn amazons_examples() {
        let plain = AwsRequest {
            method: "GET",
            path: "/",
            query: "",
            headers: &[("host", "example.amazonaws.com")],
            body: b"",
        };
        assert_eq!(
            signed(plain, &example(), "service"),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, \
             Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
        let cases = [
            (
                AwsRequest {
                    method: "POST",
                    ..plain
                },
                "service",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                AwsRequest {
                    query: "Param1=value1&Param2=value2",
                    ..plain
                },
                "service",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                AwsRequest {
                    method: "POST",
                    headers: &[
                        ("content-type", "application/x-www-form-urlencoded"),
                        ("host", "example.amazonaws.com"),
                    ],
                    body: b"Param1=value1",
                    ..plain
                },
                "service",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
            (
                AwsRequest {
                    query: "Action=ListUsers&Version=2010-05-08",
                    headers: &[
                        (
                            "content-type",
                            "application/x-www-form-urlencoded; charset=utf-8",
                        ),
                        ("host", "iam.amazonaws.com"),
                    ],
                    ..plain
                },
                "iam",
                "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
            ),
        ];
        for (request, service, signature) in cases {
            let header = signed(request, &example(), service);
            assert!(header.ends_with(signature), "{request:?}: {header}");
        }
    }

    #[test]
    fn temporary_credentials_sign_their_token() {
        let temporary = AwsCredentials {
            session_token: Some(Secret::new("token")),
            ..example()
        };
        let request = AwsRequest {
            method: "GET",
            path: "/",
            query: "",
            headers: &[("host", "example.amazonaws.com")],
            body: b"",
        };
        let added = aws(request, &temporary, "r", "s", "20150830T123600Z");
        assert!(added[0].1.contains("host;x-amz-date;x-amz-security-token"));
        assert_eq!(added[2], ("x-amz-security-token", "token".to_owned()));
        assert!(!format!("{temporary:?}").contains("token\""));
    }

    #[test]
    fn a_token_is_signed_and_bad_keys_are_refused_silently() {
        let token = jwt(r#"{"alg":"RS256"}"#, "{}", &Secret::new(PRIVATE_KEY)).unwrap();
        assert!(is_ours(&token));
        assert!(!is_ours(&token.replacen("e30", "e31", 1)));
        for broken in [
            "",
            "-----BEGIN PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----",
            "-----BEGIN CERTIFICATE-----\nc2VjcmV0\n-----END CERTIFICATE-----",
            &PRIVATE_KEY[..400],
        ] {
            let why = jwt("{}", "{}", &Secret::new(broken)).unwrap_err();
            assert!(!why.contains("c2VjcmV0"), "{why}");
        }
    }
}
