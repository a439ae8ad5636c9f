//! Checks.

use std::sync::Arc;

use model::{Check, HealthChecks, HealthNode, HealthService, HealthState, Text};

use crate::changes::{Kind, Subject};
use crate::reads::catalog::has_tag;
use crate::tables::Table;
use crate::view::{Found, Read, View};
use crate::watch::Watch;

/// The state that stands for all states.
const ANY: &str = "any";

impl Read for HealthNode {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let node = self.node.lower();
        let checks = view.state().catalog.checks_of(&node).cloned().collect();
        of_checks(view, watch, Kind::NodeChecks, &node, checks)
    }
}

impl Read for HealthChecks {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let name = self.service.lower();
        let catalog = &view.state().catalog;
        let checks = catalog.checks_of_service(&name).cloned().collect();
        of_checks(view, watch, Kind::ServiceChecks, &name, checks)
    }
}

impl Read for HealthState {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let catalog = &view.state().catalog;
        if self.state == ANY {
            let checks = catalog.checks_by_status().cloned().collect();
            return Found::of_tables(view, watch, &[Table::Checks], checks);
        }
        let checks = catalog.checks_in(&self.state).cloned().collect();
        of_checks(view, watch, Kind::Status, &self.state, checks)
    }
}

fn of_checks(
    view: &View,
    watch: &mut Watch,
    kind: Kind,
    name: &Text,
    checks: Vec<Arc<Check>>,
) -> Found<Vec<Arc<Check>>> {
    let header = view.state().indexes.get(Table::Checks);
    Found::of_name(view, watch, &Subject::new(kind, name), header, checks)
}

impl Read for HealthService {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let state = view.state();
        let name = self.service.lower();
        let tag = self.tag.as_ref().map(Text::lower);
        let mut changed = 0;
        let mut instances = Vec::new();
        for row in state.catalog.instances_of(&name) {
            // What is filtered out counts as well: it may have been filtered in before it changed.
            changed = row.changed.max(changed);
            let instance = row.instance;
            let is_well = || instance.checks.iter().all(|check| check.is_passing());
            if has_tag(&instance.service, tag.as_ref()) && (!self.passing_only || is_well()) {
                instances.push(instance);
            }
        }
        let lost = Subject::new(Kind::Health, &name);
        watch.subject(&lost);
        let changed = changed.max(state.changes.get(&lost).unwrap_or(0));
        let header = state
            .indexes
            .max(&[Table::Nodes, Table::Services, Table::Checks]);
        let subject = Subject::new(Kind::Instances, &name);
        let mut found = Found::of_name(view, watch, &subject, header, instances);
        found.changed = found.changed.max(changed);
        found
    }
}
