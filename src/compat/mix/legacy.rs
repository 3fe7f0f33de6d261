//! Mix_StreamV2: the body of the legacy form, and its answer.
//!
//! Reads what real callers send: whatever content type it claims to be, percent-encoded wholly or in part, `eventid` for
//! `eventId`, numbers as texts, keys that nobody knows, any `app_id` (callers send the IM product's, or none; the query's
//! `appid` decides).

use serde_json::{Value, json};

use super::{Ask, Code, Crop, Encoding, Input, Kind, LEGACY, Output, Refusal};
use crate::compat::loose::{number, present, text, whole};

/// What a body asks for.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::compat) enum Call {
    /// Start, update, or with one input stop.
    Start(Ask),
    Cancel {
        session: String,
        output: Option<String>,
    },
}

/// What of the request comes back in the answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::compat) struct Echo {
    event: Option<String>,
    timestamp: Option<i64>,
}

impl Echo {
    /// The answer. `now` is UNIX seconds.
    pub fn answer(&self, done: &Result<(), Refusal>, now: u64) -> Value {
        let (code, message) = match done {
            Ok(()) => (0, "Success!"),
            Err(refusal) => (refusal.code.number(), refusal.message.as_str()),
        };
        json!({
            "code": code,
            "event_id": self.event.as_deref().unwrap_or_default(),
            "message": message,
            "timestamp": self.timestamp.unwrap_or(now as i64),
        })
    }
}

/// Reads a body.
pub(in crate::compat) fn read(body: &[u8]) -> (Echo, Result<Call, Refusal>) {
    let Some(body) = json_of(body) else {
        let refusal = Code::Body.because("the body is not JSON");
        return (Echo::default(), Err(refusal));
    };
    let event = present(&body, "eventId").or_else(|| present(&body, "eventid"));
    let echo = Echo {
        event: event.and_then(text),
        timestamp: present(&body, "timestamp").and_then(whole),
    };
    let call = call(&body, &echo);
    (echo, call)
}

/// The JSON of a body that may be percent-encoded, or stand as a form's only name before a `=`.
fn json_of(body: &[u8]) -> Option<Value> {
    let read = |bytes: &[u8]| {
        let value = serde_json::from_slice::<Value>(bytes).ok();
        value.filter(Value::is_object)
    };
    read(body).or_else(|| {
        let decoded = percent_decoded(body);
        let decoded = decoded.trim_ascii();
        read(decoded).or_else(|| read(decoded.strip_suffix(b"=")?))
    })
}

fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                // Two digits under 16.
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

fn call(body: &Value, echo: &Echo) -> Result<Call, Refusal> {
    match echo.event.as_deref().map(str::trim) {
        None | Some("0") => return Err(Code::Parameter.because("eventId is missing or 0")),
        Some(_) => {}
    }
    let interface = present(body, "interface");
    let interface = interface.ok_or_else(|| Code::Body.because("interface is missing"))?;
    let name = present(interface, "interfaceName").and_then(Value::as_str);
    let known = ["Mix_StreamV2", "Mix_Stream"];
    if !name.is_some_and(|name| known.iter().any(|known| known.eq_ignore_ascii_case(name))) {
        return Err(Code::Body.because("interfaceName is not Mix_StreamV2"));
    }
    let para = present(interface, "para").filter(|para| para.is_object());
    let para = para.ok_or_else(|| Code::Body.because("interface.para is missing"))?;
    let operation = present(para, "interface").and_then(Value::as_str);
    match operation.unwrap_or_default().to_ascii_lowercase().as_str() {
        "mix_streamv2.start_mix_stream_advanced" => Ok(Call::Start(start(para)?)),
        "mix_streamv2.cancel_mix_stream" => Ok(Call::Cancel {
            session: named(para, "mix_stream_session_id")?,
            output: present(para, "output_stream_id").and_then(text),
        }),
        _ => Err(Code::Body.because(
            "interface.para.interface is neither mix_streamv2.start_mix_stream_advanced nor mix_streamv2.cancel_mix_stream",
        )),
    }
}

/// A name that must be there.
fn named(para: &Value, field: &str) -> Result<String, Refusal> {
    let value = para.get(field).and_then(text);
    value.ok_or_else(|| Code::Parameter.because(format!("{field} is missing")))
}

fn start(para: &Value) -> Result<Ask, Refusal> {
    let list = para.get("input_stream_list").and_then(Value::as_array);
    let list = list.ok_or_else(|| Code::Body.because("input_stream_list is missing"))?;
    let kind = match present(para, "output_stream_type") {
        None => Some(Output::Replaces),
        Some(value) => match whole(value) {
            Some(0) => Some(Output::Replaces),
            Some(1) => Some(Output::New),
            _ => None,
        },
    };
    let template = match present(para, "mix_stream_template_id") {
        None => 0,
        Some(value) => whole(value).ok_or_else(|| {
            Code::Template.because("mix_stream_template_id is not a whole number")
        })?,
    };
    let bitrate = match present(para, "output_stream_bitrate") {
        None => None,
        Some(value) => Some(
            number(value)
                .ok_or_else(|| Code::Bitrate.because("output_stream_bitrate is not a number"))?,
        ),
    };
    Ok(Ask {
        session: named(para, "mix_stream_session_id")?,
        output: named(para, "output_stream_id")?,
        kind,
        template,
        inputs: list.iter().map(input).collect::<Result<_, _>>()?,
        encoding: Encoding {
            video_kbps: bitrate,
            ..Encoding::default()
        },
        crop_to_fill: false,
        copy: false,
        limits: LEGACY,
    })
}

fn input(item: &Value) -> Result<Input, Refusal> {
    let wrong = |message: String| Code::Input.because(message);
    let id = item.get("input_stream_id").and_then(text);
    let id = id.ok_or_else(|| wrong("input_stream_id is missing".into()))?;
    let layout = item
        .get("layout_params")
        .filter(|layout| layout.is_object());
    let layout = layout.ok_or_else(|| wrong(format!("layout_params of {id} is missing")))?;
    let kind = match present(layout, "input_type") {
        None => Some(Kind::Both),
        Some(value) => whole(value).and_then(Kind::numbered),
    };
    let kind = kind.ok_or_else(|| wrong(format!("input_type of {id} is none of 0, 2, 3, 4, 5")))?;
    let length = |object: &Value, field: &str| match present(object, field) {
        None => Ok(None),
        Some(value) => number(value)
            .map(Some)
            .ok_or_else(|| wrong(format!("{field} of {id} is not a number"))),
    };
    let crop = match present(item, "crop_params").filter(|crop| crop.is_object()) {
        None => None,
        Some(crop) => Some(Crop {
            width: length(crop, "crop_width")?,
            height: length(crop, "crop_height")?,
            x: length(crop, "crop_x")?,
            y: length(crop, "crop_y")?,
        }),
    };
    Ok(Input {
        kind,
        layer: present(layout, "image_layer").and_then(whole),
        width: length(layout, "image_width")?,
        height: length(layout, "image_height")?,
        x: length(layout, "location_x")?,
        y: length(layout, "location_y")?,
        colour: present(layout, "color").map(|value| match (value, whole(value)) {
            (Value::String(text), _) => text.clone(),
            // Written as a number, it lost its spelling.
            (Value::Number(_), Some(rgb)) => format!("0x{rgb:06X}"),
            _ => value.to_string(),
        }),
        picture: present(layout, "picture_id").and_then(whole),
        crop,
        id,
    })
}
