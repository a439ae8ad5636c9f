//! Nodes and services.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{
    CatalogNode, CatalogNodes, CatalogService, CatalogServices, NodeServices, Service, Text,
};

use crate::changes::{Kind, Subject};
use crate::tables::Table;
use crate::view::{Found, Read, View};
use crate::watch::Watch;

impl Read for CatalogNodes {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let nodes = view.state().catalog.nodes().cloned().collect();
        Found::of_tables(view, watch, &[Table::Nodes], nodes)
    }
}

impl Read for CatalogServices {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let mut names: BTreeMap<&Text, Vec<&Text>> = BTreeMap::new();
        for service in view.state().catalog.services_by_name() {
            let tags = names.entry(&service.name).or_default();
            tags.extend(service.tags.iter().flatten());
        }
        let answer = names
            .into_iter()
            .map(|(name, mut tags)| {
                tags.sort_unstable();
                tags.dedup();
                (name.clone(), tags.into_iter().cloned().collect())
            })
            .collect();
        Found::of_tables(view, watch, &[Table::Services], answer)
    }
}

impl Read for CatalogService {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let state = view.state();
        let name = self.service.lower();
        let tag = self.tag.as_ref().map(Text::lower);
        let instances = state
            .catalog
            .instances_of(&name)
            .map(|row| row.instance)
            .filter(|instance| has_tag(&instance.service, tag.as_ref()))
            .collect();
        let subject = Subject::new(Kind::Instances, &name);
        let header = state.indexes.max(&[Table::Nodes, Table::Services]);
        Found::of_name(view, watch, &subject, header, instances)
    }
}

/// Whether a service has a tag of this lower-cased spelling, if one is asked for.
pub(super) fn has_tag(service: &Service, tag_lower: Option<&Text>) -> bool {
    tag_lower.is_none_or(|wanted| {
        let mut tags = service.tags.iter().flatten();
        tags.any(|tag| tag.lower() == *wanted)
    })
}

impl Read for CatalogNode {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let state = view.state();
        let lower = self.node.lower();
        let answer = state.catalog.node(&lower).map(|node| NodeServices {
            node: Arc::clone(node),
            services: state
                .catalog
                .services_of(&lower)
                .map(|(_, service)| Arc::clone(service))
                .collect(),
        });
        // Of a node that never was the original says 0, which nobody can wait for.
        let header = match answer {
            Some(_) => state.indexes.max(&[Table::Nodes, Table::Services]),
            None => 0,
        };
        let subject = Subject::new(Kind::Node, &lower);
        Found::of_name(view, watch, &subject, header, answer)
    }
}
