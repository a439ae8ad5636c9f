use super::*;

fn agent(role: Role) -> Agent {
    let identity = Identity {
        node: "n1".to_owned(),
        datacenter: "dc1".to_owned(),
        id: String::new(),
        address: [10, 0, 0, 1].into(),
        address_wan: [10, 0, 0, 2].into(),
        role,
        version: "0.7.1".to_owned(),
        prerelease: String::new(),
        revision: "0123456789abcdef".to_owned(),
        build: "ours".to_owned(),
    };
    let stats = || {
        Sections::from([(
            "raft".to_owned(),
            Section::from([("term".to_owned(), "3".to_owned())]),
        )])
    };
    let parts = Parts {
        neighbours: Box::new(Nobody),
        journal: Journal::default(),
        wishes: mpsc::channel(1).0,
        stats: Box::new(stats),
        figures: Box::new(FiguresSnapshot::default),
        local: Local::new(LocalConfig::default()).0,
        tokens: Tokens::unjudged(),
        events: Events::default(),
    };
    Agent::new(identity, Settings::default(), parts)
}

struct Nobody;

impl Neighbours for Nobody {
    fn members(&self) -> Vec<Member> {
        Vec::new()
    }

    fn coordinate(&self) -> Option<model::Coordinate> {
        None
    }

    fn join(
        &self,
        _: Vec<String>,
    ) -> futures::future::BoxFuture<'static, Result<usize, JoinError>> {
        Box::pin(async { Ok(0) })
    }

    fn force_leave(&self, _: String) -> futures::future::BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

#[tokio::test]
async fn a_wish_to_an_agent_that_stops_fails() {
    let outcome = agent(Role::Client).leave().await;
    assert_eq!(outcome, Err("this agent is stopping already".to_owned()));
}

#[test]
fn several_reasons_are_listed() {
    let error = JoinError(vec!["a".to_owned(), "b".to_owned()]);
    assert_eq!(error.to_string(), "2 error(s) occurred:\n\n* a\n* b");
}

#[test]
fn tags_say_what_it_is() {
    let tags = |role| {
        let member = agent(role).member();
        member
            .tags
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let common = "build=0.7.1:01234567,dc=dc1,";
    let versions = "vsn=2,vsn_max=3,vsn_min=2";
    assert_eq!(tags(Role::Client), format!("{common}role=node,{versions}"));
    assert_eq!(
        tags(Role::Server(Start::Bootstrap)),
        format!("bootstrap=1,{common}port=8300,role=consul,{versions}")
    );
    assert_eq!(
        tags(Role::Server(Start::Expect(3))),
        format!("{common}expect=3,port=8300,role=consul,{versions}")
    );
    assert_eq!(
        tags(Role::Server(Start::Join)),
        format!("{common}port=8300,role=consul,{versions}")
    );
}

#[test]
fn stats_name_the_build() {
    let stats = agent(Role::Client).stats();
    assert_eq!(stats["raft"]["term"], "3");
    assert_eq!(stats["build"]["version"], "0.7.1");
    assert_eq!(stats["build"]["revision"], "01234567");
}
