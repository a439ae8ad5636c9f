use futures::future::BoxFuture;
use model::{Answer, Command, Question, Reply};
use rpc::{
    Answered, Backend, ByteStream, ReadOptions, RestoreOptions, Restored, Save, SaveOptions,
    WriteOptions,
};

use super::*;

const TTL: Duration = Duration::from_secs(30);

/// Servers that say this of every token, and note who was asked for.
#[derive(Clone, Default)]
struct Servers(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    says: Option<Result<Grant, Error>>,
    asked: Vec<Text>,
}

impl Servers {
    fn say(&self, grant: Grant) {
        self.state().says = Some(Ok(grant));
    }

    fn fail(&self, error: Error) {
        self.state().says = Some(Err(error));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// How often they were asked since the last look.
    fn asked(&self) -> usize {
        std::mem::take(&mut self.state().asked).len()
    }

    fn tokens(&self, down_policy: DownPolicy) -> Tokens {
        let config = Config {
            node: "n1".into(),
            down_policy,
            agent_master_token: "master".into(),
            seed: 7,
        };
        Tokens::judged(config, Cluster::new(self.clone()))
    }
}

impl Backend for Servers {
    fn operate(
        &self,
        operation: Operation,
        options: OperateOptions,
    ) -> BoxFuture<'static, Result<Operated, Error>> {
        assert_eq!(operation, Operation::ResolveToken);
        let mut state = self.state();
        state.asked.push(options.token);
        let says = state.says.clone().unwrap();
        Box::pin(async move {
            says.map(|grant| Operated::Policy(Box::new(Resolved { grant, ttl: TTL })))
        })
    }

    fn read(
        &self,
        _: Question,
        _: ReadOptions,
    ) -> BoxFuture<'static, Result<Answered<Answer>, Error>> {
        unreachable!()
    }

    fn write(&self, _: Command, _: WriteOptions) -> BoxFuture<'static, Result<Reply, Error>> {
        unreachable!()
    }

    fn save(&self, _: SaveOptions) -> BoxFuture<'static, Result<Save, Error>> {
        unreachable!()
    }

    fn restore(
        &self,
        _: RestoreOptions,
        _: ByteStream,
    ) -> BoxFuture<'static, Result<Restored, Error>> {
        unreachable!()
    }
}

fn readers() -> Grant {
    let rule = (Resource::Agent, Text::from("n"), Access::Read);
    Grant::Rules(Policy::new([rule], Access::Deny))
}

/// Whether this token's bearer may look at the agent, and change it.
async fn may(tokens: &Tokens, token: &str) -> (bool, bool) {
    let bearer = tokens.bearer(&token.into()).await.unwrap();
    let may = |access| bearer.allows(Resource::Agent, b"n1", access);
    (may(Access::Read), may(Access::Write))
}

#[tokio::test(start_paused = true)]
async fn before_version_8_nobody_is_judged() {
    let bearer = Tokens::unjudged().bearer(&"t".into()).await.unwrap();
    assert!(matches!(bearer, Bearer::Anybody));
    assert!(bearer.demand(Resource::Agent, b"n1", Access::Write).is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_servers_say_is_believed_for_as_long_as_they_say() {
    let servers = Servers::default();
    let tokens = servers.tokens(DownPolicy::ExtendCache);
    servers.say(readers());
    assert_eq!(may(&tokens, "t").await, (true, false));
    assert_eq!(may(&tokens, "t").await, (true, false));
    assert_eq!(servers.asked(), 1);
    assert_eq!(may(&tokens, "").await, (true, false));
    assert_eq!(servers.asked(), 1);
    servers.say(Grant::Everything);
    tokio::time::advance(TTL).await;
    assert_eq!(may(&tokens, "t").await, (true, true));
    servers.say(Grant::Unknown);
    tokio::time::advance(TTL).await;
    let unknown = tokens.bearer(&"t".into()).await;
    assert_eq!(unknown.unwrap_err(), Error::AclNotFound);
    // What is certain is not replaced by what was.
    servers.fail(Error::NoServers);
    assert_eq!(may(&tokens, "t").await, (false, false));
    servers.fail(Error::invalid("Cannot resolve root ACL").from_afar());
    let root = tokens.bearer(&"allow".into()).await.unwrap_err();
    assert_eq!(root.to_string(), "rpc error: Cannot resolve root ACL");
}

#[tokio::test(start_paused = true)]
async fn while_nobody_can_be_asked_the_configuration_decides() {
    for (policy, known, unknown) in [
        (DownPolicy::Allow, (true, true), (true, true)),
        (DownPolicy::Deny, (false, false), (false, false)),
        (DownPolicy::ExtendCache, (true, false), (false, false)),
    ] {
        let servers = Servers::default();
        let tokens = servers.tokens(policy);
        servers.say(readers());
        assert_eq!(may(&tokens, "t").await, (true, false));
        servers.fail(Error::NoLeader.from_afar());
        assert_eq!(may(&tokens, "t").await, (true, false), "it is fresh");
        tokio::time::advance(TTL).await;
        assert_eq!(may(&tokens, "t").await, known, "{policy:?}");
        assert_eq!(may(&tokens, "u").await, unknown, "{policy:?}");
        servers.say(Grant::Everything);
        tokio::time::advance(EXTENSION).await;
        assert_eq!(may(&tokens, "t").await, (true, true));
    }
    // To be let in because nobody can be asked is not to be admitted.
    let servers = Servers::default();
    servers.fail(Error::NoServers);
    let bearer = servers.tokens(DownPolicy::Allow).bearer(&"t".into()).await;
    assert!(!bearer.unwrap().is_admitted());
}

#[tokio::test(start_paused = true)]
async fn that_tokens_are_not_in_use_is_asked_again_after_two_minutes() {
    let servers = Servers::default();
    let tokens = servers.tokens(DownPolicy::ExtendCache);
    servers.say(Grant::Disabled);
    assert!(matches!(
        tokens.bearer(&"t".into()).await.unwrap(),
        Bearer::Anybody
    ));
    servers.say(readers());
    tokio::time::advance(DISABLED - Duration::from_secs(1)).await;
    assert_eq!(may(&tokens, "u").await, (true, true));
    assert_eq!(servers.asked(), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(may(&tokens, "u").await, (true, false));
}

#[tokio::test(start_paused = true)]
async fn the_agents_master_needs_no_server() {
    let servers = Servers::default();
    let tokens = servers.tokens(DownPolicy::Deny);
    servers.fail(Error::NoServers);
    assert_eq!(may(&tokens, "master").await, (true, true));
    assert_eq!(servers.asked(), 0);
    let bearer = tokens.bearer(&"master".into()).await.unwrap();
    for (resource, name, access, expected) in [
        (Resource::Agent, "other", Access::Read, false),
        (Resource::Node, "other", Access::Read, true),
        (Resource::Node, "n1", Access::Write, false),
        (Resource::Service, "web", Access::Read, false),
    ] {
        let allowed = bearer.allows(resource, name.as_bytes(), access);
        assert_eq!(allowed, expected, "{resource:?} {name}");
    }
    assert_eq!(may(&tokens, "maste").await, (false, false));
    // Without one, an empty token is not it.
    let none = Config {
        agent_master_token: Text::default(),
        ..Config::default()
    };
    let tokens = Tokens::judged(none, Cluster::new(servers.clone()));
    assert_eq!(may(&tokens, "").await, (false, false));
}

#[tokio::test(start_paused = true)]
async fn no_more_than_so_many_tokens_are_remembered() {
    let servers = Servers::default();
    let tokens = servers.tokens(DownPolicy::ExtendCache);
    servers.say(readers());
    for number in 0..TOKENS_MAX + 10 {
        may(&tokens, &format!("t{number}")).await;
        // It is used all the time.
        may(&tokens, "t0").await;
    }
    let inner = tokens.0.as_ref().unwrap();
    assert_eq!(inner.memory().known.len(), TOKENS_MAX);
    servers.asked();
    may(&tokens, "t0").await;
    assert_eq!(servers.asked(), 0);
    may(&tokens, "t1").await;
    assert_eq!(servers.asked(), 1);
}

#[test]
fn nothing_shows_a_token() {
    let config = Config {
        agent_master_token: "secret".into(),
        ..Config::default()
    };
    assert!(!format!("{config:?}").contains("secret"));
}
