//! Services and checks as clients define them: from the body of a registration to what the agent takes.
//!
//! The names of fields are the original's, in any case; where it knows a second spelling with underscores, so do we, and for what we added to it as well.

use ::agent::definition::{CheckDefinition, Script, ServiceDefinition, Status, Ways};
use model::{GoDuration, Service, Text};

use crate::error::bad_request;
use crate::http::Response;
use crate::json::{DecodeError, Reader, decode};

/// More checks than any service has; each of them is run for ever.
const CHECKS_MAX: usize = 1_000;

/// What a check is registered with.
#[derive(Debug, Default)]
pub(crate) struct CheckBody {
    id: Text,
    name: Text,
    notes: Text,
    service_id: Text,
    status: Text,
    ways: Ways,
    deregister_after: GoDuration,
    success_before_passing: u32,
    failures_before_critical: u32,
}

/// What a service is registered with.
#[derive(Debug, Default)]
pub(crate) struct ServiceBody {
    service: Service,
    checks: Vec<CheckBody>,
}

impl CheckBody {
    /// The check that is meant, or what the client is told about it.
    pub(crate) fn definition(self, token: Text) -> Result<CheckDefinition, Response> {
        if self.name.is_empty() {
            return Err(bad_request("Missing check name"));
        }
        let check = self.named(token, "Bad check status")?;
        if check.kind.is_none() {
            return Err(bad_request(
                "Must provide TTL or Script/DockerContainerID/HTTP/TCP and Interval",
            ));
        }
        Ok(check)
    }

    /// The same without a look at what it is called and whether it is complete.
    fn named(self, token: Text, bad_status: &str) -> Result<CheckDefinition, Response> {
        let status = match (self.status.is_empty(), Status::named(&self.status)) {
            (true, _) => None,
            (false, Some(status)) => Some(status),
            (false, None) => return Err(bad_request(bad_status)),
        };
        Ok(CheckDefinition {
            id: self.id,
            name: self.name,
            notes: self.notes,
            service_id: self.service_id,
            status,
            token,
            kind: self.ways.kind(),
            deregister_after: self.deregister_after.to_std(),
            success_before_passing: self.success_before_passing,
            failures_before_critical: self.failures_before_critical,
        })
    }
}

impl ServiceBody {
    /// The service that is meant, or what the client is told about it.
    ///
    /// The original drops checks that name no complete way to a verdict before it looks at anything else of them.
    pub(crate) fn definition(self, token: Text) -> Result<ServiceDefinition, Response> {
        if self.service.name.is_empty() {
            return Err(bad_request("Missing service name"));
        }
        let complete = |check: &CheckBody| check.ways.clone().kind().is_some();
        let checks = self.checks.into_iter().filter(complete).map(|check| {
            // Their ids and names are made from the service's, whatever these say.
            let check = CheckBody {
                id: Text::default(),
                name: Text::default(),
                service_id: Text::default(),
                ..check
            };
            check.named(
                token.clone(),
                "Status for checks must 'passing', 'warning', 'critical'",
            )
        });
        Ok(ServiceDefinition {
            checks: checks.collect::<Result<_, _>>()?,
            service: self.service,
            token,
        })
    }
}

/// Reads a check.
pub(crate) fn read_check(reader: &mut Reader<'_>) -> Result<CheckBody, DecodeError> {
    let mut check = CheckBody::default();
    let (mut line, mut list) = (None, None);
    reader.object(|reader, name| {
        let ways = &mut check.ways;
        match name {
            b"id" => check.id = reader.text()?.unwrap_or_default(),
            b"name" => check.name = reader.text()?.unwrap_or_default(),
            b"notes" => check.notes = reader.text()?.unwrap_or_default(),
            b"serviceid" | b"service_id" => check.service_id = reader.text()?.unwrap_or_default(),
            b"status" => check.status = reader.text()?.unwrap_or_default(),
            b"script" => {
                line = if reader.is_list()? {
                    words(reader)?
                } else {
                    reader.string()?.map(|line| Script::Line(line.into_owned()))
                };
            }
            b"args" | b"scriptargs" | b"script_args" => list = words(reader)?,
            b"http" => ways.http = string(reader)?,
            b"tcp" => ways.tcp = string(reader)?,
            b"dockercontainerid" | b"docker_container_id" => {
                ways.docker_container = string(reader)?;
            }
            b"shell" => ways.shell = string(reader)?,
            b"tlsskipverify" | b"tls_skip_verify" => {
                ways.tls_skip_verify = reader.bool()?.unwrap_or_default();
            }
            b"interval" => ways.interval = reader.duration()?.unwrap_or_default(),
            b"timeout" => ways.timeout = reader.duration()?.unwrap_or_default(),
            b"ttl" => ways.ttl = reader.duration()?.unwrap_or_default(),
            b"deregistercriticalserviceafter" | b"deregister_critical_service_after" => {
                check.deregister_after = reader.duration()?.unwrap_or_default();
            }
            b"successbeforepassing" | b"success_before_passing" => {
                check.success_before_passing = count(reader)?;
            }
            b"failuresbeforecritical" | b"failures_before_critical" => {
                check.failures_before_critical = count(reader)?;
            }
            // The token of a registration is the request's own.
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    // A list says exactly what is run, so it counts where there is a line as well.
    let list = list.filter(|list| !list.is_empty());
    check.ways.script = list.or(line);
    Ok(check)
}

/// Reads a service with its checks, first those of the list and then the single one.
pub(crate) fn read_service(reader: &mut Reader<'_>) -> Result<ServiceBody, DecodeError> {
    let mut service = Service::default();
    let (mut check, mut checks) = (None, Vec::new());
    reader.object(|reader, name| {
        match name {
            b"id" => service.id = reader.text()?.unwrap_or_default(),
            b"name" => service.name = reader.text()?.unwrap_or_default(),
            b"tags" => service.tags = reader.texts()?,
            b"address" => service.address = reader.text()?.unwrap_or_default(),
            b"port" => service.port = reader.i64()?.unwrap_or_default(),
            b"enabletagoverride" | b"enable_tag_override" => {
                service.enable_tag_override = reader.bool()?.unwrap_or_default();
            }
            b"check" => check = Some(read_check(reader)?),
            b"checks" => {
                checks.clear();
                reader.list(|reader| {
                    if checks.len() == CHECKS_MAX {
                        return Err(DecodeError::Value(format!(
                            "a service has at most {CHECKS_MAX} checks"
                        )));
                    }
                    checks.push(read_check(reader)?);
                    Ok(())
                })?;
            }
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    if service.id.is_empty() {
        service.id = service.name.clone();
    }
    checks.extend(check);
    Ok(ServiceBody { service, checks })
}

fn string(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    Ok(reader.string()?.unwrap_or_default().into_owned())
}

/// A program and its arguments.
fn words(reader: &mut Reader<'_>) -> Result<Option<Script>, DecodeError> {
    let mut words = Vec::new();
    let is_there = reader.list(|reader| {
        words.push(string(reader)?);
        Ok(())
    })?;
    Ok(is_there.then_some(Script::List(words)))
}

/// How many results in a row; more than can be counted is never reached anyway.
fn count(reader: &mut Reader<'_>) -> Result<u32, DecodeError> {
    let count = reader.u64()?.unwrap_or_default();
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

pub(crate) fn fuzz(bytes: &[u8]) {
    if let Ok(check) = decode(bytes, read_check) {
        let _ = check.definition(Text::default());
    }
    if let Ok(service) = decode(bytes, read_service) {
        let _ = service.definition(Text::default());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ::agent::definition::{CheckKind, Every};

    use super::*;
    use crate::http::ResponseBody;

    /// The text of a refusal.
    fn text(response: Response) -> String {
        assert_eq!(response.status, 400);
        match response.body {
            ResponseBody::Full(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            ResponseBody::Stream(_) => panic!("a refusal is no stream"),
        }
    }

    fn check(body: &str) -> Result<CheckDefinition, String> {
        let check = decode(body.as_bytes(), read_check).map_err(|error| error.to_string())?;
        check.definition(Text::from("t")).map_err(text)
    }

    fn service(body: &str) -> Result<ServiceDefinition, String> {
        let service = decode(body.as_bytes(), read_service).map_err(|error| error.to_string())?;
        service.definition(Text::from("t")).map_err(text)
    }

    const fn every(interval: u64, timeout: u64) -> Every {
        Every {
            interval: Duration::from_secs(interval),
            timeout: Duration::from_secs(timeout),
        }
    }

    /// A check that is told about every ten seconds.
    fn told() -> CheckDefinition {
        CheckDefinition {
            name: Text::from("n"),
            token: Text::from("t"),
            kind: Some(CheckKind::Ttl(Duration::from_secs(10))),
            ..CheckDefinition::default()
        }
    }

    #[test]
    fn every_field_of_a_check_in_every_spelling() {
        let full = CheckDefinition {
            id: Text::from("i"),
            notes: Text::from("for people"),
            service_id: Text::from("web-1"),
            status: Some(Status::Warning),
            deregister_after: Duration::from_secs(5400),
            success_before_passing: 3,
            failures_before_critical: 2,
            kind: Some(CheckKind::Docker {
                container: "c".to_owned(),
                shell: "/bin/bash".to_owned(),
                script: Script::Line("true".to_owned()),
                every: every(10, 1),
            }),
            ..told()
        };
        for body in [
            r#"{"ID":"i","Name":"n","Notes":"for people","ServiceID":"web-1","Status":"warning","DockerContainerID":"c","Shell":"/bin/bash","Script":"true","Interval":"10s","Timeout":"1s","DeregisterCriticalServiceAfter":"90m","SuccessBeforePassing":3,"FailuresBeforeCritical":2,"Token":"ignored","More":[{}]}"#,
            r#"{"id":"i","NAME":"n","notes":"for people","service_id":"web-1","status":"warning","docker_container_id":"c","shell":"/bin/bash","script":"true","interval":10000000000,"timeout":1e9,"deregister_critical_service_after":5400000000000,"success_before_passing":3.9,"failures_before_critical":2}"#,
        ] {
            assert_eq!(check(body), Ok(full.clone()), "{body}");
        }
    }

    #[test]
    fn kinds() {
        let line = |line: &str| Script::Line(line.to_owned());
        let list =
            |words: &[&str]| Script::List(words.iter().map(|&word| word.to_owned()).collect());
        let run = |script| CheckKind::Script {
            script,
            every: every(10, 0),
        };
        for (fields, expected) in [
            (r#""TTL":"10s""#, CheckKind::Ttl(Duration::from_secs(10))),
            // What is named besides does not matter.
            (
                r#""Script":"true","Interval":"10s","ttl":1e10"#,
                CheckKind::Ttl(Duration::from_secs(10)),
            ),
            (
                r#""HTTP":"http://a/","Interval":"10s","Timeout":"2s","TLSSkipVerify":true"#,
                CheckKind::Http {
                    url: "http://a/".to_owned(),
                    tls_skip_verify: true,
                    every: every(10, 2),
                },
            ),
            (
                r#""http":"http://a/","interval":"10s","tls_skip_verify":null"#,
                CheckKind::Http {
                    url: "http://a/".to_owned(),
                    tls_skip_verify: false,
                    every: every(10, 0),
                },
            ),
            (
                r#""TCP":"a:1","Interval":"10s""#,
                CheckKind::Tcp {
                    address: "a:1".to_owned(),
                    every: every(10, 0),
                },
            ),
            (r#""Script":"a b","Interval":"10s""#, run(line("a b"))),
            (
                r#""Script":["a","b c",null],"Interval":"10s""#,
                run(list(&["a", "b c", ""])),
            ),
            (
                r#""Args":["a"],"Script":"b","Interval":"10s""#,
                run(list(&["a"])),
            ),
            (r#""ScriptArgs":["a"],"Interval":"10s""#, run(list(&["a"]))),
            (r#""script_args":["a"],"Interval":"10s""#, run(list(&["a"]))),
            (r#""Args":[],"Script":"b","Interval":"10s""#, run(line("b"))),
            (
                r#""Args":null,"Script":"b","Interval":"10s""#,
                run(line("b")),
            ),
        ] {
            let expected = CheckDefinition {
                kind: Some(expected),
                ..told()
            };
            let body = format!(r#"{{"Name":"n",{fields}}}"#);
            assert_eq!(check(&body), Ok(expected), "{body}");
        }
    }

    #[test]
    fn checks_that_are_refused() {
        const INCOMPLETE: &str =
            "Must provide TTL or Script/DockerContainerID/HTTP/TCP and Interval";
        for (body, expected) in [
            ("", "EOF"),
            ("[]", "expected an object, found a list"),
            ("{}", "Missing check name"),
            ("null", "Missing check name"),
            (r#"{"ID":"i","TTL":"10s"}"#, "Missing check name"),
            (r#"{"Name":"n","Status":"any"}"#, "Bad check status"),
            (
                r#"{"Name":"n","Status":"Passing","TTL":"1s"}"#,
                "Bad check status",
            ),
            (r#"{"Name":"n"}"#, INCOMPLETE),
            (
                r#"{"Name":"n","TTL":""}"#,
                "field \"TTL\": time: invalid duration ",
            ),
            (r#"{"Name":"n","TTL":"0"}"#, INCOMPLETE),
            (r#"{"Name":"n","HTTP":"http://a"}"#, INCOMPLETE),
            (r#"{"Name":"n","Interval":"10s"}"#, INCOMPLETE),
            (r#"{"Name":"n","Script":"","Interval":"10s"}"#, INCOMPLETE),
            (r#"{"Name":"n","Script":[],"Interval":"10s"}"#, INCOMPLETE),
            (
                r#"{"Name":"n","DockerContainerID":"c","Interval":"10s"}"#,
                INCOMPLETE,
            ),
            (
                r#"{"Name":"n","TTL":"10"}"#,
                "field \"TTL\": time: missing unit in duration 10",
            ),
            (
                r#"{"Name":"n","Interval":true}"#,
                "field \"Interval\": expected a number, found a boolean",
            ),
            (
                r#"{"Name":"n","Args":"a"}"#,
                "field \"Args\": expected a list, found a string",
            ),
            (
                r#"{"Name":"n","Script":[1]}"#,
                "field \"Script\": expected a string, found a number",
            ),
            (
                r#"{"Name":"n","TLSSkipVerify":"true"}"#,
                "field \"TLSSkipVerify\": expected a boolean, found a string",
            ),
            (
                r#"{"Name":"n","FailuresBeforeCritical":-1}"#,
                "field \"FailuresBeforeCritical\": number -1 is out of range",
            ),
        ] {
            assert_eq!(check(body), Err(expected.to_owned()), "{body}");
        }
    }

    #[test]
    fn services() {
        let web = Service {
            id: Text::from("web"),
            name: Text::from("web"),
            ..Service::default()
        };
        let told = |status, notes: &str, seconds| CheckDefinition {
            name: Text::default(),
            status,
            notes: Text::from(notes),
            kind: Some(CheckKind::Ttl(Duration::from_secs(seconds))),
            ..told()
        };
        for (body, service_expected, checks) in [
            (r#"{"Name":"web"}"#, web.clone(), vec![]),
            (
                r#"{"ID":"w1","Name":"web","Tags":["a",null],"Address":"10.0.0.9","Port":8080.7,"EnableTagOverride":true,"Token":"x","Meta":{"a":"b"}}"#,
                Service {
                    id: Text::from("w1"),
                    tags: Some(vec![Text::from("a"), Text::default()]),
                    address: Text::from("10.0.0.9"),
                    port: 8080,
                    enable_tag_override: true,
                    ..web.clone()
                },
                vec![],
            ),
            // The list comes first; what is incomplete is dropped, whatever status it names.
            (
                r#"{"name":"web","check":{"ttl":"3s"},"checks":[{"TTL":"1s","ID":"i","Name":"n","ServiceID":"s","Status":"passing"},{"Status":"nonsense"},null,{"TTL":"2s","Notes":"x"}]}"#,
                web.clone(),
                vec![
                    told(Some(Status::Passing), "", 1),
                    told(None, "x", 2),
                    told(None, "", 3),
                ],
            ),
            (
                r#"{"Name":"web","Checks":null,"Check":null,"enable_tag_override":false}"#,
                web.clone(),
                vec![],
            ),
        ] {
            let expected = ServiceDefinition {
                service: service_expected,
                checks,
                token: Text::from("t"),
            };
            assert_eq!(service(body), Ok(expected), "{body}");
        }
        let many = format!(
            r#"{{"Name":"web","Checks":[{}{{}}]}}"#,
            "{},".repeat(CHECKS_MAX)
        );
        for (body, expected) in [
            ("{}", "Missing service name"),
            (r#"{"ID":"web"}"#, "Missing service name"),
            (
                r#"{"Name":"web","Check":{"TTL":"1s","Status":"x"}}"#,
                "Status for checks must 'passing', 'warning', 'critical'",
            ),
            (
                r#"{"Name":"web","Port":"80"}"#,
                "field \"Port\": expected a number, found a string",
            ),
            (
                r#"{"Name":"web","Checks":{}}"#,
                "field \"Checks\": expected a list, found an object",
            ),
            (
                r#"{"Name":"web","Check":{"TTL":"1"}}"#,
                "field \"Check.TTL\": time: missing unit in duration 1",
            ),
            (&many, "field \"Checks\": a service has at most 1000 checks"),
        ] {
            assert_eq!(service(body), Err(expected.to_owned()), "{body}");
        }
    }
}
