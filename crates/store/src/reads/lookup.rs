//! Lookups of names: one node, or a few of many instances.
//!
//! Nobody waits for these, so what they touch is noted by the table.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use model::{
    AddressLookup, Authority, Node, NodeLookup, Placement, Placements, Row, Service, ServiceLookup,
    Shown, Text, parse_address,
};

use crate::tables::Table;
use crate::tables::catalog::{Candidate, Catalog, has_lower};
use crate::view::{Found, Read, View};
use crate::watch::Watch;

impl Read for NodeLookup {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let node = view.state().catalog.node(&self.node.lower()).cloned();
        Found::of_tables(view, watch, &[Table::Nodes], node)
    }
}

impl Read for AddressLookup {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let canonical = self.address.to_string();
        let mut nodes = view.state().catalog.nodes();
        let node = nodes.find(|node| is_at(node, self.address, &canonical));
        Found::of_tables(view, watch, &[Table::Nodes], node.cloned())
    }
}

/// Whether a node has this address. Of IPv4 addresses there is one spelling, so most are compared as they stand.
fn is_at(node: &Node, address: IpAddr, canonical: &str) -> bool {
    node.address == *canonical
        || (node.address.contains(&b':') && parse_address(&node.address) == Some(address))
}

impl Read for ServiceLookup {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        self.read_for(view, watch, &Authority::unlimited())
    }

    fn read_for(&self, view: &View, watch: &mut Watch, reader: &Authority) -> Found<Self::Answer> {
        let catalog = &view.state().catalog;
        let tag = self.tag.as_ref().map(Text::lower);
        let candidates = draw(catalog, &self.service, self.seed).filter(|candidate| {
            let service = &candidate.instance.service;
            (candidate.is_passing || !self.only_passing)
                && has_tag(service, tag.as_ref())
                && candidate.instance.is_visible(reader)
        });
        let look = Look {
            shown: self.shown,
            prefer_wan: self.prefer_wan,
        };
        let answer = pick(catalog, candidates, look, self.limit);
        let tables = [Table::Nodes, Table::Services, Table::Checks];
        Found::of_tables(view, watch, &tables, answer)
    }
}

/// The instances of a service that are well enough, in an order of chance.
pub(super) fn draw<'a>(
    catalog: &'a Catalog,
    service: &Text,
    seed: u64,
) -> impl Iterator<Item = &'a Candidate> + use<'a> {
    let candidates = catalog.candidates_of(&service.lower());
    candidates.into_iter().flat_map(move |candidates| {
        let drawn = Draw::new(candidates.len(), seed);
        drawn.filter_map(|number| candidates.get(number))
    })
}

/// Takes instances until there are enough that can be shown.
pub(super) fn pick<'a>(
    catalog: &'a Catalog,
    candidates: impl Iterator<Item = &'a Candidate>,
    look: Look,
    limit: usize,
) -> Placements {
    let mut seen = BTreeSet::new();
    let mut answer = Placements::default();
    for candidate in candidates {
        answer.is_any = true;
        if look.shown == Shown::Nothing || answer.picked.len() >= limit {
            break;
        }
        let (node, service) = (catalog.node_of(candidate), &candidate.instance.service);
        let Some(looks) = look.of(node, service) else {
            continue;
        };
        if seen.insert(looks) {
            answer.picked.push(Placement {
                node: Arc::clone(node),
                service: Arc::clone(service),
            });
        }
    }
    answer
}

fn has_tag(service: &Service, tag_lower: Option<&Text>) -> bool {
    tag_lower.is_none_or(|wanted| {
        let mut tags = service.tags.iter().flatten();
        tags.any(|tag| has_lower(tag, wanted))
    })
}

/// What of instances will be shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) shown: Shown,
    pub(super) prefer_wan: bool,
}

impl Look {
    /// What tells an instance from others once it is shown; `None` if it can't be shown.
    fn of<'a>(self, node: &'a Node, service: &'a Service) -> Option<(&'a [u8], &'a [u8], i64)> {
        if self.shown == Shown::Ports {
            return Some((&node.name, &service.address, service.port));
        }
        let address = service.address_on(node, self.prefer_wan);
        let fits = match (self.shown, parse_address(address)) {
            (Shown::Addresses | Shown::Ports, _)
            | (Shown::Ipv4, Some(IpAddr::V4(_)) | None)
            | (Shown::Ipv6, Some(IpAddr::V6(_)) | None)
            | (Shown::Hosts, None) => true,
            (Shown::Ipv4 | Shown::Ipv6 | Shown::Hosts, Some(_)) | (Shown::Nothing, _) => false,
        };
        fits.then_some((address, &[], 0))
    }
}

/// How many are drawn by noting only who changed places; beyond, the whole order is written out.
const FEW: usize = 24;

/// The numbers below a bound in an order of chance, each as likely as any other: a shuffle of which only as much is done as is asked for.
struct Draw {
    chance: u64,
    bound: usize,
    drawn: usize,
    order: Order,
}

/// Which number lies at a place that was not drawn yet, where that is not the place's own.
enum Order {
    Few(Vec<(usize, usize)>),
    Whole(Vec<usize>),
}

impl Draw {
    fn new(bound: usize, seed: u64) -> Self {
        Self {
            chance: seed,
            bound,
            drawn: 0,
            order: Order::Few(Vec::new()),
        }
    }

    /// A number below `bound`, which is above 0.
    ///
    /// This is SplitMix64; the bias of the product is one part in 2^64 for each of the numbers.
    fn below(&mut self, bound: usize) -> usize {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let product = u128::from(mixed) * bound as u128;
        usize::try_from(product >> 64).unwrap_or(0)
    }

    fn write_out(&mut self) {
        if let Order::Few(moved) = &self.order
            && moved.len() >= FEW
        {
            let mut whole: Vec<usize> = (0..self.bound).collect();
            for (place, number) in moved {
                whole[*place] = *number;
            }
            self.order = Order::Whole(whole);
        }
    }
}

impl Iterator for Draw {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.drawn == self.bound {
            return None;
        }
        let front = self.drawn;
        let chosen = front + self.below(self.bound - front);
        self.drawn += 1;
        self.write_out();
        match &mut self.order {
            Order::Whole(whole) => {
                whole.swap(front, chosen);
                Some(whole[front])
            }
            Order::Few(moved) => {
                let at = |moved: &[(usize, usize)], wanted| {
                    moved.iter().position(|(place, _)| *place == wanted)
                };
                let at_front = at(moved, front).map(|it| moved[it].1).unwrap_or(front);
                if chosen == front {
                    return Some(at_front);
                }
                // What lay in front lies at the chosen place from now on; nobody looks in front again.
                match at(moved, chosen) {
                    Some(it) => Some(std::mem::replace(&mut moved[it].1, at_front)),
                    None => {
                        moved.push((chosen, at_front));
                        Some(chosen)
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_drawn_once() {
        for bound in [0, 1, 2, 5, 23, 24, 25, 26, 100, 1000] {
            for seed in 0..20 {
                let mut drawn: Vec<usize> = Draw::new(bound, seed).collect();
                drawn.sort_unstable();
                assert_eq!(drawn, (0..bound).collect::<Vec<_>>(), "{bound} {seed}");
            }
        }
    }

    #[test]
    fn every_order_is_as_likely() {
        let mut counts = std::collections::BTreeMap::new();
        let rounds = 24_000;
        for seed in 0..rounds {
            let order: Vec<usize> = Draw::new(4, seed * 7919).collect();
            *counts.entry(order).or_insert(0_u64) += 1;
        }
        assert_eq!(counts.len(), 24);
        for (order, count) in counts {
            // A thousand each are expected; five standard deviations are 155.
            assert!(count.abs_diff(1000) < 160, "{order:?} {count}");
        }
    }

    #[test]
    fn the_first_of_many_is_any() {
        let mut counts = vec![0_u64; 50];
        for seed in 0..100_000 {
            for number in Draw::new(50, seed).take(3) {
                counts[number] += 1;
            }
        }
        // 6,000 each are expected, with a standard deviation of 75.
        assert!(counts.iter().all(|count| count.abs_diff(6000) < 450));
    }
}
