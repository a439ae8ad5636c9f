//! User events: which of them this node is meant by, and the last of those.
//!
//! [`receive`] is the one task that takes them from gossip; [`Events`] is the handle through which the faces see what it kept.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use gossip::{Event, Gossip};
use model::re2::{self, BadRegexp};
use model::{EventFilters, Service, Text, UserEvent};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::Local;
use crate::exec::{self, Exec};

/// How many events are kept, as with the original.
const KEPT_MAX: usize = 256;

/// The index of a list without events: not 0, or who waits for the first would never wait.
const NOTHING: u64 = 1;

/// The last events that this node was meant by, in memory alone; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Events(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    kept: Mutex<VecDeque<Arc<UserEvent>>>,
    changed: Notify,
}

/// Some of the kept events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptEvents {
    /// The oldest first.
    pub events: Vec<Arc<UserEvent>>,
    /// What to wait from: the index of the last of them. It has no order.
    pub index: u64,
}

impl Events {
    /// Those of the kept events that are wanted.
    pub fn kept(&self, is_wanted: impl Fn(&UserEvent) -> bool) -> KeptEvents {
        let kept = self.lock();
        let events: Vec<_> = kept
            .iter()
            .filter(|event| is_wanted(event))
            .cloned()
            .collect();
        drop(kept);
        let index = events.last().map_or(NOTHING, |last| last.index());
        KeptEvents { events, index }
    }

    /// The same, once their index is another one than `index`, or after this time.
    pub async fn kept_after(
        &self,
        index: u64,
        wait: Duration,
        is_wanted: impl Fn(&UserEvent) -> bool,
    ) -> KeptEvents {
        let deadline = Instant::now() + wait;
        loop {
            let mut changed = pin!(self.0.changed.notified());
            // Enrolled before looking, so that nothing slips in between.
            changed.as_mut().enable();
            let kept = self.kept(&is_wanted);
            if kept.index != index {
                return kept;
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = sleep_until(deadline) => return kept,
            }
        }
    }

    /// Keeps one more; the oldest gives way.
    pub fn keep(&self, event: UserEvent) {
        let mut kept = self.lock();
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(Arc::new(event));
        drop(kept);
        self.0.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<UserEvent>>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes user events from gossip until that ends: keeps those that this node is meant by, and does what remote execution asks for.
///
/// Dropping it kills the programs of remote execution.
pub async fn receive(gossip: Gossip, local: Local, events: Events, exec: Exec) {
    let mut told = gossip.subscribe();
    let node = gossip.local().name;
    let mut jobs = FuturesUnordered::new();
    loop {
        let event = tokio::select! {
            biased;
            Some(()) = jobs.next(), if !jobs.is_empty() => continue,
            event = told.next() => event,
        };
        let event = match event {
            None => return,
            Some(Event::User(event)) => event,
            // What was missed is lost, as it may be for anybody; the log has heard of it elsewhere.
            Some(_) => continue,
        };
        let Some(received) = received(&event, &node, || local.services()) else {
            continue;
        };
        if *received.name != *exec::EVENT.as_bytes() {
            tracing::debug!("new event: {} ({})", received.name, received.id);
            events.keep(received);
        } else if let Some(job) = exec.job(&received.payload, jobs.len()) {
            jobs.push(job);
        }
    }
}

/// The event that gossip told of, if it is a user event and this node is meant.
fn received(
    told: &gossip::UserEvent,
    node: &str,
    services: impl FnOnce() -> BTreeMap<Text, Arc<Service>>,
) -> Option<UserEvent> {
    let mut event = match rpc::event::decode(&told.name, &told.payload)? {
        Ok(event) => event,
        Err(why) => {
            tracing::warn!("a user event that can't be read is ignored: {why}");
            return None;
        }
    };
    event.ltime = told.ltime;
    match is_meant(&event.filters, node, services) {
        Ok(is_meant) => is_meant.then_some(event),
        Err(why) => {
            tracing::warn!(
                "the event '{}' is ignored for its filter: {why}",
                event.name
            );
            None
        }
    }
}

/// Whether a node of this name with these services is meant.
fn is_meant(
    filters: &EventFilters,
    node: &str,
    services: impl FnOnce() -> BTreeMap<Text, Arc<Service>>,
) -> Result<bool, BadRegexp> {
    if !filters.node.is_empty() && !re2::compile(&filters.node)?.is_match(node.as_bytes()) {
        return Ok(false);
    }
    if filters.service.is_empty() {
        return Ok(true);
    }
    let service = re2::compile(&filters.service)?;
    let tag = match &*filters.tag {
        [] => None,
        tag => Some(re2::compile(tag)?),
    };
    // The original looks at ids and not at names, because these are the keys of its map.
    let is_fit = |id: &Text, instance: &Service| {
        service.is_match(id)
            && tag.as_ref().is_none_or(|tag| {
                let mut tags = instance.tags.iter().flatten();
                tags.any(|text| tag.is_match(text))
            })
    };
    Ok(services().iter().any(|(id, instance)| is_fit(id, instance)))
}

pub(crate) fn fuzz(name: &str, envelope: &[u8]) {
    let told = gossip::UserEvent {
        ltime: 1,
        name: name.to_owned(),
        payload: envelope.to_vec().into(),
        coalesce: false,
    };
    let services = || BTreeMap::from([("web-1".into(), Arc::new(Service::default()))]);
    if let Some(mut event) = received(&told, "n1", services) {
        exec::fuzz(&event.payload);
        event.ltime = 0;
        let (name, envelope) = rpc::event::encode(&event).expect("its name was text");
        // Texts of a newer dialect may have been shorter by a byte each.
        if name.len() + envelope.len() <= rpc::event::SIZE_MAX {
            assert_eq!(rpc::event::decode(&name, &envelope), Some(Ok(event)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u128, name: &str) -> UserEvent {
        UserEvent {
            id: model::Uuid::from_u128(number),
            name: name.into(),
            ..UserEvent::default()
        }
    }

    fn names(kept: &KeptEvents) -> Vec<String> {
        kept.events
            .iter()
            .map(|event| event.name.to_string())
            .collect()
    }

    #[test]
    fn the_last_256_are_kept() {
        let events = Events::default();
        assert_eq!(events.kept(|_| true).index, 1);
        for number in 1..=300_u128 {
            let name = if number % 2 == 0 { "even" } else { "odd" };
            events.keep(event(number, name));
        }
        let all = events.kept(|_| true);
        assert_eq!((all.events.len(), all.index), (256, 300));
        assert_eq!(all.events[0].id, model::Uuid::from_u128(45));
        let odd = events.kept(|event| event.name == *"odd");
        assert_eq!((odd.events.len(), odd.index), (128, 299));
        assert_eq!(events.kept(|_| false).index, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_while_the_index_is_the_same() {
        const MINUTE: Duration = Duration::from_secs(60);
        let events = Events::default();
        let all = |_: &UserEvent| true;
        let begun = Instant::now();
        assert_eq!(names(&events.kept_after(1, MINUTE, all).await), [""; 0]);
        assert_eq!(begun.elapsed(), MINUTE);

        // Any other index is news, a larger one as well.
        let begun = Instant::now();
        events.keep(event(7, "deploy"));
        for index in [0, 1, 6, 8] {
            assert_eq!(
                names(&events.kept_after(index, MINUTE, all).await),
                ["deploy"]
            );
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);

        // What isn't wanted wakes nobody.
        let deploys = |event: &UserEvent| event.name == *"deploy";
        let waiting = events.kept_after(7, MINUTE, deploys);
        let firing = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            events.keep(event(8, "other"));
            tokio::time::sleep(Duration::from_secs(1)).await;
            events.keep(event(9, "deploy"));
        };
        let (kept, ()) = tokio::join!(waiting, firing);
        assert_eq!(
            (names(&kept), kept.index),
            (vec!["deploy".to_owned(); 2], 9)
        );
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
    }

    #[test]
    fn whom_an_event_is_for() {
        let services = |list: &[(&str, &str, &[&str])]| {
            let instance = |(id, name, tags): &(&str, &str, &[&str])| {
                let service = Service {
                    id: (*id).into(),
                    name: (*name).into(),
                    tags: Some(tags.iter().map(|tag| Text::from(*tag)).collect()),
                    ..Service::default()
                };
                (Text::from(*id), Arc::new(service))
            };
            list.iter().map(instance).collect::<BTreeMap<_, _>>()
        };
        let here = services(&[
            ("web-1", "frontend", &["v1", "eu"]),
            ("db", "mysql", &["master"]),
        ]);
        for (node, service, tag, expected) in [
            ("", "", "", true),
            ("n1", "", "", true),
            ("1", "", "", true),
            ("^n$", "", "", false),
            ("N1", "", "", false),
            ("(?i)N1", "", "", true),
            ("", "web", "", true),
            ("", "^web$", "", false),
            ("", r"\Qweb-1\E", "", true),
            // The name of a service is not its id.
            ("", "frontend", "", false),
            ("", "web", "v", true),
            // The tag of another service doesn't count.
            ("", "web", "master", false),
            ("", "web|db", "master", true),
            ("n2", "web", "", false),
            ("n1", "web", "eu", true),
        ] {
            let filters = EventFilters {
                node: node.into(),
                service: service.into(),
                tag: tag.into(),
            };
            let meant = is_meant(&filters, "n1", || here.clone());
            assert_eq!(meant, Ok(expected), "{filters:?}");
        }
        let bad = EventFilters {
            service: "web".into(),
            tag: "(".into(),
            ..EventFilters::default()
        };
        assert!(is_meant(&bad, "n1", || here.clone()).is_err());
    }

    #[test]
    fn reads_the_page() {
        let page = include_str!("../../../docs/events.md");
        let example = page
            .split("```hex\n")
            .nth(1)
            .and_then(|rest| rest.split("```").next());
        let digits: String = example
            .unwrap()
            .lines()
            .flat_map(|line| line.split('#').next())
            .flat_map(|line| line.split_whitespace())
            .collect();
        let bytes: Vec<u8> = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .collect();
        let told = gossip::UserEvent {
            ltime: 5,
            name: "consul:event:deploy".to_owned(),
            payload: bytes.into(),
            coalesce: false,
        };
        let web = || BTreeMap::from([("web-1".into(), Arc::new(Service::default()))]);
        let event = received(&told, "n1", web).unwrap();
        let (sent, envelope) = rpc::event::encode(&event).unwrap();
        assert_eq!((sent, envelope), (told.name.clone(), told.payload.to_vec()));
        assert_eq!(event.id.to_string(), "b54fe110-7af5-cafc-d1fb-afc8ba432b1c");
        assert_eq!((&*event.payload, event.ltime), (&b"v2"[..], 5));
        assert_eq!(received(&told, "n1", BTreeMap::new), None);
    }
}
