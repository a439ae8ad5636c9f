//! Which question is answered by which read of the store: one line each.

use model::{Answer, Ask, Question};
use store::{Found, Read, View, Watch};

/// Asks the store.
pub(crate) fn ask(question: &Question, view: &View, watch: &mut Watch) -> Found<Answer> {
    match question {
        Question::KvGet(question) => answer(question, view, watch),
        Question::KvList(question) => answer(question, view, watch),
        Question::KvKeys(question) => answer(question, view, watch),
        Question::TxnRead(question) => answer(question, view, watch),
        Question::CatalogNodes(question) => answer(question, view, watch),
        Question::CatalogServices(question) => answer(question, view, watch),
        Question::CatalogService(question) => answer(question, view, watch),
        Question::CatalogNode(question) => answer(question, view, watch),
        Question::HealthNode(question) => answer(question, view, watch),
        Question::HealthChecks(question) => answer(question, view, watch),
        Question::HealthState(question) => answer(question, view, watch),
        Question::HealthService(question) => answer(question, view, watch),
        Question::SessionInfo(question) => answer(question, view, watch),
        Question::SessionList(question) => answer(question, view, watch),
        Question::SessionNode(question) => answer(question, view, watch),
        Question::AclInfo(question) => answer(question, view, watch),
        Question::AclList(question) => answer(question, view, watch),
        Question::QueryGet(question) => answer(question, view, watch),
        Question::QueryList(question) => answer(question, view, watch),
        Question::CoordinateNodes(question) => answer(question, view, watch),
        Question::CoordinateLookup(question) => answer(question, view, watch),
        Question::NodeLookup(question) => answer(question, view, watch),
        Question::AddressLookup(question) => answer(question, view, watch),
        Question::ServiceLookup(question) => answer(question, view, watch),
    }
}

fn answer<Q: Read>(question: &Q, view: &View, watch: &mut Watch) -> Found<Answer> {
    question.read(view, watch).map(<Q as Ask>::wrap)
}
