//! Whether a scene can be mixed beside the mixes that there are.
//!
//! Looks at scenes only; called under the lock of all mixes, so that two requests cannot both be right.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::conflict;
use super::scene::Scene;
use super::session::Session;
use super::{Clash, Error, MAX_MIXES_OF_A_STREAM};
use crate::media::StreamKey;

/// One mix per output, and no mix may feed on itself, whether directly or through others.
pub(super) fn outputs(
    sessions: &HashMap<String, Arc<Session>>,
    id: &str,
    scene: &Scene,
) -> Result<(), Error> {
    let others: Vec<(&String, Scene)> = sessions
        .iter()
        .filter(|(other, _)| *other != id)
        .map(|(other, session)| (other, session.scene()))
        .collect();
    if let Some((other, _)) = others
        .iter()
        .find(|(_, s)| s.output.key == scene.output.key)
    {
        return Err(conflict(
            Clash::Taken,
            "output.stream",
            format!("{} is the output of mix {other}", scene.output.key),
        ));
    }
    // A mix in place leaves the source feed alone, and inputs are source feeds: only new streams lead on.
    if scene.in_place {
        return Ok(());
    }
    let mut reached: Vec<&StreamKey> = vec![&scene.output.key];
    let mut at = 0;
    while let Some(&key) = reached.get(at) {
        at += 1;
        for (other, next) in others.iter().filter(|(_, s)| !s.in_place) {
            if next.inputs.iter().any(|input| input.key() == Some(key))
                && !reached.contains(&&next.output.key)
            {
                if scene
                    .inputs
                    .iter()
                    .any(|input| input.key() == Some(&next.output.key))
                {
                    return Err(conflict(
                        Clash::Loop,
                        "inputs",
                        format!(
                            "{} is made of this mix's output by mix {other}",
                            next.output.key
                        ),
                    ));
                }
                reached.push(&next.output.key);
            }
        }
    }
    Ok(())
}

/// No stream may be in too many mixes. `order` has the places of the scene's inputs in the request.
pub(super) fn streams(
    sessions: &HashMap<String, Arc<Session>>,
    id: &str,
    scene: &Scene,
    order: &[usize],
) -> Result<(), Error> {
    let others = sessions.iter().filter(|(other, _)| *other != id);
    let others: Vec<_> = others.map(|(_, session)| session.scene()).collect();
    for (input, place) in scene.inputs.iter().zip(order) {
        let Some(key) = input.key() else { continue };
        let uses = |other: &&Scene| other.inputs.iter().any(|input| input.key() == Some(key));
        let used = others.iter().filter(uses).count();
        if used >= MAX_MIXES_OF_A_STREAM {
            return Err(conflict(
                Clash::Crowded,
                &format!("inputs[{place}].stream"),
                format!(
                    "{key} is in {used} mixes; a stream may be in {MAX_MIXES_OF_A_STREAM} at most"
                ),
            ));
        }
    }
    Ok(())
}
