//! CreateCommonMixStream and CancelCommonMixStream.

use serde_json::{Map, Value};

use super::Problem;
use super::params::Params;
use crate::compat::mix::{Ask, Code, Crop, Encoding, Input, Kind, Output, V3};

/// Longest text of a caller's own in the output's SEI messages, in bytes.
const MAX_SEI: usize = 1_024;
const SAMPLE_RATES: [i64; 12] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
];

/// The session that CancelCommonMixStream names.
pub(super) fn cancel(object: &Map<String, Value>) -> Result<String, Problem> {
    Params::new(object, "", &["MixStreamSessionId"])?.required("MixStreamSessionId")
}

/// The request of CreateCommonMixStream.
pub(super) fn create(object: &Map<String, Value>) -> Result<Ask, Problem> {
    let params = Params::new(
        object,
        "",
        &[
            "MixStreamSessionId",
            "InputStreamList",
            "OutputParams",
            "MixStreamTemplateId",
            "ControlParams",
        ],
    )?;
    let session = params.required("MixStreamSessionId")?;
    let inputs = params.objects("InputStreamList")?;
    let output = Params::new(
        params.required_object("OutputParams")?,
        "OutputParams.",
        &[
            "OutputStreamName",
            "OutputStreamType",
            "OutputStreamBitRate",
            "OutputStreamGop",
            "OutputStreamFrameRate",
            "OutputAudioBitRate",
            "OutputAudioSampleRate",
            "OutputAudioChannels",
            "MixSei",
        ],
    )?;
    let mut ask = Ask {
        session,
        output: output.required("OutputStreamName")?,
        kind: match output.whole("OutputStreamType")? {
            None | Some(0) => Some(Output::Replaces),
            Some(1) => Some(Output::New),
            Some(_) => None,
        },
        template: params.whole("MixStreamTemplateId")?.unwrap_or(0),
        inputs: inputs.into_iter().map(input).collect::<Result<_, _>>()?,
        encoding: encoding(&output)?,
        crop_to_fill: false,
        copy: false,
        limits: V3,
    };
    if let Some(control) = params.object("ControlParams")? {
        controls(control, &mut ask)?;
    }
    Ok(ask)
}

fn encoding(output: &Params<'_>) -> Result<Encoding, Problem> {
    let within = |field: &str, least: i64, most: i64| match output.whole(field)? {
        Some(value) if !(least..=most).contains(&value) => Err(Problem::from(
            Code::Parameter.because(format!("{field} {value} is outside {least} to {most}")),
        )),
        value => Ok(value),
    };
    let sample_rate = output.whole("OutputAudioSampleRate")?;
    if let Some(rate) = sample_rate.filter(|rate| !SAMPLE_RATES.contains(rate)) {
        let refusal =
            Code::Parameter.because(format!("OutputAudioSampleRate {rate} is none of AAC's"));
        return Err(refusal.into());
    }
    let sei = output.text("MixSei")?.filter(|text| !text.is_empty());
    if let Some(text) = sei.as_ref().filter(|text| text.len() > MAX_SEI) {
        let (bytes, refused) = (text.len(), Code::Parameter);
        let refusal = refused.because(format!("MixSei of {bytes} bytes is over {MAX_SEI}"));
        return Err(refusal.into());
    }
    Ok(Encoding {
        video_kbps: output.number("OutputStreamBitRate")?,
        gop: within("OutputStreamGop", 1, 10)?,
        fps: within("OutputStreamFrameRate", 1, 60)?,
        // Under 16 there is no sound that the mixer's encoder makes.
        audio_kbps: within("OutputAudioBitRate", 1, 500)?.map(|kbps| kbps.max(16)),
        sample_rate,
        channels: within("OutputAudioChannels", 1, 2)?,
        sei,
        pass_sei: false,
    })
}

fn controls(object: &Map<String, Value>, ask: &mut Ask) -> Result<(), Problem> {
    let control = Params::new(
        object,
        "ControlParams.",
        &[
            "UseMixCropCenter",
            "AllowCopy",
            "PassInputSei",
            "UsePictureTransparent",
        ],
    )?;
    let flag = |field: &str| match control.whole(field)? {
        None | Some(0) => Ok(false),
        Some(1) => Ok(true),
        Some(value) => Err(Problem::from(
            Code::Parameter.because(format!("{field} {value} is neither 0 nor 1")),
        )),
    };
    ask.crop_to_fill = flag("UseMixCropCenter")?;
    ask.copy = flag("AllowCopy")?;
    // Pictures are always mixed with what of them is transparent.
    flag("UsePictureTransparent")?;
    ask.encoding.pass_sei = flag("PassInputSei")?;
    Ok(())
}

/// Nothing that is asked for is silently left out.
fn unsupported(field: &str) -> Problem {
    Code::Parameter
        .because(format!("{field} is not supported by this server"))
        .into()
}

fn input(object: &Map<String, Value>) -> Result<Input, Problem> {
    let params = Params::new(
        object,
        "InputStreamList.",
        &[
            "InputStreamName",
            "LayoutParams",
            "CropParams",
            "PortraitSegmentParams",
        ],
    )?;
    let id = params.required("InputStreamName")?;
    if params.object("PortraitSegmentParams")?.is_some() {
        return Err(unsupported("PortraitSegmentParams"));
    }
    let layout = Params::new(
        params.required_object("LayoutParams")?,
        "LayoutParams.",
        &[
            "ImageLayer",
            "InputType",
            "ImageHeight",
            "ImageWidth",
            "LocationX",
            "LocationY",
            "Color",
            "WatermarkId",
            "WebPageUrl",
        ],
    )?;
    if layout
        .text("WebPageUrl")?
        .is_some_and(|url| !url.is_empty())
    {
        return Err(unsupported("WebPageUrl"));
    }
    let number = layout.whole("InputType")?.unwrap_or(0);
    let kind = Kind::numbered(number).ok_or_else(|| {
        Problem::from(Code::Input.because(format!("InputType {number} is none of 0, 2, 3, 4, 5")))
    })?;
    let crop = match params.object("CropParams")? {
        None => None,
        Some(object) => {
            let fields = [
                "CropWidth",
                "CropHeight",
                "CropStartLocationX",
                "CropStartLocationY",
            ];
            let crop = Params::new(object, "CropParams.", &fields)?;
            Some(Crop {
                width: crop.number(fields[0])?,
                height: crop.number(fields[1])?,
                x: crop.number(fields[2])?,
                y: crop.number(fields[3])?,
            })
        }
    };
    Ok(Input {
        id,
        kind,
        layer: layout.whole("ImageLayer")?,
        width: layout.number("ImageWidth")?,
        height: layout.number("ImageHeight")?,
        x: layout.number("LocationX")?,
        y: layout.number("LocationY")?,
        colour: layout.text("Color")?.filter(|colour| !colour.is_empty()),
        picture: layout.whole("WatermarkId")?,
        crop,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn section_3_control_params_are_read_and_nothing_but_0_and_1_is_taken() {
        let asked = |field: &str, value: i64| {
            let request = json!({
                "MixStreamSessionId": "room",
                "InputStreamList": [{"InputStreamName": "a", "LayoutParams": {"ImageLayer": 1}}],
                "OutputParams": {"OutputStreamName": "a"},
                "ControlParams": {field: value},
            });
            let object = request.as_object().cloned().unwrap_or_default();
            let ask = create(&object).ok()?;
            Some([ask.crop_to_fill, ask.copy, ask.encoding.pass_sei])
        };
        for (field, set) in [
            ("UseMixCropCenter", [true, false, false]),
            ("AllowCopy", [false, true, false]),
            ("PassInputSei", [false, false, true]),
            ("UsePictureTransparent", [false; 3]),
        ] {
            assert_eq!(asked(field, 1), Some(set), "{field}");
            assert_eq!(asked(field, 0), Some([false; 3]), "{field}");
            assert_eq!(asked(field, 2), None, "{field}");
        }
        assert_eq!(asked("PassInputSEI", 1), None);
    }
}
