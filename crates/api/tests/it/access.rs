//! Who may see and change what of an agent's services and checks, where rules about agents hold.

use agent::local::{ApiScripts, LocalConfig};
use model::Text;

use crate::given;
use crate::local::Node;

/// An agent with a service `web` and checks of it and of the node, whose servers say this of every token.
async fn node(grant: &str, api_scripts: ApiScripts) -> Node {
    let config = LocalConfig {
        api_scripts,
        ..LocalConfig::default()
    };
    let before = given::tokens_in_turn(&["everything", "everything", grant]);
    let node = Node::judging(Node::willing(), config, before).await;
    for (path, body) in [
        (
            "service/register",
            r#"{"ID":"w","Name":"web","Check":{"TTL":"1h"}}"#,
        ),
        ("check/register", r#"{"Name":"mem","TTL":"1h"}"#),
    ] {
        let (status, why) = node.ask(&format!("PUT {path}"), body).await;
        assert_eq!(status, 200, "{why}");
    }
    node
}

const WEB: &str = "403 Permission denied: this needs write on service \"web\"";
const DB: &str = "403 Permission denied: this needs write on service \"db\"";
const N1: &str = "403 Permission denied: this needs write on node \"n1\"";
const NO_CHECK: &str = "500 Unknown check \"nothing\"";
const NO_SERVICE: &str = "500 Unknown service \"nothing\"";
const DONE: &str = "200 ";

/// A change, its body, and what comes of it for each of [`GRANTS`].
type Change = (&'static str, &'static str, [&'static str; 5]);

const GRANTS: [&str; 5] = [
    "nothing",
    "service:=read node:=read agent:=write",
    "service:web=write",
    "service:db=write",
    "node:n1=write",
];

// One change a line, so that the answers stand below one another.
#[rustfmt::skip]
const CHANGES: [Change; 14] = [
    ("PUT service/register", r#"{"ID":"w","Name":"web"}"#, [WEB, WEB, DONE, WEB, WEB]),
    ("PUT service/register", r#"{"Name":"db"}"#, [DB, DB, DB, DONE, DB]),
    // It needs both: that of the service that it was, and that of what it is to be.
    ("PUT service/register", r#"{"ID":"w","Name":"db"}"#, [DB, DB, DB, WEB, DB]),
    ("PUT check/register", r#"{"Name":"c","TTL":"1h","ServiceID":"w"}"#, [WEB, WEB, DONE, WEB, WEB]),
    ("PUT check/register", r#"{"Name":"d","TTL":"1h"}"#, [N1, N1, N1, N1, DONE]),
    ("PUT check/pass/service:w", "", [WEB, WEB, DONE, WEB, WEB]),
    ("PUT check/warn/mem", "", [N1, N1, N1, N1, DONE]),
    ("PUT check/fail/nothing", "", [NO_CHECK; 5]),
    ("PUT check/update/service:w", r#"{"Status":"passing"}"#, [WEB, WEB, DONE, WEB, WEB]),
    ("PUT service/maintenance/w?enable=true", "", [WEB, WEB, DONE, WEB, WEB]),
    ("PUT service/maintenance/nothing?enable=true", "", [NO_SERVICE; 5]),
    ("PUT maintenance?enable=true", "", [N1, N1, N1, N1, DONE]),
    ("PUT check/deregister/mem", "", [N1, N1, N1, N1, DONE]),
    ("PUT service/deregister/w", "", [WEB, WEB, DONE, WEB, WEB]),
];

#[tokio::test(start_paused = true)]
async fn changes_need_the_rule_of_what_they_change() {
    for (column, grant) in GRANTS.into_iter().enumerate() {
        let node = node(grant, ApiScripts::Allowed).await;
        for (line, body, answers) in CHANGES {
            let (status, text) = node.ask(line, body).await;
            let answer = format!("{status} {text}");
            assert_eq!(answer, answers[column], "{line} {body} with {grant:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_may_be_read_is_shown() {
    let web = r#""w":{"ID":"w""#;
    for (grant, services, checks) in [
        ("nothing", vec![], vec![]),
        ("service:web=read", vec![web], vec!["service:w"]),
        ("node:n1=read", vec![], vec!["mem"]),
        (
            "service:we=read node:n=read",
            vec![web],
            vec!["mem", "service:w"],
        ),
        ("disabled", vec![web], vec!["mem", "service:w"]),
    ] {
        let node = node(grant, ApiScripts::Allowed).await;
        let shown = node.ask("GET services", "").await.1;
        assert_eq!(shown != "{}", !services.is_empty(), "{grant}: {shown}");
        assert!(
            services.iter().all(|it| shown.contains(it)),
            "{grant}: {shown}"
        );
        let shown = node.ask("GET checks", "").await.1;
        for check in ["mem", "service:w"] {
            let is_shown = shown.contains(&format!("\"{check}\":{{"));
            assert_eq!(is_shown, checks.contains(&check), "{grant}: {shown}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn scripts_are_taken_from_who_is_let_in_for_it() {
    let script = r#"{"Name":"s","Script":"true","Interval":"1h"}"#;
    let refused = "scripts that arrive over the HTTP API are not run by this agent";
    for (grant, api_scripts, expected) in [
        ("node:n1=write", ApiScripts::Admitted, ""),
        ("everything", ApiScripts::Admitted, ""),
        (
            "nothing",
            ApiScripts::Admitted,
            "Permission denied: this needs write on node",
        ),
        ("disabled", ApiScripts::Admitted, refused),
        ("everything", ApiScripts::Refused, refused),
        (
            "nothing",
            ApiScripts::Allowed,
            "Permission denied: this needs write on node",
        ),
    ] {
        let node = node(grant, api_scripts).await;
        let token = [("X-Consul-Token", "t")];
        let (status, text) = node.ask_as("PUT check/register", script, &token).await;
        assert_eq!(
            status == 200,
            expected.is_empty(),
            "{grant} {api_scripts:?}: {text}"
        );
        assert!(
            text.starts_with(expected),
            "{grant} {api_scripts:?}: {text}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_of_somebody_else_brings_no_scripts() {
    let node = node("disabled", ApiScripts::Allowed).await;
    let script = r#"{"Name":"s","Script":"true","Interval":"1h"}"#;
    let docker =
        r#"{"Name":"s","Check":{"DockerContainerID":"c","Script":"true","Interval":"1h"}}"#;
    let ttl = r#"{"Name":"s","TTL":"1h"}"#;
    let of_another = [("Origin", "http://evil.example")];
    for (line, body) in [
        ("PUT check/register", script),
        ("POST check/register", script),
        ("PUT service/register", docker),
    ] {
        let (status, text) = node.ask_as(line, body, &of_another).await;
        let expected =
            "a check with a script is not taken from a web page of \"http://evil.example\"";
        assert_eq!(
            (status, text.starts_with(expected)),
            (403, true),
            "{line}: {text}"
        );
        let own = [("Origin", "http://localhost")];
        assert_eq!(node.ask_as(line, body, &own).await.0, 200, "{line}");
    }
    // What does no harm is nobody's business.
    let answer = node.ask_as("PUT check/register", ttl, &of_another).await;
    assert_eq!(answer, (200, String::new()));
}

#[tokio::test(start_paused = true)]
async fn the_token_of_the_request_goes_into_the_catalog() {
    let node = node("everything", ApiScripts::Allowed).await;
    node.written();
    let body = r#"{"Name":"db"}"#;
    let token = [("X-Consul-Token", "mine")];
    node.ask_as("PUT service/register", body, &token).await;
    let tokens: Vec<Text> = node.written().into_iter().map(|(_, token)| token).collect();
    assert!(tokens.contains(&Text::from("mine")), "{tokens:?}");
}
