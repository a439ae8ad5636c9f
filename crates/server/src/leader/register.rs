//! This server in the catalog: its node, `serfHealth`, and the `consul` service.

use futures::future::BoxFuture;
use model::{
    CatalogNode, Check, Command, Error, HealthNode, Node, PASSING, Registration, SERF_HEALTH,
    Service, Text,
};
use store::{Read, View, Watch};

use crate::Config;
use crate::core::Core;
use crate::write::propose;

/// Name and id of the service that every server offers.
const SERVICE: &str = "consul";

pub(super) fn run(core: &Core) -> BoxFuture<'_, Result<(), Error>> {
    Box::pin(async move {
        if let Some(registration) = plan(&core.config, &core.shared.view()) {
            propose(core, Command::Register(Box::new(registration))).await?;
        }
        Ok(())
    })
}

/// What must be written, or nothing if the catalog has this server well and at its address.
///
/// The original does the same, so that what a restore brought back stays untouched where it is true.
fn plan(config: &Config, view: &View) -> Option<Registration> {
    let name = Text::from(config.node_name.as_str());
    let address = Text::from(config.advertise_address.to_string());
    let row = (CatalogNode { node: name.clone() })
        .read(view, &mut Watch::off())
        .answer;
    let checks = (HealthNode { node: name.clone() })
        .read(view, &mut Watch::off())
        .answer;
    let well = checks
        .iter()
        .any(|check| check.check_id == SERF_HEALTH && check.is_passing());
    let matches = row.is_some_and(|row| {
        row.node.address == address && row.services.iter().any(|service| service.id == SERVICE)
    });
    if matches && well {
        return None;
    }
    let wan = Text::from(config.advertise_address_wan.to_string());
    let tagged = [
        (Text::from("lan"), address.clone()),
        (Text::from("wan"), wan),
    ];
    Some(Registration {
        node: Node {
            name: name.clone(),
            address,
            tagged_addresses: Some(tagged.into()),
            ..Node::default()
        },
        service: Some(Service {
            id: Text::from(SERVICE),
            name: Text::from(SERVICE),
            tags: Some(Vec::new()),
            port: i64::from(config.server_port),
            ..Service::default()
        }),
        checks: vec![Check {
            node: name,
            check_id: Text::from(SERF_HEALTH),
            name: Text::from("Serf Health Status"),
            status: Text::from(PASSING),
            output: Text::from("Agent alive and reachable"),
            ..Check::default()
        }],
    })
}
