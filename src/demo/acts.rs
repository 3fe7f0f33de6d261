//! The play, act by act, and how each is judged: by pictures and sound that a stranger received.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cast::{APP, CANVAS};
use super::report::Report;
use super::stage::{Stage, unexpected};
use crate::probe::nginx::Nginx;
use crate::probe::player::Watch;
use crate::probe::{Error, Player, Publisher, record};

/// For anything to be seen: generous, because two cores may be busy with something else.
const SOON: Duration = Duration::from_secs(40);
/// Pictures that have to be right in a row: two seconds of the main's.
const PICTURES: usize = 40;
/// How long latencies are collected.
const MEASURED: Duration = Duration::from_secs(4);
const MIX: &str = "/api/v1/mixes/demo";
const PUSH: &str = "/api/v1/pushes/demo-cdn";

/// A step's value and what was seen; or why not.
type Outcome<T> = Result<(T, String), Error>;

/// Everything up to the running mix.
pub async fn play(stage: &mut Stage, out: &Path, report: &mut Report) {
    report.doing("four ffmpeg publish over signed URLs");
    let published = publish(stage).await;
    if report.step("publishing", published).is_none() {
        // Nothing below could work.
        return;
    }
    report.doing("A and B pull each other's low-latency address");
    let peers = peers(stage).await;
    report.step("peers", peers);
    report.doing("a viewer plays A's public address");
    let viewer = viewer(stage).await;
    report.step("viewer", viewer);
    report.doing("nginx stands in for the CDN");
    let cdn = push(stage, out).await;
    report.step("push", cdn);
    report.doing("PUT a 1+3 mix, in place");
    let mixed = mix(stage).await;
    if report.step("mix", mixed).is_none() {
        return;
    }
    let heard = tones(stage).await;
    report.step("sound", heard);
    report.doing("measuring the mix");
    let latency = mix_latency(stage).await;
    report.step("latency of the mix", latency);
    let raw = peers_unmixed(stage);
    report.step("peers meanwhile", raw);
    report.doing("pulling the mix from the CDN");
    let arrived = at_the_cdn(stage).await;
    report.step("CDN", arrived);
    let picture = picture(stage, out).await;
    report.step("picture", picture);
    report.doing("recording what viewers get");
    let recorded = recording(stage, out).await;
    report.step("recording", recorded);
    let unbroken = unbroken(stage);
    report.step("viewer's connection", unbroken);
}

/// The mix ends; the viewer sees A alone again, on the connection that it had from the beginning.
pub async fn end_of_mix(stage: &mut Stage, report: &mut Report) {
    if stage.viewer.is_none() {
        return;
    }
    report.doing("DELETE the mix");
    let ended = end(stage).await;
    report.step("end of the mix", ended);
    let unbroken = unbroken(stage);
    report.step("viewer's connection", unbroken);
}

async fn publish(stage: &mut Stage) -> Outcome<()> {
    for anchor in stage.anchors.clone() {
        let url = stage.signed_url("push", anchor.stream).await?;
        stage.publishers.push(Publisher::start(&url, &anchor.show)?);
    }
    let mut seen = Vec::new();
    for (index, anchor) in stage.anchors.iter().enumerate() {
        let path = format!("/api/v1/streams/{APP}/{}", anchor.stream);
        let codecs = |publisher: &Value| {
            let codec = |kind: &str| publisher[kind]["codec"].as_str().map(str::to_owned);
            Some(format!("{}+{}", codec("video")?, codec("audio")?))
        };
        let live = stage
            .api_until(&format!("{} on air", anchor.name), &path, SOON, |answer| {
                codecs(&answer.json()["publisher"])
            })
            .await;
        match live {
            Ok(codecs) => {
                let show = &anchor.show;
                seen.push(format!(
                    "{} {}×{}@{} {} Hz {codecs}",
                    anchor.name, show.size.width, show.size.height, show.fps, show.tone
                ));
            }
            Err(deadline) => {
                // ffmpeg's own words say more than that nothing came.
                stage.publishers[index].check()?;
                return Err(deadline);
            }
        }
    }
    Ok(((), seen.join(", ")))
}

async fn peers(stage: &mut Stage) -> Outcome<()> {
    let (a, b) = (stage.anchors[0].clone(), stage.anchors[1].clone());
    let of_a = Watch {
        size: a.show.size,
        // B's place in the mix is looked at later: nothing may ever be mixed in here.
        regions: vec![a.show.size.whole(), b.place],
    };
    let of_b = Watch::whole(b.show.size);
    for (anchor, watch) in [(&a, of_a), (&b, of_b)] {
        let url = stage.signed_url("peer", anchor.stream).await?;
        stage.peers.push(Player::start(&url, watch).await?);
    }
    let mut seen = Vec::new();
    for (index, anchor) in [a, b].iter().enumerate() {
        let player = &mut stage.peers[index];
        let began = Instant::now();
        player
            .until("the other's numbered pictures and tone", SOON, |seen| {
                let advanced = seen.advances(0, anchor.show.colour, began, PICTURES);
                (advanced.is_some() && seen.hears(anchor.show.tone)).then_some(())
            })
            .await?;
    }
    let since = Instant::now();
    tokio::time::sleep(MEASURED).await;
    for (index, who) in ["B sees A", "A sees B"].iter().enumerate() {
        let latencies = stage.peers[index].latencies(&stage.publishers[index], 0, since);
        if latencies.is_empty() {
            return Err(Error::Wrong(format!("{who}: no picture could be read")));
        }
        seen.push(format!("{who} {latencies}"));
    }
    Ok(((), format!("camera to screen: {}", seen.join("; "))))
}

async fn viewer(stage: &mut Stage) -> Outcome<()> {
    let watch = Watch {
        size: CANVAS,
        regions: stage.anchors.iter().map(|anchor| anchor.place).collect(),
    };
    let main = stage.anchors[0].show.clone();
    let mut viewer = Player::start(&stage.viewer_url(0), watch).await?;
    let began = Instant::now();
    let (first, last) = viewer
        .until("A's numbered pictures", SOON, |seen| {
            let advanced = seen.advances(0, main.colour, began, PICTURES)?;
            (seen.hears(main.tone)).then_some(advanced)
        })
        .await?;
    stage.viewer = Some(viewer);
    Ok((
        (),
        format!("A alone, frames {first} to {last}, its tone only"),
    ))
}

async fn push(stage: &mut Stage, out: &Path) -> Outcome<()> {
    let folder = out.join("cdn");
    std::fs::create_dir_all(&folder)
        .map_err(|e| Error::io(format!("cannot make {}", folder.display()), e))?;
    let cdn = Nginx::start(&folder).await?;
    let main = stage.anchors[0].stream;
    let body = json!({"app": APP, "stream": main, "feed": "program", "url": cdn.url(main)});
    let shown = cdn.url(main);
    stage.cdn = Some(cdn);
    stage.put(PUSH, &body).await?;
    stage
        .api_until("the push live", PUSH, SOON, |answer| {
            let push = answer.json();
            (push["state"] == "live" && push["bytes"].as_u64()? > 0).then_some(())
        })
        .await?;
    Ok(((), format!("A's program feed goes to {shown}")))
}

async fn mix(stage: &mut Stage) -> Outcome<()> {
    // No places given: the official linkmic layout.
    let inputs: Vec<Value> = stage
        .anchors
        .iter()
        .zip(1..)
        .map(|(anchor, layer)| json!({"stream": anchor.stream, "layer": layer}))
        .collect();
    let main = &stage.anchors[0];
    let body = json!({
        "app": APP,
        "inputs": inputs,
        "output": {"stream": main.stream, "width": CANVAS.width, "height": CANVAS.height, "fps": main.show.fps, "video_kbps": 900},
    });
    let asked = Instant::now();
    stage.put(MIX, &body).await?;
    let anchors = stage.anchors.clone();
    let viewer = present(&mut stage.viewer)?;
    let numbers = viewer
        .until("all four anchors in their places, moving", SOON, |seen| {
            anchors
                .iter()
                .enumerate()
                .map(|(region, anchor)| {
                    let pictures =
                        PICTURES * anchor.show.fps as usize / anchors[0].show.fps as usize;
                    let (first, last) =
                        seen.advances(region, anchor.show.colour, asked, pictures)?;
                    let colour = anchor.show.colour.name().unwrap_or_default();
                    Some(format!("{} {colour} {first}→{last}", anchor.name))
                })
                .collect::<Option<Vec<_>>>()
        })
        .await?;
    let shown = viewer.look(|seen| {
        seen.sightings
            .iter()
            .filter(|s| s.at >= asked && s.readings[1..].iter().all(|r| r.counter.is_some()))
            .map(|s| s.at)
            .next()
    });
    let after = shown.map_or(0, |at| at.duration_since(asked).as_millis());
    Ok((
        (),
        format!(
            "the viewer sees {}; {after} ms after the request",
            numbers.join(", ")
        ),
    ))
}

async fn tones(stage: &mut Stage) -> Outcome<()> {
    let tones = stage.anchors.clone().map(|anchor| anchor.show.tone);
    let viewer = present(&mut stage.viewer)?;
    viewer
        .until("all four tones", SOON, |seen| {
            tones.iter().all(|tone| seen.hears(*tone)).then_some(())
        })
        .await?;
    Ok((
        (),
        format!(
            "the viewer hears {} Hz at once",
            tones.map(|t| t.to_string()).join(", ")
        ),
    ))
}

async fn mix_latency(stage: &mut Stage) -> Outcome<()> {
    let since = Instant::now();
    tokio::time::sleep(MEASURED).await;
    let viewer = present(&mut stage.viewer)?;
    let total = viewer.latencies(&stage.publishers[0], 0, since);
    let sub = viewer.latencies(&stage.publishers[1], 1, since);
    let unmixed = stage
        .peers
        .first()
        .map(|peer| peer.latencies(&stage.publishers[0], 0, since))
        .unwrap_or_default();
    match (total.percentile(50), unmixed.percentile(50)) {
        (Some(mixed), Some(direct)) => Ok((
            (),
            format!(
                "A through the mix {total}, beside it without the mix {unmixed}: the mix adds {} ms; B through the mix {sub}",
                mixed.as_millis() as i128 - direct.as_millis() as i128
            ),
        )),
        _ => Err(Error::Wrong(
            "no picture could be read on both paths".into(),
        )),
    }
}

fn peers_unmixed(stage: &mut Stage) -> Outcome<()> {
    let colour = stage.anchors[0].show.colour.name();
    let peer = stage
        .peers
        .first()
        .ok_or_else(|| Error::Wrong("no peer plays".into()))?;
    let place = peer.look(|seen| seen.sightings.back().map(|s| s.readings[1].colour));
    if place.and_then(|colour| colour.name()) == colour {
        Ok(((), "B still sees A alone, without itself".to_owned()))
    } else {
        Err(Error::Wrong(format!(
            "where B stands in the mix, the peer sees {place:?}"
        )))
    }
}

async fn at_the_cdn(stage: &mut Stage) -> Outcome<()> {
    let cdn = stage
        .cdn
        .as_ref()
        .ok_or_else(|| Error::Wrong("no CDN runs".into()))?;
    let watch = Watch {
        size: CANVAS,
        regions: stage.anchors.iter().map(|anchor| anchor.place).collect(),
    };
    let began = Instant::now();
    let mut player = Player::start(&cdn.url(stage.anchors[0].stream), watch).await?;
    let anchors = &stage.anchors;
    player
        .until("the mix, pulled from nginx", SOON, |seen| {
            let regions = anchors.iter().enumerate();
            let mut all =
                regions.map(|(r, a)| seen.advances(r, a.show.colour, began, PICTURES / 2));
            all.all(|advanced| advanced.is_some()).then_some(())
        })
        .await?;
    let push = stage.api.get(PUSH).await?.json();
    Ok((
        (),
        format!(
            "nginx hands out the mix; {} kB pushed over {} connection(s)",
            push["bytes"].as_u64().unwrap_or(0) / 1000,
            push["connects"]
        ),
    ))
}

async fn picture(stage: &mut Stage, out: &Path) -> Outcome<()> {
    let path = out.join("mix.png");
    let viewer = present(&mut stage.viewer)?;
    let frame = viewer.look(|seen| seen.picture.clone());
    record::png(&path, &frame, viewer.size()).await?;
    Ok(((), path.display().to_string()))
}

async fn recording(stage: &mut Stage, out: &Path) -> Outcome<()> {
    let path = out.join("program.flv");
    let length = Duration::from_secs(5);
    let tags = record::recording(&stage.viewer_url(0), length, &path).await?;
    let frames = tags.iter().filter(|tag| tag.kind == 9 && tag.is_media());
    let first = frames.clone().next();
    if !first.is_some_and(|tag| tag.is_key_frame()) {
        return Err(Error::Wrong(
            "the recording does not begin with a key frame".into(),
        ));
    }
    Ok((
        (),
        format!(
            "{}, {} pictures from a key frame on",
            path.display(),
            frames.count()
        ),
    ))
}

/// The viewer that came first still plays, decoded without an error, and time never ran back.
fn unbroken(stage: &mut Stage) -> Outcome<()> {
    let viewer = present(&mut stage.viewer)?;
    if !viewer.is_playing() {
        return Err(Error::Wrong("the viewer's ffmpeg has ended".into()));
    }
    viewer.look(|seen| {
        if !seen.errors.is_empty() {
            return Err(Error::Wrong(seen.errors.join("\n")));
        }
        let times: Vec<i64> = seen.sightings.iter().filter_map(|s| s.pts).collect();
        match times.windows(2).find(|pair| pair[1] <= pair[0]) {
            Some(pair) => Err(Error::Wrong(format!(
                "time went from {} to {} ms",
                pair[0], pair[1]
            ))),
            None => Ok((
                (),
                format!(
                    "one from the beginning, {} pictures, no decoding error",
                    seen.total
                ),
            )),
        }
    })
}

async fn end(stage: &mut Stage) -> Outcome<()> {
    let asked = Instant::now();
    let answer = stage.api.delete(MIX).await?;
    if answer.status != 202 {
        return Err(unexpected("DELETE of the mix", &answer));
    }
    stage
        .api_until("the mix gone", MIX, SOON, |answer| {
            (answer.status == 404).then_some(())
        })
        .await?;
    let main = stage.anchors[0].show.clone();
    let viewer = present(&mut stage.viewer)?;
    viewer
        .until("A alone", SOON, |seen| {
            let newest = seen.sightings.back()?;
            let alone = newest.readings[1..]
                .iter()
                .all(|r| r.colour.name() == main.colour.name());
            let moving = seen.advances(0, main.colour, asked, PICTURES).is_some();
            (alone && moving).then_some(())
        })
        .await?;
    Ok(((), "the viewer sees A alone again".to_owned()))
}

fn present(viewer: &mut Option<Player>) -> Result<&mut Player, Error> {
    viewer
        .as_mut()
        .ok_or_else(|| Error::Wrong("no viewer plays".into()))
}
