//! Plays the requests under `recorded/` to the real server: what clients send, character by character, and what they must
//! hear. README.md there has the form of a case and the table of what is where.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use linkmic::probe::http::Client;
use linkmic::probe::process::{Process, poll};
use linkmic::probe::publisher::Show;
use linkmic::probe::{Colour, Size};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{API_KEY, APPID, Legacy, SECRET_ID, SECRET_KEY, account};
use crate::edge::SOON;
use crate::edge::house::TOKEN;
use crate::studio::Studio;

/// One file.
#[derive(Debug)]
struct Case {
    file: String,
    /// The contract's paragraph and what the case is about.
    title: String,
    /// Sections of configuration of its own; empty: it is played to the common server.
    config: String,
    exchanges: Vec<Exchange>,
}

/// A request, and what is expected of the answer to it.
#[derive(Debug, Clone)]
struct Exchange {
    /// It is sent that often, with `{n}` counting from 0.
    times: usize,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
    status: u16,
    /// What of the answer's JSON must be there; `"*"` stands for anything.
    answer: Value,
}

impl Case {
    fn read(path: &Path) -> Self {
        let file = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = std::fs::read_to_string(path).expect("a readable case");
        let mut case = Self {
            title: String::new(),
            config: String::new(),
            exchanges: Vec::new(),
            file,
        };
        // Which of its parts a line belongs to.
        let mut answering = false;
        let mut times = 1;
        for line in text.lines() {
            if let Some(title) = line.strip_prefix("# ") {
                case.title += title;
            } else if let Some(config) = line.strip_prefix("with: ") {
                let _ = writeln!(case.config, "{config}");
            } else if let Some(count) = line.strip_prefix("times: ") {
                times = count.parse().expect("a number");
            } else if let Some(request) = line.strip_prefix("> ") {
                let (method, path) = request.split_once(' ').expect("a method and a path");
                answering = false;
                case.exchanges.push(Exchange {
                    times: std::mem::replace(&mut times, 1),
                    method: method.to_owned(),
                    path: path.to_owned(),
                    headers: Vec::new(),
                    body: String::new(),
                    status: 0,
                    answer: Value::Null,
                });
            } else if let Some(exchange) = case.exchanges.last_mut() {
                if let Some(status) = line.strip_prefix("< ") {
                    exchange.status = status.parse().expect("a status");
                    answering = true;
                } else if let Some(header) = line.strip_prefix(">> ") {
                    let (name, value) = header.split_once(": ").expect("a header");
                    exchange.headers.push((name.to_owned(), value.to_owned()));
                } else if answering && !line.is_empty() {
                    exchange.answer = serde_json::from_str(line)
                        .unwrap_or_else(|error| panic!("{}: {error}: {line}", case.file));
                } else if !answering {
                    exchange.body += line;
                }
            }
        }
        assert!(
            !case.title.is_empty() && !case.exchanges.is_empty(),
            "{}",
            case.file
        );
        for exchange in &case.exchanges {
            assert!(
                exchange.status >= 200,
                "{}: no answer is expected",
                case.file
            );
        }
        case
    }

    async fn play(&self, studio: &Studio) -> Result<(), String> {
        for (place, exchange) in self.exchanges.iter().enumerate() {
            for n in 0..exchange.times {
                let place = place + 1;
                let tell = |what: String| {
                    format!("{}, request {place}: {what}\n  {}", self.file, self.title)
                };
                exchange.play(studio, n).await.map_err(tell)?;
            }
        }
        Ok(())
    }
}

impl Exchange {
    async fn play(&self, studio: &Studio, n: usize) -> Result<(), String> {
        let before = mixes(&studio.api).await;
        // What is not live yet will be, and clients try again.
        let heard = poll("the expected answer", Duration::from_secs(20), || async {
            let (status, body) = self.send(studio, n).await;
            let heard: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
            let early = heard["code"] == -505 && self.answer["code"] != -505;
            (!early).then_some((status, body, heard))
        });
        let (status, body, heard) = heard.await.map_err(|error| error.to_string())?;
        let shown: String = body.chars().take(400).collect();
        if status != self.status {
            return Err(format!(
                "status {status} instead of {}: {shown}",
                self.status
            ));
        }
        if let Some(missing) = missing("", &self.answer, &heard) {
            return Err(format!("{missing} in {shown}"));
        }
        let refused = is_refusal(status, &heard);
        let after = mixes(&studio.api).await;
        if refused && before != after {
            return Err(format!("refused, and yet it changed {before} into {after}"));
        }
        Ok(())
    }

    async fn send(&self, studio: &Studio, n: usize) -> (u16, String) {
        let t = super::now() + 600;
        let fill = |text: &str| {
            let mut text = text
                .replace("{n}", &n.to_string())
                .replace("{appid}", &APPID.to_string());
            // {t} is ten minutes ahead, {t-700} as much in the past, and {sign} goes with whichever stands there.
            let mut time = t;
            if let Some(at) = text.find("{t") {
                let end = at + text[at..].find('}').expect("a brace that is closed");
                let shift: i64 = text[at + 2..end].parse().unwrap_or(0);
                time = time.saturating_add_signed(shift);
                text.replace_range(at..=end, &time.to_string());
            }
            text.replace("{sign}", &Legacy::sign(API_KEY, time))
        };
        let path = fill(&self.path);
        let mut headers: Vec<(String, String)> = self
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.replace("{token}", TOKEN)))
            .collect();
        let body = expand(&fill(&self.body));
        let signed = headers.iter().position(|(name, _)| name == "Sign-As");
        if let Some(at) = signed {
            let (_, how) = headers.remove(at);
            sign(&mut headers, &how, &self.method, &path, &body);
        }
        let address = match path.starts_with("/api/") {
            true => studio.api.address(),
            false => studio.compat(),
        };
        exchange(address, &self.method, &path, &headers, body.into_bytes()).await
    }
}

/// Was it refused, in any of the ways in which the forms say so?
fn is_refusal(status: u16, heard: &Value) -> bool {
    let failed = |field: &str| heard[field].as_i64().is_some_and(|code| code != 0);
    status >= 400
        || failed("code")
        || failed("ret")
        || failed("merge_code")
        || heard["Response"]["Error"].is_object()
}

/// What is expected and not there.
fn missing(at: &str, expected: &Value, heard: &Value) -> Option<String> {
    match (expected, heard) {
        (Value::String(any), heard) if any == "*" => heard.is_null().then(|| format!("no {at}")),
        (Value::String(part), Value::String(text)) if part.len() > 1 && part.ends_with('*') => {
            let part = &part[..part.len() - 1];
            (!text.starts_with(part)).then(|| format!("{at} is {text:?} instead of {part:?}…"))
        }
        (Value::Object(fields), Value::Object(_)) => fields
            .iter()
            .find_map(|(key, value)| missing(&format!("{at}.{key}"), value, &heard[key])),
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => items
            .iter()
            .zip(others)
            .find_map(|(item, other)| missing(&format!("{at}[]"), item, other)),
        (Value::Null, _) if at.is_empty() => None,
        (expected, heard) => {
            (expected != heard).then(|| format!("{at} is {heard} instead of {expected}"))
        }
    }
}

/// `{repeat 1000000 x}` in a body: what nobody wants to keep in a file.
fn expand(body: &str) -> String {
    let Some((before, rest)) = body.split_once("{repeat ") else {
        return body.to_owned();
    };
    let (inside, after) = rest.split_once('}').expect("a brace that is closed");
    let (count, what) = inside.split_once(' ').expect("a count and a text");
    let count = count.parse().expect("a number");
    // A brace cannot stand there itself.
    let what = what.replace("OPEN", "{");
    expand(&format!("{before}{}", what.repeat(count))) + &expand(after)
}

/// TC3-HMAC-SHA256, as its document says; `how` is `id key`, where empty ones are the account's, and seconds that the
/// clock is off by.
fn sign(headers: &mut Vec<(String, String)>, how: &str, method: &str, path: &str, body: &str) {
    let field = |name: &str| {
        how.split(' ')
            .find_map(|part| part.strip_prefix(name))
            .map(str::to_owned)
    };
    let id = field("id=").unwrap_or_else(|| SECRET_ID.to_owned());
    let key = field("key=").unwrap_or_else(|| SECRET_KEY.to_owned());
    let off: i64 = field("off=").map_or(0, |text| text.parse().expect("seconds"));
    let time = super::now().saturating_add_signed(off);
    let date = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + Duration::from_secs(time))
        .to_string();
    let date = &date[..10];
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let hash = |text: &str| hex(&Sha256::digest(text.as_bytes()));
    let mac = |key: &[u8], text: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("keys of any length");
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().to_vec()
    };
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let kind = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-type"))
        .map_or("application/json", |(_, value)| value);
    let canonical = format!(
        "{method}\n/\n{query}\ncontent-type:{kind}\nhost:live.test\n\ncontent-type;host\n{}",
        hash(body)
    );
    let scope = format!("{date}/live/tc3_request");
    let text = format!("TC3-HMAC-SHA256\n{time}\n{scope}\n{}", hash(&canonical));
    let key = mac(format!("TC3{key}").as_bytes(), date);
    let key = mac(&mac(&key, "live"), "tc3_request");
    let signature = hex(&mac(&key, &text));
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-type"))
    {
        headers.push(("Content-Type".into(), "application/json".into()));
    }
    headers.push(("X-TC-Timestamp".into(), time.to_string()));
    headers.push((
        "Authorization".into(),
        format!(
            "TC3-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders=content-type;host, Signature={signature}"
        ),
    ));
}

/// A request with exactly these headers; the answer's status and body.
async fn exchange(
    address: std::net::SocketAddr,
    method: &str,
    path: &str,
    headers: &[(String, String)],
    body: Vec<u8>,
) -> (u16, String) {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: live.test\r\nConnection: close\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let _ = write!(head, "Content-Length: {}\r\n\r\n", body.len());
    let socket = TcpStream::connect(address).await.expect("it listens");
    let (mut reads, mut writes) = socket.into_split();
    // A body that nobody wants is not taken to its end.
    let writing = tokio::spawn(async move {
        let _ = writes.write_all(head.as_bytes()).await;
        let _ = writes.write_all(&body).await;
        writes
    });
    let mut answer = Vec::new();
    let _ = reads.read_to_end(&mut answer).await;
    drop(writing.await);
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&*answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.unwrap_or(0), body.to_owned())
}

/// The mixes that do not end, in what of them a request can change.
async fn mixes(api: &Client) -> Value {
    let answer = api.get("/api/v1/mixes").await.expect("an answer").json();
    let mixes = answer["mixes"].as_array().cloned().unwrap_or_default();
    let mixes = mixes.iter().filter(|mix| mix["state"] != "ending");
    mixes
        .map(|mix| json!([mix["id"], mix["revision"], mix["output"]["stream"]]))
        .collect()
}

/// Ends what a case has left.
async fn clear(api: &Client) {
    let ended = poll("every mix to end", SOON, || async {
        let answer = api.get("/api/v1/mixes").await.ok()?.json();
        let mixes = answer["mixes"].as_array()?.clone();
        for mix in &mixes {
            let id = mix["id"].as_str()?;
            if mix["state"] != "ending" {
                api.delete(&format!("/api/v1/mixes/{id}")).await.ok()?;
            }
        }
        mixes.is_empty().then_some(())
    });
    ended.await.expect("they end");
}

/// What every case finds: a main of 400x640, a sub of 320x480, and a stream of sound alone.
struct Cast {
    _main: linkmic::probe::Publisher,
    _sub: linkmic::probe::Publisher,
    _sound: Process,
}

impl Cast {
    async fn enter(studio: &Studio) -> Self {
        let main = Show {
            size: Size::new(400, 640),
            video_kbps: 300,
            ..Show::main(Colour::BLUE, 400.0)
        };
        let main = studio.publish("8888_a", &main).await;
        let sub = studio
            .publish("8888_b", &Show::sub(Colour::RED, 700.0))
            .await;
        let url = studio.urls.push("8888_sound");
        let tone = "sine=frequency=500:sample_rate=48000";
        let arguments = [
            "-re", "-f", "lavfi", "-i", tone, "-c:a", "aac", "-f", "flv", &url,
        ];
        let sound = Process::spawn("ffmpeg", &arguments).expect("ffmpeg");
        let live = poll("the sound on air", SOON, || async {
            let path = "/api/v1/streams/live/8888_sound";
            let stream = studio.api.get(path).await.ok()?.json();
            stream["publisher"]["audio"].is_object().then_some(())
        });
        live.await.expect("it is heard");
        Self {
            _main: main,
            _sub: sub,
            _sound: sound,
        }
    }
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/compat/recorded");
    let files = std::fs::read_dir(folder).expect("the folder");
    let mut files: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "txt"));
    files.sort();
    files.iter().map(|file| Case::read(file)).collect()
}

/// `LINKMIC_RECORDED` plays only the cases whose file names have that in them.
fn chosen(own_server: bool) -> Vec<Case> {
    let only = std::env::var("LINKMIC_RECORDED").unwrap_or_default();
    let mut cases = cases();
    cases.retain(|case| case.file.contains(&only) && case.config.is_empty() != own_server);
    cases
}

/// One picture can be had, the other cannot. A line of `more` that begins with `[compat] ` is for the section that there is.
fn configuration(more: &str) -> String {
    let mut text = account();
    for line in more.lines() {
        text = match line.strip_prefix("[compat] ") {
            Some(own) => text.replacen("[compat]\n", &format!("[compat]\n{own}\n"), 1),
            None => text,
        };
    }
    let more = more.lines().filter(|line| !line.starts_with("[compat] "));
    let more: Vec<_> = more.collect();
    format!("{}\n{text}", more.join("\n"))
        .replace("pictures = {", "pictures = { 11 = \"/nowhere/at/all.png\",")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recorded_request_is_answered_as_the_contract_says() {
    let cases = chosen(false);
    let studio = Studio::open_with(&configuration("[mixer]\nbudget = 10000")).await;
    let _cast = Cast::enter(&studio).await;
    let mut failed = Vec::new();
    for case in &cases {
        match case.play(&studio).await {
            Ok(()) => println!("ok     {}: {}", case.file, case.title),
            Err(why) => {
                println!("FAILED {why}");
                failed.push(why);
            }
        }
        clear(&studio.api).await;
    }
    println!("{} of {} cases", cases.len() - failed.len(), cases.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_requests_to_servers_that_are_set_up_otherwise_are_answered_as_the_contract_says()
{
    for case in chosen(true) {
        let studio = Studio::open_with(&configuration(&case.config)).await;
        let _cast = Cast::enter(&studio).await;
        let played = case.play(&studio).await;
        played.unwrap_or_else(|why| panic!("FAILED {why}"));
        println!("ok     {}: {}", case.file, case.title);
    }
}

/// The contract's codes that a request can reach: each is in a case.
#[test]
fn every_code_of_the_contract_is_in_a_recorded_case() {
    let legacy = [
        0, -1, -2, -3, -4, -11, -20, -21, -28, -29, -33, -34, -41, -111, -300, -505, -507, -508,
        -10_031, -30_300, -31_003, -31_004, -40_001, -40_002, -40_003, -40_004,
    ];
    let v3 = [
        "AuthFailure.SignatureFailure",
        "AuthFailure.SignatureExpire",
        "AuthFailure.SecretIdNotFound",
        "AuthFailure.InvalidSecretId",
        "MissingParameter",
        "UnknownParameter",
        "InvalidAction",
        "NoSuchVersion",
        "RequestSizeLimitExceeded",
        "InvalidParameter",
        "InvalidParameter.OtherError",
        "InvalidParameter.InputNumLimitExceeded",
        "InvalidParameter.InvalidLayerParam",
        "InvalidParameter.TemplateNotMatchInputNum",
        "InvalidParameter.InvalidBackgroudResolution",
        "InvalidParameter.InvalidCropParam",
        "InvalidParameter.InvalidPictureID",
        "InvalidParameter.InvalidOutputType",
        "InvalidParameter.InvalidOutputStreamID",
        "InvalidParameter.SessionOutputStreamChanged",
        "InvalidParameter.InvalidBitrate",
        "FailedOperation.StreamNotExist",
        "FailedOperation.GetStreamResolutionError",
        "FailedOperation.GetPictureUrlError",
        "FailedOperation.ProcessMixError",
        "FailedOperation.CancelSessionNotExist",
    ];
    let cases = cases();
    let answers: Vec<&Value> = cases
        .iter()
        .flat_map(|case| &case.exchanges)
        .map(|exchange| &exchange.answer)
        .collect();
    for code in legacy {
        assert!(
            answers.iter().any(|answer| answer["code"] == code),
            "{code}"
        );
    }
    for code in v3 {
        let has = |answer: &&&Value| answer["Response"]["Error"]["Code"] == code;
        assert!(answers.iter().any(|answer| has(&answer)), "{code}");
    }
}
