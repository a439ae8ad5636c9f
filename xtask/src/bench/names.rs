//! DNS: names of services, over UDP and TCP.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Setting;
use super::connection::succeed;
use super::process::{Agent, cpu_of};
use super::table::Measure;

/// Questions that are under way at a time.
const WINDOW: usize = 32;

/// No answer takes so long but one that was lost.
const PATIENCE: Duration = Duration::from_secs(2);

/// The name of a service.
const WEB: [&str; 3] = ["web", "service", "consul"];

const A: u8 = 1;
const SRV: u8 = 33;

pub(super) fn few(setting: &Setting) -> Result<Vec<Measure>> {
    let (agent, names) = agent(setting, 3)?;
    let measured = over_udp(setting, &agent, names, &WEB)?;
    Ok(vec![
        Measure::at_most("DNS A, 3 instances: CPU", "µs", measured.cpu, 15.0)
            .beside(measured.ceiling),
        Measure::shown("DNS A, 3 instances: per second", "/s", measured.per_second)
            .beside(measured.ceiling_per_second),
    ])
}

pub(super) fn many(setting: &Setting) -> Result<Vec<Measure>> {
    let (agent, names) = agent(setting, 1000)?;
    let measured = over_udp(setting, &agent, names, &WEB)?;
    Ok(vec![
        Measure::at_most(
            "DNS A, 1,000 instances, a server: CPU",
            "µs",
            measured.cpu,
            30.0,
        )
        .beside(measured.ceiling),
    ])
}

pub(super) fn ports(setting: &Setting) -> Result<Vec<Measure>> {
    let (agent, names) = agent(setting, 100)?;
    let cpu = |time, is_anew| -> Result<f64> {
        let before = agent.cpu()?;
        let answered = over_tcp(names, time, is_anew)?;
        Ok((agent.cpu()? - before).as_secs_f64() * 1e6 / answered as f64)
    };
    cpu(setting.time / 8, false)?;
    Ok(vec![
        Measure::at_most(
            "DNS SRV, 100 instances over TCP: CPU",
            "µs",
            cpu(setting.time, false)?,
            120.0,
        ),
        Measure::at_most(
            "DNS SRV, 100 instances, a connection each: CPU",
            "µs",
            cpu(setting.time, true)?,
            120.0,
        ),
    ])
}

pub(super) fn queries(setting: &Setting) -> Result<Vec<Measure>> {
    let (agent, names) = agent(setting, 3)?;
    create(&agent, r#"{"Name": "web", "Service": {"Service": "web"}}"#)?;
    for at in 0..1000 {
        let definition = format!(
            r#"{{"Name": "t{at:03}", "Service": {{"Service": "${{match(1)}}", "Tags": ["!${{name.prefix}}"]}},
                "Template": {{"Type": "name_prefix_match", "Regexp": "^t[0-9]+-(.*?)$"}}}}"#
        );
        create(&agent, &definition)?;
    }
    let by_name = over_udp(setting, &agent, names, &["web", "query", "consul"])?;
    let by_template = over_udp(setting, &agent, names, &["t512-web", "query", "consul"])?;
    drop(agent);
    let (agent, names) = self::agent(setting, 1000)?;
    create(&agent, r#"{"Name": "web", "Service": {"Service": "web"}}"#)?;
    let many = over_udp(setting, &agent, names, &["web", "query", "consul"])?;
    Ok(vec![
        Measure::at_most("DNS A by a prepared query: CPU", "µs", by_name.cpu, 30.0)
            .beside(by_name.ceiling),
        Measure::at_most(
            "DNS A by one of 1,000 templates: CPU",
            "µs",
            by_template.cpu,
            30.0,
        )
        .beside(by_template.ceiling),
        Measure::at_most(
            "DNS A by a prepared query, 1,000 instances: CPU",
            "µs",
            many.cpu,
            30.0,
        )
        .beside(many.ceiling),
    ])
}

/// Creates a prepared query.
fn create(agent: &Agent, definition: &str) -> Result<()> {
    succeed(agent.address, "POST", "/v1/query", definition.as_bytes())?;
    Ok(())
}

/// A server with a service of so many instances, each on a node of its own, and where it answers DNS.
fn agent(setting: &Setting, instances: usize) -> Result<(Agent, SocketAddr)> {
    let (agent, names) = Agent::start_with_names(&setting.program, setting.scratch.path())?;
    for at in 0..instances {
        let body = format!(
            r#"{{"Node":"node-{at:04}","Address":"10.1.{}.{}",
                "Service":{{"ID":"web","Service":"web","Port":8080}},
                "Check":{{"CheckID":"service:web","Name":"web","Status":"passing","ServiceID":"web"}}}}"#,
            at / 250,
            at % 250 + 1,
        );
        succeed(
            agent.address,
            "PUT",
            "/v1/catalog/register",
            body.as_bytes(),
        )?;
    }
    Ok((agent, names))
}

/// What a load over UDP came to.
struct Measured {
    cpu: f64,
    per_second: f64,
    ceiling: f64,
    ceiling_per_second: f64,
}

fn over_udp(
    setting: &Setting,
    agent: &Agent,
    names: SocketAddr,
    asked: &[&str],
) -> Result<Measured> {
    let question = question(asked, A);
    let (ceiling, ceiling_per_second) = echo(&question, setting.time / 2)?;
    load(names, &question, setting.time / 8)?;
    let before = agent.cpu()?;
    let per_second = load(names, &question, setting.time)?;
    let took = agent.cpu()? - before;
    let answered = per_second * setting.time.as_secs_f64();
    Ok(Measured {
        cpu: took.as_secs_f64() * 1e6 / answered,
        per_second,
        ceiling,
        ceiling_per_second,
    })
}

/// Asks for a name.
fn question(labels: &[&str], kind: u8) -> Vec<u8> {
    let mut bytes = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in labels {
        bytes.push(u8::try_from(label.len()).unwrap_or(0));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, kind, 0, 1]);
    bytes
}

/// Keeps questions under way for so long, and returns how many were answered each second.
fn load(address: SocketAddr, question: &[u8], time: Duration) -> Result<f64> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("binding the load")?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut question = question.to_vec();
    let mut answer = [0; 2048];
    let mut next = 0_u16;
    let mut send = |socket: &UdpSocket| {
        next = next.wrapping_add(1);
        question[..2].copy_from_slice(&next.to_be_bytes());
        socket.send(&question).context("asking")
    };
    for _ in 0..WINDOW {
        send(&socket)?;
    }
    let start = Instant::now();
    let mut answered = 0_u64;
    while start.elapsed() < time {
        match socket.recv(&mut answer) {
            // Of an echo the question comes back, of a server an answer without an error.
            Ok(length) if length >= 12 && answer[3] & 0xf == 0 => {
                answered += 1;
                send(&socket)?;
            }
            Ok(length) => bail!(
                "a failure of {length} bytes: {:?}",
                &answer[..length.min(12)]
            ),
            Err(error) if error.kind() == ErrorKind::WouldBlock => bail!("answers were lost"),
            Err(error) => return Err(error).context("waiting for an answer"),
        }
    }
    Ok(answered as f64 / start.elapsed().as_secs_f64())
}

/// CPU per question in microseconds, and questions per second, of a thread that only sends back what it gets.
fn echo(question: &[u8], time: Duration) -> Result<(f64, f64)> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("binding the echo")?;
    let address = socket.local_addr()?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || -> Result<Duration> {
        let mut buffer = [0; 2048];
        while !stopped.load(Ordering::Relaxed) {
            if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                socket.send_to(&buffer[..length], peer)?;
            }
        }
        let thread = std::fs::read_link("/proc/thread-self").context("finding this thread")?;
        cpu_of(&format!("/proc/{}/stat", thread.display()))
    });
    let per_second = load(address, question, time);
    stop.store(true, Ordering::Relaxed);
    let cpu = thread
        .join()
        .map_err(|_| anyhow::anyhow!("the echo panicked"))??;
    let per_second = per_second?;
    let answered = per_second * time.as_secs_f64();
    Ok((cpu.as_secs_f64() * 1e6 / answered, per_second))
}

/// Asks for all ports of the service again and again, over one connection or a new one each time; returns how often.
fn over_tcp(address: SocketAddr, time: Duration, is_anew: bool) -> Result<u64> {
    let question = question(&WEB, SRV);
    let length = u16::try_from(question.len())?.to_be_bytes();
    let framed = [&length, &question[..]].concat();
    let connect = || -> Result<TcpStream> {
        let stream = TcpStream::connect(address).context("connecting")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    };
    let mut stream = connect()?;
    let mut answer = vec![0; 65_535];
    let start = Instant::now();
    let mut answered = 0;
    while start.elapsed() < time {
        if is_anew {
            stream = connect()?;
        }
        stream.write_all(&framed)?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let length = usize::from(u16::from_be_bytes(length));
        stream.read_exact(&mut answer[..length])?;
        if answer[6..8] != [0, 100] {
            bail!("{:?} answers instead of 100", &answer[6..8]);
        }
        answered += 1;
    }
    Ok(answered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_counts_what_comes_back() {
        let (cpu, per_second) = echo(&question(&WEB, A), Duration::from_millis(100)).unwrap();
        assert!(cpu >= 0.0 && per_second > 10.0);
    }
}
