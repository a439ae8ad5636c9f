//! Who may: one question about a token, asked in the pipelines and nowhere else.
//!
//! One datacenter decides about tokens. Each of its servers knows all of them from the log and asks nobody, so a token that
//! was changed counts there as soon as the change is in the state that is read from; the original's followers go on for a
//! while with what they were told last.
//! Servers elsewhere ask that datacenter, believe the answer for a while, and follow the policy for hard times when nobody
//! answers.

use model::{
    ANONYMOUS, Access, Authority, DownPolicy, Error, Grant, MANAGEMENT, Need, Operated, Operation,
    Policy, Resolved, Text,
};
use rpc::{CallError, Hop, OperateOptions, Refusal, Request, Response};
use store::View;
use tokio::time::{Duration, Instant};

use crate::core::Core;
use crate::route::Leader;
use crate::{figures, operate};

mod compiled;
mod hcl;
mod remembered;
mod rules;

use compiled::Compiled;
use remembered::Remembered;

/// Ids that name built-in policies of the original and can't be used as tokens.
pub(crate) const ROOT_IDS: [&str; 3] = ["allow", "deny", "manage"];

/// How long the leader may take to say whether there is a token that this server doesn't know.
const LEADER_TIMEOUT: Duration = Duration::from_secs(2);

/// What was worked out about tokens.
#[derive(Default)]
pub(crate) struct Resolver {
    compiled: Compiled,
    remembered: Remembered,
}

/// What the bearer of `token` may, if it suffices for `need`.
pub(crate) async fn authorise(
    core: &Core,
    view: &View,
    token: &Text,
    need: Need,
) -> Result<Authority, Error> {
    let acl = &core.config.acl;
    if !acl.is_enabled() {
        return Ok(Authority::unlimited());
    }
    match need {
        // Nothing is asked of it: if something were, its guard would find that nothing is allowed.
        Need::Nothing => Ok(Authority::limited(Policy::new([], Access::Deny), true)),
        Need::Version8 if !acl.enforce_version_8 => {
            Ok(Authority::limited(Policy::new([], Access::Write), false))
        }
        Need::Version8 | Need::Token => resolve(core, Hop::First, view, token).await,
        Need::Management => {
            let authority = resolve(core, Hop::First, view, token).await?;
            authority.demand_management()?;
            Ok(authority)
        }
    }
}

/// What the bearer of `token` may, for an agent that judges for itself.
pub(crate) async fn grant(core: &Core, hop: Hop, token: &Text) -> Result<Resolved, Error> {
    let acl = &core.config.acl;
    let grant = if acl.is_enabled() {
        let view = core.shared.view();
        match resolve(core, hop, &view, token).await {
            Ok(authority) => authority
                .policy()
                .map_or(Grant::Everything, |policy| Grant::Rules(policy.clone())),
            Err(error) if *error.kind() == Error::AclNotFound => Grant::Unknown,
            Err(error) => return Err(error),
        }
    } else {
        Grant::Disabled
    };
    Ok(Resolved {
        grant,
        ttl: acl.ttl,
    })
}

/// Passes on what a guard said, and says so where it is a refusal.
pub(crate) fn told<T>(judged: Result<T, Error>, what: &str) -> Result<T, Error> {
    if let Err(error) = &judged {
        tracing::info!("{what} was refused: {error}");
    }
    judged
}

/// Says why rules can't be, as the original does.
pub(crate) fn check_rules(text: &[u8]) -> Result<(), Error> {
    match rules::read(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::Invalid(format!(
            "ACL rule compilation failed: {error}"
        ))),
    }
}

pub(crate) fn fuzz(text: &[u8]) {
    rules::fuzz(text);
}

async fn resolve(core: &Core, hop: Hop, view: &View, token: &Text) -> Result<Authority, Error> {
    if ROOT_IDS.iter().any(|id| *token == *id) {
        return Err(Error::invalid("Cannot resolve root ACL"));
    }
    let began = Instant::now();
    let resolved = if core.config.decides_about_tokens() {
        look_up(core, hop, view, token).await
    } else {
        ask_elsewhere(core, token).await
    };
    figures::note(&figures::TOKENS, began);
    resolved
}

/// In the datacenter that decides.
async fn look_up(core: &Core, hop: Hop, view: &View, token: &Text) -> Result<Authority, Error> {
    let acl = &core.config.acl;
    let id = if token.is_empty() {
        ANONYMOUS.as_bytes()
    } else {
        token
    };
    match view.token(id) {
        Some(row) if row.kind == MANAGEMENT => Ok(Authority::unlimited()),
        Some(row) => core.resolver.compiled.get(row, acl),
        // The anonymous token is made on gaining leadership; until then nobody has no rules either.
        None if token.is_empty() => Ok(Authority::limited(
            Policy::new([], acl.default_policy.access()),
            acl.enforce_version_8,
        )),
        // It may have been made a moment ago, and its maker was told by the leader that it is there.
        None => match core.leader() {
            Some(leader) if hop == Hop::First && core.knows_leader() => {
                ask_leader(core, &leader, token).await
            }
            _ => Err(Error::AclNotFound),
        },
    }
}

/// Whether the leader knows a token that this server doesn't.
async fn ask_leader(core: &Core, leader: &Leader, token: &Text) -> Result<Authority, Error> {
    let options = OperateOptions {
        token: token.clone(),
        ..OperateOptions::default()
    };
    let request = Request::Operate(Operation::ResolveToken, options);
    let call = core.calls.call(&leader.server, Hop::Forwarded, request);
    match tokio::time::timeout(LEADER_TIMEOUT, call).await {
        Ok(Ok(Response::Operate(Operated::Policy(resolved)))) => {
            resolved.grant.authority(core.config.acl.enforce_version_8)
        }
        Ok(Err(CallError::Refused(Refusal::Failed(error)))) => Err(error.from_afar()),
        Ok(Ok(_) | Err(_)) | Err(_) => Err(Error::AclNotFound),
    }
}

/// In another datacenter than the one that decides.
async fn ask_elsewhere(core: &Core, token: &Text) -> Result<Authority, Error> {
    let acl = &core.config.acl;
    if let Some(authority) = core.resolver.remembered.believed(token, Instant::now()) {
        return Ok(authority);
    }
    let options = OperateOptions {
        token: token.clone(),
        datacenter: Text::from(acl.datacenter.as_str()),
        ..OperateOptions::default()
    };
    // Boxed, since answering an operation begins with asking who may.
    let asked = Box::pin(operate::operate(
        core,
        Hop::First,
        Operation::ResolveToken,
        options,
    ));
    match asked.await {
        Ok(Operated::Policy(resolved)) => {
            let remembered = &core.resolver.remembered;
            let known = resolved.grant.authority(acl.enforce_version_8);
            match &known {
                Ok(authority) => {
                    let until = Instant::now() + resolved.ttl.min(acl.ttl);
                    remembered.keep(token, authority.clone(), until);
                }
                Err(_) => remembered.forget(token),
            }
            known
        }
        Ok(_) => Err(Error::Internal(
            "a server answered another question".to_owned(),
        )),
        Err(refusal) => {
            tracing::debug!(
                "nobody of {} says what a token may: {refusal:?}",
                acl.datacenter
            );
            Ok(fall_back(core, token))
        }
    }
}

/// What holds while nobody can be asked.
fn fall_back(core: &Core, token: &Text) -> Authority {
    let acl = &core.config.acl;
    let limited = |otherwise| {
        let policy = Policy::new([], otherwise);
        Authority::limited(policy, acl.enforce_version_8)
    };
    match acl.down_policy {
        DownPolicy::Allow => limited(Access::Write),
        DownPolicy::Deny => limited(Access::Deny),
        DownPolicy::ExtendCache => {
            let known = core.resolver.remembered.last_known(token);
            known.unwrap_or_else(|| limited(Access::Deny))
        }
    }
}

/// Looks at the rules of all tokens, and says of which nobody can make any use. Returns how many there are.
pub(crate) async fn complain(core: &Core) -> usize {
    // So many at a time, since other tasks want to go on as well.
    const AT_ONCE: usize = 64;
    let view = core.shared.view();
    let mut broken = 0;
    for (number, row) in view.tokens().enumerate() {
        if number % AT_ONCE == AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
        if row.kind != MANAGEMENT && !row.rules.is_empty() {
            broken += usize::from(core.resolver.compiled.get(row, &core.config.acl).is_err());
        }
    }
    broken
}
