//! The services and checks of this node, kept while the agent runs.

use std::net::SocketAddr;

use agent::{ApiScripts, ExecConfig, Identity, Keeper, Local, LocalConfig, Tokens, access};
use model::{Pairs, Service, Text};
use rpc::Cluster;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::node::{Node, spawn_until};
use crate::config::{Listener, Settings};

/// The task that keeps them, and what tells it of servers.
pub(super) struct Keeping {
    stop: watch::Sender<bool>,
    joined: Option<oneshot::Sender<()>>,
    keeper: Option<JoinHandle<()>>,
    watching: Option<JoinHandle<()>>,
}

impl Keeping {
    /// Registers what files define and what is kept on disk; the catalog hears of it once this agent has joined.
    ///
    /// # Errors
    /// When a definition can't be registered.
    pub(super) async fn start(
        settings: &Settings,
        node: &Node,
        local: &Local,
        keeper: Keeper,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let (started, has_started) = oneshot::channel();
        let (joined, has_joined) = oneshot::channel();
        let pool = node.gossip.clone();
        let members = move || pool.members_count();
        let kept = keeper.once(has_joined).run(
            node.cluster.clone(),
            settings.definitions.clone(),
            members,
            started,
        );
        let changed = {
            let local = local.clone();
            move || local.servers_changed()
        };
        let watched =
            agent::servers::watch(node.gossip.clone(), settings.datacenter.clone(), changed);
        let mut keeping = Self {
            stop,
            joined: Some(joined),
            keeper: Some(spawn_until(&stopped, kept)),
            watching: Some(spawn_until(&stopped, watched)),
        };
        match has_started.await {
            Ok(Ok(())) => Ok(keeping),
            Ok(Err(why)) => {
                keeping.stop().await;
                Err(why.into())
            }
            Err(_) => {
                keeping.stop().await;
                anyhow::bail!("the keeper of services and checks ended")
            }
        }
    }

    /// Says that this agent has joined those that it was to join first.
    pub(super) fn has_joined(&mut self) {
        if let Some(joined) = self.joined.take() {
            // It hears it all the same when nobody can say it any more.
            let _ = joined.send(());
        }
    }

    /// Returns if the keeper has ended, which it never does by itself.
    pub(super) async fn ended(&mut self) {
        ended(&mut self.keeper).await;
    }

    /// Ends it: checks are stopped, and the catalog isn't touched any more.
    pub(super) async fn stop(&mut self) {
        self.stop.send_replace(true);
        for task in [&mut self.keeper, &mut self.watching] {
            if let Some(task) = task.take()
                && task.await.is_err()
            {
                tracing::error!("a task of the services and checks panicked");
            }
        }
    }
}

/// Returns when this task has ended; never if there is none.
pub(super) async fn ended(task: &mut Option<JoinHandle<()>>) {
    match task {
        Some(running) => {
            // A panic has been printed.
            let _ = running.await;
            *task = None;
        }
        None => std::future::pending().await,
    }
}

/// What this node's services and checks stand on.
pub(super) fn config(settings: &Settings, identity: &Identity) -> LocalConfig {
    let tagged = [("lan", identity.address), ("wan", identity.address_wan)];
    let mut checks = agent::checks::Config::new(|name| std::env::var(name).ok());
    checks.allow_link_local = settings.enable_link_local_checks;
    LocalConfig {
        node: identity.node.as_str().into(),
        address: identity.address.to_string().into(),
        tagged_addresses: tagged
            .map(|(kind, address)| (Text::from(kind), Text::from(address.to_string())))
            .into(),
        node_id: identity.id.as_str().into(),
        node_meta: node_meta(settings),
        token: settings.acl.token.as_str().into(),
        agent_token: settings.acl.agent_token.as_str().into(),
        check_update_interval: settings.check_update_interval,
        data_dir: settings.data_dir.clone(),
        // As the leader writes it, or the two would overwrite each other.
        own_service: settings.server.then(|| Service {
            id: "consul".into(),
            name: "consul".into(),
            tags: Some(Vec::new()),
            port: settings.rpc_advertise.port().into(),
            ..Service::default()
        }),
        api_scripts: api_scripts(settings),
        checks,
        seed: rand::random(),
    }
}

/// How this agent judges who asks for what it answers by itself.
pub(super) fn tokens(settings: &Settings, cluster: &Cluster) -> Tokens {
    let acl = &settings.acl;
    if !acl.server.enforce_version_8 {
        return Tokens::unjudged();
    }
    let config = access::Config {
        node: settings.node_name.as_str().into(),
        down_policy: acl.server.down_policy,
        agent_master_token: acl.agent_master_token.as_str().into(),
        seed: rand::random(),
    };
    Tokens::judged(config, cluster.clone())
}

/// How this node takes part in remote execution, if it does.
pub(super) fn exec(settings: &Settings) -> ExecConfig {
    ExecConfig {
        enabled: settings.remote_exec,
        node: settings.node_name.as_str().into(),
        token: settings.acl.token.as_str().into(),
        shell: agent::checks::Config::new(|name| std::env::var(name).ok()).shell,
        ..ExecConfig::default()
    }
}

/// The facts about this node, as the catalog has them.
pub(super) fn node_meta(settings: &Settings) -> Pairs {
    let pairs = settings.node_meta.iter();
    pairs
        .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
        .collect()
}

/// Whether who reaches this agent over HTTP may make it run programs.
///
/// That is as good as an account on this machine, so only who is on it already may, unless the operator says so or access
/// rules let nobody in who brings no token for it.
fn api_scripts(settings: &Settings) -> ApiScripts {
    let is_near = |listener: &Listener| match listener {
        Listener::Tcp(address) => is_loopback(address),
        Listener::Unix(_) => true,
    };
    let mut faces = settings.http.iter().chain(&settings.https);
    if settings.enable_script_checks || faces.all(is_near) {
        ApiScripts::Allowed
    } else if settings.acl.denies_by_default() {
        ApiScripts::Admitted
    } else {
        ApiScripts::Refused
    }
}

fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Host, decode, settings::validate};

    #[test]
    fn only_who_is_near_may_bring_scripts() {
        let cases = [
            ("{}", ApiScripts::Allowed),
            (r#"{"client_addr": "0.0.0.0"}"#, ApiScripts::Refused),
            (r#"{"client_addr": "::"}"#, ApiScripts::Refused),
            (r#"{"client_addr": "::1"}"#, ApiScripts::Allowed),
            (
                r#"{"client_addr": "::ffff:127.0.0.1"}"#,
                ApiScripts::Allowed,
            ),
            (
                r#"{"client_addr": "0.0.0.0", "addresses": {"http": "unix:///c.sock"}}"#,
                ApiScripts::Allowed,
            ),
            (
                r#"{"addresses": {"https": "10.0.0.1"}, "ports": {"https": 8501}}"#,
                ApiScripts::Refused,
            ),
            (
                r#"{"client_addr": "10.0.0.1", "enable_script_checks": true}"#,
                ApiScripts::Allowed,
            ),
            (
                r#"{"client_addr": "10.0.0.1", "acl_datacenter": "dc1", "acl_default_policy": "deny", "acl_enforce_version_8": true}"#,
                ApiScripts::Admitted,
            ),
            (
                r#"{"client_addr": "10.0.0.1", "acl_datacenter": "dc1", "acl_default_policy": "deny"}"#,
                ApiScripts::Refused,
            ),
            (
                r#"{"client_addr": "10.0.0.1", "acl_datacenter": "dc1", "acl_enforce_version_8": true}"#,
                ApiScripts::Refused,
            ),
        ];
        for (text, expected) in cases {
            let host = Host {
                name: "host".to_owned(),
                ..Host::default()
            };
            let settings = validate(&decode(text.as_bytes()).unwrap(), true, &host).unwrap();
            assert_eq!(api_scripts(&settings), expected, "{text}");
        }
    }
}
