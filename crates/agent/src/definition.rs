//! Services and checks as somebody defines them, over HTTP or in a file, before anything runs.
//!
//! How they are spelled is the faces' business; what they mean begins here.

use std::fmt;
use std::time::Duration;

use model::{GoDuration, Service, Text};

/// A service that this node is to offer.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ServiceDefinition {
    /// The service; its indexes are ignored, and an empty id stands for the name.
    pub service: Service,
    /// What speaks for its health; ids and names are made from the service's.
    pub checks: Vec<CheckDefinition>,
    /// Whose word its registration is; empty for the agent's own.
    pub token: Text,
}

/// A check that this node is to run or to be told about.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct CheckDefinition {
    /// Unique on this node; an empty one stands for the name.
    pub id: Text,
    /// For people.
    pub name: Text,
    /// For people.
    pub notes: Text,
    /// The service that it speaks for; empty for the whole node.
    pub service_id: Text,
    /// The status until something is known; `None` stands for critical.
    pub status: Option<Status>,
    /// Whose word its registration is; empty for the agent's own.
    pub token: Text,
    /// Where the verdict comes from; `None` if the definition names no complete way, which no check can be registered with.
    pub kind: Option<CheckKind>,
    /// How long it may be critical before its service is deregistered; zero for ever.
    pub deregister_after: Duration,
    /// How many results in a row it takes to be passing again; 0 as 1.
    pub success_before_passing: u32,
    /// How many results in a row it takes to be critical; 0 as 1.
    pub failures_before_critical: u32,
}

impl CheckDefinition {
    /// Whether it runs programs of this machine or of a container.
    pub fn runs_scripts(&self) -> bool {
        self.kind.as_ref().is_some_and(CheckKind::runs_scripts)
    }
}

/// Where the verdict of a check comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum CheckKind {
    /// Somebody says so, at least this often.
    Ttl(Duration),
    /// A program of this machine is run.
    Script {
        /// What is run.
        script: Script,
        /// How often.
        every: Every,
    },
    /// A page is asked for.
    Http {
        /// Its address.
        url: String,
        /// Whether any certificate will do.
        tls_skip_verify: bool,
        /// How often.
        every: Every,
    },
    /// A connection is made.
    Tcp {
        /// Where to, `host:port`.
        address: String,
        /// How often.
        every: Every,
    },
    /// A program is run in a container.
    Docker {
        /// The container's id or name.
        container: String,
        /// The shell that runs the script; empty for that of the agent's own environment.
        shell: String,
        /// What is run.
        script: Script,
        /// How often.
        every: Every,
    },
}

/// The ways to a verdict that a definition names, field by field, whether or not they are complete.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Ways {
    /// How often somebody says so.
    pub ttl: GoDuration,
    /// How often something is done.
    pub interval: GoDuration,
    /// How long it may take.
    pub timeout: GoDuration,
    /// What is run; an empty one is none.
    pub script: Option<Script>,
    /// The page that is asked for.
    pub http: String,
    /// Whether any certificate will do for it.
    pub tls_skip_verify: bool,
    /// Where a connection is made to.
    pub tcp: String,
    /// Where the script is run, if not here.
    pub docker_container: String,
    /// What runs it there.
    pub shell: String,
}

impl Ways {
    /// The first complete one, in the original's order: of a check that names several the others are never looked at.
    ///
    /// Spans that run backwards count as given, as in the original, and are zero.
    pub fn kind(self) -> Option<CheckKind> {
        if self.ttl != GoDuration(0) {
            return Some(CheckKind::Ttl(self.ttl.to_std()));
        }
        if self.interval == GoDuration(0) {
            return None;
        }
        let every = Every {
            interval: self.interval.to_std(),
            timeout: self.timeout.to_std(),
        };
        if !self.http.is_empty() {
            return Some(CheckKind::Http {
                url: self.http,
                tls_skip_verify: self.tls_skip_verify,
                every,
            });
        }
        if !self.tcp.is_empty() {
            let address = self.tcp;
            return Some(CheckKind::Tcp { address, every });
        }
        let script = self.script.filter(|script| !script.is_empty())?;
        Some(if self.docker_container.is_empty() {
            CheckKind::Script { script, every }
        } else {
            CheckKind::Docker {
                container: self.docker_container,
                shell: self.shell,
                script,
                every,
            }
        })
    }
}

impl Script {
    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Line(line) => line.is_empty(),
            Self::List(list) => list.is_empty(),
        }
    }

    /// How many bytes of text it holds, a little more for each part.
    fn size(&self) -> usize {
        match self {
            Self::Line(line) => line.len(),
            Self::List(list) => list.iter().map(|part| part.len() + 8).sum(),
        }
    }
}

/// Without what may hold secrets.
impl fmt::Debug for Ways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ways").finish_non_exhaustive()
    }
}

/// What a check runs.
#[derive(Clone, PartialEq, Eq)]
pub enum Script {
    /// A line for a shell.
    Line(String),
    /// A program with its arguments, run without a shell; it has at least one element.
    List(Vec<String>),
}

/// How often something is done, and how long it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Every {
    /// From the end of one to the beginning of the next.
    pub interval: Duration,
    /// How long one may take; zero for the kind's default.
    pub timeout: Duration,
}

/// What a check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// All is well.
    Passing,
    /// Somebody should look.
    Warning,
    /// What depends on it stops.
    Critical,
}

impl Status {
    /// Its name in the catalog.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// The status of exactly this name.
    pub fn named(name: &[u8]) -> Option<Self> {
        let all = [Self::Passing, Self::Warning, Self::Critical];
        all.into_iter()
            .find(|status| status.name().as_bytes() == name)
    }
}

impl CheckKind {
    /// Whether it runs what its definition brings along, here or in a container.
    pub fn runs_scripts(&self) -> bool {
        match self {
            Self::Script { .. } | Self::Docker { .. } => true,
            Self::Ttl(_) | Self::Http { .. } | Self::Tcp { .. } => false,
        }
    }

    /// How many bytes of text it holds.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Ttl(_) => 0,
            Self::Script { script, .. } => script.size(),
            Self::Http { url, .. } => url.len(),
            Self::Tcp { address, .. } => address.len(),
            Self::Docker {
                container,
                shell,
                script,
                ..
            } => container.len() + shell.len() + script.size(),
        }
    }
}

/// Without what may hold secrets: scripts, addresses with passwords in them, tokens.
impl fmt::Debug for CheckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ttl(_) => "Ttl",
            Self::Script { .. } => "Script",
            Self::Http { .. } => "Http",
            Self::Tcp { .. } => "Tcp",
            Self::Docker { .. } => "Docker",
        })
    }
}

/// Without its text, which may hold secrets.
impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

/// Without the token.
impl fmt::Debug for ServiceDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceDefinition")
            .field("service", &self.service)
            .field("checks", &self.checks)
            .finish_non_exhaustive()
    }
}

/// Without the token.
impl fmt::Debug for CheckDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckDefinition")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("service_id", &self.service_id)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_complete_way_counts() {
        let line = |line: &str| Some(Script::Line(line.to_owned()));
        let ways = Ways {
            ttl: GoDuration(5),
            interval: GoDuration(7),
            timeout: GoDuration(3),
            script: line("true"),
            http: "http://a".to_owned(),
            tls_skip_verify: true,
            tcp: "a:1".to_owned(),
            docker_container: "c".to_owned(),
            shell: "/bin/bash".to_owned(),
        };
        let kind = |change: &dyn Fn(&mut Ways)| {
            let mut ways = ways.clone();
            change(&mut ways);
            ways.kind().map(|kind| format!("{kind:?}"))
        };
        let without_ttl = |ways: &mut Ways| ways.ttl = GoDuration(0);
        let without_http = |ways: &mut Ways| {
            without_ttl(ways);
            ways.http.clear();
        };
        let without_tcp = |ways: &mut Ways| {
            without_http(ways);
            ways.tcp.clear();
        };
        assert_eq!(kind(&|_| {}).as_deref(), Some("Ttl"));
        assert_eq!(kind(&without_ttl).as_deref(), Some("Http"));
        assert_eq!(kind(&without_http).as_deref(), Some("Tcp"));
        assert_eq!(kind(&without_tcp).as_deref(), Some("Docker"));
        let script = |script: Option<Script>| {
            kind(&|ways| {
                without_tcp(ways);
                ways.docker_container.clear();
                ways.script = script.clone();
            })
        };
        assert_eq!(script(line("true")).as_deref(), Some("Script"));
        assert_eq!(
            script(Some(Script::List(vec!["a".to_owned()]))).as_deref(),
            Some("Script")
        );
        for nothing in [None, line(""), Some(Script::List(Vec::new()))] {
            assert_eq!(script(nothing), None);
        }
        let never = kind(&|ways| {
            without_ttl(ways);
            ways.interval = GoDuration(0);
        });
        assert_eq!(never, None);
        let backwards = kind(&|ways| ways.ttl = GoDuration(-1));
        assert_eq!(backwards.as_deref(), Some("Ttl"));
        let ways = Ways {
            ttl: GoDuration(0),
            interval: GoDuration(-1),
            ..ways
        };
        match ways.kind() {
            Some(CheckKind::Http { every, .. }) => assert_eq!(every.interval, Duration::ZERO),
            other => panic!("{other:?}"),
        }
    }
}
