//! Mix_StreamV2, judged by decoded pictures.

use linkmic::probe::player::Watch;
use linkmic::probe::process::poll;
use linkmic::probe::publisher::Show;
use linkmic::probe::{Colour, Player, Region, Size};
use serde_json::{Value, json};

use super::{Legacy, account};
use crate::edge::SOON;
use crate::studio::{Studio, advances};

const CANVAS: Size = Size::new(400, 640);
/// Where the sub is put, in pixels and then in shares.
const BELOW: Region = Region {
    x: 300,
    y: 480,
    width: 100,
    height: 150,
};
const ABOVE: Region = Region {
    x: 300,
    y: 0,
    width: 100,
    height: 150,
};

impl Legacy {
    pub async fn mix(&self, para: Value) -> Value {
        let body = json!({
            "timestamp": 1_490_079_362, "eventid": "1490079362",
            "interface": {"interfaceName": "Mix_StreamV2", "para": para},
        });
        let path = Self::path("mix_streamv2.start_mix_stream_advanced", "");
        let answer = self.0.post(&path, &body).await.expect("an answer");
        assert_eq!(answer.status, 200);
        assert!(answer.body.ends_with("}\n"), "{}", answer.body);
        let answer = answer.json();
        assert_eq!(answer["event_id"], "1490079362");
        answer
    }
}

pub fn start(inputs: Value) -> Value {
    json!({
        "app_id": "", "interface": "mix_streamv2.start_mix_stream_advanced",
        "mix_stream_session_id": "a", "output_stream_id": "a", "domain": "", "path": "",
        "input_stream_list": inputs,
    })
}

pub fn main() -> Value {
    json!({"input_stream_id": "a", "layout_params": {"image_layer": 1}})
}

pub fn sub(layout: Value) -> Value {
    let mut sub = json!({"input_stream_id": "b", "layout_params": {"image_layer": 2}});
    let fields = sub["layout_params"].as_object_mut().expect("an object");
    fields.extend(layout.as_object().expect("an object").clone());
    sub
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn section_2_5_a_session_is_started_moved_ended_and_started_again_in_place() {
    let studio = Studio::open_with(&account()).await;
    let legacy = Legacy::new(&studio.api);
    let show = Show {
        size: CANVAS,
        video_kbps: 500,
        ..Show::main(Colour::BLUE, 400.0)
    };
    let _a = studio.publish("a", &show).await;
    let below =
        json!({"location_x": 300, "location_y": 480, "image_width": 100, "image_height": 150});
    let both = start(json!([main(), sub(below)]));
    assert_eq!(
        legacy.mix(both.clone()).await["code"],
        -505,
        "b is not there"
    );
    // The end of what never was, as clients send it when a room is made.
    assert_eq!(legacy.mix(start(json!([main()]))).await["code"], 0);

    let red = Show {
        size: Size::new(320, 480),
        ..Show::sub(Colour::RED, 700.0)
    };
    let _b = studio.publish("b", &red).await;
    let watch = Watch {
        size: CANVAS,
        regions: vec![CANVAS.whole(), BELOW, ABOVE],
    };
    let mut viewer = Player::start(&studio.urls.plain("a"), watch)
        .await
        .expect("ffmpeg");
    advances(&mut viewer, 0, Colour::BLUE, 10).await;
    // Clients try again after 2 s; here as soon as the key frame is in.
    let mixed = poll("the mix taken", SOON, || async {
        let code = legacy.mix(both.clone()).await["code"].clone();
        assert!(code == 0 || code == -505, "{code}");
        (code == 0).then_some(())
    });
    mixed.await.expect("it is taken");
    advances(&mut viewer, 1, Colour::RED, 15).await;

    // 640 × 0.01 is as near to the top as a share comes: 6 pixels.
    let above = json!({"location_x": 0.75, "image_width": 0.25, "image_height": 150});
    let logo = json!({"input_stream_id": "logo", "layout_params": {"image_layer": 3, "input_type": 2, "picture_id": 10,
        "location_x": 20, "location_y": 20, "image_width": 60, "image_height": 100}});
    let moved = start(json!([main(), sub(above), logo]));
    assert_eq!(legacy.mix(moved.clone()).await["code"], 0);
    advances(&mut viewer, 2, Colour::RED, 15).await;

    let cancel = json!({
        "app_id": 1, "interface": "mix_streamv2.cancel_mix_stream", "mix_stream_session_id": "a", "output_stream_id": "a",
    });
    assert_eq!(legacy.mix(cancel.clone()).await["code"], 0);
    assert_eq!(legacy.mix(cancel).await["code"], -30_300);
    // At once again, while the viewers are still to be given back.
    assert_eq!(legacy.mix(both).await["code"], 0);
    advances(&mut viewer, 1, Colour::RED, 15).await;
    assert_eq!(legacy.mix(start(json!([main()]))).await["code"], 0);
    let over = poll("the mix gone", SOON, || async {
        let mixes = studio.api.get("/api/v1/mixes").await.ok()?.json();
        mixes["mixes"].as_array()?.is_empty().then_some(())
    });
    over.await.expect("it ends");
    viewer.look(|seen| assert_eq!(seen.errors, Vec::<String>::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn section_5_channel_calls_see_what_is_published() {
    let studio = Studio::open_with(&account()).await;
    let legacy = Legacy::new(&studio.api);
    let show = Show {
        size: CANVAS,
        video_kbps: 500,
        ..Show::main(Colour::BLUE, 400.0)
    };
    let _a = studio.publish("a", &show).await;
    let status = legacy
        .get("Live_Channel_GetStatus", "Param.s.channel_id=a")
        .await;
    let item = json!({"rate_type": 0, "recv_type": 1, "status": 1, "height": 640, "width": 400});
    assert_eq!(status["output"], json!([item]));
    let measured = poll("statistics", SOON, || async {
        let answer = legacy.get("Get_LiveStat", "Param.s.stream_id=a").await;
        let row = answer["output"]["stream_info"][0].clone();
        let told = row["fps"].as_u64()? > 0 && row["speed"].as_u64()? > 0;
        told.then_some(row)
    });
    let row = measured.await.expect("they are measured");
    assert_eq!(row["client_ip"], "127.0.0.1");
    assert!(
        (10..=40).contains(&row["fps"].as_u64().unwrap_or(0)),
        "{row}"
    );
}
