//! Finding the others.

use std::time::Duration;

use agent::discover::Discover;
use agent::join::{self, Exhausted, Sources, SystemResolver};
use gossip::Gossip;

use super::say;
use crate::config::Settings;

/// Joins through `start_join`, before anything else.
///
/// # Errors
/// If none of them could be reached.
pub(super) async fn at_once(settings: &Settings, gossip: &Gossip) -> Result<(), String> {
    if settings.lan.start_join.is_empty() {
        return Ok(());
    }
    say("==> Joining cluster...");
    let sources = Sources {
        addresses: &settings.lan.start_join,
        providers: &[],
        port: settings.ports.serf_lan,
        resolver: &SystemResolver,
    };
    let reached =
        join::join_once(&sources, |addresses| agent::join_through(gossip, addresses)).await?;
    say(&format!(
        "    Join completed. Synced with {reached} initial agents"
    ));
    Ok(())
}

/// Joins through `retry_join` and what providers find; returns only if that has failed for good.
pub(super) async fn again_and_again(settings: &Settings, gossip: &Gossip) -> Exhausted {
    let providers: Vec<Box<dyn Discover>> = settings
        .discovery
        .iter()
        .map(agent::discover::Config::open)
        .collect();
    if !settings.lan.retry_join.is_empty() || !providers.is_empty() {
        let sources = Sources {
            addresses: &settings.lan.retry_join,
            providers: &providers,
            port: settings.ports.serf_lan,
            resolver: &SystemResolver,
        };
        let join = |addresses| agent::join_through(gossip, addresses);
        if let Err(exhausted) = join::retry_join(&sources, settings.lan.retry, join).await {
            return exhausted;
        }
        look_for_company(&sources, settings.lan.retry.interval, gossip).await;
    }
    std::future::pending().await
}

/// Goes on trying while this agent is alone.
///
/// Where all have the same list, an agent whose network is late reaches only itself, and counts as having joined, as in
/// the original. A site that comes back from a power cut must not stay in pieces for that.
async fn look_for_company(sources: &Sources<'_>, interval: Duration, gossip: &Gossip) {
    loop {
        tokio::time::sleep(interval).await;
        if gossip.members_count() == 1 {
            let join = |addresses| agent::join_through(gossip, addresses);
            if let Err(why) = join::join_once(sources, join).await {
                tracing::debug!("nobody to join yet: {why}");
            }
        }
    }
}
