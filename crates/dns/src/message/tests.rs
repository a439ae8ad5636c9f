use super::*;

fn request(name: &str) -> Request {
    Request {
        id: 7,
        recursion_desired: true,
        checking_disabled: false,
        authentic_data: false,
        question: Some(Question {
            name: Name::parse(name.as_bytes()).unwrap(),
            kind: kind::SRV,
            class: IN,
        }),
        extension: None,
    }
}

/// Many records whose names share ends in every way, some beyond what a reference reaches.
fn message(records: usize) -> Message {
    let mut message = Message::of(Outcome::Found);
    for n in 0..records {
        let name = |text: String| Name::parse(text.as_bytes()).unwrap();
        let target = name(format!("n{}.node.dc{}.consul", n % 700, n % 3));
        message.answers.push(Record {
            name: name("web.service.consul".to_owned()),
            ttl: 5,
            data: Data::Port {
                port: 80,
                target: target.clone(),
            },
        });
        message.additional.push(Record {
            name: target,
            ttl: 5,
            data: Data::Alias(name(format!("x{n}.WEB.service.consul"))),
        });
    }
    message
}

#[test]
fn another_reader_reads_what_is_written() {
    let request = request("web.service.consul");
    for records in [0, 1, 2, 10, 100, 1000] {
        let mut sizes = Vec::new();
        for compression in [false, true] {
            let style = Style {
                recursion_available: false,
                compression,
            };
            let message = message(records);
            let bytes = write(&request, &message, style);
            sizes.push(bytes.len());
            let plain: usize = [&message.answers, &message.additional]
                .into_iter()
                .flatten()
                .map(Record::size)
                .sum();
            assert!(compression || bytes.len() == overhead(&request) + plain);
            let read = Received::from_vec(&bytes).unwrap();
            for (records, written) in [
                (&read.answers, &message.answers),
                (&read.additionals, &message.additional),
            ] {
                assert_eq!(records.len(), written.len());
                for (read, written) in records.iter().zip(written) {
                    assert_eq!(name(&read.name).unwrap(), written.name);
                    match (&read.data, &written.data) {
                        (RData::SRV(it), Data::Port { target, .. }) => {
                            assert_eq!(name(&it.target).unwrap(), *target);
                        }
                        (RData::CNAME(it), Data::Alias(target)) => {
                            assert_eq!(name(&it.0).unwrap(), *target);
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
        }
        assert!(sizes[1] <= sizes[0]);
    }
}

#[test]
fn what_is_too_long_is_cut() {
    let request = request("web.service.consul");
    let style = Style {
        recursion_available: false,
        compression: true,
    };
    for limit in [512, 1232, MESSAGE_MAX] {
        let bytes = encode(&request, message(3000), style, limit);
        assert!(bytes.len() <= limit);
        let read = Received::from_vec(&bytes).unwrap();
        assert!(read.metadata.truncation && !read.answers.is_empty());
    }
}
