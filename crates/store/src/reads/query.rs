//! Prepared queries: their definitions, and what they find.
//!
//! Nobody waits for what a query finds, so what that touches is noted by the table.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::Arc;

use model::{
    Authority, Error, Executed, Execution, Explained, FoundInstances, Portion, PreparedQuery,
    QueryElsewhere, QueryExecute, QueryExplain, QueryGet, QueryList, QueryService, Row, THIS_AGENT,
    Text,
};

use crate::changes::Kind;
use crate::reads::lookup::{Look, draw, pick};
use crate::tables::Table;
use crate::tables::catalog::{Candidate, Catalog, has_lower};
use crate::view::{Found, Read, View};
use crate::watch::Watch;

/// How far in front the node from which was measured must be found to be put first of all, as in the original.
///
/// Where distances are known it is nearest to itself anyway, and where they aren't it is a question of luck.
const FRONT: usize = 10;

/// What finding something depends on.
const TABLES: [Table; 5] = [
    Table::Queries,
    Table::Nodes,
    Table::Services,
    Table::Checks,
    Table::Coordinates,
];

impl Read for QueryGet {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let query = view.state().queries.get(self.id).cloned();
        let modified = query.as_ref().map(|query| query.modify_index);
        let about = (Kind::Query, &self.id.as_bytes()[..]);
        let found = Found::of_row(view, watch, about, Table::Queries, (query, modified));
        found.map(|query| query.ok_or_else(|| Error::NotFound("Query not found".to_owned())))
    }
}

impl Read for QueryList {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let queries = view.state().queries.iter().cloned().collect();
        Found::of_tables(view, watch, &[Table::Queries], queries)
    }
}

impl Read for QueryExplain {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let resolved = view.state().queries.resolve(&self.query);
        let explained = resolved.map(|resolved| {
            let mut query = Arc::clone(resolved.query);
            if let std::borrow::Cow::Owned(service) = resolved.service {
                query = Arc::new(PreparedQuery {
                    service,
                    ..PreparedQuery::clone(&query)
                });
            }
            Explained(query)
        });
        Found::of_tables(view, watch, &[Table::Queries], explained)
    }
}

impl Read for QueryExecute {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        self.read_for(view, watch, &Authority::unlimited())
    }

    fn read_for(&self, view: &View, watch: &mut Watch, reader: &Authority) -> Found<Self::Answer> {
        let executed = view.state().queries.resolve(&self.query).map(|resolved| {
            let service = &*resolved.service;
            let near = match &self.execution.source.near {
                near if near.is_empty() => &service.near,
                near => near,
            };
            let dns_ttl = resolved.query.dns_ttl.clone();
            execute(view, service, dns_ttl, near, &self.execution, reader)
        });
        Found::of_tables(view, watch, &TABLES, executed)
    }
}

impl Read for QueryElsewhere {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        self.read_for(view, watch, &Authority::unlimited())
    }

    fn read_for(&self, view: &View, watch: &mut Watch, reader: &Authority) -> Found<Self::Answer> {
        let nowhere = Text::default();
        let dns_ttl = self.dns_ttl.clone();
        let executed = execute(
            view,
            &self.service,
            dns_ttl,
            &nowhere,
            &self.execution,
            reader,
        );
        Found::of_tables(view, watch, &TABLES, Ok(executed))
    }
}

impl View {
    /// The token that a query is executed with, whoever asks; `None` if it has none, or there is no such query.
    pub fn token_of_query(&self, query: &Text) -> Option<&Text> {
        let query = self.state().queries.find(query)?;
        Some(&query.token).filter(|token| !token.is_empty())
    }
}

/// Finds the instances that a query asks for, nearest to a node first if that can be told, else in an order of chance.
fn execute(
    view: &View,
    service: &QueryService,
    dns_ttl: Text,
    near: &Text,
    execution: &Execution,
    reader: &Authority,
) -> Executed {
    let catalog = &view.state().catalog;
    let wanted = Wanted::new(service);
    let fitting = draw(catalog, &service.service, execution.seed)
        .filter(|it| wanted.fits(catalog, it) && it.instance.is_visible(reader));
    let near = match near {
        near if *near == THIS_AGENT => &execution.source.node,
        near => near,
    };
    // From afar nobody's distance is known, and a node there is another one of the same name.
    let found = if near.is_empty() || !execution.is_here() {
        take(catalog, fitting, execution)
    } else {
        let near = near.lower();
        let mut fitting = by_distance(view, &near, fitting);
        let mut front: Vec<_> = fitting.by_ref().take(FRONT).collect();
        let is_it = |it: &&Candidate| has_lower(&it.instance.node.name, &near);
        if let Some(at) = front.iter().position(is_it) {
            front[..=at].rotate_right(1);
        }
        take(catalog, front.into_iter().chain(fitting), execution)
    };
    Executed {
        service: service.service.clone(),
        dns_ttl,
        datacenter: execution.datacenter.clone(),
        failovers: 0,
        found,
    }
}

/// As many as are asked for, and as much of them.
fn take<'a>(
    catalog: &'a Catalog,
    candidates: impl Iterator<Item = &'a Candidate>,
    execution: &Execution,
) -> FoundInstances {
    let limit = match execution.limit {
        0 => usize::MAX,
        limit => limit,
    };
    match execution.portion {
        Portion::Whole => {
            let instances = candidates.take(limit).map(|it| catalog.instance_of(it));
            FoundInstances::Whole(instances.collect())
        }
        Portion::Places {
            shown,
            translates_wan,
        } => {
            let look = Look {
                shown,
                prefer_wan: translates_wan && !execution.is_here(),
            };
            FoundInstances::Places(pick(catalog, candidates, look, limit))
        }
    }
}

/// In the order of distance from a node; as they come if nobody knows where that is.
fn by_distance<'a>(
    view: &'a View,
    near_lower: &Text,
    candidates: impl Iterator<Item = &'a Candidate> + 'a,
) -> Box<dyn Iterator<Item = &'a Candidate> + 'a> {
    let coordinates = &view.state().coordinates;
    let Some(from) = coordinates.get(near_lower) else {
        return Box::new(candidates);
    };
    let measured = candidates.enumerate().map(|(place, candidate)| {
        let to = coordinates.of(&candidate.instance.node.name);
        Reverse(Measured {
            // Nodes that nobody has measured come last.
            distance: to.map_or(f64::INFINITY, |to| from.coord.distance_to(&to.coord)),
            place,
            candidate,
        })
    });
    // Mostly a few are wanted of many, and a heap puts only those in order that are taken from it.
    let mut heap: BinaryHeap<_> = measured.collect::<Vec<_>>().into();
    Box::new(std::iter::from_fn(move || {
        let Reverse(nearest) = heap.pop()?;
        Some(nearest.candidate)
    }))
}

/// A candidate by its distance, and of equally far ones as they came.
struct Measured<'a> {
    distance: f64,
    place: usize,
    candidate: &'a Candidate,
}

impl Ord for Measured<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_distance = self.distance.total_cmp(&other.distance);
        by_distance.then(self.place.cmp(&other.place))
    }
}

impl PartialOrd for Measured<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Measured<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Measured<'_> {}

/// What an instance must be like.
struct Wanted<'a> {
    service: &'a QueryService,
    /// Lower-cased, and whether it must be there or must not.
    tags: Vec<(Text, bool)>,
}

impl<'a> Wanted<'a> {
    fn new(service: &'a QueryService) -> Self {
        let tags = service.tags.iter().flatten();
        let tags = tags.map(|tag| match tag.strip_prefix(b"!") {
            Some(forbidden) => (model::lower(forbidden), false),
            None => (tag.lower(), true),
        });
        Self {
            service,
            tags: tags.collect(),
        }
    }

    fn fits(&self, catalog: &Catalog, candidate: &Candidate) -> bool {
        if self.service.only_passing && !candidate.is_passing {
            return false;
        }
        let has = |wanted: &Text| {
            let mut tags = candidate.instance.service.tags.iter().flatten();
            tags.any(|tag| has_lower(tag, wanted))
        };
        let meta = &self.service.node_meta;
        self.tags.iter().all(|(tag, must)| has(tag) == *must)
            && (meta.is_empty() || {
                let node = catalog.node_of(candidate);
                (meta.iter()).all(|(name, value)| node.meta.get(name) == Some(value))
            })
    }
}
