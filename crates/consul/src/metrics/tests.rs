use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::sync::mpsc;

use metrics::Label;

use super::*;

/// Far longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(30);

fn at(second: i64) -> i64 {
    (1_479_796_420 + second) * 1000
}

fn quiet() -> Registry {
    Registry::start(&Telemetry::default()).unwrap()
}

fn note(registry: &Registry, kind: Kind, key: &Key, value: f64, second: i64) {
    let instrument = registry.instrument(kind, key).unwrap();
    instrument.note(value, at(second));
}

fn key(name: &'static str) -> Key {
    Key::from_static_name(name)
}

fn labelled(name: &str, label: &str, value: &str) -> Key {
    let label = Label::new(label.to_owned(), value.to_owned());
    Key::from_parts(name.to_owned(), vec![label])
}

#[test]
fn complete_intervals_are_shown_in_the_original_words() {
    let figures = quiet();
    let query = key("consul.rpc.query");
    let apply = key("consul.kvs.apply");
    note(
        &figures,
        Kind::Gauge,
        &key("runtime.num_goroutines"),
        60.0,
        0,
    );
    note(&figures, Kind::Counter, &query, 1.0, 1);
    note(&figures, Kind::Counter, &query, 1.0, 2);
    note(&figures, Kind::Sample, &apply, 1.0, 3);
    note(&figures, Kind::Sample, &apply, 3.0, 4);
    assert_eq!(figures.dump_at(at(5)), "", "it is not complete");
    let expected = "\
[2016-11-22 06:33:40 +0000 UTC][G] 'consul.runtime.num_goroutines': 60.000
[2016-11-22 06:33:40 +0000 UTC][C] 'consul.consul.rpc.query': Count: 2 Sum: 2.000 LastUpdated: 2016-11-22T06:33:42Z
[2016-11-22 06:33:40 +0000 UTC][S] 'consul.consul.kvs.apply': Count: 2 Min: 1.000 Mean: 2.000 Max: 3.000 Stddev: 1.414 Sum: 4.000 LastUpdated: 2016-11-22T06:33:44Z
";
    assert_eq!(figures.dump_at(at(10)), expected);
}

#[test]
fn a_minute_is_kept() {
    let figures = quiet();
    let counted = key("a");
    for second in 0..200 {
        note(&figures, Kind::Counter, &counted, 1.0, second);
    }
    let lines = figures.dump_at(at(200)).lines().count();
    assert_eq!(lines, instrument::INTERVALS_MAX - 1);
    // What has not been touched since is not shown for ever.
    assert_eq!(figures.dump_at(at(300)), "");
}

#[test]
fn the_last_interval_and_all_of_them() {
    let figures = quiet();
    let query = labelled("consul.health.service.query", "service", "web");
    let apply = key("raft.apply");
    for second in 0..25 {
        note(&figures, Kind::Counter, &query, 2.0, second);
    }
    note(&figures, Kind::Counter, &apply, 1.0, 0);
    note(&figures, Kind::Sample, &key("consul.kvs.apply"), 4.0, 12);
    note(&figures, Kind::Gauge, &key("runtime.alloc_bytes"), 7.0, 11);
    note(&figures, Kind::Gauge, &key("runtime.alloc_bytes"), 5.0, 12);
    let snapshot = figures.snapshot_at(at(25));
    assert_eq!(snapshot.timestamp, "2016-11-22 06:33:50 +0000 UTC");
    let labels = Labels::from([("service".to_owned(), "web".to_owned())]);
    let counted = |count: u64, sum: f64| Total {
        name: "consul.health.service.query".to_owned(),
        labels: labels.clone(),
        count,
        sum,
    };
    let [recent] = &snapshot.counters[..] else {
        panic!("{snapshot:?}");
    };
    assert_eq!((recent.count, recent.sum), (10, 20.0));
    assert_eq!((recent.rate, recent.mean), (2.0, 2.0));
    assert_eq!(recent.labels, labels);
    assert_eq!(snapshot.gauges[0].value, 5.0);
    assert_eq!(snapshot.samples[0].name, "consul.kvs.apply");
    let names: Vec<&str> = snapshot
        .totals
        .counters
        .iter()
        .map(|total| total.name.as_str())
        .collect();
    assert_eq!(names, ["consul.health.service.query", "consul.raft.apply"]);
    assert_eq!(snapshot.totals.counters[0], counted(25, 50.0));
}

/// What Prometheus needs: whatever is scraped when, counts and sums never fall, and nothing is counted twice or not at all.
#[test]
fn totals_never_fall() {
    let figures = quiet();
    let (counted, timed) = (key("a"), key("b"));
    let (mut before, mut sum) = ((0, 0.0), 0.0);
    for second in 0..500 {
        // The wall clock may be put back.
        let second = if second > 250 { second - 200 } else { second };
        note(&figures, Kind::Counter, &counted, 3.0, second);
        note(&figures, Kind::Sample, &timed, 0.5, second);
        sum += 3.0;
        let totals = figures.snapshot_at(at(second)).totals;
        let now = (totals.samples[0].count, totals.samples[0].sum);
        assert!(now.0 > before.0 && now.1 > before.1, "{now:?} {before:?}");
        assert_eq!(totals.counters[0].sum, sum);
        before = now;
    }
}

#[test]
fn names_that_users_make_are_bounded() {
    let figures = quiet();
    let names =
        || (0..2 * LABELLED_MAX).map(|number| labelled("q", "service", &number.to_string()));
    let kept = names().filter(|key| figures.instrument(Kind::Counter, key).is_some());
    // Nobody has used them, so room is found once in this interval, and perhaps once more in the next one.
    let kept = kept.count();
    assert!((LABELLED_MAX..=2 * LABELLED_MAX).contains(&kept), "{kept}");
    assert!(figures.instruments().labelled <= LABELLED_MAX);
    assert!(figures.instrument(Kind::Counter, &key("own")).is_some());

    let mut instruments = figures.instruments();
    let current = interval(now_ms()) + 1;
    let newcomer = labelled("q", "service", "new");
    assert!(instruments.has_room(&newcomer, current), "all are idle");
    assert_eq!(instruments.labelled, 0);
}

#[test]
fn a_handle_that_somebody_keeps_stays() {
    let figures = quiet();
    let mine = figures.instrument(Kind::Counter, &labelled("q", "s", "mine"));
    for number in 0..LABELLED_MAX {
        let _ = figures.instrument(Kind::Counter, &labelled("q", "s", &number.to_string()));
    }
    let current = interval(now_ms()) + 1;
    let newcomer = labelled("q", "s", "new");
    assert!(figures.instruments().has_room(&newcomer, current));
    let again = figures.instrument(Kind::Counter, &labelled("q", "s", "mine"));
    assert!(Arc::ptr_eq(&mine.unwrap(), &again.unwrap()));
}

#[test]
fn gauges_go_up_and_down_and_counters_up() {
    let figures = quiet();
    metrics::with_local_recorder(&figures, || {
        let gauge = metrics::gauge!("g");
        gauge.set(5.0);
        gauge.increment(2.0);
        gauge.decrement(4.0);
        let counter = metrics::counter!("c");
        counter.increment(2);
        counter.absolute(7);
        counter.absolute(3);
        metrics::histogram!("h").record(1.5);
    });
    let totals = figures.snapshot().totals;
    assert_eq!(totals.gauges[0].value, 3.0);
    assert_eq!(totals.counters[0].sum, 7.0);
    assert_eq!((totals.samples[0].count, totals.samples[0].sum), (1, 1.5));
}

/// The manual lists what the sources count and time, with its kind and labels, and nothing else.
#[test]
fn the_manual_lists_every_name() {
    const MANUAL: &str = include_str!("../../../../docs/telemetry.md");
    /// Names that are not written out where they are used.
    const MADE: [&str; 14] = [
        "consul.dns.domain_query.<node> sample –",
        "consul.dns.ptr_query.<node> sample –",
        "consul.http.<VERB>.<path> sample –",
        "consul.telemetry.lost counter –",
        "raft.state.follower counter –",
        "raft.state.leader counter –",
        "serf.events counter –",
        "serf.member.failed counter –",
        "serf.member.join counter –",
        "serf.member.leaving counter –",
        "serf.member.left counter –",
        "serf.member.reap counter –",
        "serf.member.update counter –",
        "serf.missed counter –",
    ];
    let listed: BTreeSet<String> = MANUAL
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let name = cells[0].strip_prefix('`')?.strip_suffix('`')?;
            let [kind, labels, _] = cells.get(1..)? else {
                return None;
            };
            Some(format!("{name} {kind} {labels}"))
        })
        .collect();
    let mut used: BTreeSet<String> = MADE.map(str::to_owned).into();
    let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for package in std::fs::read_dir(crates).unwrap() {
        sources(&package.unwrap().path().join("src"), &mut |text| {
            for (call, kind) in [
                ("counter!(", "counter"),
                ("gauge!(", "gauge"),
                ("histogram!(", "sample"),
            ] {
                for rest in text.split(call).skip(1) {
                    let ends = [").", ");", "),\n"];
                    let end = ends.iter().filter_map(|end| rest.find(end)).min();
                    let arguments = &rest[..end.unwrap_or(rest.len())];
                    let mut quoted = arguments.trim_start().split('"');
                    if quoted.next() != Some("") {
                        continue;
                    }
                    let name = quoted.next().unwrap();
                    let parts = arguments.rsplit(" =>").skip(1);
                    let mut labels: Vec<&str> = parts
                        .filter_map(|part| part.trim_end_matches('"').rsplit('"').next())
                        .collect();
                    labels.reverse();
                    let labels = if labels.is_empty() {
                        "–".to_owned()
                    } else {
                        labels.join(", ")
                    };
                    used.insert(format!("{name} {kind} {labels}"));
                }
            }
        });
    }
    let missing: Vec<_> = used.difference(&listed).collect();
    let invented: Vec<_> = listed.difference(&used).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "missing: {missing:#?}, invented: {invented:#?}"
    );
}

/// Shows the text of each source that is not of tests alone.
fn sources(folder: &std::path::Path, show: &mut impl FnMut(&str)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, show);
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
            show(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// A registry that tells a socket of this test.
fn telling(telemetry: Telemetry) -> Registry {
    let telemetry = Telemetry {
        hostname: Some("host".to_owned()),
        ..telemetry
    };
    Registry::start_with(&telemetry, Duration::from_millis(1)).unwrap()
}

fn address(socket: std::net::SocketAddr) -> Option<Address> {
    Some(Address::parse(&socket.to_string()).unwrap())
}

fn udp() -> (UdpSocket, Option<Address>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let address = address(socket.local_addr().unwrap());
    (socket, address)
}

/// Datagrams until this many lines are there.
fn lines(socket: &UdpSocket, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.len() < count {
        let mut buffer = [0; 65536];
        let length = socket.recv(&mut buffer).unwrap();
        assert!(length <= 1400, "{length}");
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        lines.extend(text.lines().map(str::to_owned));
    }
    lines
}

fn one_of_each(figures: &Registry) {
    note(figures, Kind::Gauge, &key("runtime.alloc_bytes"), 1.5, 0);
    note(figures, Kind::Counter, &key("consul.rpc.query"), 2.0, 0);
    note(figures, Kind::Sample, &key("consul.kvs.apply"), 0.25, 0);
    let query = labelled("consul.catalog.service.query", "service", "my:web|1");
    note(figures, Kind::Counter, &query, 1.0, 0);
}

const AS_STATSD: [&str; 4] = [
    "consul.consul.catalog.service.query.my_web_1:1.000000|c",
    "consul.consul.kvs.apply:0.250000|ms",
    "consul.consul.rpc.query:2.000000|c",
    "consul.host.runtime.alloc_bytes:1.500000|g",
];

#[test]
fn several_are_told_at_a_time_each_in_its_form() {
    let (statsd, statsd_address) = udp();
    let (dogstatsd, dogstatsd_address) = udp();
    let statsite = TcpListener::bind("127.0.0.1:0").unwrap();
    let figures = telling(Telemetry {
        statsd: statsd_address,
        dogstatsd: dogstatsd_address,
        dogstatsd_tags: vec!["env:prod".to_owned(), "rack,7".to_owned()],
        statsite: address(statsite.local_addr().unwrap()),
        ..Telemetry::default()
    });
    one_of_each(&figures);
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    assert_eq!(sorted(lines(&statsd, 4)), AS_STATSD);
    let expected = [
        "consul.consul.catalog.service.query.my_web_1:1|c|#env:prod,rack_7",
        "consul.consul.kvs.apply:0.250000|ms|#env:prod,rack_7",
        "consul.consul.rpc.query:2|c|#env:prod,rack_7",
        "consul.runtime.alloc_bytes:1.500000|g|#env:prod,rack_7",
    ];
    assert_eq!(sorted(lines(&dogstatsd, 4)), expected);
    let (stream, _) = statsite.accept().unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let lines = BufReader::new(stream).lines().take(4);
    assert_eq!(sorted(lines.map(Result::unwrap).collect()), AS_STATSD);
    figures.finish();
}

#[test]
fn counts_are_added_up_and_nothing_is_lost_at_the_end() {
    let (statsd, statsd_address) = udp();
    let telemetry = Telemetry {
        statsd: statsd_address,
        prefix: "us".to_owned(),
        single_prefix: true,
        ..Telemetry::default()
    };
    // Nothing is sent before the end.
    let figures = Registry::start_with(&telemetry, DEADLINE).unwrap();
    for _ in 0..1000 {
        note(&figures, Kind::Counter, &key("consul.rpc.query"), 1.0, 0);
    }
    for number in 0..100 {
        note(
            &figures,
            Kind::Sample,
            &key("consul.kvs.apply"),
            f64::from(number),
            0,
        );
    }
    figures.finish();
    let told = lines(&statsd, 101);
    assert_eq!(told[0], "us.rpc.query:1000.000000|c");
    assert_eq!(told[100], "us.kvs.apply:99.000000|ms");
    // Later figures are still kept, and nobody waits for them to be told.
    note(&figures, Kind::Counter, &key("consul.rpc.query"), 1.0, 0);
    let totals = figures.snapshot_at(at(0)).totals;
    assert_eq!(totals.counters[0].sum, 1001.0);
}

#[test]
fn what_has_no_room_is_counted() {
    let (_statsd, statsd_address) = udp();
    let telemetry = Telemetry {
        statsd: statsd_address,
        ..Telemetry::default()
    };
    let figures = Registry::start_with(&telemetry, DEADLINE).unwrap();
    for _ in 0..40_000 {
        note(&figures, Kind::Sample, &key("consul.kvs.apply"), 1.0, 0);
    }
    let long = labelled("q", "service", &"x".repeat(2000));
    note(&figures, Kind::Counter, &long, 1.0, 0);
    figures.finish();
    let totals = figures.snapshot().totals;
    let lost = totals
        .counters
        .iter()
        .find(|total| total.name == "consul.telemetry.lost");
    assert!(lost.unwrap().sum >= 7232.0, "{lost:?}");
    assert_eq!(totals.samples[0].count, 40_000, "they are kept here");
}

#[test]
fn statsite_may_come_late_and_go() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap();
    let figures = telling(Telemetry {
        statsite: address(place),
        ..Telemetry::default()
    });
    let (told, hears) = mpsc::channel();
    std::thread::spawn(move || {
        // The first one hangs up after a line.
        for count in [1, usize::MAX] {
            let (stream, _) = listener.accept().unwrap();
            for line in BufReader::new(stream).lines().take(count) {
                if told.send(line.unwrap()).is_err() {
                    return;
                }
            }
        }
    });
    let apply = key("consul.kvs.apply");
    note(&figures, Kind::Sample, &apply, 1.0, 0);
    let first = hears.recv_timeout(DEADLINE).unwrap();
    assert_eq!(first, "consul.consul.kvs.apply:1.000000|ms");
    // Some are lost before this side notices; those after that arrive.
    let mut number = 2.0;
    let second = loop {
        note(&figures, Kind::Sample, &apply, number, 0);
        if let Ok(line) = hears.recv_timeout(Duration::from_millis(5))
            && line.contains("kvs.apply")
        {
            break line;
        }
        number += 1.0;
        assert!(number < 5000.0);
    };
    assert!(second.starts_with("consul.consul.kvs.apply:"), "{second}");
    figures.finish();
}

#[test]
fn nobody_waits_for_statsite_at_the_end() {
    // Nobody accepts, and once it is dropped nobody listens.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = address(listener.local_addr().unwrap());
    drop(listener);
    let figures = telling(Telemetry {
        statsite: place,
        ..Telemetry::default()
    });
    one_of_each(&figures);
    let began = std::time::Instant::now();
    figures.finish();
    assert!(began.elapsed() < DEADLINE);
}

#[test]
fn one_that_can_t_be_found_is_named() {
    let telemetry = Telemetry {
        statsd: Some(Address::parse("no-such-host.invalid:8125").unwrap()),
        ..Telemetry::default()
    };
    let why = Registry::start(&telemetry).unwrap_err();
    let expected = "telemetry.statsd_address: cannot find no-such-host.invalid:8125";
    assert_eq!(why.to_string(), expected);
    for wrong in ["", "host", "host:", ":8125", "host:0", "host:99999"] {
        assert!(Address::parse(wrong).is_err(), "{wrong}");
    }
}
