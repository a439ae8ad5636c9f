//! Who may change what of this node: the rules of version 8, and whose scripts are run.
//!
//! The keeper asks before every change, when nothing can come between the question and the change.

use model::{Access, Resource, Text};

use super::state::{State, id_of_check};
use super::{ApiScripts, LocalError, Want};
use crate::access::Bearer;
use crate::definition::CheckDefinition;

impl State {
    /// Whether this bearer may have this.
    ///
    /// # Errors
    /// If a rule is missing, if there is nothing of that id, or if it brings a script along that is not to be run.
    pub(super) fn guard(&self, want: &Want, bearer: &Bearer) -> Result<(), LocalError> {
        match want {
            Want::RegisterService(definition) => {
                let service = &definition.service;
                let id = if service.id.is_empty() {
                    &service.name
                } else {
                    &service.id
                };
                bearer.demand(Resource::Service, &service.name, Access::Write)?;
                if let Some(replaced) = self.services.get(&id.lower()) {
                    let name = &replaced.service.name;
                    bearer.demand(Resource::Service, name, Access::Write)?;
                }
                let checks = definition.checks.iter();
                let count = checks.filter(|check| check.kind.is_some()).count();
                let mut ids = (0..count).map(|index| id_of_check(id, index, count == 1));
                ids.try_for_each(|id| self.guard_replaced_check(&id, bearer))?;
                if definition.checks.iter().any(CheckDefinition::runs_scripts) {
                    self.guard_scripts(bearer, &definition.token)?;
                }
                Ok(())
            }
            Want::RegisterCheck(definition) => {
                self.guard_new_check(definition, bearer)?;
                let id = if definition.id.is_empty() {
                    &definition.name
                } else {
                    &definition.id
                };
                self.guard_replaced_check(id, bearer)?;
                if definition.runs_scripts() {
                    self.guard_scripts(bearer, &definition.token)?;
                }
                Ok(())
            }
            Want::DeregisterService(id) | Want::ServiceMaintenance { id, .. } => {
                let Some(name) = self.name_of_service(id) else {
                    return unknown("service", id, bearer);
                };
                Ok(bearer.demand(Resource::Service, name, Access::Write)?)
            }
            Want::DeregisterCheck(id) | Want::UpdateTtl { id, .. } => {
                if !self.checks.contains_key(&id.lower()) {
                    return unknown("check", id, bearer);
                }
                self.guard_replaced_check(id, bearer)
            }
            Want::NodeMaintenance(_) => {
                Ok(bearer.demand(Resource::Node, &self.node.name, Access::Write)?)
            }
            // It is this program's own.
            Want::Reload { .. } => Ok(()),
        }
    }

    fn name_of_service(&self, id: &Text) -> Option<&Text> {
        let offered = self.services.get(&id.lower())?;
        Some(&offered.service.name)
    }

    /// A check is its service's matter, or else the node's.
    fn guard_new_check(
        &self,
        definition: &CheckDefinition,
        bearer: &Bearer,
    ) -> Result<(), LocalError> {
        let service = &definition.service_id;
        if service.is_empty() {
            return Ok(bearer.demand(Resource::Node, &self.node.name, Access::Write)?);
        }
        let name = self.name_of_service(service);
        let name = name.ok_or_else(|| LocalError::UnknownServiceOfCheck(service.clone()))?;
        Ok(bearer.demand(Resource::Service, name, Access::Write)?)
    }

    /// The same for one that is there already; one that isn't is nobody's.
    fn guard_replaced_check(&self, id: &Text, bearer: &Bearer) -> Result<(), LocalError> {
        let Some(checked) = self.checks.get(&id.lower()) else {
            return Ok(());
        };
        let check = &checked.check;
        let demanded = if check.service_id.is_empty() {
            bearer.demand(Resource::Node, &self.node.name, Access::Write)
        } else {
            bearer.demand(Resource::Service, &check.service_name, Access::Write)
        };
        Ok(demanded?)
    }

    /// `token` is what the registration brought along: what the agent lends to those who bring none is no leave to run programs.
    fn guard_scripts(&self, bearer: &Bearer, token: &Text) -> Result<(), LocalError> {
        let is_allowed = match self.api_scripts {
            ApiScripts::Allowed => true,
            ApiScripts::Admitted => bearer.is_admitted() && !token.is_empty(),
            ApiScripts::Refused => false,
        };
        if is_allowed {
            Ok(())
        } else {
            Err(LocalError::ScriptsRefused)
        }
    }
}

/// Who has no rules to heed hears nothing of it, as ever; what has no id at all is told so elsewhere.
fn unknown(kind: &'static str, id: &Text, bearer: &Bearer) -> Result<(), LocalError> {
    match bearer {
        Bearer::Holder(_) if !id.is_empty() => Err(LocalError::Unknown {
            kind,
            id: id.clone(),
        }),
        Bearer::Anybody | Bearer::Holder(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
