//! Doubts about a layout: what is drawn, but hardly as it was meant.

use super::{Layout, Rect};
use crate::mixer::scene::{Doubt, Draft, Scene, Warning};

/// A box with a side under this shows nothing that anybody could make out.
pub const TINY: u32 = 16;

/// A doubt about one input's place; [`Draft::doubts`] gives it the path in the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Index in the scene's order.
    pub input: usize,
    pub field: &'static str,
    pub kind: Doubt,
    pub message: String,
}

impl Draft {
    /// All doubts about this scene in that layout of it, each field once, in the order of the request.
    pub fn doubts(&self, layout: &Layout) -> Vec<Warning> {
        let mut doubts = self.warnings.clone();
        let mut remarks: Vec<_> = layout
            .remarks
            .iter()
            .filter_map(|remark| Some((*self.order.get(remark.input)?, remark)))
            .collect();
        remarks.sort_by_key(|&(index, _)| index);
        for (index, remark) in remarks {
            let path = format!("inputs[{index}].{}", remark.field);
            if doubts
                .iter()
                .any(|d| d.path == path && d.kind == remark.kind)
            {
                continue;
            }
            doubts.push(Warning {
                path,
                kind: remark.kind,
                message: remark.message.clone(),
            });
        }
        doubts
    }
}

/// Small and covered boxes.
pub(super) fn of(scene: &Scene, layout: &Layout) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let views: Vec<_> = layout
        .cells
        .iter()
        .enumerate()
        .filter_map(|(index, cell)| Some((index, cell.view.as_ref()?)))
        .collect();
    for &(input, view) in &views {
        let Rect { width, height, .. } = view.rect;
        if width < TINY || height < TINY {
            remarks.push(Remark {
                input,
                field: if width < TINY { "width" } else { "height" },
                kind: Doubt::Tiny,
                message: format!("the box is {width}x{height}; {TINY} pixels is the least to see"),
            });
        }
        let above = |&&(other, cover): &&(usize, &super::View)| {
            (cover.order, other) > (view.order, input)
                && cover.is_solid()
                && cover.rect.contains(view.rect)
        };
        if let Some(&(cover, _)) = views.iter().find(above) {
            let id = &scene.inputs[cover].id;
            remarks.push(Remark {
                input,
                field: "layer",
                kind: Doubt::Covered,
                message: format!("the box lies wholly behind that of {id}"),
            });
        }
    }
    remarks
}
