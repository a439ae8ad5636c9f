//! The leader's say before a command is written: everything that depends on chance or on this server becomes data.
//!
//! What can be refused without knowing the state is refused here, so that it never reaches the log.

use model::{
    AclToken, CLIENT, CRITICAL, Command, Deregistration, Error, GoDuration, MANAGEMENT,
    NodeCoordinate, PreparedQuery, REDACTED_TOKEN, Registration, Session, Text, parse_uuid,
};

use store::check_template_size;

use crate::access::{ROOT_IDS, check_rules};
use crate::coordinates;
use crate::core::Core;

/// The longest TTL that a session may have.
const SESSION_TTL_MAX: GoDuration = GoDuration(24 * 3600 * 1_000_000_000);

/// Fills in what the sender left to the leader, or says why the command can't be.
pub(crate) fn settle(core: &Core, command: &mut Command) -> Result<(), Error> {
    match command {
        Command::Register(registration) => settle_registration(registration),
        Command::Deregister(deregistration) => check_deregistration(deregistration),
        Command::SessionCreate(session) => {
            check_session(session, core.config.session_ttl_min.into())?;
            session.id = core.draw_id();
            Ok(())
        }
        Command::AclSet(token) => {
            check_token(token)?;
            if token.id.is_empty() {
                token.id = Text::from(core.draw_id().to_string());
            }
            Ok(())
        }
        Command::QuerySet(set) if set.create => {
            if !set.query.id.is_nil() {
                return Err(Error::invalid(
                    "ID must be empty when creating a new prepared query",
                ));
            }
            check_query(&set.query, core.config.acl.enforce_version_8)?;
            set.query.id = core.draw_id();
            Ok(())
        }
        Command::QuerySet(set) => check_query(&set.query, core.config.acl.enforce_version_8),
        Command::Kv(_)
        | Command::Txn(_)
        | Command::SessionDestroy(_)
        | Command::AclDelete(_)
        | Command::QueryDelete(_) => Ok(()),
        Command::Coordinates(batch) => check_coordinates(batch),
        // Only the leader's own duties know what time is up.
        Command::SessionExpire { .. } | Command::LockDelaysBegin(_) => Err(Error::invalid(
            "that time is up is not a command that can be sent",
        )),
        // Only the leader's own duty knows how old deletions are, and doesn't come through this pipeline.
        Command::TombstoneReap(_) => Err(Error::invalid(
            "forgetting deletions is not a command that can be sent",
        )),
        // Only this server's own restore writes them, and not through this pipeline.
        Command::RestoreBegin(_) | Command::RestoreChunk(_) | Command::RestoreCommit(_) => Err(
            Error::invalid("a restore is not a command that can be sent"),
        ),
    }
}

/// The original fills in the same defaults.
fn settle_registration(registration: &mut Registration) -> Result<(), Error> {
    let node = &registration.node;
    if node.name.is_empty() || node.address.is_empty() {
        return Err(Error::invalid("Must provide node and address"));
    }
    if !node.id.is_empty() && parse_uuid(&node.id).is_none() {
        return Err(Error::invalid(format!(
            "Bad node ID: {:?} is no UUID",
            node.id
        )));
    }
    if let Some(service) = &mut registration.service {
        if service.id.is_empty() {
            service.id = service.name.clone();
        }
        if !service.id.is_empty() && service.name.is_empty() {
            return Err(Error::invalid("Must provide service name with ID"));
        }
    }
    for check in &mut registration.checks {
        if check.check_id.is_empty() {
            check.check_id = check.name.clone();
        }
        if check.node.is_empty() {
            check.node = registration.node.name.clone();
        }
        if check.status.is_empty() {
            check.status = Text::from(CRITICAL);
        }
    }
    Ok(())
}

fn check_deregistration(deregistration: &Deregistration) -> Result<(), Error> {
    if deregistration.node.is_empty() {
        return Err(Error::invalid("Must provide node"));
    }
    Ok(())
}

fn check_session(session: &Session, ttl_min: GoDuration) -> Result<(), Error> {
    if session.node.is_empty() {
        return Err(Error::invalid("Must provide Node"));
    }
    if session.ttl.is_empty() {
        return Ok(());
    }
    let text = session.ttl.to_lossy();
    let ttl = GoDuration::parse(&text)
        .map_err(|error| Error::invalid(format!("Session TTL '{text}' invalid: {error}")))?;
    if ttl.0 != 0 && !(ttl_min..=SESSION_TTL_MAX).contains(&ttl) {
        return Err(Error::invalid(format!(
            "Invalid Session TTL '{}', must be between [{}={}]",
            ttl.0, ttl_min, SESSION_TTL_MAX
        )));
    }
    Ok(())
}

fn check_token(token: &mut AclToken) -> Result<(), Error> {
    if token.kind.is_empty() {
        token.kind = Text::from(CLIENT);
    }
    if token.kind != CLIENT && token.kind != MANAGEMENT {
        return Err(Error::invalid("Invalid ACL Type"));
    }
    if ROOT_IDS.iter().any(|id| token.id == *id) {
        return Err(Error::PermissionDeniedBecause(
            "Cannot modify root ACL".to_owned(),
        ));
    }
    check_rules(&token.rules)
}

/// Another server gathers them, and need not be trusted to have looked.
fn check_coordinates(batch: &[NodeCoordinate]) -> Result<(), Error> {
    if batch.len() > coordinates::ENTRY_MAX {
        return Err(Error::invalid("too many coordinates at once"));
    }
    batch.iter().try_for_each(coordinates::check)
}

/// What a definition must have whatever the state is.
fn check_query(query: &PreparedQuery, enforce_version_8: bool) -> Result<(), Error> {
    let invalid = |what: String| Err(Error::Invalid(format!("Invalid prepared query: {what}")));
    let PreparedQuery {
        service,
        dns_ttl,
        token,
        ..
    } = query;
    // Nobody could find one that belongs to nobody, to take it away again.
    if enforce_version_8 && !query.is_ruled() && query.session.is_none() {
        return invalid("Must be bound to a session".to_owned());
    }
    if *token == REDACTED_TOKEN {
        return invalid(format!(
            "Bad Token '{REDACTED_TOKEN}', it looks like a query definition with a redacted token was submitted"
        ));
    }
    if service.service.is_empty() {
        return invalid("Must provide a Service name to query".to_owned());
    }
    if service.nearest_n < 0 {
        return invalid(format!(
            "Bad NearestN '{}', must be >= 0",
            service.nearest_n
        ));
    }
    if service.node_meta.len() > META_PAIRS_MAX {
        return invalid(format!(
            "Node metadata cannot contain more than {META_PAIRS_MAX} key/value pairs"
        ));
    }
    for (name, value) in &service.node_meta {
        if let Err(why) = check_metadata(name, value) {
            return invalid(format!(
                "Couldn't load metadata pair ('{name}', '{value}'): {why}"
            ));
        }
    }
    if !dns_ttl.is_empty() {
        let text = dns_ttl.to_lossy();
        match GoDuration::parse(&text) {
            Err(error) => return invalid(format!("Bad DNS TTL '{text}': {error}")),
            Ok(ttl) if ttl.0 < 0 => {
                return invalid(format!("DNS TTL '{}', must be >=0", ttl.0));
            }
            Ok(_) => {}
        }
    }
    // All servers would take as long to refuse it, and nobody else's command would be applied meanwhile.
    check_template_size(query)
}

/// How many pairs of metadata a node can have.
const META_PAIRS_MAX: usize = 64;

/// What no node can have as metadata, no query should look for.
fn check_metadata(name: &[u8], value: &[u8]) -> Result<(), &'static str> {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if name.is_empty() {
        Err("Key cannot be blank")
    } else if !name.iter().all(fits) {
        Err("Key contains invalid characters")
    } else if name.len() > 128 {
        Err("Key is too long (limit: 128 characters)")
    } else if name.starts_with(b"consul-") {
        Err("Key prefix 'consul-' is reserved for internal use")
    } else if value.len() > 512 {
        Err("Value is too long (limit: 512 characters)")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use model::{Coordinate, QueryTemplate};

    use super::*;

    #[test]
    fn queries_look_for_what_nodes_can_have() {
        let long = |length| "x".repeat(length);
        for (pairs, expected) in [
            (vec![("rack".to_owned(), "${match(1)}".to_owned())], ""),
            (vec![(long(128), long(512))], ""),
            (
                vec![(String::new(), "v".to_owned())],
                "('', 'v'): Key cannot be blank",
            ),
            (
                vec![("a b".to_owned(), "v".to_owned())],
                "('a b', 'v'): Key contains invalid characters",
            ),
            (vec![(long(129), String::new())], "Key is too long"),
            (
                vec![("consul-a".to_owned(), String::new())],
                "reserved for internal use",
            ),
            (vec![("k".to_owned(), long(513))], "Value is too long"),
            (
                (0..65).map(|n| (n.to_string(), String::new())).collect(),
                "more than 64",
            ),
        ] {
            let pairs = pairs
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()));
            let query = PreparedQuery {
                service: model::QueryService {
                    service: Text::from("web"),
                    node_meta: pairs.collect(),
                    ..model::QueryService::default()
                },
                ..PreparedQuery::default()
            };
            let error = check_query(&query, false)
                .err()
                .map(|error| error.to_string());
            let error = error.unwrap_or_default();
            assert!(error.contains(expected), "{error} {expected}");
            assert_eq!(error.is_empty(), expected.is_empty(), "{error}");
        }
    }

    #[test]
    fn templates_that_are_too_large_do_not_reach_the_log() {
        let template = |regexp: &str| PreparedQuery {
            template: QueryTemplate {
                kind: Text::from("name_prefix_match"),
                regexp: Text::from(regexp),
            },
            service: model::QueryService {
                service: Text::from("web"),
                ..model::QueryService::default()
            },
            ..PreparedQuery::default()
        };
        let error = check_query(&template(r"(\pL{30}){30}\pL{900}"), false).unwrap_err();
        assert!(
            error.to_string().contains("expression too large"),
            "{error}"
        );
        assert_eq!(check_query(&template(r"^\pL+-(\d+)$"), false), Ok(()));
        // That is said by who applies it, after what is wrong with its name.
        assert_eq!(check_query(&template("("), false), Ok(()));
    }

    #[test]
    fn coordinates_are_as_if_they_had_come_one_by_one() {
        let at = |node: &str, height: f64| NodeCoordinate {
            node: Text::from(node),
            coord: Coordinate {
                vec: vec![0.0; 8],
                error: 1.5,
                adjustment: 0.0,
                height,
            },
        };
        assert_eq!(check_coordinates(&[at("a", 1.0), at("b", 2.0)]), Ok(()));
        assert!(check_coordinates(&[at("a", 1.0), at("b", f64::NAN)]).is_err());
        assert!(check_coordinates(&[at(&"n".repeat(1000), 1.0)]).is_err());
        assert!(check_coordinates(&vec![at("a", 1.0); 10_000]).is_err());
    }
}
