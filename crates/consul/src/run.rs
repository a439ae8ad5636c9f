//! The running agent: composed of the other crates' parts, started, and stopped by signals.

use crate::config::Settings;

/// Runs an agent until it is told to stop, and returns the exit status.
///
/// # Errors
/// When it can't start, with the reason.
pub fn agent(settings: Settings) -> anyhow::Result<u8> {
    anyhow::bail!("the agent {} can't run in this build", settings.node_name)
}
