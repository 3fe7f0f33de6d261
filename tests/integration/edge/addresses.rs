//! Where in a URL the stream key and the signature may stand.

use linkmic::auth::Purpose;
use linkmic::probe::process::Process;
use linkmic::rtmp::kind;

use super::SOON;
use super::client::{Client, is_key_frame};
use super::clip::clip;
use super::house::{Hour, House};

/// A publisher's process, and a player of our own that has seen its first key frame: it was let in.
async fn is_played(house: &House, name: &str, publisher: &mut Process) {
    let mut player = Client::play(&house.urls.plain(name))
        .await
        .expect("granted");
    player.media_until(is_key_frame).await;
    publisher.kill().await;
}

fn ffmpeg(input: &std::path::Path, output: &[&str]) -> Process {
    let input = input.display().to_string();
    let mut arguments = vec![
        "-hide_banner",
        "-nostats",
        "-loglevel",
        "verbose",
        "-re",
        "-i",
        &input,
        "-c",
        "copy",
        "-f",
        "flv",
    ];
    arguments.extend(output);
    Process::spawn("ffmpeg", &arguments).unwrap_or_else(|e| panic!("{e}"))
}

fn spawn(program: &str, arguments: &[&str]) -> Process {
    Process::spawn(program, arguments).unwrap_or_else(|e| panic!("{e}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_signs_in_the_name_in_app_or_in_tc_url() {
    let house = House::open().await;
    let clip = clip().await;
    let base = format!("rtmp://{}", house.urls.rtmp());
    let query = |name| house.urls.query(Purpose::Push, name, Hour::Next);

    let url = house.urls.push("in-name");
    let mut publisher = ffmpeg(clip.path(), &[&url]);
    is_played(&house, "in-name", &mut publisher).await;

    // rtmp://host/live?query/name, as ffmpeg is told apart what is app and what is the name.
    let app = format!("live?{}", query("in-app"));
    let mut publisher = ffmpeg(
        clip.path(),
        &[
            "-rtmp_app",
            &app,
            "-rtmp_playpath",
            "in-app",
            &format!("{base}/live/x"),
        ],
    );
    is_played(&house, "in-app", &mut publisher).await;

    let tc_url = format!("{base}/live?{}", query("in-tcurl"));
    let mut publisher = ffmpeg(
        clip.path(),
        &[
            "-rtmp_app",
            "live",
            "-rtmp_playpath",
            "in-tcurl",
            "-rtmp_tcurl",
            &tc_url,
            &format!("{base}/live/x"),
        ],
    );
    is_played(&house, "in-tcurl", &mut publisher).await;

    // librtmp takes options behind the URL; GStreamer's element hands them on.
    let location = format!(
        "{base}/live?{query} playpath=in-librtmp app=live?{query}",
        query = query("in-librtmp")
    );
    let pipeline = format!(
        "filesrc location={} ! flvdemux name=d flvmux name=m streamable=true ! rtmpsink name=s \
         d.video ! queue ! h264parse ! m. d.audio ! queue ! aacparse ! m.",
        clip.path().display()
    );
    let location = format!("location={location}");
    let mut arguments = vec!["-q"];
    for word in pipeline.split_whitespace() {
        arguments.push(word);
        if word == "name=s" {
            arguments.push(&location);
        }
    }
    let mut publisher = spawn("gst-launch-1.0", &arguments);
    is_played(&house, "in-librtmp", &mut publisher).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_signs_in_the_name_in_app_or_in_tc_url() {
    // Viewers must sign here, so that whoever plays has had its signature found.
    let house = House::open_with(
        &format!(
            "play_keys = [{{ id = \"viewers\", secret = \"{}\", valid_for = \"1h\" }}]",
            super::house::PLAY_KEY
        ),
        "",
    )
    .await;
    let base = format!("rtmp://{}", house.urls.rtmp());
    let query = house.urls.query(Purpose::View, "a", Hour::Next);
    let mut publisher = Client::publish(&house.urls.push("a"))
        .await
        .expect("granted");
    let clip = clip().await;
    // Players join by the GOP start, whenever they come.
    for tag in clip.tags.iter().filter(|t| t.time < 900) {
        publisher.send_tag(tag, 0).await;
    }
    let refused = Client::play(&house.urls.plain("a")).await;
    assert!(refused.is_err(), "unsigned viewers are let in");

    let app = format!("live?{query}");
    let tc_url = format!("{base}/live?{query}");
    let in_name = house.urls.with("a", &query);
    let in_name_location = format!("location={in_name}");
    let plain = house.urls.plain("a");
    let out = ["-c", "copy", "-f", "null", "-"];
    let ffmpeg = |input: &[&'static str], values: &[&str]| {
        let mut arguments = vec!["-hide_banner", "-nostats", "-loglevel", "verbose"];
        for (option, value) in input.iter().zip(values) {
            arguments.extend([*option, *value]);
        }
        arguments.extend(out);
        spawn("ffmpeg", &arguments)
    };
    let players = [
        ("ffmpeg, name", ffmpeg(&["-i"], &[&in_name])),
        (
            "ffmpeg, app",
            ffmpeg(&["-rtmp_app", "-rtmp_playpath", "-i"], &[&app, "a", &plain]),
        ),
        (
            "ffmpeg, tcUrl",
            ffmpeg(
                &["-rtmp_app", "-rtmp_playpath", "-rtmp_tcurl", "-i"],
                &["live", "a", &tc_url, &plain],
            ),
        ),
        (
            "rtmpdump, name",
            spawn("rtmpdump", &["--live", "-r", &in_name, "-o", "/dev/null"]),
        ),
        (
            "rtmpdump, app and tcUrl",
            spawn(
                "rtmpdump",
                &[
                    "--live",
                    "-r",
                    &plain,
                    "--app",
                    &app,
                    "--tcUrl",
                    &tc_url,
                    "--playpath",
                    "a",
                    "-o",
                    "/dev/null",
                ],
            ),
        ),
        (
            "rtmpdump, tcUrl",
            spawn(
                "rtmpdump",
                &[
                    "--live",
                    "-r",
                    &plain,
                    "--tcUrl",
                    &tc_url,
                    "--playpath",
                    "a",
                    "-o",
                    "/dev/null",
                ],
            ),
        ),
        (
            "gstreamer, name",
            spawn(
                "gst-launch-1.0",
                &["-q", "rtmp2src", &in_name_location, "!", "fakesink"],
            ),
        ),
    ];
    // All are in, or this fails; then the end of the stream ends them, without an error.
    house.wait_for_viewers(players.len()).await;
    for tag in clip.tags.iter().filter(|t| (900..1_200).contains(&t.time)) {
        publisher.send_tag(tag, 0).await;
    }
    publisher
        .send(kind::VIDEO, 1_200, vec![0x17, 2, 0, 0, 0])
        .await;
    publisher.unpublish().await;
    for (name, mut process) in players {
        let status = process.end(SOON).await;
        let status = status.unwrap_or_else(|e| panic!("{name}: {e}"));
        // rtmpdump calls a live stream's end incomplete (2); 1 is its word for a refusal.
        let fine = status.success() || (name.starts_with("rtmpdump") && status.code() == Some(2));
        assert!(fine, "{name}: {status}\n{}", process.said());
    }
}
