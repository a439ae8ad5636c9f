//! `/v1/agent/` over an agent that really keeps services and checks, and a cluster that takes whatever it writes.

use std::time::Duration;

use agent::local::{ApiScripts, Definitions, Local, LocalConfig};
use api::http::{Method, Reaction, Request, ResponseBody, Service};
use model::{Answer, Command, Error, Reply, Text};
use rpc::Meta;
use serde_json::{Value, json};
use testkit::{Asked, Fake, FakeCluster};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::given;

/// An agent at work.
pub(crate) struct Node {
    api: std::sync::Arc<api::Api>,
    fake: FakeCluster,
    _keeper: JoinHandle<()>,
}

impl Node {
    /// One whose cluster takes everything.
    async fn new() -> Self {
        Self::with(LocalConfig::default()).await
    }

    async fn with(config: LocalConfig) -> Self {
        Self::over(Self::willing(), config).await
    }

    /// A cluster that takes everything.
    pub(crate) fn willing() -> FakeCluster {
        let fake = FakeCluster::new();
        // What the catalog has of this node: nothing.
        for nothing in [Answer::CatalogNode(None), Answer::HealthNode(Vec::new())] {
            fake.answer(Fake::Answer(nothing, Meta::default()));
        }
        for _ in 0..500 {
            fake.answer(Fake::Reply(Reply::Applied(true)));
        }
        fake
    }

    async fn over(fake: FakeCluster, config: LocalConfig) -> Self {
        Self::judging(fake, config, agent::Tokens::unjudged()).await
    }

    /// The same that judges tokens so.
    pub(crate) async fn judging(
        fake: FakeCluster,
        config: LocalConfig,
        tokens: agent::Tokens,
    ) -> Self {
        let config = LocalConfig {
            node: Text::from("n1"),
            address: Text::from("10.0.0.1"),
            ..config
        };
        let (local, keeper) = Local::new(config);
        let (started, is_started) = oneshot::channel();
        let keeping = keeper.run(fake.cluster(), Definitions::default(), || 1, started);
        let keeper = tokio::spawn(keeping);
        is_started.await.unwrap().unwrap();
        let agent = given::agent_judging(local, tokens);
        let api = api::service(fake.cluster(), agent, api::Config::default());
        Self {
            api,
            fake,
            _keeper: keeper,
        }
    }

    /// Status and body of what is answered, such as to `PUT services` below `/v1/agent/`.
    pub(crate) async fn ask(&self, line: &str, body: &str) -> (u16, String) {
        self.ask_as(line, body, &[]).await
    }

    pub(crate) async fn ask_as(
        &self,
        line: &str,
        body: &str,
        headers: &[(&str, &str)],
    ) -> (u16, String) {
        let (method, path) = line.split_once(' ').unwrap();
        let target = format!("/v1/agent/{path}");
        let method: Method = method.parse().unwrap();
        let request =
            Request::new(&method, &target, headers, body.as_bytes().to_vec().into()).unwrap();
        let response = match self.api.call(request) {
            Reaction::Now(response) => response,
            Reaction::Later(response) | Reaction::Park(response) => response.await,
        };
        let ResponseBody::Full(body) = response.body else {
            panic!("none of these is a stream");
        };
        let text = String::from_utf8(body.to_vec()).unwrap();
        (response.status.as_u16(), text)
    }

    /// Something that works.
    async fn put(&self, path: &str, body: &str) {
        let answer = self.ask(&format!("PUT {path}"), body).await;
        assert_eq!(answer, (200, String::new()), "{path} {body}");
    }

    /// What `GET /v1/agent/…` shows.
    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(&format!("GET {path}"), "").await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// A field of a check.
    async fn check(&self, id: &str, field: &str) -> String {
        let checks = self.get("checks").await;
        checks[id][field].as_str().unwrap_or("none").to_owned()
    }

    /// What was written into the catalog since the last look, with its token.
    pub(crate) fn written(&self) -> Vec<(Command, Text)> {
        let asked = self.fake.asked().into_iter();
        asked
            .filter_map(|asked| match asked {
                Asked::Write(command, options) => Some((command, options.token)),
                _ => None,
            })
            .collect()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_registered_is_shown() {
    let node = Node::new().await;
    assert_eq!(node.get("services").await, json!({}));
    assert_eq!(node.get("checks").await, json!({}));
    node.put(
        "service/register",
        r#"{"ID":"web-1","Name":"web","Tags":["<a>"],"Address":"10.0.0.9","Port":80,"EnableTagOverride":true,
            "Checks":[{"TTL":"15s","Notes":"x","Status":"passing"},{"Interval":"10s"},{"ttl":15000000000}]}"#,
    )
    .await;
    node.put("service/register", r#"{"Name":"db","Check":{"TTL":"15s"}}"#)
        .await;
    node.put(
        "check/register",
        r#"{"Name":"mem","TTL":"15s","ServiceID":"db","Notes":"free"}"#,
    )
    .await;
    assert_eq!(
        node.ask("GET services", "").await.1,
        concat!(
            r#"{"db":{"ID":"db","Service":"db","Tags":null,"Address":"","Port":0,"EnableTagOverride":false,"CreateIndex":0,"ModifyIndex":0},"#,
            r#""web-1":{"ID":"web-1","Service":"web","Tags":["\u003ca\u003e"],"Address":"10.0.0.9","Port":80,"EnableTagOverride":true,"CreateIndex":0,"ModifyIndex":0}}"#
        )
    );
    let check = |id: &str, name: &str, status: &str, notes: &str, service: (&str, &str)| {
        json!({
            "Node": "n1", "CheckID": id, "Name": name, "Status": status, "Notes": notes, "Output": "",
            "ServiceID": service.0, "ServiceName": service.1, "CreateIndex": 0, "ModifyIndex": 0
        })
    };
    let web = ("web-1", "web");
    assert_eq!(
        node.get("checks").await,
        json!({
            "mem": check("mem", "mem", "critical", "free", ("db", "db")),
            "service:db": check("service:db", "Service 'db' check", "critical", "", ("db", "db")),
            "service:web-1:1": check("service:web-1:1", "Service 'web' check", "passing", "x", web),
            "service:web-1:2": check("service:web-1:2", "Service 'web' check", "critical", "", web),
        })
    );
    assert!(
        node.ask("GET checks?pretty", "")
            .await
            .1
            .starts_with("{\n    \"mem\": {")
    );

    // With the service go its checks, and nothing minds what is not there.
    for path in [
        "service/deregister/db",
        "service/deregister/db",
        "check/deregister/service:web-1:2",
        "check/deregister/never",
    ] {
        node.put(path, "").await;
    }
    let checks = node.get("checks").await;
    let ids: Vec<&String> = checks.as_object().unwrap().keys().collect();
    assert_eq!(ids, ["service:web-1:1"]);
}

#[tokio::test(start_paused = true)]
async fn the_catalog_is_told_on_the_word_of_each_request() {
    let node = Node::new().await;
    let header = &[("X-Consul-Token", "header")][..];
    for (name, parameters, headers, token) in [
        ("first", "?token=query", header, "query"),
        ("second", "", header, "header"),
        ("third", "?token=", header, "header"),
        ("fourth", "", &[], ""),
    ] {
        let line = format!("PUT service/register{parameters}");
        let body = format!(r#"{{"Name":"{name}","Token":"ignored"}}"#);
        let answer = node.ask_as(&line, &body, headers).await;
        assert_eq!(answer, (200, String::new()));
        let written = node.written().into_iter();
        let written: Vec<(Text, Text)> = written
            .filter_map(|(command, token)| match command {
                Command::Register(registration) => Some((registration.service?.name, token)),
                _ => None,
            })
            .collect();
        assert_eq!(written, [(Text::from(name), Text::from(token))]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_catalog_that_takes_nothing_is_no_error_here() {
    let fake = FakeCluster::new();
    for _ in 0..200 {
        fake.answer(Fake::Error(Error::NoLeader));
    }
    let node = Node::over(fake, LocalConfig::default()).await;
    node.put("service/register", r#"{"Name":"web","Check":{"TTL":"9s"}}"#)
        .await;
    node.put("check/pass/service:web", "").await;
    assert_eq!(node.check("service:web", "Status").await, "passing");
    node.put("maintenance?enable=true", "").await;
    node.put("service/deregister/web", "").await;
    assert_eq!(node.get("services").await, json!({}));
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_a_check() {
    let node = Node::new().await;
    node.put("check/register", r#"{"Name":"c","TTL":"15s"}"#)
        .await;
    let long = "ä".repeat(2049);
    let cut = format!("{} ... (captured 4096 of 4098 bytes)", "ä".repeat(2048));
    let update =
        |status: &str, output: &str| format!(r#"{{"status":"{status}","OUTPUT":"{output}"}}"#);
    for (line, body, status, output) in [
        ("PUT check/pass/c", "", "passing", ""),
        ("GET check/warn/c?note=so%20so", "", "warning", "so so"),
        ("POST check/fail/c?note=", "ignored", "critical", ""),
        (
            "PUT check/update/c",
            &*update("passing", "ok"),
            "passing",
            "ok",
        ),
        (
            "PUT check/update/c",
            r#"{"Status":"warning"}"#,
            "warning",
            "",
        ),
        (
            "PUT check/update/c",
            &*update("passing", &"x".repeat(4096)),
            "passing",
            &*"x".repeat(4096),
        ),
        (
            "PUT check/update/c",
            &*update("critical", &long),
            "critical",
            &*cut,
        ),
    ] {
        assert_eq!(node.ask(line, body).await, (200, String::new()), "{line}");
        assert_eq!(node.check("c", "Status").await, status, "{line}");
        assert_eq!(node.check("c", "Output").await, output, "{line}");
    }
    // Nobody says anything for as long as it takes.
    node.put("check/pass/c?note=last", "").await;
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert_eq!(node.check("c", "Status").await, "critical");
    assert_eq!(
        node.check("c", "Output").await,
        "TTL expired (last output before timeout follows): last"
    );
}

#[tokio::test(start_paused = true)]
async fn refusals() {
    let node = Node::with(LocalConfig {
        own_service: Some(model::Service {
            id: Text::from("consul"),
            name: Text::from("consul"),
            ..model::Service::default()
        }),
        ..LocalConfig::default()
    })
    .await;
    node.put(
        "check/register",
        r#"{"Name":"asks","TCP":"127.0.0.1:1","Interval":"1h"}"#,
    )
    .await;
    let before = (node.get("services").await, node.get("checks").await);
    const NO_KIND: &str = "Must provide TTL or Script/DockerContainerID/HTTP/TCP and Interval";
    const SCRIPTS: &str = "enable_script_checks";
    for (line, body, status, text) in [
        ("PUT check/register", "", 400, "Request decode failed: EOF"),
        (
            "PUT check/register",
            "{",
            400,
            "Request decode failed: unexpected EOF",
        ),
        (
            "PUT check/register",
            "[]",
            400,
            "Request decode failed: expected an object, found a list",
        ),
        (
            "PUT check/register",
            r#"{"Name":"c","TTL":"15"}"#,
            400,
            "Request decode failed: ",
        ),
        ("GET check/register", "{}", 400, "Missing check name"),
        (
            "PUT check/register",
            r#"{"Name":"c","Status":"x"}"#,
            400,
            "Bad check status",
        ),
        ("POST check/register", r#"{"Name":"c"}"#, 400, NO_KIND),
        (
            "PUT check/register",
            r#"{"Name":"c","TTL":"9s","ServiceID":"web"}"#,
            500,
            "ServiceID \"web\" does not exist",
        ),
        (
            "PUT check/register",
            r#"{"Name":"c","Script":"true","Interval":"9s"}"#,
            500,
            SCRIPTS,
        ),
        (
            "PUT check/register",
            r#"{"Name":"c","Args":["true"],"Interval":"9s"}"#,
            500,
            SCRIPTS,
        ),
        (
            "PUT check/register",
            r#"{"Name":"c","DockerContainerID":"c","Script":"true","Interval":"9s"}"#,
            500,
            SCRIPTS,
        ),
        (
            "PUT service/register",
            "",
            400,
            "Request decode failed: EOF",
        ),
        (
            "PUT service/register",
            r#"{"Name":1}"#,
            400,
            "Request decode failed: field \"Name\": expected a string, found a number",
        ),
        ("GET service/register", "{}", 400, "Missing service name"),
        (
            "PUT service/register",
            r#"{"Name":"w","Check":{"TTL":"9s","Status":"x"}}"#,
            400,
            "Status for checks must 'passing', 'warning', 'critical'",
        ),
        // The whole registration is refused, and its other checks with it.
        (
            "PUT service/register",
            r#"{"Name":"w","Checks":[{"TTL":"9s"},{"Script":"true","Interval":"9s"}]}"#,
            500,
            SCRIPTS,
        ),
        ("PUT service/deregister/", "", 500, "ServiceID missing"),
        (
            "PUT service/deregister/consul",
            "",
            500,
            "Deregistering the consul service is not allowed",
        ),
        ("PUT check/deregister/", "", 500, "CheckID missing"),
        (
            "PUT check/pass/x",
            "",
            500,
            "CheckID \"x\" does not have associated TTL",
        ),
        (
            "PUT check/warn/asks",
            "",
            500,
            "CheckID \"asks\" does not have associated TTL",
        ),
        (
            "PUT check/fail/",
            "",
            500,
            "CheckID \"\" does not have associated TTL",
        ),
        (
            "PUT check/update/x",
            r#"{"Status":"passing"}"#,
            500,
            "CheckID \"x\" does not have associated TTL",
        ),
        (
            "PUT check/update/x",
            r#"{"Status":"x"}"#,
            400,
            "Invalid check status: 'x'",
        ),
        ("PUT check/update/x", "{}", 400, "Invalid check status: ''"),
        ("PUT check/update/x", "", 400, "Request decode failed: EOF"),
        (
            "PUT check/update/x",
            r#"{"Output":1}"#,
            400,
            "Request decode failed: field \"Output\": expected a string, found a number",
        ),
        ("POST check/update/x", "{}", 405, ""),
        ("GET check/update/x", "", 405, ""),
        ("GET maintenance?enable=true", "", 405, ""),
        ("POST service/maintenance/consul?enable=true", "", 405, ""),
        ("PUT metrics", "", 405, ""),
        ("PUT maintenance", "", 400, "Missing value for enable"),
        (
            "PUT maintenance?enable",
            "",
            400,
            "Invalid value for enable: \"\"",
        ),
        (
            "PUT maintenance?enable=yes",
            "",
            400,
            "Invalid value for enable: \"yes\"",
        ),
        (
            "PUT service/maintenance/?enable=true",
            "",
            400,
            "Missing service ID",
        ),
        (
            "PUT service/maintenance/x",
            "",
            400,
            "Missing value for enable",
        ),
        (
            "PUT service/maintenance/x?enable=tRue",
            "",
            400,
            "Invalid value for enable: \"tRue\"",
        ),
        (
            "PUT service/maintenance/x?enable=true",
            "",
            404,
            "No service registered with ID \"x\"",
        ),
        (
            "PUT service/maintenance/x?enable=false",
            "",
            404,
            "No service registered with ID \"x\"",
        ),
        ("PUT services/", "", 404, ""),
    ] {
        let (found, said) = node.ask(line, body).await;
        assert_eq!(found, status, "{line} {body}: {said}");
        let is_right = match text {
            SCRIPTS => said.contains(text),
            text if text.ends_with(": ") => said.starts_with(text),
            text => said == text,
        };
        assert!(is_right, "{line} {body}: {said}");
    }
    let after = (node.get("services").await, node.get("checks").await);
    assert_eq!(after, before);
}

#[tokio::test(start_paused = true)]
async fn scripts_over_http_where_they_are_allowed() {
    let node = Node::with(LocalConfig {
        api_scripts: ApiScripts::Allowed,
        ..LocalConfig::default()
    })
    .await;
    node.put(
        "service/register",
        r#"{"Name":"w","Check":{"Args":["/nonexistent"],"Interval":"9h"}}"#,
    )
    .await;
    assert_eq!(node.check("service:w", "Status").await, "critical");
}

#[tokio::test(start_paused = true)]
async fn maintenance() {
    let node = Node::new().await;
    node.put("service/register", r#"{"ID":"w","Name":"web"}"#)
        .await;
    const OF_NODE: &str = "Maintenance mode is enabled for this node, but no reason was provided. This is a default message.";
    const OF_SERVICE: &str = "Maintenance mode is enabled for this service, but no reason was provided. This is a default message.";
    for (path, id, name, default) in [
        (
            "maintenance",
            "_node_maintenance",
            "Node Maintenance Mode",
            OF_NODE,
        ),
        (
            "service/maintenance/w",
            "_service_maintenance:w",
            "Service Maintenance Mode",
            OF_SERVICE,
        ),
    ] {
        for (parameters, status, notes) in [
            ("enable=false", "none", "none"),
            ("enable=true&reason=", "critical", default),
            // It has begun already.
            ("enable=T&reason=other", "critical", default),
            ("enable=0", "none", "none"),
            ("enable=1&reason=new+disks", "critical", "new disks"),
        ] {
            node.put(&format!("{path}?{parameters}"), "").await;
            assert_eq!(
                node.check(id, "Status").await,
                status,
                "{path}?{parameters}"
            );
            assert_eq!(node.check(id, "Notes").await, notes, "{path}?{parameters}");
        }
        assert_eq!(node.check(id, "Name").await, name);
    }
    assert_eq!(node.check("_service_maintenance:w", "ServiceID").await, "w");
    assert_eq!(node.check("_node_maintenance", "ServiceID").await, "");
    node.put("maintenance?enable=False", "").await;
    node.put("service/deregister/w", "").await;
    assert_eq!(node.get("checks").await, json!({}));
}

#[tokio::test(start_paused = true)]
async fn what_is_registered_again() {
    let node = Node::new().await;
    let web = r#"{"Name":"web","Check":{"TTL":"15s"}}"#;
    node.put("service/register", web).await;
    node.put("check/pass/service:web?note=fine", "").await;
    node.put("service/register", web).await;
    assert_eq!(node.check("service:web", "Status").await, "passing");
    // What is not mentioned any more stays.
    node.put("service/register", r#"{"Name":"web"}"#).await;
    assert_eq!(node.check("service:web", "Status").await, "passing");
    let check = r#"{"Name":"c","TTL":"15s"}"#;
    node.put("check/register", check).await;
    node.put("check/pass/c", "").await;
    node.put("check/register", check).await;
    assert_eq!(node.check("c", "Status").await, "critical");
}
