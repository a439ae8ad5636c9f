//! Order by distance, where a transcript would be too long.

use std::sync::Arc;

use api::http::{Method, Reaction, Request, Service};
use model::{Answer, Coordinate, Node, NodeCoordinate, Question, Text};
use rpc::Meta;
use testkit::{Asked, Fake, FakeCluster};

use crate::given;

#[tokio::test]
async fn long_lists_ask_for_all_coordinates_and_keep_the_order_of_equals() {
    let names: Vec<String> = (0..300).map(|number| format!("n{number:03}")).collect();
    // Thirty places, each a little farther away than the one before; every tenth node was never measured.
    let place = |number: usize| Some(number % 30).filter(|_| number % 10 != 7);
    let fake = FakeCluster::new();
    let node = |name: &String| {
        Arc::new(Node {
            name: Text::from(name.as_str()),
            ..Node::default()
        })
    };
    let nodes = names.iter().map(node).collect();
    fake.answer(Fake::Answer(Answer::CatalogNodes(nodes), Meta::default()));
    let coordinate = |(number, name): (usize, &String)| {
        let place = u32::try_from(place(number)?).unwrap();
        Some(NodeCoordinate {
            node: Text::from(name.as_str()),
            coord: Coordinate {
                vec: vec![f64::from(place) / 1000.0; 8],
                ..Coordinate::default()
            },
        })
    };
    let coordinates = names.iter().enumerate().filter_map(coordinate).collect();
    let coordinates = Answer::CoordinateNodes(coordinates);
    fake.answer(Fake::Answer(coordinates, Meta::default()));

    let service = api::service(fake.cluster(), given::agent(), api::Config::default());
    let target = "/v1/catalog/nodes?near=N000";
    let request = Request::new(&Method::GET, target, &[], "".into()).unwrap();
    let Reaction::Now(response) = service.call(request) else {
        panic!("everything is there already");
    };
    let api::http::ResponseBody::Full(body) = response.body else {
        panic!("a list is no stream");
    };
    let shown: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
    let shown: Vec<&str> = shown
        .iter()
        .map(|node| node["Node"].as_str().unwrap())
        .collect();
    let mut expected: Vec<usize> = (0..300).collect();
    expected.sort_by_key(|&number| place(number).unwrap_or(usize::MAX));
    let expected: Vec<&str> = expected.iter().map(|&number| &*names[number]).collect();
    assert_eq!(shown, expected);
    let asked = fake.asked();
    assert!(
        matches!(
            asked.as_slice(),
            [_, Asked::Read(Question::CoordinateNodes(_), _)]
        ),
        "{asked:?}"
    );
}
