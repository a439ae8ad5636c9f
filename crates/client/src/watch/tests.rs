use std::collections::VecDeque;
use std::sync::Mutex;

use serde_json::json;

use super::*;
use crate::Meta;

fn plan(parameters: Value) -> Result<Plan, PlanError> {
    match parameters {
        Value::Object(parameters) => Plan::parse(parameters),
        other => panic!("{other} is no object"),
    }
}

#[test]
fn plans() {
    let checks = |kind| Plan {
        kind,
        datacenter: String::new(),
        token: String::new(),
        stale: false,
    };
    let service = |tag: &str, passing_only| Kind::Service {
        service: "web".to_owned(),
        tag: tag.to_owned(),
        passing_only,
    };
    let cases = [
        (
            json!({"type": "key", "key": "a/b"}),
            checks(Kind::Key("a/b".to_owned())),
        ),
        (
            json!({"type": "keyprefix", "prefix": "a/", "stale": true, "datacenter": "dc2", "token": "t"}),
            Plan {
                kind: Kind::KeyPrefix("a/".to_owned()),
                datacenter: "dc2".to_owned(),
                token: "t".to_owned(),
                stale: true,
            },
        ),
        (json!({"type": "services"}), checks(Kind::Services)),
        (
            json!({"type": "nodes", "stale": false}),
            checks(Kind::Nodes),
        ),
        (
            json!({"type": "service", "service": "web"}),
            checks(service("", false)),
        ),
        (
            json!({"type": "service", "service": "web", "tag": "a", "passingonly": true}),
            checks(service("a", true)),
        ),
        (
            json!({"type": "checks"}),
            checks(Kind::StateChecks("any".to_owned())),
        ),
        (
            json!({"type": "checks", "state": "critical"}),
            checks(Kind::StateChecks("critical".to_owned())),
        ),
        (
            json!({"type": "checks", "service": "web", "state": ""}),
            checks(Kind::ServiceChecks("web".to_owned())),
        ),
        (json!({"type": "event"}), checks(Kind::Event(String::new()))),
        (
            json!({"type": "event", "name": "deploy"}),
            checks(Kind::Event("deploy".to_owned())),
        ),
    ];
    for (parameters, expected) in cases {
        let name = parameters["type"].clone();
        let read = plan(parameters.clone());
        assert_eq!(read.as_ref(), Ok(&expected), "{parameters}");
        assert_eq!(read.map(|plan| json!(plan.name())), Ok(name));
    }
}

#[test]
fn what_is_no_plan() {
    let cases = [
        (json!({}), "Watch type must be specified"),
        (
            json!({"type": "", "key": "a"}),
            "Watch type must be specified",
        ),
        (json!({"type": 1}), "Expecting type to be a string"),
        (json!({"type": "moon"}), "Unsupported watch type: moon"),
        (
            json!({"type": "moon", "stale": 1}),
            "Unsupported watch type: moon",
        ),
        (
            json!({"datacenter": 1}),
            "Expecting datacenter to be a string",
        ),
        (json!({"token": ["x"]}), "Expecting token to be a string"),
        (json!({"type": "key"}), "Must specify a single key to watch"),
        (
            json!({"type": "key", "key": ""}),
            "Must specify a single key to watch",
        ),
        (
            json!({"type": "key", "key": null}),
            "Expecting key to be a string",
        ),
        (
            json!({"type": "key", "key": "a", "stale": "yes"}),
            "Expecting stale to be a boolean",
        ),
        (
            json!({"type": "keyprefix"}),
            "Must specify a single prefix to watch",
        ),
        (
            json!({"type": "service"}),
            "Must specify a single service to watch",
        ),
        (
            json!({"type": "service", "service": "a", "tag": []}),
            "Expecting tag to be a string",
        ),
        (
            json!({"type": "service", "service": "a", "passingonly": "true"}),
            "Expecting passingonly to be a boolean",
        ),
        (
            json!({"type": "checks", "service": "a", "state": "any"}),
            "Cannot specify service and state",
        ),
        (
            json!({"type": "event", "stale": true}),
            "Invalid parameters: [stale]",
        ),
        (
            json!({"type": "nodes", "key": "a", "Token": "t", "prefix": 1}),
            "Invalid parameters: [Token key prefix]",
        ),
    ];
    for (parameters, problem) in cases {
        let why = plan(parameters.clone()).unwrap_err();
        assert_eq!(why.to_string(), problem, "{parameters}");
    }
}

#[test]
fn a_plans_token_is_not_shown() {
    let plan = plan(json!({"type": "nodes", "token": "secret"})).unwrap();
    assert!(!format!("{plan:?}").contains("secret"));
}

#[test]
fn json_as_the_original_has_it() {
    fn read<T: serde::de::DeserializeOwned>(raw: &str) -> T {
        serde_json::from_str(raw).unwrap()
    }
    let check = r#"{"Node":"n","CheckID":"c","Name":"C","Status":"passing","Notes":"","Output":"<&>","ServiceID":"","ServiceName":"","CreateIndex":4,"ModifyIndex":5}"#;
    let entry = format!(
        r#"[{{"Node":{{"Node":"n","Address":"1.1.1.1","TaggedAddresses":{{"wan":"2.2.2.2","lan":"1.1.1.1"}},"CreateIndex":1,"ModifyIndex":2}},
            "Service":{{"ID":"w","Service":"web","Tags":null,"Address":"","Port":80,"EnableTagOverride":false,"CreateIndex":3,"ModifyIndex":3}},
            "Checks":[{check}]}}]"#
    );
    let cases = [
        (
            Watched::Key(read(
                r#"{"LockIndex":1,"Key":"a","Flags":2,"Value":"aGk=","CreateIndex":3,"ModifyIndex":4}"#,
            )),
            r#"{"Key":"a","CreateIndex":3,"ModifyIndex":4,"LockIndex":1,"Flags":2,"Value":"aGk=","Session":""}"#,
        ),
        (
            Watched::Keys(Some(read(
                r#"[{"LockIndex":0,"Key":"\u2028a","Flags":0,"Value":null,"Session":"s","CreateIndex":3,"ModifyIndex":4}]"#,
            ))),
            r#"[{"Key":"\u2028a","CreateIndex":3,"ModifyIndex":4,"LockIndex":0,"Flags":0,"Value":null,"Session":"s"}]"#,
        ),
        (Watched::Key(None), "null"),
        (Watched::Keys(None), "null"),
        (
            Watched::Services(read(r#"{"web":["b","a"],"consul":[]}"#)),
            r#"{"consul":[],"web":["b","a"]}"#,
        ),
        (
            Watched::Nodes(read(
                r#"[{"Node":"n","Address":"1.1.1.1","TaggedAddresses":null,"CreateIndex":1,"ModifyIndex":2}]"#,
            )),
            r#"[{"Node":"n","Address":"1.1.1.1","TaggedAddresses":null}]"#,
        ),
        (
            Watched::Instances(read(&entry)),
            r#"[{"Node":{"Node":"n","Address":"1.1.1.1","TaggedAddresses":{"lan":"1.1.1.1","wan":"2.2.2.2"}},"Service":{"ID":"w","Service":"web","Tags":null,"Port":80,"Address":"","EnableTagOverride":false},"Checks":[{"Node":"n","CheckID":"c","Name":"C","Status":"passing","Notes":"","Output":"\u003c\u0026\u003e","ServiceID":"","ServiceName":""}]}]"#,
        ),
        (Watched::Checks(read("[]")), "[]"),
        (Watched::Events(Vec::new()), "[]"),
    ];
    for (value, expected) in cases {
        assert_eq!(value.json().unwrap(), expected);
    }
    let nodes = Watched::Services(read(r#"{"a":["x"],"b":[]}"#));
    let expected = "{\n    \"a\": [\n        \"x\"\n    ],\n    \"b\": []\n}";
    assert_eq!(nodes.json_indented().unwrap(), expected);
}

#[test]
fn the_manuals_example_is_so() {
    const MANUAL: &str = include_str!("../../../../docs/watches.md");
    let (_, rest) = MANUAL.split_once("```json key\n").unwrap();
    let (example, _) = rest.split_once("\n```").unwrap();
    let pair = serde_json::from_str(example).unwrap();
    assert_eq!(Watched::Key(Some(pair)).json().unwrap(), example);
}

/// Services by name, at an index.
fn services(index: u64, names: &[&str]) -> Answer<Watched> {
    let services = names.iter().map(|name| ((*name).to_owned(), None));
    answer(index, Watched::Services(services.collect()))
}

fn events(index: u64, ids: &[u64]) -> Answer<Watched> {
    let event = |id: &u64| UserEvent {
        id: format!("00000000-0000-0000-0000-{id:012x}"),
        ..UserEvent::default()
    };
    answer(index, Watched::Events(ids.iter().map(event).collect()))
}

fn answer(index: u64, value: Watched) -> Answer<Watched> {
    Answer {
        value,
        meta: Meta {
            index,
            ..Meta::default()
        },
    }
}

#[test]
fn fires_when_there_is_something_new() {
    // What is answered, whether that is told, and the index that is asked for next.
    let cases = [
        (services(5, &[]), true, 5),
        (services(5, &[]), false, 5),
        (services(6, &[]), false, 6),
        (services(7, &["a"]), true, 7),
        // The same index is the same state.
        (services(7, &["b"]), false, 7),
        // A restore, or another server that is behind.
        (services(3, &["a"]), false, 0),
        (services(3, &["a"]), false, 3),
        (services(2, &["b"]), true, 0),
        (services(2, &["b"]), false, 2),
        (services(0, &["b"]), false, 0),
        (services(0, &[]), true, 1),
        (services(0, &[]), false, 1),
    ];
    let mut progress = Progress::default();
    for (number, (answer, fires, next)) in cases.into_iter().enumerate() {
        let change = progress.answered(answer);
        assert_eq!(
            (change.is_some(), progress.index),
            (fires, next),
            "{number}"
        );
    }

    let mut progress = Progress::default();
    let first = progress.answered(services(0, &[])).unwrap();
    assert_eq!((first.index, progress.index), (1, 1));
}

#[test]
fn events_are_told_once() {
    let cases = [
        (events(1, &[]), Some(&[][..])),
        (events(9, &[9]), Some(&[9])),
        (events(9, &[9]), None),
        // Its index is a hash, so less is no step back.
        (events(4, &[9, 3, 4]), Some(&[3, 4])),
        (events(5, &[3, 4, 5]), Some(&[5])),
        // What was seen last is forgotten.
        (events(8, &[7, 8]), Some(&[7, 8])),
        // The agent was started anew.
        (events(1, &[]), Some(&[])),
    ];
    let mut progress = Progress::default();
    for (number, (answer, told)) in cases.into_iter().enumerate() {
        let index = answer.meta.index;
        let change = progress
            .answered(answer)
            .map(|change| (*change.value).clone());
        let told = told.map(|ids| events(index, ids).value);
        assert_eq!(change, told, "{number}");
        assert_eq!(progress.index, index);
    }
}

/// Answers from a list, and notes what it was asked.
struct Script {
    answers: Mutex<VecDeque<Result<Answer<Watched>, Error>>>,
    asked: Mutex<Vec<(u64, u64)>>,
    start: Instant,
}

impl Source for &Script {
    async fn ask(&self, _: &Plan, index: u64) -> Result<Answer<Watched>, Error> {
        let second = self.start.elapsed().as_secs();
        self.asked.lock().unwrap().push((second, index));
        let next = self.answers.lock().unwrap().pop_front();
        match next {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn goes_on_after_failures() {
    let failed = || Err(Error::Body("broken".to_owned()));
    let answers = [
        Ok(services(4, &[])),
        failed(),
        failed(),
        Ok(services(5, &[])),
        failed(),
        failed(),
        failed(),
        failed(),
        failed(),
        failed(),
        failed(),
        Ok(services(0, &["a"])),
    ];
    let script = Script {
        answers: Mutex::new(answers.into()),
        asked: Mutex::default(),
        start: Instant::now(),
    };
    let mut watch = Watch::new(&script, plan(json!({"type": "services"})).unwrap());
    let mut told = Vec::new();
    while told.len() < 11 {
        told.push(match watch.next().await {
            Ok(change) => format!("{} {}", change.index, change.value.json().unwrap()),
            Err(failure) => failure.to_string(),
        });
    }
    let retry = |span| format!("Watch (type: services) errored: broken, retry in {span}");
    let expected = [
        "4 {}".to_owned(),
        retry("5s"),
        retry("20s"),
        retry("5s"),
        retry("20s"),
        retry("45s"),
        retry("1m20s"),
        retry("2m5s"),
        retry("3m0s"),
        retry("3m0s"),
        r#"1 {"a":null}"#.to_owned(),
    ];
    assert_eq!(told, expected);

    // One that is given up in the middle loses nothing of its pause.
    let cut = tokio::time::timeout(Duration::from_millis(10), watch.next());
    cut.await.unwrap_err();
    let cut = tokio::time::timeout(Duration::from_secs(9), watch.next());
    cut.await.unwrap_err();
    let asked = std::mem::take(&mut *script.asked.lock().unwrap());
    let expected = [
        (0, 0),
        (0, 4),
        (5, 4),
        (25, 4),
        (25, 5),
        (30, 5),
        (50, 5),
        (95, 5),
        (175, 5),
        (300, 5),
        (480, 5),
        (660, 5),
        // Without an index the next question waits a little.
        (661, 0),
    ];
    assert_eq!(asked, expected);
}
