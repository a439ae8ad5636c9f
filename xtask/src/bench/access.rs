//! What rules cost: reads under a policy of 1,000 rules beside the same reads where there are no tokens.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use super::Setting;
use super::connection::{request, succeed};
use super::kv::load_keys;
use super::load::{Until, run};
use super::process::{Agent, Ports};
use super::table::Measure;

const RULES: usize = 1_000;
/// Loaded by whole transactions; the list is of the first 10,000.
const KEYS: u64 = 20_032;
const LISTED: &str = "/v1/kv/load/0000?recurse&token=limited";
/// The two servers take turns, so that what else the machine does meets both.
const TURNS: u32 = 8;

/// Two servers with the same keys: one without tokens, and one with a token of so many rules.
struct Pair {
    plain: Agent,
    ruled: Agent,
}

impl Pair {
    fn start(setting: &Setting) -> Result<Self> {
        let [ports] = Ports::free()?;
        let settings = json!({
            "server": true,
            "bootstrap": true,
            "acl_datacenter": "dc1",
            "acl_master_token": "root",
        });
        let start = Instant::now();
        let path = setting.scratch.path();
        let mut ruled = Agent::launch(&setting.program, path, "bench", ports, &settings)?;
        ruled.wait_until_ready(start)?;
        let plain = setting.agent()?;
        for agent in [&plain, &ruled] {
            load_keys(agent.address, KEYS, 64, 7)?;
        }
        let mut rules =
            String::from("key \"\" { policy = \"deny\" }\nkey \"load/\" { policy = \"read\" }\n");
        for number in 2..RULES {
            // Spread over the keys that are read, so that the search is no shorter than among others.
            let key = number * 20;
            writeln!(rules, "key \"load/{key:08}\" {{ policy = \"write\" }}")?;
        }
        let token = json!({"ID": "limited", "Rules": rules}).to_string();
        let path = "/v1/acl/create?token=root";
        succeed(ruled.address, "PUT", path, token.as_bytes())?;
        for agent in [&plain, &ruled] {
            agent.settle()?;
        }
        Ok(Self { plain, ruled })
    }

    /// Microseconds of CPU per request, without rules and with them.
    fn costs(
        &self,
        connections: usize,
        time: Duration,
        mut build: impl FnMut(u64, &mut Vec<u8>),
    ) -> Result<[f64; 2]> {
        let mut cpu = [Duration::ZERO; 2];
        let mut requests = [0; 2];
        for turn in 0..=TURNS {
            for (at, agent) in [&self.plain, &self.ruled].into_iter().enumerate() {
                let before = agent.cpu()?;
                let until = Until::Time(time / TURNS);
                let seen = run(agent.address, connections, until, &mut build)?;
                // The first turn is to warm up.
                if turn > 0 {
                    cpu[at] += agent.cpu()? - before;
                    requests[at] += seen.requests;
                }
            }
        }
        Ok([0, 1].map(|at| cpu[at].as_secs_f64() * 1e6 / requests[at] as f64))
    }
}

pub(super) fn rules(setting: &Setting) -> Result<Vec<Measure>> {
    let pair = Pair::start(setting)?;
    let time = setting.time * 2;
    let [plain, ruled] = pair.costs(64, time, |number, out| {
        let path = format!("/v1/kv/load/{:08}?token=limited", number * 7 % KEYS);
        request(out, "GET", &path, b"");
    })?;
    let [plain_list, ruled_list] =
        pair.costs(4, time, |_, out| request(out, "GET", LISTED, b""))?;
    Ok(vec![
        Measure::shown("GET without tokens: CPU", "µs", plain),
        Measure::at_most(
            "GET under a policy of 1,000 rules: CPU above none",
            "µs",
            ruled - plain,
            2.0,
        ),
        Measure::shown("list of 10,000 keys without tokens: CPU", "µs", plain_list),
        Measure::at_most(
            "list of 10,000 keys under 1,000 rules: CPU",
            "× none",
            ruled_list / plain_list,
            2.0,
        ),
    ])
}
