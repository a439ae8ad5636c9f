//! Resolvers that hand names in `.consul` on to an agent, as people set them up: dnsmasq, and unbound in both of its ways.
//!
//! They talk to the agent in ways of their own, unbound with EDNS, in mixed case and asking for signatures, both over TCP
//! when an answer was cut, and refuse what they don't believe; `dig` sees what is left of it.

use std::net::SocketAddr;
use std::path::Path;

use cluster::{
    Agent, Cluster, Dig, PATIENCE, Plan, Reply, Tool, free_ports, own_address, tool, until,
};
use serde_json::json;
use tempfile::TempDir;

/// Instances whose addresses don't fit into 512 bytes, and whose ports don't fit into what EDNS allows.
const MANY: usize = 60;

/// A resolver that runs, and its folder.
struct Resolver {
    address: SocketAddr,
    tool: Tool,
    _folder: TempDir,
}

impl Resolver {
    /// Starts this program with a configuration that needs to know where it is to listen, and in which folder it is.
    fn start(
        program: &Path,
        words: &str,
        configuration: impl Fn(SocketAddr, &Path) -> String,
    ) -> Self {
        let ip = own_address();
        let [port] = free_ports(ip);
        let address = SocketAddr::from((ip, port));
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let file = folder.path().join("resolver.conf");
        let text = configuration(address, folder.path());
        std::fs::write(&file, text).expect("writing a file of our own");
        // The last word is the flag that names the file.
        let words = format!("{words}{}", file.display());
        let words: Vec<&str> = words.split(' ').collect();
        let tool = Tool::start(program, &words, folder.path());
        Self {
            address,
            tool,
            _folder: folder,
        }
    }

    /// Waits until it answers anything at all.
    fn wait(&mut self, dig: &Dig) -> Dig {
        let dig = dig.asking(self.address);
        until(PATIENCE, "the resolver answers", || {
            self.tool.must_run();
            match dig.ask("+tries=1 +time=1 ext.node.consul") {
                reply if reply.status == "NOERROR" => Ok(()),
                reply => Err(format!("{reply}{}", self.tool.log())),
            }
        });
        dig
    }
}

fn dnsmasq(program: &Path, agent: SocketAddr) -> Resolver {
    Resolver::start(program, "--no-daemon --conf-file=", |address, _| {
        format!(
            "port={}\nlisten-address={}\nbind-interfaces\nno-resolv\nno-hosts\nno-poll\npid-file=\nlog-queries\n\
             server=/consul/{agent_ip}#{agent_port}\nrev-server=10.0.0.0/8,{agent_ip}#{agent_port}\n\
             host-record=host.example,192.0.2.7\ncname=other.example,host.example\n",
            address.port(),
            address.ip(),
            agent_ip = agent.ip(),
            agent_port = agent.port(),
        )
    })
}

/// `ways` says how `.consul` is asked for: as from a server that knows (a stub), or that finds out (a forwarder).
fn unbound(program: &Path, agent: SocketAddr, ways: [&str; 2]) -> Resolver {
    let [zone, server] = ways;
    Resolver::start(program, "-d -c ", |address, folder| {
        format!(
            "server:
  interface: {ip}@{port}
  access-control: 127.0.0.0/8 allow
  do-not-query-localhost: no
  do-daemonize: no
  use-syslog: no
  logfile: \"\"
  verbosity: 2
  username: \"\"
  chroot: \"\"
  directory: \"{folder}\"
  pidfile: \"\"
  num-threads: 1
  outgoing-range: 64
  num-queries-per-thread: 32
  do-ip6: no
  module-config: \"validator iterator\"
  trust-anchor: \". DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D\"
  domain-insecure: \"consul\"
  domain-insecure: \"10.in-addr.arpa\"
  use-caps-for-id: yes
  local-zone: \"10.in-addr.arpa.\" nodefault
{zone}:
  name: \"consul\"
  {server}: {agent_ip}@{agent_port}
{zone}:
  name: \"10.in-addr.arpa\"
  {server}: {agent_ip}@{agent_port}
remote-control:
  control-enable: no
",
            ip = address.ip(),
            port = address.port(),
            folder = folder.display(),
            agent_ip = agent.ip(),
            agent_port = agent.port(),
        )
    })
}

/// An agent that says when it cuts answers, and what there is to find.
fn serving(settings: &serde_json::Value) -> Cluster {
    let mut all = json!({"dns_config": {"enable_truncate": true, "udp_answer_limit": 8}});
    for (name, value) in settings.as_object().into_iter().flatten() {
        all[name] = value.clone();
    }
    let cluster = Cluster::form(&Plan::servers(1).with(&all));
    let agent = &cluster.agents[0];
    register(
        agent,
        &json!({"Node": "ext", "Address": "10.0.0.1", "Service": {"Service": "db", "Port": 5432, "Tags": ["main"]}}),
    );
    register(
        agent,
        &json!({"Node": "far", "Address": "10.0.0.2", "Service": {"Service": "db", "Port": 5433, "Address": "10.9.9.9"}}),
    );
    register(agent, &json!({"Node": "six", "Address": "2001:db8::6"}));
    register(
        agent,
        &json!({"Node": "hosted", "Address": "10.0.0.4", "Service": {"Service": "hosted", "Address": "other.example"}}),
    );
    for number in 0..MANY {
        let address = format!("10.1.0.{number}");
        let port = 1000 + number;
        register(
            agent,
            &json!({"Node": format!("m{number}"), "Address": address, "Service": {"Service": "many", "Port": port}}),
        );
    }
    cluster
}

fn register(agent: &Agent, row: &serde_json::Value) {
    agent.get("PUT", "/v1/catalog/register", row.to_string().as_bytes());
}

/// What every resolver must be able to find out, whichever way it is asked.
fn finds_everything(dig: &Dig, logs: &dyn Fn() -> String) {
    let is = |question: &str, status: &str, data: &[&str]| -> Reply {
        let reply = dig.ask(question);
        assert_eq!(reply.status, status, "{question}: {reply}{}", logs());
        assert_eq!(reply.data(), data, "{question}: {reply}{}", logs());
        reply
    };
    for way in ["+noedns", "+bufsize=4096", "+tcp"] {
        let is = |question: &str, status: &str, data: &[&str]| -> Reply {
            is(&format!("{way} {question}"), status, data)
        };
        is("ext.node.consul", "NOERROR", &["A 10.0.0.1"]);
        is("EXT.Node.Dc1.Consul", "NOERROR", &["A 10.0.0.1"]);
        is("six.node.consul AAAA", "NOERROR", &["AAAA 2001:db8::6"]);
        is(
            "db.service.consul",
            "NOERROR",
            &["A 10.0.0.1", "A 10.9.9.9"],
        );
        is("main.db.service.consul", "NOERROR", &["A 10.0.0.1"]);
        let ports = [
            "SRV 1 1 5432 ext.node.dc1.consul.",
            "SRV 1 1 5433 0a090909.addr.dc1.consul.",
        ];
        is("db.service.consul SRV", "NOERROR", &ports);
        is("_db._tcp.service.consul SRV", "NOERROR", &ports);
        // What the ports' targets lead to, for who was not told along with them.
        is("0a090909.addr.dc1.consul", "NOERROR", &["A 10.9.9.9"]);
        is("-x 10.0.0.1", "NOERROR", &["PTR ext.node.dc1.consul."]);
        is("-x 10.0.0.99", "SERVFAIL", &[]);
        is("consul NS", "NOERROR", &["NS s0.node.dc1.consul."]);
        // There is such a name, but nothing of this kind; with and without a word about who knows.
        is("six.node.consul", "NOERROR", &[]);
        is("db.service.consul AAAA", "NOERROR", &[]);
        for question in [
            "absent.node.consul",
            "absent.service.consul SRV",
            "absent.db.service.consul",
        ] {
            let reply = is(question, "NXDOMAIN", &[]);
            let told = reply
                .authority
                .iter()
                .any(|record| record.starts_with("consul. 0 IN SOA"));
            assert!(told, "{question}: {reply}{}", logs());
        }
        is("db.service.nowhere.consul", "SERVFAIL", &[]);
        // All of them come, however often that must be asked.
        for (kind, count) in [("A", MANY), ("SRV", MANY)] {
            let question = format!("{way} many.service.consul {kind}");
            let reply = dig.ask(&question);
            assert_eq!(reply.status, "NOERROR", "{question}: {reply}{}", logs());
            assert_eq!(reply.answers.len(), count, "{question}: {reply}{}", logs());
        }
    }
    let reply = dig.ask("+noedns +ignore many.service.consul");
    assert!(reply.has("tc"), "{reply}{}", logs());
}

/// What is true a moment later is told a moment later: nothing is kept of answers that may not be.
fn keeps_nothing(cluster: &Cluster, dig: &Dig) {
    let agent = &cluster.agents[0];
    assert_eq!(dig.ask("late.service.consul").status, "NXDOMAIN");
    register(
        agent,
        &json!({"Node": "ext", "Address": "10.0.0.1", "Service": {"Service": "late"}}),
    );
    assert_eq!(dig.ask("late.service.consul").data(), ["A 10.0.0.1"]);
    for (status, data) in [("critical", vec![]), ("passing", vec!["A 10.0.0.1"])] {
        let check =
            json!({"CheckID": "late", "Name": "late", "ServiceID": "late", "Status": status});
        register(
            agent,
            &json!({"Node": "ext", "Address": "10.0.0.1", "Check": check}),
        );
        let reply = dig.ask("late.service.consul");
        assert_eq!(reply.data(), data, "{status}: {reply}");
    }
    let row = json!({"Node": "ext", "ServiceID": "late"});
    agent.get("PUT", "/v1/catalog/deregister", row.to_string().as_bytes());
    assert_eq!(dig.ask("late.service.consul").status, "NXDOMAIN");
}

#[test]
fn dnsmasq_hands_names_on_to_an_agent() {
    let (Some(program), Some(dig)) = (tool("dnsmasq"), Dig::find()) else {
        return;
    };
    let cluster = serving(&json!({}));
    let mut resolver = dnsmasq(&program, cluster.agents[0].spec.dns());
    let dig = resolver.wait(&dig);
    finds_everything(&dig, &|| {
        format!("{}{}", resolver.tool.log(), cluster.logs())
    });
    keeps_nothing(&cluster, &dig);
}

#[test]
fn unbound_hands_names_on_to_an_agent() {
    let (Some(program), Some(dig)) = (tool("unbound"), Dig::find()) else {
        return;
    };
    let cluster = serving(&json!({}));
    for ways in [["stub-zone", "stub-addr"], ["forward-zone", "forward-addr"]] {
        println!("{}", ways[0]);
        let mut resolver = unbound(&program, cluster.agents[0].spec.dns(), ways);
        let dig = resolver.wait(&dig);
        finds_everything(&dig, &|| {
            format!("{}{}", resolver.tool.log(), cluster.logs())
        });
        keeps_nothing(&cluster, &dig);
    }
}

#[test]
fn an_agent_hands_other_names_on_to_dnsmasq() {
    let (Some(program), Some(dig)) = (tool("dnsmasq"), Dig::find()) else {
        return;
    };
    // Each hands on to the other, so that one has to be told first where the other will be: to a dead address first,
    // which costs each question the recursor's time, and to the living one then.
    let ip = own_address();
    let [port, dead] = free_ports(ip);
    let there = |port: u16| SocketAddr::from((ip, port)).to_string();
    let settings = json!({
        "recursors": [there(dead), there(port)],
        "dns_config": {"recursor_timeout": "300ms"},
    });
    let cluster = serving(&settings);
    let agent = &cluster.agents[0];
    let folder = tempfile::tempdir().unwrap();
    let words = [
        "--no-daemon",
        "--conf-file=/dev/null",
        "--bind-interfaces",
        "--no-resolv",
        "--no-hosts",
        "--no-poll",
        "--pid-file=",
        "--log-queries",
        "--host-record=host.example,192.0.2.7",
        "--cname=other.example,host.example",
        "--txt-record=long.example",
    ];
    let mut words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    words.push(format!("--port={port}"));
    words.push(format!("--listen-address={ip}"));
    let mut tool = Tool::start(&program, &words, folder.path());
    let dig = dig.asking(agent.spec.dns());
    until(PATIENCE, "the agent hands names on", || {
        tool.must_run();
        match dig.ask("host.example") {
            reply if reply.status == "NOERROR" => Ok(()),
            reply => Err(reply.to_string()),
        }
    });
    for way in ["+noedns", "+edns", "+tcp"] {
        let is = |question: &str, status: &str, data: &[&str]| {
            let reply = dig.ask(&format!("{way} {question}"));
            let logs = || format!("{}{}", tool.log(), agent.log());
            assert_eq!(reply.status, status, "{way} {question}: {reply}{}", logs());
            assert_eq!(reply.data(), data, "{way} {question}: {reply}{}", logs());
            assert!(reply.has("ra"), "{way} {question}: {reply}");
        };
        is("host.example", "NOERROR", &["A 192.0.2.7"]);
        is("-x 192.0.2.7", "NOERROR", &["PTR host.example."]);
        is(
            "other.example",
            "NOERROR",
            &["A 192.0.2.7", "CNAME host.example."],
        );
        // A service at a host that has a name only there.
        let chain = ["A 192.0.2.7", "CNAME host.example.", "CNAME other.example."];
        is("hosted.service.consul", "NOERROR", &chain);
        // It knows nobody to ask.
        is("elsewhere.test", "REFUSED", &[]);
        is("ext.node.consul", "NOERROR", &["A 10.0.0.1"]);
    }
}
