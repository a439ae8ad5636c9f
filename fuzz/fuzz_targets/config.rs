//! A configuration file, down to the settings and the definitions it makes, and what a reload would change.
#![no_main]

use std::net::Ipv4Addr;

use consul::config::host::{Host, Interface};
use consul::config::{decode, reload, settings};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // A machine that leaves nothing open, so that the configuration alone decides how far it comes.
    let host = Host {
        name: "n1".to_owned(),
        interfaces: vec![Interface {
            name: "eth0".to_owned(),
            address: Ipv4Addr::new(10, 0, 0, 1).into(),
        }],
    };
    let made = decode(bytes)
        .map_err(|why| why.to_string())
        .and_then(|document| settings::validate(&document, true, &host));
    if let Ok(made) = made {
        reload::differences(&made, &made);
    }
});
