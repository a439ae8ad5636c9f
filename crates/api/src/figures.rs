//! `/v1/agent/metrics`: what this process counts and times, as JSON or as Prometheus reads it.
//!
//! 0.7.1 has no such endpoint; the JSON is that of the releases that introduced it.

use std::collections::BTreeMap;
use std::fmt::Write;

use ::agent::{FiguresSnapshot, Gauge, Labels, Sampled, Totals};
use model::Access;

use crate::call::{Answer, Call, json};
use crate::http::{Response, StatusCode};
use crate::json::{Encode, object};

/// The version of the text format is part of its type: without it Prometheus guesses.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The last complete interval as JSON, or all since the beginning with `?format=prometheus`.
pub(crate) fn metrics(call: Call<'_>) -> Result<Answer, Response> {
    let (agent, pretty) = (call.api.agent.clone(), call.pretty());
    let for_prometheus = call.query.get("format") == Some(b"prometheus");
    Ok(call.of_agent(Access::Read, async move {
        let figures = agent.figures().snapshot();
        if for_prometheus {
            return Ok(Response::new(StatusCode::OK)
                .with_header("Content-Type", PROMETHEUS)
                .with_body(prometheus(&figures.totals)));
        }
        Ok(json(&figures, pretty))
    }))
}

impl Encode for FiguresSnapshot {
    fn encode(&self, out: &mut Vec<u8>) {
        object(out, |o| {
            o.field("Timestamp", &self.timestamp)
                .field("Gauges", &self.gauges)
                // A kind of figure that nothing here makes; clients look for the field.
                .field("Points", &[0u64; 0])
                .field("Counters", &self.counters)
                .field("Samples", &self.samples);
        });
    }
}

impl Encode for Gauge {
    fn encode(&self, out: &mut Vec<u8>) {
        object(out, |o| {
            o.field("Name", &self.name)
                .field("Value", &self.value)
                .field("Labels", &self.labels);
        });
    }
}

impl Encode for Sampled {
    fn encode(&self, out: &mut Vec<u8>) {
        object(out, |o| {
            o.field("Name", &self.name)
                .field("Count", &self.count)
                .field("Rate", &self.rate)
                .field("Sum", &self.sum)
                .field("Min", &self.min)
                .field("Max", &self.max)
                .field("Mean", &self.mean)
                .field("Stddev", &self.deviation)
                .field("Labels", &self.labels);
        });
    }
}

/// The figures in Prometheus' text format: each name once with its type, and below it a line for each of its labels.
fn prometheus(totals: &Totals) -> String {
    let mut families = Families::default();
    for gauge in &totals.gauges {
        families.add("gauge", &gauge.name, &gauge.labels, (gauge.value, 0));
    }
    for counter in &totals.counters {
        families.add("counter", &counter.name, &counter.labels, (counter.sum, 0));
    }
    for sample in &totals.samples {
        let value = (sample.sum, sample.count);
        families.add("summary", &sample.name, &sample.labels, value);
    }
    let mut out = String::new();
    for (name, family) in &families.0 {
        family.write(name, &mut out);
    }
    out
}

/// Figures by the name that Prometheus takes; one name can't have two types, so a second one shows in the name.
#[derive(Default)]
struct Families<'a>(BTreeMap<String, Family<'a>>);

struct Family<'a> {
    kind: &'static str,
    /// The name as it is everywhere else.
    origin: &'a str,
    /// Value or sum, and how many values, by the written labels.
    rows: BTreeMap<String, (f64, u64)>,
}

impl<'a> Families<'a> {
    fn add(
        &mut self,
        kind: &'static str,
        origin: &'a str,
        labels: &Labels,
        (value, count): (f64, u64),
    ) {
        let mut name = sanitized(origin, true);
        while self.0.get(&name).is_some_and(|other| other.kind != kind) {
            name.push('_');
            name.push_str(kind);
        }
        let family = self.0.entry(name).or_insert_with(|| Family {
            kind,
            origin,
            rows: BTreeMap::new(),
        });
        let row = family.rows.entry(written(labels)).or_insert((0.0, 0));
        // Two names may be one to Prometheus.
        row.0 = if kind == "gauge" {
            value
        } else {
            row.0 + value
        };
        row.1 = row.1.saturating_add(count);
    }
}

impl Family<'_> {
    fn write(&self, name: &str, out: &mut String) {
        let kind = self.kind;
        let origin = self.origin.replace('\\', "\\\\").replace('\n', "\\n");
        let mut line = |line: std::fmt::Arguments<'_>| {
            out.write_fmt(line)
                .expect("a string takes whatever is written");
        };
        line(format_args!(
            "# HELP {name} {origin}\n# TYPE {name} {kind}\n"
        ));
        for (labels, (value, count)) in &self.rows {
            let value = Number(*value);
            if kind == "summary" {
                line(format_args!(
                    "{name}_sum{labels} {value}\n{name}_count{labels} {count}\n"
                ));
            } else {
                line(format_args!("{name}{labels} {value}\n"));
            }
        }
    }
}

/// The labels in braces; nothing if there are none.
fn written(labels: &Labels) -> String {
    let mut names = BTreeMap::new();
    for (name, value) in labels {
        names.entry(sanitized(name, false)).or_insert(value);
    }
    if names.is_empty() {
        return String::new();
    }
    let mut out = String::from("{");
    for (name, value) in names {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(&name);
        out.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                _ => out.push(character),
            }
        }
        out.push('"');
    }
    out.push('}');
    out
}

/// A name that Prometheus takes: letters, digits and `_`, in names of figures also `:`, and no digit in front.
fn sanitized(name: &str, colons: bool) -> String {
    let mut out = String::with_capacity(name.len() + 1);
    if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
        out.push('_');
    }
    out.extend(name.chars().map(|character| match character {
        ':' if colons => ':',
        _ if character.is_ascii_alphanumeric() => character,
        _ => '_',
    }));
    out
}

/// A number as Prometheus reads it.
struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            finite => write!(f, "{finite}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use ::agent::Total;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(pair).collect()
    }

    fn total(name: &str, pairs: &[(&str, &str)], count: u64, sum: f64) -> Total {
        Total {
            name: name.to_owned(),
            labels: labels(pairs),
            count,
            sum,
        }
    }

    #[test]
    fn what_prometheus_reads() {
        let totals = Totals {
            gauges: vec![
                Gauge {
                    name: "consul.n1.runtime.alloc_bytes".to_owned(),
                    labels: Labels::new(),
                    value: 1.5e9,
                },
                Gauge {
                    name: "odd".to_owned(),
                    labels: labels(&[("a-b", "x\"\\\ny"), ("a.b", "dropped"), ("9", "ä")]),
                    value: f64::NAN,
                },
                Gauge {
                    name: "twice".to_owned(),
                    labels: Labels::new(),
                    value: f64::INFINITY,
                },
            ],
            counters: vec![
                total("consul.rpc.query", &[], 7, 7.0),
                total("consul.rpc.request", &[("peer", "a")], 2, 3.0),
                total("consul.rpc.request", &[("peer", "b")], 1, 1.0),
                total("consul/rpc/query", &[], 1, 2.0),
                total("twice", &[], 1, 1.0),
            ],
            samples: vec![
                total("0weird", &[], 0, 0.0),
                total("consul.http.GET.v1.kv._", &[("dc", "dc1")], 3, 0.75),
            ],
        };
        let expected = "\
# HELP _0weird 0weird
# TYPE _0weird summary
_0weird_sum 0
_0weird_count 0
# HELP consul_http_GET_v1_kv__ consul.http.GET.v1.kv._
# TYPE consul_http_GET_v1_kv__ summary
consul_http_GET_v1_kv___sum{dc=\"dc1\"} 0.75
consul_http_GET_v1_kv___count{dc=\"dc1\"} 3
# HELP consul_n1_runtime_alloc_bytes consul.n1.runtime.alloc_bytes
# TYPE consul_n1_runtime_alloc_bytes gauge
consul_n1_runtime_alloc_bytes 1500000000
# HELP consul_rpc_query consul.rpc.query
# TYPE consul_rpc_query counter
consul_rpc_query 9
# HELP consul_rpc_request consul.rpc.request
# TYPE consul_rpc_request counter
consul_rpc_request{peer=\"a\"} 3
consul_rpc_request{peer=\"b\"} 1
# HELP odd odd
# TYPE odd gauge
odd{_9=\"ä\",a_b=\"x\\\"\\\\\\ny\"} NaN
# HELP twice twice
# TYPE twice gauge
twice +Inf
# HELP twice_counter twice
# TYPE twice_counter counter
twice_counter 1
";
        assert_eq!(prometheus(&totals), expected);
        assert_eq!(prometheus(&Totals::default()), "");
    }
}
