//! Finding the others.

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
    }
    std::future::pending().await
}
