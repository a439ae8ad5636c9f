//! The suite of every `Cluster`, for a server in this process.

use rpc::Cluster;
use testkit::{Subject, cluster_suite};

use crate::setup::{Alone, config};

impl Subject for Alone {
    fn cluster(&self) -> Cluster {
        self.cluster.clone()
    }
}

#[tokio::test]
async fn a_server_in_this_process_passes() {
    let alone = Alone::start(config("a")).await;
    cluster_suite(&alone).await;
    alone.server.shutdown().await;
}
