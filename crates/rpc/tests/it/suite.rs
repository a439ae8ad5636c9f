//! The suite of every `Cluster`, for the fake and for servers behind real sockets; and who may speak with TLS.

use std::sync::Arc;

use bytes::Bytes;
use rpc::tls::{Config, Tls};
use rpc::{
    CallError, Calls as _, Cluster, Distant, Hop, Listener, ListenerConfig, Pool, PoolConfig,
    Request, Response, Servers,
};
use testkit::{Authority, Fake, FakeCluster, Served, Subject, cluster_suite};

use crate::member::{Listening, pool, server};

/// The fake, near or far.
struct Told {
    fake: FakeCluster,
    cluster: Cluster,
}

impl Subject for Told {
    fn cluster(&self) -> Cluster {
        self.cluster.clone()
    }

    fn expect(&self, fake: Fake) {
        self.fake.answer(fake);
    }
}

#[tokio::test]
async fn the_fake_passes() {
    let fake = FakeCluster::new();
    let cluster = fake.cluster();
    cluster_suite(&Told { fake, cluster }).await;
}

async fn far(listening: Option<Tls>, calling: Option<Tls>) {
    let fake = FakeCluster::new();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), ListenerConfig::default())
        .await
        .unwrap();
    let mut servers = Servers::new(1);
    servers.add(server(listener.local_address().unwrap()));
    let serve = Arc::new(Served(fake.clone()));
    let task = tokio::spawn(listener.serve(serve, listening, std::future::pending()));
    let pool = Pool::new(PoolConfig::default(), calling, "dc1");
    let cluster = Cluster::new(Distant::new(Arc::new(pool), servers));
    cluster_suite(&Told { fake, cluster }).await;
    task.abort();
}

#[tokio::test]
async fn servers_far_away_pass() {
    far(None, None).await;
}

/// TLS as strict as it gets, with a certificate for these names.
fn strict(authority: &Authority, name: &str, names: &[&str]) -> Tls {
    let pair = authority.sign(name, names);
    Tls::load(Config {
        ca_file: Some(authority.file()),
        cert_file: Some(pair.certificate),
        key_file: Some(pair.key),
        verify_incoming: true,
        verify_outgoing: true,
        verify_server_hostname: true,
        datacenter: "dc1".to_owned(),
        domain: "consul".to_owned(),
        server: true,
        ..Config::default()
    })
    .unwrap()
}

#[tokio::test]
async fn servers_far_away_pass_over_tls() {
    let authority = Authority::new();
    let server = strict(&authority, "s1", &["server.dc1.consul"]);
    let client = strict(&authority, "c1", &["client.dc1.consul"]);
    far(Some(server), Some(client)).await;
}

#[tokio::test]
async fn only_servers_speak_raft_and_nobody_in_the_clear() {
    let authority = Authority::new();
    let own = strict(&authority, "s1", &["server.dc1.consul"]);
    let listening = Listening::start_with(ListenerConfig::default(), Some(own.clone())).await;
    let address = listening.server.address;
    let say = || Bytes::from_static(b"vote for me");

    let plain = pool();
    let call = plain.call(&listening.server, Hop::First, Request::Ping);
    assert!(matches!(
        call.await,
        Err(CallError::Broken(_) | CallError::NotSent(_))
    ));

    let client = strict(&authority, "c1", &["client.dc1.consul"]);
    let client = Pool::new(PoolConfig::default(), Some(client), "dc1");
    let call = client.call(&listening.server, Hop::First, Request::Ping);
    assert!(matches!(call.await, Ok(Response::Ping)));
    assert!(client.log_message(address, "s1", say()).await.is_err());

    let other = strict(&authority, "s2", &["server.dc1.consul"]);
    let other = Pool::new(PoolConfig::default(), Some(other), "dc1");
    assert!(other.log_message(address, "s1", say()).await.is_ok());
}
