//! What people ask with. Where a tool is missing the test says so and is content.

use std::net::SocketAddr;
use std::process::Command;

use dns::Config;

use crate::catalog::Catalog;
use crate::client::Face;

/// Runs a tool with these words; `None` if it isn't there.
async fn run(tool: &str, address: SocketAddr, words: &str) -> Option<String> {
    let mut command = Command::new(tool);
    command.arg(format!("@{}", address.ip()));
    command.args(["-p", &address.port().to_string()]);
    command.args(words.split(' '));
    let ran = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap();
    match ran {
        Ok(output) => {
            assert!(output.status.success(), "{tool} {words}: {output:?}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: {tool} is not installed");
            None
        }
        Err(error) => panic!("{tool}: {error}"),
    }
}

#[tokio::test]
async fn dig_and_kdig_understand() {
    let catalog = Catalog::default();
    for n in 0..40 {
        let node = format!("node-{n}");
        catalog
            .node(&node, &format!("10.0.0.{n}"))
            .service(&node, "web", "", 8000 + n);
    }
    catalog
        .node("six", "2001:db8::1")
        .service("six", "web6,v1", "2001:db8::77", 443);
    catalog.node("named", "node-1.node.consul");
    let face = Face::new(&catalog, Config::default());
    for tool in ["dig", "kdig"] {
        for (words, expected) in [
            ("node-7.node.consul A +short", "10.0.0.7\n"),
            ("node-7.node.consul A +short +tcp", "10.0.0.7\n"),
            ("six.node.consul AAAA +short", "2001:db8::1\n"),
            (
                "named.node.consul A +short",
                "node-1.node.consul.\n10.0.0.1\n",
            ),
            (
                "v1.web6.service.consul SRV +short",
                "1 1 443 20010db8000000000000000000000077.addr.dc1.consul.\n",
            ),
            ("-x 10.0.0.3 +short", "node-3.node.dc1.consul.\n"),
            ("consul NS +short", ""),
        ] {
            let Some(told) = run(tool, face.address, words).await else {
                break;
            };
            assert_eq!(told, expected, "{tool} {words}");
        }
        let options = "+tcp +noall +answer +additional";
        let Some(told) = run(
            tool,
            face.address,
            &format!("web.service.consul SRV {options}"),
        )
        .await
        else {
            continue;
        };
        for n in 0..40 {
            assert!(
                told.contains(&format!("1 1 {} node-{n}.node.dc1.consul.", 8000 + n)),
                "{told}"
            );
            assert!(
                told.lines()
                    .any(|line| line.ends_with(&format!("10.0.0.{n}"))),
                "{told}"
            );
        }
        let plain = "+noedns";
        for (words, expected) in [
            (format!("web.service.consul A {plain}"), "ANSWER: 3"),
            ("web.service.consul A +bufsize=4096".to_owned(), "ANSWER: 3"),
            (format!("nothing.consul A {plain}"), "NXDOMAIN"),
            (format!("example.com A {plain}"), "SERVFAIL"),
        ] {
            let told = run(tool, face.address, &words).await.unwrap();
            assert!(told.contains(expected), "{tool} {words}: {told}");
            assert!(!told.to_lowercase().contains("warning: message"), "{told}");
        }
    }
    face.stop().await;
}
