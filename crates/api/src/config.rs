//! What can be set.

use std::fmt;
use std::time::Duration;

use model::Text;

/// How `/v1` looks on this agent. Limits of the connection are the engine's, in [`http::Config`](crate::http::Config).
#[derive(Clone)]
pub struct Config {
    /// The datacenter that decides about tokens; empty (the default) for none: `/v1/acl/` then answers 401.
    pub acl_datacenter: Text,
    /// The token of requests that bring none. Default: empty.
    pub acl_token: Text,
    /// Headers of every answer under `/v1/`, errors included, in this order. Default: none.
    ///
    /// Names are written in `Title-Case`, as the original does. Those that say what a body is and where it ends are left out.
    pub response_headers: Vec<(String, String)>,
    /// Indent JSON also where `?pretty` does not ask for it. Default: no.
    pub pretty: bool,
    /// Answer 401 under `/v1/coordinate/`. Default: no.
    pub disable_coordinates: bool,
    /// Whether nodes of other datacenters are shown at their wide-area address. Default: no.
    pub translate_wan_addrs: bool,
    /// The largest body that is read as JSON. Default: 2 MiB, which holds the largest transaction whose values are within their own limit.
    pub json_bytes_max: usize,
    /// How many bytes of bodies are held at the same time, counting those above 16 KiB each; who comes too many waits to be read. Default: 256 MiB.
    pub bodies_bytes_max: u32,
    /// How long a blocking query waits if it does not say. Default: 5 minutes.
    pub wait_default: Duration,
    /// The longest that a blocking query may wait; longer wishes are cut to it. Default: 10 minutes.
    pub wait_max: Duration,
    /// Where the chance begins by which waits are lengthened, so that those who began together do not end together. Any number.
    pub seed: u64,
}

impl fmt::Debug for Config {
    /// Without the token: what is printed for debugging ends in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("acl_datacenter", &self.acl_datacenter)
            .field("response_headers", &self.response_headers)
            .field("pretty", &self.pretty)
            .field("disable_coordinates", &self.disable_coordinates)
            .field("translate_wan_addrs", &self.translate_wan_addrs)
            .field("json_bytes_max", &self.json_bytes_max)
            .field("wait_default", &self.wait_default)
            .field("wait_max", &self.wait_max)
            .finish_non_exhaustive()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            acl_datacenter: Text::default(),
            acl_token: Text::default(),
            response_headers: Vec::new(),
            pretty: false,
            disable_coordinates: false,
            translate_wan_addrs: false,
            json_bytes_max: 2 * 1024 * 1024,
            bodies_bytes_max: 256 * 1024 * 1024,
            wait_default: Duration::from_secs(5 * 60),
            wait_max: Duration::from_secs(10 * 60),
            seed: 0,
        }
    }
}
