//! What an agent costs that has nothing to do.

use anyhow::{Context, Result};

use super::Setting;
use super::table::Measure;

pub(super) fn idle(setting: &Setting) -> Result<Vec<Measure>> {
    let agent = setting.agent()?;
    agent.settle()?;
    // The release profile strips.
    let binary = std::fs::metadata(&setting.program)
        .context("size of the program")?
        .len();
    Ok(vec![
        Measure::at_most(
            "start to first accepted write, empty data folder",
            "ms",
            agent.ready_after.as_secs_f64() * 1e3,
            100.0,
        ),
        Measure::at_most("idle agent: memory", "MB", agent.memory()? / 1e6, 12.0),
        Measure::at_most("binary, stripped", "MB", binary as f64 / 1e6, 20.0),
    ])
}
