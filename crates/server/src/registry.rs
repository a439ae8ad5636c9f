//! Which question is answered by which read of the store: one line each.

use model::{Answer, Ask, Authority, QueryExplain, Question, Text};
use store::{Found, Read, View, Watch};

/// Asks the store for someone.
pub(crate) fn ask(
    question: &Question,
    view: &View,
    watch: &mut Watch,
    reader: &Authority,
) -> Found<Answer> {
    match question {
        Question::KvGet(question) => answer(question, view, watch, reader),
        Question::KvList(question) => answer(question, view, watch, reader),
        Question::KvKeys(question) => answer(question, view, watch, reader),
        Question::TxnRead(question) => answer(question, view, watch, reader),
        Question::CatalogNodes(question) => answer(question, view, watch, reader),
        Question::CatalogServices(question) => answer(question, view, watch, reader),
        Question::CatalogService(question) => answer(question, view, watch, reader),
        Question::CatalogNode(question) => answer(question, view, watch, reader),
        Question::HealthNode(question) => answer(question, view, watch, reader),
        Question::HealthChecks(question) => answer(question, view, watch, reader),
        Question::HealthState(question) => answer(question, view, watch, reader),
        Question::HealthService(question) => answer(question, view, watch, reader),
        Question::SessionInfo(question) => answer(question, view, watch, reader),
        Question::SessionList(question) => answer(question, view, watch, reader),
        Question::SessionNode(question) => answer(question, view, watch, reader),
        Question::AclInfo(question) => answer(question, view, watch, reader),
        Question::AclList(question) => answer(question, view, watch, reader),
        Question::QueryGet(question) => answer(question, view, watch, reader),
        Question::QueryList(question) => answer(question, view, watch, reader),
        Question::QueryExecute(question) => answer(question, view, watch, reader),
        Question::QueryElsewhere(question) => answer(question, view, watch, reader),
        Question::QueryExplain(question) => answer(question, view, watch, reader),
        Question::CoordinateNodes(question) => answer(question, view, watch, reader),
        Question::CoordinateLookup(question) => answer(question, view, watch, reader),
        Question::NodeLookup(question) => answer(question, view, watch, reader),
        Question::AddressLookup(question) => answer(question, view, watch, reader),
        Question::ServiceLookup(question) => answer(question, view, watch, reader),
    }
}

fn answer<Q: Read>(
    question: &Q,
    view: &View,
    watch: &mut Watch,
    reader: &Authority,
) -> Found<Answer> {
    let found = question.read_for(view, watch, reader);
    found.map(<Q as Ask>::wrap)
}

/// That a prepared query isn't there or can't be had like this, which is everybody's to know: the original looks for it
/// before it looks at the token.
pub(crate) fn unresolved(question: &Question, view: &View) -> Option<Answer> {
    let explained = |query: &Text| {
        let question = QueryExplain {
            query: query.clone(),
        };
        question.read(view, &mut Watch::off()).answer.err()
    };
    match question {
        Question::QueryGet(question) => {
            let found = question.read(view, &mut Watch::off()).answer;
            found.err().map(|error| Answer::QueryGet(Err(error)))
        }
        Question::QueryExplain(QueryExplain { query }) => {
            explained(query).map(|error| Answer::QueryExplain(Err(error)))
        }
        Question::QueryExecute(question) => {
            explained(&question.query).map(|error| Answer::QueryExecute(Err(error)))
        }
        _ => None,
    }
}

/// The token that is used in place of the asker's; only a prepared query brings one.
pub(crate) fn token<'a>(question: &Question, view: &'a View) -> Option<&'a Text> {
    if let Question::QueryExecute(question) = question {
        return view.token_of_query(&question.query);
    }
    None
}
