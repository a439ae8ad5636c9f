//! TLS between members, and for the HTTPS face: one place that reads the files, judges whether the settings make sense together, and holds what new connections use.
//!
//! [`Tls::load`] refuses settings that would leave in the clear what they seem to protect; `docs/tls.md` has the whole table.
//! [`Tls::reload`] and [`Tls::reload_from`] read files anew and swap what new connections use; files that can't be used change nothing.
//! The cryptography is ring's and is named wherever a configuration is built ([`provider`]), so that the process has no default to be surprised by.

mod config;
mod handshake;
mod identity;
mod material;
#[cfg(test)]
mod tests;
mod validity;
mod verifier;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion, version};
use rustls_pki_types::UnixTime;

pub use config::{Config, MinVersion, UnknownVersion};
pub use handshake::{HANDSHAKE_TIMEOUT, HandshakeError, Incoming, Outgoing, Stream};
pub use identity::PeerIdentity;
pub use material::{FileProblem, TlsError};

use handshake::Handshakes;
use material::Material;
use verifier::{Expected, Verifier};

/// The one cryptography of this program.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What an agent needs to speak TLS. Clones share it.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    config: Config,
    current: ArcSwap<Loaded>,
    /// Of other members.
    rpc_handshakes: Arc<Handshakes>,
    /// Of HTTPS clients, so that neither side's can displace the other's.
    https_handshakes: Arc<Handshakes>,
}

/// What the files gave, as new connections use it.
struct Loaded {
    incoming: Option<Arc<ServerConfig>>,
    https: Option<Arc<ServerConfig>>,
    outgoing: Option<Arc<ClientConfig>>,
}

/// Files that were read and judged, and that nobody uses yet.
pub struct Prepared(Arc<Loaded>);

impl Tls {
    /// Judges the settings and reads the files that they name.
    /// What is doubtful but starts is logged as a warning.
    ///
    /// # Errors
    /// When TLS is half configured, or a file can't be used; the text names the settings or the file.
    pub fn load(config: Config) -> Result<Self, TlsError> {
        for warning in config.judge()? {
            tracing::warn!("{warning}");
        }
        let loaded = Loaded::new(&config)?;
        Ok(Self(Arc::new(Inner {
            config,
            current: ArcSwap::from_pointee(loaded),
            rpc_handshakes: Arc::default(),
            https_handshakes: Arc::default(),
        })))
    }

    /// Reads the files of the start anew, for the connections that come.
    ///
    /// # Errors
    /// When a file can't be used; what was in use before stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.reload_from(&self.0.config)
    }

    /// Reads the files that `settings` name, for the connections that come; its other settings don't matter, those of
    /// the start stay.
    ///
    /// # Errors
    /// When a file can't be used, or TLS would be half configured with these files; what was in use before stays in use.
    pub fn reload_from(&self, settings: &Config) -> Result<(), TlsError> {
        self.adopt(self.prepare(settings)?);
        Ok(())
    }

    /// The first half of [`Tls::reload_from`]: nothing changes yet.
    ///
    /// # Errors
    /// As there.
    pub fn prepare(&self, settings: &Config) -> Result<Prepared, TlsError> {
        let config = Config {
            ca_file: settings.ca_file.clone(),
            cert_file: settings.cert_file.clone(),
            key_file: settings.key_file.clone(),
            ..self.0.config.clone()
        };
        // Its warnings were given at the start.
        config.judge()?;
        Ok(Prepared(Arc::new(Loaded::new(&config)?)))
    }

    /// The second half of [`Tls::reload_from`]: new connections use what was prepared.
    pub fn adopt(&self, prepared: Prepared) {
        self.0.current.store(prepared.0);
    }

    /// What takes other members' TLS connections; `None` when this agent has no certificate, and on a client.
    pub fn incoming(&self) -> Option<Incoming> {
        self.0.current.load().incoming.as_ref()?;
        Some(Incoming::rpc(self.clone()))
    }

    /// What takes HTTPS connections; `None` when [`Config::https`] is off.
    pub fn https(&self) -> Option<Incoming> {
        self.0.current.load().https.as_ref()?;
        Some(Incoming::https(self.clone()))
    }

    /// What makes TLS connections to servers; `None` when calls go out in the clear.
    pub fn outgoing(&self) -> Option<Outgoing> {
        self.0.current.load().outgoing.as_ref()?;
        Some(Outgoing::new(self.clone()))
    }

    /// Whether members may call this agent without TLS. If not, a listener closes connections that don't begin with it.
    pub fn takes_plain(&self) -> bool {
        !self.0.config.verify_incoming
    }

    /// Whether only a peer whose certificate is a server's may speak Raft; see [`PeerIdentity::is_server_of`].
    pub fn raft_needs_server_certificate(&self) -> bool {
        self.0.config.verify_server_hostname
    }

    /// The settings that this was made from.
    pub fn config(&self) -> &Config {
        &self.0.config
    }
}

impl fmt::Debug for Prepared {
    /// What the files hold is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").finish_non_exhaustive()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.0.config).finish()
    }
}

impl Loaded {
    fn new(config: &Config) -> Result<Self, TlsError> {
        let provider = provider();
        let material = Material::read(config, &provider)?;
        // Nobody speaks TLS on a machine whose clock stands before 1970.
        for warning in material.doubts(config, &provider, UnixTime::now()) {
            tracing::warn!("{warning}");
        }
        let versions = versions(config.min_version);
        Ok(Self {
            incoming: (config.server)
                .then(|| server_config(&material, Asks::rpc(config), &provider, versions))
                .transpose()?
                .flatten(),
            https: (config.https)
                .then(|| server_config(&material, Asks::https(config), &provider, versions))
                .transpose()?
                .flatten(),
            outgoing: (config.verifies_outgoing())
                .then(|| client_config(&material, config, &provider, versions))
                .transpose()?
                .flatten(),
        })
    }
}

/// Whether a listener asks for the client's certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    No,
    /// A client without one is let in.
    Maybe,
    Always,
}

impl Asks {
    fn rpc(config: &Config) -> Self {
        if config.verify_incoming {
            Self::Always
        } else if config.verify_server_hostname {
            // Who may speak Raft depends on the certificate.
            Self::Maybe
        } else {
            Self::No
        }
    }

    fn https(config: &Config) -> Self {
        if config.verify_incoming {
            Self::Always
        } else {
            // A browser would bother its user for a certificate.
            Self::No
        }
    }
}

fn versions(min: MinVersion) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    match min {
        MinVersion::Tls10 | MinVersion::Tls11 | MinVersion::Tls12 => &BOTH,
        MinVersion::Tls13 => &BOTH[..1],
    }
}

fn server_config(
    material: &Material,
    asks: Asks,
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Option<Arc<ServerConfig>>, TlsError> {
    let Some(own) = &material.own else {
        return Ok(None);
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(TlsError::cryptography)?;
    let builder = match (&material.roots, asks) {
        (None, _) | (_, Asks::No) => builder.with_no_client_auth(),
        (Some(roots), _) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(
                Arc::clone(roots),
                Arc::clone(provider),
            );
            let verifier = match asks {
                Asks::No | Asks::Always => verifier,
                Asks::Maybe => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build().map_err(TlsError::cryptography)?)
        }
    };
    let mut server = builder.with_cert_resolver(Arc::clone(&own.resolver));
    if asks != Asks::No {
        // A resumed session would outlive the client's certificate.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
    }
    Ok(Some(Arc::new(server)))
}

fn client_config(
    material: &Material,
    config: &Config,
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Option<Arc<ClientConfig>>, TlsError> {
    let Some(roots) = &material.roots else {
        return Ok(None);
    };
    let expected = if config.verify_server_hostname {
        Expected::Dialled
    } else {
        match &config.server_name {
            Some(name) => Expected::fixed(name)?,
            None => Expected::Anyone,
        }
    };
    let verifier = Verifier::new(Arc::clone(roots), expected, provider);
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(TlsError::cryptography)?
        // Dangerous in general: this one checks the chain always, and the name as configured.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut client = match &material.own {
        Some(own) => builder.with_client_cert_resolver(Arc::clone(&own.client_resolver)),
        None => builder.with_no_client_auth(),
    };
    // Connections between members are few and live long; each is checked in full.
    client.resumption = Resumption::disabled();
    Ok(Some(Arc::new(client)))
}
