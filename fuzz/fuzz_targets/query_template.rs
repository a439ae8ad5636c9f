//! A template of prepared queries and the names that it is asked for, a line each: its name, its regular expression, its service, a tag, and then the names.
//!
//! What is accepted can be filled in from its own name, and is never refused at a restore; no name does more than fail.
#![no_main]

use model::{
    Command, Entry, Execution, Explained, Portion, PreparedQuery, QueryExecute, QueryExplain,
    QueryService, QuerySet, QuerySource, QueryTemplate, Text, Uuid,
};
use store::archive::{Unknown, verify};
use store::{Read, Store, Watch};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut line = || Text::from(lines.next().unwrap_or_default());
    let query = PreparedQuery {
        id: Uuid::from_u128(1),
        name: line(),
        template: QueryTemplate {
            kind: Text::from("name_prefix_match"),
            regexp: line(),
        },
        service: QueryService {
            service: line(),
            tags: Some(vec![line()]),
            ..QueryService::default()
        },
        ..PreparedQuery::default()
    };
    let own = query.name.clone();
    let mut store = Store::new();
    let command = Command::QuerySet(Box::new(QuerySet {
        query,
        create: true,
    }));
    let applied = store.apply(1, 1, Entry { at_ms: 0, command });
    if let Err(error) = applied.result {
        let _ = error.to_string();
        return;
    }
    store.publish();
    let view = store.shared().view();
    let explain = |query: &Text| {
        let question = QueryExplain {
            query: query.clone(),
        };
        question.read(&view, &mut Watch::off()).answer
    };
    if !own.is_empty() {
        explain(&own).expect("it was filled in from its own name before");
    }
    // The time that one name takes must not depend on how many there are.
    for name in lines.take(16) {
        let name = Text::from(name);
        match explain(&name) {
            Ok(Explained(_)) => assert!(name.lower().starts_with(&own.lower())),
            Err(error) => drop(error.to_string()),
        }
        let question = QueryExecute {
            query: name,
            execution: Execution {
                datacenter: Text::default(),
                source: QuerySource::default(),
                limit: 1,
                portion: Portion::Whole,
                seed: 0,
            },
        };
        let _ = question.read(&view, &mut Watch::off());
    }
    let mut saved = Vec::new();
    store::archive::write(&store.freeze(), &mut saved).expect("writing to memory");
    verify(&saved[..], Unknown::Refuse).expect("what was accepted is not refused at a restore");
});
