//! OBS Studio, without hands: it plays a camera from us as a media source, and streams its scene to us.
//!
//! Needs `obs-studio` and `xvfb`, which are large: `./run obs` installs them and sets `LINKMIC_OBS`; without that
//! variable the test says that it was left out. Written for OBS Studio 29 of Debian 12.

use std::path::Path;
use std::time::{Duration, Instant};

use linkmic::probe::player::Watch;
use linkmic::probe::process::{Process, poll};
use linkmic::probe::publisher::Show;
use linkmic::probe::{Colour, Player, Publisher};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::house::House;

/// From its start until OBS streams and is seen: it draws its picture in software.
const OBS_SOON: Duration = Duration::from_secs(90);
/// Pictures of the camera that must come back through OBS in a row: 4 s.
const PICTURES: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn obs_studio_plays_from_us_and_streams_to_us() {
    if std::env::var_os("LINKMIC_OBS").is_none() {
        println!("left out: run it with ./run obs");
        return;
    }
    let house = House::open().await;
    let show = Show::sub(Colour::RED, 700.0);
    let _camera = Publisher::start(&house.urls.push("camera"), &show).expect("ffmpeg starts");
    let home = tempfile::tempdir().expect("a folder");
    let stream = house.urls.push("obs");
    let (server, key) = stream.rsplit_once('/').expect("a URL with a name");
    configure(home.path(), &show, &house.urls.plain("camera"), server, key);
    let (_display, number) = display().await;
    let mut obs = start(home.path(), &number);

    let url = house.urls.plain("obs");
    // OBS takes its time, more than a player waits for a stream.
    let mut player = poll("OBS to stream", OBS_SOON, || async {
        let granted = super::client::Client::play(&url).await.ok()?;
        drop(granted);
        Player::start(&url, Watch::whole(show.size)).await.ok()
    })
    .await
    .unwrap_or_else(|e| panic!("{e}\n{}", obs.said()));
    let begin = Instant::now();
    let (first, last) = player
        .until("the camera through OBS", OBS_SOON, |seen| {
            seen.hears(show.tone)
                .then(|| seen.advances(0, show.colour, begin, PICTURES))?
        })
        .await
        .unwrap_or_else(|e| panic!("{e}\n{}", obs.said()));
    println!("the camera's pictures {first} to {last}, through OBS and back");
    let errors = player.look(|seen| seen.errors.clone());
    assert_eq!(errors, [] as [String; 0], "what the player complained of");
    assert!(obs_runs(&mut obs), "OBS ended:\n{}", obs.said());
}

fn obs_runs(obs: &mut Process) -> bool {
    obs.ended().is_none()
}

/// A screen that nobody looks at, and its number.
async fn display() -> (Process, String) {
    let arguments = "-displayfd 1 -screen 0 800x600x24 -nolisten tcp";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let mut screen = Process::spawn("Xvfb", &arguments).expect("Xvfb starts");
    let said = screen.stdout().expect("its standard output");
    let mut number = String::new();
    let line = BufReader::new(said).read_line(&mut number).await;
    line.expect("the number of the display");
    assert!(!number.trim().is_empty(), "Xvfb: {}", screen.said());
    (screen, format!(":{}", number.trim()))
}

fn start(home: &Path, display: &str) -> Process {
    let mut arguments: Vec<String> = [
        ("HOME", home.display().to_string()),
        (
            "XDG_CONFIG_HOME",
            home.join(".config").display().to_string(),
        ),
        ("XDG_RUNTIME_DIR", home.join("run").display().to_string()),
        ("DISPLAY", display.to_owned()),
        ("QT_QPA_PLATFORM", "xcb".to_owned()),
        ("LIBGL_ALWAYS_SOFTWARE", "1".to_owned()),
    ]
    .map(|(name, value)| format!("{name}={value}"))
    .into();
    let obs = "obs --multi --startstreaming --disable-updater --disable-missing-files-check \
               --collection Untitled --profile Untitled --scene Scene";
    arguments.extend(obs.split_whitespace().map(str::to_owned));
    Process::spawn("env", &arguments).expect("OBS starts")
}

/// Writes what OBS would have asked for: no first-run wizard, no questions, x264, our server, one scene.
fn configure(home: &Path, show: &Show, camera: &str, server: &str, key: &str) {
    let config = home.join(".config/obs-studio");
    let profile = config.join("basic/profiles/Untitled");
    let scenes = config.join("basic/scenes");
    for folder in [&profile, &scenes, &home.join("run")] {
        std::fs::create_dir_all(folder).expect("a folder");
    }
    let write = |file: &Path, text: String| std::fs::write(file, text).expect("a file");
    write(
        &config.join("global.ini"),
        "[General]\nFirstRun=true\nLastVersion=486539267\nEnableAutoUpdates=false\n\
         Pre19Defaults=false\nPre21Defaults=false\nPre23Defaults=false\nPre24.1Defaults=false\n\
         [Basic]\nProfile=Untitled\nProfileDir=Untitled\nSceneCollection=Untitled\n\
         SceneCollectionFile=Untitled\nConfigOnNewProfile=false\n\
         [BasicWindow]\nWarnBeforeStartingStream=false\nSysTrayEnabled=false\n"
            .to_owned(),
    );
    let (width, height, fps) = (show.size.width, show.size.height, show.fps);
    write(
        &profile.join("basic.ini"),
        format!(
            "[General]\nName=Untitled\n[Output]\nMode=Simple\nReconnect=false\n\
             [SimpleOutput]\nVBitrate=800\nABitrate=96\nStreamEncoder=x264\nPreset=ultrafast\n\
             UseAdvanced=true\nx264Settings=keyint={fps} tune=zerolatency\n\
             [Video]\nBaseCX={width}\nBaseCY={height}\nOutputCX={width}\nOutputCY={height}\n\
             FPSType=1\nFPSInt={fps}\n[Audio]\nSampleRate=48000\nChannelSetup=Stereo\n"
        ),
    );
    let service = serde_json::json!({
        "type": "rtmp_custom",
        "settings": { "server": server, "key": key, "use_auth": false, "bwtest": false },
    });
    write(&profile.join("service.json"), service.to_string());
    let scene = serde_json::json!({
        "name": "Untitled",
        "current_scene": "Scene",
        "current_program_scene": "Scene",
        "scene_order": [{ "name": "Scene" }],
        "sources": [
            {
                "id": "ffmpeg_source", "versioned_id": "ffmpeg_source", "name": "Camera", "mixers": 255,
                "settings": { "is_local_file": false, "input": camera, "buffering_mb": 0, "reconnect_delay_sec": 1 },
            },
            {
                "id": "scene", "versioned_id": "scene", "name": "Scene",
                "settings": { "id_counter": 1, "items": [{
                    "name": "Camera", "id": 1, "visible": true, "align": 5, "rot": 0.0,
                    "pos": { "x": 0.0, "y": 0.0 }, "scale": { "x": 1.0, "y": 1.0 },
                }] },
            },
        ],
    });
    write(&scenes.join("Untitled.json"), scene.to_string());
}
