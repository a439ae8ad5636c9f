//! Checks that make a connection and close it: passing if it stands, else critical, never warning.
//!
//! Both families of addresses are tried.
//! Where no time is set it is the interval, at most 10 s.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::timeout;

use super::{Config, Probe, Shared, Verdict, dial, question_time};
use crate::definition::{Every, Status};

#[derive(Debug)]
pub(super) struct Tcp {
    address: String,
    time: Duration,
    shared: Arc<Shared>,
}

impl Tcp {
    pub(super) fn new(address: &str, every: &Every, config: &Config) -> Self {
        Self {
            address: address.to_owned(),
            time: question_time(every),
            shared: Arc::clone(&config.shared),
        }
    }

    async fn connect(&self) -> Result<(), String> {
        let (host, port) = dial::split(&self.address)?;
        let reason = |why| format!("{}: {}", self.address, dial::reason(&why));
        let addresses = self.shared.names.addresses(host, port).await;
        let addresses = addresses.map_err(reason)?;
        dial::connect(&addresses).await.map_err(reason)?;
        Ok(())
    }

    async fn run(&self) -> Verdict {
        let address = &self.address;
        match timeout(self.time, self.connect()).await {
            Ok(Ok(())) => Verdict {
                status: Status::Passing,
                output: format!("TCP connect {address}: Success").into_bytes(),
            },
            Ok(Err(why)) => Verdict::critical(format!("dial tcp {why}")),
            Err(_) => Verdict::critical(format!(
                "dial tcp {address}: no connection within {:?}",
                self.time
            )),
        }
    }
}

impl Probe for Tcp {
    fn ask(&self) -> BoxFuture<'_, Verdict> {
        self.run().boxed()
    }
}
