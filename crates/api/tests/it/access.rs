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

const CHANGES: [(&str, &str); 13] = [
    ("PUT service/register", r#"{"ID":"w","Name":"web"}"#),
    ("PUT service/register", r#"{"Name":"db"}"#),
    ("PUT service/register", r#"{"ID":"w","Name":"db"}"#),
    (
        "PUT check/register",
        r#"{"Name":"c","TTL":"1h","ServiceID":"w"}"#,
    ),
    ("PUT check/register", r#"{"Name":"d","TTL":"1h"}"#),
    ("PUT check/pass/service:w", ""),
    ("PUT check/warn/mem", ""),
    ("PUT check/fail/nothing", ""),
    ("PUT check/update/service:w", r#"{"Status":"passing"}"#),
    ("PUT service/maintenance/w?enable=true", ""),
    ("PUT service/maintenance/nothing?enable=true", ""),
    ("PUT maintenance?enable=true", ""),
    ("PUT check/deregister/mem", ""),
];

async fn answers(grant: &str) -> Vec<String> {
    let node = node(grant, ApiScripts::Allowed).await;
    let mut answers = Vec::new();
    for (line, body) in CHANGES {
        let (status, text) = node.ask(line, body).await;
        answers.push(format!("{status} {text}"));
    }
    let (status, text) = node.ask("PUT service/deregister/w", "").await;
    answers.push(format!("{status} {text}"));
    answers
}

const UNKNOWN_CHECK: &str = "500 Unknown check \"nothing\"";
const UNKNOWN_SERVICE: &str = "500 Unknown service \"nothing\"";

#[tokio::test(start_paused = true)]
async fn changes_need_the_rule_of_what_they_change() {
    let web = "403 Permission denied: this needs write on service \"web\"";
    let db = "403 Permission denied: this needs write on service \"db\"";
    let n1 = "403 Permission denied: this needs write on node \"n1\"";
    let done = "200 ";
    let none = [
        web,
        db,
        db,
        web,
        n1,
        web,
        n1,
        UNKNOWN_CHECK,
        web,
        web,
        UNKNOWN_SERVICE,
        n1,
        n1,
        web,
    ];
    assert_eq!(answers("nothing").await, none);
    assert_eq!(answers("service:=read node:=read agent:=write").await, none);
    let of_web = [
        done,
        db,
        db,
        done,
        n1,
        done,
        n1,
        UNKNOWN_CHECK,
        done,
        done,
        UNKNOWN_SERVICE,
        n1,
        n1,
        done,
    ];
    assert_eq!(answers("service:web=write").await, of_web);
    let of_node = [
        web,
        db,
        db,
        web,
        done,
        web,
        done,
        UNKNOWN_CHECK,
        web,
        web,
        UNKNOWN_SERVICE,
        done,
        done,
        web,
    ];
    assert_eq!(answers("node:n1=write").await, of_node);
    let of_db = [
        web,
        done,
        web,
        web,
        n1,
        web,
        n1,
        UNKNOWN_CHECK,
        web,
        web,
        UNKNOWN_SERVICE,
        n1,
        n1,
        web,
    ];
    assert_eq!(answers("service:db=write").await, of_db);
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
