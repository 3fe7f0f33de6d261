//! Each thing that can be looked at, as it is when it is well and when it is not.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::net::Precedence;

fn config() -> Config {
    Config::parse("[limits]\nconnections = 10000", "test", &Env::default()).unwrap()
}

#[test]
fn every_limit_has_its_states_and_advice_where_it_is_not_well() {
    use State::{Bad, Ok, Warn};
    let config = config();
    let dir = Path::new("/var/lib/linkmic");
    let (ms, gib) = (Duration::from_millis, 1_u64 << 30);
    for (finding, state) in [
        (host::files(&config, None), Ok),
        (host::files(&config, Some(65_536)), Ok),
        (host::files(&config, Some(4_096)), Warn),
        (host::files(&config, Some(512)), Bad),
        (host::threads(None), Ok),
        (host::threads(Some((30_000, "x"))), Ok),
        (host::threads(Some((300, "x"))), Warn),
        (host::threads(Some((20, "x"))), Bad),
        (host::synchronisation("yes", false), Ok),
        (host::synchronisation("", true), Ok),
        (host::synchronisation("no", false), Bad),
        (host::synchronisation("", false), Warn),
        (host::least("net.core.somaxconn", Some("4096\n")), Ok),
        (host::least("net.core.somaxconn", Some("128\n")), Warn),
        (host::least("net.core.somaxconn", None), Ok),
        (host::least("net.core.wmem_max", Some("212992")), Ok),
        (host::least("net.core.wmem_max", Some("65536")), Warn),
        (host::local_ports(Some("32768\t60999\n")), Ok),
        (host::local_ports(Some("50000\t50999\n")), Warn),
        (host::slices("6.12.43+deb13-amd64\n"), Ok),
        (host::slices("7.0.1"), Ok),
        (host::slices("6.1.0-9-amd64"), Warn),
        (host::precedence(true, Some(Precedence::Realtime)), Ok),
        (host::precedence(true, Some(Precedence::Weight)), Warn),
        (host::precedence(true, None), Warn),
        (host::precedence(false, Some(Precedence::Weight)), Ok),
        (host::precedence(false, None), Warn),
        (disk::speed(dir, ms(4)), Ok),
        (disk::speed(dir, ms(80)), Warn),
        (disk::speed(dir, ms(900)), Bad),
        (disk::room(20 * gib), Ok),
        (disk::room(gib / 2), Warn),
        (disk::room(1 << 20), Bad),
    ] {
        assert_eq!(finding.state, state, "{finding:?}");
        assert_eq!(finding.advice.is_some(), state != Ok, "{finding:?}");
    }
}

#[test]
fn advice_says_the_number_that_is_needed() {
    let finding = host::files(&config(), Some(4_096));
    let advice = finding.advice.unwrap();
    assert!(advice.contains("LimitNOFILE=10512"), "{advice}");
}

#[test]
fn who_listens_is_read_from_the_kernels_table() {
    let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
        0: 0100007F:078F 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n\
        1: 0100007F:078F 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0\n\
        2: 0100007F:0790 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0\n";
    // 0x78F is 1935; the second line is a connection.
    assert_eq!(ports::sockets(table, 1_935), ["4711"]);
    assert_eq!(ports::sockets(table, 80), [""; 0]);
}

#[test]
fn a_socket_unit_is_known_by_its_address_or_by_its_port_on_all() {
    let list = "0.0.0.0:1935    linkmic-rtmp.socket linkmic.service\n\
                127.0.0.1:1985  linkmic-control.socket linkmic.service\n\
                [::]:8080       linkmic-http.socket linkmic.service\n\
                /run/x          linkmic-other.socket linkmic.service\n";
    for (address, unit) in [
        ("0.0.0.0:1935", Some("linkmic-rtmp.socket")),
        ("192.0.2.7:1935", Some("linkmic-rtmp.socket")),
        ("127.0.0.1:1985", Some("linkmic-control.socket")),
        ("192.0.2.7:1985", None),
        ("0.0.0.0:1985", Some("linkmic-control.socket")),
        ("[::1]:8080", Some("linkmic-http.socket")),
        ("127.0.0.1:1936", None),
    ] {
        assert_eq!(
            ports::unit_at(list, address.parse().unwrap()),
            unit,
            "{address}"
        );
    }
    assert_eq!(ports::unit_at("", "127.0.0.1:1935".parse().unwrap()), None);
}

#[test]
fn a_finding_is_a_line_and_its_advice_one_more() {
    let finding =
        Finding::new("ports", "rtmp.listen 0.0.0.0:1935", State::Bad, "taken").advise("stop it");
    assert_eq!(
        shown(&finding),
        "bad   ports    rtmp.listen 0.0.0.0:1935: taken\n               -> stop it\n"
    );
}
