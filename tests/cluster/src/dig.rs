//! `dig`, and what it understood of an answer.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use crate::tool::tool;

/// `dig`, asking one name server.
#[derive(Debug, Clone)]
pub struct Dig {
    program: PathBuf,
    server: Option<SocketAddr>,
}

/// An answer, or that there was none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// How it went, in DNS's words; empty if nobody answered.
    pub status: String,
    /// The header's flags.
    pub flags: Vec<String>,
    /// The answers, sorted, with single spaces.
    pub answers: Vec<String>,
    /// Who is said to know.
    pub authority: Vec<String>,
    /// What was told without being asked for, but EDNS's own record.
    pub additional: Vec<String>,
    /// What was said about EDNS.
    pub edns: Option<String>,
    /// What `dig` found strange, and that it asked again over TCP.
    pub remarks: Vec<String>,
}

impl Dig {
    /// `dig`, if it is installed.
    pub fn find() -> Option<Self> {
        let server = None;
        tool("dig").map(|program| Self { program, server })
    }

    /// The same, asking this server.
    #[must_use]
    pub fn asking(&self, server: SocketAddr) -> Self {
        Self {
            server: Some(server),
            ..self.clone()
        }
    }

    /// What is answered to a question in `dig`'s own words, like `+tcp web.service.consul SRV`.
    ///
    /// # Panics
    /// If `dig` can't be run, or wasn't told whom to ask.
    pub fn ask(&self, question: &str) -> Reply {
        let server = self.server.expect("somebody to ask");
        // It ends by itself: it gives up after two attempts.
        let output = Command::new(&self.program)
            .arg("-r")
            .arg(format!("@{}", server.ip()))
            .args(["-p", &server.port().to_string()])
            .args("+time=5 +tries=2 +nocmd +noquestion +nostats".split(' '))
            .args(question.split(' '))
            .output()
            .expect("running an installed program");
        Reply::read(&String::from_utf8_lossy(&output.stdout))
    }
}

impl Reply {
    fn read(text: &str) -> Self {
        let mut reply = Self::default();
        let mut section: fn(&mut Self) -> &mut Vec<String> = |reply| &mut reply.remarks;
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("; EDNS: ") {
                reply.edns = Some(rest.to_owned());
                continue;
            }
            let Some(comment) = line.strip_prefix(";; ") else {
                let words: Vec<&str> = line.split_whitespace().collect();
                section(&mut reply).push(words.join(" "));
                continue;
            };
            match comment.split_once(' ') {
                Some(("ANSWER", _)) => section = |reply| &mut reply.answers,
                Some(("AUTHORITY", _)) => section = |reply| &mut reply.authority,
                Some(("ADDITIONAL", _)) => section = |reply| &mut reply.additional,
                // The warning is true of every answer without recursors.
                Some(
                    ("Got" | "OPT", _) | ("WARNING:", "recursion requested but not available"),
                ) => {}
                Some(("->>HEADER<<-", rest)) => {
                    let status = rest.split("status: ").nth(1).unwrap_or_default();
                    reply.status = status.split(',').next().unwrap_or_default().to_owned();
                }
                Some(("flags:", rest)) => {
                    let flags = rest.split(';').next().unwrap_or_default();
                    reply.flags = flags.split_whitespace().map(ToOwned::to_owned).collect();
                }
                _ => reply.remarks.push(comment.to_owned()),
            }
        }
        for records in [
            &mut reply.answers,
            &mut reply.authority,
            &mut reply.additional,
        ] {
            records.sort();
        }
        reply
    }

    /// Whether the header has this flag.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|set| set == flag)
    }

    /// What the answers say, without the names that they are about: `A 10.0.0.1`.
    pub fn data(&self) -> Vec<String> {
        let mut data: Vec<String> = self
            .answers
            .iter()
            .map(|record| record.splitn(4, ' ').nth(3).unwrap_or_default().to_owned())
            .collect();
        data.sort();
        data
    }
}

/// A line for each thing that was told.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for remark in &self.remarks {
            writeln!(f, "remark: {remark}")?;
        }
        writeln!(f, "{} {}", self.status, self.flags.join(" "))?;
        for record in &self.answers {
            writeln!(f, "{record}")?;
        }
        for record in &self.authority {
            writeln!(f, "authority: {record}")?;
        }
        for record in &self.additional {
            writeln!(f, "additional: {record}")?;
        }
        if let Some(edns) = &self.edns {
            writeln!(f, "edns: {edns}")?;
        }
        Ok(())
    }
}
