//! What holds of every layout of every scene.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::golden::{known, scene, size};
use super::tests::sized;
use super::*;
use crate::mixer::scene::{Crop, Fit, Length, OnLoss, Place, Source, Template};

fn length() -> impl Strategy<Value = Length> {
    prop_oneof![
        (0.0..3000.0f64).prop_map(Length::Pixels),
        (0.0..100.0f64).prop_map(Length::Share)
    ]
}

fn place() -> impl Strategy<Value = Place> {
    let some = || prop::option::of(length());
    (some(), some(), some(), some()).prop_map(|(x, y, width, height)| Place {
        x,
        y,
        width,
        height,
    })
}

fn crop() -> impl Strategy<Value = Crop> {
    (length(), length(), length(), length()).prop_map(|(x, y, width, height)| Crop {
        x,
        y,
        width,
        height,
    })
}

prop_compose! {
    fn input()(
        place in prop_oneof![Just(Place::default()), place()],
        crop in prop::option::of(crop()),
        fit in prop_oneof![Just(Fit::Letterbox), Just(Fit::Crop), Just(Fit::Stretch)],
        radius in prop::option::of(length()),
        hidden in prop::bool::weighted(0.1),
        opacity in 0.0..=1.0f32,
        own in prop::option::of((2u32..2000, 2u32..2000)),
        presence in prop_oneof![Just(Presence::Present), Just(Presence::Lost), Just(Presence::Awaited)],
        kind in 0..6,
    ) -> (Place, Option<Crop>, Fit, Option<Length>, bool, f32, Fact, i32) {
        let size = own.map(|(width, height)| size(width, height));
        (place, crop, fit, radius, hidden, opacity, Fact { size, presence }, kind)
    }
}

prop_compose! {
    /// Any scene that could pass the checks, and what is known of it.
    fn any_scene()(
        inputs in prop::collection::vec(input(), 1..=16),
        template in prop::sample::select(Template::all().collect::<Vec<_>>()),
        policy in 0..3,
    ) -> (Scene, Known) {
        let count = template.visuals().unwrap_or(inputs.len());
        let mut scene = scene(json!("linkmic"), count - 1);
        scene.template = template;
        scene.on_loss = match policy {
            0 => OnLoss::Freeze,
            1 => OnLoss::Hide { after: Duration::ZERO },
            _ => OnLoss::Placeholder { after: Duration::ZERO, picture: Picture::File("p".into()) },
        };
        let mut known = Known { placeholder: Some(size(300, 200)), ..Known::default() };
        for (to, (place, crop, fit, radius, hidden, opacity, fact, kind)) in
            scene.inputs.iter_mut().zip(inputs.into_iter().cycle())
        {
            (to.place, to.fit, to.crop) = (place, fit, crop);
            (to.radius, to.hidden, to.opacity) = (radius, hidden, opacity);
            if kind == 0 {
                to.source = Source::Colour(Colour::WHITE);
            }
            known.inputs.push(fact);
        }
        (scene, known)
    }
}

fn even_inside(rect: Rect, canvas: Size) -> bool {
    let edges = [rect.x, rect.y, rect.width, rect.height];
    edges.iter().all(|v| v % 2 == 0)
        && rect.width >= 2
        && rect.height >= 2
        && Rect::from(canvas).contains(rect)
}

fn holds(layout: &Layout) -> Result<(), TestCaseError> {
    for cell in &layout.cells {
        let Some(view) = &cell.view else { continue };
        prop_assert!(even_inside(view.rect, layout.canvas), "{view:?}");
        prop_assert!(view.rect.contains(view.picture), "{view:?}");
        prop_assert!(even_inside(view.picture, layout.canvas), "{view:?}");
        prop_assert!((0.0..=1.0).contains(&view.opacity));
        prop_assert!(2 * view.radius <= view.rect.size().shorter());
        if let (Some(part), Some(own)) = (view.source, view.own) {
            prop_assert!(Rect::from(own).contains(part), "{part:?} of {own:?}");
            prop_assert!(part.width >= 2 && part.height >= 2, "{view:?}");
        }
    }
    Ok(())
}

/// By how many pixels the picture is wider than its height and the source's aspect say, at worst of both ways round.
fn distortion(view: &View) -> Option<f64> {
    let of = view.source.map(Rect::size).or(view.own)?;
    let (width, height) = (f64::from(of.width), f64::from(of.height));
    let (w, h) = (
        f64::from(view.picture.width),
        f64::from(view.picture.height),
    );
    Some(
        (w - h * width / height)
            .abs()
            .min((h - w * height / width).abs()),
    )
}

proptest! {
    #[test]
    fn every_box_is_even_and_inside_the_canvas(
        (scene, known) in any_scene(),
        width in 8u32..1500,
        height in 8u32..1500,
    ) {
        let layout = resolve(&scene, size(width * 2, height * 2), &known);
        prop_assert_eq!(layout.cells.len(), scene.inputs.len());
        holds(&layout)?;
        for remark in &layout.remarks {
            prop_assert!(remark.input < scene.inputs.len());
        }
    }

    #[test]
    fn letterboxed_and_cropped_pictures_keep_their_aspect(
        (scene, known) in any_scene(),
        width in 60u32..1500,
        height in 60u32..1500,
    ) {
        let layout = resolve(&scene, size(width * 2, height * 2), &known);
        for (input, cell) in scene.inputs.iter().zip(&layout.cells) {
            let Some(view) = &cell.view else { continue };
            // Cut to a few pixels, a source has hardly an aspect.
            let coarse = view.source.is_some_and(|part| part.size().shorter() < 64)
                || view.picture.size().shorter() < 16;
            if input.fit != Fit::Stretch && !coarse && let Some(off) = distortion(view) {
                // Even sides of picture and part, and bars of up to 2 px left out.
                let grain = f64::from(view.picture.width.max(view.picture.height)) / 32.0;
                prop_assert!(off <= 4.0 + grain, "{off} in {view:?}");
            }
        }
    }

    #[test]
    fn ways_stay_inside_and_end_exactly(
        (from, before) in any_scene(),
        (to, after) in any_scene(),
        share in 0.0..=1.0f64,
        (width, height) in (20u32..1000, 20u32..1000),
    ) {
        let canvas = size(width * 2, height * 2);
        let (from, to) = (resolve(&from, canvas, &before), resolve(&to, canvas, &after));
        prop_assert_eq!(&between(&from, &to, 0.0), &from);
        prop_assert_eq!(&between(&from, &to, 1.0), &to);
        let way = between(&from, &to, share);
        holds(&way)?;
        for cell in from.cells.iter().chain(&to.cells) {
            prop_assert!(way.cell(&cell.id).is_some());
        }
        // And from a way that is broken off.
        holds(&between(&way, &from, share))?;
    }

    #[test]
    fn default_subs_keep_their_aspect_and_never_overlap(
        subs in 1usize..=15,
        width in 60u32..1500,
        height in 60u32..1500,
    ) {
        let canvas = size(width * 2, height * 2);
        let layout = resolve(&scene(json!("linkmic"), subs), canvas, &known(canvas, subs));
        let rects: Vec<_> = layout.cells[1..].iter().map(|c| c.view.as_ref().unwrap().rect).collect();
        for pair in rects.windows(2) {
            // Each edge is rounded to even by itself: one step of 2.
            prop_assert!(pair[1].bottom() <= pair[0].y + 2, "{pair:?}");
        }
        for rect in rects {
            let off = f64::from(rect.width) * 1.5 - f64::from(rect.height);
            prop_assert!(off.abs() <= 4.0, "{rect:?}");
        }
    }

    #[test]
    fn subs_of_one_kind_never_overlap_in_a_template(
        template in prop::sample::select(Template::all().collect::<Vec<_>>()),
        (width, height) in (180u32..1000, 180u32..1000),
        own in prop::sample::select(vec![size(320, 480), size(1280, 720), size(360, 640), size(400, 400)]),
    ) {
        let subs = template.visuals().unwrap_or(5) - 1;
        // The contract's own row of three thirds and margins in 610 is wider than the canvas.
        prop_assume!(!matches!(template, Template::Stacked | Template::N610));
        let canvas = size(width * 2, height * 2);
        let scene = scene(serde_json::to_value(template).unwrap(), subs);
        let known = sized(&[vec![canvas], vec![own; subs]].concat());
        let layout = resolve(&scene, canvas, &known);
        let first = usize::from(!matches!(template, Template::Grid | Template::SideBySide));
        let rects: Vec<_> = layout.cells[first..].iter().map(|c| c.view.as_ref().unwrap().rect).collect();
        for (at, a) in rects.iter().enumerate() {
            for b in &rects[..at] {
                // Rounded edges may meet by a step of 2.
                let apart = a.x + 2 >= b.right() || b.x + 2 >= a.right()
                    || a.y + 2 >= b.bottom() || b.y + 2 >= a.bottom();
                prop_assert!(apart, "{template}: {a:?} and {b:?} on {canvas:?}");
            }
        }
    }
}
