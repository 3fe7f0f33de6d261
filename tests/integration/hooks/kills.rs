//! A server that is killed at random moments: whoever heard that he may publish is told of, from beginning to end.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use linkmic::probe::process::poll;
use serde_json::Value;

use super::receiver::{Receiver, Request};
use crate::edge::SOON;
use crate::edge::client::Client;
use crate::home::Home;

const CYCLES: u64 = 200;
const KILLS: usize = 20;
/// A kill comes so many milliseconds after the beginning of its cycle, at most.
const WITHIN: u64 = 25;

/// All of it, with a start of the server for each kill.
const AT_MOST: Duration = Duration::from_secs(90);

/// Servers that tell the back end of publishes, as an account and as a webhook.
fn home(back_end: &Receiver) -> Home {
    Home::without_mixes(&format!(
        "[[compat.accounts]]\nappid = 7\napi_key = \"0123456789abcdef\"\ncallback_url = \"{}\"\n\
         [[hooks.webhooks]]\nurl = \"{}\"\nsecret = \"0123456789abcdef\"\nevents = [\"publish\", \"unpublish\"]\n",
        back_end.url("/cb"),
        back_end.url("/hook"),
    ))
}

/// Numbers that a seed decides (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What one of the two addressees was told: by stream, in the order of their first coming, whether it begins and of which epoch.
fn told(requests: &[Request], path: &str) -> HashMap<String, Vec<(bool, String)>> {
    let mut seen = HashSet::new();
    let mut told: HashMap<String, Vec<_>> = HashMap::new();
    for json in requests.iter().filter(|r| r.path == path).map(|r| &r.json) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (stream, begins, sequence, id) = match path {
            "/hook" => {
                let sequence = text(&json["data"]["sequence"]);
                (
                    text(&json["stream"]),
                    json["type"] == "publish",
                    sequence,
                    text(&json["id"]),
                )
            }
            _ => {
                let sequence = text(&json["sequence"]);
                let id = format!("{sequence} {}", json["event_type"]);
                (
                    text(&json["stream_id"]),
                    json["event_type"] == 1,
                    sequence,
                    id,
                )
            }
        };
        // What comes twice has the same id.
        if seen.insert(id) {
            told.entry(stream).or_default().push((begins, sequence));
        }
    }
    told
}

/// Cycles by number, as the query of their URL tells, that begin and end, as far as they were told of.
fn cycles(requests: &[Request], event_type: u64) -> HashSet<u64> {
    let of = requests
        .iter()
        .filter(|r| r.json["event_type"] == event_type);
    let cycle = |r: &Request| {
        let (_, cycle) = r.json["stream_param"].as_str()?.split_once("&cycle=")?;
        cycle.parse().ok()
    };
    of.filter_map(cycle).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_in_two_hundred_publishes_lose_nothing_and_change_no_order() {
    let all = tokio::time::timeout(AT_MOST, kills());
    all.await.expect("it takes no longer");
}

async fn kills() {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock");
    let given = std::env::var("LINKMIC_SEED").ok();
    let seed = given.map_or(now.as_nanos() as u64 | 1, |seed| {
        seed.parse().expect("a number")
    });
    println!("LINKMIC_SEED={seed}");
    let mut chance = Chance(seed);
    let mut fatal = HashSet::new();
    while fatal.len() < KILLS {
        fatal.insert(chance.below(CYCLES));
    }
    let back_end = Receiver::open().await;
    let home = home(&back_end);
    let mut life = home.begin().await;
    let mut granted = HashSet::new();
    for cycle in 0..CYCLES {
        let name = ["a", "b"][chance.below(2) as usize];
        let url = format!("{}&cycle={cycle}", life.urls.push(name));
        let moment = Duration::from_millis(chance.below(WITHIN));
        let publish = async {
            let publisher = Client::publish_if_there(&url).await?;
            granted.insert(cycle);
            publisher.unpublish().await;
            Some(())
        };
        if fatal.contains(&cycle) {
            let kill = async {
                tokio::time::sleep(moment).await;
                life.process.kill().await;
            };
            tokio::join!(publish, kill);
            life = home.begin().await;
        } else {
            publish.await.expect("the server is there");
        }
    }
    println!("{} of {CYCLES} were granted", granted.len());
    assert!(granted.len() >= CYCLES as usize - KILLS);
    let all_told = |requests: &[Request]| {
        let (begun, ended) = (cycles(requests, 1), cycles(requests, 0));
        let whole = |path: &str| {
            let told = told(requests, path);
            let ends = |list: &Vec<(bool, String)>| list.last().is_some_and(|(begins, _)| !begins);
            told.values().all(ends)
        };
        let all = granted.is_subset(&begun) && begun == ended && whole("/cb") && whole("/hook");
        all.then(|| requests.to_vec())
    };
    let seen = poll("all of it told", SOON, || async {
        all_told(&back_end.requests())
    })
    .await;
    let requests = seen.unwrap_or_else(|error| {
        let requests = back_end.requests();
        let begun = cycles(&requests, 1);
        let lost: Vec<_> = granted.difference(&begun).collect();
        panic!(
            "{error}; LINKMIC_SEED={seed}, never told of: {lost:?}, {:?}",
            told(&requests, "/cb")
        );
    });
    let mut counts = Vec::new();
    for path in ["/cb", "/hook"] {
        let told = told(&requests, path);
        for (stream, letters) in &told {
            for pair in letters.chunks(2) {
                let [(true, begun), (false, ended)] = pair else {
                    panic!("{path} {stream}, LINKMIC_SEED={seed}: {pair:?} in {letters:?}");
                };
                assert_eq!(begun, ended, "{path} {stream}, LINKMIC_SEED={seed}");
            }
        }
        let kept: usize = told.values().map(Vec::len).sum();
        let came = requests.iter().filter(|r| r.path == path).count();
        counts.push((path, kept, came - kept));
    }
    println!("told, and told twice: {counts:?}");
    // Both were told of the same epochs.
    assert_eq!(counts[0].1, counts[1].1);
}
