//! Addresses of nodes as they are reached from other datacenters (`translate_wan_addrs`).

use std::sync::Arc;

use model::{Instance, Node, Text};

use crate::call::Call;

impl Call<'_> {
    /// Whether the answer is about nodes of another datacenter, and those are to be shown at the address for others.
    pub(crate) fn translates(&self) -> bool {
        let is_elsewhere = |datacenter| datacenter != self.api.agent.datacenter().as_bytes();
        self.api.config.translate_wan_addrs && self.query.filled("dc").is_some_and(is_elsewhere)
    }
}

/// Puts the address for others in place of the node's own, where it has one.
pub(crate) fn node(node: &mut Arc<Node>) {
    if let Some(address) = wan(node) {
        Arc::make_mut(node).address = address;
    }
}

/// The same for the nodes of instances; a service's own address stays.
pub(crate) fn instances(instances: &mut [Arc<Instance>]) {
    for instance in instances {
        if wan(&instance.node).is_some() {
            let mut translated = Arc::clone(&instance.node);
            node(&mut translated);
            *instance = instance.on(&translated);
        }
    }
}

fn wan(node: &Node) -> Option<Text> {
    let address = node.address(true);
    (*address != node.address).then(|| address.clone())
}
