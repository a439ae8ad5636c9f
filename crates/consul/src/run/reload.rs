//! A configuration that is read again while the agent runs.

use agent::Agent;
use api::Api;
use rpc::tls::Tls;

use super::watches::{Prepared, Watches};
use super::{local, say, shown};
use crate::config::Settings;
use crate::config::reload::{Live, differences};
use crate::logging::Log;

/// What a reload reads, and what it changes.
pub(super) struct Reload<'a> {
    /// The configuration in effect.
    pub(super) current: Settings,
    pub(super) reread: &'a dyn Fn() -> Result<Settings, String>,
    pub(super) log: &'a Log,
    pub(super) tls: &'a Tls,
    pub(super) agent: &'a Agent,
    pub(super) api: &'a Api,
    pub(super) watches: Watches,
}

impl Reload<'_> {
    /// Reads the configuration again and applies what can be applied now; if something is wrong with it, nothing changes.
    pub(super) async fn run(&mut self) -> Result<(), String> {
        say("==> Reloading configuration...");
        let outcome = self.apply().await;
        if let Err(why) = &outcome {
            say(&format!("==> {why}"));
            say("==> Failed to reload configs");
        }
        outcome
    }

    async fn apply(&mut self) -> Result<(), String> {
        let new = (self.reread)()?;
        let changes = differences(&self.current, &new);
        // Files may have new contents under the same names.
        let files = self.tls.prepare(&new.tls).map_err(|why| why.to_string())?;
        let watches = Prepared::new(&new.watches, &self.current, &new.tls)
            .map_err(|why| format!("{why:#}"))?;
        // Also without a change, since what files define may have been deregistered over HTTP. It is the last step that
        // can fail.
        let reloaded = self
            .agent
            .local()
            .reload(new.definitions.clone(), local::node_meta(&new));
        reloaded.await.map_err(|why| why.to_string())?;
        self.tls.adopt(files);
        self.watches.start(watches);
        for change in &changes.live {
            match change {
                Live::LogLevel => {
                    self.log.set_level(new.log_level);
                    self.current.log_level = new.log_level;
                }
                Live::TlsFiles => {
                    let (current, new) = (&mut self.current.tls, &new.tls);
                    current.ca_file.clone_from(&new.ca_file);
                    current.cert_file.clone_from(&new.cert_file);
                    current.key_file.clone_from(&new.key_file);
                    tracing::info!("new connections use other TLS files");
                }
                Live::NodeMeta => self.current.node_meta.clone_from(&new.node_meta),
                Live::Definitions => {
                    let current = &mut self.current.definitions;
                    current.clone_from(&new.definitions);
                }
                Live::Watches => self.current.watches.clone_from(&new.watches),
                Live::LeaveOnTerminate => self.current.leave_on_terminate = new.leave_on_terminate,
                Live::SkipLeaveOnInterrupt => {
                    self.current.skip_leave_on_interrupt = new.skip_leave_on_interrupt;
                }
                Live::ResponseHeaders => {
                    let headers = &mut self.current.http_api_response_headers;
                    headers.clone_from(&new.http_api_response_headers);
                    let headers = shown::response_headers(&self.current);
                    self.api.set_response_headers(&headers);
                }
            }
        }
        let (_, settings) = shown::describe(&self.current);
        self.agent.set_settings(settings);
        if !changes.restart.is_empty() {
            tracing::warn!(
                "new values that take effect at the next start of this agent: {}",
                changes.restart.join(", ")
            );
        }
        tracing::info!("the configuration was read again");
        Ok(())
    }
}
