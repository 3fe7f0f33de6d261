//! What becomes of a request to mix.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

use super::ask::{check_id, check_label};
use super::{Ask, Code, Facts, Kind, MAX_INPUTS, MAX_MIXES, Output, Refusal, canvas, scene};
use crate::compat::account::{Account, Picture};

/// Numbers of templates, and how many inputs with a picture each is for.
const TEMPLATES: [(i64, usize); 12] = [
    (10, 2),
    (20, 2),
    (30, 2),
    (40, 2),
    (50, 2),
    (310, 3),
    (390, 3),
    (391, 3),
    (410, 4),
    (510, 5),
    (590, 5),
    (610, 6),
];

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::compat) enum Plan {
    /// The mix of that id is to be this scene, in native JSON.
    Mix {
        id: String,
        scene: Value,
        /// A mix that is ending holds the id or the output still: wait for it.
        wait: bool,
    },
    /// The mix of that id is to end.
    Stop { id: String },
    /// Nothing was mixed that could end.
    Nothing,
}

/// Judges a start, which is also the update of a session and, with one input, its end.
///
/// # Errors
/// The first thing that is wrong: what the request itself says comes before what it says of streams and mixes.
pub(in crate::compat) fn start(
    account: &Account,
    pictures: &BTreeMap<u32, Picture>,
    ask: &Ask,
    facts: &Facts,
) -> Result<Plan, Refusal> {
    check_id(&ask.session, "session id")?;
    check_id(&ask.output, "output stream id")?;
    match ask.inputs.len() {
        0 => return Err(Code::Body.because("input stream list is empty")),
        1 if !(ask.copy && ask.kind == Some(Output::New)) => return stop(account, ask, facts),
        count if count > MAX_INPUTS => {
            return Err(Code::InputCount.because(format!(
                "{count} input streams; a mix has 1 to {MAX_INPUTS}"
            )));
        }
        _ => {}
    }
    for input in &ask.inputs {
        if input.kind.is_stream() {
            check_id(&input.id, "input stream id")?;
        } else {
            check_label(&input.id)?;
        }
        for (value, what) in [
            (input.width, "image_width"),
            (input.height, "image_height"),
            (input.x, "location_x"),
            (input.y, "location_y"),
        ] {
            ask.limits.length(value.unwrap_or(0.0), what)?;
        }
    }
    let order = layers(ask)?;
    template(ask)?;
    bitrate(ask)?;
    streams(ask)?;
    let id = account.mix_id(&ask.session);
    session(ask, &id, facts)?;
    live(account, ask, facts)?;
    for input in ask.inputs.iter().filter(|input| input.kind.is_stream()) {
        if facts.mixes_of(&input.id, &id) >= MAX_MIXES {
            return Err(
                Code::Crowded.because(format!("{} is in {MAX_MIXES} mixes already", input.id))
            );
        }
    }
    let canvas = canvas::size(ask, &order, facts)?;
    let scene = scene::native(account, pictures, ask, &order, canvas, facts)?;
    let wait = facts.is_in_the_way(&id, &ask.output);
    Ok(Plan::Mix { id, scene, wait })
}

/// A list of one input ends the mix of its session, as clients of 2017 do at every leave, and is no mistake when there is
/// none.
fn stop(account: &Account, ask: &Ask, facts: &Facts) -> Result<Plan, Refusal> {
    let id = account.mix_id(&ask.session);
    if let Some(mix) = facts.mix(&id) {
        return if mix.output == ask.output {
            Ok(Plan::Stop { id })
        } else {
            Err(changed(&mix.output))
        };
    }
    if facts.holder(&ask.output, &id).is_some() {
        return Err(taken(&ask.output));
    }
    if ask.inputs.iter().any(|input| input.id == ask.output) {
        return Ok(Plan::Nothing);
    }
    match ask.kind {
        Some(Output::New) => Err(Code::TooFew.because("input streams must be at least two")),
        _ => Err(Code::OutputKind
            .because("output stream id must be one of the inputs where output stream type is 0")),
    }
}

/// Judges a cancel: gives the id of the mix that is to end.
///
/// # Errors
/// When there is no such session, or it has another output than the request says.
pub(in crate::compat) fn cancel(
    account: &Account,
    session: &str,
    output: Option<&str>,
    facts: &Facts,
) -> Result<String, Refusal> {
    let id = account.mix_id(session);
    let mix = facts.mix(&id).ok_or_else(no_session)?;
    match output {
        Some(output) if output != mix.output => {
            Err(Code::OtherOutput
                .because(format!("output stream id of the session is {}", mix.output)))
        }
        _ => Ok(id),
    }
}

pub(in crate::compat) fn no_session() -> Refusal {
    Code::NoSession.because("mix stream session does not exist")
}

fn changed(output: &str) -> Refusal {
    Code::OutputChanged.because(format!(
        "the session's output stream id is {output}; cancel it before it gets another"
    ))
}

fn taken(output: &str) -> Refusal {
    Code::OutputTaken.because(format!(
        "{output} already use as background in other sessionid"
    ))
}

/// The inputs' places in the request by rising layer.
fn layers(ask: &Ask) -> Result<Vec<usize>, Refusal> {
    let mut seen = HashSet::new();
    for input in &ask.inputs {
        let inside = |layer: &i64| (1..=MAX_INPUTS as i64).contains(layer);
        let Some(layer) = input.layer.filter(inside) else {
            return Err(Code::Layers.because(format!(
                "image layer of {} is not in 1 to {MAX_INPUTS}",
                input.id
            )));
        };
        if !seen.insert(layer) {
            return Err(Code::Layers.because(format!("image layer {layer} is given twice")));
        }
    }
    let mut order: Vec<usize> = (0..ask.inputs.len()).collect();
    order.sort_by_key(|&at| ask.inputs[at].layer);
    Ok(order)
}

fn template(ask: &Ask) -> Result<(), Refusal> {
    if ask.template == 0 {
        return Ok(());
    }
    let known = TEMPLATES.iter().find(|(id, _)| *id == ask.template);
    let Some((_, wanted)) = known else {
        return Err(Code::Template.because(format!("there is no template id {}", ask.template)));
    };
    let visual = |kind: Kind| kind.is_visual();
    let count = ask.inputs.iter().filter(|input| visual(input.kind)).count();
    if count != *wanted {
        // In the vendor's words, which callers look for.
        return Err(Code::Template.because("input stream num is not match the template id!"));
    }
    Ok(())
}

fn bitrate(ask: &Ask) -> Result<(), Refusal> {
    match ask.encoding.video_kbps {
        Some(kbps) if !(1.0..=ask.limits.kbps).contains(&kbps) => Err(Code::Bitrate.because(
            format!("output bitrate {kbps} is outside 1 to {}", ask.limits.kbps),
        )),
        _ => Ok(()),
    }
}

/// The output's kind against the inputs' names; no stream stands there twice.
fn streams(ask: &Ask) -> Result<(), Refusal> {
    let streams = ask.inputs.iter().filter(|input| input.kind.is_stream());
    let mut names = HashSet::new();
    for input in streams {
        if !names.insert(input.id.as_str()) {
            return Err(Code::Input.because(format!("stream {} is an input twice", input.id)));
        }
    }
    if names.is_empty() {
        return Err(Code::Parameter.because("no stream among the inputs"));
    }
    match (ask.kind, names.contains(ask.output.as_str())) {
        (Some(Output::Replaces), true) | (Some(Output::New), false) => Ok(()),
        (Some(Output::Replaces), false) => Err(Code::OutputKind
            .because("output stream id must be one of the inputs where output stream type is 0")),
        (Some(Output::New), true) => Err(Code::OutputKind
            .because("output stream id must not be an input where output stream type is 1")),
        (None, _) => Err(Code::OutputKind.because("output stream type is neither 0 nor 1")),
    }
}

/// The session and its output against the mixes that there are.
fn session(ask: &Ask, id: &str, facts: &Facts) -> Result<(), Refusal> {
    let own = facts.mix(id);
    if let Some(mix) = own
        && mix.output != ask.output
    {
        return Err(changed(&mix.output));
    }
    if facts.holder(&ask.output, id).is_some() {
        return Err(taken(&ask.output));
    }
    let published = facts.streams.contains_key(&ask.output);
    let own = own.is_some() || facts.is_in_the_way(id, &ask.output);
    if ask.kind == Some(Output::New) && published && !own {
        return Err(Code::OutputKind.because(format!(
            "{} is a stream already; output stream type 1 needs a new one",
            ask.output
        )));
    }
    Ok(())
}

/// Every stream must have begun; so must its account be the caller's.
fn live(account: &Account, ask: &Ask, facts: &Facts) -> Result<(), Refusal> {
    let streams = ask.inputs.iter().filter(|input| input.kind.is_stream());
    for input in streams {
        let own = account.stream(&input.id).is_some();
        let stream = facts.streams.get(&input.id).filter(|_| own);
        if !stream.is_some_and(|stream| stream.begun) {
            return Err(Code::NotLive.because(format!("stream {} is not live", input.id)));
        }
    }
    if account.stream(&ask.output).is_none() {
        return Err(Code::Parameter.because("output stream id is none of this account's"));
    }
    Ok(())
}
