//! Transcripts: what a request asks of the cluster, and how the answer looks.
//!
//! A script is a list of requests with a blank line between them:
//!
//! ```text
//! # a comment
//! set acl_datacenter dc1      a setting, for the rest of the file
//! set judged agent:n1=read    what tokens allow on this agent, where it judges by itself
//! given reply true            what the cluster will answer
//! > PUT /v1/kv/a?cas=7
//! > X-Consul-Token: t
//! > | the body
//! < asked Kv(…)               from here on: what came of it
//! < 200
//! < Content-Type: application/json
//! < | true
//! ```
//!
//! With `UPDATE_SCRIPTS=1` the lines that begin with `<` are written anew; read the difference like code.

use std::fmt::Write;
use std::path::Path;

use ::agent::Tokens;
use ::http::Method;
use api::Config;
use api::http::{Reaction, Request, Response, ResponseBody, Service};
use bytes::Bytes;
use futures::StreamExt;
use model::{Command, Peers, Question, Text, TokenId};
use rpc::{Consistency, Meta, ReadOptions, WriteOptions};
use testkit::{Asked, FakeCluster};

use crate::given;

#[test]
fn transcripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let script = std::fs::read_to_string(&path).unwrap();
        let played = play(&script);
        if std::env::var_os("UPDATE_SCRIPTS").is_some() {
            std::fs::write(&path, played).unwrap();
        } else if let Some((line, (was, is))) = script
            .lines()
            .zip(played.lines())
            .enumerate()
            .find(|(_, (was, is))| was != is)
        {
            panic!("{}:{}\n  was: {was}\n  now: {is}", path.display(), line + 1);
        } else {
            assert_eq!(script.len(), played.len(), "{}", path.display());
        }
    }
}

/// The script with its outcomes written anew.
fn play(script: &str) -> String {
    let mut config = Config {
        seed: 1,
        ..Config::default()
    };
    let mut meta = Meta {
        index: 12,
        known_leader: true,
        ..Meta::default()
    };
    let mut peers = Peers::default();
    let mut judged = None;
    let mut out = Vec::new();
    for block in script.trim_end().split("\n\n") {
        let mut played = String::new();
        let fake = FakeCluster::new();
        let mut request: Option<(Method, &str)> = None;
        let mut headers = Vec::new();
        let mut body: Option<Vec<u8>> = None;
        // Two lines of text have a line end between them.
        let mut was_text = false;
        for line in block.lines().filter(|line| !line.starts_with('<')) {
            writeln!(played, "{line}").unwrap();
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "" | "#" => {}
                "set" => match rest.split_once(' ') {
                    // what the servers say of every token, where rules hold on agents
                    Some(("judged", grant)) => judged = Some(given::grant(grant)),
                    _ => set(&mut config, &mut meta, &mut peers, rest),
                },
                "given" => fake.answer(given::answer(rest, &meta)),
                ">" if request.is_none() => {
                    let (method, target) = rest.split_once(' ').unwrap();
                    request = Some((method.parse().unwrap(), target));
                }
                ">" => match rest.split_once(' ') {
                    Some(("|", text)) => {
                        let body = body.get_or_insert_default();
                        if was_text {
                            body.push(b'\n');
                        }
                        body.extend_from_slice(text.as_bytes());
                        was_text = true;
                    }
                    // a long body: how often, and what
                    Some(("*", text)) => {
                        let (count, text) = text.split_once(' ').unwrap();
                        let body = body.get_or_insert_default();
                        was_text = false;
                        body.extend_from_slice(text.repeat(count.parse().unwrap()).as_bytes());
                    }
                    _ => headers.push(rest.split_once(": ").unwrap()),
                },
                other => panic!("unknown word {other:?} in {line:?}"),
            }
        }
        if let Some((method, target)) = request {
            fake.set_peers(peers.clone());
            let request =
                Request::new(&method, target, &headers, body.unwrap_or_default().into()).unwrap();
            let tokens = judged.clone().map_or(Tokens::unjudged(), given::tokens);
            // A question that waits looks at the clock as soon as it is asked.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            let entered = runtime.enter();
            let agent = given::agent_where(tokens);
            let service = api::service(fake.cluster(), agent, config.clone());
            let reaction = service.call(request);
            drop(entered);
            let (how, response) = settle(&runtime, reaction);
            for asked in fake.asked() {
                writeln!(played, "< asked {}", shown_question(&asked)).unwrap();
            }
            played.push_str(how);
            assert_eq!(fake.left_over(), 0, "answers nobody asked for in:\n{block}");
            show(response, &mut played);
        }
        out.push(played);
    }
    out.join("\n")
}

fn set(config: &mut Config, meta: &mut Meta, peers: &mut Peers, rest: &str) {
    let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
    match name {
        "acl_datacenter" => config.acl_datacenter = Text::from(value),
        "acl_token" => config.acl_token = Text::from(value),
        "pretty" => config.pretty = value == "on",
        "disable_coordinates" => config.disable_coordinates = value == "on",
        "translate_wan_addrs" => config.translate_wan_addrs = value == "on",
        "json_bytes_max" => config.json_bytes_max = value.parse().unwrap(),
        "response_header" => {
            let (name, value) = value.split_once(": ").unwrap();
            config
                .response_headers
                .push((name.to_owned(), value.to_owned()));
        }
        "meta" => {
            let parts: Vec<_> = value.split(' ').collect();
            meta.index = parts[0].parse().unwrap();
            meta.known_leader = parts[1] == "leader";
            meta.last_contact = std::time::Duration::from_micros(parts[2].parse().unwrap());
        }
        "peers" => {
            peers.servers = value.split(' ').map(str::to_owned).collect();
            peers.leader = peers.servers[0].clone();
        }
        other => panic!("unknown setting {other:?}"),
    }
}

/// The response, and whether it took its time.
fn settle(runtime: &tokio::runtime::Runtime, reaction: Reaction) -> (&'static str, Response) {
    match reaction {
        Reaction::Now(response) => ("", response),
        Reaction::Later(response) => ("< carried through\n", runtime.block_on(response)),
        Reaction::Park(response) => {
            // Thousands of these wait at the same time.
            let size = size_of_val(&*response);
            assert!(size <= 1024, "a parked question takes {size} bytes");
            ("< parked\n", runtime.block_on(response))
        }
    }
}

fn show(response: Response, out: &mut String) {
    writeln!(out, "< {}", response.status.as_u16()).unwrap();
    for (name, value) in response.headers() {
        writeln!(out, "< {name}: {value}").unwrap();
    }
    let body = match response.body {
        ResponseBody::Full(bytes) => bytes,
        ResponseBody::Stream(mut pieces) => {
            writeln!(out, "< streamed").unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            let mut body = Vec::new();
            while let Some(piece) = runtime.block_on(pieces.next()) {
                match piece {
                    Ok(piece) => body.extend_from_slice(&piece),
                    Err(error) => body.extend_from_slice(format!("[cut: {error}]").as_bytes()),
                }
            }
            Bytes::from(body)
        }
    };
    if !body.is_empty() {
        let text = String::from_utf8(body.to_vec())
            .unwrap_or_else(|_| format!("(binary) {}", body.escape_ascii()));
        for line in text.split('\n') {
            writeln!(out, "< | {line}").unwrap();
        }
    }
}

fn shown_question(asked: &Asked) -> String {
    match asked {
        Asked::Read(question, options) => {
            let ReadOptions {
                token,
                datacenter,
                consistency,
                index,
                wait,
            } = options;
            let mut text = match question {
                // It doesn't show its id itself.
                Question::AclInfo(info) => format!("AclInfo(AclInfo {{ id: {:?} }})", info.id),
                question => format!("{question:?}"),
            };
            if *consistency != Consistency::Default {
                write!(text, " {consistency:?}").unwrap();
            }
            if *index != 0 {
                write!(text, " index={index} wait={wait:?}").unwrap();
            }
            text + &from(token, datacenter)
        }
        Asked::Write(command, WriteOptions { token, datacenter }) => {
            let text = match command {
                // Nor does this one.
                Command::AclDelete(TokenId(id)) => format!("AclDelete({id:?})"),
                command => format!("{command:?}"),
            };
            let text = if text.len() > 2_000 {
                format!("{}…", &text[..200])
            } else {
                text
            };
            text + &from(token, datacenter)
        }
        // They don't show their token themselves.
        Asked::Save(options) => format!(
            "SaveOptions {{ token: \"{}\", datacenter: \"{}\", stale: {} }}",
            options.token, options.datacenter, options.stale
        ),
        Asked::Operate(operation, options) => format!(
            "{operation:?}{}{}",
            if options.stale { " stale" } else { "" },
            from(&options.token, &options.datacenter)
        ),
        Asked::Restore(options, archive) => format!(
            "RestoreOptions {{ token: \"{}\", datacenter: \"{}\", skip_unknown: {}{} }} {archive:?}",
            options.token,
            options.datacenter,
            options.skip_unknown,
            match &options.part {
                None => String::new(),
                Some(part) => format!(", part: {part:?}"),
            }
        ),
    }
}

fn from(token: &Text, datacenter: &Text) -> String {
    let mut text = String::new();
    if !token.is_empty() {
        write!(text, " token={token}").unwrap();
    }
    if !datacenter.is_empty() {
        write!(text, " dc={datacenter}").unwrap();
    }
    text
}
