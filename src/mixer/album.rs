//! The still pictures of a scene: which there are, which of them have to be got, and getting them.
//!
//! Getting one may take seconds, on the thread that a request is answered on.

use super::cast::Stills;
use super::scene::{Draft, Picture, Scene, Source};
use super::{Error, MixRequest, Mixer};

/// All of a scene's, by the request's fields that name them.
fn pictures<'a>(
    scene: &'a Scene,
    order: &'a [usize],
) -> impl Iterator<Item = (String, &'a Picture)> {
    let inputs = scene.inputs.iter().zip(order).filter_map(|(input, index)| {
        let Source::Picture(picture) = &input.source else {
            return None;
        };
        Some((format!("inputs[{index}].picture"), picture))
    });
    let placeholder = scene.on_loss.placeholder();
    let mark = scene.watermark.as_ref().map(|asked| &asked.picture);
    let others = [("on_loss.picture", placeholder), ("watermark", mark)];
    let others = others
        .into_iter()
        .filter_map(|(path, picture)| Some((path.to_owned(), picture?)));
    inputs.chain(others)
}

impl Mixer {
    /// All still pictures of a scene, decoded; those in `kept` once and for all.
    pub(super) fn stills(
        &self,
        scene: &Scene,
        order: &[usize],
        kept: &Stills,
    ) -> Result<Stills, Error> {
        let mut stills = Stills::new();
        for (path, picture) in pictures(scene, order) {
            if stills.contains_key(picture) {
                continue;
            }
            let raw = match kept.get(picture) {
                Some(raw) => raw.clone(),
                None => self
                    .shared
                    .gallery
                    .get(picture)
                    .map_err(|error| Error::Picture {
                        path,
                        message: error.to_string(),
                    })?,
            };
            stills.insert(picture.clone(), raw);
        }
        Ok(stills)
    }

    /// Has [`Self::put`] of that request to get a still picture, so that it may take seconds? Of a request that will be
    /// refused anyway it has not.
    pub fn has_to_get_pictures(&self, id: &str, request: &MixRequest) -> bool {
        let Ok(Draft { scene, order, .. }) = Scene::draft(request) else {
            return false;
        };
        let running = self.sessions().get(id).cloned();
        let kept = running.map(|session| session.stills()).unwrap_or_default();
        pictures(&scene, &order).any(|(_, picture)| !kept.contains_key(picture))
    }
}
