//! HAProxy, which fills its servers from what SRV records say, while checks fail and services come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cluster::{
    Agent, Chance, Cluster, PATIENCE, Plan, Tool, free_ports, own_address, request, tool, until,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How many servers HAProxy has room for.
const ROOM: usize = 20;

/// How soon it must have followed, on a machine that is busy with other tests; it asks ten times a second.
const FOLLOWED: Duration = Duration::from_secs(15);

/// How many requests at least show who is reached.
const REQUESTS: usize = 40;

/// A web server that says its name, whatever it is asked, until it is dropped.
struct Origin {
    name: String,
    address: SocketAddr,
    is_sick: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Origin {
    fn start(name: &str, ip: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((ip, 0)).expect("an address with a free port");
        let address = listener.local_addr().expect("a bound socket has one");
        let ends = Arc::new(AtomicBool::new(false));
        let is_sick = Arc::new(AtomicBool::new(false));
        let (told, sick, body) = (ends.clone(), is_sick.clone(), name.to_owned());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if told.load(Ordering::Relaxed) {
                    return;
                }
                let status = if sick.load(Ordering::Relaxed) {
                    "500 Internal Server Error"
                } else {
                    "200 OK"
                };
                // Whoever hung up has no use for an answer.
                let _ = stream.and_then(|stream| answer(stream, status, &body));
            }
        });
        Self {
            name: name.to_owned(),
            address,
            is_sick,
            ends,
            thread: Some(thread),
        }
    }
}

/// One request, one answer, and no more on this connection, so that nobody keeps others waiting.
fn answer(mut stream: TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut line = String::new();
    let mut reader = BufReader::new(stream.try_clone()?);
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // It waits for somebody to come.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// HAProxy in front of whatever the service `web` is.
struct Balancer {
    address: SocketAddr,
    socket: PathBuf,
    tool: Tool,
    _folder: TempDir,
}

impl Balancer {
    /// `agents` are asked for records, over `transport`; `options` say what else is special.
    fn start(program: &Path, transport: &str, options: &str, agents: &[Agent]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let ip = own_address();
        let [port] = free_ports(ip);
        let socket = folder.path().join("socket");
        let nameservers: String = agents
            .iter()
            .map(|agent| {
                format!(
                    "  nameserver {} {transport}@{}\n",
                    agent.spec.name,
                    agent.spec.dns()
                )
            })
            .collect();
        let configuration = format!(
            "global
  stats socket {socket} mode 600 level admin
  maxconn 100
  nbthread 1
defaults
  mode http
  timeout connect 2s
  timeout client 20s
  timeout server 20s
resolvers consul
{nameservers}  accepted_payload_size 8192
  resolve_retries 3
  timeout resolve 100ms
  timeout retry 300ms
  hold valid 100ms
  hold obsolete 100ms
  hold nx 100ms
  hold other 5s
  hold refused 5s
  hold timeout 5s
frontend in
  bind {ip}:{port}
  default_backend web
backend web
  balance roundrobin
  server-template web {ROOM} _web._tcp.service.consul resolvers consul resolve-prefer ipv4 init-addr none {options}
",
            socket = socket.display(),
        );
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, configuration).expect("writing a file of our own");
        let tool = Tool::start(program, &["-db".into(), "-f".into(), file], folder.path());
        Self {
            address: SocketAddr::from((ip, port)),
            socket,
            tool,
            _folder: folder,
        }
    }

    fn command(&self, words: &str) -> Result<String, String> {
        let run = || {
            let mut stream = UnixStream::connect(&self.socket)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            writeln!(stream, "{words}")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        run().map_err(|error: std::io::Error| error.to_string())
    }

    /// The servers that it would send requests to.
    fn servers(&self) -> Result<BTreeSet<SocketAddr>, String> {
        let text = self.command("show servers state web")?;
        let mut lines = text.lines().skip(1);
        let names: Vec<&str> = lines
            .next()
            .ok_or("no answer")?
            .split_whitespace()
            .skip(1)
            .collect();
        let mut servers = BTreeSet::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let row: Vec<&str> = line.split_whitespace().collect();
            let field = |name: &str| {
                let at = names.iter().position(|other| *other == name);
                at.and_then(|at| row.get(at)).copied().unwrap_or_default()
            };
            // What has no record any more keeps its address, but is stopped.
            if field("srv_op_state") == "2" {
                let address = format!("{}:{}", field("srv_addr"), field("srv_port"));
                servers.insert(address.parse().map_err(|_| format!("{address}?: {line}"))?);
            }
        }
        Ok(servers)
    }
}

/// Agents, web servers, and HAProxy in front of them.
struct Scene {
    cluster: Cluster,
    /// The place of the agent that each is registered with, and the web server itself.
    origins: Vec<(usize, Origin)>,
    balancer: Balancer,
}

impl Scene {
    fn put(&self, place: usize, path: &str, body: &Value) {
        let body = body.to_string();
        self.cluster.agents[place].get("PUT", path, body.as_bytes());
    }

    fn origin(&self, name: &str) -> &(usize, Origin) {
        let mut origins = self.origins.iter();
        origins
            .find(|(_, origin)| origin.name == name)
            .expect("one of ours")
    }

    /// Makes it an instance of `web` with a check that passes until it is told otherwise.
    fn register(&self, name: &str) {
        let (place, origin) = self.origin(name);
        let mut service = json!({
            "ID": name, "Name": "web", "Port": origin.address.port(),
            "Check": {"TTL": "1h", "Status": "passing"},
        });
        let ip = origin.address.ip();
        if ip != self.cluster.agents[*place].spec.address {
            service["Address"] = json!(ip.to_string());
        }
        self.put(*place, "/v1/agent/service/register", &service);
    }

    fn deregister(&self, name: &str) {
        let path = format!("/v1/agent/service/deregister/{name}");
        self.put(self.origin(name).0, &path, &Value::Null);
    }

    /// Says how its check went: `pass`, `warn` or `fail`.
    fn check(&self, name: &str, verb: &str) {
        let path = format!("/v1/agent/check/{verb}/service:{name}");
        self.put(self.origin(name).0, &path, &Value::Null);
    }

    fn maintain(&self, place: usize, path: &str, enable: bool) {
        let path = format!("/v1/agent/{path}?enable={enable}&reason=test");
        self.put(place, &path, &Value::Null);
    }

    /// Waits until HAProxy has just these, and looks who is reached through it.
    fn reaches(&mut self, names: &[&str], after: &str) {
        let origins = names.iter().map(|name| &self.origin(name).1);
        let wanted: BTreeSet<SocketAddr> = origins.map(|origin| origin.address).collect();
        let balancer = &mut self.balancer;
        let (_, took) = until(FOLLOWED + PATIENCE, after, || {
            balancer.tool.must_run();
            match balancer.servers()? {
                seen if seen == wanted => Ok(()),
                seen => Err(format!("{seen:?} instead of {wanted:?}")),
            }
        });
        println!("{after}: followed after {took:?}");
        let logs = || format!("{}{}", self.balancer.tool.log(), self.cluster.logs());
        assert!(took <= FOLLOWED, "{after}: {took:?}\n{}", logs());
        let wanted: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut reached = BTreeSet::new();
        let mut asked = 0;
        let deadline = Instant::now() + PATIENCE;
        // A server that HAProxy has just taken up may not get its turn in its first rounds.
        while asked < REQUESTS || (reached != wanted && Instant::now() < deadline) {
            asked += 1;
            let answer = request(self.balancer.address, "GET", "/", b"", PATIENCE);
            let answer = answer.unwrap_or_else(|error| panic!("{after}: {error}\n{}", logs()));
            let status = if names.is_empty() { 503 } else { 200 };
            assert_eq!(
                answer.status,
                status,
                "{after}: {}\n{}",
                answer.text(),
                logs()
            );
            if status == 200 {
                let name = answer.text();
                assert!(wanted.contains(&name), "{after}: {name}\n{}", logs());
                reached.insert(name);
            }
        }
        assert_eq!(reached, wanted, "{after}\n{}", logs());
    }
}

#[test]
fn a_balancer_follows_what_becomes_of_services() {
    let Some(program) = tool("haproxy") else {
        return;
    };
    let settings = json!({"dns_config": {"udp_answer_limit": 8, "enable_truncate": true}});
    let cluster = Cluster::form(&Plan::servers(1).clients(1).with(&settings));
    let [server, client] = [0, 1].map(|place| cluster.agents[place].spec.address);
    // Two on the server's own address, and one that is elsewhere; two on the client's.
    let origins = [
        ("a", 0, server),
        ("b", 0, server),
        ("c", 0, own_address()),
        ("d", 1, client),
        ("e", 1, client),
    ];
    let mut scene = Scene {
        balancer: Balancer::start(
            &program,
            "udp",
            "resolve-opts allow-dup-ip",
            &cluster.agents,
        ),
        origins: origins
            .map(|(name, place, ip)| (place, Origin::start(name, ip)))
            .into(),
        cluster,
    };
    scene.reaches(&[], "nobody is there");
    scene.register("a");
    scene.register("d");
    scene.reaches(&["a", "d"], "two are registered");
    scene.register("b");
    scene.register("c");
    scene.reaches(&["a", "b", "c", "d"], "two more are registered");
    scene.check("a", "fail");
    scene.reaches(&["b", "c", "d"], "a check fails");
    scene.check("d", "fail");
    scene.reaches(&["b", "c"], "another one fails, on another node");
    scene.check("b", "warn");
    scene.reaches(&["b", "c"], "a warning is no failure");
    scene.check("a", "pass");
    scene.reaches(&["a", "b", "c"], "the check passes again");
    scene.deregister("c");
    scene.register("e");
    scene.reaches(&["a", "b", "e"], "one goes, another comes");
    scene.maintain(0, "service/maintenance/a", true);
    scene.reaches(&["b", "e"], "a service is in maintenance");
    scene.maintain(0, "maintenance", true);
    scene.reaches(&["e"], "a whole node is in maintenance");
    scene.maintain(0, "maintenance", false);
    scene.reaches(&["b", "e"], "the node is back, its service not");
    scene.maintain(0, "service/maintenance/a", false);
    scene.check("d", "pass");
    scene.reaches(&["a", "b", "d", "e"], "all are back");
    for name in ["a", "b", "d", "e"] {
        scene.check(name, "fail");
    }
    scene.reaches(&[], "all fail");
    scene.check("a", "pass");
    scene.check("e", "pass");
    scene.reaches(&["a", "e"], "some pass again");
    scene.cluster.agents[1].kill();
    scene.reaches(&["a"], "an agent was killed");
    scene.cluster.start(1);
    scene.reaches(
        &["a", "e"],
        "it is back, and knows its services and their states",
    );
}

#[test]
fn a_balancer_follows_web_servers_and_configuration_files() {
    let Some(program) = tool("haproxy") else {
        return;
    };
    let origins = ["a", "b"].map(|name| (0, Origin::start(name, own_address())));
    let defined = origins.each_ref().map(|(_, origin)| {
        json!({
            "id": origin.name, "name": "web", "port": origin.address.port(),
            "address": origin.address.ip().to_string(),
            "check": {"http": format!("http://{}/", origin.address), "interval": "1s"},
        })
    });
    let cluster = Cluster::form(&Plan::servers(1).with(&json!({"services": [defined[0]]})));
    let mut scene = Scene {
        balancer: Balancer::start(&program, "udp", "", &cluster.agents),
        origins: origins.into(),
        cluster,
    };
    let reload = |scene: &Scene, services: &[Value]| {
        let agent = &scene.cluster.agents[0];
        let text = std::fs::read(agent.file()).expect("the file that it was started with");
        let mut settings: Value = serde_json::from_slice(&text).expect("it is JSON");
        settings["services"] = json!(services);
        std::fs::write(agent.file(), settings.to_string()).expect("writing a file of our own");
        agent.hang_up();
    };
    let set_sick = |scene: &Scene, name: &str, is_sick: bool| {
        scene
            .origin(name)
            .1
            .is_sick
            .store(is_sick, Ordering::Relaxed);
    };
    scene.reaches(&["a"], "one is in the configuration");
    reload(&scene, &defined);
    scene.reaches(&["a", "b"], "two are, and it was read again");
    set_sick(&scene, "a", true);
    scene.reaches(&["b"], "one answers that it failed");
    reload(&scene, &defined);
    scene.reaches(&["b"], "the same was read again");
    set_sick(&scene, "a", false);
    scene.reaches(&["a", "b"], "it is well again");
    scene.origins.pop();
    scene.reaches(&["a"], "one is gone");
    reload(&scene, &defined[1..]);
    scene.reaches(&[], "only that one is in the configuration");
}

#[test]
fn a_balancer_follows_many_changes_over_tcp() {
    let Some(program) = tool("haproxy") else {
        return;
    };
    let mut chance = Chance::seeded();
    let cluster = Cluster::form(&Plan::servers(1).clients(1));
    // More than an answer over UDP may have.
    let origins = (0..16).map(|number| {
        let place = number % 2;
        let ip = cluster.agents[place].spec.address;
        (place, Origin::start(&format!("web{number}"), ip))
    });
    let mut scene = Scene {
        origins: origins.collect(),
        // Without `allow-dup-ip`, each instance on a node must come with an address record of its own.
        balancer: Balancer::start(&program, "tcp", "", &cluster.agents[1..]),
        cluster,
    };
    // Whether each that is registered is well.
    let mut states = BTreeMap::new();
    let names: Vec<String> = scene
        .origins
        .iter()
        .map(|(_, origin)| origin.name.clone())
        .collect();
    for name in &names[4..] {
        scene.register(name);
        states.insert(name.as_str(), true);
    }
    for round in 0..12 {
        let well = states.iter().filter(|(_, is_well)| **is_well);
        let well: Vec<&str> = well.map(|(name, _)| *name).collect();
        scene.reaches(&well, &format!("round {round}, {} are well", well.len()));
        for _ in 0..chance.between(1, 6) {
            let name = names[chance.place(names.len())].as_str();
            match states.get(name) {
                None => {
                    scene.register(name);
                    states.insert(name, true);
                }
                Some(_) if chance.percent(40) => {
                    scene.deregister(name);
                    states.remove(name);
                }
                Some(is_well) => {
                    let (verb, is_well) = if *is_well {
                        ("fail", false)
                    } else {
                        ("pass", true)
                    };
                    scene.check(name, verb);
                    states.insert(name, is_well);
                }
            }
        }
    }
}
