//! Services and their health.

use std::net::SocketAddr;

use anyhow::Result;

use super::Setting;
use super::connection::{request, succeed};
use super::load::{Until, run};
use super::table::Measure;

/// Registers an instance of a service, with a passing check, on a node of its own.
pub(super) fn register(address: SocketAddr, node: &str, service: &str, output: &str) -> Result<()> {
    succeed(
        address,
        "PUT",
        "/v1/catalog/register",
        registration(node, service, output).as_bytes(),
    )
    .map(drop)
}

pub(super) fn registration(node: &str, service: &str, output: &str) -> String {
    format!(
        r#"{{"Node":"{node}","Address":"10.1.2.3",
            "Service":{{"ID":"{service}-1","Service":"{service}","Tags":["primary","v1"],"Address":"10.1.2.3","Port":8080}},
            "Check":{{"Node":"{node}","CheckID":"service:{service}-1","Name":"Service '{service}' check","Status":"passing",
                      "ServiceID":"{service}-1","Notes":"","Output":"{output}"}}}}"#
    )
}

pub(super) fn health(setting: &Setting) -> Result<Vec<Measure>> {
    let agent = setting.agent()?;
    for at in 0..100 {
        register(
            agent.address,
            &format!("node-{at:03}"),
            "web",
            "HTTP GET http://10.1.2.3:8080/health: 200 OK",
        )?;
    }
    let path = "/v1/health/service/web?passing";
    let size = succeed(agent.address, "GET", path, b"")?.body().len();
    let ceiling = super::ceiling::echo(16, setting.time / 2, path, size)?;
    let load = |time| {
        run(agent.address, 16, Until::Time(time), |_, out| {
            request(out, "GET", path, b"")
        })
    };
    load(setting.time / 8)?;
    let before = agent.cpu()?;
    let seen = load(setting.time)?;
    let cpu = (agent.cpu()? - before).as_secs_f64() * 1e6 / seen.requests as f64;
    Ok(vec![
        Measure::at_most(
            "GET /v1/health/service/web?passing, 100 instances: CPU",
            "µs",
            cpu,
            50.0,
        )
        .beside(ceiling),
    ])
}
