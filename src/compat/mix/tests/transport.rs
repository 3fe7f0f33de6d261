//! Sections 2.1, 2.2 and 2.6: how real callers write, and what they are answered.

use super::*;

fn is_pair(bytes: &[u8]) {
    let (echo, call) = legacy::read(bytes);
    let Ok(Call::Start(ask)) = call else {
        panic!("{call:?} of {}", String::from_utf8_lossy(bytes));
    };
    assert_eq!((ask.session.as_str(), ask.inputs.len()), ("room_1", 2));
    assert_eq!(echo.answer(&Ok(()), 7)["event_id"], "1490079362");
}

#[test]
fn section_2_1_a_body_is_read_however_it_is_encoded() {
    let text = body(pair(), json!({"domain": "!'()*"})).to_string();
    is_pair(text.as_bytes());
    // Node's querystring of the official mini-program: five characters percent-encoded in the JSON text.
    let mut some = text.clone();
    for (plain, encoded) in [
        ("!", "%21"),
        ("'", "%27"),
        ("(", "%28"),
        (")", "%29"),
        ("*", "%2A"),
    ] {
        some = some.replace(plain, encoded);
    }
    is_pair(some.as_bytes());
    // Encoded as a whole, and as the only name of a form.
    let all: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
    is_pair(all.as_bytes());
    is_pair(format!("{all}=").as_bytes());
    is_pair(format!("{text}=").as_bytes());
    is_pair(format!("  {text}\r\n").as_bytes());
}

#[test]
fn section_2_1_the_event_is_known_by_either_spelling_and_any_type() {
    for (key, value, echoed) in [
        ("eventId", json!(840_471_172), "840471172"),
        ("eventid", json!(840_471_172), "840471172"),
        ("eventId", json!("840471172"), "840471172"),
        ("eventId", json!(15_271_402_380_i64), "15271402380"),
        ("eventId", json!(1_490_079_362.0), "1490079362"),
    ] {
        let mut body = body(pair(), json!({}));
        body.as_object_mut().unwrap().remove("eventId");
        body[key] = value;
        let (echo, call) = legacy::read(body.to_string().as_bytes());
        assert!(call.is_ok(), "{call:?}");
        assert_eq!(echo.answer(&Ok(()), 7)["event_id"], echoed);
    }
}

#[test]
fn section_2_1_keys_that_nobody_knows_and_any_app_id_are_taken() {
    for more in [
        json!({"domain": "", "path": ""}),
        json!({"app_id": "1251000001"}),
        json!({"app_id": ""}),
        json!({"app_id": 1_400_047_957}),
        json!({"app_id": null}),
        json!({"mix_stream_template_id": ""}),
        json!({"output_stream_type": "0"}),
    ] {
        assert!(judge(&body(pair(), more.clone())).is_ok(), "{more}");
    }
    let mut cancel = body(
        vec![],
        json!({"input_stream_list": null, "mix_stream_template_id": 0}),
    );
    cancel["interface"]["para"]["interface"] = json!("mix_streamv2.cancel_mix_stream");
    let read = legacy::read(cancel.to_string().as_bytes()).1;
    let wanted = Call::Cancel {
        session: "room_1".into(),
        output: Some(OUTPUT.into()),
    };
    assert_eq!(read, Ok(wanted));
}

#[test]
fn section_2_2_numbers_may_be_texts() {
    let as_numbers = scene(pair(), json!({"output_stream_bitrate": 800}));
    let texts = vec![
        input(OUTPUT, 1, json!({"image_layer": "1", "input_type": "0"})),
        input(
            "8888_b",
            2,
            json!({"location_x": "380", "location_y": "630", "image_width": "160", "image_height": "240"}),
        ),
    ];
    assert_eq!(
        scene(texts, json!({"output_stream_bitrate": "800"})),
        as_numbers
    );
}

#[test]
fn section_2_6_an_answer_has_the_captured_form() {
    let echo = |body: Value| legacy::read(body.to_string().as_bytes()).0;
    let mut asked = body(pair(), json!({}));
    asked["eventId"] = json!(840_471_172);
    asked["timestamp"] = json!(1_584_361_937);
    assert_eq!(
        echo(asked.clone()).answer(&Ok(()), 7).to_string(),
        r#"{"code":0,"event_id":"840471172","message":"Success!","timestamp":1584361937}"#
    );
    let refused = Err(Code::NotLive.because("stream 8888_b is not live"));
    assert_eq!(
        echo(asked.clone()).answer(&refused, 7).to_string(),
        r#"{"code":-505,"event_id":"840471172","message":"stream 8888_b is not live","timestamp":1584361937}"#
    );
    asked.as_object_mut().unwrap().remove("timestamp");
    assert_eq!(echo(asked).answer(&Ok(()), 7)["timestamp"], 7);
    let (echo, call) = legacy::read(b"no JSON");
    let answer = echo.answer(&call.map(drop), 7);
    assert_eq!(
        (&answer["code"], &answer["timestamp"]),
        (&json!(-1), &json!(7))
    );
}
