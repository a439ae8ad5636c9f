//! Prepared queries that find nothing in their own datacenter are executed in others.

use std::collections::BTreeSet;

use model::{
    Answer, Executed, Execution, Explained, QueryElsewhere, QueryExecute, QueryExplain,
    QueryService, Question, Text,
};
use rpc::{Answered, Hop, ReadOptions, Refusal};
use store::{Read, Watch};

use crate::core::Core;
use crate::read;

/// Looks elsewhere for what a query did not find here, if it says where.
pub(crate) async fn go_on(
    core: &Core,
    question: &Question,
    options: &ReadOptions,
    answer: &mut Answer,
) {
    if let (Question::QueryExecute(asked), Answer::QueryExecute(Ok(executed))) = (question, answer)
        && executed.found.is_empty()
    {
        // Few questions come here, and the others should not be larger for it.
        Box::pin(execute_elsewhere(core, asked, options, executed)).await;
    }
}

async fn execute_elsewhere(
    core: &Core,
    asked: &QueryExecute,
    options: &ReadOptions,
    executed: &mut Executed,
) {
    let query = asked.query.clone();
    let view = core.shared.view();
    let explained = (QueryExplain { query })
        .read(&view, &mut Watch::off())
        .answer;
    drop(view);
    let Ok(Explained(query)) = explained else {
        return;
    };
    let datacenters = plan(&nearest(core), &query.service);
    let token = match &query.token {
        token if token.is_empty() => &options.token,
        token => token,
    };
    try_each(datacenters, executed, |datacenter| {
        let question = QueryElsewhere {
            service: query.service.clone(),
            dns_ttl: query.dns_ttl.clone(),
            execution: Execution {
                datacenter: datacenter.clone(),
                ..asked.execution.clone()
            },
        };
        let options = ReadOptions {
            token: token.clone(),
            datacenter,
            ..options.clone()
        };
        // The pipeline finds the way to that datacenter, as for every question about one.
        read::read(core, Hop::First, question.into(), options)
    })
    .await;
}

/// The other datacenters that this server knows, nearest first; of equally near ones, and of those whose distance nobody knows, by name.
///
/// Without gossip between datacenters it knows none.
fn nearest(_core: &Core) -> Vec<Text> {
    Vec::new()
}

/// Where to look, and in which order: first so many of the nearest, then those that are named, each once. Of unknown ones nobody knows the way.
fn plan(nearest: &[Text], service: &QueryService) -> Vec<Text> {
    let near = usize::try_from(service.nearest_n).unwrap_or(0);
    let mut planned: Vec<Text> = nearest.iter().take(near).cloned().collect();
    let mut seen: BTreeSet<Text> = planned.iter().cloned().collect();
    let known: BTreeSet<&Text> = nearest.iter().collect();
    for named in service.datacenters.iter().flatten() {
        if !known.contains(named) {
            tracing::debug!("skipping unknown datacenter {named:?} in prepared query");
        } else if seen.insert(named.clone()) {
            planned.push(named.clone());
        }
    }
    planned
}

/// Asks one after the other until something is found, and says how many were asked. Who doesn't answer is passed over.
async fn try_each<A>(
    datacenters: Vec<Text>,
    executed: &mut Executed,
    mut ask: impl FnMut(Text) -> A,
) where
    A: Future<Output = Result<Answered<Answer>, Refusal>>,
{
    for datacenter in datacenters {
        executed.failovers += 1;
        let failovers = executed.failovers;
        match ask(datacenter.clone()).await {
            Ok(Answered {
                answer: Answer::QueryElsewhere(Ok(found)),
                ..
            }) => *executed = Executed { failovers, ..found },
            Ok(_) => tracing::warn!("{datacenter} could not execute a prepared query"),
            Err(refusal) => {
                tracing::warn!("a prepared query could not be executed in {datacenter}: {refusal}")
            }
        }
        if !executed.found.is_empty() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{Error, FoundInstances, Placements};
    use rpc::Meta;

    use super::*;

    fn texts(words: &str) -> Vec<Text> {
        words.split_whitespace().map(Text::from).collect()
    }

    #[test]
    fn the_nearest_come_first_and_nobody_twice() {
        for (nearest, nearest_n, named, expected) in [
            ("", 0, "", ""),
            ("", 3, "dc2 dc3", ""),
            ("dc2 dc3", 0, "", ""),
            ("dc2 dc3 dc4", 2, "", "dc2 dc3"),
            ("dc2 dc3 dc4", 9, "", "dc2 dc3 dc4"),
            ("dc2 dc3 dc4", 0, "dc4 dc2", "dc4 dc2"),
            ("dc2 dc3 dc4", 1, "dc4 dc2 dc3", "dc2 dc4 dc3"),
            ("dc2 dc3 dc4", 0, "dc4 dc9 dc4 dc2", "dc4 dc2"),
            ("dc2 dc3", -1, "dc3", "dc3"),
            ("dc2", i64::MAX, "dc2", "dc2"),
        ] {
            let service = QueryService {
                nearest_n,
                datacenters: Some(texts(named)),
                ..QueryService::default()
            };
            let planned = plan(&texts(nearest), &service);
            assert_eq!(
                planned,
                texts(expected),
                "{nearest_n} of {nearest:?}, then {named:?}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn plans_hold_what_is_known_and_no_more(
            nearest in proptest::collection::btree_set("[a-e]", 0..5),
            nearest_n in -2_i64..7,
            named in proptest::collection::vec("[a-g]", 0..8),
        ) {
            let nearest: Vec<Text> = nearest.into_iter().map(Text::from).collect();
            let named: Vec<Text> = named.into_iter().map(Text::from).collect();
            let service = QueryService { nearest_n, datacenters: Some(named.clone()), ..QueryService::default() };
            let planned = plan(&nearest, &service);
            let once: BTreeSet<&Text> = planned.iter().collect();
            proptest::prop_assert_eq!(once.len(), planned.len());
            proptest::prop_assert!(planned.iter().all(|it| nearest.contains(it)));
            let first = usize::try_from(nearest_n).unwrap_or(0).min(nearest.len());
            proptest::prop_assert_eq!(&planned[..first], &nearest[..first]);
            let wanted = named.iter().filter(|it| nearest.contains(it));
            for it in wanted {
                proptest::prop_assert!(planned.contains(it));
            }
        }
    }

    fn executed(datacenter: &str, is_any: bool) -> Executed {
        Executed {
            service: Text::from("web"),
            dns_ttl: Text::default(),
            datacenter: Text::from(datacenter),
            failovers: 0,
            found: FoundInstances::Places(Placements {
                is_any,
                picked: Vec::new(),
            }),
        }
    }

    #[tokio::test]
    async fn the_first_that_has_any_ends_it() {
        // In small letters there is none, of `x` no answer, in capitals there is some.
        for (datacenters, answered, failovers) in [
            ("", "here", 0),
            ("a", "a", 1),
            ("x", "here", 1),
            ("a x", "a", 2),
            ("A b", "A", 1),
            ("a x B C", "B", 3),
        ] {
            let mut found = executed("here", false);
            try_each(texts(datacenters), &mut found, async |datacenter| {
                let name = datacenter.to_lossy();
                if name == "x" {
                    return Err(Refusal::Failed(Error::NoPath));
                }
                let is_any = name.chars().all(char::is_uppercase);
                Ok(Answered {
                    answer: Answer::QueryElsewhere(Ok(executed(&name, is_any))),
                    meta: Meta::default(),
                })
            })
            .await;
            assert_eq!(found.datacenter, answered, "{datacenters}");
            assert_eq!(found.failovers, failovers, "{datacenters}");
        }
    }
}
